"""The rows of a comparison as a table: both sides, the change with its interval, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..analysis.change import Row
from ..analysis.result import Estimate
from .digits import UNKNOWN, Digits
from .page import STYLE, Footnotes, Form, add_row, table_of
from .plots.change import SCALES, scale_of

SYMBOLS = {
    "slower": "✘", "worse": "✘", "faster": "✔", "better": "✔", "higher": "↑", "lower": "↓", "differs": "≠", "same": "=",
    "alike": "≈", "unresolved": "~",
}  # fmt: skip
STYLES = {"slower": STYLE["fail"], "worse": STYLE["fail"], "faster": STYLE["pass"], "better": STYLE["pass"]}


def changes_table(rows: Sequence[Row], notes: Footnotes, form: Form) -> Table:
    """These rows, in the order of the comparison: the worst first."""
    table = table_of(form, "figure", "first", "second", "change", "verdict", text_columns=1)
    table.columns[-1].justify = "left"
    for row in rows:
        scale, unit = SCALES[row.unit]
        verdict = Text(f"{SYMBOLS[row.verdict]} {row.verdict}", style=STYLES.get(row.verdict, ""))
        verdict.append(notes.mark([row.sentence]))
        add_row(table, row.name, side_text(row.base, scale, unit), side_text(row.cand, scale, unit), change_text(row), verdict)
    return table


def side_text(estimate: Estimate, scale: float, unit: str) -> str:
    """A side's value with its unit."""
    if estimate.value is None:
        return UNKNOWN
    return f"{Digits.of([estimate], scale).number(estimate.value)} {unit}".rstrip()


def change_text(row: Row) -> Text:
    """The change with its interval."""
    change = row.change
    scale, unit = scale_of(row)
    if change.value is None:
        return Text(UNKNOWN)
    digits = Digits.of([change], scale)
    text = Text(f"{'+' if change.value > 0 else ''}{digits.number(change.value)} {unit}".rstrip())
    if change.low != change.high:
        text.append(f" {digits.interval(change)}", style="dim")
    return text
