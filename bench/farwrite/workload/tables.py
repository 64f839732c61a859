"""What a profile holds: its tables as types, each key with its meaning. Read by `profile`, written into every recording.

The suffix of a field is its unit: the key `round` of the file is the field `round_ns`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..base import units
from ..base.keep_awake import KeepAwake, asked_word
from ..base.protocol import ProtocolName
from ..base.wire_names import CompressionName, EncryptionName
from .link_spec import PLAIN, LinkSpec

Arrival = Literal["closed", "fixed", "poisson"]
AddressName = Literal["sequential", "uniform", "zipf", "pareto", "normal", "hot-spot", "bands", "shuffle"]
Congestion = Literal["block", "pull-ahead"]


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


def digest(profile: Profile) -> str:
    """Sixteen hex digits that name exactly this workload, wherever its files lie, and whatever keys are added later.

    What keeps the machine awake is no part of it: what was done is known only to the recording, and is of the run's environment.
    Neither is what the report rules on, which changes nothing of what is measured.
    """
    lab = msgspec.structs.replace(profile.lab, near="", far="", keep_awake="auto")
    measured = msgspec.structs.replace(profile, lab=lab, budget=[], claims=None)
    import hashlib

    return hashlib.blake2b(msgspec.json.encode(without_defaults(measured)), digest_size=8).hexdigest()


def without_defaults(table: msgspec.Struct) -> dict[str, Any]:
    """A profile, or a table of it, without the values that are defaults."""
    kept = {}
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if value != default:
            kept[field.name] = value_without_defaults(value)
    return kept


def value_without_defaults(value: Any) -> Any:
    """One value of a profile, tables in it without their defaults."""
    if isinstance(value, msgspec.Struct):
        return without_defaults(value)
    return [value_without_defaults(item) for item in value] if isinstance(value, (list, tuple)) else value


def is_about(budget: BudgetTable, miles: float) -> bool:
    """Whether a budget is about what is measured at a distance."""
    return budget.miles is None or abs(budget.miles - miles) <= 1e-6 * max(miles, 1.0)
