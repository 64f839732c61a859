"""Where lab and target meet: what a site's process does in a round, with the connections it holds and its board.

Module-level functions, because a call into another process names its function.
"""

from __future__ import annotations

from typing import Any

from ..host import reactor
from ..host.disk import Disk
from ..lab.board import Board
from ..lab.survey import CONNECTIONS
from . import replicated
from .replicated import Order


def write(order: Order, disk: Disk, board: Board, history: Board, issued: Board) -> dict[str, Any]:
    """In the near site: the primary and its load, to the end of the plan."""
    connections = [] if order.protocol == "local" else [CONNECTIONS[name] for name in order.connections]
    return replicated.write_side(order, disk, connections, board.words, history.words, issued.words)


def copy(order: Order, disk: Disk, board: Board) -> dict[str, Any]:
    """In the far site: the secondary, until the primary says goodbye or is lost."""
    return replicated.copy_side(order, disk, CONNECTIONS["data"], board.words)


def audit(order: Order, disk: Disk, completed: int, issued: Board) -> dict[str, int]:
    """In a site: what its files hold of the first `completed` writes."""
    return replicated.audit_side(order, disk, completed, issued.words)


def reactor_name() -> str:
    """In a site: how its replica will wait, io_uring or pwrite."""
    with reactor.reactor("auto") as chosen:
        return reactor.name_of(chosen)
