"""What user-mode Linux lacks: a clock that is read without a system call.

    python tests/lab/uml/vdso.py SCRIPT [ARGUMENT...]

runs a Python script in which machine code reads CLOCK_MONOTONIC from the processor's own counter, as the vDSO of every other
kernel lets it (vdso(7)): in 25 ns. In user-mode Linux it is a call like any other, 9 us on the only processor, and a write of two
replicas looks at the clock 17 times. Python's own clocks stay what they are. Where the counter does not go evenly nothing is run.

Numba's code finds `clock_gettime` by name when it is loaded, so this has to happen before the first kernel is.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CALIBRATION_S = 1.0
UNEVEN_NS_MAX = 50_000  # In one such second, read by system calls on a processor that others use too.
TRIES = 200
NS_PER_S = 1_000_000_000

kept: list[Any] = []  # Machine code lives as long as what compiled it.


@intrinsic
def ticks(typing_context):
    """The processor's time-stamp counter."""

    def generate(context, builder, signature, args):
        counter = ir.FunctionType(ir.IntType(64), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, counter, "llvm.readcyclecounter"), [])

    return types.int64(), generate


@numba.njit
def ticks_now():
    return ticks()


def instant(now_ns: Callable[[], int]) -> tuple[int, int]:
    """(ticks, ns) of one instant: the try in which the least happened between two looks at the counter."""
    tries = []
    for _ in range(TRIES):
        before, ns, after = ticks_now(), now_ns(), ticks_now()
        tries.append((after - before, (before + after) // 2, ns))
    _, at_ticks, at_ns = min(tries)
    return at_ticks, at_ns


def install(now_ns: Callable[[], int] = time.monotonic_ns) -> None:
    """Give kernels that are loaded from now on a clock that goes with `now_ns`. SystemExit where the counter is no clock."""
    instants = [instant(now_ns)]
    for _ in range(2):
        time.sleep(CALIBRATION_S)
        instants.append(instant(now_ns))
    (begin_ticks, begin_ns), (middle_ticks, middle_ns), (base_ticks, base_ns) = instants
    ns_per_tick = (base_ns - begin_ns) / max(base_ticks - begin_ticks, 1)
    uneven_ns = abs(begin_ns + (middle_ticks - begin_ticks) * ns_per_tick - middle_ns)
    if uneven_ns > UNEVEN_NS_MAX:
        sys.exit(f"vdso: this processor's counter is no clock: it was {uneven_ns / 1e3:.0f} us off after {CALIBRATION_S:g} s")

    @numba.cfunc("int32(int32, CPointer(int64))")
    def clock_gettime(clock, spec):
        ns = base_ns + int((ticks() - base_ticks) * ns_per_tick)
        spec[0], spec[1] = ns // NS_PER_S, ns % NS_PER_S
        return 0

    kept.append(clock_gettime)
    binding.add_symbol("clock_gettime", clock_gettime.address)


def main() -> None:
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    install()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
