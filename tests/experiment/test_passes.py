"""A group of a routed volume moves while a client writes: nothing that was answered is lost, and whatever ends the move, one home
has everything. The volumes are plain Python, the router and the copier are ours."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

from fake_volume import FakeVolume
from farwrite.base.errors import UnfitError, UsageError
from farwrite.engine.frontend.router import Router
from farwrite.experiment.copy import passes
from farwrite.experiment.copy.copier import Copier, End
from farwrite.experiment.copy.passes import By, Mover, Step, next_step
from farwrite.experiment.pool import router_record
from farwrite.experiment.pool.router_process import GroupSwitch, Keeper, Order, homes_of, routed
from farwrite.experiment.pool.router_record import record_of
from farwrite.experiment.serve.control import CancelMove, MoveGroup, ShowMove, Take, ask
from nbd_client import NbdClient

CHUNK, BLOCK, GROUPS = 64 << 10, 4096, 2
SIZE = 16 * CHUNK
LOOK_S = 0.02


class Killed(BaseException):
    """The router's process is gone: nobody tidies up."""


class Writer:
    """A client with one connection that writes a growing number to random blocks, and remembers which was answered."""

    def __init__(self, sockets, seed):
        self.path, self.random = str(sockets / "volume.sock"), random.Random(seed)
        self.answered, self.asked = {}, {}
        self.count = 0
        self.pace_s, self.is_hung_up = 0.001, False
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self):
        try:
            with NbdClient(self.path, b"volume") as client:
                while not self.ending.is_set():
                    self.count += 1
                    at = BLOCK * self.random.randrange(SIZE // BLOCK)
                    self.asked[at] = self.count
                    assert client.write(at, self.count.to_bytes(8, "big")) == 0
                    self.answered[at] = self.count
                    time.sleep(self.pace_s)
        except (OSError, EOFError, AssertionError):
            self.is_hung_up = True

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.ending.set()
        self.thread.join()

    def lost(self):
        """Blocks that hold neither the last answered write nor the one that came after it: held, answered, asked."""
        with NbdClient(self.path, b"volume") as client:
            held = {at: int.from_bytes(client.read(at, 8), "big") for at in self.asked}
        return {
            at: (number, self.answered.get(at, 0), self.asked[at])
            for at, number in held.items() if number not in (self.answered.get(at, 0), self.asked[at])
        }  # fmt: skip


class World:
    """A routed volume of two groups, and a volume that one of them may move to."""

    def __init__(self, stack, directory):
        self.stack, self.directory = stack, directory
        self.members = [self.volume(stack, f"db.{group}", group + 1) for group in range(GROUPS)]
        self.target = self.volume(stack, "new", 77)
        self.sockets = directory / "db"
        self.sockets.mkdir(mode=0o700)
        groups = tuple(one.directory for one in self.members)
        self.order = Order("db", 99, SIZE, CHUNK, self.sockets, groups, directory / "s" / "db.json")
        self.serving = contextlib.ExitStack()
        stack.callback(lambda: self.serving.close())
        self.serve()

    def volume(self, stack, name, number):
        made = FakeVolume(stack, self.directory / name, SIZE // GROUPS, number)
        made.answers_in_order = True
        return made

    def serve(self):
        """A router, after the one before was killed, if there was one."""
        self.serving.close()
        self.serving = contextlib.ExitStack()
        self.router, self.keeper = self.serving.enter_context(routed(self.order))

    def move(self, by=By.PASSES, **words):
        with self.keeper.moving(0, self.target.directory) as switch:
            self.mover = Mover(self.members[0].end, self.target.end, switch, by, lambda said: None, overwrites=True, **words)
            return self.mover.move()

    def home(self):
        return homes_of(self.order)[0].name


@pytest.fixture
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("m")
    directory.chmod(0o700)
    with contextlib.ExitStack() as stack:
        yield World(stack, directory)


# The decision


@pytest.mark.parametrize(
    ("took", "by", "wanted"),
    [
        ([], By.PASSES, Step.COPY), ([], By.SNAPSHOT, Step.COPY),
        ([900], By.SNAPSHOT, Step.SWITCH), ([900], By.PASSES, Step.COPY),
        ([100], By.PASSES, Step.SWITCH), ([900, 500, 99], By.PASSES, Step.SWITCH), ([900, 500, 300], By.PASSES, Step.COPY),
        ([900, 890, 300], By.PASSES, Step.COPY), ([900, 890, 880], By.PASSES, Step.GIVE_UP), ([900, 900], By.PASSES, Step.COPY),
        ([900, 500, 490, 480], By.PASSES, Step.GIVE_UP), ([900, 700] * 9 + [900, 700], By.PASSES, Step.GIVE_UP),
    ],
)  # fmt: skip
def test_passes_go_on_while_they_become_shorter_and_end_when_one_is_short_enough(took, by, wanted):
    assert next_step(took, by, 100) is wanted


# A move


@pytest.mark.parametrize("by", list(By))
def test_a_group_moves_while_a_client_writes_and_the_client_keeps_its_connection(world, by):
    with Writer(world.sockets, 1) as writer:
        time.sleep(0.2)
        moved = world.move(by, pause_ns=passes.HOLD_NS_MAX)
        old = world.members[0].written_bytes
        time.sleep(0.2)
    assert moved.is_switched and moved.hold_ns > 0 and moved.passes == 2 and not writer.is_hung_up
    assert not writer.lost() and world.home() == "new" and world.members[0].written_bytes == old
    assert not world.target.kept and not world.members[0].kept
    world.serve()
    assert not writer.lost()
    ask(world.sockets, Take("later"))
    assert len(world.target.kept) == 1 and not world.members[0].kept


def test_passes_that_do_not_become_shorter_are_given_up_and_the_volume_stays(world):
    with Writer(world.sockets, 2) as writer:
        with pytest.raises(UnfitError, match="do not converge"):
            world.move(pause_ns=0)
        before = writer.count
        time.sleep(0.3)
    assert writer.count > before and not writer.is_hung_up and not writer.lost() and world.home() == "db.0"
    assert not world.members[0].kept and not world.target.kept


def test_a_last_pass_that_takes_too_long_is_given_up_and_clients_go_on(world):
    with Writer(world.sockets, 3) as writer:
        with pytest.raises(UnfitError, match="clients wait no longer"):
            world.move(By.SNAPSHOT, hold_ns_max=0)
        before = writer.count
        time.sleep(0.3)
    assert writer.count > before and not writer.is_hung_up and not writer.lost() and world.home() == "db.0"


def test_a_pass_that_was_cut_off_is_not_taken_for_the_last_one(world):
    """Its snapshot is older than the last write; the copier goes on with it, as it should with one of its own."""
    source, target = world.members[0], world.target
    with Writer(world.sockets, 4) as writer:
        good = Mover.last_pass

        def last_pass(mover):
            name = f"{passes.PREFIX}-000009-0001{'a' * 8}"
            source.take_snapshot(name)
            target.take_snapshot(f"{name}-part-0")
            time.sleep(0.2)
            good(mover)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Mover, "last_pass", last_pass)
            assert world.move(By.SNAPSHOT).passes == 3
    assert not writer.lost() and world.home() == "new"


def test_what_does_not_move_is_refused_before_anything_is_copied(world):
    with pytest.raises(UsageError, match="is a group of this volume"), world.keeper.moving(0, world.members[1].directory):
        pass
    with world.keeper.moving(0, world.target.directory):
        with pytest.raises(UsageError, match="moves already"), world.keeper.moving(0, world.target.directory):
            pass
        with pytest.raises(UnfitError, match="A group of this volume moves"):
            ask(world.sockets, Take("monday"))
    ask(world.sockets, Take("monday"))
    with pytest.raises(UsageError, match="Snapshots do not move"), world.keeper.moving(0, world.target.directory):
        pass


def asked_until_over(sockets):
    until_s = time.monotonic() + 60
    while not (state := ask(sockets, ShowMove()).move).is_over:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return state


def test_a_router_is_asked_for_a_move_at_its_control_socket_and_says_how_far_it_is(world):
    assert ask(world.sockets, ShowMove()).move is None and ask(world.sockets, CancelMove()).move is None
    for request, said in (
        (MoveGroup(2, "new", "passes", 1), "no group 2"), (MoveGroup(-1, "new", "passes", 1), "no group -1"),
        (MoveGroup(0, "db.1", "passes", 1), "is a group of this volume"), (MoveGroup(0, "new", "passes", 0), "A pause is"),
        (MoveGroup(0, "new", "passes", 1 << 60), "A pause is"), (MoveGroup(0, "../new", "passes", 1), "is no volume"),
        (MoveGroup(0, "", "passes", 1), "is no volume"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            ask(world.sockets, request)
    with pytest.raises(UsageError, match="has no router"):
        ask(world.members[0].directory, ShowMove())
    with Writer(world.sockets, 7) as writer:
        ask(world.sockets, MoveGroup(0, "nowhere", "passes", 1))
        ask(world.sockets, CancelMove())  # Noticed while nobody answers there, too.
        refused = asked_until_over(world.sockets)
        assert refused.to == "nowhere" and refused.refusal and not refused.hold_end_ns and world.home() == "db.0"
        ask(world.sockets, MoveGroup(0, "new", "snapshot", 1))
        over = asked_until_over(world.sockets)
    assert (over.refusal, over.passes, world.home()) == ("", 2, "new") and over.hold_end_ns > over.hold_begin_ns > 1 << 60
    assert over.copied_bytes > 0 and not writer.is_hung_up and not writer.lost()


# Cancelled or killed at every step


def stops_at(patch, number, stop):
    """Before and after each call that changes something outside of this process; at the last one asked for, `stop`."""
    seen = [0]

    def reached():
        seen[0] += 1
        if seen[0] >= number:
            stop()

    steps = ((End, "take"), (End, "forget"), (Copier, "ship"), (GroupSwitch, "commit"), (Keeper, "save"), (Router, "move_group"))
    for owner, name in steps:
        patch.setattr(owner, name, between(reached, getattr(owner, name)))
    return seen


def between(reached, good):
    def wrapped(*args):
        reached()
        result = good(*args)
        reached()
        return result

    return wrapped


def test_a_move_that_is_killed_at_any_step_leaves_one_home_with_everything(world):
    homes = []
    for number in range(1, 100):
        with pytest.MonkeyPatch.context() as patch, Writer(world.sockets, number) as writer:

            def kill():
                world.router.close()  # Its clients see it at once.
                raise Killed

            seen = stops_at(patch, number, kill)
            time.sleep(LOOK_S)
            with contextlib.suppress(Killed):
                world.move(pause_ns=passes.HOLD_NS_MAX)
            is_over = seen[0] < number
        homes.append(world.home())
        world.serve()
        world.keeper.delete_unlisted()
        assert not writer.lost(), f"step {number}"
        start_again(world)
        if is_over:
            break
    assert homes[0] == "db.0" and homes[-1] == "new" and homes == sorted(homes) and len(homes) > 15


def test_a_move_that_is_cancelled_at_any_step_leaves_one_home_with_everything(world):
    homes = []
    for number in range(1, 100):
        with pytest.MonkeyPatch.context() as patch, Writer(world.sockets, number) as writer:
            seen = stops_at(patch, number, lambda: world.mover.cancel())
            time.sleep(LOOK_S)
            with contextlib.suppress(UnfitError):
                world.move(pause_ns=passes.HOLD_NS_MAX)
            is_over = seen[0] < number
        assert not writer.is_hung_up and not writer.lost(), f"step {number}"
        homes.append(world.home())
        start_again(world)
        if is_over:
            break
    assert homes[0] == "db.0" and homes[-1] == "new" and homes == sorted(homes)


def start_again(world):
    """The group is at its first home, and empty; the other one holds what it was given."""
    if world.home() == "new":
        world.order.record.unlink()
        world.serve()
    for volume in (*world.members, world.target):
        volume.kept.clear()
    for member in world.members:
        member.empty(0, member.size)  # In place: connections read the view that they began with.
    assert not record_of(world.order.record).homes


# The checker finds planted faults


def lose_the_last_pass(patch):
    def last_pass(mover):
        with mover.switch.fenced():
            mover.switch.commit()
            mover.moved.is_switched = True

    patch.setattr(Mover, "last_pass", last_pass)


def switch_before_it_is_durable(patch):
    """And the source is lost before the last pass is over."""

    def last_pass(mover):
        with mover.switch.fenced():
            mover.switch.commit()
            mover.moved.is_switched = True
            mover.cancel()
            mover.one_pass()

    patch.setattr(Mover, "last_pass", last_pass)


def answer_at_the_old_home(patch):
    patch.setattr(Router, "move_group", lambda router, group, address: None)


def write_after_the_last_pass(patch):
    good = GroupSwitch.commit

    def commit(switch):
        switch.keeper.router.state.at[0].fences = 0  # Writes go on between the last pass and the switch.
        switch.keeper.router.wake()
        time.sleep(0.3)
        good(switch)

    patch.setattr(GroupSwitch, "commit", commit)


FAULTS = (lose_the_last_pass, switch_before_it_is_durable, answer_at_the_old_home, write_after_the_last_pass)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_of_the_switch_is_found(world, monkeypatch, fault):
    fault(monkeypatch)
    good = Mover.one_pass

    def one_pass(mover):
        good(mover)
        time.sleep(0.2)  # Something is written after every pass.

    monkeypatch.setattr(Mover, "one_pass", one_pass)
    with Writer(world.sockets, 5) as writer:
        time.sleep(0.1)
        with contextlib.suppress(UnfitError):
            world.move(pause_ns=passes.HOLD_NS_MAX)
        time.sleep(0.3)
    world.serve()
    assert world.home() == "new" and writer.lost()


def test_a_home_that_cannot_be_written_down_ends_the_router_and_not_the_writes(world, monkeypatch):
    def refuse(path, data):
        raise OSError(28, "No space left on device")

    with Writer(world.sockets, 6) as writer:
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(router_record, "write_atomically", refuse)
            world.move(pause_ns=passes.HOLD_NS_MAX)
        until_s = time.monotonic() + 10
        while world.router.is_running and time.monotonic() < until_s:
            time.sleep(0.01)
        assert not world.router.is_running
        world.router.close()
    world.serve()
    assert not writer.lost() and world.home() == "db.0"
