"""What studies serve: a command of farwrite that says as JSON what it serves once it is ready, and ends in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FARWRITE = [sys.executable, "-m", "farwrite"]


@contextmanager
def serving(*words: str) -> Iterator[dict[str, Any]]:
    """What `farwrite WORDS` says of itself, as long as this block. SystemExit where it ends before."""
    with subprocess.Popen([*FARWRITE, *words, "--json", "-q"], stdout=subprocess.PIPE, text=True) as process:
        try:
            text = ""
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"farwrite {' '.join(words)} has ended.")
                text += line
            yield json.loads(text)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
