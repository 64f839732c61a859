"""A span: the near site, one far site, and the link between them at a distance that can be changed.

A lab has one, and one more for each further far site. It knows the delay that delivers a round trip, and proves it by survey.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..link_spec import PLAIN, LinkSpec
from ..units import NS_PER_S
from ..wire.terms import IN_THE_CLEAR, Terms
from .link import Link, bare
from .site import Site, tune_transport
from .survey import PROBE, Survey, hang_up, join, survey

CALIBRATION_ECHOES = 60  # at most,
CALIBRATION_ECHOES_MIN = 12
CALIBRATION_S = 0.5  # and no more than last so long: at 40 ms a median of 60 would take 2.4 s.
CALIBRATION_TRIES = 5


@dataclass
class Span:
    """Two sites and what joins them."""

    near: Site
    far: Site
    link: Link
    transport: dict[str, str]
    base: Survey  # the round trip of its own, with no delay asked
    terms: Terms = field(default=IN_THE_CLEAR, kw_only=True, repr=False)  # of what is replicated; surveys are in the clear
    spec: LinkSpec = field(default=PLAIN, kw_only=True)  # what is asked of the link besides the distance
    total_ns: int = field(default=0, kw_only=True)  # the delay per round trip that was set last
    delay_ns: dict[int, int] = field(default_factory=dict, kw_only=True)  # calibrated total delay by asked RTT

    @property
    def proves_distance(self) -> bool:
        """Whether its surveys are of the distance alone."""
        return True

    def set_rtt(self, asked_rtt_ns: int) -> None:
        """Set the link so that a bare echo takes `asked_rtt_ns`; 0 asks for the lab's own base and no more."""
        if asked_rtt_ns not in self.delay_ns:
            self.calibrate(asked_rtt_ns)
        self.set_delay(self.delay_ns[asked_rtt_ns])

    def set_delay(self, total_ns: int) -> None:
        """Delay this much per round trip, half in each direction."""
        self.total_ns = total_ns
        self.link.set_delay_ns(total_ns // 2, total_ns - total_ns // 2)

    def set_extra(self, extra_ns: int) -> None:
        """Delay so much more per round trip than the distance does, until set_delay or set_rtt."""
        total_ns = self.total_ns + extra_ns
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
            missed_ns = self.survey(echoes_for(asked_rtt_ns)).rtt_ns_p50 - asked_rtt_ns
            if abs(missed_ns) <= max(0.003 * asked_rtt_ns, 4_000):
                break
            delay_ns = max(round(delay_ns - missed_ns), 0)
        self.delay_ns[asked_rtt_ns] = delay_ns

    def correct(self, asked_rtt_ns: int, missed_ns: float) -> bool:
        """Take a miss that a survey saw into the calibration, so that it follows the machine's drift; answers that it was."""
        self.delay_ns[asked_rtt_ns] = max(round(self.delay_ns[asked_rtt_ns] - missed_ns), 0)
        self.set_delay(self.delay_ns[asked_rtt_ns])
        return True

    def forget(self, asked_rtt_ns: int) -> None:
        """Calibrate this round trip anew when it is asked for again."""
        self.delay_ns.pop(asked_rtt_ns, None)

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
        """The delivered round trip of a small echo over the distance alone, whatever else is asked of the link."""
        with bare(self.link, self.spec):
            return survey(self.near, self.far, count)

    def echo_floor(self, count: int, request_bytes: int, answer_bytes: int) -> Survey:
        """The delivered round trip of an echo with a write's own sizes."""
        return survey(self.near, self.far, count, request_bytes, answer_bytes)

    def flushed_echo_floor(self, count: int, request_bytes: int, answer_bytes: int) -> Survey:
        """The same, with a bare append-and-flush at the far end before each answer: the floor of a synchronous write.

        Measured as one, because a disk that has been idle for a round trip is slower than one that is kept busy.
        """
        return survey(self.near, self.far, count, request_bytes, answer_bytes, flushed=True)


def echoes_for(rtt_ns: int) -> int:
    """How many round trips of this length a calibration, or a proof, takes."""
    affordable = int(CALIBRATION_S * NS_PER_S / max(rtt_ns, 1))
    return min(max(affordable, CALIBRATION_ECHOES_MIN), CALIBRATION_ECHOES)


def acquaint(near: Site, far: Site, congestion: str) -> tuple[dict[str, str], Survey]:
    """(transport in force, base round trip) of two sites that a link has just joined."""
    transport = near.call(tune_transport, near.namespace)
    far.call(tune_transport, far.namespace)
    transport["congestion_control"] = join(near, far, PROBE, congestion)
    survey(near, far, CALIBRATION_ECHOES)  # The first one pays for ARP, slow start and cold code.
    return transport, survey(near, far, CALIBRATION_ECHOES)
