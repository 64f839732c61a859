"""Recordings as JSON: each says itself of what kind and version it is."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from .errors import UsageError


class Recorded(Protocol):
    """What every recording says of itself."""

    @property
    def kind(self) -> str: ...
    @property
    def schema_version(self) -> int: ...


Shape = TypeVar("Shape", bound=Recorded)


def decoded(data: bytes, shape: type[Shape], kind: str, version: int, said: str) -> Shape:
    """The recording in these bytes. UsageError, which begins with `said`, when they are none of this kind and version."""
    try:
        made = msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as refusal:
        raise UsageError(f"{said} is not the recording of a {kind}: {refusal}.") from refusal
    found = made.kind, made.schema_version
    if found != (kind, version):
        raise UsageError(f"{said}: {found[0]} schema {found[1]}, and this farwrite reads {kind} {version}.")
    return made
