"""The measured loop: issues a plan's writes at their intended instants, and notes when each was complete.

From intended instant to completion no Python bytecode runs. Three times are kept of every write (intended, issued, completed);
response time counts from the intended one, so a stall shows in every write that should have started during it (Gil Tene,
wrk2 README). What to issue when is `intended_of`, what to note are `lateness` and `note_completion`; `drive` is the loop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .histogram_kernel import record
from .host.libc import monotonic_ns
from .jit import kernel
from .target.verbs import completed, progress, submit, waited

# Indices into Recorder.at.
ISSUED, COMPLETED, BYTES, REFUSED, STATUS, BEGIN_NS, END_NS, LAST_COMPLETION_NS, UNISSUED = range(9)
AT_WORDS = 9

# Columns of Recorder.samples: one row a write, by number. The last two are the plan's and not touched here.
NUMBER, INTENDED_NS, ISSUED_NS, COMPLETED_NS, SIZE, OPERATION = range(6)
SAMPLE_WORDS = 6

# Words of the site's board that a run keeps up to date, for progress and for drills.
BOARD_STOP, BOARD_DURABLE, BOARD_ISSUED, BOARD_COMPLETED, BOARD_LAST_COMPLETION_NS, BOARD_BEGIN_NS = 0, 1, 2, 3, 4, 5

SPIN_NS = 20_000  # The last stretch before an intended instant is spent looking instead of sleeping.
DRAIN_NS = 5_000_000_000  # Writes still under way this long after the round's end count as unacknowledged.


class Flight(NamedTuple):
    """Writes under way; every array is indexed by write number modulo its size."""

    intended_ns: np.ndarray  # int64, CLOCK_MONOTONIC
    issued_ns: np.ndarray  # int64
    freed_ns: np.ndarray  # int64, when a place was free for this write
    late_ns: np.ndarray  # int64, how late the generator itself was


class Recorder(NamedTuple):
    """What a round observes."""

    at: np.ndarray  # int64, see the indices above
    response: np.ndarray  # int64, slices x buckets
    slice_count: np.ndarray  # int64 by slice
    slice_bytes: np.ndarray  # int64 by slice
    slice_max_ns: np.ndarray  # int64 by slice
    service: np.ndarray  # int64 by bucket
    wait: np.ndarray  # int64 by bucket
    late: np.ndarray  # int64 by bucket
    samples: np.ndarray  # int64, writes x SAMPLE_WORDS, instants since the round's begin; no rows unless samples are kept


@kernel()
def intended_of(closed, planned_ns, begin_ns, freed_ns):
    """When a write should start: as planned, or in a closed loop as soon as its place was free."""
    return freed_ns if closed else begin_ns + planned_ns


@kernel()
def slice_of(intended_ns, begin_ns, slice_ns, slice_count):
    """Which slice of the round a write belongs to."""
    index = (intended_ns - begin_ns) // slice_ns
    return min(max(index, 0), slice_count - 1)


@kernel()
def lateness(intended_ns, freed_ns, issued_ns, wait_begin_ns, woken_ns, returned_ns):
    """How late the generator itself issued a write that could have been issued: it overslept, or was slow afterwards.

    While the target works in our thread (`progress`, outside of its wait) the delay is the target's, and counts as
    response time like every other; it is left out here. Only the last turn of the loop is looked at, which is the one
    that the write's instant fell into.
    """
    ready_ns = max(intended_ns, freed_ns)
    overslept_ns = woken_ns - max(ready_ns, wait_begin_ns)
    slow_ns = issued_ns - max(ready_ns, returned_ns)
    return max(overslept_ns, 0) + max(slow_ns, 0)


@kernel()
def note_completion(recorder, flight, number, size, now_ns, slice_ns):
    """Record the times of one write that has just completed."""
    at = recorder.at
    place = number % flight.issued_ns.size
    intended_ns = flight.intended_ns[place]
    issued_ns = flight.issued_ns[place]
    response_ns = now_ns - intended_ns
    index = slice_of(intended_ns, at[BEGIN_NS], slice_ns, recorder.slice_count.size)
    record(recorder.response[index], response_ns)
    record(recorder.service, now_ns - issued_ns)
    record(recorder.wait, issued_ns - intended_ns)
    record(recorder.late, flight.late_ns[place])
    recorder.slice_count[index] += 1
    recorder.slice_bytes[index] += size
    recorder.slice_max_ns[index] = max(recorder.slice_max_ns[index], response_ns)
    at[COMPLETED] += 1
    at[BYTES] += size
    at[LAST_COMPLETION_NS] = now_ns
    if number < recorder.samples.shape[0]:
        begin_ns = at[BEGIN_NS]
        recorder.samples[number, INTENDED_NS] = intended_ns - begin_ns
        recorder.samples[number, ISSUED_NS] = issued_ns - begin_ns
        recorder.samples[number, COMPLETED_NS] = now_ns - begin_ns

    assert intended_ns <= issued_ns <= now_ns
    return response_ns


@kernel()
def drive(plan, closed, queue_depth, duration_ns, slice_ns, target, flight, recorder, board, history):
    """Issue what is intended within `duration_ns`, then wait for what is under way. Answers 0 or the target's status.

    Writes whose instant came before the end are issued even when they had to wait until after it: a backlog at the end
    counts like any other. A round that the plan does not fill ends with the plan. What is not complete DRAIN_NS after
    the end never is: it is in ISSUED - COMPLETED, or, not even issued, in UNISSUED.
    `board` and `history` (completion instants by write number modulo its size) outlive this process: when it is killed,
    they tell what the caller had been promised.
    """
    at = recorder.at
    begin_ns = monotonic_ns()
    end_ns = begin_ns + duration_ns
    at[BEGIN_NS] = begin_ns
    board[BOARD_BEGIN_NS] = begin_ns
    count = plan.intended_ns.size
    places = flight.issued_ns.size
    for place in range(places):
        flight.freed_ns[place] = begin_ns
    issued = np.int64(0)
    done = np.int64(0)
    status = np.int64(0)
    drained_ns = end_ns + DRAIN_NS
    now_ns = begin_ns
    wait_begin_ns, woken_ns, returned_ns = begin_ns, begin_ns, begin_ns
    while status == 0 and board[BOARD_STOP] == 0 and now_ns < drained_ns:
        issuing = issued < count
        next_ns = end_ns if now_ns < end_ns else drained_ns
        while issuing and issued - done < queue_depth:
            place = issued % places
            next_ns = intended_of(closed, plan.intended_ns[issued], begin_ns, flight.freed_ns[place])
            if next_ns >= end_ns:
                issuing = False
                break
            if next_ns > now_ns:
                break
            now_ns = monotonic_ns()
            if not submit(target, issued, plan.address[issued], plan.size[issued], now_ns):
                at[REFUSED] += 1
                next_ns = drained_ns
                break
            flight.intended_ns[place] = next_ns
            flight.issued_ns[place] = now_ns
            freed_ns = flight.freed_ns[place]
            flight.late_ns[place] = lateness(next_ns, freed_ns, now_ns, wait_begin_ns, woken_ns, returned_ns)
            issued += 1
            next_ns = end_ns if now_ns < end_ns else drained_ns
            issuing = issued < count
        board[BOARD_ISSUED] = issued
        if not issuing:
            if issued == done:
                break
            next_ns = drained_ns
        if closed:
            deadline_ns = next_ns
        else:
            deadline_ns = next_ns - SPIN_NS
        status = progress(target, deadline_ns)
        now_ns = monotonic_ns()
        returned_ns = now_ns
        wait_begin_ns, woken_ns = waited(target)
        reached = completed(target)
        while done < reached:
            note_completion(recorder, flight, done, plan.size[done], now_ns, slice_ns)
            history[done % history.size] = now_ns
            # The place that this completion frees is the one of the write queue_depth further on.
            flight.freed_ns[(done + queue_depth) % places] = now_ns
            done += 1
        board[BOARD_COMPLETED] = done
        board[BOARD_LAST_COMPLETION_NS] = now_ns
    at[ISSUED] = issued
    if not closed:
        while issued < count and begin_ns + plan.intended_ns[issued] < end_ns:
            issued += 1
            at[UNISSUED] += 1
    at[STATUS] = status
    at[END_NS] = monotonic_ns()

    assert at[COMPLETED] == done <= at[ISSUED]
    return status
