"""`farwrite arm`: measure one arm of an experiment, as its worker. Hidden: `farwrite ab` starts it."""

from __future__ import annotations

from ..base.errors import EXIT_DONE


def arm() -> int:
    """Measure one arm of an experiment (started by farwrite ab)."""
    from ..experiment.ab.serve import serve

    serve()
    return EXIT_DONE
