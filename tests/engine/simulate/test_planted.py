"""Bugs planted on purpose: the simulator is believed because it finds each of them within a stated number of seeds.

Those of the engine's own code, more than a hundred, are planted by tests/speed/simulator_faults.py.
"""

import pytest

from farwrite.engine.simulate import cluster
from farwrite.engine.simulate.story import tell

SEEDS = {
    cluster.HASTY: 60, cluster.UNFENCED: 200, cluster.UNCHECKED: 60, cluster.OFF_BY_ONE: 60, cluster.FORGETFUL: 30,
    cluster.UNKEPT: 60, cluster.UNASKED: 60, cluster.UNLAID: 30, cluster.UNBARRED: 60,
    cluster.STALE: 60, cluster.EARLY: 200, cluster.DROPPED: 200,
}  # fmt: skip


@pytest.mark.parametrize("bug", SEEDS)
def test_a_planted_bug_is_found(bug):
    assert any(tell(seed, bug).broken for seed in range(SEEDS[bug])), f"{bug} was not found"
