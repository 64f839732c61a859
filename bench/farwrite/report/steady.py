"""Whether five rounds in a row were steady by SNIA's rule, where a run asked for it."""

from __future__ import annotations

from rich.table import Table

from ..analysis.result import Analysis, CellResult, FiveRounds
from ..analysis.snia import EXCURSION_MAX, SLOPE_MAX, WINDOW_ROUNDS
from .page import Form, Page, add_row, table_of
from .tables import miles_text

NAMES = {"completed_per_s": "writes/s", "response_ns_p50": "p50"}


def show_five_rounds(page: Page, analysis: Analysis) -> None:
    """A line a cell and quantity; nothing when the run did not ask."""
    rows = [(result, found) for result in analysis.cells for found in result.five_rounds]
    if not rows:
        return
    page.heading("Steady state by SNIA's rule: five rounds in a row")
    page.table(lambda form: table(rows, form))
    page.prose(
        f"max - min at most {EXCURSION_MAX:.0%} of the average, and the fitted line changes by at most {SLOPE_MAX:.0%} of it; "
        "the first such window, or the steadiest (SNIA SSS PTS).", style="dim",
    )  # fmt: skip


def table(rows: list[tuple[CellResult, FiveRounds]], form: Form) -> Table:
    made = table_of(form, "cell", "miles", "of", "steady", "rounds", "max - min", "fitted", text_columns=1)
    for result, found in rows:
        word = {True: "✔ yes", False: "✘ no", None: "?"}[found.reached]
        if found.reached is None:
            rounds, excursion, slope = f"fewer than {WINDOW_ROUNDS}", "", ""
        else:
            rounds = f"{(found.first_round or 0) + 1} to {(found.last_round or 0) + 1}"
            excursion, slope = f"{found.excursion:.1%}", f"{found.slope:+.1%}"
        name = f"{result.name}, {result.protocol}, depth {result.queue_depth}"
        add_row(made, name, miles_text(result.miles), NAMES[found.quantity], word, rounds, excursion, slope)
    return made
