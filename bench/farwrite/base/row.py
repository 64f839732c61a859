"""State with named fields: one class says name, type and meaning of each field; kernels, Python and files share its layout.

`rows_of(Peer, 4)` is an array of four. In a kernel and in Python alike `peer = peers[2]` is a reference to one of them and
`peer.sent += 1` changes it; `peers["sent"]` is a column. A state of which there is one is an array of length 1: entering a
kernel with it costs 2 us, with a bare record in its place 10 us (47 + 47 + 35 fields, busy 2-core VM, numba 0.68), because
Numba finds the type of arrays in C and that of records in Python. Within a kernel a field is as fast as an indexed integer
(5e7 turns of three updates: 0.08 s either way). Decision 0042.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

import numpy as np


class Field(NamedTuple):
    """One field of a row: how it is stored, and what it means."""

    kind: type[np.generic]
    meaning: str


def i64(meaning: str) -> Any:
    """A signed field of eight bytes: what most state is."""
    return Field(np.int64, meaning)


def u32(meaning: str) -> Any:
    return Field(np.uint32, meaning)


def u16(meaning: str) -> Any:
    return Field(np.uint16, meaning)


def u8(meaning: str) -> Any:
    return Field(np.uint8, meaning)


BASE: Any = np.void  # Its stub does not let a type checker see that it may be derived from.


def setter_of(name: str) -> Callable[[Any, Any], None]:
    """What gives this field of a row a value."""

    def set_field(row: Any, value: Any) -> None:
        row[name] = value

    return set_field


class Row(BASE):
    """Base of rows. A subclass gives each field a line `name = i64("unit and meaning")`, in the order in memory, without gaps."""

    __slots__ = ()
    LAYOUT: ClassVar[np.dtype]
    MEANINGS: ClassVar[dict[str, str]]

    def __init_subclass__(cls) -> None:
        fields = {name: field for name, field in vars(cls).items() if isinstance(field, Field)}
        cls.MEANINGS = {name: field.meaning for name, field in fields.items()}
        plain = np.dtype([(name, field.kind) for name, field in fields.items()], align=True)
        assert plain.itemsize == sum(np.dtype(field.kind).itemsize for field in fields.values()), "a gap between fields"
        cls.LAYOUT = np.dtype((cls, plain))
        for name in fields:
            setattr(cls, name, property(itemgetter(name), setter_of(name)))


def rows_of(kind: type[Row], count: int | tuple[int, ...] = 1) -> np.ndarray:
    """So many rows of zeros."""
    return np.zeros(count, kind.LAYOUT)
