"""Thin volumes of a pool, filled one after the other: what was promised, what servers wrote, and what their copies take.

Each volume is served while it is filled, by processes at the sites of its copies, and its room is granted by the pool's ledger
as it grows; then they end and the next one is served. So a machine of two processors fills a hundred.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from ...analysis.case_recording import ThinPart, ThinVolume
from ...base.errors import UnfitError
from ...base.physics import distance
from ...base.units import counted, format_size
from ...engine.frontend import nbd
from ...engine.frontend.nbd_client import NbdClient, Place
from ...lab.topology import two_sites
from ...progress import Progress
from ...workload.case_profile import BLOCK_BYTES, Thin
from ..pool.document import LEVELS, StorageNode, Volume
from ..pool.group import Groups, Replicas
from ..pool.placement import JOURNAL_BYTES
from ..pool.server import THREE_SITES
from ..pool.steps import AtRest, Pool, allocated_in, create, opened
from ..serve.control import FOLLOWS
from ..serve.replica import VOLUME, figures_of
from ..serve.server import Asked, calm, opened_lab, socket_directory
from .writer import check

NODES = {"a": "near", "b": "far", "c": "near", "d": "far"}
CAPACITY = 0.75  # Of what is promised: the nodes could not hold it.
FILES = ((BLOCK_BYTES, 40), (64 << 10, 40), (1 << 20, 20))  # (bytes of a file, share of the files)
DEPTH = 16
TEND_EVERY = 64  # Writes between two looks at how much room there is.


class ThinMeasurement:
    """The volumes, as far as they were filled."""

    def __init__(self, asked: Thin, out: Path, link: str, seed: int, progress: Progress) -> None:
        self.asked, self.out, self.link, self.seed, self.progress = asked, out, link, seed, progress
        self.filled: list[ThinVolume] = []
        self.capacity_bytes = 0

    def run(self) -> None:
        asked = self.asked
        self.check_free()
        with tempfile.TemporaryDirectory(prefix="thin-", dir=self.out) as place:
            directory = Path(place) / "san"
            self.progress.doing("thin: making the pool")
            create(directory, "san", self.nodes())
            with opened(directory) as pool:
                self.make_volumes(pool)
                serving = Asked(
                    leg=two_sites(distance(asked.miles), f"{asked.link_bits_per_s} bit/s").legs[0], link=self.link,
                    accepts_error=True, is_quiet=True,
                )  # fmt: skip
                with contextlib.ExitStack() as stack:
                    sockets = stack.enter_context(socket_directory(None))
                    lab = stack.enter_context(opened_lab(THREE_SITES, serving, "farwrite case"))
                    groups = Groups(stack, lab, pool, serving, sockets)
                    groups.rooms.open({})
                    try:
                        self.fill_all(pool, groups)
                    finally:
                        with calm():
                            groups.end_all()

    def nodes(self) -> list[StorageNode]:
        """As large as their logs and so much of what is promised."""
        asked, copies = self.asked, LEVELS[self.asked.level]
        each = -(-asked.volumes * copies // len(NODES)) + 1
        self.capacity_bytes = round(CAPACITY * asked.volumes * copies * asked.size_bytes)
        room = self.capacity_bytes // len(NODES) + each * JOURNAL_BYTES
        return [StorageNode(name, site, room, "") for name, site in NODES.items()]

    def check_free(self) -> None:
        """UnfitError where the disk would become full."""
        import shutil

        asked = self.asked
        needed = asked.volumes * LEVELS[asked.level] * (JOURNAL_BYTES + asked.size_bytes)
        free = shutil.disk_usage(self.out).free
        if free < 1.2 * needed:
            raise UnfitError(
                f"{counted(asked.volumes, 'volume')} take {format_size(needed)} while they are filled, mostly logs, and "
                f"{self.out} has {format_size(free)} free: name a larger disk with --out, or fewer volumes in a case of your own"
            )

    def make_volumes(self, pool: Pool) -> None:
        for index in range(self.asked.volumes):
            self.progress.counted("thin volumes made", index, self.asked.volumes)
            size = self.asked.size_bytes
            pool.create_volume(f"server{index:03d}", size, self.asked.level, False, size, AtRest())

    def fill_all(self, pool: Pool, groups: Groups) -> None:
        volumes = list(pool.document.volumes)
        for index, volume in enumerate(volumes):
            self.progress.doing("thin: filling")
            self.progress.counted("volumes", index, len(volumes))
            begin_s = time.monotonic()
            groups.begin(volume)
            written, used = self.fill(groups, groups.served[volume.name], volume, random.Random(f"{self.seed}/{index}"))
            with calm():
                groups.end(volume)
            stored = [allocated_in(pool.copy_directory(volume, copy)) for copy in volume.copies]
            self.filled.append(ThinVolume(
                name=volume.name, written_bytes=written, stored_bytes=stored, used_bytes=used,
                seconds=round(time.monotonic() - begin_s, 2),
            ))  # fmt: skip

    def fill(self, groups: Groups, group: Replicas, volume: Volume, draw: random.Random) -> tuple[int, int]:
        """(bytes that were written, each block once; bytes that the volume takes as whoever leads has counted)."""
        asked = self.asked
        blocks = volume.size_bytes // BLOCK_BYTES
        wanted = round(draw.uniform(asked.written_least_ratio, asked.written_most_ratio) * blocks)
        is_written, data = np.zeros(blocks, bool), memoryview(draw.randbytes(1 << 20))
        sizes, shares = zip(*FILES, strict=True)
        with NbdClient(Place(str(group.directory / FOLLOWS), VOLUME)) as client:
            count = 0
            while int(is_written.sum()) < wanted:
                left = (wanted - int(is_written.sum())) * BLOCK_BYTES
                size = min(draw.choices(sizes, shares)[0], left, volume.size_bytes)
                at = draw.randrange(blocks - size // BLOCK_BYTES + 1)
                client.issue(nbd.WRITE, at * BLOCK_BYTES, size, data[:size])
                is_written[at : at + size // BLOCK_BYTES] = True
                count += 1
                if len(client.in_flight) >= DEPTH:
                    check(client)
                if count % TEND_EVERY == 0:
                    look(groups, group)
            while client.in_flight:
                check(client)
            client.flush()
        look(groups, group)
        leader = group.leader()
        used = int(figures_of(group.boards[leader]).room[0]["allocated"]) if leader else 0
        return int(is_written.sum()) * BLOCK_BYTES, used

    def observed(self) -> ThinPart | None:
        if not self.filled:
            return None
        return ThinPart(
            volumes=self.filled, journal_bytes=JOURNAL_BYTES, nodes=len(NODES), capacity_bytes=self.capacity_bytes,
            copies=LEVELS[self.asked.level],
        )  # fmt: skip


def look(groups: Groups, group: Replicas) -> None:
    """Grant room before it is needed, and start again who has ended."""
    groups.rooms.tend(groups.served)
    group.look()
