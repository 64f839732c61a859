"""What the end of a run means for the exit code: measuring that worked is 0, and --strict makes claims count."""

import msgspec
import pytest

from farwrite.base.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_LOST_WRITE, EXIT_UNFIT
from farwrite.experiment.outcome import outcome
from make_recording import SMALL, made_report

CELLS = ("write-C-20", "write-C-150", "write-A-20", "write-A-150")


def code(report, strict=False):
    refusal = outcome(report, strict)
    return 0 if refusal is None else refusal.exit_code


def with_claims(*verdicts):
    """A made-up report whose claims came out like this, in their order."""
    report = made_report(SMALL)
    made = zip(report.analysis.claims, verdicts, strict=True)
    claims = [msgspec.structs.replace(claim, verdict=word) for claim, word in made]
    return msgspec.structs.replace(report, analysis=msgspec.structs.replace(report.analysis, claims=claims))


@pytest.mark.parametrize(
    ("verdicts", "strict"),
    [(("pass", "pass", "pass"), 0), (("fail", "unknown", "pass"), EXIT_GATE_FAILED),
     (("unknown", "pass", "fail"), EXIT_GATE_FAILED), (("pass", "unknown", "pass"), EXIT_INCONCLUSIVE)],
)  # fmt: skip
def test_a_claim_counts_only_when_asked_for(verdicts, strict):
    report = with_claims(*verdicts)
    assert code(report) == 0
    assert code(report, strict=True) == strict


def test_the_sentence_names_the_claim_and_why():
    assert str(outcome(with_claims("fail", "pass", "fail"), True)).startswith("--strict: C1 fails (and C3): ")
    assert str(outcome(with_claims("pass", "unknown", "pass"), True)).startswith("--strict: C2 is undecided: ")


def test_a_cell_without_a_good_round_is_a_row_that_is_unknown_and_no_error():
    report = made_report(SMALL, always_void=("write-C-150",))
    assert code(report) == 0
    settled = msgspec.structs.replace(report, analysis=msgspec.structs.replace(report.analysis, claims=[]))
    assert code(settled) == 0 and code(settled, strict=True) == EXIT_INCONCLUSIVE
    assert "not one good round for write-C-150" in str(outcome(settled, True))


def test_not_one_good_round_at_all_is_a_machine_that_cannot():
    report = made_report(SMALL)
    recording = report.recording
    rounds = [msgspec.structs.replace(item, status="void", reasons=["the link was off"]) for item in recording.rounds]
    void = msgspec.structs.replace(report, recording=msgspec.structs.replace(recording, rounds=rounds))
    assert code(void) == code(void, strict=True) == EXIT_UNFIT


def test_a_lost_write_comes_before_everything_and_an_interruption_before_claims():
    lost = made_report(SMALL, lost_in_rounds=1)
    assert code(lost) == code(lost, strict=True) == EXIT_LOST_WRITE
    assert outcome(made_report(SMALL, interrupted=True), strict=True) is None
