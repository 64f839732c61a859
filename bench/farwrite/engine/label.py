"""Whether a journal and a volume belong together and to one time: the volume's label against the journal's superblock.

Both hold the identity of this pair of files, drawn when the two are first tied, and a generation that counts on with every
checkpoint, every resync and every opening. The label lies in the volume's file behind its data, so a copy of the file takes
it along and no write reaches it. It is written first and made durable by the very flush that a superblock then tells of: at
every instant it is of the superblock's generation or of the next one (replica_kernel.write_label). Decision 0038.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..base.units import format_size
from . import journal_kernel as log
from . import record_kernel as record
from . import replica_kernel as replica

GO_ON = (
    "Put both files back from one backup. Or give this replica an empty journal (zeros, as long as this one) and let it join "
    "a primary: its volume is then compared with the primary's, extent by extent."
)


@dataclass(frozen=True)
class Label:
    """What a volume says of itself."""

    generation: int
    pair: int
    volume: int
    volume_bytes: int
    sequence: int  # the journal has every write up to this one


def labels_in(area: np.ndarray) -> list[Label]:
    """The whole labels in the bytes behind a volume's data, the newest first."""
    found = []
    for begin in range(0, replica.LABEL_BYTES, log.BLOCK_BYTES):
        block = area[begin : begin + log.Label.LAYOUT.itemsize].copy()
        if block.size < log.Label.LAYOUT.itemsize:
            break
        label = log.label_in(block)[0]
        is_label = label.magic == replica.LABEL_MAGIC and label.version == replica.LABEL_VERSION
        if is_label and label.crc == replica.checksum_before(block, replica.LABEL_CRC_OFFSET):
            found.append(Label(*label[list(Label.__dataclass_fields__)].tolist()))
    return sorted(found, key=lambda label: -label.generation)


def read_area(volume_fd: int, begin: int) -> np.ndarray:
    """The bytes of a volume's file where labels lie; fewer where the file ends before."""
    return np.frombuffer(os.pread(volume_fd, replica.LABEL_BYTES, begin), np.uint8)


def area_of(volume_fd: int, volume_bytes: int) -> np.ndarray:
    """read_area() of a volume of this size."""
    return read_area(volume_fd, int(replica.label_offset(volume_bytes, 0)))


def is_labelled(volume_fd: int, volume_bytes: int) -> bool:
    """Whether a journal was ever tied to this volume, or its label is damaged."""
    return bool(area_of(volume_fd, volume_bytes).any())


def data_bytes(volume_fd: int) -> int:
    """The size of a volume without its label, from its file alone."""
    size = os.fstat(volume_fd).st_size
    begin = size - replica.LABEL_BYTES
    for label in labels_in(read_area(volume_fd, begin)) if begin >= 0 else ():
        if replica.label_offset(label.volume_bytes, 0) == begin:
            return label.volume_bytes
    return size


def mismatch(superblock: log.Superblock, whole: int, found: log.Found, volume_bytes: int, area: np.ndarray) -> str:
    """Why a journal and a volume do not belong together, in a sentence; empty when they do.

    `superblock` is the newest one of `whole`, `found` what a scan has found from there on, `area` the bytes behind the data.
    A journal without a pair takes a volume without a label: files from before there were pairs, and new ones. A journal that
    was just formatted takes any volume that was not tied to it: such a volume is written over.
    """
    pair, generation = int(superblock.pair), int(superblock.pair_generation)
    known_bytes = int(superblock.volume_bytes)
    if known_bytes not in (0, record.NUMBER_MAX, volume_bytes):
        return f"the journal belongs to a volume of {format_size(known_bytes)}, and this one has {format_size(volume_bytes)}"
    labels = labels_in(area)
    ours = [label for label in labels if label.pair == pair]
    # Known already: the volume is compared as a whole.
    is_mixture = bool(int(superblock.flags) & log.INCONSISTENT or found.damaged)
    if pair == 0:
        first = bool(labels) and labels[0].generation == 1 and (is_mixture or labels[0].sequence <= found.sequence)
        if not labels or first:  # The power went out while the two were tied for the first time.
            return ""
        return (
            f"the journal is older than the volume: the volume was tied to a journal {labels[0].generation} times, and this "
            "one has never been, or an older farwrite has written it since"
        )
    if not ours:
        if generation == 0:
            return ""
        if labels:
            return "the volume belongs to another journal than this one"
        return (
            f"the volume's label {'is damaged' if area.any() else 'is missing'}: the volume is older than its journal, or was "
            "copied without its last two blocks"
        )
    label = ours[0]
    if label.generation < generation:
        return (
            f"the volume is older than its journal: they were tied {generation} times, and this volume knows of "
            f"{label.generation}, so writes that the journal no longer has are missing in it"
        )
    # With one superblock damaged the other may be a checkpoint older.
    if label.generation > generation + (1 if whole > 1 else 2):
        return (
            f"the journal is older than its volume: they were tied {label.generation} times, and this journal knows of "
            f"{generation}, so the volume holds writes that the journal has never had"
        )
    if label.sequence > found.sequence and not is_mixture:
        return (
            f"the journal is older than its volume: it ends at write {int(found.sequence)}, and the volume holds everything "
            f"up to write {label.sequence}"
        )
    return ""
