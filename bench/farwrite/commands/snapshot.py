"""`farwrite snapshot`: point-in-time copies of a served volume, taken, listed, deleted, scheduled and gone back to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ..base.errors import EXIT_DONE, UsageError
from .examples import below
from .flags import Flag, Quiet
from .output import print_document, printing

if TYPE_CHECKING:
    from ..experiment.serve.control import SnapshotFigures
    from ..experiment.serve.schedule import Hooks, Taken

HOOK_LIMIT = "30 s"
KEEP_MAX = 16  # What a replica has places for.
Volumes = Annotated[list[Path], Parameter(name="--sockets", negative="", consume_multiple=False)]

snapshot = App(name="snapshot", help_epilogue=below("snapshot"))


@snapshot.command(help_epilogue=below("snapshot create"))
def create(
    name: str, *, before: str | None = None, after: str | None = None, hook_limit: str = HOOK_LIMIT,
    sockets: Volumes | None = None, json: Flag = False,
) -> int:  # fmt: skip
    """Take a snapshot of a served volume, at one instant on all its replicas; or of several, at one instant of all.

    It can be read at once as the export volume@NAME. It holds every write that was answered before, and is crash-consistent; for
    more, --before has an application write out what it holds and stand still, and --after lets it go on. Clients of several
    volumes wait meanwhile, 3 s at most.

    Parameters
    ----------
    name
        Its name: up to 63 bytes, without spaces, "@", ":" and "/".
    before
        A line for the shell, run just before; if it fails no snapshot is taken. It finds the name in FARWRITE_SNAPSHOT.
    after
        A line for the shell, run just after, whatever became of the rest.
    hook_limit
        How long each of them may take.
    sockets
        The served volume's directory of sockets (farwrite serve --sockets); $FARWRITE_SOCKETS, or the only one, unless said. Once
        for each volume.
    json
        Print the snapshot as a document.
    """
    from ..engine.snapshot import checked_name
    from ..experiment.serve.schedule import take

    checked_name(name)
    taken = take(volumes_in_use(sockets), name, hooks_of(before, after, hook_limit))
    with printing():
        if json:
            print_document(document_of_taken(taken))
        else:
            print(sentence_of(taken))
    return EXIT_DONE


@snapshot.command(name="list", help_epilogue=below("snapshot list"))
def list_(*, sockets: Path | None = None, json: Flag = False) -> int:
    """List the snapshots of a served volume, as whoever leads has them.

    Parameters
    ----------
    sockets
        The served volume's directory of sockets.
    json
        Print a document.
    """
    from ..base.units import format_size
    from ..experiment.serve.control import Show, ask, sockets_in_use

    answer = ask(sockets_in_use(sockets), Show())
    with printing():
        if json:
            print_document({"volume": answer.volume, "leader": answer.leader, "snapshots": [*map(document_of, answer.snapshots)]})
        elif not answer.snapshots:
            print("no snapshots")
        else:
            wide = max(len(one.name) for one in answer.snapshots)
            for one in answer.snapshots:
                whole = "" if one.is_whole else f"  not whole at {answer.leader}: it cannot be read there"
                print(f"{one.name:{wide}}  {instant_of(one.taken_ns)}  {format_size(one.kept_bytes):>9} kept for it{whole}")
    return EXIT_DONE


@snapshot.command(help_epilogue=below("snapshot delete"))
def delete(*name: str, sockets: Volumes | None = None) -> int:
    """Delete snapshots of a served volume; the room that nobody else needs is given back.

    Parameters
    ----------
    name
        Names of the snapshots.
    sockets
        The served volume's directory of sockets; once for each volume.
    """
    from ..base.units import counted
    from ..experiment.serve.control import Delete, ask

    if not name:
        raise UsageError("Name the snapshots that are to be deleted: farwrite snapshot list shows them.")
    for place in volumes_in_use(sockets):
        for one in name:
            answer = ask(place, Delete(one))
        with printing():
            where = f"{place}: " if sockets and len(sockets) > 1 else ""
            print(f"{where}{counted(len(name), 'snapshot')} deleted, {len(answer.snapshots)} left")
    return EXIT_DONE


@snapshot.command(help_epilogue=below("snapshot schedule"))
def schedule(
    *, every: str, keep: int = 8, name: str = "every", before: str | None = None, after: str | None = None,
    hook_limit: str = HOOK_LIMIT, sockets: Volumes | None = None, json: Flag = False, quiet: Quiet = False,
) -> int:  # fmt: skip
    """Take a snapshot every so often, and delete the oldest beyond so many, until Ctrl-C.

    One that could not be taken in time is said in a line, and the next is tried when it is due. Snapshots of other names stay.

    Parameters
    ----------
    every
        How often, such as "15 min"; at least 1 s.
    keep
        How many of its own are kept.
    name
        How their names begin; their instant in UTC follows.
    before
        A line for the shell, run before each one; if it fails that one is left out.
    after
        A line for the shell, run after each one, whatever became of it.
    hook_limit
        How long each of them may take.
    sockets
        The served volume's directory of sockets; once for each volume, and all have theirs at one instant.
    json
        Print a line of JSON for each.
    quiet
        Say nothing on stderr but refusals.
    """
    import msgspec

    from ..experiment.copy.plan import PREFIX
    from ..experiment.serve.control import Show, ask
    from ..experiment.serve.schedule import Schedule, keep_schedule

    every_s = period_s(every)
    if not 1 <= keep <= KEEP_MAX:
        raise UsageError(f"--keep {keep}: 1 to {KEEP_MAX}.")
    if not PREFIX.fullmatch(name):
        raise UsageError(f'--name: "{name[:80]}" must be 1 to 16 letters, digits and underscores: the instant follows.')
    places, hooks = volumes_in_use(sockets), hooks_of(before, after, hook_limit)
    for place in places:
        ask(place, Show())  # Refused now, not in a quarter of an hour.

    def taken(one: Taken) -> None:
        with printing():
            if json:
                print(msgspec.json.encode(document_of_taken(one)).decode(), flush=True)
            else:
                print(sentence_of(one), flush=True)

    def tell(sentence: str) -> None:
        if not quiet:
            print(f"farwrite snapshot: {sentence}", file=sys.stderr, flush=True)

    try:
        keep_schedule(places, Schedule(every_s, keep, name, hooks), taken, tell)
    except KeyboardInterrupt:
        tell("ended; the snapshots stay.")
    return EXIT_DONE


@snapshot.command(help_epilogue=below("snapshot restore"))
def restore(name: str, *, copied_as: str = "copy", sockets: Path | None = None, json: Flag = False) -> int:
    """Put a served volume back to what it was at one of its snapshots. What was written since is gone.

    Only what may have changed since is written. Nobody else may use the volume meanwhile; killed in the middle, do it again.

    Parameters
    ----------
    name
        The snapshot; or last-copy, the newest that farwrite copy has completed here: the way to make the far volume primary.
    copied_as
        The name that farwrite copy gave, for last-copy.
    sockets
        The served volume's directory of sockets.
    json
        Print a document.
    """
    from ..base.units import format_size, format_time
    from ..engine.frontend.nbd_client import Place
    from ..experiment.copy.copier import End, newest_copy
    from ..experiment.copy.copier import restore as put_back
    from ..experiment.serve.control import FOLLOWS, Show, ask, sockets_in_use

    place = sockets_in_use(sockets)
    chosen = newest_copy(ask(place, Show()).snapshots, copied_as) if name == "last-copy" else name
    done = put_back(End(Place(str(place / FOLLOWS)), place), chosen)
    with printing():
        if json:
            print_document({"snapshot": done.snapshot, "changed_bytes": done.changed_bytes, "written_bytes": done.shipped_bytes,
                            "zeroed_bytes": done.zeroed_bytes, "seconds": done.seconds, "uri": Place(str(place / FOLLOWS)).uri})
        else:
            print(f"{done.snapshot}: the volume is what it was at {instant_of(done.taken_ns)}; {format_size(done.shipped_bytes)} "
                  f"written back in {format_time(done.seconds * 1e9)}")  # fmt: skip
    return EXIT_DONE


# What they share


def period_s(every: str, least_s: float = 1.0) -> float:
    """How often. UsageError for what is too often, or more seldom than once in a year."""
    from ..base.units import time_ns

    every_s = time_ns(every, "--every") / 1e9
    if not least_s <= every_s <= 366 * 86400:
        raise UsageError(f'--every "{every}": give {least_s:g} s to a year.')
    return every_s


def hooks_of(before: str | None, after: str | None, limit: str) -> Hooks:
    """The hooks that were typed."""
    from ..base.units import time_ns
    from ..experiment.serve.schedule import Hooks

    limit_s = time_ns(limit, "--hook-limit") / 1e9
    if not 0.1 <= limit_s <= 3600:
        raise UsageError(f'--hook-limit "{limit}": give 0.1 s to an hour.')
    return Hooks(before or "", after or "", limit_s)


def instant_of(taken_ns: int) -> str:
    """When it was taken, for a person."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(taken_ns // 1_000_000 / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def volumes_in_use(asked: list[Path] | None) -> list[Path]:
    """The directories of sockets that are meant: those that were asked for, or the one that is clear without it."""
    from ..experiment.serve.control import sockets_in_use

    return asked or [sockets_in_use(None)]


def document_of_taken(taken: Taken) -> dict[str, Any]:
    """One that was just taken, for a script."""
    together = {} if taken.pause_s is None else {"volumes": taken.volumes, "pause_seconds": taken.pause_s}
    return document_of(taken.snapshot) | {"seconds": taken.seconds} | together


def document_of(one: SnapshotFigures) -> dict[str, Any]:
    """A snapshot for a script."""
    return {
        "name": one.name, "taken_ns": one.taken_ns, "taken": instant_of(one.taken_ns), "sequence": one.sequence,
        "is_whole": one.is_whole, "kept_bytes": one.kept_bytes, "export": f"volume@{one.name}",
    }  # fmt: skip


def sentence_of(taken: Taken) -> str:
    """One that was taken, in a line."""
    from ..base.units import format_time

    one = taken.snapshot
    line = f"{one.name}: taken at {instant_of(one.taken_ns)} in {format_time(taken.seconds * 1e9)}; read it as volume@{one.name}"
    if taken.pause_s is None:
        return line
    return f"{line}; of {taken.volumes} volumes at one instant, clients waited {format_time(taken.pause_s * 1e9)} at most"
