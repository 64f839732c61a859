"""Snapshots that are taken now and then, what is kept of them, and what hooks do around the instant."""

from __future__ import annotations

import contextlib
import time

import pytest

from fake_volume import FakeVolume
from farwrite.base.errors import UnfitError
from farwrite.experiment.serve import schedule
from farwrite.experiment.serve.control import SnapshotFigures
from farwrite.experiment.serve.schedule import Hooks, Schedule, instants, keep_schedule, name_at, take, to_delete


@pytest.fixture
def volume(tmp_path):
    with contextlib.ExitStack() as stack:
        yield FakeVolume(stack, tmp_path / "v", 1 << 20, 7)


class EnoughError(Exception):
    pass


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while somebody sleeps."""

    class Clock:
        now_s, slept = 1_000_000_000.0, 0

        def sleep(self, seconds):
            self.slept += 1
            self.now_s += seconds

    made = Clock()
    for name in ("time", "monotonic"):
        monkeypatch.setattr(schedule.time, name, lambda: made.now_s)
    monkeypatch.setattr(schedule.time, "sleep", made.sleep)
    return made


def test_instants_come_when_they_are_due_and_those_that_passed_are_told(clock):
    said, found = [], []
    for due_s in instants(60.0, said.append):
        found.append(due_s - 1_000_000_000)
        clock.now_s += 130 if len(found) == 2 else 1  # What is done takes a second, once two minutes.
        if len(found) == 4:
            break
    assert found == [0, 60, 240, 300] or found == [0, 60, 240 - 60 + 60, 300]
    assert len(said) == 1 and "2 instants were left out" in said[0]


def test_the_newest_are_kept_and_other_peoples_stay():
    names = [name_at("every", 1e9 + 60 * number) for number in range(5)]
    every = [SnapshotFigures(name, 1, 1, True, 0) for name in (*names, "mine", "every-x", name_at("every2", 1e9))]
    assert to_delete(every, "every", 2) == names[:3] and to_delete(every, "every", 9) == []
    assert names == sorted(names) and names[0] == "every-20010909T014640Z"


def test_a_schedule_takes_keeps_and_says_what_could_not_be_taken(volume, monkeypatch):
    taken, said = [], []
    good = volume.take_snapshot

    def sometimes(name):
        if len(taken) == 2 and not said:
            raise UnfitError("The volume has no room.")
        return good(name)

    monkeypatch.setattr(volume, "take_snapshot", sometimes)
    monkeypatch.setattr(schedule, "instants", lambda every_s, tell: iter(1e9 + 60 * number for number in range(6)))
    keep_schedule([volume.directory], Schedule(60.0, 3), taken.append, said.append)
    assert len(taken) == 5 and len(volume.kept) == 3 and max(volume.kept) == name_at("every", 1e9 + 300)
    assert len(said) == 1 and "no room" in said[0]


# Hooks


def test_hooks_run_around_the_instant_and_know_its_name(volume, tmp_path):
    log = tmp_path / "log"
    good = volume.take_snapshot
    volume.take_snapshot = lambda name: (log.open("a").write("instant\n"), good(name))[1]
    take([volume.directory], "one", Hooks(f'echo before $FARWRITE_SNAPSHOT >> {log}', f'echo after >> {log}'))
    assert log.read_text().splitlines() == ["before one", "instant", "after"]


@pytest.mark.parametrize(("before", "limit_s", "said"), [("exit 3", 5, "exit code 3"), ("kill -9 $$", 5, "signal 9"),
                                                       ("sleep 60", 0.2, "within 0.200 s|within 200 ms")])  # fmt: skip
def test_a_hook_that_fails_before_takes_no_snapshot_and_after_is_run_all_the_same(volume, tmp_path, before, limit_s, said):
    begin_s = time.monotonic()
    with pytest.raises(UnfitError, match=f"(?:{said}).*No snapshot was taken"):
        take([volume.directory], "one", Hooks(before, f"touch {tmp_path}/after", limit_s))
    assert not volume.kept and (tmp_path / "after").exists() and time.monotonic() - begin_s < 20


def test_a_hook_that_fails_after_leaves_the_snapshot_and_says_so(volume):
    with pytest.raises(UnfitError, match=r"--after.*Yet the snapshot was taken"):
        take([volume.directory], "one", Hooks("", "exit 1"))
    assert list(volume.kept) == ["one"]


def test_after_is_run_when_the_snapshot_is_refused_or_interrupted(volume, tmp_path, monkeypatch):
    take([volume.directory], "one")
    with pytest.raises(Exception, match="already"):
        take([volume.directory], "one", Hooks("", f"touch {tmp_path}/refused"))
    monkeypatch.setattr(schedule, "ask", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        take([volume.directory], "two", Hooks("", f"touch {tmp_path}/interrupted"))
    assert (tmp_path / "refused").exists() and (tmp_path / "interrupted").exists()


def test_what_a_hook_started_ends_with_it(volume, tmp_path):
    take([volume.directory], "one", Hooks(f"(sleep 0.5; touch {tmp_path}/late) & exit 0", ""))
    time.sleep(0.8)
    assert not (tmp_path / "late").exists()
