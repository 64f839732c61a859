"""Commands of farwrite that studies run, and what they serve."""

from __future__ import annotations

import sys

from farwrite.experiment.case.child import serving

__all__ = ["FARWRITE", "serving"]

FARWRITE = [sys.executable, "-m", "farwrite"]
