"""A drill: a lab of three sites, their links proven, and trial after trial in it. What was observed is kept as it goes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import msgspec

from ... import __version__
from ...analysis.drill_answer import answer_of
from ...analysis.drill_recording import FILE, KIND, SCHEMA_VERSION, DrillRecording, save
from ...base.documents import found_at
from ...base.errors import UnfitError, UsageError
from ...base.host.disk import why_not_durable
from ...base.host.facts import command_line, host_facts
from ...base.host.libc import aligned_bytes
from ...base.interruption import go_on
from ...base.physics import Distance, rtt_ns_of
from ...base.units import NS_PER_S
from ...lab.lab import Lab, LabSpec, open_lab
from ...lab.session import proof
from ...lab.topology import Leg
from ...progress import Progress
from ...workload import payload_kernel as payload
from ...workload.drill_scenario import SITES, Scenario, Setup, check_without_links
from ...workload.link_spec import PLAIN
from ..serve.replica import rehearse_replica
from ..voters import rehearse_node
from .cluster import JOURNAL_BYTES
from .desk import STAGING_BYTES
from .trial import play

LOOPBACK = "loopback"  # What joins the sites where none has a network of its own.
NO_DISTANCE = (
    "no distance: the sites are processes on loopback, so round trips take microseconds, and no link can be cut, slow or lossy. "
    "What a kill, a stall or a switch-over loses and costs besides round trips is measured."
)
FILE_BYTES = 4096  # Of the lab's own files: each trial has new ones.
SAVES_APART = 20  # Between two saves, in units of the time that one takes.
BEFORE_S, AFTER_S = 2.0, 2.0  # Of a trial, besides the scenario: for the time left.


def rehearse(door: str = "") -> None:
    """Every kernel of a node once, of its door, and the one that reads a volume back, before the first fork."""
    if door:
        rehearse_replica()
    rehearse_node(JOURNAL_BYTES, STAGING_BYTES)
    block = aligned_bytes(4096)[:4096]
    payload.fill(block, 0, 4096, 1, 0, 0)
    payload.matches(block, 0, 4096, 1, 0, 0)


def legs(miles: float) -> list[Leg]:
    """Near and far are so far apart; the third site is half-way between them."""
    lengths = {pair: miles / 2 if SITES[2] in pair else miles for pair in combinations(SITES, 2)}
    return [Leg(*pair, Distance(length, rtt_ns_of(length)), PLAIN) for pair, length in lengths.items()]


def lab_spec(link: str) -> LabSpec:
    """Three sites, each joined to both others."""
    return LabSpec(
        link=link, near=None, far=None, journal_bytes=FILE_BYTES, volume_bytes=FILE_BYTES, congestion="cubic", others=1,
        mesh=True, names=SITES, polls=False, keep_awake="none",
    )  # fmt: skip


def run(
    name: str, scenario: Scenario, setup: Setup, link: str, directory: Path | None, out: Path, progress: Progress,
    is_verbose: bool = False, is_distance_asked: bool = False,
) -> DrillRecording:  # fmt: skip
    """All trials; what was observed is in `out` as it goes, and whole when this is interrupted between or inside of trials."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise UsageError(f"make the directory {out}: {refusal.strerror}. Name another --out.") from refusal
    if found_at(out / FILE).exists():
        raise UsageError(f"{out} holds a drill already: name another --out.")
    progress.doing("loading the engine")
    rehearse(setup.door)
    with open_lab(lab_spec(link)) as lab:
        carried_by = f"{lab.choice.kind}: {lab.choice.reason}"
        if lab.choice.kind == "relay":
            setup = without_distance(scenario, setup, is_distance_asked)
            carried_by, proofs = f"{LOOPBACK}: {lab.choice.reason}", [f"⚠ {NO_DISTANCE}"]
        else:
            progress.doing("proving the links")
            spans = (lab, lab.others[0], lab.between[0])
            proofs = [proof(span, leg, accept_error=True) for span, leg in zip(spans, legs(setup.miles), strict=True)]
        for sentence in proofs:
            if sentence.startswith("⚠"):
                progress.say(sentence)
        recording = DrillRecording(
            schema_version=SCHEMA_VERSION, kind=KIND, farwrite=__version__, name=name,
            started_utc=datetime.now(UTC).isoformat(timespec="seconds"), command=command_line(), scenario=scenario, setup=setup,
            link=carried_by, links=proofs, disk=disk_text(directory), host=host_facts(), trials=[],
        )  # fmt: skip
        return trials(lab, recording, directory, out, progress, is_verbose)


def without_distance(scenario: Scenario, setup: Setup, is_distance_asked: bool) -> Setup:
    """The setup without a distance: processes on loopback speak to each other directly. UnfitError for what needs a link.

    The relay carries connections that are announced to it one by one; nodes that look for each other announce none.
    """
    check_without_links(scenario)
    if is_distance_asked and setup.miles:
        raise UnfitError(
            f"{setup.miles:g} miles cannot be emulated between replicas that find each other by themselves, without privileges. "
            "Run as root, or where user namespaces are allowed; or choose --miles 0."
        )
    return msgspec.structs.replace(setup, miles=0.0)


def disk_text(directory: Path | None) -> str:
    """Where the replicas' files are, and what that means."""
    if directory is None:
        return "memory"
    reason = why_not_durable(directory)
    return f"{directory}{f' ({reason})' if reason else ''}"


def trials(
    lab: Lab, recording: DrillRecording, directory: Path | None, out: Path, progress: Progress, is_verbose: bool
) -> DrillRecording:
    """Trial after trial; an interruption ends them, and what was measured stays."""
    setup, scenario = recording.setup, recording.scenario
    each_s = scenario.end_ns / NS_PER_S + BEFORE_S + AFTER_S
    progress.expect(each_s * setup.trials)
    next_save_s = 0.0
    try:
        for index in range(setup.trials):
            progress.doing(f"trial {index + 1} of {setup.trials}")
            made = play(lab, scenario, setup, index, directory, is_verbose)
            recording = msgspec.structs.replace(recording, trials=[*recording.trials, made])
            begin_s = time.monotonic()
            if begin_s >= next_save_s or index + 1 == setup.trials:
                save(recording, out / FILE)
                # The whole is written each time: after many trials less often, so that it stays a small part of the time.
                next_save_s = time.monotonic() + SAVES_APART * (time.monotonic() - begin_s)
            progress.did(each_s)
            last = answer_of(msgspec.structs.replace(recording, trials=[made])).judged[0]
            if last.why and is_verbose:
                progress.say(f"trial {index + 1} does not count: {last.why}")
            go_on()
    except KeyboardInterrupt:
        recording = msgspec.structs.replace(recording, interrupted=True)
        if recording.trials:
            save(recording, out / FILE)
    return recording
