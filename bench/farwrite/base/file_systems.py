"""File systems that are memory: a write that was flushed there is gone when the power is."""

from __future__ import annotations

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs")


def memory_text(file_system: str) -> str:
    """ "tmpfs is memory"; empty for a file system that is none of these."""
    return f"{file_system} is memory" if file_system in MEMORY_FILE_SYSTEMS else ""
