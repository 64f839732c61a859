"""A closed loop over a block device or file: one write at a time, and fdatasync where asked. One writer; more are threads."""

from __future__ import annotations

import numpy as np

from farwrite.base.host import libc
from farwrite.base.jit import kernel
from farwrite.targets.load_loop_kernel import note_completion
from farwrite.workload.plan_kernel import WRITE


@kernel()
def drive(fd, data, addresses, size, duration_ns, slice_ns, flushes, flight, recorder):
    """Write and, if it `flushes`, flush for so long; 0 or -errno. `flight` has one place."""
    at = recorder.at[0]
    begin_ns = libc.monotonic_ns()
    end_ns = begin_ns + duration_ns
    at.begin_ns = begin_ns
    now_ns = begin_ns
    while now_ns < end_ns:
        flight.intended_ns[0] = now_ns
        flight.issued_ns[0] = now_ns
        written = libc.pwrite(fd, data, np.int64(0), size, addresses[at.issued % addresses.size])
        at.issued += 1
        if written != size:
            return written if written < 0 else np.int64(-libc.ENOSPC)
        status = libc.fdatasync(fd) if flushes else np.int64(0)
        if status < 0:
            return status
        now_ns = libc.monotonic_ns()
        note_completion(recorder, 0, WRITE, size, flight.intended_ns[0], flight.issued_ns[0], 0, now_ns, slice_ns)
    at.end_ns = now_ns
    return np.int64(0)
