"""How much else a machine may do before no latency measured on it is held against a limit, worked out on paper."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.analysis.noise import delayed_share, host_noise, in_flight, mean_share
from farwrite.base.histogram import Histogram

SECOND = 1_000_000_000
CLOSED, OPEN = SimpleNamespace(arrival="closed"), SimpleNamespace(arrival="poisson")


def a_round(foreign=0.0, own=0.5, near=0, far=0, link=0, steal=0.0, duration_ns=SECOND, slices=(), parts=(), noise=True):
    shares = SimpleNamespace(foreign_share=foreign, own_share=own, duration_ns=duration_ns, near_run_delay_ns=near,
                             far_run_delay_ns=far, link_run_delay_ns=link)  # fmt: skip
    return SimpleNamespace(noise=shares if noise else None, steal=steal, duration_ns=duration_ns, slices=slices, parts=parts)


def codes(*rounds, cell=CLOSED, steal_max=0.1):
    return [one.code for one in host_noise(cell, rounds, steal_max)]


@pytest.mark.parametrize(("rounds", "expected"), [
    ([a_round()], []), ([a_round(foreign=0.25)], []), ([a_round(foreign=0.26)], ["other_programs"]),
    ([a_round(foreign=0.4), a_round(foreign=0.1)], []), ([a_round(foreign=0.4), a_round(foreign=0.2)], ["other_programs"]),
    ([a_round(foreign=0.4), a_round(foreign=0.1, duration_ns=9 * SECOND)], []), ([a_round(noise=False)], []), ([], []),
    ([a_round(foreign=0.4), a_round(foreign=None)], ["other_programs"]),
    ([a_round(foreign=0.2, own=0.2, near=20 * SECOND // 100)], []),  # Half of what ran was others': 10 % of the round.
    ([a_round(foreign=0.2, own=0.2, near=21 * SECOND // 100)], ["waited_for_processors"]),
    ([a_round(foreign=0.2, own=0.2, near=SECOND // 10, far=SECOND // 20, link=7 * SECOND // 100)], ["waited_for_processors"]),
    ([a_round(steal=0.1)], []), ([a_round(steal=0.11)], ["stolen"]), ([a_round(steal=None)], []),
    ([a_round(steal=0.11, noise=False), a_round(steal=0.08)], []),
    ([a_round(foreign=0.5, own=0.1, near=SECOND, steal=0.2)], ["other_programs", "waited_for_processors", "stolen"]),
], ids=str)  # fmt: skip
def test_noise_is_too_much_beyond_its_share_of_all_rounds_together(rounds, expected):
    assert codes(*rounds) == expected


def test_a_mean_share_is_over_the_time_of_which_it_is_known():
    assert mean_share([(0.5, 1.0), (0.1, 3.0), (None, 9.0), (7.0, 0.0)]) == pytest.approx(0.2)
    assert mean_share([(None, 1.0)]) is None and mean_share([]) is None and mean_share([(0.3, 1.0)]) == pytest.approx(0.3)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"near": SECOND // 4, "far": SECOND // 4}, (0.5 * 0.2 / 0.7, SECOND)),
    ({"near": None, "far": None, "link": None}, (None, 0.0)), ({"near": None, "far": SECOND // 4}, (0.25 * 0.2 / 0.7, SECOND)),
    ({"noise": False}, (None, 0.0)), ({"foreign": None}, (None, 0.0)),
    ({"own": None}, (None, 0.0)), ({"foreign": 0.0, "own": 0.0, "near": SECOND}, (0.0, SECOND)),
    ({"duration_ns": 0, "near": 5}, (None, 0.0)),
], ids=str)  # fmt: skip
def test_a_wait_counts_by_others_share_of_what_ran(changes, expected):
    found = delayed_share(CLOSED, a_round(**{"foreign": 0.2, "own": 0.5, **changes}))
    assert found == (None if expected[0] is None else pytest.approx(expected[0]), expected[1])


def slices(*times_ns):
    return [SimpleNamespace(response=Histogram.of(np.array(some)).encode()) for some in times_ns]


def test_writes_are_under_way_as_long_as_they_take_and_in_a_closed_loop_always():
    some = slices([1_000_000] * 3, [2_000_000])
    assert in_flight(OPEN, a_round(slices=some)) == pytest.approx(5e6, rel=2e-3)
    assert in_flight(OPEN, a_round(slices=some, duration_ns=3_000_000)) == 3e6
    assert in_flight(CLOSED, a_round(slices=some)) == in_flight(OPEN, a_round(slices=some, parts=["read"])) == SECOND
    share, time_ns = delayed_share(OPEN, a_round(foreign=0.5, own=0.5, near=2_000_000, slices=some))
    assert (share, time_ns) == (pytest.approx(0.2, rel=2e-3), pytest.approx(5e6, rel=2e-3))
