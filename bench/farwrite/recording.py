"""The recording: everything a run observed, immutable, versioned; and the report document it is stored in.

This is the wall. The measuring side writes it; analysis, report and gate read nothing else, so every number can be
computed again from the file. Units are in the names, base units, integers where exact, null for what is not known.
Histograms are HdrHistogram's V2 (`HistogramText`); recordings of schema 1 have them in an encoding of their own, read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from .base.documents import found_at, read_document, save_document
from .base.errors import UsageError
from .base.file_systems import memory_text
from .base.keep_awake import KeptAwake, kept_word
from .base.protocol import ProtocolName, asked_peer
from .base.reasons import Reason, of_sentence
from .base.wire_names import CompressionName, EncryptionName
from .workload.link_spec import STREAM_LEVEL_LINKS
from .workload.tables import Profile

SCHEMA_VERSION = 2
REPORT_NAME = "report.json"  # In the directory of a run; base/documents.py says when it is compressed.

RoundIndex = Annotated[int, msgspec.Meta(ge=0, lt=1000)]  # A profile asks for 1000 rounds at most.

HistogramText = Annotated[str, msgspec.Meta(description="HdrHistogram's encoding V2, compressed, in base64; values in ns")]

RoundStatus = Literal["ok", "void", "failed"]

NOT_OURS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # What decoding other people's bytes can raise.


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording is made of. Unknown fields are passed over: an older farwrite may read a newer file's parts."""


class Other(Struct, frozen=True):
    """A further secondary of a cell."""

    miles: float
    asked_rtt_ns: int


class Cell(Struct, frozen=True):
    """One workload under one protocol at one distance."""

    id: str  # "write-C-150"
    name: str
    protocol: ProtocolName
    miles: float
    asked_rtt_ns: int  # 0: the lab's own base delay and no more
    queue_depth: int
    arrival: str  # closed, fixed, poisson or trace
    size_bytes: int  # the median size of a write
    offered_per_s: float | None  # null for a closed loop: it offers what completes
    note: str = ""
    others: list[Other] = []
    quorum: int = 0  # replicas that must be durable under protocol quorum, the primary among them; 0: the workload has none
    on_congestion: str = "block"


class Slice(Struct, frozen=True):
    """A stretch of a round, by intended instant."""

    begin_ns: int  # since the round's start
    duration_ns: int
    completed: int  # of the writes intended in it, also those that completed after the round's end
    completed_bytes: int
    response_ns_max: int
    response: HistogramText  # histogram of response times of writes, ns
    within: int | None = None  # writes that completed in it, whenever they were intended; null: not counted by an older farwrite
    within_bytes: int | None = None


class Part(Struct, frozen=True):
    """What a round has of one operation of one job in one phase; the whole round, its warm-up too."""

    operation: Literal["write", "read", "flush", "trim"]
    completed: int
    completed_bytes: int
    response: HistogramText  # histogram of response times, ns
    job: str = ""  # empty: the workload has no jobs
    phase: str = ""
    within: int | None = None  # of `completed`, before the round's end; null: not counted by an older farwrite
    within_bytes: int | None = None


class Audit(Struct, frozen=True):
    """What of the acknowledged writes was found at the far site afterwards."""

    completed: int  # writes the caller was told are complete
    survived: int  # length of the prefix that stands at the far site
    lost: int  # completed and not among the survivors
    damaged: int  # survivors whose content is not what was written
    note: str = ""


class LinkChange(Struct, frozen=True):
    """A change of the link that was scheduled, and when it came: both since the load began."""

    at_ns: int
    happened_ns: int
    what: str


class LinkDirection(Struct, frozen=True):
    """What one direction of a link did over a round, packet by packet: histograms, ns.

    From the sender's kernel to the receiver's, of stamped probes before, beside and after the load; and, by the emulation's own
    account, how late each packet of the round left. Empty where it is not known.
    """

    light_ns: int  # what a packet was to take
    held_ns: int  # of it, what the emulation held it for: less its own fastest passage
    before: HistogramText
    during: HistogramText
    after: HistogramText
    lost: int  # stamped probes that did not arrive, of all three
    late: HistogramText


class OtherRound(Struct, frozen=True):
    """What a round has of one further secondary, in the order of the cell's."""

    survey_before: HistogramText  # as Round's
    survey_after: HistogramText
    echo_floor: HistogramText
    flushed_echo_floor: HistogramText | None
    far_flushes: int
    far_cpu_ns: int | None
    link: dict[str, int]
    survived: int | None  # of the writes, as the audit found them there; null: not audited
    directions: list[LinkDirection] = []  # as Round's
    polled_echo_floor: HistogramText | None = None
    polled_flushed_echo_floor: HistogramText | None = None


class HostNoise(Struct, frozen=True):
    """What the machine did besides the measurement while a round's load ran; steal is the round's own field."""

    duration_ns: int  # over which it was observed
    near_run_delay_ns: int | None  # how long the near site's threads were runnable and had no processor, its tunnels' too
    far_run_delay_ns: int | None  # of all far sites together; null: another machine's, or the kernel does not tell
    link_run_delay_ns: int | None  # of the processes that carry packets; 0 where the kernel does
    own_share: float | None  # of all processors' time, used by this run's processes
    foreign_share: float | None  # the same by programs that are not this run's


class Round(Struct, frozen=True):
    """One cell measured once."""

    cell: str  # Cell.id
    index: RoundIndex
    attempt: int
    status: RoundStatus
    reasons: list[str]  # why it is void or failed
    begin_s: float  # since the run's start
    duration_ns: int
    survey_before: HistogramText  # RTT: of stamped probes, kernel to kernel and back, where LabFacts.distance is "light",
    survey_after: HistogramText  # otherwise of a 64-byte echo
    echo_floor: HistogramText  # histogram of RTT, ns, of an echo with the write's sizes; empty for A and local
    slices: list[Slice]
    service: HistogramText  # histogram of completed - issued, ns
    wait: HistogramText  # histogram of issued - intended, ns
    late: HistogramText  # histogram of how late the generator was once it was free to issue, ns
    lag: HistogramText | None  # protocol A: histogram of the age of the oldest write not known durable at the far site, ns
    lag_writes_max: int
    lag_bytes_max: int
    issued: int
    completed: int
    unacknowledged: int
    completed_bytes: int
    flushes: int  # of the near site's journal
    flush_bytes: int
    far_flushes: int
    wire_bytes: int  # near to far as the network carried them: our headers included, compressed and encrypted; TCP's headers not
    blocked: int  # times a write had to wait for room in journal or memory
    steal: float | None  # share of processor time the host took
    link: dict[str, int]  # what the link counted during the round
    audit: Audit | None
    unissued: int = 0  # open loop: intended within the round, and not even issued when it was given up
    flushed_echo_floor: HistogramText | None = None  # protocol C: echo_floor with a bare flush at the far end before each answer
    near_cpu_ns: int | None = None  # processor time of the near site's process, and its tunnels, over the load; user and system
    far_cpu_ns: int | None = None
    others: list[OtherRound] = []
    exposed: int = 0  # writes that completed while a peer was left behind: in fewer places than asked
    catch_up_ns: int | None = None  # from the end of the load until the peers had everything; null: they did not in time
    samples: str | None = None  # the file of single writes, relative to the run's directory; `samples.py` has its columns
    changes: list[LinkChange] = []  # of the link, as they really came
    peer_timeout_ns: int | None = None  # a peer not heard for so long is given up; derived from the round trip
    parts: list[Part] = []  # where there is more than plain writes of one kind
    spin_ns: int | None = None  # before an intended instant, looking at the clock instead of sleeping
    directions: list[LinkDirection] = []  # outward and homeward; empty: not stamped, and no account
    noise: HostNoise | None = None
    polled_echo_floor: HistogramText | None = None  # echo_floor by a near end that polls and never sleeps; null: not measured
    polled_flushed_echo_floor: HistogramText | None = None  # the same of flushed_echo_floor
    causes: list[Reason] = []  # the codes of `reasons`, one for each; empty in older recordings


def causes_of(round_: Round) -> list[Reason]:
    """Why a round is void or has failed; of recordings without codes they are read from the sentences."""
    if len(round_.causes) == len(round_.reasons):
        return round_.causes
    return [of_sentence(text) for text in round_.reasons]


def waited_for(cell: Cell, round_: Round) -> Round | OtherRound:
    """What a round has of the peer whose acknowledgement a write of this cell waits for last."""
    place = waited_place(cell)
    return round_.others[place - 1] if place else round_


def waited_rtt_ns(cell: Cell) -> int:
    """The round trip asked for to the peer whose acknowledgement a write of this cell waits for last."""
    place = waited_place(cell)
    return cell.others[place - 1].asked_rtt_ns if place else cell.asked_rtt_ns


def waited_place(cell: Cell) -> int:
    """Which peer that is: 0 for the cell's own far site, then its others in their order."""
    return asked_peer(cell.protocol, cell.quorum, [cell.asked_rtt_ns, *(other.asked_rtt_ns for other in cell.others)])


class FlushFloors(Struct, frozen=True):
    """Bare append-and-flush of one size, measured once: histograms, ns."""

    index: RoundIndex
    size_bytes: int
    near_alone: HistogramText
    far_alone: HistogramText
    near_both: HistogramText
    far_both: HistogramText
    worker: int = 0  # Recording.workers, where there are any


# Why writes were not being acknowledged at the fault of a drill:
#   near-died             the near site's process had ended before it
#   engine-stopped        its engine had stopped with an error
#   load-ended            its load had come to its end
#   nothing-acknowledged  it had not acknowledged a single write
#   stalled               its last acknowledgement was older than Drill.alive_ns
Uncounted = Literal["near-died", "engine-stopped", "load-ended", "nothing-acknowledged", "stalled"]


class Drill(Struct, frozen=True):
    """The near site lost in the middle of a load: its link cut and its process killed at the same instant."""

    kind: Literal["kill", "cut"]
    protocol: ProtocolName
    miles: float
    index: int
    audit: Audit
    lost_bytes: int
    recovery_point_ns: int | None  # age of the oldest lost write when the site was lost; 0 when none was
    completed_during_cut: int | None
    recovery_time_ns: int | None  # from heal to the next completed write
    note: str = ""
    uncounted: Uncounted | None = None  # why this trial does not count; null: it does
    last_ack_age_ns: int | None = None  # at the fault; null: nothing had been acknowledged, or an older farwrite did not look
    alive_ns: int | None = None  # a load whose last acknowledgement is older is not alive; null: an older farwrite did not look


class LabFacts(Struct, frozen=True):
    """What carried the run."""

    link: str
    link_reason: str
    base_rtt: HistogramText  # histogram, ns: the lab's own round trip with no delay asked
    delay_ns: dict[str, int]  # calibrated delay by asked RTT in ns
    near_directory: str
    far_directory: str
    near_file_system: str
    far_file_system: str
    shared_disk: bool
    durability: Literal["disk", "memory"]
    direct: bool
    reactor: str
    transport: dict[str, str]
    link_asked: str = ""  # besides the distance, in words; the profile's `link` has the numbers
    link_facts: dict[str, str] = {}  # how the link carries packets
    encryption: EncryptionName = "none"  # of the connections that writes are replicated over; surveys are in the clear
    compression: CompressionName = "none"
    keep_awake: KeptAwake | bool = "none"  # what kept processors from sleeping; a boolean in older recordings, true: a spinner
    keep_awake_reason: str = ""  # why this and nothing else
    keep_awake_mend: str | None = None  # what would do it better, as doctor says it; empty: nothing here; null: not recorded
    far_host: dict[str, Any] | None = None  # facts of the far machine, where it is another one
    # "light": asked_rtt_ns is what packets took, kernel to kernel, on top of nothing of this host's; "echo": what the echo of an
    # application took, of which this host's wake-ups are a part that the delay was shortened by.
    distance: Literal["light", "echo"] = "echo"
    # Why what is flushed at a site would not survive a power loss ("tmpfs is memory"); empty: it would, as far as its system
    # tells; null: an older farwrite did not look, and the name of the file system is all there is.
    near_not_durable: str | None = None
    far_not_durable: str | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "keep_awake", kept_word(self.keep_awake))

    @property
    def not_durable(self) -> dict[str, str]:
        """By site, "near" or "far", why its journal would not survive a power loss; empty where both would."""
        journals = {
            "near": (self.near_not_durable, self.near_file_system),
            "far": (self.far_not_durable, self.far_file_system),
        }
        if self.durability == "memory":
            return dict.fromkeys(journals, "memory")
        reasons = {site: memory_text(system) if reason is None else reason for site, (reason, system) in journals.items()}
        return {site: reason for site, reason in reasons.items() if reason}

    @property
    def is_stream_level(self) -> bool:
        """Whether the link carried streams of bytes and knew no packets: what TCP does over a distance was not part of it."""
        return self.link in STREAM_LEVEL_LINKS


class Worker(Struct, frozen=True):
    """A machine with a lab of its own, which measured some of the cells from their first round to their last."""

    host: dict[str, Any]
    lab: LabFacts
    cells: list[str]  # Cell.id


class Pairing(Struct, frozen=True):
    """One arm of an A/B experiment: its rounds were measured beside those of the other arms, in one lab."""

    id: str  # the same for all arms of one experiment
    arm: Literal["base", "cand", "again"]  # "again" is the base a second time: what no difference looks like
    what: str  # the arm as it was asked for


class Recording(Struct, frozen=True):
    """A whole run."""

    farwrite: str
    id: str
    started_utc: str
    duration_s: float
    command: list[str]
    profile_name: str
    profile: Profile
    profile_digest: str
    seed: int
    host: dict[str, Any]
    lab: LabFacts
    cells: list[Cell]
    rounds: list[Round]
    floors: list[FlushFloors]
    drills: list[Drill]
    interrupted: bool
    notes: list[str]
    pairing: Pairing | None = None
    workers: list[Worker] = []  # where cells were spread over machines; `host` and `lab` are those of the first


class Report(Struct, frozen=True):
    """The document: what was observed, and what our analysis made of it."""

    schema_version: int
    recording: Recording
    analysis: Any = None  # analysis.result.Analysis, as plain values: the wall does not know its readers
    answer: Any = None  # analysis.answer.Answer: the lines that every report begins with


def save(report: Report, path: Path) -> Path:
    """Write the document atomically, compressed if it is large; answers the file that holds it."""
    return save_document(path, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read(path: Path) -> Report:
    """A report from its file, or from the run's directory; UsageError when it is not one we can read."""
    if path.is_dir():
        path = path / REPORT_NAME
    path = found_at(path)
    return decode(read_document(path, "read the report"), str(path))


def decode(data: bytes, source: str) -> Report:
    """A report from its bytes."""
    try:
        head = msgspec.json.decode(data, type=Head)
    except NOT_OURS as refusal:
        raise UsageError(f"{source} is not a farwrite report: {refusal}.") from refusal
    if head.schema_version > SCHEMA_VERSION:
        raise UsageError(
            f"{source} has schema {head.schema_version}; this farwrite reads up to {SCHEMA_VERSION}. "
            "Upgrade farwrite to read it."
        )
    try:
        return msgspec.json.decode(data, type=Report)
    except NOT_OURS as refusal:
        raise UsageError(f"{source} is damaged or not a farwrite report: {refusal}.") from refusal


def upgraded(made: Any) -> Any:
    """The same struct, or list of them, with its histograms in the encoding of today: what an older farwrite observed."""
    if isinstance(made, list):
        return [upgraded(item) for item in made]
    if not isinstance(made, msgspec.Struct):
        return made
    kinds = type(made).__annotations__  # As they are written: "HistogramText | None".
    changes: dict[str, Any] = {}
    for name in made.__struct_fields__:
        old = getattr(made, name)
        new = of_today(old) if isinstance(old, str) and "HistogramText" in str(kinds.get(name)) else upgraded(old)
        changes |= {name: new} if new is not old else {}
    return msgspec.structs.replace(made, **changes) if changes else made


def of_today(text: str) -> str:
    """A histogram's text in the encoding of today."""
    from .base.hdr_codec import BEGINNING  # NumPy, which only who converts a recording needs.
    from .base.histogram import Histogram

    return text if not text or text.startswith(BEGINNING) else Histogram.decode(text).encode()


class Head(Struct, frozen=True):
    """Enough of a report to know whether the rest can be read."""

    schema_version: int


def schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    return msgspec.json.schema(Report)


# What `farwrite lab --measure` observes of a command; `analysis/command.py` judges it from this alone.


class Turn(Struct, frozen=True):
    """The runs of one round at one of the two distances, in the order they were made."""

    rtt_ns: list[float]  # round trips that the link delivered before them
    run_ns: list[int]  # from the start of the program to its end


class Pair(Struct, frozen=True):
    """One round: as many runs at 0 miles as at the distance, taking turns with which comes first."""

    near_first: bool
    at_0: Turn
    far: Turn


class AtDistance(Struct, frozen=True):
    """What is measured at 0 miles and at one distance begins with these."""

    farwrite: str
    started_utc: str
    miles: float
    asked_rtt_ns: int
    is_ping: bool  # the round trip asked for is an echo's, this host's own part in it included
    route_factor: float
    asked_besides: str  # of the link, in words
    link: str
    link_reason: str


class Repeated(AtDistance, frozen=True):
    """Everything."""

    command: list[str]
    keep_awake: KeptAwake
    keep_awake_reason: str
    warmups: int  # runs at each distance before the first round, which are in no figure
    planned_runs: int  # at each distance
    rounds: list[Pair]
    void: list[Reason]  # why a round was left out, one for each
    interrupted: bool = False


class WritesOfSize(Struct, frozen=True):
    """Writes of one size, one after the other, at 0 miles and at the distance; `run_ns` is one write each."""

    size_bytes: int
    at_0: Turn
    far: Turn


class MeasuredTarget(Struct, frozen=True):
    """A target at the far site, and what an initiator at the near one saw of it."""

    name: str
    kind: Literal["nbd", "iscsi"]
    uri: str  # as it was given, $FAR unread
    command: str  # that served it; empty: our own door
    keys: dict[str, str]  # of iSCSI, as agreed on where the initiator offers what libiscsi does; empty: unknown
    keys_unknown: str  # why; empty where they are known, or there are none
    writes: list[WritesOfSize]


class TripsRecording(AtDistance, frozen=True):
    """What `farwrite trips` observed."""

    initiator: str  # program and version
    congestion: str  # TCP's congestion control at both sites
    fua: bool  # each write was to be durable before it is answered
    warmups: int  # writes before those that count, in each process
    targets: list[MeasuredTarget]
