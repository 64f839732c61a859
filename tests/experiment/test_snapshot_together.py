"""Snapshots of several volumes at one instant: what one client's writes, one after the other, must look like in them, and what is
left where one of them cannot be taken. The volumes are plain Python, the control sockets are ours."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

import msgspec
import pytest

from fake_volume import FakeVolume
from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.framing import line
from farwrite.experiment.serve import control, schedule
from farwrite.experiment.serve.control import ANSWER, CONTROL, Delete, Pause, Show, Take, ask, next_line
from farwrite.experiment.serve.schedule import Schedule, keep_schedule, take
from farwrite.experiment.serve.together import take_together
from nbd_client import NbdClient

SIZE = 1 << 20
LIMIT_S = 20.0


@pytest.fixture
def volumes(tmp_path):
    with contextlib.ExitStack() as stack:
        yield [FakeVolume(stack, tmp_path / f"v{number}", SIZE, number + 1) for number in range(3)]


def places(volumes):
    return [volume.directory for volume in volumes]


@contextlib.contextmanager
def writing(volumes):
    """A client that writes 1 to each volume in turn, then 2, ...; it waits for each answer."""
    ending, count = threading.Event(), [0]

    def write():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(NbdClient(str(one.directory / "volume.sock"), b"volume")) for one in volumes]
            while not ending.is_set():
                count[0] += 1
                for client in clients:
                    assert client.write(0, count[0].to_bytes(8, "big")) == 0

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield count
    finally:
        ending.set()
        thread.join()


def numbers(volumes, name):
    return [int.from_bytes(volume.was(name)[:8].tobytes(), "big") for volume in volumes]


def is_of_one_instant(found):
    """Whoever wrote n to a volume had written it to all before, and n - 1 to all behind."""
    return all(sooner >= later for sooner, later in itertools.pairwise(found)) and found[0] - found[-1] <= 1


def several(volumes, count, rests_s=0.0):
    found = []
    with writing(volumes) as written:
        for number in range(count):
            seen, until_s = written[0], time.monotonic() + LIMIT_S
            while written[0] < seen + 2 and time.monotonic() < until_s:
                time.sleep(0.001)
            take_together(places(volumes), f"s{number}")
            found.append(numbers(volumes, f"s{number}"))
            time.sleep(rests_s)
    return found


def test_a_snapshot_of_several_volumes_is_of_one_instant(volumes):
    found = several(volumes, 12)
    assert all(map(is_of_one_instant, found)) and len({numbers[0] for numbers in found}) == 12
    assert not any(volume.pauses for volume in volumes)


def test_the_check_finds_snapshots_that_are_taken_one_after_the_other(volumes, monkeypatch):
    @contextlib.contextmanager
    def unpaused(volume, limit_s):
        yield lambda: True

    good = FakeVolume.take_snapshot

    def slowly(volume, name):
        time.sleep(0.05 * volume.number)
        return good(volume, name)

    monkeypatch.setattr(FakeVolume, "paused", unpaused)
    monkeypatch.setattr(FakeVolume, "take_snapshot", slowly)
    assert not all(map(is_of_one_instant, several(volumes, 4)))


def test_what_cannot_be_is_refused_before_anybody_waits(volumes, monkeypatch):
    monkeypatch.setattr(FakeVolume, "paused", lambda volume, limit_s: pytest.fail("it waits"))
    first, second, _ = places(volumes)
    for those, name, said in (
        ([first], "x", "1 volumes: 2 to 64"), ([first] * 65, "x", "65 volumes"), ([first, second, first], "x", "named twice"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            take_together(those, name)
    volumes[1].take_snapshot("old")
    with pytest.raises(UsageError, match=r"a snapshot old already at .*/v1: delete it"):
        take_together(places(volumes), "old")
    with pytest.raises(UnfitError, match="No farwrite serve answers"):
        take_together([first, first / "nowhere"], "x")


@pytest.mark.parametrize("which", range(3))
def test_where_one_cannot_take_it_nobody_has_it(volumes, which, monkeypatch):
    def refuse(name):
        raise UnfitError("There is no place for one more.")

    monkeypatch.setattr(volumes[which], "take_snapshot", refuse)
    with writing(volumes) as written:
        with pytest.raises(UnfitError, match=r"The snapshot x is not taken: There is no place for one more\.$"):
            take_together(places(volumes), "x")
        seen, until_s = written[0], time.monotonic() + LIMIT_S
        while written[0] < seen + 2:
            assert time.monotonic() < until_s, "writes do not go on"
            time.sleep(0.001)
    assert_left(volumes, [])


def assert_left(volumes, having):
    """Nobody waits, and only these volumes have a snapshot: what the others took they delete once the caller has hung up."""
    until_s = time.monotonic() + LIMIT_S
    while [one for one in volumes if one.kept] != having or any(one.pauses for one in volumes):
        assert time.monotonic() < until_s
        time.sleep(0.001)


def test_somebody_elses_snapshot_of_this_name_that_came_meanwhile_stays(volumes, monkeypatch):
    good = volumes[1].paused

    def paused(limit_s):
        volumes[1].take_snapshot("x")
        return good(limit_s)

    monkeypatch.setattr(volumes[1], "paused", paused)
    with pytest.raises(UnfitError, match="There is a snapshot x already"):
        take_together(places(volumes), "x")
    assert_left(volumes, [volumes[1]])


def test_one_that_takes_too_long_has_it_neither_and_clients_wait_no_longer_than_they_may(volumes, monkeypatch):
    monkeypatch.setattr(control, "PAUSED_S", 1.0)
    good, is_asked, may_go = volumes[2].take_snapshot, threading.Event(), threading.Event()

    def late(name):
        is_asked.set()
        may_go.wait(LIMIT_S)
        return good(name)

    monkeypatch.setattr(volumes[2], "take_snapshot", late)
    with writing(volumes) as written:
        refusals = []

        def attempt():
            try:
                take_together(places(volumes), "x")
            except UnfitError as refusal:
                refusals.append(str(refusal))

        thread = threading.Thread(target=attempt)
        thread.start()
        while not is_asked.is_set() and thread.is_alive():
            time.sleep(0.001)
        seen, until_s = written[0], time.monotonic() + LIMIT_S
        while written[0] < seen + 5:  # While one of them takes it still.
            assert time.monotonic() < until_s, "clients wait as long as that lasts"
            time.sleep(0.001)
        may_go.set()
        thread.join(LIMIT_S)
    assert len(refusals) == 1 and "The snapshot x is not taken" in refusals[0]
    assert_left(volumes, [])


def talk_to(volume, *requests):
    """Ask these on one connection and hang up; the answers."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(LIMIT_S)
        talk.connect(str(volume.directory / CONTROL))
        found = []
        for request in requests:
            talk.sendall(line(msgspec.json.encode(request)))
            found.append(ANSWER.decode(next_line(talk, 1 << 20, LIMIT_S)))
        return found


def test_who_dies_in_the_middle_leaves_nobody_waiting_and_no_snapshot_that_was_not_asked_about_again(volumes):
    volume = volumes[0]
    talk_to(volume, Pause())
    talk_to(volume, Pause(), Take("half"))
    until_s = time.monotonic() + LIMIT_S
    while volume.kept or volume.pauses:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    talk_to(volume, Pause(), Take("whole"), Show())
    refused = talk_to(volume, Pause(), Delete("whole"))[1]
    assert "nothing else is done" in refused.refusal and refused.exit_code == 2
    assert list(volume.kept) == ["whole"] and [one.name for one in ask(volume.directory, Show()).snapshots] == ["whole"]


def test_a_schedule_keeps_the_newest_of_each_volume(volumes, monkeypatch):
    taken, said = [], []
    monkeypatch.setattr(schedule, "instants", lambda every_s, tell: iter(1e9 + 60 * number for number in range(5)))
    keep_schedule(places(volumes), Schedule(60.0, 2), taken.append, said.append)
    assert len(taken) == 5 and not said and all(one.volumes == 3 and one.pause_s > 0 for one in taken)
    assert len({tuple(volume.kept) for volume in volumes}) == 1 and len(volumes[0].kept) == 2


def test_a_hook_hears_of_all_volumes(volumes, tmp_path):
    take(places(volumes), "one", schedule.Hooks(f"echo $FARWRITE_SOCKETS > {tmp_path}/said", ""))
    assert (tmp_path / "said").read_text().strip().split(":") == [str(place) for place in places(volumes)]
