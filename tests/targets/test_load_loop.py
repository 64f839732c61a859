"""The measured loop: its steps against the oracle, its loop on a pretend clock and target, and for real on two targets."""

import threading
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest

from both_ways import both_ways, interpreted
from farwrite.base.histogram import Histogram
from farwrite.base.histogram_kernel import SLOTS
from farwrite.base.host.disk import disk
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.units import NS_PER_MS, NS_PER_S, NS_PER_US
from farwrite.targets import load_loop_kernel as load
from farwrite.targets import null_kernel, pace_kernel, replicated
from farwrite.targets.observed import Audited
from farwrite.workload.plan import Load, Stretch, draw, from_arrays
from farwrite.workload.plan_kernel import FLUSH, READ, TRIM, WRITE
from oracle import load_oracle
from oracle.load_oracle import Write

MIB = 1 << 20
SPIN_NS = 20_000


# Steps


@pytest.mark.parametrize("intended_of", both_ways(load.intended_of))
def test_a_closed_loop_intends_what_is_free_and_an_open_one_what_is_planned(intended_of):
    assert intended_of(True, 0, 1000, 1234) == 1234
    assert intended_of(True, 70, 1000, 1234) == 1304  # Its caller has thought for so long.
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
    recorder = replicated.recorder_of(slice_count)
    recorder.at[0].begin_ns = begin_ns
    for write in writes:
        instants = begin_ns + write.intended, begin_ns + write.issued, write.late, begin_ns + write.completed
        assert note_completion(recorder, 0, WRITE, write.size, *instants, slice_ns) == write.response
    assert_recorded(recorder, writes, slice_ns)
    assert recorder.at[0].last_completion_ns == begin_ns + writes[-1].completed


def assert_recorded(recorder, writes, slice_ns):
    """The recorder holds exactly these writes."""
    parts = load_oracle.slices(writes, slice_ns, recorder.slice_count.size)
    assert recorder.slice_count.tolist() == [len(part) for part in parts]
    assert recorder.slice_bytes.tolist() == [sum(write.size for write in part) for part in parts]
    assert recorder.slice_max_ns.tolist() == [max((write.response for write in part), default=0) for part in parts]
    done = load_oracle.within(writes, slice_ns, recorder.slice_count.size)
    assert recorder.within_count.tolist() == [len(part) for part in done]
    assert recorder.within_bytes.tolist() == [sum(write.size for write in part) for part in done]
    for counts, part in zip(recorder.response, parts, strict=True):
        assert Histogram(counts) == Histogram.of([write.response for write in part])
    for name in ("service", "wait", "late"):
        assert Histogram(getattr(recorder, name)) == Histogram.of([getattr(write, name) for write in writes]), name
    assert recorder.at[0].completed == len(writes)
    assert recorder.at[0].bytes == sum(write.size for write in writes)


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
        self.lasts_read_ns = 7000
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

    def trim(self, target, address, size, now_ns):
        return self.submit(target, None, address, size, now_ns, None)

    def read(self, target, address, size):
        self.now_ns += self.lasts_read_ns
        return size

    def submit(self, target, number, address, size, now_ns, payload_profile):
        self.attempts += 1
        if self.attempts - 1 in self.refuse:
            self.full = True
            return False
        before = max(now_ns, self.completes_ns[-1] if self.completes_ns else 0)
        self.submitted.append((number, int(address), int(size), now_ns))
        self.completes_ns.append(before + self.service_ns[len(self.completes_ns)])
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


def rehearse(monkeypatch, plan, pretend, closed, queue_depth, duration_ns, slice_count=4, stop=False, asked=None, bounds=None):
    """Drive the plan at the pretend target; answers (status, recorder, writes as noted, board, history)."""
    for verb in ("monotonic_ns", "submit", "trim", "read", "progress", "completed", "waited"):
        monkeypatch.setattr(load, verb, getattr(pretend, verb))
    writes = []
    note_completion = load.note_completion

    def noting(recorder, row, operation, size, intended_ns, issued_ns, late_ns, now_ns, slice_ns):
        begin_ns = int(recorder.at[0].begin_ns)
        instants = (int(instant) - begin_ns for instant in (intended_ns, issued_ns, now_ns))
        writes.append(Write(*instants, int(size), int(late_ns), int(operation), int(row)))
        return note_completion(recorder, row, operation, size, intended_ns, issued_ns, late_ns, now_ns, slice_ns)

    monkeypatch.setattr(load, "note_completion", noting)
    asked = asked or Load(MIB, queue_depth=queue_depth, **({} if closed else {"arrival": "fixed", "rate_per_s": 1.0}))
    recorder, flight = replicated.recorder_of(slice_count, asked), replicated.flight_of(queue_depth)
    bounds = np.array([0, plan.size.size]) if bounds is None else bounds
    jobs = replicated.jobs_of(asked, bounds, queue_depth)
    order = np.full(plan.size.size if len(bounds) > 2 else 0, -1, np.int64)
    board, history = rows_of(SharedCounters), np.zeros(1 << 12, np.int64)
    board[0].stop = stop
    status = interpreted(load.drive.py_func)(
        plan, jobs, duration_ns, duration_ns // slice_count, SPIN_NS, None, flight, recorder, board, history, order
    )
    pretend.order = order
    return status, recorder, writes, board, history


def random_plan(dice, closed, count, gap_ns):
    intended = np.zeros(count) if closed else np.cumsum(dice.integers(0, 2 * gap_ns, count))
    return from_arrays(intended, 4096 * dice.integers(0, 1000, count), 512 * dice.integers(1, 9, count))


def assert_a_round(plan, pretend, story, queue_depth, duration_ns, slice_count=4):
    """What must hold of every round, whatever happened in it."""
    status, recorder, writes, board, history = story
    issued = len(pretend.submitted)
    begin_ns = int(recorder.at[0].begin_ns)
    planned = list(zip(range(issued), plan.address.tolist(), plan.size.tolist(), strict=False))
    assert [submitted[:3] for submitted in pretend.submitted] == planned
    assert pretend.in_flight_max <= queue_depth
    assert all(write.intended < duration_ns for write in writes)
    assert all(write.service <= write.response and write.wait >= write.late >= 0 for write in writes)
    assert [write.issued for write in writes] == [now - begin_ns for *_, now in pretend.submitted[: len(writes)]]
    assert_recorded(recorder, writes, duration_ns // slice_count)
    words = (board[0].issued, board[0].completed, board[0].begin_ns)
    assert words == (recorder.at[0].issued, recorder.at[0].completed, begin_ns)
    assert (recorder.at[0].issued, recorder.at[0].completed) == (issued, len(writes))
    for number in range(max(len(writes) - history.size, 0), len(writes)):
        assert history[number % history.size] == begin_ns + writes[number].completed
    assert recorder.at[0].status == status


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
    assert story[1].at[0].refused == sum(attempt < pretend.attempts for attempt in pretend.refuse)


@pytest.mark.parametrize("operation", ["submit", "trim"])
def test_an_operation_that_the_target_can_never_take_ends_the_round_with_its_status(monkeypatch, operation):
    kind = WRITE if operation == "submit" else TRIM
    plan = from_arrays(np.arange(10) * 1000, np.zeros(10), np.full(10, 512), np.array([*[WRITE] * 5, *[kind] * 5]))
    pretend = Pretend([100] * 10)
    took = getattr(pretend, operation)
    setattr(pretend, operation, lambda target, *of: -1006 if len(pretend.submitted) == 5 else took(target, *of))
    status, recorder, *_ = rehearse(monkeypatch, plan, pretend, False, 4, NS_PER_S)
    assert status == recorder.at[0].status == -1006
    assert len(pretend.submitted) == 5 and recorder.at[0].refused == 0


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
    assert all(300_000 - SPIN_NS - 1000 <= write.late <= 300_000 for write in writes)


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
    assert status == 0 and 0 < len(writes) < 5000 and recorder.at[0].issued == len(writes)
    if closed:
        assert max(write.issued for write in writes) <= duration_ns + 2 * pretend.read_ns
    else:  # A backlog at the end is part of the round: 200 writes every 100 us, however slow they are.
        assert len(writes) == 200
        assert recorder.at[0].unissued == 0


def test_a_backlog_that_is_not_worked_off_in_time_is_counted_as_unissued(monkeypatch):
    plan = from_arrays(np.arange(200) * 100_000, np.zeros(200), np.full(200, 512))
    pretend = Pretend([NS_PER_S] * 200)
    story = rehearse(monkeypatch, plan, pretend, False, 3, 20 * NS_PER_MS)
    at = story[1].at[0]
    assert at.unissued > 0 and at.issued + at.unissued == 200


def test_writes_that_never_complete_are_issued_and_not_completed(monkeypatch):
    plan = from_arrays(np.zeros(20), np.zeros(20), np.full(20, 512))
    pretend = Pretend([1000] * 10 + [3600 * NS_PER_S] * 10)
    story = rehearse(monkeypatch, plan, pretend, True, 4, NS_PER_S)
    assert_a_round(plan, pretend, story, 4, NS_PER_S)
    assert (story[1].at[0].issued, story[1].at[0].completed) == (14, 10)
    waited_ns = story[1].at[0].end_ns - story[1].at[0].begin_ns - NS_PER_S
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
    board, history = rows_of(SharedCounters), np.zeros(1 << 16, np.int64)
    asked = Load(MIB, queue_depth=queue_depth, **({} if closed else {"arrival": "fixed", "rate_per_s": 1.0}))
    jobs = replicated.jobs_of(asked, np.array([0, plan.size.size]), queue_depth)
    status = load.drive(
        plan, jobs, duration_ns, duration_ns // slice_count, SPIN_NS, target, replicated.flight_of(queue_depth), recorder,
        board, history, np.zeros(0, np.int64),
    )  # fmt: skip
    return status, int(target.at[0].taken), recorder, board, history


def assert_counts_agree(recorder, board):
    completed = int(recorder.at[0].completed)
    assert recorder.slice_count.sum() == completed == board[0].completed
    assert recorder.slice_bytes.sum() == recorder.at[0].bytes
    assert recorder.response.sum() == completed
    assert recorder.service.sum() == recorder.wait.sum() == recorder.late.sum() == completed
    assert board[0].issued == recorder.at[0].issued
    assert board[0].last_completion_ns >= recorder.at[0].last_completion_ns
    assert board[0].begin_ns == recorder.at[0].begin_ns


@pytest.mark.parametrize("queue_depth", [1, 2, 7, 4096])
def test_a_plan_that_the_null_target_has_finished_ends_the_round(queue_depth):
    plan = draw(Load(volume_bytes=MIB), 3, 20_000)
    status, taken, recorder, board, history = drive_null(plan, True, queue_depth, 10 * NS_PER_S)
    assert (status, taken, recorder.at[0].issued, recorder.at[0].completed) == (0, 20_000, 20_000, 20_000)
    assert_counts_agree(recorder, board)
    assert recorder.at[0].bytes == plan.size.sum()
    assert (np.diff(history[:20_000]) >= 0).all() and history[20_000] == 0
    assert history[19_999] == recorder.at[0].last_completion_ns


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
        write_count_max=count, queue_depth=queue_depth,
        duration_ns=duration_ns, slice_ns=duration_ns // 10, slice_count=10, peer_timeout_ns=NS_PER_S, reactor="plain",
    )  # fmt: skip


@pytest.mark.parametrize("arrival", ["closed", "poisson"])
@pytest.mark.parametrize("queue_depth", [1, 5, 32])
def test_the_engine_keeps_exactly_the_writes_that_the_loop_says_it_issued(arrival, queue_depth):
    asked = order(arrival, queue_depth, rate_per_s=None if arrival == "closed" else 4000.0)
    board, history = rows_of(SharedCounters), np.zeros(1 << 12, np.int64)
    with disk(None, 16 * MIB, 16 * MIB) as memory:
        observed = replicated.write_side(asked, memory, [], board, history)
        recorder = observed.recorder
        completed = int(recorder.at[0].completed)
        found = replicated.audit_side(asked, memory, completed)
    assert observed.status == 0 and completed == recorder.at[0].issued == 400
    assert found == Audited(completed=400, survived=400, lost=0, damaged=0, lost_bytes=0)
    assert_counts_agree(recorder, board)
    response, service = Histogram(recorder.response.sum(axis=0)), Histogram(recorder.service)
    assert all(service.quantile(q) <= response.quantile(q) for q in (0, 0.25, 0.5, 0.75, 0.99, 1))


def test_the_board_tells_while_the_round_lasts_and_never_of_more_than_the_depth():
    asked = order("closed", 3, 2_000_000, NS_PER_S // 4)
    board, history = rows_of(SharedCounters), np.zeros(1 << 16, np.int64)
    answers, seen = [], []
    with disk(None, 16 * MIB, 16 * MIB) as memory:
        writing = threading.Thread(target=lambda: answers.append(replicated.write_side(asked, memory, [], board, history)))
        writing.start()
        while writing.is_alive():
            issued = int(board[0].issued)
            seen.append((issued, int(board[0].completed)))  # Read later, so it can only be too large.
            writing.join(0.001)
    assert all(issued - completed <= 3 for issued, completed in seen)
    assert len({completed for _, completed in seen}) > 10
    assert seen == sorted(seen)
    assert_counts_agree(answers[0].recorder, board)


def test_a_recorder_has_as_many_slots_as_a_histogram():
    assert replicated.recorder_of(3).response.shape == (3, SLOTS)


@pytest.mark.parametrize("queue_depth", [1, 2, 3, 4, 7, 8, 1023, 4096])
def test_a_flight_has_more_places_than_writes_under_way(queue_depth):
    places = replicated.flight_of(queue_depth).issued_ns.size
    assert queue_depth < places <= 4 * queue_depth + 4 and places & (places - 1) == 0


@pytest.mark.parametrize("keep_sample", both_ways(load.keep_sample))
def test_an_io_is_kept_by_itself_only_where_there_is_room_for_it(keep_sample):
    room = np.full((2, load.SAMPLE_WORDS), -1, np.int64)
    recorder = replicated.recorder_of(1, samples=room)
    recorder.at[0].begin_ns = 1000
    for number, (intended, issued, completed) in enumerate([(1000, 1005, 1100), (1010, 1100, 1250), (1020, 1250, 1300)]):
        keep_sample(recorder, number, intended, issued, completed)
    times = slice(load.INTENDED_NS, load.COMPLETED_NS + 1)
    assert room[:, times].tolist() == [[0, 5, 100], [10, 100, 250]]
    assert (room[:, [load.NUMBER, load.SIZE, load.OPERATION]] == -1).all()


def test_the_loop_spins_as_long_as_this_machine_oversleeps_within_bounds():
    assert pace_kernel.SPIN_NS_MIN <= pace_kernel.spin_ns() <= pace_kernel.SPIN_NS_MAX <= 200 * NS_PER_US
    assert pace_kernel.bounded(70_000.2, 2) == 70_000
    assert pace_kernel.bounded(1e9, 2) == pace_kernel.SPIN_NS_MAX
    assert pace_kernel.bounded(1e9, 1) == pace_kernel.SPIN_NS_MIN


# Other operations than writes


def blended(dice, count, closed):
    operation = dice.choice(np.array([WRITE, WRITE, READ, FLUSH, TRIM], np.int8), count)
    plan = random_plan(dice, closed, count, gap_ns=50_000)
    return from_arrays(plan.intended_ns, plan.address, np.where(operation == FLUSH, 0, plan.size), operation)


def assert_parts(recorder, done, rows=1):
    """The parts hold exactly these I/Os, by job's name and operation."""
    for row in range(rows):
        for operation in (WRITE, READ, FLUSH, TRIM):
            mine = [one for one in done if (one.job, one.operation) == (row, operation)]
            part = row * load.OPERATIONS + operation - 1
            assert (recorder.part_count[part], recorder.part_bytes[part]) == (len(mine), sum(one.size for one in mine))
            assert Histogram(recorder.part[part]) == Histogram.of([one.response for one in mine])


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_every_operation_is_issued_once_and_is_in_a_row_of_its_own(monkeypatch, closed, seed):
    dice = np.random.default_rng(seed)
    queue_depth, count = int(dice.integers(1, 9)), int(dice.integers(0, 300))
    plan = blended(dice, count, closed)
    service_ns = dice.choice([0, 500, 80_000, 120_000, 3 * NS_PER_MS], count).tolist()
    pretend = Pretend(service_ns, refuse=dice.integers(0, 300, 20).tolist() if seed % 2 else ())
    asked = Load(MIB, queue_depth=queue_depth, flush_every=1, **({} if closed else {"arrival": "fixed", "rate_per_s": 1.0}))
    status, recorder, done, board, _ = rehearse(monkeypatch, plan, pretend, closed, queue_depth, NS_PER_S, asked=asked)
    assert status == 0 and len(done) == count
    assert_parts(recorder, done)
    writes = [one for one in done if one.operation == WRITE]
    assert_recorded_writes(recorder, writes, NS_PER_S // 4)
    kept = [(None if plan.operation[n] == TRIM else n) for n in range(count) if plan.operation[n] in (WRITE, TRIM)]
    assert [number for number, *_ in pretend.submitted] == kept
    assert (recorder.at[0].sequenced, recorder.at[0].acked, board[0].completed) == (len(kept),) * 3
    assert all(one.late <= one.wait for one in done)


def assert_recorded_writes(recorder, writes, slice_ns):
    parts = load_oracle.slices(writes, slice_ns, recorder.slice_count.size)
    assert recorder.slice_count.tolist() == [len(part) for part in parts]
    for counts, part in zip(recorder.response, parts, strict=True):
        assert Histogram(counts) == Histogram.of([write.response for write in part])
    assert Histogram(recorder.service) == Histogram.of([write.service for write in writes])


def test_a_flush_waits_for_what_was_submitted_before_it_and_for_nothing_else(monkeypatch):
    operation = np.array([WRITE, WRITE, FLUSH, WRITE, FLUSH], np.int8)
    plan = from_arrays(np.array([0, 1, 2, 3, 9000]) * 1000, np.zeros(5), np.where(operation == FLUSH, 0, 512), operation)
    pretend = Pretend([100_000, 200_000, 300_000])
    asked = Load(MIB, queue_depth=8, arrival="fixed", rate_per_s=1.0, flush_every=2)
    *_, done, _, _ = rehearse(monkeypatch, plan, pretend, False, 8, NS_PER_S, asked=asked)
    flushes = [one for one in done if one.operation == FLUSH]
    first, second, third = [one for one in done if one.operation == WRITE]
    assert first.completed < flushes[0].completed == second.completed < third.completed
    assert flushes[1].response < 2000  # Nothing was under way.


def test_a_read_waits_for_no_write_and_is_timed_by_itself(monkeypatch):
    operation = np.array([WRITE, READ, READ, WRITE], np.int8)
    plan = from_arrays(np.zeros(4), np.zeros(4), np.full(4, 512), operation)
    pretend = Pretend([5 * NS_PER_MS, 5 * NS_PER_MS])
    asked = Load(MIB, queue_depth=2, read_share=0.5)
    *_, done, _, _ = rehearse(monkeypatch, plan, pretend, True, 2, NS_PER_S, asked=asked)
    reads = [one for one in done if one.operation == READ]
    assert [one.operation for one in done] == [READ, READ, WRITE, WRITE]
    assert all(pretend.lasts_read_ns <= read.service < pretend.lasts_read_ns + 500 for read in reads)
    assert reads[1].intended == reads[0].completed


def test_a_caller_that_thinks_issues_that_much_later(monkeypatch):
    plan = from_arrays(np.full(50, 70_000), np.zeros(50), np.full(50, 512))
    *_, writes, _, _ = rehearse(monkeypatch, plan, Pretend([30_000] * 50), True, 4, NS_PER_S)
    for number in range(4, 50):
        assert writes[number].intended == writes[number - 4].completed + 70_000
    assert all(write.wait < 2000 for write in writes)


# Several jobs


@pytest.mark.parametrize("seed", range(12))
def test_each_job_keeps_its_own_depth_and_order_and_the_log_says_whose_write_is_where(monkeypatch, seed):
    dice = np.random.default_rng(seed)
    jobs, plans = [], []
    for place in range(int(dice.integers(2, 6))):
        closed = bool(dice.integers(2))
        depth, count = int(dice.integers(1, 5)), int(dice.integers(0, 80))
        arrival = {} if closed else {"arrival": "fixed", "rate_per_s": 1.0}
        jobs.append(Load(MIB, queue_depth=depth, flush_every=1, name=f"job{place // 2}", **arrival))
        plans.append(blended(dice, count, closed))
    plan = from_arrays(*(np.concatenate(columns) for columns in zip(*plans, strict=True)))
    bounds = np.cumsum([0, *(part.size.size for part in plans)])
    service_ns = dice.choice([500, 80_000, 3 * NS_PER_MS], int(bounds[-1])).tolist()
    pretend = Pretend(service_ns, refuse=dice.integers(0, 300, 20).tolist() if seed % 2 else ())
    asked = Load(MIB, jobs=tuple(jobs))
    depth = sum(job.queue_depth for job in jobs)
    status, recorder, done, *_ = rehearse(monkeypatch, plan, pretend, False, depth, NS_PER_S, asked=asked, bounds=bounds)
    assert status == 0 and len(done) == bounds[-1] and pretend.in_flight_max <= depth
    assert_parts(recorder, done, rows=(len(jobs) + 1) // 2)
    order = pretend.order[: len(pretend.submitted)]
    assert [(plan.address[n], plan.size[n]) for n in order] == [(address, size) for _, address, size, _ in pretend.submitted]
    for begin, end in pairwise(bounds.tolist()):  # A job's own writes stay in its plan's order.
        mine = order[(order >= begin) & (order < end)]
        assert mine.tolist() == [n for n in range(begin, end) if plan.operation[n] in (WRITE, TRIM)]


def test_a_shallow_job_is_not_held_up_by_a_deep_one(monkeypatch):
    plan = from_arrays(np.zeros(400), np.zeros(400), np.full(400, 512))
    asked = Load(MIB, jobs=(Load(MIB, queue_depth=15, name="deep"), Load(MIB, queue_depth=1, name="shallow")))
    story = rehearse(monkeypatch, plan, Pretend([10_000] * 400), True, 16, NS_PER_S, asked=asked, bounds=np.array([0, 200, 400]))
    shallow = [one for one in story[2] if one.job == 1]
    # One write after the other through one server: with 16 under way each waits for 16 of them.
    assert all(one.response < 17 * 11_000 for one in shallow)


@pytest.mark.parametrize("phase_of", both_ways(load.phase_of))
def test_an_io_belongs_to_the_phase_of_its_instant_and_phases_come_again(phase_of):
    ends = np.array([10, 15, 40])
    assert [int(phase_of(100 + t, 100, ends)) for t in (0, 9, 10, 14, 15, 39, 40, 52)] == [0, 0, 1, 1, 2, 2, 0, 1]
    assert phase_of(7, 0, np.zeros(0, np.int64)) == 0


def test_phases_have_rows_of_their_own(monkeypatch):
    stretches = (Stretch(100 * NS_PER_MS, 1000.0, 1000.0, "calm"), Stretch(50 * NS_PER_MS, 4000.0, 4000.0, "storm"))
    asked = Load(MIB, arrival="fixed", rate_per_s=2000.0, stretches=stretches)
    plan = draw(asked, 1, 600)
    status, recorder, done, *_ = rehearse(monkeypatch, plan, Pretend([1000] * 600), False, 4, 300 * NS_PER_MS, asked=asked)
    assert status == 0 and len(done) == 600
    assert recorder.part_count.tolist() == [200, 0, 0, 0, 400, 0, 0, 0]


def full_order(load, protocol="local", seed=9, **other):
    return replicated.Order(
        protocol=protocol, volume=78, epoch=1, seed=seed, load=load,
        write_count_max=3000, queue_depth=load.queue_depth, duration_ns=200 * NS_PER_MS, slice_ns=20 * NS_PER_MS,
        slice_count=10, peer_timeout_ns=NS_PER_S, reactor="plain", **other,
    )  # fmt: skip


VM = {"read_share": 0.3, "trim_share": 0.1, "flush_share": 0.05, "compress_ratio": 2.0, "dedupe_ratio": 1.5}
LOADS = {
    "one": Load(4 * MIB, queue_depth=4, sizes=((4096, 1), (65536, 1)), trim_sizes=((131072, 1),), **VM),
    "open": Load(4 * MIB, arrival="poisson", rate_per_s=8000.0, queue_depth=32, alignment_bytes=512, sizes=((1536, 1),), **VM),
    "jobs": Load(4 * MIB, queue_depth=13, jobs=(
        Load(4 * MIB, name="log", queue_depth=1, address="sequential", flush_every=1, region_bytes=MIB),
        Load(4 * MIB, name="pages", queue_depth=8, address="zipf", **VM),
        Load(4 * MIB, name="pages", queue_depth=2, think_ns=50_000, compress_ratio=3.0),
        Load(4 * MIB, name="backup", queue_depth=2, arrival="fixed", rate_per_s=200.0, sizes=((MIB, 1),), read_share=0.5),
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_the_audit_finds_the_volume_exactly_as_writes_and_trims_of_all_jobs_have_left_it(name):
    asked = full_order(LOADS[name])
    board, history, issued = rows_of(SharedCounters), np.zeros(1 << 12, np.int64), np.zeros(1 << 18, np.int64)
    with disk(None, 64 * MIB, 4 * MIB) as memory:
        observed = replicated.write_side(asked, memory, [], board, history, issued)
        recorder = observed.recorder
        acked = int(recorder.at[0].acked)
        found = replicated.audit_side(asked, memory, acked, issued)
        assert observed.status == 0 and acked == recorder.at[0].sequenced > 50
        assert found == Audited(completed=acked, survived=acked, lost=0, damaged=0, lost_bytes=0)
        if name == "jobs":  # Another order is another volume.
            issued[:acked] = issued[:acked][::-1].copy()
            assert replicated.audit_side(asked, memory, acked, issued).damaged > 0
    counted = recorder.part_count.reshape(-1, load.OPERATIONS).sum(axis=0)
    assert counted[WRITE - 1] == recorder.at[0].completed and counted[FLUSH - 1] > 0 and counted[READ - 1] > 0
    assert counted[WRITE - 1] + counted[TRIM - 1] == acked
