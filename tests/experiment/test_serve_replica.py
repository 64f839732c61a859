"""A replica's process: what it is started with is what its node gets."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

from farwrite.engine import primary_kernel as primary
from farwrite.engine.control import Address
from farwrite.experiment.serve import replica
from farwrite.experiment.serve.replica import BOARD_WORDS, Order, run_replica
from farwrite.lab.shared_memory import board


def test_the_latency_budget_of_the_command_line_reaches_the_node(monkeypatch):
    made = []

    class Node:
        def __init__(self, *words, **options):
            made.append(options)

        def run(self):
            pass

    monkeypatch.setattr(replica, "ServedNode", Node)
    monkeypatch.setattr(replica, "Frontend", lambda *words, **options: SimpleNamespace(close=lambda: None))
    order = Order(
        "near", {"near": Address("127.0.0.1", 1, 2)}, None, bytes(32), 7, primary.C, primary.CONSENT, 0, 10**9, True, False,
        Path("/nowhere"), None, None, 1 << 20, None, None, {}, latency_budget_ns=5_000_000,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        run_replica(order, SimpleNamespace(volume_bytes=1 << 20), -1, stack.enter_context(board(BOARD_WORDS)))
    assert [one["latency_budget_ns"] for one in made] == [5_000_000]
