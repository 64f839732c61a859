"""A drill's recording compared and gated like any figure: recovery times, the share of time in outage, and losses."""

import msgspec
import pytest

from farwrite.analysis.change import UNCHANGED, compare
from farwrite.analysis.drill_answer import answer_of
from farwrite.analysis.drill_recording import save
from farwrite.base.errors import UnfitError, UsageError
from farwrite.compare.drills import outage_share, result_set_of_drill
from farwrite.compare.figures import read_result_set
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from make_drill import MS, recording, trial

TRIALS = 24


def drill(back_ms=2500, lost=0, count=TRIALS, **words):
    return recording(*(trial(index, back_ns=(back_ms + 10 * (index % 5)) * MS, lost=lost) for index in range(count)), **words)


def figures(made):
    return {one.metric: one for one in result_set_of_drill(made, "x").figures}


def test_a_drill_has_its_recovery_times_its_outage_and_its_losses_as_figures():
    found = figures(drill())
    assert {"recovery_time_p50", "recovery_time_p95", "outage_share", "lost_writes", "damaged_writes"} <= set(found)
    p50, p95 = found["recovery_time_p50"].estimate, found["recovery_time_p95"].estimate
    assert 1500 * MS <= p50.value <= p95.value <= 1600 * MS and len(p95.without) == TRIALS
    assert 0.3 < found["outage_share"].estimate.value < 0.5
    assert found["lost_writes"].estimate.value == 0
    assert found["recovery_time_p95"].labels == {
        "drill": "primary-killed", "protocol": "C", "policy": "consent", "miles": 150.0, "event": "kill near",
    }  # fmt: skip


def test_a_recovery_that_never_came_has_no_value_and_says_why():
    found = figures(recording(trial(0, back_ns=None), trial(1)))
    assert found["recovery_time_p50"].estimate.value is None
    assert "1 of 2 trials ended before" in str(found["recovery_time_p50"].estimate.warnings[0])


def test_what_came_back_and_what_is_out_of_order_is_damage_too():
    """A write is missing although later ones of its connection are there: its block is empty, or an older one stands in it."""
    made = trial()
    held = [*made.found[0].block]
    held[50] = -1
    hole = msgspec.structs.replace(made, found=[msgspec.structs.replace(made.found[0], block=held)])
    assert figures(recording(hole))["damaged_writes"].estimate.value == 1
    assert figures(recording(made))["damaged_writes"].estimate.value == 0


def test_more_trials_or_another_seed_are_the_same_drill_and_another_bound_is_not():
    def identity(**words):
        return result_set_of_drill(recording(trial(), **words), "x").identity

    assert identity() == identity(trials=50, seed=9) != identity(bound="500 ms")


def test_a_trial_without_any_time_is_all_outage():
    """The client was told to stop at its first acknowledgement: nothing says that anybody was served."""
    nothing = msgspec.structs.replace(answer_of(recording(trial())).judged[0].availability, window_ns=0, outage_ns=0)
    assert outage_share(msgspec.structs.replace(answer_of(recording(trial())).judged[0], availability=nothing)) == 1.0


def test_too_few_trials_have_no_95th_percentile_and_no_trial_no_loss_that_is_known():
    assert figures(drill(count=3))["recovery_time_p95"].estimate.value is None
    found = figures(recording(trial(0, gap_ns=900 * MS)))
    assert found["lost_writes"].estimate.value is None and "0 of 1 trials count" in str(found["lost_writes"].estimate.warnings[0])


def test_a_loss_in_a_trial_that_does_not_count_is_one_all_the_same():
    assert figures(recording(trial(0, gap_ns=900 * MS, lost=2)))["lost_writes"].estimate.value >= 2


def test_a_slower_recovery_is_seen_and_the_same_is_not_called_slower():
    base, slow = (result_set_of_drill(drill(back_ms), "x") for back_ms in (2500, 3400))

    def verdicts(cand):
        return {row.metric: row.verdict for row in compare([base], [cand]).rows}

    assert verdicts(slow)["recovery_time_p50"] in ("slower", "differs")
    assert verdicts(slow)["outage_share"] in ("worse", "higher", "differs")
    assert all(verdict in UNCHANGED for verdict in verdicts(base).values())


def test_drills_of_another_policy_or_scenario_are_not_compared():
    base, cand = result_set_of_drill(drill(), "a"), result_set_of_drill(drill(policy="block"), "b")
    with pytest.raises(UnfitError, match="policy"):
        compare([base], [cand])


@pytest.mark.parametrize(("budgets", "lost", "verdict"), [
    ('[[budget]]\nmetric = "recovery_time_p95"\nat_most = "2 s"\n', 0, "pass"),
    ('[[budget]]\nmetric = "recovery_time_p50"\nat_most = "1 s"\n', 0, "fail"),
    ('[[budget]]\nmetric = "lost_writes"\nequals = 0\n', 0, "pass"),
    ('[[budget]]\nmetric = "lost_writes"\nequals = 0\n', 3, "fail"),
    ('[[budget]]\nmetric = "outage_share"\nat_most = 0.9\n', 0, "pass"),
])  # fmt: skip
def test_budgets_take_drills(tmp_path, budgets, lost, verdict):
    path = tmp_path / "drill.json"
    save(drill(lost=lost, count=80), path)  # The interval of a 95th percentile needs 72.
    made = gate(read_result_set(path), parse(budgets))
    assert [one.verdict for one in made.verdicts] == [verdict]


def test_a_drill_is_found_in_its_directory_and_a_damaged_one_refused(tmp_path):
    save(drill(count=2), tmp_path / "drill.json")
    assert read_result_set(tmp_path).figures
    (tmp_path / "drill.json").write_bytes(msgspec.json.encode({"kind": "drill", "schema_version": 1}))
    with pytest.raises(UsageError, match="not the recording of a drill"):
        read_result_set(tmp_path)
