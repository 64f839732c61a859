"""The ferry: a delay line in user space between two TUN devices, for kernels without netem.

Owns the two devices' descriptors and the process that carries the packets. Delay, cut and everything else that is asked of a
direction change at once, through memory shared with that process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..base.errors import UnfitError
from ..base.histogram import SLOTS
from ..base.host.tun import offload
from ..base.prng_kernel import LINK_OUTWARD, key_of
from ..workload.jitter import table_of
from ..workload.link_spec import PLAIN, LinkDirection, LinkSpec
from . import ferry_kernel as carrying
from .process import carrying_link, process
from .shared_memory import Board, board
from .site import Ends, Site, addresses_of, interface_of


class Ferry:
    """The carrying link: per direction (0 near to far, 1 far to near) a delay, and a way."""

    kind = "ferry"
    carriers: tuple[int, ...] | None = ()

    def __init__(self, words: np.ndarray, devices: list[Device], seed: int) -> None:
        self.board = words
        self.devices = devices
        self.seed = seed

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Hold packets this long from now on; those under way keep their time."""
        self.board[carrying.DELAY_NS : carrying.DELAY_NS + 2] = max(outward_ns, 0), max(homeward_ns, 0)

    def set_directions(self, outward: LinkDirection, homeward: LinkDirection) -> None:
        """Do with packets what is asked besides the delay from now on."""
        for direction, (way, device) in enumerate(zip((outward, homeward), self.devices, strict=True)):
            # A packet whose checksum is not made yet cannot be damaged; one of 64 KiB is not one packet.
            offload(device.descriptor, segments=not way.counts_packets, checksums=not way.corrupt_ratio)
            lay_out(self.board, direction, way, self.seed)

    def cut(self, outward: bool = True, homeward: bool = True) -> None:
        """Lose every packet of these directions until heal()."""
        self.board[carrying.CUT : carrying.CUT + 2] |= np.array([outward, homeward], np.int64)

    def heal(self) -> None:
        """Carry packets again."""
        self.board[carrying.CUT : carrying.CUT + 2] = 0

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together; `late_ns` is a sum over packets."""
        pairs = {
            "packets": carrying.PACKETS, "bytes": carrying.BYTES, "drops": carrying.REFUSED,
            "cut_drops": carrying.CUT_DROPS, "full": carrying.FULL, "lost": carrying.LOST,
            "duplicated": carrying.DUPLICATED, "reordered": carrying.REORDERED, "corrupted": carrying.CORRUPTED,
            "queue_drops": carrying.QUEUE_DROPS, "late_ns": carrying.LATE_NS,
        }  # fmt: skip
        counted = {name: int(self.board[word] + self.board[word + 1]) for name, word in pairs.items()}
        return counted | {"device_drops": sum(device.drops() for device in self.devices)}

    def late_ns_max(self) -> int:
        """How late the latest packet left since this was last asked."""
        words = self.board[carrying.LATE_NS_MAX : carrying.LATE_NS_MAX + 2]
        found = int(words.max())
        words[:] = 0
        return found

    def late_counts(self) -> np.ndarray:
        """(2, SLOTS): how late every packet left since the link was made, by direction, as a histogram counts."""
        return self.board[carrying.LATE :].reshape(2, SLOTS).copy()

    def facts(self) -> dict[str, str]:
        """How the packets are carried."""
        urgent = bool(self.board[carrying.URGENT])
        return {"ferry's priority": "real-time" if urgent else "normal: the right to more is lacking"}


class Device:
    """One end: a TUN device's descriptor, and what its namespace counts of it."""

    def __init__(self, site: Site, interface: str, address: Ends, mtu_bytes: int | None) -> None:
        self.descriptor = site.open_tun(interface, address, mtu_bytes)
        self.interface = interface
        # Open it stays readable when the site's process is gone: it belongs to the namespace.
        self.counted = os.open(f"/proc/{site.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)

    def drops(self) -> int:
        """Packets that found its queue full; the 12th column of /proc/net/dev, proc(5)."""
        for line in os.pread(self.counted, 1 << 16, 0).decode().splitlines():
            name, _, columns = line.partition(":")
            if name.strip() == self.interface:
                return int(columns.split()[11])
        return 0

    def close(self) -> None:
        """Let both descriptors go."""
        os.close(self.descriptor)
        os.close(self.counted)


POLLING: list[socket.socket] = []  # In the ferry's process: held until it ends.


def may_poll() -> bool:
    """Whether this is the one ferry of the machine that polls: two on one processor, both real-time, would hold each other up. An
    abstract address of unix(7) is taken by one process and free again when that is gone."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind("\0farwrite/polling-ferry")
    except OSError:
        claim.close()
        return False
    POLLING.append(claim)
    return True


def quiet_processor(allowed: set[int]) -> int:
    """The processor of these that devices have interrupted least; proc(5), /proc/interrupts. The first where nothing is known."""
    counts = dict.fromkeys(sorted(allowed), 0)
    with contextlib.suppress(OSError, ValueError):
        heading, *rows = Path("/proc/interrupts").read_text().splitlines()
        numbers = [int(name.removeprefix("CPU")) for name in heading.split()]
        for row in rows:
            name, _, columns = row.partition(":")
            if name.strip().isdigit():
                for number, count in zip(numbers, columns.split(), strict=False):
                    if number in counts:
                        counts[number] += int(count)
    return min(counts, key=lambda number: counts[number])


def lay_out(words: np.ndarray, direction: int, way: LinkDirection, seed: int) -> None:
    """Write a way into a direction's part of the board."""
    unit_ns, table = table_of(way)
    at = carrying.TABLE + direction * carrying.TABLE_WORDS
    words[at : at + carrying.TABLE_WORDS] = table
    asked = words[carrying.WAY + direction * carrying.DIRECTION_WORDS :][: carrying.DIRECTION_WORDS]
    bursts = way.bursts
    values = {
        carrying.KEY: int(np.uint64(key_of(seed, LINK_OUTWARD + direction)).view(np.int64)),
        carrying.EXTRA_NS: way.extra_delay_ns, carrying.JITTER_NS: unit_ns, carrying.RATE: way.rate_bits_per_s or 0,
        carrying.QUEUE: way.queue_packets or 0, carrying.LOSS: whole(way.loss_ratio),
        carrying.ENTER: whole(bursts.enter_ratio) if bursts else 0, carrying.LEAVE: whole(bursts.leave_ratio) if bursts else 0,
        carrying.BAD_LOSS: whole(bursts.bad_loss_ratio) if bursts else 0,
        carrying.GOOD_LOSS: whole(bursts.good_loss_ratio) if bursts else 0,
        carrying.REORDER: whole(way.reorder_ratio), carrying.DUPLICATE: whole(way.duplicate_ratio),
        carrying.CORRUPT: whole(way.corrupt_ratio), carrying.ASKED: int(not way.is_plain),
    }  # fmt: skip
    for word, value in values.items():
        asked[word] = value


def whole(share: float) -> int:
    """A share in the ferry's whole numbers."""
    return round(share * carrying.SURE)


@contextmanager
def ferry(near: Site, far: Site, spec: LinkSpec = PLAIN, polls: bool = True) -> Iterator[Ferry]:
    """Join two sites by TUN devices and a process that carries packets between them. UnfitError without TUN.

    `polls`: it may have a processor to itself while packets keep coming. The sites' processes then stay off it: one that woke up
    there would wait for the ferry (an echo without a distance took 394 us instead of 137 beside it on a 2-core VM).
    """
    with contextlib.ExitStack() as stack:
        devices = []
        for site, address in zip((near, far), addresses_of(near, far), strict=True):
            device = Device(site, interface_of(near, far), address, spec.mtu_bytes)
            stack.callback(device.close)
            devices.append(device)
        shared = stack.enter_context(board(carrying.BOARD_WORDS))
        carrier = stack.enter_context(process("ferry"))
        made = Ferry(shared.words, devices, spec.seed)
        carrier.start(carry, *(device.descriptor for device in devices), shared, polls)
        if carrier.poll(0.05):
            carrier.answer()
            raise UnfitError("The ferry process ended as soon as it was started.")
        made.carriers = (carrier.pid,)
        stack.enter_context(carrying_link(carrier))
        if shared.words[carrying.POLL_NS]:
            others = os.sched_getaffinity(0) - os.sched_getaffinity(carrier.pid)
            near.stay_on(others)
            far.stay_on(others)
        yield made


def carry(near_fd: int, far_fd: int, shared: Board, polls: bool) -> int:
    """The ferry process's only call: lasts until it is stopped or killed."""
    processors = os.sched_getaffinity(0)
    # Whoever spins on the only processor takes it from those it works for.
    shared.words[carrying.ALONE] = int(len(processors) == 1)
    with contextlib.suppress(OSError):  # As urgent as a user may be; without the right to, at normal priority.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        shared.words[carrying.URGENT] = 1
        if polls and len(processors) > 1 and may_poll():
            # Away from the disk's interrupts and their kernel threads, which a real-time process keeps waiting: A at 150 miles
            # 1206 us beside them, 242 us on the other processor (2-core VM).
            os.sched_setaffinity(0, {quiet_processor(processors)})
            shared.words[carrying.POLL_NS] = carrying.POLL_NS_MAX
    return int(
        carrying.ferry(
            near_fd, far_fd, carrying.hold(), carrying.hold(), shared.words, np.zeros(4, np.int32), np.zeros(2, np.int64)
        )
    )
