"""The link between two sites: what is asked of it, and which of the emulations carries it.

`netem` is the kernel's own and is taken first; `ferry` carries packets in user space where the kernel has no netem. Both have the
same verbs: set_delay_ns, cut, heal, counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import UnfitError
from ..host.tun import tun_works
from .ferry import ferry
from .netem import NO_NETEM, netem, netem_works
from .site import Site

LinkKind = Literal["auto", "netem", "ferry"]


class Link(Protocol):
    """The two directions between two sites."""

    kind: str

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None: ...
    def cut(self) -> None: ...
    def heal(self) -> None: ...
    def counters(self) -> dict[str, int]: ...


class SetElsewhere:
    """The null form: a link that the process which opened the lab sets and counts."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        pass

    def cut(self) -> None:
        pass

    def heal(self) -> None:
        pass

    def counters(self) -> dict[str, int]:
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
def emulate(choice: Choice, near: Site, far: Site) -> Iterator[Link]:
    """The link, open exactly as long as this block."""
    make: Callable[[Site, Site], AbstractContextManager[Link]] = netem if choice.kind == "netem" else ferry
    with make(near, far) as link:
        yield link
