"""What a volume takes, by sets: the extents of which its file holds bytes, and those that a write in the log goes to."""


class Volume:
    """A file of bytes that are there or not, and a log of writes and trims that are applied in order."""

    def __init__(self, extent_bytes, volume_bytes, unit=512):
        self.extent_bytes, self.volume_bytes, self.unit = extent_bytes, volume_bytes, unit
        self.file = set()  # units that the file holds
        self.log = []  # (is it a write, address, size)

    def extents(self, address, size):
        return {byte // self.extent_bytes for byte in range(address, address + size, self.unit)} | {
            (address + size - 1) // self.extent_bytes
        }

    def taken(self):
        found = {unit * self.unit // self.extent_bytes for unit in self.file}
        for is_write, address, size in self.log:
            if is_write:
                found |= self.extents(address, size)
        return found

    def fits(self, address, size, limit):
        missing = self.extents(address, size) - self.taken()
        return not limit or not missing or (len(self.taken()) + len(missing)) * self.extent_bytes <= limit

    def apply_one(self):
        is_write, address, size = self.log.pop(0)
        units = set(range(address // self.unit, (address + size) // self.unit))
        self.file = self.file | units if is_write else self.file - units


class Pool:
    """Nodes of units that are each given to one volume at most: whoever is granted room is given that many on all its nodes."""

    def __init__(self, sizes):
        self.sizes = dict(sizes)

    def is_sound(self, shares):
        """Whether no node has given away more than it has. `shares`: (nodes, what each may write up to)."""
        return all(
            sum(may for nodes, may in shares if node in nodes) <= size for node, size in self.sizes.items()
        )
