"""A served volume in one process and in the plainest Python: its bytes, snapshots as whole copies, an NBD server, and the real
control socket. What was changed is known to the block, so that whatever a copy leaves out is found."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import numpy as np

from farwrite.base.errors import UnfitError, UsageError
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.nbd_client import Place
from farwrite.engine.snapshot import Snapshot, checked_name
from farwrite.experiment.copy.copier import End
from farwrite.experiment.serve.control import CONTROL, FOLLOWS, Desk, control_door

BLOCK = 4096
PLACES = 16


class View:
    """The volume, or what it was."""

    def __init__(self, size):
        self.data = np.zeros(size, np.uint8)
        self.allocated = np.zeros(size // BLOCK, bool)
        self.version = np.zeros(size // BLOCK, np.int64)  # of each block's last write

    def copy(self):
        made = View(0)
        made.data, made.allocated, made.version = self.data.copy(), self.allocated.copy(), self.version.copy()
        return made


class FakeVolume:
    """One served volume. `cut_after` requests that move bytes every connection is cut, once."""

    def __init__(self, stack, directory, size, number):
        self.size, self.number, self.directory = size, number, directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self.lock = threading.Condition()
        self.pauses: list[float] = []  # until when clients wait
        self.head, self.count = View(size), 0
        self.kept: dict[str, tuple[Snapshot, View]] = {}
        self.cut_after = None
        self.spoilt = None  # bytes of a write that is kept wrongly
        self.tells_changes = True
        self.answers_in_order = False
        self.connections = set()
        self.written_bytes = 0
        self.listening = [stack.enter_context(self.listener(name)) for name in (FOLLOWS, CONTROL)]
        threading.Thread(target=self.accept, daemon=True).start()
        stack.callback(self.listening[0].shutdown, socket.SHUT_RDWR)
        desk = Desk(self, f"{number:x}", "near", lambda of: Place(str(directory / FOLLOWS), f"volume@{of}"))
        self.desk = desk
        stack.enter_context(control_door(self.listening[1], desk, "fake"))

    @contextlib.contextmanager
    def listener(self, name):
        path = self.directory / name
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
            made.listen(64)
            yield made
        path.unlink()

    @property
    def end(self):
        return End(Place(str(self.directory / FOLLOWS), "volume"), self.directory)

    # The keeper of snapshots, as a node is one

    def take_snapshot(self, name):
        checked_name(name)
        with self.lock:
            if name in self.kept:
                raise UsageError(f"There is a snapshot {name} already: give another name.")
            if len(self.kept) == PLACES:
                raise UnfitError(f"A volume has at most {PLACES} snapshots: delete one first.")
            self.kept[name] = Snapshot(name, self.count, time.time_ns(), True, 0), self.head.copy()
            return self.kept[name][0]

    def delete_snapshot(self, name):
        with self.lock:
            if name not in self.kept:
                raise UsageError(f"There is no snapshot {name}.")
            del self.kept[name]

    def snapshots(self):
        with self.lock:
            return [one for one, _ in self.kept.values()]

    @contextlib.contextmanager
    def paused(self, limit_s):
        until_s = time.monotonic() + limit_s
        with self.lock:
            self.pauses.append(until_s)
        try:
            yield lambda: time.monotonic() < until_s
        finally:
            with self.lock:
                self.pauses.remove(until_s)
                self.lock.notify_all()

    def spoil_snapshot(self, name):
        """Whoever leads now cannot serve it."""
        one, view = self.kept[name]
        self.kept[name] = Snapshot(one.name, one.sequence, one.taken_ns, False, 0), view

    def was(self, name):
        return self.kept[name][1].data

    # The bytes

    def write(self, offset, data):
        with self.lock:
            while time.monotonic() < max(self.pauses, default=0.0):
                self.lock.wait(0.05)
            self.count += 1
            self.head.data[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            blocks = slice(offset // BLOCK, -(-(offset + len(data)) // BLOCK))
            self.head.allocated[blocks], self.head.version[blocks] = True, self.count
            self.written_bytes += len(data)

    def empty(self, offset, length):
        with self.lock:
            self.count += 1
            self.head.data[offset : offset + length] = 0
            self.head.allocated[-(-offset // BLOCK) : (offset + length) // BLOCK] = False
            self.head.version[offset // BLOCK : -(-(offset + length) // BLOCK)] = self.count

    def runs(self, flags, begin, end):
        """(length, flag) of what is alike, block by block, from begin to end."""
        found, at = [], begin
        while at < end:
            flag, stop = bool(flags[at // BLOCK]), at
            while stop < end and bool(flags[stop // BLOCK]) == flag:
                stop = (stop // BLOCK + 1) * BLOCK
            found.append((min(stop, end) - at, flag))
            at = stop
        return found

    # The server

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening[0].accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def cut(self):
        for one in list(self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def count_down(self):
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after <= 0:
                self.cut_after = None
                self.cut()
                raise ConnectionError

    def serve(self, connection):
        self.connections.add(connection)
        with contextlib.suppress(OSError, ConnectionError), connection:
            Session(self, connection).run()
        self.connections.discard(connection)


class Session:
    """One client's connection."""

    def __init__(self, volume, connection):
        self.volume, self.connection = volume, connection
        self.structured, self.contexts = False, {}
        self.view, self.is_read_only = None, False

    def heard(self, size):
        data = bytearray()
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return bytes(data)

    def run(self):
        self.connection.sendall(struct.pack(">QQH", nbd.INIT_MAGIC, nbd.OPTION_MAGIC, 3))
        self.heard(4)
        while self.view is None:
            self.option()
        while self.request():
            pass

    def reply(self, option, kind, data=b""):
        self.connection.sendall(struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def view_of(self, name):
        if name in ("", "volume"):
            return self.volume.head, False
        snapshot = name.removeprefix("volume@")
        if snapshot in self.volume.kept and self.volume.kept[snapshot][0].is_whole:
            return self.volume.kept[snapshot][1], True
        return None, True

    def option(self):
        _, option, length = struct.unpack(">QII", self.heard(16))
        data = self.heard(length)
        if option == nbd.OPT_STRUCTURED_REPLY:
            self.structured = True
            self.reply(option, nbd.REP_ACK)
            return
        size = struct.unpack_from(">I", data)[0]
        name, rest = data[4 : 4 + size].decode(), data[4 + size :]
        view, is_read_only = self.view_of(name)
        if view is None:
            self.reply(option, nbd.REP_ERR_UNKNOWN, b"there is no such export")
            return
        if option == nbd.OPT_SET_META_CONTEXT:
            rest = rest[4:]
            while rest:
                size = struct.unpack_from(">I", rest)[0]
                query, rest = rest[4 : 4 + size].decode(), rest[4 + size :]
                older = query.removeprefix("farwrite:changed-since:")
                is_first = all(one == nbd.BASE_ALLOCATION for one in self.contexts.values())
                is_known = self.volume.tells_changes and older in self.volume.kept and self.volume.kept[older][0].is_whole
                if query == nbd.BASE_ALLOCATION or (is_known and is_first):  # One of changes a connection.
                    number = len(self.contexts) + 5
                    self.contexts[number] = query
                    self.reply(option, nbd.REP_META_CONTEXT, struct.pack(">I", number) + query.encode())
            self.reply(option, nbd.REP_ACK)
        elif option == nbd.OPT_GO:
            self.view, self.is_read_only = view, is_read_only
            flags = nbd.TRANSMISSION_FLAGS | nbd.IS_READ_ONLY * is_read_only
            self.reply(option, nbd.REP_INFO, struct.pack(">HQH", 0, self.volume.size, flags))
            self.reply(option, nbd.REP_ACK)

    def request(self):
        _, _, command, cookie, offset, length = nbd.REQUEST.unpack(self.heard(28))
        volume = self.volume
        if command == nbd.DISC:
            return False
        if command == nbd.READ:
            volume.count_down()
            data = self.view.data[offset : offset + length].tobytes()
            half = length // 2 // BLOCK * BLOCK
            if self.structured and half and not volume.answers_in_order:  # In two parts, the second one first.
                self.chunk(0, nbd.CHUNK_DATA, cookie, struct.pack(">Q", offset + half) + data[half:])
                self.chunk(1, nbd.CHUNK_DATA, cookie, struct.pack(">Q", offset) + data[:half])
            elif self.structured:
                self.chunk(1, nbd.CHUNK_DATA, cookie, struct.pack(">Q", offset) + data)
            else:
                self.simple(0, cookie, data)
        elif command == nbd.BLOCK_STATUS:
            for index, (number, context) in enumerate(self.contexts.items()):
                if context == nbd.BASE_ALLOCATION:
                    runs = [(size, 0 if flag else 3) for size, flag in volume.runs(self.view.allocated, offset, offset + length)]
                else:
                    older = volume.kept[context.removeprefix("farwrite:changed-since:")][0].sequence
                    runs = [(size, int(flag)) for size, flag in volume.runs(self.view.version > older, offset, offset + length)]
                answer = struct.pack(">I", number) + b"".join(struct.pack(">II", *one) for one in runs[:7])
                self.chunk(int(index == len(self.contexts) - 1), nbd.CHUNK_BLOCK_STATUS, cookie, answer)
        else:
            data = self.heard(length) if command == nbd.WRITE else b""
            if self.is_read_only and command != nbd.FLUSH:
                self.simple(nbd.EPERM, cookie)
                return True
            if command != nbd.FLUSH:
                volume.count_down()
            if command == nbd.WRITE:
                if volume.spoilt is not None:
                    data, volume.spoilt = bytes(volume.spoilt) + data[volume.spoilt :], None
                volume.write(offset, data)
            elif command in (nbd.WRITE_ZEROES, nbd.TRIM):
                volume.empty(offset, length)
            self.simple(0, cookie)
        return True

    def simple(self, error, cookie, data=b""):
        self.connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, error, cookie) + data)

    def chunk(self, flags, kind, cookie, data):
        self.connection.sendall(nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(data)) + data)
