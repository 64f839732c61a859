"""Every command that the documents show can be typed: the quick ones are run, of the others every word is checked."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from console import ROOT, farwrite
from farwrite.base.errors import UsageError
from farwrite.cli import app
from farwrite.commands import drill, reach, sweep
from farwrite.commands.measuring import NEW
from farwrite.commands.options import ANYWHERE, own_budgets
from farwrite.commands.simulate import LENGTH_MAX
from farwrite.experiment.cells import cells_of
from farwrite.workload.case_profile import load as load_case
from farwrite.workload.catalog import load
from farwrite.workload.drill_scenario import check_setup, check_without_links
from farwrite.workload.drill_scenario import load as load_drill
from farwrite.workload.fio import translate
from farwrite.workload.profile import parse
from farwrite.workload.trace.replay import profile_of

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/README.md"))]


def commands(document: Path) -> list[tuple[int, str]]:
    """(line, command) of every line that begins with `$ ` in a console block."""
    found, inside = [], False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line.strip() == "```console"
        elif inside and line.startswith("$ "):
            found.append((number, line[2:].split("  #")[0].strip()))
    return found


SHOWN = [
    pytest.param(command, id=f"{document.relative_to(ROOT)}:{number}")
    for document in DOCUMENTS
    for number, command in commands(document)
]


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_is_shown_works(command):
    first, *words = shlex.split(command)
    checks = {"make": check_make, "farwrite": check_farwrite}
    name = Path(first).name
    assert name in checks, f"no test knows how to check: {command}"
    checks[name](words)


def check_make(words):
    """The target is one of the Makefile's, its variables too, and make would know what to do for it."""
    variables = [word.split("=")[0] for word in words if "=" in word]
    words = [word for word in words if "=" not in word]
    assert len(words) == 1
    for variable in variables:
        assert re.search(rf"^{re.escape(variable)} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE), variable
    assert re.search(rf"^{re.escape(words[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_farwrite(words):
    """What measures, or needs a run's own files, is understood word for word; everything else is done, where it harms nothing."""
    if words[0] in ("volume", "lab", "survey", "serve", "trips", "snapshot", "copy", "pool", "migrate") or "--dask" in words:
        _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert bound.arguments
        return
    if words[0] == "case" and len(words) > 1 and not words[1].endswith(".json"):
        _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert load_case(bound.arguments["name"])
        return
    if words[0] == "drill" and len(words) > 1 and not words[1].endswith(".json"):
        _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        asked = bound.arguments
        usual = {name: one.default for name, one in inspect.signature(drill.drill).parameters.items()}
        words_of_setup = inspect.signature(drill.setups_of).parameters
        for setup in drill.setups_of(**{name: asked.get(name, usual[name]) for name in words_of_setup}):
            check_setup(load_drill(asked["scenario"]), setup)
        if asked.get("link") == "relay":
            check_without_links(load_drill(asked["scenario"]))
        return
    if words[:2] == ["simulate", "--exhaustive"]:  # Longer sequences take longer, not other words.
        assert 1 <= int(words[2]) <= LENGTH_MAX and len(words) == 3
        words = [*words[:2], "1"]
    if words[0] not in ("run", "ab", "reach", "sweep"):
        with tempfile.TemporaryDirectory() as place:
            for name in ("results", "tests", "workloads", "docs"):
                (Path(place) / name).symlink_to(ROOT / name)
            done = farwrite(*words, cwd=Path(place))
        assert done.returncode == 0, done.stderr
        assert done.stdout or "saved: " in done.stderr
        assert "farwrite: " not in done.stderr
        return
    _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    asked = bound.arguments
    session = asked.get("session", NEW)
    if session.resume is not None:
        assert set(asked) <= {"session", "showing"}
        return
    options = asked.get("options", ANYWHERE)
    changes = [*session.set_, options.change(session.set_)]
    if words[0] == "reach":
        assert parse(reach.table_of(asked.get("p99"), asked.get("p50"), asked.get("minutes", 3.0), options), "reach", changes)
        return
    if words[0] == "sweep":
        assert len(cells_of(parse(sweep.TABLE.format(minutes=5.0), "sweep", changes))) > 1
        return
    changes += [f'run.round="{asked["duration"]}"'] if "duration" in asked else []
    changes += [own_budgets(asked.get("budget", ()))] if words[0] == "run" else []
    if words[0] == "run" and str(asked.get("profile")).endswith(".fio"):
        assert translate(ROOT / asked["profile"], changes).profile.cell
        return
    changes += [f'lab.far_host="{asked["far"]}"'] if "far" in asked else []
    if words[0] == "run" and "trace" in asked:
        assert profile_of(str(ROOT / asked["trace"]), asked.get("format", ""), changes)[0].cell
        return
    if words[0] == "run":
        assert load(asked.get("profile", "limits"), changes).cell
        return
    for arm, side in (("base", "set_base"), ("cand", "set_cand")):
        profile = asked.get("profile", "quick") if asked[arm].startswith("git:") else asked[arm]
        assert load(profile, [*changes, *(asked.get(side) or [])]).cell


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_a_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", document.read_text()))
    known = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert named <= known, named - known


def test_every_line_of_the_security_page_names_its_test():
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and "---" not in line]
    assert len(rows) > 10 and [row for row in rows if "`test_" not in row] == [row for row in rows if row.endswith("| test |")]


def test_the_readme_shows_commands():
    shown = [command for _, command in commands(ROOT / "README.md")]
    assert {"make bench", "make test", "farwrite run limits"} <= set(shown)


SHOWING = [document for document in DOCUMENTS if "```text\n" in document.read_text()]


def test_the_manual_shows_output():
    assert {"compare.md", "gate.md"} <= {document.name for document in SHOWING}


@pytest.mark.parametrize("document", SHOWING, ids=lambda document: str(document.relative_to(ROOT)))
def test_the_output_that_a_document_shows_is_what_its_command_prints(document):
    before, *parts = document.read_text().split("```text\n")
    for part in parts:
        text, after = part.split("```", 1)
        shown = [line.split("$ farwrite ")[1] for line in before.splitlines() if line.startswith("$ farwrite ")]
        printed = farwrite(*shlex.split(shown[-1]), cwd=ROOT).stdout
        lines = [line.rstrip() for line in printed.splitlines()]
        for line in text.splitlines():
            assert line == "…" or line in lines, line
        before = after


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_a_link_of_a_document_leads_somewhere(document):
    text = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(), flags=re.S)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    gone = [link for link in links if link and not (document.parent / link).exists()]
    assert not gone, gone


@pytest.mark.parametrize("target", ["help", "bench", "test", "lint", "perf"])
def test_the_words_of_the_makefile_are_known_to_make(target):
    check_make([target])


def test_make_help_names_the_words_a_contributor_types():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for target in ("bench", "test", "lint", "perf"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(("command", "error", "said"), [
    ("farwrite rn quick", AssertionError, r'no command "rn"'),
    ("farwrite run limitz", UsageError, r'limitz.*did you mean "limits"'),
    ("farwrite run quick --rund 5s", CycloptsError, r"--rund"),
    ("make tea", AssertionError, r"tea"),
    ("curl x", AssertionError, r"no test knows how to check: curl x"),
    ("farwrite show no.json", AssertionError, r"read the report no.json: No such file"),
])  # fmt: skip
def test_a_command_that_does_not_work_would_be_found_for_what_is_wrong_with_it(command, error, said):
    with pytest.raises(error, match=said):
        test_a_command_that_is_shown_works(command)
