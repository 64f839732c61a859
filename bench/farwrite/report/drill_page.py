"""A drill as one HTML page that needs nothing else: the answer, the timeline of a trial, recovery beside published figures."""

from __future__ import annotations

import shlex
from html import escape

from ..analysis.drill_answer import Answer
from ..analysis.drill_recording import DrillRecording
from .drill import DOOR_WORDS, show_drill
from .html import figure_markup, filled, plotly_packing
from .markup import HtmlPage
from .plots.drill import phases_plot, timeline_plot
from .plots.plot import Plot

INTERRUPTED = '<p class="banner">⚠ INTERRUPTED: what follows rests on the trials that were over.</p>'


def page_of_drill(recording: DrillRecording, answer: Answer, source: str) -> bytes:
    """The whole page."""
    packing = plotly_packing()
    page, plots = HtmlPage(), list[Plot]()

    def show(plot: Plot) -> None:
        page.parts.append(figure_markup(plot))
        plots.append(plot)

    page.section("answer", "Answer")
    show_drill(page, recording, answer)
    page.section("timeline", "Timeline")
    show(timeline_plot(recording))
    page.section("phases", "Recovery in phases")
    show(phases_plot(recording, answer))
    page.section("method", "Method")
    page.prose(recording.scenario.about)
    for sentence in recording.links:
        page.item("·", sentence)
    facts = {
        "measured": recording.started_utc, "scenario": recording.name, "machine": str(recording.host.get("cpu") or ""),
        "kernel": str(recording.host.get("kernel") or ""), "link": recording.link, "files": recording.disk,
        "door": DOOR_WORDS[recording.setup.door],
        "command": shlex.join(recording.command),
    }  # fmt: skip
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in facts.items() if words)
    page.parts.append(f'<dl class="facts">{rows}</dl>')
    banner = INTERRUPTED if recording.interrupted else ""
    return filled(page, plots, recording.scenario.title, banner, packing, source)
