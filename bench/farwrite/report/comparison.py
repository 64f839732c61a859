"""A comparison in the terminal: one sentence, what changed, then every figure beside its interval.

The worst comes first: in the list of changes, and among the sections of a chapter. Inside a section the rows follow distance,
so that the eye can run along it. All ratios of a comparison are drawn on one axis; figures with a unit have one a chapter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from ..analysis.between_runs import RUNS_MIN
from ..analysis.change import CONFIDENCE, UNCHANGED, Comparison, Row, Verdict, worst_first
from ..analysis.figure import Label, label_text
from ..analysis.result import Estimate
from ..base.units import NS_PER_MS, NS_PER_S, NS_PER_US
from . import forest
from .digits import UNKNOWN, Digits, grouped
from .page import STYLE, Footnotes, Page

if TYPE_CHECKING:
    from rich.console import Console

PERCENT = 0.01
FAR = 9.995  # A change greater than tenfold is told as more than that, not with five digits.
FOREST_WIDTH_MIN, FOREST_WIDTH_MAX = 13, 49
CHANGES_IN_MARGINS_MAX = 6  # So far an axis stretches to show what changed; a change beyond ends in an arrow.
INDENT = 2

MARK: dict[Verdict, str] = {
    "slower": "✘ slower", "worse": "✘ worse", "higher": "↑ higher", "lower": "↓ lower", "faster": "✔ faster",
    "better": "✔ better", "differs": "≠ differs", "same": "= same", "alike": "≈ alike", "unresolved": "? unresolved",
}  # fmt: skip
LOOK: dict[Verdict, str] = {
    "slower": STYLE["fail"], "worse": STYLE["fail"], "higher": "bold", "lower": "bold", "faster": STYLE["pass"],
    "better": STYLE["pass"], "differs": "bold", "same": "", "alike": "", "unresolved": STYLE["unknown"],
}  # fmt: skip
BAD: tuple[Verdict, ...] = ("slower", "worse")


class Chapter(NamedTuple):
    """Figures that share a unit and an axis."""

    title: str
    unit: str  # as headings say it
    scale: float  # base units in one of these


RESPONSE = Chapter("Response time, from the intended instant", "ms", NS_PER_MS)
PARTS = Chapter("Response time of each operation of each job", "ms", NS_PER_MS)
PER_WRITE = Chapter("Flushes per write, and bytes on the wire per byte written", "", 1.0)
TRIPS = Chapter("k: round trips a write takes", "", 1.0)
REST = Chapter("a: what a write takes apart from distance", "us", NS_PER_US)
MILES = Chapter("Greatest miles within a budget", "miles", 1.0)
CHAPTERS = {
    "response_p50": RESPONSE, "response_p99": RESPONSE, "response_p999": RESPONSE,
    "throughput": Chapter("Throughput", "/s", 1.0),
    "cpu_per_write": Chapter("Processor time of both replicas per write", "us", NS_PER_US),
    "part_response_p50": PARTS, "part_response_p99": PARTS,
    "part_throughput": Chapter("Throughput of each operation", "/s", 1.0),
    "lag_p99": Chapter("Lag of the far site under protocol A", "ms", NS_PER_MS),
    "k_p50": TRIPS, "k_p99": TRIPS, "a_p50": REST, "a_p99": REST,
    "greatest_miles_p50": MILES, "greatest_miles_p99": MILES,
    "flushes_per_write": PER_WRITE, "far_flushes_per_write": PER_WRITE, "wire_bytes_per_user_byte": PER_WRITE,
    "rtt_p50": Chapter("Delivered round trip: the link itself, for control", "ms", NS_PER_MS),
}  # fmt: skip
ORDER = {chapter: place for place, chapter in enumerate(dict.fromkeys(CHAPTERS.values()))}
UNITS = {"per_s": "/s", "bytes_per_s": "B/s", "bytes": "B", "miles": "miles"}


def show_comparison(comparison: Comparison, console: Console, brief: bool = False) -> None:
    """Print it; `brief` leaves out what did not change."""
    page = Page(console)
    show_head(page, comparison)
    show_changes(page, comparison.rows)
    limit = limit_of([row for row in comparison.rows if row.relative], comparison.margin_ratio)
    rows = [row for row in comparison.rows if is_change(row)] if brief else comparison.rows
    for chapter, members in chapters_of(rows, brief):
        show_chapter(page, chapter, members, limit)
    show_counts(page, rows)
    show_method(page, comparison)


# The head


def show_head(page: Page, comparison: Comparison) -> None:
    """What was compared, the outcome in a sentence, and what makes it doubtful."""
    hang(page, Text("base", style="dim"), ", ".join(comparison.base))
    hang(page, Text("cand", style="dim"), ", ".join(comparison.cand))
    page.console.print()
    page.prose(summary(comparison.rows), style="bold")
    for text in comparison.warnings:
        hang(page, Text("⚠"), text)


def summary(rows: Sequence[Row]) -> str:
    """The outcome: "3 slower, 1 faster, 40 same, 12 unresolved of 56 figures; the worst: …"."""
    tally = Counter(row.verdict for row in rows)
    counts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in MARK if tally[verdict])
    changes = [row for row in rows if is_change(row)]
    sentence = f"{'' if changes else 'No change found: '}{counts or 'none'} of {len(rows)} figures"
    if tally["differs"] or tally["alike"]:
        sentence += ", of these two runs only"
    worst = min(changes, key=worst_first, default=None)
    return f"{sentence}; the worst: {digest([worst])}." if worst and worst.verdict in BAD else f"{sentence}."


# What changed


def is_change(row: Row) -> bool:
    """Whether a figure is not what it was."""
    return row.verdict not in UNCHANGED


def show_changes(page: Page, rows: Sequence[Row]) -> None:
    """A line for every section in which something changed, the worst first."""
    changes = [row for row in rows if is_change(row)]
    if not changes:
        return
    hour = any(row.verdict == "differs" for row in changes)
    page.heading("What differs between these two runs; a change may be of the hour" if hour else "What changed, the worst first")
    width = max(len(MARK[row.verdict]) for row in changes)
    for section in sections_of(changes, by_verdict=True):
        verdict = section[0].verdict
        hang(page, Text(MARK[verdict].ljust(width + 1), style=LOOK[verdict]), digest(section))


def digest(section: Sequence[Row]) -> str:
    """A section in words: "response_p50 of write, C, depth 1 at 20, 60, 100 miles: +6.8 to +10.4 %"."""
    form = Form.of(chapter_of(section[0]), section)
    words, key = title_of(section[0]), row_key(section[0])
    if key:
        labels = ", ".join(map(label_of, section))
        words += f" at {labels} miles" if key == "miles" else f", {key} {labels}"
    if section[0].counted:
        return f"{words}: {', '.join(f'{count_text(row.base)} → {count_text(row.cand)}' for row in section)}"
    if len(section) == 1:
        return f"{words}: {form.change_text(section[0])}"
    ordered = sorted(section, key=lambda row: row.change.value or 0.0)
    return f"{words}: {form.signed(ordered[0].change.value)} to {form.signed(ordered[-1].change.value)}{form.unit}"


# Chapters


def chapters_of(rows: Sequence[Row], by_worst: bool = False) -> list[tuple[Chapter, list[Row]]]:
    """The measured figures by chapter: the worst first, or ours in their order and then those of other tools."""
    found: dict[Chapter, list[Row]] = {}
    for row in rows:
        if not row.counted:
            found.setdefault(chapter_of(row), []).append(row)
    if by_worst:
        return sorted(found.items(), key=lambda item: min(map(worst_first, item[1])))
    return sorted(found.items(), key=lambda item: ORDER.get(item[0], len(ORDER)))


def chapter_of(row: Row) -> Chapter:
    """The chapter of a figure. Another tool's metric has its own, one for each unit that suits its values."""
    if row.metric in CHAPTERS:
        return CHAPTERS[row.metric]
    if row.unit == "ns":
        size = abs(row.base.value or row.cand.value or 0.0)
        for unit, scale in (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US)):
            if size >= scale:
                return Chapter(row.metric, unit, scale)
        return Chapter(row.metric, "ns", 1.0)
    return Chapter(row.metric, UNITS.get(row.unit, ""), 1.0)


def show_chapter(page: Page, chapter: Chapter, rows: Sequence[Row], limit_of_ratios: float) -> None:
    """One table: sections by metric and workload, the worst first; in a section a row a distance."""
    page.heading(chapter.title)
    notes, reasons = Footnotes(), reasons_of(rows)
    form = Form.of(chapter, rows)
    lines: list[Line] = []
    for section in sections_of(rows):
        title = Text(title_of(section[0]))
        silent = {reasons[row.sentence] for row in section}
        if len(silent) == 1 and all(row.change.value is None for row in section):
            title.append(f"  {MARK['unresolved']}{notes.mark(silent)}", style=LOOK["unresolved"])
            title.append(f" at all {len(section)}" if len(section) > 1 else "")
            lines.append(Line(title))
            continue
        marks = [notes.mark([reasons[row.sentence]]) if row.verdict == "unresolved" else "" for row in section]
        drawn = [Line.of(row, form, mark) for row, mark in zip(section, marks, strict=True)]
        if len(drawn) > 1 and len({(line.cells[1:], line.verdict.plain) for line in drawn}) == 1:
            drawn = [drawn[0]._replace(cells=("all", *drawn[0].cells[1:]))]
        lines += [drawn[0]._replace(title=title), *drawn[1:]]
    relative, margin, unit = rows[0].relative, rows[0].margin, form.unit.strip()
    limit = limit_of_ratios if relative else limit_of(rows, margin)
    headings = [
        ("", next(filter(None, map(row_key, rows)), "")), ("base", chapter.unit), ("cand", chapter.unit),
        ("change", unit), (f"{CONFIDENCE:.0%} interval", unit), ("A/A ±", unit),
    ]  # fmt: skip
    print_lines(page, headings, lines, limit, margin, f"{limit / form.change_scale:g}")
    footnotes(page, notes)


def limit_of(rows: Sequence[Row], margin: float) -> float:
    """Where the axis of these rows ends: most intervals must fit, and most of those that changed."""
    everything = forest.limit_of(ends_of(rows), margin)
    changes = forest.limit_of(ends_of([row for row in rows if is_change(row)]), margin)
    return max(everything, min(changes, CHANGES_IN_MARGINS_MAX * margin))


def ends_of(rows: Iterable[Row]) -> list[float]:
    """The ends of the intervals of these rows."""
    return [end for row in rows for end in (row.change.low, row.change.high) if end is not None and not row.counted]


ROW_KEYS = ("miles", "budget")  # What the rows of a section differ in.
SILENT_KEYS = ("route",)  # One route is compared.


def row_key(row: Row) -> str:
    """The label that tells the rows of a section apart; empty where a figure has neither, and is a section's only row."""
    return next((key for key in ROW_KEYS if key in row.labels), "")


def sections_of(rows: Sequence[Row], by_verdict: bool = False) -> list[list[Row]]:
    """Rows that differ in distance (or budget) only, in its order; the section with the worst row first."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        key = row_key(row)
        found.setdefault((title_of(row), key, row.verdict if by_verdict else ""), []).append(row)
    for section in found.values():
        section.sort(key=lambda row: number_of(row.labels.get(row_key(row), "")))
    return sorted(found.values(), key=lambda section: min(map(worst_first, section)))


def number_of(label: Label) -> float:
    """A label by size: miles, or a budget such as "2 ms"."""
    if isinstance(label, (int, float)):
        return label
    try:
        return float(label.split()[0])
    except (ValueError, IndexError):
        return math.inf


def title_of(row: Row) -> str:
    """What the rows of a section have in common: "response_p99 of write, C, depth 1"."""
    kept = {name: value for name, value in row.labels.items() if name != row_key(row) and name not in SILENT_KEYS}
    words = ", ".join(label_text(name, value) for name, value in kept.items())
    return f"{row.metric} of {words}" if words else row.metric


def label_of(row: Row) -> str:
    """A row in its section: its distance, or its budget."""
    value = row.labels.get(row_key(row), "")
    return f"{value:.4g}" if isinstance(value, (int, float)) else value


NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
SAMPLE = re.compile(r" \(n = \d+\)")  # How many there are is the row's own; how many it needs is the reason.


def reasons_of(rows: Iterable[Row]) -> dict[str, str]:
    """By sentence: one reason for all sentences that differ in numbers only, with the range of each."""
    alike: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for sentence in dict.fromkeys(row.sentence for row in rows):
        parts = NUMBER.split(SAMPLE.sub("", sentence))
        alike.setdefault(tuple(parts[::2]), []).append((sentence, parts[1::2]))
    found = {}
    for words, sentences in alike.items():
        ranges = [range_text(values) for values in zip(*(numbers for _, numbers in sentences), strict=True)]
        text = "".join(word + number for word, number in zip(words, [*ranges, ""], strict=True))
        found.update(dict.fromkeys((sentence for sentence, _ in sentences), text))
    return found


def range_text(numbers: Sequence[str]) -> str:
    """ "5", or "3 to 12"."""
    least, greatest = min(numbers, key=float), max(numbers, key=float)
    return least if float(least) == float(greatest) else f"{least} to {greatest}"


# Losses and other counts


def show_counts(page: Page, rows: Sequence[Row]) -> None:
    """What was counted: a line for each that differs, and one for all that agree."""
    counts = sorted((row for row in rows if row.counted), key=worst_first)
    if not counts:
        return
    page.heading("Losses and other counts")
    notes, reasons = Footnotes(), reasons_of(counts)
    agreed: Counter[tuple[str, float]] = Counter()
    for row in counts:
        if row.verdict in ("same", "alike") and row.base.value is not None:
            agreed[row.metric, row.base.value] += 1
            continue
        mark = notes.mark([reasons[row.sentence]]) if row.verdict == "unresolved" else ""
        hang(page, Text(MARK[row.verdict] + mark, style=LOOK[row.verdict]), digest([row]))
    for (metric, value), number in agreed.items():
        page.prose(f"{MARK['same']} {metric}: {grouped(value)} on both sides{f' at all {number}' if number > 1 else ''}")
    footnotes(page, notes)


def count_text(estimate: Estimate) -> str:
    """A count, or a dash."""
    return UNKNOWN if estimate.value is None else grouped(estimate.value)


# One line


class Form(NamedTuple):
    """How the numbers of a table are written; units are in its headings."""

    value: Digits
    change_scale: float
    change_places: int
    unit: str  # of changes: " %", " us", or nothing
    widths: tuple[int, int]  # of the ends of intervals, so that their brackets stand in line

    @classmethod
    def of(cls, chapter: Chapter, rows: Sequence[Row]) -> Form:
        """Digits for a chapter, chosen once."""
        value = Digits.of((side for row in rows for side in (row.base, row.cand)), chapter.scale)
        changes = [row.change for row in rows if row.change.value is not None]
        relative = rows[0].relative
        scale = PERCENT if relative else chapter.scale
        places = 1 if relative else value.places
        unit = " %" if relative else f" {chapter.unit}".rstrip()
        form = cls(value, scale, places, unit, (0, 0))
        low = max((len(form.signed(change.low)) for change in changes), default=0)
        high = max((len(form.signed(change.high)) for change in changes), default=0)
        return form._replace(widths=(low, high))

    def number(self, value: float | None) -> str:
        """A value of one side."""
        return UNKNOWN if value is None else self.value.number(value)

    def signed(self, change: float | None) -> str:
        """A change with its sign."""
        if change is None:
            return UNKNOWN
        if self.change_scale == PERCENT and change > FAR:
            return ">+999"
        text = grouped(change / self.change_scale, self.change_places)
        return text if change < 0 or not text.strip("0.") else f"+{text}"

    def interval(self, row: Row) -> str:
        """The interval in brackets; nothing when there is none."""
        if row.change.low is None or row.change.high is None:
            return ""
        return f"[{self.signed(row.change.low):>{self.widths[0]}}, {self.signed(row.change.high):>{self.widths[1]}}]"

    def change_text(self, row: Row) -> str:
        """A change in a sentence: "+12.3 % [+8.1, +16.9]"."""
        return f"{self.signed(row.change.value)}{self.unit} [{self.signed(row.change.low)}, {self.signed(row.change.high)}]"


class Line(NamedTuple):
    """A row as text, or a title alone."""

    title: Text | None = None  # on a line of its own before it
    cells: tuple[str, ...] = ()
    bar: tuple[float, float, float] | None = None  # low, value, high
    verdict: Text = Text()
    style: str = ""

    @classmethod
    def of(cls, row: Row, form: Form, mark: str) -> Line:
        """A row; `mark` points at the footnote behind its verdict."""
        low, value, high = row.change.low, row.change.value, row.change.high
        cells = (
            label_of(row), form.number(row.base.value), form.number(row.cand.value), form.signed(value), form.interval(row),
            form.signed(row.floor).removeprefix("+"),
        )  # fmt: skip
        bar = None if low is None or value is None or high is None else (low, value, high)
        style = LOOK[row.verdict]
        return cls(None, cells, bar, Text(MARK[row.verdict] + mark, style=style), style)


def print_lines(
    page: Page, headings: Sequence[tuple[str, str]], lines: Sequence[Line], limit: float, margin: float, end: str
) -> None:
    """The lines under their headings, all on one axis; the forest goes below a line where there is no room beside it."""
    widths = [max([*map(len, heading), *(len(line.cells[place]) for line in lines if line.cells)])
              for place, heading in enumerate(headings)]  # fmt: skip
    last = max(line.verdict.cell_len for line in lines)
    for gap in (3, 2, 1):
        room = page.width - INDENT - sum(wide + gap for wide in [*widths, last] if wide)
        if room >= FOREST_WIDTH_MIN * gap:
            break
    beside = room >= FOREST_WIDTH_MIN
    width = min(room if beside else max(page.width - 2 * INDENT - gap - last, FOREST_WIDTH_MIN), FOREST_WIDTH_MAX)
    axis = forest.Axis(limit, margin, width - (width + 1) % 2)
    indent, between = " " * INDENT, " " * gap
    before = between if beside else f"\n{indent}{indent}"

    def aligned(cells: Iterable[str]) -> str:
        return indent + between.join(cell.rjust(wide) for cell, wide in zip(cells, widths, strict=True) if wide)

    scale = forest.scale_text(axis, f"-{end}", f"+{end}")
    text = Text().append(aligned(top for top, _ in headings) + "\n", style="bold")
    text.append(aligned(bottom for _, bottom in headings), style="bold")
    text.append(before + scale, style="dim")
    for line in lines:
        if line.title is not None:
            text.append("\n").append_text(line.title)
        if not line.cells:
            continue
        drawn = forest.draw(axis, *line.bar, line.style) if line.bar else forest.nothing(axis)
        text.append("\n" + aligned(line.cells) + before).append_text(drawn).append(between).append_text(line.verdict)
    fits = max(map(len, text.plain.splitlines())) <= page.width  # Looking for places to break all lines costs 20 ms.
    page.console.print(text, width=page.width, highlight=False, no_wrap=fits, overflow="fold")


def hang(page: Page, mark: Text, words: str, style: str = "") -> None:
    """A paragraph with a mark before it, its lines standing under its first word."""
    indent = " " * (mark.cell_len + 1)
    lines = Text(words, style=style).wrap(page.console, page.width - len(indent), overflow="fold")
    for number, line in enumerate(lines):
        line.rstrip()
        page.print((Text(indent) if number else mark + Text(" ")) + line)


def footnotes(page: Page, notes: Footnotes) -> None:
    """What the superscripts of a table point at."""
    for mark, reason in notes.lines():
        hang(page, Text(mark, style="dim"), reason, style="dim")


# How it was judged

VARIES = {
    "pairs": "pairs of rounds that were measured side by side",
    "rounds": "the rounds of one run a side",
    "runs": "whole runs, several a side",
}


def show_method(page: Page, comparison: Comparison) -> None:
    """What the verdicts rest on."""
    page.heading("How it was judged")
    tested = sum(row.p is not None for row in comparison.rows)
    counts = "Two runs differ" if of_two_runs(comparison) else "A change counts"
    for text in (
        f"Errors come from {errors_from(comparison)}; each interval is of {CONFIDENCE:.0%} by itself.",
        *of_two_runs(comparison),
        f"{counts} when Holm's procedure over {tested} figures rejects chance at {comparison.alpha:.0%} for all of them "
        "together, and when it exceeds the margin and A/A, what the same thing measured twice differs by 19 times in 20: here "
        f"from {comparison.floor_from}.",
        f'"{"alike" if of_two_runs(comparison) else "same"}" is earned by an interval within the margin, '
        f"{margins_text(comparison)}. All else is unresolved.",
        "The picture: ● the change, ━ its interval, │ none, ┊ the margin, ◂ ▸ it goes on beyond the axis.",
    ):
        hang(page, Text("·"), text)


def errors_from(comparison: Comparison) -> str:
    """What an error is made of, with the earlier runs that it rests on."""
    varies, earlier = VARIES[comparison.unit_of_replication], comparison.earlier_runs
    if earlier is None or earlier.runs < RUNS_MIN:
        return varies
    return f"{varies}, and from what {earlier.text} differ by"


def of_two_runs(comparison: Comparison) -> list[str]:
    """What the verdicts of one run a side do not say, where no earlier runs show what runs differ by."""
    if not any(row.verdict in ("differs", "alike") for row in comparison.rows):
        return []
    return [
        '"differs" and "alike" are of these two runs only: what differs from hour to hour is in no error, so chance among rounds '
        "is rejected at the level below, and nothing is stated about the thing that was measured."
    ]


def margins_text(comparison: Comparison) -> str:
    """The margin, and those of figures that have their own: "±5 %, k ±0.05, a ±20 us"."""
    own = {}
    for row in comparison.rows:
        if not row.relative and not row.counted:
            chapter = chapter_of(row)
            own[row.metric.rsplit("_", 1)[0]] = f"±{row.margin / chapter.scale:g} {chapter.unit}".rstrip()
    return ", ".join([f"±{comparison.margin_ratio * 100:g} %", *(f"{metric} {margin}" for metric, margin in own.items())])
