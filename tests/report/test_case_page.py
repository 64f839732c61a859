"""A case for people: the answer first, within 80 columns, without colour where none is wanted; a page that escapes everything."""

import io

import msgspec
import pytest
from rich.console import Console

import make_case
from farwrite.report.case import show_case
from farwrite.report.case_page import page_of_case
from farwrite.report.html import is_ours
from farwrite.report.page import Page
from farwrite.report.plots.case import plots_of

CAMPUS = make_case.recording("campus", steady=make_case.steady(), faults=make_case.faults(), thin=make_case.thin())
AUTOMATION = make_case.recording("automation", database=make_case.database())


def printed(made, width=80):
    file = io.StringIO()
    show_case(Page(Console(file=file, width=width)), made)
    return file.getvalue()


@pytest.mark.parametrize("made", [CAMPUS, AUTOMATION], ids=["campus", "automation"])
@pytest.mark.parametrize("width", [80, 132])
def test_a_case_fits_its_terminal_and_shows_intervals_counts_and_what_is_modelled(made, width):
    text = printed(made, width)
    assert all(len(line) <= width for line in text.splitlines()) and "\x1b" not in text
    for words in ("modelled", " to ", "Assumed", "95 %"):
        assert words in text
    assert text.index(made.case.title[:20]) < text.index("a write") if "a write" in text else True


@pytest.mark.parametrize("made", [CAMPUS, AUTOMATION], ids=["campus", "automation"])
def test_the_page_is_whole_ours_and_says_what_the_terminal_says(made):
    data = page_of_case(made, "case.json")
    assert is_ours(data) and b"a &lt;processor&gt;" in data and b"a <processor>" not in data
    assert all(f'data-chart="{plot.id}"'.encode() in data for plot in plots_of(made).values()) and plots_of(made)
    for plot in plots_of(made).values():
        msgspec.json.encode(plot.drawing)
    hostile = msgspec.structs.replace(made, name="</script><b>x", case=msgspec.structs.replace(made.case, title="<i>t</i>"))
    assert b"<b>x" not in page_of_case(hostile, "x") and b"<i>t</i>" not in page_of_case(hostile, "x")


def test_what_must_be_known_first_stands_first():
    made = msgspec.structs.replace(CAMPUS, quick=True, interrupted=True, disk="memory", thin=None)
    text = printed(made)
    assert max(text.index(word) for word in ("QUICK", "INTERRUPTED", "in memory")) < text.index("PASS")
    assert b"INTERRUPTED" in page_of_case(made, "x") and not any("thin" in name for name in plots_of(made))
