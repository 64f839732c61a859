"""farwrite in other people's tests: `farwrite_lab` gives two sites at a distance, `farwrite_budget` judges what they measured.

Every pytest run where farwrite is installed loads this file, so it imports nothing but pytest until a fixture is asked
for. What the fixtures hand out is in `testing/`; docs/pytest.md shows both. It keeps no state of its own: verdicts travel
as properties of the tests' reports, and so from the workers of pytest-xdist and into the JUnit file as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .budget import Judgement
    from .lab import Distance, Keeper, Lab

LINKS = ("auto", "netem", "ferry")
MARKER = (
    'distance(miles=…, km=…, rtt="2 ms", route_factor=1.0, strict=False): how far apart the sites of farwrite_lab are: one of '
    "miles, km and rtt; a list of them runs the test at each. strict: a link that was not what it claimed fails the test."
)
MARKER_WORDS = ("miles", "km", "rtt", "route_factor", "strict")
BUDGET = "farwrite budget "  # What the property of a verdict begins with; the budget's name follows.
LINK = "farwrite link"
VERDICTS = ("pass", "fail", "unknown", "skipped")


class LinkWarning(pytest.PytestWarning):
    """The link between the sites of a test was not what it claimed."""


def leave_asserts_alone() -> None:
    """Take farwrite off the list of packages whose asserts pytest rewrites.

    pytest puts every module of a distribution with a plugin on it, and Numba cannot compile a rewritten assert. There is no
    public way to say so but a word in each file's docstring.
    """
    for finder in sys.meta_path:
        marked = getattr(finder, "_must_rewrite", None)
        if isinstance(marked, set) and "farwrite" in marked:
            marked.discard("farwrite")
            getattr(finder, "_marked_for_rewrite_cache", {}).clear()


leave_asserts_alone()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("farwrite", "two sites at a distance (farwrite)")
    group.addoption(
        "--farwrite-link", choices=LINKS, help="what carries the link between the sites (ini: farwrite_link)"
    )
    group.addoption(
        "--farwrite-require-lab", action="store_true",
        help="fail the tests that need a distance where this machine cannot emulate one, instead of skipping them",
    )  # fmt: skip
    group.addoption(
        "--farwrite-inconclusive", choices=("fail", "pass"), default="fail",
        help="what becomes of a test whose budget is neither kept nor broken for certain (default: fail)",
    )  # fmt: skip
    parser.addini("farwrite_link", f"what carries the link between the sites: {', '.join(LINKS)}", default="auto")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


# The lab.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A list in the marker runs the test once for each of its distances."""
    if "farwrite_lab" not in metafunc.fixturenames:
        return
    words = marker_words(metafunc.definition)
    lists = [name for name, value in words.items() if isinstance(value, (list, tuple, range))]
    if len(lists) > 1:
        pytest.fail(f"distance: {' and '.join(lists)} are both lists; give one.", pytrace=False)
    for name in lists:
        ids = [f"{name}={value}" for value in words[name]]
        metafunc.parametrize("farwrite_lab", [{name: value} for value in words[name]], ids=ids, indirect=True)


def marker_words(node: Any) -> dict[str, Any]:
    """What the nearest distance marker of a test says, by word. A bare number is miles."""
    marker = node.get_closest_marker("distance")
    if marker is None:
        return {}
    unknown = [word for word in marker.kwargs if word not in MARKER_WORDS]
    if unknown or len(marker.args) > 1:
        problem = f"{unknown[0]!r} is unknown" if unknown else "one bare number is miles, and there are more"
        pytest.fail(f"distance: {problem} (known: {', '.join(MARKER_WORDS)}).", pytrace=False)
    return dict(zip(("miles",), marker.args, strict=False)) | marker.kwargs


def asked_of(request: pytest.FixtureRequest) -> tuple[Distance, bool]:
    """(the distance a test asks for, whether its link must be what it claims)."""
    from ..base.errors import UsageError
    from .lab import distance

    words = marker_words(request.node)
    # Of our own list, or of parametrize("farwrite_lab", [20, 60], indirect=True).
    param = getattr(request, "param", None)
    if param is not None:
        words |= param if isinstance(param, dict) else {"miles": param}
    strict = bool(words.pop("strict", False))
    try:
        return distance(**words), strict
    except UsageError as refusal:
        raise pytest.fail.Exception(str(refusal), pytrace=False) from None


@pytest.fixture(scope="session")
def _farwrite_keeper(pytestconfig: pytest.Config) -> Iterator[Keeper]:
    """The lab of this session, which all tests use one after the other."""
    from .lab import Keeper

    link = pytestconfig.getoption("farwrite_link") or pytestconfig.getini("farwrite_link")
    if link not in LINKS:
        raise pytest.UsageError(f'farwrite_link: "{link}" is none of {", ".join(LINKS)}.')
    with Keeper(link) as keeper:
        with skipped_where_unfit(pytestconfig):
            keeper.open()
        yield keeper


@pytest.fixture
def farwrite_lab(request: pytest.FixtureRequest, _farwrite_keeper: Keeper) -> Iterator[Lab]:
    """Two sites, .near and .far, as far apart as the test's `distance` marker says (0 miles without it).

    A site has .address, .run([...]), .start([...]), .call(function, ...), .begin(function, ...) and .wait_for_port(port); the
    lab .set_miles(60), .set_rtt("2 ms"), .miles, .rtt_ns, .delay_ns, .survey(), .cut(), .heal() and .link_kind. Everything
    that a test starts in them is killed at its end.
    """
    asked, strict = asked_of(request)
    with skipped_where_unfit(request.config):
        lab = _farwrite_keeper.lend(asked)
    try:
        request.node.user_properties.append((LINK, lab.text))
        request.node.add_report_section("setup", LINK, lab.text)
        yield lab
    finally:
        misses = _farwrite_keeper.take_back(lab)
    if misses and strict:
        pytest.fail("\n".join(misses), pytrace=False)
    for miss in misses:
        request.node.warn(LinkWarning(miss))


@contextmanager
def skipped_where_unfit(config: pytest.Config) -> Iterator[None]:
    """Skip, or fail where a lab is required, for what this machine refuses."""
    from ..base.errors import UnfitError

    try:
        yield
    except UnfitError as refusal:
        if config.getoption("farwrite_require_lab"):
            raise pytest.fail.Exception(f"--farwrite-require-lab: {refusal}", pytrace=False) from None
        raise pytest.skip.Exception(str(refusal)) from None


# Budgets.


@pytest.fixture
def farwrite_budget(request: pytest.FixtureRequest) -> Callable[..., Judgement]:
    """Fails the test unless what was measured is certain to be within its limit.

    farwrite_budget("commit p99", samples, unit="s", at_most="2 ms"): samples and a quantile, by name or as quantile="p99".
    farwrite_budget("encode p50", benchmark, at_most="30 us"): the benchmark fixture of pytest-benchmark, after its run.
    farwrite_budget("response_p99", "report.json", where={"miles": 20, "protocol": "C"}, at_most="2 ms"): a farwrite report.
    farwrite_budget("lost writes", 0, at_most=0): a number, an Estimate, or what lab.survey() gave. `at_least` is the other limit.
    """

    def budget(name: str, measured: Any, **options: Any) -> Judgement:
        __tracebackhide__ = True
        from ..base.errors import UsageError
        from .budget import check

        try:
            judgement = check(name, measured, **options)
        except UsageError as wrong:
            raise pytest.fail.Exception(str(wrong)) from None
        # Not record_property, which warns under the default junit_family and adds the same.
        request.node.user_properties.append((BUDGET + name, f"{judgement.verdict}: {judgement.sentence}"))
        lenient = request.config.getoption("farwrite_inconclusive") == "pass"
        if judgement.verdict == "fail" or (judgement.verdict == "unknown" and not lenient):
            pytest.fail(judgement.sentence)
        return judgement

    return budget


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many budgets were kept, and each that was not; with -v all of them."""
    found = [
        judged for reports in terminalreporter.stats.values() for report in reports for judged in budgets_of(report)
    ]
    if not found:
        return
    counts = {verdict: sum(judged[0] == verdict for judged in found) for verdict in VERDICTS}
    counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    terminalreporter.section(f"farwrite budgets: {counted}")
    for verdict, sentence, test in found:
        if verdict != "pass" or terminalreporter.config.get_verbosity() > 0:
            terminalreporter.write_line(f"{verdict.upper()} {test}: {sentence}")


def budgets_of(report: Any) -> Iterator[tuple[str, str, str]]:
    """(verdict, sentence, test) of each budget of a test, from its last report, which has them all."""
    if getattr(report, "when", None) == "teardown":
        for name, value in report.user_properties:
            if str(name).startswith(BUDGET):
                verdict, _, sentence = value.partition(": ")
                yield verdict, sentence, report.nodeid
