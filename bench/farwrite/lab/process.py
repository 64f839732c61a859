"""A process of the lab: forked from ours with its kernels already compiled, obeying calls over a private socket.

It dies with us (PR_SET_PDEATHSIG), ignores what ends us in order (we end it), and may be killed at any instant without taking its
site away. A call names a module-level function; its answer or its exception comes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from ..base.errors import FarwriteError, UnfitError
from ..base.host.parent_death import die_with
from ..base.interruption import SIGNALS
from .namespace import Place, uninterrupted

CONNECTION: Connection | None = None  # In a process of the lab: the way to its parent.

PR_SET_TIMERSLACK = 29
ENDING_S = 0.2
# What a signal that nobody sends on purpose says of the machine.
HINTS = {
    signal.SIGBUS: ": a page of a file could not be read; the kernel's log (dmesg) names the disk",
    signal.SIGKILL: ": by hand, or for want of memory, as the kernel's log (dmesg) would say",
}  # fmt: skip


class ProcessLostError(UnfitError):
    """The process ended without an answer: killed, or crashed."""


class Process:
    """Our end of a forked process. One call at a time; `start` and `answer` let two processes work at once."""

    def __init__(self, name: str, pid: int, connection: Connection) -> None:
        self.name = name
        self.pid = pid
        self.connection = connection
        self.busy = False
        self.ended = False

    def start(self, function: Callable, *arguments: Any) -> None:
        """Begin function(*arguments) over there. ProcessLostError when it has ended."""
        assert not self.busy
        if self.ended:
            raise ProcessLostError(f"The {self.name} process has ended.")
        try:
            self.connection.send((function, arguments))
        except (BrokenPipeError, ConnectionResetError) as gone:
            self.kill()
            raise ProcessLostError(f"The {self.name} process has ended.") from gone
        self.busy = True

    def poll(self, timeout_s: float) -> bool:
        """Whether an answer is there within the timeout."""
        return self.connection.poll(timeout_s)

    def answer(self, timeout_s: float | None = None) -> Any:
        """What the started function returned; its exception is raised here. ProcessLostError when it died instead."""
        assert self.busy
        self.await_answer(timeout_s)
        try:
            worked, result = self.connection.recv()
        except (EOFError, ConnectionResetError) as gone:
            how = self.how_it_ended()
            self.kill()
            raise ProcessLostError(f"The {self.name} process ended without an answer ({how}).") from gone
        self.busy = False
        if not worked:
            raise result
        return result

    def await_answer(self, timeout_s: float | None) -> None:
        """Until an answer, or the process's end, is there. UnfitError after the timeout, or at once when a carrier has ended."""
        carriers = {one.connection: one for one in CARRIERS if not one.ended}
        ready = wait([self.connection, *carriers], timeout_s)
        if self.connection in ready:
            return
        for gone in (carriers[one] for one in ready):  # type: ignore[index]
            raise carrier_lost(gone.name, gone.pid)
        raise UnfitError(f"The {self.name} process has not answered for {timeout_s:g} s.")

    def call(self, function: Callable, *arguments: Any, timeout_s: float | None = 60.0) -> Any:
        """start and answer in one."""
        self.start(function, *arguments)
        return self.answer(timeout_s)

    def how_it_ended(self) -> str:
        """The signal or the exit code of a process whose connection has ended. It stays to be waited for by `kill`."""
        limit_s = time.monotonic() + ENDING_S
        while not self.ended:  # Connections are closed a moment before their process counts as ended.
            try:
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is not None:
                if found.si_code == os.CLD_EXITED:
                    return f"exit code {found.si_status}"
                by = signal.Signals(found.si_status)
                return f"killed by {by.name}{HINTS.get(by, '')}"
            if time.monotonic() > limit_s:
                return "its connection is closed, and it runs still"
            time.sleep(ENDING_S / 100)
        return "how is not known"

    def kill(self) -> None:
        """SIGKILL, as a crash does it, and wait until it is gone."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.ended = True
            self.busy = False
            self.connection.close()


CARRIERS: list[Process] = []  # Whoever waits for an answer that came over their link would wait in vain.


@contextmanager
def carrying_link(carrier: Process) -> Iterator[None]:
    """As long as this block, the end of this process ends every wait for another one."""
    CARRIERS.append(carrier)
    try:
        yield
    finally:
        CARRIERS.remove(carrier)


def carrier_lost(name: str, pid: int) -> ProcessLostError:
    """The error for a link that nobody carries any more."""
    return ProcessLostError(f"The process that carries the link (the {name}, pid {pid}) was killed, or has crashed.")


@contextmanager
def naming_lost_carriers() -> Iterator[None]:
    """A link whose process is gone may look like anything else: echoes end, connections are refused. Names the cause instead."""
    try:
        yield
    except UnfitError as effect:
        # Connections are closed a moment before their process counts as ended.
        for gone in wait([one.connection for one in CARRIERS if not one.ended], ENDING_S if CARRIERS else 0):
            lost = next(one for one in CARRIERS if one.connection is gone)
            raise carrier_lost(lost.name, lost.pid) from effect
        raise


@contextmanager
def process(name: str, namespace: Place | None = None) -> Iterator[Process]:
    """A process in a namespace (or in ours), alive at most as long as this block."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    with uninterrupted():
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                become(namespace, parent)
                serve(Connection(theirs.detach()))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
    theirs.close()
    made = Process(name, pid, Connection(ours.detach()))
    try:
        made.call(ready)
        yield made
    finally:
        made.kill()


def ready() -> bool:
    """The first call: the process is where it should be."""
    return True


def become(namespace: Place | None, parent: int) -> None:
    """Turn a fresh fork into a process of the lab."""
    # A terminal sends SIGINT and SIGHUP to all its processes, a service manager SIGTERM (systemd.kill(5), control-group):
    # the command's own process ends the others, in order.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if namespace is not None:
        namespace.enter()
    die_with(parent)  # After the namespaces: changing credentials clears the death signal.
    # A sleep may otherwise last 50 us longer than asked.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def serve(connection: Connection) -> None:
    """Obey calls until the other end is gone."""
    global CONNECTION
    CONNECTION = connection
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            result = (True, function(*arguments))
        except FarwriteError as refusal:
            result = (False, refusal)
        except ConnectionError as gone:  # Who was there has died, or was killed: no fault of ours.
            result = (False, UnfitError(f"The other end of a connection between sites has gone: {gone.strerror}."))
        except Exception as failure:
            result = (False, RuntimeError(f"{failure!r}\n{traceback.format_exc()}"))
        connection.send(result)
