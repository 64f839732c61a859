"""What netem is told, as the kernel reads it: struct tc_netem_qopt and its attributes, linux/pkt_sched.h.

Every attribute is sent every time: netem keeps those that a change leaves out.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

from ..base.units import NS_PER_S
from ..workload.jitter import table_of
from ..workload.link_spec import FRAME_OVERHEAD_BYTES, LinkDirection

# netem drops silently beyond its limit, which counts the packets on their way as well as those in line.
LIMIT_PACKETS = 100_000
LINK_HEADER_BYTES = 14  # Of a veth's packets, which netem counts.
UNREACHED_BITS_PER_S = 10**12  # A rate only to keep packets in line.
TICK_NS = 64  # The packet scheduler's; the 64-bit attributes beside are in ns (Linux 4.15).
WORD_MAX = (1 << 32) - 1

LOSS_GE = 2  # Nested in TCA_NETEM_LOSS: Gilbert and Elliott's model.


@dataclass(frozen=True)
class Asked:
    """What one end is to do with what it sends."""

    delay_ns: int  # the distance's
    direction: LinkDirection
    lost: bool  # every packet
    mtu_bytes: int


def options_of(asked: Asked) -> dict[str, Any]:
    """TCA_OPTIONS of a netem qdisc, as pyroute2 takes it."""
    direction = asked.direction
    delay_ns = asked.delay_ns + direction.extra_delay_ns
    jitter_ns, table = table_of(direction)
    rate = direction.rate_bits_per_s or UNREACHED_BITS_PER_S
    overhead = FRAME_OVERHEAD_BYTES - LINK_HEADER_BYTES if direction.rate_bits_per_s else 0
    bytes_per_s = max(rate // 8, 1)
    attributes = [
        ["TCA_NETEM_LATENCY64", struct.pack("=q", delay_ns)],
        ["TCA_NETEM_JITTER64", struct.pack("=q", jitter_ns)],
        ["TCA_NETEM_CORR", struct.pack("=3I", 0, 0, 0)],
        ["TCA_NETEM_REORDER", struct.pack("=2I", share(direction.reorder_ratio), 0)],
        ["TCA_NETEM_CORRUPT", struct.pack("=2I", share(direction.corrupt_ratio), 0)],
        ["TCA_NETEM_RATE", struct.pack("=IiIi", min(bytes_per_s, WORD_MAX), overhead, 0, 0)],
        ["TCA_NETEM_RATE64", struct.pack("=Q", bytes_per_s)],
    ]
    if direction.has_jitter:  # netem's own uniform jitter will not do: a change without a table keeps the one before.
        attributes.append(["TCA_NETEM_DELAY_DIST", table.astype("=i2").tobytes()])
    if direction.bursts and not asked.lost:
        bursts = direction.bursts
        # The third is what gets through in the bad state: 1-h of tc-netem(8) is turned round before it is sent.
        shares = (bursts.enter_ratio, bursts.leave_ratio, 1 - bursts.bad_loss_ratio, bursts.good_loss_ratio)
        model = struct.pack("=4I", *(share(item) for item in shares))
        attributes.append(["TCA_NETEM_LOSS", struct.pack("=HH", 4 + len(model), LOSS_GE) + model])
    return {
        "delay": min(delay_ns // TICK_NS, WORD_MAX),
        "limit": limit_of(asked, rate),
        "loss": share(1.0 if asked.lost else direction.loss_ratio),
        "gap": 1 if direction.reorder_ratio else 0,
        "duplicate": share(direction.duplicate_ratio),
        "jitter": min(jitter_ns // TICK_NS, WORD_MAX),
        "attrs": attributes,
    }


def limit_of(asked: Asked, rate_bits_per_s: int) -> int:
    """Packets in line and on their way: the queue that was asked for, of full packets, and those that a delay holds."""
    direction = asked.direction
    held_ns = asked.delay_ns + direction.extra_delay_ns + 4 * direction.jitter_ns
    full_bits = 8 * (asked.mtu_bytes + FRAME_OVERHEAD_BYTES)
    in_flight = -(-rate_bits_per_s * held_ns // (full_bits * NS_PER_S)) if direction.rate_bits_per_s else 0
    if direction.queue_packets:
        return min(direction.queue_packets + in_flight, WORD_MAX)
    return min(max(LIMIT_PACKETS, 2 * in_flight), WORD_MAX)


def share(ratio: float) -> int:
    """A share as netem has it: 2^32 - 1 is all."""
    return round(ratio * WORD_MAX)


@functools.cache
def teach_pyroute2() -> None:
    """From here on pyroute2 sends netem what `options_of` says: its own encoding knows neither nanoseconds nor bursts nor
    distributions, and takes percentages. pyroute2 is loaded only where a link is made."""
    from pyroute2.netlink import nla
    from pyroute2.netlink.rtnl import TC_H_ROOT
    from pyroute2.netlink.rtnl.tcmsg import plugins

    class NetemOptions(nla):
        """struct tc_netem_qopt, and what follows it."""

        nla_map = (
            ("TCA_NETEM_UNSPEC", "none"),
            ("TCA_NETEM_CORR", "cdata"),
            ("TCA_NETEM_DELAY_DIST", "cdata"),
            ("TCA_NETEM_REORDER", "cdata"),
            ("TCA_NETEM_CORRUPT", "cdata"),
            ("TCA_NETEM_LOSS", "cdata"),
            ("TCA_NETEM_RATE", "cdata"),
            ("TCA_NETEM_ECN", "cdata"),
            ("TCA_NETEM_RATE64", "cdata"),
            ("TCA_NETEM_PAD", "cdata"),
            ("TCA_NETEM_LATENCY64", "cdata"),
            ("TCA_NETEM_JITTER64", "cdata"),
            ("TCA_NETEM_SLOT", "cdata"),
            ("TCA_NETEM_SLOT_DIST", "cdata"),
            ("TCA_NETEM_PRNG_SEED", "cdata"),
        )
        fields = (("delay", "I"), ("limit", "I"), ("loss", "I"), ("gap", "I"), ("duplicate", "I"), ("jitter", "I"))

    class NetemPlugin:
        """What pyroute2 asks of a kind of qdisc."""

        parent = TC_H_ROOT
        options = NetemOptions

        @staticmethod
        def get_parameters(given: dict[str, Any]) -> dict[str, Any]:
            return options_of(given["asked"]) if "asked" in given else {"attrs": []}  # To delete one takes no options.

    plugins["netem"] = NetemPlugin
