"""`farwrite far-site`: the far site of a run that another machine makes. Started by its ssh; obeys frames from standard input.

Its files, its flush floor, its side of every survey, the copy and the audit are here; its clock is
never compared with the other one's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import sys
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from ... import __version__
from ...base.errors import FarwriteError, UnfitError, UsageError
from ...base.host.disk import disk
from ...base.host.facts import host_facts
from ...base.host.parent_death import die_with
from ...lab.process import Process, ProcessLostError, process
from ...lab.shared_memory import board
from ...lab.survey import answer_requests, flush_floor, hang_up
from ...targets.observed import Audited, SecondaryObserved
from ...targets.replicated import Order, audit_side
from ...workload.trace.trace import SUFFIX, find
from .. import sides
from ..ab.serve import answers
from ..compilation import compile_all
from . import message as message
from .rendezvous import WAITING, accept_token, listening


def serve() -> None:
    """Be the far site until nobody asks any more."""
    die_with(os.getppid())
    with answers() as out:
        try:
            asks = message.Inbox(sys.stdin.buffer)
            first = asks.frame()
            if first is None:
                raise UsageError("farwrite far-site is not for people: farwrite run --far ssh://HOST starts it.")
            stand(wanted(first), asks, out)
        except FarwriteError as refusal:
            message.send(out, message.Refusal(sentence=str(refusal), exit_code=refusal.exit_code))


def wanted(first: bytes) -> message.Stand:
    """The site that is asked for; UsageError when we are of another version."""
    try:
        asked = msgspec.msgpack.decode(first, type=message.Stand)
    except message.NOT_OURS as refusal:
        raise UsageError(f"farwrite {__version__} there received a message that it cannot decode: {refusal}.") from refusal
    if asked.farwrite != __version__:
        raise UsageError(f"farwrite there is {__version__}, here {asked.farwrite}: install the same version at both ends.")
    return asked


def stand(asked: message.Stand, asks: message.Inbox, out: IO[bytes]) -> None:
    """Open the site, say that it stands, obey."""
    directory = None if asked.durability == "memory" else Path(asked.directory or ".").expanduser()
    compile_all()
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(disk(directory, asked.journal_bytes, asked.volume_bytes))
        words = stack.enter_context(board(64))
        server = stack.enter_context(listening())
        WAITING["server"] = server
        site = FarSite(files, words, stack)
        message.send(
            out,
            message.FarSiteReady(
                farwrite=__version__, address=server.getsockname()[0], port=server.getsockname()[1], directory=files.directory,
                file_system=files.file_system, durability=files.durability, direct=files.direct, not_durable=files.not_durable,
                host=host_facts(),
            ),
        )  # fmt: skip
        site.obey(asks, out)


def with_our_trace(order: Order) -> Order:
    """The order with the shipped trace of that name as it lies here."""
    if order.trace is None:
        return order
    ours = find(Path(order.trace.path).name.removesuffix(SUFFIX))
    return dataclasses.replace(order, trace=dataclasses.replace(order.trace, path=str(ours)))


class FarSite:
    """The site's process and what it is asked to do."""

    def __init__(self, files, words, stack: contextlib.ExitStack) -> None:
        self.files, self.words, self.stack = files, words, stack
        self.process: Process = stack.enter_context(process("far"))

    def obey(self, asks: message.Inbox, out: IO[bytes]) -> None:
        """One call at a time; a Kill may come in the middle of one."""
        while True:
            if asks.poll(0):
                data = asks.frame()
                if data is None:
                    return
                self.begin(msgspec.msgpack.decode(data, type=message.Call), out)
            elif self.process.busy and self.process.poll(0):
                message.send(out, self.reply())
            else:
                busy = [self.process.connection.fileno()] if self.process.busy else []
                select.select([asks.reader.descriptor, *busy], [], [])

    def begin(self, call: message.Call, out: IO[bytes]) -> None:
        """Start what a call asks for."""
        if isinstance(call, message.Kill):
            self.process.kill()
        elif isinstance(call, message.Restart):
            self.process.kill()
            self.words.words[:] = 0
            self.process = self.stack.enter_context(process("far"))
            message.send(out, message.Answer())
        else:
            try:
                self.process.start(*self.work(call))
            except ProcessLostError as gone:
                message.send(out, message.Refusal(sentence=str(gone), exit_code=gone.exit_code, lost=True))

    def work(self, call: message.Call) -> tuple:
        """The function and its arguments."""
        match call:
            case message.Accept(token=token, name=name, congestion=congestion):
                return accept_token, token, name, congestion, call.terms
            case message.Echo():
                files = self.files if call.flushed else None
                return answer_requests, call.request_bytes, call.answer_bytes, call.count, files, call.held
            case message.Flush():
                return flush_floor, self.files, call.size_bytes, call.count
            case message.Copy(order=order):
                self.words.words[:] = 0
                return sides.copy, with_our_trace(order), self.files, self.words
            case message.Audit():
                issued = np.frombuffer(call.issued, np.int64)
                return audit_side, with_our_trace(call.order), self.files, call.completed, issued
            case message.HangUp(name=name):
                return hang_up, name
        raise UsageError(f"no such call: {call}")

    def reply(self) -> message.Reply:
        """What the process gave."""
        try:
            value = self.process.answer()
        except ProcessLostError as gone:
            return message.Refusal(sentence=str(gone), exit_code=gone.exit_code, lost=True)
        except FarwriteError as refusal:
            return message.Refusal(sentence=str(refusal), exit_code=refusal.exit_code)
        except Exception as failure:
            print(failure, file=sys.stderr)
            return message.Refusal(sentence=f"The far site failed: {failure!r}", exit_code=UnfitError.exit_code)
        if isinstance(value, (SecondaryObserved, Audited)):
            return value
        return message.Answer(value=value.tobytes() if isinstance(value, np.ndarray) else value)
