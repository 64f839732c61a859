"""Somebody between two replicas: changes what is under way, or puts in its place a frame that lies with a right checksum.

Changed bytes end the session, or are as if they had never been. A lie that the receiver can know for one must end the session
too; one that it cannot know for one (another payload, an ack that is too early) is not told: who can do that can do anything,
and is kept out by TLS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...base.host import pretend_kernel as pretend
from .. import record_kernel as record
from .cluster import VOLUME, Cluster, Node

LEAST, MOST = -(1 << 63), (1 << 63) - 1
SEQUENCE, ADDRESS, EPOCH, VOLUME_OF, EXTRA = FIELDS = ("sequence", "address", "epoch", "volume", "extra")  # Of a header.
NEXT = (0, -1, LEAST, MOST)  # In place of the next number, which is above 0.

# What a frame of this kind may claim that cannot be: by field of the header. Every kind: another epoch, another volume.
LIES: dict[int, dict[str, tuple[int, ...]]] = {
    record.WRITE: {SEQUENCE: NEXT, ADDRESS: (-1, LEAST, MOST, MOST - 511)},
    record.TRIM: {SEQUENCE: NEXT, ADDRESS: (-1, LEAST, MOST), EXTRA: (-1, LEAST, MOST)},
    record.SNAPSHOT: {SEQUENCE: NEXT, ADDRESS: (1, -1, MOST), EXTRA: (-1, LEAST, MOST)},
    record.FORGET: {SEQUENCE: NEXT, ADDRESS: (1, -1, MOST), EXTRA: (0, -1, LEAST, MOST)},
    record.PING: {SEQUENCE: (MOST,)},
    record.COMMAND: {SEQUENCE: (-1, LEAST)},
    record.EXTENT: {ADDRESS: (-1, LEAST, MOST, MOST - 511)},
    record.SYNCED: {SEQUENCE: (-1, LEAST), ADDRESS: (-1, LEAST)},
    record.DIGEST: {ADDRESS: (-1, LEAST)},
    record.ACK: {EXTRA: (MOST,)},
    record.READY: {SEQUENCE: (-1, LEAST, MOST)},
    record.DIFFERS: {ADDRESS: (-1, LEAST)},
}
# Those that need every number from the wire to be bounded.
BOUNDED: dict[int, dict[str, tuple[int, ...]]] = {
    record.WRITE: {EXTRA: (1, -1)},
    record.TRIM: {EXTRA: (0,)},
    record.PING: {SEQUENCE: (-1, LEAST)},
    record.COMMAND: {SEQUENCE: (MOST,)},
    record.EXTENT: {SEQUENCE: (-1, LEAST), ADDRESS: (1,), EXTRA: (1,)},
    record.SYNCED: {SEQUENCE: (MOST,), ADDRESS: (MOST,), EXTRA: (-1, MOST)},
    record.DIGEST: {SEQUENCE: (-1, LEAST), ADDRESS: (MOST, MOST - 7), EXTRA: (-1, 2)},
    record.ACK: {SEQUENCE: (-1, MOST), ADDRESS: (-1, MOST), EXTRA: (-1, LEAST)},
    record.READY: {ADDRESS: (1,)},
    record.DIFFERS: {SEQUENCE: (-1, MOST), ADDRESS: (MOST, MOST - 7)},
}
KIND_AT = record.Header.LAYOUT.fields["kind"][1]  # type: ignore[index]
IS_BOUNDED = hasattr(record, "lies_in")


def streams_of(node: Node, cluster: Cluster) -> list[int]:
    """Both directions of every connection of a primary."""
    return [stream for socket in node.state.sockets.tolist() if socket >= 0 for stream in (socket, socket ^ 1)]


def in_flight(cluster: Cluster, stream: int) -> np.ndarray:
    """The bytes that were sent and not received yet."""
    row = cluster.stream[stream]
    places = np.arange(int(row.read), int(row.written)) % cluster.shape.buffer_bytes
    return cluster.in_flight_bytes[stream, places]


def frames_in(cluster: Cluster, stream: int, flying: np.ndarray) -> list[int]:
    """Where frames begin in what is under way."""
    first = -int(cluster.stream[stream].read) % 64
    return [at for at in range(first, flying.size - 7, 64) if bytes(flying[at : at + 4]) == b"FRW1"]


def meddle(cluster: Cluster, node: Node, bit_of: Callable[[list[int], int], int] = lambda begins, drawn: drawn) -> None:
    """Change what is under way to each of a primary's peers, or from it.

    `bit_of` chooses the bit that is to flip, of where frames begin and of the one that was drawn.
    """
    draw = cluster.random
    for slot, socket in enumerate(node.state.sockets.tolist()):
        if socket < 0:
            continue
        stream = socket if draw.random() < 0.7 else socket ^ 1
        row = cluster.stream[stream]
        read, written = int(row.read), int(row.written)
        if written - read < record.HEADER_BYTES or stream in cluster.forged:
            continue
        flying = in_flight(cluster, stream)
        begins = frames_in(cluster, stream, flying)
        how = draw.choice(("flip", "drop", "double", "swap", "oversize"))
        if how == "flip" or len(begins) < 3:
            how = "flip"
            pretend.flip_bit(flying, bit_of(begins, draw.randrange(8 * flying.size)))
        elif how == "oversize":
            at = draw.choice(begins[:-1])
            flying[at + 12 : at + 16] = (255, 255, 255, draw.choice((0, 15, 127)))
        else:
            index = draw.randrange(len(begins) - 2)
            a, b, c = begins[index : index + 3]
            wrong = place_of_wrong(how, flying, begins, index)
            one, two = flying[a:b], flying[b:c]
            parts = {"drop": (two,), "double": (one, one, two), "swap": (two, one)}[how]
            flying = np.concatenate((flying[:a], *parts, flying[c:]))
            if flying.size > cluster.shape.buffer_bytes:
                continue
            if wrong >= 0:
                cluster.forged[stream] = (read + wrong, f"it is out of its place ({how})")
        put_back(cluster, stream, flying, flying.size - (written - read))
        cluster.counts["frames changed"] += 1
        cluster.tell(f"{how} in what is under way {'to' if stream == socket else 'from'} peer {slot} of replica {node.index}")


def place_of_wrong(how: str, flying: np.ndarray, begins: list[int], index: int) -> int:
    """Where the first frame then stands that its receiver can know for wrong, by its sequence or its ordinal; -1: none is.

    What is in the log is counted apart from what is not, and a SYNCED begins to count the log anew.
    """
    kinds = [int(flying[begin + KIND_AT]) for begin in begins]
    is_logged = [bool(record.is_logged(kind)) for kind in kinds]
    if how == "double":
        return begins[index + 1]
    if how == "swap":
        return begins[index] if is_logged[index] == is_logged[index + 1] else -1
    for later in range(index + 1, len(begins)):
        if is_logged[later] == is_logged[index]:
            return begins[later] - (begins[index + 1] - begins[index])
        if kinds[later] == record.SYNCED:
            return -1
    return -1


def put_back(cluster: Cluster, stream: int, flying: np.ndarray, added: int) -> None:
    """Have these bytes be under way, `added` more than there were."""
    row = cluster.stream[stream]
    read = int(row.read)
    cluster.meddled.add(stream // 2)
    cluster.in_flight_bytes[stream, (read + np.arange(flying.size)) % cluster.shape.buffer_bytes] = flying
    row.written += added
    if added:
        for segment in range(int(row.segment_head), int(row.segment_tail)):
            place = segment % pretend.SEGMENTS
            last = segment == int(row.segment_tail) - 1
            end = int(cluster.segment_end[stream, place])
            cluster.segment_end[stream, place] = row.written if last else min(end, int(row.written))


def forge(cluster: Cluster, node: Node) -> None:
    """Have one whole frame on its way to or from a primary's peer lie, under a checksum that is right."""
    draw = cluster.random
    streams = [stream for stream in streams_of(node, cluster) if stream not in cluster.forged]
    draw.shuffle(streams)
    for stream in streams:
        flying = in_flight(cluster, stream)
        begins = frames_in(cluster, stream, flying)
        draw.shuffle(begins)
        for begin in begins:
            lie = changed(cluster, flying, begin)
            if lie:
                put_back(cluster, stream, flying, 0)
                cluster.forged[stream] = (int(cluster.stream[stream].read) + begin, lie)
                cluster.counts["frames forged"] += 1
                cluster.tell(f"a frame that lies is under way on stream {stream}: {lie}")
                return


def changed(cluster: Cluster, flying: np.ndarray, begin: int) -> str:
    """Change a number in the frame at `begin` and seal it again; what it says then, empty when this frame is left alone."""
    draw = cluster.random
    frame = flying[begin:].copy()
    frame = frame[: frame.size // 8 * 8]
    if frame.size < record.HEADER_BYTES:
        return ""
    headers = frame[: record.HEADER_BYTES].view(record.Header.LAYOUT)
    if record.inspect(frame, headers, 0, frame.size, VOLUME) != record.COMPLETE:
        return ""
    kind = int(headers[0].kind)
    lies = {name: list(values) for name, values in LIES.get(kind, {}).items()}
    if IS_BOUNDED:
        for name, values in BOUNDED.get(kind, {}).items():
            lies.setdefault(name, []).extend(values)
    if not lies:
        return ""
    lies[EPOCH], lies[VOLUME_OF] = [-1, LEAST, MOST], [VOLUME + 1, 0]
    name = draw.choice(sorted(lies, key=FIELDS.index))
    value = draw.choice(lies[name])
    headers[0][name] = value
    seal_again(frame, headers)
    flying[begin : begin + record.HEADER_BYTES] = frame[: record.HEADER_BYTES]
    return f"kind {kind}, {name} {value}"


def seal_again(frame: np.ndarray, headers: np.ndarray) -> None:
    """Give the frame that begins here the checksum of what it says now."""
    headers[0].crc = int(record.checksum(frame, 0, record.kind_of(headers, 0), record.length_of(headers, 0)))
