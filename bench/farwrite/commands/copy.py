"""`farwrite copy`: remote copy, the asynchronous way to a second site: snapshots of one served volume shipped to another."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import EXIT_DONE, UsageError
from .flags import Flag, Quiet
from .output import printing

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..experiment.copy.copier import Copied, Copier, End

KEEP_MIN, KEEP_MAX = 2, 12  # Of 16 places; a part and a schedule's need some.
RATE_BITS_MIN = 8_000


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
def copy(
    source: str,
    destination: str,
    *,
    every: str | None = None,
    copies: int | None = None,
    rate: str | None = None,
    keep: int = 4,
    name: str = "copy",
    overwrite: Flag = False,
    verify: Flag = False,
    from_sockets: Path | None = None,
    to_sockets: Path | None = None,
    json: Flag = False,
    quiet: Quiet = False,
) -> int:
    """Copy a served volume to another one, first in full and then what changed between two of its snapshots.

    When a copy is complete the destination takes a snapshot of it: that is the recovery point, and until then nothing there looks
    whole. Killed or cut off at any instant, the same command goes on from where it was. The way back after a failover is the same
    command with the ends exchanged and --overwrite: only what differs is shipped.

    Parameters
    ----------
    source
        Such as nbd+unix:///volume?socket=DIR/volume.sock, as farwrite serve prints it.
    destination
        The volume that is to be like it; as large or larger. Nobody else writes to it.
    every
        Copy again so often, such as "15 min", until Ctrl-C; once unless said.
    copies
        With --every: end after so many.
    rate
        Bits a second at most, such as 100mbit.
    keep
        How many complete copies the destination keeps as snapshots.
    name
        How the snapshots' names begin. A volume that is copied to two others has two names.
    overwrite
        Give up what somebody has written at the destination; without it that is refused.
    verify
        Compare digests of both snapshots after each copy; exit code 5 when they differ.
    from_sockets
        The source's directory of sockets; where its socket is, unless said.
    to_sockets
        The destination's directory of sockets; where its socket is, unless said.
    json
        Print a line of JSON for each copy.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..base.interruption import exit_code
    from ..base.units import rate_bits_per_s
    from ..experiment.copy.copier import Asked, Copier
    from ..experiment.copy.plan import PREFIX
    from .snapshot import period_s

    every_s = None if every is None else period_s(every)
    bits = None if rate is None else rate_bits_per_s(rate, "--rate")
    if bits is not None and bits < RATE_BITS_MIN:
        raise UsageError(f'--rate "{rate}": at least {RATE_BITS_MIN} bit/s.')
    if not KEEP_MIN <= keep <= KEEP_MAX:
        raise UsageError(f"--keep {keep}: {KEEP_MIN} to {KEEP_MAX}; with a single one the next copy could not begin from it.")
    if not PREFIX.fullmatch(name):
        raise UsageError(f'--name: "{name[:80]}" must be 1 to 16 letters, digits and underscores: a number follows.')
    if copies is not None and (every is None or copies < 1):
        raise UsageError("--copies says after how many copies --every ends: give both, and at least 1.")

    def tell(sentence: str) -> None:
        if not quiet:
            print(f"farwrite copy: {sentence}", file=sys.stderr, flush=True)

    copier = Copier(
        end_of(source, from_sockets, "the source"), end_of(destination, to_sockets, "the destination"),
        Asked(prefix=name, rate_bits_per_s=bits, keep=keep, overwrites=overwrite, verifies=verify), tell,
    )  # fmt: skip

    def show(copied: Copied) -> None:
        import msgspec

        from ..experiment.copy.copier import document_of, sentence_of

        with printing():
            print(msgspec.json.encode(document_of(copied)).decode() if json else sentence_of(copied), flush=True)

    try:
        repeat(copier, every_s, copies or (1 if every_s is None else None), show, tell)
    except KeyboardInterrupt:
        if not copier.is_under_way:
            tell("ended between two copies; the snapshots stay.")
            return EXIT_DONE
        tell("interrupted in the middle of a copy: the same command goes on from there.")
        return exit_code()
    return EXIT_DONE


def repeat(
    copier: Copier, every_s: float | None, copies: int | None, show: Callable[[Copied], None], tell: Callable[[str], None]
) -> None:
    """Copy after copy, each when it is due, or at once where the one before took longer than the period: that is said."""
    from ..base.units import format_time

    due_s, count = time.monotonic(), 0
    while True:
        began_s = time.monotonic()
        show(copier.copy())
        count += 1
        if count == copies:
            return
        assert every_s is not None
        took_s, due_s = time.monotonic() - began_s, due_s + every_s
        if time.monotonic() > due_s:
            tell(
                f"a copy took {format_time(took_s * 1e9)} and is due every {format_time(every_s * 1e9)}: the schedule cannot "
                "keep up, and the recovery point is as old as two copies take. Give a longer --every, or a higher --rate."
            )
            due_s = time.monotonic()
        time.sleep(max(due_s - time.monotonic(), 0))


def end_of(uri: str, sockets: Path | None, what: str) -> End:
    """One end. UsageError where it is not clear where it answers for its snapshots."""
    from ..engine.frontend.nbd_client import place_of
    from ..experiment.copy.copier import End

    place = place_of(uri, what)
    if "@" in place.export or place.export == "volume-ro":
        raise UsageError(f"{what} {uri}: name the volume itself; its snapshots are the copy's affair.")
    if sockets is None and not isinstance(place.address, str):
        option = "--from-sockets" if what == "the source" else "--to-sockets"
        raise UsageError(
            f"{what} {uri}: a copy also takes snapshots, by way of control.sock: name the volume's directory of sockets with "
            f"{option} (ssh -L brings both sockets of another machine here)."
        )
    assert sockets is not None or isinstance(place.address, str)
    return End(place, sockets if sockets is not None else Path(str(place.address)).parent)
