"""The replicas of a volume, which may change while clients write: what is decided of them, and which row of a primary is whose.

Two roles. A replica holds data; a voter gives votes, and voters are fixed for the life of a volume. So a change of the replicas
is a change of the configuration, which the voters keep (ballot.py), and nothing else: `add` names one more replica, which is then
brought up to date as any peer that was away, and readmitted as a member once it has everything; `let_go` names one fewer, and
only then is it no longer waited for. Who leads next has the same set from the voters, with addresses, and goes on from there.
Generators and pure functions: a node runs them, and the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from . import election
from . import primary_kernel as p
from .ballot import REPLICAS_MAX, Placed, set_refusal_of
from .election import Candidate, Steps

NOBODY, LEAVING = "", "\0"  # In a row instead of a name, which can be printed.


def may_change(protocol: int, policy: int) -> str:
    """Why the replicas of such a volume cannot change; empty where they can.

    Under `quorum` a write is safe with a majority of the replicas' own logs, which are its voters: another set of them needs both
    majorities at once. Under the other policies nobody asks the voters before writes go on without a peer, so that who is a
    member says nothing of what it holds.
    """
    if protocol == p.QUORUM:
        return "the replicas of a volume under quorum are its voters, and stay who they are"
    return "" if policy == p.CONSENT else "only under the policy consent do the voters know which replica holds every write"


def add_refusal_of(one: Placed, members: tuple[str, ...], replicas: tuple[Placed, ...]) -> str:
    """Why this replica cannot be added to these; empty when it can."""
    if len(replicas) >= REPLICAS_MAX:
        return f"there are {len(replicas)} replicas already, and no more than {REPLICAS_MAX}: remove one first"
    if any(one.name == other.name for other in replicas):
        return f"there is a replica {one.name} already, at another address: remove it first, or choose another name"
    return set_refusal_of(members, (*replicas, one))


def remove_refusal_of(name: str, leader: str, voters: Collection[str], replicas: tuple[Placed, ...]) -> str:
    """Why the replica of this name cannot be removed from these; empty when it can. `voters`: of the whole volume."""
    names = [one.name for one in replicas]
    if name not in names:
        return f"there is no replica {name} ({', '.join(names)})"
    if len(names) == 1:
        return f"{name} holds the last copy"
    if name == leader:
        return f"{name} leads: hand over first"
    if name in voters:
        return f"{name} votes, and voters stay who they are; only a replica of a volume whose voters stand apart can be removed"
    return ""


def add(
    candidate: Candidate, other_voters: int, epoch: int, replicas: tuple[Placed, ...], one: Placed
) -> Steps[bool]:
    """Whether a majority of the voters knows of one more replica. It is no member: it holds nothing yet."""
    return election.configure(candidate, other_voters, epoch, candidate.ballot.members, (*replicas, one))


def let_go(
    candidate: Candidate, other_voters: int, epoch: int, replicas: tuple[Placed, ...], name: str
) -> Steps[bool]:
    """Whether a majority of the voters knows of one replica fewer: it leads no more, and need hold nothing from now on."""
    members = tuple(one for one in candidate.ballot.members if one != name)
    rest = tuple(one for one in replicas if one.name != name)
    return election.configure(candidate, other_voters, epoch, members, rest)


class PeerRows:
    """Whose each row of Primary.peer is, while one leads. Peers that come later get rows that are nobody's."""

    def __init__(self, names: Collection[str], count: int) -> None:
        assert len(names) <= count
        self.names: list[str] = [*names, *[NOBODY] * (count - len(names))]

    def of(self, name: str) -> int:
        """The row of the replica of this name, -1 when it has none."""
        return self.names.index(name) if name in self.names else -1

    def named(self) -> Iterator[tuple[int, str]]:
        """(row, name) of those that are somebody's."""
        return ((index, name) for index, name in enumerate(list(self.names)) if name not in (NOBODY, LEAVING))

    def is_gone(self, name: str) -> bool:
        """Whether the loop has let go of this one, and of whoever went with it."""
        return name not in self.names and LEAVING not in self.names

    def begin(self, state: p.Primary, members: Collection[str]) -> None:
        """Have a new primary wait for the members, and for nobody else."""
        for index, name in enumerate(self.names):
            asked = p.WAITED_FOR if name in members else p.DETACHED
            state.peer[index].detached = asked if name != NOBODY else p.NOT_YET

    def follow(self, state: p.Primary, peers: Collection[str], freed: Callable[[int], None] = lambda index: None) -> None:
        """Have rows as these peers need them. A row is only given to another once the loop has nothing of the last one's left."""
        for index, name in enumerate(self.names):
            if name in peers or name == NOBODY or state.control_requests[index].request != p.NOTHING:
                continue
            if name == LEAVING:
                self.names[index] = NOBODY
                freed(index)
            else:
                self.names[index] = LEAVING
                state.control_requests[index].request = p.VACATE
        for name in peers:
            if name not in self.names and NOBODY in self.names:
                self.names[self.names.index(NOBODY)] = name


# Moving a replica: whoever supervises asks who leads which replicas there are, does what comes next, and asks again. Where it was
# ended in the middle, or another leads meanwhile, the answer tells where to go on.

ADD, WAIT, HAND_OVER, REMOVE, DONE = "add", "wait", "hand-over", "remove", "done"


class Standing(NamedTuple):
    """What a move needs to know of one replica."""

    leads: bool
    is_member: bool
    is_live: bool


def next_of_move(source: str, destination: str, seen: Mapping[str, Standing]) -> str:
    """What comes next where one takes another's place: ADD the destination, WAIT, HAND_OVER to it, REMOVE the source, DONE."""
    if destination not in seen:
        return ADD
    arrived = seen[destination]
    if not (arrived.leads or (arrived.is_member and arrived.is_live)):
        return WAIT
    if source not in seen:
        return DONE
    return HAND_OVER if seen[source].leads else REMOVE


def next_of_cancelling(source: str, destination: str, seen: Mapping[str, Standing]) -> str:
    """What comes next where such a move is to be undone: HAND_OVER to the source, REMOVE the destination, DONE.

    Once the source is gone there is nothing to undo: it is DONE.
    """
    if source not in seen or destination not in seen:
        return DONE
    if not seen[destination].leads:
        return REMOVE
    return HAND_OVER if seen[source].is_member and seen[source].is_live else WAIT
