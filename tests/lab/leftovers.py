"""What a lab could leave on the machine: processes, interfaces, namespaces, mounts and files."""

import contextlib
import time
from pathlib import Path


class Surroundings:
    """What a lab could leave on the machine, as it was before."""

    def __init__(self, directory):
        self.directory = directory
        self.directory.mkdir()
        self.before = self.seen()

    def seen(self):
        named = Path("/run/netns")
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return {
            "interfaces": set(Path("/sys/class/net").iterdir()),
            "named namespaces": set(named.iterdir()) if named.is_dir() else set(),
            "mounts": {line for line in mounts if " nsfs " in line or str(self.directory.parent) in line},
            "files": {str(path) for path in self.directory.rglob("*")},
        }

    def assert_nothing_left(self, expected_files=()):
        """After all processes have gone: the machine as it was."""
        after = self.seen()
        after["files"] -= {str(self.directory / name) for name in expected_files}
        left = {what: after[what] - self.before[what] for what in after}
        assert not any(left.values()), left


def gone(living, limit_s=5.0):
    """Whether all are gone: the kernel ends orphans at once, but not in no time."""
    until_s = time.monotonic() + limit_s
    while living() and time.monotonic() < until_s:
        time.sleep(0.01)
    return not living()


def marked(word):
    """Living processes that carry the word in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
