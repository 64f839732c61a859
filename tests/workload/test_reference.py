"""The reference pages are what the types say, and say something of every key and metric."""

import pytest

from console import ROOT
from farwrite.analysis.figure import METRICS, metrics_page
from farwrite.workload.profile import parse
from farwrite.workload.profile_reference import all_keys, lines_of, page
from farwrite.workload.tables import Profile

MINIMAL = 'title = "t"\n[distance]\nmiles = [1]\n[[cell]]\nname = "w"\nprotocols = ["C"]\n'


@pytest.mark.parametrize(
    ("name", "made"),
    [("profile.md", page()), ("metrics.md", metrics_page() + "\n")],
    ids=["farwrite profiles --markdown", "farwrite budget metrics --markdown"],
)
def test_a_page_of_reference_is_what_the_command_of_its_name_prints(name, made):
    assert (ROOT / "docs" / name).read_text() == made


def test_every_key_and_every_metric_has_a_meaning():
    assert not [key.path for key in all_keys() if not key.meaning or not key.kind]
    assert not [name for name, metric in METRICS.items() if not metric.meaning]


def test_the_reference_has_every_key_once_and_with_the_default_that_holds():
    paths = [key.path for key in all_keys()]
    assert len(paths) == len(set(paths)) > 90
    assert set(Profile.__struct_fields__) <= {path.split(".")[0] for path in paths}
    without = parse(MINIMAL)
    for key in all_keys():
        if key.table == "[run]":
            value = key.default if key.default[:1].isdigit() and " " not in key.default else f'"{key.default.strip(chr(34))}"'
            text = {"true": "true", "false": "false"}.get(key.default, value)
            assert parse(f"{MINIMAL}[run]\n{key.name} = {text}\n") == without, key


@pytest.mark.parametrize(("word", "lines"), [("run.rounds", 2), ("rounds", 2), ("reach", 6), ("[reach]", 6), ("nothing", 0)])
def test_a_key_is_found_by_its_name_its_path_or_its_table(word, lines):
    assert len(lines_of(word)) == lines
