"""Proof of link: the round trip that was asked and the one delivered, by distance and round by round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from ...analysis.result import Analysis, CellResult, Estimate
from ...base.units import NS_PER_US, format_time
from ...recording import Recording
from ...workload.link_spec import OFF_NS_MAX, OFF_SHARE_MAX, tolerance_ns
from ..tables import merged, miles_text
from .plot import Choice, Option, Plot, bars, layout_of, ms, place_words, plain, told
from .seen import decode_all

STATUS = {"ok": ("circle", "--good", "good"), "void": ("x", "--bad", "void"), "failed": ("star", "--bad", "failed")}


def link_plots(recording: Recording, analysis: Analysis) -> list[Plot]:
    """By distance, then round by round."""
    return [delivered_plot(analysis.cells), deviation_plot(recording, analysis.cells)]


# By distance


def delivered_plot(cells: Sequence[CellResult]) -> Plot:
    """What was delivered over what was asked, over all cells of a distance: least, median and greatest p99."""
    known = [c for c in cells if c.rtt_ns_p50.value is not None]
    off = [abs((c.rtt_ns_p50.value or 0) - c.asked_rtt_ns) for c in known]
    places = [[c for c in known if c.miles == miles] for miles in sorted({c.miles for c in known})]
    asked = [median(c.asked_rtt_ns for c in place) for place in places]
    reach = [
        Estimate(
            value=merged(median, [c.rtt_ns_p50 for c in place]),
            low=merged(min, [c.rtt_ns_min for c in place]),
            high=merged(max, [c.rtt_ns_p99 for c in place]),
        )
        for place in places
    ]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": "as asked", "x": [ms(ns) for ns in asked],
            "y": [ms(ns) for ns in asked], "line": {"color": "--dim", "width": 1, "dash": "dash"}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers+text", "name": "delivered: median, from least to p99",
            "x": [ms(ns) for ns in asked], "y": [ms(e.value or 0) for e in reach],
            "error_y": {**bars(reach), "color": "--link"}, "marker": {"color": "--link", "size": 8},
            "text": [f" {miles_text(place[0].miles)} mi " for place in places],
            "textposition": ["middle right", *["top left"] * len(places)][: len(places)],
            "textfont": {"size": 11, "color": "--dim"},
            "hovertext": ["<br>".join([f"asked {ms(ns):.3f} ms", *(f"{place_words(c)}: {told(c.rtt_ns_p50)}" for c in place)])
                          for ns, place in zip(asked, places, strict=True)],
            "hoverinfo": "text",
        },
    ]  # fmt: skip
    return Plot(
        id="link",
        title="Round trip: delivered against asked",
        said=f"Over {len(known)} cells the delivered round trip was at most {format_time(max(off))} from the one asked, at the "
        "median." if off else "No round trip was surveyed.",
        note="A 64-byte echo before and after every round, over all cells of a distance: the mark is the median, the bar reaches "
        "from the least to the greatest p99. At 0 miles what is asked is the lab's own round trip.",
        data=data,
        layout=layout_of({"title": {"text": "asked round trip, ms"}, "rangemode": "tozero"},
                         {"title": {"text": "delivered, ms"}, "rangemode": "tozero"}, height=420),
    )  # fmt: skip


# Round by round


def deviation_plot(recording: Recording, cells: Sequence[CellResult]) -> Plot:
    """How far each survey of each round was from what was asked; void rounds are crosses."""
    order = sorted({c.miles for c in cells})
    bad = [item for item in recording.rounds if item.status != "ok"]
    points = points_of(recording, {c.cell: c for c in cells}, order)
    data = [
        {
            "type": "scatter", "mode": "markers", "name": f"{word}, {when}", "meta": {"status": status, "when": when},
            "x": [point.x for point in mine], "y": [point.off_us for point in mine],
            "marker": {"color": colour, "symbol": symbol + ("-open" if when == "before" else ""),
                       "size": 6 if status == "ok" else 10, "line": {"width": 1.2, "color": colour}},
            "hovertext": [point.words for point in mine], "hoverinfo": "text",
        }
        for status, (symbol, colour, word) in STATUS.items()
        for when in ("before", "after")
        if (mine := [point for point in points if (point.status, point.when) == (status, when)])
    ]  # fmt: skip
    marks = [band(index, [c.asked_rtt_ns for c in cells if c.miles == miles]) for index, miles in enumerate(order)]
    return Plot(
        id="deviation",
        title="Round trip: off from asked, round by round",
        said=f"{len(recording.rounds)} rounds were surveyed before and after; {len(bad)} of them were void or failed.",
        note=f"Delivered less asked, at the median of each survey. Grey is what a round may be off: {OFF_SHARE_MAX:.0%} or "
        f"{OFF_NS_MAX / NS_PER_US:g} us, whichever is more. Void rounds (crosses) were measured again and count in no "
        "number; a round may also be void for what the machine did. Rounds of a distance stand side by side, in order.",
        data=data,
        layout=layout_of(
            {"title": {"text": "miles"}, "tickvals": list(range(len(order))), "ticktext": [miles_text(m) for m in order],
             "range": [-0.5, max(len(order), 1) - 0.5], "showgrid": False, "zeroline": False},
            {"title": {"text": "delivered less asked, us"}}, height=420,
        ),
        choices=[
            Choice("status", "Rounds", True, [
                Option(s, STATUS[s][2], True) for s in STATUS if any(item.status == s for item in recording.rounds)
            ]),
            Choice("when", "Survey", True, [Option(w, f"{w} the round", True) for w in ("before", "after")]),
        ],
        marks=marks,
    )  # fmt: skip


class Point(NamedTuple):
    """One survey of one round."""

    status: str
    when: str
    x: float
    off_us: float
    words: str


def points_of(recording: Recording, results: dict[str, CellResult], order: Sequence[float]) -> list[Point]:
    """The surveys before and after each round, side by side within their distance."""
    surveys = [
        (item, when, text)
        for item in recording.rounds if item.cell in results
        for when, text in (("before", item.survey_before), ("after", item.survey_after)) if text
    ]  # fmt: skip
    count = 1 + max((item.index for item in recording.rounds), default=0)
    found = []
    for (item, when, _), sample in zip(surveys, decode_all([text for *_, text in surveys]), strict=True):
        c = results[item.cell]
        x = order.index(c.miles) + 0.7 * ((item.index + 0.5) / count - 0.5) + (0.02 if when == "after" else -0.02)
        off_us = (sample.quantile(0.5) - c.asked_rtt_ns) / NS_PER_US
        words = [place_words(c), f"round {item.index + 1}, attempt {item.attempt + 1}: {item.status}",
                 f"{when} the round {off_us:+.1f} us off", *map(plain, item.reasons)]  # fmt: skip
        if sample.slot.size:
            found.append(Point(item.status, when, round(x, 4), round(off_us, 2), "<br>".join(words)))
    return found


def band(place: int, asked_ns: Sequence[float]) -> dict[str, Any]:
    """What a round at a distance may be off."""
    allowed_us = tolerance_ns(max(asked_ns)) / NS_PER_US
    return {"meta": {}, "shape": {
        "type": "rect", "x0": place - 0.45, "x1": place + 0.45, "y0": -allowed_us, "y1": allowed_us,
        "fillcolor": "--dim/0.12", "line": {"width": 0}, "layer": "below",
    }}  # fmt: skip
