"""Replicas that are added, moved and removed while a load writes, in processes that are killed in the middle: nothing is lost."""

import contextlib
import os
import signal
import time

import pytest
from test_failover import (
    CANDIDATES,
    DISKS,
    EPOCHS,
    JOURNAL_BYTES,
    KEYED,
    NEWEST,
    PLACES,
    SEED,
    STAGING,
    VOLUME,
    VOLUME_BYTES,
    Cluster,
    Noted,
    Writer,
    compiled,
    patient,
    stack,
)

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.host.disk import disk
from farwrite.engine import primary_kernel as primary
from farwrite.engine.control import Address, votes_served
from farwrite.engine.replica_set import ADD, DONE, HAND_OVER, REMOVE, Standing, next_of_move
from farwrite.engine.vote import Voter, format_ballot
from farwrite.experiment.serve.control import (
    CONTROL,
    AddReplica,
    Desk,
    HandOver,
    RemoveReplica,
    Replicas,
    UnansweredError,
    ask,
    control_door,
)
from farwrite.experiment.serve.replica import unix_listener
from farwrite.lab.process import process
from farwrite.lab.shared_memory import board
from ports import free_port

__all__ = ["compiled", "patient", "stack"]  # Fixtures.
assert CANDIDATES  # Used by what is imported.


class Moved(Noted):
    """Answers at a control socket while it leads, as a served volume does."""

    def lead_in(self, epoch):
        with unix_listener(self.sockets, f"{self.name}-control", CONTROL) as listening:
            desk = Desk(self, "9", self.name, None, lambda: self.primary is not None and not self.steps_down)
            with control_door(listening, desk, self.name):
                super().lead_in(epoch)


def run_replica(name, addresses, voters, founders, ours, load, led_in, sockets):
    chosen, ballot_fd = DISKS[name]
    made = Moved(
        name, chosen, ballot_fd, addresses, None, VOLUME, ours.counters, Writer(load.words), seed=SEED, staging_bytes=STAGING,
        led_in=led_in.words, terms=KEYED, voters=voters, founders=founders, protocol=primary.C, policy=primary.CONSENT,
    )  # fmt: skip
    made.sockets = sockets
    made.run()


def run_voter(name, address, founders, ours):
    with votes_served(Voter(name, DISKS[name][1], founders), address, KEYED):
        while not ours.counters[0].stop:
            time.sleep(0.05)


class Moving(Cluster):
    """Replicas whose voters stand apart, each in a process; `spares` have a disk and are not started."""

    def __init__(self, stack, sockets, founders, spares, voters=("v1", "v2", "v3")):
        self.terms, self.stack, self.sockets, self.founders = KEYED, stack, sockets, founders
        self.processes, self.led = {}, {}
        self.places = {name: Address("127.0.0.1", free_port(), free_port()) for name in (*founders, *spares)}
        self.addresses = {name: self.places[name] for name in founders}
        self.voters = {name: Address("127.0.0.1", 1, free_port()) for name in voters}
        self.load = stack.enter_context(board(NEWEST + PLACES))
        self.boards = {name: stack.enter_context(board(8)) for name in (*self.places, *voters)}
        self.led_in = {name: stack.enter_context(board(EPOCHS)) for name in self.places}
        for name in (*self.places, *voters):
            ballot_fd = os.memfd_create(f"ballot-{name}")
            stack.callback(os.close, ballot_fd)
            format_ballot(ballot_fd)
            chosen = stack.enter_context(disk(None, JOURNAL_BYTES, VOLUME_BYTES)) if name in self.places else None
            DISKS[name] = (chosen, ballot_fd)
        for name in (*voters, *founders):
            self.start(name)

    def start(self, name):
        self.boards[name].words[:] = 0
        made = self.processes[name] = self.stack.enter_context(process(name))
        if name in self.voters:
            made.start(run_voter, name, self.voters[name], self.founders, self.boards[name])
        else:
            addresses = self.addresses | {name: self.places[name]}
            made.start(
                run_replica, name, addresses, self.voters, self.founders, self.boards[name], self.load, self.led_in[name],
                self.sockets,
            )  # fmt: skip

    def say(self, request):
        """The replicas that whoever leads answers with; None while nobody does."""
        try:
            return ask(self.sockets, request).replicas
        except UnansweredError:
            time.sleep(0.05)
            return None

    def seen(self):
        found = self.say(Replicas()) or []
        return {one.name: one for one in found}

    def add(self, name):
        place = self.places[name]
        self.until(lambda: self.say(AddReplica(name, place.host, place.port, place.vote_port)), f"adding {name}")
        self.addresses[name] = place

    def is_member(self, name):
        seen = self.seen()
        return name in seen and seen[name].is_member and seen[name].state in ("live", "leads")

    def move(self, source, destination):
        """As whoever supervises moves a replica: what comes next, until it is done."""
        steps = []
        place = self.places[destination]

        def is_done():
            seen = self.seen()
            if not seen:
                return False
            step = next_of_move(
                source, destination, {name: Standing(one.leads, one.is_member, one.state == "live") for name, one in seen.items()}
            )
            steps.append(step)
            if step == ADD:
                self.say(AddReplica(destination, place.host, place.port, place.vote_port))
                self.addresses[destination] = place
            elif step == HAND_OVER:
                with contextlib.suppress(UnfitError):  # Not within the time: it is tried again.
                    self.say(HandOver(destination))
            elif step == REMOVE:
                self.say(RemoveReplica(source))
            return step == DONE

        self.until(is_done, f"the move of {source} to {destination}")
        del self.addresses[source]
        return [step for step in (ADD, HAND_OVER, REMOVE) if step in steps]


def test_a_replica_that_leads_is_moved_under_load_and_the_one_that_was_let_go_never_leads_again(stack, tmp_path):
    cluster = Moving(stack, tmp_path, ("a", "b"), ("c",))
    old = cluster.leader()
    cluster.goes_on()
    cluster.until(lambda: all(one.is_member and one.state in ("leads", "live") for one in cluster.seen().values()), "a pair")
    for request, error, sentence in (
        (RemoveReplica(old), UsageError, "leads: hand over first"), (RemoveReplica("z"), UsageError, "no replica z"),
        (HandOver("z"), UsageError, "no such replica"), (HandOver(old), UsageError, "it leads already"),
        (AddReplica("v1", "127.0.0.1", 1, 1), UsageError, "name of a voter"),
        (AddReplica("c", "no host", 1, 1), UsageError, "printable"), (AddReplica("c", "h", 0, 1), UsageError, "65535"),
        (AddReplica("b" if old == "a" else "a", "other", 1, 1), UsageError, "at another address"),
    ):  # fmt: skip
        with pytest.raises(error, match=sentence):
            ask(cluster.sockets, request)
    cluster.add("c")  # Before its process runs.
    with pytest.raises(UnfitError, match="does not hold everything yet"):
        ask(cluster.sockets, HandOver("c"))
    assert not cluster.seen()["c"].is_member
    cluster.goes_on()
    cluster.start("c")
    assert cluster.move(old, "c") == [HAND_OVER, REMOVE]
    cluster.goes_on()
    assert cluster.leader() == "c"
    assert set(cluster.seen()) == {"b" if old == "a" else "a", "c"}
    # It comes back on its own files, without having heard that it is none any more.
    cluster.kill(old)
    cluster.start(old)
    cluster.kill("c")
    cluster.goes_on()
    assert cluster.leader() not in ("c", old)
    cluster.start("c")
    cluster.until(lambda: cluster.is_member("c"), "the return of the moved one")
    assert not cluster.led_in[old].words[max(cluster.led) - 1 :].any()
    cluster.kill(old)
    del cluster.processes[old]
    cluster.end()


def test_a_primary_killed_in_the_middle_of_a_move_is_succeeded_and_the_move_goes_on(stack, tmp_path):
    cluster = Moving(stack, tmp_path, ("a", "b"), ("c",))
    old = cluster.leader()
    cluster.goes_on(200)
    cluster.until(lambda: all(one.is_member for one in cluster.seen().values()), "a pair")
    cluster.add("c")
    cluster.start("c")
    cluster.kill(old)
    cluster.goes_on()
    other = "b" if old == "a" else "a"
    assert cluster.leader() == other
    cluster.until(lambda: cluster.is_member("c"), "a member that only the voters told of")
    cluster.start(old)
    cluster.until(lambda: cluster.is_member(old), "the return of the killed one")
    assert cluster.move(old, "c") == [REMOVE]
    cluster.kill(old)
    del cluster.processes[old]
    cluster.goes_on()
    cluster.end()


def test_the_only_replica_moves_and_its_destination_is_killed_and_begins_again_meanwhile(stack, tmp_path):
    cluster = Moving(stack, tmp_path, ("a",), ("b",), ("v1",))
    assert cluster.leader() == "a"
    cluster.goes_on(200)
    cluster.add("b")
    cluster.start("b")
    cluster.goes_on(20)
    cluster.kill("b")
    cluster.goes_on()  # Nobody waits for one that is no member; one that is is struck.
    cluster.start("b")
    assert cluster.move("a", "b") == [HAND_OVER, REMOVE]
    cluster.kill("a")
    del cluster.processes["a"]
    cluster.goes_on()
    os.kill(cluster.processes["v1"].pid, signal.SIGSTOP)  # One that leads alone asks nobody.
    cluster.goes_on()
    os.kill(cluster.processes["v1"].pid, signal.SIGCONT)
    cluster.end()
