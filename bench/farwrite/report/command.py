"""What a command costs at a distance, for a person: the answer, both distances in a table, what lies between them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.command import QUANTILES, CommandResult, Side
from ..analysis.estimate import label
from ..analysis.result import Estimate
from ..base.reasons import joined
from ..base.units import NS_PER_MS, NS_PER_S, NS_PER_US, counted
from ..recording import Repeated
from .digits import Digits
from .page import STYLE, Footnotes, Form, Page, add_row, cell, table_of
from .tables import miles_text

COMMAND_CHARACTERS_MAX = 60  # Of a command, where it is only named.
UNITS = (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US))


def show_command(made: Repeated, result: CommandResult, console: Console) -> None:
    """All of it, the answer first."""
    page = Page(console)
    if made.interrupted:
        page.prose("⚠ INTERRUPTED: what follows rests on the rounds that were finished.", style=STYLE["fail"])
    for sentence in answer(made, result):
        page.prose(Text(sentence, style="bold"))
    page.console.print()
    notes = Footnotes()
    page.table(partial(sides_table, result, notes))
    page.footnotes(notes)
    for sentence in remarks(made, result):
        page.prose(sentence, style="dim")


def answer(made: Repeated, result: CommandResult) -> Iterator[str]:
    """What one run costs at both distances, and what the difference is in round trips."""
    at_0, far = result.at_0.run_ns_p50, result.far.run_ns_p50
    unit, scale = unit_of(value for value in (at_0.value, far.value) if value is not None)
    name, there = named(made.command), f"{miles_text(made.miles)} miles"
    yield f"{name} takes {estimate_text(at_0, unit, scale)} at 0 miles and {estimate_text(far, unit, scale)} at {there}."
    added, k = result.added_ns, result.k
    if added.value is None:
        yield f"What the distance adds is unknown: {joined(added.warnings)}."
        return
    unit, scale = unit_of([abs(added.value)])
    if result.effect == "none":
        yield f"It does not depend on the distance: k is {estimate_text(k)} round trips."
    elif result.effect == "unclear":
        yield f"No difference shown: {estimate_text(added, unit, scale)} at the median. More runs would narrow that interval."
    elif result.effect == "less":
        less = estimate_text(negative(added), unit, scale)
        yield f"That is less by {less}: no distance does that, something else changed meanwhile."
    else:
        trips = f"k = {estimate_text(k)} round trips" if k.value is not None else f"k is unknown: {joined(k.warnings)}"
        yield f"The distance adds {estimate_text(added, unit, scale)}: {trips}."


def remarks(made: Repeated, result: CommandResult) -> Iterator[str]:
    """What the figures rest on, and what follows from them."""
    if result.effect == "more" and result.a_ns.value is not None:
        unit, scale = unit_of([abs(result.a_ns.value)])
        yield f"Apart from round trips a run takes a = {estimate_text(result.a_ns, unit, scale)}; all of it at the median."
    if result.effect == "more" and result.between:
        unit, scale = unit_of(item.run_ns_p50.value or 0.0 for item in result.between)
        places = ", ".join(
            f"{miles_text(item.miles)} miles {estimate_text(item.run_ns_p50, unit, scale)}" for item in result.between
        )
        yield f"In between at most, on a straight line: {places}. No figure is given beyond."
    each = len({len(pair.far.run_ns) for pair in made.rounds}) == 1 and made.rounds
    runs = f" of {counted(len(made.rounds[0].far.run_ns), 'run')}" if each else ""
    yield (
        f"{counted(len(made.rounds), 'round')}{runs} at each distance, which took turns in going first; "
        f"{counted(made.warmups, 'warm-up run')} at each before. A run is timed from the program's start to its end."
    )
    besides = f", {made.asked_besides}" if made.asked_besides else ""
    yield f"Link {made.link}: {made.link_reason}{besides}."
    if made.void:
        yield f"⚠ {counted(len(made.void), 'round')} left out: {made.void[0]}."


def sides_table(result: CommandResult, notes: Footnotes, form: Form) -> Table:
    """Both distances, a row each."""
    sides = (result.at_0, result.far)
    columns = {name: [estimate_of(side, name) for side in sides] for name in QUANTILES}
    known = [e.value for estimates in columns.values() for e in estimates if e.value is not None]
    unit, scale = unit_of(known)
    headings = [f"{label(q)}\n{unit}" for q in QUANTILES.values()]
    table = table_of(form, "miles", "round trip\nms", *headings, f"least\n{unit}", "runs", text_columns=0)
    trips = Digits.of((side.rtt_ns_p50 for side in sides), NS_PER_MS)
    digits = {name: Digits.of(estimates, scale) for name, estimates in columns.items()}
    least = Digits.of((Estimate(value=side.run_ns_min) for side in sides), scale)
    for place, side in enumerate(sides):
        add_row(
            table, miles_text(side.miles), cell(side.rtt_ns_p50, trips, Form("none", form.gap), notes),
            *(cell(columns[name][place], digits[name], form, notes) for name in QUANTILES),
            least.number(side.run_ns_min), str(side.runs),
        )  # fmt: skip
    return table


def estimate_of(side: Side, name: str) -> Estimate:
    """A quantile of a side."""
    found: Estimate = getattr(side, f"run_ns_{name}")
    return found


def named(command: Sequence[str]) -> str:
    """The command, or as much of it as names it."""
    text = " ".join(shlex.join(command).split())
    return text if len(text) <= COMMAND_CHARACTERS_MAX else text[: COMMAND_CHARACTERS_MAX - 1].rstrip() + "…"


def unit_of(values_ns) -> tuple[str, float]:
    """The unit that suits the least of these times."""
    least = min((value for value in values_ns if value), default=NS_PER_MS)
    return next(((unit, scale) for unit, scale in UNITS if least >= scale), UNITS[-1])


def estimate_text(estimate: Estimate, unit: str = "", scale: float = 1.0) -> str:
    """An estimate in a sentence: "41.2 ms [40.9, 41.6]"; why it is none where it is none."""
    if estimate.value is None:
        return f"an unknown time ({joined(estimate.warnings)})"
    digits = Digits.of([estimate], scale)
    interval = f" [{digits.number(estimate.low)}, {digits.number(estimate.high)}]" if estimate.low is not None else ""
    return f"{digits.number(estimate.value)} {unit}".rstrip() + interval


def negative(estimate: Estimate) -> Estimate:
    """The same with the other sign."""
    low, value, high = (None if end is None else -end for end in (estimate.high, estimate.value, estimate.low))
    return Estimate(value=value, low=low, high=high, confidence=estimate.confidence, count=estimate.count)
