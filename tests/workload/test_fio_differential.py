"""Job files drawn from a seed, run by fio itself and read by us: sizes, regions, mix, flushes, rates and concurrency are the
same, or the note names the option that makes them differ.

fio runs them with its null engine, or with libaio on small files where the depth is looked at, and writes down every I/O
(write_iolog). FARWRITE_FIO_FILES says how many files are drawn: 200 take some minutes, and a share of them runs by default.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farwrite.base.errors import UsageError
from farwrite.workload.fio import Translation, translate
from farwrite.workload.fio.options import job_of
from farwrite.workload.fio.parse import read, sections_of
from farwrite.workload.fio.translate import lay_out
from farwrite.workload.load_checks import joint_load_of
from farwrite.workload.plan import Load

FILES = int(os.environ.get("FARWRITE_FIO_FILES", "30"))
IO_COUNT = 120  # Of each copy of a job: its log then fits the 8 KiB that fio writes down at a time.
LINE = re.compile(r"(\d+) (\S+) (read|write|trim|sync|datasync) (\d+) (\d+)")
ASYNCHRONOUS = ("libaio", "io_uring")

# What fio takes and we refuse, by the reason that is given. Whatever else we refuse, fio must refuse, too.
REFUSED = re.compile("no multiple of 512 B|after bssplit|less than the largest block|in another order")

pytestmark = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")


@dataclass
class Drawn:
    """A job file as sections of lines."""

    sections: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def engine(self) -> str:
        """The globals' engine; no job has another."""
        return next(line.partition("=")[2] for line in self.sections[0][1] if line.startswith("ioengine="))

    def text(self) -> str:
        return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in self.sections)


def drawn(seed: int) -> Drawn:
    """A job file: globals, and one or two jobs that change some of them."""
    dice = random.Random(seed)
    engine = dice.choice(["psync", "libaio", "io_uring", "sync"])
    common = [f"ioengine={engine}", f"iodepth={dice.choice([1, 3, 8, 20])}"]
    common += [dice.choice(["rw", "readwrite"]) + "=" + dice.choice(["randwrite", "write", "randrw", "rw", "read", "randread"])]
    common += lines_of(dice)
    made = Drawn([("global", common)])
    for name in ("a", "b")[: dice.choice([1, 1, 2])]:
        lines = lines_of(dice, 0.35)
        if dice.random() < 0.4:
            lines.append("rw=" + dice.choice(["randwrite", "write", "randrw", "rw", "randread", "randtrim"]))
        if name == "b" and dice.random() < 0.4:
            lines.append(dice.choice(["stonewall", "new_group"]))
        dice.shuffle(lines)
        made.sections.append((name, lines))
    return made


def lines_of(dice: random.Random, share: float = 1.0) -> list[str]:
    """Options of all matters; each only now and then."""
    lines: list[str] = []

    def sometimes(chance: float, *choices: str) -> None:
        if dice.random() < chance * share:
            lines.append(dice.choice(choices))

    sometimes(0.9, "size=1m", "size=2m", "size=3000k", "size=2MiB")
    sometimes(0.25, "filesize=2m", "filesize=3m")
    sometimes(0.8, "bs=4k", "blocksize=8k", "bs=4k,16k", "bs=8k,", "bs=,8k", "bs=2300", "bs=4KiB", "bs=4000,8k,4k")
    sometimes(0.15, "bsrange=4k-16k", "bsrange=4k-18k", "bsrange=8k-8k,4k-8k")
    sometimes(0.15, "bssplit=4k/30:16k/70", "bssplit=8k/:4k/25")
    sometimes(0.4, "rwmixread=80", "rwmixwrite=70", "rwmixread=20\nrwmixwrite=40")
    sometimes(0.2, "offset=512k", "fileoffset=1m")
    sometimes(0.3, "numjobs=2", "numjobs=3")
    sometimes(0.15, "offset_increment=256k", "offset_increment=0", "offset_increment=1m")
    sometimes(0.25, "nrfiles=2", "nrfiles=3")
    sometimes(0.25, "filename=f", "filename=f:g")
    sometimes(0.15 if share == 1 else 0, "directory=x", "directory=x:y")  # In an earlier section than filename fio drops it.
    sometimes(0.15, "filename_format=s.$filenum", "filename_format=$jobname.$jobnum")
    sometimes(0.15, "file_service_type=sequential", "file_service_type=random")
    sometimes(0.25, "fsync=1", "fsync=8", "fdatasync=4", "fsync=1\nfdatasync=8", "fdatasync=1\nfsync=32")
    sometimes(0.03, "fsync=6\nfdatasync=4")
    sometimes(0.2, "rate_iops=400", "rate_iops=300,600", "rate_iops=,500", "rate=2m", "rate=4000k,2m", "rate_iops=500,")
    sometimes(0.04, "rate=1m\nrate_iops=100")
    sometimes(0.3, "norandommap", "norandommap=0", "random_generator=lfsr", "random_distribution=zipf:1.1")
    sometimes(0.1, "iodepth_low=2", "iodepth_batch=4", "iodepth_batch_complete=3")
    sometimes(0.05, "kb_base=1000")
    return [part for line in lines for part in line.split("\n")]


@dataclass
class Copy:
    """What fio reports of one copy of a job."""

    rates: dict[str, float]
    counts: dict[str, int]
    depth: int  # the greatest power of two that was reached


@dataclass
class Ran:
    """What fio did of a job."""

    copies: list[Copy] = field(default_factory=list)
    ios: list[tuple[str, str, int, int]] = field(default_factory=list)  # file, action, offset, size
    begun_ns: int = 0
    ended_ns: int = 0

    def count(self, *actions: str) -> int:
        return sum(action in actions for _, action, _, _ in self.ios)


@functools.cache
def engines() -> str:
    """The engines that this fio was built with."""
    return subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, timeout=60).stdout


def run_fio(made: Drawn, here: Path) -> dict[str, Ran] | None:
    """Have fio run the file, each job to IO_COUNT I/Os; None when it refuses."""
    every = [line for _, lines in made.sections for line in lines]
    real = made.engine in ASYNCHRONOUS and not any("trim" in line or line.startswith("rate") for line in every)
    real = real and "libaio" in engines()
    engine = "libaio" if real else "null"
    changed = Drawn()
    for name, lines in made.sections:
        more = ["thread=1", f"number_ios={IO_COUNT}", "fallocate=none", "exec_prerun=date +%s%N", "exec_postrun=date +%s%N"]
        more = more if name == "global" else [f"write_iolog={here / name}.log"]
        kept = [line for line in lines if real or not line.startswith("iodepth")]  # The null engine repeats what it queues.
        changed.sections.append((name, [f"ioengine={engine}" if line.startswith("ioengine=") else line for line in kept] + more))
    (here / "fio.fio").write_text(changed.text())
    done = subprocess.run(
        ["fio", "--output-format=json", "--output=fio.json", "fio.fio"], cwd=here, capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    names = [name for name, _ in made.sections if name != "global"]
    if done.returncode or "dropped" in done.stderr or not (here / "fio.json").exists():
        return None
    found = {name: Ran() for name in names}
    text = (here / "fio.json").read_text()
    for job in json.loads(text[text.index("{\n") :])["jobs"]:
        if job["error"]:
            return None
        levels = [int(key.strip(">=")) for key, share in job["iodepth_level"].items() if share > 0]
        counts = {kind: job[kind]["total_ios"] for kind in ("read", "write", "trim")}
        rates = {kind: 1000 * counts[kind] / max(job["job_runtime"], 1) for kind in counts}
        found[job["jobname"]].copies.append(Copy(rates, counts, max(levels, default=1) if real else 0))
    for name, ran in found.items():
        log = (here / f"{name}.log").read_text()
        known = set(re.findall(r"^\d+ (\S+) add$", log, re.MULTILINE))  # Copies that write much cut one another's lines.
        for line in log.splitlines():
            match = LINE.fullmatch(line)
            if match and match[2] in known:
                ran.ios.append((str(Path(match[2])), match[3], int(match[4]), int(match[5])))
        # Copies overwrite one another's instants.
        times = [int((here / f"{name}.{when}.txt").read_text() or 0) for when in ("prerun", "postrun")]
        ran.begun_ns, ran.ended_ns = times
    return found


def loads_of(translated: Translation, name: str) -> list[Load]:
    """The loads that a section became, one a copy; two where each direction has its own rate."""
    return [
        part for table in translated.profile.cell for part in joint_load_of(table, translated.profile.lab.volume_bytes).parts
        if re.fullmatch(rf"{name}(-reads|-writes)?(-\d+)?", part.name) or (not table.jobs and table.name == name)
    ]  # fmt: skip


class Notes:
    """What the translation says of the options that it bends."""

    def __init__(self, translated: Translation) -> None:
        self.approximated = translated.approximated

    def names(self, *options: str, how: str = "") -> bool:
        """Whether one of these options is noted."""
        return any(option.name in options and how in said for option, said in self.approximated)


def sizes_of(load: Load, action: str) -> dict[int, float]:
    """The sizes of one kind of I/O, by share."""
    sizes = {"read": load.read_sizes, "trim": load.trim_sizes}.get(action) or load.sizes
    total = sum(weight for _, weight in sizes)
    shares: Counter[int] = Counter()
    for size, weight in sizes:
        shares[size] += weight / total
    return dict(shares)


def does(load: Load, action: str) -> bool:
    """Whether a load has such I/Os."""
    return {"read": load.read_share, "trim": load.trim_share, "write": 1 - load.read_share - load.trim_share}[action] > 1e-9


def check_sizes(ran: Ran, loads: list[Load], notes: Notes) -> None:
    """The same sizes for each operation, in about the same shares."""
    for action in ("read", "write", "trim"):
        theirs = Counter(size for _, kind, _, size in ran.ios if kind == action)
        total = sum(theirs.values())
        ours = next((sizes_of(load, action) for load in loads if does(load, action)), {})
        assert bool(ours) or not theirs, f"fio has {action}s"
        if not theirs:
            continue
        if notes.names("bs", "bsrange", "bssplit", how="rounded up"):
            theirs = Counter({-(-size // 512) * 512: 0 for size in theirs}) + Counter(
                -(-size // 512) * 512 for _, kind, _, size in ran.ios if kind == action
            )
        if notes.names("bsrange", "bssplit", how="shortens") and len(ours) > 1:
            assert max(theirs) <= max(ours)
            continue
        odd = sum(count for size, count in theirs.items() if size not in ours)
        assert odd <= max(0.05 * total, 8), f"{action}: sizes {theirs}, ours {ours}"  # Where a file ends.
        for size, share in ours.items():
            slack = 5 * math.sqrt(share * (1 - share) / total) + 0.06
            assert abs(theirs[size] / total - share) < slack, f"{action}: {size} has {theirs[size]} of {total}, ours {share}"


def check_regions(path: Path, name: str, ran: Ran, loads: list[Load]) -> None:
    """The same files, and in each the same bytes."""
    jobs = [job_of(section) for section in sections_of(read(path), path)]
    begins, _ = lay_out(jobs)
    (job,) = [job for job in jobs if job.section.name == name]
    extents = {(extent.path, extent.begin, extent.end) for files in job.copies for extent in files}
    assert {file for file, *_ in ran.ios} <= {file for file, *_ in extents}
    if len(ran.copies) == 1:  # Of several the first lines may have been cut.
        assert {file for file, *_ in ran.ios} == {file for file, *_ in extents} or loads[0].streams == 1
    for file in {file for file, *_ in ran.ios}:
        mine = [(begin, end) for other, begin, end in extents if other == file]
        if not any(other == file and "sync" not in kind for other, kind, _, _ in ran.ios):
            continue
        touched = [(offset, offset + size) for other, kind, offset, size in ran.ios if other == file and "sync" not in kind]
        low, high = min(begin for begin, _ in mine), max(end for _, end in mine)
        # Ours are whole blocks, and fio rounds its own to its; blocks of several sizes divide `size` unevenly among files.
        slack = 20_480 + (high - low) // 5 * (len(extents) > 1 and loads[0].address == "sequential")
        assert low - 4096 < min(begin for begin, _ in touched) and max(end for _, end in touched) <= high + slack
        if loads[0].address == "sequential":
            assert min(begin for begin, _ in touched) - low < 4096
        elif loads[0].address in ("uniform", "shuffle") and len(touched) > 60:
            assert max(end for _, end in touched) - min(begin for begin, _ in touched) > 0.8 * (high - low)
    regions = [(load.region_begin_bytes, load.region_end) for load in loads]
    for begin, end in regions:
        assert any(begin <= begins[file] + low and begins[file] + high <= end for file, low, high in extents)
    for file, low, high in extents:
        assert any(begin <= begins[file] + low and begins[file] + high <= end for begin, end in regions)
    assert sum(end - begin for begin, end in set(regions)) == sum(
        sum(extent.length for extent in files) for files in {tuple(files) for files in job.copies}
    )


def check_mix_and_rates(ran: Ran, loads: list[Load]) -> None:
    """The same share of reads, or the same rate for each direction."""
    copies = len(ran.copies)
    if len(loads) == 2 * copies and {load.read_share for load in loads} == {0.0, 1.0}:
        reads = [load for load in loads if load.read_share]
        by_action = {"read": reads, "write": [load for load in loads if not load.read_share]}
    else:
        assert len(loads) == copies
        by_action = {action: [load for load in loads if does(load, action)] for action in ("read", "write", "trim")}
        theirs, every = ran.count("read"), ran.count("read", "write", "trim")
        share = loads[0].read_share
        assert abs(theirs / every - share) < 5 * math.sqrt(max(share * (1 - share), 0) / every) + 0.02
    for action, those in by_action.items():
        for copy in ran.copies:
            rate = next((load.rate_per_s for load in those), None)
            if rate is not None and copy.counts[action] >= 40:
                # A busy machine slows fio down; nothing lets it go faster.
                assert 0.4 * rate < copy.rates[action] < 1.3 * rate, f"{action}: {copy.rates[action]:.0f} /s, ours {rate:.0f}"
            elif rate is None and copy.counts[action] >= 40 and not copy.depth:  # The null engine completes at once.
                assert copy.rates[action] > 1000


def check_flushes(ran: Ran, loads: list[Load], notes: Notes) -> None:
    """As many flushes for as many writes."""
    flushes, writes = ran.count("sync", "datasync"), ran.count("write")
    every = max(load.flush_every for load in loads)
    if not every:
        assert not flushes
    elif notes.names("fsync", "fdatasync", how="multiples of the smaller") or notes.names("fsync", "fdatasync", how="repeats it"):
        assert flushes >= writes // every - len(ran.copies) - 1
    else:
        # With a full queue fio takes some of them for several writes.
        slack = 0.3 if any(copy.depth > 1 for copy in ran.copies) else 0.05
        assert abs(flushes - writes / every) <= 2 * len(ran.copies) + slack * writes / every


def check_depth(ran: Ran, loads: list[Load], notes: Notes, asynchronous: bool) -> None:
    """The same depth, where fio had time to reach it."""
    asked = loads[0].queue_depth
    assert asynchronous or asked == 1
    for copy in ran.copies:
        if not copy.depth or any(load.rate_per_s for load in loads) or sum(copy.counts.values()) < 4 * asked:
            continue
        assert copy.depth <= asked
        lowered = notes.names("iodepth_low", "iodepth_batch", "iodepth_batch_complete_min") or loads[0].flush_every
        assert lowered or copy.depth * 2 > asked, f"fio had {copy.depth} under way, ours {asked}"


@pytest.mark.parametrize("seed", range(FILES))
def test_what_fio_does_is_what_we_read_or_the_note_says_how_it_differs(seed, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    made = drawn(seed)
    path = tmp_path / "ours.fio"
    path.write_text(made.text())
    try:
        translated = translate(path)
    except UsageError as refusal:
        assert str(refusal).startswith(f"{path}:"), refusal  # It names the line.
        assert REFUSED.search(str(refusal)) or run_fio(made, tmp_path) is None, refusal
        return
    ran = run_fio(made, tmp_path)
    assert ran is not None, f"fio refuses what we take:\n{made.text()}"
    notes = Notes(translated)
    for name, one in ran.items():
        if not any(sum(copy.counts.values()) for copy in one.copies):
            continue  # Of some contradictions fio makes nothing at all, without a word.
        loads = loads_of(translated, name)
        try:
            check_sizes(one, loads, notes)
            check_regions(path, name, one, loads)
            check_mix_and_rates(one, loads)
            check_flushes(one, loads, notes)
            check_depth(one, loads, notes, made.engine in ASYNCHRONOUS)
        except AssertionError as failed:
            raise AssertionError(f"job {name} of\n{made.text()}\n{failed}\n" + "\n".join(translated.lines())) from failed
    if len(translated.profile.cell) == 2:
        assert ran["b"].begun_ns >= ran["a"].begun_ns and ran["b"].begun_ns >= ran["a"].ended_ns - 50_000_000
    cells = 2 if any(name == "b" and "stonewall" in lines for name, lines in made.sections) else 1
    assert len(translated.profile.cell) == cells


def test_most_of_what_is_drawn_is_taken_and_each_refusal_has_its_reason(tmp_path):
    refused = Counter()
    for seed in range(200):
        path = tmp_path / "ours.fio"
        path.write_text(drawn(seed).text())
        try:
            translate(path)
        except UsageError as refusal:
            refused[re.sub(r"[\d.,]+", "N", str(refusal).partition(": ")[2])[:60]] += 1
    assert sum(refused.values()) < 60, refused
