"""How long each virtual server of a drill stood still: its writes are those of the blocks that are its own.

A server's pause begins when a write of its was due and lasts until one of its writes that was due then or later is acknowledged:
a guest's driver tries again until it gets through, so a write that failed is part of the pause and does not end it. The client
tries nothing again, so what is counted ends with the server's next write: longer than a guest would wait, never shorter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..base.units import NS_PER_S
from .drill_recording import ACKED, AGAIN, DrillRecording, Trial

# When guests give up a disk: SCSI commands of Linux time out after 30 s (sd.c, SD_TIMEOUT), Windows' TimeOutValue is 60 s.
GUEST_LIMITS_NS = (30 * NS_PER_S, 60 * NS_PER_S)


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """What the servers saw of one event: each server's longest pause over the trials that count, by server."""

    event: str
    longest_ns: list[int]
    never: int  # servers that were not served again before the next event, or the end, of some trial


def server_of(block: int, servers: int) -> int:
    """Whose a block is."""
    return block % servers


def pauses_of(trial: Trial, servers: int, block_count: int, begin_ns: int, end_ns: int) -> list[int | None]:
    """By server: the longest pause among its writes that were due between two instants; None where one did not end."""
    history = trial.history
    writes: list[list[tuple[int, int | None]]] = [[] for _ in range(servers)]  # (intended, done) in the order of `intended`
    for block, intended, done, outcome in zip(
        history.block, history.intended_ns, history.done_ns, history.outcome, strict=True
    ):
        if block < block_count and outcome != AGAIN:
            writes[server_of(block, servers)].append((intended, done if outcome == ACKED else None))
    longest: list[int | None] = []
    for own in writes:
        soonest: int | None = None  # acknowledgement of this write or a later one
        worst, is_served = 0, True
        for intended, answered in reversed(own):
            soonest = answered if soonest is None else soonest if answered is None else min(soonest, answered)
            if begin_ns <= intended < end_ns:
                is_served = is_served and soonest is not None
                worst = max(worst, (soonest or 0) - intended)
        longest.append(worst if is_served else None)
    return longest


def pauses(recording: DrillRecording, counted: Sequence[int]) -> list[Pauses]:
    """One for each event of the scenario, over these trials (by their place in the recording)."""
    servers, found = recording.scenario.servers, []
    for index, event in enumerate(recording.scenario.event):
        longest, never = [0] * servers, set[int]()
        for place in counted:
            trial = recording.trials[place]
            if index >= len(trial.events):
                continue
            # A write under way at an event belongs to it, and not to the one before. Events at once share what they cost.
            begin_ns, bound_ns = trial.events[index].begin_ns, recording.setup.bound_ns
            later = [one.begin_ns - bound_ns for one in trial.events[index + 1 :] if one.begin_ns - bound_ns > begin_ns]
            end_ns = later[0] if later else trial.stopped_ns
            of_trial = pauses_of(trial, servers, recording.setup.block_count, begin_ns - bound_ns, end_ns)
            never |= {server for server, pause in enumerate(of_trial) if pause is None}
            longest = [max(before, pause or 0) for before, pause in zip(longest, of_trial, strict=True)]
        found.append(Pauses(event=event.text, longest_ns=longest, never=len(never)))
    return found
