"""The link between two sites: what is asked of it, and which of the emulations carries it.

`netem` is the kernel's own and is taken first; `ferry` carries packets in user space where the kernel has no netem; `relay`
carries bytes where there are no namespaces at all. All have the same verbs, which `Link` documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ..base.errors import UnfitError
from ..base.host.tun import tun_works
from ..workload.link_spec import PLAIN, LinkDirection, LinkSpec
from .ferry import ferry
from .namespace import Place, loopbacks, namespaces
from .netem import NO_NETEM, netem, netem_works
from .process import Process, process
from .relay import relay
from .site import Site


class Link(Protocol):
    """The two directions between two sites. Every verb acts at once, on packets that come from now on."""

    kind: str
    carriers: tuple[int, ...] | None  # processes that carry its packets: none where the kernel does; None: not ours to know

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        """The distance: how long packets are held in each direction, as the span sets it."""

    def set_directions(self, outward: LinkDirection, homeward: LinkDirection) -> None:
        """Everything that is asked of each direction besides, in place of what was asked before."""

    def cut(self, outward: bool = True, homeward: bool = True) -> None:
        """Lose every packet of these directions, until heal(); one alone is a one-way blackhole."""

    def heal(self) -> None:
        """Carry packets again."""

    def counters(self) -> dict[str, int]:
        """What the link did since it was made, both directions together; each emulation tells what it knows."""

    def late_ns_max(self) -> int | None:
        """How late the latest packet left since this was last asked; None where nobody knows."""

    def late_counts(self) -> np.ndarray | None:
        """(2, SLOTS): how late every packet left since the link was made, by direction, as a histogram counts; None where only
        the kernel knows."""

    def facts(self) -> dict[str, str]:
        """How the packets are carried, for who reads the report."""


class SetElsewhere:
    """The null form: a link that the process which opened the lab sets and counts."""

    carriers: tuple[int, ...] | None = None

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def set_delay_ns(self, outward_ns: int, homeward_ns: int) -> None:
        pass

    def set_directions(self, outward: LinkDirection, homeward: LinkDirection) -> None:
        pass

    def cut(self, outward: bool = True, homeward: bool = True) -> None:
        pass

    def heal(self) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}

    def late_ns_max(self) -> None:
        pass

    def late_counts(self) -> None:
        pass

    def facts(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class Choice:
    """Which emulation carries the link, and why."""

    kind: str
    reason: str


@contextmanager
def ground(kind: str, count: int) -> Iterator[tuple[Choice, list[Place]]]:
    """The emulation to use, and `count` places for sites that it can join, open exactly as long as this block.

    The relay asks nothing of the system, so "auto" finds a way everywhere. UnfitError (exit 6) when what is asked is impossible.
    """
    if kind == "relay":
        yield Choice("relay", "asked for; stream-level"), list(loopbacks(count))
        return
    with ExitStack() as stack:
        refusal = None
        try:
            places: list[Place] = list(stack.enter_context(namespaces(count)))
            choice = choose(kind, places[0])
        except UnfitError as unfit:
            if kind != "auto":
                raise
            refusal = unfit
        if refusal:
            stack.close()
            why = str(refusal).partition(". ")[0]
            choice, places = Choice("relay", f"stream-level, because no packets can be held here: {why}"), list(loopbacks(count))
        yield choice, places


def choose(kind: str, place: Place) -> Choice:
    """The emulation to use in such places; UnfitError when what is asked, or everything that carries packets, is impossible."""
    with process("trial", place) as near:
        return choice_of(kind, near)


def choice_of(kind: str, near: Process) -> Choice:
    """choose(), with a process that may try it."""
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
    tun_refusal = near.call(tun_works)
    if tun_refusal is None:
        return Choice("ferry", f"the kernel has no netem ({netem_refusal}); the ferry needs only /dev/net/tun")
    raise UnfitError(f"netem: {netem_refusal}, ferry: {tun_refusal}")


@contextmanager
def emulate(choice: Choice, near: Site, far: Site, spec: LinkSpec = PLAIN, polls: bool = False) -> Iterator[Link]:
    """The link, with what is asked of it, open exactly as long as this block; `polls`: it may have a processor to itself."""
    makers: dict[str, Callable[..., AbstractContextManager[Link]]] = {
        "netem": netem, "ferry": partial(ferry, polls=polls), "relay": relay
    }  # fmt: skip
    with makers[choice.kind](near, far, spec) as link:
        link.set_directions(*spec.directions)
        yield link


@contextmanager
def bare(link: Link, spec: LinkSpec) -> Iterator[None]:
    """The link with nothing but its delay inside this block: how a distance is proven. Jitter would blur it, and a
    lost echo is no distance."""
    if all(direction.is_plain for direction in spec.directions):
        yield
        return
    link.set_directions(LinkDirection(), LinkDirection())
    try:
        yield
    finally:
        link.set_directions(*spec.directions)
