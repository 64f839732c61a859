"""What is kept of a drill that is interrupted, and of a directory that holds one already."""

import msgspec
import pytest

from farwrite.analysis.drill_recording import FILE, read, save
from farwrite.base import documents
from farwrite.base.errors import EXIT_INCONCLUSIVE, UsageError
from farwrite.commands.drill import drill
from farwrite.experiment.drill import campaign
from farwrite.progress import Silence
from farwrite.workload.drill_scenario import load
from make_drill import recording, trial


@pytest.fixture
def begun():
    made = recording(trials=3)
    return msgspec.structs.replace(made, scenario=load("primary-killed"))


def test_an_interruption_keeps_the_trials_that_are_over(begun, tmp_path, monkeypatch):
    def play(lab, scenario, setup, index, directory, is_verbose):
        if index == 2:
            raise KeyboardInterrupt
        return trial(index)

    monkeypatch.setattr(campaign, "play", play)
    made = campaign.trials(None, begun, None, tmp_path, Silence(), False)
    assert made.interrupted and [one.index for one in made.trials] == [0, 1]
    assert read(tmp_path / FILE) == made


def test_what_was_measured_before_a_failure_of_ours_is_kept(begun, tmp_path, monkeypatch):
    def play(lab, scenario, setup, index, directory, is_verbose):
        if index == 1:
            raise AssertionError("planted")
        return trial(index)

    monkeypatch.setattr(campaign, "play", play)
    with pytest.raises(AssertionError, match="planted"):
        campaign.trials(None, begun, None, tmp_path, Silence(), False)
    assert [one.index for one in read(tmp_path / FILE).trials] == [0]


def test_a_directory_that_holds_a_drill_is_not_written_over(begun, tmp_path):
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(UsageError, match="holds a drill already"):
        campaign.run("x", begun.scenario, begun.setup, "auto", None, tmp_path, Silence())
    assert (tmp_path / FILE).read_text() == "{}"


def test_a_large_recording_is_compressed_and_found_under_its_plain_name(begun, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(documents, "PLAIN_BYTES_MAX", 0)
    assert save(begun, tmp_path / FILE) == tmp_path / f"{FILE}.gz" and read(tmp_path / FILE) == begun
    with pytest.raises(UsageError, match="holds a drill already"):
        campaign.run("x", begun.scenario, begun.setup, "auto", None, tmp_path, Silence())
    for name in (FILE, f"{FILE}.gz"):
        assert drill(str(tmp_path / name)) == EXIT_INCONCLUSIVE and begun.scenario.title in capsys.readouterr().out
