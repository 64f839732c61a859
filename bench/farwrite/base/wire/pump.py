"""The pump: bytes of a replica to the network and back, compressed and sealed on the way, until one of the two hangs up.

One thread, one place to wait. Each direction holds one chunk at most and takes no more before that is gone, so a slow reader is
felt by the writer at the other end, as without a pump. Nothing is held back for company: what one turn has read, it sends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

from ..errors import UnfitError
from .channel import Channel
from .frames import FRAME_BYTES_MAX, Packer, Unpacker

CHUNK_BYTES = FRAME_BYTES_MAX
PARTING_LIMIT_S = 2.0  # For a peer to take what we still have, and to hang up itself.

# What is counted, in memory that outlives the pump.
SENT, RECEIVED, SENT_PLAIN, RECEIVED_PLAIN = range(4)  # bytes: on the network; of the replica
COUNTS = 4

REPLICA_ENDED = "The replica hung up."
PEER_ENDED = "The peer's tunnel ended the connection."
CUT_OFF = "The connection was cut off: the peer's tunnel is gone, or the network between."

GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class End:
    """One of the two sockets: what is waiting to be written to it, and whether it can be waited for."""

    def __init__(self, connection: socket.socket, poller: select.poll, always: int = 0) -> None:
        """`always`: events that are waited for whatever else is."""
        connection.setblocking(False)
        self.connection = connection
        self.poller = poller
        self.room = memoryview(bytearray(CHUNK_BYTES))
        self.waiting = memoryview(b"")
        self.always = self.asked = always
        self.has_hung_up = False  # It will say nothing more; what it has said may still be there.
        self.readable = False
        self.gone = False  # Hung up: poll would answer at once for ever; recv knows what is left.
        poller.register(connection, always)

    def ask(self, reads: bool) -> None:
        """What the next wait is for."""
        events = self.always | (select.POLLIN if reads else 0) | (select.POLLOUT if self.waiting else 0)
        if not self.gone and events != self.asked:
            self.poller.modify(self.connection, events)
            self.asked = events
        self.readable = self.gone

    def hear(self, events: int) -> None:
        """What the wait found."""
        self.readable = bool(events & (select.POLLIN | GONE))
        self.has_hung_up = self.has_hung_up or bool(events & (GONE | select.POLLRDHUP))
        if events & GONE:
            self.gone = True
            self.poller.unregister(self.connection)

    def read(self) -> memoryview | None:
        """What has come, empty when the other side has hung up or is gone; None when nothing is there yet."""
        try:
            return self.room[: self.connection.recv_into(self.room)]
        except BlockingIOError:
            return None
        except OSError:
            return self.room[:0]

    def write(self) -> bool:
        """Have as much of what is waiting taken as there is room for; False when the other side is gone."""
        if self.waiting:
            try:
                self.waiting = self.waiting[self.connection.send(self.waiting) :]
            except BlockingIOError:
                pass
            except OSError:
                return False
        return True


class Pump:
    """Both directions between a replica's socket and the network's."""

    def __init__(self, replica: socket.socket, network: socket.socket, channel: Channel, packer: Packer,
                 unpacker: Unpacker, counts: memoryview, drops: bool = False) -> None:  # fmt: skip
        """`drops`: once the network's end has hung up, nothing more of what it had said is delivered."""
        self.poller = select.poll()
        self.drops = drops
        self.replica, self.network = End(replica, self.poller), End(network, self.poller, select.POLLRDHUP if drops else 0)
        self.ends = {replica.fileno(): self.replica, network.fileno(): self.network}
        self.channel, self.packer, self.unpacker = channel, packer, unpacker
        self.counts = counts
        self.replica_ended = False

    def run(self) -> str:
        """Carry until one side hangs up, bytes are damaged or the key is spent; answers why it ended, as a sentence.

        `finish` is still to be called: the reason is known before the other ends learn of it.
        """
        ending = None
        try:
            self.unpacker.put(self.channel.open(b""))  # What came with the last of the handshake.
            while ending is None:
                self.wait()
                ending = self.inward() or self.outward()
        except UnfitError as refusal:
            ending = str(refusal)
        self.replica_ended = ending == REPLICA_ENDED
        return ending

    def finish(self) -> None:
        """Hang up on both sides, after what is still due to the one that has not."""
        if self.replica_ended:
            self.say_end()
        else:
            self.deliver_rest()

    @property
    def ended(self) -> bool:
        """Whether the peer's tunnel has said that no more will come."""
        return self.unpacker.ended or self.channel.ended

    def wait(self) -> None:
        """Until something can be done."""
        replica, network = self.replica, self.network
        replica.ask(reads=not network.waiting)
        network.ask(reads=not replica.waiting)
        # What is gone is not waited for; what can be done about it is done at once.
        at_once = (
            ((self.unpacker.ready or self.ended) and not replica.waiting)
            or (replica.gone and (bool(replica.waiting) or not network.waiting))
            or (network.gone and (bool(network.waiting) or not replica.waiting))
        )
        for descriptor, events in self.poller.poll(0 if at_once else None):
            self.ends[descriptor].hear(events)

    def inward(self) -> str | None:
        """One step from the network to the replica; why it was the last, if it was."""
        replica, network, unpacker = self.replica, self.network, self.unpacker
        if self.drops and network.has_hung_up:
            return PEER_ENDED
        if not replica.write():
            return REPLICA_ENDED
        if replica.waiting:
            return None
        if self.ended and not unpacker.ready:
            return PEER_ENDED
        if not unpacker.ready and network.readable:
            heard = network.read()
            if heard is not None:
                if not heard:
                    return CUT_OFF
                self.counts[RECEIVED] += len(heard)
                unpacker.put(self.channel.open(heard))
                self.send_soon(self.channel.pending())
        data = unpacker.take()
        if data is None:
            return None
        self.counts[RECEIVED_PLAIN] += len(data)
        replica.waiting = memoryview(data)
        return None if replica.write() else REPLICA_ENDED

    def outward(self) -> str | None:
        """One step from the replica to the network; why it was the last, if it was."""
        replica, network = self.replica, self.network
        if not network.waiting and replica.readable:
            heard = replica.read()
            if heard is not None:
                if not heard:
                    return REPLICA_ENDED
                self.counts[SENT_PLAIN] += len(heard)
                self.send_soon(self.channel.seal(self.packer.pack(heard)))
        return None if network.write() else CUT_OFF

    def send_soon(self, data: bytes | memoryview) -> None:
        """Have it written next. Counted now, so that nobody has what is not counted yet."""
        network = self.network
        if data:
            self.counts[SENT] += len(data)
            # What TLS says of its own accord may find something waiting: seldom, and little.
            network.waiting = memoryview(bytes(network.waiting) + bytes(data)) if network.waiting else memoryview(data)

    def say_end(self) -> None:
        """The replica has hung up: all it had said, then that this was all, as far as the peer takes it in time."""
        last = self.packer.end()
        self.send_soon((bytes(self.channel.seal(last)) if last else b"") + self.channel.end())
        part(self.network.connection, self.network.waiting)

    def deliver_rest(self) -> None:
        """The network has ended: what had come whole before is still the replica's to read."""
        with contextlib.closing(self.replica.connection) as replica, contextlib.suppress(OSError):
            if not self.drops:
                replica.settimeout(PARTING_LIMIT_S)
                replica.sendall(self.replica.waiting)
        part(self.network.connection, self.channel.pending())


def part(connection: socket.socket, last: bytes | memoryview = b"", limit_s: float = PARTING_LIMIT_S) -> None:
    """Close so that the peer can read our last words: not with its own unread, which resets a TCP connection at once."""
    until_s = time.monotonic() + limit_s
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.settimeout(limit_s)
        connection.sendall(last)
        connection.shutdown(socket.SHUT_WR)
        while time.monotonic() < until_s and connection.recv(CHUNK_BYTES):
            pass
