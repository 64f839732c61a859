"""A gate in the terminal: what failed and why it was promised, what is unknown and what would tell, what passed, how much
the gate can see. What is only reported comes apart from what decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from ..analysis.answer import STREAM_LEVEL
from ..analysis.result import Verdict
from ..gate.budget_verdict import BudgetVerdict, sight_of
from ..gate.gate import Gate
from .page import STYLE, WORD, Page

if TYPE_CHECKING:
    from rich.console import Console

SAID: dict[Verdict, str] = {"fail": "failed", "unknown": "unknown", "pass": "passed"}
INDENT = 2


def show_gate(found: Gate, console: Console) -> None:
    """Print it."""
    page = Page(console, STREAM_LEVEL if found.stream_level else "")
    page.prose(Text(f"farwrite gate: {found.title or found.budgets}", style="bold"))
    page.prose(f"{found.report} against {found.baseline or 'its budgets'}", style="dim")
    for text in found.warnings:
        page.item("⚠", text)
    show_verdicts(page, [item for item in found.verdicts if item.gating], "What decides")
    show_verdicts(page, [item for item in found.verdicts if not item.gating], "Reported only, decides nothing")
    show_sight(page, found.verdicts)
    show_summary(page, found)


def show_verdicts(page: Page, verdicts: Sequence[BudgetVerdict], heading: str) -> None:
    """Failures and unknowns one by one, what passed budget by budget."""
    if not verdicts:
        return
    page.heading(heading)
    for decided in verdicts:
        if decided.verdict != "pass":
            show_one(page, decided)
    for group in by_budget(item for item in verdicts if item.verdict == "pass"):
        heading_of(page, "pass", group[0].budget)
        which = f"the closest of {len(group)}: " if len(group) > 1 else ""
        page.prose(f"{which}{closest(group).sentence}", indent=INDENT)


def show_one(page: Page, decided: BudgetVerdict) -> None:
    """What is not as it was promised, and why it was."""
    heading_of(page, decided.verdict, decided.budget)
    page.prose(decided.sentence, indent=INDENT)
    if decided.verdict == "fail" and decided.reason:
        page.item("promised because:", decided.reason, indent=INDENT)


def heading_of(page: Page, verdict: Verdict, name: str) -> None:
    """Symbol, word, colour and the budget's name."""
    page.prose(Text(WORD[verdict], style=STYLE[verdict]).append(f"  {name}", style="default bold"))


def by_budget(verdicts: Iterable[BudgetVerdict]) -> list[list[BudgetVerdict]]:
    """Verdicts on one budget together, in the order of the file."""
    groups: dict[str, list[BudgetVerdict]] = {}
    for decided in verdicts:
        groups.setdefault(decided.budget, []).append(decided)
    return list(groups.values())


def closest(group: Sequence[BudgetVerdict]) -> BudgetVerdict:
    """Of what passed the one that nearly did not; of counts the one farthest towards its limit."""

    def distance(decided: BudgetVerdict) -> tuple[float, float]:
        value = decided.value.value or 0.0
        return -(decided.p_pass or 0.0), value if decided.kind == "at_least" else -value

    return min(group, key=distance)


def show_sight(page: Page, verdicts: Sequence[BudgetVerdict]) -> None:
    """The smallest failure that each budget would be sure to notice."""
    lines = []
    for group in by_budget(item for item in verdicts if item.sees is not None):
        sights = list(dict.fromkeys(sight_of(item) for item in sorted(group, key=lambda item: abs(item.sees or 0.0))))
        up_to = f" to {sights[-1].removeprefix('a change of ')}" if len(sights) > 1 else ""
        lines.append((group[0].budget, f"{sights[0]}{up_to}"))
    if not lines:
        return
    page.heading("What this gate sees: failed in nine of ten runs like this one")
    for name, text in lines:
        page.item("·", f"{name}: {text}")


def show_summary(page: Page, found: Gate) -> None:
    """The verdict, and what it rests on."""
    page.heading(summary(found))
    page.prose(method(found), style="dim")


def summary(found: Gate) -> str:
    """ "✘ FAIL: 1 failed, 2 unknown, 20 passed"."""
    counts = ", ".join(f"{found.count(verdict)} {word}" for verdict, word in SAID.items())
    reported = sum(not item.gating for item in found.verdicts)
    return f"{WORD[found.verdict]}: {counts}" + (f"; {reported} only reported" if reported else "")


def method(found: Gate) -> str:
    """What false alarms cost, and how noise was told from change."""
    tests = f"{found.tests} measured tests" if found.tests != 1 else "1 measured test"
    untested = [item.verdict for item in found.verdicts if item.gating and not item.exact]
    if not found.tests and untested:
        unknown = untested.count("unknown")
        errs = f"no measured figure was tested against chance: {len(untested) - unknown} decided without, {unknown} unknown"
    elif not found.tests:
        errs = "nothing measured decides, so nothing is left to chance"
    else:
        shared = f", shared among {found.looks} looks" if found.looks > 1 else ""
        errs = f"fails what keeps its promises in at most {100 * found.alpha:g} % of all runs{shared} ({tests}, Holm's procedure)"
    floor = f" · noise floor: {found.floor_from}" if found.floor_from else ""
    earlier = found.earlier_runs
    runs = f" · what differs from run to run: {earlier.text}" if earlier and earlier.runs else ""
    return f"{errs} · look {found.look} of {found.looks}{floor}{runs}"
