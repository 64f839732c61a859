"""What a served volume tells of itself: a line for a person each second, and Prometheus's text for a machine that asks."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...base.histogram import SLOTS, Histogram
from ...base.units import format_size, format_time
from ...base.wire.door import accepted
from ...engine.peer_status import STATES
from ...engine.room import is_above_level
from ...lab.shared_memory import Board
from ..voters import seat_of
from .replica import Figures, figures_of

REQUEST_BYTES_MAX, REQUEST_S = 4096, 1.0  # Of who asks for metrics: one at a time, and never longer than that.
LOOK_S = 0.1  # After which who answers looks whether another one does.
QUANTILES = (0.5, 0.99)


def leader_of(boards: Mapping[str, Board], replicas: Sequence[str]) -> str | None:
    """Who leads, of several in the latest epoch."""
    epoch, name = max((int(boards[name].counters[0].led_epoch), name) for name in replicas)
    return name if epoch else None


@dataclass
class Seen:
    """What a replica had counted when it was looked at last."""

    writes: int = 0
    reads: int = 0
    written: int = 0
    writes_ns: np.ndarray = field(default_factory=lambda: np.zeros(SLOTS, np.int64))


@dataclass
class LastSecond:
    """What happened since it was asked last: rates, and quantiles of these writes alone.

    By replica: each counts for itself, over all the times it leads, and may have counted more than who led before it.
    """

    at_s: float = field(default_factory=time.monotonic)
    seen: dict[str, Seen] = field(default_factory=dict)

    def line(self, boards: Mapping[str, Board], replicas: Sequence[str], downs: Sequence[str]) -> str:
        """The status of the volume in one line, since the last one."""
        now_s = time.monotonic()
        past_s, self.at_s = max(now_s - self.at_s, 0.001), now_s
        leader = leader_of(boards, replicas)
        down = f"; {', '.join(downs)} down" if downs else ""
        if leader is None:
            return f"nobody leads{down}"
        figures = figures_of(boards[leader])
        counted, before = figures.counters[0], self.seen.get(leader, Seen())
        now = Seen(int(counted.writes), int(counted.reads), int(counted.bytes_written), figures.writes_ns.copy())
        self.seen[leader] = now
        lately = Histogram(np.maximum(now.writes_ns - before.writes_ns, 0))
        p50, p99 = lately.quantiles(QUANTILES)
        words = [
            f"{leader} leads", f"{int(counted.clients)} clients", f"{(now.writes - before.writes) / past_s:,.0f} writes/s",
            f"{(now.written - before.written) / past_s / 1e6:,.1f} MB/s", f"{(now.reads - before.reads) / past_s:,.0f} reads/s",
        ]  # fmt: skip
        words += [room_text(figures.room[0])]
        words += [f"p50 {format_time(p50)}, p99 {format_time(p99)}"] if p50 is not None and p99 is not None else []
        words += peers_text(figures, [name for name in replicas if name != leader])
        return ", ".join(words) + down


def room_text(count: Any) -> str:
    """What the volume takes of what it may."""
    limit, kept = int(count["limit"]), int(count["kept"])
    level = "; above its warning level" if is_above_level(count) else ""
    refused = f"; {int(count['refused']):,} requests refused" if count["refused"] else ""
    most = f" of {format_size(limit)}" if limit else ""
    used = f"{format_size(int(count['allocated']))}{most} used" + (f", {format_size(kept)} kept for snapshots" if kept else "")
    return f"{used}, {format_size(int(count['promised']))} promised{level}{refused}"


def peers_text(figures: Figures, names: Sequence[str]) -> list[str]:
    """Where each peer of who leads stands."""
    found = []
    for name, peer in zip(sorted(names), figures.peer, strict=False):
        state = STATES[int(peer["state"])] + (" (detached)" if peer["detached"] else "")
        found.append(f"{name} {state}" + (f" {int(peer['lag_writes'])} writes behind" if peer["lag_writes"] else ""))
    return found


# For Prometheus: its text format, version 0.0.4.


class Observed(NamedTuple):
    """A volume as metrics tell of it."""

    labels: str  # before those of its replicas: nothing, or 'volume="db",'
    boards: Mapping[str, Board]
    replicas: Sequence[str]
    known_by: Mapping[str, Sequence[str]] = {}  # by replica, the peers that its board has rows of; unless said all others


class MetricLines:
    """A page of metrics that grows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, about: str, rows: Sequence[tuple[str, float]]) -> None:
        """One metric: its help and kind once, then a value for each set of labels."""
        self.lines.extend([f"# HELP farwrite_{name} {about}", f"# TYPE farwrite_{name} {kind}"])
        self.lines.extend(
            f"farwrite_{name}{{{labels}}} {value:g}" if value % 1 else f"farwrite_{name}{{{labels}}} {int(value)}"
            for labels, value in rows
        )

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def metrics_text(volumes: Sequence[Observed]) -> str:
    """Everything, by volume and replica."""
    page, at = MetricLines(), []
    for one in volumes:
        leader = leader_of(one.boards, one.replicas) if one.replicas else None
        at += [(f'{one.labels}replica="{name}"', one.boards[name], figures_of(one.boards[name]), name == leader)
               for name in one.replicas]  # fmt: skip
    page.family("leads", "gauge", "1: this replica leads.", [(by, float(leads)) for by, _, _, leads in at])
    page.family("epoch", "gauge", "Epoch that it leads in.", [(by, float(board.counters[0].led_epoch)) for by, board, _, _ in at])
    page.family("ready", "gauge", "1: its process answers.", [(by, float(seat_of(board).ready)) for by, board, _, _ in at])
    page.family("pid", "gauge", "Number of its process.", [(by, float(read.task.pid)) for by, _, read, _ in at])
    for name, kind, about in COUNTED:
        suffix = "_total" if kind == "counter" else ""
        page.family(name + suffix, kind, about, [(by, float(read.counters[0][name])) for by, _, read, _ in at])
    for name, kind, about in ROOM:
        suffix = "_total" if kind == "counter" else "_bytes"
        page.family(f"room_{name}{suffix}", kind, about, [(by, float(read.room[0][name])) for by, _, read, _ in at])
    for what in ("writes", "reads"):
        name = f"{what[:-1]}_seconds"
        page.lines.append(f"# HELP farwrite_{name} From a request's last byte until its answer was handed over.")
        page.lines.append(f"# TYPE farwrite_{name} summary")
        for by, _, read, _ in at:
            seen = Histogram(getattr(read, f"{what}_ns").copy())
            for q in QUANTILES:
                if (value_ns := seen.quantile(q)) is not None:
                    page.lines.append(f'farwrite_{name}{{{by},quantile="{q}"}} {value_ns / 1e9:.9f}')
            page.lines.append(f"farwrite_{name}_count{{{by}}} {seen.count}")
    peers = [found for one in volumes for found in peer_rows(one)]
    if peers:
        page.family("peer_live", "gauge", "1: it keeps up with who leads.",
                    [(by, float(STATES[int(row["state"])] == "live")) for by, row in peers])  # fmt: skip
        page.family("peer_detached", "gauge", "1: writes complete without it.",
                    [(by, float(row["detached"])) for by, row in peers])  # fmt: skip
        page.family("peer_lag_writes", "gauge", "Writes laid into the log and not known durable there.",
                    [(by, float(row["lag_writes"])) for by, row in peers])  # fmt: skip
    return page.text()


def peer_rows(volume: Observed) -> list[tuple[str, Any]]:
    """Each peer of who leads a volume: its labels, and where it stands."""
    leader = leader_of(volume.boards, volume.replicas) if volume.replicas else None
    if leader is None:
        return []
    names = volume.known_by.get(leader) or sorted(name for name in volume.replicas if name != leader)
    rows = figures_of(volume.boards[leader]).peer
    return [(f'{volume.labels}peer="{name}"', row) for name, row in zip(names, rows, strict=False)]


COUNTED = (
    ("clients", "gauge", "Connections of clients that are served now."),
    ("owed", "gauge", "Requests that wait for a write to complete."),
    ("adopted", "counter", "Connections that were ever served."),
    ("refused", "counter", "Connections that were closed because there was no place for them."),
    ("hung_up", "counter", "Connections that were ended because of what they sent."),
    ("writes", "counter", "Writes, trims and write-zeroes answered with success."),
    ("reads", "counter", "Reads handed over whole."),
    ("flushes", "counter", "Flushes answered."),
    ("bytes_written", "counter", "Bytes of these writes."),
    ("bytes_read", "counter", "Bytes of these reads."),
    ("errors", "counter", "Requests answered with an error."),
    ("blocked", "counter", "Times a connection was not read from because there was no room."),
)


ROOM = (
    ("allocated", "gauge", "Bytes of extents that the volume takes here, those in the log included."),
    ("kept", "gauge", "Bytes of old blocks that are kept for snapshots here."),
    ("limit", "gauge", "Bytes that the volume may take, without what is kept; 0: as many as there are."),
    ("warn", "gauge", "Bytes above which it is said; 0: never."),
    ("promised", "gauge", "Bytes of the volume."),
    ("refused", "counter", "Requests refused because they needed more room."),
)


def serve_metrics(descriptor: int, ends: Board, text: Callable[..., str], *arguments: Any) -> None:
    """In a process of its own: answer whoever asks on this listening socket with text(*arguments), one after the other, until
    we are ended, or the word on `ends` says that another one does it."""
    with socket.socket(fileno=descriptor) as listening:
        listening.settimeout(LOOK_S)
        while not ends.words[0]:
            come = accepted(listening)
            if come is not None:
                with contextlib.suppress(OSError), come[0] as connection:
                    answer(connection, lambda: text(*arguments))


def answer(connection: socket.socket, text: Callable[[], str]) -> None:
    """One request and its answer, within REQUEST_S."""
    limit_s, request = time.monotonic() + REQUEST_S, b""
    while b"\r\n\r\n" not in request and len(request) < REQUEST_BYTES_MAX:
        connection.settimeout(max(limit_s - time.monotonic(), 0.001))
        piece = connection.recv(REQUEST_BYTES_MAX - len(request))
        if not piece:
            return
        request += piece
    words = request.partition(b"\r\n")[0].split()
    status, body = "404 Not Found", "ask for /metrics\n"
    if words[:1] != [b"GET"]:
        status, body = "405 Method Not Allowed", "GET /metrics\n"
    elif len(words) > 1 and words[1].partition(b"?")[0] == b"/metrics":
        status, body = "200 OK", text()
    data = body.encode()
    connection.settimeout(REQUEST_S)
    connection.sendall(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\n\r\n".encode() + data
    )
