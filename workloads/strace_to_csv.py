"""Turns what strace saw of a PostgreSQL server into a trace of writes and flushes on one volume.

    python strace_to_csv.py STRACE_OUTPUT CLUSTER_DIRECTORY BEGIN_S END_S OUTPUT.csv.gz

Used by record_pgbench.sh; kept because a trace without its making is only an assertion. README.md says what the columns
mean and how files became addresses. Standard library only.
"""

import gzip
import re
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import NamedTuple

REGION_BYTES = 1 << 20  # A file's region is its extent rounded up to this, so that regions begin aligned.
TIME_STEP_NS = 1000  # Being stopped by strace costs more than this; finer digits would be noise, and a larger file.

# Durable data. Logs, statistics, pid files and the like are no part of what a second site needs.
KEPT = ("pg_wal", "base", "global", "pg_xact", "pg_multixact", "pg_subtrans", "pg_commit_ts")
COMMENT = "# PostgreSQL 15 under pgbench TPC-B: writes and flushes of the server; see workloads/README.md."

LINE = re.compile(r"(\d+) +(\d+)\.(\d{9}) (.*)")
CALL = re.compile(r"(\w+)\((.*)")
DESCRIPTOR = re.compile(r"\d+<(.*?)>")
TWO_PATHS = re.compile(r'"(.*?)", "(.*?)"')
NUMBER = re.compile(r", (\d+)(?=[,)])")
RESULT = re.compile(r"\) += (-?\d+)")


class Event(NamedTuple):
    """One finished system call: when it was entered, what it was and what it answered."""

    time_ns: int
    call: str
    arguments: str
    result: int


def events(lines):
    """Every finished call, in the order of entry.

    strace splits a call that others overlap into two lines; the first carries the time, the second the result.
    """
    open_calls, finished = {}, []
    for line in lines:
        match = LINE.match(line)
        if match is None:
            continue
        pid, seconds, fraction, rest = match.groups()
        time_ns = int(seconds) * 10**9 + int(fraction)
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = (time_ns, rest.removesuffix("<unfinished ...>").rstrip())
            continue
        if rest.startswith("<... "):
            if pid not in open_calls:
                continue
            time_ns, beginning = open_calls.pop(pid)
            rest = beginning + rest.partition("resumed>")[2]
        call, result = CALL.match(rest), RESULT.search(rest)
        if call and result:
            finished.append(Event(time_ns, call[1], call[2], int(result[1])))
    return sorted(finished, key=lambda event: event.time_ns)  # Stable: equal times keep strace's order.


def extent(event):
    """(offset, size) of a write. write(2) names no offset, but pg_control is always written whole, from its start."""
    if event.call == "write":
        return 0, event.result
    numbers = NUMBER.findall(event.arguments)
    return int(numbers[-2 if event.call == "pwritev2" else -1]), event.result  # pwritev2 ends with its flags.


class Files:
    """Which file a path means just now: a WAL segment renamed for recycling stays the file, and the address, it was."""

    def __init__(self, cluster):
        self.cluster = cluster.rstrip("/") + "/"
        self.numbers = count()
        self.identity = {}

    def path_of(self, event):
        """The path inside the cluster, or None for a socket, a pipe, a log or a statistics file."""
        match = DESCRIPTOR.match(event.arguments)
        if match is None or not match[1].startswith(self.cluster):
            return None
        path = match[1].removeprefix(self.cluster)
        return path if path.split("/")[0] in KEPT else None

    def file_at(self, path):
        if path not in self.identity:
            self.identity[path] = next(self.numbers)
        return self.identity[path]

    def rename(self, event):
        old, new = (path.removeprefix(self.cluster) for path in TWO_PATHS.match(event.arguments).groups())
        if event.result == 0:
            self.identity[new] = self.file_at(old)
            del self.identity[old]


def records(lines, cluster, begin_ns, end_ns):
    """(records, counts) of the window: (time_ns, operation, file, offset, size) each; how often each call was seen."""
    files, kept, counts = Files(cluster), [], Counter()
    for event in events(lines):
        if event.call == "rename":
            files.rename(event)
            continue
        path = files.path_of(event)
        if path is None or not begin_ns <= event.time_ns < end_ns:
            continue
        folder = path.split("/")[0]
        if event.result < 0:
            counts[f"left out, failed: {event.call} {folder}"] += 1
        elif event.call in ("fsync", "fdatasync"):
            counts[f"{event.call} {folder}"] += 1
            kept.append((event.time_ns, "f", None, 0, 0))
        elif event.call == "write" and path != "global/pg_control":
            counts[f"left out: write {folder}"] += 1
        else:
            counts[f"{event.call} {folder}"] += 1
            kept.append((event.time_ns, "w", files.file_at(path), *extent(event)))
    return kept, counts


def on_one_volume(kept):
    """(rows of the CSV, bytes of the volume): files laid one behind the other, in the order of their first write."""
    extents = {}
    for _, operation, file, offset, size in kept:
        if operation == "w":
            extents[file] = max(extents.get(file, 0), offset + size)
    region, end = {}, 0
    for file, size in extents.items():
        region[file] = end
        end += -(-size // REGION_BYTES) * REGION_BYTES

    first_ns = kept[0][0]
    rows = []
    for time_ns, operation, file, offset, size in kept:
        since_first_ns = (time_ns - first_ns) // TIME_STEP_NS * TIME_STEP_NS
        address = region[file] + offset if operation == "w" else 0
        rows.append(f"{since_first_ns},{operation},{address},{size}")
    return rows, end


def main(strace_output, cluster, begin_s, end_s, output):
    with Path(strace_output).open() as lines:
        kept, counts = records((line.rstrip("\n") for line in lines), cluster, int(begin_s) * 10**9, int(end_s) * 10**9)
    rows, volume_bytes = on_one_volume(kept)

    text = "\n".join([COMMENT, "time_ns,operation,address,size", *rows, ""])
    with Path(output).open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:  # The same bytes every time.
        out.write(text.encode())

    print(f"{len(rows)} records on a volume of {volume_bytes} bytes", file=sys.stderr)
    for what, times in sorted(counts.items()):
        print(f"{times:8d}  {what}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
