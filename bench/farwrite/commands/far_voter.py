"""`farwrite far-voter`: a voter of a volume that another machine serves. Hidden: `farwrite serve --far ssh://HOST` starts it."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import EXIT_DONE


def far_voter(*, end: Path | None = None, sockets: str = "") -> int:
    """Be the far replica or the witness of a volume that another machine serves (started by farwrite serve --far).

    Parameters
    ----------
    end
        End the one whose files are in this directory, in order.
    sockets
        Directory of its sockets, where it is not the one in that directory.
    """
    from ..experiment.serve import far_voter as there

    if end is not None:
        there.end(end, sockets)
    else:
        there.pass_on()
    return EXIT_DONE
