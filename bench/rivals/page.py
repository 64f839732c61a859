"""The comparison as a page, results/rivals.md: who took part, what each took at each distance beside its floor, and the goals."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from farwrite.analysis.estimate import mean_over_rounds
from farwrite.analysis.result import CellResult, Estimate, beaten_doubt
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import Reason, joined
from farwrite.base.units import NS_PER_MS, digits

from .result import Doors, Part, Rivals

UNKNOWN = "-"
TITLES = {
    "ferry": "On this machine's kernel", "gigabit": "At 1 Gbit/s, on this machine's kernel",
    "unaided": "Alone, no processor kept awake, on this machine's kernel", "netem": "One write at a time, in user-mode Linux",
    "sustained": "Sixteen at a time, in user-mode Linux",
}  # fmt: skip


def page(made: Rivals) -> str:
    """All of it, in Markdown."""
    host = made.host
    lines = [
        "# farwrite beside others", "",
        f"Last measured by `{' '.join(made.command)}` on {made.made_utc[:10]}, {host.get('cpu_count')} x {host.get('cpu')}, "
        f"kernel {host.get('kernel')}, farwrite {made.farwrite}, revision {host.get('git_revision')}. Writes of 4 KiB in a "
        "closed loop, rounds of all interleaved. In brackets: 95 % intervals over rounds, of n writes. The floor is what a bare "
        "echo of the write's size with a bare flush at its far end took just before. k and a are those of p50 = a + k RTT.", "",
    ]  # fmt: skip
    for name, part in made.parts.items():
        lines += [f"## {TITLES.get(name, name)}: {part.link}", "", *told(part), ""]
    if made.recovery:
        replay, read = (
            ", ".join(f"{value / 1e6:.0f}" for value in values)
            for values in (made.recovery.replay_bytes_per_s, made.recovery.bare_read_bytes_per_s)
        )
        lines += [
            "## Recovery", "",
            f"{made.recovery.replayed_bytes / 1e6:.0f} MB of journal, {made.recovery.writes} writes, read and applied at "
            f"{replay} MB/s; a bare read of the file just before: {read} MB/s.", "",
        ]  # fmt: skip
    if made.doors:
        lines += ["## Doors, alone on this machine", "", *doors_told(made.doors), ""]
    lines += [f"Not measured: {name}: {why}" for name, why in made.skipped.items()]
    lines += ["", "## Goals", "", "| | goal | verdict | measured |", "|---|---|---|---|"]
    lines += [f"| {goal.part} | {goal.goal} | {goal.verdict} | {goal.measured} |" for goal in made.goals]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def told(part: Part) -> Iterator[str]:
    """One lab's contenders and their figures."""
    run = part.recording.profile.run
    made = " ".join(part.recording.command)
    yield f"`{made}`: {run.rounds} rounds of {run.round_ns / 1e9:g} s; {part.recording.lab.link_reason}."
    if part.recording.lab.distance == "echo":
        yield "Recorded when a distance was the round trip of an echo, to which the delay was calibrated (decision 0032)."
    yield ""
    for item in part.contenders:
        yield f"- {item.name} ({item.version}): a completed write is {item.what}"
    for name, why in part.skipped.items():
        yield f"- {name} was left out: {why}"
    small = [cell for cell in part.cells if cell.size_bytes == 4096]
    if small:
        yield ""
        yield "| contender | miles | depth | p50, ms | floor, ms | p50 / floor | p99, ms | writes/s | us of CPU a write | n |"
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for cell in sorted(small, key=lambda cell: (cell.queue_depth, cell.miles)):
            yield row(part, cell)
        yield ""
        yield "| contender | k, round trips | a, ms |"
        yield "|---|---|---|"
        for name in part.names():
            if fit := part.fit(name):
                yield f"| {name} | {estimate(fit.k)} | {estimate(fit.a_ns, NS_PER_MS)} |"
    bulk = [cell for cell in part.cells if cell.size_bytes != 4096]
    if bulk:
        yield ""
        yield "| contender | miles | depth | goodput of 1 MiB writes, MB/s |"
        yield "|---|---|---|---|"
        for cell in bulk:
            yield f"| {part.named(cell)} | {cell.miles:g} | {cell.queue_depth} | {estimate(cell.goodput_bytes_per_s, 1e6)} |"
        if bare := append_bytes_per_s(part, bulk[0].size_bytes):
            yield ""
            yield f"Both disks at once take {bare / 1e6:.0f} MB/s each of bare appends of 1 MiB, each flushed before the next."
    doubts: dict[Reason, list[str]] = {}
    for cell in part.cells:
        for doubt in cell.withheld:
            doubts.setdefault(doubt, []).append(f"{part.named(cell)} at {cell.miles:g} miles, depth {cell.queue_depth}")
    for doubt, cells in doubts.items():
        yield f"\nNo verdict may rest on {'; '.join(cells)}: {doubt}."


def doors_told(made: Doors) -> Iterator[str]:
    """Who took part, and a row for each load."""
    yield f"`{' '.join(made.command)}`: {max((len(one.rounds) for one in made.rates), default=0)} rounds."
    yield ""
    for name, what in made.contenders.items():
        yield f"- {name} ({what})"
    for name, why in made.skipped.items():
        yield f"- {name} was left out: {why}"
    yield ""
    yield "| load | contender | requests/s (1 MiB: MiB/s) |"
    yield "|---|---|---|"
    for one in sorted(made.rates, key=lambda one: one.load):
        yield f"| {one.load} | {one.contender} | {estimate(mean_over_rounds(one.rounds))} |"


def append_bytes_per_s(part: Part, size_bytes: int) -> float | None:
    """What the lab's disks take of records of this size, by the median of the bare flushes of both sites at once."""
    floors = [item for item in part.recording.floors if item.size_bytes >= size_bytes]
    times = [ns for item in floors if (ns := Histogram.decode(item.near_both).quantile(0.5)) is not None]
    return size_bytes / median(times) * 1e9 if times else None


def row(part: Part, cell: CellResult) -> str:
    """A contender at a distance and depth."""
    if not cell.rounds_ok:
        return f"| {part.named(cell)} | {cell.miles:g} | {cell.queue_depth} | not one good round{' |' * 7}"
    over = digits(1 / cell.efficiency.value) if cell.efficiency.value else UNKNOWN
    if beaten_doubt(cell.efficiency):
        over += " (it beat the floor, which is then none)"
    cpu = estimate(cell.cpu_ns_per_write, 1000) if cell.cpu_ns_per_write.value else UNKNOWN
    figures = [
        part.named(cell), f"{cell.miles:g}", str(cell.queue_depth), estimate(cell.response_ns_p50, NS_PER_MS),
        estimate(cell.floor_ns, NS_PER_MS), over, estimate(cell.response_ns_p99, NS_PER_MS),
        estimate(cell.completed_per_s), cpu, str(cell.completed),
    ]  # fmt: skip
    return f"| {' | '.join(figures)} |"


def estimate(found: Estimate, scale: float = 1.0) -> str:
    """A number with its interval, or why there is none."""
    if found.value is None:
        return joined(found.warnings) or UNKNOWN
    if found.low is None or found.high is None:
        return digits(found.value / scale)
    return f"{digits(found.value / scale)} [{digits(found.low / scale)}, {digits(found.high / scale)}]"
