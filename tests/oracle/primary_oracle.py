"""When a write may complete, write by write; and which acks a peer may send."""


def completable(protocol, quorum, here, peers, detached):
    """The last write of the unbroken beginning that is durable here and has passed its protocol's point at enough peers.

    `peers` tells how far each has passed that point; all that are not excused must, or, by quorum, enough replicas.
    """

    def may_complete(write):
        passed = [write <= peer for peer in peers]
        if write > here:
            return False
        if protocol == "local":
            return True
        if protocol == "quorum":
            return 1 + sum(passed) >= quorum
        return all(ok or waived for ok, waived in zip(passed, detached, strict=True))

    completed = 0
    while may_complete(completed + 1):
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
