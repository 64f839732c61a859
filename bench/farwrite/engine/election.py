"""A candidate's steps, and a primary's when it changes the configuration: whom it asks what, and what it makes of the answers.

Generators: each yields a Question for all other voters and is sent their answers, however many have come. A node asks over
TCP (`run_steps`); the simulator lets a voter's answer be late, or lost, and a candidate end, between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

from .ballot import Answer, Ballot, Placed, Question, is_in_reach, is_outvoted

Result = TypeVar("Result")
Steps = Generator[Question, Sequence[Answer], Result]


class Candidate(Protocol):
    """What the steps need of a replica. `decide` and `adopt` make durable what they change before they return."""

    name: str
    ballot: Ballot
    votes: bool  # whether its own answer counts; where voters stand apart from the replicas none of these votes
    version: int  # of its last attempt at a configuration
    is_settled: bool  # whether a majority keeps that attempt
    is_outvoted: bool  # whether it does not, and some voter has promised this epoch to another, or a later one

    def log_of(self) -> tuple[int, int]:
        """(epoch, sequence) of its last durable write."""

    def epoch_known(self) -> int:
        """The newest epoch that it knows of."""

    def decide(self, question: Question) -> Answer:
        """Its own answer, as a voter. Where it has no vote it promises the same, to itself."""

    def promise(self, epoch: int, candidate: str) -> None:
        """Never again serve anyone of an older epoch."""

    def replicas_now(self) -> tuple[Placed, ...]:
        """The replicas that its configuration names, at the addresses that it knows now; empty as long as none was ever named."""

    def adopt(self, known: Ballot) -> None:
        """Remember the configuration of another voter's ballot, if it is newer."""


def stand(candidate: Candidate, other_voters: int, names: tuple[str, ...]) -> Steps[int]:
    """Ask for votes, first without effect; the epoch that the candidate may lead in, 0 when it may not lead.

    `names` are all replicas: the members as long as no configuration is known.
    """
    log_epoch, sequence = candidate.log_of()
    epoch = candidate.epoch_known() + 1
    is_new = not candidate.votes and not candidate.ballot.candidate  # It has never served anybody, nor led: it holds nothing.
    for word in ("would", "grant"):
        question = Question(word, candidate.name, epoch, log_epoch, sequence)
        says_yes, known = yield from majority_says_yes(candidate, other_voters, question)
        candidate.adopt(max(known, key=lambda one: one.age))  # Whatever we hear of newer, we know.
        if is_new and candidate.ballot.of_epoch:
            return 0  # Somebody has led without it, and it may be a member whose disk was exchanged.
        highest = max(max(one.epoch, one.of_epoch) for one in known)
        if word == "would" and highest >= epoch:
            epoch = highest + 1
            question = Question(word, candidate.name, epoch, log_epoch, sequence)
            says_yes, known = yield from majority_says_yes(candidate, other_voters, question)
        if not says_yes:
            return 0
    members = candidate.ballot.members or names
    if candidate.name not in members:
        return 0
    if not (yield from configure(candidate, other_voters, epoch, members, candidate.replicas_now())):
        return 0
    return epoch


def configure(
    candidate: Candidate, other_voters: int, epoch: int, members: tuple[str, ...], replicas: tuple[Placed, ...]
) -> Steps[bool]:
    """Whether a majority keeps this configuration from now on. Every attempt has a number of its own: the last one counts.

    A primary that is outvoted steps down and stands again: in this epoch it may never be given leave to go on without a peer.
    """
    candidate.version += 1
    question = Question("configure", candidate.name, epoch, version=candidate.version, members=members, replicas=replicas)
    answers = yield question
    candidate.is_settled, _ = counted(candidate, other_voters, question, answers)
    candidate.is_outvoted = not candidate.is_settled and any(is_outvoted(one, candidate.name, epoch) for one in answers)
    return candidate.is_settled


def must_hear_of_others(candidate: Candidate) -> bool:
    """Whether a replica has no vote and no promise of its own yet."""
    return not candidate.votes and candidate.ballot.epoch == 0


def hear_of_others(candidate: Candidate, voters: int) -> Steps[bool]:
    """Before such a replica serves anybody: have it promise what the voters have. Whether a majority of them has answered.

    One of its name may have been here before, on a disk that is gone, and have promised to serve no primary of an older epoch.
    Such a primary may still be at work, and would take the new one's acks for the old one's.
    """
    answers = yield Question("status", candidate.name)
    known = [answer.ballot for answer in answers if is_in_reach(candidate.ballot, answer.ballot)]
    if 2 * len(known) <= voters:
        return False
    candidate.adopt(max(known, key=lambda one: one.age))
    candidate.promise(max(max(one.epoch, one.of_epoch) for one in known), "")
    return True


def majority_says_yes(candidate: Candidate, other_voters: int, question: Question) -> Steps[tuple[bool, list[Ballot]]]:
    """What `counted` makes of the answers to a question."""
    answers = yield question
    return counted(candidate, other_voters, question, answers)


def counted(
    candidate: Candidate, other_voters: int, question: Question, answers: Sequence[Answer]
) -> tuple[bool, list[Ballot]]:
    """Whether a majority of all voters says yes, the asking one last and only if that makes it one; and what they know.

    One that has no vote makes its own promise all the same, last: it is to serve nobody older from then on.

    What a voter says that is further ahead than it can be is not listened to: nobody could lead after an epoch near the last.
    """
    heard = [answer for answer in answers if is_in_reach(candidate.ballot, answer.ballot)]
    known = [answer.ballot for answer in heard] + [candidate.ballot]
    if not candidate.votes and question.ask != "configure":  # Nobody asks it, so it may not know yet that it is a member.
        candidate.adopt(max(known, key=lambda one: one.age))
    own = 1 if candidate.votes else 0
    if 2 * (own + sum(answer.yes for answer in heard)) <= own + other_voters:
        return False, known
    return candidate.decide(question).yes, known


def run_steps(steps: Steps[Result], ask_all: Callable[[Question], Sequence[Answer]]) -> Result:
    """The result of these steps, with `ask_all` to put each question to the other voters."""
    answers = None
    while True:
        try:
            question = steps.send(answers) if answers is not None else next(steps)
        except StopIteration as ended:
            return ended.value
        answers = ask_all(question)
