"""What a secondary takes out of a stream of bytes: whole frames, as long as each is the one that must come next."""

from oracle import record_oracle
from oracle.record_oracle import KINDS, fields, rounded


def refusal(data, epoch, expected, volume_bytes):
    """Why the whole WRITE frame at the beginning of `data` is refused, or None."""
    _, length, sequence, address, its_epoch = fields(data)
    if its_epoch != epoch:
        return "old epoch"
    if sequence != expected:
        return "not next"
    if length == 0 or not 0 <= address <= volume_bytes - length:
        return "outside"
    return None


def parse(data, volume, epoch, volume_bytes, last=0):
    """(writes taken, as frames; bytes left over; what ended it or None)."""
    taken, asides = [], 0
    while True:
        found = record_oracle.inspect(data, volume)
        if found == "incomplete":
            return taken, data, None
        if found != "complete":
            return taken, data, found
        kind, length, sequence, _, its_epoch = fields(data)
        if kind == KINDS["write"]:
            if len(data) < rounded(length):
                return taken, data, None
            why = refusal(data, epoch, last + 1 + len(taken), volume_bytes)
            if why:
                return taken, data, why
            taken.append(data[: rounded(length)])
        elif kind not in (KINDS["ping"], KINDS["goodbye"]):
            return taken, data, "bad kind"
        elif its_epoch != epoch:
            return taken, data, "old epoch"
        elif record_oracle.ordinal_of(data) != asides + 1 or (kind == KINDS["ping"] and sequence > last + len(taken)):
            return taken, data, "not next"
        else:
            asides += 1
        data = data[rounded(length) :]
