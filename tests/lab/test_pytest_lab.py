"""Two sites in somebody's own tests: the plugin's lab, for real. Times are asserted only where they hold by construction."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from small_lab import LINK, any_link, compiled, skip_if_forbidden

from farwrite.base.errors import UnfitError, UsageError
from farwrite.lab.survey import Survey
from farwrite.testing.lab import Keeper, distance, inhabitants

pytestmark = pytest.mark.lab
pytest_plugins = ["pytester"]

PATIENCE_S = 60
PORT = 7000

# Plain programs, as somebody would have them.
SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(64):
                connection.sendall(data)
"""
CLIENT = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        begin_ns = time.monotonic_ns()
        connection.sendall(b"x")
        assert connection.recv(64) == b"x"
        print(time.monotonic_ns() - begin_ns)
"""


@pytest.fixture(scope="module")
def keeper():
    compiled()
    with Keeper(LINK) as made:
        try:
            made.open()
        except UnfitError as refusal:
            skip_if_forbidden(refusal)
            raise
        yield made


@pytest.fixture
def lab(keeper):
    """The lab at no distance."""
    lent = keeper.lend(distance())
    yield lent
    keeper.take_back(lent)


def echo_ns(lab, count=20):
    """Round trips of an echo over TCP between two programs."""
    lab.far.start([sys.executable, "-c", SERVER, lab.far.address, str(PORT)])
    lab.far.wait_for_port(PORT, PATIENCE_S)
    ended = lab.near.run([sys.executable, "-c", CLIENT, lab.far.address, str(PORT), str(count)], check=True)
    return [int(line) for line in ended.stdout.split()]


def alive(pid):
    """Whether a process has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def wait_until(true):
    """Wait for what must come; the limit is there so that a broken test ends."""
    limit_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit_s
        time.sleep(0.005)


# Distance.


def test_an_echo_between_two_programs_takes_the_distance(lab):
    lab.set_miles(20)
    assert lab.miles == 20
    assert lab.link_kind in ("netem", "ferry")
    assert lab.delay_ns > 0
    rtt_ns = echo_ns(lab)
    assert len(rtt_ns) == 20
    assert min(rtt_ns) >= lab.delay_ns


def test_the_distance_may_change_in_the_middle_of_a_test(lab):
    floors_ns = []
    for miles in (60, 20, 300):
        lab.set_miles(miles)
        floors_ns.append(lab.delay_ns)
        made = lab.survey(12)
        assert made.rtt_ns.min() >= lab.delay_ns
        assert lab.rtt_ns >= lab.delay_ns
    assert floors_ns[1] < floors_ns[0] < floors_ns[2]
    lab.set_rtt("2 ms")
    assert lab.asked.rtt_ns == 2_000_000


@any_link
def test_a_survey_is_two_estimates(lab):
    made = lab.survey(400)
    assert made.p50.low <= made.p50.value <= made.p50.high
    assert made.p50.value <= made.p99.value
    assert lab.survey(100).p99.value is None  # Too few to say.


# Commands.


@any_link
def test_a_command_runs_in_its_site_and_no_other(lab):
    names = "import socket; print(*sorted(name for _, name in socket.if_nameindex()))"
    for site in (lab.near, lab.far):
        assert site.run([sys.executable, "-c", names]).stdout.split() == ["far0", "lo"]
        assert "far0" not in [name for _, name in socket.if_nameindex()]
    assert lab.near.address != lab.far.address


@any_link
def test_a_command_is_run_as_subprocess_runs_it(lab, tmp_path):
    script = "cat; echo $WORD; pwd; echo oops >&2; exit 3"
    ended = lab.near.run(script, shell=True, input="in\n", cwd=tmp_path, env={"WORD": "out"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, f"in\nout\n{tmp_path}\n", "oops\n")
    with pytest.raises(subprocess.CalledProcessError):
        lab.near.run(["false"], check=True)
    with pytest.raises(FileNotFoundError):
        lab.near.run(["no-such-command"])
    assert lab.near.run(["echo", "x"], text=False).stdout == b"x\n"


@any_link
def test_a_command_that_lasts_too_long_is_killed_with_its_children(lab, tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        lab.far.run(["sh", "-c", f"sleep 600 & touch {tmp_path / 'begun'}; sleep 600"], timeout_s=0.5)
    assert (tmp_path / "begun").exists()
    wait_until(lambda: set(inhabitants(lab.far.opened.namespace)) == lab.far.residents)


@any_link
def test_a_port_on_which_nobody_listens_is_told(lab):
    with pytest.raises(TimeoutError, match="Nothing listens on port 7009 of the far site"):
        lab.far.wait_for_port(7009, 0.05)


# Functions.


@any_link
def test_any_function_may_be_called_in_a_site(lab):
    word = "a closure, which does not pickle"
    assert lab.near.call(lambda number: (word, number, os.getpid() != os.getppid()), 7) == (word, 7, True)
    assert [name for _, name in lab.far.call(socket.if_nameindex)] == ["lo", "far0"]


@any_link
def test_two_functions_run_at_once(lab):
    def greet():
        with socket.create_server((lab.far.address, PORT)) as listening:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"hello")

    def hear():
        with socket.create_connection((lab.far.address, PORT)) as connection:
            return connection.recv(64)

    greeting = lab.far.begin(greet)
    lab.far.wait_for_port(PORT, PATIENCE_S)
    assert lab.near.call(hear) == b"hello"
    assert greeting.result(PATIENCE_S) is None
    assert greeting.result() is None


class OddError(Exception):
    """Does not survive pickling: it wants two arguments and keeps one."""

    def __init__(self, one, two):
        super().__init__(one)


def refuse(failure):
    raise failure


@any_link
def test_what_a_function_raises_is_raised_here(lab):
    with pytest.raises(ConnectionRefusedError) as caught:
        lab.near.call(socket.create_connection, (lab.far.address, PORT))
    assert "create_connection" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="OddError: one"):
        lab.near.call(refuse, OddError("one", "two"))
    with pytest.raises(RuntimeError, match="Skipped: not here"):
        lab.near.call(pytest.skip, "not here")
    with pytest.raises(TypeError, match="must pickle, and lock does not"):
        lab.near.call(threading.Lock)


@any_link
def test_a_function_that_lasts_too_long_or_is_killed_is_told(lab):
    with pytest.raises(TimeoutError, match=r"sleep in the near site has not ended after 0\.1 s; it was killed"):
        lab.near.call(time.sleep, 600, timeout_s=0.1)
    with pytest.raises(UnfitError, match=r"ended without an answer \(killed by SIGKILL: by hand, or for want of memory"):
        lab.near.call(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UnfitError, match=r"ended without an answer \(exit code 3\)"):
        lab.near.call(lambda: os._exit(3))
    assert lab.near.call(divmod, 7, 2) == (3, 1)


# Cut and heal.


def test_a_cut_loses_packets_until_the_heal(lab):
    def hears(word):
        """Whether a datagram arrives that is sent again and again."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind((lab.far.address, PORT))
            here.settimeout(0.3 if word == b"cut" else PATIENCE_S)
            try:
                return here.recv(64) == word
            except TimeoutError:
                return False

    def say(word):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            for _ in range(2000):
                with contextlib.suppress(OSError):  # Refused until somebody listens.
                    here.sendto(word, (lab.far.address, PORT))
                time.sleep(0.01)

    def swallowed():
        """Packets that the cut link has taken and not delivered."""
        counted = lab.opened.link.counters()
        return counted["drops"] + counted["cut_drops"]

    for word, heard in ((b"whole", True), (b"cut", False), (b"healed", True)):
        {b"cut": lab.cut, b"healed": lab.heal}.get(word, lambda: None)()
        lab.near.begin(say, word)
        before = swallowed()
        if not heard:
            wait_until(lambda before=before: swallowed() > before)  # It has begun to speak.
        assert lab.far.begin(hears, word).result() == heard
        assert heard or swallowed() > before + 5
        lab.near.clear()


@any_link
def test_what_needs_the_link_is_refused_while_it_is_cut(lab):
    lab.cut()
    for attempt in (lab.survey, lambda: lab.set_miles(20)):
        with pytest.raises(UsageError, match=r"call heal\(\) first"):
            attempt()


# From one test to the next.


@any_link
def test_the_next_test_finds_the_lab_whole_whatever_the_one_before_did(keeper):
    lab = keeper.lend(distance(20))
    lab.set_miles(100)
    lab.cut()
    keeper.take_back(lab)
    lab = keeper.lend(distance(20))
    assert lab.miles == 20
    assert min(echo_ns(lab, 5)) >= lab.delay_ns
    lab.opened.near.kill()
    misses = keeper.take_back(lab)
    assert "after the test it no longer answered" in misses[-1]
    lab = keeper.lend(distance(20))
    assert min(echo_ns(lab, 5)) >= lab.delay_ns
    keeper.take_back(lab)


@any_link
def test_a_link_that_is_not_what_it_claimed_is_told(keeper):
    lab = keeper.lend(distance(300))
    lab.opened.set_delay(3 * lab.asked.rtt_ns)
    (*_, miss) = keeper.take_back(lab)
    assert re.search(r"after the test a round trip took 1\d\.\d ms, 4\.73 ms \(300 miles\) was asked", miss)
    lab = keeper.lend(distance(rtt="1 us"))  # Less than any lab's own.
    lab.claim(Survey(np.array([1_000_000])), "after")
    assert "This lab's own round trip is" in keeper.take_back(lab)[-1]


@any_link
def test_everything_that_a_test_started_ends_with_it(keeper, tmp_path):
    lab = keeper.lend(distance())
    before = {site.name: set(inhabitants(site.opened.namespace)) for site in (lab.near, lab.far)}
    written = tmp_path / "pid"
    started = [lab.near.start(["sleep", "600"]), lab.far.start(["sh", "-c", "sleep 600; true"], stdout=subprocess.PIPE)]
    lab.far.run(f"setsid sh -c 'echo $$ > {written}; exec sleep 600' > /dev/null 2>&1 &", shell=True)  # A daemon.
    call = lab.near.begin(lambda: subprocess.run(["sleep", "600"]))
    wait_until(lambda: written.exists() and written.read_text().strip())
    daemon = int(written.read_text())
    assert alive(daemon)
    keeper.take_back(lab)
    assert not alive(daemon)
    assert all(process.returncode == -signal.SIGKILL for process in started)
    assert not alive(call.process.pid)
    assert {site.name: set(inhabitants(site.opened.namespace)) for site in (lab.near, lab.far)} == before


# Under pytest.


def run_pytest(pytester, *options):
    """A pytest of its own, with the kernels' machine code of this one, and without a plugin that takes a second to load."""
    compiled()
    run = pytester.runpytest_subprocess("--farwrite-link", LINK, "-rs", "-p", "no:hypothesispytest", *options)
    for line in run.outlines:
        if line.startswith("SKIPPED"):
            skip_if_forbidden(UnfitError(line))
    return run


@any_link
def test_a_session_opens_one_lab_and_leaves_nothing(pytester):
    pytester.makepyfile("""
        import os
        import pytest

        def note(lab):
            with open("pids", "a") as file:
                print(lab.near.opened.process.pid, lab.far.opened.process.pid, file=file)

        @pytest.mark.distance(miles=[20, 60])
        def test_marked(farwrite_lab):
            note(farwrite_lab)
            with open("started", "a") as file:
                print(farwrite_lab.far.start(["sleep", "600"]).pid, file=file)
            assert farwrite_lab.miles in (20, 60)

        def test_unmarked(farwrite_lab):
            note(farwrite_lab)
            assert farwrite_lab.miles == 0
            assert not os.path.exists("/proc/" + open("started").read().split()[-1])

        @pytest.mark.parametrize("farwrite_lab", [5, {"rtt": "1 ms"}], indirect=True)
        def test_indirect(farwrite_lab):
            note(farwrite_lab)
            assert farwrite_lab.asked.rtt_ns > 70_000
    """)
    run_pytest(pytester, "--strict-markers", "--junitxml=junit.xml").assert_outcomes(passed=5)
    lines = (pytester.path / "pids").read_text().splitlines()
    assert len(lines) == 5
    assert len(set(lines)) == 1
    pids = [int(pid) for pid in lines[0].split() + (pytester.path / "started").read_text().split()]
    assert not any(alive(pid) for pid in pids)
    assert re.search(
        r'name="farwrite link" value="20 miles by \w+: 0.315 ms asked, ', (pytester.path / "junit.xml").read_text()
    )


@any_link
def test_a_killed_pytest_leaves_nothing(pytester):
    pytester.makepyfile("""
        import os, signal

        def test_it(farwrite_lab):
            started = farwrite_lab.far.start(["sleep", "600"])
            call = farwrite_lab.near.begin(signal.pause)
            with open("pids", "w") as file:
                print(started.pid, call.process.pid, farwrite_lab.near.opened.process.pid, file=file)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    run = run_pytest(pytester)
    assert run.ret == -signal.SIGKILL
    pids = [int(pid) for pid in (pytester.path / "pids").read_text().split()]
    wait_until(lambda: not any(alive(pid) for pid in pids))


@any_link
def test_a_link_that_missed_is_a_warning_and_an_error_where_it_is_strict(pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.distance(miles=150)
        def test_lenient(farwrite_lab):
            farwrite_lab.opened.set_delay(20_000_000)

        @pytest.mark.distance(miles=150, strict=True)
        def test_strict(farwrite_lab):
            farwrite_lab.opened.set_delay(20_000_000)
    """)
    run = run_pytest(pytester)
    assert run.parseoutcomes()["passed"] == 2
    assert run.parseoutcomes()["errors"] == 1
    run.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_strict*", "*LinkWarning: The link was not what it claimed: after *"]
    )


@any_link
def test_the_example_in_the_documentation_runs(pytester):
    text = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    pytester.makepyfile(example)
    run = run_pytest(pytester, "-v")
    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(
        ["*farwrite budgets: 2 pass*", "PASS *miles=20*: page p50 is *", "PASS *miles=60*: page p50 is *"]
    )
