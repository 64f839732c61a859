"""The report as a storage engineer reads it in a terminal: the answer in ten lines, then the tables a decision needs.

`full` adds everything behind it: verdicts with their details, proof of link, floors, fits, drills, counts, host and method.
Everything printed comes from the recording and its analysis; nothing is measured or decided here.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from ..analysis.answer import IN_MEMORY, MARK_COLUMNS, Answer, answer_of, not_durable_text
from ..analysis.result import Analysis, Claim
from ..base.units import NS_PER_S, format_time
from ..recording import LabFacts, Recording, Report
from . import chart, summary, tables
from .heat_map import show_heat_map
from .page import STYLE, WORD, Page, caution_of, caveat_of
from .reach import show_reach
from .steady import show_five_rounds

if TYPE_CHECKING:
    from rich.console import Console


def show(report: Report, analysis: Analysis, console: Console, full: bool = False) -> None:
    """Print the first screen, for a decision; or the whole document."""
    page = Page(console, caveat_of(report.recording.lab))
    show_title(page, report.recording)
    show_answer(page, answer_of(report.recording, analysis))
    if full:
        show_rest(page, report.recording, analysis)
    else:
        show_reach(page, analysis)
        show_heat_map(page, report.recording, analysis)
        summary.show_summary(page, analysis)


def show_rest(page: Page, recording: Recording, analysis: Analysis) -> None:
    """Everything behind the answer."""
    show_head(page, recording)
    show_verdicts(page, analysis.verdicts)
    show_reach(page, analysis)
    show_heat_map(page, recording, analysis)
    tables.show_link(page, analysis)
    tables.show_latency(page, analysis)
    if not analysis.cells:
        page.prose("\nNo cell was measured: there is nothing to rule on.")
    chart.show_chart(page, analysis)
    tables.show_fits(page, analysis)
    tables.show_miles(page, analysis)
    tables.show_limits(page, analysis)
    tables.show_drills(page, analysis)
    tables.show_lag(page, analysis)
    tables.show_counts(page, analysis)
    show_five_rounds(page, analysis)
    show_warnings(page, recording, analysis)
    show_method(page, recording)
    show_machines(page, recording)


def show_title(page: Page, recording: Recording) -> None:
    """What was run."""
    page.prose(Text("farwrite: ", style="bold").append(recording.profile.title))


def show_answer(page: Page, answer: Answer) -> None:
    """The lines of the answer, each verdict as a word before its own."""
    for line in answer.lines:
        style = STYLE["fail"] if line.kind == "caution" else ""
        if line.verdict is None:
            page.prose(line.text, style=style)
        else:
            text = Text(f"{WORD[line.verdict]:<{MARK_COLUMNS}}", style=STYLE[line.verdict])
            page.prose(Text.assemble(text, Text(line.text, style="bold")))


def show_head(page: Page, recording: Recording) -> None:
    """When it was run, and on what."""
    if caution := caution_of(recording.lab):
        page.prose(f"⚠ {caution}", style=STYLE["fail"])
    when = f"{recording.started_utc} · {duration(recording.duration_s)} · {host_line(recording)}"
    page.prose(when, style="dim")
    if recording.interrupted:
        page.prose(
            "⚠ INTERRUPTED: the run was stopped before its end; what follows rests on the rounds that were finished.",
            style=STYLE["fail"],
        )


def host_line(recording: Recording) -> str:
    """Processor, kernel, disk, link, reactor and congestion control, in one line."""
    host, lab = recording.host, recording.lab
    processor = " ".join(str(host.get("cpu") or "unknown processor").split())
    count = host.get("cpu_count")
    facts = [
        f"{count} x {processor}" if count else processor,
        "virtual machine" if host.get("virtual") else "",
        f"kernel {host['kernel']}" if host.get("kernel") else "",
        f"{systems_text(lab)}{', both sites on one disk' if lab.shared_disk else ''}",
        awake_text(lab),
        journals_text(lab),
        f"link {lab.link}: {lab.link_reason}",
        f"asked of it besides the distance: {lab.link_asked}" if lab.link_asked else "",
        f"reactor {lab.reactor}",
        f"TCP {lab.transport['congestion_control']}" if "congestion_control" in lab.transport else "",
        wire_text(lab),
    ]
    return " · ".join(fact for fact in facts if fact)


def systems_text(lab: LabFacts) -> str:
    """The file system of each journal: "ext4", or "near ext4, far tmpfs"."""
    near, far = lab.near_file_system, lab.far_file_system
    return near if near == far else f"near {near}, far {far}"


def journals_text(lab: LabFacts) -> str:
    """What a flushed write is on: a disk, or memory that no power loss spares."""
    if lab.durability == "memory":
        return IN_MEMORY
    place = not_durable_text(lab) if lab.not_durable else "journals on disk"
    return f"{place}, {'direct' if lab.direct else 'buffered'}"


def awake_text(lab: LabFacts) -> str:
    """What kept the processors awake; empty when nothing did."""
    words = {"qos": "processors kept awake by PM QoS", "spinner": "one processor kept awake by a spinner"}
    return words.get(str(lab.keep_awake), "")


def wire_text(lab: LabFacts) -> str:
    """What lay between the replicas and the network; empty when nothing did."""
    encryption = {"tls": "encrypted by TLS 1.3"}.get(lab.encryption, "")
    compression = f"compressed by {lab.compression}" if lab.compression != "none" else ""
    return " and ".join(words for words in (encryption, compression) if words)


def duration(seconds: float) -> str:
    """ "12 min 3 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def show_verdicts(page: Page, claims: list[Claim]) -> None:
    """The run's own budgets and the claims, each with its sentence and what it rests on."""
    if not claims:
        return
    page.heading("Verdicts")
    for claim in claims:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, width=max(len(word) for word in WORD.values()))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(WORD[claim.verdict], style=STYLE[claim.verdict]), Text(claim.id, style="bold"),
                     Text(claim.claim, style="italic"))  # fmt: skip
        grid.add_row("", "", Text(claim.sentence, style="bold"))
        page.print(grid)
        for detail in claim.details:
            page.item("·", detail, indent=15)


def show_warnings(page: Page, recording: Recording, analysis: Analysis) -> None:
    """What would make the next run say more, or makes this one say less."""
    advice = list(dict.fromkeys([*map(str, analysis.warnings), *recording.notes]))
    if not advice:
        return
    page.heading("Warnings")
    for text in advice:
        page.item("⚠", text)


def show_method(page: Page, recording: Recording) -> None:
    """How it was measured, so that it can be measured again."""
    run, distance = recording.profile.run, recording.profile.distance
    route = f" · route factor {distance.route_factor:g}" if distance.route_factor != 1 else ""
    if distance.equipment_ns:
        route += f" · equipment {format_time(distance.equipment_ns)} one way"
    page.heading("How it was measured")
    page.prose(
        f"{run.rounds} interleaved rounds of {run.round_ns / NS_PER_S:g} s per cell · seed {recording.seed} · profile "
        f"{recording.profile_name} {recording.profile_digest} · farwrite {recording.farwrite}{route}"
    )
    page.prose(f"{shlex.join(recording.command)} · run {recording.id}")


def show_machines(page: Page, recording: Recording) -> None:
    """Which machine measured which cells, where they were spread over several."""
    for number, worker in enumerate(recording.workers, 1):
        if worker.cells:
            part = msgspec.structs.replace(recording, host=worker.host, lab=worker.lab)
            rows = list(dict.fromkeys(cell.rpartition("-")[0] for cell in worker.cells))
            page.item("·", f"machine {number} measured {', '.join(rows)}: {host_line(part)}")
