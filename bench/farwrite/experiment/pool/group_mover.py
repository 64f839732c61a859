"""Moves of a router's groups, in the router's own process: one at a time, each in a thread, asked for at the control socket."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from ...base.errors import FarwriteError, UsageError
from ...base.units import NS_PER_S
from ...engine.frontend.nbd_client import Place
from ..copy.copier import End
from ..copy.passes import By, Mover, Switch
from ..serve.control import FOLLOWS, CancelMove, GroupMove, MoveGroup, Moving

PAUSE_NS_MAX = 30 * NS_PER_S

LOG = logging.getLogger(__name__)


class Homes(Protocol):
    """Where the groups are, and who switches them (router_process.Keeper)."""

    members: list[Path]

    def moving(self, group: int, to: Path) -> AbstractContextManager[Switch]: ...


class GroupMover:
    """Begins moves, and knows how far the last one is."""

    def __init__(self, homes: Homes) -> None:
        self.homes = homes
        self.mover: Mover | None = None
        self.state: GroupMove | None = None

    def answer(self, request: Moving) -> GroupMove | None:
        """Carry a request out; how far the last move is, None where there was none. A refusal comes before anything is copied."""
        if isinstance(request, MoveGroup):
            self.begin(request)
        elif isinstance(request, CancelMove) and self.mover is not None:
            self.mover.cancel()
        return self.shown()

    def begin(self, request: MoveGroup) -> None:
        if not 0 < request.pause_ns <= PAUSE_NS_MAX:
            raise UsageError(f"A pause is more than 0 and at most {PAUSE_NS_MAX / NS_PER_S:g} s.")
        members = self.homes.members
        if "/" in request.to or request.to in ("", ".", ".."):
            raise UsageError(f"{request.to!r} is no volume of this pool.")
        with contextlib.ExitStack() as stack:
            to = members[0].parent / request.to
            switch = stack.enter_context(self.homes.moving(request.group, to))
            source = members[request.group]
            self.state = GroupMove(request.group, request.to)
            # A volume that was made for this move is nobody's: what is in it may be overwritten.
            self.mover = Mover(
                end_of(source), end_of(to), switch, By(request.by), self.note, pause_ns=request.pause_ns, overwrites=True
            )
            threading.Thread(target=self.run, args=(stack.pop_all(), self.mover, self.state), daemon=True).start()

    def run(self, held: contextlib.ExitStack, mover: Mover, state: GroupMove) -> None:
        try:
            with held:
                mover.move()
        except (FarwriteError, OSError) as refusal:
            state.refusal = str(refusal)
        except Exception as failure:  # Our own fault, and of no client of the volume.
            LOG.warning("our own fault, moving a group:\n%s", traceback.format_exc())
            state.refusal = f"This is our own fault: {failure!r}."
        finally:
            state.is_over = True

    def note(self, sentence: str) -> None:
        if self.state is not None:
            self.state.doing = sentence

    def shown(self) -> GroupMove | None:
        """The last move, with its figures as they are now."""
        if self.state is None or self.mover is None:
            return None
        state, moved = msgspec.structs.replace(self.state), self.mover.moved  # Whether it is over before what it came to.
        since_1970_ns = time.time_ns() - time.monotonic_ns()
        return msgspec.structs.replace(
            state, passes=moved.passes, copied_bytes=sum(moved.copied_bytes),
            hold_begin_ns=moved.hold_begin_ns + since_1970_ns if moved.hold_begin_ns else 0,
            hold_end_ns=moved.hold_end_ns + since_1970_ns if moved.hold_end_ns else 0,
        )  # fmt: skip


def end_of(sockets: Path) -> End:
    return End(Place(str(sockets / FOLLOWS)), sockets)
