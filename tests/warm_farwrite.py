"""A process that has loaded all of farwrite and answers each command with a fork of itself; console.py starts and asks it.

Most of what a short command takes is loading modules. Here that is done once, and a command still has a process of its own:
its words, directory, environment and streams are what a freshly started one would have, and nothing was run before it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import traceback

REQUEST_BYTES = 1 << 20
NOT_LOADED = ("farwrite.__main__", "farwrite.testing.plugin")
LATER = ("plotext", "pyroute2", "rich.console", "rich.progress", "rich.table", "scipy.special", "tempfile", "tomllib")


def load() -> None:
    """Everything that a command may load, as it would."""
    import farwrite

    for module in pkgutil.walk_packages(farwrite.__path__, "farwrite."):
        if module.name not in NOT_LOADED:
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)


def serve(talk: socket.socket) -> None:
    """Answer commands until nobody asks any more."""
    talk.send(b"ready")
    while True:
        text, descriptors, *_ = socket.recv_fds(talk, REQUEST_BYTES, 3)
        if not text:
            return
        pid = os.fork()
        if pid == 0:
            talk.close()
            os._exit(command(json.loads(text), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        talk.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        talk.send(str(os.waitstatus_to_exitcode(status)).encode())


def command(asked: dict, descriptors: list[int]) -> int:
    """Be the command; answers its exit code, as the end of an interpreter would make it."""
    code: object = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(asked["cwd"])
        compiled = os.environ["NUMBA_CACHE_DIR"]  # Chosen when farwrite.base.jit was loaded.
        os.environ.clear()
        os.environ.update({"NUMBA_CACHE_DIR": compiled, **asked["environment"]})
        sys.argv = ["farwrite", *asked["words"]]
        from farwrite.cli import main

        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 120
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        load()
        serve(inherited)
