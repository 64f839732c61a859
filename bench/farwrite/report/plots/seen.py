"""What the rounds of a cell recorded, unpacked for drawing: the numbers come from analysis, the shapes from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ...analysis.result import Analysis, CellResult
from ...analysis.sample import MIDDLES_NS, Sample, decode, pooled, varints
from ...base.histogram import TEXT_VERSION, unpacked
from ...recording import Recording, Round


@dataclass(frozen=True)
class Seen:
    """One cell over its good rounds; `slices` are by round, the response of each stretch of it."""

    result: CellResult
    rounds: list[Round]
    slices: list[list[Sample]]
    response: Sample  # without the warm-up, as analysis takes it


def seen(recording: Recording, analysis: Analysis) -> list[Seen]:
    """Every cell that analysis knows."""
    rounds: dict[str, list[Round]] = {result.cell: [] for result in analysis.cells}
    for item in recording.rounds:
        if item.status == "ok" and item.cell in rounds:
            rounds[item.cell].append(item)
    return [seen_of(result, rounds[result.cell]) for result in analysis.cells]


def seen_of(result: CellResult, rounds: Iterable[Round]) -> Seen:
    """One cell."""
    good = sorted(rounds, key=lambda item: (item.index, item.attempt))
    samples = iter(decoded([part.response for item in good for part in item.slices]))
    slices = [list(islice(samples, len(item.slices))) for item in good]
    kept = (
        sample
        for item, theirs in zip(good, slices, strict=True)
        for part, sample in zip(item.slices, theirs, strict=True)
        if part.begin_ns >= result.warmup_ns
    )
    return Seen(result, good, slices, pooled(kept))


def pooled_of(texts: Iterable[str | None]) -> Sample:
    """All values of these histograms together; those that were not recorded are passed over."""
    return pooled(decoded([text for text in texts if text]))


def decoded(texts: Sequence[str]) -> list[Sample]:
    """As `decode` of each, in a quarter of the time: their numbers are read all at once."""
    plains = [unpacked(text) for text in texts]
    if any(not plain or plain[0] != TEXT_VERSION or plain[-1] > 0x7F for plain in plains):
        return [decode(text) for text in texts]  # It has the words for a refusal.
    bodies = [plain[1:] for plain in plains]
    joined = np.frombuffer(b"".join(bodies), np.uint8)
    numbers = varints(joined)
    bounds = np.concatenate(([0], np.cumsum(joined < 0x80)))[np.cumsum([0, *map(len, bodies)])]
    found = []
    for text, begin, end in zip(texts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        slot, counts = np.cumsum(numbers[begin:end:2]) - 1, numbers[begin + 1 : end : 2]
        sound = slot.size == counts.size and (not slot.size or slot[-1] < MIDDLES_NS.size)
        found.append(Sample(slot, counts) if sound else decode(text))
    return found


def values_ns(sample: Sample) -> np.ndarray:
    """float64, what stands for each slot in use."""
    return MIDDLES_NS[sample.slot].astype(np.float64)
