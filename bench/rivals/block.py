"""A block device under load: as many writers as the queue is deep, each writing past the page cache; where asked it flushes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from farwrite.base.errors import system_error
from farwrite.base.host.libc import aligned_bytes
from farwrite.targets.load_loop_kernel import Flight, Recorder
from farwrite.targets.replicated import recorder_of

from . import block_kernel
from .experiment import Task


def drive(path: str, task: Task, flushes: bool = True) -> Recorder:
    """Drive the device through one round; UnfitError with what the system answered.

    `flushes`: fdatasync(2) after each write; without it a write must be durable when the device answers.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        addresses = np.array_split(task.addresses(), task.queue_depth)
        with ThreadPoolExecutor(task.queue_depth) as writers:
            made = list(writers.map(lambda mine: drive_one(descriptor, task, mine, flushes), addresses))
    finally:
        os.close(descriptor)
    for status, _ in made:
        if status < 0:
            raise system_error(f"write to {path}", status)
    return together([recorder for _, recorder in made])


def drive_one(descriptor: int, task: Task, addresses: np.ndarray, flushes: bool) -> tuple[int, Recorder]:
    """One writer; no Python runs while it does."""
    recorder = recorder_of(task.slice_count)
    flight = Flight(*(np.zeros(1, np.int64) for _ in Flight._fields))
    data = aligned_bytes(task.size_bytes)
    data[:] = np.frombuffer(np.random.default_rng(task.seed).bytes(task.size_bytes), np.uint8)
    status = block_kernel.drive(
        descriptor, data, addresses, task.size_bytes, task.duration_ns, task.slice_ns, flushes, flight, recorder
    )
    return int(status), recorder


def added(parts: list[np.ndarray]) -> np.ndarray:
    """The sum of arrays, or of rows field by field: all of theirs are int64."""
    return np.sum([part.view(np.int64) for part in parts], axis=0).view(parts[0].dtype)


def together(recorders: list[Recorder]) -> Recorder:
    """What several writers observed, as one: counts are added, and the greatest is the greatest of all."""
    joined = {name: added([getattr(item, name) for item in recorders]) for name in Recorder._fields}
    joined["slice_max_ns"] = np.max([item.slice_max_ns for item in recorders], axis=0)
    return Recorder(**joined)


def rehearse() -> None:
    """Compile the loop before the lab forks: one write to a file in memory."""
    descriptor = os.memfd_create("farwrite-rehearsal")
    try:
        drive_one(descriptor, Task(512, 1, 1 << 20, 1, 1, 1), np.zeros(1, np.int64), True)
    finally:
        os.close(descriptor)
