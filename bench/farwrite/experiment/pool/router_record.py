"""What the router of a striped volume has decided, in one file: which snapshots are whole, and where groups have moved.

The router alone writes it. The pool reads it when it opens, and after a move (moves.py).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...base.errors import UnfitError
from ...base.files import write_atomically
from ..serve.volume_files import make_durable


class Taken(msgspec.Struct):
    """A snapshot that is whole."""

    name: str
    inner: str  # what it is called at the groups
    number: int  # grows from one to the next
    taken_ns: int  # since 1970
    pause_ns: int  # for which no answer went out


class Record(msgspec.Struct):
    """The file."""

    last: int = 0
    taken: list[Taken] = []
    homes: dict[int, str] = {}  # the member volume of each group that has moved, by the group's number


def record_of(path: Path) -> Record:
    """What is written down; UnfitError where that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return Record()
    except (OSError, msgspec.MsgspecError) as damage:
        raise UnfitError(f"{path}: it does not say which snapshots are whole: {damage}.") from damage


def save_record(path: Path, record: Record) -> None:
    """Durable, and whole whatever happens meanwhile."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, msgspec.json.encode(record) + b"\n")
    make_durable(path.parent)
