"""Changes of a pool, each in steps that may be cut off anywhere: what is to be is in the document before it is done.

`Pool` decides and writes the document; files are made after they stand in it and removed before they leave it. What goes on while
volumes are served (a copy that joins, one that leaves) is `advance`: it looks at the document and at the group, does the next
thing and returns. It remembers nothing, so who opens a pool after everything was killed goes on where that stood.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ...base.errors import FarwriteError, UnfitError, UsageError, system_error
from ...base.host.disk import SNAPSHOTS, VOLUME, disk
from ...base.units import format_size
from ...engine.frontend.iscsi.store import AREA_BYTES
from ...engine.vote import format_ballot
from ...workload.drill_scenario import SITES
from ..serve.volume_files import LOCK, LOCK_S, ballot_in, is_locked, lock_within, make_durable, new_number
from . import placement
from .balance import Measured
from .document import (
    LEVELS,
    NODES,
    NODES_MAX,
    POOL,
    VOLUMES_MAX,
    VOTERS,
    Copy,
    Document,
    StorageNode,
    Stripe,
    Volume,
    checked_level,
    checked_name,
    checked_node,
    checked_size,
    load,
    new_document,
    save,
)
from .placement import Move, Room, place, plan_balance, plan_drain, room_of
from .router_record import record_of

MARK = ".farwrite-pool"  # In a node's directory: the number of the pool that it belongs to.
RECORDS = "striped"  # In the pool's directory: of each striped volume which snapshots are whole.
FILES_ADVICE = "Free room on that node's disk, or remove the node: farwrite pool remove."


class Group(Protocol):
    """The processes of the volumes, as `advance` needs them. NotNowError where it cannot be said or done at the moment."""

    def begin(self, volume: Volume) -> None:
        """Its files are there: start every copy, and serve it."""

    def end(self, volume: Volume) -> None:
        """Serve it no more."""

    def resize(self, volume: Volume) -> None:
        """Its size in the document has changed: clients that come from now on see that. UsageError: something is written behind
        a smaller one."""

    def start(self, volume: Volume, copy: Copy) -> None:
        """Have a process run on a copy that is to join, unless one does."""

    def stop(self, volume: Volume, copy: Copy) -> None:
        """No process runs on a copy any more."""

    def leader(self, volume: Volume) -> str:
        """The replica that leads; empty: none does."""

    def has(self, volume: Volume, copy: Copy) -> bool:
        """Whether the group knows this replica."""

    def add(self, volume: Volume, copy: Copy) -> None:
        """Have the group bring this replica up to date."""

    def is_whole(self, volume: Volume, copy: Copy) -> bool:
        """Whether it is up to date and counts: it is a member that keeps up."""

    def hand_over(self, volume: Volume, to: str) -> None:
        """Have another replica lead."""

    def remove(self, volume: Volume, copy: Copy) -> None:
        """Have the group go on without this replica."""

    def measured(self) -> Measured:
        """What is known of the load."""


class NotNowError(UnfitError):
    """Nobody leads, or nobody answers: it is tried again."""


class AtRest:
    """The null form: nothing is served."""

    def begin(self, volume: Volume) -> None:
        pass

    def end(self, volume: Volume) -> None:
        pass

    def resize(self, volume: Volume) -> None:
        pass


class Pool:
    """An open pool. Every method that changes it refuses with UsageError before anything has changed."""

    def __init__(self, directory: Path, document: Document, lock_fd: int = -1) -> None:
        self.directory, self.document, self.lock_fd = directory, document, lock_fd
        self.saved = fields_of(document)

    # Where things are

    def node_directory(self, node: StorageNode) -> Path:
        return Path(node.directory) if node.directory else self.directory / NODES / node.name

    def copy_directory(self, volume: Volume, copy: Copy) -> Path:
        return self.node_directory(self.document.node(copy.node)) / volume.name

    def voter_directory(self, volume: Volume, site: str) -> Path:
        return self.directory / VOTERS / site / volume.name

    def save(self) -> None:
        """The document is on the disk, or as it was saved last: nothing is ever done that only memory knows of."""
        try:
            save(self.directory, self.document)
        except BaseException:
            for one, values in self.saved:
                for name, value in values.items():
                    setattr(one, name, list(value) if isinstance(value, list) else value)
            raise
        self.saved = fields_of(self.document)

    def allocated(self) -> dict[tuple[str, str], int]:
        """What each copy's volume and snapshots take, as the file systems count it."""
        found = {}
        for volume in self.document.volumes:
            for copy in volume.copies:
                found[volume.name, copy.node] = allocated_in(self.copy_directory(volume, copy))
        return found

    def room(self) -> dict[str, Room]:
        return room_of(self.document, self.allocated())

    # Nodes

    def add_nodes(self, nodes: Sequence[StorageNode]) -> None:
        """More nodes, without copies yet. Their directories are made first: a node that stands in the document has one."""
        known = {one.name for one in self.document.nodes}
        for node in nodes:
            checked_node(node).is_leaving = False
            if node.name in known:
                raise UsageError(f"The pool {self.document.name} has a node {node.name} already: choose another name.")
            known.add(node.name)
        if len(known) > NODES_MAX:
            raise UsageError(f"A pool has at most {NODES_MAX} nodes.")
        self.check_apart(nodes)
        for node in nodes:
            self.check_free(node)
        made: list[StorageNode] = []
        try:
            for node in nodes:
                made.append(node)
                self.mark(node)
            self.document.nodes.extend(nodes)
            self.save()
        except BaseException:
            for node in made:
                self.unmark(node)
            raise

    def check_apart(self, nodes: Sequence[StorageNode]) -> None:
        """UsageError where a node's directory is another one's, or lies in it: two copies on one node would be lost together."""
        found = [(node.name, self.node_directory(node).resolve()) for node in (*self.document.nodes, *nodes)]
        for name, inner in found:
            for other, outer in found:
                if name != other and (inner == outer or outer in inner.parents):
                    raise UsageError(f"Nodes {other} and {name}: {inner} lies in {outer}: name a directory of its own for each.")
        own = self.directory.resolve()
        for node in nodes:
            inner = self.node_directory(node).resolve()
            if inner == own or inner in own.parents or (node.directory and own in inner.parents):
                raise UsageError(f"Node {node.name}: {inner} is where the pool itself is kept: name another directory.")

    def check_free(self, node: StorageNode) -> None:
        """UsageError where a node's directory is somebody's already."""
        directory = self.node_directory(node)
        try:
            holds = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
        except OSError as refusal:
            raise system_error(f"look at {directory}", refusal.errno or 0, "Name a directory for the node.") from refusal
        ours = holds == [MARK] and (directory / MARK).read_text().strip() == f"{self.document.pool:x}"
        if holds and not ours and MARK in holds:
            raise UsageError(f"{directory} belongs to a pool already: name another directory for node {node.name}.")
        if holds and not ours:
            raise UsageError(f"{directory} is not empty: name another directory for node {node.name}.")

    def mark(self, node: StorageNode) -> None:
        """Make a node's directory, and have it say whose it is."""
        directory = self.node_directory(node)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / MARK).write_text(f"{self.document.pool:x}\n")
            make_durable(directory, directory.parent)
        except OSError as refusal:
            raise system_error(f"make {directory}", refusal.errno or 0, "Name another directory for the node.") from refusal

    def unmark(self, node: StorageNode) -> None:
        """A directory is no node's any more, and gone when nothing else is in it."""
        directory = self.node_directory(node)
        with contextlib.suppress(OSError):
            (directory / MARK).unlink(missing_ok=True)
            directory.rmdir()

    def check_marked(self, node: StorageNode) -> None:
        """UnfitError where a node's directory is not there, as that of a disk that is not mounted."""
        directory = self.node_directory(node)
        try:
            is_ours = (directory / MARK).read_bytes().strip() == f"{self.document.pool:x}".encode()
        except (FileNotFoundError, NotADirectoryError):
            is_ours = False
        except OSError as refusal:
            raise system_error(f"read {directory / MARK}", refusal.errno or 0) from refusal
        if not is_ours:
            raise UnfitError(
                f"Node {node.name}: {directory} does not hold the mark of pool {self.document.name}: mount its disk there, or "
                "remove the node (farwrite pool remove)."
            )

    def remove_node(self, name: str) -> list[Move]:
        """Let a node go once it holds nothing: at once, or when the moves that are answered are done."""
        node = self.document.node(name)
        moves = plan_drain(self.document, name, self.allocated())
        node.is_leaving = True
        self.save()
        self.let_go()
        return moves

    def let_go(self) -> list[str]:
        """Nodes that were to leave and hold nothing any more are removed; their names."""
        gone = [node for node in self.document.nodes if node.is_leaving and not self.document.copies_on(node.name)]
        for node in gone:
            self.unmark(node)
            self.document.nodes.remove(node)
        if gone:
            self.save()
        return [node.name for node in gone]

    def keep_node(self, name: str) -> None:
        """A node that was to leave stays."""
        node = self.document.node(name)
        if not node.is_leaving:
            raise UsageError(f"Node {name} is not being removed.")
        node.is_leaving = False
        self.save()

    # Volumes

    def create_volume(
        self, name: str, size_bytes: int, level: str, is_reserved: bool, room_bytes: int, group: Group | AtRest,
        is_member: bool = False, on: Sequence[str] = (),
    ) -> Volume:  # fmt: skip
        """A new volume, which is there once this returns. `is_member`: of a striped one (striped.py). `on`: these nodes, which
        are fit for it; none: the pool chooses."""
        document = self.document
        if not is_member:
            checked_name(name, "volume")
        checked_level(level)
        checked_size(size_bytes)
        checked_size(max(room_bytes, size_bytes), "--grows-to")
        if document.stripe(name) is not None or any(one.name == name for one in document.volumes):
            raise UsageError(f"The pool {document.name} has a volume {name} already: choose another name.")
        if len(document.volumes) >= VOLUMES_MAX:
            raise UsageError(f"A pool has at most {VOLUMES_MAX} volumes.")
        made = Volume(
            name, new_number(), size_bytes, max(room_bytes, size_bytes), level, document.free_port(), is_reserved,
            area_bytes=AREA_BYTES,
        )  # fmt: skip
        document.give_door(made)
        for node in on or place(document, made, made.wanted, self.allocated()):
            made.copies.append(Copy(made.next_replica(node), node, document.free_port(made)))
        made.founders = [copy.replica for copy in made.copies]
        for copy in made.copies:
            self.check_marked(document.node(copy.node))
        document.volumes.append(made)
        self.save()
        try:
            self.make_files(made)
            made.state = "ready"
            self.save()
            group.begin(made)
        except Exception:
            group.end(made)
            with contextlib.suppress(FarwriteError):  # The next opening does it: the document says what is to go.
                self.undo(made)
            raise
        return made

    def undo(self, volume: Volume) -> None:
        """A volume that was not made is not there."""
        if volume.state != "making":
            volume.state = "deleting"
            self.save()
        self.finish_deleting(volume)

    def delete_volume(self, name: str, group: Group | AtRest) -> None:
        """Its clients are hung up on; its files are gone once this returns."""
        volume = self.document.volume(name)
        volume.state = "deleting"
        self.save()
        group.end(volume)
        self.finish_deleting(volume)

    def finish_deleting(self, volume: Volume) -> None:
        for copy in volume.copies:
            remove_tree(self.copy_directory(volume, copy))
        for site in SITES:
            remove_tree(self.voter_directory(volume, site))
        self.document.volumes.remove(volume)
        self.save()

    def resize_volume(self, name: str, size_bytes: int, group: Group | AtRest) -> Volume:
        """Another size; clients that connect from now on see it."""
        volume = self.document.volume(name)
        checked_size(size_bytes)
        if size_bytes > volume.room_bytes:
            raise UsageError(
                f"Volume {name} can grow to {format_size(volume.room_bytes)}, for which its files were made: make a larger "
                "one, and copy it (farwrite copy)."
            )
        if size_bytes < volume.size_bytes and isinstance(group, AtRest):
            raise UsageError(
                f"Whether volume {name} uses what lies behind {format_size(size_bytes)} is known while it is served: serve the "
                "pool, and shrink it then."
            )
        if volume.is_reserved and size_bytes > volume.size_bytes:
            room = self.room()
            for copy in volume.copies:
                if room[copy.node].free_bytes < size_bytes - volume.size_bytes:
                    raise UsageError(
                        f"Volume {name} is reserved, and node {copy.node} has {format_size(room[copy.node].free_bytes)} "
                        f"free, less than the {format_size(size_bytes - volume.size_bytes)} that are added: migrate that copy."
                    )
        before = volume.size_bytes
        volume.size_bytes = size_bytes
        if size_bytes > before:
            self.save()
            group.resize(volume)
            return volume
        try:
            group.resize(volume)  # It may be refused.
        except BaseException:
            volume.size_bytes = before
            raise
        try:
            self.save()
        except BaseException:
            group.resize(volume)
            raise
        return volume

    def set_level(self, name: str, level: str) -> Volume:
        """Another number of copies: `advance` makes or removes them while the pool is served."""
        checked_level(level)
        volume = self.idle_volume(name)
        missing = LEVELS[level] - len(volume.counting())
        before, volume.level = volume.level, level
        try:
            if missing > 0:
                place(self.document, volume, missing, self.allocated())
        except BaseException:
            volume.level = before
            raise
        self.save()
        return volume

    def set_lead(self, volume: Volume, replica: str) -> None:
        """This copy leads from now on, also when the pool is served the next time."""
        if volume.lead != replica:
            volume.lead = replica
            self.save()

    def move(self, name: str, to: str, replica: str = "") -> Copy:
        """Begin to move one copy of a volume to another node; answers the copy that is to be."""
        volume, node = self.idle_volume(name), self.document.node(to)
        if volume.copy_on(to) is not None:
            raise UsageError(f"Node {to} has a copy of volume {name} already: two on one node would be lost together.")
        if node.is_leaving:
            raise UsageError(f"Node {to} is being removed: choose another one.")
        source = volume.copy_named(replica) if replica else self.best_source(volume, node)
        if source is None:
            raise UsageError(f"Volume {name} has no copy {replica}.")
        others = {self.document.node(copy.node).site for copy in volume.copies if copy is not source} | {node.site}
        now = {self.document.node(copy.node).site for copy in volume.copies}
        if len(others) < len(now):
            raise UsageError(
                f"With its copy on {source.node} moved to {to}, volume {name} would have none at site "
                f"{', '.join(sorted(now - others))}: move another copy (--from), or choose a node of that site."
            )
        self.check_room(volume, [to], self.allocated().get((name, source.node), 0))
        return self.begin_copy(volume, to, source.replica)

    def check_room(self, volume: Volume, to: Sequence[str], allocated_bytes: int) -> None:
        """UsageError where one of these nodes has no room for a copy of which so much is written."""
        room, needed = self.room(), placement.taken_by(volume, allocated_bytes)
        for name in to:
            if (free := room[name].free_bytes) < needed:
                raise UsageError(f"Node {name} has {format_size(free)} free, and this copy needs {format_size(needed)}.")

    def best_source(self, volume: Volume, to: StorageNode) -> Copy:
        """The copy that goes when nobody says which: one of the same site, and of those the one on the fullest node."""
        room = self.room()

        def order(copy: Copy) -> tuple[bool, bool, float, str]:
            node = self.document.node(copy.node)
            return node.site != to.site, not node.is_leaving, -room[copy.node].promised_bytes / node.capacity_bytes, copy.node

        return min(volume.counting(), key=order)

    def begin_copy(self, volume: Volume, node: str, replaces: str = "") -> Copy:
        """A copy that is to join stands in the document; its files come next."""
        made = Copy(volume.next_replica(node), node, self.document.free_port(), "making", replaces)
        volume.copies.append(made)
        self.save()
        return made

    def cancel(self, name: str) -> Copy:
        """A copy that is on its way is given up; the volume stays as it was. UsageError once it counts."""
        volume = self.document.volume(name)
        for copy in volume.copies:
            if copy.state in ("making", "joining"):
                copy.state = "leaving" if copy.state == "joining" else "removing"
                copy.replaces = ""
                if len(volume.counting()) < volume.wanted:  # It was for a higher level.
                    volume.level = next(level for level, count in LEVELS.items() if count == len(volume.counting()))
                self.save()
                return copy
        raise UsageError(f"No copy of volume {name} is on its way any more: what was moved is there.")

    def idle_volume(self, name: str) -> Volume:
        """A volume of which no copy comes or goes. UsageError while one does."""
        volume = self.document.volume(name)
        busy = next((copy for copy in volume.copies if copy.state != "in"), None)
        if busy is not None:
            raise UsageError(
                f"Volume {name} is changing already: its copy on {busy.node} is {busy.state}. Wait (farwrite pool show), or "
                "cancel it with farwrite migrate --cancel."
            )
        return volume

    def plan_balance(self) -> list[Move]:
        return plan_balance(self.document, self.allocated())

    # Files

    def make_files(self, volume: Volume) -> None:
        """All files of a new volume."""
        for copy in volume.copies:
            self.make_copy(volume, copy)
        for site in SITES:
            self.make_ballot(self.voter_directory(volume, site))

    def make_copy(self, volume: Volume, copy: Copy) -> None:
        """The files of one copy, blank, where nothing is, or what was begun before."""
        self.check_marked(self.document.node(copy.node))
        directory = self.copy_directory(volume, copy)
        remove_tree(directory)
        with disk(directory, placement.JOURNAL_BYTES, volume.file_bytes, True, FILES_ADVICE, snapshots=True):
            pass
        self.make_ballot(directory)

    def make_ballot(self, directory: Path) -> None:
        """A voter that has promised nothing yet."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = ballot_in(directory)
        except OSError as refusal:
            raise system_error(f"make {directory}", refusal.errno or 0) from refusal
        try:
            format_ballot(descriptor)
        finally:
            os.close(descriptor)
        make_durable(directory, directory.parent, directory.parent.parent)

    # Opening

    def recover(self) -> list[str]:
        """Undo what was not done and finish what was decided, after everything was killed; sentences about it."""
        said = []
        for volume in tuple(self.document.volumes):
            if volume.state == "making":
                self.undo(volume)
                said.append(f"volume {volume.name} was not made whole, and is not there.")
            elif volume.state == "deleting":
                self.finish_deleting(volume)
                said.append(f"volume {volume.name} was being deleted, and is gone.")
            else:
                for copy in tuple(volume.copies):
                    if copy.state == "removing":
                        self.drop(volume, copy)
        said += self.recover_stripes()
        said += [f"node {name} holds nothing any more, and was let go." for name in self.let_go()]
        return said

    def recover_stripes(self) -> list[str]:
        """The same of striped volumes, once their members have recovered: members have the level that their volume says."""
        said = []
        for stripe in tuple(self.document.stripes):
            if stripe.state != "ready":
                was = "not made whole" if stripe.state == "making" else "being deleted"
                self.finish_deleting_stripe(stripe, AtRest())
                said.append(f"volume {stripe.name} was {was}, and is gone.")
                continue
            gone = self.settle_homes(stripe, AtRest())
            said += [f"volume {name} was where a group had been, or was to be, and is gone." for name in gone]
            wrong = [volume for volume in self.members_of(stripe) if volume.level != stripe.level]
            for volume in wrong:
                volume.level = stripe.level
            if wrong:
                self.save()
        return said

    def members_of(self, stripe: Stripe) -> list[Volume]:
        """Those of a striped volume's members that there are."""
        names = stripe.members()
        return [volume for volume in self.document.volumes if volume.name in names]

    def parts_of(self, stripe: Stripe) -> list[Volume]:
        """Its members, and what a group moves to or has moved from."""
        return [volume for volume in self.document.volumes if volume.part_of == stripe.name]

    def settle_homes(self, stripe: Stripe, group: Group | AtRest) -> list[str]:
        """Groups are where the router's record says, and from now on the document says it too; what is no group's home is gone.
        The names of those."""
        self.adopt_homes(stripe)
        gone = [volume.name for volume in self.parts_of(stripe) if volume.name not in stripe.members()]
        for name in gone:
            self.delete_volume(name, group)
        return gone

    def adopt_homes(self, stripe: Stripe) -> None:
        """The document says of each group where the router's record has it."""
        homes = record_of(self.record_of(stripe)).homes
        members = [homes.get(group, member) for group, member in enumerate(stripe.members())]
        known = {volume.name for volume in self.document.volumes}
        if missing := [name for name in members if name not in known]:
            raise UnfitError(f"{self.record_of(stripe)}: a group of {stripe.name} is in {missing[0][:80]}, and there is none.")
        if members != stripe.members():
            stripe.homes = members
            self.save()

    def record_of(self, stripe: Stripe) -> Path:
        """The file of what its router has decided (router_record.py)."""
        return self.directory / RECORDS / f"{stripe.name}.json"

    def finish_deleting_stripe(self, stripe: Stripe, group: Group | AtRest) -> None:
        """Its members are gone, and then it is."""
        stripe.state = "deleting"
        for volume in self.parts_of(stripe):
            self.delete_volume(volume.name, group)
        self.record_of(stripe).unlink(missing_ok=True)
        if stripe in self.document.stripes:  # What was never written down is not there any more.
            self.document.stripes.remove(stripe)
            self.save()

    def drop(self, volume: Volume, copy: Copy) -> None:
        """A copy that the group goes on without is gone."""
        remove_tree(self.copy_directory(volume, copy))
        volume.copies.remove(copy)
        self.save()


# While it is served


def advance(pool: Pool, group: Group, volume: Volume) -> str:
    """Do the next thing that a volume's copies need, and say what that is; empty: there is nothing to do.

    NotNowError: it is tried again. Each thing is done once more without harm if it is not known whether it was done.
    """
    for copy in volume.copies:
        if copy.state == "making":
            pool.make_copy(volume, copy)
            copy.state = "joining"
            pool.save()
            return f"the copy on {copy.node} is blank, and joins"
        if copy.state == "joining":
            return join(pool, group, volume, copy)
        if copy.state == "leaving":
            return leave(pool, group, volume, copy)
        if copy.state == "removing":
            group.stop(volume, copy)
            pool.drop(volume, copy)
            return f"the copy on {copy.node} is gone"
    return begin_wanted(pool, volume)


def join(pool: Pool, group: Group, volume: Volume, copy: Copy) -> str:
    """A copy on its way in: it runs, the group knows it, and once it is whole it counts, and the one it replaces leaves."""
    group.start(volume, copy)
    if not group.has(volume, copy):
        group.add(volume, copy)
        return f"the copy on {copy.node} is brought up to date"
    if not group.is_whole(volume, copy):
        return f"the copy on {copy.node} is being brought up to date"
    replaced = volume.copy_named(copy.replaces)
    if replaced is not None and volume.lead == replaced.replica:
        volume.lead = copy.replica
    copy.state, copy.replaces = "in", ""
    if replaced is not None:
        replaced.state = "leaving"
    pool.save()
    return f"the copy on {copy.node} is whole"


def leave(pool: Pool, group: Group, volume: Volume, copy: Copy) -> str:
    """A copy on its way out: another one leads, the group goes on without it."""
    if group.leader(volume) == copy.replica:
        group.hand_over(volume, successor_of(pool, volume, copy))
        return f"{copy.node} hands over"
    if group.has(volume, copy):
        group.remove(volume, copy)
        return f"the group lets the copy on {copy.node} go"
    copy.state = "removing"
    pool.save()
    return f"the group goes on without the copy on {copy.node}"


def successor_of(pool: Pool, volume: Volume, leaving: Copy) -> str:
    """Who leads then: of the copies that count one at the same site, the newest of those."""
    site = pool.document.node(leaving.node).site
    others = [copy for copy in volume.counting() if copy is not leaving]
    assert others, "the last copy never leaves"
    return max(others, key=lambda copy: (pool.document.node(copy.node).site == site, number_of(copy))).replica


def number_of(copy: Copy) -> int:
    return int(copy.replica.rpartition("-")[2])


def begin_wanted(pool: Pool, volume: Volume) -> str:
    """Begin what the document asks for and is not so: another number of copies, or none on a node that leaves."""
    document, counting = pool.document, volume.counting()
    if volume.state != "ready":
        return ""
    missing = volume.wanted - len(counting)
    if missing > 0:
        (node,) = place(document, volume, 1, pool.allocated())
        pool.begin_copy(volume, node)
        return f"a copy on {node} is begun"
    if missing < 0:
        copy = surplus_of(pool, volume)
        copy.state = "leaving"
        pool.save()
        return f"the copy on {copy.node} leaves"
    for copy in counting:
        if document.node(copy.node).is_leaving:
            (node,) = place(document, volume, 1, pool.allocated(), avoid=[copy.node])
            pool.begin_copy(volume, node, copy.replica)
            return f"the copy on {copy.node} moves to {node}"
    return ""


def surplus_of(pool: Pool, volume: Volume) -> Copy:
    """The copy that a lower level does without: no site loses its only one if that can be, and the fullest node gives first."""
    nodes, room = {node.name: node for node in pool.document.nodes}, pool.room()
    sites = [nodes[copy.node].site for copy in volume.counting()]

    def order(copy: Copy) -> tuple[bool, int, bool, float, str]:
        node = nodes[copy.node]
        share = room[copy.node].promised_bytes / node.capacity_bytes
        return node.is_leaving, sites.count(node.site), number_of(copy) > 1, share, copy.node

    return max(volume.counting(), key=order)


# Opening and making


@contextmanager
def opened(directory: Path) -> Iterator[Pool]:
    """The pool in a directory, for us alone inside this block. ServedError when somebody has it."""
    load(directory)  # Refused before a lock is made in a directory that holds no pool.
    with locked(directory) as lock_fd:
        pool = Pool(directory, load(directory), lock_fd)
        for volume in pool.document.volumes:
            pool.document.give_door(volume)
        pool.recover()
        yield pool


def create(directory: Path, name: str, nodes: Sequence[StorageNode]) -> Pool:
    """A new pool with these nodes. UsageError where one is."""
    check_new(directory)
    pool = Pool(directory, new_document(checked_name(name, "pool")))
    was_there = directory.exists()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as refusal:
        raise system_error(f"make {directory}", refusal.errno or 0, "Name another directory.") from refusal
    with locked(directory):
        check_new(directory)  # Somebody may have been faster.
        try:
            pool.add_nodes(nodes)
        except BaseException:
            if not was_there:
                remove_tree(directory)
            raise
    return pool


def check_new(directory: Path) -> None:
    """UsageError where a pool is."""
    if (directory / POOL).exists():
        raise UsageError(f"{directory} holds a pool already: add nodes to it with farwrite pool add, or name another directory.")


def fields_of(document: Document) -> list[tuple[msgspec.Struct, dict[str, Any]]]:
    """Everything in a document and what it says now, so that it can be put back as it is."""
    parts: list[msgspec.Struct] = [document, *document.nodes, *document.stripes]
    for volume in document.volumes:
        parts += [volume, *volume.copies]
    found = []
    for part in parts:
        values = {name: getattr(part, name) for name in part.__struct_fields__}
        found.append((part, {name: list(value) if isinstance(value, list) else value for name, value in values.items()}))
    return found


class ServedError(UnfitError):
    """Another process has the pool: who serves it is to be asked."""


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Nobody else changes or serves the pool inside this block; the descriptor that holds the lock, for processes that outlive
    us by a moment."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as refusal:
        raise system_error(f"open the pool in {directory}", refusal.errno or 0, "Name the directory of a pool.") from refusal
    try:
        if not lock_within(descriptor, LOCK_S):
            raise ServedError(f"The pool in {directory} is open already, by another farwrite pool serve: end that first.")
        yield descriptor
    finally:
        os.close(descriptor)


def is_open(directory: Path) -> bool:
    """Whether another process has the pool open."""
    return is_locked(directory / LOCK)


def remove_tree(directory: Path) -> None:
    """A directory and what is in it are gone, durably. What is not there is gone already."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as refusal:
        raise system_error(f"remove {directory}", refusal.errno or 0) from refusal
    make_durable(directory.parent)


def allocated_in(directory: Path) -> int:
    """Bytes that a copy's volume and what it keeps for snapshots take, as the file system counts them."""
    return allocated_by(directory / VOLUME) + allocated_by(directory / SNAPSHOTS)


def allocated_by(path: Path) -> int:
    """Bytes that a file takes; of one that is not there none."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
