"""What a link was asked for and what it delivers, side by side, and what its error is made of.

The distance is proven by stamped probes over the bare link, kernel to kernel, everything else by datagrams in each direction;
what an echo of two processes takes is shown beside it. An asked loss is refuted when it lies outside the 99.9 % interval of what
was counted (one survey in five hundred errs); a rate is met within 3 %.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ..base.physics import Distance
from ..base.units import NS_PER_MS, NS_PER_S
from ..workload.link_spec import FRAME_OVERHEAD_BYTES, STREAM_LEVEL_LINKS, LinkDirection, describe, tolerance_ns
from .lab import Lab
from .probe import FULL_BYTES, IP_UDP_BYTES, Z_999, Delivered, bulk_bits_per_s, probe, share_interval
from .span import Span

CLAIM_NS = 2 * NS_PER_MS  # What an error is held against: the tightest limit that is usually stated.
ERROR_SHARE_MAX = 0.05  # As the analysis withholds verdicts.
RATE_SHARE = 0.03
ECHOES = 200
PACKETS = 20_000
GAP_NS = 50_000
FLOOD_NS = NS_PER_S
FULL_BITS = 8 * (FULL_BYTES + IP_UDP_BYTES + FRAME_OVERHEAD_BYTES)
# Datagrams of full size that two processes of one machine can be relied upon to send and take, a second.
FLOOD_PER_S_MAX = 60_000
TCP_SHARE = 1448 / 1538  # Of a wire's bits that are TCP's payload, with time stamps, in full packets.


class Spread(msgspec.Struct, frozen=True):
    """How a time is distributed, in ns."""

    min_ns: float
    p50_ns: float
    p99_ns: float
    deviation_ns: float
    count: int

    @classmethod
    def of(cls, times_ns: np.ndarray) -> Spread | None:
        """None of nothing."""
        if not times_ns.size:
            return None
        low, middle, high = np.quantile(times_ns, [0, 0.5, 0.99])
        return cls(float(low), float(middle), float(high), float(times_ns.std()), int(times_ns.size))


class OneWay(msgspec.Struct, frozen=True):
    """What one direction did with datagrams."""

    asked: LinkDirection
    asked_delay_ns: float  # half the round trip, and what is asked for on top
    delay: Spread | None
    sent: int
    lost: int
    loss_ratio: float
    loss_low: float
    loss_high: float
    bursts: int
    burst_packets_mean: float | None
    burst_packets_max: int
    reordered: int
    duplicates: int
    rate_bits_per_s: float | None  # as UDP or TCP of full packets met it, counted on the wire
    rate_by: str


class ErrorBudget(msgspec.Struct, frozen=True):
    """What the delivered distance may be off by, in ns of round trip."""

    emulation_ns: float  # delivered less asked, at the median
    kernel_stack_ns: float  # the emulation's fastest passage with no delay: held for so much less
    scheduler_ns: float  # how late packets left, both ways, on average; or what round trips lie above the fastest
    scheduler_by: str
    sum_ns: float
    claim_ns: float
    share_of_claim: float


class Proof(msgspec.Struct, frozen=True):
    """The whole."""

    miles: float
    route_factor: float
    link: str
    reason: str
    asked_besides: str
    facts: dict[str, str]
    asked_rtt_ns: int
    rtt: Spread  # kernel to kernel and back, or by a relay's own account
    base_rtt: Spread  # of an echo with no delay: this host's stack and wake-ups, which come on top of every distance
    echo: Spread  # of an echo at the distance
    outward: OneWay | None  # None: a relay carries streams, and there are no packets to look at
    homeward: OneWay | None
    tcp_bits_per_s: float | None
    errors: ErrorBudget
    counted: dict[str, int]
    refusals: list[str]  # what was asked for and not delivered, each a sentence


def prove(lab: Lab, asked_rtt_ns: int, miles: float, route_factor: float, packets: int = PACKETS) -> Proof:
    """Set the distance, and find out what the link of a lab delivers there."""
    asked = Distance(miles, asked_rtt_ns)
    lab.set_distance(asked)
    before = lab.link.counters()
    rtt_ns = lab.prove(asked, ECHOES).rtt_ns
    after = lab.link.counters()
    echo = Spread.of(lab.echo(ECHOES).rtt_ns)
    outward = homeward = tcp = None
    if lab.choice.kind not in STREAM_LEVEL_LINKS:
        outward = one_way(lab, lab.spec.outward, asked_rtt_ns, True, packets)
        homeward = one_way(lab, lab.spec.homeward, asked_rtt_ns, False, packets)
        tcp = bulk_bits_per_s(lab.near, lab.far, lab.far.address, 1.5)
    made = Spread.of(rtt_ns)
    base = Spread.of(lab.base.rtt_ns)
    assert made is not None
    assert base is not None
    assert echo is not None
    echoes = {name: after[name] - before[name] for name in after}
    counted = {name: value - before[name] for name, value in lab.link.counters().items()}
    errors = errors_of(made, sum(lab.passage_ns), asked_rtt_ns or made.p50_ns, echoes)
    return Proof(
        miles=miles, route_factor=route_factor, link=lab.choice.kind, reason=lab.choice.reason,
        asked_besides=describe(lab.spec), facts=lab.link.facts(), asked_rtt_ns=asked_rtt_ns, rtt=made, base_rtt=base, echo=echo,
        outward=outward, homeward=homeward, tcp_bits_per_s=tcp, errors=errors, counted=counted,
        refusals=refusals(made, asked_rtt_ns, {"outward": outward, "homeward": homeward}, errors),
    )  # fmt: skip


def one_way(span: Span, direction: LinkDirection, asked_rtt_ns: int, outward: bool, packets: int) -> OneWay:
    """Send datagrams in one direction of a span, and see; the rate is tried with a crowd of its own."""
    held_ns = asked_rtt_ns / 2 + direction.extra_delay_ns
    made = crowd(span, direction, packets, held_ns, outward)
    rate, by = rate_of(span, direction, held_ns, outward)
    low, high = made.loss_interval()
    bursts = made.bursts()
    return OneWay(
        asked=direction, asked_delay_ns=held_ns, delay=Spread.of(made.delay_ns), sent=made.sent, lost=made.lost,
        loss_ratio=made.loss_ratio, loss_low=low, loss_high=high, bursts=int(bursts.size),
        burst_packets_mean=float(bursts.mean()) if bursts.size else None, burst_packets_max=int(bursts.max(initial=0)),
        reordered=made.reordered, duplicates=made.duplicates, rate_bits_per_s=rate, rate_by=by,
    )  # fmt: skip


def ends(span: Span, outward: bool) -> tuple[Any, Any, str]:
    """(sender, receiver, the receiver's address) of a direction."""
    if outward:
        return span.near, span.far, span.far.address
    return span.far, span.near, span.near.address


def crowd(span: Span, direction: LinkDirection, packets: int, held_ns: float, outward: bool, gap_ns: int = GAP_NS) -> Delivered:
    """Small datagrams, no faster than half of what the rate carries."""
    small_bits = 8 * (IP_UDP_BYTES + 18 + FRAME_OVERHEAD_BYTES)
    if direction.rate_bits_per_s:
        gap_ns = max(gap_ns, 2 * small_bits * NS_PER_S // direction.rate_bits_per_s)
    return probe(*ends(span, outward), packets, gap_ns, delay_ns=round(held_ns + 8 * direction.jitter_ns))


def rate_of(span: Span, direction: LinkDirection, held_ns: float, outward: bool) -> tuple[float | None, str]:
    """Bits on the wire per second, and how they were made to flow. A rate that datagrams cannot fill is tried with TCP."""
    rate = direction.rate_bits_per_s
    per_s = round(1.2 * rate / FULL_BITS) if rate else FLOOD_PER_S_MAX
    if rate and per_s <= FLOOD_PER_S_MAX:
        count = max(round(per_s * FLOOD_NS / NS_PER_S), 20)
        made = probe(*ends(span, outward), count, NS_PER_S // per_s, FULL_BYTES, round(held_ns + 0.3 * FLOOD_NS))
        return made.rate_bits_per_s(), "datagrams"
    if rate:
        return bulk_bits_per_s(*ends(span, outward), 1.0) / TCP_SHARE, "TCP"
    return None, ""


def errors_of(made: Spread, passage_ns: float, asked_rtt_ns: float, echoes: dict[str, int]) -> ErrorBudget:
    """The error budget from round trips and from what the link counted meanwhile."""
    emulation_ns = abs(made.p50_ns - asked_rtt_ns)
    if echoes.get("late_ns") is not None and echoes.get("packets"):
        scheduler_ns, by = 2 * echoes["late_ns"] / echoes["packets"], "how late packets left, both ways, on average"
    else:
        scheduler_ns, by = made.p50_ns - made.min_ns, "the median above the fastest: this link does not report it"
    total_ns = emulation_ns + scheduler_ns
    return ErrorBudget(
        emulation_ns=emulation_ns, kernel_stack_ns=passage_ns, scheduler_ns=scheduler_ns, scheduler_by=by, sum_ns=total_ns,
        claim_ns=CLAIM_NS, share_of_claim=total_ns / CLAIM_NS,
    )  # fmt: skip


def refusals(rtt: Spread, asked_rtt_ns: int, directions: dict[str, OneWay | None], errors: ErrorBudget) -> list[str]:
    """What was asked and is not delivered."""
    found = []
    off_ns = rtt.p50_ns - asked_rtt_ns
    if asked_rtt_ns and abs(off_ns) > tolerance_ns(asked_rtt_ns):
        found.append(f"the round trip is {off_ns / 1000:+.0f} us off at the median")
    if errors.emulation_ns > ERROR_SHARE_MAX * errors.claim_ns:
        found.append("the link's error is more than 5 % of 2 ms: no verdict could rest on it")
    for name, made in directions.items():
        found += [f"{name}: {sentence}" for sentence in direction_refusals(made)] if made is not None else []
    return found


def direction_refusals(made: OneWay) -> list[str]:
    """What one direction was asked for and does not deliver."""
    direction, refusals = made.asked, []
    low, high = share_interval(made.lost, made.sent, Z_999)
    if direction.bursts is None and not low <= direction.loss_ratio <= high:
        refusals.append(f"{made.loss_ratio:.3%} of the packets were lost, {direction.loss_ratio:.3%} were asked for")
    if made.reordered and not direction.reorder_ratio:
        refusals.append(f"{made.reordered} packets were reordered")
    if made.duplicates and not direction.duplicate_ratio:
        refusals.append(f"{made.duplicates} packets came twice")
    rate = direction.rate_bits_per_s
    if rate and made.rate_bits_per_s is not None:
        off = made.rate_bits_per_s / rate - 1
        if off > RATE_SHARE:
            refusals.append(f"the rate is {off:+.1%} off")
        elif off < -RATE_SHARE:
            refusals.append(f"the rate is {off:+.1%} off: this machine, or TCP over this loss, carries no more")
    return refusals

