"""The journal of a run and what the run knows are never apart, whenever it is interrupted."""

import signal
from pathlib import Path

import pytest

from farwrite.base.errors import UsageError
from farwrite.experiment import run_journal as runs
from farwrite.experiment.cells import cells_of
from farwrite.progress import Silence
from farwrite.recording import SCHEMA_VERSION, read, upgraded
from farwrite.workload.catalog import load


@pytest.fixture
def begun(tmp_path):
    profile = load("quick")
    made = runs.begin(profile, "quick", 1, tmp_path / "run", Silence())
    made.cells = cells_of(profile)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interruption_never_comes_between_the_journal_and_the_run(begun, monkeypatch, number):
    opened = Path.open

    class Interrupting:
        """A file after whose last byte the signal comes."""

        def __init__(self, path, *words):
            self.file = opened(path, *words)

        def __enter__(self):
            return self.file

        def __exit__(self, *_):
            self.file.close()
            signal.raise_signal(number)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "open", lambda path, *words: Interrupting(path, *words))
            runs.keep(begun, runs.Entry(chosen=begun.cells[0]))
    finally:
        signal.signal(number, before)
    assert begun.chosen == begun.cells[:1] == runs.resume(begun.directory, Silence()).chosen


def test_what_is_kept_is_what_a_continued_run_begins_with(begun):
    runs.keep(begun, runs.Entry(awake=runs.Awake("none", "because")))
    runs.keep(begun, runs.Entry(awake=runs.Awake("qos", "decided again")))
    runs.keep(begun, runs.Entry(chosen=begun.cells[1]))
    again = runs.resume(begun.directory, Silence())
    assert (again.awake, again.chosen) == (begun.awake, begun.chosen) == (runs.Awake("none", "because"), [begun.cells[1]])


def test_a_run_that_an_older_farwrite_began_goes_on_with_histograms_of_today(begun):
    older = read(Path(__file__).parents[2] / "results" / "baselines" / "flush" / "cand").recording.floors[0]
    runs.keep(begun, runs.Entry(floors=older))
    first, *rest = begun.journal.read_text().splitlines(keepends=True)
    begun.journal.write_text(first.replace(f'"schema_version":{SCHEMA_VERSION}', '"schema_version":1') + "".join(rest))
    again = runs.resume(begun.directory, Silence()).floors
    assert again == [upgraded(older)] != [older]
    begun.journal.write_text(first.replace(f'"schema_version":{SCHEMA_VERSION}', f'"schema_version":{SCHEMA_VERSION + 1}'))
    with pytest.raises(UsageError, match="newer farwrite"):
        runs.resume(begun.directory, Silence())
