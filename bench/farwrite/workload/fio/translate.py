"""From a job file to a profile: groups of jobs become cells, files become regions of one volume, a runtime becomes rounds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.units import NS_PER_MS, NS_PER_S, format_time
from ..profile import of_tree
from ..tables import Profile
from ..toml_reader import Change, Reader
from .options import Job, job_of
from .parse import Option, read, sections_of
from .vocabulary import refuse

ROUNDS = 5  # The least from which an interval over rounds says anything.
ROUND_NS = 2 * NS_PER_S  # Where the file has no runtime.
ROUND_NS_MIN, ROUND_NS_MAX = 50 * NS_PER_MS, 600 * NS_PER_S
MILES = [0, 20, 150]
PROTOCOLS = ["C"]
VOLUME_BYTES_MIN = 16 << 20
ALIGNMENT_BYTES = 4096


@dataclass(frozen=True)
class Translation:
    """A profile, and what became of the options that are not simply honoured."""

    profile: Profile
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


def translate(path: Path, changes: Iterable[Change] = ()) -> Translation:
    """The profile that a job file asks for, with `key=value` changes; UsageError with line for what cannot be."""
    jobs = [job_of(section) for section in sections_of(read(path), path)]
    begins, volume_bytes = lay_out(jobs)
    approximated = [bent for job in jobs for bent in job.bent]
    round_ns, notes = round_of(jobs)
    groups = grouped(jobs)
    if len(groups) > 1:
        first = groups[1][0]
        wall = first.option("stonewall") or Option("stonewall", "1", first.section.place)
        notes.append((wall, "groups are measured in interleaved rounds instead of one after the other"))
    taken: list[str] = []
    cells = [cell_of(group, taken, begins) for group in groups]
    tree: dict[str, Any] = {
        "title": f"fio job file {path.name}",
        "lab": {"volume": f"{volume_bytes} B"},
        "distance": {"miles": list(MILES)},
        "run": {"rounds": ROUNDS, "round": f"{round_ns} ns"},
        "cell": cells,
    }
    profile = of_tree(tree, Reader("", str(path)), changes)
    return Translation(profile, [option for job in jobs for option in job.passed], approximated + notes)


def lay_out(jobs: list[Job]) -> tuple[dict[str, int], int]:
    """(where each file's first byte lies in the volume, the bytes of the volume): files lie one behind the other.

    Of the files of a job that has several only what is used takes room, so that what it works on lies together.
    """
    spans: dict[str, tuple[int, int]] = {}
    for job in jobs:
        for files in job.copies:
            for extent in files:
                begin, end = spans.get(extent.path, (extent.begin if len(files) > 1 else 0, 0))
                spans[extent.path] = (min(begin, extent.begin if len(files) > 1 else 0), max(end, extent.end))
    begins: dict[str, int] = {}
    end = 0
    for path, (begin, until) in spans.items():
        begins[path] = end - begin
        end += -(-(until - begin) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return begins, max(end, VOLUME_BYTES_MIN)


def regions_of(job: Job, begins: dict[str, int]) -> list[tuple[int, int]]:
    """(begin, bytes) in the volume of what each copy works on."""
    regions = []
    for files in job.copies:
        places = [(begins[extent.path] + extent.begin, extent.length) for extent in files]
        if any(left + length != right for (left, length), (right, _) in itertools.pairwise(places)):
            option = job.last_of("filename", "nrfiles")
            assert option is not None
            raise refuse(option, "another job shares its files in another order, so they cannot lie one behind the other here.")
        regions.append((places[0][0], sum(length for _, length in places)))
    return regions


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


def cell_of(group: list[Job], taken: list[str], begins: dict[str, int]) -> dict[str, Any]:
    """The cell of a group; a job alone is the cell itself."""
    named: list[str] = []
    jobs: list[dict[str, Any]] = []
    for job in group:
        for suffix, keys in job.loads():
            for region in merged(regions_of(job, begins)):
                jobs.append({"name": unique(job.section.name + suffix, named), **region, **keys})
    if len(jobs) == 1 and jobs[0]["count"] == 1:
        (keys,) = jobs
        keys = {key: value for key, value in keys.items() if key not in ("apart", "count", "name")}
        return {"name": unique(group[0].section.name, taken), "protocols": list(PROTOCOLS), **keys}
    name = "-".join(dict.fromkeys(job.section.name for job in group))
    return {"name": unique(name, taken), "protocols": list(PROTOCOLS), "jobs": jobs}


def merged(regions: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The regions of a job's copies as keys: together where all are the same, or lie one behind the other; else one by one."""
    first, length = regions[0]
    count = len(regions)
    if all(region == regions[0] for region in regions):
        return [{"count": count, "apart": False, "region_begin": f"{first} B", "region": f"{length} B"}]
    if regions == [(first + copy * length, length) for copy in range(count)]:
        return [{"count": count, "apart": True, "region_begin": f"{first} B", "region": f"{count * length} B"}]
    return [{"count": 1, "region_begin": f"{begin} B", "region": f"{size} B"} for begin, size in regions]


def unique(name: str, taken: list[str]) -> str:
    """The name as we spell names, told apart from those that are taken, and taken from now on."""
    word = re.sub(r"[^\w\-]+", "-", name).strip("-") or "job"
    chosen, number = word, 1
    while chosen in taken:
        number += 1
        chosen = f"{word}-{number}"
    taken.append(chosen)
    return chosen
