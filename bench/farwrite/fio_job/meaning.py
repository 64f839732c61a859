"""What one job asks for, as keys of a cell. Each function reads the options of one matter and notes what it bends.

A note is an option, and what is done in its place. What cannot be done without measuring something else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError, nearest
from ..units import format_size, format_time
from .parse import Option, Section
from .words import ALIASES, IRRELEVANT, REFUSED, flag_of, number_of, refuse, size_of, time_of, whole_of

# Read by the functions below.
UNDERSTOOD = frozenset({
    "rw", "bs", "bssplit", "bsrange", "rwmixread", "rwmixwrite", "norandommap", "random_distribution", "iodepth",
    "ioengine", "numjobs", "rate", "rate_iops", "rate_process", "thinktime", "thinktime_blocks", "thinktime_spin",
    "thinktime_blocks_type", "fsync", "fdatasync", "end_fsync", "fsync_on_close", "sync", "direct", "buffered", "atomic",
    "size", "filesize", "io_size", "offset", "offset_increment", "runtime", "time_based", "ramp_time", "verify",
    "verify_pattern", "buffer_pattern", "zero_buffers", "buffer_compress_percentage", "buffer_compress_chunk",
    "dedupe_percentage", "stonewall", "new_group", "randseed", "loops", "ba", "rate_ignore_thinktime", "sync_file_range",
    "filename",
})  # fmt: skip

# (reads, writes, trims, random)
KINDS = {
    "read": (1, 0, 0, False), "write": (0, 1, 0, False), "trim": (0, 0, 1, False), "randread": (1, 0, 0, True),
    "randwrite": (0, 1, 0, True), "randtrim": (0, 0, 1, True), "rw": (1, 1, 0, False), "readwrite": (1, 1, 0, False),
    "randrw": (1, 1, 0, True),
}  # fmt: skip
ONE_AT_A_TIME = ("sync", "psync", "vsync", "pvsync", "pvsync2", "mmap")
ENGINES = (*ONE_AT_A_TIME, "libaio", "io_uring", "io_uring_cmd", "posixaio", "null", "windowsaio", "solarisaio", "sg", "splice")
BLOCK_BYTES_MAX = 1 << 20
SHARES_MAX = 512  # Sizes in a range; more would be one a sector anyway.


@dataclass
class Job:
    """A job in our keys, and how it was bent."""

    section: Section
    keys: dict[str, Any] = field(default_factory=dict)
    bent: list[tuple[Option, str]] = field(default_factory=list)
    passed: list[Option] = field(default_factory=list)  # no bearing here
    count: int = 1
    size_bytes: int = 0  # of each copy
    offset_bytes: int = 0
    filename: str = ""
    runtime_ns: int = 0
    stonewall: bool = False

    def option(self, name: str) -> Option | None:
        """The option, if it is given."""
        return self.section.options.get(name)


def job_of(section: Section) -> Job:
    """The job that a section describes. UsageError names option and line of what cannot be."""
    known(section)
    job = Job(section)
    what(job)
    sizes(job)
    where(job)
    depth(job)
    rate(job)
    think(job)
    flushes(job)
    payload(job)
    how_long(job)
    return job


def known(section: Section) -> None:
    """Give options their proper names; refuse what is unknown or would change the meaning."""
    for option in list(section.options.values()):
        name = ALIASES.get(option.name, option.name)
        if name != option.name:
            del section.options[option.name]
            section.options[name] = Option(name, option.value, option.place)
        if name in REFUSED and option.value not in ("0", "none"):
            raise refuse(option, f"{REFUSED[name]}.")
        if name not in UNDERSTOOD and name not in IRRELEVANT and name not in REFUSED:
            raise UsageError(f'{option.place}: unknown option "{option.name}"{nearest(option.name, [*UNDERSTOOD, *IRRELEVANT])}.')


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
        share = 0.5
        for name, of in (("rwmixread", 1), ("rwmixwrite", 0)):
            mix = job.option(name)
            if mix:
                given = number_of(mix, 0, 100) / 100
                share = given if of else 1 - given
        job.keys["reads"] = share
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
    """The values for reads, writes and trims: "a,b,c"; what is left out is as the one before it."""
    parts = [part.strip() for part in option.value.split(",")]
    if len(parts) > 3:
        raise refuse(option, "at most three values: reads, writes, trims.")
    parts = [part or (parts[index - 1] if index else "") for index, part in enumerate(parts)]
    return [*parts, *[parts[-1]] * (3 - len(parts))]


def sizes(job: Job) -> None:
    """Block sizes: fixed, a range, or a split."""
    mixes: list[list[dict[str, Any]]] = []
    for name, read in (("bssplit", split), ("bsrange", spread), ("bs", fixed)):
        option = job.option(name)
        if option:
            mixes = [read(option, text) for text in by_operation(option)]
            break
    else:
        mixes = [[{"block": "4096 B", "share": 1.0}]] * 3
    reads, writes, trims = mixes
    align = job.option("ba")
    if align and any(size_of(align, text) != bytes_of(mixes[0][0]) for text in by_operation(align)):
        raise refuse(align, "another alignment than the block's cannot be drawn.")
    job.keys["mix"] = writes
    if reads != writes and job.keys.get("reads"):
        job.keys["read_mix"] = reads
    if trims != writes and job.keys.get("trims"):
        job.keys["trim_mix"] = trims
    if job.keys.get("skip"):
        if len(writes) > 1:
            raise refuse(job.section.options["rw"], "a skip after blocks of several sizes cannot be drawn.")
        job.keys["stride"] = f"{bytes_of(writes[0]) + job.keys.pop('skip')} B"


def bytes_of(item: dict[str, Any]) -> int:
    """A size in a mix."""
    return int(item["block"].removesuffix(" B"))


def block_of(option: Option, size: int, share: float) -> dict[str, Any]:
    """One size of a mix."""
    if not 512 <= size <= BLOCK_BYTES_MAX or size % 512:
        raise refuse(option, f"{format_size(size)} is not a multiple of 512 B from 512 B to 1 MiB.")
    return {"block": f"{size} B", "share": share}


def fixed(option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k"."""
    return [block_of(option, size_of(option, text), 1.0)]


def spread(option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k-64k": every multiple of the smallest alike."""
    low, dash, high = text.partition("-")
    least, most = size_of(option, low), size_of(option, high) if dash else size_of(option, low)
    if least > most or not least or most // least > SHARES_MAX:
        raise refuse(option, f"a range has the smaller size first, and at most {SHARES_MAX} sizes.")
    return [block_of(option, size, 1.0) for size in range(least, most + 1, least)]


def split(option: Option, text: str) -> list[dict[str, Any]]:
    """ "4k/60:64k/40": percentages; what has none shares the rest."""
    found: list[tuple[int, float | None]] = []
    for part in text.split(":"):
        size, _, share = part.partition("/")
        found.append((size_of(option, size), number_of(option, 0, 100, share) if share else None))
    given = sum(share or 0 for _, share in found)
    blank = sum(share is None for _, share in found)
    if given > 100.001 or (not blank and given < 99.999):
        raise refuse(option, f"the percentages add up to {given:g}.")
    mix = [block_of(option, size, (100 - given) / blank if share is None else share) for size, share in found]
    return [item for item in mix if item["share"] > 0]


def where(job: Job) -> None:
    """How addresses are spread, and over how much."""
    if job.keys["address"] == "random":
        distribution(job)
    size = job.option("size") or job.option("filesize") or job.option("io_size")
    if size is None:
        raise UsageError(f"{job.section.place}: job {job.section.name} has no size; give it one, such as size=1g.")
    filesize = job.option("filesize")
    if size.value.endswith("%"):
        if filesize is None or filesize.value.endswith("%"):
            raise refuse(size, "a share of a device's size, which is not known here; give a size in bytes.")
        job.size_bytes = round(size_of(filesize) * number_of(size, 0, 100, size.value[:-1]) / 100)
    else:
        job.size_bytes = size_of(size)
    if filesize and size is not filesize and not filesize.value.endswith("%"):
        job.size_bytes = min(job.size_bytes, size_of(filesize))
    offset = job.option("offset")
    if offset:
        if offset.value.endswith("%"):
            raise refuse(offset, "a share of a device's size, which is not known here; give bytes.")
        job.offset_bytes = size_of(offset)
    increment = job.option("offset_increment")
    if increment and size_of(increment) != job.size_bytes and size_of(increment):
        raise refuse(increment, "copies lie one behind the other, each as long as its size: another step cannot be drawn.")
    limit = job.option("io_size")
    if limit and limit is not size:
        job.bent.append((limit, "rounds last for a time, not for an amount"))
    unit = 4096 if all(bytes_of(item) % 4096 == 0 for item in job.keys["mix"]) else 512
    job.size_bytes = job.size_bytes // unit * unit
    job.offset_bytes = job.offset_bytes // unit * unit
    named = job.option("filename")
    job.filename = named.value if named else ""
    copies = job.option("numjobs")
    job.count = whole_of(copies, 1, 256) if copies else 1
    job.keys["apart"] = not job.filename or increment is not None


def distribution(job: Job) -> None:
    """random_distribution; a plain random job without norandommap hits every block once before any twice."""
    option = job.option("random_distribution") or Option("random_distribution", "random", job.section.place)
    word, *numbers = option.value.lower().split(":")
    first = numbers[0] if numbers else ""
    if len(numbers) > 1 and word in ("zipf", "pareto", "normal"):
        raise refuse(option, "a centre of its own cannot be drawn.")
    if word == "random":
        job.keys["address"] = "uniform" if flag_of(job.option("norandommap")) else "shuffle"
    elif word == "zipf":
        job.keys |= {"address": "zipf", "zipf_skew": number_of(option, 0, 10, first or "1.1")}
    elif word == "pareto":
        job.keys |= {"address": "pareto", "pareto_share": number_of(option, 0.001, 0.999, first or "0.2")}
    elif word == "normal":
        job.keys |= {"address": "normal", "normal_deviation": number_of(option, 0.0001, 1000, first) / 100}
    elif word == "zoned":
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
    if word in ONE_AT_A_TIME and wanted > 1:
        job.bent.append((option or job.section.options["ioengine"], f"ioengine {word} has one I/O under way, as in fio"))
        wanted = 1
    job.keys["queue_depth"] = wanted
    for name in ("ioengine", "direct", "buffered", "sync", "atomic"):
        given = job.option(name)
        if given:
            job.bent.append((given, "the replication engine does the I/O, and every write is durable when it completes"))


def rate(job: Job) -> None:
    """A rate makes an open loop: instants do not wait for completions."""
    iops, bandwidth, process = job.option("rate_iops"), job.option("rate"), job.option("rate_process")
    if process and process.value not in ("linear", "poisson"):
        raise UsageError(f"{process.place}: rate_process={process.value}: unknown value (known: linear, poisson).")
    option = iops or bandwidth
    if option is None:
        return
    reads, trims = job.keys.get("reads", 0.0), job.keys.get("trims", 0.0)
    shares = [reads, 1 - reads - trims, trims]
    mixes = [job.keys.get("read_mix", job.keys["mix"]), job.keys["mix"], job.keys.get("trim_mix", job.keys["mix"])]
    most = []
    for text, share, mix in zip(by_operation(option), shares, mixes, strict=True):
        if share > 0 and text:
            mean = sum(bytes_of(item) * item["share"] for item in mix) / sum(item["share"] for item in mix)
            per_s = number_of(option, 0.001, 1e9, text) if iops else size_of(option, text) / mean
            most.append(per_s / share)
    if not most:
        raise refuse(option, "no rate for what the job does.")
    job.keys["arrival"] = "poisson" if process and process.value == "poisson" else "fixed"
    job.keys["rate"] = f"{min(most):.6f} /s"
    job.bent.append((option, "an open loop: response times count from the instant an I/O should have started"))


def think(job: Job) -> None:
    """Time between completions and the next I/O of a closed loop."""
    option = job.option("thinktime")
    if option is None or time_of(option, "us") == 0:
        return
    if "rate" in job.keys:
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
    for name in ("fsync", "fdatasync"):
        option = job.option(name)
        every = whole_of(option, 0, 1_000_000) if option else 0
        if option and every:
            job.keys["flush_every"] = every
            job.bent.append((option, "a flush waits for what was submitted before it; it makes nothing durable that was not"))
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
    job.stonewall = flag_of(job.option("stonewall")) or flag_of(job.option("new_group"))
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
