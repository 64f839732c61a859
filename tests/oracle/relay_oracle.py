"""One lane of the relay as a queue of segments with their due times, and the wire as the instant it falls silent."""

from collections import deque
from fractions import Fraction
from math import floor

SEGMENT_BYTES_MAX = 65536
PACKET_BYTES, OVERHEAD_BYTES = 1448, 90
END, RESET = "end", "reset"


class Lane:
    """What is under way: (content, due time), oldest first; the content of an end or a reset is its name."""

    def __init__(self, ring_bytes, ring_segments):
        self.ring_bytes, self.ring_segments = ring_bytes, ring_segments
        self.queue = deque()
        self.last_due_ns = 0

    def has_room(self):
        held = sum(len(content) for content, _ in self.queue if isinstance(content, bytes))
        return len(self.queue) < self.ring_segments - 1 and held + SEGMENT_BYTES_MAX <= self.ring_bytes

    def admit(self, content, left_ns, delay_ns):
        self.last_due_ns = max(self.last_due_ns, left_ns + delay_ns)
        self.queue.append((content, self.last_due_ns))
        return self.last_due_ns

    def next_due(self):
        return self.queue[0][1] if self.queue else None

    def release(self):
        return self.queue.popleft()


class Wire:
    """A direction of the link: it carries one segment after the other, each in packets with what Ethernet, IP and TCP add."""

    def __init__(self):
        self.silent_ns = 0

    def passes(self, size, sent_ns, rate_bits_per_s):
        if rate_bits_per_s == 0 or size <= 0:
            return sent_ns
        packets = [min(PACKET_BYTES, size - first) for first in range(0, size, PACKET_BYTES)]
        bits = sum(8 * (packet + OVERHEAD_BYTES) for packet in packets)
        self.silent_ns = floor(max(self.silent_ns, sent_ns) + Fraction(bits * 10**9, rate_bits_per_s))
        return self.silent_ns
