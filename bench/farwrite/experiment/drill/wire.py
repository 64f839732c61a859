"""What a drill's client writes over: a connection to a node's desk, or one to its NBD or iSCSI door.

A wire is found (`Dial`, in a thread), takes writes by number and block, and says which of them the node has answered. At a desk a
write is 16 bytes and the node lays the block; through a door it is the block itself, made here from seed and number as the audit
will check it, written with FUA, and no node of ours knows that it is a drill's. A wire that is closed is broken off: what was not
sent yet is never sent, so that nothing of it can come behind what is written over the next one.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ...base.errors import FarwriteError, UnfitError
from ...base.host.libc import aligned_bytes
from ...base.wire.conversation import Conversation, converse
from ...base.wire.door import hang_up
from ...base.wire.terms import Terms
from ...engine.frontend import nbd
from ...engine.frontend.iscsi import client as iscsi
from ...engine.frontend.iscsi.pdu import ProtocolError
from ...engine.frontend.iscsi.text import TextError
from ...engine.frontend.nbd_client import NbdClient, Place
from ...workload import payload_kernel as payload
from .desk import ACK, LEADING, OPEN_S, WRITE, WRITES_A_MESSAGE

ASK_S = 2.0  # For a node to answer; the others are asked meanwhile.
RECEIVE_BYTES = 64 << 10
UNBOUNDED = 1 << 30  # Commands that a wire without a window takes.
INITIATOR, ISID = "iqn.2026-11.org.farwrite:drill.client", b"\x80\0\0\0\0\1"  # One port: a new session of it ends the old one.
LOST = (FarwriteError, OSError, ProtocolError, TextError)  # What a wire ends with, or is not found for.


class Heard(NamedTuple):
    """What a node has answered: numbers of writes."""

    acked: Sequence[int] = ()
    again: Sequence[int] = ()  # it says that these were not done


class ElsewhereError(UnfitError):
    """This node says which other one serves the volume: its place among the nodes, -1 where it is none of them."""

    def __init__(self, node: int) -> None:
        super().__init__("The volume is served elsewhere.")
        self.node = node


class Wire(Protocol):
    """One connection that writes go over. `hear` is called in a thread of its own; everything else in the client's."""

    epoch: int  # that the node leads in; 0: it did not say
    dialled_ns: int  # when this attempt began
    connected_ns: int  # when TCP was connected
    is_proven: bool  # whether it is known that writes complete there

    def room(self) -> int: ...  # writes that it takes now
    def send(self, writes: Sequence[tuple[int, int]]) -> None: ...  # (number, block) of each
    def hear(self) -> Heard: ...  # waits; one of LOST once it is over
    def close(self) -> None: ...


Dial = Callable[[int, bool], Wire]  # Of a node's place, and whether it must prove first that writes complete there.


class DeskWire:
    """A connection to a node's desk."""

    connected_ns, is_proven = -1, True

    def __init__(self, talk: Conversation, epoch: int, dialled_ns: int) -> None:
        self.talk, self.epoch, self.dialled_ns = talk, epoch, dialled_ns

    def room(self) -> int:
        return WRITES_A_MESSAGE

    def send(self, writes: Sequence[tuple[int, int]]) -> None:
        self.talk.say(b"".join(WRITE.pack(*one) for one in writes))

    def hear(self) -> Heard:
        return Heard([number for (number,) in ACK.iter_unpack(self.talk.hear())])

    def close(self) -> None:
        hang_up(self.talk.connection)


def dial_desks(addresses: Sequence[tuple[str, int]], terms: Terms) -> Dial:
    """Nodes are asked at their desks, which say the epoch."""

    def dial(node: int, proves: bool) -> Wire:
        begin_ns = time.monotonic_ns()
        connection = socket.create_connection(addresses[node], ASK_S)
        try:
            talk = converse(connection, terms, dials=True, limit_s=ASK_S)
            (epoch,) = LEADING.unpack(talk.hear())
            if not epoch:
                raise UnfitError("This node does not lead.")
            talk.renew(OPEN_S)
        except BaseException:
            connection.close()
            raise
        return DeskWire(talk, epoch, begin_ns)

    return dial


# Through doors


class DoorLoad(NamedTuple):
    """What a client must know to write through a door."""

    kind: str  # "nbd" or "iscsi"
    target: str  # name of the iSCSI target
    seed: int
    size_bytes: int  # of a write


class DoorWire(ABC):
    """What both doors have in common: blocks are made and sent in a thread, so a door that reads nothing holds up only itself."""

    epoch = 0

    def __init__(
        self, connection: socket.socket, load: DoorLoad, dialled_ns: int, connected_ns: int, is_proven: bool
    ) -> None:
        self.connection, self.load, self.is_proven = connection, load, is_proven
        self.dialled_ns, self.connected_ns = dialled_ns, connected_ns
        self.block = aligned_bytes(load.size_bytes)[: load.size_bytes]
        self.outbox: queue.SimpleQueue[Sequence[tuple[int, int]] | None] = queue.SimpleQueue()
        self.handed = 0  # writes so far
        connection.settimeout(None)
        threading.Thread(target=self.post, daemon=True).start()

    def room(self) -> int:
        return UNBOUNDED

    def send(self, writes: Sequence[tuple[int, int]]) -> None:
        self.handed += len(writes)
        self.outbox.put(writes)

    def post(self) -> None:
        """In a thread: the requests, one behind the other."""
        try:
            while (writes := self.outbox.get()) is not None:
                self.put(b"".join(self.request(number, block * self.load.size_bytes) for number, block in writes))
        except OSError:
            iscsi.break_off(self.connection)  # Who listens is woken by it.

    def put(self, data: bytes) -> None:
        self.connection.sendall(data)

    def data_of(self, number: int, address: int) -> memoryview:
        """The block of a write; as long as no other is asked for."""
        payload.fill(self.block, 0, self.load.size_bytes, self.load.seed, number, address)
        return self.block.data

    @abstractmethod
    def request(self, number: int, address: int) -> bytes:
        """The bytes that ask for this write."""

    def close(self) -> None:
        iscsi.break_off(self.connection)
        self.outbox.put(None)


class NbdWire(DoorWire):
    """A connection to an NBD door: simple replies, a write's number its cookie."""

    def __init__(self, client: NbdClient, load: DoorLoad, dialled_ns: int, is_proven: bool) -> None:
        self.inbox, self.failed = bytearray(), 0
        super().__init__(client.socket, load, dialled_ns, client.connected_ns, is_proven)

    def request(self, number: int, address: int) -> bytes:
        size = self.load.size_bytes
        header = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, nbd.FUA, nbd.WRITE, number, address, size)
        return b"".join((header, self.data_of(number, address)))

    def hear(self) -> Heard:
        """The next answers. An error ends the wire: what became of that write is not known."""
        while not self.failed:
            acked, size = [], len(self.inbox) // nbd.SIMPLE_REPLY_BYTES * nbd.SIMPLE_REPLY_BYTES
            for magic, error, cookie in nbd.SIMPLE_REPLY.iter_unpack(self.inbox[:size]):
                self.failed = nbd.EINVAL if magic != nbd.SIMPLE_REPLY_MAGIC else error
                if self.failed:
                    break
                acked.append(cookie)
            del self.inbox[:size]
            if acked:
                return Heard(acked)
            piece = b"" if self.failed else self.connection.recv(RECEIVE_BYTES)
            if not piece:
                break
            self.inbox += piece
        raise ConnectionResetError(f"the door has hung up, or answered error {self.failed}")


class IscsiWire(DoorWire):
    """A session at an iSCSI door: a write's number its task tag."""

    def __init__(self, client: iscsi.IscsiClient, load: DoorLoad, dialled_ns: int, is_proven: bool) -> None:
        self.client, self.first_sn, self.is_over = client, client.command_sn, False
        super().__init__(client.socket, load, dialled_ns, client.connected_ns, is_proven)

    def room(self) -> int:
        handed_sn = (self.first_sn + self.handed) & 0xFFFFFFFF
        return self.client.room(handed_sn)

    def put(self, data: bytes) -> None:
        self.client.send(data)

    def request(self, number: int, address: int) -> bytes:
        return self.client.write(number, address, self.data_of(number, address))

    def hear(self) -> Heard:
        """The next answers. A unit attention says that a write was not done; any other failure ends the wire."""
        if self.is_over:
            raise ConnectionResetError("the door has refused a write")
        acked, again = [], []
        for one in self.client.reap():
            if one.status == iscsi.GOOD:
                acked.append(one.tag)
            elif one.is_unit_attention:
                again.append(one.tag)
            else:
                self.is_over = True
                break
        return Heard(acked, again)


def dial_doors(addresses: Sequence[tuple[str, int]], load: DoorLoad) -> Dial:
    """Nodes are asked by connecting to their doors, which only the one that leads has open.

    One that must prove itself answers a flush first, which waits for every write that is under way there: a primary that cannot
    complete writes any more lets clients in and does not answer it.
    """
    places = {f"{host}:{port}": node for node, (host, port) in enumerate(addresses)}

    def dial_nbd(node: int, proves: bool) -> Wire:
        begin_ns = time.monotonic_ns()
        client = NbdClient(Place(addresses[node]), limit_s=ASK_S)
        try:
            if not client.flags & nbd.SEND_FUA or client.flags & nbd.IS_READ_ONLY:
                raise UnfitError(f"{client.place.uri} takes no writes with FUA, so nobody knows when they are durable.")
            if proves:
                client.flush()
        except BaseException:
            client.socket.close()
            raise
        return NbdWire(client, load, begin_ns, proves)

    def dial_iscsi(node: int, proves: bool) -> Wire:
        begin_ns = time.monotonic_ns()
        try:
            client = iscsi.IscsiClient(addresses[node], INITIATOR, load.target, ISID, ASK_S)
        except iscsi.MovedError as moved:
            raise ElsewhereError(places.get(moved.address.partition(",")[0], -1)) from moved
        try:
            if proves:
                client.flush(ASK_S)
        except BaseException:
            client.close()
            raise
        return IscsiWire(client, load, begin_ns, proves)

    return dial_nbd if load.kind == "nbd" else dial_iscsi
