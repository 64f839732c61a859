"""`farwrite serve`: real NBD clients on a volume whose second copy is an emulated distance away, and what outlives a death."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_lab import any_link, skip_if_forbidden

from console import assert_refused, environment, farwrite, words_of
from farwrite.base.errors import EXIT_UNFIT, EXIT_USAGE, UnfitError, UsageError
from farwrite.base.host import disk as disk_module
from farwrite.commands.link_options import NOTHING_ASKED
from farwrite.commands.serve import new_settings
from farwrite.engine.frontend import nbd
from farwrite.experiment.serve import volume_files
from make_certificates import certificates
from nbd_client import NbdClient

pytestmark = [pytest.mark.lab, any_link]

READY_S, END_S, TOOL_S = 280, 60, 60
SIZE = 64 << 20
IMAGE = 5 << 20  # Of it; clients leave each other's parts alone.


def serving(*words, **options):
    """A new volume with these words."""
    return opened("--miles", "20", "--size", SIZE, *words, **options)


def opened(*words, before=(), **options):
    """`farwrite serve` with these words. `before`: the words of a program that becomes it."""
    return running([*before, *words_of("serve", "--json", "--accept-link-error", *words)], **options)


@contextlib.contextmanager
def running(words, **options):
    """What a command that serves says once it is ready. Unless it was killed, it must end in order, with exit code 0."""
    with subprocess.Popen(
        words,
        **{"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    ) as process:  # fmt: skip
        lines: list[str] = []  # What it says meanwhile: nobody else reads it, and a pipe that is full would hold it up.
        reading = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "") if process.stderr else ()))
        reading.start()
        try:
            text = ""
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                if not line:
                    code = process.wait(END_S)
                    reading.join(END_S)
                    if code == EXIT_UNFIT:
                        skip_if_forbidden(UnfitError("".join(lines)))
                    pytest.fail("".join(lines))
                text += line
            made = SimpleNamespace(process=process, lines=lines, **json.loads(text))
            yield made
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(END_S)
            reading.join(END_S)
            made.said = "".join(lines)
            assert process.returncode in (0, -signal.SIGKILL) and "Traceback" not in made.said, made.said
        finally:
            process.kill()
            reading.join(END_S)


@pytest.fixture(scope="module")
def served():
    with serving("--memory", "--port", "0", "--metrics", "0") as made:
        yield made


def until(condition, what):
    limit_s = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < limit_s, what
        time.sleep(0.05)


def tool(name, package):
    return shutil.which(name) or pytest.skip(f"{name} is not installed (Debian: apt install {package})")


def run(*words, code=0, limit_s=TOOL_S, **options):
    """A client's output; it must end with this code within the limit."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=limit_s, check=False, **options)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Bytes that do not repeat, with a hole among them."""
    path = tmp_path_factory.mktemp("image") / "image"
    data = os.urandom(IMAGE // 2)
    path.write_bytes(data[: 2 << 20] + bytes(1 << 20) + data[2 << 20 :] + bytes(IMAGE - (1 << 20) - len(data)))
    return path


def socket_of(served, name="volume"):
    return f"{served.sockets}/{name}.sock"


# Clients


def test_nbdinfo_finds_the_volume_and_what_it_can(served):
    nbdinfo = tool("nbdinfo", "libnbd-bin")
    assert run(nbdinfo, "--size", served.uri).strip() == str(SIZE)
    assert run(nbdinfo, "--size", served.tcp_uri).strip() == str(SIZE)
    listed = json.loads(run(nbdinfo, "--list", "--json", served.uri))
    assert [one["export-name"] for one in listed["exports"]] == ["volume", "volume-ro"]
    run(nbdinfo, "--can", "multi-conn", served.uri)
    run(nbdinfo, "--is", "read-only", served.read_only_uri)


def test_nbdcopy_brings_an_image_in_and_out_over_several_connections(served, image, tmp_path):
    nbdcopy = tool("nbdcopy", "libnbd-bin")
    whole = tmp_path / "whole"
    with whole.open("wb") as file:
        file.write(image.read_bytes())
        file.truncate(SIZE)
    for uri in (served.uri, served.tcp_uri):
        run(nbdcopy, "--connections=4", "--flush", whole, uri)
        for number in range(3):
            run(nbdcopy, uri, tmp_path / f"out{number}")
            assert (tmp_path / f"out{number}").read_bytes() == whole.read_bytes()


def test_nbdinfo_maps_what_was_written_and_what_is_a_hole(served):
    nbdinfo = tool("nbdinfo", "libnbd-bin")
    with NbdClient(socket_of(served)) as client:
        assert client.ask(nbd.TRIM, 0, SIZE)[0] == 0
        assert client.write(8 << 20, bytes([7]) * (1 << 20)) == 0
    extents = json.loads(run(nbdinfo, "--map", "--json", served.uri))
    written = [one for one in extents if not one["type"] & 1]
    assert [(one["offset"], one["length"]) for one in written] == [(8 << 20, 1 << 20)]


def nbdsh():
    """The words that begin it: Debian's own Python has the module, and nbdsh asks for whichever comes first."""
    tool("nbdsh", "python3-libnbd")
    if subprocess.run(["/usr/bin/python3", "-c", "import nbd"], capture_output=True, check=False).returncode:
        pytest.skip("Debian's Python has no libnbd (apt install python3-libnbd)")
    return ["/usr/bin/python3", "-m", "nbd"]


def test_nbdsh_writes_with_fua_zeroes_trims_and_flushes(served):
    script = """
h.connect_uri(URI)
h.pwrite(b'a' * 8192, 16 << 20, nbd.CMD_FLAG_FUA)
h.zero(4096, 16 << 20, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(8192, 16 << 20) == bytes(4096) + b'a' * 4096
h.pwrite(b'odd', (17 << 20) + 5)
assert h.pread(5, (17 << 20) + 4) == b'\\0odd\\0'
h.trim(1 << 20, 16 << 20)
h.flush()
assert h.pread(8192, 16 << 20) == bytes(8192)
try:
    h.pwrite(b'x', h.get_size())
    raise SystemExit("written beyond the end")
except nbd.Error:
    pass
h.shutdown()
"""
    run(*nbdsh(), "--base-allocation", "-c", f"URI = {served.uri!r}", "-c", script)


def test_nbdsh_reads_holes_as_chunks_of_their_own(served):
    script = """
h.connect_uri(URI)
h.trim(1 << 20, 24 << 20)
h.pwrite(b'a' * 65536, (24 << 20) + 65536)
def read(count, offset, flags=0):
    found = []
    h.pread_structured(count, offset, lambda data, at, kind, error: found.append((at - offset, len(data), kind)) and 0, flags)
    return found
HOLE, DATA = nbd.READ_HOLE, nbd.READ_DATA
assert read(1 << 20, 24 << 20) == [(0, 65536, HOLE), (65536, 65536, DATA), (131072, (1 << 20) - 131072, HOLE)]
assert read(4096, 24 << 20) == [(0, 4096, HOLE)]
assert read(1 << 20, 24 << 20, nbd.CMD_FLAG_DF) == [(0, 1 << 20, DATA)]
assert h.pread(1 << 20, 24 << 20) == bytes(65536) + b'a' * 65536 + bytes((1 << 20) - 131072)
h.shutdown()
"""
    run(*nbdsh(), "-c", f"URI = {served.uri!r}", "-c", script)


def test_qemu_img_converts_compares_and_maps_an_image(served, image, tmp_path):
    qemu_img = tool("qemu-img", "qemu-utils")
    run(qemu_img, "convert", "-n", "-f", "raw", "-O", "raw", image, served.uri)
    with pytest.raises(AssertionError, match=r"differs|mismatch"):
        run(qemu_img, "compare", "-s", "-f", "raw", image, served.uri)  # Strictly: it is larger.
    run(qemu_img, "convert", "-f", "raw", "-O", "raw", served.uri, tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:IMAGE] == image.read_bytes()
    run(qemu_img, "compare", "-f", "raw", tmp_path / "out", served.uri)
    run(qemu_img, "bench", "-f", "raw", "-w", "-c", "200", "-d", "16", "-s", "4096", "-o", str(32 << 20), served.uri)
    assert '"depth"' in run(qemu_img, "map", "--output=json", "-f", "raw", served.uri)


def test_qemu_io_reads_the_pattern_that_it_wrote_and_zeros_where_it_discarded(served):
    qemu_io = tool("qemu-io", "qemu-utils")
    said = run(qemu_io, "-f", "raw", "-c", "write -f -P 0xa5 20M 1M", "-c", "write -z -u 20M 64k", "-c", "discard 21430272 8k",
               "-c", "flush", "-c", "read -P 0 20M 64k", "-c", "read -P 0xa5 21037056 64k", served.uri)  # fmt: skip
    assert "verification failed" not in said
    run(qemu_io, "-r", "-f", "raw", "-c", "read -P 0xa5 21037056 64k", served.read_only_uri)


def test_fio_verifies_what_it_wrote(served, tmp_path):
    fio = tool("fio", "fio")
    if "nbd" not in run(fio, "--enghelp"):
        pytest.skip("this fio is built without libnbd")
    run(fio, "--name=verified", "--ioengine=nbd", f"--uri={served.uri}", "--rw=randwrite", "--bs=4k", "--iodepth=16",
        "--size=4m", "--offset=40m", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=64",
        cwd=tmp_path)  # fmt: skip


# Bad manners


def test_the_read_only_view_refuses_every_change(served):
    with NbdClient(socket_of(served), b"volume-ro") as client:
        assert client.flags & nbd.IS_READ_ONLY
        assert client.write(0, b"x") == nbd.EPERM
        assert client.ask(nbd.TRIM, 0, 4096)[0] == nbd.EPERM
        assert client.ask(nbd.WRITE_ZEROES, 0, 4096)[0] == nbd.EPERM
        assert client.read(0, 1) is not None


def test_beyond_the_end_and_unknown_words_have_the_protocols_errors_and_the_connection_goes_on(served):
    with NbdClient(socket_of(served)) as client:
        assert client.write(SIZE - 1, b"xx") == nbd.ENOSPC
        assert client.ask(nbd.READ, SIZE, 1)[0] == nbd.EINVAL
        assert client.ask(77)[0] == nbd.EINVAL
        assert client.ask(nbd.FLUSH)[0] == 0


def test_many_clients_that_negotiate_and_vanish_hold_up_nobody(served):
    left = []
    for number in range(100):
        one = socket.socket(socket.AF_UNIX)
        one.connect(socket_of(served))
        if number % 2:
            one.close()
        else:
            left.append(one)
    with NbdClient(socket_of(served)) as client:
        assert client.write(0, b"still served") == 0
    for one in left:
        one.close()


# What it says of itself


def metrics_of(served):
    text = urllib.request.urlopen(served.metrics_uri, timeout=10).read().decode()
    return dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))


def test_prometheus_reads_counters_and_quantiles(served):
    with NbdClient(socket_of(served)) as client:
        assert client.write(0, bytes(4096)) == 0
    values = metrics_of(served)
    assert values['farwrite_leads{replica="near"}'] == "1" and values['farwrite_leads{replica="far"}'] == "0"
    assert int(values['farwrite_writes_total{replica="near"}']) > 0
    assert float(values['farwrite_write_seconds{replica="near",quantile="0.99"}']) > 0
    assert 'farwrite_peer_live{peer="far"}' in values


def test_a_volume_takes_no_more_room_than_it_may_before_and_after_a_failover():
    """nbdsh at whoever leads: a new extent is refused, and what is there can be written over, trimmed and written elsewhere."""
    with serving("--memory", "--metrics", "0", "--room", "2m") as made:
        script = """
import errno
def refused(offset):
    try:
        h.pwrite(bytes(65536), offset)
    except nbd.Error as error:
        return error.errno == "ENOSPC"
h.connect_uri(URI)
if FIRST:
    h.pwrite(bytes([7]) * (2 << 20), 0)
assert refused(8 << 20) and refused((2 << 20) - 4096)
h.pwrite(bytes([8]) * 65536, 65536)
assert h.pread(65536, 65536) == bytes([8]) * 65536 and h.pread(4096, 8 << 20) == bytes(4096)
h.trim(65536, 0)
h.pwrite(bytes([9]) * 65536, PLACE)
assert refused(0)
h.trim(65536, PLACE)
h.pwrite(bytes([7]) * 65536, 0)
h.shutdown()
"""
        run(*nbdsh(), "-c", f"URI, FIRST, PLACE = {made.uri!r}, True, 16 << 20", "-c", script)
        values = metrics_of(made)
        assert int(values['farwrite_room_limit_bytes{replica="near"}']) == 2 << 20
        assert int(values['farwrite_room_allocated_bytes{replica="near"}']) == 2 << 20
        assert int(values['farwrite_room_refused_total{replica="near"}']) == 3
        os.kill(made.pids["near"], signal.SIGKILL)
        until(
            lambda: metrics_of(made)['farwrite_leads{replica="far"}'] == "1" and Path(socket_of(made, "far")).exists(),
            "far does not lead",
        )
        run(*nbdsh(), "-c", f"URI, FIRST, PLACE = {made.uri!r}, False, 32 << 20", "-c", script)
        # What is said is about what was seen at a look, and the volume stays full.
        until(lambda: "and writes that need more are refused" in "".join(made.lines), "nothing is said of the full volume")


def test_the_standby_refuses_at_once_and_the_sockets_are_for_their_owner_alone(served):
    assert Path(served.sockets).stat().st_mode & 0o077 == 0
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        NbdClient(socket_of(served, "far"))


# Deaths


class Writer:
    """Numbered writes to blocks of its own, each tried until it is answered; remembers the last that was, by block."""

    def __init__(self, path, begin, blocks=64):
        self.path, self.begin, self.blocks, self.number = path, begin, blocks, 0
        self.acked, self.tried = {}, {}
        self.client, self.gaps = None, []

    def write_for(self, seconds):
        until_s, last_s = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < until_s:
            block = self.number % self.blocks
            self.tried.setdefault(block, []).append(self.number)
            try:
                if self.client is None:
                    self.client = NbdClient(self.path, limit_s=END_S)
                assert self.client.write(self.begin + block * 4096, self.text(self.number)) == 0
            except (OSError, ConnectionError):
                if self.client is not None:
                    self.client.socket.close()
                self.client = None
                time.sleep(0.02)
                continue
            now_s = time.monotonic()
            self.gaps.append(now_s - last_s)
            last_s = now_s
            self.acked[block] = self.number
            self.number += 1
        return self

    def write_on(self, count=50):
        """Until so many more are answered, by whoever leads then."""
        wanted = self.number + count
        until(lambda: self.write_for(0.1).number >= wanted, "writes are not answered")
        return self

    def text(self, number):
        return (b"write %12d " % number).ljust(4096, b".")

    def lost(self, read):
        """Blocks that hold neither the last answered write nor one that was tried after it."""
        found = []
        for block, number in self.acked.items():
            data = read(self.begin + block * 4096, 4096)
            if data not in [self.text(one) for one in self.tried[block] if one >= number]:
                found.append((block, number, data[:20]))
        return found


@contextlib.contextmanager
def writing(path, begin=0, blocks=64):
    """Such writes, one after the other, as long as this block."""
    writer, ending = Writer(str(path), begin, blocks), threading.Event()

    def write():
        while not ending.is_set():
            writer.write_for(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield writer
    finally:
        ending.set()
        thread.join()
        if writer.client is not None:
            writer.client.socket.close()
            writer.client = None


def test_when_the_near_site_dies_under_a_writer_the_far_one_serves_all_that_was_answered(served):
    assert metrics_of(served)['farwrite_leads{replica="near"}'] == "1"
    writer = Writer(socket_of(served), 48 << 20).write_on()
    os.kill(served.pids["near"], signal.SIGKILL)
    writer.write_on(200)
    until(lambda: metrics_of(served)['farwrite_leads{replica="far"}'] == "1", "far does not lead")
    writer.write_on()
    with connected(socket_of(served, "far")) as client:  # Its own door is open now, or soon.
        assert not writer.lost(client.read)
    with connected(("127.0.0.1", int(served.tcp_uri.rpartition(":")[2]))) as client:  # And the port is its.
        assert not writer.lost(client.read)
    # It is started again, and catches up.
    until(lambda: metrics_of(served).get('farwrite_peer_live{peer="near"}') == "1", "near does not come back")


def connected(address):
    """A client of a door that may be about to open."""
    made = []

    def comes_in():
        with contextlib.suppress(OSError):
            made.append(NbdClient(address))
        return made

    until(comes_in, f"nobody listens at {address}")
    return made[0]


def test_a_snapshot_is_written_to_in_temporary_space_and_stays_as_it_is(served, tmp_path):
    """The commands of san.md."""
    qemu_io, qemu_img, qemu_nbd = (tool(name, "qemu-utils") for name in ("qemu-io", "qemu-img", "qemu-nbd"))
    run(qemu_io, "-f", "raw", "-c", "write -P 0x11 56M 128k", served.uri)
    assert farwrite("snapshot", "create", "to-write", "--sockets", served.sockets).returncode == 0
    frozen, scratch = served.uri.replace("///volume?", "///volume@to-write?"), tmp_path / "scratch.qcow2"
    run(qemu_img, "create", "-f", "qcow2", "-F", "raw", "-b", frozen, scratch)
    with subprocess.Popen([qemu_nbd, f"--socket={tmp_path}/scratch.sock", "--persistent", scratch]) as made:
        try:
            until((tmp_path / "scratch.sock").exists, "qemu-nbd does not listen")
            there = f"nbd+unix:///?socket={tmp_path}/scratch.sock"
            run(qemu_io, "-f", "raw", "-c", "write -P 0x22 56M 64k", there)
            run(qemu_io, "-f", "raw", "-c", "read -P 0x22 56M 64k", "-c", f"read -P 0x11 {56 * 1024 + 64}k 64k", there)
        finally:
            made.terminate()
    for uri in (frozen, served.uri):
        run(qemu_io, "-r", "-f", "raw", "-c", "read -P 0x11 56M 128k", uri)
    assert farwrite("snapshot", "delete", "to-write", "--sockets", served.sockets).returncode == 0


def test_qemu_goes_on_by_itself_when_whoever_leads_dies(served):
    qemu_io = tool("qemu-io", "qemu-utils")
    values = metrics_of(served)
    leader = next(name for name in ("near", "far") if values[f'farwrite_leads{{replica="{name}"}}'] == "1")
    image = "driver=raw,file.driver=nbd,file.server.type=unix,file.export=volume,file.reconnect-delay=30"
    words = ["write -P 0x11 60M 64k", "sleep 2000", "write -P 0x22 61M 64k", "read -P 0x11 60M 64k", "read -P 0x22 61M 64k"]
    with subprocess.Popen(
        [qemu_io, "--image-opts", f"{image},file.server.path={socket_of(served)}", *chain(*(("-c", word) for word in words))],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as qemu:  # fmt: skip
        with NbdClient(socket_of(served)) as client:
            while client.read(60 << 20, 1) != b"\x11":
                assert qemu.poll() is None
        killed = values[f'farwrite_pid{{replica="{leader}"}}']
        os.kill(int(killed), signal.SIGKILL)  # It sleeps, or writes already.
        said, _ = qemu.communicate(timeout=2 * TOOL_S)
    assert qemu.returncode == 0 and "failed" not in said and said.count("65536/65536 bytes") == 4, said
    after = metrics_of(served)  # Whoever came first: the other one, or on a very busy machine the same, started again.
    assert after[f'farwrite_leads{{replica="{leader}"}}'] == "0" or after[f'farwrite_pid{{replica="{leader}"}}'] != killed


def test_a_kept_volume_is_there_again_after_everything_was_killed(tmp_path):
    kept = tmp_path / "kept"
    with serving("--keep", kept, "--sockets", tmp_path / "s") as made:  # Killed, it would leave a directory of its own.
        writer = Writer(socket_of(made), 0).write_on()
        for pid in (made.pid, *made.pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made.process.wait(END_S)
    assert (kept / "near" / "journal").stat().st_size and (kept / "volume.json").stat().st_size
    with opened("--volume", kept) as again:  # It knows size and distance itself.
        with NbdClient(socket_of(again)) as client:
            assert writer.acked and not writer.lost(client.read)
        refused = farwrite("serve", "--volume", kept, "--quiet")
        assert_refused(refused, "is served already", code=EXIT_UNFIT)
    assert_refused(farwrite("serve", "--miles", "20", "--keep", kept, "--quiet"), "holds a volume")


def test_a_thousand_clients_where_1024_files_may_be_open_and_a_terminal_that_is_closed_ends_it_in_order():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this user may not have as many files open as a thousand clients are")
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # As usual distributions have it.
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        made = stack.enter_context(serving("--memory", start_new_session=True))
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
        clients = [stack.enter_context(NbdClient(socket_of(made))) for _ in range(1020)]
        assert clients[0].write(0, b"first") == clients[-1].write(5, b"last") == 0
        os.killpg(made.process.pid, signal.SIGHUP)
        assert made.process.wait(END_S) == 0
        assert not Path(made.sockets).exists()


def test_another_serve_does_not_take_the_place_of_sockets(served):
    refused = farwrite("serve", "--miles", "20", "--memory", "--quiet", "--sockets", served.sockets)
    assert_refused(refused, "another farwrite serve", code=EXIT_UNFIT)
    with NbdClient(socket_of(served)) as client:
        assert client.write(0, b"still ours") == 0


def test_a_reader_of_stderr_who_leaves_ends_nothing():
    reader, writer = os.pipe()
    with serving("--memory", stderr=writer) as made:
        os.close(writer)
        os.close(reader)
        with NbdClient(socket_of(made)) as client:
            assert client.write(0, b"x") == 0
            os.kill(made.pids["far"], signal.SIGKILL)  # Of which something is said.
            assert client.write(0, b"y") == 0
            time.sleep(0.5)
            assert made.process.poll() is None and client.write(0, b"z") == 0


def test_a_command_finds_the_volume_in_its_environment_and_its_exit_code_is_ours():
    nbdinfo = tool("nbdinfo", "libnbd-bin")
    done = farwrite("serve", "--miles", "20", "--size", "64m", "--memory", "--accept-link-error", "--", "sh", "-c",
                    f"{nbdinfo} --size $NBD && echo at $FARWRITE_SITE && exit 7")  # fmt: skip
    if done.returncode == EXIT_UNFIT:
        skip_if_forbidden(UnfitError(done.stderr))
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == [str(SIZE), "at", "near"]


def test_a_command_of_a_lab_has_a_volume_when_it_asks_for_one():
    nbdinfo = tool("nbdinfo", "libnbd-bin")
    done = farwrite("lab", "--miles", "20", "--volume", "64m", "--accept-link-error", "--far", "echo at $FARWRITE_SITE; sleep 60",
                    "--", "sh", "-c", f"{nbdinfo} --size $NBD; exit 9")  # fmt: skip
    if done.returncode == EXIT_UNFIT:
        skip_if_forbidden(UnfitError(done.stderr))
    assert done.returncode == 9 and done.stdout.strip() == str(SIZE), done.stderr
    assert "far | at far" in done.stderr
    assert_refused(farwrite("lab", "--miles", "20", "--volume", "64m", "--measure", "--", "true"), "neither", code=EXIT_USAGE)


# Words that cannot be


@pytest.mark.parametrize(("words", "said"), [
    (["--listen", "0.0.0.0", "--port", "0"], "others can reach that address.*--tls"),
    (["--tls", "/nowhere", "--port", "0"], r"there is no server-cert\.pem"),
    (["--tls", "/nowhere"], "give one with --port"),
    (["--listen", "nowhere"], "no address"),
    (["--memory", "--keep", "x"], "one of them"),
    (["--port", "70000"], "0 to 65535"),
    (["--size", "1000"], "--size"),
    (["--room", "1000"], "less than the 64 KiB"),
    (["--latency-budget", "1 us"], "give 10 us to 10 s"),
    (["--latency-budget", "5"], "lacks a unit"),
    (["--no-witness"], "--policy consent"),
    (["--protocol", "D"], "no \"D\""),
    (["--protocol", "quorum", "--replicas", "2"], "--replicas 3"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_do(words, said):
    assert_refused(farwrite("serve", "--miles", "20", *words), said, code=EXIT_USAGE)


def test_a_directory_that_others_may_enter_holds_no_socket(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    assert_refused(farwrite("serve", "--miles", "20", "--memory", "--quiet", "--sockets", shared), "chmod 700", code=EXIT_USAGE)
    long = tmp_path / ("long" * 25)
    assert_refused(farwrite("serve", "--miles", "20", "--memory", "--quiet", "--sockets", long), "shorter", code=EXIT_USAGE)


def test_without_an_authority_no_address_beyond_loopback_is_opened(tmp_path):
    made = certificates(tmp_path / "tls")
    (made / "ca-cert.pem").unlink()
    refused = farwrite("serve", "--miles", "20", "--listen", "0.0.0.0", "--port", "0", "--tls", made)
    assert_refused(refused, "ca-cert", code=EXIT_USAGE)


def test_a_directory_without_a_volume_is_refused(tmp_path):
    assert_refused(farwrite("serve", "--volume", tmp_path), "holds no volume.*--keep", code=EXIT_USAGE)
    assert_refused(farwrite("serve", "--volume", tmp_path / "none"), "read the volume in", code=EXIT_USAGE)
    (tmp_path / "volume.json").write_text('{"format": 1}')
    assert_refused(farwrite("serve", "--volume", tmp_path), "not what farwrite serve --keep writes", code=EXIT_USAGE)


def test_files_that_cannot_all_be_made_leave_none_and_what_is_there_is_not_written_over(tmp_path, monkeypatch):
    settings = serve_settings()
    monkeypatch.setattr(disk_module, "make_sparse", lambda *_: (_ for _ in ()).throw(UnfitError("no room")))
    kept = tmp_path / "kept"
    with pytest.raises(UnfitError, match="no room"), volume_files.new_files(settings, kept, True):
        pass
    assert not kept.exists()
    (kept / "near").mkdir(parents=True)
    (kept / "near" / "journal").write_text("somebody's")
    with pytest.raises(UsageError, match="belongs to no volume"), volume_files.new_files(settings, kept, True):
        pass
    assert (kept / "near" / "journal").read_text() == "somebody's"


def test_a_full_disk_is_refused_in_the_words_of_serve(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_files, "JOURNAL_BYTES", 1 << 60)
    with pytest.raises(UnfitError, match="--keep"), volume_files.new_files(serve_settings(), tmp_path / "kept", True):
        pass
    assert not (tmp_path / "kept").exists()


def serve_settings():
    return new_settings(NOTHING_ASKED, "1m", None, None, None, False, None)
