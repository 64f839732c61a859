"""What a voter may answer, and how its ballot lies on the disk: pure decisions on values and bytes.

`decide` answers one question from a ballot and says what the ballot becomes; whoever calls it makes that durable before it
gives the answer. vote.py does so with a file and sockets, the simulator with a disk and a network in memory.

A ballot has two slots, and a save writes the same ballot into both, one after the other with a flush between and a flush
behind; only then is anything promised. So a promise that was given stands in both slots, and one damaged slot forgets none:
- The first slot is torn: the other one has the ballot of the last save that was completed.
- The second slot is torn: the first one has a ballot that nobody was told of yet. A promise that nobody knows of binds nobody
  else and may be kept.
- Later damage to either slot: the other has the last ballot that was completed, or the one above.
The damaged slot is written again before anything else is, so a save never begins over the only whole one. Both damaged, or a
file without slots: refused, since what was promised is not known. A new voter's ballot is made once, by name (vote.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import NamedTuple

import msgspec

SLOT_BYTES = 4096
SLOTS_BYTES = 2 * SLOT_BYTES
NAME_BYTES_MAX = 63  # Of a voter.
MEMBERS_MAX = 16  # With names as long as they may be, escaped byte by byte, a ballot has 2.4 KB.
NUMBER_MAX = (1 << 62) - 1  # Of an epoch, a sequence, a version: int64 in records, and there is always a next one.
# How far one message may raise what a voter has promised: as many elections as one a second makes in 136 years, so no partition
# is too long; and 2^30 messages, each flushed twice, from the first epoch to the last.
EPOCH_STEP_MAX = 1 << 32
VERSION_STEP_MAX = 1 << 32  # Of an epoch's configurations: twenty attempts a second for 6 years that a voter does not hear of.
REPLICAS_MAX = 5  # Of one volume: as many peers as a primary has rows for, and itself.
HOST_BYTES_MAX = 64  # Of an address: the longest of IPv6 with a zone has fewer.
# Of members and replicas with their addresses together, as JSON: what sixteen members with the longest names take. So a ballot
# fits into a slot, and into a message beside a refusal, whatever is added.
SET_BYTES_MAX = 2064
WORDS = ("status", "would", "grant", "configure", "hand_over")


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A replica and where it listens. A set of them is part of a configuration."""

    name: str
    host: str
    port: int
    vote_port: int


class Ballot(msgspec.Struct, frozen=True):
    """What a voter has promised and knows. The configuration with the greater (of_epoch, version) is the newer.

    A configuration is its members, which must hold every write, and `replicas`: who holds data at all, members or not yet.
    Empty: those that the volume was made with, of whom everybody knows.
    """

    epoch: int = 0
    candidate: str = ""
    of_epoch: int = 0
    version: int = 0
    members: tuple[str, ...] = ()
    generation: int = 0
    replicas: tuple[Placed, ...] = ()

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
    replicas: tuple[Placed, ...] = ()


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
    known: Collection[str] = (), voter: str = "",
) -> tuple[Ballot, Answer]:  # fmt: skip
    """(the voter's ballot from now on, its answer). The answer may be given once that ballot is durable.

    `log` is (epoch, sequence) of the voter's own last write, None for a witness; `known` are the replicas that the volume was
    made with, where it knows them; `voter` is its name.
    "hand_over" is not decided here: it changes no ballot.
    """
    if refusal := refusal_of(question, names_known(known, ballot)) or step_refusal_of(ballot, question):
        return ballot, Answer(False, ballot, leads, refusal=refusal)
    kept, yes = ballot, False
    if question.ask in ("would", "grant"):
        counts = not ballot.members or voter in ballot.members
        yes = may_grant(ballot, question, log if counts else None, hears_primary)
        if yes and question.ask == "grant":
            kept = promised(ballot, question.epoch, question.name)
    elif question.ask == "configure":
        yes = may_configure(ballot, question, hears_primary)
        if yes:
            kept = configured(
                promised(ballot, question.epoch, question.name), question.epoch, question.version, question.members,
                question.replicas,
            )  # fmt: skip
    return kept, Answer(yes, kept, leads, log[1] if log else 0)


def may_grant(ballot: Ballot, question: Question, log: tuple[int, int] | None, hears_primary: bool) -> bool:
    """Whether a voter gives its vote; `log` is (epoch, sequence) of its own last write, None for a witness and who is no member.

    Where every member must hold a write, membership is what counts. Where a quorum suffices, the log is: a voter that is
    a member gives its vote only to a log that is not behind its own. One that was struck may hold more than the members, of
    which nothing was acknowledged: were that to count, the only member of a pair could be refused for ever.
    """
    if hears_primary or (ballot.members and question.name not in ballot.members):
        return False
    if log is not None and (question.log_epoch, question.sequence) < log:
        return False
    return question.epoch > ballot.epoch or (question.epoch == ballot.epoch and question.name == ballot.candidate)


def may_configure(ballot: Ballot, question: Question, hears_primary: bool) -> bool:
    """Whether a voter keeps this configuration: only from the one who leads its epoch, and none that is older than it knows.

    Who leads an epoch was promised it by a majority. A voter that promised the epoch takes a configuration of it from that
    candidate and nobody else. One outside the majority has promised no such epoch yet and promises it now, to the one who
    configures: a second one cannot configure in the same epoch here. Nobody is unseated by that: not while it hears a primary.
    Where the epoch was promised to a loser, or to nobody by name, this voter says no, and a leader that needs it leads anew in
    a later epoch (`is_outvoted`).
    """
    if question.epoch == ballot.epoch:
        leads = question.name == ballot.candidate
    else:
        leads = question.epoch > ballot.epoch and not hears_primary
    newer = (question.epoch, question.version) > ballot.age
    same = (question.epoch, question.version) == ballot.age  # It did not hear our yes.
    same = same and (question.members, question.replicas) == (ballot.members, ballot.replicas)
    return leads and (newer or same)


def is_outvoted(answer: Answer, name: str, epoch: int) -> bool:
    """Whether this voter will never keep a configuration of `name` in this epoch: it has promised another, or a later one."""
    ballot = answer.ballot
    return not answer.yes and (ballot.epoch > epoch or (ballot.epoch == epoch and ballot.candidate != name))


def promised(ballot: Ballot, epoch: int, candidate: str) -> Ballot:
    """The ballot of who never again serves or elects anyone of an older epoch."""
    return msgspec.structs.replace(ballot, epoch=epoch, candidate=candidate) if epoch > ballot.epoch else ballot


def following(ballot: Ballot, epoch: int, primary: str) -> Ballot:
    """The ballot of who serves this primary in this epoch: it leads it, whomever the voter had promised the same epoch to."""
    return msgspec.structs.replace(ballot, epoch=epoch, candidate=primary) if epoch >= ballot.epoch else ballot


def configured(
    ballot: Ballot, of_epoch: int, version: int, members: tuple[str, ...], replicas: tuple[Placed, ...] = ()
) -> Ballot:
    """The ballot of who knows this configuration."""
    return msgspec.structs.replace(ballot, of_epoch=of_epoch, version=version, members=members, replicas=replicas)


def adopted(ballot: Ballot, known: Ballot) -> Ballot:
    """The ballot of who has heard what another voter knows: the newer configuration of the two."""
    if known.age <= ballot.age:
        return ballot
    return configured(ballot, known.of_epoch, known.version, known.members, known.replicas)


def names_known(made_with: Collection[str], ballot: Ballot) -> Collection[str]:
    """The replicas that a voter knows of: those that the volume was made with, and those of the newest configuration."""
    return {*made_with, *(one.name for one in ballot.replicas)} if made_with else ()


def is_epoch_in_reach(ballot: Ballot, epoch: int) -> bool:
    """Whether one message may raise what this voter has promised to that epoch."""
    return epoch <= ballot.epoch + EPOCH_STEP_MAX


def is_in_reach(ballot: Ballot, known: Ballot) -> bool:
    """Whether what another voter has promised and knows can be followed."""
    return is_epoch_in_reach(ballot, max(known.epoch, known.of_epoch))


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
    if question.replicas and (refusal := set_refusal_of(question.members, question.replicas)):
        return refusal
    if question.replicas and question.ask != "configure":
        return f"{question.ask} names no replicas"
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
    if asking and question.log_epoch > question.epoch:
        return f"a log has no epoch ({question.log_epoch}) behind the one that is asked for ({question.epoch})"
    known = {*known, *(one.name for one in question.replicas)} if known else ()
    strangers = sorted({*question.members, *((question.name,) if asking else ())} - set(known)) if known else []
    if strangers:
        return f"{', '.join(strangers)}: no replica of this volume ({', '.join(sorted(known))})"
    return ""


def set_refusal_of(members: tuple[str, ...], replicas: tuple[Placed, ...]) -> str:
    """Why these cannot be a volume's replicas, of which some are members; empty when they can."""
    names = [one.name for one in replicas]
    if len(names) > REPLICAS_MAX or len(set(names)) != len(names):
        return f"a volume has up to {REPLICAS_MAX} replicas, each once; here are {len(names)}"
    for one in replicas:
        if refusal := place_refusal_of(one):
            return refusal
    if strangers := sorted(set(members) - set(names)):
        return f"{', '.join(strangers)}: a member, and no replica of this volume ({', '.join(names)})"
    if len(msgspec.json.encode((members, replicas))) > SET_BYTES_MAX:
        return f"the names and addresses of all replicas take up to {SET_BYTES_MAX} bytes: choose shorter names"
    return ""


def place_refusal_of(one: Placed) -> str:
    """Why this cannot be a replica with its address; empty when it can."""
    if not is_name(one.name):
        return f"a replica's name has 1 to {NAME_BYTES_MAX} bytes that can be printed"
    if not (0 < len(one.host) <= HOST_BYTES_MAX and one.host.isascii() and one.host.isprintable() and " " not in one.host):
        return f"{one.name}: a host is named by 1 to {HOST_BYTES_MAX} printable ASCII characters"
    if not all(0 < port < 1 << 16 for port in (one.port, one.vote_port)):
        return f"{one.name}: a port lies between 1 and 65535, not at {one.port} or {one.vote_port}"
    return ""


def step_refusal_of(ballot: Ballot, question: Question) -> str:
    """Why a question is not considered that would raise an epoch or a version by too much; empty when it would not.

    Without it one message of the last epoch there is would leave nobody able to lead for good.
    """
    if question.ask not in ("would", "grant", "configure"):
        return ""
    if not is_epoch_in_reach(ballot, question.epoch):
        return f"epoch {question.epoch} lies more than {EPOCH_STEP_MAX} beyond {ballot.epoch}, which this voter has promised"
    version = ballot.version if question.epoch == ballot.of_epoch else 0
    if question.ask == "configure" and question.version > version + VERSION_STEP_MAX:
        return f"version {question.version} lies more than {VERSION_STEP_MAX} beyond {version}, which this voter knows"
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
        and not (ballot.replicas and set_refusal_of(ballot.members, ballot.replicas))
    )  # fmt: skip


# On the disk


class Slots(NamedTuple):
    """What a voter's file holds."""

    ballot: Ballot
    damaged: int | None  # the slot that does not hold this ballot, to be written again before anything else is; None: both do


def next_generation(ballot: Ballot) -> Ballot:
    """The same ballot, as the next one that is written."""
    return msgspec.structs.replace(ballot, generation=ballot.generation + 1)


def writes_of(ballot: Ballot, first: int = 0) -> list[tuple[int, bytes]]:
    """(offset, bytes) of what makes a ballot durable, beginning with slot `first`: each is flushed before the next is begun, and
    the ballot may be told of once the last is."""
    block = encode_slot(ballot)
    return [(slot * SLOT_BYTES, block) for slot in (first, 1 - first)]


def encode_slot(ballot: Ballot) -> bytes:
    """One slot: CRC-32 of all that follows, the length of the ballot, the ballot as JSON, zeros."""
    encoded = msgspec.json.encode(ballot)
    rest = (len(encoded).to_bytes(4, "little") + encoded).ljust(SLOT_BYTES - 4, b"\0")
    assert len(rest) == SLOT_BYTES - 4, "a ballot reaches into the other slot"
    return zlib.crc32(rest).to_bytes(4, "little") + rest


BALLOT = msgspec.json.Decoder(Ballot)  # Made before there are threads, as all of the engine's (control.py).


def decode_slot(block: bytes) -> Ballot | None:
    """The ballot of a slot; None when the slot is damaged, cut off or was never written."""
    if len(block) != SLOT_BYTES or zlib.crc32(block[4:]) != int.from_bytes(block[:4], "little"):
        return None
    size = int.from_bytes(block[4:8], "little")
    try:
        ballot = BALLOT.decode(block[8 : 8 + size])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ballot if is_ballot(ballot) else None


def decode_slots(data: bytes) -> Slots | None:
    """The newest whole ballot in a voter's file, and which slot must be written again; None when neither slot is whole."""
    found = [decode_slot(data[begin : begin + SLOT_BYTES]) for begin in (0, SLOT_BYTES)]
    whole = [one for one in found if one is not None]
    if not whole:
        return None
    newest = max(whole, key=lambda one: one.generation)
    damaged = [slot for slot in range(2) if found[slot] != newest]
    return Slots(newest, damaged[0] if damaged else None)
