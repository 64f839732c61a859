"""fio's own words: units, and which options have no bearing here or would change the meaning if passed over.

After HOWTO.rst of fio 3.33. What is not in one of these tables and not in `meaning.py` is unknown.
"""

from __future__ import annotations

import re

from ...base.errors import UsageError
from ...base.units import NS_PER_MS, NS_PER_S, NS_PER_US
from .parse import Option

# It decides what fio prints, how its own process runs, or where its files lie while they are prepared. Each was asked: can it
# change an I/O's size, its address, the rate, the order or how many are under way? What can is read by `meaning.py` or refused.
IRRELEVANT = frozenset({
    # Names, and how jobs are grouped for the report.
    "description", "group_reporting", "new_group", "name", "unit_base", "unified_rw_reporting", "stats",
    # What is written down about the I/O.
    "write_bw_log", "write_lat_log", "write_hist_log", "write_iops_log", "write_iolog", "log_avg_msec", "log_hist_msec",
    "log_hist_coarseness", "log_max_value", "log_offset", "log_compression", "log_compression_cpus", "log_store_compressed",
    "log_unix_epoch", "log_alternate_epoch", "log_alternate_epoch_clock_id", "log_entries", "log_prio", "log_issue_time",
    "per_job_logs", "block_error_percentiles", "bwavgtime", "iopsavgtime", "disk_util", "lat_percentiles", "clat_percentiles",
    "slat_percentiles", "percentile_list", "significant_figures", "disable_lat", "disable_clat", "disable_slat",
    "disable_bw_measurement", "gtod_reduce", "gtod_cpu", "clocksource", "status-interval", "bandwidth-log", "eta", "error_dump",
    # How files are made ready before the first I/O, and left afterwards.
    "create_serialize", "create_fsync", "create_on_open", "allow_file_create", "allow_mounted_write", "pre_read", "unlink",
    "unlink_each_loop", "fallocate", "fadvise_hint", "invalidate", "overwrite", "unique_filename", "write_hint",
    # fio's processes, their memory, and how they learn of completions.
    "thread", "cpumask", "cpus_allowed", "cpus_allowed_policy", "numa_cpu_nodes", "numa_mem_policy", "mem", "iomem_align",
    "lockmem", "hugepage-size", "uid", "gid", "userspace_reap", "hipri", "registerfiles", "fixedbufs", "sqthread_poll",
    "sqthread_poll_cpu", "nonvectored",
    # Which sequence of the same distribution is drawn.
    "randrepeat", "allrandrepeat", "use_os_rand", "softrandommap", "rw_sequencer", "offset_align",
    # What the bytes are, and how they are checked; whether they are is verify's own line.
    "refill_buffers", "scramble_buffers", "verify_fatal", "verify_dump", "verify_async", "verify_async_cpus", "verify_offset",
    "verify_interval", "verify_header_seed", "verify_state_save", "verify_state_load", "verifysort", "verifysort_nr",
    "experimental_verify", "trim_verify_zero", "do_verify",
    # Only beside another option, which is refused.
    "max_open_zones", "job_max_open_zones", "zonecapacity", "read_beyond_wp", "ignore_zone_limits", "zone_reset_threshold",
    "zone_reset_frequency", "replay_redirect", "replay_scale", "replay_align", "replay_time_scale", "replay_skip",
    "read_iolog_chunked", "merge_blktrace_scalars", "merge_blktrace_iters", "latency_percentile", "latency_run", "exit_what",
    "trim_backlog_batch", "cgroup_nodelete", "continue_on_error", "ignore_error", "exitall_on_error", "rate_cycle",
    "reset_offset_on_fail",
})  # fmt: skip

# They do change the load, by little or for some devices only. The load is measured without, and the note says so:
# name: (values that change nothing, what is done in its place).
APPROXIMATED: dict[str, tuple[tuple[str, ...], str]] = {
    "iodepth_batch": (("1",), "an I/O is submitted as soon as a place of the queue is free, not in batches"),
    "iodepth_batch_complete_min": (("0", "1"), "the queue is kept full: completions are not waited for in batches"),
    "iodepth_batch_complete_max": ((), "the queue is kept full: completions are not waited for in batches"),
    "iodepth_low": ((), "the queue is kept full instead of running down to this depth and being filled in one go"),
    "serialize_overlap": (("0",), "I/Os that overlap one under way are not held back"),
    "exitall": (("0",), "every job goes on to the end of the round"),
    "steadystate": (("0",), "rounds last for a time; whether the state was steady is found from the data"),
    "steadystate_duration": ((), "rounds last for a time; whether the state was steady is found from the data"),
    "steadystate_ramp_time": ((), "rounds last for a time; whether the state was steady is found from the data"),
    "prio": ((), "all I/O has the same priority"),
    "prioclass": ((), "all I/O has the same priority"),
    "nice": (("0",), "all I/O has the same priority"),
    "cgroup": ((), "jobs share the machine without weights"),
    "cgroup_weight": ((), "jobs share the machine without weights"),
    "ioscheduler": ((), "no scheduler of a block device is passed through: the replication engine does the I/O"),
    "verify_backlog": (("0",), "no block is read back during the load; after each round the far site's are compared"),
    "verify_backlog_batch": ((), "no block is read back during the load; after each round the far site's are compared"),
    "dedupe_working_set_percentage": (("100",), "contents repeat by dedupe_percentage alone"),
    "dedupe_global": (("0",), "contents repeat by dedupe_percentage alone"),
}  # fmt: skip

# Passing it over would measure something else than was asked.
REFUSED = {
    "read_iolog": "a recorded trace; replay it with a cell's key trace, or with run --trace",
    "replay_no_stall": "a recorded trace; replay it with a cell's key trace, or with run --trace",
    "merge_blktrace_file": "recorded traces; replay one with a cell's key trace, or with run --trace",
    "latency_target": "a search for a depth; give the depth",
    "latency_window": "a search for a depth; give the depth",
    "max_latency": "it ends the run early; put it into a budget instead",
    "rate_min": "it ends the run early; put it into a budget instead",
    "rate_iops_min": "it ends the run early; put it into a budget instead",
    "percentage_random": "a blend of random and sequential in one job; make it two jobs",
    "zonemode": "zoned devices are not emulated",
    "zonesize": "zoned devices are not emulated; for shares of the I/O use random_distribution=zoned",
    "zonerange": "zoned devices are not emulated",
    "zoneskip": "zoned devices are not emulated",
    "number_ios": "rounds last for a time, not for a count",
    "startdelay": "all jobs of a group begin together",
    "wait_for": "all jobs of a group begin together; use stonewall",
    "flow": "the depths of jobs decide their shares",
    "flow_id": "the depths of jobs decide their shares",
    "flow_sleep": "the depths of jobs decide their shares",
    "bs_unaligned": "a disk writes whole sectors",
    "exec_prerun": "no command is run for a job file",
    "exec_postrun": "no command is run for a job file",
    "write_barrier": "a barrier inside the queue; use fsync",
    "rwmixcycle": "obsolete in fio",
    "trim_percentage": "trims of blocks just written; use rw=randtrim in a job of its own",
    "trim_backlog": "trims of blocks just written; use rw=randtrim in a job of its own",
    "thinktime_iotime": "thinking by time; use thinktime_blocks",
    "verify_only": "nothing would be written",
    "create_only": "nothing would be written",
    "profile": "another workload than the job file's",
    "dedupe_mode": "another way to repeat contents than dedupe_percentage's",
    "cmdprio_percentage": "priorities are not modelled",
    "opendir": "which files it would find, and how large, is not known here; name them with filename and give their size",
    "file_append": "where the file ends is not known here; give the offset",
    "fill_device": "the device's size is not known here; give size",
    "lockfile": "a lock would keep jobs from running at the same time",
}

SIZE = re.compile(r"(0x[0-9a-f]{1,16}|[0-9]{1,19})\s*([kmgtp]?)(ib|i|b)?", re.IGNORECASE | re.ASCII)
SIZE_BYTES_MAX = (1 << 63) - 1
TIMES_NS = {"d": 86400 * NS_PER_S, "h": 3600 * NS_PER_S, "m": 60 * NS_PER_S, "s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US,
            "usec": NS_PER_US, "msec": NS_PER_MS, "sec": NS_PER_S}  # fmt: skip


def refuse(option: Option, sentence: str) -> UsageError:
    """An error at the option's line."""
    return UsageError(f"{option.place}: {option.name}={shown(option.value)}: {sentence}")


def size_of(option: Option, text: str | None = None) -> int:
    """ "4k" -> 4096, and "4KiB" -> 4000: fio swaps the two meanings, unless kb_base=1000 says that k is 1000 and KiB 1024."""
    text = option.value if text is None else text
    match = SIZE.fullmatch(text.strip())
    if match is None:
        fraction = " fio reads whole numbers only." if re.match(r"\d+\.\d", text) else ""
        raise refuse(option, f'"{shown(text)}" is not a size such as 4k, 1m or 10g.{fraction}')
    number, letter, ending = match.groups()
    base = option.kb_base if (ending or "").lower() != "ib" else {1024: 1000, 1000: 1024}[option.kb_base]
    size = int(number, 0 if number[:2].lower() == "0x" else 10) * base ** " kmgtp".index(letter.lower() or " ")
    if size > SIZE_BYTES_MAX:
        raise refuse(option, f"{shown(text)} is more than a disk can have.")
    return size


def shown(text: str) -> str:
    """A value, no longer than fits a sentence."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def time_of(option: Option, unit: str) -> int:
    """Nanoseconds; a bare number is in `unit`."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)", option.value.strip().lower())
    if match is None or (match.group(2) or unit) not in TIMES_NS:
        raise refuse(option, f"not a time such as 30s, 10ms or 500us (a bare number is in {unit}).")
    return round(float(match.group(1)) * TIMES_NS[match.group(2) or unit])


def number_of(option: Option, least: float, most: float, text: str | None = None) -> float:
    """A number within bounds."""
    text = option.value if text is None else text
    try:
        value = float(text)
    except ValueError:
        raise refuse(option, f'"{shown(text)}" is not a number.') from None
    if not least <= value <= most:
        raise refuse(option, f"it must lie between {least:g} and {most:g}.")
    return value


def whole_of(option: Option, least: int, most: int) -> int:
    """A whole number within bounds."""
    value = number_of(option, least, most)
    if value != int(value):
        raise refuse(option, "it must be a whole number.")
    return int(value)


def flag_of(option: Option | None) -> bool:
    """Whether a switch is on."""
    return option is not None and option.value.lower() not in ("0", "false", "no")
