"""netem: the kernel's own delay line on a veth pair, set through netlink. tc-netem(8).

All of netem acts on egress, so each end delays what it sends. netem sorts by when packets are due, so jitter or a shorter delay
would reorder them; a rate keeps them in line, and where none is asked it is one that nothing reaches. A super-packet of
segmentation offload is one packet to netem: where that matters TCP is told to make none.

Owns the pair and a process in each namespace to set it by: the sites' own are busy while a load runs, and may be killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..base.errors import UnfitError
from ..workload.link_spec import PLAIN, LinkDirection, LinkSpec
from .netem_options import Asked, teach_pyroute2
from .process import Process, process
from .site import Site, addresses_of, configure, interface_of

SEGMENTS_MAX = 65_535  # The kernel's own bound of what segmentation offload takes at once.

NO_NETEM = (
    "This kernel has no netem (sch_netem: modprobe sch_netem, or a kernel built with CONFIG_NET_SCH_NETEM). "
    '"--link ferry" needs only /dev/net/tun.'
)


class Netem:
    """The delaying link: per direction (outward near to far, homeward far to near) a delay, and a way."""

    kind = "netem"
    carriers: tuple[int, ...] | None = ()  # The kernel's own threads.

    def __init__(self, near: Process, far: Process, interface: str, spec: LinkSpec) -> None:
        self.ends = (near, far)
        self.interface = interface
        self.mtu_bytes = spec.mtu_bytes or 1500
        self.counts_packets = any(direction.counts_packets for direction in spec.directions)
        self.delay_ns = (0, 0)
        self.directions = (LinkDirection(), LinkDirection())
        self.lost = [False, False]

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """Delay packets this long from now on."""
        self.delay_ns = (max(outward_ns, 0), max(homeward_ns, 0))
        self.apply("change")

    def set_directions(self, outward: LinkDirection, homeward: LinkDirection) -> None:
        """Do with packets what is asked besides the delay from now on."""
        self.directions = (outward, homeward)
        self.apply("change")

    def cut(self, outward: bool = True, homeward: bool = True) -> None:
        """Lose every packet of these directions until heal()."""
        self.lost = [self.lost[0] or outward, self.lost[1] or homeward]
        self.apply("change")

    def heal(self) -> None:
        """Carry packets again."""
        self.lost = [False, False]
        self.apply("change")

    def apply(self, command: str) -> None:
        """Bring both ends' qdiscs to what is asked."""
        for end, delay_ns, direction, lost in zip(self.ends, self.delay_ns, self.directions, self.lost, strict=True):
            segments = 1 if self.counts_packets or direction.counts_packets else SEGMENTS_MAX
            end.call(set_netem, self.interface, command, Asked(delay_ns, direction, lost, self.mtu_bytes), segments)

    def counters(self) -> dict[str, int]:
        """What both qdiscs did since they were made; `drops` are losses and what found the queue full, `backlog` is now."""
        both = [end.call(netem_counters, self.interface) for end in self.ends]
        return {name: both[0][name] + both[1][name] for name in both[0]}

    def late_ns_max(self) -> None:
        """The kernel does not tell how late packets leave."""

    def late_counts(self) -> None:
        """The kernel does not tell how late packets leave."""

    def facts(self) -> dict[str, str]:
        """How the packets are carried."""
        words = "bounded to one packet, so that each of the wire is one to netem" if self.counts_packets else "on"
        return {"segmentation offload": words}


@contextmanager
def netem(near: Site, far: Site, spec: LinkSpec = PLAIN) -> Iterator[Netem]:
    """Join two sites by a veth pair with netem on both ends. UnfitError when the kernel has none."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(process(f"{site.name} link", site.namespace)) for site in (near, far)]
        interface = interface_of(near, far)
        ends[0].call(make_veth, interface, ends[1].pid)  # The pair goes with the namespaces.
        for end, address in zip(ends, addresses_of(near, far), strict=True):
            end.call(configure, interface, address, spec.mtu_bytes)
        made = Netem(ends[0], ends[1], interface, spec)
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


def set_netem(interface: str, command: str, asked: Asked, segments: int) -> None:
    """At one end: add or change the qdisc of its interface, and bound what TCP hands it at once.

    A connection takes that bound over when it is made, and keeps it.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=interface)[0]
        try:
            send_netem(routes, index, command, asked)
            routes.link("set", index=index, gso_max_segs=segments)
        except NetlinkError as refusal:
            raise UnfitError(f"tc qdisc {command} netem: {refusal}. {NO_NETEM}") from refusal


def send_netem(routes, index: int, command: str, asked: Asked) -> None:
    """One request, in our encoding."""
    teach_pyroute2()
    routes.tc(command, "netem", index=index, handle="1:", asked=asked)


def netem_counters(interface: str) -> dict[str, int]:
    """At one end: packets, bytes and drops of its qdisc."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=interface)[0]
        for qdisc in routes.get_qdiscs(index=index):
            if qdisc.get_attr("TCA_KIND") == "netem":
                return counters_of(qdisc)
    return {"packets": 0, "bytes": 0, "drops": 0, "cut_drops": 0, "full": 0, "backlog": 0}


def counters_of(qdisc) -> dict[str, int]:
    """The counters in one qdisc message."""
    stats = qdisc.get_attr("TCA_STATS")
    return {
        "packets": int(stats["packets"]), "bytes": int(stats["bytes"]), "drops": int(stats["drop"]),
        "cut_drops": 0, "full": int(stats["overlimits"]), "backlog": int(stats["qlen"]),
    }  # fmt: skip


def netem_works(near: Process) -> str | None:
    """None when the kernel can delay packets, otherwise the reason. Tries it on the loopback of that process's namespace."""
    return near.call(try_netem)


def try_netem() -> str | None:
    """In a site: put netem on loopback and take it off again."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        index = routes.link_lookup(ifname="lo")[0]
        try:
            send_netem(routes, index, "add", Asked(0, LinkDirection(), False, 1500))
            routes.tc("del", "netem", index=index, handle="1:")
        except NetlinkError as refusal:
            return f"tc qdisc add netem answers: {os.strerror(refusal.code)}"
    return None
