"""The recording of a drill: what the client, the nodes and the audit observed of each trial, and nothing that was made of it.

A document of its own kind beside a run's report. Instants are ns since the trial's first acknowledged write, on the one clock
that all processes of a lab share (CLOCK_MONOTONIC). Writes are numbered from 0 in the order in which the client handed them on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..base.documents import read_document, save_document
from ..base.recorded import decoded
from ..workload.drill_scenario import Scenario, Setup

SCHEMA_VERSION = 1
KIND = "drill"
FILE = "drill.json"

# A write's outcome. FAILED: it was never handed to a node. INDETERMINATE: it was, and no answer came on that connection. AGAIN: a
# door answered that it was not done (an iSCSI unit attention), and it was begun anew under another number.
ACKED, FAILED, INDETERMINATE, AGAIN = 1, 2, 3, 4
NEVER = -1  # In place of an instant or a connection.

# What a node notes of itself.
SILENT, STANDS, WON, TAKES, OPENS = "silent", "stands", "won", "takes", "opens"
NOTES = (SILENT, STANDS, WON, TAKES, OPENS)


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill's recording is made of. Unknown fields are passed over."""


class Done(Struct, frozen=True):
    """An event of the scenario, as it happened: `end_ns` is when what it asks for was in force."""

    text: str
    kind: str
    planned_ns: int
    begin_ns: int
    end_ns: int
    note: str = ""


class Connection(Struct, frozen=True):
    """One connection of the client's to a node that led."""

    node: str
    epoch: int  # of a door, which does not say it, as the node noted it
    opened_ns: int  # when writes could go over it
    closed_ns: int  # NEVER: it was open at the end
    # Through a door: when the attempt began that led to it, and when TCP was connected; otherwise NEVER.
    dialled_ns: int = NEVER
    connected_ns: int = NEVER


class Noted(Struct, frozen=True):
    """What a node noted: its session with the primary ended (silent), it stands, has won, takes writes in an epoch, has opened
    its door."""

    node: str
    what: str
    epoch: int
    at_ns: int


class History(Struct, frozen=True):
    """Every write, by number."""

    block: list[int]
    intended_ns: list[int]
    sent_ns: list[int]
    done_ns: list[int]  # the answer; of a failed or indeterminate write when it was given up
    connection: list[int]  # index into the trial's connections
    outcome: list[int]


class Found(Struct, frozen=True):
    """What one replica's volume held after recovery: by block the number of its write, or what stood there instead of one."""

    node: str
    led: bool  # whether it led when the trial ended; otherwise nobody did, and this replica's log was the furthest
    block: list[int]


class Trial(Struct, frozen=True):
    """One trial."""

    index: int
    events: list[Done]
    connections: list[Connection]
    notes: list[Noted]
    history: History
    stopped_ns: int  # when the client was told to begin no more writes
    found: list[Found]  # the replica that counts first, then the others that were up at the end
    repaired: bool = False  # whether everything had to be healed and started again before anybody led
    unknown: str = ""  # why nothing can be said of what survived; empty: it can
    remarks: list[str] = []
    strays: int = 0  # answers of a door to nothing that was asked on their connection


class DrillRecording(Struct, frozen=True):
    """The document."""

    schema_version: int
    kind: str
    farwrite: str
    name: str
    started_utc: str
    command: list[str]
    scenario: Scenario
    setup: Setup
    link: str
    links: list[str]  # what each link was proven to deliver, in sentences
    disk: str
    host: dict[str, Any]
    trials: list[Trial]
    interrupted: bool = False


def save(recording: DrillRecording, path: Path) -> Path:
    """Write it, whole or not at all; answers the file that holds it: it is compressed where it is large."""
    return save_document(path, msgspec.json.encode(recording) + b"\n")


def read(path: Path) -> DrillRecording:
    """The recording in a file. UsageError when it is none."""
    return decode(read_document(path, "read the drill"), str(path))


def decode(data: bytes, source: str) -> DrillRecording:
    """The recording in these bytes. UsageError when they are none."""
    return decoded(data, DrillRecording, KIND, SCHEMA_VERSION, source)
