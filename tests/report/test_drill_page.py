"""A drill's page: the timeline of each trial and the phases of its recovery, as plain data and in sentences."""

import msgspec

from farwrite.analysis.drill_answer import answer_of
from farwrite.analysis.drill_recording import Done
from farwrite.report.drill_page import page_of_drill
from farwrite.report.html import is_ours
from farwrite.report.plots.drill import POINTS_MAX, PUBLISHED, lanes_of, phases_plot, thinned, timeline_plot
from make_drill import KILL, MS, recording, trial

TWO = recording(trial(0), trial(1))


def test_the_page_is_whole_and_ours_and_escapes_what_a_file_says():
    hostile = msgspec.structs.replace(TWO, name="</script><b>x", scenario=msgspec.structs.replace(TWO.scenario, title="<i>t</i>"))
    data = page_of_drill(hostile, answer_of(hostile), "drill.json")
    assert is_ours(data) and b"<b>x" not in data and b"<i>t</i>" not in data
    for word in (b'data-chart="timeline"', b'data-chart="phases"', b"Recovery in phases", b"acknowledged"):
        assert word in data


def test_a_timeline_has_every_trial_its_outage_who_served_and_a_line_for_each_event():
    plot = timeline_plot(TWO)
    msgspec.json.encode(plot.drawing)
    assert {trace["meta"]["trial"] for trace in plot.data} == {"0", "1"}
    lanes = {trace["y"][0] for trace in plot.data if trace.get("yaxis") == "y3"}
    assert {"served by", "outage", "near", "far stands"} <= lanes
    lines = [mark for mark in plot.marks if "shape" in mark]
    assert len(lines) == 2 and abs(lines[0]["shape"]["x0"] - KILL / 1e9) < 0.01


def test_a_fault_is_in_force_until_what_ends_it():
    def done(text, at_ms):
        return Done(text=text, kind="fault", planned_ns=0, begin_ns=at_ms * MS, end_ns=at_ms * MS)

    made = trial(0, events=[done("lossy near - far by 0.01", 100), done("kill near", 200), done("heal far - near", 300)])
    found = {words: (begin // MS, end // MS) for lane, begin, end, _, words in lanes_of(made, 250 * MS, 900 * MS)}
    assert found["lossy near - far by 0.01"] == (100, 300) and found["kill near"] == (200, 900)


def test_of_many_latencies_the_slowest_are_drawn():
    points = [(index, 1 if index % 977 else 10_000 + index) for index in range(50_000)]
    kept = thinned(points)
    assert len(kept) <= POINTS_MAX + 2 and {one for one in points if one[1] > 1} <= set(kept)


def test_phases_stand_beside_others_figures_with_their_sources():
    plot = phases_plot(TWO, answer_of(TWO))
    assert "kill near: detect" in plot.caption
    assert all(one.source and one.system in plot.note for one in PUBLISHED)
    assert sum(trace["x"][0] for trace in plot.data[:5]) > 1


def test_a_drill_in_which_nobody_took_over_has_no_phases_and_says_so():
    made = recording(trial(0, back_ns=None, notes=[]))
    assert "no phases" in phases_plot(made, answer_of(made)).caption
