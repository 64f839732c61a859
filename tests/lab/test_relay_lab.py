"""The relay's lab: it stands where everything is forbidden, its distance is proven there, and strangers do not get in.

The jail (jail.py) forbids what Docker's default profile forbids. With root its prisoner is the user nobody, otherwise ourselves.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import jail
import msgspec
import numpy as np
import pytest
from leftovers import Surroundings, gone, marked
from nobody import as_nobody, open_to_all
from small_lab import any_link, compiled, lab_or_skip, small
from test_nothing_left import HERE, PATIENCE_S

from farwrite.analysis import analysis_of
from farwrite.base.documents import found_at
from farwrite.base.errors import EXIT_DONE, EXIT_INCONCLUSIVE, EXIT_UNFIT, UnfitError
from farwrite.base.wire.terms import IN_THE_CLEAR
from farwrite.lab import relay_kernel as carrying
from farwrite.lab import relay_process
from farwrite.lab.namespace import loopbacks
from farwrite.lab.relay import check_stream
from farwrite.lab.relay_door import Passages, bound
from farwrite.recording import read
from farwrite.workload.jitter import deviations
from farwrite.workload.link_spec import Bursts, Change, LinkDirection, LinkSpec

pytestmark = [pytest.mark.lab, any_link]

PRISON = "import sys\nsys.path[:0] = [{here!r}, {here!r} + '/..']\nimport jail\njail.forbid()\nlink, data = sys.argv[1:]\n"
HOLDING = PRISON + "import holder\nsys.argv = ['holder', link, data]\nsys.exit(holder.main())\n"
RUNNING = PRISON + (
    "from farwrite.cli import main\n"
    "from console import ONE_FAR\n"
    "asked = [*ONE_FAR, '--set', 'run.rounds=2', '--set', 'run.retries=5', '--set', 'run.round=100ms', '--budget', 'p99 9 s']\n"
    "sys.argv = ['farwrite', 'run', 'quick', '--link', link, '--out', data + '/out', *asked]\n"
    "main()\n"
)


# Where everything is forbidden.


@contextlib.contextmanager
def prisoner(place, program):
    """(what a lab could leave, the process, a word in its environment) of a program in the jail, told "auto" and a directory."""
    compiled()
    if not jail.works():
        pytest.skip("this system lets nobody forbid itself system calls (seccomp)")
    word, there, scratch = uuid.uuid4().hex, Surroundings(place / "data"), open_to_all(place / "scratch")
    script = scratch / "prisoner.py"
    script.write_text(program.format(here=str(HERE)))
    if os.getuid() == 0:
        with as_nobody(scratch, there.directory, [sys.executable, script, "auto", there.directory], "600", word) as run:
            yield there, run, word
        return
    run = subprocess.Popen(
        [sys.executable, script, "auto", there.directory], env=os.environ | {"FARWRITE_TEST": word},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield there, run, word
    finally:
        for pid in marked(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.communicate()


def test_a_run_without_any_privilege_finishes_and_says_on_what(open_tmp):
    with prisoner(open_tmp, RUNNING) as (there, run, word):
        out, said = run.communicate(timeout=15 * PATIENCE_S)
        assert run.returncode in (EXIT_DONE, EXIT_INCONCLUSIVE), said
        assert gone(lambda: marked(word)), marked(word)
    report = found_at(there.directory / "out" / "report.json").name
    there.assert_nothing_left(expected_files=["out", "out/cells.jsonl", f"out/{report}"])
    report = read(there.directory / "out")
    lab, rounds = report.recording.lab, report.recording.rounds
    assert lab.link == "relay"
    assert "unshare(" in lab.link_reason
    assert lab.reactor == "pwrite"
    assert any(item.status == "ok" for item in rounds)  # The surveys before and after it were within tolerance.
    assert all(item.status in ("ok", "void") for item in rounds), [item.reasons for item in rounds]
    audits = [item.audit for item in [*rounds, *report.recording.drills] if item.audit]
    assert audits
    assert not any(audit.damaged for audit in audits)
    assert not any(item.audit.lost for item in rounds if item.audit)
    analysis = analysis_of(report)
    assert [item.id for item in analysis.verdicts] == ["p99 9000 ms"], "quick is not about the claims"
    assert all(item.sentence.endswith("(stream-level)") for item in analysis.verdicts)
    assert "stream-level" in out


@pytest.mark.parametrize("victim", ["near", "far", "link", "command"])
def test_whatever_is_killed_of_a_lab_without_privileges_nothing_stays(open_tmp, victim):
    with prisoner(open_tmp, HOLDING) as (there, run, word):
        line = run.stdout.readline()
        assert line.startswith("ready"), run.communicate()[1]
        pids = json.loads(line.removeprefix("ready"))
        assert pids["kind"] == "relay"
        assert Path(f"/proc/{pids['near']}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        os.kill(run.pid if victim == "command" else pids[victim], signal.SIGKILL)
        assert run.wait(PATIENCE_S) == (-signal.SIGKILL if victim == "command" else EXIT_UNFIT)
        assert "Traceback" not in run.stderr.read()
        assert gone(lambda: marked(word)), marked(word)
    there.assert_nothing_left()


# The relay's own lab, wherever it stands.


@pytest.fixture(scope="module")
def opened():
    before = tuning()
    with lab_or_skip(small("relay")) as lab:
        yield lab
    assert tuning() == before  # The machine's network is not the lab's to tune.


@pytest.fixture
def lab(opened):
    yield opened
    opened.set_delay(0)
    opened.link.set_directions(LinkDirection(), LinkDirection())
    opened.revive()


def tuning():
    with contextlib.suppress(OSError):
        return [Path("/proc/sys/net/ipv4", name).read_text() for name in ("tcp_slow_start_after_idle", "tcp_wmem")]
    return None


class Listening:
    """A socket at the far address, and a source at the near one, with the passage between them."""

    def __init__(self, lab):
        self.server = socket.create_server((lab.far.address, 0))
        self.source = bound(lab.near.address)
        for end in (self.server, self.source):
            end.settimeout(PATIENCE_S)
        self.door, self.exit = lab.far.doors[0].passage(self.source.getsockname(), self.server.getsockname())

    def dial(self):
        self.source.connect(self.door)
        return self.source

    def accept(self):
        connection, peer = self.server.accept()
        assert peer == self.exit
        connection.settimeout(PATIENCE_S)
        return connection

    def close(self):
        self.source.close()
        self.server.close()


@pytest.fixture
def listening(lab):
    made = Listening(lab)
    yield made
    made.close()


def test_sites_have_loopback_addresses_of_their_own_and_labs_do_not_share_them(lab):
    assert lab.near.address != lab.far.address
    assert {lab.near.address.split(".")[0], lab.far.address.split(".")[0]} == {"127"}
    assert [place.address for place in loopbacks(2)] == [lab.near.address, lab.far.address]  # By process, so not another's.


def test_a_stranger_at_the_relays_door_is_sent_away_and_the_announced_one_is_let_in(listening):
    with socket.create_connection(listening.door, PATIENCE_S) as stranger:
        assert sent_away(stranger)
        with listening.dial() as near, listening.accept() as far:
            near.sendall(b"expected")
            assert far.recv(100) == b"expected"
        with pytest.raises(OSError):
            socket.create_connection(listening.door, PATIENCE_S)  # One came, and the door is gone.


@pytest.mark.parametrize("outward", [True, False], ids=["outward", "homeward"])
def test_who_dials_by_address_is_connected_or_refused_as_without_a_relay(lab, outward):
    """And no earlier than a round trip later."""
    one, other = (lab.near, lab.far) if outward else (lab.far, lab.near)
    dial, rtt_s = Passages(lab.far.doors[0].asking.fileno(), one.address, outward), 0.04
    lab.set_delay(int(rtt_s * 1e9))
    with socket.create_server((other.address, 0)) as server:
        target = server.getsockname()
        begun = time.monotonic()
        with dial(target, PATIENCE_S) as near:
            assert time.monotonic() - begun >= rtt_s
            far, (host, _) = server.accept()
            with far:
                assert host == one.address
                far.settimeout(PATIENCE_S)
                near.sendall(b"there")
                assert far.recv(100) == b"there"
                far.sendall(b"and back")
                assert near.recv(100) == b"and back"
    begun = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        dial(target, PATIENCE_S)
    assert time.monotonic() - begun >= rtt_s
    lab.link.cut()
    with pytest.raises(TimeoutError):
        dial(target, 0.2)
    lab.link.heal()
    with pytest.raises(ConnectionRefusedError):
        dial(target, PATIENCE_S)


def sent_away(stranger):
    try:
        stranger.sendall(b"let me in")
        return stranger.recv(1) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def test_a_far_site_takes_no_connection_but_the_relays(lab):
    from farwrite.lab.survey import accept, dial, listen, reserve

    target = lab.far.address, lab.far.call(listen, lab.far.address)
    door, expected = lab.far.doors[0].passage(lab.near.call(reserve, lab.near.address), target)
    with socket.create_connection(target, PATIENCE_S) as stranger:
        lab.far.start(accept, "data", "cubic", expected, IN_THE_CLEAR)
        assert sent_away(stranger)
    lab.near.call(dial, *door, "data", "cubic", IN_THE_CLEAR)
    lab.far.answer(PATIENCE_S)


def test_a_door_that_nobody_comes_through_is_closed(monkeypatch):
    monkeypatch.setattr(relay_process, "PASSAGE_S", 0.3)
    with lab_or_skip(small("relay")) as brief:
        made = Listening(brief)
        until_s = time.monotonic() + PATIENCE_S
        while connects(made.door):
            assert time.monotonic() < until_s
            time.sleep(0.02)
        made.close()


def connects(address):
    try:
        socket.create_connection(address, PATIENCE_S).close()
        return True
    except ConnectionRefusedError:
        return False


def test_the_first_answer_on_a_new_connection_takes_two_round_trips(lab, listening):
    lab.link.set_delay_ns(3_000_000, 5_000_000)
    begin_ns = time.monotonic_ns()
    with listening.dial() as near:
        near.sendall(b"?")
        with listening.accept() as far:
            assert time.monotonic_ns() - begin_ns >= 8_000_000 + 3_000_000
            far.sendall(far.recv(1))
            assert near.recv(1) == b"?"
            assert time.monotonic_ns() - begin_ns >= 2 * 8_000_000


def test_who_dials_where_nobody_listens_is_reset(lab, listening):
    listening.server.close()
    with pytest.raises(ConnectionResetError), listening.dial() as near:
        near.recv(1)


def test_a_connection_that_has_ended_makes_room_for_another(lab):
    for _ in range(3 * carrying.CONNECTIONS):
        made = Listening(lab)
        with made.dial() as near, made.accept() as far:
            near.sendall(b"x")
            assert far.recv(1) == b"x"
        made.server.close()


def test_what_is_sent_over_a_cut_link_arrives_when_it_is_healed_and_a_new_connection_waits(lab, listening):
    lab.link.cut()
    near = listening.dial()
    near.sendall(b"waits")
    listening.server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listening.server.accept()
    listening.server.settimeout(PATIENCE_S)
    lab.link.heal()
    with listening.accept() as far:
        assert far.recv(100) == b"waits"


def test_jitter_and_asymmetry_stay_within_what_was_asked(lab):
    lab.set_delay(4_000_000)
    direction = LinkDirection(jitter_ns=1_000_000, jitter_shape="uniform")
    lab.link.set_directions(direction, msgspec.structs.replace(direction, extra_delay_ns=3_000_000))
    rtt_ns = lab.echo_floor(200, 64, 64).rtt_ns
    assert rtt_ns.min() >= 7_000_000 - 2_000_000
    assert np.quantile(rtt_ns, 0.9) - np.quantile(rtt_ns, 0.1) > 500_000
    lab.link.set_directions(LinkDirection(), LinkDirection())
    assert lab.survey(20).rtt_ns.min() >= 4_000_000


def test_a_rate_holds_all_connections_of_a_direction_together(lab):
    rate, size, pairs = 80_000_000, 200_000, []
    for _ in range(2):
        made = Listening(lab)
        pairs.append((made, made.dial(), made.accept()))
    lab.link.set_directions(LinkDirection(rate_bits_per_s=rate), LinkDirection())
    begin_ns = time.monotonic_ns()
    for _, near, _ in pairs:
        near.sendall(bytes(size))
    for made, _, far in pairs:
        left = size
        while left:
            left -= len(far.recv(left))
        far.close()
        made.close()
    assert time.monotonic_ns() - begin_ns >= 2 * size * 8_000_000_000 // rate


def test_the_relay_knows_how_late_it_was_and_says_on_what_level_it_works(lab):
    lab.survey(10)
    lab.link.late_ns_max()
    assert lab.link.late_ns_max() == 0
    assert lab.link.facts()["level"] == "stream"


@pytest.mark.parametrize(
    ("key", "spec"),
    [
        ("outward.loss", LinkSpec(outward=LinkDirection(loss_ratio=0.01))),
        ("homeward.bursts", LinkSpec(homeward=LinkDirection(bursts=Bursts(0.1, 0.2)))),
        ("outward.reorder", LinkSpec(outward=LinkDirection(reorder_ratio=0.01))),
        ("homeward.duplicate", LinkSpec(homeward=LinkDirection(duplicate_ratio=0.01))),
        ("outward.corrupt", LinkSpec(outward=LinkDirection(corrupt_ratio=0.01))),
        ("outward.queue_packets", LinkSpec(outward=LinkDirection(queue_packets=10))),
        ("mtu", LinkSpec(mtu_bytes=1500)),
        ("schedule, loss", LinkSpec(schedule=(Change(0, loss_ratio=0.5),))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_stream_cannot_show_is_refused_with_a_sentence(key, spec):
    with pytest.raises(UnfitError, match=rf"link\.{key}: the relay carries streams of bytes"):
        check_stream(spec)


@pytest.mark.parametrize("shape", ["uniform", "normal", "pareto"])
def test_jitter_has_the_deviation_that_was_asked_and_does_not_move_the_mean(shape):
    made = deviations(LinkDirection(jitter_ns=10_000, jitter_shape=shape))
    assert abs(made.mean()) < 1
    assert made.std() == pytest.approx(10_000 / np.sqrt(3) if shape == "uniform" else 10_000, rel=0.001)
    assert all(one <= other for one, other in itertools.pairwise(made))
