"""The report as one HTML page that needs nothing else: verdicts, charts, and every table the terminal shows.

The page is put together from `page.html`, `page.css` and `page.js`; the tables are those of the terminal (`markup.py`),
the charts are plain data (`plots/`). plotly.js travels inside, deflated: 4.9 MB become 2.0 MB of text, and the page's script
unpacks them: in a fifth of a second, and at once, which a browser's own streams do not. A Content-Security-Policy forbids the
page to fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template

import msgspec

from .. import __version__
from ..analysis.answer import IN_MEMORY, answer_of, not_durable_text
from ..analysis.change import Comparison
from ..analysis.result import Analysis, Claim
from ..base.errors import UnfitError
from ..recording import Recording, Report
from . import tables
from .changes import changes_table
from .heat_map import heat_map_plot
from .markup import HtmlPage
from .page import WORD, Footnotes, caution_of, caveat_of
from .plots.change import change_plot
from .plots.density import density_plot
from .plots.distance import distance_plot
from .plots.link import link_plots
from .plots.over_time import over_time_plot
from .plots.parts import parts_plot
from .plots.plot import Choice, Plot
from .plots.rounds_for_plot import rounds_for_plot
from .plots.spectrum import spectrum_plot
from .reach import show_reach
from .terminal import (
    awake_text,
    duration,
    show_answer,
    show_machines,
    show_method,
    show_warnings,
    systems_text,
    wire_text,
)

MARKER = b'<meta name="generator" content="farwrite html report">'
MARKER_WITHIN = 400  # Bytes from the start of a page of ours.
LEVEL = 6  # Of zlib: 0.18 s for 1.96 MB of base64. 9 takes 0.23 s and saves 4 kB; 5 saves 0.04 s and costs 14 kB.
BUTTONS = (
    ("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("reset", "Reset", "Show all again"),  # noqa: RUF001
    ("png", "PNG", "Save as PNG"), ("svg", "SVG", "Save as SVG"),
)  # fmt: skip
RADIOS_MAX = 60  # Characters: options with more words than this become a list.


def page_of(report: Report, analysis: Analysis, source: str, comparison: Comparison | None = None) -> bytes:
    """The whole page."""
    packing = plotly_packing()
    recording = report.recording
    page = HtmlPage(caveat_of(recording.lab))
    plots: list[Plot] = []

    def show(plot: Plot) -> None:
        page.parts.append(figure_markup(plot))
        plots.append(plot)

    cells = rounds_for_plot(recording, analysis)
    page.section("answer", "Answer")
    show_answer(page, answer_of(recording, analysis))
    page.section("verdicts", "Verdicts")
    page.parts.append(cards(analysis.verdicts))
    show_reach(page, analysis)
    heat = heat_map_plot(recording, analysis)
    if heat is not None:
        show(heat)
    show_warnings(page, recording, analysis)
    if not analysis.cells:
        page.prose("No cell was measured: there is nothing to rule on.")
    if comparison is not None:
        page.section("changes", "What changed")
        show(change_plot(comparison))
        show_changes(page, comparison)
    if analysis.cells:
        page.section("distance", "Latency and distance")
        show(distance_plot(analysis, recording.profile.distance))
        tables.show_fits(page, analysis)
        tables.show_miles(page, analysis)
        tables.show_limits(page, analysis)
        page.section("latency", "Latency of each cell")
        tables.show_latency(page, analysis)
        show(spectrum_plot(cells))
        show(density_plot(cells))
        show(over_time_plot(cells))
        page.section("parts", "Where the time goes")
        show(parts_plot(cells, recording))
        page.section("link", "Proof of link")
        for plot in link_plots(recording, analysis):
            show(plot)
        tables.show_link(page, analysis)
    if analysis.cells or analysis.drills:
        page.section("survival", "What survived")
        tables.show_drills(page, analysis)
        tables.show_lag(page, analysis)
        tables.show_counts(page, analysis)
    page.section("method", "Method")
    show_method(page, recording)
    page.parts.append(facts_markup(recording))
    show_machines(page, recording)

    return filled(page, plots, recording.profile.title, head(recording), packing, source)


def plotly_packing() -> Future[tuple[str, int]]:
    """plotly_packed(), under way: zlib lets go of the interpreter, 0.2 s beside the rest."""
    return ThreadPoolExecutor(1).submit(plotly_packed)


def filled(
    page: HtmlPage, plots: Iterable[Plot], title: str, banners: str, packing: Future[tuple[str, int]], source: str
) -> bytes:
    """The template with a page's chapters and charts in it."""
    body = page.markup
    packed, size = packing.result()
    charts = embedded({plot.id: plot.drawing for plot in plots})
    # What is filled in is never looked at again: a title may hold a name of the template.
    return Template((here() / "page.html").read_text("utf-8")).substitute(
        title=escape(title),
        style=(here() / "page.css").read_text("utf-8"),
        script=(here() / "page.js").read_text("utf-8"),
        head=banners,
        contents="".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in page.contents),
        body=body,
        version=escape(__version__),
        source=escape(source),
        charts=charts,
        plotly=packed,
        size=str(size),
        nonce=hashlib.sha256((body + charts).encode()).hexdigest()[:32],  # Who writes a title cannot know it.
    ).encode()


def is_ours(data: bytes) -> bool:
    """Whether these are the first bytes of a page we wrote."""
    return MARKER in data[:MARKER_WITHIN]


def here() -> Path:
    """Where the page's parts lie."""
    return Path(__file__).parent


def embedded(value: object) -> str:
    """JSON that may stand inside a script element: no "<" ends the element or begins a comment."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def plotly_packed() -> tuple[str, int]:
    """plotly.js as base64 of zlib, and its size in bytes. Found without importing the plotly package, which takes a second."""
    found = find_spec("plotly")
    place = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if place is None or not place.is_file():
        raise UnfitError("The charts need plotly.js, and the plotly package is not installed. Install farwrite again.")
    script = place.read_bytes()
    return base64.b64encode(zlib.compress(script, LEVEL)).decode("ascii"), len(script)


# --- The head and the verdicts ---------------------------------------------------------------------------------


def head(recording: Recording) -> str:
    """What must be known before any number is read."""
    banners = []
    if recording.interrupted:
        banners.append("⚠ INTERRUPTED: the run was stopped before its end; what follows rests on the rounds that were finished.")
    if caution := caution_of(recording.lab):
        banners.append(f"⚠ {caution[:1].upper()}{caution[1:]}.")
    return "".join(f'<p class="banner">{escape(words)}</p>' for words in banners)


def facts_markup(recording: Recording) -> str:
    """What was run, when and on what."""
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in facts_of(recording))
    return f'<dl class="facts">{facts}</dl>'


def facts_of(recording: Recording) -> list[tuple[str, str]]:
    """Their names and words, those that are known."""
    host, lab = recording.host, recording.lab
    processor = " ".join(str(host.get("cpu") or "unknown processor").split())
    count = f"{host['cpu_count']} x " if host.get("cpu_count") else ""
    disk = IN_MEMORY if lab.durability == "memory" else f"{systems_text(lab)}, {'direct' if lab.direct else 'buffered'}"
    if lab.durability != "memory" and lab.not_durable:
        disk += f", {not_durable_text(lab)}"
    run = recording.profile.run
    facts = [
        ("measured", f"{recording.started_utc}, {duration(recording.duration_s)}"),
        ("run", recording.id),
        ("profile", f"{recording.profile_name} {recording.profile_digest[:12]}, seed {recording.seed}"),
        ("cells", f"{len(recording.cells)} in {run.rounds} interleaved rounds"),
        ("machine", count + processor + (", virtual" if host.get("virtual") else "")),
        ("kernel", str(host.get("kernel") or "")),
        ("journals", disk + (", both sites on one disk" if lab.shared_disk and lab.durability == "disk" else "")),
        ("link", f"{lab.link}: {lab.link_reason}"),
        ("asked of the link", lab.link_asked),
        ("carried with", ", ".join(f"{key} {words}" for key, words in lab.link_facts.items()) if lab.link_asked else ""),
        ("sleep", ": ".join(filter(None, (awake_text(lab), lab.keep_awake_reason)))),
        ("reactor", lab.reactor),
        ("TCP", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in sorted(lab.transport.items()))),
        ("wire", wire_text(lab)),
        ("command", shlex.join(recording.command)),
    ]
    return [(name, words) for name, words in facts if words]


def cards(claims: Iterable[Claim]) -> str:
    """One card a budget or a claim: the verdict as symbol and word, then the sentence, then what it rests on."""
    made = []
    for claim in claims:
        details = "".join(f"<li>{escape(detail)}</li>" for detail in claim.details)
        made.append(
            f'<article class="card is-{claim.verdict}"><p class="verdict"><span class="{claim.verdict}">'
            f"{WORD[claim.verdict]}</span> <b>{escape(claim.id)}</b></p><h3>{escape(claim.claim)}</h3>"
            f'<p class="sentence">{escape(claim.sentence)}</p>{f"<ul>{details}</ul>" if details else ""}</article>'
        )
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def show_changes(page: HtmlPage, comparison: Comparison) -> None:
    """Every row of the comparison; those that say nothing new are folded away."""
    open_ones = [row for row in comparison.rows if row.change.value is None]
    same = [row for row in comparison.rows if row.verdict in ("same", "alike")]
    changed = [row for row in comparison.rows if row not in open_ones and row not in same]
    notes = Footnotes()
    hour = any(row.verdict == "differs" for row in comparison.rows)
    what = "What differs between these two runs (a change may be of the hour)" if hour else "What changed, the worst first"
    page.heading(f"{what}, and what is unresolved")
    page.table(partial(changes_table, changed, notes))
    page.footnotes(notes)
    unchanged, unknown = "figures that are the same, or alike in these two runs", "figures that cannot be compared"
    for words, rows in ((unchanged, same), (unknown, open_ones)):
        if rows:
            page.title, notes = words, Footnotes()
            page.parts.append(f"<details><summary>{len(rows)} {words}</summary>")
            page.table(partial(changes_table, rows, notes))
            page.footnotes(notes)
            page.parts.append("</details>")
    page.prose(f"First: {', '.join(comparison.base)}. Second: {', '.join(comparison.cand)}.", style="dim")
    for warning in comparison.warnings:
        page.item("⚠", warning)


# --- Charts ----------------------------------------------------------------------------------------------------


def figure_markup(plot: Plot) -> str:
    """The place of a chart: its title, the sentence that says it, what can be chosen, and the buttons."""
    name, title = escape(plot.id), escape(plot.title)
    choices = "".join(choice_markup(plot, choice) for choice in plot.choices if len(choice.options) > 1)
    buttons = "".join(
        f'<button type="button" data-act="{act}" aria-label="{words}: {title}">{face}</button>'
        for act, face, words in BUTTONS
    )
    return (
        f'<figure data-chart="{name}" aria-labelledby="{name}-title" aria-describedby="{name}-said">'
        f'<figcaption><h3 id="{name}-title">{title}</h3><p id="{name}-said">{escape(plot.caption)}</p></figcaption>'
        f'<div class="choices scripted">{choices}</div>'
        f'<div class="plot" role="group" aria-label="Chart: {escape(plot.caption)}"><p>This chart is drawn by a script; '
        f"its numbers are in the tables.</p></div>"
        f'<div class="acts scripted">{buttons}</div><p class="note">{escape(plot.note)}</p></figure>'
    )


def choice_markup(plot: Plot, choice: Choice) -> str:
    """Boxes for many, buttons for one of a few, a list for one of many."""
    key, title = escape(choice.key), escape(choice.title)
    if not choice.many and sum(len(option.text) for option in choice.options) > RADIOS_MAX:
        options = "".join(
            f'<option value="{escape(value)}"{" selected" if chosen else ""}>{escape(text)}</option>'
            for value, text, chosen in choice.options
        )
        return f'<fieldset data-key="{key}"><legend>{title}</legend><select aria-label="{title}">{options}</select></fieldset>'
    kind = "checkbox" if choice.many else "radio"
    labels = "".join(
        f'<label><input type="{kind}" name="{escape(plot.id)}-{key}" value="{escape(value)}"'
        f"{' checked' if chosen else ''}> {escape(text)}</label>"
        for value, text, chosen in choice.options
    )
    return f'<fieldset data-key="{key}"><legend>{title}</legend>{labels}</fieldset>'
