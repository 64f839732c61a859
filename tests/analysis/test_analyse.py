"""The whole analysis: the same numbers from the same file, only good rounds, a floor that fits, warnings that are due."""

import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from farwrite.analysis.analyse import analyse, drift_warnings, not_beyond_light
from farwrite.analysis.result import Analysis, Estimate, beaten_doubt
from farwrite.analysis.sample import MIDDLES_NS, decode
from farwrite.analysis.throughput import goodput_bytes_per_s
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import no_good_round, sentences
from make_recording import LARGE, analysed, changed, make_recording

QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 150]", "drill.kills=2")


def made(changes=QUICK, writes=200, **truth):
    return make_recording(changes=changes, writes=writes, **truth)


def found(changes=QUICK, writes=200, **truth):
    """The analysis of what `made` gives."""
    return analysed(changes=changes, writes=writes, **truth)[1]


def cell_of(analysis, name):
    return next(item for item in analysis.cells if item.cell == name)


def test_the_same_recording_always_gives_the_same_numbers():
    recording = made()
    once = msgspec.json.encode(analyse(recording))
    again = msgspec.json.encode(analyse(recording))
    assert once == again
    assert msgspec.json.decode(once, type=Analysis) == analyse(recording)
    assert msgspec.json.encode(analyse(changed(recording, seed=2))) != once


def test_a_cells_numbers_do_not_depend_on_the_other_cells():
    recording = made()
    alone = changed(recording, cells=[cell for cell in recording.cells if cell.id == "write-C-20"])
    assert cell_of(analyse(recording), "write-C-20") == cell_of(analyse(alone), "write-C-20")


def test_thirty_cells_take_about_a_second():
    recording = make_recording(LARGE)
    analyse(recording)
    begin = time.process_time()
    analyse(recording)
    assert time.process_time() - begin < 8.0  # 0.7 s on a quiet core; twice that where others share its caches.


def test_only_good_rounds_count():
    calm = found()
    recording = made(void=(("write-C-20", 1), ("write-C-20", 3)))
    cell = cell_of(analyse(recording), "write-C-20")
    assert (cell.rounds_ok, cell.rounds_void) == (5, 2)
    assert sentences(cell.void_reasons) == ["the link before the round was +412 us off"]
    assert cell.completed == 1000
    assert cell.response_ns_p50.value == pytest.approx(cell_of(calm, "write-C-20").response_ns_p50.value, rel=0.03)


def test_a_cell_without_a_good_round_has_no_numbers_and_a_reason():
    analysis = analyse(made(always_void=("write-C-20",)))
    cell = cell_of(analysis, "write-C-20")
    reason = "not one good round: the link before the round was +412 us off"
    assert (cell.rounds_ok, cell.rounds_void) == (0, 5)
    for estimate in (cell.response_ns_p50, cell.floor_ns, cell.completed_per_s, cell.rtt_ns_min, cell.efficiency):
        assert estimate.value is None
        assert sentences(estimate.warnings) == [reason]
    assert sentences(cell.withheld) == [reason]
    assert "not one good round for write-C-20" in sentences(analysis.warnings)


def test_what_a_recording_with_nothing_in_it_says_is_nothing():
    recording = changed(made(), rounds=[], floors=[], drills=[], interrupted=True)
    analysis = analyse(recording)
    assert all(cell.response_ns_p50.value is None for cell in analysis.cells)
    found = cell_of(analysis, "write-C-20").response_ns_p50
    assert found.warnings == [no_good_round("it was not measured", "it was not measured")]
    assert [claim.verdict for claim in analysis.claims] == ["unknown"] * 3
    assert analyse(changed(recording, cells=[])).cells == []


def test_a_run_interrupted_between_disks_and_cells_is_analysed():
    recording = made()
    assert analyse(changed(recording, rounds=[item for item in recording.rounds if item.index < 2], interrupted=True))


def test_warm_up_is_left_out_of_latency_and_throughput():
    analysis = analyse(made(warmup_slices=2, warmup_ratio=3.0))
    calm = found()
    for name in ("write-C-20", "write-A-150"):
        cell, expected = cell_of(analysis, name), cell_of(calm, name)
        assert cell.warmup_ns == 80_000_000
        assert cell.steady
        assert cell.response_ns_p99.value < 1.2 * expected.response_ns_p99.value
        assert cell.response_ns_p50.value == pytest.approx(expected.response_ns_p50.value, rel=0.03)


def test_a_cell_that_never_gets_steady_says_so():
    cell = cell_of(analyse(made(trend_ratio=0.5)), "write-C-20")
    assert cell.steady is False
    assert any("no steady state: the median grows" in str(warning) for warning in cell.warnings)


def test_the_floor_is_what_the_protocol_has_to_wait_for():
    changes = (*QUICK, 'cell.write.protocols=["local", "A", "B", "C"]')
    analysis = analyse(made(changes=changes, near_flush_ns=120_000, far_flush_ns=140_000))
    expected = {
        "write-local-150": (120_000, "near flush, alone"),
        "write-A-150": (120_000, "near flush, alone"),
        "write-B-0": (120_000, "near flush alone"),
        "write-B-150": (2_368_000, "RTT echo"),
        "write-C-0": (84_000 + 1.25 * 140_000, "RTT echo + far flush, both sites at once"),
        "write-C-150": (2_368_000 + 140_000, "RTT echo with the far flush in it"),
    }
    for name, (floor_ns, text) in expected.items():
        cell = cell_of(analysis, name)
        assert cell.floor_ns.value == pytest.approx(floor_ns, rel=0.03)
        assert cell.floor_ns.low <= cell.floor_ns.value <= cell.floor_ns.high
        assert cell.floor_text == text
        assert cell.efficiency.value == pytest.approx(cell.floor_ns.value / cell.response_ns_p50.value)
        assert cell.efficiency.low <= cell.efficiency.value <= cell.efficiency.high


def with_polled(recording, ratio):
    """The recording, its echoes measured again by a near end that polls: so much of the time that the sleeping one's took."""
    def polled(text):
        if not text:
            return None
        sample = decode(text)
        return Histogram.of((ratio * np.repeat(MIDDLES_NS[sample.slot], sample.counts)).astype(np.int64)).encode()

    return changed(recording, rounds=[
        changed(item, polled_echo_floor=polled(item.echo_floor), polled_flushed_echo_floor=polled(item.flushed_echo_floor))
        for item in recording.rounds
    ])  # fmt: skip


def test_of_two_echoes_the_tighter_is_the_floor():
    changes = (*QUICK, 'cell.write.protocols=["A", "B", "C"]')
    recording = made(changes=changes, near_flush_ns=120_000, far_flush_ns=140_000)
    before, tighter, wider = (analyse(item) for item in (recording, with_polled(recording, 0.9), with_polled(recording, 1.1)))
    for name, text in (("write-B-150", "busy-polled RTT echo"), ("write-C-150", "busy-polled RTT echo with the far flush in it")):
        cell = cell_of(tighter, name)
        assert cell.floor_ns.value == pytest.approx(0.9 * cell_of(before, name).floor_ns.value, rel=0.01)
        assert cell.floor_text == text
        assert cell.efficiency.value == pytest.approx(cell.floor_ns.value / cell.response_ns_p50.value)
        assert cell_of(wider, name) == cell_of(before, name)
    assert cell_of(tighter, "write-A-150") == cell_of(before, "write-A-150")


def test_a_floor_that_the_engine_beat_is_none_and_everybody_is_told():
    analysis = found(far_flush_ns=700_000)
    cell = cell_of(analysis, "write-C-150")
    assert cell.efficiency.low > 1
    warning, = (text for text in sentences(cell.efficiency.warnings) if "not a floor" in text)
    assert warning.startswith("the floor was measured as RTT echo with the far flush in it, 3.08 ms at the median: the engine")
    told, = (text for text in sentences(analysis.warnings) if "not a floor" in text)
    assert "write-C-150" in told and "write-A-150" not in told
    assert not any("not a floor" in text for text in sentences(found().warnings))
    # An interval that has 1 inside says nothing against its floor.
    assert not beaten_doubt(Estimate(value=1.01, low=0.99, high=1.03)) and beaten_doubt(Estimate(value=1.03, low=1.01, high=1.05))
    assert beaten_doubt(Estimate(value=26.3, low=0.31, high=30.0)), "a wide interval makes no floor of it"


def test_a_write_that_beats_light_carries_no_verdict():
    cell = cell_of(found(k=0.2, a_ns=100_000), "write-C-150")
    assert any("less than the 2.36 ms that light alone takes" in str(reason) for reason in cell.withheld)
    assert not any("light" in str(reason) for cell in found().cells for reason in cell.withheld)
    assert not any("light" in str(reason) for reason in cell_of(found(near_ns=50_000), "write-A-150").withheld)


SEVERAL = (*QUICK, 'cell.write.protocols=["C", "C2", "quorum"]', "cell.write.other_miles=[20]")


def test_the_floor_is_the_one_of_the_replica_that_is_waited_for():
    analysis = analyse(made(changes=SEVERAL, near_flush_ns=120_000, far_flush_ns=140_000))
    at_20_ns, at_150_ns = 319_000 + 140_000, 2_368_000 + 140_000
    for name, floor_ns in (
        ("write-quorum-150", at_20_ns), ("write-C-0", at_20_ns), ("write-C-150", at_150_ns),
        ("write-C2-150", 2_364_000 + at_150_ns), ("write-C2-0", 315_000 + at_20_ns),
    ):  # fmt: skip
        assert cell_of(analysis, name).floor_ns.value == pytest.approx(floor_ns, rel=0.03), name


def test_the_slope_is_told_by_the_round_trip_that_is_waited_for():
    changes = (*QUICK, 'cell.write.protocols=["C", "C2", "quorum"]', "cell.write.other_miles=[100]")
    fits = {fit.protocol: fit for fit in analyse(made(changes=changes)).fits if fit.quantile == 0.5}
    assert fits["C"].k.value == pytest.approx(1, rel=0.03)
    assert fits["C2"].k.value == pytest.approx(2, rel=0.03)
    assert fits["quorum"].k.value == pytest.approx(1, rel=0.03)
    assert fits["quorum"].rtt_ns_high == pytest.approx(1_576_000, rel=0.03)  # Never further than the nearer one.


def test_a_further_replica_has_its_link_proven_as_well():
    cell = cell_of(analyse(made(changes=SEVERAL)), "write-quorum-150")
    assert [(other.miles, other.rtt_ns_p50.value) for other in cell.others] == [(20, pytest.approx(315_000, rel=0.03))]
    assert cell.quorum == 2


def test_processor_time_is_that_of_all_replicas():
    recording = made(changes=SEVERAL)
    rounds = [
        msgspec.structs.replace(
            item, near_cpu_ns=2_000 * item.completed, far_cpu_ns=1_000 * item.completed,
            others=[msgspec.structs.replace(other, far_cpu_ns=500 * item.completed) for other in item.others],
        )
        for item in recording.rounds
    ]  # fmt: skip
    cell = cell_of(analyse(changed(recording, rounds=rounds)), "write-C-150")
    assert cell.cpu_ns_per_write.value == pytest.approx(3_500)


def test_a_writer_that_went_on_without_its_peer_is_told_of():
    recording = made(changes=(*QUICK, 'cell.write.protocols=["A"]'))
    rounds = [msgspec.structs.replace(item, exposed=7, catch_up_ns=30_000_000) for item in recording.rounds]
    cell = cell_of(analyse(changed(recording, rounds=rounds)), "write-A-150")
    told = f"{7 * len([item for item in rounds if item.cell == cell.cell])} writes completed while the peer was left behind"
    assert any(str(warning) == f"{told}; it caught up 30.0 ms after the load" for warning in cell.warnings), cell.warnings
    never = [msgspec.structs.replace(item, catch_up_ns=None) for item in rounds]
    cell = cell_of(analyse(changed(recording, rounds=never)), "write-A-150")
    assert any("it did not catch up in time" in str(warning) for warning in cell.warnings)


def test_sites_with_a_disk_each_never_wait_for_each_other():
    cell = cell_of(found(shared_disk=False), "write-C-0")
    assert cell.floor_text == "RTT echo with the far flush in it"


def test_the_link_of_a_cell_at_no_distance_is_the_labs_own():
    cell = cell_of(found(), "write-C-0")
    assert cell.asked_rtt_ns == pytest.approx(80_000, rel=0.01)
    assert cell.withheld == []


def test_a_link_that_was_not_what_it_claimed_withholds_verdicts():
    cell = cell_of(found(link_off_ns=60_000), "write-C-20")
    assert "the link was not what it claimed" in str(cell.withheld[0])
    assert cell_of(found(link_off_ns=60_000), "write-C-150").withheld == []  # 2.5 % of 2.364 ms


def test_throughput_is_per_second_of_the_slices_that_count():
    cell = cell_of(found(), "write-C-20")
    assert cell.completed_per_s.value == pytest.approx(200 / 0.4)
    assert cell.goodput_bytes_per_s.value == pytest.approx(200 * 4096 / 0.4)
    assert cell.completed_per_s.count == 5


def backlog(counted: bool):
    """Rounds of 400 ms that were offered 1000 writes and completed 400 of them, one a millisecond; the rest in the drain."""
    recording = make_recording(changes=(*QUICK, "distance.miles=[20, 60, 100]"), writes=1000)

    def behind(item):
        slices = []
        for number, part in enumerate(item.slices):
            intended = np.arange(100 * number, 100 * (number + 1))
            response_ns = ((intended + 1) - 0.4 * intended) * 1e6  # Write n: intended after 0.4 n ms, complete after n + 1 ms.
            slices.append(changed(
                part, completed=100, completed_bytes=409_600, response=Histogram.of(response_ns.astype(np.int64)).encode(),
                within=40 if counted else None, within_bytes=40 * 4096 if counted else None,
            ))  # fmt: skip
        return changed(item, slices=slices)

    return changed(recording, rounds=[behind(item) for item in recording.rounds])


@pytest.mark.parametrize(("counted", "tolerance"), [(True, 1e-9), (False, 0.02)])
def test_what_a_backlog_completes_after_the_round_is_no_throughput(counted, tolerance):
    cell = cell_of(analyse(backlog(counted)), "write-C-20")
    assert cell.warmup_ns == 0
    assert cell.completed_per_s.value == pytest.approx(1000, rel=tolerance)  # And not 2500.
    assert cell.goodput_bytes_per_s.value == pytest.approx(1000 * 4096, rel=tolerance)


def test_a_stream_of_which_no_single_writes_are_known_counts_as_it_is():
    empty = Histogram().encode()
    recording = make_recording(changes=QUICK, writes=200)
    rounds = [
        changed(item, slices=[changed(item.slices[0], duration_ns=10**9, completed_bytes=10**8, response=empty, within=None,
                                      within_bytes=None)])
        for item in recording.rounds
    ]  # fmt: skip
    assert goodput_bytes_per_s(rounds[:1], 0).value == 1e8


def test_an_open_loop_that_stays_behind_says_so():
    changes = ("run.round=400 ms", "drill.kills=0", "distance.miles=[0, 20, 150]", "run.rounds=3")
    cell = cell_of(found(text=LARGE, changes=changes), "paced-C-20")
    assert cell.offered_per_s == 800
    assert "stays behind the offered 800 writes a second" in str(cell.completed_per_s.warnings[0])


def test_exact_counts_are_ratios_of_sums():
    cell = cell_of(found(), "write-A-150")
    assert cell.wire_bytes_per_user_byte.value == pytest.approx(4160 / 4096)
    assert cell.flushes_per_write.value == 1.0
    assert (cell.lost, cell.damaged) == (0, 0)
    assert cell.lag_ns_p99.value is not None
    assert cell_of(found(), "write-C-150").lag_ns_p99 is None


def test_lost_writes_are_counted_in_void_rounds_too():
    recording = made(void=(("write-C-20", 0),), lost_in_rounds=2)
    assert cell_of(analyse(recording), "write-C-20").lost == 4


@pytest.mark.parametrize(
    ("truth", "warning"),
    [
        ({"shared_disk": True}, "both sites flush to one disk"),
        ({"durability": "memory"}, "every figure is of journals in memory"),
        ({"interrupted": True}, "the run was interrupted"),
        ({"void": (("write-C-20", 0),)}, "1 of 31 rounds were void"),
        ({"steal": 0.04}, "the host took up to 4.0% of the processors"),
        ({"steal": None}, "what the host took of the processors is not known"),
        ({"saturated": True}, "writes of 18 minutes or longer"),
    ],
)
def test_what_a_reader_must_know_is_said_at_the_top(truth, warning):
    assert any(str(text).startswith(warning) for text in found(**truth).warnings)


@pytest.mark.parametrize(
    ("virtual", "awake", "said"),
    [(True, False, True), (True, "none", True), (True, True, False), (True, "qos", False), (False, False, False)],
)
def test_many_rounds_void_for_their_link_name_what_may_mend_it(virtual, awake, said):
    recording = made(shared_disk=False)
    asleep = msgspec.structs.replace(
        recording, host={**recording.host, "virtual": virtual}, lab=msgspec.structs.replace(recording.lab, keep_awake=awake),
        rounds=[
            msgspec.structs.replace(item, status="void", reasons=["the link after the round was +99 us off"]) if place % 5 == 0
            else item for place, item in enumerate(recording.rounds)
        ],
    )  # fmt: skip
    warnings = analyse(asleep).warnings
    assert any("farwrite doctor says what mends it" in str(text) for text in warnings) == said
    assert not any("lab.keep_awake" in str(text) for text in warnings)  # Doctor gives the one answer.
    told = msgspec.structs.replace(asleep, lab=msgspec.structs.replace(asleep.lab, keep_awake_reason="because"))
    assert any("nothing kept the processors awake (because)" in str(text) for text in analyse(told).warnings) == said
    for mend, words in (("", "nothing mends it here"), ("modprobe x", "what mends it: modprobe x")):
        mended = msgspec.structs.replace(told, lab=msgspec.structs.replace(told.lab, keep_awake_mend=mend))
        assert any(words in str(text) for text in analyse(mended).warnings) == said


@pytest.mark.parametrize(("series", "said"), [
    ([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0], True), ([1, -1] * 6, False), ([1, 2, 3, 4, 5], False),
    ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], False),
])  # fmt: skip
def test_rounds_that_are_like_their_neighbours_are_said_to_drift(series, said):
    analysis = found()
    medians = [1e6 * (1 + 0.01 * level) for level in series]
    cells = [changed(cell, response_ns_p50=changed(cell.response_ns_p50, by_round=medians)) for cell in analysis.cells]
    assert bool(drift_warnings(cells)) is said
    assert not said or "speak of this hour only" in str(drift_warnings(cells)[0])


def test_a_calm_run_on_two_disks_says_only_what_of_a_write_under_a_is_the_labs_own():
    (own,) = found(shared_disk=False).warnings
    assert str(own).startswith("under A a write took") and "the sites share processors with the link" in str(own)
    assert any("share processors and a disk" in str(text) for text in found(shared_disk=True).warnings)


def test_drills_alike_are_one_result():
    results = {(item.kind, item.protocol): item for item in found().drills}
    assert set(results) == {("kill", "C"), ("cut", "C"), ("kill", "A"), ("cut", "A")}
    kill, cut = results["kill", "A"], results["cut", "C"]
    assert (kill.count, kill.drills_with_loss, kill.loss_probability_high) == (2, 2, 1.0)
    assert (kill.lost, kill.lost_writes_max, kill.lost_bytes_max) == (81, 41, 41 * 4096)
    assert results["kill", "C"].loss_probability_high == pytest.approx(1 - 0.05**0.5)
    assert cut.loss_probability_high is None
    assert (cut.completed_during_cut_max, cut.recovery_time_ns_max) == (0, 211_000_000)


def test_analysis_loads_neither_numba_nor_scipy_stats():
    code = (
        "import sys; from farwrite.analysis import analyse; assert 'scipy' not in sys.modules; "
        "from farwrite.analysis.estimate import order_statistic_ranks as ranks; ranks(500, 0.99); "
        "assert not {'numba', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("low", "by_round", "wanted"), [
    (1.9, [2.5, 4.0, 4.1, 6.2], 2.4), (2.6, [2.5, 4.0], 2.6), (1.9, [2.3, 4.0], 1.9), (1.9, [], 1.9), (1.9, [None, 4.0], 2.4),
    (None, [2.5, 4.0], None),
])  # fmt: skip
def test_an_interval_that_is_stretched_beyond_its_rounds_begins_where_light_does(low, by_round, wanted):
    made = not_beyond_light(Estimate(value=4.0, low=low, high=5.0, by_round=by_round), 2.4)
    assert (made.low, made.value, made.high) == (wanted, 4.0, 5.0)
    assert not_beyond_light(Estimate(value=4.0, low=low, high=5.0, by_round=by_round), 0.0).low == low
