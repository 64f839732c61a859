"""The audit's loop: does a volume hold exactly the first `survived` writes and trims of a plan?

Goes backwards through them, so each byte is compared once, with the last write that touched it. A write's payload
is made again from the seed, and what was trimmed reads as zeros; nothing that was sent or stored is believed. The volume is
read piece by piece: it may be larger than memory, and what is kept of it follows from the count of writes alone.
"""

from __future__ import annotations

import numpy as np

from ..base.host import reactor
from ..base.jit import kernel
from ..workload.payload_kernel import fill_by_profile
from ..workload.plan_kernel import TRIM

WINDOW_BYTES = 1 << 20  # Read at once; the largest write has as much.
EIO = 5
ZEROS = -1  # Instead of a place in the expected bytes: what was trimmed.


def cuts_of(address: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(every place where a write begins or ends, ascending; by write, which of them it begins at).

    No write touches a part of a piece between two neighbours: whether a later one covers it is known by the piece.
    """
    cuts = np.unique(np.concatenate((address, address + size)))
    return cuts, np.searchsorted(cuts, address)


@kernel()
def count_damaged(ring, volume_fd, plan, numbers, survived, seed, payload_profile, cuts, first, covered, expected, window):
    """How many of the first `survived` writes and trims differ from what was asked, where no later one covers them; or -errno.

    `numbers` are their numbers in the plan, `grain` their payloads' grains and `first` as `cuts_of` has it, all by sequence;
    `covered` is bool by piece and all False. `expected` is room for the largest write, and the volume is read into `window`.
    """
    assert survived <= numbers.size and survived <= first.size
    damaged = np.int64(0)
    for back in range(survived):
        sequence = survived - 1 - back
        number = numbers[sequence]
        begin, size = np.int64(plan.address[number]), np.int64(plan.size[number])
        end = begin + size
        is_open = False
        piece = first[sequence]
        while piece < cuts.size and cuts[piece] < end:
            if not covered[piece]:
                is_open = True
            piece += 1
        if not is_open:
            continue
        trimmed = plan.operation[number] == TRIM
        if not trimmed:
            fill_by_profile(expected, np.int64(0), size, seed, np.int64(number), begin, payload_profile[sequence])
        same = True
        piece = first[sequence]
        while cuts[piece] < end:
            if not covered[piece]:
                covered[piece] = True
                if same:
                    place = np.int64(ZEROS) if trimmed else cuts[piece] - begin
                    found = holds(ring, volume_fd, cuts[piece], cuts[piece + 1], expected, place, window)
                    if found < 0:
                        return found
                    same = found == 1
            piece += 1
        if not same:
            damaged += 1
    return damaged


@kernel()
def holds(ring, volume_fd, begin, end, expected, place, window):
    """1 when a volume holds from `begin` to `end` what stands in expected[place:], or zeros; 0 when not; or -errno."""
    while begin < end:
        got = np.int64(reactor.read_volume(ring, volume_fd, window, np.int64(0), min(end - begin, window.size), begin))
        if got <= 0:
            return got if got < 0 else np.int64(-EIO)  # The file is shorter than its volume.
        for index in range(got):
            if window[index] != (expected[place + index] if place >= 0 else 0):
                return np.int64(0)
        begin += got
        if place >= 0:
            place += got
    return np.int64(1)
