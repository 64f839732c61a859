"""A profile: a workload file, validated. What to measure, at which distances, how often.

Profiles are TOML with units in the text ("4 KiB", "1 s"), converted once, as they are read. An unknown key names the nearest
one; an error names its line. `limits` is the default and the project's main job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..base import units
from ..base.errors import UsageError
from ..base.physics import rtt_ns_of
from ..base.protocol import NAMES, majority
from . import load_checks
from .link_spec import PLAIN, LinkError
from .link_spec import check as check_spec
from .ssh_host import far_host
from .tables import CellTable, Profile, is_about
from .toml_reader import Change, Reader, apply_change, key_of, tree_of

MILES_MAX = 15_000  # More than half around the earth, with room for a detour.
ROUND_NS_MAX = 600 * units.NS_PER_S  # A slice a second, 250 kB each.
OTHERS_MAX = 3  # Five replicas are the engine's; the primary and `miles` are two of them.


def parse(text: str, source: str = "profile", changes: Iterable[Change] = ()) -> Profile:
    """A profile from its text."""
    return of_tree(tree_of(text, source), Reader(text, source), changes)


def of_tree(tree: dict[str, Any], reader: Reader, changes: Iterable[Change] = ()) -> Profile:
    """A profile from its tables as TOML has them."""
    for change in changes:
        reader.changed |= {apply_change(tree, change)} if isinstance(change, str) else change(tree)
    inherit(tree)
    converted = reader.table(tree, Profile, ())
    try:
        profile = msgspec.convert(converted, Profile)
    except msgspec.ValidationError as refusal:
        raise UsageError(reader.place(refusal)) from refusal
    if profile.claims is None:
        profile = msgspec.structs.replace(profile, claims=False)
    check(profile, reader)
    return as_far_as_it_is(profile, reader) if profile.lab.far_host else profile


def as_far_as_it_is(profile: Profile, reader: Reader) -> Profile:
    """The profile for a far site on a real machine: one distance, which is not set but found. A real link is not cut."""
    far_host(profile.lab.far_host)
    if not profile.link.is_plain:
        raise UsageError(f"{reader.where(('link',))}: the link to another machine is as it is; nothing can be asked of it.")
    if profile.reach.budget_ns:
        raise UsageError(f"{reader.where(('reach',))}: a real far site is as far as it is; no distance is searched for.")
    if any(budget.miles is not None for budget in profile.budget):
        raise UsageError(f"{reader.where(('budget',))}: a real far site is as far as it is; a budget there names no miles.")
    if profile.lab.keep:
        raise UsageError(f"{reader.where(('lab', 'keep'))}: files on another machine are not kept.")
    for index, cell in enumerate(profile.cell):
        if cell.other_miles:
            raise UsageError(f"{reader.where(('cell', index, 'other_miles'))}: a far site on another machine is the only one.")
        if Path(cell.trace).suffix or Path(cell.trace).name != cell.trace:
            raise UsageError(f"{reader.where(('cell', index, 'trace'))}: the other machine has the shipped traces, not this one.")
    cells = [msgspec.structs.replace(cell, miles=[]) for cell in profile.cell]
    return msgspec.structs.replace(
        profile, cell=cells, distance=msgspec.structs.replace(profile.distance, miles=[0.0], km=[]),
        drill=msgspec.structs.replace(profile.drill, kills=0),
    )  # fmt: skip


def inherit(tree: dict[str, Any]) -> None:
    """Give every job what its cell says and the job does not. What is no table is refused later, with its line."""
    alone = {key_of(field) for field in (*load_checks.CELL_ONLY, *load_checks.NOT_INHERITED)}
    for cell in tree["cell"] if isinstance(tree.get("cell"), list) else []:
        jobs = cell.get("jobs") if isinstance(cell, dict) else None
        for job in jobs if isinstance(jobs, list) else []:
            if isinstance(job, dict):
                for key, value in cell.items():
                    if key not in alone and not (key == "mix" and "block" in job):
                        job.setdefault(key, value)


def check(profile: Profile, reader: Reader) -> None:
    """What types cannot say; UsageError for the first promise that is broken, with the line of its key."""

    def refuse(unless: bool, sentence: str, *path: str | int) -> None:
        if not unless:
            raise UsageError(f"{reader.file_and_line(path)}: {sentence}")

    distance, run, drill = profile.distance, profile.run, profile.drill
    distances = distance.in_miles()
    refuse(bool(distances), "distance.miles or distance.km must name at least one distance.", "distance")
    for key, given in (("miles", distance.miles), ("km", [km / units.KM_PER_MILE for km in distance.km])):
        refuse(all(0 <= miles <= MILES_MAX for miles in given),
               f"distance.{key}: a distance must lie between 0 and 15 000 miles.", "distance", key)  # fmt: skip
        refuse(distinct(f"{miles:g}" for miles in distances), "distance: the same distance is named twice.", "distance", key)
    refuse(1.0 <= distance.route_factor <= 10,
           "distance.route_factor is glass over straight line: 1 to 10.", "distance", "route_factor")  # fmt: skip
    refuse(0 <= distance.equipment_ns <= units.NS_PER_S, "distance.equipment must lie between 0 and 1 s.",
           "distance", "equipment")  # fmt: skip
    refuse(1 <= run.rounds <= 1000, "run.rounds must lie between 1 and 1000.", "run", "rounds")
    refuse(50 * units.NS_PER_MS <= run.round_ns <= ROUND_NS_MAX, "run.round must last 50 ms to 10 min.", "run", "round")
    refuse(5 <= run.survey_echoes <= 10_000, "run.survey_echoes must lie between 5 and 10 000.", "run", "survey_echoes")
    refuse(5 <= run.floor_flushes <= 10_000, "run.floor_flushes must lie between 5 and 10 000.", "run", "floor_flushes")
    refuse(0 <= run.retries <= 20, "run.retries must lie between 0 and 20.", "run", "retries")
    refuse(0 <= run.steal_max <= 1, "run.steal_max is a share: 0 to 1.", "run", "steal_max")
    refuse(not run.steady or run.rounds >= 5, "run.steady: SNIA's rule looks at five rounds; run.rounds must be 5 or more.",
           "run", "steady")  # fmt: skip
    for key, size in (("journal", profile.lab.journal_bytes), ("volume", profile.lab.volume_bytes)):
        refuse(16 << 20 <= size <= 1 << 40 and size % 4096 == 0,
               f"lab.{key} must be 16 MiB to 1 TiB, in whole blocks of 4 KiB.", "lab", key)  # fmt: skip
    refuse(not profile.lab.keep or profile.lab.durability == "disk",
           'lab.keep: files in memory go with the run; keep goes with durability = "disk".', "lab", "keep")  # fmt: skip
    check_link(profile, reader)
    refuse(bool(profile.cell), "at least one [[cell]] is needed.", "cell")
    for index, cell in enumerate(profile.cell):
        earlier = [other.name for other in profile.cell[:index]]
        refuse(cell.name not in earlier, f'cell "{cell.name}": every cell needs a name of its own.', "cell", index, "name")
        check_cell(cell, index, profile, refuse)
    refuse(0 <= drill.kills <= 1000, "drill.kills must lie between 0 and 1000.", "drill", "kills")
    refuse(0 <= drill.miles <= MILES_MAX, "drill.miles must lie between 0 and 15 000.", "drill", "miles")
    refuse(1 <= drill.queue_depth <= 4096, "drill.queue_depth must lie between 1 and 4096.", "drill", "queue_depth")
    refuse("local" not in drill.protocols, "drill.protocols: local has no far site to lose.", "drill", "protocols")
    refuse("quorum" not in drill.protocols, "drill.protocols: drills have two sites, and a quorum of two is C.",
           "drill", "protocols")  # fmt: skip
    refuse(distinct(drill.protocols), "drill.protocols: the same protocol is named twice.", "drill", "protocols")
    for key, lasts_ns in (("load", drill.load_ns), ("cut", drill.cut_ns)):
        refuse(0 <= lasts_ns <= units.NS_PER_S * 60, f"drill.{key} must last 0 s to 1 min.", "drill", key)
    check_search(profile, refuse)
    check_budgets(profile, refuse)


def check_budgets(profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of [[budget]]."""
    distances = list(dict.fromkeys([*profile.distance.in_miles(), *(miles for cell in profile.cell for miles in cell.miles)]))
    for index, budget in enumerate(profile.budget):
        given = [name for name in ("p50", "p99", "p999") if getattr(budget, f"{name}_ns")]
        refuse(len(given) == 1, 'budget: it is for one quantile, p50, p99 or p999, such as p99 = "2 ms".', "budget", index)
        refuse(0 < budget.limit_ns <= 10 * units.NS_PER_S, f"budget.{given[0]} must lie above 0 s, and at most at 10 s.",
               "budget", index, given[0])  # fmt: skip
        refuse(budget.miles is None or any(is_about(budget, miles) for miles in distances),
               f"budget {budget.text}: nothing is measured there, but at {', '.join(f'{miles:g}' for miles in distances)} miles.",
               "budget", index, "miles")  # fmt: skip
        refuse(budget not in profile.budget[:index], f"budget {budget.text}: it is named twice.", "budget", index)


def check_search(profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of [reach] and [sweep]."""
    reach, sweep = profile.reach, profile.sweep
    for key, time_ns in (("reach", reach.time_ns), ("sweep", sweep.time_ns)):
        refuse(0 <= time_ns <= 24 * units.TIME["h"], f"{key}.time must lie between 0 s and 24 h.", key, "time")
    for key, budget_ns in (("p50", reach.p50_ns), ("p99", reach.p99_ns)):
        refuse(0 <= budget_ns <= 10 * units.NS_PER_S, f"reach.{key} must lie between 0 s and 10 s.", "reach", key)
    refuse(not (reach.p50_ns and reach.p99_ns), "reach.p50 and reach.p99: a search is for one budget.", "reach", "p99")
    if reach.budget_ns:
        refuse(not sweep.time_ns, "reach and sweep: a run is one of the two.", "sweep")
        refuse(len(profile.cell) == 1 and len(profile.cell[0].protocols) == 1,
               "reach: a search is for one cell under one protocol.", "cell")  # fmt: skip
        refuse("local" not in profile.cell[0].protocols, "reach: protocol local has no far site.", "cell", 0, "protocols")


def check_link(profile: Profile, reader: Reader) -> None:
    """What is asked of the links, by itself and at each distance; UsageError with the line of its key."""
    link, distance = profile.link, profile.distance
    if link == PLAIN:
        return
    others = [miles for cell in profile.cell for miles in cell.other_miles]
    try:
        for miles in dict.fromkeys([*distance.in_miles(), *others]):
            check_spec(link, rtt_ns_of(miles, distance.route_factor, distance.equipment_ns) // 2, f"at {miles:g} miles ")
        for direction in link.directions:
            if direction.jitter_file:
                from .jitter import recorded_ns  # Loads NumPy.

                recorded_ns(direction.jitter_file)
    except LinkError as refusal:
        raise UsageError(f"{reader.file_and_line(refusal.path)}: {refusal}") from None


def distinct(items: Iterable[str]) -> bool:
    """Whether no two are the same."""
    listed = list(items)
    return len(set(listed)) == len(listed)


def check_cell(cell: CellTable, index: int, profile: Profile, refuse: Callable[..., None]) -> None:
    """The promises of one cell."""
    name = f'cell "{cell.name}"'

    def require(unless: bool, key: str, sentence: str) -> None:
        refuse(unless, f"{name}: {sentence}", "cell", index, key)

    require(re.fullmatch(r"[\w\-]+", cell.name) is not None, "name", "a name is letters, digits, _ and -.")
    require(bool(cell.protocols), "protocols", f"protocols must name at least one of {', '.join(NAMES)}.")
    require(distinct(cell.protocols), "protocols", "the same protocol is named twice.")
    require(len(cell.other_miles) <= OTHERS_MAX, "other_miles", f"at most {OTHERS_MAX} further secondaries, five replicas.")
    require(all(0 <= miles <= MILES_MAX for miles in cell.other_miles), "other_miles",
            "a distance must lie between 0 and 15 000 miles.")  # fmt: skip
    replicas = 2 + len(cell.other_miles)
    require("quorum" in cell.protocols or not cell.quorum, "quorum", 'a quorum is for the protocol "quorum".')
    require(cell.quorum == 0 or majority(replicas) <= cell.quorum <= replicas, "quorum",
            f"a quorum of {replicas} is {majority(replicas)} to {replicas}: any two must have a replica in common.")  # fmt: skip
    require(cell.on_congestion == "block" or "A" in cell.protocols, "on_congestion", "only protocol A may pull ahead.")
    require(0 < cell.time_scale <= 1e6, "time_scale", "time_scale must be above 0, and at most 1 000 000.")
    load_checks.check(cell, profile.lab.volume_bytes, profile.run.round_ns, require, partial(refuse_of_job, refuse, cell, index))
    require(distinct(f"{miles:g}" for miles in cell.miles), "miles", "the same distance is named twice.")
    for miles in cell.miles:
        require(any(abs(miles - known) < 1e-9 for known in profile.distance.in_miles()), "miles",
                f"{miles:g} miles is not among the profile's distances.")  # fmt: skip


def refuse_of_job(
    refuse: Callable[..., None], cell: CellTable, index: int, place: int, unless: bool, key: str, sentence: str
) -> None:
    """A promise of a job, refused at its line."""
    refuse(unless, f'cell "{cell.name}", job "{cell.jobs[place].name}": {sentence}', "cell", index, "jobs", place, key)
