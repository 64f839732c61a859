"""What kind of load a trace is, as a terminal shows it: tables, a picture of its bandwidth, and what was mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.units import NS_PER_S, format_size, format_time
from .chart import spaced
from .digits import grouped
from .page import Form, Page, add_row, table_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..workload.trace.summary import Spread, Summary

HEIGHT = 14
FRAME_COLUMNS = 14
DISKS_SHOWN = 20
QUANTILES = ("p01", "p50", "p90", "p99", "p999")


def show(summary: Summary, console: Console) -> None:
    """Print the whole summary."""
    from ..workload.trace.reader import reads_text

    page = Page(console)
    over = format_time(summary.duration_ns)
    page.prose(f"{summary.name}: {grouped(summary.records)} records over {over}, {summary.format}", style="bold")
    for what, count in summary.repaired.items():
        page.item("⚠", f"{what}: {grouped(count)}")
    for what, count in summary.left_out.items():
        page.item("⚠", f"{grouped(count)} {what} left out: neither write, read nor flush")
    show_disks(page, summary)
    page.heading("What is asked")
    page.table(lambda form: operations(summary, form))
    page.prose(reads_text(summary.read_share))
    page.heading("Sizes and gaps")
    page.table(lambda form: spreads(summary, form))
    page.heading("What it writes")
    show_writing(page, summary)
    if len(summary.points) > 1:
        page.heading("MB/s over time: w written, r read")
        page.print(drawn(summary, page.width - 1))


def show_disks(page: Page, summary: Summary) -> None:
    """Which disks the trace is of, and what becomes of several."""
    if summary.disk is not None:
        page.prose(f"Of the trace's disks only {summary.disk} was looked at.")
        return
    if len(summary.disks) < 2:
        return
    page.heading(f"{len(summary.disks)} disks, together here; converted and replayed they lie side by side (--disk for one)")

    def table(form: Form) -> Table:
        made = table_of(form, "disk", "records", "reaches")
        for use in summary.disks[:DISKS_SHOWN]:
            add_row(made, use.name, grouped(use.records), format_size(use.extent_bytes))
        return made

    page.table(table)
    if len(summary.disks) > DISKS_SHOWN:
        page.prose(f"… and {len(summary.disks) - DISKS_SHOWN} more: --json has them all.")


def operations(summary: Summary, form: Form) -> Table:
    """How many there are of each, and how much they move."""
    table = table_of(form, "", "records", "share", "bytes", "sequential")
    for item in summary.operations:
        if item.count:
            sequential = "" if item.sequential is None else f"{item.sequential:.1%}"
            moved = format_size(item.bytes) if item.bytes else ""
            add_row(table, f"{item.name}s" if item.name != "flush" else "flushes", grouped(item.count), f"{item.share:.1%}",
                    moved, sequential)  # fmt: skip
    return table


def spreads(summary: Summary, form: Form) -> Table:
    """How sizes and gaps are spread."""
    table = table_of(form, "", "min", "p1", "p50", "p90", "p99", "p99.9", "max", "mean")

    def row(name: str, spread: Spread, text) -> None:
        if spread.count:
            values = [spread.least, *(getattr(spread, q) for q in QUANTILES), spread.greatest, spread.mean]
            add_row(table, name, *(text(value) for value in values))

    for item in summary.operations:
        if item.name != "flush":
            row(f"{item.name} size", item.size_bytes, format_size)
    row("gap", summary.gap_ns, format_time)
    row("write gap", summary.write_gap_ns, format_time)
    return table


def show_writing(page: Page, summary: Summary) -> None:
    """Bandwidth, bursts and working set, in sentences."""
    written, writes = summary.write_bytes_per_s, summary.writes_per_s
    page.prose(
        f"per second: p50 {rate(written.p50)}, p99 {rate(written.p99)}, max {rate(written.greatest)}, mean {rate(written.mean)}; "
        f"writes p50 {grouped(writes.p50)}, p99 {grouped(writes.p99)}, max {grouped(writes.greatest)}, mean {writes.mean:,.1f}"
    )
    bursts = []
    if summary.dispersion is not None:
        bursts.append(f"writes a second vary {summary.dispersion:,.1f} times as much as Poisson arrivals would")
    if summary.gap_variation is not None:
        bursts.append(f"gaps between writes have a standard deviation of {summary.gap_variation:,.2f} means (Poisson: 1)")
    if written.mean:
        bursts.append(f"the greatest second writes {written.greatest / written.mean:,.1f} times the mean")
    if bursts:
        page.prose(f"bursts: {'; '.join(bursts)}")
    least = "at least " if summary.working_set_is_least else ""
    share = summary.overwritten
    overwritten = "" if share is None else f"; {share:.1%} of written blocks had been written before"
    page.prose(
        f"working set in 4 KiB blocks: {least}{format_size(summary.working_set_bytes)}, written "
        f"{least}{format_size(summary.write_working_set_bytes)}{overwritten}"
    )
    page.prose(
        "A link slower than the greatest second is written to falls behind in it; slower than the mean, for good.", style="dim"
    )


def rate(bytes_per_s: float) -> str:
    """A bandwidth as networks count: decimal."""
    return f"{bytes_per_s / 1e6:,.3g} MB/s"


def drawn(summary: Summary, width: int) -> str:
    """The bandwidth over time as lines of text, no line longer than `width`."""
    import plotext  # 0.3 s to import, and needed only here.

    columns = max(width - FRAME_COLUMNS, 10)
    end_s = max(summary.duration_ns / NS_PER_S, 1.0)
    # The greatest point of each column, not their mean: a burst must not vanish in a narrow terminal.
    series = {"r": [0.0] * columns, "w": [0.0] * columns}
    for point in summary.points:
        place = min(int(point.begin_s / end_s * columns), columns - 1)
        series["w"][place] = max(series["w"][place], point.write_bytes_per_s / 1e6)
        series["r"][place] = max(series["r"][place], point.read_bytes_per_s / 1e6)
    xs = [(place + 0.5) * end_s / columns for place in range(columns)]

    figure = plotext.figure
    plotext.terminal.limit(False, False)  # The console's width counts, not the terminal's.
    figure.clear()
    figure.plot_size(width, HEIGHT)
    figure.theme("colorless")
    for letter, values in series.items():
        shown = [(x, y) for x, y in zip(xs, values, strict=True) if y > 0]
        if shown:
            figure.draw(figure.signal([x for x, _ in shown], [y for _, y in shown], marker=letter))
    ticks = spaced([end_s * part / 6 for part in range(7)], 10 * end_s / columns)
    figure.ruler("x").lim(0, end_s)
    figure.ruler("x").ticks(ticks, [f"{x:,.0f}" for x in ticks])
    figure.ruler("y").lim(0, 1.08 * max(*series["w"], *series["r"]) or 1.0)
    figure.label("seconds", "x")
    text = figure.build().string(colorless=True)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.splitlines())
