"""`farwrite volume`: the volumes of a pool, and what stands in a replica's files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from ..base.errors import EXIT_DONE, EXIT_LOST_WRITE, UsageError
from .examples import below
from .flags import Flag
from .options import bytes_of
from .output import print_document, printing

if TYPE_CHECKING:
    from ..experiment.pool.control import Answer, VolumeFigures

ROOM_FACTOR = 2  # How much larger than it is made a volume may become, unless said.

volume = App(name="volume", help_epilogue=below("volume"))


@volume.command(help_epilogue=below("volume info"))
def info(directory: Path, *, json: Flag = False) -> int:
    """Tell what a replica's journal and volume hold, without changing them; exit code 5 when damaged or not of one time.

    Parameters
    ----------
    directory
        Where its files "journal" and "volume" are. A run keeps them with --set lab.keep=true.
    json
        Print one JSON document instead of sentences.
    """
    from dataclasses import asdict

    from ..base.units import format_size
    from ..engine.inspect import look
    from ..engine.label import GO_ON

    found = look(directory)
    with printing():
        if json:
            print_document(asdict(found))
        else:
            share = found.allocated_bytes / max(found.volume_bytes, 1)
            behind = found.log_sequence - found.checkpoint_sequence
            print(f"{found.directory}: volume {found.volume} on {found.file_system}")
            print(f"  volume   {format_size(found.volume_bytes)}, {format_size(found.allocated_bytes)} of it allocated "
                  f"({share:.1%}) in {found.extents:,} extents")  # fmt: skip
            writes = f"writes {found.checkpoint_sequence + 1:,} to {found.log_sequence:,}"
            replay = f"{writes} to replay" if behind else "nothing to replay"
            print(f"  journal  {format_size(found.journal_bytes)}, {replay} ({format_size(found.replay_bytes)})")
            print(f"  ends     at write {found.log_sequence:,} of epoch {found.log_epoch}: {found.end_reason}")
            print(f"  epoch    {found.promised_epoch} promised")
            if found.mismatch:
                print(f"  ✘ not of one time: {found.mismatch}. {GO_ON}")
            elif found.damaged:
                print("  ✘ damaged: something durable stands behind that end; this replica must be compared with another")
            elif not found.consistent:
                print("  ✘ inconsistent: in the middle of a resync; this replica may not lead")
            else:
                print("  ✔ consistent")
    return EXIT_LOST_WRITE if found.damaged or found.mismatch else EXIT_DONE


@volume.command(help_epilogue=below("volume create"))
def create(
    name: str, *, size: str, pool: Path | None = None, level: str = "10", reserved: Flag = False, grows_to: str | None = None,
    groups: int | None = None, json: Flag = False,
) -> int:  # fmt: skip
    """Make a volume in a pool, each copy on a node of its own. While the pool is served it can be used at once.

    Parameters
    ----------
    name
        Its name: up to 16 small letters, digits and "_".
    size
        Bytes that clients see; thin: it takes room as it is written.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    level
        How many copies: 0 is one, 10 two, 10+1 three, 10+2 four, with one at each site of the pool where there are as many.
    reserved
        Set its whole size aside on each of its nodes.
    grows_to
        The largest size that it may be given later; twice the size unless said.
    groups
        Stripe it in chunks of 64 MiB over so many replica groups, behind one router: it is as fast, and as large, as all of them.
    json
        Print the volume as a document.
    """
    from ..engine.frontend.router_map import GROUPS_MAX
    from ..experiment.pool.control import CreateVolume, ask
    from ..experiment.pool.document import checked_size
    from ..experiment.serve.volume_files import SIZE_BYTES_MAX

    size_bytes = checked_size(bytes_of(size, "--size"))
    room_bytes = min(ROOM_FACTOR * size_bytes, SIZE_BYTES_MAX)
    if grows_to:
        room_bytes = checked_size(bytes_of(grows_to, "--grows-to"), "--grows-to")
    if room_bytes < size_bytes:
        raise UsageError(f"--grows-to {grows_to}: it is less than --size {size}.")
    if groups is not None and not 1 <= groups <= GROUPS_MAX:
        raise UsageError(f"--groups {groups}: a volume is striped over 1 to {GROUPS_MAX} groups.")
    made = CreateVolume(name, size_bytes, level, reserved, room_bytes, groups or 0)
    return show_volume(ask(pool_of(pool), made), name, json)


@volume.command(name="list", help_epilogue=below("volume list"))
def list_(*, pool: Path | None = None, members: Flag = False, json: Flag = False) -> int:
    """List the volumes of a pool, where their copies are and who leads.

    Parameters
    ----------
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    members
        Also those that striped volumes consist of.
    json
        Print a document.
    """
    from ..experiment.pool.control import Show, ask

    figures = ask(pool_of(pool), Show()).pool
    assert figures is not None
    found = [one for one in figures.volumes if members or not one.part_of]
    with printing():
        if json:
            print_document(found)
        elif not found:
            print("no volumes")
        for one in () if json else found:
            print(volume_text(one))
    return EXIT_DONE


@volume.command(help_epilogue=below("volume resize"))
def resize(name: str, *, size: str, pool: Path | None = None, json: Flag = False) -> int:
    """Give a volume another size. Clients that connect from now on see it.

    A smaller one is refused while it has clients, or where something is written behind the new end.

    Parameters
    ----------
    name
        The volume's name.
    size
        Its new size in bytes.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    json
        Print the volume as a document.
    """
    from ..experiment.pool.control import ResizeVolume, ask
    from ..experiment.pool.document import checked_size

    return show_volume(ask(pool_of(pool), ResizeVolume(name, checked_size(bytes_of(size, "--size")))), name, json)


@volume.command(help_epilogue=below("volume delete"))
def delete(name: str, *, pool: Path | None = None) -> int:
    """Delete a volume and all its copies. Clients are hung up on.

    Parameters
    ----------
    name
        The volume's name.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    """
    from ..experiment.pool.control import DeleteVolume, ask

    ask(pool_of(pool), DeleteVolume(name))
    with printing():
        print(f"volume {name} is deleted")
    return EXIT_DONE


@volume.command(help_epilogue=below("volume set-level"))
def set_level(name: str, level: str, *, pool: Path | None = None, no_wait: Flag = False, json: Flag = False) -> int:
    """Give a volume more copies or fewer, while clients write. While the pool is at rest it is done when that is served next.

    Parameters
    ----------
    name
        The volume's name.
    level
        0, 10, 10+1 or 10+2: one to four copies.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    no_wait
        Do not wait until the copies are there.
    json
        Print the volume as a document.
    """
    from ..experiment.pool.control import Figures, SetLevel, ask
    from ..experiment.pool.document import LEVELS
    from .pool import awaited

    directory = pool_of(pool)
    answer = ask(directory, SetLevel(name, level))

    def is_there(figures: Figures) -> bool:
        one = next((found for found in figures.volumes if found.name == name), None)
        if one is None:
            return True
        wanted = LEVELS[one.level] * max(one.groups, 1)
        return len(one.copies) == wanted and all(copy.state == "in" for copy in one.copies)

    if not no_wait:
        answer = awaited(directory, answer, is_there, f"farwrite volume: {name} comes to level {level} all the same.")
    if answer.pool is not None and not answer.pool.is_served:
        print("farwrite volume: the pool is at rest; the copies are made or removed when it is served.", file=sys.stderr)
    return show_volume(answer, name, json)


# What they share


def pool_of(directory: Path | None) -> Path:
    """The pool that is meant. UsageError where it is not said."""
    named = os.environ.get("FARWRITE_POOL")
    if directory is None and not named:
        raise UsageError("Which pool? Name its directory with --pool DIR, or in $FARWRITE_POOL.")
    return directory or Path(named or "")


def show_volume(answer: Answer, name: str, json: bool) -> int:
    """A volume, for a person or a script."""
    assert answer.pool is not None
    found = next(one for one in answer.pool.volumes if one.name == name)
    with printing():
        if json:
            print_document(found)
        else:
            print(volume_text(found))
    return EXIT_DONE


def volume_text(one: VolumeFigures) -> str:
    """A volume in a line or two."""
    from ..base.units import format_size
    from .pool import copies_text

    used = max((copy.allocated_bytes for copy in one.copies), default=0)
    words = [format_size(one.size_bytes), f"{format_size(used)} used", f"level {one.level}"]
    words += [f"striped over {one.groups} groups"] if one.groups else []
    words += ["reserved"] if one.is_reserved else []
    words += [one.state] if one.state != "ready" else []
    return f"{one.name:16} {', '.join(words)}: {copies_text(one.copies)}" + "".join(
        f"\n  {uri}" for uri in (one.uri, one.tcp_uri, one.iscsi_uri) if uri
    )
