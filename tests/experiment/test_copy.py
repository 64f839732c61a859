"""Remote copy between two volumes that are made up: what is shipped, what a kill or a cut leaves, and who is refused."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import time

import numpy as np
import pytest

from fake_volume import BLOCK, FakeVolume
from farwrite.base.errors import LostWriteError, UnfitError, UsageError
from farwrite.experiment.copy import copier as moving
from farwrite.experiment.copy import plan
from farwrite.experiment.copy.copier import Asked, Copier, Stream, newest_copy, restore
from farwrite.experiment.copy.plan import Mark, marks_of
from farwrite.experiment.copy.ranges import clipped, difference, gaps, intersection, pieces, ranges_of, size_of, union
from farwrite.experiment.serve import control
from farwrite.experiment.serve.control import Hold, SnapshotFigures, hold

SIZE = 2 << 20


@pytest.fixture
def made(tmp_path):
    with contextlib.ExitStack() as stack:
        yield [FakeVolume(stack, tmp_path / name, SIZE, number) for number, name in ((0x1234ABCD, "n"), (0x77776666, "f"))]


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(moving, "RETRY_S", 0.01)
    monkeypatch.setattr(plan, "PIECE_BYTES", 16 << 10)


def copier(source, destination, said=None, **asked):
    return Copier(source.end, destination.end, Asked(**{"patience_s": 5.0, **asked}), (said if said is not None else []).append)


def filled(volume, seed=1, count=20):
    story = random.Random(seed)
    for _ in range(count):
        length = story.choice([1, 4096, 70_000])
        volume.write(story.randrange(SIZE - length), story.randbytes(length))


# Ranges


@pytest.mark.parametrize("seed", range(100))
def test_ranges_are_the_sets_of_their_bytes(seed):
    story = random.Random(seed)

    def drawn():
        return [(begin := story.randrange(40), begin + story.randrange(10)) for _ in range(story.randrange(6))]

    def bytes_of(parts):
        return {byte for begin, end in parts for byte in range(begin, end)}

    first, second = drawn(), drawn()
    one, other = ranges_of(first), ranges_of(second)
    for found, meant in (
        (one, bytes_of(first)), (union(one, other), bytes_of(first) | bytes_of(second)),
        (intersection(one, other), bytes_of(first) & bytes_of(second)),
        (difference(one, other), bytes_of(first) - bytes_of(second)),
        (gaps(one, 0, 60), set(range(60)) - bytes_of(first)), (clipped(one, 5, 20), bytes_of(first) & set(range(5, 20))),
    ):  # fmt: skip
        assert bytes_of(found) == meant and size_of(found) == len(meant)
        assert all(begin < end for begin, end in found)
        assert all(left[1] < right[0] for left, right in itertools.pairwise(found))
    cut = list(pieces(one, 7))
    assert bytes_of((offset, offset + length) for offset, length in cut) == bytes_of(first)
    assert all(length <= 7 and offset // 7 == (offset + length - 1) // 7 for offset, length in cut)


# One copy


def test_the_first_is_in_full_and_holes_stay_holes(made):
    near, far = made
    near.write(100_000, b"a" * 5000)
    near.write(1 << 20, bytes(70_000))  # Zeros that have their room at the source.
    near.empty(4 * BLOCK, 4 * BLOCK)
    copied = copier(near, far).copy()
    assert np.array_equal(far.was(copied.snapshot), near.was(copied.snapshot))
    assert copied.base is None and copied.why_full == "it is the first" and copied.recovery_point_s > 0
    assert far.head.allocated.sum() <= near.head.allocated.sum() and not far.head.allocated[256:].any()
    assert copied.shipped_bytes == far.written_bytes < 20_000


def test_then_only_what_changed_is_shipped_and_old_snapshots_go(made):
    near, far = made
    filled(near)
    one = copier(near, far, keep=3)
    one.copy()
    for number in range(5):
        before = far.written_bytes
        near.write((number + 1) * 300_000 // BLOCK * BLOCK, b"b" * BLOCK)
        copied = one.copy()
        assert copied.base and copied.changed_bytes == BLOCK == far.written_bytes - before and not copied.why_full
        assert np.array_equal(far.was(copied.snapshot), near.was(copied.snapshot))
        assert copied.recovery_point_s_max > copied.recovery_point_s
    assert len(near.kept) == 2 and len(far.kept) == 3 and set(near.kept) < set(far.kept)


def test_zeros_and_trims_between_two_copies_arrive(made):
    near, far = made
    filled(near, count=60)
    one = copier(near, far)
    one.copy()
    near.empty(0, SIZE // 2)
    copied = one.copy()
    assert np.array_equal(far.was(copied.snapshot), near.head.data) and copied.shipped_bytes == 0
    assert not far.head.allocated[: SIZE // 2 // BLOCK].any()


def test_without_two_snapshots_in_common_it_is_in_full_again_and_says_so(made):
    near, far = made
    filled(near)
    one = copier(near, far, said := [])
    one.copy()
    for name in list(near.kept):
        near.delete_snapshot(name)
    copied = one.copy()
    assert copied.base is None and "no snapshot that the destination has" in copied.why_full
    assert any("in full" in sentence for sentence in said) and np.array_equal(far.was(copied.snapshot), near.head.data)
    far.spoil_snapshot(copied.snapshot)
    for name in [name for name in far.kept if name != copied.snapshot]:
        far.delete_snapshot(name)
    again = one.copy()
    assert (again.base is None and "cannot be read" not in again.why_full) or "any more" in again.why_full
    assert np.array_equal(far.was(again.snapshot), near.head.data)


@pytest.mark.parametrize("silent", [0, 1])
def test_a_volume_that_does_not_say_what_changed_is_copied_in_full(made, silent):
    near, far = made
    filled(near)
    copier(near, far).copy()
    made[silent].tells_changes = False
    near.write(5, b"new")
    copied = copier(near, far, said := []).copy()
    assert copied.base is None and "does not say" in copied.why_full and np.array_equal(far.was(copied.snapshot), near.head.data)
    assert any("cannot be told" in sentence for sentence in said) == bool(silent)


def test_how_far_it_is_is_said_now_and_then(made, monkeypatch):
    near, far = made
    filled(near)
    monkeypatch.setattr(moving, "SAY_S", 0.0)
    copier(near, far, said := []).copy()
    assert any(re.search(r"KiB of .* left", sentence) for sentence in said)


def test_a_rate_is_kept(made):
    near, far = made
    near.write(0, os.urandom(500_000))
    begin_s = time.monotonic()
    copier(near, far, rate_bits_per_s=8_000_000).copy()
    assert time.monotonic() - begin_s > 0.3  # 500 kB are half a second; the first and the last piece wait for nobody.


# Lost on the way


class Story:
    """Writes, cuts, deletions and copies from a seed; whatever is called whole at the destination is what the source's was."""

    def __init__(self, near, far, seed):
        self.near, self.far, self.random = near, far, random.Random(seed)
        self.truth = {}

    def play(self, steps):
        events = [self.write, self.write, self.zeros, self.cut_there, self.cut_here, self.stop, self.stop, self.copy, self.delete,
                  self.meddle, self.meddle]  # fmt: skip
        for _ in range(steps):
            self.random.choice(events)()
            self.check()
        self.near.cut_after = self.far.cut_after = None
        self.copy()
        self.check()

    def write(self):
        length = self.random.choice([10, 4096, 400_000])
        self.near.write(self.random.randrange(SIZE - length), self.random.randbytes(length))

    def zeros(self):
        begin = self.random.randrange(0, SIZE, BLOCK)
        self.near.empty(begin, min(self.random.choice([BLOCK, 50 * BLOCK]), SIZE - begin))

    def cut_there(self):
        self.far.cut_after = self.random.randrange(1, 40)

    def cut_here(self):
        self.near.cut_after = self.random.randrange(1, 40)

    def stop(self):
        """The copier ends where a connection is lost, as when it is killed."""
        self.cut_there() if self.random.random() < 0.5 else self.cut_here()
        self.copy(patience_s=-1.0)

    def delete(self):
        side = self.random.choice([self.near, self.far])
        if names := list(side.kept):
            side.delete_snapshot(self.random.choice(names))

    def meddle(self):
        """Somebody writes at the destination."""
        self.far.write(self.random.randrange(0, SIZE, BLOCK), self.random.randbytes(BLOCK))

    def copy(self, **asked):
        with contextlib.suppress(UnfitError):
            copier(self.near, self.far, part_s=self.random.choice([0.0, 0.0, 0.005, 9]), overwrites=True, **asked).copy()

    def check(self):
        for name, (_, view) in self.near.kept.items():
            self.truth.setdefault(name, view.data)
        for mark, one in marks_of(self.far.snapshots(), "copy").items():
            if mark.done_below is None:
                assert np.array_equal(self.far.was(one.name), self.truth[one.name]), f"{one.name} is not what it was"


def told(near, far, seeds):
    """The seeds of stories that break."""
    broken = []
    for seed in seeds:
        for side in (near, far):
            side.kept.clear()
            side.head = type(side.head)(SIZE)
            side.cut_after = None
        try:
            Story(near, far, seed).play(12)
        except AssertionError:
            broken.append(seed)
    return broken


def test_whatever_is_cut_killed_deleted_or_written_the_destination_calls_nothing_whole_that_is_not(made):
    assert told(*made, range(40)) == []


def forget_the_destination(monkeypatch):
    good = plan.shipment
    monkeypatch.setattr(moving, "shipment", lambda seen, below=0: good(
        seen._replace(destination_changed=[] if seen.destination_changed is not None else None), below))  # fmt: skip


def say_too_much(monkeypatch):
    """A part is said to be there before its writes are."""
    monkeypatch.setattr(Stream, "drain", lambda self: None if self.source.in_flight else whole_drain(self))


def forget_zeros(monkeypatch):
    good = plan.shipment
    monkeypatch.setattr(moving, "shipment", lambda seen, below=0: good(seen, below)._replace(zeroes=[]))


def forget_below(monkeypatch):
    """What was written below the part since it was there is not looked at."""
    good = plan.shipment
    monkeypatch.setattr(moving, "shipment", lambda seen, below=0: good(seen._replace(changed_since_part=[]), below))


def whole_too_early(monkeypatch):
    good = moving.Copier.ship

    def ship(self, stream, began, todo, size):
        todo = list(todo)
        good(self, stream, began, todo[:-1] if len(todo) > 3 else todo, size)

    monkeypatch.setattr(moving.Copier, "ship", ship)


whole_drain = Stream.drain


@pytest.mark.parametrize("fault", [forget_the_destination, say_too_much, forget_zeros, forget_below, whole_too_early])
def test_a_planted_fault_of_copying_is_found(made, monkeypatch, fault):
    fault(monkeypatch)
    for begin in range(0, 400, 10):
        if told(*made, range(begin, begin + 10)):
            return
    pytest.fail("no story of 400 finds it")


def test_a_copier_that_is_killed_is_followed_by_one_that_goes_on(made):
    near, far = made
    near.write(0, os.urandom(SIZE))
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            copier(near, far, part_s=0.02, rate_bits_per_s=16_000_000).copy()
        os._exit(0)
    until_s = time.monotonic() + 120
    while max((mark.done_below or 0 for mark in marks_of(far.snapshots(), "copy")), default=0) < SIZE // 4:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not [mark for mark in marks_of(far.snapshots(), "copy") if mark.done_below is None]
    near.write(0, b"written since")
    copied = copier(near, far).copy()
    assert copied.resumed_at >= SIZE // 4 and copied.shipped_bytes <= SIZE - copied.resumed_at + (1 << 20)
    assert np.array_equal(far.was(copied.snapshot), near.was(copied.snapshot)) and bytes(far.head.data[:7]) != b"written"
    assert [mark.done_below for mark in marks_of(far.snapshots(), "copy")] == [None]


def test_nothing_that_moves_for_too_long_is_given_up_with_the_loss(made):
    near, far = made
    filled(near)

    class Gone(Copier):
        def attempt(self):
            near.cut_after = 1
            return super().attempt()

    with pytest.raises(UnfitError, match="answers no more"):
        Gone(near.end, far.end, Asked(patience_s=0.1), lambda sentence: None).copy()


# Who is refused


def test_what_somebody_has_written_at_the_destination_is_not_taken_away(made):
    near, far = made
    filled(near)
    far.write(0, b"precious")
    with pytest.raises(UsageError, match=r"4 KiB.*somebody.*--overwrite"):
        copier(near, far).copy()
    assert not far.kept and bytes(far.head.data[:8]) == b"precious"
    copied = copier(near, far, overwrites=True).copy()
    assert np.array_equal(far.was(copied.snapshot), near.head.data)
    far.write(0, b"precious")
    with pytest.raises(UsageError, match=f"since {copied.snapshot}.*--overwrite"):
        copier(near, far).copy()


def test_a_volume_is_not_copied_to_itself_nor_to_a_smaller_one_nor_by_two_at_once(made, tmp_path, monkeypatch):
    near, far = made
    with pytest.raises(UsageError, match="same volume"):
        copier(near, near).copy()
    with contextlib.ExitStack() as stack:
        small = FakeVolume(stack, tmp_path / "s", SIZE // 2, 3)
        with pytest.raises(UsageError, match="too small"):
            copier(near, small).copy()
    monkeypatch.setattr(control, "HOLD_S", 0.1)
    with hold(far.end.sockets, Hold()), pytest.raises(UnfitError, match="Another farwrite copy"):
        copier(near, far).copy()
    monkeypatch.undo()
    copier(near, far).copy()  # Whoever held it has hung up.


# Verified, and the way back


def test_a_copy_that_differs_is_found_by_digests_and_is_no_recovery_point(made):
    near, far = made
    filled(near)
    assert copier(near, far, verifies=True).copy().is_verified
    near.write(0, b"new" * 1000)
    far.spoilt = 10
    with pytest.raises(LostWriteError, match="differs"):
        copier(near, far, verifies=True).copy()
    assert len([mark for mark in marks_of(far.snapshots(), "copy") if mark.done_below is None]) == 1


def test_a_lost_source_is_succeeded_by_the_last_copy_and_the_way_back_ships_only_what_differs(made):
    near, far = made
    near.write(0, os.urandom(SIZE))
    one = copier(near, far)
    copied = one.copy()
    near.write(8 * BLOCK, b"never copied")
    far.cut_after = 1
    with pytest.raises(UnfitError):
        near.write(900_000, os.urandom(200_000))
        copier(near, far, patience_s=-1.0).copy()  # The source is lost in the middle of a copy.
    assert newest_copy(far.snapshots(), "copy") == copied.snapshot
    restore(far.end, copied.snapshot)
    assert np.array_equal(far.head.data, far.was(copied.snapshot))
    far.write(100 * BLOCK, b"written at the new primary")
    with pytest.raises(UsageError, match="--overwrite"):
        copier(far, near).copy()
    before = near.written_bytes
    back = copier(far, near, overwrites=True).copy()
    assert np.array_equal(near.was(back.snapshot), far.head.data) and back.base == copied.snapshot
    assert near.written_bytes - before < 500_000
    near.write(0, b"primary again")
    again = copier(near, far).copy()
    assert again.base == back.snapshot and np.array_equal(far.head.data, near.head.data)


def test_only_a_whole_snapshot_is_gone_back_to(made):
    near, far = made
    near.write(0, b"first")
    near.take_snapshot("one")
    near.empty(0, BLOCK)
    near.write(5 * BLOCK, b"second")
    assert restore(near.end, "one").changed_bytes == 2 * BLOCK
    assert np.array_equal(near.head.data, near.was("one"))
    with pytest.raises(UsageError, match="no snapshot two"):
        restore(near.end, "two")
    with pytest.raises(UsageError, match="left no whole snapshot"):
        newest_copy([*far.snapshots(), SnapshotFigures(Mark("copy", 1, "0" * 12, 5).name, 1, 1, True, 0)], "copy")
