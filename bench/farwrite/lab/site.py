"""A site: a place of its own with a network namespace, a disk and a process that works there.

The process may be killed and started again; namespace and disk outlive it. What a site's process does is a module-level
function that is called in it; the functions that touch its network are here. What a round needs of a site is `AnySite`, which
the far site on another machine is as well (experiment/remote).
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np

from ..base.host import tun
from ..base.host.disk import Disk
from ..base.wire.congestion import CONGESTION
from . import process as processes
from .namespace import Loopback, Place
from .relay_door import Doors
from .shared_memory import Board

Ends = tuple[str, str]  # The address at one end of a link, and the one at its other end.


class SeenBoard(Protocol):
    """What is read of a site's board."""

    @property
    def words(self) -> np.ndarray: ...
    @property
    def counters(self) -> np.ndarray: ...


def address_of(index: int) -> str:
    """The one address of the index-th site. RFC 2544 set 198.18.0.0/15 aside for benchmarks between network devices."""
    return f"198.18.0.{index + 1}"


def interface_of(near: Site, far: Site) -> str:
    """The interface, at both its ends, of the link between two sites."""
    return f"far{far.index - 1}" if near.index == 0 else f"far{near.index - 1}far{far.index - 1}"


def addresses_of(near: Site, far: Site) -> tuple[Ends, Ends]:
    """The addresses at both ends of that link. A site is reached by the same one from everywhere."""
    return (near.address, far.address), (far.address, near.address)


class AnySite(ABC):
    """A site, wherever its process runs: the first, "near", has the writer, the others a second copy each."""

    name: str
    index: int  # The near site is 0.
    address: str  # under which other sites reach it; empty: they do not
    disk: Disk
    board: SeenBoard
    doors: Mapping[int, Doors] = MappingProxyType({})  # of the relays that it is reached through, by the index of the other site

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The number of its process; None where that runs on another machine."""

    @abstractmethod
    def begin(self) -> None:
        """Start the site's process; after kill() this is the machine coming back."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL the site's process, as a crash would end it."""

    @abstractmethod
    def start(self, function: Callable, *arguments: Any) -> None:
        """Begin function(*arguments) in the site's process; answer() waits for it."""

    @abstractmethod
    def poll(self, timeout_s: float) -> bool:
        """Whether what start() began has come to its end, if only that of the process, within the timeout."""

    @abstractmethod
    def answer(self, timeout_s: float | None = 60.0) -> Any:
        """The result of what start() began."""

    def call(self, function: Callable, *arguments: Any, timeout_s: float | None = 60.0) -> Any:
        """function(*arguments) in the site's process."""
        self.start(function, *arguments)
        return self.answer(timeout_s)

    def held(self, name: str) -> str:
        """The name under which another site holds its connection of this name to this one."""
        return f"{name} {self.index - 1}" if self.index > 1 else name

    def taken(self, name: str) -> str:
        """The name under which another site holds the connection that this one made to it."""
        return f"{name} from {self.name}" if self.index else name


class LocalSite(AnySite):
    """A site whose process is one of this machine's, in this machine's own network unless it is given a place."""

    def __init__(self, name: str, disk: Disk, board: Board, index: int = 0, place: Place | None = None) -> None:
        self.name, self.index, self.disk, self.board = name, index, disk, board
        self.place = place
        self.address = ""
        self.doors: dict[int, Doors] = {}
        self.process: processes.Process | None = None
        self.processors: set[int] | None = None  # that its processes may run on; None: all
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.stack.close()

    @property
    def running(self) -> processes.Process:
        """Its process, which may have ended."""
        assert self.process is not None
        return self.process

    @property
    def pid(self) -> int:
        return self.running.pid

    def begin(self) -> None:
        self.board.words[:] = 0
        self.process = self.stack.enter_context(processes.process(self.name, self.place))
        if self.processors:
            self.stay_on(self.processors)

    def stay_on(self, processors: set[int]) -> None:
        """Have the site's process run on these processors only, now and after it has come back."""
        self.processors = processors
        self.call(os.sched_setaffinity, 0, processors)

    def kill(self) -> None:
        self.running.kill()

    def start(self, function: Callable, *arguments: Any) -> None:
        self.running.start(function, *arguments)

    def poll(self, timeout_s: float) -> bool:
        return self.running.poll(timeout_s)

    def answer(self, timeout_s: float | None = 60.0) -> Any:
        return self.running.answer(timeout_s)


class Site(LocalSite):
    """A site in a place of its own."""

    def __init__(self, name: str, namespace: Place, disk: Disk, board: Board, index: int = 0) -> None:
        super().__init__(name, disk, board, index, namespace)
        self.namespace = namespace
        self.address = namespace.address or address_of(index)

    def open_tun(self, interface: str, address: Ends, mtu_bytes: int | None = None) -> int:
        """A descriptor of a new TUN device in this site's namespace, addressed and up."""
        self.call(make_tun, interface)
        self.call(configure, interface, address, mtu_bytes)
        self.start(give_tun)
        descriptor = recv_handle(self.running.connection)
        self.answer()
        return descriptor


HELD: dict[str, int] = {}  # Descriptors that the site's process holds between two calls.


def make_tun(interface: str) -> None:
    """In the site: create the TUN device."""
    HELD["tun"] = tun.open_tun(interface)


def give_tun() -> None:
    """In the site: hand the TUN's descriptor to our parent, and keep none."""
    assert processes.CONNECTION is not None
    descriptor = HELD.pop("tun")
    send_handle(processes.CONNECTION, descriptor, os.getppid())
    os.close(descriptor)


def configure(interface: str, address: Ends, mtu_bytes: int | None = None) -> None:
    """In the site: bring up loopback and `interface` with its two addresses, and quieten everything that is not ours."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    setting("net/ipv6/conf/all/disable_ipv6", "1")  # No router solicitations among the measured packets.
    with IPRoute() as routes:
        routes.link("set", index=routes.link_lookup(ifname="lo")[0], state="up")
        index = routes.link_lookup(ifname=interface)[0]
        routes.addr("add", index=index, local=address[0], address=address[1], prefixlen=32)
        # A full queue of 64 KiB segments would be dropped at the default 500 when the far side is slow.
        routes.link("set", index=index, state="up", txqlen=10_000, **({"mtu": mtu_bytes} if mtu_bytes else {}))
        # Of programs that do not choose. A namespace's default is refused by kernels that let nobody choose what the host has.
        with contextlib.suppress(NetlinkError):
            routes.route(
                "replace", dst=f"{address[1]}/32", oif=index, prefsrc=address[0], scope="link", metrics={"cc_algo": CONGESTION}
            )


def setting(name: str, value: str | None) -> str:
    """In the site: change a sysctl of this namespace if we may (with None only look); answers the value in force."""
    path = Path("/proc/sys") / name
    if value is not None:
        with contextlib.suppress(OSError):
            path.write_text(value)
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def tune_transport(place: Place) -> dict[str, str]:
    """In the site: TCP as links between sites are run; answers what is in force. Not for the whole machine."""
    ours = not isinstance(place, Loopback)
    return {
        # A paced workload must not pay slow start again after each pause; such links are kept warm.
        "slow_start_after_idle": setting("net/ipv4/tcp_slow_start_after_idle", "0" if ours else None),
        "send_buffer": send_buffer(ours),
    }


def send_buffer(fully: bool) -> str:
    """In the site: the send buffer that a connection begins with, in bytes; `fully`: as large as TCP may make it, from now on.

    It begins with 16 KiB otherwise and grows with the window, so for its first second over 3 000 miles a writer under protocol A
    waited for slow start: 31 writes in the first 100 ms, 800 now.
    """
    name = "net/ipv4/tcp_wmem"
    sizes = setting(name, None).split()
    if fully and len(sizes) == 3:
        sizes = setting(name, f"{sizes[0]} {sizes[2]} {sizes[2]}").split()
    return sizes[1] if len(sizes) == 3 else "unknown"
