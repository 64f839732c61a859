"""Groups of striped volumes that move to other nodes behind their router: what the pool does about it.

The new home is made, an ordinary member volume; the router copies, switches and writes down where the group is (group_mover.py);
then the document says it too, and the old home is deleted. Nothing in the document says that a move is under way: what is no
group's home is deleted when the pool opens, and the router's record alone decides which one is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ...base.errors import FarwriteError, UsageError
from ..serve.control import CancelMove, GroupMove, MoveGroup, Request, ShowMove
from . import placement, verbs
from .document import VOLUMES_MAX, Stripe, Volume
from .steps import AtRest, Group, NotNowError, Pool

MOVES_MAX = 64  # That are remembered.
MEMBERS_MAX = 100  # NAME.0 to NAME.99.


class MoveFigures(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a copy that joins, or of a group that moves behind its router, by instants in ns since 1970; 0: not yet."""

    volume: str
    replica: str  # of a group: the volume that it moves to
    node: str  # of a group: all its nodes
    replaces: str
    begin_ns: int
    whole_ns: int = 0  # it counts
    switch_begin_ns: int = 0  # nobody was served from here on: the doors of the one that led were closed; 0: it did not lead
    switch_end_ns: int = 0  # and to here: another one's were open
    end_ns: int = 0  # the old one's files are gone; of a group that was given up: the new one's
    allocated_bytes: int = 0  # of the copy it was brought up to date from, when it was whole
    copied_bytes: int = 0  # that lie in its own files then; of a group: that were written to its new home
    write_ns_max: int = 0  # longest answered write meanwhile, to the resolution of the histogram; 0: nobody wrote
    doing: str = ""
    failure: str = ""  # why it does not go on
    by: str = "mirror"
    passes: int = 0  # of a group: how many copies followed each other, the last one too


class Moving(NamedTuple):
    """A move that is under way."""

    stripe: str
    group: int
    old: str  # the member volumes
    new: str
    figures: MoveFigures


class GroupMoves:
    """All of a served pool: one at a time for each volume."""

    def __init__(self, pool: Pool, sockets: Path) -> None:
        self.pool, self.sockets = pool, sockets
        self.under_way: dict[str, Moving] = {}  # by volume
        self.figures: deque[MoveFigures] = deque(maxlen=MOVES_MAX)

    def ask(self, stripe: str, request: Request) -> GroupMove | None:
        """What the router says of its last move. NotNowError when it does not answer."""
        return verbs.ask(self.sockets / stripe, request).move

    def begin(
        self, name: str, to: Sequence[str], by: Literal["passes", "snapshot"], pause_ns: int, group: Group | AtRest
    ) -> str:
        """The new home is made, and the router copies; the new home's name. What cannot be is refused before anything is made.

        `name`: the member volume whose group moves; `to`: a node for each copy; `pause_ns`: the longest that clients are to wait.
        """
        stripe, number, source = self.asked_for(name)
        if stripe.name in self.under_way:
            raise UsageError(f"A group of volume {stripe.name} moves already: wait (farwrite pool show), or cancel it.")
        check_nodes(self.pool, source, to)
        if len(self.pool.document.volumes) >= VOLUMES_MAX:
            raise UsageError(f"A pool has at most {VOLUMES_MAX} volumes, and a group that moves is two for a while.")
        used = {volume.name for volume in self.pool.document.volumes}
        names = (f"{stripe.name}.{one}" for one in range(MEMBERS_MAX))
        new = next(name for name in names if name not in used)
        begin_ns = time.time_ns()
        allocated = self.pool.allocated()
        self.pool.create_volume(
            new, source.size_bytes, source.level, source.is_reserved, source.room_bytes, group, is_member=True, on=to,
        )  # fmt: skip
        try:
            self.ask(stripe.name, MoveGroup(number, new, by, pause_ns))
        except FarwriteError:
            self.pool.delete_volume(new, group)
            raise
        made = MoveFigures(stripe.name, new, ", ".join(to), source.name, begin_ns, by=by)
        made.allocated_bytes = max((allocated.get((source.name, copy.node), 0) for copy in source.counting()), default=0)
        self.figures.append(made)
        self.under_way[stripe.name] = Moving(stripe.name, number, source.name, new, made)
        return new

    def asked_for(self, name: str) -> tuple[Stripe, int, Volume]:
        """The striped volume, the number of the group, and the member volume that is its home now."""
        document = self.pool.document
        stripe = document.stripe(name)
        if stripe is not None and stripe.groups == 1:
            name = stripe.members()[0]
        elif stripe is not None:
            first = stripe.members()[0]
            raise UsageError(f"Volume {name} is striped over {stripe.groups}: migrate one of its members, as {first}.")
        stripe = document.stripe(name.partition(".")[0])
        if stripe is None or name not in stripe.members():
            document.volume(name)  # Refused here where there is none.
            raise UsageError(
                f"Volume {name} has no router that could lead its clients elsewhere: move its copies (--by mirror), or make "
                "volumes that are to move so with --groups 1."
            )
        return stripe, stripe.members().index(name), self.pool.idle_volume(name)

    def cancel(self, stripe: str) -> str:
        """The move of this volume is given up, unless it is over already; its new home. Empty: none is under way."""
        moving = self.under_way.get(stripe)
        if moving is None:
            return ""
        self.ask(stripe, CancelMove())
        return moving.new

    def look(self, group: Group | AtRest) -> None:
        """How far they are; what is over is tidied up."""
        for moving in tuple(self.under_way.values()):
            stripe = self.pool.document.stripe(moving.stripe)
            if stripe is None or stripe.state != "ready":
                self.end(moving, "The volume was deleted.")
                continue
            try:
                state = self.ask(stripe.name, ShowMove())
            except NotNowError:  # It is started again.
                continue
            if state is not None and state.to == moving.new:
                note(moving.figures, state)
                if not state.is_over:
                    continue
            self.pool.settle_homes(stripe, group)
            if stripe.members()[moving.group] == moving.new:
                moving.figures.whole_ns = moving.figures.whole_ns or time.time_ns()
                self.end(moving, "")
            else:
                self.end(moving, state.refusal if state is not None else "Its router ended before the switch.")

    def end(self, moving: Moving, failure: str) -> None:
        moving.figures.doing, moving.figures.failure, moving.figures.end_ns = "", failure, time.time_ns()
        self.under_way.pop(moving.stripe)


def note(figures: MoveFigures, state: GroupMove) -> None:
    figures.doing, figures.passes, figures.copied_bytes = state.doing, state.passes, state.copied_bytes
    if state.hold_end_ns:
        figures.switch_begin_ns, figures.switch_end_ns = state.hold_begin_ns, state.hold_end_ns
        figures.whole_ns = state.hold_end_ns


def check_nodes(pool: Pool, source: Volume, to: Sequence[str]) -> None:
    """UsageError where these nodes cannot have all copies of a volume."""
    nodes = [pool.document.node(name) for name in to]
    if len(set(to)) != len(to):
        raise UsageError(f"--to {','.join(to)}: two copies on one node would be lost together.")
    if len(to) != source.wanted:
        raise UsageError(
            f"--to {','.join(to)}: volume {source.name} has level {source.level}, so all of it takes {source.wanted} nodes."
        )
    if leaving := next((node.name for node in nodes if node.is_leaving), ""):
        raise UsageError(f"Node {leaving} is being removed: choose another one.")
    allocated = pool.allocated()
    pool.check_room(source, to, max(allocated.get((source.name, copy.node), 0) for copy in source.copies))
    placement.check_sites(pool.document, source, [node.site for node in nodes])

