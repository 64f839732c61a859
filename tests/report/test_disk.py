"""What a journal is on: its file system by name, and whether a flushed write there would survive a power loss."""

import io
import os
import resource
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis.analyse import analyse
from farwrite.analysis.answer import answer_of
from farwrite.base.errors import UnfitError
from farwrite.base.host import disk
from farwrite.compare.figures import result_set_of
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from farwrite.lab.doctor import emulation
from farwrite.recording import SCHEMA_VERSION, LabFacts, Report
from farwrite.report.html import page_of
from farwrite.report.terminal import show
from make_recording import changed, make_recording

SHM = Path("/dev/shm")
on_tmpfs = pytest.mark.skipif(
    not SHM.is_dir() or disk.file_system_of(SHM) != "tmpfs" or not os.access(SHM, os.W_OK), reason="no tmpfs to write to"
)
QUICK = ("run.round=400 ms", "run.survey_echoes=20", "distance.miles=[0, 20, 150]", "drill.kills=3")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose mounts and block devices a test makes up; mount points are below `tmp_path`."""
    mounts, blocks = tmp_path / "mountinfo", tmp_path / "sys-dev-block"
    mounts.touch()
    blocks.mkdir()
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    monkeypatch.setattr(disk, "BLOCKS", blocks)

    class Machine:
        def mount(self, name, system, number="0:99", source="none", options="rw"):
            place = tmp_path / name
            place.mkdir(parents=True, exist_ok=True)
            point = str(place.resolve()).replace(" ", "\\040")
            with mounts.open("a") as file:
                file.write(f"30 1 {number} / {point} rw,relatime shared:1 - {system} {source} {options}\n")
            return place

        def device(self, number, name, backing=None, slaves=(), disk=None):
            place = tmp_path / "sys" / (disk or "") / name
            place.mkdir(parents=True)
            (blocks / number).symlink_to(place)
            if backing:
                (place / "loop").mkdir()
                (place / "loop" / "backing_file").write_text(f"{backing}\n")
            for slave in slaves:
                (place / "slaves").mkdir(exist_ok=True)
                (place / "slaves" / slave).symlink_to(tmp_path / "sys" / slave)
            return place

    return Machine()


@pytest.mark.parametrize("system", ["tmpfs", "ramfs"])
def test_a_file_system_in_memory_is_named_and_not_durable(machine, system):
    place = machine.mount("memory", system)
    inside = place / "a" / "b"
    inside.mkdir(parents=True)
    assert disk.file_system_of(inside) == system
    assert disk.why_not_durable(inside) == f"{system} is memory"


def test_a_disk_below_memory_and_memory_below_a_disk_are_told_apart(machine):
    machine.device("8:1", "sda1")
    outer = machine.mount("outer", "ext4", "8:1")
    machine.mount("outer/memory", "tmpfs")
    inner = machine.mount("outer/memory/with a space", "xfs", "8:1")
    assert disk.why_not_durable(outer) == "" == disk.why_not_durable(inner)
    assert disk.why_not_durable(outer / "memory") == "tmpfs is memory"
    assert disk.file_system_of(inner) == "xfs"


def test_the_last_of_several_mounts_on_one_point_is_what_is_seen(machine):
    machine.mount("place", "ext4", "8:1")
    assert disk.why_not_durable(machine.mount("place", "tmpfs")) == "tmpfs is memory"


@pytest.mark.parametrize("name", ["ram0", "zram1", "nullb0"])
def test_a_block_device_in_memory_is_not_durable_whatever_is_on_it(machine, name):
    machine.device("1:0", name)
    assert disk.why_not_durable(machine.mount("place", "ext4", "1:0")) == f"ext4 on {name}, which is memory"


def test_a_loop_device_is_as_durable_as_its_file(machine):
    machine.device("8:1", "sda1")
    memory, drive = machine.mount("memory", "tmpfs"), machine.mount("drive", "ext4", "8:1")
    machine.device("7:0", "loop0", backing=memory / "image")
    machine.device("7:1", "loop1", backing=drive / "image")
    machine.device("259:0", "loop0p1", disk="loop0")
    assert disk.why_not_durable(machine.mount("one", "xfs", "7:0")) == "xfs on loop0 over a file on tmpfs is memory"
    assert disk.why_not_durable(machine.mount("two", "xfs", "7:1")) == ""
    assert disk.why_not_durable(machine.mount("three", "xfs", "259:0")) == "xfs on loop0p1 over a file on tmpfs is memory"


def test_a_mapped_device_is_as_durable_as_what_is_below_it(machine):
    machine.device("8:1", "sda1")
    machine.device("1:3", "ram3")
    machine.device("253:0", "dm-0", slaves=["sda1"])
    machine.device("253:1", "dm-1", slaves=["sda1", "ram3"])
    assert disk.why_not_durable(machine.mount("one", "ext4", "253:0")) == ""
    assert disk.why_not_durable(machine.mount("two", "ext4", "253:1")) == "ext4 on dm-1 over ram3, which is memory"


def test_an_overlay_is_as_durable_as_where_it_writes(machine):
    memory = machine.mount("memory", "tmpfs")
    (memory / "upper").mkdir()
    options = f"rw,lowerdir=/nowhere,upperdir={memory / 'upper'},workdir={memory / 'work'}"
    assert disk.why_not_durable(machine.mount("one", "overlay", options=options)) == "overlay on tmpfs is memory"
    assert disk.why_not_durable(machine.mount("two", "overlay", options="rw,upperdir=/no/such")) == ""


def test_devices_that_name_each_other_end(machine):
    one = machine.device("253:0", "dm-0")
    (one / "slaves").mkdir()
    (one / "slaves" / "dm-0").symlink_to(one)
    assert disk.why_not_durable(machine.mount("one", "ext4", "253:0")) == ""


@on_tmpfs
def test_a_disk_in_shared_memory_knows_that_it_is_none():
    with disk.disk(SHM, 1 << 20, 1 << 20) as made:
        assert (made.file_system, made.durability, made.not_durable) == ("tmpfs", "disk", "tmpfs is memory")
    with disk.disk(None, 1 << 20, 1 << 20) as made:
        assert made.not_durable == "memory"


@on_tmpfs
def test_the_doctor_names_the_file_system_and_says_what_to_do():
    found = {finding.name: finding for finding in emulation.disk(SHM)}["file system"]
    assert found.state == "poor" and "is on tmpfs: not durable (tmpfs is memory)" in found.sentence
    assert "lab.near=DIR" in found.mend and found.numbers == {"file_system": "tmpfs", "not_durable": "tmpfs is memory"}


# What a report says


def report_on(near, far, lost=0, **facts):
    """A report of journals on these file systems."""
    recording = make_recording(changes=QUICK, writes=200, completed_during_cut_c=500, lost_writes_c=lost)
    lab = changed(recording.lab, near_file_system=near, far_file_system=far, **facts)
    recording = changed(recording, lab=lab)
    analysis = analyse(recording)
    return Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis, answer=answer_of(recording, analysis))


def printed(report, full):
    file = io.StringIO()
    show(report, report.analysis, Console(file=file, width=80), full=full)
    return file.getvalue()


PLACES = [
    ("tmpfs", "tmpfs", "journals not durable (tmpfs is memory)"),
    ("tmpfs", "ext4", "near journal not durable (tmpfs is memory)"),
    ("ext4", "ramfs", "far journal not durable (ramfs is memory)"),
    ("tmpfs", "ramfs", "journals not durable (near: tmpfs is memory, far: ramfs is memory)"),
]


@pytest.mark.parametrize(("near", "far", "words"), PLACES)
def test_every_report_of_a_journal_in_memory_says_so(near, far, words):
    report = report_on(near, far)
    assert report.answer.lines[0].text.startswith(f"⚠ {words.partition(' (')[0]}")
    assert words in report.answer.lines[0].text or len(words) > 50
    assert max(len(line.text) for line in report.answer.lines) <= 80
    for full in (False, True):
        text = " ".join(printed(report, full).split())
        assert "journals on disk" not in text and f"({words.partition(' (')[0]})" in text  # Beside every heading.
    assert words in text
    assert any(str(text).startswith(f"{words}: ") and "power loss" in str(text) for text in report.analysis.warnings)
    assert words in page_of(report, report.analysis, "x.json").decode()
    claims = {claim.id: claim for claim in report.analysis.claims}
    assert claims["C2"].verdict == "pass" and f"{words}, so this is of killed processes" in claims["C2"].sentence
    assert any(words in detail for detail in claims["C1"].details)
    assert all(cell.floor_text.endswith(words) for cell in report.analysis.cells)


def test_a_journal_on_a_disk_is_told_as_ever():
    report = report_on("ext4", "xfs")
    text = " ".join(printed(report, True).split())
    assert "near ext4, far xfs" in text and "journals on disk, direct" in text and "not durable" not in text
    assert not any("not durable" in str(warning) for warning in report.analysis.warnings)


def test_what_was_found_out_counts_more_than_the_name():
    device = "ext4 on ram0, which is memory"
    assert report_on("ext4", "ext4", far_not_durable=device).recording.lab.not_durable == {"far": device}
    assert report_on("tmpfs", "ext4", near_not_durable="").recording.lab.not_durable == {}


@pytest.mark.parametrize(("metric", "is_said"), [("drill_lost_writes", True), ("lost_writes", True), ("response_p50", False)])
def test_a_gate_about_lost_writes_says_on_what_they_were_counted(metric, is_said):
    report = report_on("ext4", "tmpfs")
    limit = "at_most = 0" if is_said else 'at_most = "1 s"'
    budgets = parse(f'[[budget]]\nmetric = "{metric}"\n{limit}\nwhere = {{ protocol = "C" }}\n', "b.toml")
    found = gate(result_set_of(report, report.analysis, "x"), budgets)
    assert any("far journal not durable (tmpfs is memory)" in text for text in found.warnings) == is_said


def test_facts_of_an_older_recording_decode_and_go_by_the_name():
    old = msgspec.to_builtins(report_on("tmpfs", "ext4").recording.lab)
    del old["near_not_durable"], old["far_not_durable"]
    assert msgspec.convert(old, LabFacts).not_durable == {"near": "tmpfs is memory"}


def test_a_volume_that_the_system_does_not_allow_is_refused_in_a_sentence():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        wanted = r"make a sparse volume of 1024 MiB in memory: File too large\. Choose a smaller"
        with pytest.raises(UnfitError, match=wanted), disk.disk(None, 1 << 16, 1 << 30):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
