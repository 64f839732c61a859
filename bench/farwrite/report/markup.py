"""The sections of the terminal report as HTML: the same tables, footnotes and sentences, so that both say the same.

`tables.py` prints on a `Page`; this is one that collects markup instead. All words are escaped here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from io import StringIO
from itertools import pairwise

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from .page import STYLE, WIDTH_MAX, Footnotes, Form, Page

FORM = Form("beside", 1)
FIGURE_SPACE = "\u2007"  # As wide as a digit: numbers keep the alignment that spaces give them in a terminal.
CLASSES = {"dim": "dim", "bold": "strong", "italic": "said"} | {style: verdict for verdict, style in STYLE.items()}


class HtmlPage(Page):
    """A page that becomes part of an HTML file. `section` opens a chapter, `heading` a part of it."""

    def __init__(self, caveat: str = "") -> None:
        super().__init__(Console(file=StringIO(), width=WIDTH_MAX), caveat)
        self.parts: list[str] = []
        self.contents: list[tuple[str, str]] = []  # (id, title) of the chapters
        self.title = ""

    @property
    def markup(self) -> str:
        """All of it."""
        return "\n".join(self.parts + (["</section>"] if self.contents else []))

    def section(self, name: str, title: str) -> None:
        """A chapter, with its place in the contents."""
        if self.contents:
            self.parts.append("</section>")
        self.contents.append((name, title))
        self.parts.append(f'<section id="{name}"><h2>{escape(title)}</h2>')

    def heading(self, text: str) -> None:
        self.title = text
        caveat = f' <span class="fail">({escape(self.caveat)})</span>' if self.caveat else ""
        self.parts.append(f"<h3>{escape(text)}{caveat}</h3>")

    def prose(self, text: str | Text, style: str = "", indent: int = 0) -> None:
        words = text if isinstance(text, Text) else Text(text.strip(), style=style)
        self.parts.append(f"<p>{markup_of(words)}</p>")

    def item(self, mark: str, text: str, style: str = "", indent: int = 0) -> None:
        self.parts.append(f'<p class="item"><span>{escape(mark)}</span> <span>{markup_of(Text(text, style=style))}</span></p>')

    def table(self, make: Callable[[Form], Table]) -> None:
        self.print(make(FORM))

    def footnotes(self, notes: Footnotes) -> None:
        lines = "".join(f"<li><span>{escape(mark)}</span> {escape(reason)}</li>" for mark, reason in notes.lines())
        self.parts.append(f'<ul class="footnotes">{lines}</ul>' if lines else "")

    def print(self, what: RenderableType) -> None:
        assert isinstance(what, Table), "the sections that are shown here print tables only"
        region = f'role="region" tabindex="0" aria-label="{escape(self.title)}"'
        self.parts.append(f'<div class="scroll" {region}>{table_markup(what)}</div>')


def markup_of(text: Text | str) -> str:
    """Words with their styles as classes."""
    text = text if isinstance(text, Text) else Text(text)
    edges = sorted({0, len(text.plain), *(edge for span in text.spans for edge in (span.start, span.end))})
    pieces = []
    for start, end in pairwise(edges):
        styles = [str(text.style), *(str(span.style) for span in text.spans if span.start <= start and end <= span.end)]
        classes = " ".join(CLASSES[style] for style in styles if style in CLASSES)
        words = escape(text.plain[start:end]).replace("\n", "<br>")
        pieces.append(f'<span class="{classes}">{words}</span>' if classes else words)
    return "".join(pieces)


def table_markup(table: Table) -> str:
    """A table; the first cell of a row is its heading, and one that repeats the row above is there for ears only."""
    head = "".join(f'<th scope="col" class="{column.justify}">{head_markup(column)}</th>' for column in table.columns)
    rows, last = [], ""
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        first, *others = map(cell_markup, cells)
        last = first or last
        words = first or f'<span class="heard">{last}</span>'
        line = f'<th scope="row" class="{table.columns[0].justify}">{words}</th>'
        for column, words in zip(table.columns[1:], others, strict=True):
            line += f'<td class="{column.justify}">{words}</td>'
        rows.append(f'<tr class="last">{line}</tr>' if row.end_section else f"<tr>{line}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def head_markup(column: Column) -> str:
    """A heading, its unit below it."""
    return escape(str(column.header)).replace("-\n", "").replace("\n", "<br>")


def cell_markup(cell: RenderableType) -> str:
    """A cell, its numbers aligned."""
    words = markup_of(cell if isinstance(cell, Text) else str(cell))
    return re.sub(r"(^|>|\[|, | ) +(?=[-+0-9∞])", lambda found: FIGURE_SPACE.join(found.group().split(" ")), words)
