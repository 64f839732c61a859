"""TOML files that come with farwrite, in folders of workloads/, by their names; or a file of one's own by its path."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import UsageError, nearest
from ..base.files import workloads_directory
from ..base.user_file import TEXT_BYTES_MAX, read_text


def names_in(folder: str) -> list[str]:
    """The names of those in a folder."""
    return sorted(path.stem for path in (workloads_directory() / folder).glob("*.toml"))


def text_of(name: str, folder: str, what: str) -> tuple[str, str]:
    """(the text of one by its name or path, its path). UsageError where there is none."""
    path = Path(name)
    if not name.endswith(".toml"):
        if name not in names_in(folder):
            raise UsageError(f'There is no {what} "{name}"{nearest(name, names_in(folder))}.')
        path = workloads_directory() / folder / f"{name}.toml"
    return read_text(path, f"read the {what}", TEXT_BYTES_MAX), str(path)
