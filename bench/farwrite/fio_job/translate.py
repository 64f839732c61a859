"""From a job file to a profile: groups of jobs become cells, files become regions of one volume, a runtime becomes rounds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import profile as profiles
from ..units import NS_PER_MS, NS_PER_S, format_time
from .meaning import Job, job_of
from .parse import Option, read, sections_of

ROUNDS = 5  # The least from which an interval over rounds says anything.
ROUND_NS = 2 * NS_PER_S  # Where the file has no runtime.
ROUND_NS_MIN, ROUND_NS_MAX = 50 * NS_PER_MS, 600 * NS_PER_S
MILES = [0, 20, 150]
PROTOCOLS = ["C"]
VOLUME_BYTES_MIN = 16 << 20


@dataclass(frozen=True)
class Translation:
    """A profile, and what became of the options that are not simply honoured."""

    profile: profiles.Profile
    irrelevant: list[Option]
    approximated: list[tuple[Option, str]]

    def sentences(self) -> list[str]:
        """What a reader of the results must know: each way in which the job was bent, once."""
        ways: dict[str, list[str]] = {}
        for option, how in self.approximated:
            words = f"{option.name}={option.value} ({option.place})"
            if words not in ways.setdefault(how, []):
                ways[how].append(words)
        return [f"approximated: {', '.join(options)}: {how}" for how, options in ways.items()]

    def lines(self) -> list[str]:
        """The same with what has no bearing here, for the person who runs it."""
        names = list(dict.fromkeys(f"{option.name} ({option.place})" for option in self.irrelevant))
        return [*([f"irrelevant here: {', '.join(names)}"] if names else []), *self.sentences()]


def translate(path: Path, changes: Iterable[profiles.Change] = ()) -> Translation:
    """The profile that a job file asks for, with `key=value` changes; UsageError with line for what cannot be."""
    jobs = [job_of(section) for section in sections_of(read(path), path)]
    volume_bytes = lay_out(jobs)
    approximated = [bent for job in jobs for bent in job.bent]
    round_ns, notes = round_of(jobs)
    groups = grouped(jobs)
    if len(groups) > 1:
        first = groups[1][0]
        wall = first.option("stonewall") or first.option("new_group") or Option("stonewall", "1", first.section.place)
        notes.append((wall, "groups are measured in interleaved rounds instead of one after the other"))
    taken: list[str] = []
    tree: dict[str, Any] = {
        "title": f"fio job file {path.name}",
        "lab": {"volume": f"{volume_bytes} B"},
        "distance": {"miles": list(MILES)},
        "run": {"rounds": ROUNDS, "round": f"{round_ns} ns"},
        "cell": [cell_of(group, taken) for group in groups],
    }
    profile = profiles.of_tree(tree, profiles.Reader("", str(path)), changes)
    return Translation(profile, [option for job in jobs for option in job.passed], approximated + notes)


def lay_out(jobs: list[Job]) -> int:
    """Give every file a region of the volume, one behind the other; answers the bytes of the volume."""
    begins: dict[str, int] = {}
    spans: dict[str, int] = {}
    for job in jobs:
        file = job.filename or f"{job.section.name} of its own"
        copies = job.count if job.keys["apart"] else 1
        spans[file] = max(spans.get(file, 0), job.offset_bytes + job.size_bytes * copies)
    end = 0
    for file, span in spans.items():
        begins[file] = end
        end += -(-span // 4096) * 4096
    for job in jobs:
        file = job.filename or f"{job.section.name} of its own"
        copies = job.count if job.keys["apart"] else 1
        job.keys["region_begin"] = f"{begins[file] + job.offset_bytes} B"
        job.keys["region"] = f"{job.size_bytes * copies} B"
    return max(end, VOLUME_BYTES_MIN)


def round_of(jobs: list[Job]) -> tuple[int, list[tuple[Option, str]]]:
    """How long a round lasts, and what was done to the runtimes for it."""
    timed = [(job.runtime_ns, option) for job in jobs if (option := job.option("runtime")) and job.runtime_ns]
    if not timed:
        place = jobs[0].section.place
        return ROUND_NS, [(Option("size", "all of it", place), f"no runtime: {ROUNDS} rounds of {format_time(ROUND_NS)}")]
    longest = max(lasts for lasts, _ in timed)
    round_ns = min(max(longest // ROUNDS, ROUND_NS_MIN), ROUND_NS_MAX)
    how = f"split into {ROUNDS} interleaved rounds of {format_time(round_ns)} at each distance"
    return round_ns, [(option, how) for _, option in timed]


def grouped(jobs: list[Job]) -> list[list[Job]]:
    """The jobs that run at the same time."""
    groups: list[list[Job]] = []
    for job in jobs:
        if job.stonewall or not groups:
            groups.append([])
        groups[-1].append(job)
    return groups


def cell_of(group: list[Job], taken: list[str]) -> dict[str, Any]:
    """The cell of a group; a job alone is the cell itself."""
    if len(group) == 1 and group[0].count == 1:
        keys = dict(group[0].keys)
        del keys["apart"]
        return {"name": unique(group[0].section.name, taken), "protocols": list(PROTOCOLS), **keys}
    named: list[str] = []
    jobs = [{"name": unique(job.section.name, named), "count": job.count, **job.keys} for job in group]
    return {"name": unique("-".join(named), taken), "protocols": list(PROTOCOLS), "jobs": jobs}


def unique(name: str, taken: list[str]) -> str:
    """The name as we spell names, told apart from those that are taken, and taken from now on."""
    word = re.sub(r"[^\w\-]+", "-", name).strip("-") or "job"
    chosen, number = word, 1
    while chosen in taken:
        number += 1
        chosen = f"{word}-{number}"
    taken.append(chosen)
    return chosen
