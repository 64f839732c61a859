"""The routers of a served pool's striped volumes (striped.Routers): each a process, started again when it ends."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from ...base.errors import FarwriteError, UnfitError
from ...engine.frontend.nbd_client import Place
from ...lab.lab import Lab
from ...lab.process import Process, process
from ...lab.shared_memory import Board, board
from ..serve.control import FOLLOWS
from ..serve.server import Asked, speak
from ..voters import why_ended
from .document import Stripe
from .group import run_alone, volume_sockets
from .moves import GroupMoves
from .router_process import BOARD_WORDS, DRAIN_S, READY, ROUTER, SIZE_BYTES, STOP, Order, run_router, waited
from .steps import Pool

STARTS_S = 20.0
AGAIN_S = 1.0  # After one that has ended.


@dataclass
class Routing:
    """One router."""

    own: contextlib.ExitStack
    directory: Path
    board: Board
    made: Process | None = None
    until_s: float = 0.0  # it is not started again before that


class RouterProcesses:
    """All of them."""

    def __init__(self, stack: contextlib.ExitStack, lab: Lab, pool: Pool, asked: Asked, sockets: Path) -> None:
        self.stack, self.lab, self.pool, self.asked, self.sockets = stack, lab, pool, asked, sockets
        self.routing: dict[str, Routing] = {}
        self.refused: dict[str, str] = {}
        self.moves = GroupMoves(pool, sockets)

    def say(self, stripe: Stripe, sentence: str) -> None:
        if not self.asked.is_quiet:
            speak(f"farwrite pool: {stripe.name}: {sentence}\n")

    def begin_all(self) -> None:
        """Serve every striped volume; its members are served already, or refused."""
        for stripe in self.pool.document.stripes:
            try:
                self.begin_router(stripe)
            except FarwriteError as refusal:
                self.end_router(stripe)
                self.refused[stripe.name] = str(refusal)
                self.say(stripe, f"it is not served: {refusal}")

    def begin_router(self, stripe: Stripe) -> None:
        own = contextlib.ExitStack()
        self.stack.callback(own.close)
        directory = own.enter_context(volume_sockets(self.sockets / stripe.name))
        self.routing[stripe.name] = Routing(own, directory, own.enter_context(board(BOARD_WORDS)))
        self.refused.pop(stripe.name, None)
        self.start(stripe)
        one = self.routing[stripe.name]
        if not waited(lambda: bool(one.board.words[READY]) or (one.made is not None and one.made.poll(0)), STARTS_S):
            raise UnfitError(f"the router of volume {stripe.name} does not answer.")

    def start(self, stripe: Stripe) -> None:
        one = self.routing[stripe.name]
        one.board.words[:] = 0
        one.board.words[SIZE_BYTES] = stripe.size_bytes
        own = contextlib.ExitStack()
        one.own.callback(own.close)
        one.made = own.enter_context(process(f"router-{stripe.name}", self.lab.near.place))  # type: ignore[attr-defined]
        order = Order(
            stripe.name, stripe.number, stripe.size_bytes, stripe.chunk_bytes, one.directory,
            tuple(self.sockets / member for member in stripe.members()), self.pool.record_of(stripe), self.asked.is_verbose,
        )  # fmt: skip
        # The pool's lock goes with it, as with replicas: until then it may write down where a group is.
        one.made.start(run_alone, [self.pool.lock_fd], run_router, order, one.board)

    def look(self) -> None:
        """Start again whoever has ended."""
        for stripe in self.pool.document.stripes:
            one = self.routing.get(stripe.name)
            if one is None or stripe.state != "ready":
                continue
            if one.made is not None and (one.made.ended or one.made.poll(0)):
                self.say(stripe, f"its router has ended{why_ended(one.made)}. It is started again in {AGAIN_S:g} s.")
                one.made.kill()
                one.made, one.until_s = None, time.monotonic() + AGAIN_S
            if one.made is None and time.monotonic() >= one.until_s:
                self.start(stripe)

    def resize_router(self, stripe: Stripe) -> None:
        one = self.routing.get(stripe.name)
        if one is not None:
            one.board.words[SIZE_BYTES] = stripe.size_bytes

    def end_router(self, stripe: Stripe) -> None:
        one = self.routing.pop(stripe.name, None)
        if one is None:
            return
        one.board.words[STOP] = 1
        if one.made is not None and not one.made.ended:
            if one.made.busy and not one.made.poll(DRAIN_S + 2):
                self.say(stripe, "its router did not end in order.")
            one.made.kill()
        one.own.close()

    def end_all(self) -> None:
        for stripe in tuple(self.pool.document.stripes):
            self.end_router(stripe)

    def live(self) -> dict[str, dict[str, str]]:
        """By volume: leader, sockets, uri, status."""
        found = {}
        for stripe in self.pool.document.stripes:
            one = self.routing.get(stripe.name)
            if one is None:
                found[stripe.name] = {"status": self.refused.get(stripe.name, "not served")}
                continue
            status = f"striped over {stripe.groups}" if one.made is not None else "its router is started again"
            if (moving := self.moves.under_way.get(stripe.name)) is not None:
                status += f", {moving.old} moves to {moving.figures.node} ({moving.figures.doing or 'it begins'})"
            uri = Place(str(one.directory / FOLLOWS)).uri
            found[stripe.name] = {"leader": ROUTER, "sockets": str(one.directory), "uri": uri, "status": status}
        return found
