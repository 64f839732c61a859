"""When a write may complete, write by write; and which acks a peer may send."""

POINTS = {
    "local": ["durable here"],
    "A": ["durable here", "sent"],
    "B": ["durable here", "received there"],
    "C": ["durable here", "durable there"],
}


def completable(protocol, reached):
    """The last write of the unbroken beginning that has passed every point its protocol names."""
    completed = 0
    while all(completed + 1 <= reached[point] for point in POINTS[protocol]):
        completed += 1
    return completed


class Peer:
    """What an honest peer has said so far: it never takes back, and never claims what was not given to it."""

    def __init__(self):
        self.received, self.durable = set(), set()

    def believes(self, durable, received, staged):
        """Whether such an ack can be; if so it is noted."""
        durable_now, received_now = set(range(1, durable + 1)), set(range(1, received + 1))
        given = set(range(1, staged + 1))
        grows = self.durable <= durable_now and self.received <= received_now
        if durable < 0 or not (grows and durable_now <= received_now <= given):
            return False
        self.durable, self.received = durable_now, received_now
        return True
