"""What a comparison with others is stored as: the recordings it was made from, and what the project's analysis finds in them."""

from __future__ import annotations

from typing import Any

import msgspec

from farwrite.analysis.result import CellResult, Fit
from farwrite.base.reasons import with_codes
from farwrite.recording import Recording, Struct

SCHEMA_VERSION = 1


class Taking(Struct, frozen=True):
    """A contender that took part."""

    name: str
    what: str  # what stands when a write completes
    version: str
    cells: list[str]  # Cell.id


class Part(Struct, frozen=True):
    """One lab, and all that was measured in it side by side."""

    link: str
    contenders: list[Taking]
    skipped: dict[str, str]  # contender to why it did not take part
    recording: Recording
    cells: list[CellResult]
    fits: list[Fit]

    def named(self, cell: CellResult) -> str:
        """The contender of a cell; ours by its protocol."""
        owner = next((item.name for item in self.contenders if cell.cell in item.cells), cell.name)
        return f"farwrite {cell.protocol}" if owner == "farwrite" else owner

    def names(self) -> list[str]:
        """All contenders, in the order of their cells."""
        return list(dict.fromkeys(self.named(cell) for cell in self.cells))

    def cell(self, name: str, miles: float, queue_depth: int, size_bytes: int = 4096) -> CellResult | None:
        """The cell of a contender, if it was measured."""
        for cell in self.cells:
            asked = (cell.miles, cell.queue_depth, cell.size_bytes) == (miles, queue_depth, size_bytes)
            if asked and self.named(cell) == name and cell.rounds_ok:
                return cell
        return None

    def fit(self, name: str, q: float = 0.5) -> Fit | None:
        """A contender's line through its distances, one write at a time."""
        cells = {cell.name: self.named(cell) for cell in self.cells if f"farwrite {cell.protocol}" != self.named(cell)}
        for fit in self.fits:
            owner = cells.get(fit.name, f"farwrite {fit.protocol}")
            if (owner, fit.queue_depth, fit.quantile) == (name, 1, q):
                return fit
        return None


class Recovery(Struct, frozen=True):
    """Replays of one full journal, each beside a bare read of the file."""

    journal_bytes: int
    replayed_bytes: int
    writes: int
    replay_bytes_per_s: list[float]
    bare_read_bytes_per_s: list[float]


class Rate(Struct, frozen=True):
    """What one did of one load, a value a round."""

    contender: str
    load: str
    rounds: list[float]  # requests a second; MiB a second where they have 1 MiB, which is the same


class Doors(Struct, frozen=True):
    """Our doors alone, beside other servers of the same protocols."""

    command: list[str]
    contenders: dict[str, str]  # its version, and what a completed write is
    rates: list[Rate]
    skipped: dict[str, str]  # contender to why it did not take part

    def rounds(self, contender: str, load: str) -> list[float]:
        """Its values; none where it was not measured."""
        return next((one.rounds for one in self.rates if (one.contender, one.load) == (contender, load)), [])

    def loads(self) -> list[str]:
        """Everything that was done, in the order of the recording."""
        return list(dict.fromkeys(one.load for one in self.rates))


class Goal(Struct, frozen=True):
    """One thing that was to be reached, and what was."""

    part: str
    goal: str
    verdict: str  # "met", "not met", "open" (the interval lies on both sides) or "not measured"
    measured: str


class Rivals(Struct, frozen=True):
    """The document, results/rivals.json.gz."""

    schema_version: int
    farwrite: str
    made_utc: str
    command: list[str]
    host: dict[str, Any]
    parts: dict[str, Part]
    recovery: Recovery | None
    skipped: dict[str, str]  # part to why it was not measured
    goals: list[Goal]
    doors: Doors | None = None


def encode(made: Rivals | Part) -> bytes:
    """As it is stored."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def decode(data: bytes) -> Rivals:
    """As it is read back; documents from before reasons had codes too."""
    document = msgspec.json.decode(data)
    for part in document.get("parts", {}).values():
        part |= {"cells": with_codes(part["cells"]), "fits": with_codes(part["fits"])}
    return msgspec.convert(document, Rivals)


def merged(old: Rivals | None, new: Rivals) -> Rivals:
    """The new document with what only the old one has: parts can be measured one by one."""
    if old is None:
        return new
    parts = {**old.parts, **new.parts}
    skipped = {name: why for name, why in {**old.skipped, **new.skipped}.items() if name not in parts or name in new.skipped}
    return msgspec.structs.replace(
        new, parts=parts, recovery=new.recovery or old.recovery, doors=new.doors or old.doors,
        skipped=skipped,
    )  # fmt: skip
