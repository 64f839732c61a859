"""Documents on disk: JSON that is stored compressed where it is large, and read in either form.

A document of more than PLAIN_BYTES_MAX is stored as gzip under its name with ".gz" appended: a run has a `report.json` or a
`report.json.gz`, and the first name means whichever of the two exists. How a file is read depends on its first bytes, not on its
name. It may be hostile: it is unpacked up to UNPACKED_BYTES_MAX, whatever it claims.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from .errors import UsageError
from .files import descriptor_of, ordinary, write_atomically
from .user_file import read_file, too_large

SUFFIX = ".gz"
MAGIC = b"\x1f\x8b"  # RFC 1952 section 2.3.1.
GZIP = 16 + zlib.MAX_WBITS  # zlib's word for "with gzip's header and CRC-32".
LEVEL = 9  # A report of 1.3 MB: 57 ms and 1.5 % smaller than level 6, of which every copy of a repository profits.
PLAIN_BYTES_MAX = 256 << 10
UNPACKED_BYTES_MAX = 256 << 20  # The largest report that was ever made has 5 MB.


def found_at(path: Path) -> Path:
    """The file that a document's name means: itself, or its compressed form where only that is there."""
    packed = path.with_name(path.name + SUFFIX) if path.name else path
    return packed if not os.path.lexists(path) and packed.is_file() else path


def found_in(directory: Path, names: tuple[str, ...]) -> list[Path]:
    """The files that hold documents of these names in a directory, in the order of the names."""
    return [place for name in names if (place := found_at(directory / name)).is_file()]


def named_below(directory: Path) -> dict[str, Path]:
    """All JSON documents in a directory by name, without their suffixes, in the names' order."""
    files = [path for end in ("", SUFFIX) for path in directory.glob(f"*.json{end}")]
    paths = sorted({path.with_name(path.name.removesuffix(SUFFIX)) for path in files})
    return {path.stem: found_at(path) for path in paths}


def read_document(path: Path, doing: str) -> bytes:
    """The bytes of a document that a user named, unpacked. UsageError for what cannot be read."""
    path = found_at(path)
    data = read_file(path, doing)
    return unpacked(data, f"{doing} {path}") if data.startswith(MAGIC) else data


def unpacked(data: bytes, attempt: str) -> bytes:
    """What gzip compressed, one member of it: UsageError when it is cut off, damaged, followed by anything, or too large."""
    unpacking = zlib.decompressobj(GZIP)
    try:
        plain = unpacking.decompress(data, UNPACKED_BYTES_MAX + 1)
    except zlib.error as refusal:
        raise damaged(attempt, f"is damaged ({refusal})") from refusal
    if len(plain) > UNPACKED_BYTES_MAX:
        raise too_large(attempt, UNPACKED_BYTES_MAX, "unpacked, ")
    if not unpacking.eof:
        raise damaged(attempt, "ends early")
    if unpacking.unused_data:
        raise damaged(attempt, f"is followed by {len(unpacking.unused_data)} bytes of something else")
    return plain


def damaged(attempt: str, what: str) -> UsageError:
    return UsageError(f"{attempt}: its gzip data {what}. Copy the file again from where it was made.")


def save_document(path: Path, data: bytes) -> Path:
    """Write a document atomically, compressed if it is large; answers the file that holds it. Its other form is removed.

    The plain name counts where both exist, so a save that is interrupted between its two steps leaves either document whole.
    """
    if path.is_dir() or descriptor_of(path) is not None:  # The one is refused, the other written into.
        write_atomically(path, data)
        return path
    ordinary(path)  # Otherwise what lies there is not ours to remove.
    packed = path.with_name(path.name + SUFFIX)
    if not PLAIN_BYTES_MAX < len(data) <= UNPACKED_BYTES_MAX:
        write_atomically(path, data)
        packed.unlink(missing_ok=True)
        return path
    packing = zlib.compressobj(LEVEL, wbits=GZIP)  # Without a name or a time in it: the same document has the same bytes.
    write_atomically(packed, packing.compress(data) + packing.flush())
    path.unlink(missing_ok=True)
    return packed
