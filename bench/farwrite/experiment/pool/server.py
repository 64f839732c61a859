"""A pool that is served: one lab, every volume's replicas and doors, and one loop that looks after them all.

The loop starts again whoever has died, carries out what is asked at `pool.sock`, and moves copies on by one thing at a time
(steps.py). It has no threads, because it forks; what waits for a replica waits in later turns.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...base.errors import EXIT_CRASH, EXIT_DONE, EXIT_UNFIT, FarwriteError, UsageError
from ...lab.lab import Lab
from ..serve.server import CLEAR, Asked, calm, opened_lab, socket_directory, speak
from ..serve.volume_files import Settings
from .control import Answer, Cancel, Desk, Migrate, Request, carry_out, desk_in, figures_of
from .document import Volume
from .group import PEER_TIMEOUT_NS, POLICY, PROTOCOL, Groups
from .placement import Move
from .routers import RouterProcesses
from .steps import NotNowError, Pool, advance

LOOK_S = 0.02  # Between two turns while copies move or somebody is heard,
REST_S = 0.1  # and while nothing happens.
AGAIN_S, AGAIN_S_MAX = 0.2, 5.0  # After what could not be done; doubled each time.
# The lab has three sites whatever the pool has: the third has a voter of each volume, and nodes may come to any of them.
THREE_SITES = Settings(
    volume=1, size_bytes=1 << 20, replicas=3, has_witness=False, protocol=PROTOCOL, policy=POLICY, quorum=0,
    peer_timeout_ns=PEER_TIMEOUT_NS, link={},
)  # fmt: skip


@dataclass
class Patience:
    """A volume whose next thing could not be done."""

    until_s: float = 0.0
    pause_s: float = 0.0
    said: str = ""


class PoolServer:
    """The loop of a served pool."""

    def __init__(self, pool: Pool, groups: Groups, routers: RouterProcesses, desk: Desk, asked: Asked) -> None:
        self.pool, self.groups, self.routers, self.desk, self.asked = pool, groups, routers, desk, asked
        self.queue: deque[Move] = deque()  # of a balance: the next one is begun when the last is done
        self.patience: dict[str, Patience] = {}
        self.is_live = sys.stderr.isatty()
        self.due_s = time.monotonic() + 1

    def say(self, sentence: str) -> None:
        if not self.asked.is_quiet:
            speak(f"{CLEAR if self.is_live else ''}farwrite pool: {sentence}\n")

    def watch(self) -> None:
        """Look after the pool until interrupted."""
        while True:
            busy = self.turn()
            self.tell()
            time.sleep(LOOK_S if busy else REST_S)

    def turn(self) -> bool:
        """Everything once; whether there is more to do soon."""
        for group in tuple(self.groups.served.values()):
            group.look()
        self.groups.rooms.tend(self.groups.served)
        self.routers.look()
        busy = False
        for request, caller in self.desk.turn():
            self.desk.answer(caller, self.answer_to(request))
            busy = True
        for volume in tuple(self.pool.document.volumes):
            busy |= self.move_on(volume)
        for name in self.pool.let_go():
            self.say(f"node {name} holds nothing any more, and was let go.")
        return self.begin_next() or busy or bool(self.desk.callers)

    def answer_to(self, request: Request) -> Answer:
        """What becomes of a request, whatever it is."""
        try:
            answer = carry_out(self.pool, request, self.groups, self.queue)
            if isinstance(request, Migrate | Cancel):
                self.patience.pop(request.volume, None)
        except FarwriteError as refusal:
            return Answer(refusal=str(refusal), exit_code=refusal.exit_code)
        except OSError as refusal:
            return Answer(refusal=f"{refusal.strerror or refusal}.", exit_code=EXIT_UNFIT)
        except Exception as failure:  # Our own fault: the volumes are served on.
            return Answer(refusal=f"This is our own fault: {failure!r}.", exit_code=EXIT_CRASH)
        answer.pool = figures_of(self.pool, self.groups.live())
        answer.migrations = list(self.groups.moves.values())
        return answer

    def move_on(self, volume: Volume) -> bool:
        """The next thing that a volume's copies need; what cannot be done is said once, and tried again later."""
        patience = self.patience.setdefault(volume.name, Patience())
        if volume.state != "ready" or time.monotonic() < patience.until_s or volume.name not in self.groups.served:
            return False
        try:
            doing = advance(self.pool, self.groups, volume)
        except (FarwriteError, OSError) as refusal:
            sentence = str(refusal)
            patience.pause_s = min(max(2 * patience.pause_s, AGAIN_S), AGAIN_S_MAX)
            patience.until_s = time.monotonic() + patience.pause_s
            if not isinstance(refusal, NotNowError) and sentence != patience.said:
                self.say(f"{volume.name}: {sentence}")
                patience.said = sentence
            self.groups.note_doing(volume, "", "" if isinstance(refusal, NotNowError) else sentence)
            return False
        patience.pause_s = 0.0
        self.groups.note_doing(volume, doing)
        if doing and doing != patience.said:
            self.say(f"{volume.name}: {doing}.")
        patience.said = doing
        return bool(doing)

    def begin_next(self) -> bool:
        """The next move of a balance, once no copy is on its way."""
        if not self.queue:
            return False
        if any(copy.state != "in" for volume in self.pool.document.volumes for copy in volume.copies):
            return True
        move = self.queue.popleft()
        try:
            self.pool.move(move.volume, move.to, move.replica)
        except UsageError as refusal:
            self.say(f"volume {move.volume} is not moved to {move.to}: {refusal}")
        return True

    def tell(self) -> None:
        """The status line: once a second on a terminal, every half minute elsewhere, never with -q."""
        now_s = time.monotonic()
        if self.asked.is_quiet or now_s < self.due_s:
            return
        self.due_s = now_s + (1.0 if self.is_live else 30.0)
        lines = [f"{volume.name}: {self.groups.status(volume)}" for volume in self.pool.document.volumes
                 if volume.name in self.groups.served]  # fmt: skip
        line = " | ".join(lines) or "no volumes"
        if self.is_live:
            speak(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}")
        else:
            self.say(line)


def serve_pool(pool: Pool, asked: Asked, ready: Callable[[PoolServer], None]) -> int:
    """Serve until interrupted; answers the exit code."""
    with contextlib.ExitStack() as stack:
        # Of its own kind of name: the directories of pools are none of the volumes that farwrite snapshot looks for.
        place = asked.sockets or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-pool-")))
        sockets = stack.enter_context(socket_directory(place))
        lab: Lab = stack.enter_context(opened_lab(THREE_SITES, asked, "farwrite pool"))
        groups = Groups(stack, lab, pool, asked, sockets)
        try:
            groups.begin_all()
            groups.routers = routers = RouterProcesses(stack, lab, pool, asked, sockets)
            routers.begin_all()
            desk = stack.enter_context(desk_in(pool.directory))
            server = PoolServer(pool, groups, routers, desk, asked)
            ready(server)
            server.watch()
        except KeyboardInterrupt:
            if not asked.is_quiet:
                speak("farwrite pool: interrupted: what was taken is answered, then every replica ends.\n")
        finally:
            with calm():
                groups.end_all()
    return EXIT_DONE
