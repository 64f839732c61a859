"""Searches and sweeps on paper: rounds are made up from a known truth, so that only where they are measured is seen."""

import msgspec
import numpy as np
import pytest

from farwrite import recording
from farwrite.analysis.analyse import analyse
from farwrite.base.physics import miles_of
from farwrite.experiment import measure
from farwrite.experiment import run as running
from farwrite.experiment import run_journal as runs
from farwrite.experiment.cells import cells_of
from farwrite.experiment.map_cells import Order
from farwrite.experiment.reach import ROUNDS_MIN, farthest_of, search
from farwrite.experiment.run_journal import recording_of
from farwrite.experiment.sweep import sweep, sweep_here
from farwrite.progress import Silence
from farwrite.recording import Worker
from farwrite.workload.profile import parse
from make_recording import World, make_recording, make_round

REACH = """
title = "How far"
[distance]
miles = [0, 253]
[run]
rounds = 5
round = "300 ms"
survey_echoes = 10
floor_flushes = 5
[reach]
p50 = "4 ms"
time = "{time}"
[[cell]]
name = "write"
protocols = ["{protocol}"]
"""
SWEEP = """
title = "A grid"
[distance]
miles = [20, 150]
[run]
rounds = 3
round = "300 ms"
survey_echoes = 10
floor_flushes = 5
[sweep]
time = "{time}"
[[cell]]
name = "one"
protocols = ["C"]
[[cell]]
name = "eight"
protocols = ["C"]
queue_depth = 8
"""


class PaperLab:
    """A lab on paper."""

    spans = ()

    def flush_floors(self, size, count):
        return dict.fromkeys(("near_alone", "far_alone", "near_both", "far_both"), np.full(count, size))


@pytest.fixture
def on_paper(monkeypatch):
    """Every round made up; answers (cell, index) of each, in order, and takes the world they are of."""
    made, worlds = [], [World()]

    def round_of(run, lab, cell, index, attempt):
        made.append((cell.id, index))
        dice = np.random.default_rng([index, round(10 * cell.miles), cell.queue_depth])
        return make_round(cell, run.profile, worlds[0], dice, index, float(np.exp(0.01 * dice.standard_normal())), attempt)

    monkeypatch.setattr(measure, "measure_cell", round_of)
    return type("Made", (), {"rounds": made, "worlds": worlds})


def begun(text, directory, **words):
    run = runs.begin(parse(text.format(**words)), "paper", 1, directory, Silence())
    run.lab_facts = make_recording().lab
    return run


def test_a_search_ends_by_itself_with_a_narrow_interval_at_the_truth(on_paper, tmp_path):
    run = begun(REACH, tmp_path / "run", time="10 min", protocol="C")
    search(run, PaperLab())
    made = recording_of(run)
    found = analyse(made).reach
    truth = miles_of(4e6 - 300_000)
    assert found.unknown == []
    straight = found.miles[0].miles
    assert straight.low <= truth * 1.01 and truth * 0.99 <= straight.high
    assert straight.high - straight.low < 0.05 * truth
    assert {cell.id for cell in made.cells} == {cell for cell, _ in on_paper.rounds}
    assert all(0 <= cell.miles <= farthest_of(run.profile) for cell in made.cells)
    assert min(sum(item.cell == cell.id for item in made.rounds) for cell in made.cells) >= ROUNDS_MIN


def test_a_search_without_time_still_measures_its_first_distances(on_paper, tmp_path):
    run = begun(REACH, tmp_path / "run", time="0 s", protocol="C")
    search(run, PaperLab())
    assert len(run.cells) == 3
    assert len(on_paper.rounds) == 3 * ROUNDS_MIN


def test_a_budget_spent_at_nothing_is_found_in_one_step(on_paper, tmp_path):
    on_paper.worlds[0] = World(a_ns=6e6)
    run = begun(REACH, tmp_path / "run", time="10 min", protocol="C")
    search(run, PaperLab())
    assert len(run.cells) == 3
    assert analyse(recording_of(run)).reach.nothing_ns.low > 4e6


def test_an_interrupted_search_goes_on_where_it_was(on_paper, tmp_path):
    run = begun(REACH, tmp_path / "run", time="10 min", protocol="C")
    search(run, PaperLab())
    lines = run.journal.read_bytes().splitlines(keepends=True)
    half = tmp_path / "half"
    half.mkdir()
    (half / "cells.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    again = runs.resume(half, Silence())
    again.lab_facts = run.lab_facts
    old = list(again.rounds)
    assert old and again.chosen
    on_paper.rounds.clear()
    search(again, PaperLab())
    assert again.rounds[: len(old)] == old
    assert not {(item.cell, item.index) for item in old} & set(on_paper.rounds), "nothing is measured twice"
    assert analyse(recording_of(again)).reach.unknown == []
    assert {item.cell for item in again.rounds} == {cell.id for cell in again.cells}


def test_a_search_and_its_question_survive_the_file(on_paper, tmp_path):
    run = begun(REACH, tmp_path / "run", time="10 min", protocol="C")
    search(run, PaperLab())
    report = running.finished(run)
    again = recording.read(tmp_path / "run")
    assert again.recording == report.recording
    assert msgspec.to_builtins(analyse(again.recording).reach) == again.analysis["reach"]
    assert again.analysis["claims"] == [], "it asked another question than those of 2008"


def test_a_sweep_measures_all_cells_and_then_the_widest_again(on_paper, tmp_path):
    on_paper.worlds[0] = World(writes=60)  # p99 is known nowhere: every interval stays wide.
    run = begun(SWEEP, tmp_path / "run", time="20 s")
    run.cells = cells_of(run.profile)

    class Slow(PaperLab):
        """A lab in which a round takes a second, by the run's own clock."""

        def flush_floors(self, size, count):
            run.begin_s -= 2.0
            return super().flush_floors(size, count)

    sweep_here(run, Slow())
    rounds = {cell.id: sum(item.cell == cell.id for item in run.rounds) for cell in run.cells}
    assert min(rounds.values()) >= 3
    assert max(rounds.values()) > 3
    assert run.elapsed_s() < 40


def test_a_sweep_that_is_narrow_everywhere_ends_before_its_time(on_paper, tmp_path):
    on_paper.worlds[0] = World(noise_ratio=0.001, drift_ratio=0.0, jitter_ratio=0.0001, writes=2000)
    run = begun(SWEEP, tmp_path / "run", time="1 h")
    run.cells = cells_of(run.profile)
    sweep_here(run, PaperLab())
    assert len(run.rounds) < 100


def test_a_continued_sweep_measures_only_what_is_missing(on_paper, tmp_path):
    run = begun(SWEEP, tmp_path / "run", time="1 s")
    run.cells = cells_of(run.profile)
    run.begin_s -= 100  # Its time is spent: base rounds only.
    asked = []
    done = Order([run.cells[0]], 0)
    measure.measure_round(run, PaperLab(), done.cells, done.index, "")
    sweep(run, asked.extend)
    assert [(order.index, [cell.id for cell in order.cells]) for order in asked][:2] == [
        (0, ["one-C-150", "eight-C-20", "eight-C-150"]),
        (1, ["one-C-20", "one-C-150", "eight-C-20", "eight-C-150"]),
    ]


# Spread over machines.


def spread():
    """A recording whose two workloads were measured by two machines, the second with slower disks."""
    base = make_recording(SWEEP.format(time="1 min"), shared_disk=True)
    slow = make_recording(SWEEP.format(time="1 min"), seed=2, near_flush_ns=900_000.0, far_flush_ns=900_000.0)
    ids = [[cell.id for cell in base.cells if cell.name == name] for name in ("one", "eight")]
    workers = [Worker(host={"cpu": name}, lab=made.lab, cells=mine)
               for name, made, mine in zip(("fast", "slow"), (base, slow), ids, strict=True)]  # fmt: skip
    rounds = [item for made, mine in zip((base, slow), ids, strict=True) for item in made.rounds if item.cell in mine]
    floors = [msgspec.structs.replace(item, worker=number) for number, made in enumerate((base, slow)) for item in made.floors]
    return msgspec.structs.replace(base, workers=workers, rounds=rounds, floors=floors), base, slow


def test_cells_of_each_machine_are_held_against_its_own_floors():
    both, base, slow = spread()
    found = {cell.cell: cell for cell in analyse(both).cells}
    assert list(found) == [cell.id for cell in both.cells]
    for made, name in ((base, "one"), (slow, "eight")):
        alone = {cell.cell: cell for cell in analyse(made).cells}
        for cell in found.values():
            if cell.name == name:
                assert cell.floor_ns.value == alone[cell.cell].floor_ns.value
                assert cell.response_ns_p50.value == alone[cell.cell].response_ns_p50.value


def test_a_machine_measures_its_cells_from_their_first_round(on_paper, tmp_path):
    run = begun(SWEEP, tmp_path / "run", time="1 s")
    run.cells = cells_of(run.profile)
    facts = make_recording().lab
    mine = [cell.id for cell in run.cells if cell.name == "one"]
    runs.keep(run, runs.Entry(worker=Worker(host={"cpu": "first"}, lab=facts, cells=[cell.id for cell in run.cells])))
    measure.measure_round(run, PaperLab(), run.cells, 0, "")
    runs.keep(run, runs.Entry(worker=Worker(host={"cpu": "second"}, lab=facts, cells=mine)))
    again = runs.resume(tmp_path / "run", Silence())
    assert {item.cell for item in again.rounds} == {cell.id for cell in run.cells} - set(mine), "superseded"
    assert [worker.cells for worker in again.workers] == [["eight-C-20", "eight-C-150"], mine]
