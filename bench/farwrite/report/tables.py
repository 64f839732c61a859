"""The tables of a report: proof of link, latency against its floor, fits, greatest miles, drills, counts.

Each function prints one section and is silent when there is nothing to show. Units stand once, in the headings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from statistics import median
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from ..analysis.result import (
    Analysis,
    CellResult,
    DrillResult,
    Estimate,
    Fit,
    GreatestMiles,
    OtherResult,
    Verdict,
)
from ..analysis.verdict import decide, response_of_cell, without_lateness
from ..analysis.void import in_words
from ..base.physics import PRODUCT_LIMITS, ProductLimit, rtt_ns_of
from ..base.protocol import NAMES
from ..base.reasons import Reason, interrupted, joined, least_needed, link_not_as_asked, unsound
from ..base.units import NS_PER_MS, NS_PER_US, format_size, format_time
from .digits import TO, UNKNOWN, Digits, grouped
from .page import STYLE, WORD, Footnotes, Form, Page, add_row, cell, table_of

MB = 1e6


# --- What cells have in common ---------------------------------------------------------------------------------


def workload_of(result: CellResult) -> tuple:
    """What makes two cells the same workload: all but distance and protocol."""
    return result.name, result.size_bytes, result.arrival, result.queue_depth, result.offered_per_s


def workloads(cells: Sequence[CellResult]) -> list[list[CellResult]]:
    """The cells of each workload, in the order of the profile; inside, nearest first and local before A, B, C."""
    groups: dict[tuple, list[CellResult]] = {}
    for result in cells:
        groups.setdefault(workload_of(result), []).append(result)
    return [sorted(group, key=lambda c: (c.miles, rank(c.protocol))) for group in groups.values()]


def title_of(result: CellResult) -> str:
    """A workload in words: "write, 4 KiB, closed loop, queue depth 1"."""
    load = {"closed": "closed loop", "jobs": "several jobs"}.get(result.arrival, f"open loop ({result.arrival})")
    if result.offered_per_s is not None:  # Of a trace its mean: each round replays another window.
        load += f", {grouped(result.offered_per_s)} writes/s offered{' on average' if result.arrival == 'trace' else ''}"
    return f"{result.name}, {format_size(result.size_bytes)}, {load}, queue depth {result.queue_depth}{further(result)}"


def further(result: CellResult) -> str:
    """The workload's further secondaries, and how many replicas a quorum of them is."""
    if not result.others:
        return ""
    others = " and ".join(miles_text(other.miles) for other in result.others)
    counted = f"; a quorum is {result.quorum} of {2 + len(result.others)}" if result.quorum else ""
    return f", {'a further replica' if len(result.others) == 1 else 'further replicas'} at {others} miles{counted}"


def rank(protocol: str) -> int:
    """The weakest promise first."""
    return NAMES.index(protocol) if protocol in NAMES else len(NAMES)


def miles_text(miles: float) -> str:
    """A distance as the profile spells it."""
    return f"{miles:.4g}"


def changes(values: Iterable[str]) -> list[str]:
    """A column in which a value that repeats the one above is left blank."""
    shown, last = [], None
    for value in values:
        shown.append("" if value == last else value)
        last = value
    return shown


# --- Proof of link ---------------------------------------------------------------------------------------------


def show_link(page: Page, analysis: Analysis) -> None:
    """What round trip was asked at each distance and what was delivered, over all cells there."""
    if not analysis.cells:
        return
    page.heading("Proof of link: the round trip that was delivered")
    by_miles = sorted(analysis.cells, key=lambda c: c.miles)
    places = [list(group) for _, group in groupby(by_miles, key=lambda c: round(c.miles, 6))]
    page.table(partial(link_table, places))
    page.prose(
        "Least minimum, median p50 and greatest p99 of the cells at a distance; off is p50 minus asked. "
        "At 0 miles what is asked is the lab's own round trip.",
        style="dim",
    )
    others = sorted((o for c in analysis.cells for o in c.others), key=lambda o: o.miles)
    for miles, there in groupby(others, key=lambda o: o.miles):
        page.prose(further_link(miles, list(there)), style="dim")
    for reason in summed_up(reason for c in analysis.cells for reason in c.void_reasons):
        page.item("·", f"void or failed: {reason}")
    floors = (
        ("round trip of the lab itself", analysis.base_rtt_ns),
        ("flush near", analysis.near_flush_ns),
        ("flush far", analysis.far_flush_ns),
        ("flush near, both at once", analysis.near_flush_both_ns),
        ("flush far, both at once", analysis.far_flush_both_ns),
    )
    known = [f"{name} {format_time(e.value)}" for name, e in floors if e.value is not None]
    if known:
        page.prose("Bare, at the median: " + "; ".join(known) + ".", style="dim")


def further_link(miles: float, others: Sequence[OtherResult]) -> str:
    """What the links to further replicas at one distance delivered, over all cells."""
    known = [o.rtt_ns_p50.value for o in others if o.rtt_ns_p50.value is not None]
    found = f"p50 {format_time(min(known))} to {format_time(max(known))}" if known else "not surveyed"
    asked = f"{format_time(others[0].asked_rtt_ns)} asked" if others[0].asked_rtt_ns else "the lab's own asked"
    return f"Further replicas at {miles_text(miles)} miles, in {len(others)} cells: {asked}, {found}."


def summed_up(reasons: Iterable[Reason | str]) -> list[str]:
    """Sentences that differ only in one number as one, with the number's range."""
    numbers: dict[str, list[str]] = {}
    for reason in map(str, reasons):
        found = re.search(r"[+-]?\d+(?:\.\d+)?", reason)
        key = reason.replace(found.group(), "{}", 1) if found else reason
        numbers.setdefault(key, []).extend([found.group()] if found else [])
    return [
        key.format(values[0] if len(set(values)) == 1 else f"{min(values, key=float)} to {max(values, key=float)}")
        if values else key
        for key, values in numbers.items()
    ]  # fmt: skip


def link_table(places: Sequence[Sequence[CellResult]], form: Form) -> Table:
    table = table_of(
        form,
        "miles",
        "asked\nms",
        "min\nms",
        "p50\nms",
        "p99\nms",
        "off\nus",
        "off\n%",
        "rounds ok/\nvoid/failed",
        "link",
    )
    table.columns[0].justify = "right"
    table.columns[-1].justify = "left"
    for cells in places:
        asked = median(c.asked_rtt_ns for c in cells)
        least = merged(min, [c.rtt_ns_min for c in cells])
        middle = merged(median, [c.rtt_ns_p50 for c in cells])
        greatest = merged(max, [c.rtt_ns_p99 for c in cells])
        off = None if middle is None else middle - asked
        rounds = [
            sum(counts) for counts in zip(*((c.rounds_ok, c.rounds_void, c.rounds_failed) for c in cells), strict=True)
        ]
        verdict = link_verdict(cells, rounds[0], rounds[1])
        add_row(
            table,
            miles_text(cells[0].miles),
            *(UNKNOWN if ns is None else grouped(ns / NS_PER_MS, 3) for ns in (asked, least, middle, greatest)),
            UNKNOWN if off is None else f"{off / NS_PER_US:+.1f}",
            UNKNOWN if off is None or not asked else f"{100 * off / asked:+.1f}",
            "/".join(map(str, rounds)),
            Text(WORD[verdict], style=STYLE[verdict]),
        )
    return table


def link_verdict(cells: Sequence[CellResult], rounds_ok: int, rounds_void: int) -> Verdict:
    """Void rounds are set aside and cost nothing but time. A distance with none left was not emulated, and neither was one where
    the verdicts of a cell are withheld because its link was off."""
    if any(link_not_as_asked.among(c.withheld) for c in cells):
        return "fail"
    if rounds_ok and any(c.rtt_ns_p50.value is not None for c in cells):
        return "pass"
    return "fail" if rounds_void and not rounds_ok else "unknown"


def merged(how: Callable, estimates: Iterable[Estimate]) -> float | None:
    """One value for several estimates of the same thing; None when none is known."""
    known = [e.value for e in estimates if e.value is not None]
    return how(known) if known else None


# --- Latency against its floor ---------------------------------------------------------------------------------


def show_latency(page: Page, analysis: Analysis) -> None:
    """The main table, one per workload: distance x protocol."""
    for index, cells in enumerate(workloads(analysis.cells)):
        page.heading(f"Write latency: {title_of(cells[0])}")
        notes = Footnotes()
        known = [c for c in cells if c.response_ns_p50.value is not None]
        if known:
            page.table(partial(latency_table, known, notes))
            page.footnotes(notes)
        for text in missing_texts([c for c in cells if c not in known], many=False):
            page.item("·", text)
        floors: dict[str, list[str]] = {}
        for result in cells:
            protocols = floors.setdefault(result.floor_text, [])
            if result.protocol not in protocols:
                protocols.append(result.protocol)
        for text, protocols in floors.items():
            if text:
                page.prose(f"Floor of {', '.join(protocols)}: {text}.".replace("..", "."), style="dim")
        show_parts(page, cells)
        if index == 0:
            page.prose(
                f"Response times, from the intended instant; [ ] is the interval{confidence_of(cells)}. The floor is "
                "what a bare echo and flush take in this lab; efficiency is the floor over p50. MB/s is goodput.",
                style="dim",
            )


def latency_table(cells: Sequence[CellResult], notes: Footnotes, form: Form) -> Table:
    table = table_of(
        form, "miles", "prot", "p50\nms", "p99\nms", "p99.9\nms", "floor\nms", "eff\n%", "writes\n/s", "MB/s",
        text_columns=5,
    )  # fmt: skip
    table.columns[0].justify = "right"
    p50 = Digits.of((c.response_ns_p50 for c in cells), NS_PER_MS)
    p99 = Digits.of((c.response_ns_p99 for c in cells), NS_PER_MS)
    p999 = Digits.of((c.response_ns_p999 for c in cells), NS_PER_MS)
    floor = Digits.of((c.floor_ns for c in cells), NS_PER_MS)
    efficiency = Digits.of((c.efficiency for c in cells), 0.01, places_max=1)
    writes = Digits.of((c.completed_per_s for c in cells), places_max=1)
    goodput = Digits.of((c.goodput_bytes_per_s for c in cells), MB, places_max=2)
    values_only = Form("none", form.gap)
    for miles, result in zip(changes(miles_text(c.miles) for c in cells), cells, strict=True):
        if miles and table.row_count:
            table.rows[-1].end_section = True
        style = "dim" if result.latency_doubts else ""
        name = Text(result.protocol)
        name.append(notes.mark([
            *(f"No verdict rests on it: {reason}" for reason in result.withheld),
            *(f"No verdict on its latency: {reason}" for reason in result.host_noise),
        ]))  # fmt: skip
        if not result.steady and not result.latency_doubts:
            name.append(notes.mark(["No steady state was reached: longer rounds would help."]))
        add_row(
            table,
            miles,
            name,
            cell(result.response_ns_p50, p50, form, notes, style),
            cell(result.response_ns_p99, p99, form, notes, style),
            cell(result.response_ns_p999, p999, form, notes, style),
            cell(result.floor_ns, floor, values_only, notes, style),
            cell(result.efficiency, efficiency, values_only, notes, style),
            cell(result.completed_per_s, writes, values_only, notes, style),
            cell(result.goodput_bytes_per_s, goodput, values_only, notes, style),
        )
    return table


def missing_texts(cells: Sequence[CellResult], many: bool) -> list[str]:
    """Why a cell has no row, or no p99, one sentence a reason."""
    reasons: dict[tuple[str, str], list[CellResult]] = {}
    for item in cells:
        for what, found in (("", item.response_ns_p50), ("p99 of ", item.response_ns_p99)):
            if found.value is None and (found.warnings or not what):
                reason = "; ".join(map(in_words, found.warnings)) or "not measured"
                if not (what and least_needed(found.warnings) is not None):
                    reasons.setdefault((what, reason), []).append(item)
                break
    return [f"no {what}{places(found, many)}: {reason}" for (what, reason), found in reasons.items()]


def places(cells: Sequence[CellResult], many: bool) -> str:
    """ "C at 20, 60 miles and A at 100 miles", with the workload where there are several."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in cells:
        groups.setdefault((item.name if many else "", item.protocol), []).append(miles_text(item.miles))
    texts = [f"{name} {protocol}".strip() + f" at {', '.join(miles)} miles" for (name, protocol), miles in groups.items()]
    return " and ".join(texts)


def show_parts(page: Page, cells: Sequence[CellResult]) -> None:
    """Reads, flushes and trims, jobs and phases: a row each, where the workload has more than plain writes."""
    if not any(c.parts for c in cells):
        return
    notes = Footnotes()
    page.prose("")
    page.table(partial(parts_table, cells, notes))
    page.footnotes(notes)
    page.prose(
        "By job, phase and operation; rates are over the whole round. A read is served here and waits for no peer; a flush waits "
        "for what was submitted before it, because a write is durable when it completes.",
        style="dim",
    )


def parts_table(cells: Sequence[CellResult], notes: Footnotes, form: Form) -> Table:
    parts = [part for c in cells for part in c.parts]
    named = [name for name in ("job", "phase") if any(getattr(part, name) for part in parts)]
    table = table_of(
        form, "miles", "prot", *named, "what", "p50\nms", "p99\nms", "p99.9\nms", "I/Os\n/s", "MB/s",
        text_columns=6 + len(named),
    )  # fmt: skip
    table.columns[0].justify = "right"
    p50 = Digits.of((part.response_ns_p50 for part in parts), NS_PER_MS)
    p99 = Digits.of((part.response_ns_p99 for part in parts), NS_PER_MS)
    p999 = Digits.of((part.response_ns_p999 for part in parts), NS_PER_MS)
    rate = Digits.of((part.completed_per_s for part in parts), places_max=1)
    goodput = Digits.of((part.goodput_bytes_per_s for part in parts), MB, places_max=2)
    values_only = Form("none", form.gap)
    for result in cells:
        jobs = changes(part.job for part in result.parts)
        for place, part in enumerate(result.parts):
            first = place == 0
            if first and table.row_count:
                table.rows[-1].end_section = True
            shown = {"job": jobs[place], "phase": part.phase}
            add_row(
                table,
                miles_text(result.miles) if first else "",
                result.protocol if first else "",
                *(shown[name] for name in named),
                part.operation,
                cell(part.response_ns_p50, p50, form, notes),
                cell(part.response_ns_p99, p99, form, notes),
                cell(part.response_ns_p999, p999, form, notes),
                cell(part.completed_per_s, rate, values_only, notes),
                cell(part.goodput_bytes_per_s, goodput, values_only, notes),
            )
    return table


def confidence_of(cells: Iterable[CellResult]) -> str:
    """ " of at least 95 %": the least confidence any of the intervals achieves."""
    estimates = [e for c in cells for e in (c.response_ns_p50, c.response_ns_p99, c.response_ns_p999)]
    reached = [e.confidence for e in estimates if e.value is not None and e.confidence is not None]
    return f" at {100 * min(reached):.3g} % or more" if reached else ""


# --- The fit over distance -------------------------------------------------------------------------------------


def show_fits(page: Page, analysis: Analysis) -> None:
    """What a write pays for distance, and what for everything else."""
    if not analysis.fits:
        return
    page.heading("Distance fit: latency = a + k x round trip")
    notes = Footnotes()
    rows: dict[tuple, dict[float, Fit]] = {}
    for fit in analysis.fits:
        rows.setdefault((fit.name, fit.protocol, fit.queue_depth), {})[fit.quantile] = fit
    page.table(partial(fit_table, rows, notes))
    page.prose(
        "k counts the serial round trips a write takes: 1.00 is ideal for a C that needs one trip, 2 is plain SCSI; "
        "a is everything that is not distance.",
        style="dim",
    )
    page.footnotes(notes)


def fit_table(rows: dict[tuple, dict[float, Fit]], notes: Footnotes, form: Form) -> Table:
    quantiles = sorted({quantile for fits in rows.values() for quantile in fits})
    headings = [f"{what}{p_of(q)}\n{unit}" for q in quantiles for what, unit in (("k at ", ""), ("a at ", "us"))]
    table = table_of(form, "workload", "prot", *headings, text_columns=2 + len(headings))
    k = {q: Digits.of((f[q].k for f in rows.values() if q in f), places_max=2) for q in quantiles}
    a = {q: Digits.of((f[q].a_ns for f in rows.values() if q in f), NS_PER_US, places_max=1) for q in quantiles}
    names = changes(workload_and_depth(name, depth, rows) for name, _, depth in rows)
    for name, ((_, protocol, _), fits) in zip(names, rows.items(), strict=True):
        if name and table.row_count:
            table.rows[-1].end_section = True
        estimates = []
        for q in quantiles:
            fit = fits.get(q)
            estimates.append(cell(fit.k if fit else None, k[q], form, notes))
            estimates.append(cell(fit.a_ns if fit else None, a[q], form, notes))
        add_row(table, name, protocol, *estimates)
    return table


def workload_and_depth(name: str, depth: int, rows: Iterable[tuple]) -> str:
    """The workload's name, with its queue depth only where names repeat."""
    depths = {row[2] for row in rows if row[0] == name}
    return f"{name} qd {depth}" if len(depths) > 1 else name


def p_of(quantile: float) -> str:
    """0.999 -> "p99.9"."""
    return f"p{100 * quantile:.6g}"


# --- Greatest miles --------------------------------------------------------------------------------------------


def show_miles(page: Page, analysis: Analysis) -> None:
    """How far away the second copy can be, per budget, and what that means for the limits that products state."""
    if not analysis.miles:
        return
    names = list(dict.fromkeys(answer.name for answer in analysis.miles))
    for name in names:
        answers = [answer for answer in analysis.miles if answer.name == name]
        page.heading(f"Greatest miles at which a budget holds: {name}")
        notes = Footnotes()
        answered = {(a.protocol, a.quantile) for a in answers if a.outcome in ("measured", "beyond", "below")}
        in_miles = [a for a in answers if (a.protocol, a.quantile) in answered]
        if in_miles:
            page.table(partial(miles_table, in_miles, notes))
        unanswered: dict[tuple[str, float, str], list[str]] = {}
        for answer in answers:
            if (answer.protocol, answer.quantile) not in answered:
                reason = joined(answer.miles.warnings)
                budgets = unanswered.setdefault((answer.protocol, answer.quantile, reason), [])
                budgets.append(f"{answer.budget_ns / NS_PER_MS:g}")
        for (protocol, quantile, reason), budgets in unanswered.items():
            page.item("·", f"{protocol} {p_of(quantile)}, {', '.join(dict.fromkeys(budgets))} ms: {reason}")
        if any(answer.outcome in ("beyond", "below") for answer in in_miles):
            page.prose(
                "> the budget still holds at the farthest distance that was measured; < it is exceeded at the nearest.",
                style="dim",
            )
        page.prose(
            "Route factor: glass over straight line; 1.0 ideal, 1.3 best conduit, 2.1 rule of thumb.", style="dim"
        )
        page.footnotes(notes)


def miles_table(answers: Sequence[GreatestMiles], notes: Footnotes, form: Form) -> Table:
    factors = sorted({answer.route_factor for answer in answers})
    headings = [f"miles at\nroute {factor:.1f}" for factor in factors]
    table = table_of(form, "prot", "at", "budget\nms", *headings, text_columns=3 + len(factors))
    table.columns[2].justify = "right"
    digits = {f: Digits.of((a.miles for a in answers if a.route_factor == f), places_max=0) for f in factors}
    rows: dict[tuple, dict[float, GreatestMiles]] = {}
    for answer in answers:
        rows.setdefault((answer.protocol, answer.quantile, answer.budget_ns), {})[answer.route_factor] = answer
    keys = sorted(rows, key=lambda key: (rank(key[0]), key[1], key[2]))
    protocols = changes(protocol for protocol, _, _ in keys)
    quantiles = changes(f"{protocol} {p_of(quantile)}" for protocol, quantile, _ in keys)
    for protocol, quantile, key in zip(protocols, quantiles, keys, strict=True):
        if protocol and table.row_count:
            table.rows[-1].end_section = True
        found = [rows[key].get(factor) for factor in factors]
        add_row(
            table,
            protocol,
            quantile.partition(" ")[2],
            f"{key[2] / NS_PER_MS:g}",
            *(
                miles_cell(a, digits[f], form, notes)
                for f, a in zip(factors, found, strict=True)
            ),
        )
    return table


def miles_cell(answer: GreatestMiles | None, digits: Digits, form: Form, notes: Footnotes) -> Text:
    """Miles with their interval, or the bound of what was measured on whose far side they lie."""
    if answer is None:
        return Text("")
    mark = notes.mark(answer.miles.warnings[1:])
    if answer.outcome == "beyond":
        return Text(f"> {grouped(answer.beyond_miles or 0.0)}{mark}")
    if answer.outcome == "below":
        return Text((f"< {grouped(answer.below_miles or 0.0)}" if answer.below_miles else "none") + mark)
    return cell(answer.miles, digits, form, notes)


def show_limits(page: Page, analysis: Analysis) -> None:
    """Where products draw the line, and what a write under protocol C takes there in this lab."""
    fit = next((f for f in analysis.fits if f.protocol == "C" and f.quantile == 0.99), None)
    measured = [c for c in analysis.cells if c.protocol == "C" and (fit is None or c.name == fit.name)]
    if not measured:
        return
    page.heading(f"Limits that products state, and this lab's protocol C: {measured[0].name}")
    notes = Footnotes()
    page.table(partial(limits_table, analysis, fit, measured, notes))
    page.prose(
        "A whole write is held against the limit here; products state it for the round trip or the distance alone. "
        "Miles are of straight glass.",
        style="dim",
    )
    page.footnotes(notes)


def limits_table(
    analysis: Analysis, fit: Fit | None, measured: Sequence[CellResult], notes: Footnotes, form: Form
) -> Table:
    table = table_of(
        form, "limit", "RTT\nms", "C p99 there\nms" if form.interval == "beside" else "C p99\nms", "C p99 holds"
    )
    table.columns[-1].justify = "left"
    for limit in PRODUCT_LIMITS:
        rtt_ns = limit.rtt_ns if limit.rtt_ns is not None else rtt_ns_of(limit.miles or 0)
        there = p99_there(limit, rtt_ns, fit, measured)
        add_row(
            table,
            limit.name if form.interval == "beside" else limit.name.split(",")[0],
            grouped(rtt_ns / NS_PER_MS, 2),
            (UNKNOWN if there.p99_ns is None else grouped(there.p99_ns / NS_PER_MS, 2))
            + notes.mark([there.remark] if there.remark else []),
            holds_text(limit, there, analysis, measured[0].name, form, notes),
        )
    return table


class There(NamedTuple):
    """p99 of C at a limit, and what its reader must know."""

    p99_ns: float | None
    remark: str = ""
    cell: CellResult | None = None  # where it was measured: a verdict rests on nothing else


def p99_there(limit: ProductLimit, rtt_ns: float, fit: Fit | None, measured: Sequence[CellResult]) -> There:
    """p99 of C at a limit: measured where a cell stands there, else along the fit."""
    if limit.miles is not None:
        for result in measured:
            if abs(result.miles - limit.miles) < 1 and result.response_ns_p99.value is not None and not result.latency_doubts:
                return There(result.response_ns_p99.value, cell=result)
    if fit is None or fit.k.value is None or fit.a_ns.value is None:
        return There(None, "Neither measured at this distance nor fitted.")
    if doubt := unsound.among(fit.k.warnings):
        return There(None, f"Neither measured at this distance nor known from the fit: {doubt}.")
    beyond = " and beyond what was measured" if rtt_ns > fit.rtt_ns_high else ""
    return There(fit.a_ns.value + fit.k.value * rtt_ns, f"By the fit{beyond}, not measured at this distance.")


def holds_text(limit: ProductLimit, there: There, analysis: Analysis, name: str, form: Form, notes: Footnotes) -> Text:
    """Up to where a limit in milliseconds holds for whole writes; which budget holds at a limit in miles."""
    answers = [a for a in analysis.miles if (a.name, a.protocol, a.quantile) == (name, "C", 0.99)]
    if limit.rtt_ns is not None:
        straight = [a for a in answers if (a.route_factor, a.budget_ns) == (1.0, limit.rtt_ns)]
        miles = straight[0].miles if straight else None
        if miles and (doubt := unsound.among(miles.warnings)):  # As the answer has it: miles from such cells are none.
            return Text(f"{WORD['unknown']}{notes.mark([doubt])}", style=STYLE["unknown"])
        if miles and miles.value is not None:
            digits = Digits.of([miles], places_max=0)
            interval = "" if form.interval == "none" else digits.interval(miles)
            return Text(f"up to {digits.number(miles.value)} mi {interval}".rstrip() + notes.mark(miles.warnings))
        outcome = straight[0].outcome if straight else "unknown"
        if miles and outcome == "beyond":
            doubts: list[Reason | str] = [*miles.warnings[1:], *undecided_at_the_farthest(analysis, name, limit.rtt_ns)]
            return Text(f"> {grouped(straight[0].beyond_miles or 0.0)} mi{notes.mark(doubts)}")
        if miles and outcome in ("below", "none"):
            near = straight[0].below_miles
            return Text((f"< {grouped(near)} mi" if near else "none") + notes.mark(miles.warnings))
        if miles and outcome == "any":
            return Text(f"any{notes.mark(miles.warnings)}")
        return Text(f"{WORD['unknown']}{notes.mark(miles.warnings if miles else [])}", style=STYLE["unknown"])
    budgets = sorted({a.budget_ns for a in answers})
    if there.cell is None or not budgets:  # A fit has no interval at one distance.
        mark = notes.mark([there.remark] if there.remark else [])
        return Text(f"{WORD['unknown']}{mark}", style=STYLE["unknown"])
    p99 = response_of_cell(there.cell, 0.99)
    least_ns = without_lateness(p99.estimate).value or 0.0
    found = decide(p99, at_most=budgets[0])
    for budget in budgets:
        found = decide(p99, at_most=budget, interrupted=is_interrupted(analysis))
        if found.verdict == "pass":
            return Text(f"✔ within {budget / NS_PER_MS:g} ms", style=STYLE["pass"])
        if found.withheld and least_ns <= budget:  # The answer is the least budget that holds, and this one may.
            break
    if found.verdict == "fail":
        return Text(f"✘ not even {budgets[-1] / NS_PER_MS:g} ms", style=STYLE["fail"])
    because = f"No verdict rests on it: {joined(found.reasons)}."
    return Text(f"{WORD['unknown']}{notes.mark([because])}", style=STYLE["unknown"])


def undecided_at_the_farthest(analysis: Analysis, name: str, limit_ns: float) -> list[str]:
    """Why a p99 of C that is within a limit at the farthest distance carries no verdict there; empty when it does."""
    far = max((c for c in analysis.cells if (c.name, c.protocol) == (name, "C")), key=lambda c: c.miles)
    found = decide(response_of_cell(far, 0.99), at_most=limit_ns, interrupted=is_interrupted(analysis))
    return [f"No verdict at {miles_text(far.miles)} miles itself: {joined(found.reasons)}."] if found.verdict == "unknown" else []


def is_interrupted(analysis: Analysis) -> bool:
    """Whether the run ended before its end."""
    return interrupted.among(analysis.warnings) is not None


# --- Drills, lag and counts ------------------------------------------------------------------------------------


def show_drills(page: Page, analysis: Analysis) -> None:
    """What survived when the near site was lost, and what a cut link stopped."""
    kills = [d for d in analysis.drills if d.kind == "kill"]
    cuts = [d for d in analysis.drills if d.kind == "cut"]
    if kills:
        page.heading("Drills: near site killed and its link cut in the middle of a load")
        page.table(partial(kill_table, kills))
        page.prose(
            "Recovery point: acknowledged writes that were lost, at worst. P(loss): 95 % bound on the probability that "
            "a kill loses anything; about 3/n when none of n did.",
            style="dim",
        )
        show_uncounted(page, kills)
    if cuts:
        page.heading("Drills: link cut and healed, both sites alive")
        page.table(partial(cut_table, cuts))
        show_uncounted(page, cuts)


def show_uncounted(page: Page, drills: Sequence[DrillResult]) -> None:
    """The trials that are in no number of the table above, and why."""
    for d in drills:
        if d.uncounted:
            page.prose(f"{d.protocol} at {d.miles:g} miles: {d.uncounted_text}.", style=STYLE["unknown"])


def kill_table(drills: Sequence[DrillResult], form: Form) -> Table:
    table = table_of(
        form, "prot", "miles", "kills", "with\nloss", "P(loss)\nat most", "lost\nwrites", "lost\nbytes",
        "recovery\npoint", "verdict",
    )  # fmt: skip
    table.columns[-1].justify = "left"
    for d in sorted(drills, key=lambda d: (d.miles, rank(d.protocol))):
        bound = UNKNOWN if d.loss_probability_high is None else f"{100 * d.loss_probability_high:.1f} %"
        point = UNKNOWN if d.recovery_point_ns_max is None else duration(d.recovery_point_ns_max)
        verdict = loss_verdict(d)
        add_row(
            table, d.protocol, miles_text(d.miles), grouped(d.count), grouped(d.drills_with_loss), bound,
            grouped(d.lost_writes_max), format_size(d.lost_bytes_max), point, verdict,
        )  # fmt: skip
    return table


def loss_verdict(drill: DrillResult) -> Text:
    """Nothing lost, lost as protocols A and local may, or lost against the promise of B and C."""
    if not drill.drills_with_loss and not drill.lost_in_all:
        return Text("✔ none lost", style=STYLE["pass"]) if drill.count else Text(WORD["unknown"], style=STYLE["unknown"])
    if drill.protocol in ("A", "local"):
        return Text("○ lost, as A may" if drill.protocol == "A" else "○ lost, no replica", style=STYLE["unknown"])
    return Text("✘ LOST", style=STYLE["fail"])


def cut_table(drills: Sequence[DrillResult], form: Form) -> Table:
    table = table_of(
        form, "prot", "miles", "cuts", "completed\nduring cut", "recovery\ntime", "lost\nwrites", "writes go on"
    )
    table.columns[-1].justify = "left"
    for d in sorted(drills, key=lambda d: (d.miles, rank(d.protocol))):
        during = d.completed_during_cut_max
        on = Text(WORD["unknown"]) if during is None else Text("✔ yes" if during else "✘ no, until healed")
        add_row(
            table, d.protocol, miles_text(d.miles), grouped(d.count), UNKNOWN if during is None else grouped(during),
            UNKNOWN if d.recovery_time_ns_max is None else duration(d.recovery_time_ns_max),
            grouped(d.lost_writes_max), on,
        )  # fmt: skip
    return table


def duration(ns: float) -> str:
    """A time with its unit; nothing at all is plain 0."""
    return "0" if ns == 0 else format_time(ns)


def show_lag(page: Page, analysis: Analysis) -> None:
    """How far the far site is behind under protocol A: the recovery point to expect at any moment."""
    behind = [c for c in analysis.cells if c.lag_ns_p99 is not None or c.lag_writes_max is not None]
    if not behind:
        return
    page.heading("Lag of the far site under protocol A: what a disaster would take")
    notes = Footnotes()
    cells = [c for group in workloads(behind) for c in group]
    page.table(partial(lag_table, cells, notes))
    page.footnotes(notes)


def lag_table(cells: Sequence[CellResult], notes: Footnotes, form: Form) -> Table:
    table = table_of(form, "workload", "miles", "writes\n/s", "lag p99\nms", "writes\nat most", "bytes\nat most")
    table.columns[3].justify = "left"
    lag = Digits.of((c.lag_ns_p99 for c in cells if c.lag_ns_p99), NS_PER_MS)
    writes = Digits.of((c.completed_per_s for c in cells), places_max=1)
    for name, c in zip(changes(c.name for c in cells), cells, strict=True):
        if name and table.row_count:
            table.rows[-1].end_section = True
        add_row(
            table, name, miles_text(c.miles), cell(c.completed_per_s, writes, Form("none", form.gap), notes),
            cell(c.lag_ns_p99, lag, form, notes) if c.lag_ns_p99 else UNKNOWN,
            UNKNOWN if c.lag_writes_max is None else grouped(c.lag_writes_max),
            UNKNOWN if c.lag_bytes_max is None else format_size(c.lag_bytes_max),
        )  # fmt: skip
    return table


def show_counts(page: Page, analysis: Analysis) -> None:
    """Exact counts over all distances of a workload and protocol; ratios from least to greatest."""
    if not analysis.cells:
        return
    page.heading("Counts: every acknowledged write, audited at the far site")
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for c in (c for group in workloads(analysis.cells) for c in group):
        groups.setdefault((c.name, c.protocol), []).append(c)
    page.table(partial(count_table, groups))
    page.prose("Unacked: issued and not acknowledged when the round ended. Ratios span the distances.", style="dim")


def count_table(groups: dict[tuple[str, str], list[CellResult]], form: Form) -> Table:
    table = table_of(
        form, "workload", "prot", "completed", "un-\nacked", "lost", "dam-\naged", "flushes\n/write",
        "far flushes\n/write", "wire B\n/user B", text_columns=2,
    )  # fmt: skip
    keys = sorted(groups, key=lambda key: ([k[0] for k in groups].index(key[0]), rank(key[1])))
    for name, key in zip(changes(key[0] for key in keys), keys, strict=True):
        cells = groups[key]
        add_row(
            table, name, key[1],
            grouped(sum(c.completed for c in cells)), grouped(sum(c.unacknowledged for c in cells)),
            harm([c.lost for c in cells], key[1]), harm([c.damaged for c in cells], "C"),
            span([c.flushes_per_write.value for c in cells]), span([c.far_flushes_per_write.value for c in cells]),
            span([c.wire_bytes_per_user_byte.value for c in cells]),
        )  # fmt: skip
    return table


def harm(counts: Iterable[int | None], protocol: str) -> Text:
    """A total that ought to be zero where the far site is promised to have it."""
    audited = [count for count in counts if count is not None]
    if not audited:
        return Text("n/a", style="dim")
    total = sum(audited)
    if total == 0:
        return Text("✔ 0", style=STYLE["pass"])
    return Text(grouped(total)) if protocol in ("A", "local") else Text(f"✘ {grouped(total)}", style=STYLE["fail"])


def span(values: Iterable[float | None]) -> str:
    """Least and greatest, or one number when all agree."""
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    low, high = grouped(min(known), 2), grouped(max(known), 2)
    return low if low == high else f"{low}{TO}{high}"
