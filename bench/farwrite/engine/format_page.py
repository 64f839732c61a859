"""docs/format.md, printed from the types: what lies in a replica's files and goes over its connections, with offsets.

`python -m farwrite.engine.format_page > docs/format.md` writes it; a test holds the committed page against it.
"""

from __future__ import annotations

from ..base.row import Row
from . import ballot
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica
from . import snapshot_kernel as snapshot

KINDS = ["WRITE", "PAD", "HELLO", "ACK", "PING", "GOODBYE", "TRIM", "COMMAND", "READY", "EXTENT", "SYNCED", "DIGEST", "DIFFERS",
         "SNAPSHOT", "FORGET"]  # fmt: skip
NUMBER_NAMES = {"int64": "i64", "uint32": "u32", "uint16": "u16", "uint8": "u8"}

PAGE = """# Formats

What lies in a replica's files and goes over its connections. All numbers are little-endian; i is signed, u is not.
A *position* is a count of bytes of log that never wraps. A *sequence* counts writes and trims of a volume from 1.
This page is printed from the types (`python -m farwrite.engine.format_page`);
decision [0042](decisions/0042-state-is-rows-with-named-fields.md).

| file | contents |
|---|---|
| journal | two superblocks of {block} bytes, written in turn (generation % 2); then the ring of records |
| volume | the data; from the next multiple of {block} bytes on two labels of {block} bytes, written in turn (generation % 2) |
| snapshots | sparse: in its first 8 bytes the pair; from byte {block} on {places} places (the table of snapshots, below) |
| ballot | two slots of {slot} bytes with the same contents |

## Record and frame

A record in the journal and a frame on the wire are the same bytes: a header of {header} bytes, the payload, and anything
up to a multiple of 64. The record at a position lies at byte {front} + position % capacity_bytes of the journal.
A batch ends on a multiple of {block} bytes, filled by a PAD; no record crosses the end of the staging ring.
The payload has at most {length_max} bytes. Magic {magic:#010x}, version {version}.

{record}

| kind | number | payload |
|---|---|---|
{kinds}

WRITE, TRIM, SNAPSHOT, FORGET and PAD are in the log, and go to a peer as they lie there (without PADs). All others go over the
wire only. The payload of SNAPSHOT is its name, that of SYNCED the snapshots that there are: their rows as below, with state 0.
What each field of a frame may say is at the head of `engine/record_kernel.py`.

## Superblock

At byte 0 and at byte {block} of the journal. The newest whole one counts. Magic {superblock_magic:#x}.
The table of snapshots stands in the same block; the rest is zeros. Version {journal_version}; version 2 has no table, and no
SNAPSHOT or FORGET in its log.

{superblock}

### The table of snapshots

Its head, at byte {head_at} of the superblock's block:

{head}

Its rows, from byte {table_at} on; `count` of them, a row's index is its place:

{row}

Block b of the volume, {block} bytes as they were before they were overwritten, lies at b * {block} of a place; one of zeros may
be a hole. Behind the blocks of a place there are 8 bytes for each: its CRC32C (u32), and 2^31 + (sequence of the snapshot) % 2^31
(u32). Where they are zeros the block is not kept here. The next place begins at the next multiple of {block} bytes.

## Label

Behind the volume's data. The newest whole one counts. Magic {label_magic:#x}, version {label_version}.
The rest of the block is zeros.

{label}

## Ballot

The newest whole slot counts (`engine/ballot.py`).

| offset | size | name | meaning |
|---|---|---|---|
| 0 | 4 | crc, u32 | CRC-32 (zlib) over the rest of the slot |
| 4 | 4 | length, u32 | bytes of the ballot |
| 8 | length | ballot | JSON: {ballot} |
| 8 + length | | | zeros |
"""


def format_page() -> str:
    """The whole page."""
    numbers = {name: getattr(record, name) for name in KINDS}
    kinds = [f"| {name} | {kind} | {'yes' if record.has_payload(kind) else 'none'} |" for name, kind in numbers.items()]
    return PAGE.format(
        block=log.BLOCK_BYTES, slot=ballot.SLOT_BYTES, header=record.HEADER_BYTES, front=log.SUPERBLOCK_BYTES,
        length_max=record.LENGTH_MAX, magic=record.MAGIC, version=record.VERSION, superblock_magic=replica.SUPERBLOCK_MAGIC,
        label_magic=replica.LABEL_MAGIC, label_version=replica.LABEL_VERSION, record=table_of(record.Header),
        kinds="\n".join(kinds), superblock=table_of(log.Superblock), label=table_of(log.Label),
        journal_version=replica.JOURNAL_VERSION, places=snapshot.PLACES, head_at=snapshot.HEAD_AT, table_at=snapshot.TABLE_AT,
        head=table_of(snapshot.TableHead), row=table_of(snapshot.Entry),
        ballot=", ".join(ballot.Ballot.__struct_fields__),
    )  # fmt: skip


def table_of(kind: type[Row]) -> str:
    """Offset, size, name, type and meaning of each field of a row."""
    assert kind.LAYOUT.fields is not None
    lines = ["| offset | size | name | meaning |", "|---|---|---|---|"]
    for name, meaning in kind.MEANINGS.items():
        number, offset = kind.LAYOUT.fields[name][:2]
        lines.append(f"| {offset} | {number.itemsize} | {name}, {NUMBER_NAMES[number.name]} | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(format_page(), end="")
