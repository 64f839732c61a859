"""The audit's loop: does a volume hold exactly the first `survived` writes and trims of a plan?

Goes backwards through them, so each sector is compared once, with the last one that touched it. A write's payload
is made again from the seed, and what was trimmed reads as zeros; nothing that was sent or stored is believed.
"""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from ..payload_kernel import fill_grained
from ..plan_kernel import TRIM

SECTOR_BYTES = 512


@kernel()
def count_damaged(volume, plan, numbers, survived, seed, grain, covered, expected):
    """How many of the first `survived` writes and trims differ from what was asked, where no later one covers them.

    `numbers` are their numbers in the plan and `grain` their payloads' grains, both by sequence; `covered` is bool by sector and
    all False; `expected` is room for the largest of them.
    """
    address, size = plan.address, plan.size
    assert survived <= numbers.size
    damaged = np.int64(0)
    for back in range(survived):
        sequence = survived - 1 - back
        number = numbers[sequence]
        first = address[number] // SECTOR_BYTES
        count = np.int64(size[number]) // SECTOR_BYTES
        open_sectors = np.int64(0)
        for sector in range(count):
            if not covered[first + sector]:
                open_sectors += 1
        if open_sectors == 0:
            continue
        if plan.operation[number] == TRIM:
            expected[: size[number]] = 0
        else:
            fill_grained(
                expected, np.int64(0), np.int64(size[number]), seed, np.int64(number), np.int64(address[number]),
                grain[sequence],
            )  # fmt: skip
        same = True
        for sector in range(count):
            if covered[first + sector]:
                continue
            covered[first + sector] = True
            begin = sector * SECTOR_BYTES
            for index in range(begin, begin + SECTOR_BYTES):
                if volume[address[number] + index] != expected[index]:
                    same = False
                    break
        if not same:
            damaged += 1
    return damaged
