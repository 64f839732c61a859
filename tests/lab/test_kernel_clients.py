"""The Linux kernel's clients on a served volume: NBD under PostgreSQL, open-iscsi under dm-multipath, through a site's death.

A client of a kernel needs a kernel to itself: user-mode Linux, of which this machine's network is one cable (uml/attached). The
volume is served by this machine, and the whole client by that kernel: its file system is ext4, its programs are Debian's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from small_lab import any_link
from test_serve import metrics_of, opened, run, socket_of, tool

pytestmark = [pytest.mark.lab, any_link]

UML = Path(__file__).parent / "uml"
LIMIT_S = 240
SILENT_S = 60  # Every kernel says BEAT every other second.
NBD = ["drivers/block/nbd.ko"]
ISCSI = ["drivers/scsi/sd_mod.ko", "drivers/scsi/iscsi_tcp.ko", "drivers/md/dm-multipath.ko", "drivers/md/dm-service-time.ko"]
# Nobody is given up for being slow.
SERVED = ("--miles", "20", "--size", "256m", "--memory", "--metrics", "0", "--peer-timeout", "5 s")


@pytest.fixture(scope="module")
def postgres():
    """The directory of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")


@pytest.fixture
def cluster(postgres, open_tmp):
    """A database cluster as initdb makes it, of the user that it will run as."""
    made = open_tmp / "cluster"
    made.mkdir(mode=0o700)
    run("chown", "postgres:", made)
    run("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", postgres / "initdb", "-D", made, "-A", "trust",
        "--no-instructions", "--no-sync", "--locale=C", "--wal-segsize=1", cwd=open_tmp)  # fmt: skip
    return made


@pytest.fixture
def errors():
    """Where programs say what is wrong; more of it than a pipe would hold."""
    with tempfile.TemporaryFile("w+") as file:
        yield file


def text_of(file):
    file.seek(0)
    return file.read()


def kernel(*modules):
    """Skips where a kernel with these cannot be booted."""
    os.geteuid() == 0 or pytest.skip("user-mode Linux has a network only for root")
    tool("linux.uml", "user-mode-linux")
    places = sorted(Path("/usr/lib/uml/modules").glob("*/kernel"))
    for name in modules:
        (places and (places[-1] / name).exists()) or pytest.skip(f"this user-mode Linux has no {name}")


def words_inside(doors, modules, script, *arguments):
    """The command that boots a kernel at these doors and runs a script in it."""
    return [
        sys.executable, str(UML / "attached"), *(f"--door={place}={target}" for place, target in doors.items()),
        "--timeout", str(LIMIT_S), "--memory", "512", "--processor", str(min(os.sched_getaffinity(0))),
        *(f"--module={name}" for name in modules),
        "--", "/usr/bin/python3", "-B", str(UML / script), *map(str, arguments),
    ]  # fmt: skip


def kernels_below(pid):
    """The processes of user-mode Linux that this one has started."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, below = [], children.get(pid, [])
    while below:
        one = below.pop()
        below += children.get(one, [])
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(one) / "comm").read_text().startswith("linux"):
                found.append(one)
    return found


def state_of(pid):
    """What a process of this machine does: state, time on a processor in ticks, and what of the kernel it waits in. proc(5)."""
    place = Path("/proc") / str(pid)
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    pending = re.findall(r"^(?:SigPnd|ShdPnd|SigBlk):.*", (place / "status").read_text(), re.MULTILINE)
    return f"{pid}: {fields[0]}, {fields[11]} + {fields[12]} ticks, {(place / 'wchan').read_text()}, {' '.join(pending)}"


def end_silent(heard, errors, ended):
    """In a thread: kernels that say nothing any more are ended, once it is noted what they waited for."""
    while not ended.wait(1):
        if time.monotonic() - heard[-1] > SILENT_S:
            for moment in range(2):  # Two, to tell who runs from who waits.
                ended.wait(moment)
                for pid in kernels_below(os.getpid()):
                    with contextlib.suppress(OSError):
                        print("silent kernel", state_of(pid), file=errors, flush=True)
            for pid in kernels_below(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return


def follow(stream, actions, errors):
    """What a kernel's script says, to its end; an action is done once its word begins a line."""
    heard, ended = deque([time.monotonic() + SILENT_S], maxlen=1), threading.Event()  # It has to boot first.
    threading.Thread(target=end_silent, args=(heard, errors, ended), daemon=True).start()
    try:
        return heard_of(stream, actions, heard)
    finally:
        ended.set()


def heard_of(stream, actions, heard):
    said = []
    for line in stream:
        heard.append(time.monotonic())
        said.append(line)
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word in actions:
            actions.pop(word)()
    return "".join(said)


def skip_if_it_stood_still(said, errors):
    """User-mode Linux was seen to stop altogether on a machine with twenty others at work, its timers too: no client's fault.

    I/O that never ends is one: the beats go on meanwhile, and the test fails.
    """
    states = re.findall(r"^silent kernel (.*)$", text_of(errors), re.MULTILINE)
    if "WHOLE\n" not in said and states:
        pytest.skip("user-mode Linux stood still: " + "; ".join(states))


def followed(words, errors, actions):
    """The same of a command of ours, which has to end well."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True) as client:
        try:
            said = follow(client.stdout, actions, errors)
            skip_if_it_stood_still(said, errors)
            assert client.wait(LIMIT_S) == 0 and "WHOLE\n" in said, said + text_of(errors)
        finally:
            client.terminate()
    return said


def initiator():
    """Skips where open-iscsi is not installed, or cannot have its kernel."""
    for name, package in {"iscsid": "open-iscsi", "udevadm": "udev"}.items():
        tool(name, package)
    kernel(*ISCSI)


def kill_leader(served):
    """Whoever leads dies; answers its name."""
    values = metrics_of(served)
    leader = next(name for name in ("near", "far") if values[f'farwrite_leads{{replica="{name}"}}'] == "1")
    os.kill(int(values[f'farwrite_pid{{replica="{leader}"}}']), signal.SIGKILL)
    return leader


def test_a_database_on_the_kernels_nbd_client_has_every_committed_row_when_the_near_site_was_lost(postgres, errors, request):
    tool("nbd-client", "nbd-client")
    kernel(*NBD)
    cluster = request.getfixturevalue("cluster")  # For root alone.
    killed = []
    with opened(*SERVED, "--no-restart") as served:
        doors = {"10.99.1.1:10809": socket_of(served, "near"), "10.99.1.2:10809": socket_of(served, "far")}
        words = words_inside(doors, NBD, "database.py", postgres, cluster, *doors)
        said = followed(words, errors, {"LOADED": lambda: killed.append(kill_leader(served))})
        assert killed == ["near"]
    acked, found = (int(re.search(rf"^{word}\D*(\d+) transactions", said, re.MULTILINE)[1]) for word in ("LOST after", "FOUND"))
    assert 0 < acked <= found


def test_open_iscsi_with_multipath_goes_on_at_the_far_site_without_an_error(errors):
    tool("multipathd", "multipath-tools")
    initiator()
    killed = []
    at = "$NEAR:3260", "$FAR:3260"
    script = " ".join(words_inside(dict(zip(at, at, strict=True)), ISCSI, "paths.py", "$ISCSI", "$ISCSI_FAR"))
    with opened(*SERVED, "--", "sh", "-c", f"exec {script}", stderr=errors) as served:
        said = follow(served.process.stdout, {"WRITING": lambda: killed.append(kill_leader(served))}, errors)
        skip_if_it_stood_still(said, errors)
        assert killed == ["near"] and "WHOLE\n" in said, said + text_of(errors)


def test_open_iscsi_at_the_address_that_follows_who_leads_goes_on_without_an_error(errors):
    initiator()
    killed = []
    with opened(*SERVED, "--iscsi", "0") as served:
        target = served.iscsi_uri.split("/")[2]
        port = target.rpartition(":")[2]
        words = words_inside({f"10.99.1.1:{port}": target}, ISCSI, "paths.py", served.iscsi_uri.replace("127.0.0.1", "10.99.1.1"))
        said = followed(words, errors, {"WRITING": lambda: killed.append(kill_leader(served))})
        assert killed == ["near"] and "none refused" in said


# What they stand on


def script_of(name):
    """A program of uml/ as a module."""
    loader = SourceFileLoader(f"uml_{name}", str(UML / name))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_a_kernel_that_says_nothing_is_ended_and_what_it_waited_for_is_noted(tmp_path, errors, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SILENT_S", 0.1)
    silent = tmp_path / "linux.silent"
    shutil.copy(tool("sleep", "coreutils"), silent)
    with subprocess.Popen([silent, "60"], stdout=subprocess.PIPE, text=True) as process:
        assert follow(process.stdout, {}, errors) == ""
        assert process.wait(20) == -signal.SIGKILL
    assert re.search(rf"^silent kernel {process.pid}: S, \d+ \+ \d+ ticks, .*SigBlk", text_of(errors), re.MULTILINE)
    with pytest.raises(pytest.skip.Exception, match=f"stood still: {process.pid}: S"):
        skip_if_it_stood_still("BEAT 2\n", errors)


def test_modules_are_loaded_once_each_after_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    table = tmp_path / "modules.dep"
    table.write_text("kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n")
    in_order = script_of("run").in_order
    assert in_order(table, ["a.ko"]) == ["c.ko", "b.ko", "a.ko"]
    assert in_order(table, ["b.ko", "a.ko", "b.ko"]) == ["c.ko", "b.ko", "a.ko"]
    assert in_order(table, ["unknown.ko"]) == ["unknown.ko"]


def test_a_connection_is_passed_on_and_either_ends_end_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    attached = script_of("attached")
    path = str(tmp_path / "socket")
    assert attached.door(f"10.0.0.1:3260={path}") == (("10.0.0.1", 3260), path)
    assert attached.door("10.0.0.1:3260=127.0.0.1:99")[1] == ("127.0.0.1", 99)
    with socket.socket(socket.AF_UNIX) as target, socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=attached.serve, args=(listening, path), daemon=True).start()
        with socket.create_connection(listening.getsockname(), timeout=20) as early:
            assert early.recv(1) == b""  # Nobody listens.
        target.bind(path)
        target.listen()
        for closes in range(2):
            with socket.create_connection(listening.getsockname(), timeout=20) as client, target.accept()[0] as server:
                server.settimeout(20)
                data = os.urandom(1 << 20)
                sending = threading.Thread(target=client.sendall, args=(data,))
                sending.start()
                got = b""
                while len(got) < len(data):
                    got += server.recv(1 << 16)
                sending.join()
                assert got == data
                server.sendall(b"answer")
                assert client.recv(6) == b"answer"
                ends = (client, server) if closes else (server, client)
                ends[0].close()
                assert ends[1].recv(1) == b""
