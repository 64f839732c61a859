"""What a run and its far site on another machine say to each other: MessagePack frames with their length before them.

Every call is a type of its own with typed fields: whatever stands at the other end can ask for nothing else. Both must be
the same version of farwrite, because they draw the same plan.
"""

from __future__ import annotations

from typing import IO, Any, Literal

import msgspec

from ...base import framing
from ...base.errors import UnfitError
from ...base.wire.terms import CompressionName, EncryptionName, SharedKey, Terms
from ...targets.observed import Audited, SecondaryObserved
from ...targets.replicated import Order

FRAME_BYTES_MAX = 64 << 20
NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # What decoding other people's bytes can raise.


class Struct(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What frames are made of."""


class Stand(Struct, frozen=True):
    """The first frame: the site that is wanted."""

    farwrite: str
    directory: str
    journal_bytes: int
    volume_bytes: int
    durability: Literal["disk", "memory"]


class FarSiteReady(Struct, frozen=True):
    """The answer to it: what stands there."""

    farwrite: str
    address: str  # of that machine, on which it waits for the near site
    port: int
    directory: str
    file_system: str
    durability: Literal["disk", "memory"]
    direct: bool
    not_durable: str
    host: dict[str, Any]


class Accept(Struct, frozen=True):
    """Take the connection whose first bytes are this token."""

    token: bytes
    name: str
    congestion: str
    encryption: EncryptionName
    compression: CompressionName
    key: bytes  # of the run, by which both ends prove who they are; empty for the probe

    @property
    def terms(self) -> Terms:
        """What the far end of this connection demands."""
        return Terms(self.encryption, self.compression, SharedKey(self.key) if self.key else None)


class Echo(Struct, frozen=True):
    """Answer so many echoes, each after a flush if asked."""

    request_bytes: int
    answer_bytes: int
    count: int
    flushed: bool
    held: str


class Flush(Struct, frozen=True):
    """Time bare appends and flushes."""

    size_bytes: int
    count: int


class Copy(Struct, frozen=True):
    """Be the secondary of a round."""

    order: Order


class Audit(Struct, frozen=True):
    """Hold the files against the plan."""

    order: Order
    completed: int
    issued: bytes  # int64: whose write is where in the log, where several jobs decide that; otherwise empty


class HangUp(Struct, frozen=True):
    """Close a held connection."""

    name: str


class Kill(Struct, frozen=True):
    """Kill the site's process, as a crash would; answered by nothing."""


class Restart(Struct, frozen=True):
    """Start it again; answered when it stands."""


class Answer(Struct, frozen=True):
    """What a call gave."""

    value: Any = None


class Refusal(Struct, frozen=True):
    """Why it could not be."""

    sentence: str
    exit_code: int
    lost: bool = False  # the site's process has ended


Call = Accept | Echo | Flush | Copy | Audit | HangUp | Kill | Restart
Reply = Answer | SecondaryObserved | Audited | Refusal


def send(stream: IO[bytes], message: msgspec.Struct) -> None:
    """One frame."""
    framing.send(stream, framing.frame(msgspec.msgpack.encode(message), "big"))


class Inbox:
    """The frames that the other end of ssh sends."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.reader = framing.Reader(stream, framing.Frames(FRAME_BYTES_MAX, "big"))

    def poll(self, timeout_s: float | None = None) -> bool:
        """Whether a frame is there, or the end, within the timeout. UnfitError for what is no frame."""
        try:
            return self.reader.poll(timeout_s)
        except framing.TooLongError as refusal:
            raise UnfitError(
                "The other end of ssh answered with no message of farwrite. Does its shell print something when it starts?"
            ) from refusal

    def frame(self) -> bytes | None:
        """The next frame's bytes; None at the end of the stream."""
        self.poll()
        return self.reader.take()
