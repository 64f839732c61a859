"""A real lab: distance is never less than asked, nothing is lost or reordered, a site may die and come back.

Times are asserted only where they hold by construction: an echo cannot be faster than its packets are held.
"""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_lab import lab_or_skip, small

from farwrite.base.errors import UnfitError
from farwrite.base.histogram import Histogram
from farwrite.base.physics import Distance, distance
from farwrite.base.reasons import sentences
from farwrite.experiment.round import Floors, Leg, LinkLoad, leg_of, link_reasons, load_reasons
from farwrite.lab.process import ProcessLostError, process
from farwrite.lab.stamps import Stamps, beside
from farwrite.lab.survey import (
    CONNECTIONS,
    PROBE,
    SERVERS,
    Survey,
    answer_requests,
    listen,
    measure_requests,
)
from farwrite.recording import Cell

pytestmark = pytest.mark.lab

NETEM_TICK_NS = 64  # netem's delay is in ticks of the packet scheduler, rounded down; one per direction.
PROGRESS, STOP = 0, 1  # Words of a site's board, as the functions below use them.
PATIENCE_S = 60


@pytest.fixture(scope="module")
def opened():
    with lab_or_skip(small()) as lab:
        yield lab


@pytest.fixture
def lab(opened):
    """The one lab of this file, whole and without delay before and after each test."""
    yield opened
    opened.set_delay(0)
    opened.revive()


@pytest.fixture
def apart(lab):
    """The lab, where its sites have networks of their own."""
    if lab.choice.kind == "relay":
        pytest.skip("the relay's sites share this machine's network, and it carries no datagrams")
    return lab


def send_buffers():
    """In a site: the send buffer of a new connection, and the largest that TCP may make it."""
    largest = Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2]
    with socket.socket() as fresh:
        return fresh.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), int(largest)


def test_a_link_begins_with_the_largest_send_buffer_and_the_recording_says_so(apart):
    begins_with, largest = apart.near.call(send_buffers)
    assert begins_with == largest == int(apart.transport["send_buffer"])


def at_least_ns(lab, delay_ns, directions=2):
    """What a packet held for `delay_ns` cannot undercut."""
    return delay_ns - (directions * NETEM_TICK_NS if lab.choice.kind == "netem" else 0)


def wait_until(true):
    """Wait for what must come; the limit is there so that a broken test ends."""
    limit_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit_s
        time.sleep(0.002)


# Distance.


@pytest.mark.parametrize("delay_ns", [0, 1, 333_333, 1_000_000, 3_000_001, 10_000_000])
@pytest.mark.parametrize("survey", ["survey", "echo"])
def test_nothing_comes_back_sooner_than_the_delay_asked(lab, delay_ns, survey):
    lab.set_delay(delay_ns)
    made = getattr(lab, survey)(20)
    assert made.rtt_ns.size == 20
    assert made.rtt_ns_min >= at_least_ns(lab, delay_ns)


def test_an_echo_with_a_writes_sizes_is_held_as_long(lab):
    lab.set_delay(2_000_000)
    for polled in (False, True):
        assert lab.echo_floor(10, 4096 + 64, 64, polled).rtt_ns_min >= at_least_ns(lab, 2_000_000)
        made = lab.flushed_echo_floor(10, 4096 + 64, 64, polled)
        assert made.rtt_ns.size == 10 and made.rtt_ns_min >= at_least_ns(lab, 2_000_000)


@pytest.mark.parametrize("asked_rtt_ns", [0, 1_001, 315_263, 2_364_475])
def test_a_distance_holds_packets_for_light_less_the_fastest_passage_and_for_nothing_of_this_host(lab, asked_rtt_ns):
    lab.set_rtt(asked_rtt_ns)
    for light_ns, held_ns, passage_ns in zip(lab.light_ns, lab.held_ns, lab.passage_ns, strict=True):
        assert light_ns in (asked_rtt_ns // 2, asked_rtt_ns - asked_rtt_ns // 2)
        assert held_ns == max(light_ns - passage_ns, 0)
    made = lab.survey(20)
    assert made.rtt_ns_min >= at_least_ns(lab, sum(lab.held_ns))
    lab.set_rtt(asked_rtt_ns)  # A busy survey changes nothing.
    assert lab.delay_ns[asked_rtt_ns] == sum(lab.held_ns)


def test_a_ping_is_held_for_what_it_asks_less_the_fastest_echo_and_never_less(lab):
    lab.set_distance(distance(rtt="3 ms"))
    assert sum(lab.held_ns) == 3_000_000 - lab.base.rtt_ns_min
    assert lab.echo(10).rtt_ns_min >= at_least_ns(lab, sum(lab.held_ns))
    lab.set_distance(Distance(0.0, 1, is_ping=True))
    assert lab.held_ns == (0, 0)


def test_stamped_probes_tell_each_direction_and_count_what_is_lost(lab, apart):
    lab.link.set_delay_ns(6_000_000, 2_000_000)
    outward, homeward = lab.prober.burst(10, 8_000_000)
    assert outward.sent == homeward.sent == outward.delay_ns.size == homeward.delay_ns.size == 10
    assert outward.min_ns >= at_least_ns(lab, 6_000_000, 1)
    assert at_least_ns(lab, 2_000_000, 1) <= homeward.min_ns < outward.min_ns
    lab.link.cut()
    outward, homeward = lab.prober.burst(5, 0)
    assert (outward.sent, outward.delay_ns.size) == (5, 0)
    with pytest.raises(UnfitError, match="Not one of 5 stamped probes"):
        outward.paired_ns(homeward)
    with pytest.raises(UnfitError, match="Not one of 5 stamped probes"):
        _ = outward.min_ns
    lab.link.heal()
    outward, _ = lab.prober.burst(3, 8_000_000)
    assert (outward.sent, outward.delay_ns.size) == (3, 3)


def test_a_burst_waits_for_packets_that_come_later_than_they_should(lab, apart):
    """Whoever carries them may get no processor for longer than a burst lasts. The link is up: it is not refused."""
    lab.link.set_delay_ns(300_000_000, 300_000_000)
    outward, homeward = lab.prober.burst(1, 0)
    assert min(outward.min_ns, homeward.min_ns) >= at_least_ns(lab, 300_000_000, 1)


def test_probes_beside_a_load_do_not_wait_for_sites_that_are_busy(lab, apart):
    lab.set_rtt(1_000_000)
    lab.near.start(time.sleep, 0.3)
    lab.far.start(time.sleep, 0.3)
    with beside([lab.prober]):
        time.sleep(0.2)
    outward, homeward = lab.prober.finish(1_000_000)
    lab.near.answer()
    lab.far.answer()
    assert outward.delay_ns.size == outward.sent > 0
    assert homeward.delay_ns.size == homeward.sent > 0


def test_a_stamp_does_not_wait_for_a_processor_that_sleeps_or_works_elsewhere(lab, apart):
    lab.set_rtt(1_000_000)
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            spinner = stack.enter_context(process("busy"))
            spinner.start(spin)
        made, echoes = lab.survey(40), lab.echo(40)
    assert made.rtt_ns_min <= echoes.rtt_ns_min


def spin():
    """In a process: take a processor for as long as it lives."""
    while True:
        pass


def test_the_sites_stay_off_the_processor_of_a_link_that_polls_and_so_when_they_come_back(lab):
    if not lab.near.processors:
        pytest.skip("no link polls here: one processor, another lab that polls, or no right to real-time priority")
    (carrier,) = lab.link.carriers
    taken = os.sched_getaffinity(carrier)
    for _ in range(2):
        for site in (lab.near, lab.far):
            assert not site.call(os.sched_getaffinity, 0) & taken
        lab.revive()


def test_one_link_of_a_machine_polls_and_none_of_a_mesh_or_where_programs_run(lab):
    if not lab.near.processors:
        pytest.skip("no link polls here")
    usual = small(lab.choice.kind)
    for spec in (usual, replace(usual, others=1), replace(usual, polls=False)):
        with lab_or_skip(spec) as other:
            assert other.near.processors is None


def test_every_packet_is_in_the_account_of_a_link_that_keeps_one(lab):
    if lab.link.late_counts() is None:
        pytest.skip("netem's account is the kernel's")
    lab.set_rtt(1_000_000)
    before, packets = lab.link.late_counts(), lab.link.counters()["packets"]
    lab.echo(25)
    wait_until(lambda: (lab.link.late_counts() - before).sum() == lab.link.counters()["packets"] - packets)
    assert ((lab.link.late_counts() - before).sum(axis=1) >= 25).all()


def test_a_link_that_misses_what_was_asked_is_called_so_and_no_other(lab):
    lab.set_delay(2_000_000)
    made = lab.survey(20)
    truth = made.rtt_ns_p50
    slow = Survey(made.rtt_ns + 200_000)
    assert link_reasons(made, made, truth) == []
    assert len(link_reasons(made, slow, truth)) == 1
    assert "after the round was +200 us off" in str(link_reasons(made, slow, truth)[0])
    assert len(link_reasons(slow, slow, truth)) == 2
    assert link_reasons(slow, slow, 0) == []  # Nothing is held back at 0 miles, and nothing claimed.


def test_a_real_link_claims_no_distance_but_must_be_the_same_before_and_after(lab, monkeypatch):
    cell = Cell(
        id="write-local-0", name="write", protocol="local", miles=0.0, asked_rtt_ns=0, queue_depth=1, arrival="closed",
        size_bytes=4096, offered_per_s=None,
    )  # fmt: skip
    lab.set_rtt(0)
    assert leg_of(lab, 0, cell, 10).asked_rtt_ns == 0
    monkeypatch.setattr(type(lab), "is_emulated", property(lambda self: False))
    leg = leg_of(lab, 0, cell, 10)
    assert leg.asked_rtt_ns == leg.before.rtt_ns_p50 > 0
    slower = Survey(leg.before.rtt_ns + 200_000)
    assert "after the round was +200 us off" in link_reasons(leg.before, slower, leg.asked_rtt_ns)[0].sentence


def leg_with(span, delays_ns, late_ns):
    """A leg of a round, and what its link did while the load ran."""
    span.set_rtt(2_000_000)
    leg = Leg(span, 2_000_000, Floors(), Survey(np.array([2_000_000])), {}, None)
    stamps = tuple(Stamps(len(delays_ns), np.array(delays_ns)) for _ in range(2))
    return leg, LinkLoad(stamps, [Histogram.of(late_ns)] * 2)


def test_a_link_that_was_off_beside_the_load_voids_the_round_and_so_do_packets_that_left_late(lab):
    whole = [1_000_000] * 40
    assert load_reasons(*leg_with(lab, whole, [0] * 100)) == []
    assert "during the round was +80 us off" in load_reasons(*leg_with(lab, [1_040_000] * 40, [0] * 100))[0].sentence
    assert "during the round was -80 us off" in load_reasons(*leg_with(lab, [960_000] * 40, [0] * 100))[0].sentence
    assert load_reasons(*leg_with(lab, [1_040_000] * 19, [0] * 100)) == []  # Too few have no median.
    few, many = [0] * 95 + [61_000] * 5, [0] * 94 + [61_000] * 6
    assert load_reasons(*leg_with(lab, whole, few)) == []
    assert sentences(load_reasons(*leg_with(lab, whole, many))) == [
        "6% of the packets outward left more than 60 us late", "6% of the packets homeward left more than 60 us late"
    ]  # fmt: skip


def send_stamps(count):
    """In a site: messages that carry the instant they were sent; one clock for all namespaces."""
    for _ in range(count):
        CONNECTIONS["probe"].sendall(time.monotonic_ns().to_bytes(8))
        time.sleep(0.001)


def receive_stamps(count):
    """In a site: how long each message was under way, in ns."""
    in_flight_ns = []
    for _ in range(count):
        sent_ns = int.from_bytes(receive_exactly(CONNECTIONS["probe"], 8))
        in_flight_ns.append(time.monotonic_ns() - sent_ns)
    return in_flight_ns


def receive_exactly(connection, size):
    """So many bytes, or fewer when the stream has ended."""
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def one_way_ns_min(sender, receiver):
    """The fastest of a few messages from one site to the other."""
    receiver.start(receive_stamps, 20)
    sender.call(send_stamps, 20)
    return min(receiver.answer())


@pytest.mark.parametrize(("outward_ns", "homeward_ns"), [(8_000_000, 0), (0, 8_000_000), (2_000_000, 6_000_000)])
def test_each_direction_holds_for_its_own_delay_and_an_echo_for_the_sum(lab, outward_ns, homeward_ns):
    lab.link.set_delay_ns(outward_ns, homeward_ns)
    assert lab.survey(20).rtt_ns_min >= at_least_ns(lab, 8_000_000)
    for sender, receiver, own_ns in ((lab.near, lab.far, outward_ns), (lab.far, lab.near, homeward_ns)):
        fastest_ns = one_way_ns_min(sender, receiver)
        assert fastest_ns >= at_least_ns(lab, own_ns, directions=1)
        assert fastest_ns < own_ns + 2_000_000  # Were it held for the other's delay or for both, it would be more.


def test_an_asymmetric_link_costs_an_echo_what_a_symmetric_one_does(lab):
    fastest_ns = {(5_000_000, 5_000_000): [], (10_000_000, 0): [], (0, 10_000_000): []}
    for _ in range(3):
        for split, seen in fastest_ns.items():
            lab.link.set_delay_ns(*split)
            seen.append(lab.survey(10).rtt_ns_min)
    mins = [min(seen) for seen in fastest_ns.values()]
    assert min(mins) >= at_least_ns(lab, 10_000_000)
    assert max(mins) - min(mins) < 2_500_000


# Order and content.


def open_datagrams(address):
    """In a site: a socket for datagrams with room for all of them; answers its port."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE, which socket(7) allows root of a namespace.
    opened.bind((address, 0))
    opened.settimeout(PATIENCE_S)
    SERVERS["datagrams"] = opened
    return opened.getsockname()[1]


def send_datagrams(address, port, count):
    """In a site: numbered datagrams as fast as they go."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        for number in range(count):
            opened.sendto(number.to_bytes(4), (address, port))


def receive_datagrams(count):
    """In a site: the numbers in the order of their arrival."""
    with SERVERS.pop("datagrams") as opened:
        return [int.from_bytes(opened.recv(16)) for _ in range(count)]


@pytest.mark.parametrize("outward", [True, False], ids=["outward", "homeward"])
def test_datagrams_which_nobody_sorts_arrive_all_and_in_order(lab, outward):
    sender, receiver = (lab.near, lab.far) if outward else (lab.far, lab.near)
    lab.set_delay(2_000_000)
    port = receiver.call(open_datagrams, receiver.address)
    receiver.start(receive_datagrams, 5_000)
    sender.call(send_datagrams, receiver.address, port, 5_000)
    assert receiver.answer() == list(range(5_000))


def stream(seed, size):
    """Bytes that a place tells apart, in pieces."""
    dice = np.random.default_rng(seed)
    for begin in range(0, size, 1 << 18):
        yield dice.bytes(min(1 << 18, size - begin))


def send_stream(seed, size):
    """In a site: send the stream and say that it is over; answers its digest."""
    digest = hashlib.blake2b()
    with contextlib.closing(CONNECTIONS.pop("stream")) as connection:
        for piece in stream(seed, size):
            digest.update(piece)
            connection.sendall(piece)
    return digest.hexdigest()


def receive_stream():
    """In a site: (bytes received, their digest) once the stream is over."""
    digest, size = hashlib.blake2b(), 0
    with contextlib.closing(CONNECTIONS.pop("stream")) as connection:
        while piece := connection.recv(1 << 18):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


@pytest.mark.parametrize("outward", [True, False], ids=["outward", "homeward"])
def test_a_stream_of_twenty_megabytes_arrives_as_it_was_sent(lab, outward):
    sender, receiver = (lab.near, lab.far) if outward else (lab.far, lab.near)
    lab.set_delay(1_000_000)
    lab.join("stream")
    receiver.start(receive_stream)
    digest = sender.call(send_stream, 5, 20_000_000)
    assert receiver.answer() == (20_000_000, digest)


# Cut and heal.


def send_until_stopped(board):
    """In a site: numbers, a few at a time, until the board says stop; answers how many."""
    count = 0
    with contextlib.closing(CONNECTIONS.pop("stream")) as connection:
        while board.words[STOP] == 0:
            connection.sendall(count.to_bytes(8))
            count += 1
            time.sleep(0.001)
    return count


def receive_and_count(board):
    """In a site: count the numbers, each of which must be the next; answers how many when the stream is over."""
    with contextlib.closing(CONNECTIONS.pop("stream")) as connection:
        while number := receive_exactly(connection, 8):
            assert int.from_bytes(number) == board.words[PROGRESS]
            board.words[PROGRESS] += 1
    return int(board.words[PROGRESS])


def test_a_cut_stops_a_stream_and_after_the_heal_it_goes_on_where_it_was(lab):
    lab.set_delay(1_000_000)
    lab.near.board.words[:] = lab.far.board.words[:] = 0
    progress = lab.far.board.words
    lab.join("stream")
    lab.far.start(receive_and_count, lab.far.board)
    lab.near.start(send_until_stopped, lab.near.board)
    for _ in range(2):
        before = int(progress[PROGRESS])
        wait_until(lambda before=before: progress[PROGRESS] > before + 20)
        lab.link.cut()
        still = -1
        for _ in range(100):  # What was under way arrives, on a busy machine a little later.
            if still == (still := int(progress[PROGRESS])):
                break
            time.sleep(0.1)
        time.sleep(0.2)
        assert progress[PROGRESS] == still
        lab.link.heal()
        wait_until(lambda still=still: progress[PROGRESS] > still)
    lab.near.board.words[STOP] = 1
    sent = lab.near.answer(PATIENCE_S)
    assert lab.far.answer(PATIENCE_S) == sent


def test_a_delay_set_while_the_link_is_cut_counts_after_the_heal(lab):
    lab.link.cut()
    lab.set_delay(4_000_000)
    lab.link.heal()
    assert lab.survey(5).rtt_ns_min >= at_least_ns(lab, 4_000_000)


def test_the_link_counts_what_it_carries(lab):
    before = lab.link.counters()
    lab.echo(10)
    after = lab.link.counters()
    assert after["packets"] - before["packets"] >= 2 * 10
    assert after["bytes"] - before["bytes"] >= 2 * 10 * 64
    assert after["drops"] == before["drops"]
    assert after["cut_drops"] == before["cut_drops"]


def test_the_link_counts_what_a_cut_swallows(lab, apart):
    lab.link.cut()
    before = lab.link.counters()
    lab.near.call(send_datagrams, lab.far.address, 9, 25)
    wait_until(lambda: sum(lab.link.counters()[name] - before[name] for name in ("drops", "cut_drops")) >= 25)


# Isolation.


def no_visitor():
    """In a site: True when nobody has connected to the listening socket; closes it."""
    with SERVERS.pop("server") as server:
        server.setblocking(False)
        try:
            server.accept()
        except BlockingIOError:
            return True
    return False


def connects(address, port):
    """What connecting from here gives: None, or the errno."""
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as refusal:
        return refusal.errno
    return None


def interfaces():
    """Names of this process's network interfaces."""
    return sorted(name for _, name in socket.if_nameindex())


@pytest.mark.parametrize("name", ["near", "far"])
def test_nobody_outside_reaches_a_listening_socket_of_a_site(lab, apart, name):
    site = getattr(lab, name)
    port = site.call(listen, site.address)
    assert connects("127.0.0.1", port) == errno.ECONNREFUSED
    connects(site.address, port)  # A route of this machine may lead anywhere, but not to the site.
    assert site.call(no_visitor)


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_site_reaches_nobody_outside(lab, apart, name):
    site = getattr(lab, name)
    assert site.call(interfaces) == ["far0", "lo"]
    assert site.call(connects, "192.0.2.1", 80) == errno.ENETUNREACH  # RFC 5737: an address of nobody.
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.setblocking(False)
        assert site.call(connects, "127.0.0.1", server.getsockname()[1]) == errno.ECONNREFUSED
        with pytest.raises(BlockingIOError):
            server.accept()


def test_this_process_sees_no_interface_of_the_lab(lab):
    assert "far0" not in interfaces()


# Loss of a site.


def write_mark(descriptor, mark):
    """In a site: write into its journal file."""
    os.pwrite(descriptor, mark, 4096)


def read_mark(descriptor, size):
    """In a site: read it back."""
    return os.pread(descriptor, size, 4096)


@pytest.mark.parametrize("names", [("near",), ("far",), ("near", "far")], ids="+".join)
def test_a_killed_site_comes_back_with_its_disk_and_its_distance(lab, names):
    lab.set_delay(2_000_000)
    for name in names:
        site = getattr(lab, name)
        site.call(write_mark, site.disk.journal_fd, name.encode())
        old_pid = site.process.pid
        site.kill()
        with pytest.raises(ProcessLostError, match=f"The {name} process has ended"):
            site.call(interfaces)
    lab.revive()
    for name in names:
        site = getattr(lab, name)
        assert site.process.pid != old_pid
        assert site.call(read_mark, site.disk.journal_fd, len(name)) == name.encode()
    assert lab.survey(5).rtt_ns_min >= at_least_ns(lab, 2_000_000)


def test_a_site_that_is_killed_under_load_with_the_link_cut_comes_back(lab):
    lab.near.board.words[:] = lab.far.board.words[:] = 0
    lab.join("stream")
    lab.far.start(receive_and_count, lab.far.board)
    lab.near.start(send_until_stopped, lab.near.board)
    wait_until(lambda: lab.far.board.words[PROGRESS] > 5)
    lab.link.cut()
    lab.near.kill()
    lab.revive()
    assert lab.survey(5).rtt_ns.size == 5


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_site_that_dies_in_a_call_is_reported_and_comes_back(lab, name):
    site = getattr(lab, name)
    site.start(time.sleep, 60)
    os.kill(site.process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLostError, match=f"The {name} process ended without an answer"):
        site.answer(PATIENCE_S)
    lab.revive()
    assert lab.survey(5).rtt_ns.size == 5


def test_a_site_that_does_not_answer_in_time_is_reported_and_started_anew(lab):
    lab.far.start(time.sleep, 60)
    with pytest.raises(UnfitError, match=r"The far process has not answered for 0\.05 s"):
        lab.far.answer(0.05)
    lab.revive()
    assert lab.survey(5).rtt_ns.size == 5


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_survey_of_a_dead_site_says_which_one_it_is(lab, name):
    getattr(lab, name).kill()
    with pytest.raises(ProcessLostError, match=f"The {name} process"):
        lab.echo(5)


def test_a_survey_whose_peer_dies_says_how_far_it_came(lab):
    lab.set_delay(1_000_000)
    lab.far.start(answer_requests, 64, 64, 100_000, None)
    lab.near.start(measure_requests, 64, 64, 100_000, lab.held(PROBE))
    time.sleep(0.05)
    lab.far.kill()
    with pytest.raises(UnfitError, match=r"The probe connection ended after \d+ of 100000 echoes"):
        lab.near.answer(PATIENCE_S)


def refuse(sentence):
    """In a site: what a refusal there looks like here."""
    raise UnfitError(sentence)


def test_a_refusal_in_a_site_is_raised_here_with_its_words_and_the_site_goes_on(lab):
    with pytest.raises(UnfitError, match="no room on this disk"):
        lab.near.call(refuse, "no room on this disk")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        lab.near.call(divmod, 1, 0)
    assert lab.near.call(divmod, 7, 2) == (3, 1)


# Disks.


def test_a_floor_of_flushes_is_measured_at_each_site_alone_and_at_both_at_once(lab):
    floors = lab.flush_floors(8192, 7)
    assert set(floors) == {"near_alone", "far_alone", "near_both", "far_both"}
    assert all(times.size == 7 and (times > 0).all() for times in floors.values())


def test_two_labs_at_once_do_not_meet(lab):
    with lab_or_skip(small(lab.choice.kind)) as other:
        other.set_delay(5_000_000)
        surveys = {}
        threads = [
            threading.Thread(target=lambda name=name, one=one: surveys.update({name: one.survey(10)}))
            for name, one in (("this", lab), ("other", other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert surveys["other"].rtt_ns_min >= at_least_ns(lab, 5_000_000)
        assert surveys["this"].rtt_ns_min < 5_000_000
