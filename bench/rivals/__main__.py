"""farwrite beside other replicating systems, in one lab, rounds interleaved, floors in the same minute.

`make rivals` measures seven parts and writes results/rivals.json.gz and rivals.md:

    ferry      on this kernel: the engine, also behind its NBD door, QEMU's storage daemon (a local file and NBD), iperf3
    gigabit    the same link with a rate of 1 Gbit/s: the engine and iperf3
    unaided    the engine alone, on processors that nothing keeps awake: what it takes of them, and protocol A beside no peer
    netem      in user-mode Linux over real netem, one write at a time: the engine and DRBD 8.4, as it comes and tuned
    sustained  the same with 16 at a time, in rounds so long that volumes are flushed within them
    recovery   a journal of 1 GiB replayed, beside a bare read of it
    doors      our doors with nothing behind them but this machine's disk: iSCSI beside tgt, NBD beside nbdkit's memory

What is not installed is named and left out. Parts can be measured one by one (--only); the others keep their figures.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from farwrite import __version__
from farwrite.analysis.analyse import analyse
from farwrite.base.documents import found_at, read_document, save_document
from farwrite.base.errors import UnfitError
from farwrite.base.files import write_atomically
from farwrite.base.host.facts import host_facts
from farwrite.base.keep_awake import KeepAwake
from farwrite.experiment.compilation import compile_all
from farwrite.experiment.measure import facts_of, lab_spec
from farwrite.experiment.run_journal import Run, recording_of
from farwrite.experiment.serve.replica import rehearse_replica
from farwrite.lab.lab import Lab, LabSpec, open_lab
from farwrite.lab.span import Span
from farwrite.recording import Recording
from farwrite.workload import profile
from farwrite.workload.tables import Profile
from rivals import block, doors, nbd, page, recovery
from rivals.door import door
from rivals.drbd import SETTINGS, drbd, loopback_span
from rivals.engine import Engine
from rivals.experiment import BLOCK_BYTES, Contender, Rival, measure, rival_cell
from rivals.goals import goals_of
from rivals.iperf import Iperf
from rivals.qemu import DAEMON, NBDKIT, qemu
from rivals.result import SCHEMA_VERSION, Doors, Part, Recovery, Rivals, Taking, decode, encode, merged

ROOT = Path(__file__).parents[2]
UML = ROOT / "tests" / "lab" / "uml" / "run"
VDSO = UML.with_name("vdso.py")
PARTS = ("ferry", "gigabit", "unaided", "netem", "sustained", "recovery", "doors")
SEED = 1
MIB = 1 << 20
JOURNAL_MIB, VOLUME_MIB = 256, 128
DISK_MIB = 3 * JOURNAL_MIB + VOLUME_MIB + 64  # Two journals (a span has its own), as much again free, a volume.
DRBD_DISK_MIB = VOLUME_MIB + 32
DISKS = {"/dev/ubda": Path("/run/near"), "/dev/ubdb": Path("/run/far")}  # Ours lie on a file system each ...
DRBD_DISKS = (("/dev/ubdc", "/dev/ubdd"), ("/dev/ubde", "/dev/ubdf"))  # ... and DRBD's are bare, which spares it one.
MODULES = ("lib/lru_cache.ko", "drivers/block/drbd/drbd.ko")
NOT_INSTALLED = 77  # What tests/lab/uml/run says of user-mode Linux.
LONGER = {"gigabit": 3, "unaided": 3, "sustained": 6}  # A 1 MiB write more must count little, a third of a journal fill.

HEAD = """
title = "beside others"
[lab]
near = "{near}"
far = "{far}"
journal = "{journal_mib} MiB"
volume = "{volume_mib} MiB"
keep_awake = "{awake}"
[distance]
miles = [0, 20, 60, 150, 3000]
[run]
rounds = {rounds}
round = "{round_ms} ms"
survey_echoes = 40
floor_flushes = 60
"""

ONE = """
[[cell]]
name = "one"
protocols = {protocols}
miles = [0, 20, 60, 150]
"""

SIXTEEN = """
[[cell]]
name = "sixteen"
protocols = {protocols}
miles = [20, 150]
queue_depth = 16
"""

BULK = """
[[cell]]
# 8 MiB under way: the bandwidth-delay product of 27 Gbit/s at 150 miles.
name = "bulk"
protocols = ["C"]
miles = [150]
block = "1 MiB"
queue_depth = 8
"""

UNAIDED = """
[[cell]]
name = "deep"
protocols = ["C"]
miles = [20]
queue_depth = 64
[[cell]]
# Asynchronous at a distance no write would wait for, beside the same without a second site.
name = "beyond"
protocols = ["A", "local"]
miles = [3000]
"""

GIGABIT = """
[link]
rate = "1 Gbit/s"
"""


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m rivals", description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--seconds", type=float, default=1.0, help="of a round of one cell")
    words.add_argument("--only", choices=PARTS, action="append", help="measure this part and keep the others' figures")
    words.add_argument("--page", action="store_true", help="measure nothing: analyse what is recorded again, and write the page")
    words.add_argument("--out", type=Path, default=ROOT / "results")
    words.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # We are in user-mode Linux, and this is for the answer.
    asked = words.parse_args()
    if asked.inside:
        write_atomically(asked.inside, encode(part_inside(asked.only[0], asked)))
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # Whatever was started here ends here, and files go.
    file = asked.out / "rivals.json"
    old = decode(read_document(file, "read")) if found_at(file).exists() else None
    made = Rivals(
        schema_version=SCHEMA_VERSION, farwrite=__version__, made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_of(asked), host=host_facts(), parts={}, recovery=None, skipped={},
        goals=[],
    )  # fmt: skip
    if asked.page:
        if old is None:
            sys.exit(f"{file} is not there, so there is nothing to write a page of.")
        write(old, asked.out)
        return
    compile_all()
    rehearse_replica()
    nbd.rehearse()
    block.rehearse()
    inside = (partial(measured_inside, name) for name in ("netem", "sustained"))
    parts: tuple[Callable[..., Part | Recovery | Doors], ...] = (
        ferry_part, gigabit_part, unaided_part, *inside, recovery_part, doors_part
    )  # fmt: skip
    for name, measured in zip(PARTS, parts, strict=True):
        if asked.only and name not in asked.only:
            continue
        try:
            found = measured(asked)
        except UnfitError as refusal:
            say(f"{name}: left out: {refusal}")
            made.skipped[name] = str(refusal)
            continue
        if isinstance(found, Part):
            made.parts[name] = found
        elif isinstance(found, Doors):
            made = msgspec.structs.replace(made, doors=found)
        else:
            made = msgspec.structs.replace(made, recovery=found)
    if not made.parts and made.recovery is None and made.doors is None:
        sys.exit("Nothing was measured, so the results are left as they are.")
    write(merged(old if asked.only else None, made), asked.out)


def write(made: Rivals, out: Path) -> None:
    """The document and its page; whatever the recordings say is said by today's analysis, also of parts measured long ago."""
    parts = {name: analysed(part) for name, part in made.parts.items()}
    made = msgspec.structs.replace(made, parts=parts)
    made = msgspec.structs.replace(made, goals=goals_of(made))
    save_document(out / "rivals.json", encode(made))
    write_atomically(out / "rivals.md", page.page(made).encode())
    print(page.page(made))


def analysed(part: Part) -> Part:
    """A part with what its recording says."""
    found = analyse(part.recording)
    return msgspec.structs.replace(part, cells=found.cells, fits=found.fits)


def command_of(asked: argparse.Namespace) -> list[str]:
    """The command, without the directories of this machine."""
    only = [word for part in asked.only or () for word in ("--only", part)]
    return ["python", "-m", "rivals", "--rounds", str(asked.rounds), "--seconds", f"{asked.seconds:g}", *only]


def say(text: str) -> None:
    """What is going on, for a person."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def profile_of(
    part: str, asked: argparse.Namespace, near: object, far: object, tables: str, awake: KeepAwake
) -> Profile:
    """The profile of a part, as a workload file would say it; its rounds are LONGER than asked.

    `awake`: a virtual processor that sleeps wakes late; with a rival's processes beside ours the link was void every other time.
    But beside a spinner a write costs more of the processors.
    """
    head = HEAD.format(
        rounds=asked.rounds, round_ms=round(1000 * LONGER.get(part, 1) * asked.seconds), near=near, far=far,
        awake=awake, journal_mib=JOURNAL_MIB, volume_mib=VOLUME_MIB,
    )  # fmt: skip
    return profile.parse(head + tables)


# The parts


def ferry_part(asked: argparse.Namespace) -> Part:
    """The engine, QEMU and iperf3, in a lab on this kernel; files lie where results do."""
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=asked.out) as name:
        tables = (ONE + SIXTEEN + BULK).format(protocols='["C"]')
        run = Run(profile_of("ferry", asked, name, name, tables, awake="auto"), "beside others", SEED, Path(name))
        spec = lab_spec(run.profile, run.directory)
        with open_lab(spec) as lab:
            return part_of(
                asked, run, lab,
                {
                    "door": lambda: door(run, lab),
                    "qemu": lambda: qemu(run, lab, "qemu", DAEMON, 10809),
                    "qemu-nbdkit": lambda: qemu(run, lab, "qemu-nbdkit", NBDKIT, 10810),
                    "iperf3": lambda: streaming(run, lab),
                },
            )  # fmt: skip


def gigabit_part(asked: argparse.Namespace) -> Part:
    """The engine and iperf3 over a link that is slower than either."""
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=asked.out) as name:
        chosen = profile_of("gigabit", asked, name, name, GIGABIT + BULK, awake="auto")
        run = Run(chosen, "beside others", SEED, Path(name))
        with open_lab(lab_spec(run.profile, run.directory)) as lab:
            return part_of(asked, run, lab, {"iperf3": lambda: streaming(run, lab)})


def unaided_part(asked: argparse.Namespace) -> Part:
    """The engine alone."""
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=asked.out) as name:
        chosen = profile_of("unaided", asked, name, name, UNAIDED, awake="none")
        run = Run(chosen, "the engine alone", SEED, Path(name))
        with open_lab(lab_spec(run.profile, run.directory)) as lab:
            return part_of(asked, run, lab, {})


@contextmanager
def streaming(run: Run, lab: Lab) -> Iterator[Iperf]:
    """iperf3 at the distance of our bulk writes."""
    yield Iperf(run, lab, 150.0, MIB)


def measured_inside(name: str, asked: argparse.Namespace) -> Part:
    """A part that is measured by ourselves in user-mode Linux."""
    with tempfile.TemporaryDirectory(prefix="farwrite-rivals-") as directory:
        answer = Path(directory) / "netem.json"
        seconds = 240 + asked.rounds * 40 * (asked.seconds + 3)
        disks = [DISK_MIB] * len(DISKS) + [DRBD_DISK_MIB] * sum(map(len, DRBD_DISKS))
        say(f"{name}: booting user-mode Linux")
        words = [
            str(UML), "--timeout", f"{seconds:.0f}", *(word for size in disks for word in ("--disk", str(size))),
            *(word for module in MODULES for word in ("--module", module)), "--", sys.executable, str(VDSO), __file__,
            "--inside", str(answer), "--only", name, "--rounds", str(asked.rounds), "--seconds", str(asked.seconds),
        ]  # fmt: skip
        with subprocess.Popen(words) as uml:
            try:
                code = uml.wait()
            finally:
                uml.terminate()  # It removes its disks then. Nothing happens to one that has ended.
        if code == NOT_INSTALLED:
            raise UnfitError("user-mode Linux is not installed (Debian: user-mode-linux)")
        if code or not answer.exists():
            raise UnfitError(f"the part inside user-mode Linux ended with {code}")
        return msgspec.json.decode(answer.read_bytes(), type=Part)


def part_inside(name: str, asked: argparse.Namespace) -> Part:
    """Inside: the engine on two disks, DRBD on two others; all of them are files side by side on the machine's disk."""
    for device, place in DISKS.items():
        place.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", device], check=True)
        subprocess.run(["mount", device, str(place)], check=True)
    compile_all()
    block.rehearse()
    near, far = DISKS.values()
    tables = (ONE if name == "netem" else SIXTEEN).format(protocols='["C", "B"]')
    chosen = profile_of(name, asked, near, far, tables, awake="none")
    run = Run(chosen, "beside DRBD", SEED, Path("/run/tmp"))
    spec: LabSpec = lab_spec(run.profile, run.directory)
    with open_lab(spec) as lab, loopback_span(spec, lab.transport["congestion_control"]) as span:
        settings = zip(SETTINGS, DRBD_DISKS, strict=True)
        rivals = {setting.name: partial(drbd, run, span, setting, disks) for setting, disks in settings}
        return part_of(asked, run, lab, rivals, [lab, span])


def recovery_part(asked: argparse.Namespace) -> Recovery:
    """A journal of 1 GiB, replayed."""
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=asked.out) as name:
        return msgspec.convert(recovery.measure(Path(name), 1024 * MIB, max(min(asked.rounds, 12), 3), say), Recovery)


def doors_part(asked: argparse.Namespace) -> Doors:
    """Doors beside other people's servers, on the disk where results lie."""
    with tempfile.TemporaryDirectory(prefix=".rivals-", dir=asked.out) as name:
        return doors.measure(Path(name), asked.rounds, asked.seconds, command_of(asked), say)


def part_of(
    asked: argparse.Namespace, run: Run, lab: Lab, rivals: Mapping[str, Callable[[], AbstractContextManager[Contender]]],
    late_spans: Sequence[Span] = (),
) -> Part:  # fmt: skip
    """Set up who can take part beside the engine, measure them all, and analyse."""
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        ours = Engine(run, lab)
        contenders: list[Contender] = [ours]
        small = {(cell.miles, cell.queue_depth) for cell in ours.cells if cell.size_bytes == BLOCK_BYTES}
        for name, rival in rivals.items():
            try:
                contenders.append(stack.enter_context(rival()))
            except UnfitError as refusal:
                skipped[name] = str(refusal)
                say(f"{name} is left out: {refusal}")
        for contender in contenders:
            if isinstance(contender, Rival):
                contender.cells = [rival_cell(contender.name, *place, run.profile) for place in sorted(small)]
        measure(run, lab, contenders, late_spans, say)
        run.lab_facts = facts_of(lab)
        recording = nameless(recording_of(run), command_of(asked))
        return Part(
            link=recording.lab.link, skipped=skipped, recording=recording, cells=[], fits=[],
            contenders=[Taking(name=item.name, what=item.what, version=item.version, cells=[cell.id for cell in item.cells])
                        for item in contenders],
        )  # fmt: skip


def nameless(recording: Recording, command: list[str]) -> Recording:
    """The recording without the names of this machine's directories: they are temporary, and nobody's business."""
    lab = msgspec.structs.replace(recording.lab, near_directory="near", far_directory="far")
    table = msgspec.structs.replace(recording.profile.lab, near="", far="")
    asked = msgspec.structs.replace(recording.profile, lab=table)
    return msgspec.structs.replace(recording, id=recording.profile_name, command=command, lab=lab, profile=asked)


if __name__ == "__main__":
    main()
