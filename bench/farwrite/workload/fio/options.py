"""What one job asks for, as keys of a cell. Each function reads the options of one matter and notes what it bends.

A note is an option, and what is done in its place. What cannot be done without measuring something else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...base.errors import UsageError, nearest
from ...base.units import format_size, format_time
from .parse import Option, Section
from .vocabulary import APPROXIMATED, IRRELEVANT, REFUSED, flag_of, number_of, refuse, size_of, time_of, whole_of

# Read by the functions below.
UNDERSTOOD = frozenset({
    "rw", "bs", "bssplit", "bsrange", "rwmixread", "rwmixwrite", "norandommap", "random_distribution", "iodepth",
    "ioengine", "numjobs", "rate", "rate_iops", "rate_process", "thinktime", "thinktime_blocks", "thinktime_spin",
    "thinktime_blocks_type", "fsync", "fdatasync", "end_fsync", "fsync_on_close", "sync", "direct", "buffered", "atomic",
    "size", "filesize", "io_size", "offset", "offset_increment", "runtime", "time_based", "ramp_time", "verify",
    "verify_pattern", "buffer_pattern", "zero_buffers", "buffer_compress_percentage", "buffer_compress_chunk",
    "dedupe_percentage", "stonewall", "randseed", "loops", "ba", "rate_ignore_thinktime", "sync_file_range", "kb_base",
    "filename", "directory", "filename_format", "nrfiles", "openfiles", "file_service_type", "random_generator", "io_submit_mode",
})  # fmt: skip

# (reads, writes, trims, random)
KINDS = {
    "read": (1, 0, 0, False), "write": (0, 1, 0, False), "trim": (0, 0, 1, False), "randread": (1, 0, 0, True),
    "randwrite": (0, 1, 0, True), "randtrim": (0, 0, 1, True), "rw": (1, 1, 0, False), "readwrite": (1, 1, 0, False),
    "randrw": (1, 1, 0, True),
}  # fmt: skip
ONE_AT_A_TIME = ("sync", "psync", "vsync", "pvsync", "pvsync2", "mmap")
ENGINES = (*ONE_AT_A_TIME, "libaio", "io_uring", "io_uring_cmd", "posixaio", "null", "windowsaio", "solarisaio", "sg", "splice")
OPERATIONS = ("reads", "writes", "trims")  # In fio's order of "a,b,c".
SECTOR_BYTES = 512
BLOCK_BYTES_MAX = 1 << 20
BLOCK_BYTES = 4096  # fio's, where none is given; and the unit of regions whose blocks allow it.
SHARES_MAX = 512  # Sizes in a range; more would be one a sector anyway.
FILES_MAX = 1024  # As many streams as a load may have.
COPIES_MAX = 256
RATE_PER_S_MAX = 400_000  # What a plan is drawn for; fio's limits beyond it limit nothing here.


@dataclass(frozen=True)
class Extent:
    """The bytes of a file that a copy of a job works on."""

    path: str
    begin: int
    length: int

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.begin + self.length


@dataclass
class Job:
    """A job in our keys, and how it was bent."""

    section: Section
    keys: dict[str, Any] = field(default_factory=dict)
    bent: list[tuple[Option, str]] = field(default_factory=list)
    passed: list[Option] = field(default_factory=list)  # no bearing here
    rates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # of a mix: operation and own keys, where rates differ
    copies: list[list[Extent]] = field(default_factory=list)  # the files of each copy
    runtime_ns: int = 0
    stonewall: bool = False

    def option(self, name: str) -> Option | None:
        """The option, if it is given."""
        return self.section.options.get(name)

    def bend(self, option: Option, how: str) -> None:
        """Note once what is done in an option's place."""
        if (option, how) not in self.bent:
            self.bent.append((option, how))

    def last_of(self, *names: str) -> Option | None:
        """Of options that set the same thing: the one that was set last."""
        return next((option for name, option in reversed(self.section.options.items()) if name in names), None)

    def shares(self) -> list[float]:
        """The shares of reads, writes and trims."""
        reads, trims = self.keys.get("reads", 0.0), self.keys.get("trims", 0.0)
        return [reads, 1 - reads - trims, trims]

    def mixes(self) -> list[list[dict[str, Any]]]:
        """The sizes of reads, writes and trims."""
        mix = self.keys["mix"]
        return [self.keys.get("read_mix", mix), mix, self.keys.get("trim_mix", mix)]

    def loads(self) -> list[tuple[str, dict[str, Any]]]:
        """(suffix of the name, keys) of every load that it is: one, or one an operation where each has a rate of its own."""
        if not self.rates:
            return [("", self.keys)]
        kept = {key: value for key, value in self.keys.items() if key not in ("reads", "mix", "read_mix")}
        reads, writes, _ = self.mixes()
        own = {
            "reads": {key: value for key, value in kept.items() if key != "flush_every"} | {"reads": 1.0, "mix": reads},
            "writes": kept | {"mix": writes},
        }
        return [(f"-{operation}", own[operation] | rate) for operation, rate in self.rates]


def job_of(section: Section) -> Job:
    """The job that a section describes. UsageError names option and line of what cannot be."""
    known(section)
    job = Job(section, bent=list(section.left_out))
    what(job)
    sizes(job)
    where(job)
    depth(job)
    rate(job)
    think(job)
    flushes(job)
    payload(job)
    how_long(job)
    for name, (harmless, how) in APPROXIMATED.items():
        option = job.option(name)
        if option and option.value not in harmless:
            job.bend(option, how)
    return job


def known(section: Section) -> None:
    """Refuse what is unknown or would change the meaning."""
    for option in section.options.values():
        name = option.name
        if name in REFUSED and option.value not in ("0", "none"):
            raise refuse(option, f"{REFUSED[name]}.")
        every = (*UNDERSTOOD, *IRRELEVANT, *APPROXIMATED, *REFUSED)
        if name not in every:
            near = nearest(name.lower(), every)
            hint = near if "did you mean" in near else "; fio 3.33 has none of that name"
            raise UsageError(f'{option.place}: unknown option "{name}"{hint}.')


def what(job: Job) -> None:
    """Which operations, in which shares."""
    option = job.option("rw") or Option("rw", "read", job.section.place)
    word, _, skip = option.value.lower().partition(":")
    if word in ("trimwrite", "randtrimwrite"):
        raise refuse(option, "a trim and a write of the same block in turn cannot be drawn.")
    if word not in KINDS:
        raise UsageError(f'{option.place}: rw={option.value}: unknown value "{word}"{nearest(word, KINDS)}.')
    reads, writes, trims, random = KINDS[word]
    if reads and writes:
        mix = job.last_of("rwmixread", "rwmixwrite")
        given = number_of(mix, 0, 100) / 100 if mix else 0.5
        job.keys["reads"] = 1 - given if mix and mix.name == "rwmixwrite" else given
        if not random:
            job.bent.append((option, "reads and writes share one position instead of having one each"))
    elif reads:
        job.keys["reads"] = 1.0
    elif trims:
        job.keys["trims"] = 1.0
    if skip:
        if random:
            raise refuse(option, "so many in a row before the next jump cannot be drawn.")
        job.keys["skip"] = size_of(option, skip)
    if random:
        job.keys["address"] = "random"
    else:
        job.keys["address"] = "sequential"


def by_operation(option: Option) -> list[str]:
    """The values for reads, writes and trims: "a,b,c". The last one given is for those behind it, too.

    An empty text is what fio does not set: a gap in the list, and whatever stands behind a comma at its end.
    """
    parts = [part.strip() for part in option.value.split(",")]
    if len(parts) > 3 and any(parts[3:]):
        raise refuse(option, "at most three values: reads, writes, trims.")
    parts = parts[:3]
    return [*parts, *[parts[-1]] * (3 - len(parts))]


def sizes(job: Job) -> None:
    """Block sizes: fixed, a range, or a split; a split goes before a range and that before a fixed size, whichever came last.

    Only a later range of a single size takes a split's place; get_next_buflen() in fio's io_u.c.
    """
    mixes: list[list[dict[str, Any]]] = [[], [], []]
    later = job.last_of("bssplit", "bsrange")
    for place, text in enumerate(by_operation(later) if later and later.name == "bsrange" and job.option("bssplit") else []):
        if later and text:
            mixes[place] = spread(job, later, text)
            if len(mixes[place]) > 1:
                raise refuse(later, "a range after bssplit, which fio then cuts to it; give one of the two.")
    for name, read in (("bssplit", split), ("bsrange", spread), ("bs", fixed)):
        option = job.option(name)
        for place, text in enumerate(by_operation(option) if option else []):
            if option and text and not mixes[place]:
                mixes[place] = read(job, option, text)
    reads, writes, trims = (mix or [{"block": f"{BLOCK_BYTES} B", "share": 1.0}] for mix in mixes)
    used = reads if job.keys.get("reads") == 1.0 else trims if job.keys.get("trims") == 1.0 else writes
    align = job.option("ba")
    if align and any(size_of(align, text) != bytes_of(used[0]) for text in by_operation(align) if text):
        raise refuse(align, "another alignment than the block's cannot be drawn.")
    job.keys["mix"] = writes if job.shares()[1] else used
    if reads != writes and job.keys.get("reads"):
        job.keys["read_mix"] = reads
    if trims != writes and job.keys.get("trims"):
        job.keys["trim_mix"] = trims
    if job.keys.get("skip"):
        if len(used) > 1:
            raise refuse(job.section.options["rw"], "a skip after blocks of several sizes cannot be drawn.")
        job.keys["stride"] = f"{bytes_of(used[0]) + job.keys.pop('skip')} B"
    option = job.option("bssplit") or job.option("bsrange")
    if option and job.keys["address"] == "random" and not flag_of(job.option("norandommap")):
        job.bend(option, "every size keeps its share; fio shortens a block that would touch one already written")


def bytes_of(item: dict[str, Any]) -> int:
    """A size in a mix."""
    return int(item["block"].removesuffix(" B"))


def block_of(job: Job, option: Option, size: int, share: float, text: str) -> dict[str, Any]:
    """One size of a mix, in whole sectors."""
    if not size:
        raise refuse(option, "a block of no bytes.")
    whole = -(-size // SECTOR_BYTES) * SECTOR_BYTES
    if whole > BLOCK_BYTES_MAX:
        raise refuse(option, f"{format_size(size)} is more than 1 MiB, the most that one write holds.")
    if whole != size:
        has_unit = any(letter in text.lower() for letter in "kmgtp")
        if has_unit and option.kb_base == 1000:
            raise refuse(option, f"with kb_base=1000, {text} is {size} bytes, no multiple of {SECTOR_BYTES} B; give it in bytes, "
                         "or drop kb_base.")  # fmt: skip
        unit = f"fio reads {text} as {size} bytes (KiB is 1000 unless kb_base=1000 is given); " if has_unit else ""
        job.bend(option, f"{unit}a disk writes whole sectors: {size} B are rounded up to {whole} B")
    return {"block": f"{whole} B", "share": share}


def fixed(job: Job, option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k"."""
    return [block_of(job, option, size_of(option, text), 1.0, text)]


def spread(job: Job, option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k-64k": every multiple of the smallest alike, and the largest by what it is beyond them. Tried on fio 3.33."""
    low, dash, high = text.partition("-")
    least, most = size_of(option, low), size_of(option, high) if dash else size_of(option, low)
    if least > most or not least or most // least > SHARES_MAX:
        raise refuse(option, f"a range has the smaller size first, and at most {SHARES_MAX} sizes.")
    mix = [block_of(job, option, size, 1.0, low) for size in range(least, most + 1, least)]
    return mix + ([block_of(job, option, most, most % least / least, high)] if most % least else [])


def split(job: Job, option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k/60:64k/40": percentages; what has none shares the rest."""
    found: list[tuple[int, float | None, str]] = []
    for part in text.split(":"):
        size, _, share = part.partition("/")
        found.append((size_of(option, size), number_of(option, 0, 100, share) if share else None, size))
    given = sum(share or 0 for _, share, _ in found)
    blank = sum(share is None for _, share, _ in found)
    if given > 100.001 or (not blank and given < 99.999):
        raise refuse(option, f"the percentages add up to {given:g}.")
    mix = [block_of(job, option, size, (100 - given) / blank if share is None else share, word) for size, share, word in found]
    return [item for item in mix if item["share"] > 0]


def where(job: Job) -> None:
    """How addresses are spread, and over which bytes of which files."""
    if job.keys["address"] == "random":
        distribution(job)
    number = job.option("numjobs")
    count = whole_of(number, 1, COPIES_MAX) if number else 1
    names = [names_of(job, copy) for copy in range(count)]
    job.copies = [extents_of(job, copy, files) for copy, files in enumerate(names)]
    several(job, len(job.copies[0]))


def names_of(job: Job, copy: int) -> list[str]:
    """The paths of the files of one copy, as fio would name them. Two that are the same are one file, as often as it is named."""
    directory, named, layout = job.option("directory"), job.option("filename"), job.option("filename_format")
    places = parted(directory.value) if directory else [""]
    if directory and named and "directory" in job.section.own and "filename" not in job.section.own:
        job.bend(directory, "its files are in it; fio 3.33 leaves it out where filename stands in an earlier section")
    if named:
        # Named files lie in the first directory; those that fio names itself in one a copy, in turn.
        nrfiles = job.option("nrfiles")
        names = parted(named.value)
        if nrfiles and nrfiles.value != str(len(names)):
            job.bend(nrfiles, "filename says which files there are, as in fio")
        return [str(Path(places[0], name)) for name in names]
    option = job.option("nrfiles")
    count = whole_of(option, 1, FILES_MAX) if option else 1
    form = (layout.value if layout else "") or "$jobname.$jobnum.$filenum"
    form = form.replace("$jobname", job.section.name).replace("$jobnum", str(copy)).replace("$clientuid", "localhost")
    return [str(Path(places[copy % len(places)], form.replace("$filenum", str(n)))) for n in range(count)]


def parted(text: str) -> list[str]:
    """ "a:b" -> a and b; a colon that belongs to a name is written "\\:"."""
    return [name.replace("\\:", ":").rstrip("/") for name in re.split(r"(?<!\\):", text) if name]


def extents_of(job: Job, copy: int, files: list[str]) -> list[Extent]:
    """What one copy works on in each of its files. setup_files() in fio's filesetup.c; tried on fio 3.33."""
    size, filesize, increment = job.option("size"), job.option("filesize"), job.option("offset_increment")
    if filesize and "-" in filesize.value:
        raise refuse(filesize, "files of sizes drawn at random; give one size.")
    file_bytes = size_of(filesize) if filesize else 0
    offset = offset_of(job) + copy * (size_of(increment) if increment else 0)
    if size and size.value.endswith("%"):
        if not file_bytes:
            raise refuse(size, "a share of a device's size, which is not known here; give a size in bytes.")
        length = min(round(file_bytes * number_of(size, 0, 100, size.value[:-1]) / 100), max(file_bytes - offset, 0))
    elif file_bytes:
        length = max(file_bytes - offset, 0)
        # Of files larger than `size` a random job uses all, and a sequential one the beginning: as much as it will write.
        if size and job.keys["address"] == "sequential":
            length = min(length, size_of(size) // len(files))
    else:
        if size is None or not size_of(size):
            raise no_size(job, size)
        length = size_of(size) // len(files)
    unit = SECTOR_BYTES
    if len(files) > 1 or all(bytes_of(item) % BLOCK_BYTES == 0 for mix in job.mixes() for item in mix):
        unit = BLOCK_BYTES
    length = length // unit * unit
    if length < max(bytes_of(item) for mix in job.mixes() for item in mix):
        option = increment or job.option("offset") or size or filesize
        assert option is not None
        raise refuse(option, f"{format_size(length)} of {files[0]} are left, less than the largest block.")
    return [Extent(path, offset // unit * unit, length) for path in dict.fromkeys(files)]


def no_size(job: Job, size: Option | None) -> UsageError:
    """The refusal of a job that has none, as fio refuses it."""
    limit = job.option("io_size")
    if size is not None:
        return refuse(size, "nothing would be issued; give a size, such as size=1g.")
    if limit is not None:
        return refuse(limit, "how much is transferred, not how large the file is; give its size, too, such as size=1g.")
    return UsageError(f"{job.section.place}: job {job.section.name} has no size; give it one, such as size=1g.")


def offset_of(job: Job) -> int:
    """Where in its file the first copy begins."""
    option = job.option("offset")
    if option and option.value.endswith("%"):
        raise refuse(option, "a share of a device's size, which is not known here; give bytes.")
    return size_of(option) if option else 0


def several(job: Job, files: int) -> None:
    """What a job does with several files, one behind the other here: in turn, as fio does unless told otherwise."""
    limit = job.option("io_size")
    if limit and size_of(limit):
        job.bend(limit, "rounds last for a time, not for an amount")
    if files < 2:
        return
    service, openfiles = job.option("file_service_type"), job.option("openfiles")
    first = job.last_of("nrfiles", "filename") or Option("nrfiles", str(files), job.section.place)
    word, _, often = (service.value.lower() if service else "roundrobin").partition(":")
    if openfiles and whole_of(openfiles, 0, 1_000_000) < files:
        job.bend(openfiles, "all files of a job are open at once")
    if job.keys["address"] != "sequential":
        job.bend(service or first, "addresses are drawn from all files of a job together; in fio each file has its turn")
        return
    if word == "sequential":
        return  # One file after the other, as they lie.
    job.keys["streams"] = files
    if service and (word != "roundrobin" or often not in ("", "1")):
        job.bend(service, "files are used in turn, one I/O each")


def distribution(job: Job) -> None:
    """random_distribution; a plain random job without norandommap hits every block once before any twice."""
    option = job.option("random_distribution") or Option("random_distribution", "random", job.section.place)
    word, *numbers = option.value.lower().split(":")
    first = numbers[0] if numbers else ""
    if len(numbers) > 1 and word in ("zipf", "pareto", "normal"):
        raise refuse(option, "a centre of its own cannot be drawn.")
    if word == "random":
        generator = job.option("random_generator")
        lfsr = generator is not None and generator.value == "lfsr"  # Goes through all blocks, with a map or without.
        job.keys["address"] = "uniform" if flag_of(job.option("norandommap")) and not lfsr else "shuffle"
    elif word == "zipf":
        job.keys |= {"address": "zipf", "zipf_skew": number_of(option, 0, 10, first or "1.1")}
    elif word == "pareto":
        job.keys |= {"address": "pareto", "pareto_share": number_of(option, 0.001, 0.999, first or "0.2")}
    elif word == "normal":
        job.keys |= {"address": "normal", "normal_deviation": number_of(option, 0.0001, 1000, first) / 100}
    elif word == "zoned":
        if len(set(by_operation(option))) > 1:
            job.bend(option, "the zones of reads are those of writes and trims, too")
        pairs = [part.partition("/") for part in option.value.split(",")[0].split(":")[1:]]
        bands = [(number_of(option, 0, 100, share), number_of(option, 0, 100, space)) for share, _, space in pairs]
        if not bands or abs(sum(space for _, space in bands) - 100) > 0.01 or abs(sum(s for s, _ in bands) - 100) > 0.01:
            raise refuse(option, "zones are share/space pairs, each adding up to 100.")
        job.keys |= {"address": "bands", "bands": [{"share": share, "space": space} for share, space in bands]}
    elif word == "zoned_abs":
        raise refuse(option, "zones in bytes cannot be drawn; give them in percent with zoned.")
    else:
        raise UsageError(
            f"{option.place}: random_distribution={option.value}: unknown value"
            f"{nearest(word, ['random', 'zipf', 'pareto', 'normal', 'zoned'])}."
        )


def depth(job: Job) -> None:
    """How many at once, and what fio would have issued them with."""
    option, engine = job.option("iodepth"), job.option("ioengine")
    wanted = whole_of(option, 1, 4096) if option else 1
    if engine and engine.value.lower() not in ENGINES:
        raise UsageError(f"{engine.place}: ioengine={engine.value} does no block I/O here{nearest(engine.value, ENGINES)}.")
    word = engine.value.lower() if engine else "psync"
    submit = job.option("io_submit_mode")
    # A thread an I/O: even a synchronous engine then has several under way.
    offload = submit is not None and submit.value == "offload"
    if word in ONE_AT_A_TIME and wanted > 1 and not offload:
        job.bend(option or job.section.options["ioengine"], f"ioengine {word} has one I/O under way, as in fio")
        wanted = 1
    job.keys["queue_depth"] = wanted
    for name in ("ioengine", "direct", "buffered", "sync", "atomic", "io_submit_mode"):
        given = job.option(name)
        if given:
            job.bend(given, "the replication engine does the I/O, and every write is durable when it completes")


def rate(job: Job) -> None:
    """A rate makes an open loop: instants do not wait for completions. fio has one a direction, whatever the mix is."""
    process = job.option("rate_process")
    if process and process.value not in ("linear", "poisson"):
        raise UsageError(f"{process.place}: rate_process={process.value}: unknown value (known: linear, poisson).")
    limits = limits_of(job)
    used = {OPERATIONS[place]: limits[place] for place, share in enumerate(job.shares()) if share > 0}
    if not any(used.values()):
        return
    arrival = "poisson" if process and process.value == "poisson" else "fixed"
    options = list(dict.fromkeys(limit[0] for limit in used.values() if limit))
    own = {
        operation: {"arrival": arrival, "rate": f"{limit[1]:.6f} /s"} if limit else {} for operation, limit in used.items()
    }
    for option in options:
        job.bend(option, "an open loop: response times count from the instant an I/O should have started")
    if len(used) == 1:
        job.keys |= next(iter(own.values()))
        return
    job.rates = list(own.items())
    for option in options:
        job.bend(option, "reads and writes are two loads, each with its rate, its depth and its positions")


def limits_of(job: Job) -> list[tuple[Option, float] | None]:
    """What limits reads, writes and trims, in I/Os per second; None where nothing does."""
    limits: list[tuple[Option, float] | None] = [None, None, None]
    iops, bandwidth = job.option("rate_iops"), job.option("rate")
    for option in (iops, bandwidth):
        for place, text in enumerate(by_operation(option) if option else []):
            value = size_of(option, text) if option and text else 0
            if option is None or not value:
                continue
            if limits[place] is not None:
                assert iops is not None
                raise refuse(option, f"rate and rate_iops={iops.value} ({iops.place}) exclude each other; drop one of the two.")
            mix = job.mixes()[place]
            mean = sum(bytes_of(item) * item["share"] for item in mix) / sum(item["share"] for item in mix)
            # Of several sizes fio counts I/Os in bytes of the smallest: setup_rate() in its backend.c.
            bytes_per_s = value * min(bytes_of(item) for item in mix) if option is iops else value
            limits[place] = (option, bytes_per_s / mean)
    for place, (limit, share) in enumerate(zip(limits, job.shares(), strict=True)):
        if limit and not share:
            limits[place] = None
        elif limit and limit[1] > RATE_PER_S_MAX:
            job.bend(limit[0], f"no limit: {limit[1]:,.0f} /s are more than the {RATE_PER_S_MAX:,} /s that are driven here")
            limits[place] = None
    for option in (iops, bandwidth):
        if option and not any(limit and limit[0] is option for limit in limits) and not any(o is option for o, _ in job.bent):
            job.bend(option, "it limits nothing that the job does")
    return limits


def think(job: Job) -> None:
    """Time between completions and the next I/O of a closed loop."""
    option = job.option("thinktime")
    if option is None or time_of(option, "us") == 0:
        return
    if "rate" in job.keys or job.rates:
        raise refuse(option, "a job with a rate waits for nobody, so it has no time to think; drop one of the two.")
    blocks = job.option("thinktime_blocks")
    job.keys["think"] = f"{time_of(option, 'us')} ns"
    job.keys["think_every"] = whole_of(blocks, 1, 1_000_000) if blocks else 1
    spin = job.option("thinktime_spin")
    if spin:
        job.bent.append((spin, "the caller's thinking uses no processor"))
    if job.keys["queue_depth"] > 1:
        job.bent.append((option, "each place of the queue thinks for itself; fio stops the whole job"))


def flushes(job: Job) -> None:
    """fsync and fdatasync are barriers here: a write is durable when it completes."""
    wanted = [(option, every) for name in ("fsync", "fdatasync") if (option := job.option(name))
              and (every := whole_of(option, 0, 1_000_000))]  # fmt: skip
    if wanted and job.shares()[1] > 0:
        option, every = min(wanted, key=lambda item: item[1])
        job.keys["flush_every"] = every
        job.bend(option, "a flush waits for what was submitted before it; it makes nothing durable that was not")
        if any(other % every for _, other in wanted):
            job.bend(option, "flushes after the multiples of the smaller of fsync and fdatasync; in fio after those of either")
        if job.shares()[0] > 0:
            job.bend(option, "one flush after the write that it is for; fio repeats it before each read until the next write")
    for name in ("end_fsync", "fsync_on_close", "sync_file_range"):
        option = job.option(name)
        if option and flag_of(option):
            job.bent.append((option, "every write is durable when it completes"))


def payload(job: Job) -> None:
    """What the blocks hold."""
    if flag_of(job.option("zero_buffers")):
        job.keys["compress_ratio"] = 1000.0
    for name, key in (("buffer_compress_percentage", "compress_ratio"), ("dedupe_percentage", "dedupe_ratio")):
        option = job.option(name)
        if option:
            job.keys[key] = min(1 / max(1 - number_of(option, 0, 100) / 100, 0.001), 1000.0)
    for name in ("verify", "verify_pattern", "buffer_pattern"):
        option = job.option(name)
        if option and option.value not in ("0", "none"):
            job.bent.append((option, "every write carries bytes of its own, and after each round the far site's are compared"))


def how_long(job: Job) -> None:
    """Runtime, warm-up and what of the order matters."""
    runtime = job.option("runtime")
    job.runtime_ns = time_of(runtime, "s") if runtime else 0
    job.stonewall = flag_of(job.option("stonewall"))
    ramp = job.option("ramp_time")
    if ramp:
        job.bent.append((ramp, f"the warm-up is found from the data instead of being {format_time(time_of(ramp, 's'))}"))
    seed = job.option("randseed")
    if seed:
        job.bent.append((seed, "the seed is the run's: --seed"))
    loops = job.option("loops")
    if loops and whole_of(loops, 1, 1_000_000) > 1:
        job.bent.append((loops, "rounds last for a time, and go round as often as fits"))
    job.passed = [option for option in job.section.options.values() if option.name in IRRELEVANT]
