"""netem: the kernel's own delay line on a veth pair, set through netlink.

Delay is egress-only, so each end delays what it sends. A super-packet of segmentation offload is one packet to netem, which
delay and a cut do not mind; rate and loss would. tc-netem(8).

Owns the pair and a process in each namespace to set it by: the sites' own are busy while a load runs, and may be killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UnfitError
from .process import Process, process
from .site import Site, addresses_of, configure, interface_of

# netem drops silently beyond its limit. 100 000 full packets are 12 ms of 100 Gbit/s.
LIMIT_PACKETS = 100_000

NO_NETEM = (
    "This kernel has no netem (sch_netem: modprobe sch_netem, or a kernel built with CONFIG_NET_SCH_NETEM). "
    '"--link ferry" needs only /dev/net/tun.'
)


class Netem:
    """The delaying link: one-way delay per direction (outward near to far, homeward far to near)."""

    kind = "netem"

    def __init__(self, near: Process, far: Process, interface: str) -> None:
        self.ends = (near, far)
        self.interface = interface
        self.delay_ns = (0, 0)
        self.lost = False

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Delay packets this long from now on."""
        self.delay_ns = (max(outward_ns, 0), max(homeward_ns, 0))
        self.apply("change")

    def cut(self) -> None:
        """Lose every packet in both directions until heal()."""
        self.lost = True
        self.apply("change")

    def heal(self) -> None:
        """Carry packets again."""
        self.lost = False
        self.apply("change")

    def apply(self, command: str) -> None:
        """Bring both ends' qdiscs to what is asked."""
        for end, delay_ns in zip(self.ends, self.delay_ns, strict=True):
            end.call(set_netem, self.interface, command, delay_ns, self.lost)

    def counters(self) -> dict[str, int]:
        """What both qdiscs did since they were made."""
        both = [end.call(netem_counters, self.interface) for end in self.ends]
        return {name: both[0][name] + both[1][name] for name in both[0]}


@contextmanager
def netem(near: Site, far: Site) -> Iterator[Netem]:
    """Join two sites by a veth pair with netem on both ends. UnfitError when the kernel has none."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(process(f"{site.name} link", site.namespace)) for site in (near, far)]
        interface = interface_of(near, far)
        ends[0].call(make_veth, interface, ends[1].pid)  # The pair goes with the namespaces.
        for end, address in zip(ends, addresses_of(near, far), strict=True):
            end.call(configure, interface, address)
        made = Netem(ends[0], ends[1], interface)
        made.apply("add")
        yield made


def make_veth(interface: str, far_pid: int) -> None:
    """At the near end: a veth pair, its other end in the far site's namespace under the same name."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        try:
            routes.link("add", ifname=interface, kind="veth", peer={"ifname": interface, "net_ns_pid": far_pid})
        except NetlinkError as refusal:
            raise UnfitError(f"create a veth pair: {refusal}. The kernel needs CONFIG_VETH.") from refusal


def set_netem(interface: str, command: str, delay_ns: int, lost: bool) -> None:
    """At one end: add or change the qdisc of its interface. pyroute2 takes whole microseconds: rounded up, so that no packet
    comes sooner than asked; calibration sees the rest."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=interface)[0]
        try:
            routes.tc(
                command, "netem", index=index, handle="1:", delay=-(-delay_ns // 1000), limit=LIMIT_PACKETS,
                loss=100 if lost else 0,
            )  # fmt: skip
        except NetlinkError as refusal:
            raise UnfitError(f"tc qdisc {command} netem: {refusal}. {NO_NETEM}") from refusal


def netem_counters(interface: str) -> dict[str, int]:
    """At one end: packets, bytes and drops of its qdisc."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=interface)[0]
        for qdisc in routes.get_qdiscs(index=index):
            if qdisc.get_attr("TCA_KIND") == "netem":
                return counters_of(qdisc)
    return {"packets": 0, "bytes": 0, "drops": 0, "cut_drops": 0, "full": 0}


def counters_of(qdisc) -> dict[str, int]:
    """The counters in one qdisc message, from TCA_STATS2 or the older TCA_STATS."""
    stats = qdisc.get_attr("TCA_STATS")
    return {
        "packets": int(stats["packets"]), "bytes": int(stats["bytes"]), "drops": int(stats["drop"]),
        "cut_drops": 0, "full": int(stats["overlimits"]),
    }  # fmt: skip


def netem_works(near: Site) -> str | None:
    """None when the near site's kernel can delay packets, otherwise the reason. Tries it on the site's own loopback."""
    return near.call(try_netem)


def try_netem() -> str | None:
    """In a site: put netem on loopback and take it off again."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        index = routes.link_lookup(ifname="lo")[0]
        try:
            routes.tc("add", "netem", index=index, handle="1:", delay=0, limit=LIMIT_PACKETS)
            routes.tc("del", "netem", index=index, handle="1:")
        except NetlinkError as refusal:
            return f"tc qdisc add netem answers: {os.strerror(refusal.code)}"
    return None
