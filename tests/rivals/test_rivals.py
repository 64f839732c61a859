"""What `make rivals` is made of, without a rival: the two loads, what is read from others, merging and judging."""

import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from both_ways import both_ways
from farwrite.analysis.analyse import analyse
from farwrite.analysis.result import Estimate
from farwrite.base.errors import UnfitError
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import sentences, unsound
from farwrite.base.units import NS_PER_MS
from farwrite.targets.load_loop_kernel import Flight
from farwrite.targets.replicated import recorder_of
from make_recording import make_recording
from rivals import block, block_kernel, doors, goals, iperf, nbd, nbd_kernel, page
from rivals.drbd import SETTINGS
from rivals.experiment import Task
from rivals.result import SCHEMA_VERSION, Doors, Goal, Part, Rate, Recovery, Rivals, Taking, decode, encode, merged

EXPORT_BYTES = 1 << 20
ROOT = Path(__file__).parents[2]
VDSO = Path(__file__).parents[1] / "lab" / "uml" / "vdso.py"


def task(**changed):
    asked = {"size_bytes": 512, "queue_depth": 4, "volume_bytes": EXPORT_BYTES, "duration_ns": 30 * NS_PER_MS, "slice_count": 3,
             "seed": 1}  # fmt: skip
    return Task(**{**asked, **changed})


# The clock in user-mode Linux

OF_KERNELS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import vdso
vdso.CALIBRATION_S = 0.1
vdso.install(lambda: time.monotonic_ns() + vdso.NS_PER_S * 1000)
from farwrite.base.host import libc
before_ns, seen_ns, after_ns = time.monotonic_ns(), libc.monotonic_ns(), time.monotonic_ns()
print(round((seen_ns - before_ns) / vdso.NS_PER_S), round((seen_ns - after_ns) / vdso.NS_PER_S))
"""


def test_kernels_read_the_clock_that_was_installed_before_they_were_loaded():
    done = subprocess.run([sys.executable, "-c", OF_KERNELS, VDSO.parent], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1000 1000\n", "")


def test_a_script_is_run_with_the_clock_and_its_own_words(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import other, sys\nprint(__name__, other.here, sys.argv[1:])\n")
    (tmp_path / "other.py").write_text("here = True\n")
    done = subprocess.run([sys.executable, VDSO, script, "--one", "two"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("__main__ True ['--one', 'two']\n", "")


# The NBD load


class Server(threading.Thread):
    """Answers writes `batch` at a time, the last to arrive first, and keeps what it was sent."""

    def __init__(self, connection, size_bytes, batch=1, error=0, magic=nbd_kernel.REPLY_MAGIC):
        super().__init__()
        self.connection, self.size_bytes, self.batch, self.error, self.magic = connection, size_bytes, batch, error, magic
        self.requests = []

    def run(self):
        held = []
        try:
            while True:
                head = nbd.receive(self.connection, nbd_kernel.REQUEST_BYTES)
                nbd.receive(self.connection, self.size_bytes)
                self.requests.append(struct.unpack(">IHHQQI", head))
                held.append(head[8:16])
                if len(held) >= self.batch:
                    answers = [struct.pack(">II", self.magic, self.error) + handle for handle in reversed(held)]
                    self.connection.sendall(b"".join(answers))
                    held = []
        except OSError:
            pass


def driven(asked, **server):
    """(recorder, requests) of one round against a server of ours."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = Server(theirs, asked.size_bytes, **server)
        serving.start()
        try:
            recorder = nbd.drive(ours, asked)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            serving.join()
    return recorder, serving.requests


def test_every_write_sent_over_nbd_is_counted_once():
    recorder, requests = driven(task())
    assert recorder.at[0].issued == recorder.at[0].completed == len(requests) == recorder.slice_count.sum() > 0
    assert recorder.at[0].bytes == 512 * len(requests) == recorder.slice_bytes.sum()
    assert Histogram(recorder.service).count == len(requests)


def test_what_is_sent_over_nbd_are_writes_of_the_asked_size_within_the_export():
    requests: list = []
    while len(requests) < 20:  # In ten milliseconds a busy machine may send four.
        requests += driven(task())[1]
    for magic, flags, kind, place, offset, length in requests:
        assert (magic, flags, kind, length) == (nbd.REQUEST_MAGIC, 0, nbd.COMMAND_WRITE, 512)
        assert 0 <= place < 4 and 0 <= offset <= EXPORT_BYTES - 512
    assert len({offset for *_, offset, _ in requests}) > 4


def test_nbd_replies_may_come_in_any_order():
    recorder, requests = driven(task(), batch=4)
    assert recorder.at[0].completed == recorder.at[0].issued == len(requests) >= 4


def test_an_error_of_the_nbd_server_ends_the_round_with_its_words():
    with pytest.raises(UnfitError, match="No space left on device"):
        driven(task(), error=28)


def test_what_is_no_nbd_reply_ends_the_round():
    with pytest.raises(UnfitError, match="Protocol error"):
        driven(task(), magic=1)


@pytest.mark.parametrize("put", both_ways(nbd_kernel.put_big_endian))
@pytest.mark.parametrize("value", [0, 1, 0x0123456789ABCDE, 1 << 40])
def test_numbers_are_big_endian(put, value):
    data = np.zeros(16, np.uint8)
    put(data, 3, 8, value)
    assert data[3:11].tobytes() == value.to_bytes(8, "big")
    assert nbd_kernel.big_endian(data, 3, 8) == value


# The block load


def test_writers_of_a_block_device_are_counted_together(tmp_path):
    path = tmp_path / "device"
    path.write_bytes(bytes(EXPORT_BYTES))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the temporary directory knows no O_DIRECT")
    recorder = block.drive(str(path), task(size_bytes=4096, queue_depth=3))
    assert recorder.at[0].completed == recorder.slice_count.sum() == Histogram(recorder.service).count >= 3
    assert recorder.at[0].bytes == 4096 * recorder.at[0].completed


def test_a_block_device_is_flushed_only_where_its_setting_says_so(tmp_path, monkeypatch):
    flushes = []
    monkeypatch.setattr(block_kernel.libc, "fdatasync", lambda fd: flushes.append(fd) or 0)
    monkeypatch.setattr(block_kernel, "note_completion", block_kernel.note_completion.py_func)
    file = os.open(tmp_path / "device", os.O_RDWR | os.O_CREAT)
    recorder = recorder_of(3)
    flight = Flight(*(np.zeros(1, np.int64) for _ in Flight._fields))
    for asked in (False, True):
        status = block_kernel.drive.py_func(
            file, np.zeros(512, np.uint8), np.zeros(1, np.int64), 512, 5 * NS_PER_MS, NS_PER_MS, asked, flight, recorder
        )
        assert status == 0 and bool(flushes) == asked
    os.close(file)
    assert {setting.flushes for setting in SETTINGS} == {False, True}


# Reading others


def test_of_iperf_the_receiver_is_believed():
    said = {"end": {"sum_sent": {"bytes": 9, "seconds": 1.0}, "sum_received": {"bytes": 8, "seconds": 1.5}}}
    assert iperf.received(said) == (8, 1.5)


# Judging


def figure(value, without, **more):
    return Estimate(value=value, without=without, count=100, **more)


def test_a_ratio_carries_an_interval_over_the_rounds_of_both():
    found = goals.ratio_of([figure(2.0, [2.0, 2.1, 1.9, 2.0])], [figure(1.0, [1.0, 1.0, 1.0, 1.0])])
    assert found.value == 2.0 and found.low < 2.0 < found.high and found.count == 100


def test_a_ratio_of_few_rounds_has_no_interval_and_says_so():
    found = goals.ratio_of([figure(2.0, [2.0, None, 2.0])], [figure(1.0, [1.0, 1.0, 1.0])])
    assert found.value == 2.0 and found.low is None and "2 rounds" in str(found.warnings[0])


def test_a_ratio_of_what_was_not_measured_is_none():
    assert goals.ratio_of(None, [figure(1.0, [])]) is None
    assert goals.parts(None, "response_ns_p50") is None


def test_a_floor_that_grows_faster_than_the_distance_is_not_held_against_the_engine(part):
    cell = part.cells[0]
    far = [
        msgspec.structs.replace(
            cell, miles=miles, queue_depth=1, protocol="C", rtt_ns_p50=figure(rtt, [rtt] * 4),
            floor_ns=figure(1.05 * rtt, [1.05 * rtt] * 4), response_ns_p50=figure(1.05 * rtt + 9, [1.05 * rtt + 9] * 4),
        )
        for miles, rtt in ((20.0, 0.3e6), (60.0, 0.9e6), (150.0, 2.4e6))
    ]  # fmt: skip
    found = goals.k_above_floor(msgspec.structs.replace(part, cells=far))
    assert abs(found.value) < 1e-9 and found.low <= found.value <= found.high
    assert goals.k_above_floor(msgspec.structs.replace(part, cells=far[:2])) is None


def test_of_a_rivals_settings_the_better_one_counts(part):
    def drbd(name, p50_ns, per_s):
        return msgspec.structs.replace(
            part.cells[0], cell=name, name=name, protocol="C", miles=20.0, queue_depth=16,
            response_ns_p50=figure(p50_ns, [p50_ns] * 4), completed_per_s=figure(per_s, [per_s] * 4),
        )  # fmt: skip

    cells = [drbd("farwrite", 1e6, 900.0), drbd("drbd", 2e6, 1000.0), drbd("drbd-tuned", 9e5, 800.0)]
    takes = [Taking(name=cell.name, what="", version="", cells=[cell.cell]) for cell in cells]
    found = list(goals.sustained_goals(msgspec.structs.replace(part, cells=cells, contenders=takes)))
    told = {goal: verdict for goal, verdict, _ in found}
    assert told["C, 16 at a time, 20 miles: p50 <= 1.1 x drbd-tuned's"] == "not met"
    assert told["C, 16 at a time, 20 miles: writes a second > drbd's"] == "not met"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.8, 0.9, "met"), (0.8, 1.2, "open"), (1.1, 1.2, "not met"), (None, None, "open")]
)
def test_a_goal_is_met_when_its_whole_interval_is(low, high, verdict):
    value = 0.85 if low is None else (low + high) / 2
    assert goals.at_most("goal", Estimate(value=value, low=low, high=high, count=9), 1.0)[1] == verdict


def test_a_goal_without_a_figure_is_not_measured():
    assert goals.at_least("goal", None, 1.0)[1] == goals.NOT_MEASURED
    assert goals.within("goal", Estimate(value=math.nan), 0.0, 1.0)[1] == goals.NOT_MEASURED


def test_a_replay_is_held_against_the_lesser_of_500_and_the_disk():
    slow = Recovery(journal_bytes=1 << 30, replayed_bytes=1, writes=1, replay_bytes_per_s=[3e8, 3.01e8, 2.99e8],
                    bare_read_bytes_per_s=[2e8, 2e8, 2e8])  # fmt: skip
    assert goals.recovery_goal(slow).verdict == "met"
    fast = msgspec.structs.replace(slow, bare_read_bytes_per_s=[9e8, 9e8, 9e8])
    assert goals.recovery_goal(fast).verdict == "not met"


# Doors beside other servers

READS, BULK = "iSCSI, 4 KiB reads, 32 at a time", "NBD, sequential 1 MiB writes, 8 at a time"


def beside(**rates):
    """Rounds by contender: of iSCSI where it is `door` or `tgt`, of NBD otherwise."""
    found = [Rate(contender=name.replace("_", " "), load=READS if name in ("door", "tgt") else BULK, rounds=rounds)
             for name, rounds in rates.items()]  # fmt: skip
    return Doors(command=["rivals"], contenders={"tgt": "1.0: durable"}, rates=found, skipped={"nbdkit": "not installed"})


def test_a_door_is_held_against_tgt_and_against_four_fifths_of_nbdkit():
    made = beside(door=[100.0, 101, 99, 100], tgt=[90.0, 91, 89, 90], NBD_door=[70.0, 70, 70, 70], nbdkit=[100.0, 101, 99, 100])
    judged = {goal.partition(":")[0]: verdict for goal, verdict, _ in goals.doors_alone_goals(made)}
    assert judged == {READS: "met", BULK: "not met"}
    alone = beside(door=[100.0, 101, 99], NBD_door=[79.0, 79, 79])
    assert {verdict for _, verdict, _ in goals.doors_alone_goals(alone)} == {goals.NOT_MEASURED}


def test_doors_stay_in_the_document_and_are_on_its_page():
    made = document(doors=beside(door=[100.0, 101, 99]))
    again = merged(made, document(skipped={"netem": "gone"}))
    assert again.doors == made.doors == decode(encode(made)).doors
    text = page.page(again)
    assert f"| {READS} | door | 100 [" in text and "- nbdkit was left out: not installed" in text


def test_bulk_requests_are_counted_and_an_end_is_no_answer():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answering = threading.Thread(target=nbd.answer_writes, args=(theirs, 1 << 20))
        answering.start()
        assert doors.bulk(ours, 1, 5, depth=2) > 0
        ours.shutdown(socket.SHUT_WR)
        answering.join()
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(UnfitError, match="hung up"):
            doors.bulk(ours, 0, 0 + 1)


def test_our_doors_alone_serve_both_protocols_and_end_with_the_block(tmp_path):
    with doors.doors(None, tmp_path / "socket") as opened:
        connection, size = nbd.connect(socket.AF_UNIX, opened.nbd_path, "")
        with connection:
            connection.settimeout(60)
            assert size == doors.VOLUME_BYTES
            assert doors.bulk(connection, doors.protocol.WRITE, 4) > 0 and doors.bulk(connection, doors.protocol.READ, 4) > 0
        if shutil.which("qemu-img") and doors.has_iscsi():
            assert doors.qemu_bench(f"iscsi://127.0.0.1:{opened.iscsi_port}/{doors.TARGET}/0", doors.WRITE, 4, 50) > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", opened.iscsi_port), timeout=5)


# Merging and telling


@pytest.fixture(scope="module")
def part():
    recording = make_recording()
    found = analyse(recording)
    mine = [cell.id for cell in recording.cells]
    return Part(
        link="ferry", skipped={"qemu": "not installed"}, recording=recording, cells=found.cells, fits=found.fits,
        contenders=[Taking(name="farwrite", what="durable at both", version="1", cells=mine)],
    )  # fmt: skip


def document(**changed):
    empty = {"schema_version": SCHEMA_VERSION, "farwrite": "1", "made_utc": "2026-01-01T00:00:00", "command": ["rivals.py"],
             "host": {}, "parts": {}, "recovery": None, "skipped": {}, "goals": []}  # fmt: skip
    return Rivals(**{**empty, **changed})


def test_a_part_measured_alone_leaves_the_others_figures(part):
    old = document(parts={"ferry": part}, skipped={"netem": "not installed"})
    again = merged(old, document(parts={"netem": part}))
    assert set(again.parts) == {"ferry", "netem"} and not again.skipped
    assert merged(None, old) is old


def test_a_part_that_can_not_be_measured_any_more_keeps_its_figures_and_says_so(part):
    again = merged(document(parts={"netem": part}), document(skipped={"netem": "gone"}))
    assert again.parts and again.skipped == {"netem": "gone"}


def test_a_document_reads_as_it_was_written(part):
    made = document(parts={"ferry": part})
    assert decode(encode(made)) == made


def test_a_document_from_before_reasons_had_codes_is_read(part):
    stored = msgspec.to_builtins(document(parts={"ferry": part}))
    cell = stored["parts"]["ferry"]["cells"][0]
    cell["withheld"] = ["2 rounds only: no verdict rests on so few"]
    cell["response_ns_p50"]["warnings"] = ["fitted through cells that no verdict may rest on"]
    read = decode(msgspec.json.encode(stored)).parts["ferry"].cells[0]
    assert sentences(read.withheld) == cell["withheld"] and unsound.among(read.response_ns_p50.warnings)


def test_ours_are_named_by_their_protocol(part):
    cell = part.cells[0]
    assert part.named(cell) == f"farwrite {cell.protocol}"
    renamed = msgspec.structs.replace(
        part, contenders=[Taking(name="qemu", what="", version="", cells=[item.cell for item in part.cells])]
    )
    assert renamed.named(cell) == "qemu" and renamed.names() == ["qemu"]


def test_the_page_names_every_contender_every_goal_and_who_was_left_out(part):
    made = document(parts={"ferry": part}, goals=[Goal(part="ferry", goal="be quick", verdict="met", measured="1 ms")])
    text = page.page(made)
    assert "| ferry | be quick | met | 1 ms |" in text
    assert "qemu was left out: not installed" in text
    for name in part.names():
        assert f"| {name} |" in text


def test_every_goal_of_a_document_without_figures_is_not_measured(part):
    bare = msgspec.structs.replace(part, cells=[], fits=[])
    found = goals.goals_of(document(parts={"ferry": bare, "netem": bare}))
    assert len(found) > 10 and {goal.verdict for goal in found} == {goals.NOT_MEASURED}


# The document and its page


def results_of(monkeypatch, tmp_path, *words):
    from rivals import __main__ as command

    def refused(name, asked):
        raise UnfitError(f"no {name} here")

    monkeypatch.setattr(command, "measured_inside", refused)
    monkeypatch.setattr(sys, "argv", ["rivals", "--out", str(tmp_path), *words])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        command.main()
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_where_nothing_could_be_measured_the_results_stay_as_they_are(monkeypatch, tmp_path):
    shutil.copy(ROOT / "results" / "rivals.json.gz", tmp_path)
    with pytest.raises(SystemExit, match="Nothing was measured"):
        results_of(monkeypatch, tmp_path, "--only", "netem", "--only", "sustained")
    assert (tmp_path / "rivals.json.gz").read_bytes() == (ROOT / "results" / "rivals.json.gz").read_bytes()
    assert not (tmp_path / "rivals.md").exists()


def test_the_committed_page_is_what_todays_analysis_says_of_the_committed_recordings(monkeypatch, tmp_path):
    shutil.copy(ROOT / "results" / "rivals.json.gz", tmp_path)
    results_of(monkeypatch, tmp_path, "--page")
    assert (tmp_path / "rivals.md").read_text() == (ROOT / "results" / "rivals.md").read_text()


def test_a_page_of_nothing_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="is not there"):
        results_of(monkeypatch, tmp_path, "--page")
