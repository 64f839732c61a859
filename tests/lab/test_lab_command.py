"""`farwrite lab`: somebody's own programs find a distance and nothing else changed, and nothing of them outlasts the lab.

Times are asserted only where they hold by construction: a packet cannot be there sooner than it is held.
"""

import contextlib
import json
import os
import pty
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from holder import stat_of
from leftovers import Surroundings, gone, marked
from nobody import NOBODY, as_nobody, open_to_all
from small_lab import IN_UML, LINK, any_link, compiled, skip_if_forbidden

from console import ROOT, environment, farwrite, words_of
from farwrite.base.errors import EXIT_UNFIT, EXIT_USAGE, UnfitError
from farwrite.base.physics import distance, rtt_ns_of
from farwrite.lab.session import proof
from farwrite.lab.survey import Survey
from farwrite.lab.topology import Leg
from farwrite.workload.link_spec import PLAIN

pytestmark = pytest.mark.lab

KILLS = int(os.environ.get("FARWRITE_LAB_KILLS", "2" if IN_UML else "6"))
PATIENCE_S = 60
FAR_RTT_MS = 40  # Held packets are seen whatever else the machine does.
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
MESH = """
[[link]]
sites = ["near", "far"]
rtt = "40 ms"

[[link]]
sites = ["near", "witness"]
rtt = "20 ms"

[site.witness]
command = "echo I am $FARWRITE_SITE at $WITNESS"
"""


@pytest.fixture(scope="module", autouse=True)
def lab_here():
    """How long a command lasts that does nothing, all modules loaded already; skips where no lab may be."""
    compiled()
    for _ in range(2):
        begin_s = time.monotonic()
        done = farwrite("lab", "--miles", "1", "--link", LINK, ANYWAY, "--", "true")
        if done.returncode == EXIT_UNFIT:
            skip_if_forbidden(done.stderr)
        assert done.returncode == 0, done.stderr
    return time.monotonic() - begin_s


ANYWAY = "--accept-link-error"  # Where the distance is not what a test is about: this machine may be busy.


def lab(*words, distance=("--rtt", f"{FAR_RTT_MS} ms"), **options):
    return farwrite("lab", *distance, "--link", LINK, ANYWAY, *words, **options)


def test_programs_that_choose_no_congestion_control_have_the_labs_own_at_both_ends():
    """And not the host's default. Where the kernel lacks it the lab has said which one is in force."""
    asked = "s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode()"
    far = f"import os, socket; s = socket.create_server((os.environ['FAR'], 7777)).accept()[0]; s.sendall({asked}.encode())"
    near = f"import os, socket; s = socket.create_connection((os.environ['FAR'], 7777)); print({asked}, s.recv(16).decode())"
    python = shlex.quote(sys.executable)
    done = lab("--wait-port", "7777", "--far", f"{python} -c {shlex.quote(far)}", "--", sys.executable, "-c", near)
    assert done.returncode == 0, done.stderr
    if "cubic" not in Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text():
        pytest.skip("this kernel has no CUBIC")
    assert done.stdout.split() == ["cubic", "cubic"]


def until_exists(path):
    """A shell's words: wait until another site's command has made this file."""
    return f"until [ -e {path} ]; do sleep 0.05; done"


def needs(*programs):
    """Skip where one of these is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize(("line", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_the_exit_code_is_the_commands(line, code):
    assert lab("--", "sh", "-c", line).returncode == code


def test_what_the_command_prints_is_untouched_and_our_line_tells_what_the_link_delivers():
    done = lab("--", "sh", "-c", "printf 'out\\n\\001'; printf err >&2")
    assert done.stdout == "out\n\x01"
    first, rest = done.stderr.split("\n", 1)
    assert re.fullmatch(
        rf"farwrite lab: near 198\.18\.0\.1 to far 198\.18\.0\.2: 2538 miles by (netem|ferry); {FAR_RTT_MS}\.0 ms asked, "
        r"a bare echo takes [\d.]+ ms \(median of 12\)\..*",
        first,
    ), first  # fmt: skip
    assert rest == "err"


def span_that_takes(rtt_ns, own_ns=50_000):
    """A pretend span that delivers this round trip, whatever is asked."""
    site = SimpleNamespace(address="198.18.0.1")
    made = Survey(np.array([rtt_ns] * 9))
    return SimpleNamespace(
        near=site, far=site, link=SimpleNamespace(kind="ferry"), base=Survey(np.array([own_ns])), passage_ns=(own_ns, 0),
        set_distance=lambda asked: None, prove=lambda asked, count: made,
    )  # fmt: skip


def test_a_link_that_does_not_deliver_what_was_asked_is_refused_unless_told_otherwise():
    leg = Leg("near", "far", distance(150), PLAIN)
    asked_ns = leg.asked.rtt_ns
    assert proof(span_that_takes(asked_ns + 70_000), leg).endswith("takes 2.43 ms (median of 9).")
    for missed_ns in (71_000, -71_000, 2_000_000):
        with pytest.raises(UnfitError, match=r"us off, and 71 us are allowed.*try again.*--accept-link-error"):
            proof(span_that_takes(asked_ns + missed_ns), leg)
        assert proof(span_that_takes(asked_ns + missed_ns), leg, accept_error=True).startswith("⚠ near 198.18.0.1")
    with pytest.raises(UnfitError, match=r"This lab takes 0\.100 ms itself: ask for 7 miles or more"):
        proof(span_that_takes(100_000, 100_000), Leg("near", "far", distance(1), PLAIN))
    assert proof(span_that_takes(300_000), Leg("near", "far", distance(0), PLAIN))  # 0 miles claim nothing.


def test_a_distance_in_miles_is_proven_from_kernel_to_kernel():
    done = farwrite("lab", "--miles", "150", "--link", LINK, ANYWAY, "--", "true")
    asked, taken = r"150 miles by \w+; 2\.36\d* ms asked", r"from kernel to kernel and back a packet takes [\d.]+ ms"
    assert re.search(rf"{asked}, {taken} \(median of 60\)", done.stderr)


def test_the_command_finds_everything_but_the_network_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("here")
    seen = "import os, socket; print(open('mine').read(), os.getuid(), sorted(n for _, n in socket.if_nameindex()))"
    done = lab("--", sys.executable, "-c", seen, cwd=tmp_path)
    assert done.stdout == f"here {os.getuid()} ['far0', 'lo']\n"


def test_the_command_is_told_where_it_is_and_how_to_reach_the_others(tmp_path):
    near = f"echo $FARWRITE_SITE $NEAR $FAR; {until_exists(tmp_path / 'far')}; sleep 0.3"
    done = lab("--far", f"echo $FARWRITE_SITE $NEAR $FAR; touch {tmp_path / 'far'}", "--", "sh", "-c", near)
    assert done.stdout == "near 198.18.0.1 198.18.0.2\n"
    assert "far | far 198.18.0.1 198.18.0.2\n" in done.stderr


@any_link
def test_a_command_that_is_not_there_is_127_and_one_that_may_not_be_run_126(tmp_path):
    (tmp_path / "text").write_text("no program")
    done = lab("--", "no-such-program")
    assert (done.returncode, "No such file" in done.stderr) == (127, True)
    done = lab("--", tmp_path / "text")
    assert (done.returncode, "Permission denied" in done.stderr) == (126, True)


@any_link
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--", "true"], "How far away is the far site?"),
        (["--miles", "20", "--km", "30", "--", "true"], "say one of miles, km and rtt"),
        (["--miles", "20", "--loss", "2", "--", "true"], "is not a share from 0 to 1"),
        (["--miles", "20", "--rate", "fast", "--", "true"], '"fast" is not a number with a unit'),
        (["--miles", "20", "--wait-port", "0", "--", "true"], "1 to 65535"),
        (["--miles", "20", "--sites", "x.toml", "--", "true"], "give no other option about a link"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_before_a_lab_is_opened(words, sentence):
    done = farwrite("lab", *words)
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert sentence in done.stderr


# The far command.

SERVER = "python3 -c 'import socket,time; time.sleep(0.5); s=socket.create_server((\"\",7000)); s.accept()[0].sendall(b\"hi\")'"
CLIENT = "import os, socket; print(socket.create_connection((os.environ['FAR'], 7000)).recv(2).decode())"


def test_the_near_command_waits_for_a_port_of_the_far_one():
    done = lab("--far", SERVER.replace("python3", sys.executable), "--wait-port", "7000", "--", sys.executable, "-c", CLIENT)
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr


def test_a_far_command_that_fails_ends_the_near_one_and_its_words_and_code_are_shown():
    done = lab("--far", "echo no room; exit 3", "--", "sleep", "60")
    assert done.returncode == 143
    assert "far | no room\n" in done.stderr
    assert "the far command ended with exit code 3; the near one is sent SIGTERM." in done.stderr


def test_a_far_command_that_is_done_ends_nothing(tmp_path):
    done = lab("--far", f"touch {tmp_path / 'far'}", "--", "sh", "-c", f"{until_exists(tmp_path / 'far')}; sleep 0.5; echo on")
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "the far command ended with exit code 0." in done.stderr


@any_link
def test_a_far_command_that_ends_before_it_listens_is_an_error():
    done = lab("--far", "exit 2", "--wait-port", "80", "--", "true")
    assert done.returncode == EXIT_UNFIT
    assert "ended with exit code 2 before it listened on port 80" in done.stderr


# Several sites.


def test_several_sites_reach_each_other_each_at_its_own_distance_and_by_one_address(tmp_path):
    needs("ping")
    (tmp_path / "mesh.toml").write_text(MESH)
    ping = "for site in $FAR $WITNESS; do ping -qc 2 -i 0.2 $site | tail -1; done"
    done = farwrite("lab", "--sites", tmp_path / "mesh.toml", "--link", LINK, ANYWAY, "--", "sh", "-c", ping)
    assert done.returncode == 0, done.stderr
    far_ms, witness_ms = (float(line.split("=")[1].split("/")[0]) for line in done.stdout.splitlines())
    assert far_ms > FAR_RTT_MS / 2 and witness_ms > FAR_RTT_MS / 4  # Held as calibrated: less the lab's own round trip.
    assert "witness | I am witness at 198.18.0.3\n" in done.stderr
    assert "far 198.18.0.2 to witness 198.18.0.3: 3806 miles" in done.stderr  # By way of near: 60 ms.


# The programs of others.


def test_ping_finds_the_distance():
    needs("ping")
    done = lab("--", "sh", "-c", "ping -qc 3 -i 0.2 $FAR")
    assert float(done.stdout.splitlines()[-1].split("=")[1].split("/")[0]) > FAR_RTT_MS / 2, done.stderr


def test_iperf3_measures_across_it():
    needs("iperf3")
    line = "exec iperf3 -c $FAR -t 1 --json"
    done = lab("--far", "exec iperf3 -s -1", "--wait-port", "5201", "--", "sh", "-c", line)
    measured = json.loads(done.stdout)["end"]["streams"][0]["sender"]
    assert measured["min_rtt"] > 1000 * FAR_RTT_MS / 2
    assert measured["bits_per_second"] > 0


@any_link
def test_every_synchronous_commit_of_postgresql_takes_the_round_trip(open_tmp):
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed below /usr/lib/postgresql")
    room = open_to_all(open_tmp / "data")
    if os.getuid() == 0:  # As whom PostgreSQL refuses to start.
        needs("setpriv")
        os.chown(room, NOBODY, NOBODY)
    as_user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups" if os.getuid() == 0 else ""
    prepare = "initdb --no-sync -D near -U me -A trust && echo 'host all,replication all 198.18.0.0/15 trust' >> near/pg_hba.conf"
    far = "until pg_isready -qh $NEAR; do sleep 0.2; done; pg_basebackup -N -h $NEAR -D far -R && exec postgres -D far -k ''"
    near = (
        r"""pg_ctl -D near -l near.log -o "-h \* -k '' -c synchronous_standby_names=\*" start >&2 && """
        "pgbench -h $NEAR -iq postgres >&2 && pgbench -h $NEAR -N -t 20 --log postgres >&2 && cat pgbench_log.* && "
        "psql -h $NEAR -Atc 'select client_addr, sync_state from pg_stat_replication' postgres"
    )
    env = {"PATH": f"{POSTGRES}:{os.environ['PATH']}", "PGUSER": "me"}
    subprocess.run(
        shlex.split(as_user) + ["sh", "-c", prepare], cwd=room, env=env, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    words = [*shlex.split(as_user), "sh", "-c", near]
    done = lab("--far", f"{as_user} sh -c {shlex.quote(far)}", "--", *words, cwd=room, **env)
    assert done.returncode == 0, done.stderr
    *commits, state = done.stdout.splitlines()
    took_ms = [int(line.split()[2]) / 1000 for line in commits]
    assert len(took_ms) == 20
    assert min(took_ms) > FAR_RTT_MS / 2
    assert state == "198.18.0.2|sync"


@any_link
def test_the_three_lines_that_the_manual_shows_for_postgresql_work_as_they_stand(open_tmp):
    """Typed by root, its programs become another user's: PostgreSQL refuses to start as root."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed below /usr/lib/postgresql")
    shown = re.search(r"```sh\n(initdb .*?)```", (ROOT / "docs" / "lab.md").read_text(), re.S)
    lines = shown.group(1).splitlines()
    assert len(lines) == 3
    room, shims = open_to_all(open_tmp / "data"), open_to_all(open_tmp / "shims")
    as_user = ""
    if os.getuid() == 0:
        needs("setpriv")
        os.chown(room, NOBODY, NOBODY)
        as_user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
    for name in ("initdb", "pg_ctl", "postgres", "pg_basebackup", "pg_isready", "pgbench"):
        quick = " --no-sync" if name in ("initdb", "pg_basebackup") else ""  # Nobody needs these files after a crash.
        (shims / name).write_text(f'#!/bin/sh\nexec {as_user}{POSTGRES / name}{quick} "$@"\n')
    (shims / "farwrite").write_text(f'#!/bin/sh\nexec {sys.executable} -m farwrite "$@"\n')
    for shim in shims.iterdir():
        shim.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", "\n".join(lines).replace("-T 5", "-T 1")], cwd=room, capture_output=True, text=True, check=False,
        env=environment(PATH=f"{shims}:{os.environ['PATH']}"), timeout=10 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tps = " in done.stdout


# A terminal.


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *words):
        self.said = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            command = words_of("lab", "--rtt", f"{FAR_RTT_MS} ms", "--link", LINK, ANYWAY, *words)
            os.execve(command[0], command, environment(SHELL="/bin/sh", PS1="ready> ", ENV=""))

    def wait_for(self, text):
        """Read until the terminal has shown this."""
        until_s = time.monotonic() + PATIENCE_S
        while text not in self.said and time.monotonic() < until_s:
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self.descriptor, 4096).decode(errors="replace")
                except OSError:  # Everybody has closed it.
                    break
        assert text in self.said, self.said
        self.said = self.said[self.said.index(text) + len(text) :]

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def runs_another(self, shell):
        """Wait until not the shell but what it runs is in the foreground, which is who hears of Ctrl-C and Ctrl-Z."""
        until_s = time.monotonic() + PATIENCE_S
        while os.tcgetpgrp(self.descriptor) == shell:
            assert time.monotonic() < until_s, self.said
            time.sleep(0.01)
        time.sleep(0.3)  # It has its own program by then.

    def ended(self):
        """The exit code."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            if select.select([self.descriptor], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.said += os.read(self.descriptor, 4096).decode(errors="replace")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_without_a_command_there_is_a_shell_with_job_control_and_ctrl_c_is_its_own():
    terminal = Terminal()
    terminal.wait_for("ready> ")
    shell = os.tcgetpgrp(terminal.descriptor)
    terminal.type("sleep 60\n")
    terminal.wait_for("sleep 60\r\n")
    terminal.runs_another(shell)
    terminal.type("\x03")
    terminal.wait_for("ready> ")
    terminal.type("echo code=$?\n")
    terminal.wait_for("code=130")
    terminal.type("sleep 61 & jobs; fg\n")
    terminal.wait_for("Running")
    terminal.runs_another(shell)
    terminal.type("\x1a")
    terminal.wait_for("Stopped")
    terminal.type("kill -9 %1; wait; echo at-$FARWRITE_SITE\n")
    terminal.wait_for("at-near")
    terminal.type("exit 5\nexit 5\n")  # A shell may ask once, because of its jobs.
    assert terminal.ended() == 5


def test_ctrl_c_ends_the_command_and_not_the_far_one_before_it(tmp_path):
    far = f"trap 'echo hit; exit 1' INT; touch {tmp_path / 'far'}; sleep 60"
    line = f"trap 'echo caught; exit 9' INT; {until_exists(tmp_path / 'far')}; echo ready; while :; do sleep 0.1; done"
    terminal = Terminal("--far", far, "--", "sh", "-c", line)
    terminal.wait_for("ready")
    terminal.type("\x03")
    terminal.wait_for("caught")
    assert terminal.ended() == 9
    assert "hit" not in terminal.said


# Nothing is left.


class Command:
    """`farwrite lab` in a fork of ours, all kernels compiled already, with commands at both sites that detach themselves."""

    def __init__(self, word, directory):
        self.word = word
        self.alike = lookalikes()
        line = "setsid sleep 300 & (setsid sleep 301 &); sleep 302"
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.chdir(directory)
                os.environ["FARWRITE_TEST"] = word
                nowhere = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(nowhere, stream)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123
                sys.argv = ["farwrite", "lab", "--miles", "20", "--link", LINK, ANYWAY, "--far", line, "--", "sh", "-c", line]
                from farwrite.cli import main

                main()
            except SystemExit as leaving:
                code = leaving.code
            finally:
                os._exit(code)

    def living(self):
        """What there is of it besides itself: commands by a word in their environment, forks by our own command line."""
        return [*marked(self.word), *self.forks()]

    def forks(self):
        """Forks of ours since then; a pytest that runs beside us looks like us, and so do its children."""
        others = self.alike - {os.getpid()}
        return {pid for pid in lookalikes() - self.alike if not others.intersection(ancestors(pid))}

    def end(self):
        for pid in [self.pid, *self.living()]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def lookalikes():
    """Living processes with our own command line: forks of ours."""
    found = set()
    ours = Path("/proc/self/cmdline").read_bytes()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == ours:
                found.add(int(entry.name))
    return found


def ancestors(pid):
    """Its parent, that one's parent and so on, as far as they live."""
    while stat := stat_of(pid):
        pid = stat["parent"]
        yield pid


def kill_at(directory, lasts_s):
    """Start the command, kill it after so long; answers once nothing is left of it."""
    there = Surroundings(directory / uuid.uuid4().hex)
    command = Command(uuid.uuid4().hex, there.directory)
    try:
        time.sleep(lasts_s)
        os.kill(command.pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1]) == -signal.SIGKILL
        assert gone(command.living, 10.0), command.living()
        there.assert_nothing_left()
    finally:
        command.end()


def test_commands_killed_at_random_instants_leave_nothing(tmp_path, lab_here):
    """FARWRITE_LAB_KILLS says how many."""
    for seed in range(KILLS):
        kill_at(tmp_path, random.Random(seed).uniform(0, 1.3 * lab_here + 0.3))


@pytest.fixture
def running(tmp_path):
    """A command whose guests all run."""
    command = Command(uuid.uuid4().hex, tmp_path)
    until_s = time.monotonic() + PATIENCE_S
    try:
        while len(sleepers(command.word)) < 6:
            assert time.monotonic() < until_s, f"{len(sleepers(command.word))} of 6 commands run"
            time.sleep(0.05)
        yield command
    finally:
        command.end()


def sleepers(word):
    """The guests that last."""
    return [pid for pid in marked(word) if name_of(pid) == "sleep"]


def name_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_is_sent_to_us_is_the_commands_and_then_everything_ends(running, number, code):
    assert len(sleepers(running.word)) == 6
    os.kill(running.pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]) == code
    assert gone(running.living), running.living()


def test_what_detached_itself_ends_with_the_command(running):
    victim = next(pid for pid in sleepers(running.word) if b"302" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(victim, signal.SIGTERM)  # One of the two on which a site's shell waits: the lab ends either way.
    _, status = os.waitpid(running.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    assert gone(running.living), running.living()


def test_a_warden_that_is_killed_ends_the_lab(running):
    sessions = {pid: os.getsid(pid) for pid in running.forks() - {running.pid}}
    (reaper,) = (pid for pid, session in sessions.items() if session == pid)
    os.kill(reaper, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]) == EXIT_UNFIT
    assert gone(running.living), running.living()


# Without root.


@pytest.mark.parametrize(("words", "user"), [([], NOBODY), (["--root"], 0)])
def test_without_root_the_command_is_who_its_user_is_unless_asked(open_tmp, words, user):
    needs("ping")
    word = uuid.uuid4().hex
    data = open_to_all(open_tmp / "data")
    line = "id -u; touch mine; ping -qc 1 $FAR | grep -c rtt"
    options = "--rtt", f"{FAR_RTT_MS} ms", "--link", LINK, ANYWAY, *words
    command = [sys.executable, "-m", "farwrite", "lab", *options, "--", "sh", "-c", line]
    with as_nobody(open_to_all(open_tmp / "scratch"), data, command, "666", word) as run:
        said, told = run.communicate(timeout=3 * PATIENCE_S)
        if "unshare(" in told:
            pytest.skip(told)
        assert run.returncode == 0, told
        assert said.split() == [str(user), "1"]
        assert (data / "mine").stat().st_uid == NOBODY
    assert gone(lambda: marked(word))


# Timed at two distances.

# A command that makes so many round trips: it opens connections one after the other, each a packet there and one back.
FAR_MILES = 1000
DIALS = "import os, socket\nfor _ in range({}): socket.create_connection((os.environ['FAR'], 7000)).close()"
ANSWERS = "import socket; s = socket.create_server((\"\", 7000), backlog=64)\nwhile True: s.accept()[0].close()"


def measured(*words, dials=2, far=ANSWERS, **options):
    answers = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(far)}"
    command = [sys.executable, "-S", "-c", DIALS.format(dials)]
    far_away = "--miles", str(FAR_MILES)
    return lab("--measure", "--far", answers, "--wait-port", "7000", *words, "--", *command, distance=far_away, **options)


@any_link
def test_a_command_is_timed_at_both_distances_and_its_round_trips_are_counted():
    done = measured("--runs", "8", "--warmup", "1", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    rounds = made["repeated"]["rounds"]
    assert len(rounds) == 8 and [pair["near_first"] for pair in rounds] == [True, False] * 4
    for pair in rounds:
        assert min(pair["far"]["run_ns"]) > 0.99 * 2 * rtt_ns_of(FAR_MILES)  # A dial is a packet there and one back.
    result = made["result"]
    near, far = ([run_ns for pair in rounds for run_ns in pair[side]["run_ns"]] for side in ("at_0", "far"))
    assert result["added_ns"]["value"] == sorted(far)[3] - sorted(near)[3]
    apart_ns = result["far"]["rtt_ns_p50"]["value"] - result["at_0"]["rtt_ns_p50"]["value"]
    assert result["k"]["value"] == pytest.approx(result["added_ns"]["value"] / apart_ns)
    assert result["far"]["run_ns_p99"]["value"] is None  # Eight runs are too few, and say so.


@any_link
def test_what_a_command_costs_is_printed_for_a_person_with_nothing_of_its_own_output_between():
    done = measured("--runs", "6", "--warmup", "1", dials=1)
    assert done.returncode == 0, done.stderr
    first = " ".join(done.stdout.split("\n\n")[0].split())
    assert " at 0 miles and " in first and f" at {FAR_MILES} miles." in first
    assert max(map(len, done.stdout.splitlines())) <= 80
    quiet = measured("--runs", "1", "--warmup", "1", "-q", dials=1)
    assert quiet.returncode == 0 and "p50 needs n >= 6 (n = 1)" in " ".join(quiet.stdout.split())
    assert "farwrite lab: near" not in quiet.stderr


@any_link
def test_a_run_that_fails_ends_it_with_its_output_and_code_and_says_at_which_distance(tmp_path):
    # The second run at the distance fails: each notes that it was there, and how far away the other site is does not show itself.
    line = f"echo x >> {tmp_path / 'runs'}; [ $(wc -l < {tmp_path / 'runs'}) -lt 4 ] || {{ echo said; echo why >&2; exit 7; }}"
    done = lab("--measure", "--runs", "6", "--warmup", "1", "--", "sh", "-c", line)
    assert (done.returncode, done.stdout) == (7, "said\n")
    assert "\nwhy\n" in done.stderr
    assert re.search(r"run 1 of round 1 at 2538 miles ended with exit code 7; what it printed stands above\.", done.stderr)
    assert lab("--measure", "--", "no-such-program").returncode == 127


@any_link
def test_an_interruption_leaves_what_was_measured_by_then(tmp_path):
    runs = tmp_path / "runs"
    runs.touch()
    line = f"echo x >> {runs}; sleep 0.1"
    options = ["--miles", "200", "--link", LINK, ANYWAY, "--measure", "--runs", "40", "--json"]
    words = words_of("lab", *options, "--", "sh", "-c", line)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as run:
        until_s = time.monotonic() + 6 * PATIENCE_S
        while runs.read_text().count("x") < 10:  # Four to warm up, four a round.
            assert run.poll() is None and time.monotonic() < until_s
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        said, told = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 143, told
    made = json.loads(said)["repeated"]
    assert made["interrupted"] and len(made["rounds"]) >= 1
