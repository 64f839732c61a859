"""Replicas in processes that are killed, stopped and started again: who leads, and that no completed write is missing."""

import contextlib
import logging
import os
import signal
import socket
import time
from collections import deque

import numpy as np
import pytest

from farwrite.base.errors import UnfitError
from farwrite.base.host import reactor
from farwrite.base.host.disk import disk
from farwrite.base.host.libc import aligned_bytes
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine import control, node, turn_kernel
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import replica_kernel as replica
from farwrite.engine import secondary_kernel as secondary
from farwrite.engine.ballot import Question
from farwrite.engine.control import Address, ask, votes_served
from farwrite.engine.handshake import frame_of, hello_of
from farwrite.engine.journal import examine
from farwrite.engine.node import Node, PolledClients, recall
from farwrite.engine.vote import BallotError, Voter, format_ballot
from farwrite.lab.process import process
from farwrite.lab.shared_memory import board
from farwrite.workload.payload_kernel import check, matches
from ports import free_port

VOLUME, SEED, SIZE = 9, 5, 4096
PLACES = 8192
VOLUME_BYTES, JOURNAL_BYTES, STAGING = PLACES * SIZE, 8 << 20, 1 << 20
# On the load's board. LIVE counts the primary's peers that keep up with it; LONGEST_NS is the longest time without a
# completed write, and from NEWEST on each place has the newest completed write's number plus one.
STOP, TAKEN, COMPLETED, UNDER_WAY, LIVE, LAST_NS, LONGEST_NS, NEWEST = 0, 1, 3, 4, 5, 6, 7, 8
EPOCHS = 256  # More than a test sees: a node has a word for each that it has led in.
ASKED = 1  # On the witness's board, one word for each replica: how often it has asked for a vote.
MEET, CANDIDATES, MEET_S = 0, slice(1, 3), 5  # On a board of all: whether candidates meet, and the epoch that each asked for.
IN_FLIGHT = 16
PATIENCE_S = 120
ANSWER_S = 30  # For a voter to answer a test; the nodes themselves wait no longer than they do.
STRANGERS = 8  # At each port, silent: one alone once held up a failover by 30 s.
KEY = SharedKey(os.urandom(32))
KEYED, SEALED = Terms("none", "none", KEY), Terms("tls", "none", KEY)
STRANGER = Terms("none", "none", SharedKey(os.urandom(32)))
DISKS = {}


class Writer(PolledClients):
    """A load inside a primary's loop that lasts until it is stopped: each write is noted at its place once it is complete."""

    def __init__(self, words):
        self.words, self.state, self.in_flight = words, None, deque()

    def __call__(self, state):
        if state is not self.state:
            self.state, self.in_flight = state, deque()
        while self.in_flight and self.in_flight[0][0] <= state.at[0].completed:
            number, now_ns = self.in_flight.popleft()[1], time.monotonic_ns()
            self.words[NEWEST + number % PLACES] = number + 1
            self.words[LONGEST_NS] = max(self.words[LONGEST_NS], now_ns - (self.words[LAST_NS] or now_ns))
            self.words[LAST_NS] = now_ns
            self.words[COMPLETED] += 1
        number = int(self.words[TAKEN])
        is_wanted = len(self.in_flight) < IN_FLIGHT and number < (self.words[STOP] or number + 1)
        if is_wanted and primary.submit(state, number, number % PLACES * SIZE, SIZE, 0):
            self.words[TAKEN] += 1
            self.in_flight.append((int(state.journal.at[0].staged_sequence), number))
        self.words[UNDER_WAY] = len(self.in_flight)
        self.words[LIVE] = np.count_nonzero(state.peer["state"] == primary.LIVE)


class Witness(Voter):
    """Counts who asks it for a vote."""

    def __init__(self, names, words):
        super().__init__("witness", DISKS["witness"][1])
        self.names, self.words = sorted(names), words

    def decide(self, question):
        if question.ask in ("would", "grant"):
            self.words[ASKED + self.names.index(question.name)] += 1
        return super().decide(question)


def meeting(ask_all, own, words):
    """Voters asked as by `ask_all`; while words[MEET] is set a candidate waits with its "grant" until both are that far."""

    def asked(others, question, terms):
        if question.ask == "grant" and words[MEET]:
            words[own] = words[own] or question.epoch
            limit_s = time.monotonic() + MEET_S
            while not all(words[CANDIDATES]) and time.monotonic() < limit_s:
                time.sleep(0.001)
        return ask_all(others, question, terms)

    return asked


class Noted(Node):
    """Leaves word of every epoch that it leads in where it stays, whatever becomes of the process and its board."""

    def __init__(self, *arguments, led_in, **options):
        super().__init__(*arguments, **options)
        self.led_in = led_in

    def lead_in(self, epoch):
        self.led_in[epoch] = 1
        super().lead_in(epoch)


def run_node(name, addresses, witness, ours, load, led_in, contest, is_full, options):
    logging.getLogger().handlers.clear()  # As in a process of its own, whose warnings go to stderr; pytest keeps them.
    chosen, ballot_fd = DISKS[name]
    own = CANDIDATES.start + sorted(addresses).index(name)
    node.ask_all = meeting(node.ask_all, own, contest.words)  # In this process only.
    made = Noted(
        name, chosen, ballot_fd, addresses, witness, VOLUME, ours.counters, Writer(load.words), seed=SEED,
        staging_bytes=STAGING, led_in=led_in.words, **options,
    )  # fmt: skip
    if is_full:  # From here on; full(4).
        os.dup2(os.open("/dev/full", os.O_RDWR), chosen.volume_fd)
    made.run()


def run_witness(address, names, ours, terms):
    with votes_served(Witness(names, ours.words), address, terms):
        while not ours.counters[0].stop:
            time.sleep(0.05)


class Cluster:
    """Replicas and perhaps a witness, each in a process that may be killed and started again on what its disk holds."""

    def __init__(self, stack, names, witness, full=(), directory=None, **options):
        self.terms = options.setdefault("terms", KEYED)
        self.stack, self.full, self.options, self.processes, self.led = stack, full, options, {}, {}
        self.addresses = {name: Address("127.0.0.1", free_port(), free_port()) for name in names}
        self.witness = Address("127.0.0.1", 0, free_port()) if witness else None
        self.load = stack.enter_context(board(NEWEST + PLACES))
        self.boards = {name: stack.enter_context(board(8)) for name in (*names, "witness")}
        self.contest = stack.enter_context(board(1 + len(names)))
        self.led_in = {name: stack.enter_context(board(EPOCHS)) for name in names}
        for name in (*names, "witness"):
            ballot_fd = os.memfd_create(f"ballot-{name}")
            stack.callback(os.close, ballot_fd)
            format_ballot(ballot_fd)
            chosen = stack.enter_context(disk(directory, JOURNAL_BYTES, VOLUME_BYTES)) if name != "witness" else None
            DISKS[name] = (chosen, ballot_fd)
        for name in (*names, *(["witness"] if witness else [])):
            self.start(name)

    def start(self, name):
        self.boards[name].words[:] = 0
        made = self.processes[name] = self.stack.enter_context(process(name))
        if name == "witness":
            made.start(run_witness, self.witness, list(self.addresses), self.boards[name], self.terms)
        else:
            made.start(run_node, name, self.addresses, self.witness, self.boards[name], self.load, self.led_in[name],
                       self.contest, name in self.full, self.options)  # fmt: skip

    def kill(self, name):
        self.processes[name].kill()
        self.boards[name].counters[0].led_epoch = 0
        self.load.words[LIVE] = 0  # A primary that lives on counts them anew.

    def pause(self, name):
        os.kill(self.processes[name].pid, signal.SIGSTOP)

    def resume(self, name):
        os.kill(self.processes[name].pid, signal.SIGCONT)

    def leaders(self):
        """Who leads now. No epoch was ever led by two: each node has left word of every one it led in."""
        epochs = {name: int(self.boards[name].counters[0].led_epoch) for name in self.addresses}
        for name, led_in in self.led_in.items():
            for epoch in np.flatnonzero(led_in.words).tolist():
                assert self.led.setdefault(epoch, name) == name, f"{name} and {self.led[epoch]} led in epoch {epoch}"
        return [name for name, epoch in epochs.items() if epoch]

    def leader(self):
        self.until(lambda: len(self.leaders()) == 1, "one primary")
        return self.leaders()[0]

    def completed(self):
        return int(self.load.words[COMPLETED])

    def until(self, condition, what):
        limit_s = time.monotonic() + PATIENCE_S
        while not condition():
            for name, made in self.processes.items():
                if not made.ended and made.poll(0):
                    raise AssertionError(f"{name} ended: {made.answer()}")
            self.leaders()
            assert time.monotonic() < limit_s, f"{what}: {self.leaders()} lead, {self.completed()} writes complete"
            time.sleep(0.01)

    def goes_on(self, count=50):
        begin = self.completed()
        self.until(lambda: self.completed() >= begin + count, "more writes")

    def status(self, name):
        """What the replica answers; None while it does not."""
        return self.ask(name, Question("status", "test"))

    def ask(self, name, question):
        return ask(name, self.addresses[name], question, self.terms, ANSWER_S)

    def strangers(self):
        """Connect to every port, say nothing and stay."""
        for address in (*self.addresses.values(), *([self.witness] if self.witness else [])):
            for port in (address.port, address.vote_port):
                for _ in range(STRANGERS if port else 0):
                    self.stack.enter_context(socket.create_connection((address.host, port), ANSWER_S))

    def members(self, name):
        """Its configuration; nothing while it does not answer."""
        answer = self.status(name)
        return answer.ballot.members if answer else ()

    def asked(self, name):
        """How often the replica has asked the witness for a vote."""
        return int(self.boards["witness"].words[ASKED + sorted(self.addresses).index(name)])

    def all_have_joined(self, name):
        """Wait until every replica is a member and keeps up with the primary `name`.

        Where a quorum suffices nobody ever leaves the members: they include one that has not even started again.
        """
        everybody = set(self.addresses)
        self.until(
            lambda: self.load.words[LIVE] == len(everybody) - 1 and set(self.members(name)) == everybody, "all to have joined"
        )

    def is_equal(self):
        """Whether every replica has answered, with everything that was ever completed and as much as the others."""
        answers = [self.status(name) for name in self.addresses]
        if None in answers or self.load.words[UNDER_WAY] > 0:
            return False
        return len({answer.sequence for answer in answers}) == 1 and answers[0].sequence >= self.completed()

    def end(self):
        """Stop the load and the nodes; every completed write stands on each replica, and all hold the same."""
        self.leader()
        self.load.words[STOP] = max(int(self.load.words[TAKEN]), 1)
        # A quorum completes without its slowest: nothing may be under way any more when they are compared.
        self.until(lambda: self.load.words[UNDER_WAY] == 0, "the load to end")
        self.until(self.is_equal, "equal replicas")
        for name in self.processes:
            self.boards[name].counters[0].stop = 1
        for name in self.addresses:
            self.processes[name].answer(PATIENCE_S)  # A node applies all it holds before it ends.
        # Equal numbers are the nodes' word. What their disks hold is read from there.
        found = {name: examine(DISKS[name][0]) for name in self.addresses}
        assert not any(int(superblock.flags) & log.INCONSISTENT for superblock, _ in found.values())
        assert len({(int(ended[1]), int(superblock.durable_sequence)) for superblock, ended in found.values()}) == 1
        volumes = {name: os.pread(DISKS[name][0].volume_fd, VOLUME_BYTES, 0) for name in self.addresses}
        written = np.flatnonzero(self.load.words[NEWEST:])
        assert len(written) > 0
        block, end = aligned_bytes(SIZE), int(self.load.words[TAKEN]) + 1
        for name, volume in volumes.items():
            for place in written.tolist():
                block[:] = np.frombuffer(volume, np.uint8, SIZE, place * SIZE)
                completed = int(self.load.words[NEWEST + place]) - 1
                found = check(block, 0, SIZE, place * SIZE)
                # A later one was under way there when its primary died, and survived.
                assert found in range(completed, end, PLACES), f"{name} lacks completed write {completed}: {found}"
                assert matches(block, 0, SIZE, SEED, found, place * SIZE)
        assert len(set(volumes.values())) == 1

    def recovery_time_s(self):
        return self.load.words[LONGEST_NS] / 1e9


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Every kernel of a node is compiled before the first fork: that takes minutes, and would hold up its control thread."""
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as chosen, reactor.reactor() as ring:
        journal = recall(chosen, VOLUME, STAGING)
        frame_of(hello_of(journal, primary.C))
        state = primary.primary_state(journal, ring, [], primary.C, SEED, 10**9, volume_bytes=VOLUME_BYTES)
        assert primary.submit(state, 0, 0, SIZE, 0)
        assert turn_kernel.progress(state, 0) == replica.OK
        assert replica.settle(journal, ring) == replica.OK
        stopped = rows_of(SharedCounters)
        stopped[0].stop = 1
        secondary.serve(secondary.secondary_state(journal, ring, -1, primary.C, VOLUME_BYTES, stopped))
        recall(chosen, VOLUME, STAGING)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A test that asks once is heard, however long everybody waits for a processor; the strangers stay as long."""
    monkeypatch.setattr(control, "LISTEN_S", ANSWER_S)


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


PAIR = {"names": ("a", "b"), "witness": True, "protocol": primary.C, "policy": primary.CONSENT}
THREE = {"names": ("a", "b", "c"), "witness": False, "protocol": primary.QUORUM, "quorum": 2, "policy": primary.BLOCK}
THREE_SEALED = THREE | {"terms": SEALED}


@pytest.mark.parametrize("kind", [PAIR, THREE_SEALED], ids=["pair and witness by key", "quorum of two in three by TLS"])
def test_another_takes_over_from_a_killed_primary_and_the_old_one_comes_back_as_its_secondary(stack, kind):
    cluster = Cluster(stack, **kind)
    old = cluster.leader()
    cluster.goes_on()
    cluster.all_have_joined(old)
    cluster.goes_on()
    cluster.strangers()
    cluster.kill(old)
    cluster.goes_on()
    new = cluster.leader()
    assert new != old
    print(f"recovery time {cluster.recovery_time_s():.2f} s")
    cluster.start(old)
    cluster.all_have_joined(new)
    cluster.goes_on()
    assert cluster.leaders() == [new]
    cluster.end()


def test_a_primary_goes_on_without_its_secondary_only_by_the_witness_vote(stack):
    cluster = Cluster(stack, **PAIR)
    near = cluster.leader()
    far = ({"a", "b"} - {near}).pop()
    cluster.goes_on()
    cluster.all_have_joined(near)
    cluster.kill(far)
    cluster.goes_on()
    assert cluster.members(near) == (near,)
    # One message like this, of anybody, once made the witness forget that; then near died, far led, and writes were lost.
    attack = Question("configure", far, cluster.status(near).ballot.epoch, version=10**6, members=("a", "b"))
    assert ask("witness", cluster.witness, attack, STRANGER, ANSWER_S) is None
    refused = ask("witness", cluster.witness, attack, cluster.terms, ANSWER_S)
    assert not refused.yes and refused.ballot.members == (near,)
    cluster.start(far)
    cluster.all_have_joined(near)
    cluster.kill("witness")
    cluster.kill(far)
    blocked = -1
    while blocked != (now := cluster.completed()):  # Acknowledgements of before arrive.
        blocked = now
        time.sleep(0.5)
    cluster.until(lambda: cluster.load.words[UNDER_WAY] == IN_FLIGHT, "writes that wait")
    time.sleep(3)
    assert cluster.completed() == blocked
    assert cluster.leaders() == [near]
    assert cluster.load.words[UNDER_WAY] == IN_FLIGHT
    cluster.start(far)
    cluster.goes_on()
    cluster.end()


def test_a_secondary_that_was_gone_on_without_is_not_promoted(stack):
    cluster = Cluster(stack, **PAIR)
    near = cluster.leader()
    far = ({"a", "b"} - {near}).pop()
    cluster.goes_on()
    cluster.all_have_joined(near)
    cluster.pause(far)
    cluster.goes_on()
    cluster.kill(near)
    asked = cluster.asked(far)
    cluster.resume(far)
    cluster.until(lambda: cluster.asked(far) >= asked + 2, "two elections")
    time.sleep(0.5)  # As long as one that was won would take.
    assert cluster.leaders() == []
    assert not cluster.status(far).leads
    cluster.start(near)
    assert cluster.leader() == near
    cluster.all_have_joined(near)
    cluster.end()


def test_another_takes_over_from_a_primary_that_stands_still_and_is_not_gone(stack):
    """It once did not: a secondary that had made anything durable no longer noticed that its primary was silent."""
    cluster = Cluster(stack, **PAIR | {"peer_timeout_ns": 300_000_000})
    old = cluster.leader()
    cluster.all_have_joined(old)
    cluster.goes_on()
    cluster.pause(old)
    new = ({"a", "b"} - {old}).pop()
    cluster.until(lambda: new in cluster.leaders(), "the other to lead")
    cluster.goes_on()
    cluster.resume(old)
    cluster.until(lambda: len(cluster.leaders()) == 1, "one of them to step down")
    cluster.end()


def test_a_primary_hands_over_once_the_other_holds_everything(stack):
    cluster = Cluster(stack, **PAIR)
    near = cluster.leader()
    far = ({"a", "b"} - {near}).pop()
    cluster.all_have_joined(near)
    cluster.goes_on()
    assert cluster.ask(near, Question("hand_over", "test", members=(far,))).yes
    cluster.until(lambda: cluster.leaders() == [far], "the successor to lead")
    cluster.goes_on()
    cluster.end()


def test_a_successor_does_not_wait_for_the_old_primary_to_have_been_silent(stack, tmp_path):
    """It once did, with files on a disk: the old primary's ring held the connection open after it had been closed."""
    options = PAIR | {"peer_timeout_ns": PATIENCE_S * 10**9}  # Silence is noticed long after we give up.
    cluster = Cluster(stack, directory=tmp_path, **options)
    cluster.until(lambda: all(map(cluster.status, cluster.addresses)), "both to answer")
    assert cluster.ask("a", Question("hand_over", "test", members=("a",))).yes  # It stands at once.
    cluster.all_have_joined("a")
    cluster.goes_on()
    assert cluster.ask("a", Question("hand_over", "test", members=("b",))).yes
    cluster.until(lambda: cluster.leaders() == ["b"], "the successor to lead")
    cluster.goes_on()
    cluster.end()


def test_of_two_that_ask_at_once_one_leads(stack):
    cluster = Cluster(stack, **PAIR)
    contest = cluster.contest.words
    contested = 0
    for _ in range(8):  # Both are that far nearly every time; on a busy machine one may have won before the other begins.
        cluster.leader()
        cluster.goes_on(20)
        cluster.all_have_joined(cluster.leader())
        if contested == 2:
            break
        for name in cluster.addresses:
            cluster.kill(name)
        contest[CANDIDATES] = 0
        contest[MEET] = 1
        for name in cluster.addresses:
            cluster.start(name)
        cluster.until(lambda: all(map(cluster.status, cluster.addresses)), "both to answer")
        for name in cluster.addresses:  # Each is told to stand at once.
            assert cluster.ask(name, Question("hand_over", "test", members=(name,))).yes
        cluster.until(lambda: cluster.load.words[LIVE] == 1, "one to lead the other")
        contest[MEET] = 0
        contested += contest[1] == contest[2] != 0  # Both would have been given the same epoch.
    assert contested == 2
    leader = cluster.leader()
    cluster.goes_on()
    assert cluster.leaders() == [leader]
    cluster.end()


@pytest.mark.parametrize(("failure", "raised", "said"), [
    (KeyError("planted"), RuntimeError, "a thread of the replica . failed: KeyError.'planted'"),
    (BallotError("make the ballot x durable (errno 28): No space left on device."), UnfitError, "ballot x .* No space left"),
])  # fmt: skip
def test_a_node_whose_control_thread_fails_ends_says_why_and_votes_no_more(stack, monkeypatch, failure, raised, said):
    def fails(*arguments):
        raise failure

    monkeypatch.setattr(Node, "connect", fails)
    cluster = Cluster(stack, **PAIR)
    limit_s = time.monotonic() + PATIENCE_S / 2
    while not (ended := [name for name in cluster.addresses if cluster.processes[name].poll(0.05)]):
        assert time.monotonic() < limit_s, f"{cluster.leaders()} lead, and nobody has ended"
    with pytest.raises(raised, match=said):
        cluster.processes[ended[0]].answer()
    assert cluster.status(ended[0]) is None
    assert not cluster.boards[ended[0]].counters[0].led_epoch


def test_a_node_whose_volume_is_on_a_full_device_ends_says_why_and_votes_no_more(stack, capfd):
    """It once lived on, printed nothing and went on voting."""
    cluster = Cluster(stack, **PAIR, full=("b",))
    limit_s = time.monotonic() + PATIENCE_S
    while not cluster.processes["b"].poll(0.05):
        assert time.monotonic() < limit_s, f"{cluster.leaders()} lead, and b has not ended"
    with pytest.raises(UnfitError, match="No space left"):
        cluster.processes["b"].answer()
    assert cluster.status("b") is None and not cluster.boards["b"].counters[0].led_epoch
    assert "b ends, leads no more and gives no vote" in capfd.readouterr().err
    cluster.goes_on()  # Alone, by the witness's vote.
    assert cluster.leaders() == ["a"]


def test_a_node_whose_ballot_cannot_be_written_ends_says_why_and_gives_no_vote(stack, monkeypatch):
    ballot_fd = os.memfd_create("ballot")
    stack.callback(os.close, ballot_fd)
    format_ballot(ballot_fd)
    addresses = {name: Address("127.0.0.1", free_port(), free_port()) for name in ("a", "b")}
    chosen = stack.enter_context(disk(None, JOURNAL_BYTES, VOLUME_BYTES))
    made = Node("a", chosen, ballot_fd, addresses, None, VOLUME, rows_of(SharedCounters), PolledClients(), KEYED)

    def fails(*arguments):
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patched, pytest.raises(BallotError, match="Input/output error"):
        patched.setattr(os, "pwrite", fails)
        made.decide(Question("grant", "b", epoch=1))
    answer = made.decide(Question("grant", "b", epoch=2))
    assert not answer.yes and "Input/output error" in answer.refusal
    with pytest.raises(BallotError, match="Input/output error"):
        made.run()
