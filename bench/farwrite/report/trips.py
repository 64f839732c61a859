"""How many round trips a write of each size waits for, for a person: a table for each target, and what costs more than one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rich.console import Console
from rich.table import Table

from ..analysis.result import Estimate
from ..analysis.trips import TargetTrips, TripsResult, TripsRow
from ..base.units import NS_PER_MS, counted, format_size, format_time
from ..recording import MeasuredTarget, TripsRecording
from .digits import UNKNOWN, Digits
from .page import Footnotes, Form, Page, add_row, cell, table_of
from .tables import miles_text

NAMED = ("InitialR2T", "ImmediateData", "FirstBurstLength", "MaxBurstLength", "MaxRecvDataSegmentLength", "MaxOutstandingR2T")


def show_trips(made: TripsRecording, result: TripsResult, console: Console) -> None:
    """All of it."""
    page = Page(console)
    for observed, target in zip(made.targets, result.targets, strict=True):
        page.heading(f"{target.name}, {miles_text(made.miles)} miles away")
        notes = Footnotes()
        page.table(partial(target_table, made, result, target, notes))
        page.footnotes(notes)
        for sentence in sentences(observed, target):
            page.prose(sentence)
    page.console.print()
    for sentence in remarks(made):
        page.prose(sentence, style="dim")


def target_table(made: TripsRecording, result: TripsResult, target: TargetTrips, notes: Footnotes, form: Form) -> Table:
    """One target, a size a row."""
    rows = target.rows
    at_0, far, k = ([getattr(row, name) for row in rows] for name in ("at_0_ns_p50", "far_ns_p50", "k"))
    foretold = [f"at {miles_text(miles)} miles\nms" for miles in result.foretold_miles]
    table = table_of(
        form, "size", "p50 at 0 miles\nms", f"p50 at {miles_text(made.miles)}\nms", "k\nround trips", "k of the\nfastest",
        "foretold\nk", *foretold, text_columns=0,
    )  # fmt: skip
    near, there, trips = Digits.of(at_0, NS_PER_MS), Digits.of(far, NS_PER_MS), Digits.of(k, places_max=2)
    costs = Digits.of((Estimate(value=value) for row in rows for value in row.foretold_ns), NS_PER_MS)
    fastest = Digits(1.0, 2)
    for row in rows:
        add_row(
            table, format_size(row.size_bytes).replace(" ", "\u00a0"), cell(row.at_0_ns_p50, near, form, notes),
            cell(row.far_ns_p50, there, form, notes), cell(row.k, trips, form, notes), fastest.number(row.k_fastest),
            str(row.expected or UNKNOWN),
            *(costs.number(value) for value in row.foretold_ns),
        )  # fmt: skip
    return table


def sentences(observed: MeasuredTarget, target: TargetTrips) -> Iterator[str]:
    """What was agreed on, and what costs a trip more."""
    if observed.kind == "nbd":
        yield "NBD: a write's data follows its header, so a write of any size is one trip."
        return
    if target.unsolicited_bytes is None or target.max_burst_bytes is None:
        yield f"The keys are unknown: {observed.keys_unknown or 'what was answered is out of bounds'}."
        return
    yield "Agreed: " + ", ".join(f"{key}={observed.keys[key]}" for key in NAMED) + "."
    yield (
        f"So {format_size(target.unsolicited_bytes)} go out unasked, and each {format_size(target.max_burst_bytes)} beyond them "
        "wait for an R2T, a trip more."
    )
    for costly, rows in by_costly(target.rows):
        named = " or ".join(" with ".join(f"{key}={observed.keys[key]}" for key in keys) for keys in costly)
        yield f"What costs {', '.join(format_size(row.size_bytes) for row in rows)} the second trip: {named}."


def by_costly(rows: list[TripsRow]) -> Iterator[tuple[list[list[str]], list[TripsRow]]]:
    """Rows whose second trip the same keys cost, together, in their order."""
    found: dict[str, tuple[list[list[str]], list[TripsRow]]] = {}
    for row in rows:
        if row.costly_keys:
            found.setdefault(repr(row.costly_keys), (row.costly_keys, []))[1].append(row)
    yield from found.values()


def remarks(made: TripsRecording) -> Iterator[str]:
    """What the figures rest on."""
    first = made.targets[0].writes[0] if made.targets and made.targets[0].writes else None
    if first is not None:
        rtt_ns = sorted(first.far.rtt_ns)[len(first.far.rtt_ns) // 2]
        yield (
            f"{counted(len(first.far.run_ns), 'write')} of each size at each distance, one at a time, after {made.warmups} that "
            f"open TCP's window; {'each durable before it is answered' if made.fua else 'durable when the target says so'}. "
            f"The link delivers {format_time(rtt_ns)}."
        )
    yield "k = (p50 there - p50 at 0 miles) / round trip added. Beyond that a time is p50 at 0 miles + k round trips of light."
    besides = f", {made.asked_besides}" if made.asked_besides else ""
    yield f"{made.initiator}, TCP {made.congestion}. Link {made.link}: {made.link_reason}{besides}."
