"""How long comparing two reports takes, beside what a Python that only loads the same libraries takes in the same minute."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from console import environment, words_of
from farwrite.analysis.analyse import analyse
from farwrite.recording import SCHEMA_VERSION, Report, save
from make_recording import LARGE, make_recording

TIMES = 7
LIBRARIES = [sys.executable, "-c", "import cyclopts, rich.console, msgspec"]


def run(words):
    subprocess.run(words, env=environment(), stdout=subprocess.DEVNULL, check=True)


def best_s(words):
    """The least wall time of a few processes: what a busy machine cannot make smaller."""
    taken = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        run(words)
        taken.append(time.perf_counter() - begin)
    return min(taken)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Two reports of 29 cells and 750 figures each."""
    directory = tmp_path_factory.mktemp("reports")
    for name, truth in (("base", {}), ("cand", {"seed": 2, "k": 1.1})):
        recording = make_recording(LARGE, **truth)
        (directory / name).mkdir()
        report = Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analyse(recording))
        save(report, directory / name / "report.json")
    return directory / "base", directory / "cand"


@pytest.mark.parametrize("options", [(), ("--brief",), ("--json",)])
def test_comparing_takes_little_longer_than_loading_what_it_needs(benchmark, said, request, reports, options):
    before_s = best_s(LIBRARIES)
    benchmark.pedantic(run, args=(words_of("compare", *reports, *options),), rounds=TIMES)
    took_s, libraries_s = benchmark.stats.stats.min, min(before_s, best_s(LIBRARIES))
    said[request.node.name] = {"compare_ms": took_s * 1e3, "libraries_ms": libraries_s * 1e3, "times": took_s / libraries_s}
    assert took_s < 4 * libraries_s
