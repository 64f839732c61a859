"""One direction of the ferry as a queue of packets with their due times; where their bytes lie is nobody's business."""

from collections import deque
from fractions import Fraction
from math import floor

from farwrite.base.host.tun import PACKET_BYTES_MAX
from oracle.prng_oracle import GAMMA, WORD, key_of, mix, unit


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


def draw(key, number, purpose):
    """A share in [0, 1) for one purpose of one packet, seven to a packet."""
    return unit(mix((key + GAMMA * (7 * number + purpose + 1)) % WORD))


class Judge:
    """What befalls packets, one after the other, by words."""

    def __init__(self, way, seed, direction):
        self.way, self.key = way, key_of(seed, 10 + direction)
        self.number, self.bad = -1, False

    def befalls(self):
        self.number += 1
        way, key, number = self.way, self.key, self.number
        share = way.loss_ratio
        if way.bursts:
            share = way.bursts.bad_loss_ratio if self.bad else way.bursts.good_loss_ratio
            if draw(key, number, 0) < (way.bursts.leave_ratio if self.bad else way.bursts.enter_ratio):
                self.bad = not self.bad
        if draw(key, number, 1) < share:
            return {"lose"}
        said = {"twice": (way.duplicate_ratio, 2), "ahead": (way.reorder_ratio, 3), "damage": (way.corrupt_ratio, 4)}
        return {word for word, (share, purpose) in said.items() if draw(key, number, purpose) < share}


class Wire:
    """A wire of a rate, exact: when each packet's last bit has left, and how many have not."""

    def __init__(self, rate_bits_per_s):
        self.ns_per_byte = Fraction(8 * 10**9, rate_bits_per_s)
        self.free_ns = Fraction(0)
        self.ends_ns = []

    def transmit(self, now_ns, wire_bytes):
        self.free_ns = max(Fraction(now_ns), self.free_ns) + wire_bytes * self.ns_per_byte
        self.ends_ns.append(floor(self.free_ns))
        return self.ends_ns[-1]

    def waiting(self, now_ns):
        return sum(end_ns > now_ns for end_ns in self.ends_ns)


def wire_bytes(packet, segment_bytes, header_bytes):
    """An IP packet on an Ethernet wire, cut into segments that each carry all headers; 38 bytes of Ethernet each."""
    payload = packet - header_bytes
    sizes = [min(segment_bytes, payload - at) for at in range(0, payload, segment_bytes)] if segment_bytes else [payload]
    return sum(header_bytes + size + 38 for size in sizes)
