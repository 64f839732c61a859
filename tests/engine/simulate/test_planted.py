"""Bugs planted on purpose: the simulator is believed because it finds each of them within a stated number of seeds.

Those of the engine's own code, more than a hundred, are planted by tests/speed/simulator_faults.py.
"""

import pytest

from farwrite.engine.simulate import cluster
from farwrite.engine.simulate.story import tell

# (a seed whose story finds it, as stories are today; how many it is searched for in when that one does not)
SEEDS = {
    cluster.HASTY: (2, 60), cluster.UNFENCED: (60, 200), cluster.UNCHECKED: (1, 60), cluster.OFF_BY_ONE: (17, 60),
    cluster.FORGETFUL: (5, 30), cluster.UNKEPT: (3, 60), cluster.UNASKED: (209, 900), cluster.UNLAID: (2, 30),
    cluster.UNBARRED: (0, 60), cluster.STALE: (1, 60), cluster.EARLY: (6, 400), cluster.DROPPED: (23, 200),
    cluster.DEAF: (11, 60), cluster.TRUSTING: (76, 200), cluster.BLIND: (29, 60),
}  # fmt: skip


@pytest.mark.parametrize("bug", SEEDS)
def test_a_planted_bug_is_found(bug):
    known, count = SEEDS[bug]
    assert any(tell(seed, bug).broken for seed in (known, *range(count))), f"{bug} was not found"
