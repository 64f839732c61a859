"""The relay: a delay line in user space between TCP connections on loopback, for places with no privileges at all.

Every connection between two sites is made of two: from the one who dials to the relay, and from the relay to the one who listens.
The process that carries them (relay_process.py) opens and closes them and moves their bytes. A stream is all it sees:
delay, jitter, rate and cut it emulates; loss, reordering, duplicates and damage it refuses, because TCP would hide them from it.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..base.errors import UnfitError
from ..base.histogram import SLOTS
from ..workload.jitter import TABLE_ENTRIES, deviations
from ..workload.link_spec import PLAIN, LinkDirection, LinkSpec
from . import relay_kernel as carrying
from .process import carrying_link, process
from .relay_door import Doors
from .relay_process import carry, pipe, wake
from .shared_memory import board
from .site import Site

STREAM_ONLY = (
    "the relay carries streams of bytes, in which this cannot be seen. It needs packets: netem or the ferry, so root or user "
    'namespaces, and "--link netem" or "--link ferry"'
)


class Relay:
    """The carrying link: per direction (0 near to far, 1 far to near) a delay, and a way."""

    kind = "relay"
    carriers: tuple[int, ...] | None = ()

    def __init__(self, words: np.ndarray, jitter_ns: np.ndarray, wake_fd: int) -> None:
        self.board = words
        self.jitter_ns = jitter_ns
        self.wake_fd = wake_fd
        self.delay_ns = (0, 0)
        self.directions = (LinkDirection(), LinkDirection())

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Hold segments this long from now on; those under way keep their time."""
        self.delay_ns = outward_ns, homeward_ns
        for direction, (way, delay_ns) in enumerate(zip(self.directions, self.delay_ns, strict=True)):
            self.board[carrying.DELAY_NS + direction] = max(delay_ns, 0) + way.extra_delay_ns

    def set_directions(self, outward: LinkDirection, homeward: LinkDirection) -> None:
        """Do with segments what is asked besides the delay from now on. UnfitError for what a stream cannot show."""
        check_direction("outward", outward)
        check_direction("homeward", homeward)
        self.directions = outward, homeward
        for direction, way in enumerate(self.directions):
            if way.has_jitter:
                self.jitter_ns[direction] = table_of(way)
            self.board[carrying.JITTERED + direction] = way.has_jitter
            self.board[carrying.RATE + direction] = way.rate_bits_per_s or 0
        self.set_delay_ns(*self.delay_ns)
        self.wake()

    def cut(self, outward: bool = True, homeward: bool = True) -> None:
        """Carry nothing more in these directions until heal(); what is under way arrives, what is sent waits with its sender."""
        self.board[carrying.CUT : carrying.CUT + 2] |= np.array([outward, homeward], np.int64)

    def heal(self) -> None:
        """Carry bytes again."""
        self.board[carrying.CUT : carrying.CUT + 2] = 0
        self.wake()

    def wake(self) -> None:
        """Have the loop look at the board now."""
        wake(self.wake_fd)

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together; packets are segments, and a cut drops none."""
        pairs = {"packets": carrying.SEGMENTS, "bytes": carrying.BYTES, "drops": carrying.DROPS, "full": carrying.FULL}
        counted = {name: int(self.board[word] + self.board[word + 1]) for name, word in pairs.items()}
        return counted | {"cut_drops": 0}

    def late_ns_max(self) -> int:
        """How late the latest segment left since this was last asked."""
        late_ns = int(self.board[carrying.LATE_NS_MAX : carrying.LATE_NS_MAX + 2].max())
        self.board[carrying.LATE_NS_MAX : carrying.LATE_NS_MAX + 2] = 0
        return late_ns

    def late_counts(self) -> np.ndarray:
        """(2, SLOTS): how late every segment left since the link was made, by direction, as a histogram counts."""
        return self.board[carrying.LATE :].reshape(2, SLOTS).copy()

    def facts(self) -> dict[str, str]:
        """How the bytes are carried, for who reads the report."""
        return {"level": "stream", "held at most": f"{carrying.RING_BYTES >> 20} MiB per connection and direction"}


@functools.lru_cache(maxsize=8)
def table_of(way: LinkDirection) -> np.ndarray:
    """The deviations of a way's jitter in whole ns. Made once: a survey takes the jitter away and brings it back."""
    return np.rint(deviations(way)).astype(np.int64)


def check_stream(spec: LinkSpec) -> None:
    """UnfitError for what is asked of a link and a stream of bytes cannot show."""
    check_direction("outward", spec.outward)
    check_direction("homeward", spec.homeward)
    if spec.mtu_bytes is not None:
        raise UnfitError(f"link.mtu: {STREAM_ONLY}.")
    if any(change.loss_ratio for change in spec.schedule):
        raise UnfitError(f"link.schedule, loss: {STREAM_ONLY}.")


def check_direction(name: str, way: LinkDirection) -> None:
    """The same for one direction."""
    packets_only = {
        "loss": way.loss_ratio, "bursts": way.bursts, "reorder": way.reorder_ratio, "duplicate": way.duplicate_ratio,
        "corrupt": way.corrupt_ratio, "queue_packets": way.queue_packets,
    }  # fmt: skip
    for key, asked in packets_only.items():
        if asked:
            raise UnfitError(f"link.{name}.{key}: {STREAM_ONLY}.")


@contextmanager
def relay(near: Site, far: Site, spec: LinkSpec = PLAIN) -> Iterator[Relay]:
    """Join two sites on loopback by a process that carries their connections' bytes. UnfitError for what these cannot show."""
    check_stream(spec)
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(board(carrying.BOARD_WORDS))
        jitter = stack.enter_context(board(2 * TABLE_ENTRIES))
        wake_read, wake_write = pipe(stack)
        asking, answering = (stack.enter_context(end) for end in socket.socketpair(type=socket.SOCK_DGRAM))
        carrier = stack.enter_context(process("relay"))
        carrier.start(carry, wake_read, wake_write, answering.fileno(), asking.fileno(), shared, jitter)
        answering.close()
        if carrier.poll(0.05):
            carrier.answer()
            raise UnfitError("The relay process ended as soon as it was started.")
        far.doors[near.index] = Doors(asking)
        shared.words[carrying.SEED] = spec.seed
        made = Relay(shared.words, jitter.words.reshape(2, TABLE_ENTRIES), wake_write)
        made.carriers = (carrier.pid,)
        stack.enter_context(carrying_link(carrier))
        yield made
