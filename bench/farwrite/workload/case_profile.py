"""A case: a system that somebody runs, as a profile of what is measured of it. Shipped ones are in workloads/cases.

It has up to four parts: a load by day (`steady`), a fault scenario under load (`faults`), thin volumes that are filled (`thin`),
and a database with snapshots and a remote copy (`database`). What is assumed and not measured is said, with its source.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..base.errors import UsageError, nearest
from ..base.units import NS_PER_S
from .shipped import names_in, text_of
from .tables import Struct
from .toml_reader import Reader, tables_of

BLOCK_BYTES = 4096
YEAR_S = 365.25 * 86_400
PARTS = ("steady", "faults", "thin", "database")
PLACES = ("hot-spot", "append")  # 80 % of the writes to a fifth of the region; one behind the other, and again from its beginning
MILES_MAX = 15_000
ROUNDS_MIN = 3


class Steady(Struct, frozen=True):
    """[steady]: writes at a rate, at several distances."""

    miles: tuple[float, ...]
    link_bits_per_s: int
    writes_per_s: float
    block_bytes: int
    queue_depth: int
    rounds: int
    round_ns: int


class Faults(Struct, frozen=True):
    """[faults]: a drill, and how many trials of it."""

    scenario: str
    trials: int


class Thin(Struct, frozen=True):
    """[thin]: volumes of a pool that promise more than they take."""

    volumes: int
    size_bytes: int  # of each
    stands_for_bytes: int  # of the real one
    level: str
    miles: float
    link_bits_per_s: int
    written_least_ratio: float  # of each volume
    written_most_ratio: float


class Stream(Struct, frozen=True):
    """[[database.stream]]: writes of one kind."""

    name: str
    writes_per_s: float
    block_bytes: int
    place: str  # one of PLACES
    region_bytes: int


class Database(Struct, frozen=True):
    """[database]: a volume with snapshots, and a remote copy of it."""

    size_bytes: int
    room_bytes: int
    miles: float  # between the two copies of the volume
    link_bits_per_s: int
    far_miles: float  # to the site that it is copied to
    far_link_bits_per_s: int
    period_ns: int  # between two snapshots
    scaled_ns: int  # which is so long here
    pairs: int  # of a period with a snapshot and one without
    copies: int  # after the first
    growth_bytes: int  # a year
    stream: tuple[Stream, ...]

    @property
    def growth_bytes_per_s(self) -> float:
        return self.growth_bytes / YEAR_S

    @property
    def regions_bytes(self) -> int:
        """What is written before anything is measured; behind it the database grows."""
        return sum(one.region_bytes for one in self.stream)


class Case(Struct, frozen=True):
    """The whole file."""

    title: str
    about: str
    assumed: tuple[str, ...] = ()
    steady: Steady | None = None
    faults: Faults | None = None
    thin: Thin | None = None
    database: Database | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it has, in their order."""
        return tuple(name for name in PARTS if getattr(self, name) is not None)


def shipped() -> list[str]:
    """The names of the cases that come with farwrite."""
    return names_in("cases")


def load(name: str) -> Case:
    """The case of this name or path. UsageError with the line of what is wrong in it."""
    return parse(*text_of(name, "cases", "case"))


def parse(text: str, source: str) -> Case:
    """The case in a text of TOML."""
    made, reader = tables_of(text, source, Case, f"read the case in {source}")
    check(made, reader)
    return made


def check(case: Case, reader: Reader) -> None:
    """UsageError for what cannot be measured, with its line."""

    def within(path: tuple[Any, ...], value: float, least: float, most: float, unit: str = "") -> None:
        if not least <= value <= most:
            raise UsageError(f"{reader.where(path)}: it must lie between {least:g}{unit} and {most:g}{unit}.")

    if not case.parts:
        raise UsageError(f"{reader.source}: a case has at least one of {', '.join(f'[{name}]' for name in PARTS)}.")
    if (steady := case.steady) is not None:
        if not steady.miles:
            raise UsageError(f"{reader.where(('steady', 'miles'))}: give at least one distance.")
        for miles in steady.miles:
            within(("steady", "miles"), miles, 0, MILES_MAX)
        within(("steady", "rounds"), steady.rounds, 1, 100)
        within(("steady", "round"), steady.round_ns / NS_PER_S, 0.1, 60, " s")
        within(("steady", "writes"), steady.writes_per_s, 1, 100_000, " /s")
        within(("steady", "queue_depth"), steady.queue_depth, 1, 1024)
    if case.faults is not None:
        within(("faults", "trials"), case.faults.trials, 1, 1000)
    if (thin := case.thin) is not None:
        within(("thin", "volumes"), thin.volumes, 1, 200)
        within(("thin", "size"), thin.size_bytes / (1 << 20), 1, 1024, " MiB")
        within(("thin", "stands_for"), thin.stands_for_bytes / (1 << 20), thin.size_bytes / (1 << 20), 1 << 24, " MiB")
        within(("thin", "miles"), thin.miles, 0, MILES_MAX)
        within(("thin", "written_least"), thin.written_least_ratio, 0, thin.written_most_ratio)
        within(("thin", "written_most"), thin.written_most_ratio, 0, 0.9)
        if thin.size_bytes % BLOCK_BYTES:
            raise UsageError(f"{reader.where(('thin', 'size'))}: a volume is made of blocks of {BLOCK_BYTES} bytes.")
    if case.database is not None:
        check_database(case.database, reader, within)


def check_database(made: Database, reader: Reader, within: Any) -> None:
    """The same of [database]."""
    within(("database", "size"), made.size_bytes / (1 << 20), 1, 64 << 10, " MiB")
    within(("database", "room"), made.room_bytes, made.regions_bytes + (64 << 20), made.size_bytes, " bytes")
    within(("database", "miles"), made.miles, 0, MILES_MAX)
    within(("database", "far_miles"), made.far_miles, 0, MILES_MAX)
    within(("database", "scaled"), made.scaled_ns / NS_PER_S, 1, 900, " s")
    within(("database", "period"), made.period_ns, made.scaled_ns, 86_400 * NS_PER_S, " ns")
    within(("database", "pairs"), made.pairs, 1, 100)
    within(("database", "copies"), made.copies, 1, 100)
    if not made.stream:
        raise UsageError(f"{reader.where(('database', 'stream'))}: a database writes: give a [[database.stream]].")
    for index, stream in enumerate(made.stream):
        path = ("database", "stream", index)
        if stream.place not in PLACES:
            where = reader.where((*path, "place"))
            raise UsageError(f'{where}: there is no place "{stream.place}"{nearest(stream.place, PLACES)}.')
        within((*path, "writes"), stream.writes_per_s, 0.1, 2000, " /s")
        within((*path, "block"), stream.block_bytes, BLOCK_BYTES, 1 << 20, " bytes")
        within((*path, "region"), stream.region_bytes, 8 * stream.block_bytes, made.size_bytes, " bytes")
        if stream.block_bytes % BLOCK_BYTES or stream.region_bytes % stream.block_bytes:
            raise UsageError(f"{reader.where(path)}: blocks are multiples of {BLOCK_BYTES} bytes, and regions of blocks.")


def quick(case: Case) -> Case:
    """The same, smaller: whether it works here, in a minute; its figures are of no use."""
    replace = msgspec.structs.replace
    steady, faults, thin, database = case.steady, case.faults, case.thin, case.database
    return replace(
        case,
        steady=replace(steady, rounds=ROUNDS_MIN, round_ns=NS_PER_S // 2) if steady else None,
        faults=replace(faults, trials=1) if faults else None,
        thin=replace(thin, volumes=min(thin.volumes, 3), size_bytes=min(thin.size_bytes, 8 << 20)) if thin else None,
        database=replace(
            database, pairs=ROUNDS_MIN, copies=2, scaled_ns=min(database.scaled_ns, 2 * NS_PER_S),
            stream=tuple(replace(one, region_bytes=smaller(one)) for one in database.stream),
        ) if database else None,
    )  # fmt: skip


def smaller(stream: Stream) -> int:
    """Of a region: an eighth, in whole blocks."""
    return max(stream.region_bytes // 8 // stream.block_bytes, 8) * stream.block_bytes
