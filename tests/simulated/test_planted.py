"""Bugs planted on purpose: the simulator is believed because it finds each of them within a stated number of seeds."""

import pytest

from farwrite.simulate import cluster
from farwrite.simulate.story import tell

SEEDS = {cluster.HASTY: 60, cluster.UNFENCED: 200, cluster.UNCHECKED: 60, cluster.OFF_BY_ONE: 60, cluster.FORGETFUL: 30}


@pytest.mark.parametrize("bug", SEEDS)
def test_a_planted_bug_is_found(bug):
    assert any(tell(seed, bug).broken for seed in range(SEEDS[bug])), f"{bug} was not found"
