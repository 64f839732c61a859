"""A volume that may take no more room, at the iSCSI door: DATA PROTECT, 27h/07h, and everything else goes on."""

import pytest
from initiator import BLOCK, Initiator, target_in_loop

from farwrite.engine.frontend import nbd
from farwrite.engine.frontend.iscsi import pages, pdu, sense
from served import VOLUME_BYTES, until

EXTENT, EXTENT_BLOCKS = 64 << 10, 128
LOST = 0x2707


@pytest.fixture(scope="module")
def opened():
    with target_in_loop() as made:
        yield made


@pytest.fixture
def full(opened):
    """An empty volume that may take four extents, and an initiator."""
    count, client = opened.served.journal.room.at[0], opened.served.connect()
    count["limit"] = 0
    assert client.ask(nbd.TRIM, 0, VOLUME_BYTES)[0] == 0
    until(lambda: count["allocated"] == 0, "the trim to be applied")
    count["limit"] = 4 * EXTENT
    with Initiator(opened.address) as host:
        yield host.ready(), count
    count["limit"] = 0
    client.close()


def is_refused(outcome):
    return (outcome.status, outcome.key, outcome.code) == (2, sense.DATA_PROTECT, LOST)


def test_every_write_that_needs_more_room_is_refused_and_the_session_goes_on(opened, full):
    host, count = full
    data = b"x" * 4 * EXTENT
    assert host.write(0, data).is_good and count["allocated"] == 4 * EXTENT
    staged = int(opened.served.journal.at[0].staged_sequence)
    for lba in (4 * EXTENT_BLOCKS, 4 * EXTENT_BLOCKS - 8):
        assert is_refused(host.write(lba, bytes(4096 * 2)))
        assert is_refused(host.write(lba, bytes(1 << 20)))  # Most of its data is asked for.
    compare = bytes([0x89, 0]) + (5 * EXTENT_BLOCKS).to_bytes(8, "big") + bytes(3) + b"\1" + bytes(2)
    assert is_refused(host.command(compare, bytes(BLOCK) + b"y" * BLOCK))
    same = bytes([0x93, 0]) + (5 * EXTENT_BLOCKS).to_bytes(8, "big") + (8).to_bytes(4, "big") + bytes(2)
    assert is_refused(host.command(same, b"y" * BLOCK))
    assert opened.served.journal.at[0].staged_sequence == staged
    assert host.write(8, b"z" * 4096).is_good and host.read(0, 24).data == b"x" * 4096 + b"z" * 4096 + b"x" * 4096
    there = bytes([0x89, 0]) + (8).to_bytes(8, "big") + bytes(3) + b"\1" + bytes(2)
    assert host.command(there, b"z" * BLOCK + b"y" * BLOCK).is_good
    unmap = (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + bytes(8) + EXTENT_BLOCKS.to_bytes(4, "big") + bytes(4)
    assert host.command(bytes([0x42]) + bytes(6) + len(unmap).to_bytes(2, "big") + b"\0", unmap).is_good
    assert host.write(5 * EXTENT_BLOCKS, b"y" * 4096).is_good, "what was unmapped is there to be written"
    assert is_refused(host.write(6 * EXTENT_BLOCKS, b"y" * 4096))


def test_a_write_that_others_overtake_ends_with_the_same_words(opened, full):
    """Its room was there when the command came, and is gone when its data comes: whoever is first has it."""
    host, count = full
    data = b"x" * 4 * EXTENT
    write = bytes([0x2A, 0]) + bytes(4) + b"\0" + (len(data) // BLOCK).to_bytes(2, "big")
    tag = host.request(write, data, flags=pdu.WRITE | 1, immediate_bytes=0, follow=False)
    with Initiator(opened.address, isid=b"\x80\0\0\0\0\2") as other:
        assert other.ready().write(8 * EXTENT_BLOCKS, b"y" * 3 * EXTENT).is_good
    host.data_out(tag, 0xFFFFFFFF, data, 0, len(data))
    assert is_refused(host.outcome(tag, data))
    assert count["allocated"] <= 4 * EXTENT
    assert host.command(bytes(6)).is_good and host.read(8 * EXTENT_BLOCKS, 8).data == b"y" * 4096


def test_the_pages_say_thin_and_claim_no_thresholds():
    page = pages.vital_product_data(0xB2, pages.Identification(7, "iqn.2026-11.org.farwrite:tested"))
    assert page[4] == 0 and page[5] & 0xE0 == 0xE0 and page[6] & 7 == 2
