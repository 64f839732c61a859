"""A volume with snapshots in the plainest Python: a snapshot is a copy of all its bytes."""


class Volume:
    def __init__(self, size, listed_max):
        self.data, self.snapshots, self.listed_max, self.sequence = bytearray(size), {}, listed_max, 0

    def write(self, address, data):
        self.sequence += 1
        self.data[address : address + len(data)] = data

    def take(self, name):
        self.sequence += 1
        if len(self.snapshots) < self.listed_max:
            self.snapshots[self.sequence] = (name, bytes(self.data))

    def forget(self, sequence):
        self.sequence += 1
        self.snapshots.pop(sequence, None)

    def differing(self, older, newer, block):
        """Blocks that differ between a snapshot and a later one, or now."""
        one, other = self.snapshots[older][1], self.snapshots[newer][1] if newer else bytes(self.data)
        return {at // block for at in range(0, len(one), block) if one[at : at + block] != other[at : at + block]}
