"""Votes in a simulated cluster: the engine's voters and candidates, ballots on disks that tear, a network that loses messages.

The rules are engine/ballot.py's and engine/election.py's; `Voter` is the engine's, with its ballot on a pretended disk. A
question or an answer may be lost, late, doubled or overtaken, and a voter may lose its power in the middle of writing a ballot.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...base.host import pretend_kernel as pretend
from ...base.host.pretend_kernel import SECTOR_BYTES
from .. import vote
from ..ballot import SLOT_BYTES, Answer, Ballot, Placed, Question, decode_slots, next_generation, writes_of
from ..election import Steps
from ..vote import BallotError
from .check import Anomaly

WITNESS = "witness"


class PowerLostError(Exception):
    """The power of this disk is gone: whoever was writing has ended."""


class BallotFile:
    """A voter's file on the disk of a world: what was under way when the power went may be there in part."""

    def __init__(self, world: pretend.World, ballot: Ballot) -> None:
        self.world, self.data = world, bytearray()
        for _, block in sorted(writes_of(ballot)):
            self.data += block
        self.in_flight: tuple[int, bytes] | None = None
        self.flipped: list[int] = []  # bits that are not as they were written

    def flip(self, draw: random.Random) -> None:
        """Turn a bit of what was written in one slot or in both: damage that the other slot makes good, or that is refused."""
        for slot in draw.choice(((0,), (1,), (0, 1))):
            begin, size = slot * SLOT_BYTES, int.from_bytes(self.data[slot * SLOT_BYTES + 4 : slot * SLOT_BYTES + 8], "little")
            bit = 8 * begin + draw.randrange(8 * (8 + min(size, SLOT_BYTES - 8)))
            self.data[bit >> 3] ^= 1 << (bit & 7)
            self.flipped.append(bit)

    def restore(self) -> None:
        """Turn them back, as who has a copy would."""
        for bit in self.flipped:
            self.data[bit >> 3] ^= 1 << (bit & 7)
        self.flipped = []

    def write(self, offset: int, block: bytes) -> None:
        """One durable write. BallotError when the disk refuses it: a part of it may be there all the same."""
        if self.world.at[0].power_in == 0:
            raise PowerLostError
        refused = int(pretend.refusal(self.world))
        if refused < 0:
            part = SECTOR_BYTES * (int(self.world.at[0].operations) % 3)
            self.data[offset : offset + part] = block[:part]
            raise BallotError(f"errno {-refused}", offset // SLOT_BYTES)
        if self.world.at[0].power_in == 0:
            self.in_flight = (offset, block)
            raise PowerLostError
        self.data[offset : offset + len(block)] = block

    def crash(self, key: int, share: int) -> None:
        """Leave about `share` of 256 sectors of a write that was under way; which ones follows from `key`."""
        if self.in_flight is not None:
            offset, block = self.in_flight
            pretend.tear(
                np.frombuffer(self.data, np.uint8), np.frombuffer(bytearray(block), np.uint8), offset, len(block), key, share
            )
        self.in_flight = None


class Voter(vote.Voter):
    """One voter of a simulated cluster; `node` is its replica, None for the witness."""

    def __init__(self, cluster: Any, name: str, world: pretend.World, node: Any = None) -> None:
        self.cluster, self.name, self.world, self.node = cluster, name, world, node
        self.replicas = frozenset({*cluster.founders, name} if node else ())
        self.votes = True
        self.lock = contextlib.nullcontext()  # type: ignore[assignment]
        self.ballot = self.durable = Ballot()  # durable: what was last kept, and may have been told
        self.file = BallotFile(world, self.ballot)
        self.begin_process()
        self.is_up = True  # Of a witness; a replica has its role.

    def begin_process(self) -> None:
        """What a process that begins knows besides its ballot."""
        self.version, self.is_settled, self.is_outvoted, self.torn = 0, True, False, 0

    @property
    def answers(self) -> bool:
        """Whether the process of this voter runs."""
        return (self.is_up if self.node is None else self.node.is_up) and self.world.at[0].power_in != 0

    # What the engine's voter asks of a replica (engine/node.py).

    def log_of(self) -> Any:
        if self.node is None:
            return None
        at = self.node.journal.at[0]
        return int(at.log_epoch), int(at.durable_sequence)

    def epoch_known(self) -> int:
        """The newest epoch that its replica has promised, serves, or has writes of."""
        return max(self.ballot.epoch, self.log_of()[0], int(self.node.journal.at[0].epoch))

    def replicas_now(self) -> tuple[Placed, ...]:
        return self.ballot.replicas

    def hears_primary(self) -> bool:
        return self.node is not None and self.node.hears_primary

    def leads(self) -> bool:
        return self.node is not None and self.node.leads

    def hand_over(self, to: str) -> bool:
        return self.node is not None and self.cluster.hand_over(self.node, to)

    def save(self, ballot: Ballot) -> Ballot:
        numbered = next_generation(ballot)
        if not self.cluster.forgets_votes:
            for offset, block in writes_of(numbered, self.torn):
                self.file.write(offset, block)
        return numbered

    def keep(self, ballot: Ballot) -> None:
        if ballot.age < self.ballot.age:
            raise Anomaly(f"voter {self.name} goes back from configuration {self.ballot.age} to {ballot.age}")
        super().keep(ballot)
        self.durable = self.ballot

    def decide(self, question: Question) -> Answer:
        answer = super().decide(question)
        if answer.yes and question.ask in ("grant", "configure"):
            self.cluster.note_vote(self.name, question)
            self.cluster.note_reached(question)
        return answer

    def answer_to(self, question: Question) -> Answer | None:
        """What it answers another voter; None when its power goes before it can."""
        try:
            return self.decide(question)
        except BallotError as failure:
            if self.node is not None:  # A replica ends with its disk, and the witness does not.
                self.world.at[0].power_in = 0
            return Answer(False, self.ballot, self.leads(), refusal=str(failure))
        except PowerLostError:
            return None

    def recall(self) -> bool:
        """Have the ballot that the file holds, as vote.load_ballot does; False when the file is refused as damaged.

        Anomaly when something durable is forgotten.
        """
        before, slots = self.durable, decode_slots(bytes(self.file.data))
        if slots is None:
            return False
        found = slots.ballot
        self.file.flipped = []
        if slots.damaged is not None:
            self.file.write(*writes_of(found, slots.damaged)[0])
        # A save that was under way may stand there: that of who begins to serve the primary of this epoch (`following`).
        term = self.cluster.terms.get(found.epoch)
        follows = term is not None and found.generation > before.generation and found.candidate == self.cluster.names[term.leader]
        voted_otherwise = found.epoch == before.epoch and found.candidate != before.candidate and not follows
        if found.epoch < before.epoch or voted_otherwise:
            promised = f"its promise of epoch {before.epoch} to {before.candidate or 'nobody'}"
            raise Anomaly(f"voter {self.name} has forgotten {promised}")
        if found.age < before.age:
            raise Anomaly(f"voter {self.name} has forgotten configuration {before.age}: it knows {found.age}")
        self.ballot = self.durable = found
        self.begin_process()
        return True


@dataclass(order=True)
class Message:
    """A question of `asker` to `voter`, or the answer to it."""

    due_ns: int
    order: int
    asker: str = field(compare=False)
    voter: str = field(compare=False)
    number: int = field(compare=False)  # of the question
    body: Question | Answer = field(compare=False)

    @property
    def target(self) -> str:
        """Who receives it."""
        return self.voter if isinstance(self.body, Question) else self.asker


class ControlNetwork:
    """The messages under way between voters."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.in_flight, self.count = draw, [], 0  # type: ignore[var-annotated]
        self.loss_ratio, self.doubled_ratio, self.delay_ns_max = 0.0, 0.0, 1_000_000
        self.doubled = self.overtaken = 0  # messages that came twice, and that a later one of the same way was before
        self.last: dict[tuple[str, str, str], int] = {}  # by way: the latest message that has arrived

    def send(self, now_ns: int, asker: str, voter: str, number: int, body: Question | Answer) -> None:
        """A message goes: it arrives later, twice, or never."""
        if self.draw.random() < self.loss_ratio:
            return
        is_doubled = self.draw.random() < self.doubled_ratio
        self.doubled += is_doubled
        for _ in range(2 if is_doubled else 1):
            self.count += 1
            due_ns = now_ns + self.draw.randrange(1, self.delay_ns_max)
            heapq.heappush(self.in_flight, Message(due_ns, self.count, asker, voter, number, body))

    def arrived(self, now_ns: int) -> Iterator[Message]:
        """What has arrived by now, in the order of arrival."""
        while self.in_flight and self.in_flight[0].due_ns <= now_ns:
            message = heapq.heappop(self.in_flight)
            way = message.asker, message.voter, message.target
            self.overtaken += self.last.get(way, 0) > message.order
            self.last[way] = max(self.last.get(way, 0), message.order)
            yield message


@dataclass
class Inquiry:
    """Steps of a candidate or a primary under way: what it asks now, who has answered, and what its end leads to."""

    steps: Steps[Any]
    finish: Callable[[Any], None]
    number: int = 0
    ends_ns: int = 0
    asked: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
