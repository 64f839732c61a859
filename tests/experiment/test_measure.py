"""A site that is lost costs one attempt, whenever in a round that is."""

import types

import pytest

from farwrite.base.errors import UnfitError
from farwrite.experiment import measure
from farwrite.lab.process import process


def reset() -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


def test_a_connection_whose_other_end_was_killed_is_no_fault_of_ours():
    """A far site that was killed while the two met once ended the run with a traceback."""
    with process("near") as near, pytest.raises(UnfitError, match="between sites has gone: Connection reset by peer"):
        near.call(reset)


@pytest.fixture
def played(monkeypatch):
    """Measures one cell in a round whose attempts end as told; (events, how often the lab was revived)."""

    def play(outcomes, retries, before=()):
        events, revived = [], []
        made, attempts = types.SimpleNamespace(status="ok"), []

        def measure_cell(run, lab, cell, index, attempt):
            attempts.append(attempt)
            if outcomes[len(attempts) - 1]:
                raise UnfitError(outcomes[len(attempts) - 1])
            return made

        monkeypatch.setattr(measure, "measure_cell", measure_cell)
        monkeypatch.setattr(measure, "measure_floors", lambda *_: None)
        monkeypatch.setattr(measure, "keep", lambda run, entry: events.append("kept"))
        monkeypatch.setattr(measure, "Entry", lambda round: round)
        monkeypatch.setattr(measure, "round_s", lambda run: 1.0)
        progress = types.SimpleNamespace(
            doing=lambda _: None, did=lambda _: None, measured=lambda *_: events.append("measured"),
            voided=lambda what, status, reasons: events.append((what, status, *map(str, reasons))),
        )  # fmt: skip
        run = types.SimpleNamespace(
            seed=1, rounds=before, progress=progress, profile=types.SimpleNamespace(run=types.SimpleNamespace(retries=retries))
        )
        cell = types.SimpleNamespace(id="w-C-1", name="w", protocol="C", miles=1.0)
        lab = types.SimpleNamespace(revive=lambda: revived.append(1))
        try:
            measure.measure_round(run, lab, [cell], 0, "round 1/1")
        except UnfitError as failure:
            events.append(str(failure))
        play.attempts = attempts
        return events, len(revived)

    return play


def test_a_site_that_is_lost_in_a_survey_costs_one_attempt(played):
    events, revived = played(["The far process has ended.", ""], retries=2)
    assert events == [("w-C-1, round 1", "failed", "The far process has ended."), "kept", "measured"] and revived == 1


def test_a_round_that_is_measured_on_numbers_its_attempts_behind_those_before(played):
    """Two rounds had one number, and the samples' file of the first was written over."""
    before = [types.SimpleNamespace(cell="w-C-1", index=0, attempt=attempt) for attempt in (0, 2)]
    before += [types.SimpleNamespace(cell="w-C-1", index=1, attempt=7), types.SimpleNamespace(cell="w-C-2", index=0, attempt=8)]
    events, _ = played(["gone", ""], retries=1, before=before)
    assert played.attempts == [3, 4] and events[1:] == ["kept", "measured"]


def test_sites_that_are_lost_again_and_again_end_the_run(played):
    events, revived = played(["gone", "gone", "gone"], retries=2)
    assert events == [("w-C-1, round 1", "failed", "gone")] * 2 + ["gone"] and revived == 2
