"""fio's own words: units, aliases, and which options have no bearing here or would change the meaning if passed over.

After HOWTO.rst of fio 3.33. What is not in one of these tables and not in `meaning.py` is unknown.
"""

from __future__ import annotations

import re

from ..errors import UsageError
from ..units import NS_PER_MS, NS_PER_S, NS_PER_US
from .parse import Option

ALIASES = {
    "readwrite": "rw", "blocksize": "bs", "blocksize_range": "bsrange", "blockalign": "ba", "io_limit": "io_size",
    "fileoffset": "offset", "file_size": "filesize", "rate_iops_process": "rate_process", "wait_for_previous": "stonewall",
    "hipri_percentage": "hipri", "timeout": "runtime", "iodepth_batch": "iodepth_batch_submit",
}  # fmt: skip

# It decides where fio puts things, what it prints or how its own process runs; the load is the same without.
IRRELEVANT = frozenset({
    "description", "group_reporting", "directory", "filename_format", "unique_filename", "opendir", "lockfile", "nrfiles",
    "openfiles", "file_service_type", "thread", "name", "reset_offset_on_fail", "unit_base", "unified_rw_reporting",
    "write_bw_log", "write_lat_log", "write_hist_log", "write_iops_log", "write_iolog", "log_avg_msec", "log_hist_msec",
    "log_hist_coarseness", "log_max_value", "log_offset", "log_compression", "log_compression_cpus",
    "log_store_compressed", "log_unix_epoch", "log_entries", "log_prio", "log_issue_time", "per_job_logs",
    "block_error_percentiles", "bwavgtime", "iopsavgtime", "disk_util", "lat_percentiles", "clat_percentiles",
    "slat_percentiles", "percentile_list", "significant_figures", "disable_lat", "disable_clat", "disable_slat",
    "disable_bw_measurement", "gtod_reduce", "gtod_cpu", "clocksource", "create_serialize", "create_fsync",
    "create_on_open", "create_only", "allow_file_create", "allow_mounted_write", "pre_read", "unlink", "unlink_each_loop",
    "fallocate", "fadvise_hint", "invalidate", "overwrite", "file_append", "kb_base", "nice", "prio", "prioclass",
    "cpumask", "cpus_allowed", "cpus_allowed_policy", "numa_cpu_nodes", "numa_mem_policy", "mem", "iomem", "iomem_align",
    "hugepage-size", "uid", "gid", "userspace_reap", "hipri", "registerfiles", "fixedbufs", "sqthread_poll",
    "sqthread_poll_cpu", "nonvectored", "randrepeat", "allrandrepeat", "use_os_rand", "random_generator", "softrandommap",
    "refill_buffers", "scramble_buffers", "exitall", "exitall_on_error", "error_dump", "continue_on_error",
    "ignore_error", "max_open_zones", "status-interval", "steadystate", "steadystate_duration", "steadystate_ramp_time",
    "rate_cycle", "bandwidth-log", "iodepth_batch_submit", "iodepth_batch_complete", "iodepth_batch_complete_min",
    "iodepth_batch_complete_max", "iodepth_low", "verify_fatal", "verify_dump", "verify_async", "verify_async_cpus",
    "verify_backlog", "verify_backlog_batch", "verify_offset", "verify_interval", "verify_header_seed",
    "verify_state_save", "verify_state_load", "verifysort", "verifysort_nr", "experimental_verify", "trim_verify_zero",
    "do_verify", "cgroup", "cgroup_weight", "cgroup_nodelete", "ioscheduler", "io_submit_mode", "eta",
})  # fmt: skip

# Passing it over would measure something else than was asked.
REFUSED = {
    "read_iolog": "a recorded trace; replay it with a cell's key trace",
    "replay_no_stall": "a recorded trace; replay it with a cell's key trace",
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
    "flow": "the depths of jobs decide their shares",
    "flow_id": "the depths of jobs decide their shares",
    "bs_unaligned": "a disk writes whole sectors",
    "exec_prerun": "no command is run for a job file",
    "exec_postrun": "no command is run for a job file",
    "write_barrier": "a barrier inside the queue; use fsync",
    "rwmixcycle": "obsolete in fio",
    "trim_percentage": "trims of blocks just written; use rw=randtrim in a job of its own",
    "trim_backlog": "trims of blocks just written; use rw=randtrim in a job of its own",
    "thinktime_iotime": "thinking by time; use thinktime_blocks",
    "verify_only": "nothing would be written",
    "profile": "another workload than the job file's",
    "dedupe_mode": "another way to repeat contents than dedupe_percentage's",
    "cmdprio_percentage": "priorities are not modelled",
}

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
TIMES_NS = {"d": 86400 * NS_PER_S, "h": 3600 * NS_PER_S, "m": 60 * NS_PER_S, "s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US,
            "usec": NS_PER_US, "msec": NS_PER_MS, "sec": NS_PER_S}  # fmt: skip


def refuse(option: Option, sentence: str) -> UsageError:
    """An error at the option's line."""
    return UsageError(f"{option.place}: {option.name}={option.value}: {sentence}")


def size_of(option: Option, text: str | None = None) -> int:
    """ "4k" -> 4096; fio's kilo is 1024 unless kb_base says otherwise, which is not supported."""
    text = option.value if text is None else text
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise refuse(option, f'"{text}" is not a size such as 4k, 1m or 10g.')
    return round(float(match.group(1)) * 1024 ** " kmgtp".index(match.group(2).lower() or " "))


def time_of(option: Option, unit: str) -> int:
    """Nanoseconds; a bare number is in `unit`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", option.value.strip().lower())
    if match is None or (match.group(2) or unit) not in TIMES_NS:
        raise refuse(option, f"not a time such as 30s, 10ms or 500us (a bare number is in {unit}).")
    return round(float(match.group(1)) * TIMES_NS[match.group(2) or unit])


def number_of(option: Option, least: float, most: float, text: str | None = None) -> float:
    """A number within bounds."""
    text = option.value if text is None else text
    try:
        value = float(text)
    except ValueError:
        raise refuse(option, f'"{text}" is not a number.') from None
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
