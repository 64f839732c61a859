"""Jitter as a table: equally likely deviations of the one-way delay, in ns, for a loop to draw from as netem draws from its own.

The standard deviation is what was asked; the mean is 0, so that a link with jitter has the same distance.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np

from ..errors import UsageError
from ..link_spec import Way

QUANTILES = 1 << 12
PARETO_SHAPE = 3.0  # As netem's table has it.


def quantiles(way: Way) -> np.ndarray:
    """The middles of QUANTILES equally likely parts of a direction's jitter, ascending, int64."""
    share = (np.arange(QUANTILES) + 0.5) / QUANTILES
    if way.jitter_shape == "recorded":
        deviation = np.quantile(recorded(Path(way.jitter_file)), share)
        return np.rint(deviation - deviation.mean()).astype(np.int64)
    if way.jitter_shape == "uniform":
        return np.rint(way.jitter_ns * (2 * share - 1)).astype(np.int64)
    if way.jitter_shape == "pareto":
        unscaled = (1 - share) ** (-1 / PARETO_SHAPE)
    else:
        unscaled = np.array([NormalDist().inv_cdf(one) for one in share])
    deviation = (unscaled - unscaled.mean()) / unscaled.std()
    return np.rint(way.jitter_ns * deviation).astype(np.int64)


def recorded(path: Path) -> np.ndarray:
    """One-way delays in ns from a text file, one a line. UsageError when it has none."""
    try:
        delay_ns = np.loadtxt(path, ndmin=1)
    except (OSError, ValueError) as refusal:
        raise UsageError(f"read the recorded delays in {path}: {refusal}.") from refusal
    if delay_ns.size < 2 or not np.isfinite(delay_ns).all():
        raise UsageError(f"{path}: recorded delays are two numbers or more, in ns, one a line.")
    return delay_ns
