"""Which clocks are read: a wall clock jumps whenever somebody sets it, so nothing that replicates looks at it."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bench" / "farwrite"
REPLICATES = ("engine", "base", "targets", "experiment/voters.py", "experiment/drill/desk.py", "experiment/drill/client.py",
              "experiment/serve")  # fmt: skip
WALL = re.compile(
    r"CLOCK_REALTIME|\btime\.(time|time_ns|localtime|gmtime|ctime|strftime)\b|\b(datetime|date)\.(now|utcnow|today)\b|clock_gettime\(0"
    r"|\bfrom time import|gettimeofday"
)


def files(part):
    path = PACKAGE / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("part", REPLICATES)
def test_nothing_that_replicates_reads_the_wall_clock(part):
    assert files(part)
    assert [(str(one), found[0]) for one in files(part) if (found := WALL.search(one.read_text()))] == []


def test_a_look_at_the_wall_clock_would_be_found():
    for text in ("time.time()", "datetime.now(UTC)", "x = CLOCK_REALTIME", "from time import time", "date.today()"):
        assert WALL.search(text), text
    assert not WALL.search("time.monotonic_ns() + time.sleep(1)")
