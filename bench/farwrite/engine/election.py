"""A candidate's steps, and a primary's when it changes the configuration: whom it asks what, and what it makes of the answers.

Generators: each yields a Question for all other voters and is sent their answers, however many have come. A node asks over
TCP (`run_steps`); the simulator lets a voter's answer be late, or lost, and a candidate end, between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

from .ballot import Answer, Ballot, Question, is_in_reach, is_outvoted

Result = TypeVar("Result")
Steps = Generator[Question, Sequence[Answer], Result]


class Candidate(Protocol):
    """What the steps need of a replica. `decide` and `adopt` make durable what they change before they return."""

    name: str
    ballot: Ballot
    version: int  # of its last attempt at a configuration
    is_settled: bool  # whether a majority keeps that attempt
    is_outvoted: bool  # whether it does not, and some voter has promised this epoch to another, or a later one

    def log_of(self) -> tuple[int, int]:
        """(epoch, sequence) of its last durable write."""

    def epoch_known(self) -> int:
        """The newest epoch that it knows of."""

    def decide(self, question: Question) -> Answer:
        """Its own answer, as a voter."""

    def adopt(self, known: Ballot) -> None:
        """Remember the configuration of another voter's ballot, if it is newer."""


def stand(candidate: Candidate, other_voters: int, names: tuple[str, ...]) -> Steps[int]:
    """Ask for votes, first without effect; the epoch that the candidate may lead in, 0 when it may not lead.

    `names` are all replicas: the members as long as no configuration is known.
    """
    log_epoch, sequence = candidate.log_of()
    epoch = candidate.epoch_known() + 1
    for word in ("would", "grant"):
        question = Question(word, candidate.name, epoch, log_epoch, sequence)
        says_yes, known = yield from majority_says_yes(candidate, other_voters, question)
        candidate.adopt(max(known, key=lambda one: one.age))  # Whatever we hear of newer, we know.
        highest = max(max(one.epoch, one.of_epoch) for one in known)
        if word == "would" and highest >= epoch:
            epoch = highest + 1
            question = Question(word, candidate.name, epoch, log_epoch, sequence)
            says_yes, known = yield from majority_says_yes(candidate, other_voters, question)
        if not says_yes:
            return 0
    members = candidate.ballot.members or names
    if candidate.name not in members or not (yield from configure(candidate, other_voters, epoch, members)):
        return 0
    return epoch


def configure(candidate: Candidate, other_voters: int, epoch: int, members: tuple[str, ...]) -> Steps[bool]:
    """Whether a majority keeps this configuration from now on. Every attempt has a number of its own: the last one counts.

    A primary that is outvoted steps down and stands again: in this epoch it may never be given leave to go on without a peer.
    """
    candidate.version += 1
    question = Question("configure", candidate.name, epoch, version=candidate.version, members=members)
    answers = yield question
    candidate.is_settled, _ = counted(candidate, other_voters, question, answers)
    candidate.is_outvoted = not candidate.is_settled and any(is_outvoted(one, candidate.name, epoch) for one in answers)
    return candidate.is_settled


def majority_says_yes(candidate: Candidate, other_voters: int, question: Question) -> Steps[tuple[bool, list[Ballot]]]:
    """What `counted` makes of the answers to a question."""
    answers = yield question
    return counted(candidate, other_voters, question, answers)


def counted(
    candidate: Candidate, other_voters: int, question: Question, answers: Sequence[Answer]
) -> tuple[bool, list[Ballot]]:
    """Whether a majority of all voters says yes, the asking one last and only if that makes it one; and what they know.

    What a voter says that is further ahead than it can be is not listened to: nobody could lead after an epoch near the last.
    """
    heard = [answer for answer in answers if is_in_reach(candidate.ballot, answer.ballot)]
    known = [answer.ballot for answer in heard] + [candidate.ballot]
    if 2 * (1 + sum(answer.yes for answer in heard)) <= 1 + other_voters:
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
