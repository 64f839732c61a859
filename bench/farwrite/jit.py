"""How farwrite compiles: one decorator, one cache, chosen here once.

Numba's own cache looks only at the file of the function it caches: edit a kernel in another file and its cached caller
runs stale machine code. So the cache directory carries a digest of every kernel source, and an edit anywhere starts a
new one. `kernel` must be imported before any kernel is defined, which every kernel file does in its first lines.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def source_digest() -> str:
    """Twelve hex digits over the text of everything that Numba compiles."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted([*PACKAGE.rglob("*_kernel.py"), *PACKAGE.glob("host/*.py"), PACKAGE / "jit.py"]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_directory() -> Path:
    """Where compiled kernels of exactly these sources live; a private temporary place when home is read-only."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = base / "farwrite" / source_digest()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        if os.access(chosen, os.W_OK):
            return chosen
    except OSError:
        pass
    chosen = Path(tempfile.gettempdir()) / f"farwrite-{os.getuid()}" / source_digest()
    chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
    return chosen


os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_directory()))

import numba  # noqa: E402  (the cache directory is read when numba is imported)

setattr(numba.config, "CACHE_DIR", os.environ["NUMBA_CACHE_DIR"])  # noqa: B010  (in case numba was imported before us)


def kernel(signature: Any = None, **options: Any) -> Callable[[Callable], Any]:
    """Compile to machine code that holds no GIL and is cached on disk.

    `error_model="numpy"` leaves out Python's division checks; fastmath stays off, because a latency must not depend on
    how the compiler reassociates. With a signature the types are fixed at the door; without one, on first call.
    """
    chosen = {"cache": True, "nogil": True, "error_model": "numpy", **options}
    if signature is None:
        return numba.njit(**chosen)
    return numba.njit(signature, **chosen)


def inline_kernel(function: Callable) -> Any:
    """A kernel small enough that its callers should carry it in themselves (LLVM decides; no signature needed)."""
    return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
