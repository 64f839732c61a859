"""The measured loop: issues a plan's I/O at its intended instants, and notes when each was complete.

From intended instant to completion no Python bytecode runs. Three times are kept of every I/O (intended, issued, completed);
response time counts from the intended one, so a stall shows in every write that should have started during it (Gil Tene,
wrk2 README). What to issue when is `intended_of`, what to note are `lateness` and `note_completion`; `drive` is the loop.

Writes and trims complete in the order in which the target took them. A read completes at once and waits for nobody. A flush is a
barrier: complete once all that was submitted before it is. (A write is durable when it completes, so a flush adds waiting only.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base.histogram_kernel import slot_of
from ..base.host.libc import monotonic_ns
from ..base.jit import inline_kernel, kernel
from ..base.row import Row, i64
from ..workload.plan_kernel import FLUSH, READ, TRIM, WRITE
from .interface import completed, progress, read, submit, trim, waited

# Columns of Recorder.samples: one row for each I/O of the plan, by number. Number, size and operation are the plan's.
NUMBER, INTENDED_NS, ISSUED_NS, COMPLETED_NS, SIZE, OPERATION = range(6)
SAMPLE_WORDS = 6

TURN_NS = 50_000  # What completes at once is issued for so long before the target has its turn: acknowledgements must not wait.
DRAIN_NS = 5_000_000_000  # Writes still under way this long after the round's end count as unacknowledged.
OPERATIONS = 4  # Rows of Recorder.part for each job and phase.

NOBODY = -1


class Flight(NamedTuple):
    """I/O under way that completes in order; arrays are indexed by its place in that order modulo their size, a power of two."""

    intended_ns: np.ndarray  # int64, CLOCK_MONOTONIC
    issued_ns: np.ndarray  # int64
    late_ns: np.ndarray  # int64, how late the generator itself was
    number: np.ndarray  # int64, in the plan
    job: np.ndarray  # int64
    waits_for: np.ndarray  # int64, complete once the target has completed so many


class Jobs(NamedTuple):
    """Who asks for I/O; every array is indexed by job, but for `freed_ns`."""

    next: np.ndarray  # int64, the number in the plan of its next I/O
    end: np.ndarray  # int64, the number behind its last
    closed: np.ndarray  # bool, a closed loop: its plan holds times to think
    queue_depth: np.ndarray  # int64
    issued: np.ndarray  # int64
    done: np.ndarray  # int64
    over: np.ndarray  # bool, nothing more is intended within the round
    row: np.ndarray  # int64, of its name among the parts; jobs that are alike share one
    payload_profile: np.ndarray  # int64, of its payloads
    ring: np.ndarray  # int64, where its part of `freed_ns` begins
    mask: np.ndarray  # int64, one less than the size of that part
    freed_ns: np.ndarray  # int64, when a place was free for its n-th I/O, at `ring` + (n & `mask`)


class Counted(Row):
    """What a round has counted, and the slices that the last write was found in."""

    issued = i64("writes handed to the target")
    completed = i64("writes that are complete")
    bytes = i64("bytes of completed writes")
    refused = i64("times the target had no room for a write")
    status = i64("why the round ended: 0, or a negative status of the target")
    begin_ns = i64("ns, CLOCK_MONOTONIC: when the round began")
    end_ns = i64("ns, CLOCK_MONOTONIC: when it ended, what was under way included")
    last_completion_ns = i64("ns, CLOCK_MONOTONIC: when the last write was complete")
    unissued = i64("I/Os that were intended within the round and never issued")
    sequenced = i64("writes and trims handed to the target: what it keeps in order")
    acked = i64("how many of them are complete")
    slice = i64("index of the slice that the last write was intended in")
    slice_begin_ns = i64("ns, CLOCK_MONOTONIC: where it begins")
    slice_end_ns = i64("ns, CLOCK_MONOTONIC: where it ends")
    within = i64("index of the slice that the last completion fell into")
    within_begin_ns = i64("ns, CLOCK_MONOTONIC: where it begins")
    within_end_ns = i64("ns, CLOCK_MONOTONIC: where it ends")


class Recorder(NamedTuple):
    """What a round observes."""

    at: np.ndarray  # Counted, one
    response: np.ndarray  # int64, slices x buckets: writes
    slice_count: np.ndarray  # int64 by slice
    slice_bytes: np.ndarray  # int64 by slice
    slice_max_ns: np.ndarray  # int64 by slice
    within_count: np.ndarray  # int64 by slice: writes that completed in it, whenever they were intended; none of the drain
    within_bytes: np.ndarray  # int64 by slice
    service: np.ndarray  # int64 by bucket: writes
    wait: np.ndarray  # int64 by bucket: writes
    late: np.ndarray  # int64 by bucket: whatever was issued
    part: np.ndarray  # int64, (name of job, phase, operation) x buckets: response; no rows where all is plain writes
    part_count: np.ndarray  # int64 by row
    part_bytes: np.ndarray  # int64 by row
    part_within: np.ndarray  # int64 by row: those that completed before the round's end
    part_within_bytes: np.ndarray  # int64 by row
    phase_ends_ns: np.ndarray  # int64, since the round's start; they come again after the last
    samples: np.ndarray  # int64, I/O of the plan x SAMPLE_WORDS, instants since the round's begin; no rows unless they are kept


@inline_kernel
def intended_of(closed, planned_ns, begin_ns, freed_ns):
    """When an I/O should start: as planned, or in a closed loop when its place was free and its caller had thought."""
    return freed_ns + planned_ns if closed else begin_ns + planned_ns


@inline_kernel
def slice_of(intended_ns, begin_ns, slice_ns, slice_count):
    """Which slice of the round a write belongs to."""
    index = (intended_ns - begin_ns) // slice_ns
    return min(max(index, 0), slice_count - 1)


@inline_kernel
def phase_of(intended_ns, begin_ns, phase_ends_ns):
    """Which phase an I/O belongs to, by its intended instant."""
    if phase_ends_ns.size < 2:
        return np.int64(0)
    since_ns = (intended_ns - begin_ns) % phase_ends_ns[-1]
    phase = np.int64(0)
    while since_ns >= phase_ends_ns[phase]:
        phase += 1
    return phase


@inline_kernel
def lateness(intended_ns, freed_ns, issued_ns, wait_begin_ns, woken_ns, returned_ns):
    """How late the generator itself issued an I/O that could have been issued: it overslept, or was slow afterwards.

    While the target works in our thread (`progress`, outside of its wait) the delay is the target's, and counts as
    response time like every other; it is left out here. Only the last turn of the loop is looked at, which is the one
    that the write's instant fell into.
    """
    ready_ns = max(intended_ns, freed_ns)
    overslept_ns = woken_ns - max(ready_ns, wait_begin_ns)
    slow_ns = issued_ns - max(ready_ns, returned_ns)
    return max(overslept_ns, 0) + max(slow_ns, 0)


# The slice of the last write is looked at first, which saves a division; and no references are counted (jit.py): 306 -> 85 ns a
# write in all (null target, depth 32, a busy 2-core VM, numba 0.68). A call hands over every field of every array of its states,
# a hundred words, so what the loop calls for each write is part of it: 69 -> 52 ns, one at a time 102 -> 83 (a quiet one).
@inline_kernel
def note_completion(recorder, row, operation, size, intended_ns, issued_ns, late_ns, now_ns, slice_ns):
    """Record the times of one I/O that has just completed. `row` is that of its job's name."""
    at = recorder.at[0]
    response_ns = now_ns - intended_ns
    assert intended_ns <= issued_ns <= now_ns
    recorder.late[slot_of(late_ns)] += 1
    if not at.within_begin_ns <= now_ns < at.within_end_ns:
        at.within = (now_ns - at.begin_ns) // slice_ns
        at.within_begin_ns = at.begin_ns + at.within * slice_ns
        at.within_end_ns = at.within_begin_ns + slice_ns
    is_within = at.within < recorder.within_count.size
    if recorder.part_count.size > 0:
        phases = max(recorder.phase_ends_ns.size, 1)
        phase = phase_of(intended_ns, at.begin_ns, recorder.phase_ends_ns)
        part = (row * phases + phase) * OPERATIONS + operation - 1
        recorder.part[part, slot_of(response_ns)] += 1
        recorder.part_count[part] += 1
        recorder.part_bytes[part] += size
        if is_within:
            recorder.part_within[part] += 1
            recorder.part_within_bytes[part] += size
    if operation != WRITE:
        return response_ns

    if not at.slice_begin_ns <= intended_ns < at.slice_end_ns:
        index = slice_of(intended_ns, at.begin_ns, slice_ns, recorder.slice_count.size)
        at.slice = index
        at.slice_begin_ns = at.begin_ns + index * slice_ns
        at.slice_end_ns = at.slice_begin_ns + slice_ns
    index = at.slice
    recorder.response[index, slot_of(response_ns)] += 1
    recorder.service[slot_of(now_ns - issued_ns)] += 1
    recorder.wait[slot_of(issued_ns - intended_ns)] += 1
    recorder.slice_count[index] += 1
    recorder.slice_bytes[index] += size
    recorder.slice_max_ns[index] = max(recorder.slice_max_ns[index], response_ns)
    if is_within:
        recorder.within_count[at.within] += 1
        recorder.within_bytes[at.within] += size
    at.completed += 1
    at.bytes += size
    at.last_completion_ns = now_ns
    return response_ns


@inline_kernel
def keep_sample(recorder, number, intended_ns, issued_ns, now_ns):
    """Keep one I/O by itself, where there is room for its number."""
    if number < recorder.samples.shape[0]:
        begin_ns = recorder.at[0].begin_ns
        recorder.samples[number, INTENDED_NS] = intended_ns - begin_ns
        recorder.samples[number, ISSUED_NS] = issued_ns - begin_ns
        recorder.samples[number, COMPLETED_NS] = now_ns - begin_ns


@inline_kernel
def next_job(plan, jobs, begin_ns, end_ns):
    """(job, instant) of the I/O that should start first, NOBODY when none may now, and whether any job has more to issue.

    A job whose depth is used up waits for its own completions only.
    """
    chosen, due_ns, issuing = np.int64(NOBODY), end_ns, False
    for job in range(jobs.next.size):
        number = jobs.next[job]
        if jobs.over[job] or number >= jobs.end[job]:
            continue
        if jobs.issued[job] - jobs.done[job] >= jobs.queue_depth[job]:
            issuing = True
            continue
        freed_ns = jobs.freed_ns[jobs.ring[job] + (jobs.issued[job] & jobs.mask[job])]
        intended_ns = intended_of(jobs.closed[job], plan.intended_ns[number], begin_ns, freed_ns)
        if intended_ns >= end_ns:
            jobs.over[job] = True
            continue
        issuing = True
        if intended_ns < due_ns:
            chosen, due_ns = np.int64(job), intended_ns
    return chosen, due_ns, issuing


@inline_kernel
def note_free(jobs, job, now_ns):
    """One I/O of a job is complete: its place is that of the one `queue_depth` further on."""
    jobs.freed_ns[jobs.ring[job] + ((jobs.done[job] + jobs.queue_depth[job]) & jobs.mask[job])] = now_ns
    jobs.done[job] += 1


@kernel()
def drive(plan, jobs, duration_ns, slice_ns, spin_ns, target, flight, recorder, board, history, order):
    """Issue what is intended within `duration_ns`, then wait for what is under way. Answers 0 or a negative status.

    What was due before the end is issued even when it had to wait until after it: a backlog at the end counts like any other.
    A round that the plan does not fill ends with the plan. What is not complete DRAIN_NS after the end never is: it is in
    sequenced - acked, or, not even issued, in unissued.
    `board`, `history` (completion instants by sequence modulo its size) and `order` (numbers in the plan by sequence; may be
    empty where the plan's own order says it) outlive this process: when it is killed, they tell what its caller was promised.

    Longer than a function should be: it is the one path that is measured, and its parts share some twenty numbers that live in
    registers here and would have to be stored and loaded between functions.
    """
    at = recorder.at[0]
    begin_ns = monotonic_ns()
    end_ns = begin_ns + duration_ns
    at.begin_ns = begin_ns
    board[0].begin_ns = begin_ns
    jobs.freed_ns[:] = begin_ns
    flight_mask, history_mask = flight.number.size - 1, history.size - 1
    assert flight.number.size & flight_mask == 0 and history.size & history_mask == 0
    submitted, acked = np.int64(0), np.int64(0)  # Of what the target keeps in order.
    head, tail = np.int64(0), np.int64(0)  # Of the flight.
    status = np.int64(0)
    drained_ns = end_ns + DRAIN_NS
    now_ns = begin_ns
    wait_begin_ns, woken_ns, returned_ns, turn_ns = begin_ns, begin_ns, begin_ns, begin_ns
    while status == 0 and board[0].stop == 0 and now_ns < drained_ns:
        deadline_ns = end_ns if now_ns < end_ns else drained_ns
        at_once = False
        while True:
            job, due_ns, issuing = next_job(plan, jobs, begin_ns, end_ns)
            if job == NOBODY:
                break
            if due_ns > now_ns:
                deadline_ns = due_ns - spin_ns
                break
            now_ns = monotonic_ns()
            number = jobs.next[job]
            operation, size = plan.operation[number], plan.size[number]
            taken = np.int64(1)
            if operation == WRITE:
                if order.size > 0:
                    order[submitted] = number
                taken = submit(target, number, plan.address[number], size, now_ns, jobs.payload_profile[job])
            elif operation == TRIM:
                if order.size > 0:
                    order[submitted] = number
                taken = trim(target, plan.address[number], size, now_ns)
            if taken < 0:
                status = np.int64(taken)
                break
            if taken == 0:
                at.refused += 1
                deadline_ns = drained_ns
                break
            freed_ns = jobs.freed_ns[jobs.ring[job] + (jobs.issued[job] & jobs.mask[job])]
            late_ns = lateness(due_ns, freed_ns, now_ns, wait_begin_ns, woken_ns, returned_ns)
            jobs.next[job] += 1
            jobs.issued[job] += 1
            at.issued += operation == WRITE
            submitted += operation in (WRITE, TRIM)
            if operation == READ or (operation == FLUSH and acked == submitted):
                issued_ns = now_ns
                if operation == READ:
                    got = read(target, plan.address[number], size)
                    if got < 0:
                        status = np.int64(got)
                        break
                    now_ns = returned_ns = monotonic_ns()  # The target has worked in our thread until now.
                note_completion(recorder, jobs.row[job], operation, size, due_ns, issued_ns, late_ns, now_ns, slice_ns)
                keep_sample(recorder, number, due_ns, issued_ns, now_ns)
                note_free(jobs, job, now_ns)
                at_once = True
                if now_ns - turn_ns > TURN_NS:
                    break
                continue
            place = tail & flight_mask
            flight.intended_ns[place] = due_ns
            flight.issued_ns[place] = now_ns
            flight.late_ns[place] = late_ns
            flight.number[place] = number
            flight.job[place] = job
            flight.waits_for[place] = submitted
            tail += 1
            deadline_ns = end_ns if now_ns < end_ns else drained_ns
        if status < 0:
            break
        board[0].issued = submitted
        if not issuing:
            if head == tail:
                break
            deadline_ns = drained_ns
        if at_once or (head < tail and flight.waits_for[head & flight_mask] <= completed(target)):
            deadline_ns = min(deadline_ns, now_ns)  # What is complete already wakes nobody.
        status = progress(target, deadline_ns)
        now_ns = monotonic_ns()
        turn_ns = returned_ns = now_ns
        wait_begin_ns, woken_ns = waited(target)
        reached = completed(target)
        while head < tail:
            place = head & flight_mask
            if flight.waits_for[place] > reached:
                break
            number, job = flight.number[place], flight.job[place]
            operation = plan.operation[number]
            note_completion(
                recorder, jobs.row[job], operation, plan.size[number], flight.intended_ns[place], flight.issued_ns[place],
                flight.late_ns[place], now_ns, slice_ns,
            )  # fmt: skip
            keep_sample(recorder, number, flight.intended_ns[place], flight.issued_ns[place], now_ns)
            if operation != FLUSH:
                history[acked & history_mask] = now_ns
                acked += 1
            note_free(jobs, job, now_ns)
            head += 1
        board[0].completed = acked
        board[0].last_completion_ns = now_ns
    at.sequenced, at.acked = submitted, acked
    for job in range(jobs.next.size):
        if not jobs.closed[job]:
            number = jobs.next[job]
            while number < jobs.end[job] and begin_ns + plan.intended_ns[number] < end_ns:
                number += 1
                at.unissued += 1
    at.status = status
    at.end_ns = monotonic_ns()

    assert at.completed <= at.issued and acked <= submitted
    assert recorder.within_count.sum() <= at.completed
    return status
