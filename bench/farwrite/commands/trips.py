"""`farwrite trips`: how many round trips a write of a size waits for, at our doors or at somebody's target."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..base.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError
from .flags import Flag, Quiet, Verbose
from .link_options import NOTHING_ASKED, LinkOptions
from .output import console, print_document, printing, refuse_both

MILES = "150"
SIZES = "4k,8k,64k,256k,512k,1m"
SIZE_MAX, SIZES_MAX, BLOCK = 8 << 20, 32, 512
WRITES_MIN, WRITES_MAX = 6, 1000  # Six support an interval of a median.


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
def trips(
    *,
    asked: LinkOptions = NOTHING_ASKED,
    link: Literal["auto", "netem", "ferry"] = "auto",
    size: str = SIZES,
    writes: int = 15,
    door: Literal["nbd", "iscsi", "both"] = "both",
    far: str | None = None,
    uri: str | None = None,
    fua: Flag = False,
    accept_link_error: Flag = False,
    json: Flag = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Write blocks of several sizes over a distance, and tell how many round trips each size waits for.

    QEMU's qemu-io writes at the near site, one write at a time, to a target at the far one: our own NBD and iSCSI doors, or
    what --far and --uri name, whose disk is overwritten from its beginning. Round trips are the median at the distance less
    that at 0 miles, over what the link adds. Beside it stands what the protocol foretells, and which key of iSCSI costs more
    than one. The distance is 150 miles unless told.

    Parameters
    ----------
    link
        How the distance is emulated.
    size
        What is written at once, such as 4k,64k,1m.
    writes
        How many of each size count, at each distance.
    door
        Which of our own doors.
    far
        What serves somebody else's target at the far site, a line for the shell; it finds its address in $FAR.
    uri
        That target, in single quotes: 'nbd://$FAR:10809/disk' or 'iscsi://$FAR:3260/iqn.2026-11.org.example:disk/0'.
    fua
        Have each write durable before it is answered. A target that cannot do that is sent a flush after it, a trip more.
    accept_link_error
        Go on although the link does not deliver what was asked; otherwise that ends with exit code 6.
    json
        Print what was observed, and what it comes to, as a document.
    verbose
        Say on stderr what is being done, line by line.
    quiet
        Say nothing of our own on stderr but refusals.
    """
    refuse_both(verbose, quiet)
    check(far, uri, door, writes)
    sizes = sizes_of(size)
    if asked.miles is None and asked.km is None and asked.rtt is None:
        asked = replace(asked, miles=MILES)
    layout = asked.layout(far)
    if not layout.legs[0].asked.rtt_ns:
        raise UsageError("Round trips are computed from 0 miles and a distance: give one above 0.")

    from ..progress import bar

    with bar(verbose, quiet) as progress:
        from ..experiment.compilation import compile_doors

        compile_doors(progress)
        from ..experiment.repeat import StoppedError
        from ..experiment.trips import Asked, measure_trips

        wanted = Asked(
            layout=layout, link=link, route_factor=asked.route,
            doors=() if uri else ("nbd", "iscsi") if door == "both" else (door,), uri=uri or "", command=far or "", sizes=sizes,
            writes=writes, fua=fua, accepts_error=accept_link_error,
        )  # fmt: skip
        try:
            made = measure_trips(wanted, progress)
        except StoppedError as stopped:
            return int(stopped.args[0]) if stopped.args else EXIT_INTERRUPTED
    from ..analysis.trips import analyse_trips

    result = analyse_trips(made)
    with printing():
        if json:
            print_document({"recording": made, "result": result})
        else:
            from ..report.trips import show_trips

            show_trips(made, result, console())
    return EXIT_DONE


def check(far: str | None, uri: str | None, door: str, writes: int) -> None:
    """UsageError for words that contradict each other, and a number that is too small or too large."""
    if (far is None) != (uri is None):
        raise UsageError("--far serves somebody else's target and --uri names it: give both, or neither for our own doors.")
    if far is not None and door != "both":
        raise UsageError("--door is about our own doors: it does not go with --far.")
    if not WRITES_MIN <= writes <= WRITES_MAX:
        raise UsageError(f"--writes {writes}: {WRITES_MIN} to {WRITES_MAX:,} of each size.")


def sizes_of(text: str) -> tuple[int, ...]:
    """Sizes in bytes, in their order, each once. UsageError for what is none, or is not made of blocks."""
    from .options import bytes_of

    words = [word.strip() for word in text.split(",")]
    found = [bytes_of(word, "--size") for word in words]
    for word, size in zip(words, found, strict=True):
        if not BLOCK <= size <= SIZE_MAX or size % BLOCK:
            raise UsageError(f"--size {word}: a multiple of {BLOCK} bytes, at most {SIZE_MAX >> 20} MiB.")
    if len(found) > SIZES_MAX:
        raise UsageError(f"--size: {len(found)} sizes, of {SIZES_MAX} at most.")
    return tuple(dict.fromkeys(found))
