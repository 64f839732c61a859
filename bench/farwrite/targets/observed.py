"""What the sides of a round observed, each as one value: it travels from a site's process, or another machine, to the round."""

from __future__ import annotations

import msgspec
import numpy as np

from ..engine.replica_kernel import STOPPED
from .load_loop_kernel import Recorder


class PrimaryObserved(msgspec.Struct, frozen=True, kw_only=True):
    """Of the near side: the load and the primary it drove."""

    status: int  # 0, or why the loop ended: replicated.status_text
    recorder: Recorder
    spin_ns: int | None = None  # before an intended instant, looking at the clock instead of sleeping
    lag: np.ndarray | None = None  # protocols A and B: counts by slot of a histogram
    lag_writes_max: int = 0
    lag_bytes_max: int = 0
    flushes: int = 0
    flush_bytes: int = 0
    wire_bytes: int = 0
    blocked: int = 0  # times a write had to wait for room in journal or memory
    reactor: str = ""
    cpu_ns: int | None = None  # of its process and its tunnels, over the load
    exposed: int = 0  # writes that completed while a peer was left behind
    catch_up_ns: int | None = None  # after the load until all peers had everything; None: they did not in time
    tunnel_ends: tuple[str, ...] = ()  # why tunnels ended that should not have


class SecondaryObserved(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Of a far side: the secondary."""

    status: int
    refused: int
    flushes: int
    acks: int
    cpu_ns: int


class Audited(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a site's files hold of the writes that were acknowledged."""

    completed: int
    survived: int  # length of the prefix that is there
    lost: int
    damaged: int
    lost_bytes: int


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Of all sides."""

    near: PrimaryObserved
    fars: list[SecondaryObserved] = []  # in the order of the round's connections

    @property
    def status(self) -> int:
        """The near side's; where it noticed nothing, that of the first far side that failed."""
        failed = [far.status for far in self.fars if far.status < 0 and far.status != STOPPED]
        return self.near.status or (failed[0] if failed else 0)
