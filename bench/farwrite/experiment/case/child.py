"""Commands of farwrite that a case starts beside itself. None outlives it, and Ctrl-C is the case's alone to answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...base.errors import UnfitError

ENDS_S = 40.0
SAID_BYTES_MAX = 2000
BEGINNING = (
    "import sys; from farwrite.base.host.parent_death import die_with; die_with(int(sys.argv.pop(1))); "
    "from farwrite.cli import main; main()"
)


def words_of(*words: str) -> list[str]:
    """What starts `farwrite WORDS`."""
    return [sys.executable, "-c", BEGINNING, str(os.getpid()), *words]


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """(process, file of its stderr) of a command, as long as this block; then it is asked to end, and waited for."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            words_of(*words), stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True,
        ) as process,
    ):
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                process.kill()


def last_words(said: Any) -> str:
    """The end of what a command has said."""
    said.seek(0)
    return str(said.read())[-SAID_BYTES_MAX:].strip() or "it said nothing"


@contextmanager
def serving(*words: str) -> Iterator[dict[str, Any]]:
    """What a command that serves says of itself once it is ready, as long as this block. UnfitError where it ends before."""
    with started(*words, "--json", "--quiet") as (process, said):
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            if not line:
                process.wait()
                raise UnfitError(f"farwrite {words[0]} has ended with {process.returncode}: {last_words(said)}")
            text += line
        yield json.loads(text)
