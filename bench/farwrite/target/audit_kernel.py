"""The audit's loop: does a volume hold exactly the first `survived` writes of a plan?

Goes backwards through the writes, so each sector is compared once, with the last write that touched it. A write's payload
is made again from the seed; nothing that was sent or stored is believed.
"""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from ..payload_kernel import fill

SECTOR_BYTES = 512


@kernel()
def count_damaged(volume, address, size, survived, seed, covered, expected):
    """How many of the first `survived` writes differ from what was written, where no later one covers them.

    `covered` is bool by sector and all False; `expected` is room for the largest write.
    """
    assert survived <= address.size
    damaged = np.int64(0)
    for back in range(survived):
        number = survived - 1 - back
        first = address[number] // SECTOR_BYTES
        count = np.int64(size[number]) // SECTOR_BYTES
        open_sectors = np.int64(0)
        for sector in range(count):
            if not covered[first + sector]:
                open_sectors += 1
        if open_sectors == 0:
            continue
        fill(expected, np.int64(0), np.int64(size[number]), seed, np.int64(number), np.int64(address[number]))
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
