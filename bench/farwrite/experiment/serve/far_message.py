"""What `farwrite serve` and a voter on another machine say to each other: MessagePack frames with their length before them.

They go through ssh's streams to a socket there. Every request is a type of its own and gets one answer; between answers a
status comes by itself. Only light modules are needed: the process that ssh starts passes bytes on and no more.
"""

from __future__ import annotations

import msgspec

from ... import __version__
from ...base import framing

FRAME_BYTES_MAX = 4 << 20
STATUS_S = 0.2  # Between two of them.
EVENTS_MAX = 50  # That wait for somebody who reads them; of more the oldest go.
SOCKET = "supervisor.sock"  # Beside the doors' sockets, which only their owner reaches.


class Struct(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """What frames are made of."""


class Attach(Struct, frozen=True):
    """The first frame: which voter of which volume is meant."""

    farwrite: str
    name: str  # far, or third for the witness
    directory: str
    sockets: str  # directory of its doors; empty: `sockets` in the other one
    settings: bytes  # of the volume, as volume.json has them
    is_new: bool
    ports: tuple[int, int] = (0, 0)  # where it listened before; 0: any


class Place(Struct, frozen=True):
    """Where a voter is reached from somewhere."""

    host: str
    port: int
    vote_port: int


class Config(Struct, frozen=True):
    """What a voter is started with. One that runs with the same goes on."""

    key: bytes  # of the volume: in memory only, and on its way only in ssh
    replicas: dict[str, Place]  # as this voter reaches them; its own is where it listens
    witness: Place | None
    is_forwarded: bool  # it reaches near through ssh
    address: str = ""  # where its TCP ports are, while it leads; empty: nowhere
    port: int | None = None
    tls: str = ""
    iscsi_port: int | None = None
    chap: dict[str, bytes] = {}
    chap_name: str = ""
    chap_secret: bytes = b""
    is_verbose: bool = False


class Ready(Struct, frozen=True):
    """The answer to Attach."""

    farwrite: str
    pid: int
    address: str  # of that machine, on which the voter listens
    port: int
    vote_port: int
    spare_ports: tuple[int, int, int]  # free ones of its loopback, should near be reached through ssh
    directory: str
    sockets: str
    not_durable: str
    config: Config | None  # it runs already, with this


class Serve(Struct, frozen=True):
    """Be the voter."""

    config: Config


class Dial(Struct, frozen=True):
    """Say whether this address can be reached from there; a token is said and a byte waited for, if there is one."""

    host: str
    port: int
    token: bytes


class Ping(Struct, frozen=True):
    """Answer at once."""


class Drain(Struct, frozen=True):
    """Take no more clients and answer what was taken; the status tells when that is done."""


class Stop(Struct, frozen=True):
    """Apply what is held, and end. Answered when it is done."""

    is_undone: bool = False  # nothing came of the volume: the files that were made for it go


class Answer(Struct, frozen=True):
    """What a request gave: words, empty where nothing is wrong."""

    text: str = ""


class Status(Struct, frozen=True):
    """How it stands."""

    words: bytes  # of its board, int64, compressed by zlib: most of it are counts that are 0
    runs: bool
    events: list[str]
    tcp_uri: str
    iscsi_uri: str


class Refusal(Struct, frozen=True):
    """Why it could not be."""

    sentence: str
    exit_code: int


Request = Serve | Dial | Ping | Drain | Stop
Reply = Ready | Answer | Status | Refusal

ATTACH, REQUEST, REPLY = (msgspec.msgpack.Decoder(kind) for kind in (Attach, Request, Reply))


def frame_of(message: msgspec.Struct) -> bytes:
    """One message as it is sent."""
    return framing.frame(msgspec.msgpack.encode(message), "big")


def frames() -> framing.Frames:
    """What cuts the bytes of one end into messages."""
    return framing.Frames(FRAME_BYTES_MAX, "big")


def another_version(there: str) -> str:
    """Why two versions do not serve one volume; empty where they are the same."""
    if there == __version__:
        return ""
    return f"farwrite there is {__version__}, here {there}: install the same version at both ends."
