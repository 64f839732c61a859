"""A finding: one thing that matters to a measurement, how this machine does, and the command that mends it.

Plain values, written as they are by `farwrite doctor --json`; the report and the command line only read them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

State = Literal["ok", "poor", "missing"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a diagnosis."""

    name: str
    state: State
    sentence: str
    mend: str = ""  # a command, or what to do; empty where nothing need be done
    numbers: dict[str, Any] = {}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, and what follows."""

    farwrite: str
    links: list[str]  # emulations that can carry a distance here, the preferred one first
    findings: list[Finding]
    took_s: float

    @property
    def fit(self) -> bool:
        """Whether anything can be measured here: the relay asks nothing of the system, but results must lie somewhere."""
        return not any(finding.name == "flush" and finding.state == "missing" for finding in self.findings)
