"""Every figure of awkward recordings: terminal, page, JSON, result set and gate say the same, and nothing that physics refutes.

The texts are read back: each number of a table with its unit against the JSON's, each verdict word and each reason against what
the other places say. Physics knows light, the link's rate and how many trials a bound rests on, and not how figures are made.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from rich.console import Console

from awkward import RATE_BITS_PER_S, RECORDINGS
from farwrite.analysis import document_of
from farwrite.analysis.figure import METRICS, Figure, ResultSet
from farwrite.base.reasons import CODES, sentences
from farwrite.compare.figures import result_set_of
from farwrite.gate.budget import SAFETY, Budget, Budgets
from farwrite.gate.gate import Gate, gate
from farwrite.recording import Recording
from farwrite.report.gate import show_gate
from farwrite.report.html import page_of
from farwrite.report.markdown import markdown_of
from farwrite.report.terminal import show
from farwrite.testing.budget import check

ALL = pytest.mark.parametrize("name", RECORDINGS)
WIDTH = 132
WORDS = {"pass": "✔ PASS", "fail": "✘ FAIL", "unknown": "? UNKNOWN"}
NEVER = 1e12  # A limit of any unit that nothing exceeds.

# Physics, by itself: ITU-T G.652 fibre at 1550 nm. What a protocol waits for before a write completes, in round trips.
LIGHT_NS_PER_MILE = 2 * 1.609344 * 1e9 * 1.4682 / 299_792.458
TRIPS = {"local": 0, "A": 0, "B": 1, "C": 1, "C2": 2, "quorum": 1}
SLOT = 1 + 2.0**-9  # Latencies are counted in slots; a median is known so well.

# Where a cell of the JSON's analysis has what the result set calls by a metric.
FIELDS = {
    "response_p50": "response_ns_p50", "response_p99": "response_ns_p99", "response_p999": "response_ns_p999",
    "service_p50": "service_ns_p50", "wait_p99": "wait_ns_p99", "late_p99": "late_ns_p99", "floor": "floor_ns",
    "efficiency": "efficiency", "rtt_p50": "rtt_ns_p50", "rtt_p99": "rtt_ns_p99", "throughput": "completed_per_s",
    "goodput": "goodput_bytes_per_s", "cpu_per_write": "cpu_ns_per_write", "lag_p99": "lag_ns_p99",
    "flushes_per_write": "flushes_per_write", "far_flushes_per_write": "far_flushes_per_write",
    "wire_bytes_per_user_byte": "wire_bytes_per_user_byte", "lost_writes": "lost", "damaged_writes": "damaged",
    "unacknowledged_writes": "unacknowledged", "lag_writes_max": "lag_writes_max", "lag_bytes_max": "lag_bytes_max",
    "rounds_void": "rounds_void",
}  # fmt: skip
DRILL_FIELDS = {
    "drill_lost_writes": "lost", "drill_damaged_writes": "damaged", "recovery_point": "recovery_point_ns_max",
    "recovery_time": "recovery_time_ns_max", "loss_probability": "loss_probability_high",
}  # fmt: skip


# What is read back


@dataclass(frozen=True)
class Grid:
    """A table of the page: its headings and rows as texts, under a heading."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Reader(HTMLParser):
    """A page as its reader sees it: paragraphs and tables in their order, without what is there for ears only."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.grids: list[Grid] = []
        self.title = ""
        self.row: list[str] | None = None
        self.word: list[str] = []
        self.silent = 0
        self.stack: list[tuple[str, bool]] = []
        self.feed(re.search(r"<main.*?</main>", text, re.S)[0])
        self.caution = next((found[1] for said in self.texts if (found := re.search(r" \(([^()]*memory[^()]*)\)$", said))), "")

    def handle_starttag(self, tag, attrs):
        if tag in ("br",):
            self.word.append(" ")
            return
        if tag == "input":
            return
        silent = dict(attrs).get("class") == "heard" or tag in ("script", "style", "figure", "nav")
        self.stack.append((tag, silent))
        self.silent += silent
        if tag == "table":
            self.grids.append(Grid(self.title, [], []))
        if tag == "tr":
            self.row = []
        if tag in ("td", "th", "p", "li", "h2", "h3", "dt", "dd", "summary"):
            self.word = []

    def handle_endtag(self, tag):
        opened, silent = self.stack.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        said = flat("".join(self.word).replace("\u2007", " "))
        if tag in ("td", "th") and self.row is not None:
            self.row.append(said)
        elif tag == "tr" and self.row is not None:
            grid = self.grids[-1]
            grid.rows.append(self.row) if grid.columns else grid.columns.extend(self.row)
            if len(grid.rows):
                self.texts.append(flat(" ".join(self.row)))
            self.row = None
        elif tag == "h3" and not self.silent:
            self.title = said
            self.texts.append(said)
        elif tag in ("p", "li", "h2", "dd", "summary") and not self.silent:
            self.texts.append(said)
        self.silent -= silent

    def handle_data(self, data):
        if not self.silent:
            self.word.append(data)


@dataclass(frozen=True)
class Told:
    """Everything that is told of one recording."""

    recording: Recording
    document: dict[str, Any]  # the JSON
    result_set: ResultSet
    full: str  # the terminal's whole report
    brief: str  # its first screen
    page: Reader
    generous: Gate  # limits that everything keeps
    strict: Gate  # and that nothing does

    @property
    def analysis(self) -> dict[str, Any]:
        return self.document["analysis"]

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        return {item["cell"]: item for item in self.analysis["cells"]}

    def of(self, metric: str, **labels) -> list[Figure]:
        return [item for item in self.result_set.figures if item.metric == metric and labels.items() <= item.labels.items()]


@cache
def told(name: str) -> Told:
    recording = RECORDINGS[name]()
    report = document_of(recording)
    result_set = msgspec.json.decode(msgspec.json.encode(result_set_of(report, report.analysis, "report.json")), type=ResultSet)
    return Told(
        recording=recording,
        document=in_sentences(json.loads(msgspec.json.encode(report))),
        result_set=result_set,
        full=printed(lambda console: show(report, report.analysis, console, full=True)),
        brief=printed(lambda console: show(report, report.analysis, console)),
        page=Reader(page_of(report, report.analysis, "report.json").decode()),
        generous=gate(result_set, budgets_of(result_set, generous=True)),
        strict=gate(result_set, budgets_of(result_set, generous=False)),
    )


def in_sentences(plain: Any) -> Any:
    """A document with every reason as its sentence, after it was seen to have a code that is listed."""
    if isinstance(plain, list):
        return [in_sentences(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {"code", "sentence", "numbers"}:
        assert plain["code"] in CODES
        return plain["sentence"]
    return {key: in_sentences(value) for key, value in plain.items()}


def printed(what) -> str:
    console = Console(file=io.StringIO(), width=WIDTH)
    what(console)
    return console.file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def budgets_of(result_set: ResultSet, generous: bool) -> Budgets:
    """A budget for every metric that has a direction, which what is known keeps by far or breaks by far."""
    made = []
    for metric in dict.fromkeys(item.metric for item in result_set.figures):
        known = METRICS[metric]
        if not known.better:
            continue
        less = known.better == "less"
        kind = "at_most" if less else "at_least"
        limit = NEVER if less == generous else -1.0 if known.exact or known.unit in ("miles", "ratio") else 1e-9
        made.append(Budget(metric=metric, kind=kind, limit=limit, name=metric, place=f"b.toml:{len(made) + 1}"))
    return Budgets(budgets=made, alpha=0.05)


def verdicts_by_figure(found: Gate) -> dict[tuple, Any]:
    return {(item.metric, *sorted(item.labels.items())): item for item in found.verdicts}


def key_of(figure: Figure) -> tuple:
    return (figure.metric, *sorted(figure.labels.items()))


# Numbers as they are printed

NUMBER = r"(?:-?\d{1,3}(?: \d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)"
MARKS = str.maketrans("", "", "⁰¹²³⁴⁵⁶⁷⁸⁹⁾!?")


def reads(text: str) -> tuple[list[float], float]:
    """(the numbers of a cell, how far each may be from what it stands for) in the unit of its heading."""
    found = [item.replace(" ", "") for item in re.findall(NUMBER, text.translate(MARKS))]
    places = max((len(item.partition(".")[2]) for item in found), default=0)
    return [float(item) for item in found], 0.5001 * 10.0**-places


def check_estimate(
    text: str, estimate: dict[str, Any] | None, scale: float, interval: bool, notes: dict[str, str], where: str
) -> None:
    """A cell of a table says what the JSON says: value, interval, or why there is none."""
    if estimate is None:
        assert text in ("", "–"), where  # noqa: RUF001
        return
    marked = [notes[mark] for mark in re.findall("[⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾", text)]
    assert set(marked) >= set(estimate["warnings"]) or text.startswith("needs"), f"{where}: {text} lacks {estimate['warnings']}"
    if estimate["value"] is None:
        assert text.startswith(("–", "needs n≥")), where  # noqa: RUF001
        if text.startswith("needs"):
            assert text.removeprefix("needs n≥").replace(" ", "") in re.sub(r"[\s,]", "", estimate["warnings"][0]), where
        return
    numbers, within = reads(text)
    ends = [estimate["value"]]
    if interval and estimate["low"] is not None:
        ends += [estimate["low"], estimate["high"]]
    assert len(numbers) == len(ends), f"{where}: {text}"
    for number, end in zip(numbers, ends, strict=True):
        assert abs(number - end / scale) <= within, f"{where}: {text} for {end / scale}"


def footnotes(of: Told) -> dict[str, dict[str, str]]:
    """By heading: the reasons that its superscripts stand for."""
    found: dict[str, dict[str, str]] = {}
    title = ""
    titles = {grid.title for grid in of.page.grids}
    for said in of.page.texts:
        if said in titles:
            title = said
        if mark := re.match("([⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾) (.*)", said):
            found.setdefault(title, {})[mark[1]] = mark[2]
    return found


def filled(grid: Grid, *columns: int) -> Iterator[list[str]]:
    """Rows with what repeats from the row above filled in."""
    above = [""] * len(grid.columns)
    for row in grid.rows:
        row = [above[place] if place in columns and not text else text for place, text in enumerate(row)]
        above = row
        yield row


def grids(of: Told, title: str) -> list[Grid]:
    return [item for item in of.page.grids if item.title.startswith(title)]


# Terminal and page


def is_rule(line: str) -> bool:
    return bool(line.strip()) and not line.strip(" ─")


CHAPTERS = ("Answer", "Verdicts", "Latency and distance", "Latency of each cell", "Where the time goes", "Proof of link",
            "What survived", "Method")  # fmt: skip


@ALL
def test_what_the_terminal_prints_the_page_has_and_the_other_way_round(name):
    of = told(name)
    page, terminal = " ".join(of.page.texts), flat(of.full)
    for line in said_lines(of):
        assert line.removeprefix("· ") in page, f"only in the terminal: {line}"
    for said in of.page.texts[: of.page.texts.index("Method")]:
        assert said in CHAPTERS or said in terminal, f"only on the page: {said}"


def said_lines(of: Told) -> Iterator[str]:
    """What the terminal says of the run: not its title, headings of columns, the picture in letters, nor when and where."""
    lines = of.full.splitlines()
    # Headings of columns stand in one or two lines above their rule, the unit below the word; the page has them in cells.
    heads = {place - back for place, line in enumerate(lines) if is_rule(line) for back in (0, 1, 2)}
    assert flat(lines[0]) == f"farwrite: {of.recording.profile.title}"
    skipping = ""
    for place, line in enumerate(lines[1:], 1):
        if of.recording.started_utc in line:
            skipping = "machine"
        elif line.startswith("Median write latency in ms against miles"):
            skipping = "picture"
        elif skipping and not flat(line):
            skipping = ""
        if not skipping and place not in heads and flat(line):
            said = flat(line)
            caution = f" ({of.page.caution})"
            yield said.removesuffix(caution) if of.page.caution and said.removesuffix(caution) in CHAPTERS else said


@ALL
def test_the_first_screen_has_no_number_that_the_whole_report_has_not(name):
    of = told(name)
    whole = {number for line in of.full.splitlines() for number in re.findall(NUMBER, line)}
    for row in brief_rows(of):
        workload = of.recording.cells[0].name
        cell = of.cells[f"{workload}-{row['prot']}-{row['miles']}"]
        fields = {"p50": ("response_ns_p50", 1e6), "p99": ("response_ns_p99", 1e6), "eff": ("efficiency", 0.01)}
        for column, (field, scale) in fields.items():
            numbers, within = reads("" if row[column].startswith("needs") else row[column])
            value = cell[field]["value"]
            assert (not numbers and value is None) or abs(numbers[0] - value / scale) <= within, f"{row}: {column} for {value}"
        assert row["doubted"] == bool(cell["withheld"] or cell["host_noise"]), row
        assert row["beaten"] == ((cell["efficiency"]["low"] or 0) > 1), row
    for line in of.document["answer"]["lines"]:
        for number in re.findall(rf"({NUMBER}) (?:ms|us|s)\b", line["text"]):
            assert number in whole or number in flat(of.full), line["text"]


def brief_rows(of: Told) -> list[dict[str, Any]]:
    """The rows of the first screen's table."""
    lines = of.brief.splitlines()
    begun = next((place for place, line in enumerate(lines) if line.startswith("Write latency")), None)
    if begun is None:
        return []
    head = next(place for place in range(begun, len(lines)) if is_rule(lines[place]))
    rows, protocol = [], ""
    for line in lines[head + 1 :]:
        found = re.match(rf"\s*([A-Z]\d?|local)?\s+({NUMBER})(\?)?\s+(.*)$", line)
        if not found or "Response times" in line:
            break
        protocol = found[1] or protocol
        rest = re.findall(rf"(?:needs n≥{NUMBER})|(?:(?:{NUMBER})(?: \[[^\]]*\])?!?)|–", found[4])  # noqa: RUF001
        rows.append({"prot": protocol, "miles": found[2], "doubted": bool(found[3]), "p50": rest[0], "p99": rest[1],
                     "floor": rest[2], "eff": rest[3], "beaten": rest[3].endswith("!")})  # fmt: skip
    return rows


# Page and JSON


@ALL
def test_every_number_of_the_tables_is_that_of_the_json(name):
    of = told(name)
    notes = footnotes(of)
    checked = 0
    for grid in grids(of, "Write latency"):
        assert grid.columns == ["miles", "prot", "p50 ms", "p99 ms", "p99.9 ms", "floor ms", "eff %", "writes /s", "MB/s"]
        here = notes.get(grid.title, {})
        for miles, protocol, *texts in filled(grid, 0):
            cell = cell_at(of, grid.title, protocol, miles)
            for text, (field, scale, interval) in zip(texts, (
                ("response_ns_p50", 1e6, True), ("response_ns_p99", 1e6, True), ("response_ns_p999", 1e6, True),
                ("floor_ns", 1e6, False), ("efficiency", 0.01, False), ("completed_per_s", 1, False),
                ("goodput_bytes_per_s", 1e6, False),
            ), strict=True):  # fmt: skip
                check_estimate(text, cell[field], scale, interval, here, f"{cell['cell']} {field}")
                checked += 1
            reasons = [here[mark] for mark in re.findall("[⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾", protocol)]
            for reason in cell["withheld"]:
                assert f"No verdict rests on it: {reason}" in reasons
            for reason in cell["host_noise"]:
                assert f"No verdict on its latency: {reason}" in reasons
    for grid in grids(of, "Distance fit"):
        here = notes.get(grid.title, {})
        for workload, protocol, *texts in filled(grid, 0):
            for place, text in enumerate(texts):
                quantile, field, scale = (0.5, 0.99)[place // 2], ("k", "a_ns")[place % 2], (1, 1e3)[place % 2]
                fit = next(
                    (item for item in of.analysis["fits"]
                     if (item["name"], item["protocol"], item["quantile"]) == (workload, protocol, quantile)), None,
                )  # fmt: skip
                check_estimate(text, fit and fit[field], scale, True, here, f"{protocol} {quantile} {field}")
                checked += 1
    for grid in grids(of, "Greatest miles at which"):
        for protocol, quantile, budget, *texts in filled(grid, 0, 1):
            for factor, text in zip((1.0, 1.3, 2.1), texts, strict=True):
                found = next(
                    item for item in of.analysis["miles"]
                    if (item["protocol"], f"p{100 * item['quantile']:g}", f"{item['budget_ns'] / 1e6:g}", item["route_factor"])
                    == (protocol, quantile, budget, factor)
                )  # fmt: skip
                check_miles(text, found, notes.get(grid.title, {}))
                checked += 1
    assert checked or not any(cell["rounds_ok"] for cell in of.cells.values())


def cell_at(of: Told, title: str, protocol: str, miles: str) -> dict[str, Any]:
    workload = title.removeprefix("Write latency: ").partition(",")[0]
    return of.cells[f"{workload}-{protocol.translate(MARKS)}-{miles}"]


def check_miles(text: str, found: dict[str, Any], notes: dict[str, str]) -> None:
    """A cell of the greatest miles: measured, beyond or below what was measured, or why it is unknown."""
    if found["outcome"] == "beyond":
        assert text.startswith("> ") and abs(reads(text)[0][0] - found["beyond_miles"]) <= 0.51, (text, found)
    elif found["outcome"] == "below":
        assert text.startswith("none" if not found["below_miles"] else "< "), (text, found)
    else:
        check_estimate(text, found["miles"], 1.0, True, notes, f"miles of {found['protocol']} {found['budget_ns']}")


@ALL
def test_losses_are_the_same_wherever_they_are_told(name):
    of = told(name)
    generous, strict = verdicts_by_figure(of.generous), verdicts_by_figure(of.strict)
    counts = {row[1]: row for grid in grids(of, "Counts") for row in filled(grid, 0)}
    for protocol, row in counts.items():
        cells = [cell for cell in of.cells.values() if cell["protocol"] == protocol]
        assert reads(row[2])[0] == [sum(cell["completed"] for cell in cells)]
        for text, field in ((row[4], "lost"), (row[5], "damaged")):
            known = [cell[field] for cell in cells if cell[field] is not None]
            assert text == "n/a" if not known else reads(text.replace("✘", "").replace("✔", ""))[0] == [sum(known)]
            if field == "damaged" or protocol not in ("A", "local"):
                assert text.startswith("✘") == (sum(known) > 0) and text.startswith("✔") == (bool(known) and not sum(known))
    for title, kind in (("Drills: near site killed", "kill"), ("Drills: link cut", "cut")):
        for grid in grids(of, title):
            for row in grid.rows:
                drill = next(item for item in of.analysis["drills"] if (item["kind"], item["protocol"]) == (kind, row[0]))
                assert reads(row[2])[0] == [drill["count"]]
                assert reads(row[5])[0] == [drill["lost_writes_max"]]
                if kind == "kill":
                    numbers, within = reads(row[4])
                    assert abs(numbers[0] - 100 * drill["loss_probability_high"]) <= within
                    if drill["protocol"] == "C":
                        assert row[8].startswith("✔") == (not drill["lost"] and not drill["damaged"] and drill["count"] > 0), row
                if drill["lost"] or drill["damaged"]:
                    assert any(str(number) in row[-1] or "LOST" in row[-1].upper() or number in reads(" ".join(row))[0]
                               for number in (drill["lost"], drill["damaged"]) if number), row  # fmt: skip
    for figure in of.result_set.figures:
        if figure.metric in SAFETY and figure.estimate.value:
            assert generous[key_of(figure)].verdict == "pass" and strict[key_of(figure)].verdict == "fail"
    lost = sum((cell["lost"] or 0) + (cell["damaged"] or 0) for cell in of.cells.values() if cell["protocol"] == "C")
    lost += sum(item["lost"] + item["damaged"] for item in of.analysis["drills"] if item["protocol"] == "C")
    c2 = claim_of(of, "C2") if of.analysis["claims"] else None
    line = [item for item in of.document["answer"]["lines"] if item["kind"] == "loss"]
    none = gate(of.result_set, none_lost(of.result_set))
    safe = {item.labels.get("protocol"): item for item in none.verdicts if item.verdict == "fail"}
    if lost:
        assert c2 is None or c2["verdict"] == "fail"
        assert line[0]["verdict"] == "fail" and "C" in safe and none.verdict == "fail"
    else:
        assert "C" not in safe and all(item["verdict"] != "fail" for item in line if not damaged_elsewhere(of))
        assert "LOST" not in " ".join(item["text"] for item in line) or damaged_elsewhere(of)


def damaged_elsewhere(of: Told) -> bool:
    return any(cell["damaged"] for cell in of.cells.values() if cell["protocol"] != "C")


def none_lost(result_set: ResultSet) -> Budgets:
    there = [metric for metric in SAFETY if any(item.metric == metric for item in result_set.figures)]
    return Budgets(budgets=[Budget(metric=metric, kind="equals", limit=0, name=metric) for metric in there])


def claim_of(of: Told, claim: str) -> dict[str, Any]:
    return next(item for item in of.analysis["claims"] if item["id"] == claim)


# JSON and result set


@ALL
def test_the_sheet_has_what_the_json_has(name):
    of = told(name)
    seen = 0
    for figure in of.result_set.figures:
        if figure.metric in FIELDS:
            labels = figure.labels
            cell = of.cells[f"{labels['name']}-{labels['protocol']}-{labels['miles']:g}"]
            held = cell[FIELDS[figure.metric]]
            if not figure.exact:
                assert set(sentences(figure.withheld)) >= set(cell["withheld"])
                assert sentences(figure.host_noise) == cell["host_noise"]
        elif figure.metric in DRILL_FIELDS:
            held = next(
                item for item in of.analysis["drills"]
                if (item["kind"], item["protocol"], item["miles"])
                == (figure.labels["drill"], figure.labels["protocol"], figure.labels["miles"])
            )[DRILL_FIELDS[figure.metric]]  # fmt: skip
        elif figure.metric[:2] in ("k_", "a_"):
            held = next(
                item for item in of.analysis["fits"]
                if (item["name"], item["protocol"], f"p{100 * item['quantile']:g}")
                == (figure.labels["name"], figure.labels["protocol"], figure.metric[2:])
            )["k" if figure.metric[0] == "k" else "a_ns"]  # fmt: skip
        elif figure.metric.startswith("greatest_miles"):
            item = next(
                item for item in of.analysis["miles"]
                if (item["protocol"], f"p{100 * item['quantile']:g}", f"{item['budget_ns'] / 1e6:g} ms", item["route_factor"])
                == (figure.labels["protocol"], figure.metric[15:], figure.labels["budget"], figure.labels["route"])
            )  # fmt: skip
            held = item["miles"]
            assert (figure.beyond, figure.below) == (item["beyond_miles"], item["below_miles"])
        else:
            raise AssertionError(f"{figure.metric} is held against nothing")
        estimate = figure.estimate
        if isinstance(held, dict):
            assert (estimate.value, estimate.low, estimate.high) == (held["value"], held["low"], held["high"]), figure.name
            assert sentences(estimate.warnings) == held["warnings"]
        else:
            assert estimate.value == held, figure.name
        seen += 1
    assert seen == len(of.result_set.figures) > 0


# The gate


@ALL
@pytest.mark.parametrize("generous", [True, False])
def test_the_gate_judges_the_numbers_of_the_sheet_and_says_their_reasons(name, generous):
    of = told(name)
    found = of.generous if generous else of.strict
    verdicts = verdicts_by_figure(found)
    terminal = flat(printed(lambda console: show_gate(found, console)))
    for figure in of.result_set.figures:
        if not METRICS[figure.metric].better:
            continue
        decided = verdicts[key_of(figure)]
        assert decided.value == figure.estimate and decided.unit == figure.unit
        check_sentence(decided, figure)
        if decided.verdict != "pass":
            assert flat(decided.sentence) in terminal
        known = figure.estimate.value is not None
        if not figure.exact and not figure.metric.startswith("greatest_miles"):
            doubts = sentences(figure.doubts) or ([INTERRUPTED] if of.recording.interrupted else [])
            if doubts or not known:
                assert decided.verdict == "unknown", decided.sentence
                said = [INTERRUPTED] if of.recording.interrupted else doubts[:1] or sentences(figure.estimate.warnings)
                assert not said or any(reason in decided.sentence for reason in said), decided.sentence
        if known:
            assert decided.verdict != ("fail" if generous else "pass"), decided.sentence
        if of.recording.interrupted:
            assert decided.verdict != "pass"
    page = plainly(markdown_of(found))
    assert all(plainly(item.sentence) in page for item in found.verdicts)


INTERRUPTED = "the run was interrupted"


def plainly(text: str) -> str:
    """Text without what Markdown escapes."""
    return flat(re.sub(r"[\\]", "", text).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0, "GiB": 2.0**30, "MiB": 2.0**20, "KiB": 1024.0, "B": 1.0, "MB/s": 1e6,
         "/s": 1.0, "miles": 1.0, "": 1.0}  # fmt: skip


def check_sentence(decided: Any, figure: Figure) -> None:
    """ "… is 0.634 ms [0.569, 0.714] of at most 2 ms": the result set's value and interval, to the digits that are printed."""
    told = decided.sentence.removeprefix(figure.name)
    found = re.match(r" is (-?[\d.,]+|nan)(?: ([A-Za-z/]+))?(?: \[([\d.,-]+), ([\d.,-]+)\])? of (?:at|exactly)", told)
    estimate = figure.estimate
    if estimate.value is None:
        assert found is None, decided.sentence
        return
    assert found and not re.search(r"-0\.?0*(?!\d|\.)", told), decided.sentence
    scale = UNITS[found[2] or ""]
    ends = [estimate.value, estimate.low, estimate.high] if found[3] else [estimate.value]
    for text, end in zip(found.groups()[:1] + found.groups()[2:], ends, strict=False):
        number = text.replace(",", "")
        within = 0.5001 * 10.0 ** -len(number.partition(".")[2])
        assert abs(float(number) - end / scale) <= within, f"{decided.sentence}: {end / scale}"


# Verdicts


@ALL
def test_claims_have_one_verdict_and_one_sentence_everywhere(name):
    of = told(name)
    page, terminal = " ".join(of.page.texts), flat(of.full)
    lines = {re.split(r" \(|: ", line["text"])[0]: line for line in of.document["answer"]["lines"] if line["verdict"]}
    verdicts = [*of.analysis["budgets"], *of.analysis["claims"]]
    assert len(verdicts) == (3 if name == "own_budgets" else len(of.recording.profile.budget) + 3)
    for claim in verdicts:
        word = WORDS[claim["verdict"]]
        assert f"{word} {claim['id']}" in flat(of.full)
        assert f"{word} {claim['id']}" in page
        for said in (claim["sentence"], *claim["details"]):
            assert flat(said) in terminal and flat(said) in page
        assert claim["id"] not in lines or lines[claim["id"]]["verdict"] == claim["verdict"]
    for line in of.document["answer"]["lines"]:
        assert flat(line["text"]) in terminal and flat(line["text"]) in page and flat(line["text"]) in flat(of.brief)
    for warning in [*of.analysis["warnings"], *of.recording.notes]:
        assert flat(warning) in terminal and flat(warning) in page


@ALL
def test_claim_gate_and_budget_of_a_test_never_contradict_each_other(name):
    of = told(name)
    for figure in of.of("response_p99", protocol="C", miles=20.0):
        two_ms = Budgets(budgets=[Budget(metric="response_p99", kind="at_most", limit=2e6, name="2 ms",
                                         where={"protocol": ["C"], "miles": [20.0]})])  # fmt: skip
        decided = gate(of.result_set, two_ms).verdicts[0]
        pytest_says = check("2 ms", of.result_set, at_most="2 ms", where={**figure.labels, "metric": "response_p99"})
        verdicts = {decided.verdict, pytest_says.verdict}
        if figure.labels["name"] == "write" and of.analysis["claims"]:
            verdicts.add(claim_of(of, "C1")["verdict"])
        verdicts |= {item["cells"]["write-C-20"] for item in of.analysis["budgets"] if item["id"] == "p99 2 ms"}
        assert not {"pass", "fail"} <= verdicts, (decided.sentence, pytest_says.sentence)
        if figure.doubts or of.recording.interrupted:
            assert verdicts == {"unknown"}, (decided.sentence, pytest_says.sentence)


@ALL
def test_a_link_is_called_proven_only_where_no_verdict_is_withheld_for_it(name):
    of = told(name)
    proven = {}
    for grid in grids(of, "Proof of link: "):
        for miles, *_, word in grid.rows:
            there = [cell for cell in of.cells.values() if f"{cell['miles']:.4g}" == miles]
            off = any("the link was not what it claimed" in reason for cell in there for reason in cell["withheld"])
            measured = any(cell["rounds_ok"] for cell in there)
            assert word == WORDS["fail" if off or not measured else "pass"], (miles, word)
            proven[miles] = word == WORDS["pass"]
    if name == "lab_slower_before":
        assert proven == {"0": False, "20": True, "60": True, "150": True}


@ALL
def test_a_product_limit_has_no_other_miles_and_no_other_verdict_than_the_rest_of_the_report(name):
    of = told(name)
    straight = {item["budget_ns"] / 1e6: item for item in of.analysis["miles"]
                if (item["protocol"], item["quantile"], item["route_factor"]) == ("C", 0.99, 1.0)}  # fmt: skip
    reach = next((line["text"] for line in of.document["answer"]["lines"] if line["kind"] == "reach"), "")
    for grid in grids(of, "Limits that products state"):
        for limit, _, p99, holds in grid.rows:
            number, unit = re.match(r"(\d+) (ms|miles)", limit).groups()
            holds = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾", "", holds)
            if unit == "ms":
                found = straight.get(float(number))
                doubted = found is None or any("fitted through" in reason for reason in found["miles"]["warnings"])
                if holds.startswith("up to "):
                    assert not doubted and found["outcome"] == "measured"
                    assert abs(reads(holds)[0][0] - found["miles"]["value"]) <= 0.51
                elif holds.startswith("> "):
                    assert not doubted and found["outcome"] == "beyond"
                elif holds in ("none", "any") or holds.startswith("< "):
                    assert not doubted and found["outcome"] in (("any",) if holds == "any" else ("below", "none"))
                else:
                    assert holds == WORDS["unknown"] and (doubted or found["outcome"] == "unknown")
                assert not doubted or p99.startswith("–"), f"a p99 by a fit that means nothing: {p99}"  # noqa: RUF001
                assert "is unknown" not in reach or holds == WORDS["unknown"], (reach, holds)
                continue
            cells = [cell for cell in of.cells.values() if cell["protocol"] == "C" and abs(cell["miles"] - float(number)) < 1]
            sound = [cell for cell in cells if not (cell["withheld"] or cell["host_noise"] or of.recording.interrupted)]
            assert sound or holds == WORDS["unknown"], (limit, holds)
            if within := re.fullmatch(r"✔ within ([\d.]+) ms", holds):
                assert sound[0]["response_ns_p99"]["high"] <= 1e6 * float(within[1])
            elif not_even := re.fullmatch(r"✘ not even ([\d.]+) ms", holds):
                assert sound[0]["response_ns_p99"]["low"] > 1e6 * float(not_even[1])


# Physics


def light_ns(cell: dict[str, Any]) -> float:
    """What a write of a cell waits for light alone."""
    return TRIPS[cell["protocol"]] * cell["miles"] * LIGHT_NS_PER_MILE


@ALL
def test_no_miles_are_farther_than_light_goes_within_the_budget(name):
    of = told(name)
    for found in of.analysis["miles"]:
        trips = TRIPS[found["protocol"]]
        for end in ("value", "low", "high"):
            miles = found["miles"][end]
            if miles is not None and trips:
                assert trips * miles * found["route_factor"] * LIGHT_NS_PER_MILE <= found["budget_ns"] * (1 + 1e-9), found
        if trips and found["beyond_miles"] and found["outcome"] == "beyond":
            assert trips * found["beyond_miles"] * found["route_factor"] * LIGHT_NS_PER_MILE <= found["budget_ns"] * 1.001, found
    for said in (of.full, of.brief, " ".join(of.page.texts)):
        for miles in re.findall(r"2 ms hold to (\d+) miles", flat(said)):
            assert float(miles) * LIGHT_NS_PER_MILE <= 2e6
    for decided in (*of.generous.verdicts, *of.strict.verdicts):
        if decided.metric.startswith("greatest_miles") and TRIPS[decided.labels["protocol"]] and decided.value.value:
            budget_ns = float(decided.labels["budget"].removesuffix(" ms")) * 1e6
            assert decided.value.value * decided.labels["route"] * LIGHT_NS_PER_MILE <= budget_ns


@ALL
def test_no_slope_is_told_that_is_less_than_light_takes_or_below_nothing(name):
    of = told(name)
    for fit in of.analysis["fits"]:
        k, trips = fit["k"], TRIPS[fit["protocol"]]
        if trips and k["value"] is not None:
            high = k["value"] if k["high"] is None else k["high"]
            low = k["value"] if k["low"] is None else k["low"]
            assert high * SLOT >= trips and low >= 0, fit
    for figure in of.result_set.figures:
        if figure.metric.startswith("k_") and TRIPS[figure.labels["protocol"]] and figure.estimate.value is not None:
            assert figure.estimate.value * SLOT >= TRIPS[figure.labels["protocol"]] or figure.estimate.high * SLOT >= 1


@ALL
def test_a_write_that_waits_for_its_peer_is_not_faster_than_light_or_no_verdict_rests_on_it(name):
    of = told(name)
    seen = 0
    for cell in of.cells.values():
        for field in ("response_ns_p50", "response_ns_p99", "service_ns_p50"):
            value = cell[field]["value"]
            if value is not None and value < light_ns(cell) - max(0.03 * light_ns(cell), 40_000):  # As far as a link may be off.
                seen += 1
                assert any("light" in reason for reason in cell["withheld"]), cell["cell"]
                for figure in of.result_set.figures:
                    if figure.labels.get("miles") == cell["miles"] and figure.labels.get("protocol") == cell["protocol"]:
                        assert figure.exact or figure.withheld
    assert (seen > 0) == (name == "faster_than_light")
    if seen:
        assert claim_of(of, "C1")["verdict"] == "unknown"
        figures = [item for item in of.result_set.figures if item.metric.startswith("greatest_miles")]
        miles = [item for item in figures if item.labels["protocol"] == "C"]
        assert miles and all(item.estimate.warnings for item in miles)
        for found in (of.generous, of.strict):
            assert {verdicts_by_figure(found)[key_of(item)].verdict for item in miles} == {"unknown"}


@ALL
def test_no_throughput_is_more_than_the_link_carries_or_than_its_latency_lets_complete(name):
    of = told(name)
    for cell in of.cells.values():
        if not TRIPS[cell["protocol"]] or cell["completed_per_s"]["value"] is None or cell["withheld"]:
            continue
        if name == "backlog":
            assert cell["goodput_bytes_per_s"]["value"] * 8 <= RATE_BITS_PER_S, cell["cell"]
        if light_ns(cell):
            assert cell["completed_per_s"]["low"] <= cell["queue_depth"] * 1e9 / light_ns(cell) * SLOT
    for figure in of.of("throughput"):
        goodput, = of.of("goodput", **figure.labels)
        size = of.cells[f"{figure.labels['name']}-{figure.labels['protocol']}-{figure.labels['miles']:g}"]["size_bytes"]
        if figure.estimate.value is not None:
            assert goodput.estimate.value == pytest.approx(size * figure.estimate.value, rel=1e-6)


@ALL
def test_no_bound_on_losses_is_told_without_trials_or_below_what_they_allow(name):
    of = told(name)
    for drill in of.analysis["drills"]:
        bound = drill["loss_probability_high"]
        if drill["kind"] != "kill" or not drill["count"]:
            assert bound is None
            continue
        # The rule of three, exactly: so many trials without a loss happen once in twenty at this probability.
        assert bound >= 1 - 0.05 ** (1 / drill["count"]) - 1e-9 and bound >= drill["drills_with_loss"] / drill["count"]
    kills = [item for item in of.analysis["drills"] if item["kind"] == "kill" and item["count"]]
    if not kills:
        for said in (of.full, of.brief, " ".join(of.page.texts), json.dumps(of.document["answer"])):
            assert "P(loss)" not in said
        assert not of.of("loss_probability")


@ALL
def test_nothing_is_passed_by_absence(name):
    of = told(name)
    for decided in (*of.generous.verdicts, *of.strict.verdicts, *gate(of.result_set, none_lost(of.result_set)).verdicts):
        if decided.verdict != "pass":
            continue
        assert not of.recording.interrupted, decided.sentence
        if decided.metric in FIELDS:
            labels = decided.labels
            cell = of.cells[f"{labels['name']}-{labels['protocol']}-{labels['miles']:g}"]
            if not decided.exact:
                assert cell["rounds_ok"] >= 3 and decided.value.value is not None and decided.value.low is not None
            elif decided.metric in SAFETY:
                audits = [item for item in of.recording.rounds if item.cell == cell["cell"] and item.audit]
                assert audits, decided.sentence
    for claim in of.analysis["claims"]:
        if claim["verdict"] == "pass":
            assert any(cell["rounds_ok"] >= 3 for cell in of.cells.values()), claim["sentence"]
            assert not of.recording.interrupted
    if not any(cell["rounds_ok"] for cell in of.cells.values()):
        assert "✔ PASS" not in of.full + of.brief and not any(item["verdict"] == "pass" for item in of.analysis["claims"])


@ALL
def test_an_efficiency_above_one_is_called_impossible_everywhere(name):
    of = told(name)
    beaten = [cell for cell in of.cells.values() if (cell["efficiency"]["low"] or 0) > 1]
    assert bool(beaten) == (name in ("beaten_floor", "faster_than_light"))
    verdicts = verdicts_by_figure(of.generous)
    for cell in beaten:
        sentence, = (text for text in cell["efficiency"]["warnings"] if "not a floor" in text)
        assert sentence.startswith("the floor was measured as ") and "the engine beat" in sentence
        assert flat(sentence) in flat(of.full) and flat(sentence) in " ".join(of.page.texts)
        figure, = of.of("efficiency", name=cell["name"], protocol=cell["protocol"], miles=cell["miles"])
        assert sentence in sentences(figure.estimate.warnings) and figure.withheld
        decided = verdicts[key_of(figure)]
        assert decided.verdict == "unknown" and str(figure.withheld[0]) in decided.sentence
        assert any("not a floor" in str(reason) for reason in figure.withheld)
        assert any(cell["cell"] in text and "not a floor" in text for text in of.analysis["warnings"])
    assert ("not a floor" in flat(of.brief)) == bool(beaten)


@ALL
def test_memory_and_interruption_are_said_before_any_number(name):
    of = told(name)
    for said, words in ((name == "in_memory", "in memory"), (of.recording.interrupted, "INTERRUPTED")):
        first = of.document["answer"]["lines"][0]
        assert (first["kind"] == "caution" and words in first["text"]) == said
        assert (words in " ".join(of.brief.splitlines()[:4])) == said
        assert (words in " ".join(of.page.texts[:4])) == said
    if name == "in_memory":
        assert "journals on disk" not in of.full


def test_the_recordings_are_as_awkward_as_they_say():
    assert len(RECORDINGS) >= 12
    assert all(item["outcome"] != "measured" for item in told("no_line").analysis["miles"] if item["protocol"] == "A")
    for name in ("no_line", "falling"):
        fits = [item for item in told(name).analysis["fits"] if item["protocol"] == "C"]
        assert fits and not any(item["is_line"] for item in fits)
        assert all(item["k"]["value"] is None and item["a_ns"]["value"] is None for item in fits)
    assert all(cell["rounds_ok"] == 1 for cell in told("one_good_round").cells.values())
    assert all(cell["rounds_ok"] == 0 for cell in told("void_everywhere").cells.values())
    assert all(cell["host_noise"] for cell in told("noisy_host").cells.values())
    assert any("stays behind" in text for cell in told("backlog").cells.values() for text in cell["completed_per_s"]["warnings"])
