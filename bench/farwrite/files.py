"""Files written whole: the old one or the new one, never a half, and nothing left behind by a failure."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there once it is durable. OSError as the system answers."""
    import tempfile  # 10 ms that only who writes should wait for.

    descriptor, name = tempfile.mkstemp(prefix=".farwrite-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
