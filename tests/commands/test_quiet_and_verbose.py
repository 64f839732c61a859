"""-q and -v: every command that measures has them, they contradict each other, and quiet means quiet."""

from __future__ import annotations

import re

import pytest

from console import farwrite

MEASURE = ("run", "reach", "sweep", "ab", "survey", "simulate", "lab", "drill", "serve", "trips")


@pytest.mark.parametrize("command", MEASURE)
def test_every_command_that_measures_has_both_words(command):
    shown = farwrite(command, "--help").stdout
    assert re.search(r"--verbose\b.*-v\b|-v\b.*--verbose\b", shown) and re.search(r"--quiet\b.*-q\b|-q\b.*--quiet\b", shown)


@pytest.mark.parametrize("words", [
    "run quick", "reach --p99 4ms", "sweep", "ab quick quick", "survey", "simulate", "drill link-cut",
    "lab --miles 1 --measure -- true",
])  # fmt: skip
def test_both_at_once_are_refused(words):
    first, *rest = words.split()
    done = farwrite(first, "-q", "-v", *rest)
    assert (done.returncode, done.stdout) == (2, "") and "contradict each other" in done.stderr


def test_quiet_says_nothing_on_stderr():
    done = farwrite("simulate", "--seeds", "1", "-q")
    assert (done.returncode, done.stderr) == (0, "") and "no promise broken" in done.stdout
    told = farwrite("simulate", "--seed", "3", "-v")
    assert told.returncode == 0 and len(told.stdout.splitlines()) > 3
