"""The whole diagnosis, in the order in which it is read: what can be emulated, then how well."""

from __future__ import annotations

import time
from pathlib import Path

from ... import __version__
from ...base.host.facts import processor_time, steal_between
from ...progress import Progress
from . import emulation, machine
from .finding import Diagnosis


def diagnose(directory: Path, progress: Progress) -> Diagnosis:
    """Look at everything that matters to a measurement whose results would lie in this directory."""
    begin_s, before = time.monotonic(), processor_time()
    progress.doing("trying namespaces, netem and TUN")
    places = emulation.places()
    progress.doing("trying the disk")
    disks = emulation.disk(directory)
    progress.doing("timing sleeps and echoes")
    awake = emulation.keep_awake(directory)
    own = [
        machine.io_uring(), machine.congestion(), machine.timers(), machine.clock(), machine.processors(), machine.governor(),
        machine.memory(),
    ]  # fmt: skip
    others = machine.others(steal_between(before, processor_time()))
    return Diagnosis(
        farwrite=__version__, links=emulation.links_of(places), took_s=round(time.monotonic() - begin_s, 2),
        findings=[machine.kernel(), *places, *disks, *own, *others, awake],
    )  # fmt: skip
