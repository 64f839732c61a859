"""Whatever is killed, and whenever: no process, no interface, no namespace, no mount and no file of a lab stays behind.

The processes of a lab are known by their session, which none of them leaves; where the lab is another user's, by a word in
their environment.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from holder import children, hold, stat_of
from leftovers import Surroundings, gone, marked
from nobody import NOBODY, as_nobody, open_to_all
from small_lab import IN_UML, LINK, compiled, lab_or_skip, small

from farwrite.base.documents import found_at
from farwrite.base.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_UNFIT

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
PATIENCE_S = 60

# System calls are many times slower in user-mode Linux, and what differs there is the link: it gets fewer instants to die at.
KILLS, INTERRUPTS, PARTS = (4, 2, 4) if IN_UML else (10, 4, 6)
STOPS = [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_TERMINATED), (signal.SIGKILL, -signal.SIGKILL)]


@pytest.fixture
def surroundings(tmp_path):
    return Surroundings(tmp_path / "data")


@pytest.fixture(scope="module")
def opening_s():
    """How long it takes here until a lab stands; skips where no lab may."""
    with lab_or_skip(small()):
        begin_s = time.monotonic()
    with lab_or_skip(small()):
        return time.monotonic() - begin_s


class Holder:
    """A forked holder with a session of its own, all kernels compiled already."""

    def __init__(self, directory):
        compiled()
        reader, writer = os.pipe()
        self.talk = (directory.parent / "talk").open("w+b")
        self.code = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for descriptor in (1, 2):
                    os.dup2(self.talk.fileno(), descriptor)
                sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # Not pytest's.
                os.close(reader)
                os.write(writer, b"\n")  # From here on it is a session, and what comes to it is meant.
                code = hold(LINK, directory, lambda pids: os.write(writer, json.dumps(pids).encode()))
            finally:
                os._exit(code)
        os.close(writer)
        self.reader = os.fdopen(reader, "rb")
        assert os.read(reader, 1) == b"\n"

    def ready(self):
        """The processes of the lab once it stands."""
        return json.loads(os.read(self.reader.fileno(), 4096))

    def kill(self, pid, number=signal.SIGKILL):
        """A signal that may come too late."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def interrupt(self):
        """Ctrl-C: to every process of the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)

    def wait(self, limit_s):
        """The exit code, negative for a signal; None when it has not ended by then."""
        until_s = time.monotonic() + limit_s
        while self.code is None and time.monotonic() < until_s:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.005)
        return self.code

    def living(self):
        """Processes of the session that are not yet gone."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        stats = {pid: stat_of(pid) for pid in pids}
        return [pid for pid, stat in stats.items() if stat and stat["session"] == self.pid and stat["state"] != "Z"]

    def said(self):
        self.talk.seek(0)
        return self.talk.read().decode()


@pytest.fixture
def holder(surroundings, opening_s):
    made = Holder(surroundings.directory)
    try:
        yield made
        assert gone(made.living), made.living()
        surroundings.assert_nothing_left()
    finally:
        for pid in made.living():
            made.kill(pid)
        made.wait(PATIENCE_S)
        made.reader.close()
        made.talk.close()


# A child of the test, killed. What it leaves is looked at where `holder` is torn down.


def test_a_lab_is_seen_while_it_stands_and_gone_after_ctrl_c(holder):
    pids = holder.ready()
    assert {holder.pid, pids["near"], pids["far"], pids["link"]} <= set(holder.living())
    holder.interrupt()
    assert holder.wait(PATIENCE_S) == EXIT_INTERRUPTED


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_command_killed_at_any_instant_leaves_nothing(holder, opening_s, seed):
    time.sleep(random.Random(seed).uniform(0, 1.3 * opening_s))
    holder.kill(holder.pid)
    assert holder.wait(PATIENCE_S) == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(INTERRUPTS))
def test_ctrl_c_at_any_instant_leaves_nothing(holder, opening_s, seed):
    time.sleep(random.Random(100 + seed).uniform(0.02, 1.3 * opening_s))
    holder.interrupt()
    assert holder.wait(PATIENCE_S) == EXIT_INTERRUPTED, holder.said()
    assert holder.said() == ""


@pytest.mark.parametrize("seed", range(PARTS))
def test_any_process_of_it_killed_at_any_instant_leaves_nothing(holder, opening_s, seed):
    dice = random.Random(200 + seed)
    time.sleep(dice.uniform(0.1, 1.2) * opening_s)
    victims = children(holder.pid) or [holder.pid]
    holder.kill(dice.choice(victims))
    if holder.wait(1.5) is None:  # It waits for a link that is no more, and would for a minute.
        holder.interrupt()
        holder.wait(PATIENCE_S)
    assert holder.code is not None


@pytest.mark.parametrize("victim", ["near", "far"])
def test_a_command_whose_site_is_killed_ends_with_a_sentence(holder, victim):
    holder.kill(holder.ready()[victim])
    assert holder.wait(PATIENCE_S) == EXIT_UNFIT
    assert f"The {victim} process" in holder.said() or "The probe connection ended" in holder.said()
    assert "Traceback" not in holder.said()


def test_a_command_whose_link_process_is_killed_does_not_outlast_its_patience(holder):
    pids = holder.ready()
    holder.kill(pids["link"])
    if pids["kind"] == "netem":  # Needs that process only to be changed.
        time.sleep(0.2)
        holder.interrupt()
        assert holder.wait(PATIENCE_S) == EXIT_INTERRUPTED
    else:
        assert holder.wait(PATIENCE_S) == EXIT_UNFIT
        # A relay's connections end with it, and whoever held one may say so first.
        ended = ["The probe connection ended"] if pids["kind"] == "relay" else []
        said = [f"The process that carries the link (the {pids['kind']}, pid {pids['link']}) was killed, or has crashed.", *ended]
        assert any(words in holder.said() for words in said), holder.said()
    assert "Traceback" not in holder.said()


# The command itself.


@pytest.mark.parametrize(("number", "code"), STOPS[2:] if IN_UML else STOPS, ids=lambda value: getattr(value, "name", ""))
def test_the_command_stopped_in_the_middle_of_a_run_leaves_its_results_and_nothing_else(
    surroundings, opening_s, number, code
):
    word = uuid.uuid4().hex
    command = [
        *(sys.executable, "-m", "farwrite", "run", "quick", "--link", LINK, "--out", surroundings.directory),
        *("--set", "lab.durability=disk", "--set", "lab.journal=16 MiB", "--set", "drill.kills=0"),
        *("--set", "lab.encryption=tls", "--set", "lab.compression=zstd"),  # The most processes that a run can have.
    ]
    with subprocess.Popen(
        command, env=os.environ | {"FARWRITE_TEST": word}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:  # fmt: skip
        journal = surroundings.directory / "cells.jsonl"
        while run.poll() is None and not (journal.exists() and b'"round"' in journal.read_bytes()):
            time.sleep(0.01)
        assert len(marked(word)) >= 4
        os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
        assert run.wait(PATIENCE_S) == code
    assert gone(lambda: marked(word)), marked(word)
    surroundings.assert_nothing_left(expected_files=["cells.jsonl", found_at(surroundings.directory / "report.json").name])


# Without root.


def holder_of(link, there):
    """The words that start a holder."""
    return [sys.executable, HERE / "holder.py", link, there.directory]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL] if IN_UML else [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name
)
def test_a_lab_needs_no_root_where_user_namespaces_are_allowed_and_leaves_nothing(open_tmp, number):
    word = uuid.uuid4().hex
    there = Surroundings(open_tmp / "data")
    with as_nobody(open_to_all(open_tmp / "scratch"), there.directory, holder_of(LINK, there), "666", word) as run:
        line = run.stdout.readline()
        if not line.startswith("ready"):
            said = run.communicate()[1]
            if "unshare(" in said and not IN_UML:
                pytest.skip(said)
            pytest.fail(said)
        pids = json.loads(line.removeprefix("ready"))
        for name in ("near", "far", "link"):
            status = Path(f"/proc/{pids[name]}/status").read_text()
            assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
        apart = Path(f"/proc/{pids['near']}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        assert apart == (pids["kind"] != "relay")
        os.killpg(run.pid, number) if number == signal.SIGINT else os.kill(run.pid, number)
        assert run.wait(PATIENCE_S) == (-number if number == signal.SIGKILL else EXIT_INTERRUPTED)
        assert gone(lambda: marked(word)), marked(word)
    there.assert_nothing_left()


def test_a_ferry_without_its_device_is_refused_with_advice(open_tmp):
    word = uuid.uuid4().hex
    there = Surroundings(open_tmp / "data")
    with as_nobody(open_to_all(open_tmp / "scratch"), there.directory, holder_of("ferry", there), "600", word) as run:
        said = run.communicate(timeout=3 * PATIENCE_S)[1]
        if "unshare(" in said and not IN_UML:
            pytest.skip(said)
        assert run.returncode == EXIT_UNFIT
        assert "open /dev/net/tun: Permission denied" in said
        assert "--device /dev/net/tun" in said
        assert "Traceback" not in said
        assert gone(lambda: marked(word)), marked(word)
    there.assert_nothing_left()
