"""What a pool is: its nodes, its volumes and where each copy lies, in one document that is replaced whole.

    DIR/pool.json               this document
    DIR/lock                    held by who changes or serves the pool
    DIR/nodes/NODE/VOLUME/      a copy: journal, volume, snapshots, ballot (a node's directory may lie elsewhere)
    DIR/voters/SITE/VOLUME/     a voter's ballot

The document is also the journal of whatever is under way: it is written before a copy's files are made and after they are gone,
and the states of volumes and copies say how far a change has come. Opening a pool after everything was killed finishes or undoes
it (steps.py).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from ...base.errors import UsageError, nearest, system_error
from ...base.files import write_atomically
from ...base.user_file import read_text
from ...engine.frontend.iscsi.store import AREA_BYTES
from ...engine.frontend.router_map import CHUNK_BYTES_MIN, CHUNKS_MAX, GROUPS_MAX
from ...workload.drill_scenario import SITES
from ..serve.volume_files import SIZE_BYTES_MAX, SIZE_BYTES_MIN, make_durable

POOL, NODES, VOTERS = "pool.json", "nodes", "voters"
FORMAT = 1
LEVELS = {"0": 1, "10": 2, "10+1": 3, "10+2": 4}  # Network RAID level: copies of a volume.
NAME_CHARACTERS_MAX = 16
NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")  # Of nodes and volumes: they are parts of the paths of sockets, which are short.
MEMBER = re.compile(r"[a-z][a-z0-9_]{0,15}\.[0-9]{1,2}")  # Of a striped volume's members: NAME.0, NAME.1, ...
NODES_MAX, VOLUMES_MAX = 64, 256
DOCUMENT_BYTES_MAX = 8 << 20
COPIES_MAX = 5  # Replicas that an engine has: four of the highest level, and one that joins.
NUMBER_DIGITS_MAX = 9  # Of a replica's name.
BLOCK_BYTES = 4096
CAPACITY_BYTES_MAX = 1 << 50
PATH_CHARACTERS_MAX = 4000
PORT_MIN, PORT_MAX = 7000, 32768  # Below those that systems give to whoever dials. ip(7), ip_local_port_range.

VolumeState = Literal["making", "ready", "deleting"]
CopyState = Literal["making", "joining", "in", "leaving", "removing"]


class StorageNode(msgspec.Struct, forbid_unknown_fields=True):
    """A place for copies: a directory at a site."""

    name: str
    site: str
    capacity_bytes: int  # of its disk that the pool may use
    directory: str = ""  # empty: nodes/NAME in the pool's own
    is_leaving: bool = False  # its copies move away, and then it goes


class Copy(msgspec.Struct, forbid_unknown_fields=True):
    """One copy of a volume."""

    replica: str  # its name in the volume's group, never used again for another one
    node: str
    port: int  # of its replica at its site, and the next one for votes: the same whenever the pool is served
    state: CopyState = "in"
    # making: its files may be half there, and no replica has run on them: they are removed at the next opening
    # joining: it is brought up to date; nothing depends on it yet
    # in: it counts
    # leaving: the group is to go on without it; it still runs
    # removing: the group goes on without it; its files are being removed
    replaces: str = ""  # of one that is joining: the replica that leaves once it is in


class Volume(msgspec.Struct, forbid_unknown_fields=True):
    """A volume of the pool: one replica group."""

    name: str
    number: int
    size_bytes: int  # what clients see
    room_bytes: int  # what it may grow to
    level: str
    port: int  # of its voter at each site
    is_reserved: bool = False  # its whole size is set aside on each of its nodes
    state: VolumeState = "making"
    copies: list[Copy] = msgspec.field(default_factory=list)
    replicas_made: int = 0  # so far, by which the next one is named
    founders: list[str] = msgspec.field(default_factory=list)  # the replicas that it was made with: nobody had to hear of them
    area_bytes: int = 0  # behind room_bytes, where iSCSI's reservations are kept; 0: a volume from before there was one
    door: int = -1  # its place in the order of TCP ports, as long as it is there; -1: none yet
    lead: str = ""  # the replica that is to lead when it is served; empty: the one at the first site

    @property
    def part_of(self) -> str:
        """The striped volume that it is a part of: clients do not come to it, its router does. Empty: it is none."""
        return part_of(self.name)

    @property
    def wanted(self) -> int:
        """How many copies its level says."""
        return LEVELS[self.level]

    @property
    def file_bytes(self) -> int:
        """The address space that its files were made with."""
        return self.room_bytes + self.area_bytes

    @property
    def full_bytes(self) -> int:
        """What it takes when all of it is written."""
        return self.size_bytes + self.area_bytes

    def counting(self) -> list[Copy]:
        """The copies that count: a reader finds every acknowledged write in each of them that is up to date."""
        return [copy for copy in self.copies if copy.state == "in"]

    def copy_named(self, replica: str) -> Copy | None:
        return next((copy for copy in self.copies if copy.replica == replica), None)

    def copy_on(self, node: str) -> Copy | None:
        return next((copy for copy in self.copies if copy.node == node), None)

    def next_replica(self, node: str) -> str:
        """The name of its next replica, there."""
        self.replicas_made += 1
        return f"{node}-{self.replicas_made}"


class Stripe(msgspec.Struct, forbid_unknown_fields=True):
    """A volume whose chunks are dealt out to several member volumes in turn: chunk i lies in member i % groups."""

    name: str
    number: int
    size_bytes: int  # what clients see
    level: str
    groups: int
    chunk_bytes: int
    map_version: int = 1  # of the map of chunks: counts its changes
    state: VolumeState = "making"
    homes: list[str] = msgspec.field(default_factory=list)  # the member volume of each group; empty: NAME.0, NAME.1, ...

    def members(self) -> list[str]:
        """The names of its member volumes, in the order of its groups."""
        return self.homes or [f"{self.name}.{group}" for group in range(self.groups)]


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """The whole pool."""

    pool: int  # its number, which its nodes' directories are marked with
    name: str
    format: int = FORMAT
    generation: int = 0  # how often it was written
    nodes: list[StorageNode] = msgspec.field(default_factory=list)
    volumes: list[Volume] = msgspec.field(default_factory=list)
    stripes: list[Stripe] = msgspec.field(default_factory=list)

    def stripe(self, name: str) -> Stripe | None:
        """The striped volume of this name."""
        return next((one for one in self.stripes if one.name == name), None)

    def node(self, name: str) -> StorageNode:
        """The node of this name; UsageError where there is none."""
        for one in self.nodes:
            if one.name == name:
                return one
        raise UsageError(f'The pool {self.name} has no node "{name[:80]}"{nearest(name, [one.name for one in self.nodes])}.')

    def volume(self, name: str) -> Volume:
        """The volume of this name; UsageError where there is none."""
        for one in self.volumes:
            if one.name == name:
                return one
        known = [one.name for one in self.volumes]
        raise UsageError(f'The pool {self.name} has no volume "{name[:80]}"{nearest(name, known)}.')

    def free_port(self, *others: Volume) -> int:
        """Two ports that no replica or voter of the pool has."""
        volumes = [*self.volumes, *others]
        used = {volume.port for volume in volumes} | {copy.port for volume in volumes for copy in volume.copies}
        return next(port for port in range(PORT_MIN, PORT_MAX, 2) if port not in used)

    def give_door(self, volume: Volume) -> None:
        """A place in the order of ports that no other volume has, unless it has one."""
        taken = {one.door for one in self.volumes if one is not volume}
        if volume.door < 0:
            volume.door = next(place for place in range(VOLUMES_MAX + 1) if place not in taken)

    def sites(self) -> list[str]:
        """The sites that have nodes which stay, in their order."""
        return [site for site in SITES if any(one.site == site and not one.is_leaving for one in self.nodes)]

    def copies_on(self, node: str) -> list[tuple[Volume, Copy]]:
        """What lies on a node."""
        return [(volume, copy) for volume in self.volumes for copy in volume.copies if copy.node == node]


def part_of(name: str) -> str:
    """The striped volume whose member has this name; empty where it is no member's."""
    return name.rpartition(".")[0] if MEMBER.fullmatch(name) else ""


def checked_name(name: str, what: str) -> str:
    """A name that a node or a volume can have. UsageError for any other."""
    if not NAME.fullmatch(name):
        raise UsageError(f'"{name[:80]}" is no name for a {what}: 1 to 16 small letters, digits and "_", a letter first.')
    return name


def checked_size(size_bytes: int, what: str = "--size") -> int:
    """A size that a volume can have. UsageError for any other."""
    if not SIZE_BYTES_MIN <= size_bytes <= SIZE_BYTES_MAX or size_bytes % BLOCK_BYTES:
        raise UsageError(f"{what}: {size_bytes} bytes are none that a volume has: 1 MiB to 16 TiB, a multiple of 4096.")
    return size_bytes


def checked_node(node: StorageNode) -> StorageNode:
    """A node that a pool can have. UsageError for any other."""
    checked_name(node.name, "node")
    if node.site not in SITES:
        raise UsageError(f'Node {node.name}: there is no site "{node.site[:80]}"; sites are {", ".join(SITES)}.')
    if not 1 << 20 <= node.capacity_bytes <= CAPACITY_BYTES_MAX:
        raise UsageError(f"Node {node.name}: a node has 1 MiB to 1024 TiB.")
    path = node.directory
    if len(path) > PATH_CHARACTERS_MAX or "\0" in path or (path and not path.startswith("/")):
        raise UsageError(f"Node {node.name}: name its directory by a whole path of up to {PATH_CHARACTERS_MAX} characters.")
    checked_text(path, f"Node {node.name}: its directory")
    return node


def checked_text(words: str, what: str) -> str:
    """Words that a document can have. UsageError for bytes that are no text, as they come in arguments."""
    try:
        words.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} {words!r} has bytes that are no UTF-8: choose another name.") from None
    return words


def checked_level(level: str) -> None:
    """UsageError for a level that there is not."""
    if level not in LEVELS:
        raise UsageError(f'--level "{level[:20]}": 0, 10, 10+1 or 10+2, which are one to four copies, each on a node of its own.')


def new_document(name: str) -> Document:
    """A pool without nodes."""
    return Document(pool=secrets.randbits(62) | 1, name=name)


# In the directory


def save(directory: Path, document: Document) -> None:
    """Durable, and whole whatever happens meanwhile. The generation grows."""
    document.generation += 1
    complain_about(document, wrong_with(document))
    try:  # Whatever was refused: the one on the disk is a pool too, the one before or this one.
        write_atomically(directory / POOL, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        make_durable(directory)
    except OSError as refusal:
        raise system_error(f"write {directory / POOL}", refusal.errno or 0, "Free some room; nothing was changed.") from refusal


def load(directory: Path) -> Document:
    """The pool in a directory. UsageError where there is none, or none that this version can open."""
    path = directory / POOL
    if not path.exists():
        raise UsageError(f"{directory} holds no pool: make one with farwrite pool create {directory} --node a@near=20g.")
    text = read_text(path, "read the pool in", DOCUMENT_BYTES_MAX)
    try:
        found = msgspec.json.decode(text, type=Document)
    except (msgspec.MsgspecError, RecursionError) as refusal:
        raise UsageError(f"{path}: this is not what farwrite pool writes: {refusal}.") from refusal
    if found.format != FORMAT:
        raise UsageError(f"{path}: it is of format {found.format}, and this version reads {FORMAT}: use the one that wrote it.")
    if wrong := wrong_with(found):
        raise UsageError(f"{path}: this is not what farwrite pool writes: {wrong}.")
    return found


def complain_about(document: Document, wrong: str) -> None:
    assert not wrong, f"the document of pool {document.name}: {wrong}"


def wrong_with(document: Document) -> str:
    """What no pool can be; empty when it is one."""
    nodes = {one.name: one for one in document.nodes}
    if not 0 < document.pool < 1 << 63 or len(nodes) > NODES_MAX or len(document.volumes) > VOLUMES_MAX:
        return "a number in it is out of range"
    if not 0 <= document.generation < 1 << 62 or not NAME.fullmatch(document.name):
        return "its name or its generation is none"
    if twice := repeated(one.name for one in document.nodes) or repeated(one.name for one in document.volumes):
        return f"{twice} is there twice"
    named = [(one.name, one.number) for one in document.volumes] + [(one.name, one.number) for one in document.stripes]
    if twice := repeated(name for name, _ in named):
        return f"volume {twice} is there twice"
    if twice := repeated(str(number) for _, number in named):
        return f"volume number {twice} is there twice"
    if twice := repeated(str(one.door) for one in document.volumes if one.door >= 0):
        return f"door {twice} is there twice"
    if twice := repeated(os.path.normpath(one.directory) for one in document.nodes if one.directory):
        return f"directory {twice!r} is two nodes'"
    ports = [str(volume.port) for volume in document.volumes]
    if twice := repeated([*ports, *(str(copy.port) for volume in document.volumes for copy in volume.copies)]):
        return f"port {twice} is there twice"
    for node in document.nodes:
        if not NAME.fullmatch(node.name) or node.site not in SITES or not 0 < node.capacity_bytes <= CAPACITY_BYTES_MAX:
            return f"node {node.name[:80]!r} is none"
        if node.directory and (not node.directory.startswith("/") or "\0" in node.directory):
            return f"the directory of node {node.name} is no whole path"
    for volume in document.volumes:
        if wrong := wrong_with_volume(volume, nodes):
            return f"volume {volume.name[:80]!r}: {wrong}"
    known = {volume.name for volume in document.volumes}
    for stripe in document.stripes:
        if wrong := wrong_with_stripe(stripe, known):
            return f"volume {stripe.name[:80]!r}: {wrong}"
    return ""


def wrong_with_stripe(stripe: Stripe, known: set[str]) -> str:
    """What no striped volume can be; empty when it is one."""
    if not NAME.fullmatch(stripe.name) or stripe.level not in LEVELS or not 0 < stripe.number < 1 << 63:
        return "its name, level or number is none"
    if not SIZE_BYTES_MIN <= stripe.size_bytes <= SIZE_BYTES_MAX or stripe.size_bytes % BLOCK_BYTES:
        return "its size is none"
    chunk = stripe.chunk_bytes
    if not 1 <= stripe.groups <= GROUPS_MAX or not CHUNK_BYTES_MIN <= chunk <= SIZE_BYTES_MAX or chunk & (chunk - 1):
        return "its groups or chunks are none"
    if -(-stripe.size_bytes // chunk) > CHUNKS_MAX or stripe.map_version < 1:
        return "its map is none"
    members = stripe.members()
    if len(members) != stripe.groups or repeated(members) or not all(part_of(one) == stripe.name for one in members):
        return "its members are none"
    if stripe.state == "ready" and (missing := [name for name in stripe.members() if name not in known]):
        return f"there is no {missing[0]}"
    return ""


def wrong_with_volume(volume: Volume, nodes: dict[str, StorageNode]) -> str:
    """What no volume of these nodes can be; empty when it is one."""
    sizes = (volume.size_bytes, volume.room_bytes)
    is_named = NAME.fullmatch(volume.name) or MEMBER.fullmatch(volume.name)
    if not is_named or volume.level not in LEVELS or not 0 < volume.number < 1 << 63:
        return "its name, level or number is none"
    if not all(SIZE_BYTES_MIN <= size <= SIZE_BYTES_MAX and size % BLOCK_BYTES == 0 for size in sizes) or sizes[0] > sizes[1]:
        return "its size is none"
    if volume.area_bytes not in (0, AREA_BYTES) or not -1 <= volume.door <= VOLUMES_MAX:
        return "its area or its door is none"
    if len(volume.copies) > COPIES_MAX or not 0 <= volume.replicas_made < 10**NUMBER_DIGITS_MAX:
        return f"it has more than {COPIES_MAX} copies, or has had too many"
    if not all(PORT_MIN <= port < PORT_MAX and port % 2 == 0 for port in (volume.port, *(copy.port for copy in volume.copies))):
        return "a port in it is none"
    if twice := repeated(copy.node for copy in volume.copies):
        return f"two copies on node {twice}"
    if twice := repeated(copy.replica for copy in volume.copies):
        return f"two replicas {twice}"
    if strangers := [copy.node for copy in volume.copies if copy.node not in nodes]:
        return f"a copy on {strangers[0]}, which is no node"
    for copy in volume.copies:
        node, _, number = copy.replica.rpartition("-")
        is_number = number.isascii() and number.isdigit() and len(number) <= NUMBER_DIGITS_MAX
        if node != copy.node or not is_number or not 1 <= int(number) <= volume.replicas_made:
            return f"{copy.replica[:80]!r} is no replica on {copy.node}"
    if volume.state == "ready" and not volume.counting():
        return "no copy counts"
    return ""


def repeated(names: Iterable[str]) -> str:
    """One that is there twice; empty when none is."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
