"""A sweep as a heat map: a row for each workload, a column for each distance, the latency as digits on a shade.

The shade is a character as well as a colour, so that the map is read without colour. What cannot be known is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..analysis.result import Analysis, CellResult, Estimate
from ..base.units import NS_PER_MS
from ..recording import Recording
from .digits import UNKNOWN
from .page import Page
from .plots.plot import Choice, Option, Plot, estimate_text, layout_of, ms, place_words, plain
from .tables import miles_text

FIELDS = {"p50": "response_ns_p50", "p99": "response_ns_p99"}
SHADES = "·░▒▓█"
COLOURS = ("color(17)", "color(24)", "color(60)", "color(131)", "color(166)")  # Dark blue to orange, white digits on each.
COLUMN = 9  # A shade, a space, up to six digits, a gap.


def show_heat_map(page: Page, recording: Recording, analysis: Analysis) -> None:
    """The maps of median and p99; nothing where the run was no sweep."""
    if not recording.profile.sweep.time_ns or not analysis.cells:
        return
    for quantile in FIELDS:
        page.heading(f"Response time, {quantile}, in ms: workloads against miles")
        for table in maps_of(analysis.cells, quantile, page.width):
            page.print(table)
    page.prose(legend(), style="dim")


def legend() -> str:
    """What the shades mean."""
    shades = f"From the least latency {SHADES[0]} to the greatest {SHADES[-1]}, by its logarithm"
    return f"{shades}; {UNKNOWN} is unknown, see the table below."


def rows_of(cells: Sequence[CellResult]) -> dict[tuple[str, str], dict[float, CellResult]]:
    """The cells of each workload and protocol by distance."""
    rows: dict[tuple[str, str], dict[float, CellResult]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.protocol, cell.size_bytes, cell.queue_depth)):
        rows.setdefault((cell.name, cell.protocol), {})[cell.miles] = cell
    return rows


def latency(cell: CellResult | None, quantile: str) -> Estimate | None:
    """The quantile of a cell."""
    return getattr(cell, FIELDS[quantile]) if cell is not None else None


def shade_of(value_ns: float, least_ns: float, most_ns: float) -> int:
    """The place of a latency among the shades."""
    if most_ns <= least_ns:
        return 0
    share = math.log(value_ns / least_ns) / math.log(most_ns / least_ns)
    return min(int(share * len(SHADES)), len(SHADES) - 1)


def maps_of(cells: Sequence[CellResult], quantile: str, width: int) -> list[Table]:
    """The map, cut into as many as it takes to fit the width."""
    rows = rows_of(cells)
    names = {key: f"{key[0]} {key[1]}" for key in rows}
    miles = sorted({cell.miles for cell in cells})
    known = [e.value for cell in cells if (e := latency(cell, quantile)) is not None and e.value]
    least_ns, most_ns = (min(known), max(known)) if known else (1.0, 1.0)
    room = max(1, (width - max(map(len, names.values())) - 2) // COLUMN)
    made = []
    for begin in range(0, len(miles), room):
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        columns = miles[begin : begin + room]
        for _ in columns:
            table.add_column(no_wrap=True, justify="right", min_width=COLUMN - 1)
        table.add_row(Text("miles", style="dim"), *(Text(miles_text(place), style="bold") for place in columns))
        for key, row in rows.items():
            table.add_row(Text(names[key]), *(square(latency(row.get(place), quantile), least_ns, most_ns) for place in columns))
        made.append(table)
    return made


def square(found: Estimate | None, least_ns: float, most_ns: float) -> Text:
    """One cell of the map."""
    if found is None or found.value is None:
        return Text(UNKNOWN, style="dim")
    shade = shade_of(found.value, least_ns, most_ns)
    return Text(f"{SHADES[shade]} {digits(found.value / NS_PER_MS):>6}", style=f"white on {COLOURS[shade]}")


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def heat_map_plot(recording: Recording, analysis: Analysis) -> Plot | None:
    """The same for the page; None where the run was no sweep."""
    if not recording.profile.sweep.time_ns or not analysis.cells:
        return None
    rows = rows_of(analysis.cells)
    miles = sorted({cell.miles for cell in analysis.cells})
    names = [plain(f"{name} {protocol}") for name, protocol in rows]
    data: list[dict[str, Any]] = []
    for quantile in FIELDS:
        found = [[latency(row.get(place), quantile) for place in miles] for row in rows.values()]
        data.append({
            "type": "heatmap", "meta": {"quantile": quantile}, "x": [miles_text(place) for place in miles], "y": names,
            "z": [[math.log10(ms(e.value)) if e and e.value else None for e in row] for row in found],
            "text": [[digits(e.value / NS_PER_MS) if e and e.value else "?" for e in row] for row in found],
            "texttemplate": "%{text}",
            "hovertext": [[hover(row.get(place), quantile) for place in miles] for row in rows.values()],
            "hoverinfo": "text", "colorscale": "Cividis", "showscale": False, "xgap": 1, "ygap": 1,
        })  # fmt: skip
    return Plot(
        id="heat", title="Response time of every workload at every distance", caption=caption(analysis.cells),
        note="Milliseconds; colours follow the logarithm. Point at a square for its interval. A ? is unknown.",
        data=data,
        layout=layout_of(
            {"title": {"text": "miles"}, "type": "category"}, {"type": "category", "autorange": "reversed"},
            height=160 + 36 * len(rows),
        ),
        choices=[Choice("quantile", "Quantile", False, [Option(name, name, name == "p50") for name in FIELDS])],
    )  # fmt: skip


def hover(cell: CellResult | None, quantile: str) -> str:
    """What a square says when it is pointed at."""
    found = latency(cell, quantile)
    if cell is None or found is None:
        return "not measured"
    lines = [place_words(cell), f"{quantile} {estimate_text(found)}", f"{cell.rounds_ok} rounds"]
    return "<br>".join([*lines, *(plain(str(reason)) for reason in cell.withheld)])


def caption(cells: Sequence[CellResult]) -> str:
    """The least and the greatest median of the grid."""
    known = [cell for cell in cells if cell.response_ns_p50.value]
    if not known:
        return "No cell has a median: there is nothing to draw."
    ends = [choose(known, key=lambda cell: cell.response_ns_p50.value or 0.0) for choose in (min, max)]
    words = [
        f"{digits((c.response_ns_p50.value or 0) / NS_PER_MS)} ms ({c.name} {c.protocol}, {miles_text(c.miles)} miles)"
        for c in ends
    ]
    return f"Medians from {words[0]} to {words[1]}."
