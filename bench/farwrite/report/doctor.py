"""A diagnosis in the terminal: what can be emulated, each finding with its numbers, and under it what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..base.units import counted
from ..lab.doctor.finding import Diagnosis, Finding
from .page import STYLE, Page

if TYPE_CHECKING:
    from rich.console import Console

SIGN = {"ok": ("✔", STYLE["pass"]), "poor": ("⚠", STYLE["fail"]), "missing": ("✘", STYLE["fail"])}


def show_diagnosis(made: Diagnosis, console: Console) -> None:
    """Print the whole of it."""
    page = Page(console)
    if made.fit:
        verdict = f"✔ A distance can be emulated here, by {' or '.join(made.links)}"
        verdict += "" if len(made.links) > 1 else ", which delays streams and no packets"
        poor = sum(finding.state == "poor" for finding in made.findings)
        makes = "makes" if poor == 1 else "make"
        verdict += f"; {counted(poor, 'finding')} below {makes} it less exact than it could be." if poor else "."
    else:
        verdict = "✘ Nothing can be measured here; what is missing is below."
    page.print(Text(verdict, style=STYLE["pass" if made.fit else "fail"]))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in made.findings:
        add(grid, finding)
    page.print(grid)


def add(grid: Table, finding: Finding) -> None:
    """One finding, and under it what mends it."""
    sign, style = SIGN[finding.state]
    grid.add_row(Text(sign, style=style), finding.name, Text(finding.sentence))
    if finding.mend:
        grid.add_row("", "", Text(f"→ {finding.mend}", style="bold"))
