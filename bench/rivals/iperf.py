"""iperf3 over the lab's link: what a TCP stream that stores nothing carries, the bound of every replication's goodput."""

from __future__ import annotations

import json
import shutil
import subprocess

from farwrite.base.errors import UnfitError
from farwrite.base.histogram import Histogram
from farwrite.base.reasons import Reason, round_refused, sentences
from farwrite.base.units import NS_PER_S
from farwrite.experiment.round import link_reasons, text_of
from farwrite.experiment.run_journal import Run
from farwrite.lab.lab import Lab
from farwrite.recording import Cell, Round, Slice

from . import daemon
from .experiment import rival_cell

NAME = "iperf3"
PORT = 5201
WARMING_S = 1  # Left out: slow start.


class Iperf:
    """One TCP stream from the near site to the far one."""

    name = NAME
    what = "nothing: bytes in the far site's memory"

    def __init__(self, run: Run, lab: Lab, miles: float, size_bytes: int) -> None:
        if shutil.which(NAME) is None:
            raise UnfitError("iperf3 is not installed (Debian: iperf3)")
        self.run, self.span = run, lab
        self.version = daemon.first_line([NAME, "--version"])
        self.cells = [rival_cell(NAME, miles, 1, run.profile, size_bytes)]

    def round(self, cell: Cell, index: int, attempt: int) -> Round:
        """One stream, once; its seconds are one slice."""
        table, span = self.run.profile.run, self.span
        begin_s = self.run.elapsed_s()
        span.set_rtt(cell.asked_rtt_ns)
        before = span.survey(table.survey_echoes)
        seconds = max(round(table.round_ns / NS_PER_S), 1)
        span.far.call(daemon.start, NAME, [NAME, "-s", "-1", "-B", span.far.address, "-p", str(PORT)])
        try:
            size, duration_s = span.near.call(stream, span.far.address, seconds, span.transport["congestion_control"])
            reasons: list[Reason] = []
        except UnfitError as failure:
            size, duration_s, reasons = 0, seconds, [round_refused(str(failure))]
        finally:
            span.far.call(daemon.stop, NAME)
        failed = bool(reasons)
        after = span.survey(table.survey_echoes)
        reasons += link_reasons(before, after, cell.asked_rtt_ns)
        nothing = Histogram().encode()
        whole = Slice(begin_ns=0, duration_ns=round(duration_s * NS_PER_S), completed=0, completed_bytes=size,
                      response_ns_max=0, response=nothing, within=0, within_bytes=size)  # fmt: skip
        return Round(
            cell=cell.id, index=index, attempt=attempt, status="failed" if failed else "void" if reasons else "ok",
            reasons=sentences(reasons), causes=reasons, begin_s=round(begin_s, 3), duration_ns=whole.duration_ns,
            survey_before=text_of(before), survey_after=text_of(after), echo_floor=nothing, slices=[whole], service=nothing,
            wait=nothing, late=nothing,
            lag=None, lag_writes_max=0, lag_bytes_max=0, issued=0, completed=0, unacknowledged=0, completed_bytes=size,
            flushes=0, flush_bytes=0, far_flushes=0, wire_bytes=size, blocked=0, steal=None, link={}, audit=None,
        )  # fmt: skip


def stream(address: str, seconds: int, congestion: str) -> tuple[int, float]:
    """In the near site: (bytes, seconds) that the far end received after the warming."""
    words = [NAME, "-c", address, "-p", str(PORT), "-t", str(seconds), "-O", str(WARMING_S), "-C", congestion, "-J"]
    for _ in range(20):  # The server may not listen yet.
        done = subprocess.run([*words, "--connect-timeout", "2000"], capture_output=True, text=True, timeout=seconds + 30)
        said = json.loads(done.stdout or "{}")
        if "error" not in said and done.returncode == 0:
            return received(said)
        if "refused" not in str(said.get("error")):
            break
    raise UnfitError(f"iperf3: {said.get('error') or done.stderr.strip()}.")


def received(said: dict) -> tuple[int, float]:
    """(bytes, seconds) of iperf3's JSON, as the receiver counted."""
    total = said["end"]["sum_received"]
    return int(total["bytes"]), float(total["seconds"])
