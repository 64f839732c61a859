"""Votes: who may lead, and which replicas must hold every write. Kept durable by each voter.

A voter promises an epoch to one candidate and remembers the newest configuration. A majority of voters decides both, so that
two decisions always share a voter (Lamport, The Part-Time Parliament, 1998; asking first without effect: Ongaro, thesis 9.6).
A witness is a voter without a volume. What a voter may answer, and how its ballot lies on the disk, is in ballot.py; what a
candidate asks in election.py; who may ask, and how, in control.py.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection
from pathlib import Path

import msgspec

from ..base.errors import UnfitError, system_error
from .ballot import (
    SLOT_BYTES,
    SLOTS_BYTES,
    Answer,
    Ballot,
    Question,
    adopted,
    decide,
    decode_slots,
    following,
    names_known,
    next_generation,
    promised,
    refusal_of,
    writes_of,
)

DAMAGED = (
    "No vote is given without it: a voter that forgets what it promised may help to make two primaries of one epoch. Stop every "
    "node of this volume, put the file aside, and begin the ballot anew (format_ballot) at the greatest epoch that any other "
    "voter has promised."
)


class BallotError(UnfitError):
    """A ballot could not be made durable, so what was to be promised is not; or it cannot be read."""

    def __init__(self, sentence: str, slot: int = 0) -> None:
        super().__init__(sentence)
        self.slot = slot  # The one that was being written: the other is whole.


def save_ballot(fd: int, ballot: Ballot, first: int = 0) -> Ballot:
    """Make it durable in both slots, one after the other, beginning with `first`: if one is torn before, this one.

    BallotError names the file and the disk's error.
    """
    numbered = next_generation(ballot)
    for offset, block in writes_of(numbered, first):
        write_slot(fd, offset, block)
    return numbered


def write_slot(fd: int, offset: int, block: bytes) -> None:
    """One slot, durable."""
    try:
        if os.pwrite(fd, block, offset) != len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fd)
    except OSError as refusal:
        attempt = f"make the ballot {path_of(fd)} durable (errno {refusal.errno})"
        advice = "No vote is given and no configuration kept until it can be: free some room, or replace the disk."
        raise BallotError(str(system_error(attempt, refusal.errno or 0, advice)), offset // SLOT_BYTES) from refusal


def path_of(fd: int) -> str:
    """The file of a descriptor, as the system names it."""
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return f"of descriptor {fd}"


def format_ballot(fd: int, epoch: int = 0) -> Ballot:
    """The ballot of a voter that has promised nothing yet, but will serve and elect nobody up to this epoch, in its empty file.

    Done once, when the voter is made: an empty file that is found later has lost what was promised. BallotError if it has bytes.
    """
    if size := os.fstat(fd).st_size:
        raise BallotError(f"begin the ballot {path_of(fd)}: it has {size} bytes already, and may hold what a voter has promised.")
    return save_ballot(fd, Ballot(epoch=epoch))


def load_ballot(fd: int) -> Ballot:
    """The newest whole one; a slot that does not hold it is written again before this answers. BallotError when none is whole."""
    try:
        data = os.pread(fd, SLOTS_BYTES, 0)
    except OSError as refusal:
        raise BallotError(str(system_error(f"read the ballot {path_of(fd)}", refusal.errno or 0, DAMAGED))) from refusal
    found = decode_slots(data)
    if found is None:
        damaged = f"damaged in both slots ({len(data)} of {SLOTS_BYTES} bytes)"
        what = damaged if data else "empty, so it was never begun or has lost everything"
        raise BallotError(f"read the ballot {path_of(fd)}: it is {what}. {DAMAGED}")
    if found.damaged is not None:
        write_slot(fd, *writes_of(found.ballot, found.damaged)[0])
    return found.ballot


class Voter:
    """One voter: its ballot in a file, and what it answers. One question at a time."""

    def __init__(self, name: str, ballot_fd: int, replicas: Collection[str] = ()) -> None:
        self.name, self.fd = name, ballot_fd
        self.replicas = frozenset(replicas)  # Who may lead before anybody was added; empty: whoever asks.
        self.lock = threading.RLock()
        self.ballot = load_ballot(ballot_fd)
        self.torn = 0  # The slot that may be, after a save that failed.

    def log_of(self) -> tuple[int, int] | None:
        return None

    def hears_primary(self) -> bool:
        return False

    def leads(self) -> bool:
        return False

    def hand_over(self, to: str) -> bool:
        return False

    def keep(self, ballot: Ballot) -> None:
        """Have this ballot from now on, durable. BallotError when it cannot be: then nothing has changed."""
        if ballot == self.ballot:
            return
        try:
            self.ballot = self.save(ballot)
        except BallotError as failure:
            self.torn = failure.slot
            self.ballot = next_generation(self.ballot)  # That number may stand in the other slot.
            raise

    def save(self, ballot: Ballot) -> Ballot:
        """Make it durable, and answer it as it stands there."""
        return save_ballot(self.fd, ballot, self.torn)

    def promise(self, epoch: int, candidate: str) -> None:
        """Never again serve or elect anyone of an older epoch."""
        with self.lock:
            self.keep(promised(self.ballot, epoch, candidate))

    def follow_primary(self, epoch: int, primary: str) -> None:
        """Serve this primary in this epoch, and none of an older one."""
        with self.lock:
            self.keep(following(self.ballot, epoch, primary))

    def adopt(self, known: Ballot) -> None:
        """Remember the configuration of another voter's ballot, if it is newer."""
        with self.lock:
            self.keep(adopted(self.ballot, known))

    def decide(self, question: Question) -> Answer:
        """Answer one question; whatever is promised is durable before it is said. BallotError when it cannot be."""
        if question.ask == "hand_over" and not refusal_of(question, names_known(self.replicas, self.ballot)):
            return Answer(self.hand_over(question.members[0]), self.ballot, self.leads())
        with self.lock:
            kept, answer = decide(
                self.ballot, question, self.log_of(), self.hears_primary(), self.leads(), self.replicas, self.name
            )
            self.keep(kept)
            return msgspec.structs.replace(answer, ballot=self.ballot)
