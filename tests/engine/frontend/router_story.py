"""A world around the router's loop: clients and groups over socket pairs, in one thread and from one seed.

A group is the obviously right twin of our door: it takes requests of a connection in order, forgets what it has not taken of
one that is closed, completes what it took in order, and answers what is complete in any order. It may die: what it had taken and
not answered is then in its volume or not, as it comes. Every block that is written has a number that no other write has,
so that a read, and a snapshot, tell which writes they show.
"""

from __future__ import annotations

import random
import socket
import struct

import numpy as np

from farwrite.engine.frontend import nbd, router, router_kernel
from farwrite.engine.frontend import router_state as rows
from farwrite.engine.frontend import session_kernel as sessions
from farwrite.engine.frontend.router_map import CHUNK_BYTES_MIN, map_of

BLOCK = 4096
CHUNK = CHUNK_BYTES_MIN
GROUPS, CHUNKS = 3, 12
SIZE = CHUNKS * CHUNK
BLOCKS = SIZE // BLOCK
FLAGS = sessions.STRUCTURED | sessions.ALLOCATION


class BrokenError(AssertionError):
    """A promise was broken."""


def drain(connection):
    """(what has come, whether that is all that ever will)."""
    data = b""
    while True:
        try:
            piece = connection.recv(1 << 16)
        except BlockingIOError:
            return data, False
        except ConnectionError:
            return data, True
        if not piece:
            return data, True
        data += piece


class Connection:
    """A group's end of one connection."""

    def __init__(self, made):
        self.socket, self.inbox, self.answers = made, b"", b""
        self.socket.setblocking(False)


class Group:
    """One group: its volume, the log of what it took, and its connections. `leads` is the one that it serves."""

    def __init__(self, size, rng):
        self.data, self.rng = np.zeros(size, np.uint8), rng
        self.connections, self.log, self.done = [], [], []
        self.tells_holes = True

    def connect(self):
        ours, theirs = socket.socketpair()
        self.connections.append(Connection(ours))
        return theirs.detach()

    def take(self, connection):
        """Take one whole request, if there is one; the end of the connection is noticed before that."""
        data, is_over = drain(connection.socket)
        if is_over:
            connection.socket.close()
            self.connections.remove(connection)
            self.log = [one for one in self.log if one[0] is not connection or one[1] != nbd.READ]
            return
        connection.inbox += data
        if len(connection.inbox) < nbd.REQUEST_BYTES:
            return
        magic, _, command, cookie, offset, length = nbd.REQUEST.unpack_from(connection.inbox)
        assert magic == nbd.REQUEST_MAGIC and offset + length <= len(self.data)
        size = nbd.REQUEST_BYTES + (length if command == nbd.WRITE else 0)
        if len(connection.inbox) < size:
            return
        payload, connection.inbox = connection.inbox[nbd.REQUEST_BYTES : size], connection.inbox[size:]
        self.log.append((connection, command, cookie, offset, length, payload))

    def apply(self):
        """Complete the oldest request that was taken."""
        connection, command, cookie, offset, length, payload = self.log.pop(0)
        answer = b""
        if command == nbd.WRITE:
            self.data[offset : offset + length] = np.frombuffer(payload, np.uint8)
        elif command in (nbd.TRIM, nbd.WRITE_ZEROES):
            self.data[offset : offset + length] = 0
        if command == nbd.READ:
            answer = self.read(cookie, offset, length)
        elif command == nbd.BLOCK_STATUS:
            answer = nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, nbd.CHUNK_DONE, nbd.CHUNK_BLOCK_STATUS, cookie, 12)
            answer += struct.pack(">III", 7, length, 0 if self.data[offset : offset + length].any() else 3)
        else:
            answer = nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, cookie)
        self.done.append((connection, answer))

    def read(self, cookie, offset, length):
        """In one chunk, or in several, of which holes are."""
        part, at, answer = self.data[offset : offset + length], 0, b""
        while at < length:
            size = length - at if self.rng.random() < 0.6 else self.rng.randint(1, length - at)
            flags = nbd.CHUNK_DONE if at + size == length else 0
            if not part[at : at + size].any() and self.tells_holes:
                answer += nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, flags, nbd.CHUNK_HOLE, cookie, 12)
                answer += struct.pack(">QI", offset + at, size)
            else:
                answer += nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, flags, nbd.CHUNK_DATA, cookie, size + 8)
                answer += struct.pack(">Q", offset + at) + part[at : at + size].tobytes()
            at += size
        return answer

    def answer(self):
        """Lay one complete answer, whichever, and send some of what is laid."""
        if self.done and self.rng.random() < 0.7:
            connection, answer = self.done.pop(self.rng.randrange(len(self.done)))
            connection.answers += answer
        for connection in self.connections:
            if connection.answers:
                try:
                    sent = connection.socket.send(connection.answers[: self.rng.choice([1, 20, 1 << 16])])
                    connection.answers = connection.answers[sent:]
                except (BlockingIOError, ConnectionError):
                    pass

    def die(self, keeps_connections=False):
        """Its primary is killed: the next one has what was answered, and of the rest of the log the beginning, however long."""
        kept = self.rng.randint(0, len(self.log))
        while kept:
            self.apply()
            kept -= 1
        self.done = []
        if keeps_connections:
            return  # It is deposed, and nobody has told its clients: their requests stay where they are.
        self.log = []
        for connection in self.connections:
            connection.socket.close()
        self.connections = []

    def step(self):
        kind = self.rng.random()
        if kind < 0.45 and self.connections:
            self.take(self.rng.choice(self.connections))
        elif kind < 0.75 and self.log:
            self.apply()
        else:
            self.answer()


class Write:
    """A write of whole blocks: when it was asked and when it was answered, by the world's steps."""

    def __init__(self, number, first, count, asked):
        self.number, self.first, self.count, self.asked, self.answered = number, first, count, asked, None


class Client:
    """A client of the router: what it has asked, and what it was answered."""

    def __init__(self, world, flags=FLAGS):
        ours, theirs = socket.socketpair()
        self.world, self.socket, self.inbox, self.outbox = world, ours, b"", b""
        self.socket.setblocking(False)
        self.waiting, self.cookie, self.is_over = {}, 0, False
        self.is_structured = bool(flags & sessions.STRUCTURED)
        world.router.post(rows.CLIENT, descriptor=theirs.detach(), index=0, flags=flags, size_bytes=SIZE)

    def ask(self, command, offset, length, payload=b"", flags=0, about=None):
        self.cookie += 1
        self.outbox += nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, self.cookie, offset, length) + payload
        self.waiting[self.cookie] = [command, offset, length, about, bytearray(length if command == nbd.READ else 0), 0]
        return self.cookie

    def move(self, rng):
        """Send some of what is to be sent, and take what has come."""
        if self.outbox and not self.is_over:
            try:
                sent = self.socket.send(self.outbox[: rng.choice([3, 100, 5000, 1 << 20])])
                self.outbox = self.outbox[sent:]
            except BlockingIOError:
                pass
            except ConnectionError:
                self.is_over = True
        data, over = drain(self.socket)
        self.inbox += data
        while self.take():
            pass
        self.is_over |= over

    def take(self):
        """Take one message that has come whole; False: none has."""
        box = self.inbox
        if len(box) < 16:
            return False
        (magic,) = struct.unpack_from(">I", box)
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            _, error, cookie = nbd.SIMPLE_REPLY.unpack_from(box)
            command, _, length, _, data, _ = self.waiting[cookie]
            assert not (self.is_structured and command in (nbd.READ, nbd.BLOCK_STATUS))
            size = 16 + (length if command == nbd.READ and not error else 0)
            if len(box) < size:
                return False
            data[:] = box[16:size]
            self.inbox = box[size:]
            self.end(cookie, error)
            return True
        assert magic == nbd.STRUCTURED_REPLY_MAGIC and self.is_structured
        if len(box) < 20:
            return False
        _, flags, kind, cookie, size = nbd.CHUNK.unpack_from(box)
        if len(box) < 20 + size:
            return False
        payload, self.inbox = box[20 : 20 + size], box[20 + size :]
        command, offset, length, _, data, got = self.waiting[cookie]
        error = 0
        if kind == nbd.CHUNK_DATA:
            (at,) = struct.unpack_from(">Q", payload)
            assert offset <= at and at + size - 8 <= offset + length
            data[at - offset : at - offset + size - 8] = payload[8:]
            self.waiting[cookie][5] = got = got + size - 8
        elif kind == nbd.CHUNK_HOLE:
            at, hole = struct.unpack(">QI", payload)
            assert offset <= at and at + hole <= offset + length and size == 12
            self.waiting[cookie][5] = got = got + hole
        elif kind == nbd.CHUNK_BLOCK_STATUS:
            assert command == nbd.BLOCK_STATUS and payload[:4] == struct.pack(">I", nbd.BASE_ALLOCATION_ID)
            extents = list(struct.iter_unpack(">II", payload[4:]))
            assert extents and sum(one for one, _ in extents) <= length
        elif kind == nbd.CHUNK_ERROR:
            (error,) = struct.unpack_from(">I", payload)
            assert error
        else:
            assert kind == nbd.CHUNK_NONE and size == 0
        if flags & nbd.CHUNK_DONE:
            assert error or command != nbd.READ or got == length, "a read is over and not whole"
            self.end(cookie, error)
        return True

    def end(self, cookie, error):
        command, offset, length, about, data, _ = self.waiting.pop(cookie)
        self.world.answered(command, offset, length, about, bytes(data), error)


class World:
    """The router, its clients and groups. `fault` is planted."""

    def __init__(self, seed, fault=""):
        self.rng, self.fault, self.now = random.Random(seed), fault, 0
        self.map = map_of(SIZE, CHUNK, GROUPS)
        self.router = router.Router(["/nowhere"] * GROUPS, SIZE, CHUNK, clients=4, chunks=self.map)
        self.router.is_running = True
        self.state, self.at = self.router.state, self.router.state.at[0]
        # One chunk more each: somewhere for a chunk to move to.
        self.groups = [Group((CHUNKS // GROUPS + 1) * CHUNK, self.rng) for _ in range(GROUPS)]
        self.history = [[] for _ in range(BLOCKS)]  # by block: its writes, in the order in which they were asked
        self.writes, self.errors, self.snapshots = 0, 0, 0
        for number in range(GROUPS):
            self.link(number)
        self.clients = [Client(self), Client(self), Client(self, flags=0)]

    def close(self):
        for one in self.clients:
            one.socket.close()
        for group in self.groups:
            for connection in group.connections:
                connection.socket.close()
        self.router.close()

    def link(self, number):
        self.router.post(rows.LINK, descriptor=self.groups[number].connect(), index=number, allocation=7)

    def turn(self):
        assert router_kernel.turn(self.state, 0) == 0

    # What clients do

    def begin_write(self, client):
        first = self.rng.randrange(BLOCKS)
        count = min(self.rng.choice([1, 1, 1, 2, 16, 40]), BLOCKS - first)
        self.write(client, first, count)

    def write(self, client, first, count):
        self.writes += 1
        made = Write(self.writes, first, count, self.now)
        block = struct.pack("<Q", made.number) * (BLOCK // 8)
        for place in range(first, first + count):
            self.history[place].append(made)
        client.ask(nbd.WRITE, first * BLOCK, count * BLOCK, block * count, self.rng.choice([0, nbd.FUA]), made)
        return made

    def begin_read(self, client):
        first = self.rng.randrange(BLOCKS)
        count = min(self.rng.choice([1, 3, 16, 50]), BLOCKS - first)
        flags = nbd.DF if client.is_structured and self.rng.random() < 0.3 else 0
        client.ask(nbd.READ, first * BLOCK, count * BLOCK, flags=flags, about=self.now)

    def begin_other(self, client):
        kind = self.rng.random()
        if kind < 0.4:
            client.ask(nbd.FLUSH, 0, 0)
        elif kind < 0.7 and client.is_structured:
            client.ask(nbd.BLOCK_STATUS, self.rng.randrange(BLOCKS) * BLOCK, BLOCK)
        elif kind < 0.8:
            client.ask(nbd.WRITE, SIZE - 8, 16, bytes(16), about="beyond")
        else:
            client.ask(nbd.CACHE, 0, BLOCK)

    def answered(self, command, offset, length, about, data, error):
        if about == "beyond":
            assert error == nbd.ENOSPC
            return
        if about == "mutated":
            return
        assert not error
        if command == nbd.WRITE:
            about.answered = self.now
        elif command == nbd.READ:
            for place in range(length // BLOCK):
                self.check_block(offset // BLOCK + place, data[place * BLOCK : (place + 1) * BLOCK], about, "a read")

    # What must be so

    def check_block(self, place, data, asked, what):
        """A block that was read shows one write, which no other one had replaced for certain when the read was asked."""
        number = struct.unpack_from("<Q", data)[0]
        if data != struct.pack("<Q", number) * (BLOCK // 8):
            raise BrokenError(f"{what} shows a block {place} that nobody wrote")
        self.check_number(place, number, asked, what)

    def check_number(self, place, number, asked, what):
        shown = next((one for one in self.history[place] if one.number == number), None)
        if number and shown is None:
            raise BrokenError(f"{what} shows write {number} at block {place}, where it never went")
        for other in self.history[place]:
            is_later = shown is None or (shown.answered is not None and shown.answered <= other.asked)
            if other is not shown and is_later and other.answered is not None and other.answered < asked:
                raise BrokenError(f"{what} shows write {number} at block {place}, and write {other.number} was answered after it")

    def numbers(self, volumes, chunks):
        """By block, the write that these volumes show."""
        found = []
        for place in range(BLOCKS):
            chunk, within = divmod(place * BLOCK, CHUNK)
            data = volumes[int(chunks.home[chunk])][int(chunks.seat[chunk]) * CHUNK + within :][:BLOCK].tobytes()
            number = struct.unpack_from("<Q", data)[0]
            if data != struct.pack("<Q", number) * (BLOCK // 8):
                raise BrokenError(f"block {place} is in pieces")
            found.append(number)
        return found

    def check_end(self):
        for place, number in enumerate(self.numbers([group.data for group in self.groups], self.map)):
            self.check_number(place, number, self.now + 1, "the volume at the end")

    # What happens to it

    def fail_over(self, number):
        group = self.groups[number]
        if self.fault == "a resend that overtakes":
            # The old connection is not closed, its server is not gone, and what it has not taken is still to come.
            group.die(keeps_connections=True)
            upstream = self.state.upstream[number]
            if int(upstream.state) == rows.UP:
                spare, _ = socket.socketpair()
                upstream.socket, upstream.wanted = spare.detach(), 0
            self.link(number)
            return
        group.die()
        for _ in range(self.rng.randrange(3)):
            self.turn()
        self.router.post(rows.CUT, index=number)
        self.link(number)

    def settle(self, condition, most=20000):
        for _ in range(most):
            if condition():
                return
            self.step(calm=True)
        raise AssertionError("it does not come to rest")

    def take_snapshot(self):
        """Of all groups, one after the other while the world goes on; answers are held meanwhile."""
        asked = self.now
        if self.fault != "snapshot not at one instant":
            self.at.holds = 1
            self.turn()
            assert int(self.at.held) == 1
        volumes = []
        for number in self.rng.sample(range(GROUPS), GROUPS):
            for _ in range(self.rng.randrange(150)):
                self.step(calm=True, asks=True)  # Whoever is answered may ask for something that depends on it.
            group = self.groups[number]
            while group.log:
                group.apply()  # A snapshot is a record behind them.
            volumes.append((number, group.data.copy()))
        self.at.holds = 0
        self.snapshots += 1
        self.check_snapshot([data for _, data in sorted(volumes, key=lambda one: one[0])], asked)

    def check_snapshot(self, volumes, asked):
        found = self.numbers(volumes, self.map)
        by_number = {one.number: one for place in self.history for one in place}
        newest = max((by_number[number].asked for number in found if number), default=0)
        for place, number in enumerate(found):
            # A write that is in was asked at `newest` at the latest: whatever was answered before that must be in as well.
            self.check_number(place, number, max(newest, asked), "a snapshot")

    def move_chunk(self):
        """One chunk goes to the free place at another group, by a new map."""
        chunk = self.rng.randrange(CHUNKS)
        taken = set(zip(self.map.home.tolist(), self.map.seat.tolist(), strict=True))
        free = [(group, seat) for group in range(GROUPS) for seat in range(CHUNKS // GROUPS + 1) if (group, seat) not in taken]
        home, seat = self.rng.choice(free)
        if self.fault != "chunk served from its old home":
            self.at.fences = 1
            self.settle(lambda: int(self.at.fenced) and int(self.at.parts_open) == 0)
        old = self.groups[int(self.map.home[chunk])].data[int(self.map.seat[chunk]) * CHUNK :][:CHUNK]
        self.groups[home].data[seat * CHUNK : (seat + 1) * CHUNK] = old
        homes, seats = self.map.home.copy(), self.map.seat.copy()
        homes[chunk], seats[chunk] = home, seat
        self.map = self.map._replace(version=self.map.version + 1, home=homes, seat=seats)
        self.router.put_map(self.map)
        self.at.fences = 0

    def spoil_request(self):
        """An answer before all parts."""
        for request in self.state.request:
            if request.used and request.is_split and request.open > 1 and request.command == nbd.WRITE:
                request.open = 1
                return

    # The story

    def step(self, calm=False, asks=False):
        self.now += 1
        rng, kind = self.rng, self.rng.random()
        client = rng.choice(self.clients)
        if kind < 0.12 and len(client.waiting) < 40 and (asks or not calm):
            rng.choice([self.begin_write, self.begin_write, self.begin_read, self.begin_other])(client)
        elif kind < 0.4:
            client.move(rng)
        elif kind < 0.75:
            rng.choice(self.groups).step()
        elif kind < 0.752 and not calm:
            self.fail_over(rng.randrange(GROUPS))
        elif kind < 0.754 and not calm:
            self.take_snapshot()
        elif kind < 0.7545 and not calm:
            self.move_chunk()
        elif kind < 0.7555 and not calm:
            self.replace_client(rng.randrange(len(self.clients)))
        else:
            if self.fault == "an answer before all parts" and rng.random() < 0.1:
                self.spoil_request()
            self.turn()

    def replace_client(self, place):
        """A client is killed in the middle of whatever it does; another one comes."""
        old = self.clients[place]
        old.socket.close()
        self.clients[place] = Client(self, FLAGS if old.is_structured else 0)

    def run(self, steps):
        for _ in range(steps):
            self.step()
        for number in range(GROUPS):
            if not self.groups[number].connections:
                self.link(number)
        self.settle(lambda: not any(one.waiting or one.outbox for one in self.clients))
        self.check_end()
        self.check_rest()

    def check_rest(self):
        """Nobody owes anybody anything: every row is free again."""
        self.settle(lambda: int(self.at.parts_open) == 0)
        for index, client in enumerate(self.clients):
            assert not client.is_over, f"client {index} was hung up on"
        assert (self.state.session["free_parts"] == rows.PARTS).all()
        assert (self.state.session["free_requests"] == rows.REQUESTS).all()
        assert int(self.state.counters[0].lied) == int(self.state.counters[0].hung_up) == 0
