"""Latency against miles: what was measured, its floor, the fitted line, what products allow, what budgets and claims say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from ...analysis.claims import C1_BUDGET_NS, C1_MILES, C2_MILES
from ...analysis.result import Analysis, CellResult, Estimate, Fit
from ...base.physics import PRODUCT_LIMITS, ProductLimit, miles_of
from ...base.units import NS_PER_US, format_time
from ...workload.tables import DistanceTable
from ..tables import miles_text, rank, workload_of
from .plot import (
    LEGEND,
    Choice,
    Option,
    Plot,
    bars,
    choose_protocols,
    choose_workload,
    estimate_text,
    layout_of,
    log_axis,
    look_of,
    ms,
    place_words,
    plain,
    protocol_words,
    workload_keys,
)

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
FIELDS = {"p50": "response_ns_p50", "p99": "response_ns_p99", "p99.9": "response_ns_p999"}
FIT_POINTS = 25  # A straight line needs two; a hover needs one nearby.
SCALE = "layout.yaxis.type"
HEADROOM = 1.1  # A limit a little beyond the last point is still drawn.
# The words of lines stand outside of the plot, where no line and no point is: beside it and above it.
BESIDE_PIXELS, BESIDE_CHARACTERS = 190, 28
ABOVE = 0.13  # of the plot's height, between it and the legend: two lines of words, and a third above them
ABOVE_PIXELS = 30  # Where the third begins.
APART = 0.075  # of the axis: levels closer than two lines of words share theirs
LIMIT_LINE = {"color": "--dim", "width": 1, "dash": "4px,4px"}
CLAIM_LINE = {"color": "--claim", "width": 1.5, "dash": "9px,4px"}
OF_CLAIMS = " The box C1 is 2 ms within 20 miles, the line C2 is 150 miles: what the claims are about."


def latency_of(c: CellResult, quantile: str) -> Estimate:
    """The response time of a cell at "p50", "p99" or "p99.9"."""
    estimate: Estimate = getattr(c, FIELDS[quantile])
    return estimate


def distance_plot(analysis: Analysis, distance: DistanceTable) -> Plot:
    """The picture of the question."""
    cells = analysis.cells
    keys = workload_keys(cells)
    data: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for workload, key in keys.items():
        group = sorted((c for c in cells if workload_of(c) == workload), key=lambda c: (rank(c.protocol), c.miles))
        for quantile in QUANTILES:
            meta = {"workload": key, "quantile": quantile}
            data += measured(group, quantile, meta)
            data += fitted(analysis.fits, group, quantile, meta, distance)
            marks += [*limits(group, quantile, meta, analysis), *unknowns(group, quantile, meta)]
        data += floors(group, {"workload": key})
    return Plot(
        id="distance",
        title="Write latency against miles",
        caption=caption(cells),
        note="Response times from the intended instant; bars are intervals. A hollow mark is a cell no verdict may rest on, "
        "a ? one whose quantile is unknown: point at it for the reason. The line is the fit a + k x round trip, drawn over "
        "the distances it was fitted over; dots are the floor, what a bare echo and flush take in this lab at the median. "
        "Products state their limits for the round trip or the distance alone; here a whole write is held against them."
        f"{OF_CLAIMS if analysis.claims else ''}",
        data=data,
        layout=layout_of(
            {"title": {"text": "miles"}, "rangemode": "tozero"},
            {**log_axis("response time, ms"), "type": "linear", "tickmode": "auto", "rangemode": "tozero"},
            height=600,
            margin={"l": 64, "r": BESIDE_PIXELS, "t": 16, "b": 56},
            legend={**LEGEND, "y": 1 + ABOVE},
        ),
        choices=[
            choose_workload(cells),
            Choice("quantile", "Quantile", False, [Option(q, q, q == "p50") for q in QUANTILES]),
            choose_protocols(cells),
            Choice("layer", "Lines", True, [
                Option("fit", "fit a + k x RTT", True), Option("floor", "floor", True),
                Option("limit", "product limits", True), Option("claim", "verdict lines", True),
            ]),
            Choice(SCALE, "Scale", False, [Option("linear", "linear", True), Option("log", "log", False)]),
        ],
        marks=marks,
    )  # fmt: skip


def by_protocol(group: Sequence[CellResult]) -> Iterator[tuple[str, list[CellResult]]]:
    """The cells of a workload under each protocol."""
    for protocol in dict.fromkeys(c.protocol for c in group):
        yield protocol, [c for c in group if c.protocol == protocol]


def measured(group: Sequence[CellResult], quantile: str, meta: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The points, with their intervals."""
    for protocol, cells in by_protocol(group):
        known = [(c, latency_of(c, quantile)) for c in cells if latency_of(c, quantile).value is not None]
        if not known:
            continue
        look = look_of(protocol)
        yield {
            "type": "scatter", "mode": "markers", "name": protocol_words(protocol), "legendgroup": protocol,
            "meta": {**meta, "protocol": protocol},
            "x": [c.miles for c, _ in known], "y": [ms(e.value or 0) for _, e in known],
            "error_y": {**bars([e for _, e in known]), "color": look.colour},
            "marker": {
                "color": look.colour, "size": 9, "line": {"width": 1.5, "color": look.colour},
                "symbol": [look.symbol + ("-open" if c.latency_doubts else "") for c, _ in known],
            },
            "hovertext": [point_words(c, quantile) for c, _ in known], "hoverinfo": "text", "cliponaxis": False,
        }  # fmt: skip


def point_words(c: CellResult, quantile: str) -> str:
    """What a point says when it is pointed at."""
    lines = [place_words(c), f"{quantile} {estimate_text(latency_of(c, quantile))}", f"floor {estimate_text(c.floor_ns)}"]
    lines.append(f"round trip p50 {estimate_text(c.rtt_ns_p50)}")
    lines += [f"No verdict rests on it: {plain(str(reason))}" for reason in c.latency_doubts]
    lines += [plain(str(warning)) for warning in c.warnings]
    return "<br>".join(lines)


def unknowns(group: Sequence[CellResult], quantile: str, meta: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A question mark on the axis where a quantile is unknown, and why."""
    for c in group:
        if latency_of(c, quantile).value is None:
            yield {"meta": {**meta, "protocol": c.protocol}, "annotation": {
                "x": c.miles, "yref": "paper", "y": 0, "text": "?", "showarrow": False, "yanchor": "bottom",
                "font": {"size": 16, "color": look_of(c.protocol).colour},
                "hovertext": f"{place_words(c)}<br>{quantile} {estimate_text(latency_of(c, quantile))}",
            }}  # fmt: skip


def fitted(
    fits: Sequence[Fit], group: Sequence[CellResult], quantile: str, meta: dict[str, str], distance: DistanceTable
) -> Iterator[dict[str, Any]]:
    """The lines a + k * RTT of a workload, over the miles they were fitted over."""
    cell = group[0]
    for fit in fits:
        if (fit.name, fit.queue_depth, fit.quantile) != (cell.name, cell.queue_depth, QUANTILES[quantile]):
            continue
        if fit.k.value is None or fit.a_ns.value is None:
            continue
        step = (fit.rtt_ns_high - fit.rtt_ns_low) / (FIT_POINTS - 1)
        rtts = [fit.rtt_ns_low + index * step for index in range(FIT_POINTS)]
        words = (
            f"<b>{protocol_words(fit.protocol)}: {quantile} = a + k x RTT</b><br>k {estimate_text(fit.k, 1.0, 'round trips')}<br>"
            f"a {estimate_text(fit.a_ns, NS_PER_US, 'us')}"
        )
        look = look_of(fit.protocol)
        yield {
            "type": "scatter", "mode": "lines", "name": f"fit of {plain(fit.protocol)}", "legendgroup": fit.protocol,
            "showlegend": False, "meta": {**meta, "protocol": fit.protocol, "layer": "fit"},
            "x": [round(max(miles_of(r, distance.route_factor, distance.equipment_ns), 0.0), 3) for r in rtts],
            "y": [ms(fit.a_ns.value + fit.k.value * r) for r in rtts],
            "line": {"color": look.colour, "width": 1.8, "dash": look.dash}, "hovertext": words, "hoverinfo": "text",
        }  # fmt: skip


def floors(group: Sequence[CellResult], meta: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a bare echo and flush take, per protocol."""
    for protocol, cells in by_protocol(group):
        known = [c for c in cells if c.floor_ns.value is not None]
        if known:
            yield {
                "type": "scatter", "mode": "lines+markers", "name": f"floor of {plain(protocol)}",
                "meta": {**meta, "protocol": protocol, "layer": "floor"},
                "x": [c.miles for c in known], "y": [ms(c.floor_ns.value or 0) for c in known],
                "line": {"color": look_of(protocol).colour, "width": 1, "dash": "dot"},
                "marker": {"color": look_of(protocol).colour, "size": 4, "symbol": "circle"},
                "hovertext": [
                    f"{place_words(c)}<br>floor at the median {estimate_text(c.floor_ns)}<br>{plain(c.floor_text)}" for c in known
                ],
                "hoverinfo": "text",
            }  # fmt: skip


def limits(
    group: Sequence[CellResult], quantile: str, meta: dict[str, str], analysis: Analysis
) -> Iterator[dict[str, Any]]:
    """Where products, the run's own budgets and the claims draw the line, as far as it lies within the picture."""
    ends = [e.high or e.value for c in group if (e := latency_of(c, quantile)).value is not None]
    top_ns = max((end for end in ends if end is not None), default=0.0)
    far = HEADROOM * max(c.miles for c in group)
    yield {"meta": meta, "layout": {"yaxis": {"autorangeoptions": {"include": [ms(HEADROOM * top_ns)]}}}}
    level = [limit for limit in PRODUCT_LIMITS if limit.rtt_ns is not None and limit.rtt_ns <= HEADROOM * top_ns]
    yield from levels({**meta, "layer": "limit"}, level, HEADROOM * top_ns)
    for limit in PRODUCT_LIMITS:
        if limit.miles is not None and limit.miles <= far:
            yield from upright({**meta, "layer": "limit"}, limit.miles, limit.name.replace(": ", ":<br>"), LIMIT_LINE)
    for budget in analysis.budgets:
        if budget.quantile == QUANTILES[quantile] and budget.limit_ns <= HEADROOM * top_ns:
            yield {"meta": {**meta, "layer": "claim"}, "shape": {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": ms(budget.limit_ns), "y1": ms(budget.limit_ns),
                "line": CLAIM_LINE, "layer": "below",
                "label": {"text": budget.id, "font": {"size": 11, "color": "--claim"}, "textposition": "start",
                          "yanchor": "bottom"},
            }}  # fmt: skip
    if not analysis.claims:
        return
    if far >= C1_MILES and top_ns:
        box = {"text": "C1", "font": {"size": 13, "color": "--claim"}, "textposition": "top left", "padding": 5}
        least_ns = min((e.value for c in group for e in (c.response_ns_p50, c.floor_ns) if e.value), default=top_ns)
        for scale, bottom in (("linear", 0.0), ("log", ms(least_ns / 2))):  # A log axis has no 0.
            yield {"meta": {**meta, "layer": "claim", SCALE: scale}, "shape": {
                "type": "rect", "x0": 0, "x1": C1_MILES, "y0": bottom, "y1": ms(C1_BUDGET_NS), "line": CLAIM_LINE,
                "layer": "below", "fillcolor": "--claim/0.07", "label": box,
            }}  # fmt: skip
    if far >= C2_MILES:
        words = f"C2: {C2_MILES:g} miles"
        yield from upright({**meta, "layer": "claim"}, C2_MILES, words, CLAIM_LINE, "C2", ABOVE_PIXELS)


def levels(meta: dict[str, str], limits: Sequence[ProductLimit], top_ns: float) -> Iterator[dict[str, Any]]:
    """A line at each round trip, its words beside the plot. On a linear axis those that are close together share theirs."""
    groups: list[list[ProductLimit]] = []
    for limit in sorted(limits, key=rtt_of):
        y = ms(rtt_of(limit))
        yield {"meta": meta, "shape": {
            "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": LIMIT_LINE, "layer": "below",
        }}  # fmt: skip
        yield beside({**meta, SCALE: "log"}, [limit], math.log10(y))
        if groups and rtt_of(limit) - rtt_of(groups[-1][0]) < APART * top_ns * len(groups[-1]):
            groups[-1].append(limit)
        else:
            groups.append([limit])
    for group in groups:
        yield beside({**meta, SCALE: "linear"}, group, sum(ms(rtt_of(limit)) for limit in group) / len(group))


def rtt_of(limit: ProductLimit) -> int:
    """The round trip of a limit that is one."""
    assert limit.rtt_ns is not None
    return limit.rtt_ns


def beside(meta: dict[str, str], limits: Sequence[ProductLimit], y: float) -> dict[str, Any]:
    """The words of levels, the highest first; where the page is narrow only the numbers. On a log axis `y` is a logarithm."""
    names = [limit.name for limit in reversed(limits)]
    return {"meta": meta, "short": "<br>".join(name.partition(":")[0] for name in names), "annotation": {
        "xref": "paper", "x": 1, "xanchor": "left", "xshift": 4, "y": y, "yanchor": "middle", "align": "left", "showarrow": False,
        "text": "<br>".join(line for name in names for line in wrap(name, BESIDE_CHARACTERS)),
        "font": {"size": 11, "color": LIMIT_LINE["color"]},
    }}  # fmt: skip


def upright(
    meta: dict[str, str], miles: float, words: str, line: dict[str, Any], short: str | None = None, pixels: int = 0
) -> Iterator[dict[str, Any]]:
    """A line at a distance, its words so many pixels above the plot."""
    yield {"meta": meta, "shape": {
        "type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": miles, "x1": miles, "line": line, "layer": "below",
    }}  # fmt: skip
    yield {"meta": meta, "short": short or f"{miles:g}", "annotation": {
        "x": miles, "xanchor": "center", "yref": "paper", "y": 1, "yanchor": "bottom", "yshift": pixels, "text": words,
        "showarrow": False, "font": {"size": 11, "color": line["color"]},
    }}  # fmt: skip


def caption(cells: Sequence[CellResult]) -> str:
    """The nearest and the farthest median under the strictest protocol."""
    known = [c for c in cells if c.response_ns_p50.value is not None]
    if not known:
        return "No cell has a median: there is nothing to draw."
    strictest = max((c.protocol for c in known), key=rank)
    mine = [c for c in known if c.protocol == strictest and c.name == known[0].name] or known
    near, far = min(mine, key=lambda c: c.miles), max(mine, key=lambda c: c.miles)
    words = [f"{format_time(c.response_ns_p50.value or 0)} at {miles_text(c.miles)} miles" for c in (near, far)]
    return f"Median latency of {near.name} under {near.protocol}: {' and '.join(dict.fromkeys(words))}."
