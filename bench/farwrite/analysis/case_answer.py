"""What a case comes to: its figures, each with interval, sample size and floor, and the answer in ten lines.

Of periods and rounds the unit is the round: a figure is the mean of its rounds, with Student's t (estimate.py). What was not
measured is computed from what was, and is called modelled; what is not known has its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal, NamedTuple

from ..base import reasons
from ..base.units import NS_PER_S, counted, format_rate, format_size, format_time
from ..workload.case_profile import YEAR_S, Database, Thin
from .case_recording import COPY, PLAIN, SNAPSHOT, CaseRecording, Copied, DatabasePart, FaultsPart, ThinPart, Written
from .estimate import mean_over_rounds, unknown
from .result import Estimate, exactly

Unit = Literal["time", "bytes", "TB", "bits/s", "bytes/s", "ratio", "share", "count"]
How = Literal["measured", "counted", "modelled", "assumed"]

PAPER_LIMIT_NS = 2_000_000  # The claim of 2008: a synchronous write within 2 ms.
TB = 10**12


class CaseFigure(NamedTuple):
    """One number of a case."""

    what: str
    estimate: Estimate
    unit: Unit
    how: How
    of: str  # what was counted: "rounds", "trials", "volumes"
    floor: Estimate | None = None


class Line(NamedTuple):
    """One line of the answer."""

    verdict: Literal["pass", "fail", "unknown", ""]
    text: str


class Section(NamedTuple):
    """A part with its figures."""

    name: str
    title: str
    figures: list[CaseFigure]
    notes: list[str]


TITLES = {
    "steady": "A write by day", "faults": "A building lost", "thin": "Disks by thin provisioning",
    "database": "Snapshots and the second site",
}  # fmt: skip


def sections_of(made: CaseRecording) -> list[Section]:
    """The parts that were asked for, with what is known of each."""
    makers: dict[str, Callable[[CaseRecording], Section]] = {
        "steady": steady_section, "faults": faults_section, "thin": thin_section, "database": database_section,
    }  # fmt: skip
    found = []
    for name in made.case.parts:
        if getattr(made, name) is None:
            found.append(Section(name, TITLES[name], [], [f"unknown: {why_unknown(made, name)}."]))
            continue
        section = makers[name](made)
        if name in made.unknown:
            section.notes.append(f"it ended before its end: {made.unknown[name]}")
        found.append(section)
    return found


def why_unknown(made: CaseRecording, name: str) -> str:
    """Why a part was not measured."""
    if name in made.unknown:
        return made.unknown[name]
    return "it was interrupted before this part was over" if made.interrupted else "it was not asked for"


def lines_of(made: CaseRecording) -> list[Line]:
    """The answer, ten lines at most."""
    found = []
    for name, lines in (("steady", steady_lines), ("faults", faults_lines), ("thin", thin_lines), ("database", database_lines)):
        if name not in made.case.parts:
            continue
        if getattr(made, name) is not None:
            found += lines(made)
        elif name in made.seconds or made.interrupted:
            found.append(Line("unknown", f"{TITLES[name]}: {why_unknown(made, name)}."))
    return found[:10]


# By day


def steady_section(made: CaseRecording) -> Section:
    part = made.steady
    assert part is not None
    figures = []
    for cell in part.cells:
        at = f"at {cell.miles:g} miles"
        figures += [
            CaseFigure(f"a write {at}, p50", cell.p50, "time", "measured", "writes", cell.floor),
            CaseFigure(f"a write {at}, p99", cell.p99, "time", "measured", "writes", cell.floor),
        ]
    far, near = part.cells[-1], part.cells[0]
    if len(part.cells) > 1 and far.p50.value is not None and near.p50.value is not None:
        figures.append(CaseFigure(
            f"what {far.miles:g} miles add to the median", difference(far.p50, near.p50), "time", "measured", "writes",
        ))  # fmt: skip
    return Section("steady", TITLES["steady"], figures, [f"the whole report: farwrite show {part.report}"])


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two, each end against the other's other end: it holds the truth at least as often as both hold theirs."""
    assert one.value is not None and other.value is not None
    value, count = one.value - other.value, min(one.count, other.count)
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(value=value, count=count, warnings=one.warnings or other.warnings)
    both = (one.confidence or 0.0) + (other.confidence or 0.0) - 1
    return Estimate(value=value, low=one.low - other.high, high=one.high - other.low, confidence=both, count=count)


def steady_lines(made: CaseRecording) -> list[Line]:
    part = made.steady
    assert part is not None
    return [
        Line(
            "unknown" if cell.doubts else verdict_below(cell.p99, PAPER_LIMIT_NS),
            f"At {cell.miles:g} miles a write takes {told(cell.p50, 'time')} at the median and {told(cell.p99, 'time')} at p99, "
            f"over a floor of {told(cell.floor, 'time', bare=True)}; 2 ms are allowed."
            + (f" Undecided: {cell.doubts[0]}." if cell.doubts else ""),
        ) for cell in part.cells
    ]  # fmt: skip


def verdict_below(found: Estimate, limit: float) -> Literal["pass", "fail", "unknown"]:
    """By the interval's ends; without one nothing is decided."""
    if found.value is None or found.low is None or found.high is None:
        return "unknown"
    return "pass" if found.high <= limit else "fail" if found.low > limit else "unknown"


# A building


def faults_section(made: CaseRecording) -> Section:
    part = made.faults
    assert part is not None
    figures = [
        CaseFigure("acknowledged writes that were lost", exactly(part.lost, part.counted), "count", "counted", "trials"),
        CaseFigure("P(loss), 95 % bound", bound_of(part), "share", "measured", "trials"),
    ]
    for event in part.events:
        figures.append(CaseFigure(f"{event.event}: served again, median", event.time_p50, "time", "measured", "trials"))
    for pause in part.pauses:
        if not pause.longest_ns:
            continue
        longest = Estimate(value=float(max(pause.longest_ns)), count=len(pause.longest_ns))
        if pause.never:
            longest = unknown(reasons.remark(f"{counted(pause.never, 'server')} saw a pause that did not end in time"))
        figures.append(CaseFigure(f"{pause.event}: longest pause of any server", longest, "time", "measured", "servers"))
    notes = [f"the whole report, with timelines: farwrite drill {part.report}"]
    return Section("faults", TITLES["faults"], figures, notes)


def bound_of(part: FaultsPart) -> Estimate:
    if part.loss_probability_high is None:
        return unknown(reasons.remark("no trial counts"))
    return Estimate(value=part.loss_probability_high, count=part.counted)


def faults_lines(made: CaseRecording) -> list[Line]:
    part = made.faults
    assert part is not None
    of = f"{part.counted} of {counted(part.trials, 'trial')}"
    if not part.counted:
        return [Line("unknown", f"A building lost: nothing was at stake in {of}.")]
    ok = not part.lost and not part.damaged
    bound = "" if part.loss_probability_high is None else f"; P(loss) below {part.loss_probability_high:.2g} (95 %)"
    lines = [Line("pass" if ok else "fail", f"Of {part.acked:,} acknowledged writes in {of} {part.lost:,} were lost{bound}.")]
    first = next((event for event in part.events if event.kind == "fault" and event.time_p50.value is not None), None)
    if first is not None:
        lines.append(Line("", f"After a building is lost writes are served again after {told(first.time_p50, 'time')} (median)."))
    known = [(max(one.longest_ns), one) for one in part.pauses if one.longest_ns]
    if known:
        worst_ns, worst = max(known, key=lambda pair: pair[0])
        never = sum(one.never for one in part.pauses)
        verdict: Literal["pass", "fail"] = "fail" if never or worst_ns > 30 * NS_PER_S else "pass"
        ends = f"; {never} did not end in time" if never else ""
        lines.append(Line(
            verdict,
            f"The longest pause of any server is {format_time(worst_ns)} ({worst.event}){ends}; a guest gives up its disk after "
            "30 s.",
        ))  # fmt: skip
        back = part.pauses[-1]
        if back.longest_ns and back is not worst:
            lines.append(Line(
                "",
                f"The failback ({back.event}) costs a server {format_time(max(back.longest_ns))} at most, half of them "
                f"{format_time(median(back.longest_ns))} or less.",
            ))  # fmt: skip
    return lines


# Disks


class Room(NamedTuple):
    """What all volumes of a pool come to, in bytes, over all copies."""

    promised: int
    written: int
    taken: int  # of the pool's room, by extents
    stored: int  # as the file systems count
    journals: int
    copies: int

    @property
    def saved_ratio(self) -> float:
        """Of what a pool without thin provisioning would set aside."""
        return 1 - (self.taken + self.journals) / (self.promised + self.journals)


def room_of(part: ThinPart, asked: Thin) -> Room:
    """Counted."""
    count, copies = len(part.volumes), part.copies
    return Room(
        count * copies * asked.size_bytes, copies * sum(one.written_bytes for one in part.volumes),
        copies * sum(one.used_bytes for one in part.volumes), sum(sum(one.stored_bytes) for one in part.volumes),
        count * copies * part.journal_bytes, copies,
    )  # fmt: skip


def real_room_of(room: Room, asked: Thin) -> Room:
    """The same for volumes as large as they stand for: written and taken in the same shares, logs as they are."""
    times = asked.stands_for_bytes / asked.size_bytes
    return Room(
        round(times * room.promised), round(times * room.written), round(times * room.taken), round(times * room.stored),
        room.journals, room.copies,
    )


def thin_section(made: CaseRecording) -> Section:
    part, asked = made.thin, made.case.thin
    assert part is not None and asked is not None
    room, count = room_of(part, asked), len(part.volumes)
    real = real_room_of(room, asked)
    taken_over = mean_over_rounds([one.used_bytes / one.written_bytes for one in part.volumes if one.written_bytes])
    figures = [
        CaseFigure("promised, all copies", exactly(room.promised, count), "bytes", "counted", "volumes"),
        CaseFigure("written by the servers, all copies", exactly(room.written, count), "bytes", "counted", "volumes"),
        CaseFigure("taken from the pool's room (extents), all copies", exactly(room.taken, count), "bytes", "counted", "volumes"),
        CaseFigure("stored, as the file systems count", exactly(room.stored, count), "bytes", "counted", "volumes"),
        CaseFigure("logs of the copies", exactly(room.journals, count), "bytes", "counted", "volumes"),
        CaseFigure("taken over written, by volume", taken_over, "ratio", "measured", "volumes"),
        CaseFigure(
            "promised over what the nodes have beside logs", exactly(room.promised / part.capacity_bytes, count), "ratio",
            "counted", "volumes",
        ),
        CaseFigure(
            f"disks without thin provisioning, {format_size(asked.stands_for_bytes)} a server",
            exactly(real.promised + real.journals, count), "bytes", "modelled", "volumes",
        ),
        CaseFigure("disks with it", exactly(real.taken + real.journals, count), "bytes", "modelled", "volumes"),
        CaseFigure("saved", exactly(real.saved_ratio, count), "share", "modelled", "volumes"),
    ]  # fmt: skip
    notes = [
        "modelled: a real disk is written and takes room in the same shares as its small one; a copy's log is as large as here",
        "room is granted by extents of 64 KiB: a small file at a place of its own takes more of it than it holds",
        "dollars are not derived: the paper's 260 000 are of 2008, and of its own disks",
    ]
    return Section("thin", TITLES["thin"], figures, notes)


def thin_lines(made: CaseRecording) -> list[Line]:
    part, asked = made.thin, made.case.thin
    assert part is not None and asked is not None
    if not part.volumes:
        return [Line("unknown", "Thin provisioning: no volume was filled.")]
    room = room_of(part, asked)
    real = real_room_of(room, asked)
    share = sum(one.written_bytes for one in part.volumes) / (len(part.volumes) * asked.size_bytes)
    return [
        Line("", f"{len(part.volumes)} thin volumes, {share:.0%} of each written (assumed): {format_size(room.promised)} "
                 f"promised in {part.copies} copies, {format_size(room.written)} written, {format_size(room.taken)} taken."),
        Line("", f"With {format_size(asked.stands_for_bytes)} a server {format_size(real.taken + real.journals)} of disks "
                 f"do instead of {format_size(real.promised + real.journals)}: {real.saved_ratio:.0%} less (modelled)."),
    ]  # fmt: skip


# A database


def by_round(periods: Iterable[Written], value: Callable[[Written], float]) -> Estimate:
    """The mean over periods."""
    return mean_over_rounds([value(one) for one in periods])


def ratios(part: DatabasePart, value: Callable[[Written], float], base: Callable[[Written], float]) -> Estimate:
    """Of each pair: a figure of the period with a snapshot over one of the period without."""
    plain = {one.pair: one for one in part.periods if one.beside == PLAIN}
    pairs = [(one, plain[one.pair]) for one in part.periods if one.beside == SNAPSHOT and one.pair in plain]
    return mean_over_rounds([value(one) / base(other) for one, other in pairs if base(other)])


def changes_of(part: DatabasePart) -> list[Copied]:
    """The copies that count: those of what had changed."""
    return [one for one in part.copies if not one.is_full]


def shipped_per_s(part: DatabasePart, asked: Database) -> Estimate:
    """Bytes a second that must be shipped for each period to be shipped within one: over the time that the changes took."""
    period_s = asked.scaled_ns / NS_PER_S
    return mean_over_rounds([one.shipped_bytes / period_s for one in changes_of(part)])


def growth_of(part: DatabasePart) -> Estimate:
    """Bytes a year, from what the volume's file took before and after."""
    if part.grown_s <= 0 or part.used_after_bytes <= part.used_before_bytes:
        return unknown(reasons.remark("the volume did not grow while it was watched"))
    return Estimate(value=(part.used_after_bytes - part.used_before_bytes) / part.grown_s * YEAR_S, count=1)


def scaled_by(found: Estimate, factor: float, more: float = 0.0) -> Estimate:
    """The same times a factor, and so much more."""
    if found.value is None:
        return found
    low, high = (None if end is None else factor * end + more for end in (found.low, found.high))
    return Estimate(value=factor * found.value + more, low=low, high=high, confidence=found.confidence, count=found.count,
                    warnings=found.warnings)  # fmt: skip


def database_section(made: CaseRecording) -> Section:
    part, asked = made.database, made.case.database
    assert part is not None and asked is not None
    figures: list[CaseFigure] = []
    for beside, words in ((PLAIN, "without a snapshot"), (SNAPSHOT, "with a snapshot"), (COPY, "while it is copied")):
        periods = [one for one in part.periods if one.beside == beside]
        if periods:
            floor = by_round(periods, lambda one: one.floor_ns_p50)
            figures += [
                CaseFigure(f"a write {words}, {label}", by_round(periods, value), "time", "measured", "periods", floor)
                for label, value in (("p50", lambda one: one.p50_ns), ("p99", lambda one: one.p99_ns))
            ]
    taken = [one for one in part.periods if one.beside == SNAPSHOT]
    figures += [
        CaseFigure("taking a snapshot", by_round(taken, lambda one: one.taken_ns), "time", "measured", "snapshots"),
        CaseFigure(
            "longest write in the second after it", by_round(taken, lambda one: one.first_second_ns_max), "time", "measured",
            "snapshots",
        ),
        CaseFigure(
            "p50 of that second, over the p50 without", ratios(part, lambda one: one.first_second_ns_p50, lambda one: one.p50_ns),
            "ratio", "measured", "pairs",
        ),
        CaseFigure(
            "p50 of the period, over the p50 without", ratios(part, lambda one: one.p50_ns, lambda one: one.p50_ns), "ratio",
            "measured", "pairs",
        ),
    ]  # fmt: skip
    figures += rate_figures(part, asked)
    figures += point_figures(part, asked)
    late = max((one.late_ns_p99 for one in part.periods), default=0)
    notes = [
        f"{duration_text(asked.period_ns)} are {duration_text(asked.scaled_ns)} here: a block that is written twice within a "
        "period is shipped once, and that happens less often within a short one, so what is shipped a second, and the link, are "
        "upper bounds",
        "the floor is a read of one block by the same client at the same door: no flush and no link; the client is Python, and "
        f"its own time is in every figure (its requests were late by {format_time(late)} at p99 at worst)",
        f"a bare flush on this disk takes {format_time(part.flush_ns_p50)} at the median" if part.flush_ns_p50 else
        "files in memory: there is no flush",
    ]  # fmt: skip
    if part.left_out:
        notes.append(
            f"{counted(part.left_out, 'period')} left out: the volume did not keep up with the writes that were offered, or it "
            "was interrupted"
        )
    if part.failed_writes:
        notes.append(f"{counted(part.failed_writes, 'write')} failed")
    if part.falls_behind:
        notes.append("the schedule of copies could not keep up")
    return Section("database", TITLES["database"], figures, notes)


def rate_figures(part: DatabasePart, asked: Database) -> list[CaseFigure]:
    """How much is written, changes and is shipped, and the link that this takes."""
    written = by_round(part.periods, lambda one: one.written_bytes / one.seconds)
    changed = by_round(part.periods, lambda one: one.changed_bytes / one.seconds)
    shipped = shipped_per_s(part, asked)
    return [
        CaseFigure("written", written, "bytes/s", "measured", "periods"),
        CaseFigure("changed (each block once a period)", changed, "bytes/s", "measured", "periods"),
        CaseFigure("shipped to the second site", shipped, "bytes/s", "measured", "copies"),
        CaseFigure("growth asked for, a year", exactly(asked.growth_bytes, 1), "TB", "assumed", ""),
        CaseFigure("growth by what the volume's file takes, a year", growth_of(part), "TB", "measured", "time"),
        CaseFigure("link that the growth alone takes", exactly(8 * asked.growth_bytes_per_s, 1), "bits/s", "modelled", ""),
        CaseFigure("link needed: a period shipped within one", scaled_by(shipped, 8), "bits/s", "modelled", "copies"),
        CaseFigure("link needed: a period shipped in half of one", scaled_by(shipped, 16), "bits/s", "modelled", "copies"),
    ]


def point_figures(part: DatabasePart, asked: Database) -> list[CaseFigure]:
    """How old the far copy becomes."""
    copies = changes_of(part)
    takes = mean_over_rounds([one.seconds * NS_PER_S for one in copies])
    best = mean_over_rounds([one.recovery_point_s * NS_PER_S for one in copies])
    worst = mean_over_rounds([one.recovery_point_s_max * NS_PER_S for one in copies if one.recovery_point_s_max is not None])
    period, scaled = duration_text(asked.period_ns), duration_text(asked.scaled_ns)
    return [
        CaseFigure(f"a copy takes, every {scaled}", takes, "time", "measured", "copies"),
        CaseFigure(f"recovery point just after a copy, every {scaled}", best, "time", "measured", "copies"),
        CaseFigure(f"recovery point just before the next, every {scaled}", worst, "time", "measured", "copies"),
        CaseFigure(f"the same, every {period}, at most", modelled_point(part, asked), "time", "modelled", "copies"),
    ]


def modelled_point(part: DatabasePart, asked: Database) -> Estimate:
    """At the real period: the period, and what it takes to ship what changes in one over this link."""
    takes = scaled_by(shipped_per_s(part, asked), 8 * asked.period_ns / asked.far_link_bits_per_s)
    if takes.value is not None and takes.value > asked.period_ns:
        return unknown(reasons.remark(
            f"a copy every {duration_text(asked.period_ns)} would take {duration_text(takes.value)}: the link cannot keep up"
        ))  # fmt: skip
    return scaled_by(takes, 1.0, asked.period_ns)


def database_lines(made: CaseRecording) -> list[Line]:
    part, asked = made.database, made.case.database
    assert part is not None and asked is not None
    if not part.periods:
        behind = f"in {counted(part.left_out, 'period')} the volume did not keep up with the writes that were offered"
        return [Line("unknown", f"What a write takes: {behind}."), *copy_lines(part, asked)]
    return [*latency_lines(part), *copy_lines(part, asked)]


def both_told(periods: list[Written]) -> str:
    """Median and p99 of writes, as means over periods."""
    middle, high = by_round(periods, lambda one: one.p50_ns), by_round(periods, lambda one: one.p99_ns)
    return f"{told(middle, 'time')} at the median and {told(high, 'time')} at p99"


def latency_lines(part: DatabasePart) -> list[Line]:
    """What writes take without a snapshot, with one, and while it is copied."""
    plain, taken, copying = ([one for one in part.periods if one.beside == beside] for beside in (PLAIN, SNAPSHOT, COPY))
    lines = [Line("", f"A write takes {both_told(plain)} without a snapshot.")] if plain else []
    if taken:
        settled = ratios(part, lambda one: one.p50_ns, lambda one: one.p50_ns)
        instant, longest = (by_round(taken, value) for value in (lambda one: one.taken_ns, lambda one: one.first_second_ns_max))
        lines += [
            Line("", f"With one it takes {both_told(taken)}: {told(settled, 'ratio')} of the median without."),
            Line("", f"A snapshot takes {told(instant, 'time')}; the longest write about it takes {told(longest, 'time')}."),
        ]
    return [*lines, Line("", f"While it is copied a write takes {both_told(copying)}.")] if copying else lines


def copy_lines(part: DatabasePart, asked: Database) -> list[Line]:
    """How much changes, how old the far copy becomes, and the link."""
    shipped, period, scaled = shipped_per_s(part, asked), duration_text(asked.period_ns), duration_text(asked.scaled_ns)
    changed = by_round(part.periods, lambda one: one.changed_bytes / one.seconds)
    lines = [Line(
        "",
        f"{told(changed, 'bytes/s')} change; {told(shipped, 'bytes/s')} are shipped. Time is scaled: {scaled} are {period}.",
    )]  # fmt: skip
    copies = changes_of(part)
    if not copies:
        return [*lines, Line("unknown", "Recovery point: no copy of changes was made.")]
    worst = mean_over_rounds([one.recovery_point_s_max * NS_PER_S for one in copies if one.recovery_point_s_max is not None])
    return [
        *lines,
        Line(
            "fail" if part.falls_behind else "pass",
            f"{asked.far_miles:g} miles away, over {format_rate(asked.far_link_bits_per_s)}, the far copy is at most "
            f"{told(worst, 'time')} old; every {period} that would be {told(modelled_point(part, asked), 'time')} at most "
            "(modelled)." + (" The schedule of copies could not keep up." if part.falls_behind else ""),
        ),
        Line(
            "",
            f"Growing by {asked.growth_bytes / TB:g} TB a year takes {format_rate(8 * asked.growth_bytes_per_s)} by itself; all "
            f"that changes takes a link of {told(scaled_by(shipped, 8), 'bits/s')} (modelled).",
        ),
    ]  # fmt: skip


def duration_text(ns: float) -> str:
    """As every time; from two minutes on in minutes."""
    return f"{ns / NS_PER_S / 60:.3g} min" if ns >= 120 * NS_PER_S else format_time(ns)


def value_text(value: float, unit: Unit) -> str:
    """One number with its unit."""
    if unit == "time":
        return duration_text(value)
    if unit == "bytes":
        return format_size(value)
    if unit == "TB":
        return f"{value / TB:.3g} TB"
    if unit == "bytes/s":
        return f"{format_size(value)}/s"
    if unit == "bits/s":
        return format_rate(value)
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:,.2f}" if unit == "ratio" else f"{value:,.0f}"


def told(found: Estimate, unit: Unit, bare: bool = False) -> str:
    """A value with its interval, or that it is unknown and why."""
    if found.value is None:
        return f"unknown ({'; '.join(map(str, found.warnings)) or 'not measured'})"
    if bare or found.low is None or found.high is None or found.low == found.high:
        return value_text(found.value, unit)
    return f"{value_text(found.value, unit)} [{value_text(found.low, unit)}, {value_text(found.high, unit)}]"

