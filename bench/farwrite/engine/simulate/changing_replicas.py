"""Replicas that come and go in a story: added, removed, and moved as a pool does it, among everything else that goes wrong.

Whoever supervises looks at times what the leader says of its replicas, and has it do what comes next (replica_set.next_of_move):
it knows nothing that the voters do not. Drawn apart from the story: one whose replicas stay is as it was before there were any.
"""

from __future__ import annotations

import random
from typing import Any

from .. import primary_kernel as primary
from ..ballot import REPLICAS_MAX, Question
from ..replica_set import ADD, DONE, HAND_OVER, REMOVE, Standing, may_change, next_of_cancelling, next_of_move
from .check import Anomaly
from .cluster import DOWN, Cluster, Node

SHARE = 0.7  # Of the stories in which replicas may change.
MOVING_TICKS = 3000  # In which a move ends that nothing disturbs.
LOOK_CHANCE = 0.3  # By tick, that the supervisor looks at a move that is under way.
# How often each begins, by tick, in a story that knows it; and which share of those stories does.
EVENTS = (("move", 0.06, 0.8), ("add", 0.01, 0.5), ("remove", 0.01, 0.5), ("cancel", 0.01, 0.5), ("exchange", 0.05, 0.6))


class ChangingReplicas:
    """The changes of one story's replicas. `apart`: voters that stand apart from the replicas."""

    def __init__(self, story: Any, seed: int) -> None:
        self.story, self.cluster = story, story.cluster
        self.random = draw = random.Random(f"replicas of {seed}")
        cluster: Cluster = story.cluster
        is_possible = cluster.protocol != primary.LOCAL and not may_change(cluster.protocol, cluster.policy)
        self.is_on = draw.random() < SHARE and is_possible
        self.apart = draw.choice((3, 3, 1, 0)) if len(cluster.nodes) > 1 else 3
        self.rates = {name: rate if draw.random() < share else 0.0 for name, rate, share in EVENTS}
        self.moves: tuple[str, str] | None = None  # from which replica to which
        self.is_cancelled = False
        if self.is_on:
            cluster.begin_changes(draw.choice((1, 1, 2)))

    @property
    def names(self) -> list[str]:
        """Of the replicas, as the newest configuration that was decided has them."""
        decided = self.story.elections.decided
        return [one.name for one in decided.replicas] or list(self.cluster.founders)

    def tick(self, troubled: bool) -> None:
        """What the supervisor does in this tick, and what happens to those that are no replicas."""
        draw = self.random
        leader = self.cluster.leader()
        if troubled:
            self.make_trouble(leader)
        if self.moves is not None and leader is not None and draw.random() < LOOK_CHANCE:
            self.go_on(leader, *self.moves)
        self.cluster.is_moving = self.moves is not None

    def make_trouble(self, leader: Node | None) -> None:
        """Begin a move or a change, or exchange the disk of one that is no replica."""
        draw, cluster = self.random, self.cluster
        happens = {name for name, rate in self.rates.items() if draw.random() < rate}
        names, voters = self.names, self.story.elections.names
        outside = [name for name in cluster.names if name not in names]
        movable = [name for name in names if name not in voters]
        if "move" in happens and self.moves is None and outside and movable:
            self.moves, self.is_cancelled = (draw.choice(movable), draw.choice(outside)), False
            cluster.tell("replica {} is to be moved to {}".format(*self.moves))
        if "cancel" in happens and self.moves is not None and not self.is_cancelled:
            self.is_cancelled = True
            cluster.tell("the move is cancelled")
        if leader is not None and not leader.change:
            if "add" in happens and outside:
                leader.change = f"add {draw.choice(outside)}"
            elif "remove" in happens and movable:
                leader.change = f"remove {draw.choice(movable)}"
        strangers = [node for node in cluster.nodes if node.name in outside and self.is_stranger(node)]
        if "exchange" in happens and strangers:
            self.exchange(draw.choice(strangers))

    def is_stranger(self, node: Node) -> bool:
        """Whether no configuration that may still count has it: then its disk is nobody's business."""
        elections = self.story.elections
        known = [one for one in elections.attempted.values() if one.age >= elections.decided.age]
        return elections.decided.of_epoch > 0 and not any(
            node.name == other.name for one in known for other in elections.replicas_of(one)
        )

    def exchange(self, node: Node) -> None:
        """Its process ends, and one of its name begins on an empty disk."""
        cluster = self.cluster
        cluster.crash(node, 0, 0, False, False)
        skew_ns, flush_ns = int(node.world.at[0].skew_ns), int(node.world.at[0].flush_ns)
        node.__init__(cluster, node.index)  # type: ignore[misc]
        node.world.at[0].skew_ns, node.world.at[0].flush_ns = skew_ns, flush_ns
        node.voter.votes = False
        cluster.tell(f"replica {node.index} is no replica now, and begins on an empty disk")
        cluster.counts["disks exchanged"] += 1

    def standings(self, leader: Node) -> dict[str, Standing]:
        """What the leader says of its replicas."""
        members = leader.voter.ballot.members
        found = {}
        for one in self.story.elections.all_replicas(leader):
            row = leader.rows.of(one.name)
            is_live = row >= 0 and bool(leader.state.peer[row].state == primary.LIVE)
            found[one.name] = Standing(one.name == leader.name, one.name in members, is_live)
        return found

    def go_on(self, leader: Node, source: str, destination: str) -> None:
        """What comes next of a move, or of undoing it."""
        cluster, seen = self.cluster, self.standings(leader)
        step = (next_of_cancelling if self.is_cancelled else next_of_move)(source, destination, seen)
        if step == DONE:
            self.moves = None
            cluster.counts["moves cancelled" if self.is_cancelled else "moves ended"] += 1
            cluster.tell(f"the move of {source} to {destination} has ended")
        elif step == ADD and len(seen) >= REPLICAS_MAX:
            self.moves = None  # Refused, as it would be for whoever asks.
        elif step == ADD and not leader.change:
            leader.change = f"add {destination}"
        elif step == REMOVE and not leader.change:
            if not self.is_cancelled and not (seen[destination].leads or seen[destination].is_member):
                raise Anomaly(f"{source} is to be removed before {destination}, which takes its place, holds everything")
            leader.change = f"remove {destination if self.is_cancelled else source}"
        elif step == HAND_OVER:
            to = source if self.is_cancelled else destination
            leader.voter.answer_to(Question("hand_over", "operator", members=(to,)))

    def end_moves(self) -> None:
        """When all has healed: a move that is under way ends."""
        story, begin = self.story, self.story.ticks
        while self.moves is not None:
            story.tick(False)
            if story.ticks - begin > MOVING_TICKS:
                raise Anomaly(f"a move has not ended {MOVING_TICKS} ticks after everything has healed: {story.describe()}")

    def is_whole(self, leader: Node) -> bool:
        """Whether the leader's rows are those of its replicas, and all of them have everything."""
        peers = [node for node in self.cluster.replicas(leader) if node is not leader]
        end = leader.journal.at[0].staged_sequence
        rows = [(node.role, leader.rows.of(node.name)) for node in peers]
        return not leader.change and all(
            role != DOWN and row >= 0 and leader.state.peer[row].state == primary.LIVE and leader.state.peer[row].durable == end
            for role, row in rows
        )
