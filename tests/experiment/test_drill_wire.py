"""What a drill's client writes through doors: real blocks, with FUA, held against what was asked. The doors here are Python's."""

import contextlib
import random
import socket
import struct
import threading
import time

import numpy as np
import pytest

from engine.frontend.iscsi import initiator
from farwrite.analysis.drill_recording import INDETERMINATE
from farwrite.base.errors import UnfitError
from farwrite.base.host.libc import aligned_bytes
from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.iscsi import client as iscsi
from farwrite.engine.frontend.iscsi import pdu, sense, target
from farwrite.engine.frontend.nbd_door import nbd_door
from farwrite.engine.frontend.nbd_negotiation import Export
from farwrite.experiment.drill import wire as wires
from farwrite.experiment.drill.client import Client, Load
from farwrite.experiment.drill.ledger import WORDS, Ledger
from farwrite.experiment.drill.wire import LOST, DoorLoad, ElsewhereError, dial_doors
from farwrite.workload import payload_kernel as payload

SIZE, SEED, BLOCKS = 4096, 7, 16


def load_of(kind):
    return DoorLoad(kind, initiator.TARGET, SEED, SIZE)


def found_in(data, block):
    """The number of the write whose block these bytes are, as the audit of a drill finds it."""
    held = aligned_bytes(SIZE)[:SIZE]
    held[:] = np.frombuffer(data, np.uint8)
    number = int(payload.check(held, 0, SIZE, block * SIZE))
    assert number < 0 or payload.matches(held, 0, SIZE, SEED, number, block * SIZE)
    return number


class NbdDoor:
    """An NBD server of one export, in memory. `answers` says which cookies it answers to a request, with their errors."""

    def __init__(self, answers=lambda door, command, cookie: [(cookie, 0)]):
        self.volume, self.requests, self.answers, self.connections = bytearray(BLOCKS * SIZE), [], answers, 0

    def adopt(self, connection, chosen):
        self.connections += 1
        threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError, struct.error), connection, connection.makefile("rb") as stream:
            while True:
                _, flags, command, cookie, offset, length = nbd.REQUEST.unpack(stream.read(nbd.REQUEST_BYTES))
                self.requests.append((command, flags, cookie))
                if command == nbd.WRITE:
                    self.volume[offset : offset + length] = stream.read(length)
                for answered, error in self.answers(self, command, cookie):
                    connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, error, answered))

    def block(self, block):
        return bytes(self.volume[block * SIZE : (block + 1) * SIZE])


@pytest.fixture
def nbd_open():
    """A function that opens a door; answers how to dial it."""
    with contextlib.ExitStack() as stack:

        def opened(door):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.enter_context(nbd_door(listening, [Export("", BLOCKS * SIZE, False, "memory")], door.adopt))
            return dial_doors([listening.getsockname()[:2]], load_of("nbd"))

        yield opened


def heard_of(wire, count):
    """Numbers that were acknowledged, and those that are to be begun anew."""
    acked, again = [], []
    while len(acked) + len(again) < count:
        heard = wire.hear()
        acked += heard.acked
        again += heard.again
    return acked, again


def test_nbd_writes_are_the_blocks_that_the_audit_looks_for_and_every_one_asks_for_fua(nbd_open):
    door = NbdDoor()
    wire = nbd_open(door)(0, False)
    wire.send([(number, number % BLOCKS) for number in range(40)])
    assert heard_of(wire, 40) == (list(range(40)), [])
    assert [found_in(door.block(block), block) for block in range(BLOCKS)] == [*range(32, 40), *range(24, 32)]
    assert door.requests == [(nbd.WRITE, nbd.FUA, number) for number in range(40)]
    assert wire.epoch == 0 and wire.dialled_ns <= wire.connected_ns
    wire.close()


def test_a_door_that_does_not_offer_fua_gets_no_write(nbd_open, monkeypatch):
    door = NbdDoor()
    monkeypatch.setattr(nbd, "TRANSMISSION_FLAGS", nbd.TRANSMISSION_FLAGS & ~nbd.SEND_FUA)
    with pytest.raises(UnfitError, match="no writes with FUA"):
        nbd_open(door)(0, False)
    assert not door.requests


def test_a_door_that_must_prove_itself_answers_a_flush_first(nbd_open, monkeypatch):
    door = NbdDoor()
    dial = nbd_open(door)
    dial(0, True).close()
    assert [command for command, *_ in door.requests] == [nbd.FLUSH]
    monkeypatch.setattr(wires, "ASK_S", 0.1)
    with pytest.raises(LOST):
        nbd_open(NbdDoor(lambda *_: []))(0, True)


def test_an_error_ends_the_wire_behind_what_was_answered_before_it(nbd_open):
    door = NbdDoor(lambda door, command, cookie: [(cookie, nbd.EIO if cookie == 2 else 0)])
    wire = nbd_open(door)(0, False)
    wire.send([(number, 0) for number in range(5)])
    assert heard_of(wire, 2) == ([0, 1], [])
    with pytest.raises(LOST, match="answered error 5"):
        heard_of(wire, 1)


def test_a_wire_that_is_closed_wakes_who_listens_and_sends_nothing_more(nbd_open):
    door = NbdDoor(lambda *_: [])
    wire = nbd_open(door)(0, False)
    ended = []

    def listen():
        with contextlib.suppress(*LOST):
            wire.hear()
        ended.append(True)

    listener = threading.Thread(target=listen)
    listener.start()
    wire.close()
    listener.join(20)
    wire.send([(1, 1)])
    assert ended and not door.requests


def test_a_late_reply_after_a_reconnect_is_counted_and_acknowledges_nothing():
    """A door that answers on a new connection what was asked on the one before, which it had hung up on."""
    firsts = []

    def answers(door, command, cookie):
        if door.connections == 1:
            firsts.append(cookie)
            if len(firsts) == 3:
                raise OSError("hang up")
            return []
        late, firsts[:] = [(one, 0) for one in firsts], []
        return [(cookie, 0), *late]

    door, ledger = NbdDoor(answers), Ledger(np.zeros(WORDS, np.int64))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(nbd_door(listening, [Export("", BLOCKS * SIZE, False, "memory")], door.adopt))
        load = Load(("near",), (listening.getsockname()[:2],), b"", 200.0, 8, tuple(range(BLOCKS - 1)), BLOCKS - 1, 10**9, 10**9,
                    load_of("nbd"))  # fmt: skip
        thread = threading.Thread(target=Client(load, ledger).run)
        thread.start()
        limit_s = time.monotonic() + 20
        while ledger.head.acked < 20 and time.monotonic() < limit_s:
            time.sleep(0.005)
        ledger.head.end = 1
        thread.join(20)
    assert ledger.head.strays >= 1 and ledger.head.connections >= 3 and ledger.head.acked >= 20
    assert ledger.begun["outcome"][:3].tolist() == [INDETERMINATE] * 3


def hostile(data):
    """The address of a server that says these bytes to whoever comes, and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listening:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()[:2]


GREETING = struct.pack(">QQH", nbd.INIT_MAGIC, nbd.OPTION_MAGIC, nbd.FLAG_FIXED_NEWSTYLE)
LOGGED_IN = bytes([pdu.LOGIN_RESPONSE, 0x87]) + bytes(22) + struct.pack(">III", 1, 1, 64) + bytes(12)
READY = pdu.scsi_response(iscsi.READY_TAG, 0, 0, 0, 0, 0, pdu.Numbers(2, 2, 65))


@pytest.mark.parametrize("kind", ["nbd", "iscsi"])
def test_whatever_a_door_says_the_client_ends_with_an_error_that_it_expects(kind, monkeypatch):
    monkeypatch.setattr(wires, "ASK_S", 0.5)
    dice = random.Random(3)
    right = GREETING if kind == "nbd" else LOGGED_IN + READY
    for _ in range(150):
        data = bytearray(right + dice.randbytes(dice.choice((0, 1, 47, 48, 200, 5000))))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        dial = dial_doors([hostile(bytes(data))], load_of(kind))
        with pytest.raises(LOST):
            wire = dial(0, False)
            while True:
                wire.hear()


# iSCSI


def dial_to(portal):
    return dial_doors([("127.0.0.1", 1), portal.address], load_of("iscsi"))


def test_iscsi_writes_are_the_blocks_that_the_audit_looks_for_and_no_more_than_the_window_takes():
    with initiator.target_in_memory(BLOCKS * SIZE) as portal:
        wire = dial_to(portal)(1, True)
        most = wire.room()
        assert 0 < most <= target.COMMAND_WINDOW
        wire.send([(number, number % BLOCKS) for number in range(most)])
        assert wire.room() == 0
        assert sorted(heard_of(wire, most)[0]) == list(range(most))
        wire.send([(100 + number, number) for number in range(BLOCKS)])
        heard_of(wire, BLOCKS)
        wire.close()
        with initiator.Initiator(portal.address, name="iqn.2026-11.org.example:reader") as reader:
            reader.ready()
            assert [found_in(reader.read(8 * block, 8).data, block) for block in range(BLOCKS)] == list(range(100, 100 + BLOCKS))


def test_every_iscsi_write_asks_for_fua():
    client = object.__new__(iscsi.IscsiClient)
    client.command_sn, client.status_sn = 5, 3
    head = client.write(9, 8 * 512, bytes(1024))
    assert head[32] == 0x2A and head[33] == 0x08 and len(head) == 48 + 1024 and head[1] == pdu.FINAL | pdu.WRITE | pdu.SIMPLE
    assert (pdu.word(head, 16), pdu.word(head, 20), pdu.word(head, 24), pdu.word(head, 28)) == (9, 1024, 5, 3)
    assert pdu.word(head, 34) == 8 and head[39:41] == bytes([0, 2])


def test_a_unit_attention_has_the_write_begun_anew_and_ends_nothing():
    with initiator.target_in_memory(BLOCKS * SIZE) as portal:
        wire = dial_to(portal)(1, False)
        portal.target.unit.tell_all(sense.ACCESS_STATE_CHANGED)
        wire.send([(0, 0)])
        assert heard_of(wire, 1) == ([], [0])
        wire.send([(1, 0)])
        assert heard_of(wire, 1) == ([1], [])
        wire.close()


def test_any_other_failure_of_a_write_ends_the_wire():
    with initiator.target_in_memory(BLOCKS * SIZE) as portal:
        wire = dial_to(portal)(1, False)
        wire.send([(0, BLOCKS)])  # Behind the end.
        assert wire.hear().acked == []
        with pytest.raises(LOST, match="refused a write"):
            wire.hear()


@pytest.mark.parametrize(("address", "node"), [("127.0.0.1:1,1", 0), ("192.0.2.1:3260", -1), ("", -1)])
def test_a_portal_that_stands_by_says_where_to_go(address, node):
    with initiator.target_in_memory(BLOCKS * SIZE, redirect=lambda name: address or "x") as portal, pytest.raises(
        ElsewhereError
    ) as elsewhere:
        dial_to(portal)(1, False)
    assert elsewhere.value.node == node


@pytest.mark.parametrize(("header", "page", "said"), [
    (0x10, 0x00, ""), (0x00, 0x00, ""), (0x10, 0x04, ""), (0x00, 0x04, "takes no FUA"), (0x90, 0x00, "may only be read"),
])  # fmt: skip
def test_a_unit_that_caches_writes_must_take_fua(header, page, said):
    data = bytes([23, 0, header, 0, 0x08, 0x12, page]) + bytes(17)
    with pytest.raises(UnfitError, match=said) if said else contextlib.nullcontext():
        iscsi.check_caching(data)


@pytest.mark.parametrize("data", [b"", bytes(3), bytes([0, 0, 0, 200]), bytes([3, 0, 0, 0, 0x0A, 0, 0])])
def test_a_unit_without_a_caching_page_is_not_written_to(data):
    with pytest.raises(UnfitError, match="no caching page"):
        iscsi.check_caching(data)


def test_the_same_initiator_port_that_comes_again_ends_its_older_session_so_nothing_of_it_is_written_behind_the_new_one():
    with initiator.target_in_memory(BLOCKS * SIZE) as portal:
        dial = dial_to(portal)
        old, new = dial(1, False), dial(1, False)
        with pytest.raises(LOST):
            old.hear()
        new.send([(0, 0)])
        assert heard_of(new, 1) == ([0], [])
        new.close()


def test_a_ping_is_answered_by_the_way():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = object.__new__(iscsi.IscsiClient)
        client.socket, client.inbox, client.sending = ours, bytearray(), threading.Lock()
        client.command_sn, client.command_sn_max, client.status_sn = 5, 68, 3
        numbers = pdu.Numbers(9, 5, 70)
        theirs.sendall(pdu.nop_in(pdu.NO_TAG, 0, 77, 0, numbers) + pdu.scsi_response(4, 0, 0, 0, 0, 0, numbers))
        assert [(one.tag, one.status) for one in client.reap()] == [(4, 0)] and client.room(5) == 66
        pong = theirs.recv(100)
        assert len(pong) == 48 and pong[0] == 0x40 and pdu.word(pong, 20) == 77 and pdu.word(pong, 16) == pdu.NO_TAG


