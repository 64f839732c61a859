"""Jitter as a table of equally likely deviations: one for netem and for those who carry packets themselves.

tc-netem(8) takes such tables ("distribution"), made by iproute2 from formulas or from recorded delays; these are made here, to
the deviation that was asked for. A packet's delay is its mean and an entry drawn at random.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np

from ..base.errors import UsageError
from ..base.user_file import read_text
from .link_spec import DELAY_NS_MAX, LinkDirection, LinkError

TABLE_ENTRIES = 4096  # netem takes up to 16 384.
TABLE_UNIT = 8192  # netem's NETEM_DIST_SCALE: an entry of 8192 is one deviation, an int16 reaches four.
ENTRY_MAX = 32_767
PARETO_SHAPE = 3.0  # As iproute2's table has it.


def deviations(direction: LinkDirection) -> np.ndarray:
    """TABLE_ENTRIES equally likely deviations from the mean delay in ns, sorted; their standard deviation is the way's jitter.

    Of a uniform one the jitter is half the width. Of a recorded one without a jitter it is that of the record.
    """
    middles = (np.arange(TABLE_ENTRIES) + 0.5) / TABLE_ENTRIES
    if direction.jitter_shape == "uniform":
        return direction.jitter_ns * (2 * middles - 1)
    if direction.jitter_shape == "recorded":
        delays_ns = np.sort(recorded_ns(direction.jitter_file))
        shape = np.quantile(delays_ns, middles) - delays_ns.mean()
        return shape * (direction.jitter_ns / delays_ns.std()) if direction.jitter_ns and delays_ns.std() else shape
    if direction.jitter_shape == "pareto":
        shape = (1 - middles) ** (-1 / PARETO_SHAPE)
    else:
        shape = np.array([NormalDist().inv_cdf(share) for share in middles])
    return direction.jitter_ns * (shape - shape.mean()) / shape.std()


def recorded_ns(name: str) -> np.ndarray:
    """One-way delays in ns from a text file, one a line, empty lines and # comments left out. UsageError when they are not."""
    try:
        lines = [line.split("#")[0].strip() for line in read_text(Path(name).expanduser(), "").splitlines()]
        delays_ns = np.array([float(line) for line in lines if line])
    except (UsageError, RuntimeError, ValueError) as refusal:  # RuntimeError: nobody's home.
        wanted = "It is a text file of one-way delays in ns, one a line."
        raise LinkError(f"jitter_file {name}: {refusal}. {wanted}", "jitter_file") from refusal
    if delays_ns.size < 2 or not ((delays_ns >= 0) & (delays_ns <= DELAY_NS_MAX)).all():
        raise LinkError(f"jitter_file {name}: at least two delays, each from 0 ns to 10 s, are needed.", "jitter_file")
    return delays_ns


def table_of(direction: LinkDirection) -> tuple[int, np.ndarray]:
    """(unit in ns, entries): a deviation is unit * entry / TABLE_UNIT. (0, zeros) when no jitter is asked for.

    The unit is the standard deviation, or more where a tail reaches further than four of them, as Pareto's does.
    """
    if not direction.has_jitter:
        return 0, np.zeros(TABLE_ENTRIES, np.int64)
    asked = deviations(direction)
    unit_ns = max(float(asked.std()), float(np.abs(asked).max()) * TABLE_UNIT / ENTRY_MAX, 1.0)
    return round(unit_ns), np.clip(np.rint(asked * TABLE_UNIT / round(unit_ns)), -ENTRY_MAX, ENTRY_MAX).astype(np.int64)
