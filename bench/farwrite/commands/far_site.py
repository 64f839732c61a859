"""`farwrite far-site`: be the far site of a run on another machine. Hidden: `farwrite run --far ssh://HOST` starts it."""

from __future__ import annotations

from ..base.errors import EXIT_DONE


def far_site() -> int:
    """Be the far site of a run on another machine (started by farwrite run --far)."""
    from ..experiment.remote.serve import serve

    serve()
    return EXIT_DONE
