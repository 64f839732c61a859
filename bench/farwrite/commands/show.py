"""`farwrite show`, `profiles` and `schema`: print what is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import EXIT_DONE
from .output import present, printing


def show(report: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print a report again, from its file alone.

    Parameters
    ----------
    report
        A report.json, or the directory of a run.
    json
        Print the report document instead of the report.
    """
    from ..recording import read

    present(read(report), json)
    return EXIT_DONE


def profiles() -> int:
    """List the profiles that come with farwrite."""
    from ..profile import load, shipped

    names = shipped()
    width = max((len(name) for name in names), default=0)
    with printing():
        for name in names:
            print(f"{name:<{width}}  {load(name).title}")
    return EXIT_DONE


def schema() -> int:
    """Print the JSON Schema of the report document."""
    import msgspec

    from ..recording import schema as document_schema

    with printing():
        print(msgspec.json.format(msgspec.json.encode(document_schema()), indent=2).decode())
    return EXIT_DONE
