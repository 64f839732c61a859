"""docs/format.md is what the types say, and what lies on disk and wire has not moved."""

import numpy as np

from console import ROOT
from farwrite.engine import format_page
from farwrite.engine import journal_kernel as log
from farwrite.engine import record_kernel as record


def test_what_lies_on_disk_and_wire_has_not_moved():
    assert record.Header.LAYOUT.itemsize == record.HEADER_BYTES
    assert (log.Superblock.LAYOUT.itemsize, log.Label.LAYOUT.itemsize) == (144, 64)
    place = {name: offset for name, (_, offset) in record.Header.LAYOUT.fields.items()}
    assert place == {
        "magic": 0, "crc": 4, "kind": 8, "version": 9, "ordinal": 10, "length": 12, "sequence": 16, "address": 24, "epoch": 32,
        "volume": 40, "stamp_ns": 48, "extra": 56,
    }  # fmt: skip
    assert log.Superblock.LAYOUT.names == (
        "magic", "version", "generation", "volume", "tail", "tail_sequence", "epoch", "capacity_bytes", "tail_epoch", "flags",
        "durable_sequence", "staging_bytes", "begun", "crc", "pair", "pair_generation", "volume_bytes", "pair_crc",
    )  # fmt: skip
    assert all(log.Superblock.LAYOUT[name] == np.int64 for name in log.Superblock.LAYOUT.names)


def test_the_page_of_formats_is_what_the_types_give():
    page = (ROOT / "docs" / "format.md").read_text()
    assert page == format_page.format_page(), "python -m farwrite.engine.format_page > docs/format.md"
