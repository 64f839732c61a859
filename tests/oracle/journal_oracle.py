"""The journal as a list of everything ever staged; positions are found by looking for them."""

from oracle.record_oracle import rounded

BLOCK = 4096


class Journal:
    """What was staged, as (begin, end, kind) in order; nothing is ever forgotten."""

    def __init__(self, capacity, staging):
        self.capacity, self.staging = capacity, staging
        self.records = []
        self.applied = self.durable = self.sealed = self.tail = self.saved = self.checkpoint = self.durable_watermark = 0

    @property
    def staged(self):
        return self.records[-1][1] if self.records else 0

    def writes_before(self, position):
        """How many writes lie wholly before a position: the last sequence there."""
        return sum(1 for _, end, kind in self.records if kind == "write" and end <= position)

    def boundaries(self):
        """Every position where a record begins or the log ends."""
        return [0] + [end for _, end, _ in self.records]

    def rest_of_ring(self):
        return self.staging - self.staged % self.staging

    def has_room(self, length):
        """Byte by byte: no place in memory or in the file that the record, and pads around it, would take is in use."""
        size = rounded(length)
        if size > self.rest_of_ring():
            size += self.rest_of_ring()
        wanted = range(self.staged, self.staged + size + BLOCK, 64)
        in_memory = {position % self.staging for position in range(self.applied, self.staged, 64)}
        in_file = {position % self.capacity for position in range(self.tail, self.staged, 64)}
        fits = len(wanted) * 64 + len(in_memory) * 64 <= self.staging and len(wanted) * 64 + len(in_file) * 64 <= self.capacity
        free = all(p % self.staging not in in_memory and p % self.capacity not in in_file for p in wanted)
        assert fits == free or size + BLOCK > self.staging
        return fits

    def stage(self, size, kind):
        begin = self.staged
        self.records.append((begin, begin + size, kind))
        return begin

    def place(self, length):
        if rounded(length) > self.rest_of_ring():
            self.stage(self.rest_of_ring(), "pad")
        return self.stage(rounded(length), "write") % self.staging

    def seal_batch(self):
        begin = self.sealed
        self.padded = False
        ring_end = (begin // self.staging + 1) * self.staging
        if self.staged <= ring_end and self.staged % BLOCK:
            self.stage(BLOCK - self.staged % BLOCK, "pad")
            self.padded = True  # It tells what is durable now: all before this batch.
        self.sealed = min(self.staged, ring_end)
        return self.sealed - begin

    def skip_pads(self, position, limit):
        """Past every pad that begins here or where the one before it ended."""
        for begin, end, kind in self.records:
            if begin == position and position < limit and kind == "pad":
                position = end
        return position

    def run_end(self, position, limit):
        """Past every write that begins here or where the one before it ended, in this lap of memory."""
        lap = position // self.staging
        for begin, end, kind in self.records:
            if begin == position and position < limit and kind == "write" and begin // self.staging == lap:
                position = end
        return position
