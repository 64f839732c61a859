"""One trial of a drill: replicas begun anew, a load, the events, recovery proven to have ended, and the volume read back.

A limit of time here decides what is known, never what is lost: a trial that waits in vain is unknown, with its reason.
"""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import numpy as np

from ...analysis.drill_recording import ACKED, Done, Found, Trial
from ...base.errors import UnfitError
from ...base.units import NS_PER_S, format_time
from ...lab.lab import Lab
from ...workload.drill_scenario import Scenario, Setup
from ..voters import PATIENCE_S, UndecidedError
from .cluster import Cluster

RECOVERY_S_MIN, RECOVERY_TIMEOUTS = 10.0, 10  # How long the load goes on for a recovery, and how long before repair.
EQUAL_S = 10.0
LATE_SHARE = 0.5  # Of the bound: where the client itself was later, an outage may be its own.


def play(
    lab: Lab, scenario: Scenario, setup: Setup, index: int, directory: Path | None = None, is_verbose: bool = False
) -> Trial:
    """One trial, from new files to what is left of them."""
    seed = random.Random(f"{setup.seed} drill {index}").getrandbits(62)
    events: list[Done] = []
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, lab, scenario, setup, seed, directory, is_verbose)
        unknown, is_repaired, stopped_ns = "", False, 0
        remarks: list[str] = []
        found: list[Found] = []
        try:
            cluster.start_all()
            cluster.start_client()
            act(cluster, scenario, instants(scenario, setup, index), events)
            stopped_ns = observe(cluster, scenario, events)
            is_repaired, led_by, remarks = settle(cluster)
            found = survivors(cluster, led_by, remarks)
        except UnfitError as refusal:  # What did not come, cannot be read back or does not answer: not known is not lost.
            unknown = str(refusal)
        if cluster.ledger.is_full:
            unknown = "the ledger was full before the end: choose a lower --rate, or a shorter scenario"
        late_ns = int(cluster.ledger.head.late_ns_max)
        if late_ns > LATE_SHARE * setup.bound_ns:
            remarks = [*remarks, f"the machine was busy: the client itself was late by up to {format_time(late_ns)}"]
        remarks = [*remarks, *cluster.endings]
        strays = int(cluster.ledger.head.strays)
        if strays:
            remarks.append(f"a door answered what had not been asked on that connection, by up to {strays} answers")
        history = cluster.ledger.history()
        return Trial(
            index=index, events=events, connections=cluster.connections(), notes=cluster.notes(),
            history=history, stopped_ns=stopped_ns or max([0, *history.done_ns]), found=found, repaired=is_repaired,
            unknown=unknown, remarks=remarks, strays=strays,
        )  # fmt: skip


def instants(scenario: Scenario, setup: Setup, index: int) -> list[int]:
    """When each event is to happen in this trial."""
    dice = random.Random(f"{setup.seed} instants {index}")
    return [
        event.at_ns if event.until_ns is None else round(dice.uniform(event.at_ns, event.until_ns)) for event in scenario.event
    ]


def act(cluster: Cluster, scenario: Scenario, planned: list[int], events: list[Done]) -> None:
    """Every event at its instant, in order, and when it was really done."""
    begin_ns = int(cluster.ledger.head.begin_ns)
    for event, planned_ns in zip(scenario.event, planned, strict=True):
        pause(cluster, begin_ns + planned_ns)
        before_ns = time.monotonic_ns()
        note = cluster.do(event)
        events.append(Done(
            text=event.text, kind=event.kind, planned_ns=planned_ns, begin_ns=before_ns - begin_ns,
            end_ns=time.monotonic_ns() - begin_ns, note=note,
        ))  # fmt: skip


def pause(cluster: Cluster, until_ns: int) -> None:
    """Sleep until then; a process that ends meanwhile makes the trial unknown."""
    while (left_ns := until_ns - time.monotonic_ns()) > 0:
        cluster.check()
        time.sleep(min(left_ns / NS_PER_S, 0.02))


def observe(cluster: Cluster, scenario: Scenario, events: list[Done]) -> int:
    """Let the load go on until the end, and then until writes are acknowledged within the bound, if they ever are; then begin no
    more. Answers when that was."""
    begin_ns = int(cluster.ledger.head.begin_ns)
    pause(cluster, begin_ns + scenario.end_ns)
    cluster.comes(lambda: is_served(cluster, begin_ns + events[-1].end_ns), recovery_s(cluster.setup))
    stopped_ns = time.monotonic_ns() - begin_ns
    cluster.ledger.head.stop = 1
    return stopped_ns


def recovery_s(setup: Setup) -> float:
    """How long a recovery is waited for."""
    return max(RECOVERY_S_MIN, RECOVERY_TIMEOUTS * setup.peer_timeout_ns / NS_PER_S)


def is_served(cluster: Cluster, since_ns: int) -> bool:
    """Whether a write is acknowledged that was intended since then, and not longer ago than the bound."""
    since_ns = max(since_ns, time.monotonic_ns() - cluster.setup.bound_ns)
    rows = cluster.ledger.begun
    return bool(np.any((rows["intended_ns"] >= since_ns) & (rows["outcome"] == ACKED)))


def settle(cluster: Cluster) -> tuple[bool, str | None, list[str]]:
    """(whether it had to be repaired, who leads, remarks) once recovery has provably ended: a write that was sent after
    every other had its fate is acknowledged, so its log holds all that is ever to be in it.

    Where nobody takes it everything is healed and started again first. Nobody leads only where a lost site leaves too few votes.
    """
    head = cluster.ledger.head
    head.sentinel = 1

    def is_over() -> bool:
        return bool(head.sentinel_done == 1)

    is_repaired = False
    if not cluster.comes(is_over, recovery_s(cluster.setup)):
        is_repaired = True
        cluster.repair()
        if not cluster.comes(is_over, PATIENCE_S if not cluster.lost else recovery_s(cluster.setup)):
            if cluster.lost:
                return True, None, ["nobody led any more: what is left was read from the survivor's own files"]
            raise UndecidedError(f"no write was acknowledged within {PATIENCE_S:g} s after everything had been started again")
    rows = cluster.ledger.begun
    acked = np.flatnonzero((rows["block"] == cluster.setup.block_count) & (rows["outcome"] == ACKED))
    connection = int(rows[acked[-1]].connection)
    return is_repaired, cluster.replicas[int(cluster.ledger.connections[connection].node)], []


def survivors(cluster: Cluster, led_by: str | None, remarks: list[str]) -> list[Found]:
    """The volumes that count, read back by a fresh process each: the leader's, then those of the others that hold as much."""
    names = [name for name in cluster.replicas if cluster.is_up(name)]
    if led_by is not None and len(names) > 1:
        limit_s = time.monotonic() + EQUAL_S
        while not (is_equal := cluster.are_equal()) and time.monotonic() < limit_s:
            time.sleep(0.1)
        if not is_equal:
            remarks.append(f"the other replicas had not caught up within {EQUAL_S:g} s, and are not compared")
            names = [led_by]
    cluster.end()
    read = {name: cluster.read_back(name) for name in names}
    first = led_by or max(read, key=lambda name: read[name][0], default=None)
    if first is None:
        raise UndecidedError("no replica is left")
    order = [first, *(name for name in names if name != first and led_by is not None)]
    return [Found(node=name, led=name == led_by, block=read[name][1]) for name in order]
