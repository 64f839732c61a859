"""Running the command as a person does: a process of its own, its words in, its two streams and its exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Half a second of load in all, on one distance; steal and a missed link must not decide a test of the command line.
SHORT = [
    "--set", "run.rounds=2", "--set", "run.round=100ms", "--set", "drill.kills=0", "--set", "distance.miles=[20]",
    "--set", "run.retries=20", "--set", "run.steal_max=1.0",
]  # fmt: skip


def environment(**other: str) -> dict[str, str]:
    """Ours, 80 columns wide and without what would colour the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    return {**kept, "COLUMNS": "80", "TERM": "xterm-256color", **other}


def words_of(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "farwrite", *map(str, words)]


def farwrite(*words: str | Path, cwd: Path | None = None, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess:
    """The finished command; `stdout` and `stderr` are text."""
    return subprocess.run(
        words_of(*words), cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout_s, check=False
    )  # fmt: skip


def journal_rounds(directory: Path) -> list[dict]:
    """The rounds that the run's journal holds so far."""
    try:
        lines = (directory / "cells.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # Being written just now.
    return [entry["round"] for entry in entries if entry.get("round")]
