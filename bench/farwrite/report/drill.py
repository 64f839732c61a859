"""A drill's answer in the terminal: what was lost and how sure that is, then how long recovery took, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..analysis.drill_answer import Answer, PhaseAnswer, TrialAnswer
from ..analysis.drill_recording import DrillRecording
from ..analysis.drill_servers import GUEST_LIMITS_NS, Pauses
from ..analysis.drill_sessions import Sessions
from ..analysis.result import Estimate
from ..base.units import counted, format_size, format_time
from .digits import UNKNOWN, span_text
from .page import STYLE, WORD, Form, Page, add_row, table_of

OUTCOMES = {"kept": "pass", "unknown": "unknown", "lost": "fail", "corrupt": "fail"}
DOOR_NAMES = {"nbd": "NBD", "iscsi": "iSCSI"}
DOOR_WORDS = {"": "", **{kind: f"the {name} door" for kind, name in DOOR_NAMES.items()}}
TRIALS_NAMED_MAX = 5


def show_drill(page: Page, recording: DrillRecording, answer: Answer) -> None:
    """The whole report of one drill."""
    setup = recording.setup
    page.heading(f"{recording.scenario.title}")
    page.prose(setup_text(recording), indent=2)
    verdict = OUTCOMES[answer.outcome]
    permitted = answer.outcome == "lost" and not answer.promised
    page.item("⚠ LOST" if permitted else WORD[verdict], sentence(answer), style=STYLE[verdict])
    for line in after_faults(answer):
        page.item("·", line)
    if answer.counted:
        page.item("·", availability_text(answer, setup.bound_ns))
        led = f"{answer.under_one_primary} of {counted(answer.trials, 'trial')}"
        page.item("·", f"one primary in one epoch from beginning to end in {led}.")
    if answer.events:
        page.heading("Recovery, as the load saw it")
        page.table(lambda form: recovery_table(answer.events, form))
        if any(event.phases_p50 for event in answer.events):
            page.prose("Where another replica took over, its medians:")
            page.table(lambda form: phase_table(answer.events, form))
        if any(event.route_p50 for event in answer.events):
            page.prose(f"What the route through {DOOR_WORDS[setup.door]} is made of, medians:")
            page.table(lambda form: route_table(answer.events, form))
            page.prose(ROUTE_TEXTS[setup.door], style="dim")
    if answer.sessions:
        page.heading(f"What the client's session through {DOOR_WORDS[setup.door]} saw")
        page.table(lambda form: sessions_table(answer.sessions, form))
        page.prose(sessions_text(answer.sessions))
    if answer.pauses and answer.counted:
        page.heading(f"The longest pause that each of {recording.scenario.servers} virtual servers saw")
        page.table(lambda form: pauses_table(answer.pauses, form))
        page.prose(pauses_text(answer.pauses))
    page.heading("What was read back")
    page.prose(
        f"{counted(answer.acked, 'acknowledged write')}: {answer.lost:,} lost, {answer.damaged:,} damaged, "
        f"{answer.resurrected:,} resurrected, {answer.out_of_order:,} out of order; {answer.recovered:,} recovered that had not "
        "been acknowledged."
    )
    if answer.strays:
        page.item("·", f"{counted(answer.strays, 'answer')} of a door to nothing that was asked on that connection.")
    bad = [one for one in answer.judged if one.differs or (one.verdict and not one.verdict.is_clean)]
    for one in bad[:TRIALS_NAMED_MAX]:
        page.item("·", bad_text(one))
    if len(bad) > TRIALS_NAMED_MAX:
        page.item("·", f"and {len(bad) - TRIALS_NAMED_MAX} more; --json has them all.")
    for why, count in answer.uncounted.items():
        page.item("·", f"{counted(count, 'trial')} of {answer.trials} {'does' if count == 1 else 'do'} not count: {why}.")
    for remark in remarks(recording):
        page.item("·", remark)


def setup_text(recording: DrillRecording) -> str:
    """What it was played on."""
    setup = recording.setup
    votes = "a witness" if setup.has_witness else "no witness" if setup.replicas == 2 else "the third at the third site"
    load = f"{setup.offered_per_s:g} writes/s" if setup.offered_per_s else f"closed loop of {setup.queue_depth}"
    quorum = f" of {setup.quorum}" if setup.protocol == "quorum" else ""
    return (
        f"{setup.miles:g} miles, protocol {setup.protocol}{quorum}, policy {setup.policy}; "
        f"{f'through {DOOR_WORDS[setup.door]}; ' if setup.door else ''}"
        f"{setup.replicas} replicas and {votes}; {load} of {format_size(setup.size_bytes)}; "
        f"peer timeout {format_time(setup.peer_timeout_ns)}; {link_text(recording.link)}; "
        f"{disk_text(recording.disk)}"
        f"{'; INTERRUPTED' if recording.interrupted else ''}"
    )


def link_text(link: str) -> str:
    """What joined the sites."""
    kind = link.partition(":")[0]
    return "no distance, processes on loopback" if kind == "loopback" else f"link by {kind}"


def disk_text(disk: str) -> str:
    """Where the replicas' files were."""
    _, bracket, reason = disk.partition(" (")
    return "files in memory" if disk == "memory" else f"files on disk{bracket}{reason}"


def sentence(answer: Answer) -> str:
    """The answer first."""
    of = f"{answer.counted} of {counted(answer.trials, 'trial')} that count{'s' if answer.trials == 1 else ''}"
    if answer.outcome == "unknown":
        return f"{of}: nothing was at stake, or what survived is not known."
    if answer.outcome == "corrupt":
        if answer.strays and not (answer.damaged or answer.resurrected or answer.out_of_order):
            return f"{of}: a door answered what had not been asked."
        return f"{of}: a volume holds what must never be there."
    bound = "" if answer.loss_probability_high is None else f"; P(loss) below {answer.loss_probability_high:.2g} (95 %)"
    if answer.outcome == "kept":
        return f"{of}: no acknowledged write was lost{bound}."
    allowed = "which was promised not to happen" if answer.promised else "which protocol or policy permits"
    point = "" if answer.recovery_point_ns_max is None else f", up to {format_time(answer.recovery_point_ns_max)} of writes"
    return (
        f"{of}: {answer.trials_with_loss} lost acknowledged writes, {allowed}; at most "
        f"{counted(answer.lost_writes_max, 'write')}, {format_size(answer.lost_bytes_max)}{point}{bound}."
    )


def after_faults(answer: Answer) -> list[str]:
    """One line for each event: how long until the load went on."""
    lines = []
    for event in answer.events:
        if event.time_p50.value is None:
            lines.append(f"after {event.event}: not over by itself in {counted(event.without, 'trial')}.")
        else:
            never = f"; not over by itself in {counted(event.without, 'trial')}" if event.without else ""
            lines.append(f"after {event.event}: writes are served again after {span_text(event.time_p50)} (median{never}).")
    return lines


def availability_text(answer: Answer, bound_ns: int) -> str:
    """Both definitions and the outages."""
    found = answer.availability
    by_requests = "" if found.by_requests is None else f", {found.by_requests:.2%} of writes"
    outage = "no outage" if not found.outage_ns else (
        f"outages of {format_time(found.outage_ns / max(answer.counted, 1))} a trial, the longest "
        f"{format_time(found.longest_outage_ns)}"
    )  # fmt: skip
    return f"served within {format_time(bound_ns)}: {found.by_time or 0:.2%} of 100 ms slots{by_requests}; {outage}."


def value_text(estimate: Estimate | None) -> str:
    """ "2.18 s"."""
    return UNKNOWN if estimate is None or estimate.value is None else format_time(estimate.value)


def recovery_table(events: Sequence[PhaseAnswer], form: Form) -> Table:
    """Events with the time to the next acknowledged write."""
    table = table_of(form, "event", "kind", "trials", "p50", "p95", text_columns=2)
    for event in events:
        value = span_text if form.interval == "beside" else value_text
        add_row(table, event.event, event.kind, str(event.time_p50.count), value(event.time_p50), value(event.time_p95))
    return table


def phase_table(events: Sequence[PhaseAnswer], form: Form) -> Table:
    """Medians of the phases, by event."""
    names = next(list(event.phases_p50) for event in events if event.phases_p50)
    table = table_of(form, "event", "trials", *names)
    for event in events:
        if event.phases_p50:
            add_row(table, event.event, str(event.taken_over), *(value_text(event.phases_p50[name]) for name in names))
    return table


ROUTE_TEXTS = {
    "nbd": "open: until the node has opened its door. find: until the client's next attempt. connect: TCP. admit: the "
    "negotiation.",
    "iscsi": "open: until the node has opened its portal. find: until the client's next attempt. connect: TCP. admit: login, and "
    "what the unit has to tell.",
}


def route_table(events: Sequence[PhaseAnswer], form: Form) -> Table:
    """Medians of what the phase "route" is made of, by event."""
    names = next(list(event.route_p50) for event in events if event.route_p50)
    table = table_of(form, "event", "trials", *names)
    for event in events:
        if event.route_p50:
            values = (value_text(event.route_p50[name]) for name in names)
            add_row(table, event.event, str(event.route_p50[names[0]].count), *values)
    return table


def sessions_table(found: Sequence[Sessions], form: Form) -> Table:
    """Events with the sessions that they ended, for how long there was none, and the writes whose answer never came."""
    table = table_of(form, "event", "ended", "away p50", "longest", "unanswered p50", "most")
    for one in found:
        longest = "not back" if one.never else away_text(one.away_max_ns)
        times = [away_text(one.away_p50.value), longest] if one.ended else [UNKNOWN, UNKNOWN]
        value = one.unanswered_p50.value
        writes = [UNKNOWN if value is None else f"{value:g}", str(one.unanswered_max)] if one.ended else [UNKNOWN, UNKNOWN]
        add_row(table, one.event, f"{one.ended} of {one.trials}", *times, *writes)
    return table


def away_text(away_ns: float | None) -> str:
    """ "62 ms"; none where the client left one connection for another that it had already."""
    return UNKNOWN if away_ns is None else format_time(away_ns) if away_ns else "none"


def sessions_text(found: Sequence[Sessions]) -> str:
    """The whole in a sentence."""
    moved, ended, never = (sum(getattr(one, name) for one in found) for name in ("moved", "ended", "never"))
    if not ended:
        return "No session ended."
    back = f" Of {never} nobody took the next one before the load was over." if never else ""
    return (
        f"The client has one connection and finds the next by itself: in {moved} of {ended} it was at another site.{back} "
        "unanswered: writes that were under way when the session ended; whether they were done is not known to the client, and a "
        "file system or a database writes them again."
    )


def pauses_table(found: Sequence[Pauses], form: Form) -> Table:
    """Events with what the servers saw of each, and how many would have given up their disk."""
    limits = [f"over {format_time(limit_ns)}" for limit_ns in GUEST_LIMITS_NS]
    table = table_of(form, "event", "least", "median", "longest", *limits)
    for one in found:
        ordered = sorted(one.longest_ns)
        over = [str(sum(pause > limit_ns for pause in ordered) + one.never) for limit_ns in GUEST_LIMITS_NS]
        times = [format_time(ordered[at]) for at in (0, len(ordered) // 2, -1)]
        add_row(table, one.event, *(times if not one.never else [*times[:2], "did not end"]), *over)
    return table


def pauses_text(found: Sequence[Pauses]) -> str:
    """The whole in a sentence."""
    never, longest_ns = max(one.never for one in found), max(max(one.longest_ns) for one in found)
    if never:
        return f"{counted(never, 'server')} saw a pause that did not end before the next event."
    shares = " and ".join(f"{format_time(limit_ns)}" for limit_ns in GUEST_LIMITS_NS)
    return (
        f"No server stood still for longer than {format_time(longest_ns)}. Guests give up a disk after {shares} (SCSI timeout of "
        "Linux, TimeOutValue of Windows)."
    )


def bad_text(one: TrialAnswer) -> str:
    """What is wrong in one trial."""
    verdict, words = one.verdict, []
    if verdict is not None:
        words += [f"writes {', '.join(map(str, verdict.numbers))} lost or misplaced"] if verdict.numbers else []
        words += [f"blocks {', '.join(map(str, verdict.damaged_blocks))} damaged"] if verdict.damaged_blocks else []
    words += [f"{', '.join(one.differs)} holds something else than the replica that led"] if one.differs else []
    return f"trial {one.index + 1}: {'; '.join(words)}."


def remarks(recording: DrillRecording) -> list[str]:
    """What is to be known of how it was measured: each once, with how often."""
    counts: dict[str, int] = {}
    for trial in recording.trials:
        repaired = ["everything had to be healed and started again before a write was taken"] if trial.repaired else []
        for remark in (*trial.remarks, *(event.note for event in trial.events if event.note), *repaired):
            what = remark.partition(" by up to ")[0]  # The same with another number is the same.
            counts[what] = counts.get(what, 0) + 1
    return [f"{what} ({counted(count, 'trial')})." for what, count in counts.items()]


def show_table(page: Page, drills: Sequence[tuple[DrillRecording, Answer]]) -> None:
    """Several drills in one table, a row each."""
    page.heading(drills[0][0].scenario.title)
    page.table(lambda form: summary_table(drills, form))
    page.prose("trials: that count, of all. lost: writes, at most in a trial. P(loss): what the trials leave open (95 %). "
               "p50, p95: recovery after the fault. time, writes: availability.", style="dim")  # fmt: skip


def summary_table(drills: Sequence[tuple[DrillRecording, Answer]], form: Form) -> Table:
    """One row for each."""
    first = next(iter(drills))[1]
    event = min(next((at for at, one in enumerate(first.events) if one.kind == "fault"), 0), max(len(first.events) - 1, 0))
    table = table_of(
        form, "protocol", "policy", "miles", "trials", "lost", "P(loss)", "p50", "p95", "time", "writes", text_columns=2
    )
    for recording, answer in drills:
        setup, times = recording.setup, answer.events[event] if answer.events else None
        found = answer.availability
        table_row = [
            f"{setup.protocol}{f', {DOOR_NAMES[setup.door]}' if setup.door else ''}", setup.policy.partition("-")[0],
            f"{setup.miles:g}", f"{answer.counted}/{answer.trials}",
            f"{answer.lost_writes_max:,}" if answer.outcome != "corrupt" else "corrupt",
            UNKNOWN if answer.loss_probability_high is None else f"{answer.loss_probability_high:.2g}",
            value_text(times.time_p50 if times else None), value_text(times.time_p95 if times else None),
            UNKNOWN if found.by_time is None else f"{found.by_time:.1%}",
            UNKNOWN if found.by_requests is None else f"{found.by_requests:.1%}",
        ]  # fmt: skip
        add_row(table, *table_row)
    return table
