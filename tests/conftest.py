"""Puts this folder on the path, so that a test may `import oracle.…` and share helpers from any of its subfolders.

And says which tests one process runs one after the other, where there are several (`make test`): whoever opens a lab has all
processors but one to himself.
"""

import contextlib
import functools
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Processes without a lab, or with one whose link decides nothing (a relay, a real one, rounds that are tried again); most of the
# time they wait: for elections, for disks, for a command to end. Two pieces, of which neither goes on when all else is done.
WAITING = {
    "waiting": (
        "tests/commands/test_exit_codes.py", "tests/commands/test_reach_command.py", "tests/lab/test_crash.py",
        "tests/lab/test_drill_trials.py", "tests/lab/test_failover.py", "tests/lab/test_far_host.py",
        "tests/lab/test_kernel_clients.py", "tests/lab/test_relay_lab.py",
    ),
    "serving": (
        "tests/lab/test_case.py", "tests/lab/test_serve.py", "tests/lab/test_serve_far.py", "tests/lab/test_serve_iscsi.py",
        "tests/lab/test_serve_relay.py", "tests/lab/test_serve_snapshots.py", "tests/lab/test_served_pool.py",
        "tests/lab/test_served_pool_doors.py", "tests/lab/test_served_stripe.py",
    ),
}  # fmt: skip
PIECES = {file: piece for piece, files in WAITING.items() for file in files}

TEST_LIMIT_S = 3000 if os.environ.get("FARWRITE_UML") else 600  # With fixtures it needs first: doors compile 100 s.

# A shell's background job ignores Ctrl-C and hands that on: what tests start and interrupt would never end.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # Not in the main thread.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

for told in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[told]  # A pytest that a test starts is nobody's worker.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that waits for what never comes fails where it waits, instead of the whole suite never ending."""

    def too_long(number, frame):
        pytest.fail(f"{item.nodeid} has not ended within {TEST_LIMIT_S} s")  # No Exception, which somebody might catch.

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT_S, TEST_LIMIT_S / 10)  # Again, should it be lost in a finalizer.
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def opens_labs(file):
    """Whether a file's tests are never run beside others that open labs: one of them is marked so."""
    return "mark.lab" in (Path(__file__).parents[1] / file).read_text()


def piece_of(file):
    """What a file's tests are a part of: a piece of work is done by one process, from its begin to its end."""
    return PIECES.get(file) or ("labs" if opens_labs(file) else file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """The long pieces are begun first: begun later, the longest of them would go on when all else is done."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: piece_of(item.nodeid.partition("::")[0]) not in ("labs", *WAITING))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Everything that opens labs is one piece of work, and so is everything that waits; of the rest, every file is."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return piece_of(nodeid.partition("::")[0])

    return ByFile(config, log)
