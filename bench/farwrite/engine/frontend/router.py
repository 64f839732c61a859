"""The router of a striped volume: one address for clients, in front of the groups that hold its chunks.

Who comes is negotiated with as at every door (nbd_door.py) and adopted by the loop (router_kernel.py), which no Python runs for
from then on. A thread for each group makes its connection, and makes another one when that is lost, or when the address leads to
another server than the one it was made with: whoever leads a group moves its `volume.sock`. `held` holds all answers back, which
is how a snapshot of several groups is of one instant; `fenced` holds all parts back, which is how the map of chunks changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ...base.errors import UnfitError
from ...base.host import libc
from . import nbd, router_kernel
from . import router_state as rows
from . import session_kernel as sessions
from .nbd_client import NbdClient, Place
from .nbd_negotiation import Chosen
from .router_map import CHUNK_BYTES, Map, map_of

LIMIT_S = 60.0  # For a group to answer: longer than a failover, after which the client is hung up on.
LINK_S = 5.0  # For a connection to a group, and its negotiation.
AGAIN_S, AGAIN_S_MAX = 0.01, 1.0  # After one that did not come about; doubled each time.
LOOK_S = 0.1  # At the address of a group: whether it leads elsewhere by now.
ACK_S = 5.0  # For the loop to keep to a hold; it turns in microseconds.
DRAIN_S = 5.0
ACK_LOOK_S = 0.00005
IDLE_VIEWS_S = 1.0

LIES = {
    rows.LIE_MAGIC: "what should be an answer does not begin like one", rows.LIE_COOKIE: "an answer is to nothing that was asked",
    rows.LIE_KIND: "a chunk is of a kind that does not answer what was asked",
    rows.LIE_LENGTH: "a chunk has a length that it cannot have",
    rows.LIE_RANGE: "data comes that was not asked for, or not in its order", rows.LIE_SHORT: "an answer is over and not whole",
    rows.LIE_CONTEXT: "a block status is of no context that was asked for",
}  # fmt: skip

LOG = logging.getLogger(__name__)


class View(NamedTuple):
    """An export of all groups, as clients see it."""

    export: str  # its name at the groups' doors
    since: str  # the older snapshot that changed-since is about; empty: none


class Link(threading.Thread):
    """Keeps one upstream connected, until it is to end."""

    def __init__(self, router: Router, up: int, address: str, view: View) -> None:
        super().__init__(name=f"link {up}", daemon=True)
        self.router, self.up, self.address, self.view = router, up, address, view
        self.due, self.ends = threading.Event(), False
        self.leads_to, self.said = "", ""
        self.linking = threading.Lock()  # A connection to an old address is handed over before the cut that ends it, or never.

    def run(self) -> None:
        pause_s = AGAIN_S
        upstream = self.router.state.upstream[self.up]
        while not self.ends:
            if int(upstream.state) == rows.UP:
                pause_s = AGAIN_S
                self.due.wait(LOOK_S)
                self.due.clear()
                if int(upstream.state) == rows.UP and target_of(self.address) not in ("", self.leads_to):
                    self.router.post(rows.CUT, index=self.up)  # Another replica leads: the old one may be stopped, and silent.
                continue
            if int(upstream.lie) and not self.said:
                self.say(f"is hung up on: {LIES.get(int(upstream.lie), 'it lies')}")
            try:
                self.connect()
                self.said = ""
                self.await_up()
            except (OSError, UnfitError) as refusal:
                self.say(f"is not reached: {getattr(refusal, 'strerror', None) or refusal}")
                self.due.wait(pause_s)
                self.due.clear()
                pause_s = min(2 * pause_s, AGAIN_S_MAX)

    def await_up(self) -> None:
        """Until the loop has taken the connection: its state says so from then on."""
        taken = int(self.router.state.at[0].mail_written)
        while int(self.router.state.at[0].mail_read) < taken and not self.ends and self.router.is_running:
            time.sleep(0.0005)
        if int(self.router.state.upstream[self.up].lie):
            time.sleep(AGAIN_S_MAX)  # It lies at once, each time.

    def connect(self) -> None:
        """Negotiate, and hand the connection over. UnfitError where the server is not one of this volume's groups."""
        address = self.address
        leads_to = target_of(address)
        contexts = [nbd.BASE_ALLOCATION, *([nbd.CHANGED_SINCE + self.view.since] if self.view.since else [])]
        client = NbdClient(Place(address, self.view.export), contexts, LINK_S)
        found = {name: number for number, name in client.contexts.items()}
        missing = [name for name in contexts if name not in found]
        wanted = self.router.member_bytes
        if missing or client.size < wanted:
            client.close()
            raise UnfitError(f"it has no {missing[0]}" if missing else f"it has {client.size} bytes, and {wanted} are needed")
        with self.linking:
            if self.address != address:  # The group has moved meanwhile.
                client.close()
                return
            self.leads_to = leads_to
            self.router.post(
                rows.LINK, descriptor=client.socket.detach(), index=self.up, allocation=found[contexts[0]],
                changed=found[contexts[1]] if self.view.since else -1,
            )  # fmt: skip

    def say(self, sentence: str) -> None:
        if sentence != self.said:
            LOG.warning("the group at %s %s.", self.address, sentence)
        self.said = sentence

    def end(self) -> None:
        self.ends = True
        self.due.set()


def target_of(address: str) -> str:
    """Where a link leads; empty where it is none."""
    try:
        return str(Path(address).readlink())
    except OSError:
        return ""


class Router:
    """A striped volume's loop and its connections, from `start` to `close`."""

    def __init__(
        self, addresses: Sequence[str], size_bytes: int, chunk_bytes: int = CHUNK_BYTES, limit_s: float = LIMIT_S,
        clients: int = rows.CLIENTS_MAX, chunks: Map | None = None,
    ) -> None:  # fmt: skip
        self.addresses, self.size_bytes = list(addresses), size_bytes
        self.epoll = select.epoll()
        self.wake_fd, self.lost_fd = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0)
        self.state = rows.router_state(self.epoll.fileno(), self.wake_fd, self.lost_fd, len(addresses), chunk_bytes, clients)
        at = self.state.at[0]
        at.limit_ns, at.stall_ns = int(limit_s * 1e9), sessions.STALL_NS
        asked = int(
            libc.epoll_control(
                self.epoll.fileno(), libc.EPOLL_CTL_ADD, self.wake_fd, libc.EPOLLIN, rows.WAKE_MARK, self.state.events
            )
        )
        assert asked == 0, os.strerror(-asked)
        self.lock, self.pausing, self.mapping = threading.Lock(), threading.Lock(), threading.Lock()
        self.holders = 0
        self.links: dict[View, list[Link]] = {}
        self.bases: dict[View, int] = {}
        self.unused_since: dict[View, float] = {}
        self.member_bytes = 0
        self.is_running, self.is_closed = False, False
        self.late = 0
        self.threads: list[threading.Thread] = []
        self.put_map(chunks or map_of(size_bytes, chunk_bytes, len(addresses)))

    # The loop

    def start(self, name: str = "volume") -> None:
        """Route, in a thread, and be connected to every group."""
        self.is_running = True
        self.threads = [threading.Thread(target=self.loop, daemon=True), threading.Thread(target=self.watch, daemon=True)]
        for thread in self.threads:
            thread.start()
        self.view(View(name, ""))

    def loop(self) -> None:
        status = int(router_kernel.run(self.state))
        self.is_running = False
        if status < 0:
            LOG.error("the router has ended: %s.", os.strerror(-status))

    def watch(self) -> None:
        """In a thread: have lost connections made anew, and say who was hung up on."""
        while not self.is_closed:
            os.eventfd_read(self.lost_fd)
            with self.lock:
                made = [link for links in self.links.values() for link in links]
            for link in made:
                link.due.set()

    def look(self) -> None:
        """Say what has happened, and let go of views that nobody uses. Called now and then."""
        counters = self.state.counters[0]
        if int(counters.late) > self.late:
            self.late = int(counters.late)
            group = int(counters.late_group) % len(self.addresses)
            LOG.warning(
                "a client was hung up on: the group at %s has not answered for %g s.", self.addresses[group],
                int(self.state.at[0].limit_ns) / 1e9,
            )  # fmt: skip
        now_s = time.monotonic()
        session = self.state.session
        used = {int(view) for view in session["base"][session["state"] != rows.FREE]}
        for view, base in tuple(self.bases.items()):
            if base == 0 or base in used:
                self.unused_since.pop(view, None)
            elif now_s - self.unused_since.setdefault(view, now_s) > IDLE_VIEWS_S:
                self.let_go(view)

    def wake(self) -> None:
        os.eventfd_write(self.wake_fd, 1)

    def post(self, kind: int, descriptor: int = -1, index: int = 0, **fields: int) -> bool:
        """Hand something over to the loop; False, and a socket is closed, where it has too much already."""
        at = self.state.at[0]
        with self.lock:
            if self.is_closed or int(at.mail_written) - int(at.mail_read) >= rows.MAIL_MAX:
                if descriptor >= 0:
                    os.close(descriptor)
                return False
            mail = self.state.mail[int(at.mail_written) % rows.MAIL_MAX]
            mail.kind, mail.socket, mail.index = kind, descriptor, index
            mail.flags, mail.size_bytes = fields.get("flags", 0), fields.get("size_bytes", 0)
            mail.allocation, mail.changed = fields.get("allocation", -1), fields.get("changed", -1)
            at.mail_written = int(at.mail_written) + 1
        self.wake()
        return True

    def close(self) -> None:
        """Hang up on everybody, and give back what it holds."""
        if self.is_closed:
            return
        with self.lock:
            self.is_closed = True
            made = [link for links in self.links.values() for link in links]
        for link in made:
            link.end()
        self.state.at[0].stop = 1
        self.wake()
        os.eventfd_write(self.lost_fd, 1)
        for thread in (*self.threads, *(link for link in made if link.ident is not None)):
            thread.join(LINK_S + 1)
        for rest in (*self.state.session["socket"], *self.state.upstream["socket"], *self.waiting_sockets()):
            if rest >= 0:
                os.close(int(rest))
        self.epoll.close()
        os.close(self.wake_fd)
        os.close(self.lost_fd)

    def waiting_sockets(self) -> list[int]:
        """Of connections that the loop has not taken."""
        at = self.state.at[0]
        mails = range(int(at.mail_read), int(at.mail_written))
        return [int(self.state.mail[one % rows.MAIL_MAX].socket) for one in mails]

    # Clients

    def view(self, view: View) -> int | None:
        """The first upstream of a view, which is connected from now on; None where there is no place for one more."""
        groups = len(self.addresses)
        with self.lock:
            if view in self.bases:
                return self.bases[view]
            taken = set(self.bases.values())
            base = next((one for one in range(0, rows.UPSTREAMS_MAX - groups + 1, groups) if one not in taken), None)
            if base is None or self.is_closed:
                return None
            self.bases[view] = base
            links = [Link(self, base + group, address, view) for group, address in enumerate(self.addresses)]
            self.links[view] = links
        for link in links:
            row = self.state.upstream[link.up]
            row.state, row.lie, row.down_ns = rows.DOWN, rows.NO_LIE, time.monotonic_ns()
            link.start()
        return base

    def let_go(self, view: View) -> None:
        """A view that no client uses: its connections end."""
        for link in self.links[view]:
            link.end()
        for link in self.links[view]:
            link.join(LINK_S)
            self.post(rows.CUT, index=link.up)
        with self.lock:
            self.links.pop(view)
            self.bases.pop(view)
        self.unused_since.pop(view, None)

    def adopt(self, connection: socket.socket, chosen: Chosen, export: str, since: str = "") -> bool:
        """Hand a client over to the loop, whatever becomes of it. `export`, `since`: as the groups call them."""
        base = self.view(View(export, since))
        flags = (
            sessions.READ_ONLY * chosen.export.is_read_only | sessions.STRUCTURED * chosen.is_structured
            | sessions.ALLOCATION * chosen.has_allocation | sessions.CHANGED * bool(chosen.since)
        )  # fmt: skip
        descriptor = connection.detach()
        if base is None:
            os.close(descriptor)
            self.state.counters[0].refused += 1
            return False
        return self.post(rows.CLIENT, descriptor=descriptor, index=base, flags=flags, size_bytes=chosen.export.size_bytes)

    def are_linked(self) -> bool:
        """Whether every group of the volume is connected."""
        return bool((self.state.upstream["state"][: len(self.addresses)] == rows.UP).all())

    # One instant, and another map

    @contextmanager
    def held(self) -> Iterator[None]:
        """No answer goes out inside this block: whatever was answered before it is complete in its groups, and nothing that
        depends on what is complete inside of it can be asked before it ends."""
        at = self.state.at[0]
        with self.pausing:
            self.holders += 1
            at.holds = self.holders
        try:
            self.wake()
            self.await_loop(lambda: int(at.held) > 0, ACK_S, "keep its answers back")
            yield
        finally:
            with self.pausing:
                self.holders -= 1
                at.holds = self.holders
            self.wake()

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """No part is under way inside this block, and none is sent. UnfitError where they are not answered in time."""
        at = self.state.at[0]
        with self.mapping:
            at.fences = 1
            try:
                self.wake()
                self.await_loop(lambda: int(at.fenced) > 0 and int(at.parts_open) == 0, DRAIN_S, "have its groups answer")
                yield
            finally:
                at.fences = 0
                self.wake()

    def await_loop(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        until_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until_s or not self.is_running:
                raise UnfitError(f"The router could not {what} within {limit_s:g} s.")
            time.sleep(ACK_LOOK_S)

    def put_map(self, chunks: Map) -> None:
        """Route by this map from now on. What is under way goes by the old one: only inside `fenced`, once clients are served."""
        count = len(chunks.home)
        assert count <= rows.CHUNKS_MAX and chunks.chunk_bytes == 1 << int(self.state.at[0].chunk_shift)
        self.state.home[:count], self.state.seat[:count] = chunks.home, chunks.seat
        self.state.at[0].map_version = chunks.version
        self.member_bytes = (int(chunks.seat.max()) + 1) * chunks.chunk_bytes if count else 0

    def move_group(self, group: int, address: str) -> None:
        """A group is at another address from now on, only inside `fenced`. The router ends if it cannot leave the old one: then
        nothing more is sent there, and whoever starts it again says where the group is."""
        at = self.state.at[0]
        with self.lock:
            self.addresses[group] = address
            links = [links[group] for links in self.links.values()]
        try:
            for link in links:
                with link.linking:
                    link.address = address
                    self.await_loop(lambda up=link.up: self.post(rows.CUT, index=up), ACK_S, "leave a group")  # type: ignore[misc]
                link.due.set()
            posted = int(at.mail_written)
            self.await_loop(lambda: int(at.mail_read) >= posted, ACK_S, "leave a group")
        except BaseException:
            at.stop = 1
            self.wake()
            raise

    def resize(self, size_bytes: int) -> None:
        """Another size, for clients that come from now on; the groups have theirs already. Connections are made anew."""
        at = self.state.at[0]
        chunk_bytes = 1 << int(at.chunk_shift)
        with self.fenced():
            self.put_map(map_of(size_bytes, chunk_bytes, len(self.addresses), int(at.map_version) + 1))
            self.size_bytes = size_bytes
            for group in range(len(self.addresses)):
                self.post(rows.CUT, index=group)


@contextmanager
def running(router: Router, name: str = "volume") -> Iterator[Router]:
    """A router that routes inside this block."""
    with contextlib.ExitStack() as stack:
        stack.callback(router.close)
        router.start(name)
        yield router
