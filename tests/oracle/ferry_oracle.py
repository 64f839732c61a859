"""One direction of the ferry as a queue of packets with their due times; where their bytes lie is nobody's business."""

from collections import deque

from farwrite.host.tun import PACKET_BYTES_MAX


class Hold:
    """Packets under way: (content, due time), oldest first."""

    def __init__(self, ring_bytes, ring_packets):
        self.ring_bytes, self.ring_packets = ring_bytes, ring_packets
        self.queue = deque()
        self.last_due_ns = 0

    def has_room(self):
        held = sum(len(content) for content, _ in self.queue)
        return len(self.queue) < self.ring_packets and held + PACKET_BYTES_MAX <= self.ring_bytes

    def admit(self, content, now_ns, delay_ns):
        self.last_due_ns = max(self.last_due_ns, now_ns + delay_ns)
        self.queue.append((content, self.last_due_ns))
        return self.last_due_ns

    def next_due(self):
        return self.queue[0][1] if self.queue else None

    def release(self):
        return self.queue.popleft()
