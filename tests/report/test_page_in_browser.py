"""The page in a real browser: no error in its console, every chart drawn in every way it is looked at, and on paper at once.

A failure leaves a picture of what was seen in the directory that FARWRITE_ARTIFACTS names, otherwise among pytest's own.
"""

from __future__ import annotations

import base64
import os
import random
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser import MISSING, PROGRAM, Tab, browser
from farwrite.analysis.change import compare
from farwrite.compare.figures import result_set_of
from farwrite.recording import SCHEMA_VERSION, Report
from farwrite.report.html import here, page_of
from make_figures import hours_alike
from make_recording import analysed

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

PAGE_JS = (here() / "page.js").read_text()
WIDE, NARROW = 1100, 420
SHORT = (
    "distance.miles=[0, 20, 60, 125, 150, 186]", "run.rounds=3", "run.round=200 ms", 'cell.protocols=["A", "C"]', "drill.kills=0",
)  # fmt: skip
PAINTS = re.compile(rb"^(?:S|s|f\*?|F|B\*?|b\*?)$", re.MULTILINE)  # PDF 32000-1, table 60: what paints a path.

# For every chart: how many marks it shows, how wide it is and may be, and the colours that tell the theme.
CHARTS = """[...document.querySelectorAll("figure[data-chart]")].map((figure) => {
  const svg = figure.querySelector(".main-svg");
  const seen = (mark) => { const box = mark.getBoundingClientRect(); return box.width + box.height > 0; };
  return {
    name: figure.dataset.chart,
    marks: [...figure.querySelectorAll(":is(.scatterlayer, .barlayer, .heatmaplayer) :is(path, image)")].filter(seen).length,
    width: svg ? svg.getBoundingClientRect().width : 0,
    room: figure.clientWidth,
    paper: svg ? getComputedStyle(svg).backgroundColor : "",
    page: getComputedStyle(document.body).backgroundColor,
    words: figure.querySelector(".plot > p")?.textContent ?? "",
  };
})"""
# The words of lines in the distance chart; those that touch the plot, each other or the legend, or are cut off.
TOUCHING = """(() => {
  const figure = document.querySelector('figure[data-chart="distance"]');
  const boxOf = (element) => element.getBoundingClientRect();
  const meet = (one, other) =>
    one.left < other.right - 1 && other.left < one.right - 1 && one.top < other.bottom - 1 && other.top < one.bottom - 1;
  const words = [...figure.querySelectorAll(".annotation-text")].filter((text) => text.textContent !== "?");
  const plot = boxOf(figure.querySelector(".nsewdrag")), whole = boxOf(figure.querySelector(".main-svg"));
  const found = [];
  for (const [index, text] of words.entries()) {
    const box = boxOf(text), name = text.textContent;
    if (meet(box, plot)) found.push(`${name} is in the plot`);
    if (meet(box, boxOf(figure.querySelector(".legend")))) found.push(`${name} is in the legend`);
    if (box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1) found.push(`${name} is cut off`);
    for (const other of words.slice(index + 1)) if (meet(box, boxOf(other))) found.push(`${name} touches ${other.textContent}`);
  }
  return { count: words.length, found };
})()"""
TABLES = """[...document.querySelectorAll(".scroll")].filter((box) => box.clientWidth).map((box) => ({
  name: box.getAttribute("aria-label"), more: box.scrollWidth > box.clientWidth + 1,
  cue: getComputedStyle(box, "::before").content, shadow: getComputedStyle(box).backgroundImage.split("gradient").length - 1,
}))"""
# Before the page's own: what stands there when the printer has just been given it.
NOTE_PRINTED = f"addEventListener('afterprint', () => (window.printed ??= {CHARTS}));"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A page that has every chart of a run, and what changed to another one."""
    pairs = [analysed(changes=SHORT), analysed(changes=SHORT, seed=2, a_ns=500_000.0)]
    reports = [Report(schema_version=SCHEMA_VERSION, recording=recording) for recording, _ in pairs]
    result_sets = [result_set_of(report, analysis, "made-up.json") for report, (_, analysis) in zip(reports, pairs, strict=True)]
    comparison = compare(result_sets[:1], result_sets[1:], history=hours_alike(*result_sets[0].figures))
    place = tmp_path_factory.mktemp("page") / "report.html"
    place.write_bytes(page_of(reports[0], pairs[0][1], "made-up.json", comparison))
    return place


@pytest.fixture(scope="module")
def at_once(file, tmp_path_factory):
    """(tab, PDF): the page was opened and printed before it had time for anything."""
    with browser(tmp_path_factory.mktemp("browser")) as made:
        tab = Tab(made)
        tab.size(WIDE)
        tab.do("Page.addScriptToEvaluateOnNewDocument", source=NOTE_PRINTED)
        tab.open(f"{file.as_uri()}?theme=dark")
        yield tab, tab.pdf()


@pytest.fixture(scope="module")
def tab(at_once) -> Tab:
    """The page, its charts drawn for the screen."""
    made, _ = at_once
    made.until('document.documentElement.classList.contains("drawn")')
    return made


@contextmanager
def pictured(tab: Tab, name: str, tmp_path: Path, pdf: bytes | None = None) -> Iterator[None]:
    """What the tab shows, or what was printed, is kept if this block fails."""
    try:
        yield
    except BaseException as failure:
        directory = Path(os.environ.get("FARWRITE_ARTIFACTS") or tmp_path)
        directory.mkdir(parents=True, exist_ok=True)
        place = directory / f"page-{name}.{'png' if pdf is None else 'pdf'}"
        place.write_bytes(tab.picture() if pdf is None else pdf)
        failure.add_note(f"picture: {place}")
        raise


def look(tab: Tab, width: int, theme: str) -> None:
    """Show the page so, by the button a reader has."""
    tab.size(width)
    for _ in range(3):
        if tab.ask("document.documentElement.dataset.theme") == theme:
            break
        tab.ask('document.getElementById("theme").click()')
    tab.until(f'[...document.querySelectorAll("figure[data-chart] .main-svg")].every((svg) => svg.clientWidth <= {width})')
    tab.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def expected(file: Path) -> set[str]:
    """The charts that the page has places for."""
    return set(re.findall(r'<figure data-chart="([^"]+)"', file.read_text()))


def brightness(colour: str) -> float:
    """Of "rgb(20, 24, 29)"."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_a_page_that_is_printed_at_once_has_all_its_charts(at_once, file, tmp_path):
    """As --print-to-pdf does, and as a reader may: the page is opened, and nobody waits for anything."""
    tab, pdf = at_once
    with pictured(tab, "printed", tmp_path, pdf):
        charts = tab.ask("window.printed")
        assert {chart["name"] for chart in charts} == expected(file)
        for chart in charts:
            assert chart["marks"] > 0 and not chart["words"], chart
            assert brightness(chart["page"]) > 128 and brightness(chart["paper"]) > 128, chart  # Whatever the theme.
        assert painted(pdf) > sum(chart["marks"] for chart in charts)


@pytest.mark.parametrize(("width", "theme"), [(WIDE, "dark"), (NARROW, "dark"), (NARROW, "light"), (WIDE, "light")])
def test_every_chart_is_drawn_and_as_wide_as_the_page_in_its_colours(tab, file, tmp_path, width, theme):
    with pictured(tab, f"{theme}-{width}", tmp_path):
        look(tab, width, theme)
        charts = tab.ask(CHARTS)
        assert {chart["name"] for chart in charts} == expected(file) >= {"distance", "change", "spectrum", "density", "parts"}
        for chart in charts:
            assert chart["marks"] > 0 and not chart["words"], chart
            assert 0 < chart["width"] <= chart["room"] <= width, chart
            assert chart["paper"] == chart["page"] and (brightness(chart["page"]) > 128) == (theme == "light"), chart
        assert tab.ask("document.documentElement.scrollWidth") <= width  # Nothing reaches beyond the page.
        assert tab.complaints() == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_no_words_cross_a_line_of_the_distance_chart(tab, tmp_path, width, scale):
    with pictured(tab, f"words-{scale}-{width}", tmp_path):
        look(tab, width, "light")
        tab.ask(f"document.querySelector('figure[data-chart=\"distance\"] input[value=\"{scale}\"]').click()")
        touching = tab.ask(TOUCHING)
        assert touching["count"] >= 4 and touching["found"] == []


def test_a_table_that_is_cut_says_so_and_shows_where_there_is_more(tab, tmp_path):
    with pictured(tab, "tables", tmp_path):
        look(tab, NARROW, "light")
        narrow = tab.ask(TABLES)
        assert any(table["more"] for table in narrow)
        for table in narrow:
            assert ("scroll sideways" in table["cue"]) == table["more"] and table["shadow"] == 4, table
        look(tab, WIDE, "light")
        assert not any(table["more"] or "scroll" in table["cue"] for table in tab.ask(TABLES))


@pytest.mark.parametrize("data", [
    pytest.param(b"", id="nothing"), pytest.param(bytes(70_000), id="zeros"), pytest.param(bytes(range(256)) * 300, id="bytes"),
    pytest.param(random.Random(1).randbytes(70_000), id="noise"), pytest.param(PAGE_JS.encode() * 5, id="script"),
])  # fmt: skip
def test_the_pages_own_unpacking_reads_every_kind_of_block(tab, data):
    """Stored, with fixed codes, with codes of its own; what packs and unpacks here is zlib."""
    source = PAGE_JS[PAGE_JS.index("  // RFC 1950") : PAGE_JS.index("  // Drawing.")]
    usual = zlib.Z_DEFAULT_STRATEGY
    for level, strategy in ((0, usual), (6, usual), (9, zlib.Z_FIXED), (6, zlib.Z_HUFFMAN_ONLY)):
        packing = zlib.compressobj(level, strategy=strategy)
        packed = base64.b64encode(packing.compress(data) + packing.flush()).decode()
        crc = tab.ask(f"""(() => {{ {source}
          const packed = Uint8Array.from(atob("{packed}"), (character) => character.charCodeAt(0));
          let crc = -1;
          for (const byte of inflated(packed, {len(data)})) {{
            crc ^= byte;
            for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
          }}
          return (crc ^ -1) >>> 0;
        }})()""")
        assert crc == zlib.crc32(data), (level, strategy)


def painted(pdf: bytes) -> int:
    """How many paths a PDF paints."""
    count = 0
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            count += len(PAINTS.findall(zlib.decompress(stream)))
        except zlib.error:
            continue  # Fonts and pictures may be packed otherwise.
    return count
