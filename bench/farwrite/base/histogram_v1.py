"""Histograms as recordings of schema 1 have them, read and no more written.

Base64 of zlib of a version and then, for every slot in use, the step from the one before and the count, both LEB128. The slots
are those of today (histogram.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import UsageError
from .hdr_codec import COUNT_MAX, Slots, from_base64, inflated, varints

TEXT_VERSION = 1


def decoded(texts: Sequence[str], slots: int, bytes_max: int) -> list[Slots]:
    """The slots in use of each. UsageError for what is damaged."""
    plains = [inflated(from_base64(text), bytes_max) for text in texts]
    for plain in plains:
        if not plain or plain[0] != TEXT_VERSION:
            raise UsageError(f"the histogram has version {plain[0] if plain else 'missing'}, and schema 1 had {TEXT_VERSION}")
        if plain[-1] > 0x7F:
            raise UsageError("a number of the histogram is cut off")
    numbers, bounds = varints([plain[1:] for plain in plains])
    found = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        steps, counts = numbers[begin:end:2], numbers[begin + 1 : end : 2]
        if steps.size != counts.size:
            raise UsageError("the last count of the histogram is missing")
        if steps.size and (steps.min() < 1 or steps.max() > slots or counts.min() < 1):
            raise UsageError("the slots or counts of the histogram make no sense")
        index = np.cumsum(steps) - 1
        if (index.size and index[-1] >= slots) or counts.sum(dtype=np.float64) > COUNT_MAX:
            raise UsageError("the histogram has more slots than our layout, or counts more than any run has")
        found.append((index, counts))
    return found
