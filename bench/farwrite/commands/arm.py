"""`farwrite arm`: measure one arm of an experiment, as its worker. Hidden: `farwrite ab` starts it."""

from __future__ import annotations

from ..errors import EXIT_DONE


def arm() -> int:
    """Measure one arm of an experiment (started by farwrite ab)."""
    from ..arms.serve import serve

    serve()
    return EXIT_DONE
