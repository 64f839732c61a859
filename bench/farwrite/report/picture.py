"""The head of a report as an SVG picture, for documentation: verdicts, proof of link, the fit and the chart.

    python -m farwrite.report.picture results/baselines/limits.json docs/report.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from ..analysis import analysis_of
from ..recording import Report, read
from . import chart, tables
from .page import Page
from .terminal import show_claims, show_head

WIDTH = 100


def save_picture(report: Report, path: Path) -> None:
    """Write the picture; as in the terminal, so that it never says anything else."""
    from rich.console import Console

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    analysis = analysis_of(report)
    page = Page(console, in_memory=report.recording.lab.durability == "memory")
    show_head(page, report.recording)
    show_claims(page, analysis.claims)
    tables.show_link(page, analysis)
    chart.show_chart(page, analysis)
    tables.show_fits(page, analysis)
    path.write_text(console.export_svg(title=" ".join(report.recording.command)), encoding="utf-8")


if __name__ == "__main__":
    save_picture(read(Path(sys.argv[1])), Path(sys.argv[2]))
