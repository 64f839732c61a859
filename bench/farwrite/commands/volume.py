"""`farwrite volume info`: what stands in a replica's files."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from ..base.errors import EXIT_DONE, EXIT_LOST_WRITE
from .examples import below
from .flags import Flag
from .output import print_document, printing

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
