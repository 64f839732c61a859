"""A span: the near site, one far site, and the link between them at a distance that can be changed.

A distance is light: packets are held for the time that light needs less the fastest passage that the emulation itself was seen to
have, so that none arrives before light does. What this host's processors need to wake up and run the two ends comes on top, as
between two machines. Nothing is calibrated against that, and a busy minute cannot make a distance shorter.
A lab has one span, and one more for each further far site.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..base.histogram import middle_of
from ..base.physics import Distance
from ..base.wire.terms import IN_THE_CLEAR, Terms
from ..workload.link_spec import PLAIN, LinkSpec, tolerance_ns
from .link import Link, bare
from .site import AnySite, Site, tune_transport
from .stamps import Prober, Stamps
from .survey import PROBE, Survey, hang_up, join, off_ns, survey

BASE_ECHOES = 60
PROOFS = 3
PASSAGES = 100  # Stamped probes each way that find the emulation's fastest passage.


@dataclass
class Span:
    """Two sites and what joins them."""

    near: AnySite
    far: AnySite
    link: Link
    transport: dict[str, str]
    base: Survey  # the round trip of a bare echo with no delay asked: what this host's own stack and wake-ups take
    prober: Prober | None = field(default=None, kw_only=True)  # None: streams, which have no packets to stamp
    passage_ns: tuple[int, int] = field(default=(0, 0), kw_only=True)  # the emulation's fastest, outward and homeward
    terms: Terms = field(default=IN_THE_CLEAR, kw_only=True, repr=False)  # of what is replicated; surveys are in the clear
    spec: LinkSpec = field(default=PLAIN, kw_only=True)  # what is asked of the link besides the distance
    light_ns: tuple[int, int] = field(default=(0, 0), kw_only=True)  # what the distance takes, outward and homeward
    held_ns: tuple[int, int] = field(default=(0, 0), kw_only=True)  # how long packets are held for it
    delay_ns: dict[int, int] = field(default_factory=dict, kw_only=True)  # held per round trip, by asked round trip

    @property
    def is_emulated(self) -> bool:
        """Whether it can be as far as is asked; otherwise it is as far as it is."""
        return True

    @property
    def proves_distance(self) -> bool:
        """Whether its surveys are of the distance alone."""
        return True

    def set_rtt(self, asked_rtt_ns: int) -> None:
        """Set the distance: half of `asked_rtt_ns` each way from kernel to kernel. 0 holds nothing back."""
        self.light_ns = asked_rtt_ns // 2, asked_rtt_ns - asked_rtt_ns // 2
        self.hold(*(max(light_ns - passage_ns, 0) for light_ns, passage_ns in zip(self.light_ns, self.passage_ns, strict=True)))
        self.delay_ns[asked_rtt_ns] = sum(self.held_ns)

    def set_ping(self, asked_rtt_ns: int) -> None:
        """Set the link so that a bare echo, which is what ping measures, takes `asked_rtt_ns`: this host's fastest echo without a
        distance is part of it."""
        self.set_delay(max(asked_rtt_ns - self.base.rtt_ns_min, 0))
        self.delay_ns[asked_rtt_ns] = sum(self.held_ns)

    def set_delay(self, total_ns: int) -> None:
        """Hold packets this long per round trip, half in each direction."""
        self.hold(total_ns // 2, total_ns - total_ns // 2)
        self.light_ns = self.held_ns

    def hold(self, outward_ns: int, homeward_ns: int) -> None:
        """Hold packets this long from now on."""
        self.held_ns = outward_ns, homeward_ns
        self.link.set_delay_ns(outward_ns, homeward_ns)

    def set_distance(self, asked: Distance) -> None:
        """Set what is asked: a length as light takes it, or the round trip of a ping."""
        (self.set_ping if asked.is_ping else self.set_rtt)(asked.rtt_ns)

    def prove(self, asked: Distance, count: int) -> Survey:
        """What is delivered of it, now: from kernel to kernel, or by an echo where a ping was asked. Surveyed again, up to twice,
        when it was off: a moment in which the host was busy is no distance."""
        for _ in range(PROOFS):
            made = self.echo(count) if asked.is_ping else self.survey(count)
            if abs(off_ns(made.rtt_ns_p50, asked.rtt_ns)) <= tolerance_ns(asked.rtt_ns):
                break
        return made

    def set_extra(self, extra_ns: int) -> None:
        """Hold packets so much longer per round trip than the distance asks, until the distance is set again."""
        outward_ns, homeward_ns = self.held_ns
        self.link.set_delay_ns(outward_ns + extra_ns // 2, homeward_ns + extra_ns - extra_ns // 2)

    def join(self, name: str) -> None:
        """A new TCP connection between the sites, held by the near one under `held` and by the far one under `taken`.

        The probe is bare, as floors are; any other is encrypted and compressed as the lab's terms say.
        """
        terms = IN_THE_CLEAR if name == PROBE else self.terms
        join(self.near, self.far, name, self.transport["congestion_control"], terms)

    def held(self, name: str) -> str:
        """The name under which the near site, which may be joined with several, holds this span's connection."""
        return self.far.held(name)

    def hang_up(self, name: str) -> None:
        """Close the near site's end of a connection."""
        self.near.call(hang_up, self.held(name))

    def survey(self, count: int) -> Survey:
        """The delivered round trip over the distance alone, whatever else is asked of the link: from kernel to kernel and back.

        By stamped probes where packets can be stamped. A relay's is how long it holds segments and, by its own account, how late
        each of `count` echoes left: what an echo takes besides is the applications' waking up.
        """
        with bare(self.link, self.spec):
            if self.prober is not None:
                return round_trips(*self.prober.burst(count, sum(self.held_ns)))
            before = self.link.late_counts()
            echoes = survey(self.near, self.far, count)
            after = self.link.late_counts()
        if before is None or after is None:
            return echoes
        late_ns = [values_of(counts) for counts in after - before]
        even = min(values.size for values in late_ns)
        if not even:  # The carrier writes its account when it next runs.
            return echoes
        return Survey(sum(self.held_ns) + late_ns[0][-even:] + late_ns[1][-even:])

    def echo(self, count: int) -> Survey:
        """The round trip of a small echo between the sites' processes, over the distance alone: what a ping would see."""
        with bare(self.link, self.spec):
            return survey(self.near, self.far, count)

    def echo_floor(self, count: int, request_bytes: int, answer_bytes: int, polled: bool = False) -> Survey:
        """The delivered round trip of an echo with a write's own sizes; `polled`: by a near end that never sleeps."""
        return survey(self.near, self.far, count, request_bytes, answer_bytes, polled=polled)

    def flushed_echo_floor(self, count: int, request_bytes: int, answer_bytes: int, polled: bool = False) -> Survey:
        """The same, with a bare append-and-flush at the far end before each answer: the floor of a synchronous write.

        Measured as one, because a disk that has been idle for a round trip is slower than one that is kept busy.
        """
        return survey(self.near, self.far, count, request_bytes, answer_bytes, flushed=True, polled=polled)


def values_of(counts: np.ndarray) -> np.ndarray:
    """The values that a histogram counted, in ascending order."""
    return np.repeat(middle_of(np.flatnonzero(counts)), counts[counts > 0])


def round_trips(outward: Stamps, homeward: Stamps) -> Survey:
    """One round trip of each pair of probes that were sent together. UnfitError when none came back."""
    return Survey(outward.paired_ns(homeward), (outward, homeward))


def acquaint(near: Site, far: Site, congestion: str) -> tuple[dict[str, str], Survey]:
    """(transport in force, base round trip of an echo) of two sites that a link has just joined."""
    transport = near.call(tune_transport, near.namespace)
    far.call(tune_transport, far.namespace)
    transport["congestion_control"] = join(near, far, PROBE, congestion)
    survey(near, far, BASE_ECHOES)  # The first one pays for ARP, slow start and cold code.
    return transport, survey(near, far, BASE_ECHOES)


def passage_of(prober: Prober) -> tuple[int, int]:
    """The emulation's own fastest passage, outward and homeward, in ns: of a link that holds nothing back."""
    outward, homeward = prober.burst(PASSAGES, 0)
    return outward.min_ns, homeward.min_ns
