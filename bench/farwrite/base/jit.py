"""How farwrite compiles: one decorator, one cache, chosen here once.

Numba's own cache knows a function by its file: edit a kernel in another file and its cached caller runs stale machine code;
check the same sources out elsewhere and all is compiled again. Ours knows it by a digest of every source that can be in it
(`compiled_sources`), wherever they lie: an edit of one starts a new cache, and a worktree, a wheel and a clone of one version
share theirs. What lies there is run, so it lies where only its user can write (`private_directory`). `kernel` must be imported
before any kernel is defined, which every kernel file does in its first lines.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .private_directory import private_directory

PACKAGE = Path(__file__).parents[1]


# What makes a file one that is compiled: it takes a decorator from here, or gives Numba something to inline.
MARKS = (b"jit import", b"numba.extending")
IMPORT = re.compile(rb"^[ \t]*from[ \t]+(\.+)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)", re.MULTILINE)
NAME = re.compile(rb"(?:^|[(,])\s*(\w+)")
REMARK = re.compile(rb"#[^\n]*")


def compiled_sources(package: Path = PACKAGE) -> list[Path]:
    """Every file whose text can be in machine code: those with kernels, and whatever they import of ours, however far away.

    Numba compiles a called kernel into its caller and takes a global that is a number for a constant. Both come from the kernel's
    own file or from one that it imports, so all that is imported belongs to it; more is harmless, less runs stale machine code.
    """
    found = {path for path in package.rglob("*.py") if any(mark in path.read_bytes() for mark in MARKS)}
    left = list(found)
    while left:
        for path in imported(left.pop()):
            if path not in found:
                found.add(path)
                left.append(path)
    return sorted({*found, package / "base" / "jit.py", package / "base" / "linking.py"})


def imported(path: Path) -> set[Path]:
    """The files of ours that a file imports: modules, and the modules that are named as a package's parts."""
    found = set()
    for dots, module, names in IMPORT.findall(REMARK.sub(b"", path.read_bytes())):
        place = path.parents[len(dots) - 1].joinpath(*module.decode().split(".")) if module else path.parents[len(dots) - 1]
        parts = [place / f"{name.decode()}.py" for name in NAME.findall(names)]
        found |= {one for one in (place.with_suffix(".py"), place / "__init__.py", *parts) if one.is_file()}
    return found


def source_digest(package: Path = PACKAGE) -> str:
    """Twelve hex digits over the text of everything that Numba compiles, and what it is compiled for."""
    digest = hashlib.blake2b(repr((sys.version_info[:2], version("numba"))).encode(), digest_size=6)
    for path in compiled_sources(package):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


DIGEST = source_digest()


def cache_places() -> Iterator[Path]:
    """Where compiled kernels of exactly these sources may live, the best first: where the user says, in his home, or beside it.

    A process that farwrite has started is told its parent's own place by NUMBA_CACHE_DIR.
    """
    named, cache = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    if named:
        place = Path(named).absolute()
        yield place if place.name == DIGEST else place / "farwrite" / DIGEST
    with contextlib.suppress(RuntimeError):  # Nobody's home is known.
        # A relative path there is to be ignored: XDG Base Directory Specification 0.8.
        yield (Path(cache) if cache and Path(cache).is_absolute() else Path.home() / ".cache") / "farwrite" / DIGEST
    yield Path(tempfile.gettempdir()) / f"farwrite-{os.geteuid()}" / DIGEST


os.environ["NUMBA_CACHE_DIR"] = str(private_directory(cache_places(), DIGEST, "compiled kernels"))

import numba  # noqa: E402  (the cache directory is read when numba is imported)
from numba.core import caching, typeinfer  # noqa: E402

setattr(numba.config, "CACHE_DIR", os.environ["NUMBA_CACHE_DIR"])  # noqa: B010  (in case numba was imported before us)


from .linking import Kernel  # noqa: E402


class SourceLocator(caching.UserProvidedCacheLocator):
    """Where a kernel of ours is cached, and when that is out of date. Numba's choices follow for everybody else's."""

    def __init__(self, function: Callable, path: str) -> None:
        super().__init__(function, path)
        self._cache_path = str(Path(os.environ["NUMBA_CACHE_DIR"]) / Path(path).relative_to(PACKAGE).parent)

    def get_source_stamp(self) -> str:
        return DIGEST

    @classmethod
    def from_function(cls, function: Callable, path: str) -> SourceLocator | None:
        return super().from_function(function, path) if Path(path).is_relative_to(PACKAGE) else None


caching.CompileResultCacheImpl._locator_classes = [SourceLocator, *caching.CompileResultCacheImpl._locator_classes]


def kernel(signature: Any = None, allocates: bool = False, **options: Any) -> Callable[[Callable], Any]:
    """Compile to machine code that holds no GIL and is cached on disk.

    `error_model="numpy"` leaves out Python's division checks; fastmath stays off, because a latency must not depend on
    how the compiler reassociates. With a signature the types are fixed at the door; without one, on first call.

    Arrays are borrowed from the caller and not counted: a kernel's state is a tuple of dozens, and counting every one at every
    call, atomically, was a quarter of a replica's processor time (C at 20 miles, 64 under way: 31 -> 22 us a write of both
    replicas; one at a time: 235 -> 150 us; busy 2-core VM, numba 0.68). So a kernel may not return an array, and one that makes
    one, or copies a slice into another array (Numba may need a temporary), says `allocates=True`; Numba refuses it otherwise.
    """
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return lambda function: function
    # Said in either case: a kernel that is compiled on behalf of another would take after it.
    chosen = {"nopython": True, "boundscheck": None, "nogil": True, "error_model": "numpy", "_nrt": allocates, **options}

    def compiled(function: Callable) -> Kernel:
        made = Kernel(function, chosen)
        made.enable_caching()
        if signature is not None:
            with typeinfer.register_dispatcher(made):
                made.compile(signature)
            made.disable_compile()
        return made

    return compiled


def inline_kernel(function: Callable) -> Any:
    """A kernel that its callers carry in themselves: small, or called in one place for every write."""
    return kernel(forceinline=True)(function)
