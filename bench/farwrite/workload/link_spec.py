"""What is asked of a link besides its distance: per direction jitter, rate, loss, reordering; and a schedule of changes.

Profiles and commands build a `LinkSpec`; the emulations of lab/ carry it out, each saying what it cannot. The names are
tc-netem(8)'s and RFC 3393's. A spec that cannot be is refused before anything is created.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..base.errors import UsageError
from ..base.units import NS_PER_S, format_rate, format_time

STREAM_LEVEL_LINKS = ("relay",)  # They carry streams of bytes and know no packets.

Shape = Literal["uniform", "normal", "pareto", "recorded"]

DELAY_NS_MAX = 10 * NS_PER_S
RATE_BITS_PER_S_MIN, RATE_BITS_PER_S_MAX = 1_000, 1_000_000_000_000
MTU_BYTES_MIN, MTU_BYTES_MAX = 576, 65_535  # RFC 791: what every host must take; the largest IPv4 packet.
QUEUE_PACKETS_MAX = 1_000_000

# 64 KiB handed over at once last half a millisecond at this rate: below it they would arrive as a lump.
OFFLOADED_RATE_BITS_PER_S_MIN = 1_000_000_000

# What Ethernet adds to an IP packet: preamble 8, header 14, checksum 4, gap 12. A rate counts it, as a wire of that rate does.
FRAME_OVERHEAD_BYTES = 38


# What a round trip's median may be off by, and a round still count: the larger of both.
OFF_SHARE_MAX, OFF_NS_MAX = 0.03, 40_000.0


def tolerance_ns(asked_rtt_ns: float) -> float:
    """How far the median of a round trip may lie from what was asked."""
    return max(OFF_SHARE_MAX * asked_rtt_ns, OFF_NS_MAX)


class LinkError(UsageError):
    """A link that cannot be; `path` is where in a [link] table it is asked for."""

    def __init__(self, sentence: str, *path: str | int) -> None:
        super().__init__(sentence)
        self.path = ("link", *path)


class Struct(msgspec.Struct, frozen=True):
    """What link specs are made of."""


class Bursts(Struct, frozen=True):
    """Gilbert and Elliott's two states: packets are lost in the bad one. Mean burst 1 / leave packets, mean gap 1 / enter."""

    enter_ratio: Annotated[float, Meta(description="chance per packet to go from good to bad: netem's p")]
    leave_ratio: Annotated[float, Meta(description="chance per packet to go from bad to good: netem's r")]
    bad_loss_ratio: Annotated[float, Meta(description="loss in the bad state: netem's 1-h")] = 1.0
    good_loss_ratio: Annotated[float, Meta(description="loss in the good state: netem's 1-k")] = 0.0

    @property
    def loss_ratio(self) -> float:
        """The share of packets lost in the long run."""
        bad = self.enter_ratio / (self.enter_ratio + self.leave_ratio)
        return bad * self.bad_loss_ratio + (1 - bad) * self.good_loss_ratio


class LinkDirection(Struct, frozen=True):
    """One direction of a link. The distance's own delay is not in here: that is set, and calibrated, by the lab."""

    extra_delay_ns: Annotated[int, Meta(description="one-way delay on top of the distance: what makes a link asymmetric")] = 0
    jitter_ns: Annotated[int, Meta(description="standard deviation of the one-way delay; half the width of a uniform one")] = 0
    jitter_shape: Annotated[Shape, Meta(description="how it is distributed")] = "normal"
    jitter_file: Annotated[str, Meta(description="shape recorded: a text file of one-way delays in ns, one a line")] = ""
    rate_bits_per_s: Annotated[
        int | None, Meta(description="bits per second, with Ethernet overhead; without, as fast as the machine carries")
    ] = None
    queue_packets: Annotated[
        int | None, Meta(description="packets that wait for the rate, more are dropped; without, the sender is held up instead")
    ] = None
    loss_ratio: Annotated[float, Meta(description="packets lost, independently of each other")] = 0.0
    bursts: Annotated[Bursts | None, Meta(description="losses in bursts, instead of loss (Gilbert-Elliott)")] = None
    reorder_ratio: Annotated[float, Meta(description="packets sent at once, ahead of those that are held")] = 0.0
    duplicate_ratio: Annotated[float, Meta(description="packets sent twice")] = 0.0
    corrupt_ratio: Annotated[float, Meta(description="packets with one bit turned")] = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked of this direction."""
        return self == LinkDirection()

    @property
    def has_jitter(self) -> bool:
        """Whether its delay varies."""
        return bool(self.jitter_ns or self.jitter_file)

    @property
    def counts_packets(self) -> bool:
        """Whether packets must be those of the wire: what befalls one of segmentation offload's would befall forty."""
        slow = self.rate_bits_per_s is not None and self.rate_bits_per_s < OFFLOADED_RATE_BITS_PER_S_MIN
        lossy = self.loss_ratio or self.bursts or self.reorder_ratio or self.duplicate_ratio or self.corrupt_ratio
        return bool(lossy or slow or self.queue_packets)


class Change(Struct, frozen=True):
    """What happens to a link at one instant of a run; a field left out stays as it was."""

    at_ns: Annotated[int, Meta(description="when, since the load began")]
    event: Annotated[
        Literal["set", "cut", "heal"], Meta(description="set changes the other keys; cut loses every packet until heal")
    ] = "set"
    extra_rtt_ns: Annotated[int | None, Meta(description="on top of the distance's round trip, half in each direction")] = None
    loss_ratio: Annotated[float | None, Meta(description="from now on")] = None
    rate_bits_per_s: Annotated[int | None, Meta(description="from now on")] = None


class LinkSpec(Struct, frozen=True):
    """The two directions between two sites, and what changes while a run goes on."""

    outward: Annotated[LinkDirection, Meta(description="near to far, where the two directions differ")] = LinkDirection()
    homeward: Annotated[LinkDirection, Meta(description="far to near")] = LinkDirection()
    mtu_bytes: Annotated[int | None, Meta(description="MTU; without, the device's own")] = None
    schedule: Annotated[tuple[Change, ...], Meta(description="changes while a load runs")] = ()
    seed: Annotated[int, Meta(description="the same seed loses the same packets")] = 1

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked but a distance."""
        return msgspec.structs.replace(self, seed=1) == LinkSpec()

    @property
    def directions(self) -> tuple[LinkDirection, LinkDirection]:
        """(outward, homeward)."""
        return self.outward, self.homeward


PLAIN = LinkSpec()


def check(spec: LinkSpec, one_way_delay_ns: int | None = None, where: str = "") -> None:
    """LinkError for a link that cannot be; where a distance's delay is given, and where that is, jitter is held against it."""
    for name, direction in (("outward", spec.outward), ("homeward", spec.homeward)):
        check_direction(name, direction, one_way_delay_ns, where)
    if spec.mtu_bytes is not None and not MTU_BYTES_MIN <= spec.mtu_bytes <= MTU_BYTES_MAX:
        raise LinkError(f"link.mtu: {spec.mtu_bytes} bytes; an MTU is {MTU_BYTES_MIN} to {MTU_BYTES_MAX}.", "mtu")
    before_ns = -1
    for index, change in enumerate(spec.schedule):
        refusal = refusal_of(change, before_ns)
        if refusal:
            raise LinkError(f"link.schedule, at {format_time(change.at_ns)}: {refusal}", "schedule", index)
        before_ns = change.at_ns


def check_direction(name: str, direction: LinkDirection, one_way_delay_ns: int | None, where: str = "") -> None:
    """UsageError for a direction that cannot be."""

    def refuse(unless: bool, sentence: str) -> None:
        if not unless:
            raise LinkError(f"link.{name}.{sentence}", name, sentence.partition(":")[0])

    for key in ("loss", "reorder", "duplicate", "corrupt"):
        share = getattr(direction, f"{key}_ratio")
        refuse(is_share(share), f"{key}: {share:.3g} is not a share from 0 to 1 (0 % to 100 %).")
    refuse(0 <= direction.extra_delay_ns <= DELAY_NS_MAX, "extra_delay: 0 s to 10 s.")
    refuse(0 <= direction.jitter_ns <= DELAY_NS_MAX, "jitter: 0 s to 10 s.")
    refuse((direction.jitter_shape == "recorded") == bool(direction.jitter_file),
           'jitter_shape: "recorded" goes with a jitter_file, and only that.')  # fmt: skip
    if one_way_delay_ns is not None and not direction.reorder_ratio:
        held_ns = one_way_delay_ns + direction.extra_delay_ns
        refuse(direction.jitter_ns <= held_ns,
               f"jitter: {where}{format_time(direction.jitter_ns)} is more than the delay of {format_time(held_ns)}, which only "
               "reordering could bring about. Ask for less, or for reorder.")  # fmt: skip
    rate = direction.rate_bits_per_s
    refuse(rate is None or RATE_BITS_PER_S_MIN <= rate <= RATE_BITS_PER_S_MAX, "rate: 1 kbit/s to 1 Tbit/s.")
    queue = direction.queue_packets
    refuse(queue is None or 1 <= queue <= QUEUE_PACKETS_MAX, f"queue_packets: 1 to {QUEUE_PACKETS_MAX}.")
    bursts = direction.bursts
    if bursts is not None:
        refuse(direction.loss_ratio == 0, "bursts: instead of loss, not beside it.")
        refuse(all(is_share(share) for share in (bursts.bad_loss_ratio, bursts.good_loss_ratio)),
               "bursts: its losses are shares from 0 to 1.")  # fmt: skip
        refuse(0 < bursts.enter_ratio <= 1 and 0 < bursts.leave_ratio <= 1, "bursts: enter and leave are above 0, at most 1.")


def refusal_of(change: Change, before_ns: int) -> str | None:
    """Why a change cannot be, or is out of order; None when it can."""
    values = (change.extra_rtt_ns, change.loss_ratio, change.rate_bits_per_s)
    nothing = all(value is None for value in values)
    if change.at_ns < 0 or change.at_ns < before_ns:
        return "changes come in order of time, from the load's begin on."
    if change.event != "set" and not nothing:
        return f'"{change.event}" goes with no other key; write a change of its own.'
    if change.event == "set" and nothing:
        return "nothing is changed. Name extra_rtt, loss or rate, or cut or heal."
    if change.extra_rtt_ns is not None and not 0 <= change.extra_rtt_ns <= 2 * DELAY_NS_MAX:
        return "extra_rtt is 0 s to 20 s."
    if change.loss_ratio is not None and not is_share(change.loss_ratio):
        return "loss is a share from 0 to 1."
    rate = change.rate_bits_per_s
    if rate is not None and not RATE_BITS_PER_S_MIN <= rate <= RATE_BITS_PER_S_MAX:
        return "rate is 1 kbit/s to 1 Tbit/s."
    return None


def changed(direction: LinkDirection, change: Change) -> LinkDirection:
    """A direction after a change; its delay is not in it."""
    if change.loss_ratio is not None:
        direction = msgspec.structs.replace(direction, loss_ratio=change.loss_ratio, bursts=None)
    if change.rate_bits_per_s is not None:
        direction = msgspec.structs.replace(direction, rate_bits_per_s=change.rate_bits_per_s)
    return direction


def describe(spec: LinkSpec) -> str:
    """What is asked besides the distance, in one line; empty for a plain link."""
    outward, homeward = (describe_direction(direction) for direction in spec.directions)
    clauses = []
    if outward == homeward:
        clauses += [outward] if outward else []
    else:
        clauses += [f"{name} {words}" for name, words in (("outward", outward), ("homeward", homeward)) if words]
    clauses += [f"MTU {spec.mtu_bytes}"] if spec.mtu_bytes else []
    clauses += [describe_change(change) for change in spec.schedule]
    clauses += [f"seed {spec.seed}"] if clauses and spec.seed != 1 else []
    return "; ".join(clauses)


def describe_direction(direction: LinkDirection) -> str:
    """What is asked of one direction."""
    shares = ("loss", "reorder", "duplicate", "corrupt")
    bursts = direction.bursts
    jitter = format_time(direction.jitter_ns) if direction.jitter_ns else "as it was"
    clauses = [
        f"+{format_time(direction.extra_delay_ns)}" if direction.extra_delay_ns else "",
        f"jitter {jitter} {direction.jitter_shape}" if direction.has_jitter else "",
        format_rate(direction.rate_bits_per_s) if direction.rate_bits_per_s else "",
        f"queue of {direction.queue_packets} packets" if direction.queue_packets else "",
        *(f"{name} {100 * getattr(direction, f'{name}_ratio'):.3g} %" for name in shares if getattr(direction, f"{name}_ratio")),
        f"loss in bursts {100 * bursts.loss_ratio:.3g} %, {1 / bursts.leave_ratio:.3g} packets each" if bursts else "",
    ]
    return ", ".join(words for words in clauses if words)


def describe_change(change: Change) -> str:
    """A change in words."""
    clauses = [
        change.event if change.event != "set" else "",
        f"+{format_time(change.extra_rtt_ns)} of round trip" if change.extra_rtt_ns is not None else "",
        f"loss {100 * change.loss_ratio:.3g} %" if change.loss_ratio is not None else "",
        format_rate(change.rate_bits_per_s) if change.rate_bits_per_s is not None else "",
    ]
    return f"at {format_time(change.at_ns)} {', '.join(words for words in clauses if words)}"


def is_share(share: float) -> bool:
    """Whether a number is a share of a whole."""
    return math.isfinite(share) and 0 <= share <= 1
