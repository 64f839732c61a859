"""Where the profiles and traces we ship lie: inside the package once installed, in a checkout beside it."""

from __future__ import annotations

from pathlib import Path

from .errors import UsageError


def workloads_directory() -> Path:
    """The folder `workloads`, with the shipped profiles and below it `traces`."""
    package = Path(__file__).resolve().parent
    for place in (package / "workloads", package.parents[1] / "workloads"):
        if place.is_dir():
            return place
    raise UsageError(f"The shipped workloads are missing in {package}. Install farwrite again, or name a file by path.")
