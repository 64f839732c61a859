"""`farwrite case` as a person types it: what is refused, shown again, written, and kept when it is interrupted."""

import json

import msgspec
import pytest

import make_case
from console import assert_refused, farwrite
from farwrite.analysis import case_recording as recorded
from farwrite.base.errors import UnfitError, UsageError
from farwrite.progress import Silence
from farwrite.workload import case_profile


@pytest.fixture
def saved(tmp_path):
    made = make_case.recording("campus", steady=make_case.steady(), faults=make_case.faults(), thin=make_case.thin())
    return recorded.save(made, tmp_path / recorded.FILE)


def test_the_shipped_cases_are_listed():
    done = farwrite("case")
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == case_profile.shipped()


def test_a_case_that_is_over_is_shown_again_as_text_document_and_page(saved, tmp_path):
    done = farwrite("case", saved, "--page", tmp_path / "page.html", NO_COLOR="1")
    assert done.returncode == 0 and "At 0.5 miles a write takes" in done.stdout and "\x1b" not in done.stdout, done.stderr
    assert (tmp_path / "page.html").read_bytes().startswith(b"<!doctype html>")
    document = json.loads(farwrite("case", saved, "--json").stdout)
    assert document["recording"]["kind"] == "case" and len(document["answer"]) <= 10
    (section,) = [one for one in document["sections"] if one["name"] == "thin"]
    assert {figure["how"] for figure in section["figures"]} == {"counted", "measured", "modelled"}


def test_a_lost_write_is_exit_code_5_and_nothing_measured_is_4(tmp_path):
    lost = make_case.recording("campus", faults=make_case.faults(lost=2))
    assert farwrite("case", recorded.save(lost, tmp_path / "lost.json")).returncode == 5
    assert farwrite("case", recorded.save(make_case.recording("campus"), tmp_path / "none.json")).returncode == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["campos"], 'no case "campos"'), (["campus", "--only", "disks"], 'no part "disks"'),
        (["campus", "--seed", "-1"], "--seed"),
        (["nowhere.json"], "nowhere.json"), (["nowhere.toml"], "nowhere.toml"), (["campus", "-v", "-q"], "choose one"),
        (["campus", "--page", "/nowhere/at/all.html"], "no directory"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_are_refused_before_anything_is_measured(words, said, tmp_path):
    assert_refused(farwrite("case", *words, cwd=tmp_path), said)
    assert not list(tmp_path.iterdir())


class Made:
    """A part that was measured by nobody."""

    def __init__(self, observed=None, failure=None):
        self.made, self.failure = observed, failure

    def run(self):
        if self.failure:
            raise self.failure

    def observed(self):
        return self.made


def test_parts_are_saved_as_they_end_a_refused_one_is_unknown_and_an_interruption_keeps_what_there_is(tmp_path, monkeypatch):
    from farwrite.experiment.case import measure

    case = case_profile.load("campus")

    def measured(out, **parts):
        monkeypatch.setattr(measure, "MAKERS", {name: lambda asked, progress, one=one: one for name, one in parts.items()})
        asked = measure.Asked("campus", case, case.parts, out, "auto", True, False, 1)
        return measure.measure_case(asked, Silence())

    whole = {"steady": Made(make_case.steady()), "faults": Made(make_case.faults()), "thin": Made(make_case.thin())}
    made = measured(tmp_path / "whole", **whole)
    assert recorded.read(tmp_path / "whole" / "case.json") == made and not made.unknown and set(made.seconds) == set(case.parts)
    made = measured(tmp_path / "part", **whole | {"faults": Made(failure=UnfitError("There is no lab."))})
    assert made.unknown == {"faults": "There is no lab"} and made.thin is not None and made.faults is None
    cut = {"faults": Made(make_case.faults(), KeyboardInterrupt()), "thin": Made(failure=AssertionError("not reached"))}
    made = measured(tmp_path / "cut", **whole | cut)
    assert made.interrupted and made.faults is not None and made.thin is None
    assert recorded.read(tmp_path / "cut" / "case.json") == made
    with pytest.raises(UsageError, match="holds a case already"):
        measured(tmp_path / "cut", **whole)
    assert msgspec.json.encode(made)
