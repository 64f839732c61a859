"""netem: the kernel's own delay line on a veth pair, set through netlink.

Delay is egress-only, so each end delays what it sends. Segmentation offload is off: netem counts a super-packet as one.
tc-netem(8).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UnfitError
from .site import INTERFACE, Site, configure

# netem drops silently beyond its limit. 100 000 full packets are 12 ms of 100 Gbit/s.
LIMIT_PACKETS = 100_000

NO_NETEM = (
    "This kernel has no netem (sch_netem: modprobe sch_netem, or a kernel built with CONFIG_NET_SCH_NETEM). "
    '"--link ferry" needs only /dev/net/tun.'
)


class Netem:
    """The delaying link: one-way delay per direction (outward near to far, homeward far to near)."""

    kind = "netem"

    def __init__(self, near: Site, far: Site) -> None:
        self.near, self.far = near, far
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
        for site, delay_ns in zip((self.near, self.far), self.delay_ns, strict=True):
            site.call(set_netem, command, delay_ns, self.lost)

    def counters(self) -> dict[str, int]:
        """What both qdiscs did since they were made."""
        both = [site.call(netem_counters) for site in (self.near, self.far)]
        return {name: both[0][name] + both[1][name] for name in both[0]}


@contextmanager
def netem(near: Site, far: Site) -> Iterator[Netem]:
    """Join two sites by a veth pair with netem on both ends. UnfitError when the kernel has none."""
    assert far.process is not None
    near.call(make_veth, far.process.pid)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: near.call(remove_veth))
        for site in (near, far):
            site.call(configure, INTERFACE, site.address)
        made = Netem(near, far)
        made.apply("add")
        yield made


def make_veth(far_pid: int) -> None:
    """In the near site: a veth pair, its other end in the far site's namespace under the same name."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        try:
            routes.link("add", ifname=INTERFACE, kind="veth", peer={"ifname": INTERFACE, "net_ns_pid": far_pid})
        except NetlinkError as refusal:
            raise UnfitError(f"create a veth pair: {refusal}. The kernel needs CONFIG_VETH.") from refusal


def remove_veth() -> None:
    """In the near site: remove the pair; the far end goes with it."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        for index in routes.link_lookup(ifname=INTERFACE):
            routes.link("del", index=index)


def set_netem(command: str, delay_ns: int, lost: bool) -> None:
    """In a site: add or change the qdisc of its interface. pyroute2 takes whole microseconds; calibration sees the rest."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=INTERFACE)[0]
        try:
            routes.tc(
                command, "netem", index=index, handle="1:", delay=round(delay_ns / 1000), limit=LIMIT_PACKETS,
                loss=100 if lost else 0,
            )  # fmt: skip
        except NetlinkError as refusal:
            raise UnfitError(f"tc qdisc {command} netem: {refusal}. {NO_NETEM}") from refusal


def netem_counters() -> dict[str, int]:
    """In a site: packets, bytes and drops of its qdisc."""
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        index = routes.link_lookup(ifname=INTERFACE)[0]
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
            return f"tc qdisc add netem: {refusal}"
    return None
