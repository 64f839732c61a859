"""Replicas that are killed, stopped, lied to or out of room in the middle of a load, as forked processes without namespaces.

What had been promised is read from boards, what survived from the files; nothing the processes say of it is believed.
"""

import contextlib
import dataclasses
import json
import os
import random
import resource
import signal
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from small_lab import load_begun

from farwrite.base.errors import UnfitError
from farwrite.base.host.disk import disk
from farwrite.engine import handshake
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import replica_kernel as replica
from farwrite.engine.handshake import Hello, meet
from farwrite.engine.journal import examine, replay
from farwrite.lab.process import ProcessLostError
from farwrite.lab.shared_memory import board
from farwrite.targets import replicated
from oracle import record_oracle
from rounds import (
    ENDS,
    JOURNAL_BYTES,
    VOLUME_BYTES,
    Side,
    completed_in,
    copy,
    everything_compiled,  # noqa: F401
    issued_in,
    keep,
    load,
    order,
    reactors,
    two_processes,
    write,
)

MS = 1_000_000
ENDS_S = 60  # For one that has lost its peer to end.
GONE = (replica.PEER_CLOSED,)


@pytest.fixture(scope="module", params=["memory", "disk"])
def disks(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("disks") if request.param == "disk" else None
    with disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(directory, JOURNAL_BYTES, VOLUME_BYTES) as far:
        yield near, far


@pytest.fixture(scope="module")
def memory():
    with disk(None, JOURNAL_BYTES, VOLUME_BYTES) as near, disk(None, JOURNAL_BYTES, VOLUME_BYTES) as far:
        yield near, far


@contextlib.contextmanager
def load_running(chosen, near_disk, far_disk):
    """(near process, far process, near board, far board) with the first writes completed."""
    with board(64) as told, board(64) as far_told, board(1024) as history, two_processes() as (near, far):
        far.start(copy, chosen, far_disk, far_told)
        near.start(write, chosen, near_disk, told, history)
        load_begun(near, told)
        yield near, far, told, far_told


def endless(seed, **chosen):
    dice = random.Random(seed)
    depth = chosen.pop("queue_depth", dice.choice([1, 8]))
    return order(
        seed=seed, queue_depth=depth, write_count_max=200_000, load=load(queue_depth=depth), **chosen
    )  # fmt: skip


def nap(seed, longest_s=0.04):
    time.sleep(random.Random(f"nap {seed}").uniform(0, longest_s))


def is_clean(found):
    return found.lost == found.damaged == 0


def survived(far_disk):
    return replay(far_disk, replicated.STAGING_BYTES)[1].sequence


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_primarys_promises_are_kept_by_the_secondary_that_lives_on(disks, kind, protocol, seed):
    near_disk, far_disk = disks
    chosen = endless(seed, protocol=protocol, reactor=kind)
    with load_running(chosen, near_disk, far_disk) as (near, far, told, _):
        nap(seed)
        near.kill()
        completed = int(told.counters[0].completed)
        answered = far.answer(ENDS_S)
    assert answered.status in GONE
    found = replicated.audit_side(chosen, far_disk, completed)
    assert completed > 0
    assert found.damaged == 0
    if protocol in ("B", "C"):
        assert found.lost == 0
        assert survived(far_disk) >= completed
    assert survived(far_disk) == found.survived


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("seed", range(3))
def test_when_both_are_killed_c_loses_nothing_and_no_protocol_leaves_anything_but_a_prefix(disks, kind, protocol, seed):
    near_disk, far_disk = disks
    chosen = endless(100 + seed, protocol=protocol, reactor=kind)
    with load_running(chosen, near_disk, far_disk) as (near, far, told, far_told):
        nap(seed)
        os.kill(far.pid, signal.SIGKILL)
        os.kill(near.pid, signal.SIGKILL)
        near.kill()
        far.kill()
        completed = int(told.counters[0].completed)
        durable = int(far_told.counters[0].durable_sequence)
    assert completed > 0
    found = replicated.audit_side(chosen, far_disk, completed)
    assert found.damaged == 0
    assert found.survived >= durable
    if protocol == "C":
        assert found.lost == 0
    # The near site's own disk holds every completed write whatever the protocol: each asks for durability here.
    assert is_clean(replicated.audit_side(chosen, near_disk, completed))
    assert survived(far_disk) == found.survived


def test_the_same_drill_does_find_losses_where_the_protocol_allows_them(memory):
    """Otherwise the zeros above would prove nothing: 10 of 12 such kills lost writes on the machine this was written on."""
    near_disk, far_disk = memory
    lost = 0
    for seed in range(10):
        chosen = endless(300 + seed, protocol="A", reactor="plain", queue_depth=8)
        with load_running(chosen, near_disk, far_disk) as (near, far, told, _):
            nap(seed)
            os.kill(far.pid, signal.SIGKILL)
            near.kill()
            completed = int(told.counters[0].completed)
        lost += replicated.audit_side(chosen, far_disk, completed).lost
    assert lost > 0


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("seed", range(2))
def test_a_primary_whose_secondary_is_killed_says_so_and_counts_what_was_never_acknowledged(disks, kind, protocol, seed):
    near_disk, far_disk = disks
    chosen = endless(200 + seed, protocol=protocol, reactor=kind, queue_depth=8)
    with load_running(chosen, near_disk, far_disk) as (near, far, _, _):
        nap(seed)
        far.kill()
        observed = near.answer(ENDS_S)
    assert observed.status in GONE
    assert replicated.status_text(observed.status) == "the peer closed the connection"
    completed, issued = completed_in(observed), issued_in(observed)
    assert 0 < completed <= issued <= completed + 8
    found = replicated.audit_side(chosen, far_disk, completed)
    assert found.damaged == 0
    if protocol == "C":
        assert found.lost == 0
    assert is_clean(replicated.audit_side(chosen, near_disk, completed))


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["B", "C"])
def test_a_stopped_secondary_is_a_silent_peer_and_nothing_completes_meanwhile(memory, kind, protocol):
    near_disk, far_disk = memory
    chosen = endless(7, protocol=protocol, reactor=kind, queue_depth=8, peer_timeout_ns=700 * MS)
    with load_running(chosen, near_disk, far_disk) as (near, far, told, _):
        os.kill(far.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        completed = -1
        while completed != (now := int(told.counters[0].completed)):  # What it had acknowledged before arrives.
            completed = now
            time.sleep(0.3)
        observed = near.answer(ENDS_S)
        waited_s = time.monotonic() - stopped_s
    assert observed.status == replica.PEER_SILENT
    assert completed_in(observed) == completed
    assert issued_in(observed) == completed + 8
    assert waited_s > 0.6
    assert replicated.audit_side(chosen, far_disk, completed).damaged == 0
    if protocol == "C":
        assert replicated.audit_side(chosen, far_disk, completed).lost == 0


def test_a_secondary_that_is_only_slow_is_not_given_up(memory):
    """Pings keep an idle connection alive for longer than the peer timeout."""
    near_disk, far_disk = memory
    idle = load(((512, 1.0),), arrival="fixed", rate_per_s=0.7)  # Every 1.4 s.
    chosen = order(load=idle, peer_timeout_ns=1200 * MS, duration_ns=1600 * MS, reactor="auto")
    with load_running(chosen, near_disk, far_disk) as (near, _, _, _):
        observed = near.answer(ENDS_S)
        assert observed.status == 0
        assert completed_in(observed) == issued_in(observed) > 0


# A peer that is not a replica of ours, or not an honest one. Here the replica is a thread and the test is its peer.

VOLUME = 0xFACE


def frame(sequence, address=0, payload=b"p" * 512, epoch=1, volume=VOLUME):
    return record_oracle.write(payload, sequence, address, epoch, volume)


def hello(sequence=0, protocol=primary.C, told=None, **other):
    told = json.dumps(told or {"protocol": int(protocol), "log_epoch": 1, "consistent": True}, separators=(",", ":")).encode()
    head = record_oracle.header(
        "hello", len(told), sequence=sequence, payload=told, **{"volume": VOLUME, **other}
    )
    return head + told.ljust(record_oracle.rounded(len(told)) - 64, b"\0")


def heard(end, size):
    """Exactly `size` bytes, or fewer when the peer closes."""
    data = b""
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def told_to_secondary(far_disk, data, kind="plain", close=True):
    """A secondary after a good HELLO and then these bytes: what it answered, and the last sequence in its journal."""
    os.pwrite(far_disk.journal_fd, bytes(64 << 10), log.SUPERBLOCK_BYTES)  # The same identity was here before.
    ours, theirs = socket.socketpair()
    side = Side()
    with ours, theirs:
        ours.settimeout(10)
        side.start(replicated.copy_side, order(volume=VOLUME, reactor=kind), far_disk, theirs, side.board)
        ours.sendall(hello())
        assert heard(ours, len(hello())) == hello()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ours.sendall(data)
            if close:
                ours.shutdown(socket.SHUT_WR)
        answered = side.end(10)
    return answered, int(examine(far_disk)[1].sequence)


GOOD = [frame(1), frame(2, 4096), frame(3, 512)]
LIES = {
    "noise": b"\x5a" * 64,
    "a replayed frame": frame(3, 512),
    "the first frame again": frame(1),
    "a frame that leaves one out": frame(5),
    "another volume": frame(4, volume=VOLUME + 1),
    "an older epoch": frame(4, epoch=0),
    "a newer epoch": frame(4, epoch=2),
    "outside the volume": frame(4, VOLUME_BYTES - 511),
    "before the volume": frame(4, -512),
    "an oversized frame": record_oracle.header("write", (1 << 20) + 1, 4, volume=VOLUME),
    "the largest length there is": record_oracle.header("write", 0xFFFFFFFF, 4, volume=VOLUME),
    "another version": record_oracle.header("ping", version=1, volume=VOLUME, ordinal=1),
    "a pad": record_oracle.header("pad", 4032, 3, volume=VOLUME),
    "an ack": record_oracle.header("ack", 0, 3, volume=VOLUME, ordinal=1),
    "a ping before which one is missing": record_oracle.header("ping", 0, 3, volume=VOLUME, ordinal=2),
    "a ping without an ordinal": record_oracle.header("ping", 0, 3, volume=VOLUME),
    "a ping before which a write is missing": record_oracle.header("ping", 0, 4, volume=VOLUME, ordinal=1),
    "a second hello": hello(3),
    "an unknown kind": record_oracle.header(99, volume=VOLUME),
    "a broken checksum": frame(4)[:100] + b"x" + frame(4)[101:],
}


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_peering_and_is_not_in_the_journal(memory, kind, lie):
    """What came before it is kept, nothing that comes after it is."""
    data = b"".join(GOOD) + LIES[lie] + frame(4) + frame(5)
    answered, last = told_to_secondary(memory[1], data, kind, close=False)
    assert answered.status == replica.BAD_FRAME
    assert answered.refused < 0
    assert last == 3


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("cut", [0, 1, 63, 64, 65, 300, 575])
def test_a_frame_that_breaks_off_is_not_in_the_journal(memory, kind, cut):
    answered, last = told_to_secondary(memory[1], b"".join(GOOD) + frame(4)[:cut], kind)
    assert answered.status == replica.PEER_CLOSED
    assert last == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.binary(max_size=2000), good=some.integers(0, 3))
def test_no_bytes_after_a_hello_crash_a_secondary_or_get_into_its_journal(memory, data, good):
    answered, last = told_to_secondary(memory[1], b"".join(GOOD[:good]) + data)
    assert answered.status in (replica.BAD_FRAME, replica.PEER_CLOSED)
    assert last == good


frames = some.builds(
    lambda kind, length, sequence, address, epoch, volume, payload, ordinal: (
        record_oracle.header(kind, length, sequence, address, epoch, volume, payload=payload, ordinal=ordinal) + payload
    ),
    some.integers(0, 8), some.sampled_from([0, 1, 512, 4096, 1 << 20, (1 << 32) - 1]),
    some.integers(-2, 5) | some.integers(-(2**63), 2**63 - 1), some.integers(-(2**63), 2**63 - 1),
    some.sampled_from([0, 1, 2]), some.sampled_from([VOLUME, 1]), some.binary(max_size=64), some.integers(0, 3),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.lists(frames, max_size=4).map(b"".join))
def test_well_formed_nonsense_is_taken_apart_as_the_oracle_does(memory, data):
    from oracle import secondary_oracle

    taken, _, ended = secondary_oracle.parse(data, VOLUME, 1, VOLUME_BYTES)
    answered, last = told_to_secondary(memory[1], data)
    assert last == len(taken)
    assert answered.status in ((replica.BAD_FRAME,) if ended else (replica.PEER_CLOSED, replica.OK, replica.BAD_FRAME))


def told_to_primary(near_disk, data, protocol="C", kind="plain", close=True):
    """A primary after a good HELLO, all its writes received, and then these bytes: what it observed."""
    ours, theirs = socket.socketpair()
    side = Side()
    number = replicated.PROTOCOLS[protocol]
    chosen = order(
        volume=VOLUME, protocol=protocol, reactor=kind, write_count_max=20, queue_depth=4, load=load(((512, 1.0),))
    )  # fmt: skip
    with ours, theirs:
        ours.settimeout(10)
        side.start(replicated.write_side, chosen, near_disk, [theirs], side.board, np.zeros(64, np.int64))
        assert heard(ours, len(hello(protocol=number))) == hello(protocol=number)
        ours.sendall(hello(protocol=number))
        assert len(heard(ours, 4 * 576)) == 4 * 576
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ours.sendall(data)
            if close:
                ours.shutdown(socket.SHUT_WR)
        return side.end(10)


def ack(durable, received, **other):
    return record_oracle.header("ack", sequence=durable, address=received, **{"volume": VOLUME, "ordinal": 1, **other})


FALSE_ACKS = {
    "noise": b"\xa5" * 64,
    "more than was ever written": ack(21, 21),
    "durable but not received": ack(2, 1),
    "another volume": ack(1, 1, volume=1),
    "a write": frame(1),
    "a hello": hello(),
    "a ping": record_oracle.header("ping", volume=VOLUME, ordinal=1),
    "an ack before which one is missing": ack(0, 0, ordinal=2),
    "an ack without an ordinal": ack(0, 0, ordinal=0),
    "an oversized frame": record_oracle.header("write", (1 << 20) + 1, volume=VOLUME),
    "a huge ack": ack(2**62, 2**62),
    "a negative ack": ack(-1, -1),
    "a broken checksum": ack(1, 1)[:4] + b"none" + ack(1, 1)[8:],
}


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("protocol", ["B", "C"])
@pytest.mark.parametrize("lie", FALSE_ACKS)
def test_a_false_ack_completes_nothing(memory, kind, protocol, lie):
    observed = told_to_primary(memory[0], FALSE_ACKS[lie], protocol, kind, close=False)
    assert observed.status == replica.BAD_FRAME
    assert completed_in(observed) == 0
    assert issued_in(observed) == 4


def test_an_ack_that_goes_back_ends_the_peering(memory):
    observed = told_to_primary(memory[0], ack(2, 4) + ack(1, 4, ordinal=2), close=False)
    assert observed.status == replica.BAD_FRAME
    assert completed_in(observed) <= 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.binary(max_size=300))
def test_no_bytes_after_a_hello_complete_a_write(memory, data):
    observed = told_to_primary(memory[0], data)
    assert observed.status in (replica.BAD_FRAME, replica.PEER_CLOSED)
    assert completed_in(observed) == 0


# Two that do not fit part with a sentence.


def introduced(mine, said, as_primary):
    """What `meet` makes of a peer that says these bytes and closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        return meet(ours, mine, as_primary)


@pytest.mark.parametrize("as_primary", [True, False])
@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (hello(version=1), "another version"),
        (hello(volume=1), "another volume"),
        (hello(protocol=primary.B), "protocol number 2, we by 3"),
        (hello()[:63], "instead of introducing"),
        (hello()[:-1], "instead of introducing"),
        (hello(told={"protocol": 3}), "says what none of ours does"),
        (hello(told={"protocol": 3, "log_epoch": 0, "consistent": True, "more": 1}), "says what none of ours does"),
        (record_oracle.header("hello", 4097, volume=VOLUME), "not a HELLO"),
        (b"", "instead of introducing"),
        (b"GET / HTTP/1.1\r\nHost: farwrite\r\nUser-Agent: somebody else\r\n\r\n\r\n\r\n", "not a HELLO"),
        (ack(0, 0), "not a HELLO"),
        (frame(1), "not a HELLO"),
        (hello()[:8] + b"\xff" + hello()[9:], "not a HELLO"),
        (hello()[:20] + b"\xff" + hello()[21:], "not a HELLO"),
    ],
)
def test_a_wrong_hello_is_refused_with_a_sentence(said, sentence, as_primary):
    with pytest.raises(UnfitError, match=sentence):
        introduced(Hello(VOLUME, 1, 0, primary.C), said, as_primary)


def test_a_primary_of_an_older_epoch_is_fenced_whichever_side_notices():
    for mine, said, as_primary in ((1, hello(epoch=2), True), (2, hello(epoch=1), False)):
        with pytest.raises(UnfitError, match="epoch 1, the secondary has promised 2: the primary is fenced"):
            introduced(Hello(VOLUME, mine, 0, primary.C), said, as_primary)


@pytest.mark.parametrize("as_primary", [True, False])
def test_a_fitting_hello_is_answered(as_primary):
    assert introduced(Hello(VOLUME, 1, 0, primary.C), hello(), as_primary) == Hello(VOLUME, 1, 0, primary.C, 1)


def test_a_peer_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(handshake, "MEET_TIMEOUT_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(UnfitError, match="has not introduced itself within"):
        meet(ours, Hello(VOLUME, 1, 0, primary.C), leads=False)


def test_a_hello_in_pieces_is_put_together():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        def say():
            for byte in hello():
                theirs.sendall(bytes([byte]))

        speaking = threading.Thread(target=say)
        speaking.start()
        assert meet(ours, Hello(VOLUME, 1, 0, primary.C), False).volume == VOLUME
        speaking.join()


# A disk without room, or that answers an error.


def write_limited(limit_bytes, *arguments):
    """In the near process, whose files may not grow, nor be written, behind a limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    return write(*arguments)


def copy_limited(limit_bytes, *arguments):
    """In the far process, whose files may not grow, nor be written, behind a limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    return copy(*arguments)


def limited(chosen, disks, near_limit, far_limit):
    """A round with limits on both sides; answers both, however it ends."""
    with board(64) as told, board(64) as far_told, board(64) as history, two_processes() as (near, far):
        far.start(copy_limited, far_limit, chosen, disks[1], far_told)
        near.start(write_limited, near_limit, chosen, disks[0], told, history)
        observed = near.answer(20)
        near.call(keep, "")  # The primary has ended; its connection stays until its process hangs up.
        return observed, far.answer(20)


NO_LIMIT = resource.RLIM_INFINITY
FULL = {"the disk took only a part of a write: it is full", os.strerror(27), os.strerror(28)}


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize("limit_bytes", [1 << 20, (1 << 20) + 512])
def test_a_primary_without_room_for_its_journal_ends_with_words_and_completes_nothing_more(disks, kind, limit_bytes):
    near_disk = dataclasses.replace(disks[0], volume_bytes=VOLUME_BYTES)
    small = load(((4096, 1.0),), volume_bytes=512 << 10, queue_depth=8)
    chosen = order(seed=3, load=small, write_count_max=5000, reactor=kind)
    observed, answered = limited(chosen, (near_disk, disks[1]), limit_bytes, NO_LIMIT)
    assert observed.status < 0
    assert replicated.status_text(observed.status) in FULL | {os.strerror(22)}
    assert answered.status in (replica.PEER_CLOSED, replica.OK)
    completed = completed_in(observed)
    assert 0 < completed < 300
    for side in (near_disk, disks[1]):
        found = replicated.audit_side(chosen, side, completed)
        assert (found.lost, found.damaged) == (0, 0)


@pytest.mark.parametrize("kind", reactors())
def test_a_secondary_without_room_for_its_journal_ends_with_words_and_acknowledges_nothing_more(disks, kind):
    small = load(((4096, 1.0),), volume_bytes=512 << 10, queue_depth=8)
    chosen = order(seed=3, load=small, write_count_max=5000, reactor=kind)
    observed, answered = limited(chosen, disks, NO_LIMIT, 1 << 20)
    assert answered.status < 0
    assert replicated.status_text(answered.status) in FULL | {os.strerror(22)}
    assert observed.status in GONE
    completed = completed_in(observed)
    assert 0 < completed < 300
    assert replicated.audit_side(chosen, disks[1], completed).lost == 0


@contextlib.contextmanager
def broken_volume(path, flags):
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", reactors())
@pytest.mark.parametrize(
    ("path", "flags", "errno"), [("/dev/full", os.O_RDWR, 28), ("/dev/null", os.O_RDONLY, 9)], ids=["ENOSPC", "EBADF"]
)
@pytest.mark.parametrize("where", ["near", "far"])
def test_a_volume_that_refuses_ends_its_side_with_the_systems_words(memory, kind, path, flags, errno, where):
    near_disk, far_disk = memory
    chosen = order(reactor=kind)
    ours, theirs = socket.socketpair()
    near, far = Side(), Side()
    with broken_volume(path, flags) as descriptor, ours, theirs:
        broken = {"near": near_disk, "far": far_disk}
        broken[where] = dataclasses.replace(broken[where], volume_fd=descriptor)
        far.start(replicated.copy_side, chosen, broken["far"], theirs, far.board)
        near.start(replicated.write_side, chosen, broken["near"], [ours], near.board, np.zeros(64, np.int64))
        observed = near.end(20)
        ours.close()
        answered = far.end(20)
    status = (observed if where == "near" else answered).status
    assert status == -errno
    assert replicated.status_text(status) == os.strerror(errno)
    assert observed.status < 0
    assert completed_in(observed) < 300
    assert int(examine(far_disk)[1].sequence) >= completed_in(observed)


def test_an_unknown_status_still_has_words():
    for status in (replica.PEER_CLOSED, replica.PEER_SILENT, replica.BAD_FRAME, replica.SHORT_WRITE, -28, -5, -9):
        assert "Unknown" not in replicated.status_text(status)


def test_a_killed_process_is_told_from_one_that_refused(memory):
    with two_processes() as (near, _):
        near.start(time.sleep, 10)
        os.kill(near.pid, signal.SIGKILL)
        with pytest.raises(ProcessLostError):
            near.answer(5)
    assert not ENDS
