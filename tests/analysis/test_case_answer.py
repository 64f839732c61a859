"""What a case comes to: figures from what was observed, modelled ones called so, verdicts from intervals, reasons."""

import math

import msgspec
import pytest

import make_case
from farwrite.analysis import case_recording as recorded
from farwrite.analysis.case_answer import lines_of, sections_of
from farwrite.base.errors import UsageError
from farwrite.workload.case_profile import YEAR_S

MIB = 1 << 20


def figures(made):
    return {figure.what: figure for section in sections_of(made) for figure in section.figures}


def one(made, beginning):
    (found,) = [figure for what, figure in figures(made).items() if what.startswith(beginning)]
    return found


def campus(**changes):
    parts = {"steady": make_case.steady(), "faults": make_case.faults(), "thin": make_case.thin()}
    return make_case.recording("campus", **(parts | changes))


def test_an_answer_has_ten_lines_at_most_and_says_first_what_a_write_takes():
    for made in (campus(), make_case.recording("automation", database=make_case.database())):
        lines = lines_of(made)
        assert 5 < len(lines) <= 10 and "a write" in lines[0].text.lower()
    assert [line.verdict for line in lines_of(campus())][:3] == ["pass", "pass", "pass"]


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({"steady": make_case.steady(p99_ms=3.0)}, "fail", "At 0.5 miles"),
        ({"steady": make_case.steady(p99_ms=2.0)}, "unknown", "At 0.5 miles"),  # The interval holds the limit.
        ({"steady": make_case.steady(p99_ms=3.0, doubts=["the host was busy"])}, "unknown", "the host was busy"),
        ({"faults": make_case.faults(lost=1)}, "fail", "1 were lost"),
        ({"faults": make_case.faults(longest_s=31.0)}, "fail", "longest pause"),
        ({"faults": make_case.faults(never=2)}, "fail", "2 did not end in time"),
    ],
)
def test_a_planted_fault_turns_its_line(changes, verdict, said):
    assert [line for line in lines_of(campus(**changes)) if said in line.text and line.verdict == verdict]


def test_thin_volumes_are_counted_over_all_copies_and_modelled_as_large_as_they_stand_for():
    made = campus()
    assert one(made, "promised, all copies").estimate.value == 4 * 2 * 32 * MIB
    assert one(made, "written by the servers").estimate.value == 4 * 2 * 8 * MIB
    assert one(made, "taken from the pool").estimate.value == 4 * 2 * 10 * MIB
    assert one(made, "taken over written").estimate.value == 1.25
    logs = 4 * 2 * 64 * MIB
    whole, less = one(made, "disks without thin"), one(made, "disks with it")
    assert whole.how == less.how == "modelled"
    assert whole.estimate.value == 4 * 2 * (40 << 30) + logs
    assert less.estimate.value == pytest.approx(4 * 2 * (40 << 30) * 10 / 32 + logs, rel=1e-6)
    saved = one(made, "saved").estimate.value
    assert saved == pytest.approx(1 - less.estimate.value / whole.estimate.value)


def test_growth_is_what_the_file_took_and_the_link_is_what_a_period_ships():
    made = make_case.recording("automation", database=make_case.database())
    grown = one(made, "growth by what").estimate.value
    assert grown == pytest.approx(475_330 * YEAR_S, rel=1e-3) and math.isclose(grown, 15e12, rel_tol=0.01)
    needed = one(made, "link needed: a period shipped within one").estimate
    assert needed.value == pytest.approx(8 * 16 * MIB / 8.0) and needed.count == 6
    point = one(made, "the same, every 15 min").estimate.value
    assert point == pytest.approx(900e9 + 8 * 2 * MIB * 900 / 100e6 * 1e9)
    assert one(made, "the same, every 15 min").how == "modelled"


def test_a_period_with_a_snapshot_is_held_against_the_one_without_of_its_pair():
    made = make_case.recording("automation", database=make_case.database(slower=1.25))
    found = one(made, "p50 of the period").estimate
    assert found.value == pytest.approx(1.25, rel=1e-3) and found.low <= 1.25 <= found.high and found.count == 6
    few = make_case.recording("automation", database=make_case.database(pairs=2))
    assert one(few, "p50 of the period").estimate.warnings


def test_a_link_that_cannot_keep_up_leaves_no_recovery_point_and_fails():
    made = make_case.recording("automation", database=make_case.database(shipped=200 * MIB, falls_behind=True))
    found = one(made, "the same, every 15 min").estimate
    assert found.value is None and "cannot keep up" in str(found.warnings[0])
    assert any(line.verdict == "fail" for line in lines_of(made))


def test_what_was_not_measured_is_unknown_with_its_reason_and_what_was_not_asked_for_is_no_line():
    made = campus(thin=None, unknown={"thin": "the disk is too small"}, seconds={"thin": 1.0})
    assert [line for line in lines_of(made) if line.verdict == "unknown" and "the disk is too small" in line.text]
    assert any("the disk is too small" in note for section in sections_of(made) for note in section.notes)
    made = campus(thin=None, faults=None, seconds={"steady": 1.0})
    assert len(lines_of(made)) == 2 and any("not asked for" in note for section in sections_of(made) for note in section.notes)
    made = make_case.recording("automation", database=make_case.database(pairs=0, copies=0))
    assert all(line.text for line in lines_of(made)) and sections_of(made)


def test_a_recording_is_read_back_as_it_was_and_nothing_else_is_taken_for_one(tmp_path):
    made = campus()
    place = recorded.save(made, tmp_path / recorded.FILE)
    assert recorded.read(place) == made
    for data in (b"", b"{}", b'{"kind": "drill"}', place.read_bytes()[:500], msgspec.json.encode(make_case.steady())):
        (tmp_path / "other.json").write_bytes(data)
        with pytest.raises(UsageError, match="not the recording of a case"):
            recorded.read(tmp_path / "other.json")
    newer = msgspec.structs.replace(made, schema_version=9)
    with pytest.raises(UsageError, match="case schema 9"):
        recorded.read(recorded.save(newer, tmp_path / "newer.json"))
