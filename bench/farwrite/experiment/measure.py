"""The lab that a profile asks for, its rounds, floors and drills: everything that is measured, and what carried it."""

from __future__ import annotations

import contextlib
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..base.errors import UnfitError
from ..base.histogram import Histogram
from ..base.interruption import go_on
from ..base.keep_awake import asked_word
from ..base.reasons import round_refused
from ..engine.record_kernel import HEADER_BYTES
from ..lab.lab import Lab, LabSpec, open_lab
from ..lab.survey import whole_blocks
from ..recording import Cell, FlushFloors, LabFacts, causes_of
from ..workload.link_spec import describe
from ..workload.tables import Profile
from . import sides
from .cells import others_of_all
from .drill.drills import cut_drill, kill_drill
from .expected import drill_s, round_s
from .round import measure_cell
from .run_journal import Entry, Run, keep


def lab_of(profile: Profile, directory: Path) -> AbstractContextManager[Lab]:
    """The lab that a profile asks for: both sites here and a distance between them, or the far one on another machine."""
    spec, table = lab_spec(profile, directory), profile.lab
    if not table.far_host:
        return open_lab(spec)
    from ..workload.ssh_host import far_host
    from .remote.remote_lab import real_lab

    return real_lab(spec, far_host(table.far_host), table.far_command)


def lab_spec(profile: Profile, directory: Path) -> LabSpec:
    """The lab that a profile asks for; the sites' files go beside the results unless it names directories."""
    table = profile.lab

    def place(name: str) -> Path | None:
        if table.durability == "memory":
            return None
        return Path(name).expanduser() if name else directory

    return LabSpec(
        link=table.link, near=place(table.near), far=place(table.far), journal_bytes=table.journal_bytes,
        volume_bytes=table.volume_bytes, congestion=table.congestion, others=others_of_all(profile),
        link_spec=profile.link, keep=table.keep, keep_awake=asked_word(table.keep_awake), encryption=table.encryption,
        compression=table.compression,
    )  # fmt: skip


def measure(run: Run, lab: Lab) -> None:
    """All rounds of all cells that have not been measured yet."""
    table = run.profile.run
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    for index in range(table.rounds):
        missing = [cell for cell in run.cells if (cell.id, index) not in done]
        if not missing:
            continue
        measure_round(run, lab, missing, index, f"round {index + 1}/{table.rounds}")


def measure_round(run: Run, lab: Lab, cells: list[Cell], index: int, title: str) -> None:
    """One round: bare flushes, then every one of these cells once, in an order drawn for this round."""
    cells = list(cells)
    random.Random(f"{run.seed}/{index}").shuffle(cells)
    run.progress.doing(f"{title} · disks")
    measure_floors(run, lab, index)
    for cell in cells:
        run.progress.doing(f"{title} · {cell.name} {cell.protocol} at {cell.miles:g} miles")
        first = next_attempt(run, cell.id, index)
        last = first + run.profile.run.retries
        for attempt in range(first, last + 1):
            go_on()
            which = f"{cell.id}, round {index + 1}"
            try:
                made = measure_cell(run, lab, cell, index, attempt)
            except UnfitError as failure:  # Before its load or after it: nothing of it is worth keeping.
                if attempt == last:
                    raise
                run.progress.voided(which, "failed", [round_refused(str(failure))])
                lab.revive()
                continue
            keep(run, Entry(round=made))
            if made.status == "ok":
                run.progress.measured(cell, made)
                break
            run.progress.voided(which, made.status, causes_of(made))
        run.progress.did(round_s(run))


def next_attempt(run: Run, cell: str, index: int) -> int:
    """The number of a round's next attempt: of a run that goes on those before are kept, and so are their samples' files."""
    return 1 + max((item.attempt for item in run.rounds if (item.cell, item.index) == (cell, index)), default=-1)


def measure_floors(run: Run, lab: Lab, index: int) -> None:
    """Bare flushes of every size that this run's records have on disk."""
    known = {(item.index, item.size_bytes) for item in run.floors}
    for size in record_sizes(run):
        if (index, size) not in known:
            floors = flush_floors(run, lab, index, size)
            keep(run, Entry(floors=floors))


def record_sizes(run: Run) -> list[int]:
    """Every size that this run's records have on disk."""
    return sorted({whole_blocks(HEADER_BYTES + cell.size_bytes) for cell in run.cells})


def flush_floors(run: Run, lab: Lab, index: int, size: int) -> FlushFloors:
    """Bare flushes of one size."""
    times = lab.flush_floors(size, run.profile.run.floor_flushes)
    texts: dict[str, Any] = {name: Histogram.of(values).encode() for name, values in times.items()}
    return FlushFloors(index=index, size_bytes=size, **texts)


def drill(run: Run, lab: Lab) -> None:
    """Lose the near site, and cut the link, as often as the profile asks."""
    table = run.profile.drill
    done = {(item.kind, item.protocol, item.index) for item in run.drills}
    for index in range(table.kills):
        for protocol in table.protocols:
            for kind, perform in (("kill", kill_drill), ("cut", cut_drill)):
                if (kind, protocol, index) in done:
                    continue
                go_on()
                run.progress.doing(f"drill {index + 1}/{table.kills} · {kind} under {protocol}")
                made = perform(run, lab, protocol, index)
                keep(run, Entry(drill=made))
                if made.uncounted:
                    words = f"{made.uncounted}: {made.note}" if made.note else made.uncounted
                    run.progress.say(f"{kind} {index + 1} under {protocol} does not count ({words})")
                run.progress.did(drill_s(run))


def facts_of(lab: Lab) -> LabFacts:
    """What carried the run."""
    near, far = lab.near.disk, lab.far.disk
    memory = near.durability == "memory"
    return LabFacts(
        link=lab.choice.kind,
        link_reason=lab.choice.reason,
        link_asked=describe(lab.spec),
        link_facts=lab.link.facts(),
        base_rtt=Histogram.of(lab.base.rtt_ns).encode(),
        delay_ns={str(asked): delay for asked, delay in sorted(lab.delay_ns.items())},
        near_directory=near.directory,
        far_directory=far.directory,
        near_file_system=near.file_system,
        far_file_system=far.file_system,
        shared_disk=lab.far_host is None and (memory or same_device(near.directory, far.directory)),
        durability=near.durability,
        direct=near.direct and far.direct,
        reactor="pwrite" if memory else lab.near.call(sides.reactor_name),
        transport=lab.transport,
        encryption=lab.terms.encryption,
        compression=lab.terms.compression,
        far_host=lab.far_host,
        distance="echo" if lab.far_host else "light",
        keep_awake=lab.awake.chosen,
        keep_awake_reason=lab.awake.reason,
        keep_awake_mend=lab.awake.mend,
        near_not_durable=near.not_durable,
        far_not_durable=far.not_durable,
    )


def same_device(one: str, other: str) -> bool:
    """Whether two directories lie on one file system."""
    with contextlib.suppress(OSError):
        return Path(one).stat().st_dev == Path(other).stat().st_dev
    return True
