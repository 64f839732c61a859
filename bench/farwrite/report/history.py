"""How a metric went from run to run, as a terminal shows it: each series as a table, a picture and sentences.

Where there are more series than one wants to read, each is one line and the way to the others is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from ..analysis.figure import Label, label_text
from ..base.units import NS_PER_MS, NS_PER_S, NS_PER_US
from ..compare.change_points import LOOKBACK, SEGMENT_MIN, SERIES_MIN, WINDOW, Change
from ..compare.history import History, Point, Series, is_sound, moment, unlike
from .chart import spaced
from .digits import Digits, grouped, places_for
from .page import STYLE, Footnotes, Form, Page, add_row, cell, table_of

if TYPE_CHECKING:
    from rich.console import Console

SERIES_DRAWN = 4  # More pictures than that are not looked at.
ROWS_SHOWN = 20  # Of a table, unless --last asks for more.
HEIGHT = 14
FRAME_COLUMNS = 12
SOUND, WITHHELD, ROSE, FELL, LEVEL = "●", "○", "▲", "▼", "┈"
BETTER, WORSE, NEITHER = STYLE["pass"], STYLE["fail"], "bold"


class Scale(NamedTuple):
    """Base units of what a column is shown in, and its name."""

    of: float
    unit: str


def show(history: History, console: Console, last: int | None) -> None:
    """Print all series."""
    page = Page(console)
    count = sum(len(series.points) for series in history.series)
    title = Text(history.metric, style="bold").append(f": {history.meaning}" if history.meaning else "", style="")
    page.prose(title)
    groups: dict[str, list[Series]] = {}
    for series in history.series:
        groups.setdefault(repr((series.kind, sorted(series.identity.items()))), []).append(series)
    if len(groups) > 1:
        fields = ", ".join(history.unlike) or "the tool that measured"
        page.prose(f"{len(groups)} kinds of runs, kept apart because they differ in {fields}.")
    for group in groups.values():
        page.heading(f"Runs of {kind_text(group[0], history.unlike)}")
        if len(history.series) > SERIES_DRAWN:
            show_overview(page, group)
        else:
            for series in group:
                show_series(page, series, last)
    if len(history.series) > SERIES_DRAWN:
        page.prose(
            f"\n{len(history.series)} series of {count} points in all: up to {SERIES_DRAWN} are drawn. Choose by label, such as"
        )
        page.prose(example(history.series), indent=2)
    shown = [change for series in history.series for change in series.changes if change.index >= first_shown(series, last)]
    if not all(change.final for change in shown):
        page.prose(
            "\nprovisional: runs to come may still move it or take it back. "
            f"After {WINDOW} to {WINDOW + LOOKBACK} runs it stands.", style="dim",
        )  # fmt: skip


def kind_text(series: Series, unlike: Sequence[str]) -> str:
    """What tells these runs from others; where nothing does, what a reader wants to know."""
    fields = list(unlike) or [field for field in ("profile", "link", "host") if field in series.identity]
    words = " · ".join(f"{field} {series.identity.get(field) or '–'}" for field in fields)  # noqa: RUF001
    return f"{series.kind}: {words}" if series.kind != "farwrite" else words or series.kind


def example(series: Sequence[Series]) -> str:
    """Words that would choose fewer series: of each label in which they differ, the last one's."""
    differing = [key for key in series[0].labels if len({str(one.labels.get(key)) for one in series}) > 1]
    words = [f"--where {key}={value_text(series[-1].labels[key])}" for key in differing if key in series[-1].labels]
    fields = unlike([one.identity for one in series])
    words = words or [f'--where "{fields[0]}={series[-1].identity.get(fields[0], "")}"'] if fields else words
    return " ".join(words)


def value_text(value: Label) -> str:
    text = value if isinstance(value, str) else f"{value:g}"
    return f'"{text}"' if " " in text else text


# One series


def show_series(page: Page, series: Series, last: int | None) -> None:
    """Table, picture, sentences."""
    first = first_shown(series, last)
    scale = scale_of(series)
    page.prose(f"\n{series.name or 'all'}", style="bold")
    show_table(page, series, max(first, 0 if last else len(series.points) - ROWS_SHOWN), scale)
    drawn = [point for point in series.points[first:] if known(point)]
    if len(drawn) > 1:
        page.print(coloured(picture(series, first, page.width - 1, scale), series))
    show_changes(page, series, first, scale)


def first_shown(series: Series, last: int | None) -> int:
    return max(len(series.points) - last, 0) if last else 0


def show_table(page: Page, series: Series, first: int, scale: Scale) -> None:
    """Run by run."""
    points = series.points[first:]
    changes = {change.index: change for change in series.changes}
    notes = Footnotes()
    digits = digits_of(points, series, scale)

    def make(form: Form) -> Table:
        table = table_of(form, "run", "started (UTC)", scale.unit or "value", text_columns=2)
        for index, point in enumerate(points, first):
            change = changes.get(index)
            mark = sign(change) if change else "○" if point.withheld else " "
            run = Text(f"{mark} ", style=style(series, change) if change else "").append(point.run, style="")
            run.append(notes.mark(remarks(point)))
            add_row(table, run, started(point), cell(point.estimate, digits, form, notes))
        return table

    page.table(make)
    page.footnotes(notes)
    if first:
        page.prose(f"{first} earlier runs: --last {len(series.points)} lists them, --json has all.", style="dim")


def remarks(point: Point) -> list[str]:
    """What a reader must know of a run."""
    states = [f"baseline {name}" for name in point.baselines]
    states += ["interrupted"] if point.interrupted else []
    return states + [f"takes no part in finding changes: {reason}" for reason in point.withheld]


def show_changes(page: Page, series: Series, first: int, scale: Scale) -> None:
    """A sentence for every change; or why there can be none."""
    sound = sum(is_sound(point) for point in series.points)
    if sound < SERIES_MIN:
        page.prose(
            f"Changes are looked for from {SERIES_MIN} runs on, {SEGMENT_MIN} before and {SEGMENT_MIN} after; "
            f"this series has {sound}.", style="dim",
        )  # fmt: skip
    elif not series.changes:
        page.prose(f"No change of level in {sound} runs.", style="dim")
    for change in series.changes:
        if change.index >= first:
            clauses = sentence(series, change, scale)
            lines = ", ".join(clauses) if len(", ".join(clauses)) < page.width - 2 else ",\n".join(clauses)
            page.item(sign(change), lines, style=style(series, change))
    earlier = sum(change.index < first for change in series.changes)
    if earlier:
        page.prose(f"{earlier} earlier change{'s' if earlier > 1 else ''} not shown.", style="dim")


def sentence(series: Series, change: Change, scale: Scale) -> tuple[str, str]:
    """("since run X (2026-11-20): 0.487 -> 0.531 ms", "+9.0 % [+8.1, +9.9], p = 0.0004, worse")."""
    point = series.points[change.index]
    digits = Digits.of([change.before, change.after], scale.of)
    levels = f"{digits.number(change.before.value)} -> {digits.number(change.after.value)} {scale.unit}".rstrip()
    judgement = f", {judged(series, change)}" if judged(series, change) else ""
    return (
        f"since run {point.run} ({started(point)[:10]}): {levels}",
        f"{extent(change, scale)}, p {p_text(change.p)}{judgement}{'' if change.final else ' (provisional)'}",
    )


def extent(change: Change, scale: Scale) -> str:
    """ "+9.0 % [+8.1, +9.9]"; in the unit where there is no ratio."""
    value, low, high = (number or 0.0 for number in (change.change.value, change.change.low, change.change.high))
    if change.relative:
        return f"{100 * value:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"
    sized = Digits.of([change.change], scale.of)
    ends = [("+" if number > 0 else "") + sized.number(number) for number in (value, low, high)]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"


def p_text(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.1g}"


def judged(series: Series, change: Change) -> str:
    """Whether the change is for the better, where a direction is."""
    if not series.better:
        return ""
    rose = (change.change.value or 0.0) > 0
    return "better" if rose == (series.better == "more") else "worse"


def sign(change: Change) -> str:
    return ROSE if (change.change.value or 0.0) > 0 else FELL


def style(series: Series, change: Change) -> str:
    return {"better": BETTER, "worse": WORSE, "": NEITHER}[judged(series, change)]


def started(point: Point) -> str:
    """ "2026-11-20 14:03"."""
    if not point.started_utc:
        return "–"  # noqa: RUF001
    return f"{moment(point.started_utc, 0):%Y-%m-%d %H:%M}"


def known(point: Point) -> bool:
    return point.estimate.value is not None and math.isfinite(point.estimate.value)


# The picture


def picture(series: Series, first: int, width: int, scale: Scale) -> str:
    """The runs in order, not in time: a week without runs is no news. The levels before and after each change as lines."""
    import plotext  # 0.3 s to import, and needed only here.

    points = [(index, point) for index, point in enumerate(series.points[first:], first) if known(point)]
    values = [(point.estimate.value or 0.0) / scale.of for _, point in points]
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    left, right = first - 1, len(series.points)
    figure = plotext.figure
    plotext.terminal.limit(False, False)  # The console's width counts, not the terminal's.
    figure.clear()
    figure.plot_size(width, HEIGHT)
    figure.theme("colorless")
    for begin, end, level in levels(series, first):
        figure.draw(figure.signal([begin, end - 1], [level / scale.of] * 2, marker=LEVEL).lines(end - 1 > begin))
    changes = {change.index: sign(change) for change in series.changes}
    for mark in (WITHHELD, SOUND, ROSE, FELL):
        chosen = [
            (index, value) for (index, point), value in zip(points, values, strict=True)
            if changes.get(index, WITHHELD if not is_sound(point) else SOUND) == mark
        ]  # fmt: skip
        if chosen:
            figure.draw(figure.signal([index for index, _ in chosen], [value for _, value in chosen], marker=mark))
    figure.ruler("x").lim(left, right)
    ticks = spaced(sorted({points[0][0], *(i for i in changes if i >= first), points[-1][0]}), 12 * (right - left) / width)
    figure.ruler("x").ticks(ticks, [started(series.points[int(tick)])[5:10] for tick in ticks])
    figure.ruler("y").lim(low - margin, high + margin)
    heights = [low - margin + share * (high - low + 2 * margin) for share in (0.05, 0.35, 0.65, 0.95)]
    places = max(places_for(heights[1] - heights[0], 2), 0)
    figure.ruler("y").ticks(heights, [grouped(height, places) for height in heights])
    text = figure.build().string(colorless=True)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.splitlines())


def levels(series: Series, first: int) -> list[tuple[int, int, float]]:
    """(first run, run after the last, level) of every stretch between changes; none where nothing changed."""
    changes = series.changes
    edges = [0, *(change.index for change in changes), len(series.points)]
    values = [change.before for change in changes[:1]] + [change.after for change in changes]
    return [
        (max(begin, first), end, level.value or 0.0)
        for begin, end, level in zip(edges, edges[1:], values, strict=False)
        if end > max(begin, first)
    ]


def coloured(text: str, series: Series) -> Text:
    """The picture with its marks in colour; the marks alone tell the same."""
    colours = {sign(change): style(series, change) for change in series.changes}
    drawn = Text(no_wrap=True)
    for character in text:
        drawn.append(character, {LEVEL: "dim", SOUND: "color(33)", **colours}.get(character))
    return drawn


# Many series


def show_overview(page: Page, group: Sequence[Series]) -> None:
    """A line a series: how many runs, the last value, and the last change."""
    shared = {key: value for key, value in group[0].labels.items() if all(one.labels.get(key) == value for one in group)}
    if shared and len(group) > 1:
        page.prose("all: " + ", ".join(label_text(key, value) for key, value in shared.items()), style="dim")
    notes = Footnotes()
    scale = scale_of(*group)
    lasts = [next((p for p in reversed(one.points) if known(p)), one.points[-1]) for one in group]
    digits = digits_of(lasts, group[0], scale)

    def make(form: Form) -> Table:
        unit = f" {scale.unit}" if scale.unit else ""
        table = table_of(form, "", "last change", "runs", f"last{unit}", text_columns=2)
        for one, last in zip(group, lasts, strict=True):
            own = {key: value for key, value in one.labels.items() if key not in shared or len(group) == 1}
            change = one.changes[-1] if one.changes else None
            brief = Text("")
            if change:
                size = extent(change, scale).partition(" [")[0]
                brief = Text(f"{sign(change)} {size} since {started(one.points[change.index])[:10]}", style(one, change))
            name = ", ".join(label_text(key, value) for key, value in own.items()) or "all"
            add_row(table, name, brief, str(len(one.points)), cell(last.estimate, digits, form, notes))
        return table

    page.table(make)
    page.footnotes(notes)


# Units


def digits_of(points: Sequence[Point], series: Series, scale: Scale) -> Digits:
    """What is counted has no decimals."""
    return Digits.of([point.estimate for point in points], scale.of, places_max=0 if series.unit == "count" else 3)


def scale_of(*group: Series) -> Scale:
    """In which unit these values read well."""
    sizes = [abs(point.estimate.value or 0.0) for one in group for point in one.points if known(point)]
    largest, unit = max(sizes, default=0.0), group[0].unit
    steps = {
        "ns": (Scale(NS_PER_S, "s"), Scale(NS_PER_MS, "ms"), Scale(NS_PER_US, "us"), Scale(1, "ns")),
        "bytes": (Scale(1 << 30, "GiB"), Scale(1 << 20, "MiB"), Scale(1 << 10, "KiB"), Scale(1, "B")),
        "bytes_per_s": (Scale(1e9, "GB/s"), Scale(1e6, "MB/s"), Scale(1e3, "kB/s"), Scale(1, "B/s")),
        "per_s": (Scale(1, "/s"),),
        "miles": (Scale(1, "miles"),),
    }.get(unit, (Scale(1, ""),))
    # Milliseconds from a tenth on: latencies of one report are compared in one unit.
    return next((scale for scale in steps if largest >= scale.of * (0.1 if scale.unit == "ms" else 1)), steps[-1])
