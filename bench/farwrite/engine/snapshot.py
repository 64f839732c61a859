"""A snapshot as people and other processes see it: its name, its instant, and whether this replica can serve it.

`Node.take_snapshot(name) -> Snapshot`, `Node.delete_snapshot(name)` and `Node.snapshots() -> list[Snapshot]` may be called from
any thread of the process of the replica that leads, one at a time. Each returns when its record is complete at the protocol's
point, and raises UsageError for a name that is not allowed, taken or unknown, UnfitError when the replica does not lead, has no
place left or stops leading meanwhile. How snapshots are kept is snapshot_kernel's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.errors import UsageError
from . import snapshot_kernel as kept
from .record_kernel import NAME_BYTES_MAX

READ_AGAIN_MAX = 100  # The loop changes the table now and then, a few microseconds each time.


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of a replicated volume, as one replica has it."""

    name: str
    sequence: int  # the volume as every write before this one has left it
    taken_ns: int  # CLOCK_REALTIME of the primary that took it
    is_whole: bool  # whether this replica can serve it
    kept_bytes: int  # of old blocks that are kept for it here


def checked_name(name: str) -> bytes:
    """The name as a record carries it; UsageError when it is none: empty, too long, or with characters that names do not have."""
    try:
        data = name.encode()
    except UnicodeEncodeError as refusal:
        raise UsageError(f"{name!r} is no name of a snapshot: it is not Unicode text.") from refusal
    if not 1 <= len(data) <= NAME_BYTES_MAX:
        raise UsageError(f"{name!r} is no name of a snapshot: it takes 1 to {NAME_BYTES_MAX} bytes, and this has {len(data)}.")
    if bad := next((one for one in name if not one.isprintable() or one in "@/: "), ""):
        raise UsageError(f"{name!r} is no name of a snapshot: {bad!r} may not be in one; use letters, digits, '-', '_' and '.'.")
    return data


def snapshots_of(snapshots: kept.Snapshots) -> list[Snapshot]:
    """The listed ones, the oldest first; the loop may go on meanwhile."""
    for _ in range(READ_AGAIN_MAX):
        table, blocks = snapshots.table.copy(), snapshots.kept.copy()
        if (snapshots.table == table).all():
            break
    begin = kept.Entry.LAYOUT.fields["name_0"][1]  # type: ignore[index]
    found = []
    for place, row in enumerate(table):
        if row.state in (kept.WHOLE, kept.GIVEN_UP):
            name = table[place : place + 1].view(np.uint8)[begin : begin + int(row.name_bytes)].tobytes()
            found.append(Snapshot(
                name.decode("utf-8", "replace"), int(row.sequence), int(row.taken_ns), bool(row.state == kept.WHOLE),
                int(blocks[place]) * kept.BLOCK_BYTES,
            ))  # fmt: skip
    return sorted(found, key=lambda one: one.sequence)
