"""Commands without root: the user nobody gets a view of the machine in which it may read Python and, if so wanted, use TUN."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import marked
from small_lab import compiled

HERE = Path(__file__).parent
NOBODY = 65534

VIEW = """
set -e
mount --make-rprivate /
mkdir -p "$SCRATCH/view"
index=0
for needed in "$@"; do   # What only root may reach is put where everybody may.
    mkdir -p "$SCRATCH/view/$index" && mount --bind "$needed" "$SCRATCH/view/$index"
    index=$((index + 1))
done
closed=$CLOSED
if [ -n "$closed" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    index=0
    for needed in "$@"; do
        mkdir -p "$needed" && mount --bind "$SCRATCH/view/$index" "$needed"
        index=$((index + 1))
    done
fi
if [ -n "$TUN_MODE" ]; then
    mknod "$SCRATCH/tun" c 10 200
    chmod "$TUN_MODE" "$SCRATCH/tun"
    mount --bind "$SCRATCH/tun" /dev/net/tun
fi
eval "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all $COMMAND"
"""


@contextlib.contextmanager
def as_nobody(scratch, data, command, tun_mode, word):
    """A command as an unprivileged user in a directory that is its own, with our kernels' machine code already in its cache."""
    compiled()
    if os.getuid() != 0 or not all(shutil.which(name) for name in ("unshare", "setpriv", "mount", "mknod")):
        pytest.skip("becoming another user in a private view of the machine needs root, unshare(1) and setpriv(1)")
    kernels = Path(os.environ["NUMBA_CACHE_DIR"])
    shutil.copytree(kernels, scratch / kernels.name)
    for path in (scratch, data, *scratch.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    needed = [str(path) for path in (Path(sys.base_prefix), Path(sys.prefix), HERE.parents[1]) if closed(path)]
    environment = {
        "PATH": os.environ["PATH"], "FARWRITE_TEST": word, "HOME": str(scratch), "XDG_CACHE_HOME": str(scratch),
        "NUMBA_CACHE_DIR": str(scratch / kernels.name), "SCRATCH": str(scratch), "COMMAND": shlex.join(map(str, command)),
        "TUN_MODE": tun_mode,
        "CLOSED": str(closed(Path(needed[0]))) if needed else "", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    run = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", VIEW, "sh", *needed], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=data, start_new_session=True,
    )  # fmt: skip
    try:
        yield run
    finally:
        for pid in marked(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.communicate()


def closed(path):
    """The uppermost directory on the way to `path` that others may not enter; None when all are open."""
    return next((parent for parent in [*reversed(path.parents), path] if not parent.stat().st_mode & 1), None)


def open_to_all(path):
    path.mkdir(mode=0o755)
    return path
