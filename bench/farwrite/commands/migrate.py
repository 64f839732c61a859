"""`farwrite migrate`: a copy of a volume, or all of a routed one, moves to other nodes while clients write."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..base.errors import EXIT_DONE, UnfitError, UsageError
from .flags import Flag, Quiet
from .output import print_document, printing
from .volume import pool_of

if TYPE_CHECKING:
    from ..experiment.pool.control import Answer, MoveFigures

LOOK_S = 0.1
PAUSE = "300 ms"  # A virtual machine's usual stun is a few hundred.


def migrate(
    volume: str, *, to: str | None = None, pool: Path | None = None, from_: str | None = None,
    by: Literal["mirror", "passes", "snapshot"] = "mirror", pause: str | None = None, cancel: Flag = False, json: Flag = False,
    quiet: Quiet = False,
) -> int:  # fmt: skip
    """Move one copy of a volume, or all copies of a striped one's group, to other nodes of its pool, while clients write.

    mirror: one copy; it is brought up to date beside the writes, then it counts, leads if the old one led, and the old one is
    gone. passes and snapshot: all copies of a group behind its router, whose clients keep their connections; everything is
    copied, then what changed meanwhile, again while that becomes less (passes) or once (snapshot), the last time while clients
    wait. Ctrl-C before the switch leaves the volume as it was.

    Parameters
    ----------
    volume
        The volume's name; of a striped one that of a member, such as big.0.
    to
        The node that is to have the copy; by passes or snapshot a node for each copy, such as c,d.
    pool
        The pool's directory; $FARWRITE_POOL unless said.
    from_
        The node whose copy moves; unless said one of the same site, and of those the one on the fullest node.
    by
        How it is moved.
    pause
        By passes: the last one is begun when it would take no longer than this; 300 ms unless said, 30 s at most.
    cancel
        Give up what is on its way, whoever asked for it.
    json
        Print a document: times, bytes and instants.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..base.units import time_ns
    from ..experiment.pool.control import Cancel, Migrate, MigrateGroup, ask

    directory = pool_of(pool)
    if cancel == (to is not None):
        raise UsageError("Say where the copy is to go, --to NODE, or --cancel to give up the one that is on its way.")
    if pause is not None and by != "passes":
        raise UsageError("--pause says when the last of several passes is begun: give it with --by passes.")
    if from_ is not None and by != "mirror":
        raise UsageError(f"--by {by} moves all copies of a group: --from chooses one of them, for --by mirror.")
    if cancel:
        answer = ask(directory, Cancel(volume))
        with printing():
            print(f"the copy {answer.replica} of volume {volume} is given up; the volume is as it was")
        return EXIT_DONE
    try:
        if by == "mirror":
            begun = ask(directory, Migrate(volume, to or "", from_ or ""))
            done = awaited_move(directory, begun, volume, quiet)
        else:
            request = MigrateGroup(volume, (to or "").split(","), by, time_ns(pause or PAUSE, "--pause"))
            done = awaited_group(directory, ask(directory, request), volume, quiet)
    except KeyboardInterrupt:
        give_up(directory, volume, to or "") if by == "mirror" else give_up_group(directory, volume)
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
        found = found_in(answer, volume, replica)
        if found is not None and found.whole_ns and found.end_ns:
            return found
        copies = [] if answer.pool is None else [copy for one in answer.pool.volumes if one.name == volume for copy in one.copies]
        if all(copy.replica != replica or copy.state in ("leaving", "removing") for copy in copies):
            raise UnfitError(f"The copy {replica} of volume {volume} was given up; the volume is as it was.")
        if answer.pool is None or not answer.pool.is_served:
            raise UnfitError("The pool is served no more. It goes on with this move when it is served again.")
        doing = (found.failure or found.doing) if found is not None else ""
        tell(doing, said, quiet)
        said = doing
        time.sleep(LOOK_S)
        answer = ask(directory, Show())
        answer.replica = replica


def awaited_group(directory: Path, answer: Answer, volume: str, quiet: bool) -> MoveFigures:
    """Wait until the group is at its new home, and the old one is gone. UnfitError when the move was given up."""
    from ..experiment.pool.control import Show, ask

    home, said = answer.replica, ""
    while True:
        found = found_in(answer, volume.partition(".")[0], home)
        if found is not None and found.end_ns:
            if not found.whole_ns:
                raise UnfitError(found.failure)
            return found
        if found is None or answer.pool is None or not answer.pool.is_served:
            raise UnfitError(f"The pool was served anew meanwhile: farwrite pool show {directory} says where the volume is.")
        tell(found.doing, said, quiet)
        said = found.doing
        time.sleep(LOOK_S)
        answer = ask(directory, Show())


def found_in(answer: Answer, volume: str, replica: str) -> MoveFigures | None:
    """The newest move of a volume to this replica, or home: a home's name is used again."""
    return next((one for one in reversed(answer.migrations) if (one.volume, one.replica) == (volume, replica)), None)


def tell(doing: str, said: str, quiet: bool) -> None:
    """Say on stderr what is done, once."""
    if doing and doing != said and not quiet:
        print(f"farwrite migrate: {doing}", file=sys.stderr, flush=True)


def give_up_group(directory: Path, volume: str) -> None:
    """After Ctrl-C: the group where it was, if that can still be."""
    from ..base.errors import FarwriteError
    from ..experiment.pool.control import Cancel, ask

    try:
        ask(directory, Cancel(volume))
        sentence = f"given up, unless it was switched already: farwrite pool show {directory} says where {volume} is."
    except FarwriteError as refusal:
        sentence = str(refusal)
    print(f"farwrite migrate: {sentence}", file=sys.stderr, flush=True)


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
    there = f"{move.replica} on {move.node}" if move.passes else move.replica
    words = [f"{move.volume}: {move.replaces or 'a new copy'} is now {there}, in {took}"]
    words += [f"{format_size(move.copied_bytes)} copied"]
    over = copied_over(move)
    words[-1] += f" ({over:.2f} of what is allocated)" if over is not None else ""
    pause = switch_ns(move)
    if move.passes:
        last = format_time(pause or 0)
        return "; ".join([*words, f"{move.passes} passes, the last one while clients waited {last}"])
    switched = "it did not lead: no switch" if pause is None else f"nobody was served for {format_time(pause)} at the switch"
    words += [switched]
    words += [f"longest write {format_time(move.write_ns_max)}"] if move.write_ns_max else ["nobody wrote"]
    return "; ".join(words)
