"""The answer of a search in sentences: miles and kilometres with their interval, for each kind of route, or why it is unknown."""

from __future__ import annotations

from ..analysis.estimate import label
from ..analysis.result import Analysis, Estimate, ReachResult
from ..base.physics import ROUTE_FACTORS
from ..base.units import KM_PER_MILE, NS_PER_MS
from .digits import span_text
from .page import Page

ROUTE_WORDS = {factor: name for name, factor in ROUTE_FACTORS.items()}


def show_reach(page: Page, analysis: Analysis) -> None:
    """The question and its answer; nothing when the run had none."""
    if analysis.reach is None:
        return
    page.heading("How far")
    first, *others = sentences(analysis.reach)
    page.prose(first, style="bold")
    for sentence in others:
        page.item("·", sentence)


def sentences(reach: ReachResult) -> list[str]:
    """The answer, then one sentence for each kind of route, or for each reason why it is unknown."""
    asked = f"{reach.budget_ns / NS_PER_MS:g} ms at {label(reach.quantile)}, {reach.name} under {reach.protocol}"
    if reach.unknown:
        return [f"{asked}: unknown.", *(f"{reason}." for reason in reach.unknown)]
    if reach.nothing_ns is not None:
        return [f"{asked}: spent before the first mile. At 0 miles a write takes {span_text(reach.nothing_ns)}."]
    straight = next(item for item in reach.miles if item.route_factor == 1.0)
    if straight.miles.value is None:
        holds = straight.outcome == "any"
        return [f"{asked}: {'holds at any distance, on which it does not depend' if holds else straight.miles.warnings[0]}."]
    lines = [f"{asked}: {length_text(straight.miles)}."]
    for item in sorted(reach.miles, key=lambda item: item.route_factor):
        words = ROUTE_WORDS.get(item.route_factor, "")
        lines.append(f"route factor {item.route_factor:g} ({words}): {length_text(item.miles)}")
    if straight.miles.confidence is not None:
        lines.append(f"The intervals are {straight.miles.confidence:.0%} intervals over rounds.")
    return lines


def length_text(miles: Estimate) -> str:
    """ "187 miles [181, 192], 301 km [291, 309]"."""
    clauses = []
    for unit, scale in (("miles", 1.0), ("km", KM_PER_MILE)):
        places = 0 if (miles.value or 0) * scale >= 20 else 1
        interval = ""
        if miles.low is not None and miles.high is not None:
            interval = f" [{miles.low * scale:,.{places}f}, {miles.high * scale:,.{places}f}]"
        clauses.append(f"{(miles.value or 0) * scale:,.{places}f} {unit}{interval}")
    return ", ".join(clauses)
