"""`farwrite serve-cells`: measure cells that are asked for on stdin. Hidden: a Dask worker of `farwrite sweep` starts it."""

from __future__ import annotations

import os
import sys

from ..base.errors import EXIT_DONE


def serve_cells() -> int:
    """Measure cells that are asked for on stdin (started by a Dask worker of farwrite sweep)."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Nothing but answers goes to who asked.
    from ..experiment.map_cells import serve

    serve(sys.stdin.buffer, answers)
    return EXIT_DONE
