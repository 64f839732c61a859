"""A process that opens a lab and uses it until the lab fails it; for tests that kill parts of it.

`python holder.py LINK DIRECTORY` says "ready" with the lab's processes once it stands. It leaves as the command does: a
refusal is a sentence and its exit code.
"""

import json
import os
import sys
from pathlib import Path

from small_lab import compiled, small

from farwrite.base.errors import EXIT_INTERRUPTED, FarwriteError
from farwrite.lab.lab import open_lab
from farwrite.lab.survey import PROBE, answer_requests, measure_requests

PATIENCE_S = 2.0


def hold(link, directory, say):
    """Open a lab and use it for ever; answers the exit code."""
    try:
        with open_lab(small(link, directory)) as lab:
            say({"kind": lab.choice.kind, "near": lab.near.process.pid, "far": lab.far.process.pid, "link": link_pid(lab)})
            while True:
                lab.far.start(answer_requests, 64, 64, 20, None)
                lab.near.call(measure_requests, 64, 64, 20, lab.held(PROBE), timeout_s=PATIENCE_S)
                lab.far.answer(PATIENCE_S)
    except FarwriteError as refusal:
        print(f"holder: {refusal}", file=sys.stderr, flush=True)
        return refusal.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def link_pid(lab):
    """A process that carries or sets the link: the child that is neither site."""
    sites = {lab.near.process.pid, lab.far.process.pid}
    return max(pid for pid in children(os.getpid()) if pid not in sites)


def children(parent):
    """Process numbers of the children of a process, from /proc; proc(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_of(int(entry.name))
            if fields and fields["parent"] == parent and fields["state"] != "Z":
                found.append(int(entry.name))
    return sorted(found)


def stat_of(pid):
    """State, parent and session of a process; None when it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (OSError, IndexError):
        return None
    return {"state": words[0], "parent": int(words[1]), "session": int(words[3])}


def main():
    """As a program of its own."""
    compiled()
    directory = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    return hold(sys.argv[1], directory, lambda pids: print("ready", json.dumps(pids), flush=True))


if __name__ == "__main__":
    sys.exit(main())
