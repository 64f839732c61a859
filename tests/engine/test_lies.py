"""Sealed lies: frames with the right checksum and wrong numbers, to a primary and a secondary, in every state of theirs.

Each number of each kind of frame is set to the extremes of its type and to everything about the bounds that its receiver knows,
alone and together with its neighbour. The oracle says in whole numbers which frame may be taken; any other must end the session
with a status of its own, and change nothing. All of it runs compiled, as users run it, and interpreted to the last kernel with
every index and every sum checked (interpreted.py).
"""

import itertools
import socket
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest

from farwrite.base.errors import UnfitError
from farwrite.base.host import pretend_kernel as pretend
from farwrite.base.host import reactor
from farwrite.base.row import rows_of
from farwrite.base.shared_counters import SharedCounters
from farwrite.engine import journal_kernel as log
from farwrite.engine import primary_kernel as primary
from farwrite.engine import record_kernel as record
from farwrite.engine import replica_kernel as replica
from farwrite.engine import resync_kernel as resyncing
from farwrite.engine import secondary_kernel as secondary
from farwrite.engine import turn_kernel
from farwrite.engine.handshake import Hello, frame_of, receive_hello
from interpreted import Interpreter, strict
from oracle import lies_oracle, record_oracle

VOLUME, EPOCH, EXTENT, EXTENTS = 7, 3, 512, 10
VOLUME_BYTES = EXTENTS * EXTENT - 64  # The last extent is shorter.
STAGING, CAPACITY, INBOX = 16 << 10, 32 << 10, 8 << 10
MOST = 2**62 - 1
EXTREMES = (-(2**63), -(2**62), -1, 0, 1, MOST, 2**62, 2**63 - 2, 2**63 - 1)
LENGTHS = (0, 1, 7, 8, 9, 16, 63, 64, 65, 72, EXTENT - 64, EXTENT - 1, EXTENT, EXTENT + 1, (1 << 20), (1 << 20) + 1, 2**32 - 1)
NOBODY = np.full(1, -1, np.int64)

INTERPRETER = Interpreter()
MODULES = {"log": log, "record": record, "primary": primary, "secondary": secondary, "replica": replica, "pretend": pretend,
           "reactor": reactor, "turn": turn_kernel, "resyncing": resyncing}  # fmt: skip


@cache
def way(name):
    """The kernels by name of module, what makes a state for them, and of how many lies they are told one."""
    if name == "compiled":
        return SimpleNamespace(**MODULES, state=lambda made: made, every=1)
    return SimpleNamespace(**{short: INTERPRETER.module(real) for short, real in MODULES.items()}, state=strict, every=3)


@pytest.fixture(params=["compiled", "interpreted"])
def kernels(request):
    with np.errstate(over="raise"):
        yield way(request.param)


def world():
    stream, segments = rows_of(pretend.Stream, 2), np.zeros((2, pretend.SEGMENTS), np.int64)
    made = pretend.world(
        np.ones(1, np.int64), log.SUPERBLOCK_BYTES + CAPACITY, VOLUME_BYTES, STAGING, stream, np.zeros((2, 1 << 14), np.uint8),
        segments, segments.copy(),
    )  # fmt: skip
    made.cached[:] = np.arange(VOLUME_BYTES) % 251
    pretend.connect(made, 0, 0, 0)
    return made


def arrays(state):
    """Every array of a state, once."""
    if isinstance(state, np.ndarray):
        return [np.asarray(state)]
    return [array for part in state for array in arrays(part)] if isinstance(state, tuple) else []


class Copy:
    """What a state was, to be put back or held against what it is."""

    def __init__(self, state):
        self.arrays = [array for array in arrays(state) if array.size]
        self.kept = [array.copy() for array in self.arrays]

    def restore(self, only=None):
        """Put back all, or only these arrays."""
        chosen = only and {array.ctypes.data for array in only}
        for array, kept in zip(self.arrays, self.kept, strict=True):
            if chosen is None or array.ctypes.data in chosen:
                array[...] = kept

    def differs_in(self, but=()):
        """The arrays that have changed, those in `but` left out."""
        spared = {array.ctypes.data for array in but}
        return [
            array for array, kept in zip(self.arrays, self.kept, strict=True)
            if array.ctypes.data not in spared and not np.array_equal(array, kept)
        ]  # fmt: skip


def sealed(frame):
    """The bytes of a frame: its checksum is right whatever its numbers say."""
    length = frame["length"]
    fits = length <= INBOX - 64
    size = record_oracle.rounded(length if fits else 0)
    data = np.zeros(size, np.uint8)
    data[64:] = frame.get("fill", 1)
    kind = record_oracle.KINDS.get(frame["kind"], frame["kind"])
    record.seal(
        data, data.view(record.Header.LAYOUT), 0, kind, length if fits else 0, frame["sequence"], frame["address"],
        frame["epoch"], VOLUME, 5, frame["word"], frame["ordinal"],
    )  # fmt: skip
    if not fits:
        # More than can be sent here: it must be refused by its header alone.
        data[:64].view(record.Header.LAYOUT)[0].length = length
    return data


def lies_about(honest, bounds):
    """Frames that differ from an honest one in one number, or in address and length or word together; the honest one first."""
    yield honest
    numbers = sorted({*EXTREMES, *(bound + by for bound in bounds for by in (-1, 0, 1))})
    for name in ("sequence", "address", "epoch", "word"):
        for value in numbers:
            yield {**honest, name: value}
    for value in LENGTHS:
        yield {**honest, "length": value}
    for ordinal in (0, honest["ordinal"] - 1, honest["ordinal"] + 1, 65535):
        yield {**honest, "ordinal": ordinal & 65535}
    few = (-1, 0, EXTENTS, 2**63 - 8, 2**63 - 1)
    for address, other in itertools.product(few, few):  # What is added up on the way to a bound.
        yield {**honest, "address": address, "word": other}
        yield {**honest, "address": address, "sequence": other}
    for address, length in itertools.product(few, (0, 1, 8, 64, EXTENT)):
        yield {**honest, "address": address, "length": length}


def lies_in_state(kernels, number, honest, bounds):
    """Those tried in the state of this number; interpreted, other ones in the next."""
    frames = itertools.chain.from_iterable(lies_about(one, bounds) for one in honest)
    return itertools.islice(frames, number % kernels.every, None, kernels.every)


def heard(frames, hear, takes, before, may_change, refused_well):
    """(taken, refused): one end hears each frame as the oracle says, and whatever a refused one may not change is as `before`."""
    taken = refused = 0
    for frame in frames:
        status = hear(frame)
        if takes(frame):
            taken += 1
            assert status == replica.OK, frame
            before.restore()
        else:
            refused += 1
            assert status == replica.BAD_FRAME, frame
            refused_well(frame)
            assert not before.differs_in(but=may_change), frame
            before.restore(may_change)
    return taken, refused


def usual(kind, **fields):
    return {"kind": kind, "length": 0, "sequence": 0, "address": 0, "epoch": EPOCH, "word": 0, "ordinal": 1, **fields}


# To a secondary


class Far:
    """A secondary in a pretend world."""

    def __init__(self, kernels):
        self.kernels = kernels
        self.world = world()
        journal = log.journal_state(CAPACITY, STAGING, VOLUME, EPOCH, 0, 0, VOLUME_BYTES, EXTENT, 64)
        made = secondary.secondary_state(
            journal, reactor.pretended(self.world), 0, primary.TWO_TRIP, VOLUME_BYTES, rows_of(SharedCounters), INBOX
        )
        self.state = kernels.state(made)
        self.asides = 0

    def hear(self, frame):
        """Put a frame into the inbox and have it parsed; answers the status."""
        data = sealed(frame)
        at = self.state.at[0]
        fill = int(at.inbox_fill)
        np.asarray(self.state.inbox)[fill : fill + data.size] = data
        at.inbox_fill = fill + data.size
        return int(self.kernels.secondary.parse(self.state))

    def takes(self, kind, **fields):
        """Hear an honest frame, which must be taken."""
        if kind not in ("write", "trim", "snapshot", "forget"):
            self.asides += 1
            fields["ordinal"] = self.asides
        assert self.hear(usual(kind, **fields)) == replica.OK
        assert self.state.at[0].inbox_fill == 0

    def write(self, count, settled=True):
        for _ in range(count):
            self.takes("write", sequence=int(self.state.journal.at[0].staged_sequence) + 1, length=100, address=640)
        if settled:
            self.settle()

    def settle(self):
        ring, journal = self.state.ring, self.state.journal
        for _ in range(50):
            self.world.clock[0] += 10**9
            self.kernels.reactor.wait(ring, NOBODY, 0, 0)
            if self.kernels.replica.settle_turn(journal, ring) == 0:
                break
        self.world.clock[0] += 10**9
        self.kernels.reactor.wait(ring, NOBODY, 0, 0)
        assert self.kernels.replica.checkpoint(journal, ring) == replica.OK

    def known(self):
        at, own = self.state.journal.at[0], self.state.at[0]
        return {
            "staged": int(at.staged_sequence), "durable": int(at.durable_sequence), "epoch": int(at.epoch),
            "log_epoch": int(at.log_epoch), "session_epoch": int(own.session_epoch), "extents": EXTENTS,
            "heard": int(own.aside_heard), "as_of": int(own.as_of), "extent": EXTENT,
            "digested": bool(own.digested), "volume_bytes": VOLUME_BYTES, "staging": STAGING,
        }  # fmt: skip


def fresh(far):
    """Nothing has come yet."""


def settled(far):
    far.write(5)


def unsettled(far):
    far.write(3)
    far.write(2, settled=False)


def copying(far):
    far.write(5)
    far.takes("extent", sequence=9, address=EXTENT, length=EXTENT)


def digested(far):
    far.write(5)
    far.takes("digest", sequence=9, length=64)


def begun_anew(far):
    copying(far)
    far.takes("synced", sequence=9, address=12, word=EPOCH - 1)


def promised(far):
    """A newer epoch has been promised since the session began."""
    far.write(2)
    far.state.journal.at[0].epoch += 1


def without_room(far):
    far.takes("write", sequence=1, length=VOLUME_BYTES, address=0)
    far.takes("write", sequence=2, length=VOLUME_BYTES, address=0)
    far.takes("write", sequence=3, length=1900, address=0)


FAR_STATES = (fresh, settled, unsettled, copying, digested, begun_anew, promised, without_room)


@pytest.mark.parametrize("lead_to", FAR_STATES)
def test_a_secondary_takes_what_a_frame_may_say_and_ends_the_session_over_anything_else(kernels, lead_to):
    far = Far(kernels)
    lead_to(far)
    state, known = far.state, far.known()
    before = Copy(state)
    staged, as_of = known["staged"], max(known["as_of"], known["durable"])
    honest = [
        usual("write", sequence=staged + 1, length=100, address=64), usual("trim", sequence=staged + 1, word=100, address=64),
        usual("snapshot", sequence=staged + 1, length=9, word=1234), usual("forget", sequence=staged + 1, word=max(staged, 1)),
        *(usual(kind, ordinal=known["heard"] + 1, **fields) for kind, fields in (
            ("ping", {"sequence": staged}), ("goodbye", {}), ("command", {"sequence": staged + 3}),
            ("extent", {"sequence": as_of, "address": EXTENT, "length": EXTENT}),
            ("digest", {"sequence": as_of, "length": 64}),
            ("digest", {"sequence": staged, "length": 16, "address": 8, "word": 1}),
            ("synced", {"sequence": as_of, "address": as_of + 2, "word": EPOCH}),
        )),
    ]  # fmt: skip
    bounds = (staged, known["durable"], as_of, VOLUME_BYTES - 100, EXTENTS - 8, EPOCH)
    may_change = (state.at, state.inbox)

    def refused_well(frame):
        assert state.at[0].refused in secondary.REFUSALS, frame

    frames = lies_in_state(kernels, FAR_STATES.index(lead_to), honest, bounds)
    takes = partial(lies_oracle.secondary_takes, known=known)
    taken, refused = heard(frames, far.hear, takes, before, may_change, refused_well)
    assert refused > 900 // kernels.every
    assert (taken > 9 // kernels.every) == (lead_to is not promised)


@pytest.mark.parametrize("kind", ["pad", "hello", "ack", "ready", "differs", 0, 16, 255])
def test_a_secondary_takes_no_frame_of_another_kind(kernels, kind):
    far = Far(kernels)
    for length in (0, 8, 64):
        for number in (0, -1, 2**63 - 1):
            before = Copy(far.state)
            assert far.hear(usual(kind, length=length, sequence=number, address=number, word=number)) == replica.BAD_FRAME
            assert not before.differs_in(but=(far.state.at, far.state.inbox))
            before.restore()


def test_a_frame_that_never_fits_is_not_waited_for(kernels):
    far = Far(kernels)
    assert far.hear(usual("extent", length=INBOX)) == replica.BAD_FRAME
    assert far.state.at[0].refused == record.BAD_LENGTH


# To a primary


class Near:
    """A primary in a pretend world, whose peer is the test."""

    def __init__(self, kernels, **columns):
        self.kernels = kernels
        self.world = world()
        journal = log.journal_state(CAPACITY, STAGING, VOLUME, EPOCH, 0, 0, VOLUME_BYTES, EXTENT, 64)
        made = primary.primary_state(
            journal, reactor.pretended(self.world), [0], primary.TWO_TRIP, 1, 10**12, volume_bytes=VOLUME_BYTES,
            resync_buffer_bytes=4096, lag_ring=64,
        )  # fmt: skip
        self.state = kernels.state(made)
        for number in range(5):
            assert primary.submit(made, number, 64, 100, 0) == 1
        journal.at[0].applied_sequence = 4
        peer = made.peer[0]
        peer.sent_sequence = peer.run_sequence = 5
        peer.received, peer.durable, peer.granted, peer.commanded = 3, 2, 2, 4
        for name, value in columns.items():
            peer[name] = value

    def hear(self, frame):
        """Have a frame arrive; answers the status."""
        return self.arrive(sealed(frame))

    def arrive(self, data):
        assert pretend.send(self.world, 1, data, 0, data.size) == data.size
        return int(self.kernels.primary.hear(self.state, 0, 1))

    def known(self):
        peer = self.state.peer[0]
        return {
            "epoch": EPOCH, "heard": int(peer.aside_heard), "synced": int(peer.synced_count),
            "resyncing": peer.state == primary.RESYNCING, "durable": int(peer.durable),
            "received": int(peer.received), "granted": int(peer.granted),
            "sent": int(max(peer.run_sequence, peer.sent_sequence)), "extents": EXTENTS,
            "commanded": int(peer.commanded), "applied": int(self.state.journal.at[0].applied_sequence),
            "asked": int(peer.digests_sent), "answered": int(peer.digests_answered),
            "dropped": int(peer.digests_dropped),
        }  # fmt: skip


NEAR_STATES = {
    "live": {},
    "verifying": {"verifying": 1, "digests_sent": 2},
    "half verified": {"verifying": 1, "digests_sent": 2, "digests_answered": 1},
    "resyncing": {"state": primary.RESYNCING, "digests_sent": 2, "digests_answered": 1},
    "resyncing again": {"state": primary.RESYNCING, "digests_dropped": 1, "synced_count": 1},
    "catching up": {"state": primary.CATCHING, "synced_count": 2},
}


@pytest.mark.parametrize("where", NEAR_STATES)
def test_a_primary_takes_what_a_frame_may_say_and_ends_the_session_over_anything_else(kernels, where):
    near = Near(kernels, **NEAR_STATES[where])
    state, known = near.state, near.known()
    before = Copy(state)
    first = 8 * known["answered"]
    honest = [
        usual("ack", sequence=3, address=4, word=known["synced"]), usual("ready", sequence=3),
        usual("differs", sequence=4, address=first, length=min(8, EXTENTS - first), fill=0),
        usual("differs", sequence=4, address=first, length=min(8, EXTENTS - first)),
    ]  # fmt: skip
    bounds = (known["sent"], 3, known["applied"], known["synced"], EXTENTS - 8, EPOCH)
    around = state.ring.world
    network = around.stream, around.in_flight_bytes, around.segment_end, around.segment_due_ns
    may_change = (state.peer, state.inbox, around.at, *network)

    def refused_well(frame):
        assert state.peer[0].durable == known["durable"] and state.peer[0].granted == known["granted"]
        assert state.peer[0].different == 0, frame

    frames = lies_in_state(kernels, [*NEAR_STATES].index(where), honest, bounds)
    takes = partial(lies_oracle.primary_takes, known=known)
    taken, refused = heard(frames, near.hear, takes, before, may_change, refused_well)
    assert taken > 5 // kernels.every and refused > 400 // kernels.every


@pytest.mark.parametrize(
    "kind", ["write", "pad", "hello", "ping", "goodbye", "trim", "command", "extent", "synced", "digest", "snapshot",
             "forget", 0, 16]
)
def test_a_primary_takes_no_frame_of_another_kind(kernels, kind):
    near = Near(kernels)
    before = Copy(near.state)
    for length in (0, 8, 64, 1 << 20):
        for number in (0, -1, 2**63 - 1):
            assert near.hear(usual(kind, length=length, sequence=number, address=number, word=number)) == replica.BAD_FRAME
            before.restore()


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 71, 72, 73, 127])
def test_an_answer_that_arrives_in_two_pieces_is_put_together(kernels, cut):
    """Its payload's rounding up to 64 bytes may come last: what is not there yet is not passed over."""
    near = Near(kernels, verifying=1, digests_sent=2)
    data = sealed(usual("differs", sequence=4, length=8, fill=0))
    assert near.arrive(data[:cut].copy()) == replica.OK
    assert near.state.peer[0].inbox_fill == cut
    assert near.arrive(data[cut:].copy()) == replica.OK
    assert near.state.peer[0].inbox_fill == 0
    assert near.state.peer[0].digests_answered == 1


def test_answers_to_digests_that_a_resync_has_overtaken_are_passed_over(kernels):
    near = Near(kernels, verifying=1, digests_sent=2)
    kernels.resyncing.begin_resync(near.state, 0, 3, primary.BY_EXTENTS, 1)
    for ordinal, (first, count) in enumerate(((0, 8), (8, 2)), 1):
        answer = usual("differs", sequence=4, address=first, length=count, ordinal=ordinal)
        assert near.hear(answer) == replica.OK
    assert near.state.peer[0].digests_dropped == 0 and not near.state.wanted.any()
    assert near.hear(usual("differs", sequence=4, length=8, ordinal=3)) == replica.BAD_FRAME


def test_a_peer_with_another_history_has_been_granted_nothing(kernels):
    """Its HELLO tells a sequence of its own: taken for a leave, it would be sent what it was not asked about."""
    near = Near(kernels)
    near.kernels.primary.begin_peer(near.state, 0, 0, 20, 1)
    kernels.resyncing.begin_resync(near.state, 0, 20, primary.BY_DIGESTS, 1)
    assert near.state.peer[0].granted == near.state.peer[0].commanded == 0


def test_a_verify_that_is_under_way_is_not_begun_again(kernels):
    near = Near(kernels, state=primary.LIVE, verifying=1, digests_sent=2)
    near.state.control_requests[0].request = primary.VERIFY
    kernels.turn.take_control_request(near.state, 0, 1)
    assert near.state.peer[0].digests_sent == 2 and near.state.control_requests[0].request == primary.NOTHING
    assert near.hear(usual("differs", sequence=4, length=8, fill=0)) == replica.OK


# What never gets into a log


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0, 0), (64, -1), (-1, 64), (VOLUME_BYTES, 1), (VOLUME_BYTES - 63, 64), (-(2**63), 64), (2**63 - 1, 64), (2**63 - 64, 64),
        (0, VOLUME_BYTES + 1), (0, 2**63 - 1), (64, 2**63 - 1), (0, -(2**63)),
    ],
)  # fmt: skip
def test_a_write_that_replay_could_not_apply_is_not_taken_and_changes_nothing(kernels, trim, address, size):
    near = Near(kernels)
    before = Copy(near.state)
    asked = (np.int64(address), np.int64(size), np.int64(0))
    submit, submit_trim = kernels.primary.submit, kernels.primary.submit_trim
    assert (submit_trim(near.state, *asked) if trim else submit(near.state, 5, *asked)) == replica.INVALID_WRITE
    assert not before.differs_in()
    assert submit_trim(near.state, 0, VOLUME_BYTES, 0) == 1 and submit_trim(near.state, VOLUME_BYTES - 1, 1, 0) == 1


def test_a_write_for_which_there_never_is_room_is_not_taken(kernels):
    near = Near(kernels)
    near.state.journal.at[0].volume_bytes = MOST
    largest = (STAGING - log.BLOCK_BYTES) // 2 // record.HEADER_BYTES * record.HEADER_BYTES - record.HEADER_BYTES
    assert kernels.primary.submit(near.state, 5, 0, largest + 1, 0) == replica.INVALID_WRITE
    assert log.is_placeable(near.state.journal, largest)


@pytest.mark.parametrize("staging", [4 * log.BLOCK_BYTES, 5 * log.BLOCK_BYTES, 8 * log.BLOCK_BYTES])
def test_a_record_that_is_taken_has_room_in_an_empty_ring_wherever_it_stands(staging):
    journal = log.journal_state(staging, staging, VOLUME, EPOCH, -1, -1)
    at = journal.at[0]
    largest = next(length for length in range(staging, 0, -1) if log.is_placeable(journal, length))
    assert largest > staging // 4
    for place in range(3 * staging, 4 * staging, record.HEADER_BYTES):
        at.staged = at.applied = at.held = at.tail = place
        assert log.has_room(journal, largest), place


# Before the session


@pytest.mark.parametrize(
    "wrong",
    [{"sequence": -1}, {"sequence": 2**62}, {"sequence": 2**63 - 1}, {"epoch": -1}, {"epoch": 2**63 - 1}, {"log_epoch": -1},
     {"log_epoch": EPOCH + 1}, {"log_epoch": 2**63}],
)  # fmt: skip
def test_a_hello_with_impossible_numbers_is_refused_with_a_sentence(wrong):
    said = {"volume": VOLUME, "epoch": EPOCH, "sequence": 5, "protocol": primary.C, "log_epoch": 2, **wrong}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame_of(Hello(**said)))
        with pytest.raises(UnfitError, match=r"which must lie between 0 and|says what none of ours does"):
            receive_hello(ours, VOLUME)
