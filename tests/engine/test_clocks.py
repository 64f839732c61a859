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


# When a snapshot was taken, and what its name says of that, is for people; a command whose answer was lost looks for its own by
# it. No replica decides by it.
FOR_PEOPLE = re.compile(
    r"time\.time_ns\(\), f\"take snapshot|CLOCK_REALTIME( of the primary|, or the sequence of the snapshot)"
    r"|begin_ns = time\.time_ns\(\)|begin_s, since_s, count = time\.time\(\)"
)


@pytest.mark.parametrize("part", REPLICATES)
def test_nothing_that_replicates_reads_the_wall_clock(part):
    assert files(part)
    found = [(str(one), FOR_PEOPLE.sub("", one.read_text())) for one in files(part)]
    assert [(name, seen[0]) for name, text in found if (seen := WALL.search(text))] == []


def test_a_look_at_the_wall_clock_would_be_found():
    for text in ("time.time()", "datetime.now(UTC)", "x = CLOCK_REALTIME", "from time import time", "date.today()"):
        assert WALL.search(text), text
    assert not WALL.search("time.monotonic_ns() + time.sleep(1)")
