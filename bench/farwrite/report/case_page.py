"""A case as one HTML page that needs nothing else: the answer, a chart, the figures of each part, what was assumed."""

from __future__ import annotations

import shlex
from html import escape

from ..analysis.case_answer import lines_of, sections_of
from ..analysis.case_recording import CaseRecording
from .case import banners_of, show_assumed, show_line, show_section
from .html import figure_markup, filled, plotly_packing
from .markup import HtmlPage
from .plots.case import plots_of


def page_of_case(recording: CaseRecording, source: str) -> bytes:
    """The whole page."""
    packing = plotly_packing()
    page, plots = HtmlPage(), plots_of(recording)
    page.section("answer", "Answer")
    for line in lines_of(recording):
        show_line(page, line)
    for section in sections_of(recording):
        page.section(section.name, section.title)
        if section.name in plots:
            page.parts.append(figure_markup(plots[section.name]))
        show_section(page, section, "Figures")
    page.section("method", "Method")
    page.prose(" ".join(recording.case.about.split()))
    show_assumed(page, recording)
    host = recording.host
    facts = {
        "measured": recording.started_utc, "case": recording.name, "machine": str(host.get("cpu") or ""),
        "kernel": str(host.get("kernel") or ""), "link": recording.link, "files": recording.disk,
        "command": shlex.join(recording.command),
    }  # fmt: skip
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in facts.items() if words)
    page.parts.append(f'<dl class="facts">{rows}</dl>')
    banner = "".join(f'<p class="banner">⚠ {escape(words)}</p>' for words in banners_of(recording))
    return filled(page, plots.values(), recording.case.title, banner, packing, source)
