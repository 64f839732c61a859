"""Jitter as a table: equally likely deviations from the mean delay, for a loop to draw from as netem draws from its own."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np

from ..errors import UsageError
from ..link_spec import Way

TABLE_ENTRIES = 4096
PARETO_SHAPE = 3.0  # As iproute2's table has it.


def deviations(way: Way) -> np.ndarray:
    """TABLE_ENTRIES equally likely deviations in ns, sorted, whose mean is 0; their standard deviation is the way's jitter, of a
    uniform one half the width, of a recorded one without a jitter that of the record."""
    middles = (np.arange(TABLE_ENTRIES) + 0.5) / TABLE_ENTRIES
    if way.jitter_shape == "uniform":
        return way.jitter_ns * (2 * middles - 1)
    if way.jitter_shape == "recorded":
        shape = np.quantile(recorded_ns(way.jitter_file), middles)
    elif way.jitter_shape == "pareto":
        shape = (1 - middles) ** (-1 / PARETO_SHAPE)
    else:
        shape = np.array([NormalDist().inv_cdf(share) for share in middles])
    shape = shape - shape.mean()
    return shape * (way.jitter_ns / shape.std()) if way.jitter_ns and shape.std() else shape


def recorded_ns(name: str) -> np.ndarray:
    """One-way delays in ns from a text file, one a line. UsageError when they are not."""
    try:
        delays_ns = np.loadtxt(Path(name).expanduser(), ndmin=1)
    except (OSError, ValueError) as refusal:
        raise UsageError(f"jitter_file {name}: {refusal}. It is a text file of one-way delays in ns, one a line.") from refusal
    if delays_ns.size < 2 or not (np.isfinite(delays_ns) & (delays_ns >= 0)).all():
        raise UsageError(f"jitter_file {name}: at least two delays in ns are needed.")
    return delays_ns
