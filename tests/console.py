"""Running the command as a person does: a process of its own, its words in, its two streams and its exit code out.

`farwrite` is a fork of a process that has loaded its modules already (warm_farwrite.py), `fresh_farwrite` a new interpreter.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from farwrite.base.documents import read_document

ROOT = Path(__file__).parents[1]

# On one distance, so far that 3 % of it are 0.2 ms: hardly a processor is busy enough to be that late at the median.
ONE_FAR = [
    "--set", "distance.miles=[400]", "--set", "run.survey_echoes=10", "--set", "run.retries=20", "--set", "run.steal_max=1.0",
]  # fmt: skip
# Half a second of load in all; steal and a missed link must not decide a test of the command line.
SHORT = [*ONE_FAR, "--set", "run.rounds=2", "--set", "run.round=100ms", "--set", "drill.kills=0"]


def document_text(path: Path) -> str:
    """The text of a document, compressed or not."""
    return read_document(path, "read").decode()


def document_of(path: Path) -> Any:
    """What is in a document, compressed or not."""
    return json.loads(document_text(path))


def environment(**other: str) -> dict[str, str]:
    """Ours, 80 columns wide and without what would colour the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    return {**kept, "COLUMNS": "80", "TERM": "xterm-256color", **other}


def words_of(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "farwrite", *map(str, words)]


def fresh_farwrite(
    *words: str | Path, cwd: Path | None = None, timeout_s: float = 300, **env: str
) -> subprocess.CompletedProcess:
    """The finished command, in an interpreter of its own; `stdout` and `stderr` are text."""
    return subprocess.run(
        words_of(*words), cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout_s, check=False
    )  # fmt: skip


@functools.cache
def warm() -> tuple[socket.socket, subprocess.Popen]:
    """The way to the warm process, which ends when we do."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "warm_farwrite.py"), str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    assert ours.recv(64) == b"ready"
    return ours, process


def warm_pid() -> int | None:
    """The warm process, where there is one."""
    return warm()[1].pid if warm.cache_info().currsize else None


def farwrite(*words: str | Path, cwd: Path | None = None, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess:
    """The finished command, whose modules were loaded before; `stdout` and `stderr` are text."""
    way, _ = warm()
    asked = {"words": [str(word) for word in words], "cwd": str(cwd or Path.cwd()), "environment": environment(**env)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error, open(os.devnull, "rb") as nothing:  # noqa: PTH123
        socket.send_fds(way, [json.dumps(asked).encode()], [stream.fileno() for stream in (nothing, out, error)])
        pid = int(way.recv(64))
        way.settimeout(timeout_s)
        try:
            code = int(way.recv(64))
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            way.settimeout(None)
            way.recv(64)
            raise
        way.settimeout(None)
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(asked["words"], code, out.read().decode(), error.read().decode())


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


def assert_refused(done: Any, *said: str, code: int = 2) -> None:
    """Exit code, nothing on stdout, one clear sentence on stderr, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("farwrite: ")]
    assert len(sentences) == 1, done.stderr
    assert sentences[0].endswith((".", ")", "?")), sentences[0]
    for words in said:
        assert re.search(words, sentences[0]), sentences[0]
