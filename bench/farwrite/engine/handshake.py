"""How two replicas meet: one HELLO each way, before any write.

Each says which volume it holds, at which epoch, up to which write of which epoch, and whether it is whole. Replicas that do
not fit part again with a sentence instead of writing into each other's volumes. `how_to_join` decides how a peer that is
behind, or went another way, is brought up to date; it is pure, and the simulator asks it too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import numpy as np

from ..base.errors import UnfitError
from ..base.framing import receive_exactly
from ..base.wire.greeting import stranger
from . import journal_kernel as log
from . import primary_kernel as primary
from . import record_kernel as record

MEET_TIMEOUT_S = 30.0  # The peer may be drawing its plan.
HELLO_BYTES_MAX = 4096


@dataclass(frozen=True)
class Hello:
    """What a replica says of itself."""

    volume: int
    epoch: int  # the newest it has promised
    sequence: int  # of its last durable write
    protocol: int
    log_epoch: int = 0  # of that write
    consistent: bool = True  # false in the middle of a resync


def hello_of(journal: log.Journal, protocol: int) -> Hello:
    """What a replica with this journal has to say."""
    at = journal.at[0]
    return Hello(
        int(at.volume), int(at.epoch), int(at.durable_sequence), protocol, int(at.log_epoch),
        not int(at.flags) & log.INCONSISTENT,
    )  # fmt: skip


def frame_of(hello: Hello) -> bytes:
    """A HELLO as it goes over the wire."""
    told = msgspec.json.encode({"protocol": hello.protocol, "log_epoch": hello.log_epoch, "consistent": hello.consistent})
    size = int(record.record_bytes(len(told)))
    frame = np.zeros(size, np.uint8)
    frame[record.HEADER_BYTES : record.HEADER_BYTES + len(told)] = np.frombuffer(told, np.uint8)
    record.seal(
        frame, frame.view(record.Header.LAYOUT), 0, record.HELLO, len(told), hello.sequence, 0, hello.epoch, hello.volume, 0
    )
    return frame.tobytes()


class HelloBody(msgspec.Struct, forbid_unknown_fields=True):
    """What stands behind a HELLO's header."""

    protocol: int
    log_epoch: int
    consistent: bool


HELLO_BODY = msgspec.json.Decoder(HelloBody)  # Made before there are threads, as all of the engine's (control.py).


def receive_hello(connection: socket.socket, volume: int, timeout_s: float | None = None) -> Hello:
    """The peer's HELLO; UnfitError when the peer closes, or says anything else, TimeoutError when it is not whole in time."""
    limit_s = time.monotonic() + (MEET_TIMEOUT_S if timeout_s is None else timeout_s)
    closed = UnfitError("The peer closed the connection instead of introducing itself.")
    head = receive_exactly(connection, record.HEADER_BYTES, limit_s, TimeoutError(), closed)
    header = np.frombuffer(head, record.Header.LAYOUT)[0]
    kind, length = int(header.kind), int(header.length)
    body = b""
    if kind == record.HELLO and length <= HELLO_BYTES_MAX:  # Nothing longer is waited for, whoever asks.
        size = int(record.record_bytes(length)) - record.HEADER_BYTES
        body = receive_exactly(connection, size, limit_s, TimeoutError(), closed)
    frame = np.frombuffer(bytearray(head + body), np.uint8)
    headers = frame.view(record.Header.LAYOUT)
    found = record.inspect(frame, headers, 0, frame.size, volume)
    if found == record.WRONG_VOLUME:
        raise UnfitError(f"The peer holds another volume ({int(header.volume):x}, ours is {volume:x}).")
    if found == record.BAD_VERSION:
        raise UnfitError("The peer speaks another version of the replication protocol.")
    if found != record.COMPLETE or kind != record.HELLO:
        raise UnfitError(stranger(head) or "What the peer sent is not a HELLO; it is not a replica of ours.")
    try:
        told = HELLO_BODY.decode(body[:length])
    except msgspec.MsgspecError as refusal:
        raise UnfitError(f"The peer's HELLO says what none of ours does: {refusal}.") from refusal
    said = Hello(volume, int(header.epoch), int(header.sequence), told.protocol, told.log_epoch, told.consistent)
    if why := impossible(said):
        raise UnfitError(f"The peer's HELLO says what none of ours does: {why}.")
    return said


def impossible(said: Hello) -> str:
    """Which number of a HELLO lies outside of its bounds, in words; empty when none does."""
    for name, number, highest in (
        ("sequence", said.sequence, record.NUMBER_MAX), ("epoch", said.epoch, record.NUMBER_MAX),
        ("log epoch", said.log_epoch, said.epoch),
    ):  # fmt: skip
        if not 0 <= number <= highest:
            return f"{name} {number}, which must lie between 0 and {highest}"
    return ""


def meet(connection: socket.socket, mine: Hello, leads: bool, timeout_s: float | None = None) -> Hello:
    """Exchange HELLOs and answer the peer's; UnfitError when the two cannot go on together. Leaves it non-blocking.

    `leads` is the primary's side. The secondary takes the primary's epoch as its own if that is newer: the caller makes it
    durable before anything else.
    """
    limit_s = MEET_TIMEOUT_S if timeout_s is None else timeout_s
    connection.settimeout(limit_s)
    try:
        if leads:
            connection.sendall(frame_of(mine))
        theirs = receive_hello(connection, mine.volume, limit_s)
        if not leads:
            connection.sendall(frame_of(mine))
    except TimeoutError as late:
        raise UnfitError(f"The peer has not introduced itself within {limit_s:g} s.") from late
    if theirs.protocol != mine.protocol:
        raise UnfitError(f"The peer replicates by protocol number {theirs.protocol}, we by {mine.protocol}.")
    leader, follower = (mine, theirs) if leads else (theirs, mine)
    if follower.epoch > leader.epoch:
        raise UnfitError(
            f"The primary is at epoch {leader.epoch}, the secondary has promised {follower.epoch}: the primary is fenced."
        )
    connection.setblocking(False)
    return theirs


def how_to_join(journal: log.Journal, theirs: Hello) -> int:
    """BY_LOG, BY_EXTENTS or BY_DIGESTS: how the primary that holds this journal brings such a peer up to date.

    A peer's log is a beginning of ours when its last write is of our epoch, or of the one before and not behind that one's
    end. Otherwise it has writes that we have not: they are found by digests and written over (the fate of an old primary's
    unacknowledged tail; Kafka's KIP-101 tells the same by leader epochs).
    """
    at = journal.at[0]
    known = theirs.sequence >= at.known_since
    same_epoch = theirs.log_epoch == at.epoch and theirs.sequence <= at.staged_sequence
    before = theirs.log_epoch == at.previous_epoch and theirs.sequence <= at.epoch_begin_sequence
    # A replica that led without a write is not as new as one that never did: it takes no record of an older epoch.
    empty = theirs.sequence == 0 and theirs.log_epoch == 0 and at.known_since == 0
    if not theirs.consistent or not known or not (same_epoch or before or empty):
        return primary.BY_DIGESTS
    return primary.BY_LOG if log.begin_of(journal, theirs.sequence + 1) >= 0 else primary.BY_EXTENTS


def is_to_be_struck(peer: primary.Peer, name: str, members: Collection[str], is_patient: bool) -> bool:
    """Whether a primary asks the voters to go on without an absent peer; `peer` is its row in Primary.peer.

    One that was detached and struck stays so; one that has not been here yet may be on its way, as long as we are patient.
    """
    is_struck = peer.detached != 0 and name not in members
    return not is_struck and bool(peer.lost_count > 0 or not is_patient)


def is_to_be_readmitted(peer: primary.Peer, name: str, members: Collection[str]) -> bool:
    """Whether a peer that is connected has caught up, and no configuration has it as a member yet."""
    return name not in members and bool(peer.detached == 0)


def may_succeed(peer: primary.Peer, name: str, members: Collection[str], journal: log.Journal) -> bool:
    """Whether a primary that takes no more writes may hand over to this peer: a member that holds everything."""
    is_member = not members or name in members
    holds_all = peer.durable == journal.at[0].staged_sequence
    return is_member and bool(peer.state == primary.LIVE and holds_all)


def lead(journal: log.Journal, epoch: int) -> None:
    """Begin to take writes in a new epoch, behind everything the journal holds. Granted and made durable by the caller."""
    at = journal.at[0]
    assert epoch > at.log_epoch or at.staged_sequence == 0
    at.previous_epoch = at.log_epoch
    at.epoch_begin_sequence = at.staged_sequence
    at.epoch = at.log_epoch = epoch
    if at.tail == at.staged:  # Nothing older will be read again, torn leftovers of an older epoch least of all.
        at.applied_epoch = at.checkpoint_epoch = epoch
