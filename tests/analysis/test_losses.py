"""What was lost or damaged of acknowledged writes refutes C2, wherever it was found; and what drills say together."""

import msgspec
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.drill import drill_results
from make_recording import make_recording

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 150]", "drill.kills=3")


def recording():
    """In which C2 holds: writes go on during a cut, and nothing is lost."""
    return make_recording(changes=QUICK, writes=200, completed_during_cut_c=500)


def c2_of(made):
    return next(claim for claim in analyse(made).claims if claim.id == "C2")


def with_drill(kind, protocol="C", **audit):
    """One drill of the kind, the second, found something else."""
    made = recording()
    drills = [
        msgspec.structs.replace(item, audit=msgspec.structs.replace(item.audit, **audit))
        if (item.kind, item.protocol, item.index) == (kind, protocol, 1) else item
        for item in made.drills
    ]  # fmt: skip
    return msgspec.structs.replace(made, drills=drills)


def with_round(protocol="C", status="ok", **audit):
    """One round of the farthest cell found something else."""
    made = recording()
    at = next(place for place, item in enumerate(made.rounds) if item.cell == f"write-{protocol}-150" and item.index == 1)
    rounds = list(made.rounds)
    rounds[at] = msgspec.structs.replace(
        rounds[at], status=status, audit=msgspec.structs.replace(rounds[at].audit, **audit)
    )  # fmt: skip
    return msgspec.structs.replace(made, rounds=rounds)


def test_c2_holds_where_nothing_was_lost_or_damaged():
    assert c2_of(recording()).verdict == "pass"


@pytest.mark.parametrize("kind", ["kill", "cut"])
@pytest.mark.parametrize("what", ["lost", "damaged"])
def test_one_write_lost_or_damaged_in_a_drill_refutes_c2(kind, what):
    found = c2_of(with_drill(kind, **{what: 1}))
    assert found.verdict == "fail"
    assert ("after a cut" in found.sentence) == (kind == "cut")


@pytest.mark.parametrize("status", ["ok", "void", "failed"])
@pytest.mark.parametrize("what", ["lost", "damaged"])
def test_one_write_lost_or_damaged_in_a_round_refutes_c2_whatever_became_of_the_round(what, status):
    found = c2_of(with_round(status=status, **{what: 1}))
    assert found.verdict == "fail"
    assert "1 acknowledged writes lost or damaged in measured rounds" in found.sentence


@pytest.mark.parametrize(("where", "words", "audit"), [
    (with_drill, ("kill", "A"), {"lost": 50}), (with_drill, ("cut", "A"), {"damaged": 1}), (with_round, ("A",), {"lost": 1}),
])  # fmt: skip
def test_what_protocol_a_lost_does_not_refute_c2(where, words, audit):
    assert c2_of(where(*words, **audit)).verdict == "pass"


def test_losses_outweigh_that_nothing_was_drilled():
    made = with_round(lost=1)
    assert c2_of(msgspec.structs.replace(made, drills=[])).verdict == "fail"
    without_kills = [item for item in with_drill("cut", lost=2).drills if item.kind == "cut"]
    assert c2_of(msgspec.structs.replace(recording(), drills=without_kills)).verdict == "fail"


def test_drills_together_are_the_worst_and_the_sum_of_each():
    made = recording()
    kills = [item for item in made.drills if (item.kind, item.protocol) == ("kill", "A")]
    found = [(900, 0, 0), (901, 7, 2), (902, 1, 1)]
    audits = [{"completed": completed, "lost": lost, "damaged": damaged} for completed, lost, damaged in found]
    points = [None, 700, 300]
    drills = [
        msgspec.structs.replace(
            item, audit=msgspec.structs.replace(item.audit, **audit), lost_bytes=4096 * audit["lost"], recovery_point_ns=point,
            note=note,
        )
        for item, audit, point, note in zip(kills, audits, points, ("", "b", "a"), strict=True)
    ]  # fmt: skip
    (found,) = drill_results(drills)
    assert (found.count, found.drills_with_loss, found.completed, found.lost, found.damaged) == (3, 2, 2703, 8, 3)
    assert (found.lost_writes_max, found.lost_bytes_max, found.recovery_point_ns_max) == (7, 7 * 4096, 700)
    assert found.notes == ["a", "b"]
    assert found.completed_during_cut_max is None and found.recovery_time_ns_max is None
    assert found.loss_probability_high == pytest.approx(0.98305, abs=1e-5)  # Clopper and Pearson: 2 of 3.
    (none,) = drill_results([msgspec.structs.replace(item, uncounted="stalled", alive_ns=5) for item in drills])
    assert (none.count, none.lost_writes_max, none.lost_bytes_max, none.completed) == (0, 0, 0, 0)
    assert none.loss_probability_high is None
    assert (none.uncounted_lost, none.uncounted_damaged, none.uncounted) == (8, 3, {"stalled": 3})


def test_drills_of_a_kind_are_told_apart_by_protocol_and_distance():
    made = recording()
    moved = [msgspec.structs.replace(item, miles=20.0) for item in made.drills if item.kind == "kill"]
    found = drill_results([*made.drills, *moved])
    assert len(found) == 6 and all(item.count == 3 for item in found)


@pytest.mark.parametrize(("protocol", "silent", "said"), [("C", 2, True), ("C", 0, False), ("A", 2, False)])
def test_cuts_after_which_nothing_completed_are_counted(protocol, silent, said):
    cuts = [item for item in recording().drills if (item.kind, item.protocol) == ("cut", protocol)]
    cuts = [
        msgspec.structs.replace(item, recovery_time_ns=None if place < silent else 5) for place, item in enumerate(cuts)
    ]
    (found,) = drill_results(cuts)
    assert any(f"in {silent} of 3 cuts no write completed" in note for note in found.notes) is said
    assert found.loss_probability_high is None
