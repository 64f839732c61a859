"""Budgets: what a file may promise, how it is refused, and what is proposed from a report."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from console import ROOT
from farwrite.analysis.analyse import analyse
from farwrite.analysis.figure import METRICS, Metric
from farwrite.base.errors import UsageError
from farwrite.compare.figures import read_result_set, result_set_of
from farwrite.gate.budget import KINDS, Budgets, load, own_budgets, parse
from farwrite.gate.gate import gate
from farwrite.gate.suggest import suggest
from farwrite.recording import SCHEMA_VERSION, Report
from make_figures import at, figure, hours_alike, measured, result_set
from make_recording import SMALL, make_recording

FILE = """
title = "Promises"
alpha = 0.01
looks = 2

[[budget]]
name = "a write over 20 miles"
metric = "response_p99"
where = { protocol = "C", miles = [20, 150] }
at_most = "2 ms"
reason = \"\"\"
C1
of 2008\"\"\"

[[budget]]
metric = "greatest_miles_p99"
where.budget = "2000 us"
where.route = 1
at_least = "100 miles"
gating = false
"""


def one(lines: str, metric: str = "response_p99", metrics=METRICS):
    return parse(f'[[budget]]\nmetric = "{metric}"\n{lines}\n', "b.toml", metrics).budgets[0]


def refusal(lines: str, metric: str = "response_p99") -> str:
    with pytest.raises(UsageError) as refused:
        one(lines, metric)
    return str(refused.value)


# What is understood


def test_a_file_is_read_as_it_is_written():
    budgets = parse(FILE, "b.toml")
    assert (budgets.title, budgets.alpha, budgets.looks, budgets.level) == ("Promises", 0.01, 2, 0.005)
    first, second = budgets.budgets
    assert (first.name, first.kind, first.limit, first.reason) == ("a write over 20 miles", "at_most", 2e6, "C1 of 2008")
    assert first.where == {"protocol": ["C"], "miles": [20.0, 150.0]} and first.gating
    assert second.limit == 100 and not second.gating and second.place == "b.toml:15"
    assert second.where == {"budget": ["2 ms"], "route": [1.0]}


def test_a_budget_without_a_name_is_called_by_what_it_is_about():
    assert one('at_most = "2 ms"\nwhere = { protocol = "C", miles = [20, 150] }').name == "response_p99, C, 20 miles or 150 miles"


@pytest.mark.parametrize(("metric", "written", "limit"), [
    ("response_p50", 'at_most = "250 us"', 250_000.0),
    ("lag_bytes_max", 'at_most = "64 KiB"', 65536.0),
    ("throughput", 'at_least = "2000 /s"', 2000.0),
    ("goodput", 'at_least = "20 MB/s"', 20e6),
    ("k_p50", "at_most = 1.05", 1.05),
    ("lost_writes", "equals = 0", 0.0),
    ("greatest_miles_p50", "at_least = 60", 60.0),
    ("greatest_miles_p50", 'at_least = "160.9344 km"', 100.0),
    ("recovery_time", 'not_worse_by = "20 ms"', 20e6),
    ("k_p50", "not_worse_by = 0.02", 0.02),
    ("greatest_miles_p99", 'not_worse_by = "3 miles"', 3.0),
])  # fmt: skip
def test_a_limit_is_in_the_unit_of_its_metric(metric, written, limit):
    budget = one(written, metric)
    assert budget.limit == pytest.approx(limit) and not budget.share


@pytest.mark.parametrize("metric", ["response_p50", "throughput", "flushes_per_write", "lost_writes"])
def test_a_percentage_is_a_share_of_the_baseline(metric):
    budget = one('not_worse_by = "2.5 %"', metric)
    assert budget.limit == 0.025 and budget.share


def test_another_tools_metric_may_be_promised_when_its_sheet_has_it():
    metrics = {**METRICS, "clat_p99": Metric("ns", "less", False, "")}
    assert one('at_most = "1 ms"', "clat_p99", metrics).limit == 1e6


# What is refused


@pytest.mark.parametrize(("lines", "said"), [
    ('at_mos = "2 ms"', 'b.toml:3: budget.0.at_mos: unknown key "at_mos" (did you mean "at_most"?)'),
    ('at_most = "2 mss"', 'b.toml:3: budget.0.at_most: unit "mss" in "2 mss" is unknown'),
    ('at_most = "2"', "lacks a unit"),
    ("at_most = 2", 'b.toml:3: budget.0.at_most: 2 is no limit here: write it like "2 ms"'),
    ("at_most = true", "no limit here"),
    ("at_most = [1]", "no limit here"),
    ('at_most = "-2 ms"', "finite and not negative"),
    ('at_most = "nan ms"', "not a number"),
    ('at_most = "1e999 s"', "not finite"),
    ('at_most = "0 ms"', "never 0"),
    ('equals = "2 ms"', "no measurement equals anything"),
    ('not_worse_by = "3 ms"', 'such as "5 %"'),
    ('not_worse_by = "-5 %"', "no limit here|percentage"),
    ("", "exactly one of at_most, at_least, equals, not_worse_by is needed; it has none"),
    ('at_most = "2 ms"\nat_least = "1 ms"', "it has at_most and at_least"),
    ('at_most = "2 ms"\nwhere = { miles = nan }', "b.toml:4: budget.0.where: miles = nan"),
    ('at_most = "2 ms"\nwhere = { miles = [] }', "selects nothing"),
    ('at_most = "2 ms"\nwhere = { miles = true }', "a text or a number"),
    ('at_most = "2 ms"\nwhere = 3', "b.toml:4: budget.0.where"),
    ('at_most = "2 ms"\nname = 3', "b.toml:4: budget.0.name"),
    ('at_most = "2 ms"\ngating = "no"', "b.toml:4: budget.0.gating"),
])  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(lines, said):
    answer = refusal(lines)
    assert answer.startswith("b.toml:") and any(words in answer for words in said.split("|")), answer


@pytest.mark.parametrize(("metric", "lines", "said"), [
    ("respons_p99", 'at_most = "2 ms"', 'b.toml:2: budget.0.metric: unknown metric "respons_p99" (did you mean "response_p99"?)'),
    ("k_p50", "at_most = nan", "finite"),
    ("k_p50", "at_most = inf", "finite"),
    ("k_p50", "at_most = -1", "not negative"),
    ("k_p50", f"at_most = 1{'0' * 400}", "finite"),
    ("k_p50", 'not_worse_by = "5 %"', "write the difference, such as 0.02"),
    ("rtt_p50", 'not_worse_by = "5 %"', "no better direction"),
    ("throughput", 'not_worse_by = "100 %"', "by 100 %"),
    ("flushes_per_write", "not_worse_by = 0.1", "percentage"),
])  # fmt: skip
def test_a_limit_that_its_metric_cannot_have_is_refused(metric, lines, said):
    assert said in refusal(lines, metric)


@pytest.mark.parametrize(("head", "said"), [
    ("alpha = 0", "b.toml:1: alpha"), ("alpha = nan", "alpha"), ("alpha = 0.5", "alpha"), ("looks = 4", "b.toml:1: looks"),
    ("looks = 0", "looks"), ("alfa = 0.05", '(did you mean "alpha"?)'), ("title = 3", "title"), ("= 3", "b.toml"),
])  # fmt: skip
def test_a_head_that_cannot_be_is_refused(head, said):
    with pytest.raises(UsageError) as refused:
        parse(f'{head}\n[[budget]]\nmetric = "lost_writes"\nequals = 0\n', "b.toml")
    assert said in str(refused.value)


def test_two_budgets_of_one_name_are_refused():
    twice = '[[budget]]\nmetric = "lost_writes"\nequals = 0\n' * 2
    with pytest.raises(UsageError, match=r"b.toml:5: .*give each a name of its own"):
        parse(twice, "b.toml")


def test_a_file_without_budgets_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        parse("title = 'nothing'", "b.toml")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="read the budgets"):
        load(tmp_path / "no.toml")


# Whatever is written


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=2),
    st.sampled_from(["2 ms", "5 %", "60 miles", "1e5 /s", "٣ ms", "1 KiB", "1e400 s", "%", "5 %%"]),
)  # fmt: skip
TABLE = st.dictionaries(
    st.sampled_from([*KINDS, "metric", "name", "where", "reason", "gating", "at_mots", ""]),
    st.one_of(ANYTHING, st.dictionaries(st.sampled_from(["miles", "budget", "x y", ""]), ANYTHING, max_size=2),
              st.sampled_from(sorted(METRICS))),
    max_size=5,
)  # fmt: skip


def toml(value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return msgspec.json.encode(value).decode()


VALID = st.sampled_from([
    {"metric": "response_p99", "at_most": "2 ms"}, {"metric": "k_p50", "not_worse_by": 0.02},
    {"metric": "lost_writes", "equals": 0},
])  # fmt: skip


@given(st.lists(st.one_of(TABLE, st.builds(lambda valid, table: {**valid, **table}, VALID, TABLE)), max_size=3))
@example([{"metric": "k_p50", "at_most": 10**400}])
@example([{"metric": "k_p50", "at_most": 1, "where": {"miles": "20"}}])
@settings(max_examples=400, deadline=None)
def test_whatever_tables_are_written_are_understood_or_refused(tables):
    lines = []
    for table in tables:
        lines.append("[[budget]]")
        lines += [f"{toml(key)} = {toml(value)}" for key, value in table.items() if value is not None]
    try:
        assert isinstance(parse("\n".join(lines), "b.toml"), Budgets)
    except UsageError as refused:
        assert str(refused).startswith("b.toml")


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_text_is_written_is_understood_or_refused(text):
    with pytest.raises(UsageError):
        parse(text + "\n[[budget]]", "b.toml")


# What is proposed


def report_sheet(seed: int, source: str):
    made = make_recording(SMALL, seed=seed)
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=made), analyse(made), source)


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_a_report_keeps_the_budgets_that_were_proposed_from_it(seeds):
    result_sets = [report_sheet(seed, f"run {seed}") for seed in seeds]
    proposed = parse(suggest(result_sets), "proposed.toml")
    found = gate(result_sets[0], proposed, baseline=result_sets[0], history=hours_alike(*result_sets[0].figures))
    assert found.verdict == "pass", [item.sentence for item in found.verdicts if item.verdict != "pass"]
    kinds = {(item.metric, item.kind) for item in proposed.budgets}
    assert {("lost_writes", "equals"), ("k_p50", "at_most"), ("wire_bytes_per_user_byte", "at_most"),
            ("greatest_miles_p50", "at_least"), ("response_p50", "not_worse_by")} <= kinds  # fmt: skip
    assert all(item.reason for item in proposed.budgets)


def test_losses_are_promised_only_where_there_were_none():
    drill = {"drill": "kill", "miles": 150.0}
    text = suggest([result_set(figure("drill_lost_writes", 0, {**drill, "protocol": "C"}),
                          figure("drill_lost_writes", 7, {**drill, "protocol": "A"}))])  # fmt: skip
    budget, = parse(text).budgets
    assert budget.where == {"protocol": ["C"]} and budget.limit == 0


def test_more_noise_asks_for_more_room():
    def room(noise):
        text = suggest([result_set(measured("response_p50", [1e6, 1e6 * (1 + noise), 1e6 * (1 - noise), 1e6]))])
        return parse(text).budgets[0].limit

    assert room(0.001) == 0.01 and room(0.01) == 0.02 and room(0.05) == 0.20
    with pytest.raises(UsageError, match="at least one"):
        room(0.5)


def test_what_cannot_be_judged_is_not_proposed():
    text = suggest([result_set(
        figure("lost_writes", 0), measured("response_p50", [1e6]), measured("k_p50", [1.0, 1.1, 1.0], withheld=["late"]),
        figure("response_p99", None, warnings=["too few"]), figure("flushes_per_write", 0.5, without=[0.5, 0.6]),
    )])  # fmt: skip
    assert [item.metric for item in parse(text).budgets] == ["lost_writes"]


def test_names_that_toml_must_quote_are_quoted():
    odd = at(20, **{"name": 'a "b"\\\n\x7f#', "a b.c": "x"})
    text = suggest([result_set(measured("response_p50", [1e6, 1.001e6, 0.999e6], odd), source="an\nodd\x00 file")])
    assert parse(text).budgets[0].where["name"] == ['a "b"\\\n\x7f#']


def test_the_projects_own_budgets_are_kept_by_its_baseline():
    own = load(ROOT / "results" / "budgets.toml")
    found = gate(read_result_set(ROOT / "results" / "baselines" / "limits.json"), own)
    assert found.verdict == "pass" and found.tests == 0
    assert {item.metric for item in own.budgets if item.gating} >= {"lost_writes", "damaged_writes", "flushes_per_write"}
    assert all(METRICS[item.metric].exact for item in own.budgets if item.gating)
    assert all(item.reason for item in own.budgets)


@pytest.mark.parametrize(("alpha", "looks", "taken"), [
    (0.25, 1, True), (0.26, 1, False), (0.0, 1, False), (1e-9, 1, True), (0.05, 3, True), (0.05, 4, False), (0.05, 0, False),
])  # fmt: skip
def test_a_gate_may_err_once_in_four_and_be_asked_three_times_at_most(alpha, looks, taken):
    text = f'alpha = {alpha}\nlooks = {looks}\n[[budget]]\nmetric = "k_p50"\nat_most = 1\n'
    if taken:
        assert parse(text).level == alpha / looks
    else:
        with pytest.raises(UsageError):
            parse(text)


def test_the_budgets_of_a_run_are_those_of_a_file():
    tables = [SimpleNamespace(quantile=0.99, limit_ns=2_000_000, miles=20.0, text="p99 2 ms at 20 miles"),
              SimpleNamespace(quantile=0.999, limit_ns=5_000_000, miles=None, text="p99.9 5 ms")]  # fmt: skip
    near, anywhere = own_budgets(tables).budgets
    assert (near.metric, near.kind, near.limit, near.where) == ("response_p99", "at_most", 2e6, {"miles": [20.0]})
    assert (anywhere.metric, anywhere.where, anywhere.name, anywhere.gating) == ("response_p999", {}, "p99.9 5 ms", True)
    assert own_budgets(tables).alpha == 0.05 and own_budgets(tables).looks == 1


@pytest.mark.parametrize(("metric", "lines", "taken"), [
    ("k_p50", "at_most = 0", True), ("response_p50", 'at_most = "0 ms"', False), ("lost_writes", "at_most = 0", True),
    ("response_p50", 'not_worse_by = "150 %"', True), ("throughput", 'not_worse_by = "99.9 %"', True),
    ("throughput", 'not_worse_by = "100 %"', False), ("k_p50", 'at_most = "1"', False), ("k_p50", "at_most = [1]", False),
    ("k_p50", "at_most = true", False), ("k_p50", "at_most = -1", False), ("k_p50", "at_most = inf", False),
    ("k_p50", "at_most = {}", False), ("response_p50", "at_most = 5", False), ("greatest_miles_p50", "at_least = 60", True),
    ("lost_writes", "equals = 0", True), ("response_p50", 'equals = "1 ms"', False), ("rtt_p50", 'not_worse_by = "5 %"', False),
    ("k_p50", 'not_worse_by = "5 %"', False), ("k_p50", "not_worse_by = 0.02", True), ("response_p50", "not_worse_by = 5", False),
    ("lag_writes_max", "not_worse_by = 5", True), ("flushes_per_write", "not_worse_by = 0.5", False),
])  # fmt: skip
def test_a_limit_is_one_that_its_metric_can_have(metric, lines, taken):
    if taken:
        assert one(lines, metric).metric == metric
    else:
        assert metric in refusal(lines, metric) or "no limit here" in refusal(lines, metric) or "finite" in refusal(lines, metric)


@pytest.mark.parametrize("metric", ["k_p50", "lost_writes", "greatest_miles_p50"])
def test_a_text_without_a_unit_is_no_limit_of_what_has_none(metric):
    assert ("no limit here: write it like" in refusal('at_most = "1"', metric)) == (metric != "greatest_miles_p50")


@pytest.mark.parametrize("where", ["miles = [[1]]", "miles = {}", "miles = []", "miles = true", "miles = nan", "miles = [inf]"])
def test_a_label_is_a_text_or_a_number_or_a_list_of_them(where):
    said = refusal(f'where.{where}\nat_most = "2 ms"')
    assert "miles" in said and ("a label is a text or a number" in said or "selects nothing" in said)
