"""Membership by a perfect arbiter: whoever may lead is known at once, and so is whom a primary goes on without.

What no election of ours can do is told this way: two replicas without a witness, a primary that is deposed for no reason,
replicas whose journals lose what was durable in them.
"""

from __future__ import annotations

from .. import primary_kernel as primary
from .cluster import DOWN, IDLE, PRIMARY, SECONDARY, SETTLING, UNFENCED, Cluster, Node


class Arbiter:
    """Knows everything, and forgets nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.random = cluster, cluster.random
        self.out: set[int] = set()  # who is detached in the newest term

    def promise(self, node: Node, leader: Node) -> bool:
        return self.promise_epoch(node, int(leader.journal.at[0].epoch))

    def promise_epoch(self, node: Node, epoch: int) -> bool:
        """Have a replica refuse every older epoch from now on; False when it cannot be done now."""
        if node.journal.at[0].epoch >= epoch:
            return bool(node.journal.at[0].epoch == epoch)
        if not self.cluster.is_quiet(node):
            return False
        node.journal.at[0].epoch = epoch
        return node.save()

    def came_to_rest(self, node: Node) -> None:
        pass

    def detached(self, node: Node) -> list[int]:
        # Who was detached lacks completed writes, and a new term asks for none of them back: it stays out until it has caught up.
        self.out.discard(node.index)
        if self.cluster.policy == primary.CONSENT:
            return [self.cluster.slot(node, self.cluster.nodes[index]) for index in self.out]
        return list(range(len(self.cluster.nodes) - 1)) if self.cluster.policy == primary.SUSPEND_REPLICATION else []

    def steps_down_for(self, node: Node, other: Node) -> bool:
        return bool(other.journal.at[0].epoch > node.journal.at[0].epoch)

    def crashed(self, node: Node, key: int, share: int) -> None:
        pass

    def recall(self, node: Node) -> bool:
        return True

    def is_whole(self, leader: Node) -> bool:
        return True

    def may_lead(self, node: Node) -> bool:
        """Whether it would grant this idle, settled replica a new term."""
        cluster = self.cluster
        newest = cluster.newest
        if not node.is_sound:
            return False
        if newest.epoch == 0 or cluster.protocol == primary.QUORUM:
            return True
        if node.index == newest.leader:
            return True
        old = cluster.nodes[newest.leader]
        # A state that the old primary's process had last is what its crash leaves to the arbiter.
        detached = old.state is not None and old.term is newest and cluster.detached(old)[cluster.slot(old, node)]
        if old.term is not newest or old.state is None:
            detached = node.index in self.out
        if cluster.policy == primary.SUSPEND_REPLICATION:
            return True
        if cluster.protocol == primary.A:
            return True
        if cluster.bug == UNFENCED:
            return True
        return not detached and node.index not in self.out

    def elect(self, node: Node) -> bool:
        """Have an idle replica lead in a new epoch, if it may."""
        cluster = self.cluster
        epoch = max(cluster.terms) + 1
        if node.role != IDLE or not cluster.is_quiet(node) or not self.may_lead(node):
            return False
        if cluster.protocol == primary.QUORUM:
            # The newest primary, come back, has all that completed: it needs the others' promise, not their logs.
            returns = cluster.newest.leader == node.index
            members = [
                other for other in cluster.nodes
                if other.role in (IDLE, SECONDARY, SETTLING) and not cluster.is_cut(node, other)
                and (returns or other.is_sound)
            ]  # fmt: skip
            if len(members) < len(cluster.nodes) - cluster.quorum + 1 or not all(cluster.is_quiet(other) for other in members):
                return False
            reach = {
                other.index: (int(other.journal.at[0].log_epoch), int(other.journal.at[0].durable_sequence))
                for other in members
            }
            if not returns and reach[node.index] != max(reach.values()):
                return False
            if cluster.bug != UNFENCED and not all(self.promise_epoch(other, epoch) for other in members):
                return False
        return cluster.begin_term(node, epoch)

    def control(self, troubled: bool) -> None:
        leader = self.cluster.leader()
        for node in self.cluster.nodes:
            if node.role == PRIMARY:
                self.mind_peers(node, leader, troubled)
        self.hold_elections(leader, troubled)

    def mind_peers(self, node: Node, leader: Node | None, troubled: bool) -> None:
        """What the control thread of a primary does."""
        draw, cluster = self.random, self.cluster
        for other in cluster.nodes:
            if other is node:
                continue
            slot = cluster.slot(node, other)
            peer, control_request = node.state.peer[slot], node.state.control_requests[slot]
            if control_request.request != primary.NOTHING:
                continue
            if peer.state != primary.ABSENT and not (other.role == IDLE and draw.random() < 0.05):
                continue  # It may come back before it was seen to go.
            if other.role == SECONDARY and not cluster.is_cut(node, other) and (node is leader) and draw.random() < 0.2:
                cluster.tell(f"replica {other.index} gives up its old connection")
                cluster.stop(other)
            elif other.role == PRIMARY and node is leader and not cluster.is_cut(node, other) and draw.random() < 0.2:
                cluster.tell(f"replica {other.index} hears of epoch {node.term.epoch} and steps down")
                cluster.stop(other)
            elif other.role == IDLE and other.wanted_epoch == 0 and (not troubled or draw.random() < 0.2):
                cluster.join(node, other)
                if node.role != PRIMARY:
                    break
            elif (
                cluster.policy == primary.CONSENT and node is leader and not peer.detached
                and not any(candidate.wanted_epoch for candidate in cluster.nodes) and draw.random() < 0.15
            ):  # fmt: skip
                control_request.request = primary.DETACH
                self.out.add(other.index)
                cluster.counts["struck"] += 1
                cluster.tell(f"replica {other.index} is detached in epoch {node.term.epoch}")
        if node is leader and node.role == PRIMARY:
            detached = cluster.detached(node)
            self.out = {other.index for other in cluster.nodes if other is not node and detached[cluster.slot(node, other)]}

    def hold_elections(self, leader: Node | None, troubled: bool) -> None:
        """Somebody leads, sooner or later."""
        draw, cluster = self.random, self.cluster
        for node in cluster.nodes:
            if node.wanted_epoch:
                if node.role == DOWN or node.wanted_epoch <= max(cluster.terms):
                    node.wanted_epoch = 0
                elif node.role == SECONDARY or node.role == PRIMARY:
                    cluster.stop(node)
                elif node.role == IDLE:
                    self.elect(node)
                    node.wanted_epoch = 0
        if len(cluster.nodes) == 1 and cluster.leader() is not None:
            return  # Elected just now; of several another may be drawn.
        if leader is None and not any(node.wanted_epoch for node in cluster.nodes) and (not troubled or draw.random() < 0.1):
            self.depose(draw.choice(cluster.nodes))

    def depose(self, node: Node) -> bool:
        """Have this replica lead as soon as it can; whether it may."""
        cluster = self.cluster
        if node.role == DOWN or not self.may_lead(node) or any(one.wanted_epoch for one in cluster.nodes):
            return False
        node.wanted_epoch = max(cluster.terms) + 1
        return True
