"""A database on a served volume: periods with a snapshot and without one in turn, then periods while it is copied far away.

Both volumes are served by `farwrite serve`, and `farwrite copy` runs at one end of a link of `farwrite lab`, as a person would
type them. Only the bytes of a copy cross that link; the requests for its snapshots do not, which would add a round trip or two.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from ...analysis.case_recording import COPY, PLAIN, SNAPSHOT, Copied, DatabasePart, Written
from ...base.errors import FarwriteError, UnfitError
from ...base.host.disk import BLOCK_BYTES, durable_file
from ...base.host.libc import aligned_bytes
from ...base.units import NS_PER_S
from ...engine.frontend.nbd_client import Place
from ...progress import Progress
from ...workload.case_profile import Database
from ..serve.control import FOLLOWS, Delete, Show, Take, ask
from ..serve.replica import VOLUME
from . import forwarder
from .child import last_words, serving, started
from .writer import Answered, Writer, fill, floor_of, sources_of, written_in

PORT = 10809
NAME = "case"
SETTLE_S = 1.0  # What a deleted snapshot kept is given back in the background, and a log is applied.
FLUSHES = 100
LOOK_S = 0.2


class DatabaseMeasurement:
    """The periods and copies, as far as they came."""

    def __init__(self, asked: Database, out: Path, link: str, in_memory: bool, seed: int, progress: Progress) -> None:
        self.asked, self.out, self.link, self.in_memory = asked, out, link, in_memory
        self.seed, self.progress = seed, progress
        self.writer: Writer | None = None
        self.stretches: list[tuple[int, int, dict[str, Any]]] = []  # (begin, end, what written_in is told of it)
        self.copies: list[Copied] = []
        self.used_bytes: list[int] = []
        self.used_at_s: list[float] = []
        self.flush_ns, self.falls_behind = 0, False

    def run(self) -> None:
        asked = self.asked
        with tempfile.TemporaryDirectory(prefix="farwrite-") as sockets, contextlib.ExitStack() as stack:
            files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="database-", dir=self.out)))
            self.flush_ns = 0 if self.in_memory else flush_of(files)
            self.progress.doing("database: opening both volumes")
            self.near, far = (Path(sockets) / name for name in ("near", "far"))
            source = stack.enter_context(self.served(files / "near", self.near))
            destination = stack.enter_context(self.served(files / "far", far))
            self.volume = files / "near" / "near" / "volume"
            self.place = Place(str(self.near / FOLLOWS), VOLUME)
            self.progress.doing("database: writing what is there before it begins")
            fill(self.place, asked.regions_bytes, self.seed)
            time.sleep(SETTLE_S)
            self.writer = Writer(self.place, sources_of(asked.stream, asked.size_bytes, asked.growth_bytes_per_s, self.seed))
            with self.writer:
                self.watch(SETTLE_S)
                self.note_used()
                try:
                    self.measure_pairs()
                    self.copy(source["uri"], destination["sockets"])
                finally:
                    with contextlib.suppress(FarwriteError, OSError):
                        self.note_used()

    def served(self, files: Path, sockets: Path) -> contextlib.AbstractContextManager[dict[str, Any]]:
        asked = self.asked
        words = ["--miles", f"{asked.miles:g}", "--rate", f"{asked.link_bits_per_s} bit/s", "--size", f"{asked.size_bytes} B"]
        words += ["--room", f"{asked.room_bytes} B", "--sockets", str(sockets), "--link", self.link, "--accept-link-error"]
        words += ["--memory"] if self.in_memory else ["--keep", str(files)]
        return serving("serve", *words)

    def watch(self, seconds: float) -> None:
        """So long; UnfitError where the client ends meanwhile."""
        assert self.writer is not None
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, LOOK_S))
            self.writer.check()

    def note_used(self) -> None:
        if not self.in_memory:
            self.used_bytes.append(self.volume.stat().st_blocks * 512)
            self.used_at_s.append(time.monotonic())

    # Periods with a snapshot, and without one

    def measure_pairs(self) -> None:
        draw = random.Random(self.seed)
        for pair in range(self.asked.pairs):
            self.progress.doing("database: a period with a snapshot, and one without")
            self.progress.counted("pairs", pair, self.asked.pairs)
            for beside in draw.sample((PLAIN, SNAPSHOT), 2):
                self.forget()
                self.watch(SETTLE_S)
                self.measure_period(beside, pair)
        self.forget()

    def measure_period(self, beside: str, pair: int) -> None:
        floor_ns = floor_of(self.place)
        begin_ns, taken_ns = time.monotonic_ns(), 0
        if beside == SNAPSHOT:
            ask(self.near, Take(NAME))
            taken_ns = time.monotonic_ns() - begin_ns
        self.watch((begin_ns + self.asked.scaled_ns - time.monotonic_ns()) / NS_PER_S)
        told = {"beside": beside, "floor_ns": floor_ns, "pair": pair, "instant_ns": begin_ns if taken_ns else 0}
        told["taken_ns"] = taken_ns
        self.stretches.append((begin_ns, begin_ns + self.asked.scaled_ns, told))

    def forget(self) -> None:
        """Our snapshot, where there is one."""
        if any(one.name == NAME for one in ask(self.near, Show()).snapshots):
            ask(self.near, Delete(NAME))

    # The remote copy

    def copy(self, source: str, sockets: str) -> None:
        """Copies over the link while the client writes."""
        asked, period_s = self.asked, self.asked.scaled_ns / NS_PER_S
        self.progress.doing("database: copying to the second site")
        far = forwarder.command(PORT, f"{sockets}/{FOLLOWS}")
        copying = [
            sys.executable, "-m", "farwrite", "copy", source, "URI", "--to-sockets", sockets, "--every", f"{period_s} s",
            "--copies", str(asked.copies + 1), "--json", "--overwrite",
        ]  # fmt: skip
        line = " ".join(f"nbd://$FAR:{PORT}/{VOLUME}" if word == "URI" else shlex.quote(word) for word in copying)
        words = ["--miles", f"{asked.far_miles:g}", "--rate", f"{asked.far_link_bits_per_s} bit/s", "--link", self.link]
        words += ["--accept-link-error", "--far", far, "--wait-port", str(PORT), "--", "sh", "-c", line]
        floor_ns, to_monotonic_ns = floor_of(self.place), time.time_ns() - time.monotonic_ns()
        with started("lab", *words) as (process, said):
            assert process.stdout is not None
            for text in process.stdout:
                found = msgspec.json.decode(text)
                copied = msgspec.convert(found, Copied)
                self.copies.append(copied)
                if not copied.is_full:
                    begin_ns = int(found["taken_ns"]) - to_monotonic_ns
                    self.stretches.append((begin_ns, begin_ns + asked.scaled_ns, {"beside": COPY, "floor_ns": floor_ns}))
                self.progress.counted("copies", len(self.copies) - 1, asked.copies)
                assert self.writer is not None
                self.writer.check()
            process.wait()
            words_said = last_words(said)
            self.falls_behind = "keep up" in words_said
            if process.returncode:
                raise UnfitError(f"farwrite copy has ended with {process.returncode}: {words_said}")
        self.watch(max((self.stretches[-1][1] - time.monotonic_ns()) / NS_PER_S, 0) if self.stretches else 0)

    def observed(self) -> DatabasePart | None:
        rows: list[Answered] = self.writer.answered if self.writer else []
        periods: list[Written] = []
        left_out = 0
        newest_ns = max((row.intended_ns for row in rows), default=0)
        for begin_ns, end_ns, told in self.stretches:
            made = written_in(rows, begin_ns, end_ns, **told) if newest_ns >= end_ns else None
            periods += [made] if made is not None else []
            left_out += made is None
        if not periods and not self.copies:
            return None
        used = self.used_bytes if len(self.used_bytes) == 2 else [0, 0]
        return DatabasePart(
            periods=periods, copies=self.copies, used_before_bytes=used[0], used_after_bytes=used[1],
            grown_s=self.used_at_s[-1] - self.used_at_s[0] if len(self.used_at_s) == 2 else 0.0, flush_ns_p50=self.flush_ns,
            left_out=left_out, falls_behind=self.falls_behind, failed_writes=self.writer.failed if self.writer else 0,
        )  # fmt: skip


def flush_of(directory: Path) -> int:
    """The median of a bare durable write of one block in this directory, in ns."""
    descriptor, _ = durable_file(directory, None)
    times, block = [], aligned_bytes(BLOCK_BYTES)
    try:
        os.posix_fallocate(descriptor, 0, BLOCK_BYTES)
        for _ in range(FLUSHES):
            begin_ns = time.monotonic_ns()
            os.pwrite(descriptor, block, 0)
            times.append(time.monotonic_ns() - begin_ns)
    finally:
        os.close(descriptor)
    return int(median(times))
