"""What a voter may answer, and how its ballot lies on the disk: pure decisions on values and bytes.

`decide` answers one question from a ballot and says what the ballot becomes; whoever calls it makes that durable before it
gives the answer. vote.py does so with a file and sockets, the simulator with a disk and a network in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import msgspec

SLOT_BYTES = 4096
SLOTS_BYTES = 2 * SLOT_BYTES  # Two, written in turn: one is always whole.
NAME_BYTES_MAX = 63  # Of a voter.
MEMBERS_MAX = 16  # With names as long as they may be, escaped byte by byte, a ballot has 2.4 KB.
NUMBER_MAX = (1 << 62) - 1  # Of an epoch, a sequence, a version: int64 in records, and there is always a next one.
WORDS = ("status", "would", "grant", "configure", "hand_over")


class Ballot(msgspec.Struct, frozen=True):
    """What a voter has promised and knows. The configuration with the greater (of_epoch, version) is the newer."""

    epoch: int = 0
    candidate: str = ""
    of_epoch: int = 0
    version: int = 0
    members: tuple[str, ...] = ()
    generation: int = 0

    @property
    def age(self) -> tuple[int, int]:
        return self.of_epoch, self.version


class Question(msgspec.Struct):
    """What is asked of a voter: "status", "would" and "grant" (a vote), "configure", or "hand_over"."""

    ask: str
    name: str
    epoch: int = 0
    log_epoch: int = 0
    sequence: int = 0
    version: int = 0
    members: tuple[str, ...] = ()


class Answer(msgspec.Struct):
    """What a voter says."""

    yes: bool
    ballot: Ballot
    leads: bool = False
    sequence: int = 0
    refusal: str = ""  # why the question was not considered; empty: it was


# The decision


def decide(
    ballot: Ballot, question: Question, log: tuple[int, int] | None = None, hears_primary: bool = False, leads: bool = False,
    known: Collection[str] = (),
) -> tuple[Ballot, Answer]:  # fmt: skip
    """(the voter's ballot from now on, its answer). The answer may be given once that ballot is durable.

    `log` is (epoch, sequence) of the voter's own last write, None for a witness; `known` are the replicas, where it knows them.
    "hand_over" is not decided here: it changes no ballot.
    """
    if refusal := refusal_of(question, known):
        return ballot, Answer(False, ballot, leads, refusal=refusal)
    kept, yes = ballot, False
    if question.ask in ("would", "grant"):
        yes = may_grant(ballot, question, log, hears_primary)
        if yes and question.ask == "grant":
            kept = promised(ballot, question.epoch, question.name)
    elif question.ask == "configure":
        yes = may_configure(ballot, question, hears_primary)
        if yes:
            kept = configured(promised(ballot, question.epoch, question.name), question.epoch, question.version, question.members)
    return kept, Answer(yes, kept, leads, log[1] if log else 0)


def may_grant(ballot: Ballot, question: Question, log: tuple[int, int] | None, hears_primary: bool) -> bool:
    """Whether a voter gives its vote; `log` is (epoch, sequence) of its own last write, None for a witness.

    Where every member must hold a write, membership is what counts. Where a quorum suffices, the log is: a voter that is
    a member gives its vote only to a log that is not behind its own.
    """
    if hears_primary or (ballot.members and question.name not in ballot.members):
        return False
    if log is not None and (question.log_epoch, question.sequence) < log:
        return False
    return question.epoch > ballot.epoch or (question.epoch == ballot.epoch and question.name == ballot.candidate)


def may_configure(ballot: Ballot, question: Question, hears_primary: bool) -> bool:
    """Whether a voter keeps this configuration: of no older epoch than it has promised, and not older than what it knows."""
    fences = question.epoch > ballot.epoch and hears_primary
    return question.epoch >= ballot.epoch and not fences and (question.epoch, question.version) >= ballot.age


def promised(ballot: Ballot, epoch: int, candidate: str) -> Ballot:
    """The ballot of who never again serves or elects anyone of an older epoch."""
    return msgspec.structs.replace(ballot, epoch=epoch, candidate=candidate) if epoch > ballot.epoch else ballot


def configured(ballot: Ballot, of_epoch: int, version: int, members: tuple[str, ...]) -> Ballot:
    """The ballot of who knows this configuration."""
    return msgspec.structs.replace(ballot, of_epoch=of_epoch, version=version, members=members)


def adopted(ballot: Ballot, known: Ballot) -> Ballot:
    """The ballot of who has heard what another voter knows: the newer configuration of the two."""
    return configured(ballot, known.of_epoch, known.version, known.members) if known.age > ballot.age else ballot


# What can be asked and told


def refusal_of(question: Question, known: Collection[str] = ()) -> str:
    """Why a question cannot be considered; empty when it can. `known` are the replicas, where the voter knows them."""
    if question.ask not in WORDS:
        return f'"{question.ask[:NAME_BYTES_MAX]}" is nothing a voter is asked ({", ".join(WORDS)})'
    names = (question.name, *question.members)
    if not all(is_name(name) for name in names):
        return f"a name has 1 to {NAME_BYTES_MAX} bytes that can be printed"
    if len(question.members) > MEMBERS_MAX or len(set(question.members)) != len(question.members):
        return f"a configuration has up to {MEMBERS_MAX} members, each once; here are {len(question.members)}"
    numbers = {name: getattr(question, name) for name in ("epoch", "log_epoch", "sequence", "version")}
    for name, value in numbers.items():
        if not 0 <= value <= NUMBER_MAX:
            return f"{name} must lie between 0 and {NUMBER_MAX}, not at {value}"
    if question.ask == "hand_over" and len(question.members) != 1:
        return f"hand_over names one successor among its members; here are {len(question.members)}"
    if question.ask == "configure" and question.name not in question.members:
        return "configure names the members, and a primary is one of them"
    asking = question.ask in ("would", "grant", "configure")
    if asking and not question.epoch:
        return f"{question.ask} is of an epoch, and the first is 1"
    strangers = sorted({*question.members, *((question.name,) if asking else ())} - set(known)) if known else []
    if strangers:
        return f"{', '.join(strangers)}: no replica of this volume ({', '.join(sorted(known))})"
    return ""


def is_name(name: str) -> bool:
    """Whether this can be a voter's name."""
    return 0 < len(name.encode(errors="replace")) <= NAME_BYTES_MAX and name.isprintable()


def is_ballot(ballot: Ballot) -> bool:
    """Whether a voter can have such a ballot: what others say of theirs is kept in a slot of our own."""
    numbers = (ballot.epoch, ballot.of_epoch, ballot.version, ballot.generation)
    names = [*ballot.members, *([ballot.candidate] if ballot.candidate else [])]
    return (
        all(0 <= number <= NUMBER_MAX for number in numbers) and all(map(is_name, names)) and len(ballot.members) <= MEMBERS_MAX
    )


# On the disk


def next_generation(ballot: Ballot) -> Ballot:
    """The same ballot, as the next one that is written."""
    return msgspec.structs.replace(ballot, generation=ballot.generation + 1)


def writes_of(ballot: Ballot) -> list[tuple[int, bytes]]:
    """(file offset, bytes) of what makes this ballot durable, each write itself durable before the next one begins."""
    return [(ballot.generation % 2 * SLOT_BYTES, encode_slot(ballot))]


def encode_slot(ballot: Ballot) -> bytes:
    """One slot: CRC-32 and length of what follows, then the ballot as JSON."""
    told = msgspec.json.encode(ballot)
    block = (zlib.crc32(told).to_bytes(4, "little") + len(told).to_bytes(4, "little") + told).ljust(SLOT_BYTES, b"\0")
    assert len(block) == SLOT_BYTES, "a ballot reaches into the other slot"
    return block


def decode_slots(data: bytes) -> Ballot:
    """The newest whole ballot in a voter's file; an empty one in an empty file."""
    best = Ballot()
    for begin in (0, SLOT_BYTES):
        block = data[begin : begin + SLOT_BYTES]
        told = block[8 : 8 + int.from_bytes(block[4:8], "little")]
        if told and zlib.crc32(told) == int.from_bytes(block[:4], "little"):
            found = msgspec.json.decode(told, type=Ballot)
            best = max(best, found, key=lambda one: one.generation)
    return best
