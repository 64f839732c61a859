"""`farwrite run --trace FILE`: the profile of a recorded trace, replayed as it is at the usual distances under protocol C."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UsageError
from ...base.units import NS_PER_MS, NS_PER_S, format_size
from ..profile import of_tree
from ..tables import Profile
from ..toml_reader import Change, Reader
from .reader import Outline, outline_once, reads_text
from .trace import find

MILES = [0, 20, 150]
PROTOCOLS = ["C"]
ROUNDS = 5  # The least from which an interval over rounds says anything.
ROUND_NS_MIN, ROUND_NS, ROUND_NS_MAX = 50 * NS_PER_MS, 2 * NS_PER_S, 60 * NS_PER_S
WRITES_A_ROUND = 400  # What a 95 % interval of p99 needs: 368.
QUEUE_DEPTH = 1024  # An open loop: more than this is never under way.
VOLUME_BYTES_MIN, VOLUME_BYTES_MAX = 16 << 20, 1 << 40
BLOCK_BYTES = 4096


def profile_of(word: str, form: str, changes: Iterable[Change] = ()) -> tuple[Profile, list[str]]:
    """The profile of a trace, with `key=value` changes, and what a reader must know of the replay."""
    path = find(word)
    found = outline_once(str(path), form)
    if not found.writes:
        raise UsageError(f'Trace "{path}": {found.others} reads and flushes and no write. Nothing can be replayed.')
    extent = sum(-(-end // BLOCK_BYTES) * BLOCK_BYTES for end in found.extents.values()) + (len(found.extents) << 20)
    volume_bytes = min(max(extent, VOLUME_BYTES_MIN), VOLUME_BYTES_MAX)
    tree: dict[str, Any] = {
        "title": f"Trace {path.name}, replayed",
        "lab": {"volume": f"{volume_bytes} B"},
        "distance": {"miles": list(MILES)},
        "run": {"rounds": ROUNDS, "round": f"{round_of(found)} ns"},
        "cell": [
            {"name": name_of(path), "protocols": list(PROTOCOLS), "trace": word, "queue_depth": QUEUE_DEPTH}
            | ({"trace_format": form} if form else {})
        ],
    }
    notes = [f"trace {path.name}: {reads_text(found.read_share)}; only its writes are replayed, at their own times"]
    if extent > VOLUME_BYTES_MAX:
        notes.append(f"addresses up to {format_size(extent)} are folded into a volume of {format_size(volume_bytes)}")
    return of_tree(tree, Reader("", str(path)), changes), notes


def name_of(path: Path) -> str:
    """A trace's file as the name of a cell and of a run."""
    return re.sub(r"[^\w\-]+", "-", path.name.split(".")[0]).strip("-") or "trace"


def round_of(found: Outline) -> int:
    """How long a round lasts: until enough writes have come at the trace's mean rate, and not longer than the trace."""
    wanted = WRITES_A_ROUND * found.duration_ns // found.writes
    return max(min(max(wanted, ROUND_NS), ROUND_NS_MAX, found.duration_ns), ROUND_NS_MIN)
