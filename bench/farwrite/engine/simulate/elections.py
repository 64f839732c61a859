"""Membership by votes: replicas and perhaps a witness ask each other, as engine/node.py has it, over a network that loses.

Each replica follows, stands, leads, strikes and readmits as the threads of a real node do, one step a tick at most. When it does
so is drawn and not timed: whatever holds only because a timeout is long enough does not hold here.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from ...base.host import pretend_kernel as pretend
from .. import election
from .. import journal_kernel as log
from .. import primary_kernel as primary
from ..ballot import Answer, Ballot, Placed, Question
from ..handshake import is_to_be_readmitted, is_to_be_struck, may_succeed
from ..replica_set import add, add_refusal_of, let_go, remove_refusal_of
from ..vote import BallotError
from .check import Anomaly
from .cluster import DOWN, IDLE, PRIMARY, SECONDARY, UNASKED, Cluster, Node
from .voting import WITNESS, ControlNetwork, Inquiry, PowerLostError, Voter

NEVER_HERE_PATIENCE = 0.95  # Chance, in each look, that a peer which has never been here is waited for a little more.
ORPHANS_CHANCE = 0.3  # That a replica stands in this tick, once it knows that the process of its last primary has ended.


class Elections:
    """The voters of a cluster, and what each of its replicas asks them."""

    def __init__(self, cluster: Cluster, witness: bool, apart: int = 0) -> None:
        """The founders vote, and perhaps a witness with them; or `apart` voters that hold no data, and no replica."""
        self.cluster, self.random = cluster, cluster.random
        self.network = ControlNetwork(cluster.random)
        self.nodes = {node.name: node for node in cluster.nodes}
        names = [f"v{index}" for index in range(apart)] or [WITNESS] * witness
        self.apart: dict[str, Voter] = {}
        for name in names:
            world = pretend.world(
                cluster.clock, 0, 0, 0, cluster.stream, cluster.in_flight_bytes, cluster.segment_end, cluster.segment_due_ns
            )
            self.apart[name] = Voter(cluster, name, world)
        self.witness = next(iter(self.apart.values()), None)
        self.names = (*(() if apart else cluster.founders), *names)  # of all that vote
        for node in cluster.nodes:
            node.voter.votes = node.name in self.names
        cluster.place_count = len(cluster.nodes) + max(len(self.apart), 1)
        self.decided = Ballot()  # the newest configuration that a majority keeps, as who asked for it knows
        self.attempted: dict[tuple[int, int], Ballot] = {}  # by age: asked for, so that some voter may keep it
        self.question_count = 0
        self.ask_ns_max = 5_000_000  # a voter that has not answered by then, or by a third of it, is not waited for
        self.stand_chance = 0.1  # that a replica without a session stands, by tick, while nobody leads

    # What a cluster asks of its membership

    def promise(self, node: Node, leader: Node) -> bool:
        """As Node.serve does before a session: the ballot, then the journal."""
        voter, epoch = node.voter, int(leader.journal.at[0].epoch)
        if election.must_hear_of_others(voter):
            begun = self.cluster.newest.epoch
            self.inquire(node, election.hear_of_others(voter, len(self.names)), partial(self.finish_hearing, node, begun))
            return False
        if epoch < voter.ballot.epoch or not self.cluster.is_quiet(node):
            return False
        try:
            if leader.voter.ballot.replicas:
                voter.adopt(leader.voter.ballot)
            voter.follow_primary(epoch, leader.name)
        except (BallotError, PowerLostError):
            self.end_process(node)
            return False
        node.journal.at[0].epoch = epoch
        return node.save()

    def finish_hearing(self, node: Node, begun: int, is_heard: bool) -> None:
        """A majority of the voters knows every epoch that had begun when they were asked: so does this replica then."""
        if is_heard and node.voter.ballot.epoch < begun:
            raise Anomaly(
                f"replica {node.index}, on an empty disk, has heard of epoch {node.voter.ballot.epoch}, "
                f"and epoch {begun} had begun"
            )

    def came_to_rest(self, node: Node) -> None:
        if node.leaves_to:
            self.send(node, node.leaves_to, 0, Question("hand_over", node.name, members=(node.leaves_to,)))
            node.leaves_to = ""

    def detached(self, node: Node) -> list[int]:
        members = node.voter.ballot.members
        return [slot for slot, name in node.rows.named() if name not in members]

    def steps_down_for(self, node: Node, other: Node) -> bool:
        return other.voter.answers and other.voter.ballot.epoch > node.journal.at[0].epoch

    def crashed(self, node: Node, key: int, share: int) -> None:
        node.voter.file.crash(key + 3, share)

    def recall(self, node: Node) -> bool:
        """Read the ballot; one that was damaged is refused, and restored by whoever runs this replica."""
        try:
            if not node.voter.recall():
                return self.refuse(node.voter)
            node.voter.promise(int(node.journal.at[0].epoch), "")
        except (BallotError, PowerLostError):
            return False
        return True

    def is_whole(self, leader: Node) -> bool:
        names = {node.name for node in self.cluster.replicas(leader)}
        return self.cluster.policy != primary.CONSENT or set(leader.voter.ballot.members) == names

    # Damage

    def refuse(self, voter: Voter) -> bool:
        """A voter does not begin with a damaged ballot. Its file is put right, for the next time."""
        if not voter.file.flipped:
            raise Anomaly(f"voter {voter.name} refuses a ballot that nobody has damaged")
        voter.file.restore()
        self.cluster.counts["ballots refused"] += 1
        self.cluster.tell(f"voter {voter.name} refuses a damaged ballot")
        return False

    def damage(self) -> None:
        """Turn bits of the ballot of a voter that does not run."""
        idle = [voter for voter in self.everybody() if not voter.answers and not voter.file.flipped]
        if idle:
            voter = self.random.choice(idle)
            voter.file.flip(self.random)
            self.cluster.tell(f"bits flip in the ballot of {voter.name}")

    # Who is who

    def everybody(self) -> list[Voter]:
        """Whoever has a ballot: the replicas, whether or not they vote, and who votes only."""
        return [*(node.voter for node in self.cluster.nodes), *self.apart.values()]

    def voter_of(self, name: str) -> Voter:
        """Whoever answers to this name."""
        return self.nodes[name].voter if name in self.nodes else self.apart[name]

    def others(self, node: Node) -> int:
        """How many voters there are besides this replica."""
        return len(self.names) - node.voter.votes

    # Control

    def control(self, troubled: bool) -> None:
        for voter in self.apart.values():
            self.mind_voter(voter, troubled)
        self.deliver()
        leader = self.cluster.leader()
        for node in self.cluster.nodes:
            if node.role == DOWN or node.name in self.cluster.asleep or node.world.at[0].power_in == 0:
                continue
            if node.inquiry is not None and self.is_over(node.inquiry):
                self.go_on(node, list(node.inquiry.answers.values()))
            elif node.role == SECONDARY:
                self.watch_session(node, leader, troubled)
            elif node.role == PRIMARY:
                self.mind_peers(node, troubled)
            elif node.role == IDLE and node.inquiry is None:
                self.follow(node, leader, troubled)

    def mind_voter(self, voter: Voter, troubled: bool) -> None:
        """The witness, too, loses its power and comes back."""
        power = voter.world.at[0]
        if voter.is_up and power.power_in == 0:
            voter.is_up = False
            voter.file.crash(self.random.getrandbits(62), self.random.choice((0, 64, 128, 192, 256)))
            self.cluster.tell(f"the {voter.name} loses power")
        elif not voter.is_up and (not troubled or self.random.random() < 0.04):
            power.power_in = power.fail_in = -1
            with contextlib.suppress(BallotError, PowerLostError):
                voter.is_up = voter.recall() or self.refuse(voter)
            self.cluster.tell(f"the {voter.name} is back" if voter.is_up else f"the {voter.name} stays away")

    def end_process(self, node: Node) -> None:
        """A replica whose disk has failed under it ends."""
        node.inquiry = None
        if node.world.at[0].power_in != 0:
            self.cluster.tell(f"replica {node.index}: its disk refuses a ballot")
        node.world.at[0].power_in = 0

    # Questions and answers

    def send(self, node: Node, voter: str, number: int, body: Question | Answer) -> None:
        self.network.send(int(self.cluster.clock[0]), node.name, voter, number, body)

    def are_cut(self, one: str, other: str) -> bool:
        return frozenset((self.place(one), self.place(other))) in self.cluster.cut

    def place(self, name: str) -> int:
        """The place of a voter in the network: a replica's index, the witness behind them."""
        return self.nodes[name].index if name in self.nodes else len(self.nodes) + list(self.apart).index(name)

    def deliver(self) -> None:
        """Hand over what has arrived to whoever runs, and is not cut off."""
        now_ns = int(self.cluster.clock[0])
        for message in self.network.arrived(now_ns):
            target = self.voter_of(message.target)
            if not target.answers or self.are_cut(message.asker, message.voter):
                continue
            sender = message.asker if message.target == message.voter else message.voter
            if (self.place(sender), self.place(message.target)) in self.cluster.blackholes:
                self.cluster.counts["votes lost in one direction"] += 1
                continue
            if target.name in self.cluster.asleep:
                self.network.send(now_ns, message.asker, message.voter, message.number, message.body)
            elif isinstance(message.body, Question):
                answer = target.answer_to(message.body)
                if answer is not None and message.number:
                    self.network.send(now_ns, message.asker, message.voter, message.number, answer)
            else:
                inquiry = self.nodes[message.asker].inquiry
                if inquiry is not None and inquiry.number == message.number:
                    inquiry.answers.setdefault(message.voter, message.body)

    def ask_astray(self, node: Node) -> None:
        """A replica asks each voter to keep a configuration of the epoch that this one has promised to another: none does."""
        for voter in map(self.voter_of, self.names):
            ballot = voter.ballot
            if not voter.answers or not ballot.candidate or ballot.candidate == node.name:
                continue
            question = Question("configure", node.name, ballot.epoch, version=ballot.version + 7, members=(node.name,))
            answer = voter.answer_to(question)
            if answer is not None and answer.yes:
                raise Anomaly(f"voter {voter.name} keeps a configuration of {node.name}, who does not lead epoch {ballot.epoch}")
            self.cluster.counts["strays refused"] += 1

    def inquire(self, node: Node, steps: election.Steps[Any], finish: Any) -> None:
        """Begin to ask the other voters."""
        node.inquiry = Inquiry(steps, finish)
        self.go_on(node, None)

    def is_over(self, inquiry: Inquiry) -> bool:
        """Whether all have answered, or are not waited for any more."""
        return len(inquiry.answers) == inquiry.asked or self.cluster.clock[0] > inquiry.ends_ns

    def go_on(self, node: Node, answers: list[Answer] | None) -> None:
        """The next step, with these answers to the last question."""
        inquiry = node.inquiry
        assert inquiry is not None
        try:
            question = next(inquiry.steps) if answers is None else inquiry.steps.send(answers)
        except StopIteration as ended:
            node.inquiry = None
            inquiry.finish(ended.value)
            return
        except (BallotError, PowerLostError):
            self.end_process(node)
            return
        if question.ask == "configure":
            ballot = Ballot(0, "", question.epoch, question.version, question.members, 0, question.replicas)
            self.attempted[ballot.age] = ballot
        self.question_count += 1
        inquiry.number, inquiry.answers, inquiry.asked = self.question_count, {}, self.others(node)
        inquiry.ends_ns = int(self.cluster.clock[0]) + self.random.randrange(self.ask_ns_max // 3, self.ask_ns_max)
        for name in self.names:
            if name != node.name:
                self.send(node, name, inquiry.number, question)

    # A replica without a session

    def follow(self, node: Node, leader: Node | None, troubled: bool) -> None:
        """Wait for a primary; stand for election sooner or later, and at once when one hands over."""
        out_of_reach = leader is None or self.cluster.is_cut(node, leader)
        chance = self.stand_chance if out_of_reach else self.stand_chance / 20 if troubled else 0.0
        last = node.served
        if last is not None and self.is_known_to_have_ended(node, last) and not node.journal.at[0].flags & log.INCONSISTENT:
            chance = max(chance, ORPHANS_CHANCE)
            self.cluster.counts["primaries known to have ended"] += 1
        if not node.stands_at_once and self.random.random() >= chance:
            return
        if not self.cluster.is_quiet(node):
            return
        node.stands_at_once = False
        if node.journal.at[0].flags & log.INCONSISTENT:
            return
        self.cluster.counts["elections"] += 1
        self.inquire(
            node, election.stand(node.voter, self.others(node), self.cluster.founders), partial(self.finish_standing, node)
        )

    def is_known_to_have_ended(self, node: Node, other: Node) -> bool:
        """Whether the machine of another replica answers that nobody listens there: it runs, and its process does not."""
        return other.role == DOWN and not self.cluster.is_cut(node, other) and not other.is_powerless

    def finish_standing(self, node: Node, epoch: int) -> None:
        if epoch and node.role == IDLE and node.voter.ballot.epoch == epoch:
            self.check_leader(node, epoch)
            self.note_decided(node)
            self.cluster.begin_term(node, epoch)

    # A secondary

    def watch_session(self, node: Node, leader: Node | None, troubled: bool) -> None:
        """End a session in which nothing is heard any more; at times one that is only slow."""
        its_primary = self.primary_of(node)
        lives = its_primary is not None and not self.cluster.is_cut(node, its_primary)
        chance = 0.002 if lives and troubled else 0.0 if lives else 0.05
        if self.random.random() < chance:
            self.cluster.tell(f"replica {node.index} has not heard its primary for long enough")
            self.cluster.stop(node)

    def primary_of(self, node: Node) -> Node | None:
        """The replica at the other end of a session, while it holds that end."""
        socket = int(node.state.sockets[0])
        for other in self.cluster.nodes:
            if other.role == PRIMARY and socket ^ 1 in other.sockets:
                return other
        return None

    def depose(self, node: Node) -> bool:
        """Have a replica stand for election whoever leads."""
        if node.role == SECONDARY:
            self.cluster.stop(node)
        if node.role in (DOWN, PRIMARY):
            return False
        node.stands_at_once = True
        return True

    # A primary

    def mind_peers(self, node: Node, troubled: bool) -> None:
        """One look of the control thread: step down, hand over, or ask for one change of the configuration."""
        cluster, voter = self.cluster, node.voter
        members, epoch = voter.ballot.members, node.term.epoch
        if cluster.changes:
            node.rows.follow(node.state, [other.name for other in cluster.replicas(node) if other is not node])
        if node.successor:
            slot = cluster.slot(node, self.nodes[node.successor])
            if slot >= 0 and may_succeed(node.state.peer[slot], node.successor, members, node.journal):
                successor = node.successor
                self.check_successor(node, self.nodes[successor])
                cluster.counts["handed over"] += 1
                cluster.tell(f"replica {node.index} hands over to {successor}")
                cluster.stop(node)
                node.leaves_to = successor
                return
            if self.random.random() < 0.05:
                node.successor = ""  # It has waited long enough.
        if node.inquiry is not None or (troubled and self.random.random() < 0.7):
            return
        if voter.ballot.epoch > epoch:
            cluster.tell(f"replica {node.index} has promised epoch {voter.ballot.epoch} and steps down")
            cluster.stop(node)
            return
        if node.change:
            self.begin_change(node)
            return
        others = [other for other in cluster.replicas(node) if other is not node and cluster.slot(node, other) >= 0]
        if not others and not voter.is_settled:
            self.configure(node, members, None, "settles")
            return
        self.random.shuffle(others)
        for other in others:
            slot = cluster.slot(node, other)
            peer = node.state.peer[slot]
            if node.state.control_requests[slot].request != primary.NOTHING:
                continue
            if not voter.is_settled:  # Some may know what the majority does not.
                self.configure(node, members, None, "settles")
                return
            if peer.state == primary.ABSENT:
                is_patient = self.random.random() < NEVER_HERE_PATIENCE and not self.is_known_to_have_ended(node, other)
                if cluster.policy == primary.CONSENT and is_to_be_struck(peer, other.name, members, is_patient):
                    rest = tuple(one for one in members if one != other.name)
                    if cluster.bug == UNASKED:
                        node.state.control_requests[slot].request = primary.DETACH
                    self.configure(node, rest, other, "strikes")
                    return
                cluster.join(node, other)
                if node.role != PRIMARY:
                    return
            elif cluster.policy == primary.CONSENT and is_to_be_readmitted(peer, other.name, members):
                self.configure(node, tuple(sorted({*members, other.name})), None, "readmits")
                return

    def configure(self, node: Node, members: tuple[str, ...], struck: Node | None, what: str) -> None:
        """Ask the voters to keep this configuration."""
        steps = election.configure(node.voter, self.others(node), node.term.epoch, members, node.voter.ballot.replicas)
        self.inquire(node, steps, partial(self.finish_configuring, node, node.term, struck, what))

    def finish_configuring(self, node: Node, term: Any, struck: Node | None, what: str, is_kept: bool) -> None:
        if node.role != PRIMARY or node.term is not term:
            return
        if node.voter.is_outvoted:
            self.cluster.tell(f"replica {node.index} is outvoted in epoch {term.epoch}: it steps down, and stands again")
            self.cluster.stop(node)
            node.stands_at_once = True
            return
        if is_kept:
            self.note_decided(node)
            self.cluster.counts[f"configurations, {what}"] += 1
            self.cluster.tell(f"replica {node.index} {what}: the members are {', '.join(node.voter.ballot.members)}")
        if struck is None:
            return
        control_request = node.state.control_requests[self.cluster.slot(node, struck)]
        if is_kept and control_request.request == primary.NOTHING:
            control_request.request = primary.DETACH
        else:
            self.cluster.join(node, struck)

    # Other replicas

    def all_replicas(self, node: Node) -> tuple[Placed, ...]:
        """As Node.all_replicas has it."""
        return self.replicas_of(node.voter.ballot)

    def replicas_of(self, ballot: Ballot) -> tuple[Placed, ...]:
        """Those of a configuration."""
        return ballot.replicas or tuple(map(place_of, self.cluster.founders))

    def begin_change(self, node: Node) -> None:
        """As Node.made does it: refused, or asked of the voters."""
        word, name = node.change.split()
        node.change = ""
        replicas, members = self.all_replicas(node), node.voter.ballot.members
        if word == "add":
            refusal = "" if place_of(name) not in replicas else "it is there"
            refusal = refusal or add_refusal_of(place_of(name), members, replicas)
            steps = add(node.voter, self.others(node), node.term.epoch, replicas, place_of(name))
        else:
            refusal = remove_refusal_of(name, node.name, self.names, replicas)
            steps = let_go(node.voter, self.others(node), node.term.epoch, replicas, name)
        if refusal:
            self.cluster.counts["changes of the replicas refused"] += 1
            return
        what = "adds" if word == "add" else "removes"
        self.cluster.tell(f"replica {node.index} {what} {name}")
        self.inquire(node, steps, partial(self.finish_configuring, node, node.term, None, what))

    def note_decided(self, node: Node) -> None:
        """A majority keeps the configuration that this replica knows."""
        ballot = node.voter.ballot
        self.decided = max(self.decided, ballot, key=lambda one: one.age)

    def check_leader(self, node: Node, epoch: int) -> None:
        """Who leads was a member in the newest configuration that was decided before, or in one that was attempted behind it."""
        known = [self.decided, *(one for one in self.attempted.values() if one.age > self.decided.age and one.of_epoch < epoch)]
        decided = f"the voters have decided that the members are {', '.join(self.decided.members)}"
        if self.decided.members and not any(node.name in one.members for one in known):
            raise Anomaly(f"replica {node.index} leads in epoch {epoch}, and {decided}")
        mine = node.voter.ballot
        if self.decided.members and not any((mine.members, mine.replicas) == (one.members, one.replicas) for one in known):
            raise Anomaly(f"replica {node.index} leads in epoch {epoch} with members {', '.join(mine.members)}, and {decided}")

    def check_successor(self, node: Node, other: Node) -> None:
        """Whom a primary hands over to is a member, and holds everything that was submitted in its term."""
        last = node.term.last
        holds_all = last == 0 or other.ever_durable(self.cluster.terms, node.term, last)
        if not holds_all or other.name not in node.voter.ballot.members:
            raise Anomaly(f"replica {node.index} hands over to replica {other.index}, which is no member or lacks write {last}")


def place_of(name: str) -> Placed:
    """A replica with an address, of which nothing is made here."""
    return Placed(name, "host", 1 + int(name[1:]), 1)
