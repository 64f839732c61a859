"""The pytest plugin without a lab: what it costs, what it registers, how it judges and how it tells."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import farwrite
from farwrite.analysis.figure import Figure, ResultSet
from farwrite.analysis.result import Estimate
from farwrite.base.errors import UsageError
from farwrite.base.physics import rtt_ns_of
from farwrite.base.reasons import remark, sentences
from farwrite.testing.budget import Quantity, Skipped, asked_quantile, check, judge, quantile_of, quantity
from farwrite.testing.lab import distance
from farwrite.testing.plugin import budgets_of
from make_figures import as_reasons

pytest_plugins = ["pytester"]

HEAVY = {"numpy", "numba", "msgspec", "rich", "scipy", "pyroute2"}


@pytest.fixture
def pytester(pytester, monkeypatch):
    """Without the plugin of hypothesis, which has no part in this and takes a second of every pytest that is started here."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
    return pytester


def estimate(value, low, high, count=100, without=()):
    return Estimate(value=value, low=low, high=high, confidence=0.95, count=count, without=list(without))


# What it costs everybody who has farwrite installed.


def test_the_plugin_imports_nothing_heavy():
    said = subprocess.run(
        [sys.executable, "-c", "import sys, farwrite.testing.plugin; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert not HEAVY & set(said)
    assert [name for name in said if name.startswith("farwrite.")] == ["farwrite.testing", "farwrite.testing.plugin"]


def test_a_run_that_asks_for_no_fixture_of_ours_loads_nothing_of_ours(pytester):
    pytester.makepyfile(
        "import sys\ndef test_it(): print('loaded', *[n for n in sys.modules if n.startswith('farwrite')])"
    )
    run = pytester.runpytest_subprocess("-s")
    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*loaded farwrite farwrite.testing farwrite.testing.plugin"])
    run.stdout.no_fnmatch_line("*farwrite budgets*")
    assert not any("farwrite.base.errors" in line for line in run.outlines)


def installed_wheel(directory):
    """A directory of packages in which farwrite lies as a wheel puts it there: its files are on record."""
    source = Path(farwrite.__file__).parent
    (directory / "farwrite").symlink_to(source)
    facts = directory / f"farwrite-{farwrite.__version__}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: farwrite\nVersion: {farwrite.__version__}\n")
    (facts / "entry_points.txt").write_text("[pytest11]\nfarwrite = farwrite.testing.plugin\n")
    files = [path.relative_to(source.parent) for path in source.rglob("*.py")]
    (facts / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return directory


def test_kernels_keep_their_asserts_as_written_where_farwrite_is_installed_as_a_wheel(pytester, monkeypatch):
    """pytest rewrites the asserts of all packages of a distribution with a plugin, which Numba could not compile."""
    packages = pytester.mkdir("packages")
    monkeypatch.setenv("PYTHONPATH", str(installed_wheel(packages)))
    pytester.makepyfile(f"""
        import farwrite
        from farwrite.engine import journal_kernel

        def test_it():
            assert farwrite.__file__.startswith({str(packages)!r})
            assert not [name for name in vars(journal_kernel) if name.startswith("@py")]
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


# What it registers.


def test_the_options_and_the_ini_key_are_told_by_help(pytester):
    pytester.runpytest_subprocess("--help").stdout.fnmatch_lines(
        [
            "*--farwrite-link={auto,*",
            "*--farwrite-require-lab*",
            "*--farwrite-inconclusive={fail,pass}*",
            "*farwrite_link*",
        ]
    )


def test_the_marker_and_the_fixtures_are_documented(pytester):
    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(["*distance(miles=*"])
    pytester.runpytest_subprocess("--fixtures").stdout.fnmatch_lines(["farwrite_lab*", "farwrite_budget*"])


def test_a_list_in_the_marker_runs_the_test_at_each_distance(pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.distance(miles=[20, 150])
        def test_miles(farwrite_lab): ...

        @pytest.mark.distance(rtt=("1 ms", "2 ms"), strict=True)
        def test_rtt(farwrite_lab): ...

        @pytest.mark.distance(20)
        def test_bare(farwrite_lab): ...
    """)
    run = pytester.runpytest_subprocess("--collect-only", "-q", "--strict-markers")
    run.stdout.fnmatch_lines(
        ["*::test_miles[[]miles=20]", "*[[]miles=150]", "*::test_rtt[[]rtt=1 ms]", "*[[]rtt=2 ms]", "*::test_bare"]
    )


def test_a_marker_that_makes_no_sense_is_told_at_collection(pytester):
    for index, words in enumerate(("mile=20", "20, 30", "miles=[1], km=[2]")):
        text = f"import pytest\n@pytest.mark.distance({words})\ndef test_it(farwrite_lab): ..."
        pytester.makepyfile(**{f"test_{index}": text})
    run = pytester.runpytest_subprocess()
    run.assert_outcomes(errors=3)
    run.stdout.fnmatch_lines(
        [
            "distance: 'mile' is unknown (known: miles, km, rtt, route_factor, strict).",
            "distance: one bare number is miles, and there are more*",
            "distance: miles and km are both lists; give one.",
        ]
    )


# A machine that cannot emulate a distance.

UNFIT = """
    import pytest
    from farwrite.base.errors import UnfitError
    from farwrite.testing.lab import Keeper

    @pytest.fixture(autouse=True, scope="session")
    def unfit():
        def refuse(keeper):
            raise UnfitError(f"No way to emulate a distance here ({keeper.link}).")
        Keeper.open = refuse
"""


def test_where_no_distance_can_be_emulated_the_test_is_skipped_with_the_reason(pytester):
    pytester.makeconftest(UNFIT)
    pytester.makepyfile("def test_one(farwrite_lab): ...\ndef test_two(farwrite_lab): ...\ndef test_other(): ...")
    run = pytester.runpytest_subprocess("-rs", "--farwrite-link", "ferry")
    run.assert_outcomes(skipped=2, passed=1)
    run.stdout.fnmatch_lines(["SKIPPED*No way to emulate a distance here (ferry)."])


def test_where_a_lab_is_required_the_reason_is_an_error(pytester):
    pytester.makeconftest(UNFIT)
    pytester.makeini("[pytest]\nfarwrite_link = netem")
    pytester.makepyfile("def test_one(farwrite_lab): ...")
    run = pytester.runpytest_subprocess("--farwrite-require-lab")
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["--farwrite-require-lab: No way to emulate a distance here (netem)."])


def test_a_link_that_does_not_exist_is_named(pytester):
    pytester.makeini("[pytest]\nfarwrite_link = carrier pigeon")
    pytester.makepyfile("def test_one(farwrite_lab): ...")
    run = pytester.runpytest_subprocess()
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(['*farwrite_link: "carrier pigeon" is none of auto, netem, ferry.'])


# Distances.


def test_a_distance_is_miles_kilometres_or_a_round_trip():
    assert distance().rtt_ns == 0
    assert distance(20).rtt_ns == rtt_ns_of(20)
    assert distance(km=32.18688) == distance(miles=20)
    assert distance(rtt="2 ms").rtt_ns == 2_000_000
    assert distance(rtt="2 ms").miles == pytest.approx(126.9, abs=0.1)
    assert distance(20, route_factor=2).rtt_ns == rtt_ns_of(40)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"miles": 1, "km": 1}, "say one of miles, km and rtt, not miles and km"),
        ({"miles": -1}, "miles=-1 is not a length"),
        ({"miles": math.nan}, "miles=nan is not a length"),
        ({"km": "20"}, "km='20' is not a length"),
        ({"rtt": "2"}, 'its rtt: "2" lacks a unit'),
        ({"rtt": "-2 ms"}, "is less than none"),
        ({"miles": 1, "route_factor": 0.5}, "no route is shorter than the straight line"),
    ],
)
def test_a_distance_that_makes_no_sense_is_refused(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        distance(**words)


# Judging.


@pytest.mark.parametrize(
    ("low", "high", "at_most", "at_least", "verdict"),
    [
        (1, 2, 3, None, "pass"),
        (1, 2, 2, None, "pass"),  # The limit itself is within.
        (1, 3, 2, None, "unknown"),
        (2, 3, 2, None, "unknown"),
        (2.1, 3, 2, None, "fail"),
        (2, 3, None, 2, "pass"),
        (1, 3, None, 2, "unknown"),
        (1, 1.9, None, 2, "fail"),
        (2, 3, 4, 1, "pass"),
        (5, 6, 4, 1, "fail"),
        (0.1, 0.2, 4, 1, "fail"),
        (3, 5, 4, 1, "unknown"),
        (0, 5, 4, 1, "unknown"),
    ],
)
def test_only_an_interval_on_one_side_of_the_limit_decides(low, high, at_most, at_least, verdict):
    assert judge(Quantity(estimate((low + high) / 2, low, high)), at_most, at_least)[0] == verdict


def test_what_has_no_value_or_no_interval_is_unknown_and_says_why():
    assert judge(Quantity(Estimate(value=None, warnings=[remark("nobody looked")])), 1) == ("unknown", "nobody looked")
    assert judge(Quantity(estimate(math.inf, math.inf, math.inf)), 2)[0] == "fail"  # It never ended.
    assert judge(Quantity(Estimate(value=1.0)), 2) == ("unknown", "the value has no interval")


def test_a_quantile_has_the_interval_of_its_order_statistics():
    found = quantile_of([6, 1, 5, 2, 4, 3], 0.5)  # The least sample for a median: 1 - 2 / 2^6 = 96.9 %.
    assert (found.value, found.low, found.high, found.count) == (3, 1, 6, 6)
    assert found.confidence == pytest.approx(1 - 2 / 2**6)
    assert quantile_of(range(5), 0.5).value is None
    assert quantile_of(range(368), 0.99).high == 367
    assert sentences(quantile_of(range(367), 0.99).warnings) == ["a 95 % interval of p99 needs n >= 368, and there are 367"]
    assert quantile_of([], 0.99).value is None
    assert sentences(quantile_of([1.0, math.nan] * 10, 0.5).warnings) == ["some samples are not numbers (NaN)"]


@pytest.mark.parametrize(
    ("name", "quantile", "q"),
    [
        ("commit p99", None, 0.99),
        ("commit_p50", None, 0.5),
        ("p99.9 of a commit", None, 0.999),
        ("response_p999", None, 0.999),
        ("the median", None, 0.5),
        ("commit", "p90", 0.9),
        ("commit p99", 0.5, 0.5),
    ],
)
def test_the_quantile_is_the_one_asked_or_the_one_in_the_name(name, quantile, q):
    assert asked_quantile(name, quantile) == pytest.approx(q)


@pytest.mark.parametrize(
    ("name", "quantile"), [("commit", None), ("p50 or p99", None), ("http2 ip4", None), ("x", 1.0), ("x", "p0")]
)
def test_a_quantile_that_is_not_clear_is_asked_for(name, quantile):
    with pytest.raises(UsageError, match="quantile"):
        asked_quantile(name, quantile)


SAMPLES_S = [0.001 + i * 1e-6 for i in range(1000)]  # 1 to 2 ms.


def test_a_budget_that_is_kept_says_value_interval_count_and_limit():
    assert check("commit p50", SAMPLES_S, unit="s", at_most="2 ms") == (
        "commit p50",
        "pass",
        "commit p50 is 1.50 ms (95.4 % interval 1.47 ms to 1.53 ms, n 1,000), as promised at most 2.00 ms.",
    )


def test_a_budget_that_is_broken_says_so():
    judged = check("commit p99", SAMPLES_S, unit="s", at_most="1 ms", at_least="0.5 ms")
    assert judged.verdict == "fail"
    assert judged.sentence.endswith("n 1,000), but was promised to be at most 1.00 ms and at least 0.500 ms.")


def test_a_budget_inside_the_interval_and_one_with_too_few_samples_are_unknown():
    judged = check("commit p50", SAMPLES_S, unit="s", at_most="1.5 ms")
    assert judged.verdict == "unknown"
    assert "whether that is at most 1.50 ms is unknown: the limit lies inside the interval" in judged.sentence
    judged = check("commit p99", SAMPLES_S[:100], unit="s", at_most="1 s")
    assert judged.verdict == "unknown"
    assert "needs n >= 368, and there are 100 (budget: at most 1.00 s)" in judged.sentence


def test_numbers_and_estimates_are_judged_as_they_are():
    assert check("lost writes", 0, at_most=0) == ("lost writes", "pass", "lost writes is 0, as promised at most 0.")
    assert check("lost writes", 1, at_most=0).verdict == "fail"
    assert (
        check("outage", 2_500_000_000, at_most="2 s").sentence
        == "outage is 2.50 s, but was promised to be at most 2.00 s."
    )
    assert check("outage", 2.5, unit="s", at_most="3 s").verdict == "pass"
    assert check("outage", math.nan, at_most="3 s").verdict == "unknown"
    assert check("rate", estimate(600, 550, 650), at_least="500 /s").sentence == (
        "rate is 600 /s (95 % interval 550 /s to 650 /s, n 100), as promised at least 500 /s."
    )
    assert check("reach", estimate(90, 80, 100), at_least="100 km").verdict == "pass"
    assert check("lag", estimate(4096, 4096, 8192), at_most="4 KiB").verdict == "unknown"


@pytest.mark.parametrize(
    ("measured", "options", "sentence"),
    [
        ([1, 2], {"unit": "s"}, "needs a limit"),
        ([1, 2], {"at_most": "2 ms"}, "say the unit of the samples"),
        ([1, 2], {"at_most": "2 ms", "unit": "sec"}, 'unit "sec" is unknown'),
        ([1, 2], {"at_most": "2 KiB", "unit": "s"}, 'its limit: unit "KiB" in "2 KiB" is unknown'),
        (1, {"at_most": "2 parsec"}, 'unit "parsec" is unknown'),
        (object(), {"at_most": "2 ms"}, "this is object"),
        ("no/such/report.json", {"at_most": "2 ms"}, "read the report no/such/report.json"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(measured, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        check("commit p99", measured, **options)


def result_set(**changes):
    """A result set of three figures."""
    figures = [
        Figure(metric="response_p99", labels={"protocol": "C", "miles": miles}, unit="ns", better="less", exact=False,
               estimate=estimate(value, value - 1e5, value + 1e5, without=[value - 1e4, value, value + 1e4]),
               withheld=as_reasons(withheld))
        for miles, value, withheld in ((20.0, 1e6, []), (150.0, 3e6, []), (300.0, 3e6, ["the generator was late"]))
    ]  # fmt: skip
    return ResultSet(kind="farwrite", source="a.json", id="a", started_utc="", identity={}, figures=figures, **changes)


def test_a_figure_of_a_report_is_found_by_metric_and_labels():
    assert check("response_p99", result_set(), where={"miles": 20}, at_most="2 ms").verdict == "pass"
    assert check("response p99", result_set(), where={"miles": 150, "protocol": "C"}, at_most="2 ms").verdict == "fail"
    assert check("C at 150", result_set(), where={"metric": "response_p99", "miles": 150}, at_most="4 ms").verdict == "pass"
    assert check("C at 150", result_set().figures[1], at_most="4 ms").verdict == "pass"


def test_a_figure_on_which_no_verdict_may_rest_gives_none():
    judged = check("response_p99", result_set(), where={"miles": 300}, at_most="4 ms")
    assert judged.verdict == "unknown"
    assert judged.sentence.endswith("the generator was late.")
    assert check("response_p99", result_set(interrupted=True), where={"miles": 20}, at_most="2 ms").verdict == "unknown"


@pytest.mark.parametrize(
    ("name", "where", "sentence"),
    [
        ("response_p98", {}, 'has no metric "response_p98" \\(did you mean "response_p99"'),
        ("response_p99", {"mile": 20}, 'no label "mile" \\(did you mean "miles"'),
        ("response_p99", {"miles": 21}, "There are: response_p99 of C, 20 miles; response_p99 of C, 150 miles"),
        ("response_p99", {"protocol": "C"}, "3 figures of response_p99 fit"),
    ],
)
def test_a_figure_that_is_not_there_or_not_the_only_one_is_told(name, where, sentence):
    with pytest.raises(UsageError, match=sentence):
        check(name, result_set(), where=where, at_most="2 ms")


def test_a_report_on_disk_is_judged_by_its_path():
    baseline = Path(__file__).parents[2] / "results" / "baselines" / "limits.json"
    labels = {"miles": 20, "protocol": "C", "queue_depth": 1}
    figures = check("rtt_p50", baseline, where=labels, at_least="0.1 ms", at_most="1 s")
    assert figures.verdict == "pass"


class PretendBenchmark:
    """What pytest-benchmark's fixture shows after a run."""

    def __init__(self, data, iterations=1, disabled=False):
        self.disabled = disabled
        self.pedantic = None
        self.stats = None
        if data is not None:
            self.stats = SimpleNamespace(iterations=iterations, stats=SimpleNamespace(data=data))


def test_the_tail_of_means_over_many_calls_is_unknown():
    measured = PretendBenchmark(SAMPLES_S)
    assert check("x p99", measured, at_most="2 ms").verdict == "pass"
    assert check("x median", PretendBenchmark(SAMPLES_S, iterations=10), at_most="2 ms").verdict == "pass"
    judged = check("x p99", PretendBenchmark(SAMPLES_S, iterations=10), at_most="2 ms")
    assert judged.verdict == "unknown"
    assert "each sample is a mean over 10 calls" in judged.sentence


def test_a_benchmark_that_has_not_run_is_skipped_when_disabled_and_refused_otherwise():
    assert isinstance(quantity("x p50", PretendBenchmark(None, disabled=True), None, None, None), Skipped)
    with pytest.raises(UsageError, match="has measured nothing yet"):
        check("x p50", PretendBenchmark(None), at_most="2 ms")


# Telling.

FOUR = """
    import pytest

    def test_kept(farwrite_budget):
        assert farwrite_budget("a p50", [1.0] * 100, unit="ms", at_most="2 ms").verdict == "pass"

    def test_broken(farwrite_budget):
        farwrite_budget("b p50", [3.0] * 100, unit="ms", at_most="2 ms")

    def test_unknown(farwrite_budget):
        farwrite_budget("c p99", [1.0] * 100, unit="ms", at_most="2 ms")

    def test_misused(farwrite_budget):
        farwrite_budget("d p99", [1.0], unit="hours", at_most="2 ms")
"""


def test_broken_and_unknown_budgets_fail_and_are_listed_at_the_end_and_in_the_junit_file(pytester):
    pytester.makepyfile(FOUR)
    run = pytester.runpytest_subprocess("--junitxml=junit.xml", "-W", "error")
    run.assert_outcomes(passed=1, failed=3)
    run.stdout.fnmatch_lines(
        [
            ">*farwrite_budget(*b p50*",  # The test's own line is shown, and nothing of ours.
            "E*Failed: b p50 is 3.00 ms (* interval 3.00 ms to 3.00 ms, n 100), but was promised to be at most 2.00 ms.",
            'E*Failed: d p99, its samples: unit "hours" is unknown*',
            "*farwrite budgets: 1 pass, 1 fail, 1 unknown*",
            "FAIL *::test_broken: b p50 is 3.00 ms *",
            "UNKNOWN *::test_unknown: c p99 is unknown: a 95 % interval of p99 needs n >= 368, and there are 100 *",
        ]
    )
    run.stdout.no_fnmatch_line("*PASS *::test_kept: *")
    run.stdout.no_fnmatch_line("*budget.py*")
    text = (pytester.path / "junit.xml").read_text()
    assert '<property name="farwrite budget a p50" value="pass: a p50 is 1.00 ms ' in text
    assert '<property name="farwrite budget b p50" value="fail: b p50 is 3.00 ms ' in text


def test_an_unknown_budget_may_pass_and_is_still_listed(pytester):
    pytester.makepyfile(FOUR)
    run = pytester.runpytest_subprocess("--farwrite-inconclusive=pass", "-v", "-k", "test_kept or test_unknown")
    run.assert_outcomes(passed=2, deselected=2)
    run.stdout.fnmatch_lines(
        ["*farwrite budgets: 1 pass, 1 unknown*", "PASS *::test_kept: *", "UNKNOWN *::test_unknown: *"]
    )


def test_verdicts_come_through_from_another_process_as_pytest_xdist_sends_them(request):
    properties = [("farwrite budget a p50", "fail: a p50 is 3 s: too long."), ("other", 7)]
    made = pytest.TestReport(
        "t.py::test", ("t.py", 1, "test"), {}, "passed", None, "teardown", user_properties=properties
    )
    sent = json.dumps(request.config.hook.pytest_report_to_serializable(config=request.config, report=made))
    arrived = request.config.hook.pytest_report_from_serializable(config=request.config, data=json.loads(sent))
    assert list(budgets_of(arrived)) == [("fail", "a p50 is 3 s: too long.", "t.py::test")]


BENCHMARK = """
    def test_timed(benchmark, farwrite_budget):
        benchmark.pedantic(lambda: None, rounds=20)
        farwrite_budget("nothing p50", benchmark, at_most="60 s")

    def test_other(farwrite_budget):
        farwrite_budget("lost", 0, at_most=0)
"""


@pytest.mark.parametrize(
    ("option", "outcomes", "told"),
    [
        ("--benchmark-enable", {"passed": 2}, "*farwrite budgets: 2 pass*"),
        ("--benchmark-only", {"passed": 1, "skipped": 1}, "*farwrite budgets: 1 pass*"),
        ("--benchmark-skip", {"passed": 1, "skipped": 1}, "*farwrite budgets: 1 pass*"),
        ("--benchmark-disable", {"passed": 2}, "*farwrite budgets: 1 pass, 1 skipped*"),
    ],
)
def test_it_goes_with_every_way_to_run_pytest_benchmark(pytester, option, outcomes, told):
    pytester.makepyfile(BENCHMARK)
    run = pytester.runpytest_subprocess(option)
    run.assert_outcomes(**outcomes)
    run.stdout.fnmatch_lines([told])
