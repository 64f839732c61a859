"""The recording of a case: what was observed of each of its parts, and nothing that was made of it.

A document of its own kind. What a run and a drill observed stands in their own reports beside it; of these the case keeps the
figures that it speaks of. Instants are ns since the part began, on CLOCK_MONOTONIC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..base.documents import read_document, save_document
from ..base.recorded import decoded
from ..workload.case_profile import Case
from .drill_answer import PhaseAnswer
from .drill_servers import Pauses
from .result import Estimate

SCHEMA_VERSION = 1
KIND = "case"
FILE = "case.json"
PLAIN, SNAPSHOT, COPY = "plain", "snapshot", "copy"  # What runs beside the writes of a period.


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What a case's recording is made of. Unknown fields are passed over."""


class SteadyCell(Struct, frozen=True):
    """Writes at one distance, as the run's report has them."""

    miles: float
    rounds: int
    completed: int
    p50: Estimate  # ns, from the intended instant
    p99: Estimate
    floor: Estimate  # ns: a bare echo and flush in the same lab, at the median
    lost: int | None
    doubts: list[str] = []  # why no verdict on a latency may rest on it, such as a busy host


class SteadyPart(Struct, frozen=True):
    """[steady]."""

    report: str  # the file, beside this one
    cells: list[SteadyCell]


class FaultsPart(Struct, frozen=True):
    """[faults]."""

    report: str
    trials: int
    counted: int
    acked: int
    lost: int
    damaged: int
    loss_probability_high: float | None
    bound_ns: int
    events: list[PhaseAnswer]
    pauses: list[Pauses]


class ThinVolume(Struct, frozen=True):
    """One volume after it was filled."""

    name: str
    written_bytes: int  # by its server, each block once
    stored_bytes: list[int]  # that each copy's volume takes on its node, as the file system counts
    used_bytes: int  # as the one that led had counted
    seconds: float


class ThinPart(Struct, frozen=True):
    """[thin]."""

    volumes: list[ThinVolume]
    journal_bytes: int  # of each copy
    nodes: int
    capacity_bytes: int  # of all nodes
    copies: int


class Written(Struct, frozen=True):
    """Writes of one period, by their intended instants."""

    beside: str  # PLAIN, SNAPSHOT or COPY
    seconds: float
    writes: int
    written_bytes: int
    changed_bytes: int  # blocks that were written, each once
    p50_ns: int
    p99_ns: int
    max_ns: int
    late_ns_p99: int  # from the intended instant to the request
    floor_ns_p50: int  # reads of one block by the same client at the same door
    first_second_ns_p50: int = 0  # of the writes in the second after the snapshot's instant
    first_second_ns_max: int = 0
    pair: int = 0
    taken_ns: int = 0  # that taking the snapshot took


class Copied(Struct, frozen=True):
    """One remote copy."""

    is_full: bool
    seconds: float
    changed_bytes: int
    shipped_bytes: int
    recovery_point_s: float
    recovery_point_s_max: float | None


class DatabasePart(Struct, frozen=True):
    """[database]."""

    periods: list[Written]
    copies: list[Copied]
    used_before_bytes: int  # of the volume at the near site, as its file takes
    used_after_bytes: int
    grown_s: float  # between the two
    flush_ns_p50: int  # of a bare 4 KiB write on the same disk
    falls_behind: bool = False
    left_out: int = 0  # periods whose writes were not made within them: the volume did not keep up with what was offered
    failed_writes: int = 0


class CaseRecording(Struct, frozen=True):
    """The document."""

    schema_version: int
    kind: str
    farwrite: str
    name: str
    started_utc: str
    command: list[str]
    case: Case
    quick: bool
    link: str  # how distances were emulated
    disk: str
    host: dict[str, Any]
    steady: SteadyPart | None = None
    faults: FaultsPart | None = None
    thin: ThinPart | None = None
    database: DatabasePart | None = None
    unknown: dict[str, str] = {}  # by part why it was not measured
    seconds: dict[str, float] = {}  # by part
    interrupted: bool = False


def save(recording: CaseRecording, path: Path) -> Path:
    """Write it, whole or not at all; answers the file that holds it."""
    return save_document(path, msgspec.json.format(msgspec.json.encode(recording), indent=1) + b"\n")


def read(path: Path) -> CaseRecording:
    """The recording in a file. UsageError when it is none."""
    return decoded(read_document(path, "read the case"), CaseRecording, KIND, SCHEMA_VERSION, str(path))
