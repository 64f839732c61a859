"""`farwrite trace info` and `farwrite trace convert`: look at recorded I/O, and make it fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ..base.errors import EXIT_DONE, UsageError
from .examples import below
from .flags import Flag
from .output import console, print_document, printing
from .values import a_trace

trace = App(name="trace", help="Look at recorded I/O, and make it fit.", help_epilogue=below("trace"))


@trace.command(help_epilogue=below("trace info"))
def info(
    file: Annotated[str, a_trace],
    *,
    disk: str | None = None,
    volume: str | None = None,
    format: str | None = None,
    repair: Flag = False,
    json: Flag = False,
) -> int:
    """Say what kind of load a trace is.

    Parameters
    ----------
    file
        A trace of VMware vSCSI, MSR Cambridge, SPC, fio, blkparse or our CSV, plain, gzip or zstd; or the name of a shipped one.
    disk
        Of a trace of several disks, look at this one only: its name, or its number.
    volume
        Refuse records that lie beyond a volume of this size, such as "1 TiB".
    format
        What the trace is, where its content does not say it: alibaba or tencent; or csv, vscsi, iolog, msr, spc, blkparse.
    repair
        Drop or sort records that are wrong, and count them, instead of refusing the trace.
    json
        Print the summary as a document.
    """
    from ..report.trace import show
    from ..workload.trace.summary import summarise
    from ..workload.trace.trace import find

    summary = summarise(find(file), taking_of(repair, disk, volume, format))
    with printing():
        if json:
            print_document(summary)
        else:
            show(summary, console())
    return EXIT_DONE


@trace.command(help_epilogue=below("trace convert"))
def convert(
    file: Annotated[str, a_trace],
    out: Path,
    *,
    begin: Annotated[str | None, Parameter(name="--from")] = None,
    end: Annotated[str | None, Parameter(name="--to")] = None,
    scale: float = 1.0,
    fold: str | None = None,
    disk: str | None = None,
    volume: str | None = None,
    format: str | None = None,
    repair: Flag = False,
    fio_file: str = "farwrite.img",
) -> int:
    """Write a trace anew: a stretch of it, faster or slower, in a smaller volume, for farwrite or for fio.

    Parameters
    ----------
    file
        The trace, or the name of a shipped one.
    out
        What to write: .csv, .csv.gz or .csv.zst for farwrite, .iolog for fio (--read_iolog, version 3).
    begin
        Begin here, counted from the first record: seconds, or with a unit such as "5 min".
    end
        End before this instant, counted likewise.
    scale
        Stretch time: 0.5 is twice as fast.
    fold
        Fold addresses into a volume of this size, such as "1 GiB".
    disk
        Of a trace of several disks, take this one only; otherwise all are laid side by side.
    volume
        Refuse records that lie beyond a volume of this size.
    format
        What the trace is, where its content does not say it: alibaba or tencent; or csv, vscsi, iolog, msr, spc, blkparse.
    repair
        Drop or sort records that are wrong, and count them, instead of refusing the trace.
    fio_file
        The file that fio shall write to, for .iolog.
    """
    from ..base.units import format_time
    from ..workload.trace.convert import Change
    from ..workload.trace.convert import convert as converted
    from ..workload.trace.reader import reads_text
    from ..workload.trace.trace import find

    change = Change(
        begin_ns=instant("--from", begin) or 0, end_ns=instant("--to", end), time_scale=scale_of(scale),
        fold_bytes=size_of("--fold", fold), file_name=file_name(fio_file),
    )  # fmt: skip
    if change.end_ns is not None and change.end_ns <= change.begin_ns:
        raise UsageError("--to: it must come after --from.")
    path = find(file)
    if out.exists() and path.resolve() == out.resolve():
        raise UsageError(f"{out} is the trace itself. Name another file to write.")
    made = converted(path, out, change, taking_of(repair, disk, volume, format))
    lines = [f"{made.records} record{'' if made.records == 1 else 's'} over {format_time(made.duration_ns)}"]
    lines.append(reads_text(made.read_share))
    if len(made.disks) > 1 and disk is None:
        lines.append(f"{len(made.disks)} disks side by side: {', '.join(made.disks)}")
    if made.folded:
        lines.append(f"{made.folded} folded into {fold}: more overwrites than were recorded")
    lines += [f"{count} {what}" for what, count in made.repaired.items()]
    lines += [f"{count} {what} left out" for what, count in made.left_out.items()]
    print(f"saved: {out}\n  " + "\n  ".join(lines), file=sys.stderr)
    return EXIT_DONE


def taking_of(repair: bool, disk: str | None, volume: str | None, form: str | None):
    """How the words say that the trace is to be taken."""
    from ..workload.trace.source import Taking

    return Taking(repair=repair, disk=disk, volume_bytes=size_of("--volume", volume), format=form or "")


def instant(option: str, text: str | None) -> int | None:
    """Nanoseconds; a bare number is seconds."""
    from ..base.units import time_ns

    if text is None:
        return None
    bare = text.strip().replace(".", "", 1).isdigit()
    value = time_ns(f"{text} s" if bare else text, option)
    if not 0 <= value < 1 << 62:
        raise UsageError(f'{option}: "{text}" is not an instant of a trace.')
    return value


def size_of(option: str, text: str | None) -> int | None:
    """Bytes, a sector at least."""
    from ..base.units import size_bytes

    if text is None:
        return None
    value = size_bytes(text, option)
    if not 512 <= value <= 1 << 60:
        raise UsageError(f'{option}: "{text}" is no size of a volume: 512 B to 1 EiB.')
    return value


def scale_of(scale: float) -> float:
    if not 1e-6 <= scale <= 1e6:
        raise UsageError(f"--scale: {scale:g} is not between 1e-06 and 1e+06.")
    return scale


def file_name(text: str) -> str:
    """A file as an I/O log can name it: fio splits lines at spaces."""
    if not text or any(character.isspace() for character in text) or len(text.encode()) > 255:
        raise UsageError(f'--fio-file: "{text}" has a space or is too long; fio could not read it.')
    return text
