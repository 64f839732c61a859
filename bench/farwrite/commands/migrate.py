"""`farwrite migrate`: one copy of a volume moves to another node while clients write."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import EXIT_DONE, UnfitError, UsageError
from .flags import Flag, Quiet
from .output import print_document, printing
from .volume import pool_of

if TYPE_CHECKING:
    from ..experiment.pool.control import Answer, MoveFigures

LOOK_S = 0.1


def migrate(
    volume: str, *, to: str | None = None, pool: Path | None = None, from_: str | None = None, cancel: Flag = False,
    json: Flag = False, quiet: Quiet = False,
) -> int:  # fmt: skip
    """Move one copy of a volume to another node of its pool, while clients write.

    The copy there is brought up to date beside the writes; then it counts, leads if the old one led, and the old one is gone.
    Ctrl-C before that leaves the volume as it was.

    Parameters
    ----------
    volume
        The volume's name.
    to
        The node that is to have the copy.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    from_
        The node whose copy moves; unless said one of the same site, and of those the one on the fullest node.
    cancel
        Give up the copy that is on its way, whoever asked for it.
    json
        Print a document: times, bytes and instants.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..experiment.pool.control import Cancel, Migrate, ask

    directory = pool_of(pool)
    if cancel == (to is not None):
        raise UsageError("Say where the copy is to go, --to NODE, or --cancel to give up the one that is on its way.")
    if cancel:
        answer = ask(directory, Cancel(volume))
        with printing():
            print(f"the copy {answer.replica} of volume {volume} is given up; the volume is as it was")
        return EXIT_DONE
    try:
        begun = ask(directory, Migrate(volume, to or "", from_ or ""))
        done = awaited_move(directory, begun, volume, quiet)
    except KeyboardInterrupt:
        give_up(directory, volume, to or "")
        raise
    with printing():
        if json:
            print_document(document_of(done))
        else:
            print(sentence_of(done))
    return EXIT_DONE


def awaited_move(directory: Path, answer: Answer, volume: str, quiet: bool) -> MoveFigures:
    """Wait until the old copy is gone. UnfitError when the new one was given up, by somebody else or with the pool."""
    from ..experiment.pool.control import Show, ask

    replica, said = answer.replica, ""
    while True:
        found = next((one for one in answer.migrations if (one.volume, one.replica) == (volume, replica)), None)
        if found is not None and found.whole_ns and found.end_ns:
            return found
        copies = [] if answer.pool is None else [copy for one in answer.pool.volumes if one.name == volume for copy in one.copies]
        if all(copy.replica != replica or copy.state in ("leaving", "removing") for copy in copies):
            raise UnfitError(f"The copy {replica} of volume {volume} was given up; the volume is as it was.")
        if answer.pool is None or not answer.pool.is_served:
            raise UnfitError("The pool is served no more. It goes on with this move when it is served again.")
        doing = (found.failure or found.doing) if found is not None else ""
        if doing and doing != said and not quiet:
            print(f"farwrite migrate: {doing}", file=sys.stderr, flush=True)
        said = doing
        time.sleep(LOOK_S)
        answer = ask(directory, Show())
        answer.replica = replica


def give_up(directory: Path, volume: str, to: str) -> None:
    """After Ctrl-C, wherever that came: the volume as it was, if that can still be."""
    from ..base.errors import FarwriteError
    from ..experiment.pool.control import Cancel, Show, ask

    try:
        figures = ask(directory, Show()).pool
        copies = [] if figures is None else [copy for one in figures.volumes if one.name == volume for copy in one.copies]
        if not any(copy.node == to and copy.state in ("making", "joining") for copy in copies):
            sentence = f"interrupted; no copy of {volume} is on its way to {to}: farwrite pool show says where its copies are."
        else:
            replica = ask(directory, Cancel(volume)).replica
            sentence = f"given up: the copy {replica} is removed, and volume {volume} is as it was."
    except FarwriteError as refusal:
        sentence = str(refusal)
    print(f"farwrite migrate: {sentence}", file=sys.stderr, flush=True)


def document_of(move: MoveFigures) -> dict[str, object]:
    """A migration for a script; instants are in ns since 1970."""
    import msgspec

    return msgspec.to_builtins(move) | {
        "seconds": (move.end_ns - move.begin_ns) / 1e9, "switch_pause_ns": switch_ns(move),
        "copied_over_allocated": copied_over(move),
    }  # fmt: skip


def switch_ns(move: MoveFigures) -> int | None:
    """How long nobody was served, while another one came to lead; None where the copy did not lead."""
    return move.switch_end_ns - move.switch_begin_ns if move.switch_end_ns else None


def copied_over(move: MoveFigures) -> float | None:
    return move.copied_bytes / move.allocated_bytes if move.allocated_bytes else None


def sentence_of(move: MoveFigures) -> str:
    """A migration in a line."""
    from ..base.units import format_size, format_time

    took = format_time(move.end_ns - move.begin_ns)
    words = [f"{move.volume}: {move.replaces or 'a new copy'} is now {move.replica}, in {took}"]
    words += [f"{format_size(move.copied_bytes)} copied"]
    over = copied_over(move)
    words[-1] += f" ({over:.2f} of what is allocated)" if over is not None else ""
    pause = switch_ns(move)
    switched = "it did not lead: no switch" if pause is None else f"nobody was served for {format_time(pause)} at the switch"
    words += [switched]
    words += [f"longest write {format_time(move.write_ns_max)}"] if move.write_ns_max else ["nobody wrote"]
    return "; ".join(words)
