"""The router of a striped volume: its loop among clients and groups from seeds, planted faults, and whoever lies to it."""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest

from farwrite.engine.frontend import nbd, router_kernel
from farwrite.engine.frontend import router_state as rows
from farwrite.engine.frontend.router import map_of, member_bytes
from router_story import BLOCK, BLOCKS, CHUNK, GROUPS, SIZE, Broken, Client, World

SEEDS = int(os.environ.get("FARWRITE_ROUTER_SEEDS", "12"))
STEPS = 6000
MIB = 1 << 20


def test_no_promise_is_broken_whatever_dies_moves_hangs_up_and_is_taken_apart():
    done = np.zeros(1, rows.Counters.LAYOUT)[0]
    snapshots = 0
    for seed in range(SEEDS):
        world = World(seed)
        try:
            world.run(STEPS)
            snapshots += world.snapshots
            for name in rows.Counters.MEANINGS:
                done[name] += world.state.counters[0][name]
        except BaseException as failure:
            failure.add_note(f"seed {seed}")
            raise
        finally:
            world.close()
    assert done["resent"] and done["lost"] and done["reads"] and done["writes"] and done["errors"] and snapshots


@pytest.mark.parametrize(
    "fault",
    ["chunk served from its old home", "snapshot not at one instant", "an answer before all parts", "a resend that overtakes"],
)
def test_a_planted_fault_is_found(fault):
    for seed in range(100, 100 + 10 * SEEDS):
        world = World(seed, fault)
        try:
            world.run(STEPS)
        except (AssertionError, KeyError):
            return
        finally:
            world.close()
    raise AssertionError(f"not found in {10 * SEEDS} seeds")
