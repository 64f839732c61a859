"""The measured loop: its steps against the oracle, its loop on a pretend clock and target, and for real on two targets."""

import threading
from bisect import bisect_right

import numpy as np
import pytest

from both_ways import both_ways, interpreted
from farwrite import load_kernel as load
from farwrite.histogram import Histogram
from farwrite.histogram_kernel import SLOTS
from farwrite.host.disk import disk
from farwrite.plan import Load, draw, from_arrays
from farwrite.target import null_kernel, replicated
from farwrite.units import NS_PER_MS, NS_PER_S, NS_PER_US
from oracle import load_oracle
from oracle.load_oracle import Write

MIB = 1 << 20


# Steps


@pytest.mark.parametrize("intended_of", both_ways(load.intended_of))
def test_a_closed_loop_intends_what_is_free_and_an_open_one_what_is_planned(intended_of):
    assert intended_of(True, 70, 1000, 1234) == 1234
    assert intended_of(False, 70, 1000, 1234) == 1070


@pytest.mark.parametrize("slice_of", both_ways(load.slice_of))
@pytest.mark.parametrize("seed", range(20))
def test_a_write_belongs_to_the_slice_of_its_intended_instant(slice_of, seed):
    dice = np.random.default_rng(seed)
    slice_ns, slice_count = int(dice.integers(1, 1000)), int(dice.integers(1, 20))
    for intended in [-1, 0, slice_ns - 1, slice_ns, *dice.integers(-100, slice_ns * (slice_count + 3), 100).tolist()]:
        write = Write(intended, intended, intended, 512)
        parts = load_oracle.slices([write], slice_ns, slice_count)
        assert parts[slice_of(5000 + intended, 5000, slice_ns, slice_count)] == [write]


@pytest.mark.parametrize("lateness", both_ways(load.lateness))
@pytest.mark.parametrize("seed", range(50))
def test_the_generator_is_late_only_while_it_sleeps_or_dawdles(lateness, seed):
    dice = np.random.default_rng(seed)
    for _ in range(20):
        wait_begin, woken, returned, issued = np.sort(dice.integers(0, 100, 4)).tolist()
        intended, freed = dice.integers(0, issued + 1, 2).tolist()
        expected = load_oracle.lateness(max(intended, freed), issued, (wait_begin, woken), returned)
        assert lateness(intended, freed, issued, wait_begin, woken, returned) == expected


def random_writes(seed, count=200):
    """Writes in order of completion, as rounds have them: closed or not, late or not, some at the very same instant."""
    dice = np.random.default_rng(seed)
    clock, writes = 0, []
    for _ in range(count):
        clock += int(dice.integers(0, 1000))
        intended = max(clock - int(dice.choice([0, 10, 10**6])), 0)
        late = int(dice.choice([0, 700, 50_000]))
        issued = max(intended, clock) + late
        clock = max(clock, issued) + int(dice.choice([0, 300, 3 * 10**6]))
        writes.append(Write(intended, issued, clock, int(dice.choice([512, 4096])), late))
    return writes


@pytest.mark.parametrize("note_completion", both_ways(load.note_completion))
@pytest.mark.parametrize("seed", range(10))
def test_what_is_noted_is_what_the_oracle_finds(note_completion, seed):
    writes = random_writes(seed)
    begin_ns, slice_ns, slice_count = 10**12, 10 * NS_PER_MS, 5
    recorder, flight = replicated.recorder_of(slice_count), replicated.flight_of(3)
    recorder.at[load.BEGIN_NS] = begin_ns
    for number, write in enumerate(writes):
        place = number % flight.issued_ns.size
        flight.intended_ns[place] = begin_ns + write.intended
        flight.issued_ns[place] = begin_ns + write.issued
        flight.late_ns[place] = write.late
        answer = note_completion(recorder, flight, number, write.size, begin_ns + write.completed, slice_ns)
        assert answer == write.response
    assert_recorded(recorder, writes, slice_ns)
    assert recorder.at[load.LAST_COMPLETION_NS] == begin_ns + writes[-1].completed


def assert_recorded(recorder, writes, slice_ns):
    """The recorder holds exactly these writes."""
    parts = load_oracle.slices(writes, slice_ns, recorder.slice_count.size)
    assert recorder.slice_count.tolist() == [len(part) for part in parts]
    assert recorder.slice_bytes.tolist() == [sum(write.size for write in part) for part in parts]
    assert recorder.slice_max_ns.tolist() == [max((write.response for write in part), default=0) for part in parts]
    for counts, part in zip(recorder.response, parts, strict=True):
        assert Histogram(counts) == Histogram.of([write.response for write in part])
    for name in ("service", "wait", "late"):
        assert Histogram(getattr(recorder, name)) == Histogram.of([getattr(write, name) for write in writes]), name
    assert recorder.at[load.COMPLETED] == len(writes)
    assert recorder.at[load.BYTES] == sum(write.size for write in writes)


# The loop, interpreted, on a pretend clock and a target that does as it is told


class Pretend:
    """A clock and a target that takes one write after the other, write n for `service_ns[n]`."""

    def __init__(self, service_ns, read_ns=40, refuse=(), fail_at_ns=None, oversleep_ns=0, work_ns=0):
        self.now_ns = 5 * NS_PER_S
        self.service_ns = service_ns
        self.read_ns = read_ns  # what looking at the clock takes
        self.refuse = set(refuse)  # attempts that are refused, counted from 0
        self.fail_at_ns = fail_at_ns
        self.oversleep_ns = oversleep_ns
        self.work_ns = work_ns  # in every turn, after the sleep
        self.slept = (0, 0)
        self.full = False  # A target that has refused makes room in its next turn, and does not sleep.
        self.attempts = 0
        self.turns = 0
        self.submitted = []  # (number, address, size, now)
        self.completes_ns = []
        self.in_flight_max = 0

    def monotonic_ns(self):
        self.now_ns += self.read_ns
        return self.now_ns

    def completed(self, target):
        return bisect_right(self.completes_ns, self.now_ns)

    def submit(self, target, number, address, size, now_ns):
        self.attempts += 1
        if self.attempts - 1 in self.refuse:
            self.full = True
            return False
        before = max(now_ns, self.completes_ns[-1] if self.completes_ns else 0)
        self.submitted.append((number, int(address), int(size), now_ns))
        self.completes_ns.append(before + self.service_ns[number])
        self.in_flight_max = max(self.in_flight_max, len(self.completes_ns) - self.completed(target))
        return True

    def progress(self, target, deadline_ns):
        self.turns += 1
        assert self.turns < 200_000, "the loop does not come to an end"
        if self.fail_at_ns is not None and self.now_ns >= self.fail_at_ns:
            return -5
        begin_ns, due = self.now_ns, self.completes_ns[self.completed(target) :][:1]
        wake_ns = min([deadline_ns, *due])
        if wake_ns > begin_ns and not self.full:
            self.now_ns = wake_ns + self.oversleep_ns
        self.full = False
        self.slept = (begin_ns, self.now_ns)
        self.now_ns += self.read_ns + self.work_ns
        return 0

    def waited(self, target):
        return self.slept


def rehearse(monkeypatch, plan, pretend, closed, queue_depth, duration_ns, slice_count=4, stop=False):
    """Drive the plan at the pretend target; answers (status, recorder, writes as noted, board, history)."""
    for verb in ("monotonic_ns", "submit", "progress", "completed", "waited"):
        monkeypatch.setattr(load, verb, getattr(pretend, verb))
    writes = []
    note_completion = load.note_completion

    def noting(recorder, flight, number, size, now_ns, slice_ns):
        place = number % flight.issued_ns.size
        begin_ns = int(recorder.at[load.BEGIN_NS])
        instants = (flight.intended_ns[place], flight.issued_ns[place], now_ns)
        writes.append(Write(*(int(instant) - begin_ns for instant in instants), int(size), int(flight.late_ns[place])))
        return note_completion(recorder, flight, number, size, now_ns, slice_ns)

    monkeypatch.setattr(load, "note_completion", noting)
    recorder, flight = replicated.recorder_of(slice_count), replicated.flight_of(queue_depth)
    board, history = np.zeros(64, np.int64), np.zeros(1 << 12, np.int64)
    board[load.BOARD_STOP] = stop
    status = interpreted(load.drive.py_func)(
        plan, closed, queue_depth, duration_ns, duration_ns // slice_count, None, flight, recorder, board, history
    )
    return status, recorder, writes, board, history


def random_plan(dice, closed, count, gap_ns):
    intended = np.zeros(count) if closed else np.cumsum(dice.integers(0, 2 * gap_ns, count))
    return from_arrays(intended, 4096 * dice.integers(0, 1000, count), 512 * dice.integers(1, 9, count))


def assert_a_round(plan, pretend, story, queue_depth, duration_ns, slice_count=4):
    """What must hold of every round, whatever happened in it."""
    status, recorder, writes, board, history = story
    issued = len(pretend.submitted)
    begin_ns = int(recorder.at[load.BEGIN_NS])
    planned = list(zip(range(issued), plan.address.tolist(), plan.size.tolist(), strict=False))
    assert [submitted[:3] for submitted in pretend.submitted] == planned
    assert pretend.in_flight_max <= queue_depth
    assert all(write.intended < duration_ns for write in writes)
    assert all(write.service <= write.response and write.wait >= write.late >= 0 for write in writes)
    assert [write.issued for write in writes] == [now - begin_ns for *_, now in pretend.submitted[: len(writes)]]
    assert_recorded(recorder, writes, duration_ns // slice_count)
    words = (board[load.BOARD_ISSUED], board[load.BOARD_COMPLETED], board[load.BOARD_BEGIN_NS])
    assert words == (recorder.at[load.ISSUED], recorder.at[load.COMPLETED], begin_ns)
    assert (recorder.at[load.ISSUED], recorder.at[load.COMPLETED]) == (issued, len(writes))
    for number in range(max(len(writes) - history.size, 0), len(writes)):
        assert history[number % history.size] == begin_ns + writes[number].completed
    assert recorder.at[load.STATUS] == status


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_every_planned_write_is_issued_once_in_order_and_noted_as_it_happened(monkeypatch, closed, seed):
    dice = np.random.default_rng(seed)
    queue_depth, count = int(dice.integers(1, 9)), int(dice.integers(0, 300))
    plan = random_plan(dice, closed, count, gap_ns=100_000)
    service_ns = dice.choice([0, 500, 80_000, 120_000, 3 * NS_PER_MS], count).tolist()
    refuse = dice.integers(0, 300, 20).tolist() if seed % 2 else ()
    pretend = Pretend(service_ns, refuse=refuse)
    story = rehearse(monkeypatch, plan, pretend, closed, queue_depth, NS_PER_S)
    assert_a_round(plan, pretend, story, queue_depth, NS_PER_S)
    assert story[0] == 0 and len(story[2]) == count
    assert story[1].at[load.REFUSED] == sum(attempt < pretend.attempts for attempt in pretend.refuse)


@pytest.mark.parametrize("seed", range(10))
def test_response_times_are_those_of_a_queue_even_if_the_depth_is_one(monkeypatch, seed):
    dice = np.random.default_rng(seed)
    plan = random_plan(dice, False, 200, gap_ns=100_000)
    service_ns = dice.integers(10_000, 180_000, 200).tolist()
    pretend = Pretend(service_ns, read_ns=50)
    *_, writes, _, _ = rehearse(monkeypatch, plan, pretend, False, 1, NS_PER_S)
    expected = load_oracle.one_at_a_time(plan.intended_ns.tolist(), service_ns)
    # A look at the clock takes 50 ns here, and a queue keeps what a few looks a write add up to.
    assert [write.response for write in writes] == pytest.approx(expected, abs=200 * 5 * 50)
    assert max(expected) > 250_000


@pytest.mark.parametrize("queue_depth", [1, 4, 1000])
def test_a_stall_shows_in_every_write_that_should_have_started_during_it(monkeypatch, queue_depth):
    plan = from_arrays(np.arange(300) * NS_PER_MS, np.zeros(300), np.full(300, 512))
    service_ns = [10_000] * 300
    service_ns[100] = 50 * NS_PER_MS
    story = rehearse(monkeypatch, plan, Pretend(service_ns), False, queue_depth, NS_PER_S)
    writes = story[2]
    for number in range(100, 150):
        left_ns = 150 * NS_PER_MS - plan.intended_ns[number]
        assert left_ns <= writes[number].response <= left_ns + NS_PER_MS
    assert max(write.response for write in writes[:100] + writes[160:]) < 50_000
    # Service time alone would have hidden it: with one write at a time it sees a single slow one.
    if queue_depth == 1:
        assert sum(write.service > NS_PER_MS for write in writes) == 1
    assert sum(write.response > NS_PER_MS for write in writes) in (50, 51)


def test_a_closed_loop_intends_the_next_write_when_the_last_has_freed_its_place(monkeypatch):
    plan = from_arrays(np.zeros(50), np.zeros(50), np.full(50, 512))
    *_, writes, _, _ = rehearse(monkeypatch, plan, Pretend([30_000] * 50), True, 4, NS_PER_S)
    for number in range(4, 50):
        assert writes[number].intended == writes[number - 4].completed
    assert all(write.intended == 0 for write in writes[:4])


def test_the_generator_is_not_late_while_every_place_is_taken(monkeypatch):
    plan = from_arrays(np.arange(100) * 1000, np.zeros(100), np.full(100, 512))
    *_, writes, _, _ = rehearse(monkeypatch, plan, Pretend([NS_PER_MS] * 100), False, 2, NS_PER_S)
    assert max(write.wait for write in writes) > 90 * NS_PER_MS
    assert max(write.late for write in writes) < 2000


def test_a_generator_that_oversleeps_is_late(monkeypatch):
    plan = from_arrays(np.arange(1, 101) * NS_PER_MS, np.zeros(100), np.full(100, 512))
    pretend = Pretend([10_000] * 100, oversleep_ns=300_000)
    *_, writes, _, _ = rehearse(monkeypatch, plan, pretend, False, 2, NS_PER_S)
    assert all(300_000 - load.SPIN_NS - 1000 <= write.late <= 300_000 for write in writes)


def test_a_target_that_works_long_delays_a_write_and_the_generator_is_not_blamed(monkeypatch):
    plan = from_arrays(np.arange(1, 101) * NS_PER_MS, np.zeros(100), np.full(100, 512))
    pretend = Pretend([10_000] * 100, work_ns=300_000)
    *_, writes, _, _ = rehearse(monkeypatch, plan, pretend, False, 2, NS_PER_S)
    assert min(write.wait for write in writes) > 200_000
    assert max(write.late for write in writes) < 1000


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("service_ns", [10_000, 700_000])
def test_what_is_intended_within_the_round_is_issued_and_nothing_else(monkeypatch, closed, service_ns):
    duration_ns = 20 * NS_PER_MS
    plan = from_arrays(np.arange(5000) * (0 if closed else 100_000), np.zeros(5000), np.full(5000, 512))
    pretend = Pretend([service_ns] * 5000)
    story = rehearse(monkeypatch, plan, pretend, closed, 3, duration_ns)
    assert_a_round(plan, pretend, story, 3, duration_ns)
    status, recorder, writes, *_ = story
    assert status == 0 and 0 < len(writes) < 5000 and recorder.at[load.ISSUED] == len(writes)
    if closed:
        assert max(write.issued for write in writes) <= duration_ns + 2 * pretend.read_ns
    else:  # A backlog at the end is part of the round: 200 writes every 100 us, however slow they are.
        assert len(writes) == 200
        assert recorder.at[load.UNISSUED] == 0


def test_a_backlog_that_is_not_worked_off_in_time_is_counted_as_unissued(monkeypatch):
    plan = from_arrays(np.arange(200) * 100_000, np.zeros(200), np.full(200, 512))
    pretend = Pretend([NS_PER_S] * 200)
    story = rehearse(monkeypatch, plan, pretend, False, 3, 20 * NS_PER_MS)
    at = story[1].at
    assert at[load.UNISSUED] > 0 and at[load.ISSUED] + at[load.UNISSUED] == 200


def test_writes_that_never_complete_are_issued_and_not_completed(monkeypatch):
    plan = from_arrays(np.zeros(20), np.zeros(20), np.full(20, 512))
    pretend = Pretend([1000] * 10 + [3600 * NS_PER_S] * 10)
    story = rehearse(monkeypatch, plan, pretend, True, 4, NS_PER_S)
    assert_a_round(plan, pretend, story, 4, NS_PER_S)
    assert (story[1].at[load.ISSUED], story[1].at[load.COMPLETED]) == (14, 10)
    waited_ns = story[1].at[load.END_NS] - story[1].at[load.BEGIN_NS] - NS_PER_S
    assert load.DRAIN_NS <= waited_ns < load.DRAIN_NS + NS_PER_S


def test_a_target_that_fails_ends_the_round_with_its_status(monkeypatch):
    plan = from_arrays(np.zeros(500), np.zeros(500), np.full(500, 512))
    pretend = Pretend([100_000] * 500, fail_at_ns=5 * NS_PER_S + 10 * NS_PER_MS)
    story = rehearse(monkeypatch, plan, pretend, True, 4, NS_PER_S)
    assert story[0] == -5 and 90 <= len(story[2]) <= 101
    assert_a_round(plan, pretend, story, 4, NS_PER_S)


def test_a_board_that_asks_to_stop_is_obeyed_before_the_first_write(monkeypatch):
    plan = from_arrays(np.zeros(5), np.zeros(5), np.full(5, 512))
    pretend = Pretend([1] * 5)
    story = rehearse(monkeypatch, plan, pretend, True, 4, NS_PER_S, stop=True)
    assert story[0] == 0 and pretend.submitted == []


# Compiled, as it is used


def drive_null(plan, closed, queue_depth, duration_ns, slice_count=4):
    target, recorder = null_kernel.null_target(), replicated.recorder_of(slice_count)
    board, history = np.zeros(64, np.int64), np.zeros(1 << 16, np.int64)
    status = load.drive(
        plan, closed, queue_depth, duration_ns, duration_ns // slice_count, target,
        replicated.flight_of(queue_depth), recorder, board, history,
    )  # fmt: skip
    return status, int(target.taken[0]), recorder, board, history


def assert_counts_agree(recorder, board):
    completed = int(recorder.at[load.COMPLETED])
    assert recorder.slice_count.sum() == completed == board[load.BOARD_COMPLETED]
    assert recorder.slice_bytes.sum() == recorder.at[load.BYTES]
    assert recorder.response.sum() == completed
    assert recorder.service.sum() == recorder.wait.sum() == recorder.late.sum() == completed
    assert board[load.BOARD_ISSUED] == recorder.at[load.ISSUED]
    assert board[load.BOARD_LAST_COMPLETION_NS] >= recorder.at[load.LAST_COMPLETION_NS]
    assert board[load.BOARD_BEGIN_NS] == recorder.at[load.BEGIN_NS]


@pytest.mark.parametrize("queue_depth", [1, 2, 7, 4096])
def test_a_plan_that_the_null_target_has_finished_ends_the_round(queue_depth):
    plan = draw(Load(volume_bytes=MIB), 3, 20_000)
    status, taken, recorder, board, history = drive_null(plan, True, queue_depth, 10 * NS_PER_S)
    assert (status, taken, recorder.at[load.ISSUED], recorder.at[load.COMPLETED]) == (0, 20_000, 20_000, 20_000)
    assert_counts_agree(recorder, board)
    assert recorder.at[load.BYTES] == plan.size.sum()
    assert (np.diff(history[:20_000]) >= 0).all() and history[20_000] == 0
    assert history[19_999] == recorder.at[load.LAST_COMPLETION_NS]


@pytest.mark.parametrize("arrival", ["fixed", "poisson"])
def test_an_open_loop_at_the_null_target_issues_what_was_due_in_the_round(arrival):
    plan = draw(Load(volume_bytes=MIB, arrival=arrival, rate_per_s=20_000.0), 5, 20_000)
    duration_ns = 100 * NS_PER_MS
    status, taken, recorder, board, _ = drive_null(plan, False, 64, duration_ns)
    due = int((plan.intended_ns < duration_ns).sum())
    # What falls due while the loop is away from the processor at the very end is no longer issued.
    assert status == 0 and 0.8 * due <= taken <= due
    assert_counts_agree(recorder, board)
    intended = np.bincount(plan.intended_ns[:taken] // (duration_ns // 4), minlength=4)
    assert recorder.slice_count.tolist() == intended.tolist()


def test_an_empty_plan_is_a_round_without_writes():
    status, taken, recorder, board, _ = drive_null(draw(Load(volume_bytes=MIB), 1, 0), True, 4, NS_PER_S)
    assert (status, taken) == (0, 0)
    assert_counts_agree(recorder, board)


def order(arrival="closed", queue_depth=4, count=400, duration_ns=NS_PER_S, rate_per_s=None, seed=9):
    return replicated.Order(
        protocol="local", volume=77, epoch=1, seed=seed,
        load=Load(volume_bytes=16 * MIB, arrival=arrival, queue_depth=queue_depth, rate_per_s=rate_per_s),
        trace_path="", trace_begin_ns=0, time_scale=1.0, write_count_max=count, queue_depth=queue_depth,
        duration_ns=duration_ns, slice_ns=duration_ns // 10, slice_count=10, peer_timeout_ns=NS_PER_S, reactor="plain",
    )  # fmt: skip


@pytest.mark.parametrize("arrival", ["closed", "poisson"])
@pytest.mark.parametrize("queue_depth", [1, 5, 32])
def test_the_engine_keeps_exactly_the_writes_that_the_loop_says_it_issued(arrival, queue_depth):
    asked = order(arrival, queue_depth, rate_per_s=None if arrival == "closed" else 4000.0)
    board, history = np.zeros(64, np.int64), np.zeros(1 << 12, np.int64)
    with disk(None, 16 * MIB, 16 * MIB) as memory:
        observed = replicated.write_side(asked, memory, [], board, history)
        recorder = observed["recorder"]
        completed = int(recorder.at[load.COMPLETED])
        found = replicated.audit_side(asked, memory, completed)
    assert observed["status"] == 0 and completed == recorder.at[load.ISSUED] == 400
    assert found == {"completed": 400, "survived": 400, "lost": 0, "damaged": 0, "lost_bytes": 0}
    assert_counts_agree(recorder, board)
    response, service = Histogram(recorder.response.sum(axis=0)), Histogram(recorder.service)
    assert all(service.quantile(q) <= response.quantile(q) for q in (0, 0.25, 0.5, 0.75, 0.99, 1))


def test_the_board_tells_while_the_round_lasts_and_never_of_more_than_the_depth():
    asked = order("closed", 3, 2_000_000, NS_PER_S // 4)
    board, history = np.zeros(64, np.int64), np.zeros(1 << 16, np.int64)
    answers, seen = [], []
    with disk(None, 16 * MIB, 16 * MIB) as memory:
        writing = threading.Thread(
            target=lambda: answers.append(replicated.write_side(asked, memory, [], board, history))
        )
        writing.start()
        while writing.is_alive():
            issued = int(board[load.BOARD_ISSUED])
            seen.append((issued, int(board[load.BOARD_COMPLETED])))  # Read later, so it can only be too large.
            writing.join(0.001)
    assert all(issued - completed <= 3 for issued, completed in seen)
    assert len({completed for _, completed in seen}) > 10
    assert seen == sorted(seen)
    assert_counts_agree(answers[0]["recorder"], board)


def test_a_recorder_has_as_many_slots_as_a_histogram():
    assert replicated.recorder_of(3).response.shape == (3, SLOTS)


@pytest.mark.parametrize("queue_depth", [1, 2, 3, 4, 7, 8, 1023, 4096])
def test_a_flight_has_more_places_than_writes_under_way(queue_depth):
    places = replicated.flight_of(queue_depth).issued_ns.size
    assert queue_depth < places <= 4 * queue_depth + 4 and places & (places - 1) == 0


def test_the_loop_spins_only_for_the_last_stretch():
    assert load.SPIN_NS <= 50 * NS_PER_US


@pytest.mark.parametrize("note_completion", both_ways(load.note_completion))
def test_a_write_is_kept_by_itself_only_where_there_is_room_for_it(note_completion):
    room = np.full((2, load.SAMPLE_WORDS), -1, np.int64)
    recorder, flight = replicated.recorder_of(1, room), replicated.flight_of(3)
    recorder.at[load.BEGIN_NS] = 1000
    for number, (intended, issued, completed) in enumerate([(1000, 1005, 1100), (1010, 1100, 1250), (1020, 1250, 1300)]):
        flight.intended_ns[number], flight.issued_ns[number] = intended, issued
        note_completion(recorder, flight, number, 4096, completed, 10**9)
    times = slice(load.INTENDED_NS, load.COMPLETED_NS + 1)
    assert room[:, times].tolist() == [[0, 5, 100], [10, 100, 250]]
    assert (room[:, [load.NUMBER, load.SIZE, load.OPERATION]] == -1).all()
    assert recorder.at[load.COMPLETED] == 3
