"""Ctrl-C and SIGTERM end a measurement even where the exception that they raise is lost."""

import signal
import subprocess
import sys
import types

import pytest

from farwrite.base import interruption
from farwrite.experiment import measure

LOST = """
import os, signal
from farwrite.base.interruption import exit_code, go_on, heed_signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(1000):
            pass

heed_signals()
go_on()
one = Finalized()
del one
print("it was lost")
try:
    go_on()
except KeyboardInterrupt:
    print("and is raised again", exit_code())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_a_finalizer_has_lost_is_raised_where_work_would_go_on(number, code):
    done = subprocess.run([sys.executable, "-c", LOST.format(number=int(number))], capture_output=True, text=True, check=False)
    assert "Exception ignored" in done.stderr
    assert done.stdout.splitlines() == ["it was lost", f"and is raised again {code}"]


def test_no_round_begins_after_one(monkeypatch):
    monkeypatch.setattr(interruption, "CAME", [signal.SIGINT])
    monkeypatch.setattr(measure, "measure_floors", lambda *_: None)
    cell = types.SimpleNamespace(id="w-C-1", name="w", protocol="C", miles=1.0)
    profile = types.SimpleNamespace(run=types.SimpleNamespace(retries=0))
    run = types.SimpleNamespace(seed=1, rounds=[], profile=profile, progress=types.SimpleNamespace(doing=lambda _: None))
    with pytest.raises(KeyboardInterrupt):
        measure.measure_round(run, None, [cell], 0, "round 1/1")


def test_a_shells_background_job_goes_on_ignoring_ctrl_c():
    words = "import signal; from farwrite.base.interruption import heed_signals; heed_signals(); "
    words += "print(int(signal.getsignal(signal.SIGINT)))"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stdout.strip() == str(int(signal.SIG_IGN))
