"""A profile: a workload file, validated. What to measure, at which distances, how often.

Profiles are TOML with units in the text ("4 KiB", "1 s"). Inside, the suffix of a field is its unit: the key `round` of the file
is the field `round_ns`, so a number is converted once, here. An unknown key names the nearest one; an error
names its line. `limits` is the default and the project's main job.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from . import units
from .errors import UsageError, nearest
from .keep_awake import KeepAwake, asked_word
from .link_spec import PLAIN, LinkError, LinkSpec, Way
from .link_spec import check as check_spec
from .physics import rtt_ns_of
from .protocol import NAMES, ProtocolName, majority
from .shipped import workloads_directory
from .user_file import TEXT_BYTES_MAX, read_file, read_text
from .wire_names import CompressionName, EncryptionName

Arrival = Literal["closed", "fixed", "poisson"]
AddressName = Literal["sequential", "uniform", "zipf", "pareto", "normal", "hot-spot", "bands", "shuffle"]
Congestion = Literal["block", "pull-ahead"]

# The suffix of a field is its unit; the key in the file goes without.
SUFFIXES: dict[str, Callable[[str, str], float]] = {
    "_ns": units.time_ns,
    "_bytes": units.size_bytes,
    "_bits_per_s": units.rate_bits_per_s,
    "_per_s": units.frequency_per_s,
    "_ratio": units.ratio,
}
# What changes a profile's tables before they are read: `key=value`, or a function that answers which (table, key) it has set.
Change = str | Callable[[dict[str, Any]], set[tuple[str, str]]]
TIMES = {"compress_ratio", "dedupe_ratio"}  # So many times: no shares.


MILES_MAX = 15_000  # More than half around the earth, with room for a detour.
ROUND_NS_MAX = 600 * units.NS_PER_S  # A slice a second, 250 kB each.
OTHERS_MAX = 3  # Five replicas are the engine's; the primary and `miles` are two of them.


class Struct(msgspec.Struct, frozen=True):
    """What profiles are made of.

    A key that a person has written and nobody knows is refused by `Reader`, with its line. A profile stored in a recording may
    have fields of a newer version, which are passed over.
    """


class LabTable(Struct, frozen=True):
    """[lab]: the sites and what joins them."""

    link: Annotated[
        Literal["auto", "netem", "ferry", "relay"], Meta(description="how a distance is emulated; auto: the first that works")
    ] = "auto"
    durability: Annotated[
        Literal["disk", "memory"], Meta(description="where journals are; memory is what a battery-backed cache is")
    ] = "disk"
    near: Annotated[str, Meta(description="directory of the near site's files; empty: where the results go")] = ""
    far: Annotated[str, Meta(description="directory of the far sites' files; empty: where the results go")] = ""
    keep: Annotated[
        bool, Meta(description='whether the files stay, for "farwrite volume info": near/ and far/ in those directories')
    ] = False
    far_host: Annotated[
        str, Meta(description="ssh://host: the far site is that machine, and the link is measured, not emulated")
    ] = ""
    far_command: Annotated[str, Meta(description="how farwrite is started on that machine")] = "farwrite"
    journal_bytes: Annotated[int, Meta(description="size of each replica's journal")] = 64 << 20
    volume_bytes: Annotated[int, Meta(description="size of each replica's volume")] = 1 << 30
    congestion: Annotated[str, Meta(description="TCP congestion control of the replication connection")] = "cubic"
    encryption: Annotated[
        EncryptionName, Meta(description="of what is replicated; tls is TLS 1.3 by a key made for the run")
    ] = "none"
    compression: Annotated[CompressionName, Meta(description="of what is replicated")] = "none"
    keep_awake: Annotated[
        KeepAwake | bool, Meta(description="what keeps processors from sleeping while the lab is open")
    ] = "auto"

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "keep_awake", asked_word(self.keep_awake))


class DistanceTable(Struct, frozen=True):
    """[distance]: where the far site is."""

    miles: Annotated[list[float], Meta(description="distances in miles")] = []
    km: Annotated[list[float], Meta(description="distances in kilometres")] = []
    route_factor: Annotated[float, Meta(description="length of the fibre over that of the straight line")] = 1.0
    equipment_ns: Annotated[int, Meta(description="delay of equipment on the way, one way, on top of the fibre")] = 0

    def in_miles(self) -> list[float]:
        """All distances in miles, in the order of the file."""
        return [*self.miles, *(km / units.KM_PER_MILE for km in self.km)]


class RunTable(Struct, frozen=True):
    """[run]: how often and how long."""

    rounds: Annotated[
        int, Meta(description="rounds of each cell, interleaved with those of the others; fewer than three carry no verdict")
    ] = 5
    round_ns: Annotated[int, Meta(description="length of a round")] = units.NS_PER_S
    survey_echoes: Annotated[
        int, Meta(description="probes of the link before and after each round, and bare echoes that find its floor")
    ] = 30
    floor_flushes: Annotated[int, Meta(description="bare flushes that find the floor of a disk")] = 60
    retries: Annotated[int, Meta(description="how often a round is repeated whose link was not what was asked")] = 2
    steal_max: Annotated[
        float, Meta(description="share of processor time taken by the host above which no latency is judged")
    ] = 0.05
    samples: Annotated[bool, Meta(description="whether every write is kept by itself, in a file beside the report")] = False
    steady: Annotated[Literal["", "snia"], Meta(description="snia: rounds are also held against SNIA's rule of five")] = ""


class SizeShare(Struct, frozen=True):
    """One size of a mix."""

    block_bytes: Annotated[int, Meta(description="size of an I/O")]
    share: Annotated[float, Meta(description="its weight among the sizes")] = 1.0


class Band(Struct, frozen=True):
    """A stretch of the region with a share of the I/O; bands lie one behind the other."""

    share: Annotated[float, Meta(description="share of the I/O")]
    space: Annotated[float, Meta(description="share of the region")]


class Burst(Struct, frozen=True):
    """The rate comes and goes: on for a while, then off, over and over."""

    on_ns: Annotated[int, Meta(description="how long the rate is the cell's; 0: no bursts")] = 0
    off_ns: Annotated[int, Meta(description="how long it is rate_off")] = 0
    rate_off_per_s: Annotated[float, Meta(description="rate between bursts")] = 0.0
    at_random: Annotated[bool, Meta(description="exponential lengths, with these means: a Markov-modulated process")] = False


class Diurnal(Struct, frozen=True):
    """The rate goes up and down like that of a working day: least at the beginning, the cell's rate in the middle."""

    period_ns: Annotated[int, Meta(description="length of a day; 0: no such curve")] = 0
    least: Annotated[float, Meta(description="lowest rate, as a share of the cell's")] = 0.1


class Phase(Struct, frozen=True):
    """A named stretch of the round with a rate of its own; phases come one after the other, and then from the first again."""

    name: Annotated[str, Meta(description="name of the phase in the report")]
    lasts_ns: Annotated[int, Meta(description="its length")]
    rate_per_s: Annotated[float, Meta(description="its rate")] = 0.0
    rate_end_per_s: Annotated[float | None, Meta(description="a ramp to this rate; without, the rate stays")] = None


class CellTable(Struct, frozen=True):
    """[[cell]]: one workload, at some distances under some protocols. [[cell.jobs]]: one of several loads at once.

    What a job does not say is as its cell says it.
    """

    name: Annotated[str, Meta(description="name of the cell or job in the report")]
    protocols: Annotated[list[ProtocolName], Meta(description="protocols it is measured under")] = []
    miles: Annotated[list[float], Meta(description="distances it is measured at; empty: every distance of the profile")] = []
    other_miles: Annotated[list[float], Meta(description="distances of further secondaries, whatever miles is")] = []
    quorum: Annotated[
        int, Meta(description="protocol quorum: replicas that must be durable, the primary among them; 0: a majority")
    ] = 0
    on_congestion: Annotated[
        Congestion, Meta(description="protocol A, send buffer full: hold writes up, or go on without the peer")
    ] = "block"
    arrival: Annotated[
        Arrival, Meta(description="closed: a write waits for a free place; fixed, poisson: they come at a rate (open loop)")
    ] = "closed"
    queue_depth: Annotated[int, Meta(description="I/Os in flight, at most")] = 1
    rate_per_s: Annotated[float | None, Meta(description="I/Os a second, of an open loop")] = None
    address: Annotated[AddressName, Meta(description="where writes go")] = "uniform"
    zipf_skew: Annotated[float, Meta(description="zipf: the exponent")] = 0.99
    block_bytes: Annotated[int, Meta(description="size of an I/O")] = 4096
    mix: Annotated[list[SizeShare], Meta(description="several sizes by share, instead of block")] = []
    trace: Annotated[
        str, Meta(description="recorded I/O instead of arrival, address and block: a file, or a trace that is shipped")
    ] = ""
    trace_format: Annotated[str, Meta(description="what the trace is, where its content does not say it: alibaba, tencent")] = ""
    time_scale: Annotated[float, Meta(description="0.5 replays a trace twice as fast")] = 1.0
    streams: Annotated[int, Meta(description="sequential: streams, in turn, each in a part of its own")] = 1
    stride_bytes: Annotated[int, Meta(description="sequential: from one write to the next; 0: where the one before ended")] = 0
    pareto_share: Annotated[float, Meta(description="pareto: share of the places that takes the rest of the I/O")] = 0.2
    hot_share: Annotated[float, Meta(description="hot-spot: share of the I/O")] = 0.8
    hot_space: Annotated[float, Meta(description="hot-spot: share of the region, at its beginning")] = 0.2
    normal_mean: Annotated[float, Meta(description="normal: mean, as a share of the region")] = 0.5
    normal_deviation: Annotated[float, Meta(description="normal: standard deviation, as a share of the region")] = 0.1
    bands: Annotated[list[Band], Meta(description="bands: stretches of the region, one behind the other")] = []
    region_begin_bytes: Annotated[int, Meta(description="where addresses begin")] = 0
    region_bytes: Annotated[int, Meta(description="how far they reach; 0: to the end of the volume")] = 0
    reads: Annotated[float, Meta(description="share of reads among the I/O that is no flush")] = 0.0
    trims: Annotated[float, Meta(description="share of trims among the I/O that is no flush")] = 0.0
    flushes: Annotated[float, Meta(description="share of flushes among all I/O")] = 0.0
    flush_every: Annotated[int, Meta(description="writes between two flushes; 0: none")] = 0
    read_mix: Annotated[list[SizeShare], Meta(description="sizes of reads where they differ from those of writes")] = []
    trim_mix: Annotated[list[SizeShare], Meta(description="sizes of trims where they differ from those of writes")] = []
    think_ns: Annotated[int, Meta(description="closed loop: pause before each write, once its place is free")] = 0
    think_at_random: Annotated[bool, Meta(description="exponential pauses, with that mean")] = False
    think_every: Annotated[int, Meta(description="a pause only before every n-th write")] = 1
    burst: Annotated[Burst, Meta(description="the rate comes and goes")] = Burst()
    diurnal: Annotated[Diurnal, Meta(description="the rate goes up and down like that of a working day")] = Diurnal()
    phases: Annotated[
        list[Phase], Meta(description="stretches of the round with rates of their own, one after the other and over again")
    ] = []
    compress_ratio: Annotated[
        float, Meta(description="size of the payload before compression to its size after, as zlib sees it")
    ] = 1.0
    dedupe_ratio: Annotated[float, Meta(description="writes to different contents")] = 1.0
    jobs: Annotated[
        list[CellTable], Meta(description="several loads at once; what a job does not say is as its cell says it")
    ] = []
    count: Annotated[int, Meta(description="of a job: how many alike")] = 1
    apart: Annotated[bool, Meta(description="of a job with a count: each in a part of its own of the region")] = True
    share: Annotated[float, Meta(description="of a job without a rate of its own: its share of the cell's")] = 1.0


class DrillTable(Struct, frozen=True):
    """[drill]: what happens when the near site is lost."""

    kills: Annotated[int, Meta(description="kills under each protocol, and as many cuts of the link")] = 0
    miles: Annotated[float, Meta(description="at this distance")] = 150.0
    protocols: Annotated[list[ProtocolName], Meta(description="protocols under which the near site is lost")] = []
    queue_depth: Annotated[int, Meta(description="I/Os in flight, at most")] = 8
    load_ns: Annotated[int, Meta(description="load before the near site is killed")] = 300 * units.NS_PER_MS
    cut_ns: Annotated[int, Meta(description="how long the link is cut")] = 400 * units.NS_PER_MS


class ReachTable(Struct, frozen=True):
    """[reach]: the budget whose greatest distance is searched for, between the first and the last distance of the profile."""

    p50_ns: Annotated[int, Meta(description="budget of the median whose greatest distance is searched for; one of the two")] = 0
    p99_ns: Annotated[int, Meta(description="the same, of the 99th percentile")] = 0
    time_ns: Annotated[int, Meta(description="time for the measurements")] = 180 * units.NS_PER_S

    @property
    def quantile(self) -> float:
        """The quantile that the budget is for."""
        return 0.99 if self.p99_ns else 0.5

    @property
    def budget_ns(self) -> int:
        """The budget; 0 where no search is asked for."""
        return self.p99_ns or self.p50_ns


class SweepTable(Struct, frozen=True):
    """[sweep]: rounds are added where intervals are widest, and the cells are drawn as a grid."""

    time_ns: Annotated[int, Meta(description="time for the measurements of a grid; 0: no sweep")] = 0


class BudgetTable(Struct, frozen=True):
    """[[budget]]: what a write may take at one quantile of its response times; the report of the run rules on it."""

    p50_ns: Annotated[int, Meta(description="what the median may be; one of the three")] = 0
    p99_ns: Annotated[int, Meta(description="what the 99th percentile may be")] = 0
    p999_ns: Annotated[int, Meta(description="what the 99.9th percentile may be")] = 0
    miles: Annotated[float | None, Meta(description="at this distance; without, at every distance that is measured")] = None

    @property
    def quantile(self) -> float:
        """The quantile that the budget is for."""
        return 0.5 if self.p50_ns else 0.99 if self.p99_ns else 0.999

    @property
    def limit_ns(self) -> int:
        """What a write may take."""
        return self.p50_ns or self.p99_ns or self.p999_ns

    @property
    def text(self) -> str:
        """As it is typed: "p99 2 ms", "p99 2 ms at 40 miles"."""
        place = "" if self.miles is None else f" at {self.miles:.6g} miles"
        return f"p{100 * self.quantile:g} {self.limit_ns / units.NS_PER_MS:g} ms{place}"


class Profile(Struct, frozen=True):
    """A whole workload file."""

    title: Annotated[str, Meta(description="title of the report")]
    distance: Annotated[DistanceTable, Meta(description="where the far site is")]
    cell: Annotated[list[CellTable], Meta(description="workloads")]
    reason: Annotated[str, Meta(description="why these numbers, for readers")] = ""
    lab: Annotated[LabTable, Meta(description="the sites and what joins them")] = LabTable()
    run: Annotated[RunTable, Meta(description="how often and how long")] = RunTable()
    drill: Annotated[DrillTable, Meta(description="what happens when the near site is lost")] = DrillTable()
    link: Annotated[LinkSpec, Meta(description="what is asked of every link besides its distance")] = PLAIN
    reach: Annotated[ReachTable, Meta(description="search for the greatest distance of a budget")] = ReachTable()
    sweep: Annotated[
        SweepTable, Meta(description="rounds are added where intervals are widest, and the cells are drawn as a grid")
    ] = SweepTable()
    budget: Annotated[list[BudgetTable], Meta(description="what a write may take; the report rules on it")] = []
    claims: Annotated[
        bool | None, Meta(description="whether the claims of 2008 are ruled on; a new profile has to ask for it")
    ] = None


def load(name: str, changes: Iterable[Change] = ()) -> Profile:
    """The profile of this name or path, with `key=value` changes; UsageError with line and nearest key when it is wrong."""
    path = find(name)
    if is_fio_job(path):
        from .fio_job import translate

        return translate(path, changes).profile
    return parse(read_text(path, "read the profile", TEXT_BYTES_MAX), str(path), changes)


def parse(text: str, source: str = "profile", changes: Iterable[Change] = ()) -> Profile:
    """A profile from its text."""
    import tomllib

    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as refusal:  # ValueError: not TOML, or a number of thousands of digits.
        raise UsageError(f"{source}: {refusal}") from refusal
    return of_tree(tree, Reader(text, source), changes)


def of_tree(tree: dict[str, Any], reader: Reader, changes: Iterable[Change] = ()) -> Profile:
    """A profile from its tables as TOML has them."""
    for change in changes:
        reader.changed |= {apply_change(tree, change)} if isinstance(change, str) else change(tree)
    inherit(tree)
    converted = reader.table(tree, Profile, ())
    try:
        profile = msgspec.convert(converted, Profile)
    except msgspec.ValidationError as refusal:
        raise UsageError(reader.place(refusal)) from refusal
    if profile.claims is None:
        profile = msgspec.structs.replace(profile, claims=False)
    check(profile, reader)
    return as_far_as_it_is(profile, reader) if profile.lab.far_host else profile


def as_far_as_it_is(profile: Profile, reader: Reader) -> Profile:
    """The profile for a far site on a real machine: one distance, which is not set but found. A real link is not cut."""
    from .remote.word import far_host

    far_host(profile.lab.far_host)
    if not profile.link.is_plain:
        raise UsageError(f"{reader.where(('link',))}: the link to another machine is as it is; nothing can be asked of it.")
    if profile.reach.budget_ns:
        raise UsageError(f"{reader.where(('reach',))}: a real far site is as far as it is; no distance is searched for.")
    if any(budget.miles is not None for budget in profile.budget):
        raise UsageError(f"{reader.where(('budget',))}: a real far site is as far as it is; a budget there names no miles.")
    if profile.lab.keep:
        raise UsageError(f"{reader.where(('lab', 'keep'))}: files on another machine are not kept.")
    for index, cell in enumerate(profile.cell):
        if cell.other_miles:
            raise UsageError(f"{reader.where(('cell', index, 'other_miles'))}: a far site on another machine is the only one.")
        if Path(cell.trace).suffix or Path(cell.trace).name != cell.trace:
            raise UsageError(f"{reader.where(('cell', index, 'trace'))}: the other machine has the shipped traces, not this one.")
    cells = [msgspec.structs.replace(cell, miles=[]) for cell in profile.cell]
    return msgspec.structs.replace(
        profile, cell=cells, distance=msgspec.structs.replace(profile.distance, miles=[0.0], km=[]),
        drill=msgspec.structs.replace(profile.drill, kills=0),
    )  # fmt: skip


def inherit(tree: dict[str, Any]) -> None:
    """Give every job what its cell says and the job does not. What is no table is refused later, with its line."""
    from . import load_table

    alone = {key_of(field) for field in (*load_table.CELL_ONLY, *load_table.NOT_INHERITED)}
    for cell in tree["cell"] if isinstance(tree.get("cell"), list) else []:
        jobs = cell.get("jobs") if isinstance(cell, dict) else None
        for job in jobs if isinstance(jobs, list) else []:
            if isinstance(job, dict):
                for key, value in cell.items():
                    if key not in alone and not (key == "mix" and "block" in job):
                        job.setdefault(key, value)


def find(name: str) -> Path:
    """The file of a shipped profile, or a path as it is."""
    path = Path(name)
    if name.endswith((".toml", *FIO_SUFFIXES)) or "/" in name:
        if not is_there(path):
            raise UsageError(f"There is no profile {name}.")
        return path
    ours = workloads_directory() / f"{name}.toml"
    if is_file(ours):
        return ours
    if is_file(path):
        return path
    raise UsageError(f'There is no profile "{name}"{nearest(name, shipped())}.')


FIO_SUFFIXES = (".fio", ".job")
SECTION = re.compile(r"^\s*\[[^\[\]]+\]\s*$", re.MULTILINE)
FIO_OPTION = re.compile(r"^\s*(rw|readwrite|bs|blocksize|ioengine|size|filename|iodepth|runtime|direct)\s*=", re.MULTILINE)


def is_fio_job(path: Path) -> bool:
    """Whether a file is a fio job, by its name or by what is in it; UsageError when it is neither that nor a profile."""
    import tomllib

    if path.suffix in (".toml", *FIO_SUFFIXES):
        return path.suffix != ".toml"
    text = read_file(path, "read the profile", TEXT_BYTES_MAX).decode("utf-8", "replace")
    if SECTION.search(text) and FIO_OPTION.search(text):
        return True
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError):
        tree = {}
    if not tree.keys() & {"cell", "distance", "title"}:
        raise UsageError(f"{path} is neither a profile (a TOML file with [[cell]]) nor a fio job file.")
    return False


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:  # A name too long, a folder we may not enter.
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything of that name: a pipe is read, too, and what else it is, is said when it is opened."""
    try:
        return path.exists()
    except OSError:
        return False


def shipped() -> list[str]:
    """Names of the profiles that come with farwrite."""
    return sorted(path.stem for path in workloads_directory().glob("*.toml"))


def digest(profile: Profile) -> str:
    """Sixteen hex digits that name exactly this workload, wherever its files lie, and whatever keys are added later.

    What keeps the machine awake is no part of it: what was done is known only to the recording, and is of the run's environment.
    Neither is what the report rules on, which changes nothing of what is measured.
    """
    lab = msgspec.structs.replace(profile.lab, near="", far="", keep_awake="auto")
    measured = msgspec.structs.replace(profile, lab=lab, budget=[], claims=None)
    import hashlib

    return hashlib.blake2b(msgspec.json.encode(told(measured)), digest_size=8).hexdigest()


def told(table: msgspec.Struct) -> dict[str, Any]:
    """A profile, or a table of it, without the values that are defaults."""
    kept = {}
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if value != default:
            kept[field.name] = told_value(value)
    return kept


def told_value(value: Any) -> Any:
    """One value of a profile, tables in it without their defaults."""
    if isinstance(value, msgspec.Struct):
        return told(value)
    return [told_value(item) for item in value] if isinstance(value, (list, tuple)) else value


def unit_of(field: str) -> str:
    """The suffix that is a field's unit, empty where it has none."""
    return next((suffix for suffix in SUFFIXES if field.endswith(suffix) and field not in TIMES), "")


def key_of(field: str) -> str:
    """How a field is spelled in the file."""
    return field.removesuffix(unit_of(field))


WAY_KEYS = frozenset(key_of(field) for field in Way.__struct_fields__)  # Of [link] itself these are of both its directions.


# What other tools, and our own options, call a key: spelled too differently for the nearest word to be it.
ALSO_CALLED = {
    "size": "block", "bs": "block", "blocksize": "block", "block_size": "block", "bytes": "block", "bssplit": "mix",
    "depth": "queue_depth", "iodepth": "queue_depth", "qd": "queue_depth", "threads": "queue_depth", "protocol": "protocols",
    "pattern": "address", "addresses": "address", "read_share": "reads", "read": "reads", "rwmixread": "reads", "trim": "trims",
    "flush": "flushes", "fsync": "flush_every", "fdatasync": "flush_every", "iops": "rate", "bandwidth": "rate", "bw": "rate",
    "duration": "round", "runtime": "round", "loops": "rounds", "repeats": "rounds", "distance": "miles", "delay": "extra_delay",
    "latency": "extra_delay", "thinktime": "think", "numjobs": "count", "offset": "region_begin", "tls": "encryption",
    "p90": "p99", "budget": "p99", "minutes": "time", "emulation": "link", "host": "far_host",
}  # fmt: skip


class Reader:
    """Turns the file's tables into what the structs take, and says where something is wrong."""

    def __init__(self, text: str, source: str) -> None:
        self.lines = text.splitlines()
        self.source = source
        self.changed: set[tuple[str, str]] = set()  # (first table, key) of what the command line has set

    def table(self, tree: dict[str, Any], shape: type[msgspec.Struct], path: tuple) -> dict[str, Any]:
        """One table with its keys renamed to fields and its texts converted to base units."""
        if not isinstance(tree, dict):
            raise UsageError(f"{self.where(path)}: a table was expected.")
        if shape is LinkSpec:
            tree = in_both_ways(tree)
        fields = {key_of(field): field for field in shape.__struct_fields__}
        hints = typing.get_type_hints(shape)
        converted = {}
        for key, value in tree.items():
            here = (*path, key)
            if key not in fields:
                known = [*fields, *WAY_KEYS] if shape is LinkSpec else fields
                other = ALSO_CALLED.get(key)
                near = f' (did you mean "{other}"?)' if other in known else nearest(key, known)
                raise UsageError(f'{self.where(here)}: unknown key "{key}"{near}.')
            field = fields[key]
            converted[field] = self.value(value, field, hints[field], here)
        return converted

    def value(self, value: Any, field: str, hint: Any, path: tuple) -> Any:
        """One value in the form its field wants."""
        inner = typing.get_args(hint)
        if is_table(hint):
            return self.table(value, hint, path)
        if inner and is_table(inner[0]) and isinstance(value, list):
            return [self.table(item, inner[0], (*path, index)) for index, item in enumerate(value)]
        if inner and is_table(inner[0]) and isinstance(value, dict):
            return self.table(value, inner[0], path)
        unit = unit_of(field)
        if not unit:
            return value
        try:
            return SUFFIXES[unit](value, self.where(path))
        except UsageError as refusal:
            raise UsageError(str(refusal)) from None

    def place_of(self, path: tuple) -> tuple:
        """Where a key of a direction stands: in its own table, or in [link] for both."""
        shared = ("link", *path[2:])
        if path[1:2] in (("outward",), ("homeward",)) and self.line_of(path) is None and self.line_of(shared) is not None:
            return shared
        return path

    def where(self, path: tuple) -> str:
        """`file:line: table.key`, as well as the text tells."""
        return f"{self.file_and_line(path)}: {'.'.join(str(part) for part in path)}"

    def file_and_line(self, path: tuple) -> str:
        """`file:line` of a key, or of the table that should have it; what the command line has set has no line."""
        path = self.place_of(path)
        if not any((path[0], part) in self.changed for part in path[:1] + path[-1:] + path[2:3]):
            for length in range(len(path), 0, -1):
                line = self.line_of(path[:length])
                if line:
                    return f"{self.source}:{line}"
        return self.source

    def line_of(self, path: tuple) -> int | None:
        """The line, counted from 1, where exactly this key or table is; an int in `path` is an index of [[tables]]."""
        counts: dict[tuple, int] = {}
        here: tuple = ()
        in_text = False
        for number, line in enumerate(self.lines, 1):
            header = re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line)
            key = re.match(r"""\s*["']?([\w.\-]+)["']?\s*=""", line)
            if header and not in_text:
                here = ()
                for name in header.group(2).split("."):
                    here = (*here, counts[here] - 1, name) if here in counts else (*here, name)
                if here == path:
                    return number
                if header.group(1) == "[[":
                    counts[here] = counts.get(here, 0) + 1
                    here = (*here, counts[here] - 1)
                if here == path:
                    return number
            elif key and not in_text and (*here, *key.group(1).split(".")) == path:
                return number
            if (line.count('"""') + line.count("'''")) % 2:
                in_text = not in_text
        return None

    def place(self, refusal: msgspec.ValidationError) -> str:
        """A validation error in our words, with the line of the key it is about."""
        text = str(refusal)
        match = re.search(r" - at `\$\.?(.*)`$", text)
        said = text[: match.start()] if match else text
        said = re.sub(r"field `(\w+)`", lambda field: f'key "{key_of(field.group(1))}"', said)
        if not match:
            return f"{self.source}: {said}."
        path: list[str | int] = []
        parts = re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", match.group(1))
        if wrong := re.fullmatch(r"Invalid enum value '(.*)'", said):
            choices = choices_at([name for name, _ in parts if name and not name.isdigit()])
            said += f"{near_of(wrong.group(1), choices)}: choose one of {', '.join(word or repr('') for word in choices)}"
        for name, index in parts:
            path.append(key_of(name) if name and not name.isdigit() else int(index) if index.isdigit() else 0)
        return f"{self.where(tuple(path))}: {said}."


def choices_at(fields: list[str]) -> list[str]:
    """The words that the field at the end of this path may hold."""
    hint: Any = Profile
    for field in fields:
        shape = next(part for part in parts_of(hint) if is_table(part))
        hint = typing.get_type_hints(shape)[field]
    return [word for part in parts_of(hint) if typing.get_origin(part) is Literal for word in typing.get_args(part)]


def near_of(word: str, choices: list[str]) -> str:
    """` (did you mean "x"?)`, where one is near."""
    near = nearest(word, choices)
    return near if "did you mean" in near else ""


def parts_of(hint: Any) -> list[Any]:
    """The types that a hint is made of, whatever lists and alternatives they are in."""
    if typing.get_origin(hint) in (None, Literal):
        return [hint]
    return [part for inner in typing.get_args(hint) for part in parts_of(inner)]


def is_table(hint: Any) -> bool:
    """Whether a field holds a table of its own."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def in_both_ways(tree: dict[str, Any]) -> dict[str, Any]:
    """[link] with the keys of a direction moved to both; what a direction's own table says of them goes before. Losses are
    either in bursts or not, so its own of one kind go before those of the other."""
    shared = {key: value for key, value in tree.items() if key in WAY_KEYS}
    moved = {key: value for key, value in tree.items() if key not in WAY_KEYS}
    for name in ("outward", "homeward") if shared else ():
        own = tree.get(name, {})
        if isinstance(own, dict):
            instead = {"loss", "bursts"} if own.keys() & {"loss", "bursts"} else set()
            own = {key: value for key, value in shared.items() if key not in instead} | own
        moved[name] = own
    return moved


def is_text(word: str) -> bool:
    """Whether a word of the command line is text: its bytes may be anything, and a recording holds text only."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def apply_change(tree: dict[str, Any], change: str) -> tuple[str, str]:
    """One `--set table.key=value` (`cell.NAME.key=value` for a cell, `cell.key=value` for all of them).

    Answers the first table and the key, for `Reader.changed`.
    """
    import tomllib

    if not is_text(change):
        raise UsageError(f"--set {change!r} is not text.")
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UsageError(f'--set {change}: write key=value, such as "run.rounds=3".')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *tables, last = key.strip().split(".")
    places: list[Any] = [tree]
    for table in tables:
        reached = []
        for place in places:
            if isinstance(place, list):
                reached += [item for item in place if isinstance(item, dict) and item.get("name") == table]
            elif isinstance(place, dict):
                reached.append(place.setdefault(table, {}))
        if not reached:
            raise UsageError(f'--set {change}: there is no "{table}" here.')
        places = reached
    for place in places:
        for target in place if isinstance(place, list) else [place]:
            if not isinstance(target, dict):
                raise UsageError(f'--set {change}: "{key}" is not a table\'s key.')
            target[last] = value
    return (tables or [last])[0], last


def check(profile: Profile, reader: Reader) -> None:
    """What types cannot say; UsageError for the first promise that is broken, with the line of its key."""

    def refuse(unless: bool, sentence: str, *path: str | int) -> None:
        if not unless:
            raise UsageError(f"{reader.file_and_line(path)}: {sentence}")

    distance, run, drill = profile.distance, profile.run, profile.drill
    distances = distance.in_miles()
    refuse(bool(distances), "distance.miles or distance.km must name at least one distance.", "distance")
    for key, given in (("miles", distance.miles), ("km", [km / units.KM_PER_MILE for km in distance.km])):
        refuse(all(0 <= miles <= MILES_MAX for miles in given),
               f"distance.{key}: a distance must lie between 0 and 15 000 miles.", "distance", key)  # fmt: skip
        refuse(distinct(f"{miles:g}" for miles in distances), "distance: the same distance is named twice.", "distance", key)
    refuse(1.0 <= distance.route_factor <= 10,
           "distance.route_factor is glass over straight line: 1 to 10.", "distance", "route_factor")  # fmt: skip
    refuse(0 <= distance.equipment_ns <= units.NS_PER_S, "distance.equipment must lie between 0 and 1 s.",
           "distance", "equipment")  # fmt: skip
    refuse(1 <= run.rounds <= 1000, "run.rounds must lie between 1 and 1000.", "run", "rounds")
    refuse(50 * units.NS_PER_MS <= run.round_ns <= ROUND_NS_MAX, "run.round must last 50 ms to 10 min.", "run", "round")
    refuse(5 <= run.survey_echoes <= 10_000, "run.survey_echoes must lie between 5 and 10 000.", "run", "survey_echoes")
    refuse(5 <= run.floor_flushes <= 10_000, "run.floor_flushes must lie between 5 and 10 000.", "run", "floor_flushes")
    refuse(0 <= run.retries <= 20, "run.retries must lie between 0 and 20.", "run", "retries")
    refuse(0 <= run.steal_max <= 1, "run.steal_max is a share: 0 to 1.", "run", "steal_max")
    refuse(not run.steady or run.rounds >= 5, "run.steady: SNIA's rule looks at five rounds; run.rounds must be 5 or more.",
           "run", "steady")  # fmt: skip
    for key, size in (("journal", profile.lab.journal_bytes), ("volume", profile.lab.volume_bytes)):
        refuse(16 << 20 <= size <= 1 << 40 and size % 4096 == 0,
               f"lab.{key} must be 16 MiB to 1 TiB, in whole blocks of 4 KiB.", "lab", key)  # fmt: skip
    refuse(not profile.lab.keep or profile.lab.durability == "disk",
           'lab.keep: files in memory go with the run; keep goes with durability = "disk".', "lab", "keep")  # fmt: skip
    check_link(profile, reader)
    refuse(bool(profile.cell), "at least one [[cell]] is needed.", "cell")
    for index, cell in enumerate(profile.cell):
        earlier = [other.name for other in profile.cell[:index]]
        refuse(cell.name not in earlier, f'cell "{cell.name}": every cell needs a name of its own.', "cell", index, "name")
        check_cell(cell, index, profile, refuse)
    refuse(0 <= drill.kills <= 1000, "drill.kills must lie between 0 and 1000.", "drill", "kills")
    refuse(0 <= drill.miles <= MILES_MAX, "drill.miles must lie between 0 and 15 000.", "drill", "miles")
    refuse(1 <= drill.queue_depth <= 4096, "drill.queue_depth must lie between 1 and 4096.", "drill", "queue_depth")
    refuse("local" not in drill.protocols, "drill.protocols: local has no far site to lose.", "drill", "protocols")
    refuse("quorum" not in drill.protocols, "drill.protocols: drills have two sites, and a quorum of two is C.",
           "drill", "protocols")  # fmt: skip
    refuse(distinct(drill.protocols), "drill.protocols: the same protocol is named twice.", "drill", "protocols")
    for key, lasts_ns in (("load", drill.load_ns), ("cut", drill.cut_ns)):
        refuse(0 <= lasts_ns <= units.NS_PER_S * 60, f"drill.{key} must last 0 s to 1 min.", "drill", key)
    check_search(profile, refuse)
    check_budgets(profile, refuse)


def check_budgets(profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of [[budget]]."""
    distances = list(dict.fromkeys([*profile.distance.in_miles(), *(miles for cell in profile.cell for miles in cell.miles)]))
    for index, budget in enumerate(profile.budget):
        given = [name for name in ("p50", "p99", "p999") if getattr(budget, f"{name}_ns")]
        refuse(len(given) == 1, 'budget: it is for one quantile, p50, p99 or p999, such as p99 = "2 ms".', "budget", index)
        refuse(0 < budget.limit_ns <= 10 * units.NS_PER_S, f"budget.{given[0]} must lie above 0 s, and at most at 10 s.",
               "budget", index, given[0])  # fmt: skip
        refuse(budget.miles is None or any(is_about(budget, miles) for miles in distances),
               f"budget {budget.text}: nothing is measured there, but at {', '.join(f'{miles:g}' for miles in distances)} miles.",
               "budget", index, "miles")  # fmt: skip
        refuse(budget not in profile.budget[:index], f"budget {budget.text}: it is named twice.", "budget", index)


def is_about(budget: BudgetTable, miles: float) -> bool:
    """Whether a budget is about what is measured at a distance."""
    return budget.miles is None or abs(budget.miles - miles) <= 1e-6 * max(miles, 1.0)


def check_search(profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of [reach] and [sweep]."""
    reach, sweep = profile.reach, profile.sweep
    for key, time_ns in (("reach", reach.time_ns), ("sweep", sweep.time_ns)):
        refuse(0 <= time_ns <= 24 * units.TIME["h"], f"{key}.time must lie between 0 s and 24 h.", key, "time")
    for key, budget_ns in (("p50", reach.p50_ns), ("p99", reach.p99_ns)):
        refuse(0 <= budget_ns <= 10 * units.NS_PER_S, f"reach.{key} must lie between 0 s and 10 s.", "reach", key)
    refuse(not (reach.p50_ns and reach.p99_ns), "reach.p50 and reach.p99: a search is for one budget.", "reach", "p99")
    if reach.budget_ns:
        refuse(not sweep.time_ns, "reach and sweep: a run is one of the two.", "sweep")
        refuse(len(profile.cell) == 1 and len(profile.cell[0].protocols) == 1,
               "reach: a search is for one cell under one protocol.", "cell")  # fmt: skip
        refuse("local" not in profile.cell[0].protocols, "reach: protocol local has no far site.", "cell", 0, "protocols")


def check_link(profile: Profile, reader: Reader) -> None:
    """What is asked of the links, by itself and at each distance; UsageError with the line of its key."""
    link, distance = profile.link, profile.distance
    if link == PLAIN:
        return
    others = [miles for cell in profile.cell for miles in cell.other_miles]
    try:
        for miles in dict.fromkeys([*distance.in_miles(), *others]):
            check_spec(link, rtt_ns_of(miles, distance.route_factor, distance.equipment_ns) // 2, f"at {miles:g} miles ")
        for way in link.ways:
            if way.jitter_file:
                from .lab.jitter import recorded_ns

                recorded_ns(way.jitter_file)
    except LinkError as refusal:
        raise UsageError(f"{reader.file_and_line(refusal.path)}: {refusal}") from None


def distinct(items: Iterable[str]) -> bool:
    """Whether no two are the same."""
    listed = list(items)
    return len(set(listed)) == len(listed)


def check_cell(cell: CellTable, index: int, profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of one cell."""
    from . import load_table

    name = f'cell "{cell.name}"'

    def require(unless: bool, key: str, sentence: str) -> None:
        refuse(unless, f"{name}: {sentence}", "cell", index, key)

    require(re.fullmatch(r"[\w\-]+", cell.name) is not None, "name", "a name is letters, digits, _ and -.")
    require(bool(cell.protocols), "protocols", f"protocols must name at least one of {', '.join(NAMES)}.")
    require(distinct(cell.protocols), "protocols", "the same protocol is named twice.")
    require(len(cell.other_miles) <= OTHERS_MAX, "other_miles", f"at most {OTHERS_MAX} further secondaries, five replicas.")
    require(all(0 <= miles <= MILES_MAX for miles in cell.other_miles), "other_miles",
            "a distance must lie between 0 and 15 000 miles.")  # fmt: skip
    replicas = 2 + len(cell.other_miles)
    require("quorum" in cell.protocols or not cell.quorum, "quorum", 'a quorum is for the protocol "quorum".')
    require(cell.quorum == 0 or majority(replicas) <= cell.quorum <= replicas, "quorum",
            f"a quorum of {replicas} is {majority(replicas)} to {replicas}: any two must have a replica in common.")  # fmt: skip
    require(cell.on_congestion == "block" or "A" in cell.protocols, "on_congestion", "only protocol A may pull ahead.")
    require(0 < cell.time_scale <= 1e6, "time_scale", "time_scale must be above 0, and at most 1 000 000.")
    load_table.check(cell, profile.lab.volume_bytes, profile.run.round_ns, require, partial(refuse_of_job, refuse, cell, index))
    require(distinct(f"{miles:g}" for miles in cell.miles), "miles", "the same distance is named twice.")
    for miles in cell.miles:
        require(any(abs(miles - known) < 1e-9 for known in profile.distance.in_miles()), "miles",
                f"{miles:g} miles is not among the profile's distances.")  # fmt: skip


def refuse_of_job(
    refuse: Callable[..., None], cell: CellTable, index: int, place: int, unless: bool, key: str, sentence: str
) -> None:
    """A promise of a job, refused at its line."""
    refuse(unless, f'cell "{cell.name}", job "{cell.jobs[place].name}": {sentence}', "cell", index, "jobs", place, key)
