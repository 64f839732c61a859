"""`farwrite doctor`: what this machine can emulate, how well, and what mends it."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import EXIT_DONE, EXIT_UNFIT
from .flags import Flag, Quiet
from .output import console, print_document, printing


def doctor(
    *,
    out: Path = Path("results"),
    json: Flag = False,
    quiet: Quiet = False,
) -> int:
    """Say what this machine can emulate and how well, each with the command that mends it. Exit code 6 if nothing can run.

    Parameters
    ----------
    out
        The directory in which results would lie: its disk is looked at.
    json
        Print the diagnosis as a document.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..lab.doctor.diagnosis import diagnose
    from ..progress import bar

    with bar(quiet=quiet) as progress:
        made = diagnose(out, progress)
    if json:
        with printing():
            print_document(made)
    else:
        from ..report.doctor import show_diagnosis

        with printing():
            show_diagnosis(made, console())
    return EXIT_DONE if made.fit else EXIT_UNFIT
