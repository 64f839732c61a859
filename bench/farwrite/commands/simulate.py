"""`farwrite simulate`: tell many stories of the engine in a pretend world, and stop at the first that breaks a promise."""

from __future__ import annotations

import sys
import time
from typing import Annotated

from cyclopts import Parameter

from ..errors import EXIT_DONE, EXIT_LOST_WRITE
from .output import printing

TAIL_LINES = 40


def simulate(
    *,
    seeds: int = 1000,
    first: Annotated[int, Parameter(name="--from")] = 0,
    minutes: float | None = None,
    seed: int | None = None,
    verbose: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Put the engine's own loops through crashes, cuts and failing disks, each story from one seed; stop at a broken promise.

    Parameters
    ----------
    seeds
        How many seeds.
    first
        The first seed.
    minutes
        Go on for so long instead, however many seeds that takes.
    seed
        Retell this one seed.
    verbose
        Print every line of the stories.
    json
        Print one JSON document instead of sentences.
    """
    import msgspec

    from ..simulate.story import tell

    if seed is not None:
        first, seeds, minutes = seed, 1, None
    end_s = time.monotonic() + 60 * minutes if minutes is not None else None
    told, totals = None, {"seeds": 0, "ticks": 0, "writes": 0, "completed": 0, "epochs": 0}
    number = first
    while (number < first + seeds) if end_s is None else (time.monotonic() < end_s):
        told = tell(number)
        totals["seeds"] += 1
        for name in ("ticks", "writes", "completed", "epochs"):
            totals[name] += getattr(told, name)
        if verbose and not json:
            with printing():
                print("\n".join(told.lines))
        if told.broken:
            break
        number += 1
        if totals["seeds"] % 100 == 0 and sys.stderr.isatty():
            print(f"\r{totals['seeds']} seeds, {totals['completed']} writes completed", end="", file=sys.stderr)
    if sys.stderr.isatty() and totals["seeds"] >= 100:
        print(file=sys.stderr)
    broken = told is not None and told.broken is not None
    with printing():
        if json:
            tail = told.lines[-TAIL_LINES:] if broken and told else []
            answer = {
                **totals, "first_seed": first, "broken_seed": told.seed if broken and told else None,
                "broken": told.broken if told else None, "tail": tail, "digest": told.digest if told else None,
            }  # fmt: skip
            print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        elif broken and told:
            print(f"Seed {told.seed} breaks a promise: {told.broken}.")
            print("\n".join([told.lines[0], "  ...", *told.lines[max(1, len(told.lines) - TAIL_LINES) :]]))
            print(f"Retell it: farwrite simulate --seed {told.seed} --verbose")
        else:
            print(
                f"{totals['seeds']} seeds from {first}: no promise broken. {totals['writes']} writes submitted, "
                f"{totals['completed']} completed, {totals['epochs']} epochs."
            )
    return EXIT_LOST_WRITE if broken else EXIT_DONE
