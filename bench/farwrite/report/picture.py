"""The first screen of a report as an SVG picture, for documentation.

    python -m farwrite.report.picture results/baselines/limits.json docs/report.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from ..analysis import analysis_of
from ..recording import Report, read
from .terminal import show

WIDTH = 80


def save_picture(report: Report, path: Path) -> None:
    """Write the picture; as in the terminal, so that it never says anything else."""
    from rich.console import Console

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    show(report, analysis_of(report), console)
    path.write_text(console.export_svg(title=" ".join(report.recording.command)), encoding="utf-8")


if __name__ == "__main__":
    save_picture(read(Path(sys.argv[1])), Path(sys.argv[2]))
