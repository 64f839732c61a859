"""The link between two sites: what is asked of it, and which of the emulations carries it.

`netem` is the kernel's own and is taken first; `ferry` carries packets in user space where the kernel has no netem. Both have the
same verbs, which `Link` documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import UnfitError
from ..host.tun import tun_works
from ..link_spec import PLAIN, LinkSpec, Way
from .ferry import ferry
from .netem import NO_NETEM, netem, netem_works
from .site import Site

LinkKind = Literal["auto", "netem", "ferry"]


class Link(Protocol):
    """The two directions between two sites. Every verb acts at once, on packets that come from now on."""

    kind: str

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """The distance: how long packets are held in each direction, calibrated by the lab."""

    def set_ways(self, outward: Way, homeward: Way) -> None:
        """Everything that is asked of each direction besides, in place of what was asked before."""

    def cut(self) -> None:
        """Lose every packet in both directions, until heal()."""

    def heal(self) -> None:
        """Carry packets again."""

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together; each emulation tells what it knows."""

    def late_ns_max(self) -> int | None:
        """How late the latest packet left since this was last asked; None where nobody knows."""

    def facts(self) -> dict[str, str]:
        """How the packets are carried, for who reads the report."""


class SetElsewhere:
    """The null form: a link that the process which opened the lab sets and counts."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        pass

    def set_ways(self, outward: Way, homeward: Way) -> None:
        pass

    def cut(self) -> None:
        pass

    def heal(self) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}

    def late_ns_max(self) -> None:
        pass

    def facts(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class Choice:
    """Which emulation carries the link, and why."""

    kind: str
    reason: str


def choose(kind: str, near: Site) -> Choice:
    """The emulation to use; UnfitError (exit 6) when what is asked, or everything, is impossible here."""
    if kind == "netem":
        refusal = netem_works(near)
        if refusal:
            raise UnfitError(f"{refusal}. {NO_NETEM}")
        return Choice("netem", "asked for")
    if kind == "ferry":
        return Choice("ferry", "asked for")
    netem_refusal = netem_works(near)
    if netem_refusal is None:
        return Choice("netem", "the kernel has sch_netem")
    tun_refusal = tun_works()
    if tun_refusal is None:
        return Choice("ferry", f"the kernel has no netem ({netem_refusal}); the ferry needs only /dev/net/tun")
    raise UnfitError(
        f"No way to emulate a distance here. netem: {netem_refusal}. ferry: {tun_refusal}. "
        "Load one of the modules (modprobe sch_netem, modprobe tun), or in Docker add "
        "--device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN."
    )


@contextmanager
def emulate(choice: Choice, near: Site, far: Site, spec: LinkSpec = PLAIN) -> Iterator[Link]:
    """The link, with what is asked of it, open exactly as long as this block."""
    make: Callable[[Site, Site, LinkSpec], AbstractContextManager[Link]] = netem if choice.kind == "netem" else ferry
    with make(near, far, spec) as link:
        link.set_ways(*spec.ways)
        yield link


@contextmanager
def bare(link: Link, spec: LinkSpec) -> Iterator[None]:
    """The link with nothing but its delay inside this block: how a distance is calibrated and proven. Jitter would blur it, and a
    lost echo is no distance."""
    if all(way.is_plain for way in spec.ways):
        yield
        return
    link.set_ways(Way(), Way())
    try:
        yield
    finally:
        link.set_ways(*spec.ways)
