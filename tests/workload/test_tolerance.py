"""How far a link may be off: the greater of 3 % and 40 us, not their sum; the same for a round and for a whole cell."""

import pytest

from farwrite.workload.link_spec import OFF_NS_MAX, OFF_SHARE_MAX, tolerance_ns
from make_recording import analysed

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 150]", "drill.kills=0")


@pytest.mark.parametrize(("asked_rtt_ns", "expected"), [
    (0, 40_000), (315_000, 40_000), (1_333_333, 40_000), (1_400_000, 42_000), (2_364_000, 70_920),
])  # fmt: skip
def test_a_round_may_be_off_by_the_greater_of_both_bounds(asked_rtt_ns, expected):
    assert tolerance_ns(asked_rtt_ns) == pytest.approx(expected, abs=1)
    assert tolerance_ns(asked_rtt_ns) == max(OFF_SHARE_MAX * asked_rtt_ns, OFF_NS_MAX)


@pytest.mark.parametrize(("miles", "off_ns", "withheld"), [
    (20, 30_000, False), (20, 45_000, True),  # 3 % of 0.315 ms are 9 us: 40 us are the greater, and not 49.
    (20, -30_000, False), (20, -45_000, True),
    (150, 50_000, False), (150, 90_000, True),  # 3 % of 2.364 ms are 71 us, the sum 111.
    (150, -60_000, False), (150, -100_000, True),
])  # fmt: skip
def test_a_cell_may_be_off_by_the_greater_of_both_bounds(miles, off_ns, withheld):
    cells = {cell.cell: cell for cell in analysed(changes=QUICK, writes=50, link_off_ns=off_ns, base_rtt_ns=200_000)[1].cells}
    assert bool(cells[f"write-C-{miles}"].withheld) is withheld
