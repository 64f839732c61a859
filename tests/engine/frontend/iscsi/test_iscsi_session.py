"""Sessions of the iSCSI target, over loopback: data by every way that was agreed on, tasks that end early, sessions that end."""

import socket
import threading
import time
from pathlib import Path

import pytest
from initiator import BLOCK, KEYS, NAME, TARGET, Initiator, header, target_in_loop, target_in_memory

from farwrite.base.errors import UsageError
from farwrite.engine.frontend.iscsi import (
    engine_volume,
    pages,
    pdu,
    portal,
    reservation,
    scsi,
    sense,
    session,
    store,
    target,
    volume,
)  # fmt: skip
from farwrite.engine.frontend.iscsi.chap import Credentials
from farwrite.engine.frontend.iscsi.text import pairs_of, text_of
from served import until


def pattern(size, seed=1):
    return bytes((at * 31 + seed) & 0xFF for at in range(251)) * (size // 251 + 1)


@pytest.fixture(scope="module", params=["python", "loop"])
def opened(request):
    """Everything that is promised holds with Python alone, and with the loop in front of it."""
    with (target_in_loop if request.param == "loop" else target_in_memory)() as made:
        yield made


@pytest.fixture(scope="module")
def in_python():
    with target_in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def in_loop():
    with target_in_loop() as made:
        yield made


@pytest.fixture
def host(opened):
    with Initiator(opened.address) as one:
        yield one.ready()


# Data.


@pytest.mark.parametrize(("size", "readies"), [(4096, 0), (65536, 0), (262144, 0), (262144 + 512, 1), (1 << 20, 1), (4 << 20, 1)])
def test_a_write_of_256_kib_takes_one_trip_and_a_larger_one_two(host, size, readies):
    data = pattern(size)[:size]
    assert host.write(8, data).is_good
    assert host.ready_counts[-1] == readies
    assert host.read(8, size // BLOCK).data == data


@pytest.mark.parametrize("keys", [
    {"ImmediateData": "No"}, {"InitialR2T": "Yes"}, {"InitialR2T": "Yes", "ImmediateData": "No"},
    {"FirstBurstLength": "512", "MaxBurstLength": "512"}, {"MaxRecvDataSegmentLength": "512"},
    {"MaxBurstLength": "65536", "MaxOutstandingR2T": "1"}, {"MaxBurstLength": "4096", "InitialR2T": "Yes"},
    {"HeaderDigest": "CRC32C"}, {"DataDigest": "CRC32C"}, {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C", "InitialR2T": "Yes"},
])  # fmt: skip
def test_data_is_whole_by_every_way_that_was_agreed_on(opened, keys):
    with Initiator(opened.address) as one:
        one.log_in(KEYS | keys)
        one.command(bytes(6))
        for number, size in enumerate((512, 1024, 8192, 70144)):
            data = pattern(size, number)[:size]
            assert one.write(100, data).is_good
            assert one.read(100, size // BLOCK).data == data


def test_unsolicited_data_may_follow_in_pdus_of_its_own(host):
    data = pattern(200_704)[:200_704]
    assert host.write(0, data, immediate_bytes=4096).is_good
    assert host.write(392, data, immediate_bytes=0).is_good
    assert host.ready_counts[-2:] == [0, 0]
    assert host.read(0, 784).data == data + data


def test_as_many_bursts_are_asked_for_at_once_as_was_agreed_on(opened):
    with Initiator(opened.address) as one:
        one.log_in(KEYS | {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "4096", "MaxOutstandingR2T": "3"})
        one.command(bytes(6))
        tag = one.request(bytes([0x2A]) + bytes(7) + bytes([64, 0]), b"x" * 32768, immediate_bytes=0)
        asked = [one.receive() for _ in range(3)]
        assert [answer.opcode for answer in asked] == [pdu.R2T] * 3
        assert [pdu.word(answer.header, 36) for answer in asked] == [0, 1, 2]
        assert [pdu.word(answer.header, 40) for answer in asked] == [0, 4096, 8192]
        one.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.receive()
        one.socket.settimeout(20)
        for answer in asked:
            one.data_out(tag, answer.transfer_tag, b"x" * 32768, pdu.word(answer.header, 40), 4096)
        assert one.outcome(tag, b"x" * 32768).is_good


@pytest.mark.parametrize("numbers", [[0, 0], [1, 0], [27, 28], [0xFFFFFFFF, 0]])
def test_data_out_of_order_ends_the_command_and_changes_nothing(in_python, numbers):
    host = Initiator(in_python.address).ready()
    assert host.write(50, bytes(131072)).is_good
    data = b"x" * 131072
    tag = host.request(bytes([0x2A, 0, 0, 0, 0, 50, 0, 1, 0, 0]), data, flags=pdu.WRITE | 1)
    assert tag  # Immediate data was sent whole; what follows it is out of order.
    host.data_out(tag, 0xFFFFFFFF, data, 0, 131072, 65536, numbers)
    assert host.outcome(tag, data).key == sense.ABORTED_COMMAND
    assert host.read(50, 256).data == bytes(131072)


@pytest.mark.parametrize("numbers", [[0, 0], [1, 0], [0xFFFFFFFF, 0]])
def test_data_out_of_order_ends_the_command_where_the_loop_has_it(in_loop, numbers):
    with Initiator(in_loop.address) as host:
        host.ready()
        data = b"x" * 131072
        write = bytes([0x2A, 0, 0, 0, 0, 50, 0, 1, 0, 0])
        tag = host.request(write, data, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
        host.data_out(tag, 0xFFFFFFFF, data, 0, 131072, 65536, numbers)
        assert host.outcome(tag, data).code == 0x4705
        assert host.command(bytes(6)).is_good


def test_more_data_than_was_agreed_on_ends_the_connection(opened):
    with Initiator(opened.address) as one:
        one.log_in(KEYS | {"FirstBurstLength": "1024"})
        one.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 8, 0]), b"x" * 4096, immediate_bytes=4096)
        answer = one.receive()
        assert answer.opcode == pdu.REJECT and len(answer.data) == 48
        with pytest.raises((EOFError, ConnectionResetError)):
            one.receive()


@pytest.mark.parametrize(("expected", "flags", "residual"), [
    (8192, 0, 0), (10000, pdu.UNDERFLOW, 10000 - 8192), (200, pdu.OVERFLOW, 8192 - 200), (0, pdu.OVERFLOW, 8192),
])  # fmt: skip
def test_a_read_tells_what_it_moved_beside_what_was_expected(host, expected, flags, residual):
    outcome = host.command(bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 16, 0]), expected=expected, reads=1)
    assert (outcome.status, outcome.flags, outcome.residual) == (0, flags, residual)
    assert len(outcome.data) == min(expected, 8192)


def test_a_write_moves_no_more_than_both_sides_mean_to(host):
    assert host.write(0, b"a" * 1024).is_good
    outcome = host.command(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"b" * 1024)
    assert (outcome.status, outcome.flags, outcome.residual) == (0, pdu.UNDERFLOW, 512)
    outcome = host.command(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 3, 0]), b"c" * 512)
    assert (outcome.status, outcome.flags, outcome.residual) == (0, pdu.OVERFLOW, 1024)
    assert host.read(0, 2).data == b"c" * 512 + b"a" * 512
    outcome = host.command(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"d" * 200)
    assert (outcome.key, outcome.code, outcome.flags) == (sense.ILLEGAL_REQUEST, 0x0E03, pdu.OVERFLOW)
    assert host.read(0, 1).data == b"c" * 512


def test_many_commands_at_once_are_all_answered(host):
    tags = {host.request(bytes([0x2A, 0, 0, 0, 0, number, 0, 0, 1, 0]), bytes([number]) * 512): number for number in range(60)}
    for _ in range(60):
        tags.pop(host.receive().tag)
    assert not tags
    assert host.read(0, 60).data == b"".join(bytes([number]) * 512 for number in range(60))
    assert host.window == target.COMMAND_WINDOW


# Order.


def test_commands_outside_of_the_window_are_ignored_and_early_ones_wait(in_python):
    host = Initiator(in_python.address).ready()
    sn = host.command_sn
    for wrong in (sn - 1, sn + target.COMMAND_WINDOW, sn + 2**31):
        host.command_sn = wrong & 0xFFFFFFFF
        host.request(bytes(6))
    host.command_sn = sn + 1
    later = host.request(bytes(6))
    host.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        host.receive()
    host.socket.settimeout(20)
    host.command_sn = sn
    first = host.request(bytes(6))
    assert [host.receive().tag, host.receive().tag] == [first, later]
    host.command_sn = sn + 2


def test_commands_outside_of_the_window_are_ignored_by_the_loop(in_loop):
    with Initiator(in_loop.address) as host:
        host.ready()
        sn = host.command_sn
        for wrong in (sn - 1, sn + target.COMMAND_WINDOW, sn + 2**31):
            for cdb, data in ((bytes(6), b""), (bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"x" * 512)):
                host.command_sn = wrong & 0xFFFFFFFF
                host.request(cdb, data)
        host.command_sn = sn
        assert host.write(0, b"y" * 512).is_good and host.read(0, 1).data == b"y" * 512


def test_an_immediate_command_takes_no_number(host):
    before = host.command_sn
    assert host.command(bytes(6), is_immediate=True).is_good
    assert host.command(bytes(6)).is_good
    assert host.command_sn == before + 1


@pytest.mark.parametrize("attribute", [0, 1, 2, 3])
def test_commands_of_every_attribute_are_done(host, attribute):
    write = bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    tags = [host.request(write, bytes([number]) * 512, attribute=attribute) for number in range(5)]
    assert sorted(host.receive().tag for _ in tags) == tags


def test_a_ping_comes_back_with_its_data(host):
    words = (0xFFFFFFFF, host.command_sn, 0, 0, 0, 0, 0)
    host.send(header(pdu.NOP_OUT, data=b"ping", tag=99, words=words, immediate=True), b"ping")
    answer = host.receive()
    assert (answer.opcode, answer.tag, answer.data) == (pdu.NOP_IN, 99, b"ping")


def test_who_is_silent_is_asked_whether_he_is_there(opened, monkeypatch):
    monkeypatch.setattr(session, "QUIET_S", 0.2)
    with Initiator(opened.address, isid=b"\x80quiet") as one:
        one.log_in()
        ping = one.receive()
        assert (ping.opcode, ping.tag) == (pdu.NOP_IN, 0xFFFFFFFF)
        words = (ping.transfer_tag, one.command_sn, one.expected_status_sn, 0, 0, 0, 0)
        one.send(header(pdu.NOP_OUT, tag=0xFFFFFFFF, words=words, immediate=True))
        assert one.receive().opcode == pdu.NOP_IN  # Asked anew, so the answer was heard.
        with pytest.raises((EOFError, ConnectionResetError)):
            one.receive()


# Task management, with a volume that does not answer until it is let.


class SlowVolume(volume.FileVolume):
    """Answers operations once `release` is called."""

    def __init__(self, inner):
        super().__init__(inner.descriptor, inner.bytes)
        self.is_durable = False
        self.channels = []

    def open(self):
        channel = SlowChannel(self)
        self.channels.append(channel)
        return channel

    def release(self):
        for channel in self.channels:
            channel.release()


class SlowChannel(volume.SimpleChannel):
    def __init__(self, slow):
        super().__init__(slow)
        self.held, self.ours = [], socket.socketpair()

    def fileno(self):
        return self.ours[0].fileno()

    def submit(self, tag, operation):
        self.held.append((tag, operation))

    def release(self):
        held, self.held = self.held, []
        self.done += [(tag, self.volume.perform(operation)) for tag, operation in held]
        self.ours[1].send(b"!")

    def reap(self):
        done = super().reap()
        if done:
            self.ours[0].recv(64)
        return done


@pytest.fixture
def slow():
    with volume.memory_volume(1 << 20) as inner:
        disk = SlowVolume(inner)
        unit = scsi.LogicalUnit(disk, pages.Identification(7, TARGET))
        with portal.portal(target.Target(TARGET, unit)) as opened:
            yield disk, opened
            disk.release()


def held(disk, count):
    for _ in range(500):
        if sum(len(channel.held) for channel in disk.channels) == count:
            return
        time.sleep(0.01)
    raise AssertionError("the operations did not arrive")


def test_a_task_that_is_aborted_is_not_answered_and_the_abort_waits_for_what_is_under_way(slow):
    disk, opened = slow
    with Initiator(opened.address) as one:
        one.ready()
        tag = one.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"x" * 512)
        held(disk, 1)
        abort = one.manage(session.ABORT_TASK, tag)
        one.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.receive()
        one.socket.settimeout(20)
        disk.release()
        answer = one.receive()
        assert (answer.opcode, answer.tag, answer.header[2]) == (pdu.TASK_MANAGEMENT_RESPONSE, abort, session.DONE)
        assert one.command(bytes(6)).is_good
        again = one.manage(session.ABORT_TASK, tag)
        answer = one.receive()
        assert (answer.tag, answer.header[2]) == (again, session.NO_TASK)


def test_a_reset_ends_the_tasks_of_every_session_and_tells_all(slow):
    disk, opened = slow
    with Initiator(opened.address) as one, Initiator(opened.address, NAME + "2") as other:
        one.ready()
        other.ready()
        one.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"x" * 512)
        other.request(bytes([0x2A, 0, 0, 0, 0, 1, 0, 0, 1, 0]), b"y" * 512)
        held(disk, 2)
        tag = one.manage(session.RESET_UNIT)
        time.sleep(0.1)
        disk.release()
        answer = one.receive()
        assert (answer.opcode, answer.tag, answer.header[2]) == (pdu.TASK_MANAGEMENT_RESPONSE, tag, session.DONE)
        for each in (one, other):
            assert each.command(bytes(6)).code == 0x2903
            assert each.command(bytes(6)).is_good


def test_a_cold_reset_ends_every_session_once_it_is_answered(opened):
    with Initiator(opened.address) as one, Initiator(opened.address, NAME + "2") as other:
        one.ready()
        other.ready()
        one.manage(session.COLD_RESET)
        assert one.receive().opcode == pdu.TASK_MANAGEMENT_RESPONSE
        for each in (one, other):
            with pytest.raises((EOFError, ConnectionResetError)):
                each.receive()


@pytest.mark.parametrize(("function", "lun", "response"), [
    (session.REASSIGN, 0, session.NO_REASSIGNMENT), (session.CLEAR_ACA, 0, session.NOT_SUPPORTED), (20, 0, session.NOT_SUPPORTED),
    (session.RESET_UNIT, 3, session.NO_UNIT), (session.ABORT_TASK_SET, 0, session.DONE),
    (session.CLEAR_TASK_SET, 0, session.DONE),
])  # fmt: skip
def test_functions_that_there_are_not_are_refused(host, function, lun, response):
    host.manage(function, lun=lun)
    assert host.receive().header[2] == response


# Sessions.


def test_an_initiator_port_that_logs_in_anew_ends_its_older_session_first(slow):
    disk, opened = slow
    with Initiator(opened.address) as one, Initiator(opened.address) as again:
        one.ready()
        one.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"x" * 512)
        held(disk, 1)
        begun = threading.Thread(target=again.log_in)
        begun.start()
        time.sleep(0.2)
        assert begun.is_alive()  # What the older one has under way ends before.
        disk.release()
        begun.join(10)
        assert not begun.is_alive()
        with pytest.raises((EOFError, ConnectionResetError)):
            one.receive()


def test_several_sessions_are_paths_to_one_disk_and_a_second_connection_is_declined(opened):
    with Initiator(opened.address) as one, Initiator(opened.address, isid=b"\x80\0\0\0\0\2") as path:
        one.ready()
        path.ready()
        assert one.write(5, b"p" * 512).is_good
        assert path.read(5, 1).data == b"p" * 512
        ids = [each.command(bytes([0x12, 1, 0x83, 0, 255, 0]), reads=255).data for each in (one, path)]
        assert ids[0] == ids[1]
        with Initiator(opened.address) as third:
            status, _, _ = third.login_request({"InitiatorName": NAME, "TargetName": TARGET}, session=1)
            assert status == 0x0206
        with Initiator(opened.address, isid=b"\x80\0\0\0\0\3") as third:
            status, _, _ = third.login_request({"InitiatorName": NAME, "TargetName": TARGET}, session=999)
            assert status == 0x020A


def test_a_discovery_session_tells_targets_and_takes_no_commands(opened):
    with Initiator(opened.address) as one:
        one.log_in({}, kind="Discovery")
        data = text_of({"SendTargets": "All"})
        words = (0xFFFFFFFF, one.command_sn, one.expected_status_sn, 0, 0, 0, 0)
        one.send(header(pdu.TEXT, data=data, words=words, tag=5), data)
        told = pairs_of(one.receive().data)
        assert told == {"TargetName": TARGET, "TargetAddress": f"127.0.0.1:{opened.address[1]},1"}
        one.command_sn += 1
        one.request(bytes(6))
        assert one.receive().opcode == pdu.REJECT


def test_a_logout_is_answered_and_ends_the_session(opened):
    with Initiator(opened.address) as one:
        one.ready()
        one.send(header(pdu.LOGOUT, 0x80, tag=7, words=(0, one.command_sn, 0, 0, 0, 0, 0)))
        answer = one.receive()
        assert (answer.opcode, answer.header[2]) == (pdu.LOGOUT_RESPONSE, 0)
        with pytest.raises((EOFError, ConnectionResetError)):
            one.receive()


def test_whoever_hears_that_it_has_logged_out_holds_nothing_any_more(opened, monkeypatch):
    unit, held = opened.target.unit, []
    made = pdu.logout_response

    def noted(*words):
        held.append((dict(unit.nexuses), unit.reservations.reserved_6))
        return made(*words)

    monkeypatch.setattr(pdu, "logout_response", noted)
    with Initiator(opened.address) as one:
        one.ready()
        assert one.command(bytes([0x16, 0, 0, 0, 0, 0])).is_good
        assert unit.reservations.reserved_6
        one.send(header(pdu.LOGOUT, 0x80, tag=7, words=(0, one.command_sn, 0, 0, 0, 0, 0)))
        assert one.receive().opcode == pdu.LOGOUT_RESPONSE
    assert held == [({}, "")]


def test_a_wrong_digest_is_noticed(opened):
    with Initiator(opened.address) as one:
        one.log_in(KEYS | {"DataDigest": "CRC32C"})
        one.command(bytes(6))
        data = b"x" * 512
        words = (512, one.command_sn, one.expected_status_sn, 0, 0, 0, 0)
        head = header(pdu.SCSI_COMMAND, 0xA1, data, tag=50, words=words)[:32]
        head += bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]) + bytes(6)
        one.send(head, data, digests=False)
        one.socket.sendall(b"\1\2\3\4")
        answer = one.receive()
        assert (answer.opcode, answer.header[2]) == (pdu.REJECT, pdu.REASON_DATA_DIGEST)


def test_a_header_that_does_not_match_its_digest_ends_the_connection(opened):
    """Nothing in it can be believed, not even where the next one begins."""
    with Initiator(opened.address) as one:
        one.log_in(KEYS | {"HeaderDigest": "CRC32C"})
        one.command(bytes(6))
        words = (0xFFFFFFFF, one.command_sn, one.expected_status_sn, 0, 0, 0, 0)
        one.send(header(pdu.NOP_OUT, 0x80, b"", tag=50, words=words), digests=False)
        one.socket.sendall(b"\1\2\3\4")
        with pytest.raises((EOFError, ConnectionResetError)):
            one.receive()


def test_a_session_ends_with_its_reservation_6_and_keeps_its_registration(opened):
    register = bytes([0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0])
    with Initiator(opened.address) as one:
        one.ready()
        assert one.command(bytes([0x16, 0, 0, 0, 0, 0])).is_good
        with Initiator(opened.address, NAME + "2") as other:
            other.ready()
            assert other.read(0, 1).status == sense.RESERVATION_CONFLICT
    with Initiator(opened.address) as one:
        one.ready()
        assert one.command(register, bytes(8) + (77).to_bytes(8, "big") + bytes(8)).is_good
    with Initiator(opened.address) as one:
        one.ready()
        keys = one.command(bytes([0x5E, 0, 0, 0, 0, 0, 0, 0, 255, 0]), reads=255).data
        assert int.from_bytes(keys[8:16], "big") == 77
        assert one.command(register, bytes(24)).is_good


# Who is let in, and how long.


def test_who_does_not_log_in_in_time_is_hung_up_on():
    with target_in_memory(1 << 20, login_s=1.0) as opened, socket.create_connection(opened.address, timeout=5) as stranger:
        begun = time.monotonic()
        for _ in range(150):
            try:
                stranger.send(b"\x43")
                time.sleep(0.02)
            except OSError:
                break
        assert stranger.recv(1) == b"" if time.monotonic() - begun > 3 else True
        with Initiator(opened.address) as one:
            one.ready()


def test_a_portal_is_closed_while_somebody_comes(monkeypatch):
    """The thread of who comes was found before it had started: the portal of a site that stands by is closed as the site begins
    to lead, while initiators try it, and the replica ended with "cannot join thread before it is started"."""
    closed = []

    def close():
        try:
            opened.close()
            closed.append(True)
        except RuntimeError as failure:
            closed.append(failure)

    class Slow(threading.Thread):
        def start(self):
            closer.start()
            time.sleep(0.05)
            super().start()

    closer = threading.Thread(target=close)
    with target_in_memory(1 << 20) as opened:
        monkeypatch.setattr(portal.threading, "Thread", Slow)
        with socket.create_connection(opened.address, timeout=5) as stranger:
            assert stranger.recv(1) == b""
            monkeypatch.undo()
            closer.join(20)
    assert closed == [True]


def test_of_too_many_strangers_the_oldest_goes_and_the_honest_get_in():
    with target_in_memory(1 << 20) as opened:
        strangers = [socket.create_connection(opened.address, timeout=5) for _ in range(portal.STRANGERS_MAX + 10)]
        with Initiator(opened.address) as one:
            one.ready()
        assert strangers[0].recv(1) == b""
        for stranger in strangers:
            stranger.close()


def test_sessions_are_not_without_bound(monkeypatch):
    monkeypatch.setattr(target, "SESSIONS_MAX", 3)
    with target_in_memory(1 << 20) as opened:
        hosts = [Initiator(opened.address, isid=b"\x80\0\0\0\1" + bytes([number])) for number in range(4)]
        for host in hosts[:3]:
            host.ready()
        status, _, _ = hosts[3].login_request({"InitiatorName": NAME, "TargetName": TARGET})
        assert status == 0x0302
        for host in hosts:
            host.socket.close()


def test_a_portal_beyond_loopback_asks_for_proof(tmp_path):
    with volume.memory_volume(1 << 20) as disk:
        unit = scsi.LogicalUnit(disk, pages.Identification(7, TARGET))
        with pytest.raises(UsageError, match="CHAP name and secret"):
            portal.require_protection("10.1.2.3", target.Target(TARGET, unit))
        portal.require_protection("127.0.0.5", target.Target(TARGET, unit))
        portal.require_protection("10.1.2.3", target.Target(TARGET, unit), in_lab=True)
        portal.require_protection("10.1.2.3", target.Target(TARGET, unit, credentials=Credentials({"a": b"a long secret"})))


def test_a_reader_that_stops_holds_up_itself_and_nobody_else(opened):
    with Initiator(opened.address) as one, Initiator(opened.address, NAME + "2") as other:
        one.ready()
        other.ready()
        for _ in range(60):
            one.request(bytes([0x28, 0, 0, 0, 0, 0, 0, 0x20, 0, 0]), reads=4 << 20)  # 240 MiB that nobody takes
        for _ in range(20):
            assert other.write(0, b"z" * 4096).is_good
        session_of = next(member for member in opened.target.members() if member.identity.initiator == NAME)
        assert session_of.out_bytes < 3 * session.OUTBOX_BYTES_MAX


# The loop.


def test_the_loop_does_reads_and_writes_and_python_the_rest(in_loop):
    with Initiator(in_loop.address) as host:
        host.ready()
        before = [int(in_loop.served.counters[name]) for name in ("writes", "reads")]
        for number in range(10):
            assert host.write(number * 8, bytes([number]) * 4096).is_good
            assert host.read(number * 8, 8).data == bytes([number]) * 4096
        assert host.command(bytes([0x35])).is_good
        assert host.command(bytes([0x12, 0, 0, 0, 96, 0]), reads=96).is_good
        assert [int(in_loop.served.counters[name]) for name in ("writes", "reads")] == [before[0] + 10, before[1] + 10]
        member = in_loop.target.members()[0]
        assert member.is_relayed and not member.tasks


def test_a_write_is_answered_once_it_is_complete_and_its_flush_with_it(in_loop):
    with Initiator(in_loop.address) as host:
        host.ready()
        in_loop.served.stall()
        try:
            tags = [host.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"q" * 512), host.request(bytes([0x35]))]
            host.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                host.receive()
            host.socket.settimeout(20)
        finally:
            in_loop.served.release()
        assert [host.receive().tag for _ in tags] == tags


def test_a_closed_gate_keeps_the_loop_from_what_python_forbids(in_loop):
    with Initiator(in_loop.address) as host, Initiator(in_loop.address, NAME + "2") as other:
        host.ready()
        other.ready()
        assert other.write(3, b"o" * 512).is_good
        assert host.command(bytes([0x16, 0, 0, 0, 0, 0])).is_good  # RESERVE(6)
        assert other.write(3, b"n" * 512).status == sense.RESERVATION_CONFLICT
        assert other.read(3, 1).status == sense.RESERVATION_CONFLICT
        assert host.read(3, 1).data == b"o" * 512
        assert host.command(bytes([0x17, 0, 0, 0, 0, 0])).is_good
        assert other.write(3, b"n" * 512).is_good
        host.manage(session.RESET_UNIT)
        assert host.receive().opcode == pdu.TASK_MANAGEMENT_RESPONSE
        assert other.write(3, b"m" * 512).code == 0x2903
        assert other.write(3, b"m" * 512).is_good


def test_a_reset_ends_writes_whose_data_the_loop_waits_for(in_loop):
    with Initiator(in_loop.address) as host, Initiator(in_loop.address, NAME + "2") as other:
        host.ready()
        other.ready()
        write = bytes([0x2A, 0, 0, 0, 0, 90, 0, 0, 64, 0])
        tag = other.request(write, b"w" * 32768, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
        time.sleep(0.1)
        host.manage(session.RESET_UNIT)
        assert host.receive().opcode == pdu.TASK_MANAGEMENT_RESPONSE
        other.data_out(tag, 0xFFFFFFFF, b"w" * 32768, 0, 32768)
        assert other.command(bytes(6)).code == 0x2903
        assert other.read(90, 64).data != b"w" * 32768


@pytest.fixture
def stalled(in_loop):
    """The target with its writes held up, and what releases them; released in the end at any rate."""
    in_loop.served.stall()
    try:
        yield in_loop
    finally:
        in_loop.served.release()


def hears_nothing(host, limit_s=0.15):
    """Whether nothing comes for a while."""
    host.socket.settimeout(limit_s)
    try:
        host.receive()
    except TimeoutError:
        return True
    finally:
        host.socket.settimeout(20)
    return False


def logged_in(address, number=1):
    """An initiator that has heard its unit attention, whatever is held up."""
    return Initiator(address, isid=b"\x80\0\0\0\6" + bytes([number])).ready()


ONE_BLOCK = bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0])


def test_a_comparison_that_fails_is_told_once_what_it_was_held_against_is_complete(stalled):
    """Told sooner, it might speak of a write that no later primary has."""
    with logged_in(stalled.address, 1) as host, logged_in(stalled.address, 2) as other:
        staged = int(stalled.served.journal.at[0].staged_sequence)
        tag = host.request(ONE_BLOCK, b"q" * 512)
        while stalled.served.journal.at[0].staged_sequence == staged:
            time.sleep(0.002)
        caw = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1, 0, 0])
        compared = other.request(caw, b"q" * 500 + b"z" * 12 + b"n" * 512)
        assert hears_nothing(other) and hears_nothing(host)
        stalled.served.release()
        assert host.outcome(tag).is_good
        missed = other.outcome(compared)
        assert missed.key == sense.MISCOMPARE and missed.information == 500


@pytest.mark.parametrize("function", [session.ABORT_TASK_SET, session.CLEAR_TASK_SET, session.RESET_UNIT])
def test_task_management_is_answered_after_the_writes_that_are_in_the_log(stalled, function):
    with logged_in(stalled.address) as host:
        tag = host.request(ONE_BLOCK, b"q" * 512)
        host.manage(function)
        assert hears_nothing(host)
        stalled.served.release()
        assert host.outcome(tag).is_good
        assert host.receive().opcode == pdu.TASK_MANAGEMENT_RESPONSE


def test_a_reset_is_answered_after_the_writes_of_other_sessions_that_are_in_the_log(stalled):
    with logged_in(stalled.address, 1) as host, logged_in(stalled.address, 2) as other:
        tag = other.request(ONE_BLOCK, b"q" * 512)
        while not stalled.served.counters.owed:
            time.sleep(0.002)
        host.manage(session.RESET_UNIT)
        assert hears_nothing(host)
        stalled.served.release()
        assert other.outcome(tag).is_good
        assert host.receive().opcode == pdu.TASK_MANAGEMENT_RESPONSE


def test_writes_that_are_aborted_while_their_data_comes_give_their_place_in_the_window_back(in_loop):
    with logged_in(in_loop.address) as host:
        assert host.write(0, bytes(512)).is_good
        whole, write = host.window, bytes([0x2A, 0, 0, 0, 0, 90, 0, 0, 64, 0])
        for function in (session.ABORT_TASK, session.ABORT_TASK_SET):
            for _ in range(3):
                tag = host.request(write, b"w" * 32768, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
                host.manage(function, tag)
                answer = host.receive()
                assert (answer.opcode, answer.header[2]) == (pdu.TASK_MANAGEMENT_RESPONSE, session.DONE)
            assert host.write(0, bytes(512)).is_good and host.window == whole


def test_an_abort_of_a_write_that_the_loop_has_is_answered_as_one_of_python_is(in_loop):
    """RFC 7143 section 11.6.1: complete where there was such a task, otherwise it does not exist; a task's answer comes first."""
    write = bytes([0x2A, 0, 0, 0, 0, 90, 0, 0, 64, 0])
    with logged_in(in_loop.address) as host:
        assert host.write(90, b"o" * 32768).is_good
        tag = host.request(write, b"w" * 32768, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
        for expected in (session.DONE, session.NO_TASK, session.NO_TASK):
            host.manage(session.ABORT_TASK, tag)
            assert host.receive().header[2] == expected
        assert bytes(host.read(90, 64).data) == b"o" * 32768
        tag = host.request(write, b"w" * 32768, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
        head = bytearray(host.manage_header(session.ABORT_TASK, tag + 77))
        head[2] = 1  # Reserved: it means nothing that an initiator sets it.
        host.send(bytes(head))
        assert host.receive().header[2] == session.NO_TASK
        host.manage(session.ABORT_TASK, tag)
        assert host.receive().header[2] == session.DONE
        done = host.request(ONE_BLOCK, b"q" * 512)
        host.manage(session.ABORT_TASK, done)
        assert host.outcome(done).is_good  # It is in the log before the request is looked at.
        assert host.receive().header[2] == session.NO_TASK


def test_a_streamed_read_is_counted_once_and_with_all_of_its_bytes(in_loop):
    counted = in_loop.served.counters
    with logged_in(in_loop.address) as host:
        before = {name: int(counted[name]) for name in ("reads", "bytes_read", "writes", "bytes_written", "flushes")}
        assert len(host.read(0, 2048).data) == 1 << 20
        assert host.write(0, bytes(300 << 10)).is_good and host.command(bytes([0x35])).is_good
        came = {name: int(counted[name]) - value for name, value in before.items()}
    assert came == {"reads": 1, "bytes_read": 1 << 20, "writes": 1, "bytes_written": 300 << 10, "flushes": 1}


def test_software_write_protection_holds_by_every_way(opened):
    with logged_in(opened.address, 1) as host, logged_in(opened.address, 2) as other:
        page = bytearray(host.command(bytes([0x1A, 8, 0x0A, 0, 255, 0]), reads=255).data)
        page[0] = page[2] = 0
        select = bytes([0x15, 0x10, 0, 0, len(page), 0])
        page[4 + 4] |= 0x08
        assert host.command(select, bytes(page)).is_good
        assert host.write(0, bytes(512)).code == 0x2700 and host.read(0, 1).is_good
        assert other.write(0, bytes(512)).code == 0x2A01  # It is told first.
        assert other.write(0, bytes(512)).code == 0x2700
        page[4 + 4] &= ~0x08
        assert host.command(select, bytes(page)).is_good
        assert host.write(0, bytes(512)).is_good


def test_writes_of_several_sessions_and_comparisons_leave_one_history(in_loop):
    """Sessions add one to a counter by COMPARE AND WRITE, beside writes elsewhere: every success counts once."""
    def add(number, counts):
        with Initiator(in_loop.address, isid=b"\x80\0\0\0\5" + bytes([number])) as host:
            host.ready()
            while counts[number] < 30:
                there = host.read(200, 1).data
                wanted = (int.from_bytes(there[:8], "big") + 1).to_bytes(8, "big") + there[8:]
                outcome = host.command(bytes([0x89, 0]) + (200).to_bytes(8, "big") + bytes([0, 0, 0, 1, 0, 0]), there + wanted)
                assert outcome.is_good or outcome.key == sense.MISCOMPARE
                counts[number] += outcome.is_good
                assert host.write(300 + number * 8, bytes([number]) * 4096).is_good

    with Initiator(in_loop.address) as one:
        one.ready()
        assert one.write(200, bytes(512)).is_good
        counts = [0] * 3
        threads = [threading.Thread(target=add, args=(number, counts)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert int.from_bytes(one.read(200, 1).data[:8], "big") == 90


def test_a_replica_that_leads_no_more_hangs_up_and_answers_nothing():
    with target_in_loop() as opened, Initiator(opened.address) as host:
        host.ready()
        opened.served.stall()
        host.request(bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]), b"q" * 512)
        time.sleep(0.1)
        opened.served.end()
        opened.served.frontend.leave()
        with pytest.raises((EOFError, ConnectionResetError)):
            host.receive()
        before = None
        for number in range(20):
            with Initiator(opened.address) as again:
                assert again.login_request({"InitiatorName": f"{NAME}{number}", "TargetName": TARGET})[0] == 0x0301
            if number == 5:
                before = len(list(Path("/proc/self/fd").iterdir()))
        until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 3, "descriptors are left")


def test_reservations_are_replicated_with_the_volume_that_the_loop_serves(in_loop):
    whole = engine_volume.EngineVolume(in_loop.served.frontend, 64 << 20)
    address = (64 << 20) - store.AREA_BYTES
    kept = store.VolumeStore(whole, address)
    assert kept.load() == b""
    state = reservation.Reservations()
    for key in (5, 6, 7):
        data = bytes(8) + key.to_bytes(8, "big") + bytes(8)
        assert state.perform("host", reservation.REGISTER_AND_IGNORE, 0, data, True).has_changed
        before = int(in_loop.served.counters["writes"])
        assert kept.save(state.image())
        assert int(in_loop.served.counters["writes"]) == before + 2  # Into both slots.
        assert reservation.restored(store.VolumeStore(whole, address).load()) == state
