"""One iSCSI session in its full feature phase, in a thread of its own: PDUs in, PDUs out, operations on the volume between.

The thread sleeps in one poll on the connection, on the volume's channel and on an eventfd by which others leave it work. Commands
run beside each other: each is a generator that waits for its operations (`scsi`). What one session may hold is bounded: commands
by the window of CmdSN, data of writes by what may come unasked and by `GATHER_BYTES_MAX` asked for, data of reads by
`READ_BYTES_MAX`. While the initiator takes no answers nothing further is read from it.

Error recovery level 0: what breaks the order of PDUs or their digests ends the connection, and with it the session.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import iscsi_state
from . import pdu, scsi, sense
from .login import IRRELEVANT, NOT_UNDERSTOOD, REJECT, Identity, Terms, negotiate
from .pdu import NO_TAG, Numbers, Pdu, ProtocolError
from .relay import Gates
from .reservation import nexus_name
from .target import COMMAND_WINDOW, Countdown, Target
from .text import TEXT_BYTES_MAX, TextError, pairs_of, text_of
from .volume import Operation, Result

LOG = logging.getLogger(__name__)

INBOX_BYTES = 1 << 20
OUTBOX_BYTES_MAX = 8 << 20  # While more is waiting to be sent nothing is read.
GATHER_BYTES_MAX = 8 << 20  # Data of writes that we have asked for and not got whole.
READ_BYTES_MAX = 8 << 20  # Data of reads under way or waiting to be sent; one larger read goes alone.
IMMEDIATES_MAX = 16  # Immediate commands under way: they are outside of the window.
PIECES_PER_SEND = 64
QUIET_S = 60.0  # After which we ask whether somebody is there; as long again and the session ends.
DRAIN_S = 5.0  # For operations under way when a session ends.
PART_S = 1.0

ABORT_TASK = pdu.ABORT_TASK
ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, RESET_UNIT, WARM_RESET, COLD_RESET, REASSIGN = range(2, 9)
DONE, NO_TASK, NO_UNIT, NO_REASSIGNMENT, NOT_SUPPORTED, REJECTED = 0, 1, 2, 4, 5, 255

DATA_OUT_BYTES_MAX = max(scsi.pages.TRANSFER_BLOCKS_MAX * scsi.BLOCK_BYTES, 2 * 255 * scsi.BLOCK_BYTES)


@dataclass
class Burst:
    """Data that we have asked for by one R2T."""

    offset: int
    length: int
    received: int = 0
    data_sn: int = 0


@dataclass
class Task:
    """One SCSI command from its arrival to its answer."""

    tag: int
    lun: int
    lun_field: int  # as the header had it
    cdb: bytes
    flags: int
    expected: int  # EDTL
    is_immediate: bool
    needed: int  # bytes of data that the command takes: what it asks for and the initiator has
    takes_unasked: bool = False  # unsolicited Data-Out PDUs are still to come
    unasked: int = 0  # bytes that came unsolicited, immediate data first
    unasked_sn: int = 0
    data: bytearray = field(default_factory=bytearray)
    bursts: dict[int, Burst] = field(default_factory=dict)  # by transfer tag
    asked: int = 0  # bytes up to which data came unsolicited or was asked for
    ready_count: int = 0  # R2TSN
    steps: scsi.Steps | None = None
    operation: int = 0  # number of the one under way
    holds: int = 0  # bytes of READ_BYTES_MAX
    is_aborted: bool = False

    @property
    def attribute(self) -> int:
        return self.flags & pdu.ATTRIBUTE_MASK

    @property
    def is_whole(self) -> bool:
        return not self.takes_unasked and not self.bursts and self.asked >= self.needed


class ClosedError(Exception):
    """The connection is over; the sentence says why."""


class Session:
    """A session with its one connection. `run` is its thread; `post` and `leave` are for others."""

    def __init__(
        self, connection: socket.socket, target: Target, identity: Identity, gates: Gates | None = None
    ) -> None:
        """With `gates` the connection may be given to the loop, and this session gets what that leaves."""
        self.connection, self.target, self.identity, self.gates = connection, target, identity, gates
        self.address = connection.getsockname()
        self.is_relayed = self.is_over = False
        self.channel = target.unit.disk.open() if not identity.is_discovery else None  # First: it may be refused.
        self.terms = Terms()
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.work: deque[Callable[[], None]] = deque()
        self.takes_work = True
        self.why = ""
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.slot = gates.take() if gates is not None else -1
        self.nexus = target.unit.attach(nexus_name(identity.initiator, identity.isid)) if not identity.is_discovery else None
        self.dropping: deque[Callable[[], None]] = deque()
        self.status_sn = self.expected_sn = 0
        self.inbox, self.begin, self.end = bytearray(INBOX_BYTES), 0, 0
        self.outbox: deque[bytes | memoryview] = deque()
        self.out_bytes = 0
        self.tasks: dict[int, Task] = {}
        self.ahead: dict[int, Pdu] = {}  # by CmdSN: arrived before one that comes first
        self.counted = 0  # tasks of the command window
        self.gathered = self.read_bytes = 0
        self.wants_data: deque[Task] = deque()  # tasks that wait until data may be asked for
        self.ready: deque[Task] = deque()  # whole, and not begun
        self.operations: dict[int, Task] = {}
        self.operation = self.transfer_tag = 0
        self.aborting: list[tuple[set[int], Callable[[], None]]] = []  # ids of tasks that are waited for
        self.text = self.text_left = b""
        self.ending = ""  # why the connection ends once everything is sent
        self.logout_tag = NO_TAG  # the task tag of a logout that is not answered yet
        self.heard_s = time.monotonic()
        self.asked_s = 0.0  # when we asked whether somebody is there; 0: nothing was asked

    # For others.

    def post(self, work: Callable[[], None]) -> bool:
        with self.lock:
            if not self.takes_work:
                return False
            self.work.append(work)
            os.eventfd_write(self.wake, 1)
            return True

    def leave(self, why: str) -> None:
        def end() -> None:
            raise ClosedError(why)

        self.post(end)

    # The thread.

    def run(self, terms: Terms, status_sn: int, expected_sn: int) -> None:
        """Until the connection ends, whoever ends it."""
        self.terms, self.status_sn, self.expected_sn = terms, status_sn, expected_sn
        try:
            self.serve()
        except ClosedError as closed:
            self.why = str(closed)
        except OSError as refusal:
            self.why = refusal.strerror or repr(refusal)
        finally:
            self.finish()

    def serve(self) -> None:
        self.connection.setblocking(False)
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if self.channel is not None and self.channel.fileno() >= 0:
            poll.register(self.channel.fileno(), select.POLLIN)
        socket_fd, wanted = self.connection.fileno(), 0
        while True:
            wants = (select.POLLIN if self.takes_more() else 0) | (select.POLLOUT if self.outbox else 0)
            if wants != wanted:
                poll.register(socket_fd, wants)
                wanted = wants
            events = dict(poll.poll(1000 * QUIET_S / 4))
            seen = events.get(socket_fd, 0)
            if self.wake in events:
                self.do_work()
            if seen & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self.receive()
            self.take()
            self.reap()
            self.start()
            self.flush()
            while self.holds_whole_pdu() and self.takes_more() and not self.outbox:  # Sending has made room.
                self.take()
                self.reap()
                self.start()
                self.flush()
            if self.ending and not self.outbox and not self.operations:
                self.answer_logout()
                if not self.outbox:
                    raise ClosedError(self.ending)
            self.look_at_clock()

    def finish(self) -> None:
        """Nothing further is begun; what is under way ends, then everything is given back."""
        deadline = time.monotonic() + DRAIN_S
        for task in self.tasks.values():
            task.is_aborted = True
        while self.operations and self.channel is not None:
            left_s, waits_at = max(0.0, deadline - time.monotonic()), self.channel.fileno()
            if waits_at >= 0 and not select.select([waits_at], [], [], left_s)[0]:
                break
            try:
                for number, _ in self.channel.reap():
                    self.operations.pop(number, None)
            except OSError:
                break
        if self.channel is not None:
            self.channel.close()
        with self.lock:
            self.takes_work = False
            left = list(self.work)
        self.is_over = True
        self.tasks.clear()
        self.operations.clear()
        for done in [*(done for _, done in self.aborting), *self.dropping]:
            done()
        self.aborting = []
        self.dropping.clear()
        for work in left:
            with contextlib.suppress(ClosedError, OSError):
                work()
        self.part()
        os.close(self.wake)
        if self.nexus is not None:
            self.target.unit.detach(self.nexus)
        if self.gates is not None:
            self.gates.give(self.slot)
        self.target.part(self)
        self.ended.set()
        LOG.debug("session of %s has ended: %s", self.identity.initiator, self.why)

    def part(self) -> None:
        """Close the connection. The loop has taken first what was sent last: it would forget it with the end of a relay."""
        deadline = time.monotonic() + (PART_S if self.is_relayed else 0.0)
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline and unsent_bytes(self.connection):
                time.sleep(0.001)
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def do_work(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        while True:
            with self.lock:
                if not self.work:
                    return
                work = self.work.popleft()
            work()

    def look_at_clock(self) -> None:
        """Ask a silent initiator whether it is there; end the session when it does not answer."""
        now = time.monotonic()
        if now - self.heard_s < QUIET_S:
            self.asked_s = 0.0
        elif not self.asked_s:
            self.asked_s = now
            self.send(pdu.nop_in(NO_TAG, 0, self.next_transfer_tag(), 0, self.numbers()))
            self.flush()
        elif now - self.asked_s >= QUIET_S:
            raise ClosedError(f"the initiator has been silent for {2 * QUIET_S:.0f} s")

    # Bytes in and out.

    def takes_more(self) -> bool:
        return self.out_bytes < OUTBOX_BYTES_MAX and not self.ending

    def receive(self) -> None:
        if self.begin == self.end:
            self.begin = self.end = 0
        elif len(self.inbox) - self.end < INBOX_BYTES // 2:
            kept = self.end - self.begin
            self.inbox[:kept] = self.inbox[self.begin : self.end]
            self.begin, self.end = 0, kept
        if self.end == len(self.inbox):
            return
        try:
            got = self.connection.recv_into(memoryview(self.inbox)[self.end :])
        except (BlockingIOError, InterruptedError):
            return
        if got == 0:
            raise ClosedError("the initiator has hung up")
        self.end += got
        self.heard_s = time.monotonic()

    def holds_whole_pdu(self) -> bool:
        """Whether `take` has something to do."""
        try:
            return self.whole_pdu() > 0
        except ProtocolError:
            return True

    def whole_pdu(self) -> int:
        """Bytes of the PDU that stands first, 0 while it is not whole."""
        if self.end - self.begin < pdu.HEADER_BYTES:
            return 0
        header = memoryview(self.inbox)[self.begin : self.begin + pdu.HEADER_BYTES]
        lengths = pdu.lengths_of(header, self.terms.target_segment)
        size = pdu.HEADER_BYTES + lengths.ahs + lengths.padded
        size += pdu.DIGEST_BYTES * (self.terms.header_digest + (self.terms.data_digest and lengths.data > 0))
        return size if self.end - self.begin >= size else 0

    def take(self) -> None:
        """Handle every PDU that is whole, as long as answers find room."""
        while self.takes_more():
            try:
                size = self.whole_pdu()
            except ProtocolError as broken:
                self.break_off(bytes(self.inbox[self.begin : self.begin + pdu.HEADER_BYTES]), broken)
                return
            if not size:
                return
            view = memoryview(self.inbox)[self.begin : self.begin + size]
            self.begin += size
            header = bytes(view[: pdu.HEADER_BYTES])
            try:
                self.handle(self.unframed(header, view))
            except ProtocolError as broken:
                self.break_off(header, broken)
                return

    def unframed(self, header: bytes, view: memoryview) -> Pdu:
        """The PDU in these bytes, its digests held against it."""
        lengths = pdu.lengths_of(header, self.terms.target_segment)
        at = pdu.HEADER_BYTES
        ahs = bytes(view[at : at + lengths.ahs])
        at += lengths.ahs
        if self.terms.header_digest:
            if pdu.digest(header, ahs) != view[at : at + pdu.DIGEST_BYTES]:
                raise ClosedError("a header does not match its digest")
            at += pdu.DIGEST_BYTES
        data = bytes(view[at : at + lengths.data])
        if self.terms.data_digest and lengths.data:
            padded = view[at : at + lengths.padded]
            if pdu.digest(padded) != view[at + lengths.padded : at + lengths.padded + pdu.DIGEST_BYTES]:
                raise ProtocolError("a data segment does not match its digest", pdu.REASON_DATA_DIGEST)
        return Pdu(header, ahs, data)

    def break_off(self, header: bytes, broken: ProtocolError) -> None:
        """Reject what breaks the protocol, and end."""
        LOG.info("%s: %s", self.identity.initiator, broken)
        numbers = self.numbers()
        self.status_sn += 1
        self.put(pdu.framed(pdu.reject(broken.reason, numbers), header, self.terms.header_digest, self.terms.data_digest))
        self.ending = str(broken)

    def put(self, pieces: list[bytes | memoryview]) -> None:
        self.outbox.extend(pieces)
        self.out_bytes += sum(map(len, pieces))

    def send(self, header: bytes, data: bytes | memoryview = b"") -> None:
        self.put(pdu.framed(header, data, self.terms.header_digest, self.terms.data_digest))

    def flush(self) -> None:
        """Hand over what the connection takes."""
        while self.outbox:
            pieces = [self.outbox[index] for index in range(min(len(self.outbox), PIECES_PER_SEND))]
            try:
                sent = self.connection.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                return
            self.out_bytes -= sent
            while sent:
                first = self.outbox[0]
                if sent >= len(first):
                    sent -= len(first)
                    self.outbox.popleft()
                else:
                    self.outbox[0] = memoryview(first)[sent:]
                    sent = 0

    # Numbers.

    def numbers(self) -> Numbers:
        return Numbers(self.status_sn, self.expected_sn, self.expected_sn + COMMAND_WINDOW - self.counted - 1)

    def status_numbers(self) -> Numbers:
        """For an answer that carries a status: it takes a StatSN."""
        numbers = self.numbers()
        self.status_sn += 1
        return numbers

    def next_transfer_tag(self) -> int:
        self.transfer_tag = (self.transfer_tag + 1) % NO_TAG
        return self.transfer_tag

    # PDUs.

    def handle(self, request: Pdu) -> None:
        if request.opcode == pdu.DATA_OUT:
            self.take_data(request)
        elif request.opcode == iscsi_state.DROP_OPCODE and self.dropping:
            self.dropping.popleft()()
        elif request.opcode in (pdu.SCSI_COMMAND, pdu.NOP_OUT, pdu.TASK_MANAGEMENT, pdu.TEXT, pdu.LOGOUT):
            if request.is_immediate:
                if (request.command_sn - self.expected_sn) & NO_TAG <= COMMAND_WINDOW or request.opcode == pdu.NOP_OUT:
                    self.perform(request)
                return
            ahead = (request.command_sn - self.expected_sn) & NO_TAG
            if ahead > COMMAND_WINDOW - self.counted - 1:
                return  # Outside of the window: ignored without a word (RFC 7143 section 4.2.2.1).
            self.ahead[request.command_sn] = request
            while self.expected_sn & NO_TAG in self.ahead and not self.ending:
                following = self.ahead.pop(self.expected_sn & NO_TAG)
                self.expected_sn += 1
                self.perform(following)
        elif request.opcode == pdu.SNACK:
            raise ProtocolError("a SNACK, at error recovery level 0", pdu.REASON_SNACK)
        else:
            raise ProtocolError(f"opcode {request.opcode:#x} in the full feature phase", pdu.REASON_COMMAND)

    def perform(self, request: Pdu) -> None:
        if request.opcode == pdu.NOP_OUT:
            self.answer_nop(request)
        elif request.opcode == pdu.TEXT:
            self.answer_text(request)
        elif request.opcode == pdu.LOGOUT:
            self.log_out(request)
        elif self.nexus is None:
            raise ProtocolError("a command in a discovery session", pdu.REASON_COMMAND)
        elif request.opcode == pdu.SCSI_COMMAND:
            self.take_command(request)
        else:
            self.manage(request)

    def answer_nop(self, request: Pdu) -> None:
        if request.tag == NO_TAG:
            return  # The answer to a NOP-In of ours, or only news of ExpStatSN.
        data = request.data[: self.terms.initiator_segment]
        self.send(pdu.nop_in(request.tag, 0, NO_TAG, len(data), self.status_numbers()), data)

    def answer_text(self, request: Pdu) -> None:
        if self.text_left and not request.data:
            self.send_text(request, self.text_left)
            return
        if len(self.text) + len(request.data) > TEXT_BYTES_MAX:
            raise ProtocolError("a text without end", pdu.REASON_FIELD)
        self.text += request.data
        if request.flags & pdu.CONTINUE:
            self.send(pdu.text_response(request.tag, 0, self.next_transfer_tag(), 0, self.status_numbers()))
            return
        try:
            keys = pairs_of(self.text)
        except TextError as broken:
            raise ProtocolError(str(broken), pdu.REASON_FIELD) from None
        self.text = b""
        answers: list[tuple[str, str]] = []
        for key, value in keys.items():
            if key == "SendTargets":
                answers += self.targets_of(value)
            elif key == "MaxRecvDataSegmentLength":
                answer, self.terms = negotiate(self.terms, self.target.offer, key, value)
                answers += [(key, answer)] if answer is not None else []
            else:
                answer, _ = negotiate(self.terms, self.target.offer, key, value)
                answers.append((key, answer if answer in (IRRELEVANT, NOT_UNDERSTOOD) else REJECT))
        self.send_text(request, text_of(answers))

    def send_text(self, request: Pdu, data: bytes) -> None:
        """An answer, or the part of it that a segment takes: the initiator asks for the next one. RFC 7143 section 11.11.4."""
        part, self.text_left = data[: self.terms.initiator_segment], data[self.terms.initiator_segment :]
        flags, tag = (pdu.CONTINUE, self.next_transfer_tag()) if self.text_left else (pdu.FINAL, NO_TAG)
        self.send(pdu.text_response(request.tag, flags, tag, len(part), self.status_numbers()), part)

    def targets_of(self, value: str) -> list[tuple[str, str]]:
        """What SendTargets tells: all in a discovery session, this one in a normal one (RFC 7143 appendix C)."""
        host, port = self.address[:2]
        here = f"[{host}]" if ":" in host else host
        found: list[tuple[str, str]] = []
        for name, addresses in self.target.listed(here, port).items():
            if value in ("", "All", name):
                found.append(("TargetName", name))
                found += [("TargetAddress", f"{address},{self.target.portal_group}") for address in addresses]
        return found

    def log_out(self, request: Pdu) -> None:
        reason = request.flags & 0x7F
        answer = {0: 0, 1: 0, 2: 2}.get(reason)  # 2: recovery of connections is not supported
        if answer is None:
            raise ProtocolError(f"a logout for reason {reason}", pdu.REASON_FIELD)
        if answer == 0:
            self.ending, self.logout_tag = "the initiator has logged out", request.tag
        else:
            self.send(pdu.logout_response(request.tag, answer, self.status_numbers()))

    def answer_logout(self) -> None:
        """Whoever hears that it has logged out may count on it: nothing is under way, and another may reserve at once."""
        if self.logout_tag == NO_TAG:
            return
        if self.nexus is not None:
            self.target.unit.detach(self.nexus)
        self.send(pdu.logout_response(self.logout_tag, 0, self.status_numbers()))
        self.logout_tag = NO_TAG
        self.flush()

    # SCSI commands and their data.

    def take_command(self, request: Pdu) -> None:
        header, flags, terms = request.header, request.flags, self.terms
        tag, expected = request.tag, pdu.word(header, 20)
        cdb = header[32:48]
        writes, final = bool(flags & pdu.WRITE), bool(flags & pdu.FINAL)
        if tag in self.tasks or tag == NO_TAG:
            raise ProtocolError("a task tag that is in use")
        immediate = len(request.data)
        if immediate and (not writes or not terms.immediate_data or immediate > min(terms.first_burst, expected)):
            raise ProtocolError("immediate data that was not agreed on")
        if not final and (not writes or terms.initial_r2t):
            raise ProtocolError("unsolicited data that was not agreed on")
        if request.is_immediate and len(self.tasks) - self.counted >= IMMEDIATES_MAX:
            numbers = self.status_numbers()
            self.send(pdu.reject(pdu.REASON_TOO_MANY, numbers), header)
            return
        takes = scsi.out_bytes_of(cdb) if writes else 0
        needed = min(expected, takes) if takes <= DATA_OUT_BYTES_MAX else 0
        lun, lun_field = lun_of(header[8:16]), int.from_bytes(header[8:16], "big")
        task = Task(tag, lun, lun_field, cdb, flags, expected, request.is_immediate, needed, takes_unasked=not final)
        self.tasks[tag] = task
        self.counted += not request.is_immediate
        task.data += request.data[:needed]
        task.unasked = immediate
        task.asked = min(immediate, needed)
        self.go_on(task)

    def take_data(self, request: Pdu) -> None:
        """A Data-Out PDU: to what was asked for by an R2T, or unsolicited."""
        task = self.tasks.get(request.tag)
        if task is None or task.is_aborted:
            return  # Of a task that was aborted, or ignored.
        offset, data_sn, final = pdu.word(request.header, 40), pdu.word(request.header, 36), bool(request.flags & pdu.FINAL)
        size = len(request.data)
        if request.transfer_tag == NO_TAG:
            if not task.takes_unasked or task.unasked + size > min(self.terms.first_burst, task.expected):
                self.fail(task, sense.UNEXPECTED_DATA)
                return
            if data_sn != task.unasked_sn or offset != task.unasked:
                self.fail(task, sense.OUT_OF_SEQUENCE)
                return
            task.unasked += size
            task.unasked_sn += 1
            task.data += request.data[: max(0, task.needed - len(task.data))]
            task.asked = min(task.unasked, task.needed)
            task.takes_unasked = not final
        else:
            burst = task.bursts.get(request.transfer_tag)
            if burst is None:
                raise ProtocolError("data for a transfer tag that was not given")
            if data_sn != burst.data_sn or offset != burst.offset + burst.received:
                self.fail(task, sense.OUT_OF_SEQUENCE)
                return
            burst.received += size
            burst.data_sn += 1
            if burst.received > burst.length or final != (burst.received == burst.length):
                self.fail(task, sense.WRONG_AMOUNT)
                return
            task.data[offset : offset + size] = request.data
            if final:
                self.gathered -= burst.length
                del task.bursts[request.transfer_tag]
        self.go_on(task)

    def fail(self, task: Task, answer: sense.Answer) -> None:
        """End a command whose data is out of order (RFC 7143 section 7.9): nothing of it is done, what still comes is ignored."""
        with contextlib.suppress(ValueError):
            self.wants_data.remove(task)
        self.complete(task, answer)

    def go_on(self, task: Task) -> None:
        """Ask for more data, or run the command when there is all of it."""
        if task.is_whole:
            self.ready.append(task)
        elif not task.takes_unasked and task.asked < task.needed and task not in self.wants_data:
            self.wants_data.append(task)
        self.ask_for_data()

    def ask_for_data(self) -> None:
        """R2Ts for tasks in their order, as far as memory and MaxOutstandingR2T allow."""
        for _ in range(len(self.wants_data)):
            task = self.wants_data.popleft()
            while task.asked < task.needed and len(task.bursts) < self.terms.max_outstanding_r2t:
                length = min(self.terms.max_burst, task.needed - task.asked)
                if self.gathered and self.gathered + length > GATHER_BYTES_MAX:
                    self.wants_data.appendleft(task)
                    return
                self.gathered += length
                tag = self.next_transfer_tag()
                task.bursts[tag] = Burst(task.asked, length)
                task.data += bytes(max(0, task.asked + length - len(task.data)))
                number, offset = task.ready_count, task.asked
                self.send(pdu.ready_to_transfer(task.tag, task.lun_field, tag, number, offset, length, self.numbers()))
                task.asked += length
                task.ready_count += 1

    def start(self) -> None:
        """Begin commands that are whole: in their order, reads as far as memory allows, ordered ones alone."""
        while self.ready:
            task = self.ready[0]
            if task.attribute in (pdu.ORDERED, pdu.ACA) and self.operations:
                return
            if any(one.attribute == pdu.ORDERED for one in self.operations.values()):
                return
            size = min(task.expected, DATA_OUT_BYTES_MAX) if task.flags & pdu.READ and not task.flags & pdu.WRITE else 0
            if size and (self.read_bytes or self.out_bytes) and self.read_bytes + self.out_bytes + size > READ_BYTES_MAX:
                return
            self.ready.popleft()
            task.holds = size
            self.read_bytes += size
            assert self.nexus is not None
            command = scsi.Command(self.target.unit, self.nexus, task.cdb, task.data, task.expected)
            try:
                begun = scsi.begin(command, task.lun)
            except OSError as refusal:
                begun = scsi.failure_of(refusal.errno or errno.EIO)
            if isinstance(begun, sense.Answer):
                self.complete(task, begun)
            else:
                task.steps = begun
                self.step(task, None)
            self.reap()

    def step(self, task: Task, result: Result | None) -> None:
        """Run a command up to its next operation, or to its end."""
        assert task.steps is not None and self.channel is not None
        if task.is_aborted:
            task.steps.close()
            self.forget(task)
            return
        try:
            operation: Operation = next(task.steps) if result is None else task.steps.send(result)
        except StopIteration as end:
            self.complete(task, end.value)
            return
        self.operation += 1
        task.operation = self.operation
        self.operations[self.operation] = task
        self.channel.submit(self.operation, operation)

    def reap(self) -> None:
        """Take the results that are there."""
        while self.channel is not None:
            results = self.channel.reap()
            if not results:
                return
            for number, result in results:
                task = self.operations.pop(number, None)
                if task is not None:
                    task.operation = 0
                    self.step(task, result)

    def forget(self, task: Task) -> None:
        """A task is over, answered or not."""
        if self.tasks.pop(task.tag, None) is not None:
            self.counted -= not task.is_immediate
            self.read_bytes -= task.holds
            self.gathered -= sum(burst.length for burst in task.bursts.values())
        for waited, done in list(self.aborting):
            waited.discard(id(task))
            if not waited:
                self.aborting.remove((waited, done))
                done()

    def complete(self, task: Task, answer: sense.Answer) -> None:
        """Send what a command came to."""
        self.forget(task)
        if task.is_aborted:
            return
        reads = bool(task.flags & pdu.READ) and not task.flags & pdu.WRITE
        data = memoryview(answer.data)
        # What the command would move, against what the initiator expects (RFC 7143 section 11.4.5).
        moves = max(len(data), 0) if not task.flags & pdu.WRITE else scsi.out_bytes_of(task.cdb) or len(data)
        if not reads and not task.flags & pdu.WRITE and not data:
            moves = scsi.out_bytes_of(task.cdb)
        expected = task.expected if task.flags & (pdu.READ | pdu.WRITE) else 0
        flags, residual = 0, 0
        if moves > expected:
            flags, residual = pdu.OVERFLOW, min(moves - expected, NO_TAG)
        elif moves < expected:
            flags, residual = pdu.UNDERFLOW, expected - moves
        sent = data[:expected] if reads else data[:0]
        data_count = 0
        if len(sent):
            data_count = self.send_data(task, sent, answer, flags, residual)
            if answer.status == sense.GOOD:
                return
        sense_data = answer.sense.fixed() if answer.sense is not None else b""
        segment = len(sense_data).to_bytes(2, "big") + sense_data if sense_data else b""
        header = pdu.scsi_response(
            task.tag, answer.status, flags, residual, len(segment), data_count + task.ready_count, self.status_numbers()
        )
        self.send(header, segment)

    def send_data(self, task: Task, data: memoryview, answer: sense.Answer, flags: int, residual: int) -> int:
        """Data-In PDUs; the last carries the status of a command that ended well. How many there were."""
        number, at, burst = 0, 0, 0
        while at < len(data):
            size = min(len(data) - at, self.terms.initiator_segment, self.terms.max_burst - burst)
            is_last, burst = at + size == len(data), burst + size
            ends_burst = is_last or burst == self.terms.max_burst
            told = pdu.FINAL if ends_burst else 0
            if is_last and answer.status == sense.GOOD:
                header = pdu.data_in(
                    task.tag, told | pdu.STATUS | flags, answer.status, size, at, number, residual, self.status_numbers()
                )
            else:
                numbers = self.numbers()._replace(status_sn=0)
                header = pdu.data_in(task.tag, told, 0, size, at, number, 0, numbers)
            self.send(header, data[at : at + size])
            at, number = at + size, number + 1
            burst = 0 if ends_burst else burst
        return number

    # Task management.

    def manage(self, request: Pdu) -> None:
        function, tag = request.flags & 0x7F, request.tag
        lun = lun_of(request.header[8:16])

        def answer(response: int) -> None:
            self.send(pdu.task_management_response(tag, response, self.status_numbers()))

        def answer_from_elsewhere() -> None:
            def send() -> None:
                answer(DONE)
                self.flush()

            self.post(send)

        if function in (ABORT_TASK_SET, CLEAR_TASK_SET, RESET_UNIT) and lun != 0:
            answer(NO_UNIT)
        elif function == ABORT_TASK:
            task = self.tasks.get(request.transfer_tag)
            if task is None:  # The loop may have had it, and has ended it: then there was such a task (RFC 7143 section 11.6.1).
                answer(DONE if self.is_relayed and request.header[iscsi_state.ABORTED_AT] else NO_TASK)
            else:
                self.abort([task], lambda: answer(DONE))
        elif function == ABORT_TASK_SET:
            self.abort(list(self.tasks.values()), lambda: answer(DONE))
        elif function == CLEAR_TASK_SET:
            self.target.unit.tell_all(sense.COMMANDS_CLEARED, but=self.nexus.name if self.nexus else "")
            self.target.abort_members(self.target.members(), answer_from_elsewhere)
        elif function == RESET_UNIT:
            self.target.reset(answer_from_elsewhere, sense.LUN_RESET)
        elif function == WARM_RESET:
            self.target.reset(answer_from_elsewhere, sense.POWER_ON)
        elif function == COLD_RESET:
            self.target.reset(lambda: self.reset_cold(answer_from_elsewhere), sense.POWER_ON)
        elif function == REASSIGN:
            answer(NO_REASSIGNMENT)
        else:
            answer(NOT_SUPPORTED)

    def reset_cold(self, answer: Callable[[], None]) -> None:
        """TARGET COLD RESET: answered, then every session ends."""
        answer()
        for member in self.target.members():
            member.leave("the target was reset")

    def abort_all(self, done: Callable[[], None]) -> None:
        """End all tasks, ours and those that the loop has."""
        if self.is_relayed and not self.is_over:
            done = Countdown(2, done).down
            self.dropping.append(done)
            self.put([bytes([iscsi_state.DROP_OPCODE]) + bytes(pdu.HEADER_BYTES - 1)])
        self.abort(list(self.tasks.values()), done)

    def abort(self, tasks: list[Task], done: Callable[[], None]) -> None:
        """End tasks without an answer; `done` is called once what they have under way is over."""
        waited = set()
        for task in tasks:
            task.is_aborted = True
            if task.operation:
                waited.add(id(task))
            else:
                with contextlib.suppress(ValueError):
                    self.ready.remove(task)
                with contextlib.suppress(ValueError):
                    self.wants_data.remove(task)
                self.forget(task)
        if waited:
            self.aborting.append((waited, done))
        else:
            done()


def unsent_bytes(connection: socket.socket) -> int:
    """Bytes that the other end of a socket pair has not taken yet. unix(7), SIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def lun_of(field: bytes) -> int:
    """The logical unit number of a header, in the peripheral or flat format; -1 for any other (SAM-5 section 4.7)."""
    if any(field[2:]):
        return -1
    if field[0] == 0:
        return field[1]
    if field[0] >> 6 == 1:
        return (field[0] & 0x3F) << 8 | field[1]
    return -1

