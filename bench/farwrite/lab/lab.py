"""The lab: two sites, the link between them, and what was found out about both before anything is measured.

`open_lab` builds it and takes it down; `Lab.set_rtt` moves the sites apart and calibrates until the survey agrees. Another
process may stand its own sites in the same places (`joined_lab`). The lab knows nothing of engines: targets are given its sites.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..host.disk import Disk, disk
from .board import Board, board
from .link import Choice, Link, SetElsewhere, choose, emulate
from .namespace import Namespace, namespaces
from .site import Site, tune_transport
from .survey import Survey, flush_floor, join, survey

CALIBRATION_ECHOES = 60
CALIBRATION_TRIES = 5
HISTORY_WORDS = 1 << 16


@dataclass(frozen=True)
class LabSpec:
    """What is asked of a lab."""

    link: str  # "auto", "netem" or "ferry"
    near: Path | None  # directory of the near site's files; None: in memory
    far: Path | None
    journal_bytes: int
    volume_bytes: int
    congestion: str


@dataclass
class Lab:
    """Two sites at a distance that can be changed."""

    near: Site
    far: Site
    link: Link
    choice: Choice
    transport: dict[str, str]
    base: Survey  # the lab's own round trip, with no delay asked
    history: Board  # completion instants of the running load by write number modulo its size
    delay_ns: dict[int, int] = field(default_factory=dict)  # calibrated total delay by asked RTT

    def set_rtt(self, asked_rtt_ns: int) -> None:
        """Set the link so that a bare echo takes `asked_rtt_ns`; 0 asks for the lab's own base and no more."""
        if asked_rtt_ns not in self.delay_ns:
            self.calibrate(asked_rtt_ns)
        self.set_delay(self.delay_ns[asked_rtt_ns])

    def set_delay(self, total_ns: int) -> None:
        """Delay this much per round trip, half in each direction."""
        self.link.set_delay_ns(total_ns // 2, total_ns - total_ns // 2)

    def calibrate(self, asked_rtt_ns: int) -> None:
        """Find the delay that delivers the asked round trip at the median, at the distance itself.

        The lab's own delay is not the same at every distance (processors sleep deeper the longer they wait), so
        subtracting what it is at zero would leave 0.1 ms.
        """
        if asked_rtt_ns == 0:
            self.delay_ns[0] = 0
            return
        delay_ns = max(asked_rtt_ns - round(self.base.rtt_ns_p50), 0)
        for _ in range(CALIBRATION_TRIES):
            self.set_delay(delay_ns)
            missed_ns = survey(self.near, self.far, CALIBRATION_ECHOES).rtt_ns_p50 - asked_rtt_ns
            if abs(missed_ns) <= max(0.003 * asked_rtt_ns, 4_000):
                break
            delay_ns = max(round(delay_ns - missed_ns), 0)
        self.delay_ns[asked_rtt_ns] = delay_ns

    def correct(self, asked_rtt_ns: int, missed_ns: float) -> bool:
        """Take a miss that a survey saw into the calibration, so that it follows the machine's drift; answers that it was."""
        self.delay_ns[asked_rtt_ns] = max(round(self.delay_ns[asked_rtt_ns] - missed_ns), 0)
        self.set_delay(self.delay_ns[asked_rtt_ns])
        return True

    def join(self, name: str) -> None:
        """A new TCP connection between the sites, held by both under this name."""
        join(self.near, self.far, name, self.transport["congestion_control"])

    def survey(self, count: int) -> Survey:
        """The delivered round trip of a small echo."""
        return survey(self.near, self.far, count)

    def echo_floor(self, count: int, request_bytes: int, answer_bytes: int) -> Survey:
        """The delivered round trip of an echo with a write's own sizes."""
        return survey(self.near, self.far, count, request_bytes, answer_bytes)

    def flushed_echo_floor(self, count: int, request_bytes: int, answer_bytes: int) -> Survey:
        """The same, with a bare append-and-flush at the far end before each answer: the floor of a synchronous write.

        Measured as one, because a disk that has been idle for a round trip is slower than one that is kept busy.
        """
        return survey(self.near, self.far, count, request_bytes, answer_bytes, flushed=True)

    def flush_floors(self, size: int, count: int) -> dict[str, np.ndarray]:
        """Bare append-and-flush times in ns: each site alone, then both at once (they may share a disk)."""
        near_alone = self.near.call(flush_floor, self.near.disk, size, count)
        far_alone = self.far.call(flush_floor, self.far.disk, size, count)
        self.far.start(flush_floor, self.far.disk, size, count)
        near_both = self.near.call(flush_floor, self.near.disk, size, count)
        far_both = self.far.answer()
        return {"near_alone": near_alone, "far_alone": far_alone, "near_both": near_both, "far_both": far_both}

    def revive(self) -> None:
        """Kill what is left of both sites, heal the link, start them again and join them; nothing they did goes on."""
        for site in (self.near, self.far):
            site.kill()
        self.link.heal()
        for site in (self.near, self.far):
            site.begin()
        self.join("probe")


class JoinedLab(Lab):
    """A lab in another process's places: how far apart they are is that process's to set and to correct."""

    def set_rtt(self, asked_rtt_ns: int) -> None:
        pass

    def correct(self, asked_rtt_ns: int, missed_ns: float) -> bool:
        return False


@contextmanager
def open_lab(spec: LabSpec) -> Iterator[Lab]:
    """Two sites and the link between them, open exactly as long as this block. UnfitError says what the system forbids."""
    with contextlib.ExitStack() as stack:  # Undoes a half-built lab in the right order.
        places = stack.enter_context(namespaces(2))
        near, far, history = stack.enter_context(two_sites(spec, places))
        choice = choose(spec.link, near)
        link = stack.enter_context(emulate(choice, near, far))
        yield Lab(near, far, link, choice, *acquaint(near, far, spec.congestion), history)


@contextmanager
def joined_lab(spec: LabSpec, places: list[Namespace], choice: Choice) -> Iterator[Lab]:
    """Two more sites in the places of a lab that another process holds open, joined by its link."""
    with two_sites(spec, places) as (near, far, history):
        yield JoinedLab(near, far, SetElsewhere(choice.kind), choice, *acquaint(near, far, spec.congestion), history)


@contextmanager
def two_sites(spec: LabSpec, places: list[Namespace]) -> Iterator[tuple[Site, Site, Board]]:
    """(near, far, history): sites with disks and processes of their own in two places."""
    import pyroute2  # noqa: F401  (Before the forks, which then have it. 0.55 -> 0.17 s per lab on a 2-core VM.)

    with contextlib.ExitStack() as stack:
        near_disk, far_disk = disks(spec, stack)
        boards = [stack.enter_context(board(64)) for _ in range(2)]
        history = stack.enter_context(board(HISTORY_WORDS))
        near = stack.enter_context(Site("near", places[0], near_disk, boards[0]))
        far = stack.enter_context(Site("far", places[1], far_disk, boards[1]))
        yield near, far, history


def disks(spec: LabSpec, stack: contextlib.ExitStack) -> tuple[Disk, Disk]:
    """The two sites' files."""
    near = stack.enter_context(disk(spec.near, spec.journal_bytes, spec.volume_bytes))
    far = stack.enter_context(disk(spec.far, spec.journal_bytes, spec.volume_bytes))
    return near, far


def acquaint(near: Site, far: Site, congestion: str) -> tuple[dict[str, str], Survey]:
    """(transport in force, base round trip) of two sites that a link has just joined."""
    transport = near.call(tune_transport)
    far.call(tune_transport)
    transport["congestion_control"] = join(near, far, "probe", congestion)
    survey(near, far, CALIBRATION_ECHOES)  # The first one pays for ARP, slow start and cold code.
    return transport, survey(near, far, CALIBRATION_ECHOES)
