"""The budgets of a run's own profile, ruled on by the run: what a write may take, at every distance or at one.

Each cell is decided by `verdict.py`, like every other promise. A budget fails when it is exceeded in one cell that it is about,
passes when it is kept in all, and is unknown otherwise. How far it holds are the greatest miles of distance.py, of each workload
and protocol at their own distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..base.reasons import HOST_NOISE, Reason, joined
from ..recording import Recording
from ..workload.tables import BudgetTable, is_about
from .answer import PREFERRED, Reach, held, prefix_of, reach_of, time_text
from .claims import ALSO, caveats, reach_text
from .estimate import label
from .result import BudgetResult, CellResult, Estimate, GreatestMiles, Verdict
from .verdict import Decision, decide, response_of_cell
from .void import in_words

WORD = {"pass": "holds", "fail": "is exceeded", "unknown": "is undecided"}


class Group(NamedTuple):
    """One workload under one protocol at its distances, nearest first, and what each says to a budget."""

    cells: list[CellResult]
    decisions: list[Decision]
    miles: list[GreatestMiles]  # how far the budget reaches, by route factor; empty at one distance

    @property
    def verdict(self) -> Verdict:
        """Of all distances together."""
        return together([item.verdict for item in self.decisions])

    @property
    def reach(self) -> Reach:
        """How far the budget holds over straight glass."""
        return reach_of(next((item for item in self.miles if item.route_factor == 1.0), None))

    def at(self, verdict: Verdict) -> list[CellResult]:
        """The cells of this verdict."""
        return [cell for cell, item in zip(self.cells, self.decisions, strict=True) if item.verdict == verdict]

    def reasons(self) -> list[Reason]:
        """Why cells are undecided."""
        return list(dict.fromkeys(reason for item in self.decisions for reason in item.reasons))


def budget_results(
    recording: Recording, cells: Sequence[CellResult], miles: Sequence[GreatestMiles]
) -> list[BudgetResult]:
    """What the run says to each budget of its profile."""
    return [budget_result(recording, budget, cells, miles) for budget in recording.profile.budget]


def budget_result(
    recording: Recording, budget: BudgetTable, cells: Sequence[CellResult], miles: Sequence[GreatestMiles]
) -> BudgetResult:
    """What it says to one of them."""
    q = budget.quantile
    groups = groups_of(budget, cells, miles, recording.interrupted)
    verdict = together([group.verdict for group in groups])
    deciding = [group for group in groups if group.verdict == verdict]
    others = [f"{ALSO[group.verdict]}: {sentence_of(group, q)}" for group in groups if group.verdict != verdict]
    details = [
        f"{title_of(group)}, by glass over straight line: {reach_text(group.miles)}" for group in groups if group.miles
    ]
    why = brief(deciding[0], q) if deciding else "no cell was measured there"
    sentence = "; ".join(sentence_of(group, q) for group in deciding) or why
    stream = " (stream-level)" if recording.lab.is_stream_level else ""
    return BudgetResult(
        id=budget.text,
        quantile=q,
        limit_ns=budget.limit_ns,
        at_miles=budget.miles,
        verdict=verdict,
        sentence=f"{budget.text} {WORD[verdict]}: {sentence}{stream}",
        details=[*others, *details, *caveats(recording, None)],
        why=f"{why}{stream}",
        reasons=list(dict.fromkeys(reason for group in deciding for reason in group.reasons())),
        cells={
            cell.cell: item.verdict
            for group in groups for cell, item in zip(group.cells, group.decisions, strict=True)
        },
    )  # fmt: skip


def groups_of(
    budget: BudgetTable, cells: Sequence[CellResult], miles: Sequence[GreatestMiles], interrupted: bool
) -> list[Group]:
    """The workloads and protocols that a budget is about, those that are asked about first before the others."""
    mine: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        if is_about(budget, cell.miles):
            mine.setdefault((cell.name, cell.protocol), []).append(cell)
    groups = []
    for (name, protocol), found in mine.items():
        found.sort(key=lambda cell: cell.miles)
        decisions = [
            decide(response_of_cell(cell, budget.quantile), at_most=budget.limit_ns, interrupted=interrupted) for cell in found
        ]
        far = [
            item for item in miles if budget.miles is None
            and (item.name, item.protocol, item.quantile, item.budget_ns) == (name, protocol, budget.quantile, budget.limit_ns)
        ]  # fmt: skip
        groups.append(Group(found, decisions, far))
    return sorted(groups, key=lambda group: PREFERRED.index(group.cells[0].protocol))


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """All must hold; one that does not is enough to fail. Of nothing nothing is known."""
    return "fail" if "fail" in verdicts else "pass" if verdicts and "unknown" not in verdicts else "unknown"


# In words


def title_of(group: Group) -> str:
    """ "oltp under C"."""
    return f"{group.cells[0].name} under {group.cells[0].protocol}"


def sentence_of(group: Group, q: float) -> str:
    """Where a budget is kept, exceeded and undecided, and how far it holds."""
    if len(group.cells) == 1:
        return f"{title_of(group)}: {alone(group, q)}"
    kept, over, open_ = group.at("pass"), group.at("fail"), group.at("unknown")
    clauses = [f"within it at {places(kept)}"] if kept else []
    clauses += [f"over it at {places(over)} ({value_text(over[0], q)} at {over[0].miles:.4g})"] if over else []
    clauses += [f"undecided at {places(open_)}: {joined(group.reasons())}"] if open_ else []
    far = f"; it {holds_text(group)}" if kept and group.reach.kind in ("miles", "beyond") else ""
    return f"{title_of(group)} is {', '.join(clauses)}{far}"


def alone(group: Group, q: float) -> str:
    """What one distance says."""
    cell = group.cells[0]
    why = f": {joined(group.reasons())}" if group.verdict == "unknown" else ""
    return f"{value_text(cell, q)} at {cell.miles:.4g} miles{why}"


def brief(group: Group, q: float) -> str:
    """The same in a line: how far it holds, or where it does and where it does not, or why that is not known."""
    prefix = prefix_of(group.cells[0])
    kept, over, open_ = group.at("pass"), group.at("fail"), group.at("unknown")
    undecided = ""
    if open_:
        why = next((in_words(reason).removeprefix(f"{HOST_NOISE}: ") for reason in group.reasons()), "nothing is known")
        place = f" at {open_[0].miles:.4g} miles" if len(group.cells) > 1 else ""
        undecided = f"undecided{place}: {why}"
    if len(group.cells) == 1:
        return f"{prefix}{undecided or alone(group, q)}"
    if kept:
        verdict_text = holds_text(group) if group.reach.kind != "unknown" else f"holds at {kept[-1].miles:.4g} miles"
        after = f", not at {over[0].miles:.4g}" if over else f"; {undecided}" if open_ else ""
        return f"{prefix}{verdict_text}{after}"
    if over:
        return f"{prefix}is exceeded at {over[0].miles:.4g} miles, {value_text(over[0], q)}"
    return f"{prefix}{undecided}"


def holds_text(group: Group) -> str:
    """ "holds to 83 miles of glass [76, 95]", "holds at 186 miles, the farthest measured"."""
    found = next(item for item in group.miles if item.route_factor == 1.0)
    if found.outcome != "beyond":
        return f"holds {held(group.reach)}"
    far, low = group.cells[-1].miles, found.miles.low
    interval = f", the interval begins at {low:.0f}" if low is not None and low < far else ""
    return f"holds at {far:.4g} miles, the farthest measured{interval}"


def value_text(cell: CellResult, q: float) -> str:
    """ "p99 2.33 ms [2.04, 2.59]"."""
    found: Estimate = response_of_cell(cell, q).estimate
    return f"{label(q)} {time_text(found)}" if found.value is not None else f"no {label(q)}"


def places(cells: Sequence[CellResult]) -> str:
    """ "0, 20 and 60 miles"."""
    words = [f"{cell.miles:.4g}" for cell in cells]
    return f"{' and '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)} miles"
