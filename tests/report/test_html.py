"""The HTML report: its charts hold what analysis found, nothing in it is fetched, and hostile words stay words."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from functools import cache
from html.parser import HTMLParser

import msgspec
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.between_runs import NO_HISTORY
from farwrite.analysis.change import compare
from farwrite.analysis.estimate import count_needed
from farwrite.analysis.result import Estimate
from farwrite.base.physics import PRODUCT_LIMITS
from farwrite.base.reasons import few_rounds
from farwrite.compare.figures import result_set_of
from farwrite.recording import SCHEMA_VERSION, Report
from farwrite.report.html import MARKER_WITHIN, is_ours, page_of
from farwrite.report.plots.change import change_plot
from farwrite.report.plots.density import density
from farwrite.report.plots.distance import QUANTILES, SCALE, distance_plot, latency_of
from farwrite.report.plots.link import link_plots
from farwrite.report.plots.over_time import over_time_plot
from farwrite.report.plots.parts import Parts, parts_of, parts_plot
from farwrite.report.plots.rounds_for_plot import rounds_for_plot
from farwrite.report.plots.spectrum import spectrum, spectrum_plot
from make_figures import hours_alike
from make_recording import LARGE, analysed, changed

ONE = ("distance.miles=[20]", "run.rounds=3", "run.round=200 ms", 'cell.protocols=["C"]', "drill.kills=0")
FEW = ("distance.miles=[0, 20, 60]", "run.rounds=3", "run.round=400 ms", "drill.kills=0")  # Where less is enough.
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> $charts ${body} & %{y}'


def report_of(recording):
    return Report(schema_version=SCHEMA_VERSION, recording=recording)


@cache
def page(*text, **options):
    recording, analysis = analysed(*text, **options)
    return page_of(report_of(recording), analysis, "made-up.json").decode()


def charts_in(text):
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)[1])


class Reader(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and whether each one is closed."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


# The charts


@pytest.mark.parametrize("quantile", QUANTILES)
def test_every_known_latency_is_a_point_with_its_interval(quantile):
    recording, analysis = analysed(LARGE)
    plot = distance_plot(analysis, recording.profile.distance)
    drawn = {}
    for trace in plot.data:
        if trace["mode"] == "markers" and trace["meta"]["quantile"] == quantile:
            high, low = trace["error_y"]["array"], trace["error_y"]["arrayminus"]
            for miles, y, up, down in zip(trace["x"], trace["y"], high, low, strict=True):
                drawn[trace["meta"]["workload"], trace["meta"]["protocol"], miles] = (y, y - down, y + up)
    known = [c for c in analysis.cells if latency_of(c, quantile).value is not None]
    assert len(drawn) == len(known) > 0
    for c in known:
        e = latency_of(c, quantile)
        point = drawn[{"write": "w0", "deep": "w1", "paced": "w2"}[c.name], c.protocol, c.miles]
        assert point == pytest.approx((e.value / 1e6, e.low / 1e6, e.high / 1e6), abs=2e-6)


def test_an_unknown_quantile_is_a_question_mark_that_says_why():
    recording, analysis = analysed()
    marks = distance_plot(analysis, recording.profile.distance).marks
    unknown = [mark for mark in marks if mark.get("annotation", {}).get("text") == "?"]
    open_ones = [(c, q) for c in analysis.cells for q in QUANTILES if latency_of(c, q).value is None]
    assert len(unknown) == len(open_ones) > 0
    assert all("needs n &gt;= " in mark["annotation"]["hovertext"] for mark in unknown)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_words_of_lines_stand_outside_of_the_plot_and_apart_from_each_other(scale):
    recording, analysis = analysed(LARGE, a_ns=40e6)  # So high that the levels of 1, 2 and 5 ms lie close together.
    marks = [
        mark for mark in distance_plot(analysis, recording.profile.distance).marks
        if mark["meta"]["workload"] == "w0" and mark["meta"]["quantile"] == "p50" and mark["meta"].get(SCALE, scale) == scale
    ]  # fmt: skip
    lines = [mark["shape"] for mark in marks if mark.get("shape", {}).get("type") == "line"]
    words = [mark["annotation"] for mark in marks if mark.get("annotation", {}).get("text", "?") != "?"]
    beside = [item for item in words if item.get("xref") == "paper"]
    above = [item for item in words if item.get("yref") == "paper"]
    assert beside and above and len(beside) + len(above) == len(words) and all("label" not in line for line in lines)
    assert all(item["x"] == 1 and item["xanchor"] == "left" for item in beside)
    assert all(item["y"] == 1 and item["yanchor"] == "bottom" for item in above)
    named = "<br>".join(item["text"] for item in words).replace("<br>", " ")
    for limit in PRODUCT_LIMITS:
        if limit.miles is not None or (limit.rtt_ns or 0) < 40e6:
            assert limit.name in named
    if scale == "linear":
        assert sorted(item["text"].count(" ms: ") for item in beside) != [1] * len(beside)  # Some share theirs.


def test_the_fitted_line_is_a_plus_k_round_trips():
    recording, analysis = analysed()
    fit = next(f for f in analysis.fits if f.protocol == "C" and f.quantile == 0.5)
    line = next(
        t for t in distance_plot(analysis, recording.profile.distance).data
        if t["mode"] == "lines" and t["meta"] == {"workload": "w0", "quantile": "p50", "protocol": "C", "layer": "fit"}
    )  # fmt: skip
    assert line["y"][0] == pytest.approx((fit.a_ns.value + fit.k.value * fit.rtt_ns_low) / 1e6, abs=1e-5)
    assert line["y"][-1] == pytest.approx((fit.a_ns.value + fit.k.value * fit.rtt_ns_high) / 1e6, abs=1e-5)


def test_a_spectrum_goes_through_the_quantiles_of_analysis_and_ends_where_the_sample_does():
    recording, analysis = analysed()
    for item in rounds_for_plot(recording, analysis):
        quantiles, times_ns = spectrum(item.response)
        known = dict(zip(quantiles, times_ns, strict=True))
        assert known[0.5] == item.result.response_ns_p50.value
        assert known[0.99] == item.result.response_ns_p99.value
        assert known.get(0.999) == item.result.response_ns_p999.value
        assert all(count_needed(q) <= item.response.count for q in quantiles)
        assert times_ns == sorted(times_ns)


def test_a_warm_up_is_in_no_spectrum():
    recording, analysis = analysed(warmup_slices=3, changes=FEW)
    assert all(c.warmup_ns for c in analysis.cells)
    for item in rounds_for_plot(recording, analysis):
        assert item.response.count < item.result.completed
        assert dict(zip(*spectrum(item.response), strict=True))[0.5] == item.result.response_ns_p50.value


def test_a_shape_is_widest_where_most_writes_are():
    recording, analysis = analysed()
    item = rounds_for_plot(recording, analysis)[0]
    times_ns, wide = density(item.response)
    assert wide.max() == 1 and wide[0] < 0.5 > wide[-1]
    assert times_ns[wide.argmax()] == pytest.approx(item.result.response_ns_p50.value, rel=0.1)


def test_the_columns_of_a_heat_map_add_up_to_all_writes_of_their_slice():
    recording, analysis = analysed()
    for trace, item in zip(over_time_plot(cells := rounds_for_plot(recording, analysis)).data, cells, strict=True):
        sums = [math.fsum(v for v in column if v == v) for column in zip(*trace["customdata"], strict=True)]
        filled = [total for total in sums if total]
        assert len(filled) == sum(len(r.slices) for r in item.rounds)
        assert filled == pytest.approx([100] * len(filled), rel=0.01)
        assert len(trace["x"]) == len(sums) + 1 and len(trace["y"]) == len(trace["z"]) + 1


@pytest.mark.parametrize("shared_disk", [True, False])
def test_the_parts_of_a_write_add_up_to_its_median_and_its_floor(shared_disk):
    changes = ("distance.miles=[0, 20, 150]", *FEW[1:])
    recording, analysis = analysed(LARGE, shared_disk=shared_disk, changes=changes)
    for item in rounds_for_plot(recording, analysis):
        parts = parts_of(item, recording)
        assert isinstance(parts, Parts)
        floor_ns = parts.near_ns + parts.link_ns + parts.far_ns
        assert floor_ns == pytest.approx(item.result.floor_ns.value, rel=1e-9)
        response_ns = floor_ns + parts.wait_ns + parts.engine_ns - parts.clipped_ns
        assert response_ns == pytest.approx(item.result.response_ns_p50.value, rel=1e-9)
        assert min(parts) >= 0
        if item.result.protocol in ("local", "A"):
            assert parts.link_ns == parts.far_ns == 0


def test_an_engine_is_never_negative_and_the_page_says_that_it_was_clipped():
    recording, analysis = analysed(near_flush_ns=900_000.0, changes=FEW)
    cells = rounds_for_plot(recording, analysis)
    plot = parts_plot(cells, recording)
    assert all(x >= 0 for trace in plot.data for x in trace["x"])
    assert "the engine is drawn as 0" in plot.note
    assert "No part came out below 0" in parts_plot(rounds_for_plot(*analysed()), analysed()[0]).note


def test_void_rounds_are_drawn_as_other_marks_than_good_ones():
    recording, analysis = analysed(void=(("write-C-20", 1), ("write-A-60", 2)), changes=FEW)
    delivered, deviation = link_plots(recording, analysis)
    by_status = {trace["meta"]["status"]: trace for trace in deviation.data}
    assert by_status.keys() == {"ok", "void"}
    assert by_status["ok"]["marker"]["symbol"] != by_status["void"]["marker"]["symbol"]
    assert sum(len(t["x"]) for t in deviation.data) == 2 * len(recording.rounds)
    assert "412 us off" in by_status["void"]["hovertext"][0]
    assert len(delivered.data[1]["x"]) == len(recording.profile.distance.in_miles())


def test_every_choice_is_of_something_that_traces_or_the_layout_have():
    charts = charts_in(page(LARGE))
    text = page(LARGE)
    for name, chart in charts.items():
        figure = text[text.index(f'<figure data-chart="{name}"') :].split("</figure>")[0]
        keys = set(re.findall(r'data-key="([^"]+)"', figure))
        metas = {key for part in [*chart["data"], *chart["marks"]] for key in part.get("meta", {})}
        assert {key for key in keys if not key.startswith("layout.")} <= metas


# Two reports


def both(known=True):
    one, two = analysed(), analysed(seed=2, a_ns=500_000.0)
    result_sets = [result_set_of(report_of(recording), analysis, name)
              for (recording, analysis), name in ((one, "one.json"), (two, "two.json"))]  # fmt: skip
    return compare(result_sets[:1], result_sets[1:], history=hours_alike(*result_sets[0].figures) if known else NO_HISTORY)


def test_a_comparison_draws_every_row_with_its_interval():
    comparison = both()
    plot = change_plot(comparison)
    assert sum(len(trace["x"]) for trace in plot.data) == len(comparison.rows)
    row = next(r for r in comparison.rows if r.metric == "response_p50" and r.labels["protocol"] == "C")
    trace = next(t for t in plot.data if t["meta"] == {"metric": "response_p50", "verdict": row.verdict})
    at = trace["y"].index(f"write, C, {row.labels['miles']:g} miles, depth 1")
    assert trace["x"][at] == pytest.approx(100 * row.change.value, abs=1e-3)
    assert trace["error_x"]["array"][at] == pytest.approx(100 * (row.change.high - row.change.value), abs=1e-3)


def test_a_page_of_two_reports_shows_what_changed_and_one_of_one_does_not():
    recording, analysis = analysed()
    text = page_of(report_of(recording), analysis, "one.json", both()).decode()
    assert 'data-chart="change"' in text and "✘ slower" in text
    assert 'data-chart="change"' not in page()
    Reader(text)


def test_a_page_of_two_runs_without_earlier_ones_calls_nothing_a_change_and_says_that_it_may_be_the_hour():
    recording, analysis = analysed()
    text = page_of(report_of(recording), analysis, "one.json", both(known=False)).decode()
    words = {row.verdict for row in both(known=False).rows if not row.counted}
    assert "differs" in words and words <= {"differs", "alike", "unresolved", "same"}
    assert "✘ slower" not in text and "≠ differs" in text
    assert "What differs between these two runs (a change may be of the hour)" in text
    assert "verdicts are of these two runs only" in text and "nothing is stated about the thing that was measured" in text


# The page


def test_the_page_is_a_whole_document_and_ours():
    reader = Reader(page(LARGE))
    assert reader.open == []
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.tags:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert is_ours(page(LARGE).encode()[:MARKER_WITHIN])
    assert not is_ours(b"<!doctype html><title>another</title>")


def test_nothing_is_fetched():
    text = page(LARGE)
    policy = next(a["content"] for tag, a in Reader(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    for tag, attributes in Reader(text).tags:
        for name in ("src", "href", "data", "action", "srcset"):
            assert not re.match(r"(?:https?:)?//", attributes.get(name, "")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://", text[: text.index('id="plotly"')])


def test_plotly_is_inside_and_whole():
    packed = re.search(r'id="plotly">(.*?)</script>', page(), re.S)[1]
    script = zlib.decompress(base64.b64decode(packed))
    assert b"plotly.js" in script[:100] and len(script) > 4_000_000


def test_the_page_of_forty_cells_is_below_five_megabytes():
    text = page(LARGE.replace("[0, 20, 60, 100, 150, 186]", "[0, 10, 20, 40, 60, 100, 150, 186, 200]"))
    assert len(text.encode()) < 5e6


def test_the_same_report_gives_the_same_page():
    recording, analysis = analysed()
    pages = [page_of(report_of(recording), analysis, "made-up.json") for _ in range(2)]
    assert pages[0] == pages[1]


def test_every_number_of_the_latency_table_can_be_read_without_a_script():
    _, analysis = analysed(LARGE)
    tables = re.sub(r"<script.*?</script>", "", page(LARGE), flags=re.S)
    for c in analysis.cells:
        assert f"{c.response_ns_p50.value / 1e6:.3f}"[:4] in tables
    for claim in analysis.claims:
        assert {"pass": "✔ PASS", "fail": "✘ FAIL", "unknown": "? UNKNOWN"}[claim.verdict] in tables
    assert "needs n≥3" in tables


def test_hostile_words_stay_words():
    recording, analysis = analysed()
    cells = [msgspec.structs.replace(c, name=HOSTILE) for c in analysis.cells]
    hostile = changed(
        recording, notes=[HOSTILE], profile_name=HOSTILE, command=[HOSTILE], id=HOSTILE,
        profile=msgspec.structs.replace(recording.profile, title=HOSTILE),
        rounds=[msgspec.structs.replace(r, reasons=[HOSTILE]) for r in recording.rounds],
    )  # fmt: skip
    clean = Reader(page())
    text = page_of(report_of(hostile), msgspec.structs.replace(analysis, cells=cells), HOSTILE).decode()
    reader = Reader(text)
    assert [tag for tag, _ in reader.tags if tag == "script"] == [tag for tag, _ in clean.tags if tag == "script"]
    assert not [tag for tag, attributes in reader.tags if tag == "img" or "onerror" in attributes]
    for chart in charts_in(text).values():
        for trace in chart["data"]:
            words = trace.get("hovertext", [])
            assert not any("<script" in word or "<img" in word for word in ([words] if isinstance(words, str) else words))
            assert "<script" not in trace.get("name", "")


def test_an_interrupted_run_and_journals_in_memory_are_confessed_at_the_top():
    text = page(interrupted=True, durability="memory", changes=FEW)
    top = text[: text.index("<main>")]
    assert "INTERRUPTED" in top and "Journals in memory" in top
    assert "(journals in memory)" in text
    assert "INTERRUPTED" not in page()


def test_a_link_of_streams_is_confessed_at_the_top_and_beside_its_figures():
    text = page(link="relay", changes=FEW)
    assert "Stream-level: bytes were delayed, not packets" in text[: text.index("<main>")]
    assert text.count("(stream-level)") > 3
    assert "stream-level" not in page(link="ferry", changes=FEW).lower()


def test_a_recording_of_nothing_says_so():
    recording, _ = analysed()
    empty = changed(recording, cells=[], rounds=[], floors=[], drills=[], interrupted=True)
    text = page_of(report_of(empty), analyse(empty), "empty.json").decode()
    assert "No cell was measured" in text
    assert charts_in(text) == {}
    Reader(text)


@pytest.mark.parametrize("options", [
    {"changes": ONE},
    {"changes": ONE, "writes": 0},
    {"changes": ONE, "writes": 1},
    {"changes": ONE, "writes": 4},
    {"always_void": ("write-C-20",), "changes": FEW},
    {"changes": ONE, "always_void": ("write-C-20",)},
    {"saturated": True, "changes": FEW},
])  # fmt: skip
def test_few_or_strange_writes_make_a_page_all_the_same(options):
    text = page(**options)
    Reader(text)
    assert charts_in(text)["distance"]["data"] is not None
    assert "NaN" not in text[text.index('id="charts"') : text.index('id="plotly"')]


def test_a_cell_without_a_good_round_says_why_in_the_table():
    assert "not one good round" in page(always_void=("write-C-20",), changes=FEW)


def test_an_estimate_without_an_interval_has_no_bar():
    recording, analysis = analysed()
    bare = [msgspec.structs.replace(c, response_ns_p50=Estimate(value=1e6, warnings=[few_rounds(1)])) for c in analysis.cells]
    plot = distance_plot(msgspec.structs.replace(analysis, cells=bare), recording.profile.distance)
    trace = next(t for t in plot.data if t["mode"] == "markers" and t["meta"]["quantile"] == "p50")
    assert trace["error_y"]["array"] == trace["error_y"]["arrayminus"] == [0.0] * len(trace["x"])
    assert "one round only" in trace["hovertext"][0]


def test_an_empty_spectrum_is_said():
    recording, analysis = analysed(changes=ONE, writes=0)
    assert spectrum_plot(rounds_for_plot(recording, analysis)).caption == "No cell has enough writes for a quantile."
