"""What the rounds of a cell recorded, unpacked for drawing: the numbers come from analysis, the shapes from here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ...analysis.result import Analysis, CellResult
from ...analysis.sample import MIDDLES_NS, Sample, decode_all, pooled
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
    samples = iter(decode_all([part.response for item in good for part in item.slices]))
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
    return pooled(decode_all([text for text in texts if text]))


def values_ns(sample: Sample) -> np.ndarray:
    """float64, what stands for each slot in use."""
    return MIDDLES_NS[sample.slot].astype(np.float64)
