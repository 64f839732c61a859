"""Recovery times, phases, outages and availability from made-up trials; what counts, and what the trials say together."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis.drill_answer import answer_of
from farwrite.analysis.drill_outage import PHASES, outages, quantile
from farwrite.analysis.drill_recording import FAILED, NEVER, Connection, Done, Found, read, save
from farwrite.base.errors import UsageError
from farwrite.report.drill import show_drill, show_table
from farwrite.report.drill_trace import trace_of
from farwrite.report.page import Page
from make_drill import BACK, END, KILL, MS, recording, trial


def printed(show, *arguments):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    show(Page(console), *arguments)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_recovery_time_divides_into_phases_that_add_up():
    made = recording(trial())
    found = answer_of(made).judged[0].recoveries[0]
    assert found.time_ns == BACK + 3 * MS - KILL and found.led_by == "far"
    assert found.phases == dict(zip(PHASES, (1_100 * MS, 30 * MS, 10 * MS, 5 * MS, 358 * MS), strict=True))
    assert sum(found.phases.values()) == found.time_ns


def test_recovery_is_seen_in_a_write_that_was_due_after_the_event_and_no_other():
    """No outage here: another leads at once. The answer to what was under way already says nothing of it."""
    quick = trial(back_ns=KILL + 20 * MS)
    done = [KILL + MS if intended == KILL - 10 * MS else at
            for intended, at in zip(quick.history.intended_ns, quick.history.done_ns, strict=True)]  # fmt: skip
    quick = msgspec.structs.replace(quick, history=msgspec.structs.replace(quick.history, done_ns=done))
    assert answer_of(recording(quick)).judged[0].recoveries[0].time_ns == 23 * MS


def test_an_outage_is_the_time_without_a_good_write_not_the_longest_request():
    made = answer_of(recording(trial())).availability
    assert made.outage_ns == made.longest_outage_ns == BACK + 3 * MS - (KILL - 10 * MS + 3 * MS)
    assert (made.slots, made.good_slots) == (40, 25) and made.by_time == 25 / 40
    assert (made.good, made.late, made.failed) == (250, 0, 150) and made.by_requests == 250 / 400


def test_outages_add_up_and_the_longest_is_one_of_them():
    """Two trials of which the second stood still twice, beside what it did after its stop."""
    twice = trial(1)
    late = [(intended, FAILED if 3_000 * MS <= intended < 3_400 * MS else outcome)
            for intended, outcome in zip(twice.history.intended_ns, twice.history.outcome, strict=True)]  # fmt: skip
    twice = msgspec.structs.replace(
        twice, stopped_ns=3_800 * MS, history=msgspec.structs.replace(twice.history, outcome=[outcome for _, outcome in late])
    )
    first, second = BACK + 3 * MS - (KILL - 10 * MS + 3 * MS), 410 * MS
    answer = answer_of(recording(trial(), twice))
    assert answer.judged[1].availability.outage_ns == first + second
    assert answer.judged[1].availability.longest_outage_ns == first
    assert (answer.judged[1].availability.good, answer.judged[1].availability.failed) == (190, 190)
    third = Connection(node="near", epoch=3, opened_ns=3_200 * MS, closed_ns=NEVER)
    led_anew = answer_of(recording(msgspec.structs.replace(twice, connections=[*twice.connections, third]))).judged[0]
    assert led_anew.recoveries[0].time_ns == BACK + 3 * MS - KILL  # Its own outage was over then.
    together = answer.availability
    assert (together.outage_ns, together.longest_outage_ns, together.window_ns) == (2 * first + second, first, END + 3_800 * MS)
    assert together.by_requests == (250 + 190) / (400 + 380)


def test_a_total_outage_reads_zero():
    never = trial(back_ns=None, gap_ns=KILL)
    made = answer_of(recording(never)).judged[0].availability
    assert (made.by_time, made.by_requests, made.outage_ns) == (0.0, 0.0, END)
    assert outages([], 0, END, 250 * MS) == [(0, END)]


def test_a_write_after_the_bound_is_late_and_ends_no_outage():
    slow = trial()
    done = [at + 300 * MS if connection == 1 else at
            for at, connection in zip(slow.history.done_ns, slow.history.connection, strict=True)]  # fmt: skip
    slow = msgspec.structs.replace(slow, history=msgspec.structs.replace(slow.history, done_ns=done))
    made = answer_of(recording(slow))
    assert made.availability.late == 150 and made.availability.good == 100
    assert made.judged[0].recoveries[0].time_ns is None and made.events[0].without == 1
    assert "not over by itself in 1 trial" in printed(show_drill, recording(slow), made)


@pytest.mark.parametrize(("changes", "why"), [
    ({"gap_ns": 400 * MS}, "no write was acknowledged in the 250 ms before the fault"),
    ({"gap_ns": KILL}, "no write had been acknowledged at the fault"),
    ({"events": []}, "the fault did not come"),
    ({"connections": [Connection(node="far", epoch=2, opened_ns=0, closed_ns=NEVER)] * 2}, "the near site led no longer"),
    ({"unknown": "the process of far ended", "found": []}, "the process of far ended"),
])  # fmt: skip
def test_with_nothing_at_stake_a_trial_does_not_count_and_says_so(changes, why):
    made = recording(trial(**changes), trial(1))
    answer = answer_of(made)
    assert (answer.trials, answer.counted) == (2, 1) and why in next(iter(answer.uncounted))
    assert answer.loss_probability_high == pytest.approx(0.95)
    assert answer.availability == answer.judged[1].availability
    assert "does not count" in printed(show_drill, made, answer)
    nothing = answer_of(recording(trial(**changes)))
    assert nothing.outcome == "unknown" and nothing.loss_probability_high is None
    assert "UNKNOWN" in printed(show_drill, recording(trial(**changes)), nothing)


def test_zero_losses_in_n_trials_bound_the_probability_and_never_show_more():
    answer = answer_of(recording(*map(trial, range(30))))
    assert answer.outcome == "kept" and answer.loss_probability_high == pytest.approx(1 - 0.05 ** (1 / 30))
    text = printed(show_drill, recording(*map(trial, range(30))), answer)
    assert "30 of 30 trials that count: no acknowledged write was lost; P(loss) below" in " ".join(text.split())


def test_the_recovery_point_is_in_writes_bytes_and_seconds():
    made = recording(trial(lost=4), trial(1), protocol="A")
    answer = answer_of(made)
    assert (answer.outcome, answer.promised, answer.trials_with_loss) == ("lost", False, 1)
    assert (answer.lost_writes_max, answer.lost_bytes_max) == (4, 16384)
    assert answer.recovery_point_ns_max == 37 * MS  # From the oldest one's acknowledgement to the kill.
    assert "which protocol or policy permits; at most 4 writes, 16 KiB, up to 37.0 ms" in " ".join(
        printed(show_drill, made, answer).split()
    )
    assert "LOST" in printed(show_drill, made, answer)
    assert answer_of(promised := recording(trial(lost=4))).promised
    assert "FAIL" in printed(show_drill, promised, answer_of(promised))


def test_what_the_last_trial_lost_counts_and_a_later_fault_lengthens_what_was_exposed():
    answer = answer_of(recording(trial(), trial(1, lost=3), protocol="A"))
    assert (answer.lost, answer.acked, answer.lost_writes_max) == (3, 500, 3)
    again = Done(text="kill far", kind="fault", planned_ns=KILL, begin_ns=KILL + 19 * MS, end_ns=KILL + 20 * MS)
    heal = Done(text="heal", kind="recovery", planned_ns=KILL, begin_ns=KILL + 29 * MS, end_ns=KILL + 30 * MS)
    made = trial(lost=3)
    judged = answer_of(recording(msgspec.structs.replace(made, events=[*made.events, again, heal]), protocol="A")).judged[0]
    oldest, newest = judged.verdict.oldest_lost, judged.verdict.newest_lost
    assert newest - oldest == 2 and judged.recovery_point_ns == KILL + 20 * MS - made.history.done_ns[oldest]


def test_replicas_that_hold_different_things_are_corrupt():
    one = trial()
    other = Found(node="near", led=False, block=[-1, *one.found[0].block[1:]])
    answer = answer_of(made := recording(msgspec.structs.replace(one, found=[*one.found, other])))
    assert answer.outcome == "corrupt" and answer.judged[0].differs == ["near"]
    assert "near holds something else" in " ".join(printed(show_drill, made, answer).split())


def test_a_quantile_over_trials_has_the_interval_that_its_order_statistics_give():
    few, many = quantile([3.0, 1.0], 0.5), quantile([float(n) for n in range(30)], 0.5)
    assert (few.value, few.low) == (2.0, None) and quantile([1.0], 0.95).value is None and quantile([], 0.5).value is None
    assert many.value == 14.5 and many.confidence >= 0.95 and many.low < 14.5 < many.high
    assert quantile([float(n) for n in range(30)], 0.95).value == 28.0


def test_a_recording_is_kept_and_read_back_whole_and_no_other_file_is_taken_for_one(tmp_path):
    made = recording(trial())
    save(made, tmp_path / "drill.json")
    assert read(tmp_path / "drill.json") == made
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the recording of a drill"):
        read(tmp_path / "other.json")


def test_several_drills_are_rows_of_one_table():
    made = [recording(trial(index), protocol=name) for index, name in enumerate("AC")]
    rows = [line for line in printed(show_table, [(one, answer_of(one)) for one in made]).splitlines() if "consent" in line]
    assert [row.split()[0] for row in rows] == ["A", "C"] and all("1.50 s" in row and "62.5%" in row for row in rows)


def test_the_timeline_is_chrome_trace_events_with_everything_at_its_instant():
    document = json.loads(msgspec.json.encode(trace_of(recording(trial()))))
    events = document["traceEvents"]
    at = {event["name"]: event["ts"] for event in events if event["ph"] in "iX"}
    assert at["kill near"] == 999_000 and at["far, epoch 2"] == 2_145_000 and at["takes writes in epoch 2"] == 2_140_000
    (outage,) = [event for event in events if event["name"] == "no write within the bound"]
    assert outage["dur"] == 1_510_000
    assert sum(event["args"]["writes"] for event in events if event["ph"] == "C") == 250
