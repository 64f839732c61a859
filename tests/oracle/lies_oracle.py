"""Which frames a session may carry, in whole numbers that never wrap: whether a frame is taken, given what its receiver knows.

`frame` has kind, length, sequence, address, epoch, word and ordinal; `known` what its receiver knows, by name.
"""

from oracle.record_oracle import KINDS, LADEN, rounded

MOST = 2**62 - 1
BLOCK = 4096


def secondary_takes(frame, known):
    """Whether a secondary takes this sealed frame, now or once there is room."""
    kind, length, sequence, address, word = (frame[name] for name in ("kind", "length", "sequence", "address", "word"))
    if known["session_epoch"] != known["epoch"] or (length and KINDS[kind] not in LADEN):
        return False
    if kind in ("write", "trim"):
        size = length if kind == "write" else word
        return (
            known["log_epoch"] <= frame["epoch"] <= known["epoch"]
            and sequence == known["staged"] + 1
            and 1 <= size <= (1 << 20 if kind == "write" else MOST)
            and address >= 0 and address + size <= known["volume_bytes"]
            and (word == 0 or kind == "trim")
            and rounded(length) + BLOCK <= known["staging"]
        )  # fmt: skip
    if kind in ("snapshot", "forget"):
        return (
            known["log_epoch"] <= frame["epoch"] <= known["epoch"]
            and sequence == known["staged"] + 1 and address == 0
            and (1 <= length <= 63 and 0 <= word <= MOST if kind == "snapshot" else length == 0 and 1 <= word < sequence)
        )  # fmt: skip
    if frame["epoch"] != known["epoch"] or frame["ordinal"] != (known["heard"] + 1) % 65536:
        return False
    if kind in ("ping", "goodbye"):
        return 0 <= sequence <= known["staged"] and address == word == 0
    if kind == "command":
        return known["staged"] <= sequence <= MOST and address == word == 0
    if kind == "extent":
        begins = range(0, known["volume_bytes"], known["extent"])
        extents = [(begin, min(begin + known["extent"], known["volume_bytes"])) for begin in begins]
        return known["as_of"] <= sequence <= MOST and word == 0 and (address, address + length) in extents
    if kind == "digest":
        last = known["staged"] if word == 1 else MOST
        count = length // 8
        return (
            word in (0, 1) and known["as_of"] <= sequence <= last and length == 8 * count and 1 <= count <= 8
            and address >= 0 and address + count <= known["extents"]
        )  # fmt: skip
    if kind == "synced":
        first = 0 if known["digested"] else known["durable"]
        return (
            first <= sequence <= max(known["as_of"], known["staged"])
            and max(known["as_of"], sequence) <= address <= MOST
            and 0 <= word <= known["epoch"]
            and length == 0  # What fills a payload here is no list of snapshots.
        )  # fmt: skip
    return False


def primary_takes(frame, known):
    """Whether a primary takes this sealed frame of its secondary."""
    kind, length, sequence, address, word = (frame[name] for name in ("kind", "length", "sequence", "address", "word"))
    if frame["epoch"] != known["epoch"] or frame["ordinal"] != (known["heard"] + 1) % 65536:
        return False
    if length and KINDS[kind] not in LADEN:
        return False
    if kind == "ack":
        if not (0 <= word <= known["synced"] and 0 <= sequence <= address <= MOST):
            return False
        if known["resyncing"] or word < known["synced"]:
            return True
        return known["durable"] <= sequence and known["received"] <= address <= known["sent"]
    if kind == "ready":
        return known["granted"] <= sequence <= known["commanded"] and address == word == 0
    if kind == "differs":
        if word != 0 or not 0 <= sequence <= known["applied"] or not 1 <= length <= 8:
            return False
        if not 0 <= address <= known["extents"] - length:
            return False
        first = 8 * known["answered"]
        asked = known["answered"] < known["asked"] and address == first and length == min(8, known["extents"] - first)
        return known["dropped"] > 0 or asked
    return False
