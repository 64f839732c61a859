"""SCSI commands without a network: what a unit says of itself, what it refuses, and reservations as SPC-4 has them."""

import contextlib
import errno
import random

import pytest
from initiator import TARGET

from farwrite.base.errors import UnfitError
from farwrite.engine.frontend.iscsi import pages, reservation, scsi, sense, volume
from farwrite.engine.frontend.iscsi.reservation import (
    OTHER,
    READS,
    WRITES,
    Reservations,
    nexus_name,
    nexus_of,
    restored,
    transport_id_of,
)
from farwrite.engine.frontend.iscsi.sense import Answer
from farwrite.engine.frontend.iscsi.store import AREA_BYTES, SLOT_BYTES, VolumeStore

BLOCKS = 8192


@pytest.fixture
def unit():
    with volume.memory_volume(BLOCKS * 512) as disk:
        yield scsi.LogicalUnit(disk, pages.Identification(0xABCDEF, TARGET))


def run(unit, cdb, data=b"", nexus=None, expected=None, lun=0):
    """A command to its end, on a volume that answers at once."""
    nexus = nexus or unit.nexuses.setdefault("host", scsi.Nexus("host"))
    length = len(data) if expected is None else expected
    begun = scsi.begin(scsi.Command(unit, nexus, bytes(cdb).ljust(16, b"\0"), data, length), lun)
    if isinstance(begun, Answer):
        return begun
    try:
        operation = next(begun)
        while True:
            operation = begun.send(unit.disk.perform(operation))
    except StopIteration as end:
        return end.value


def code_of(answer):
    return answer.sense.code if answer.sense else None


def cdb_10(opcode, lba, count, first=0):
    return bytes([opcode, first]) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + b"\0"


def cdb_16(opcode, lba, count, first=0):
    return bytes([opcode, first]) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + b"\0\0"


def test_a_disk_has_one_identity_wherever_it_is_served():
    here, there = pages.Identification(5, TARGET, 1, 1), pages.Identification(5, TARGET, 2, 2)
    assert here.naa == there.naa != pages.Identification(6, TARGET).naa
    assert here.naa[0] >> 4 == 3 and len(here.naa) == 8
    assert here.naa in pages.vital_product_data(0x83, here) and there.naa in pages.vital_product_data(0x83, there)


def test_every_page_that_is_listed_is_there_and_tells_its_length(unit):
    for code in run(unit, [0x12, 1, 0, 0, 255]).data[4:]:
        data = run(unit, [0x12, 1, code, 1, 0]).data
        assert data[1] == code and int.from_bytes(data[2:4], "big") == len(data) - 4
    assert code_of(run(unit, [0x12, 1, 0xC0, 0, 255])) == 0x2400
    assert len(run(unit, [0x12, 0, 0, 0, 36]).data) == 36


def test_the_write_cache_is_off_because_what_is_answered_is_durable(unit):
    data = run(unit, [0x1A, 8, 0x08, 0, 255]).data
    assert data[4] == 0x08 and data[6] & 0x04 == 0
    wanting = bytes([0, 0, 0, 0, 0x08, 18, 0x04]) + data[7:]
    assert code_of(run(unit, [0x15, 0x10, 0, 0, len(wanting)], wanting)) == 0x2600
    assert run(unit, [0x35]).status == sense.GOOD


def test_sixteen_bytes_hold_what_ten_do_not(unit):
    assert run(unit, [0x9E, 0x10] + [0] * 11 + [32]).data[:12] == (BLOCKS - 1).to_bytes(8, "big") + (512).to_bytes(4, "big")
    assert run(unit, [0x25]).data == (BLOCKS - 1).to_bytes(4, "big") + (512).to_bytes(4, "big")


@pytest.mark.parametrize(("cdb", "code"), [
    (cdb_10(0x28, BLOCKS, 1), 0x2100), (cdb_10(0x28, BLOCKS - 1, 2), 0x2100), (cdb_16(0x88, 1 << 63, 1), 0x2100),
    (cdb_16(0x88, (1 << 64) - 1, (1 << 32) - 1), 0x2100), (cdb_10(0x28, 0, 1, 0x20), 0x2400), (cdb_10(0x2A, 0, 1, 0x20), 0x2400),
    (cdb_10(0x41, 0, 0), 0x2400), (cdb_10(0x41, 0, 1, 0x10), 0x2400), ([0x99], 0x2000), ([0x83], 0x2000), ([0x9E, 0x1F], 0x2400),
    ([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 4], 0x2400), ([0x1A, 0, 0x3E, 0, 255], 0x2400), ([0x1A, 0, 0xC8, 0, 255], 0x3900),
    ([0xA0] + [0] * 8 + [15], 0x2400), ([0x1B, 0, 0, 0, 2], 0x2400),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(unit, cdb, code):
    assert code_of(run(unit, cdb, expected=512)) == code


def test_a_unit_that_is_not_there_says_so(unit):
    assert run(unit, [0x12, 0, 0, 0, 96], lun=1).data[0] == 0x7F
    assert code_of(run(unit, cdb_10(0x28, 0, 1), lun=1)) == 0x2500
    assert len(run(unit, [0xA0] + [0] * 7 + [1, 0], lun=-1).data) == 16


def test_compare_and_write_writes_only_what_it_found(unit):
    old, new = b"o" * 512, b"n" * 512
    caw = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1])
    assert run(unit, caw, bytes(512) + old).status == sense.GOOD
    miss = run(unit, caw, old[:-1] + b"x" + new)
    assert (miss.sense.key, miss.sense.code, miss.sense.information) == (sense.MISCOMPARE, 0x1D00, 511)
    assert run(unit, cdb_10(0x28, 0, 1)).data == old
    assert run(unit, caw, old + new).status == sense.GOOD
    assert run(unit, cdb_10(0x28, 0, 1)).data == new
    assert code_of(run(unit, caw, new)) == 0x0E03


def test_commands_on_ranges_do_what_an_array_of_blocks_does(unit):
    """Writes, unmaps, WRITE SAME, ORWRITE and verifies at random, against a plain array."""
    pick, there = random.Random(4), bytearray(BLOCKS * 512)
    for _ in range(400):
        lba, count = pick.randrange(BLOCKS - 40), pick.randrange(1, 40)
        at, size = lba * 512, count * 512
        kind, byte = pick.randrange(6), bytes([pick.choice([0, 1, 0xF0, 0xFF])])
        if kind == 0:
            data = pick.randbytes(size)
            assert run(unit, cdb_16(0x8A, lba, count), data).status == 0
            there[at : at + size] = data
        elif kind == 1:
            block = byte * 512
            unmaps = pick.choice([0, 8])
            assert run(unit, cdb_16(0x93, lba, count, unmaps), block).status == 0
            there[at : at + size] = block * count
        elif kind == 2:
            listed = bytes([0, 22, 0, 16, 0, 0, 0, 0]) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(4)
            assert run(unit, [0x42, 0, 0, 0, 0, 0, 0, 0, 24], listed).status == 0
            there[at : at + size] = bytes(size)
        elif kind == 3:
            data = byte * size
            assert run(unit, cdb_16(0x8B, lba, count), data).status == 0
            there[at : at + size] = bytes(old | byte[0] for old in there[at : at + size])
        elif kind == 4:
            assert run(unit, cdb_16(0x8F, lba, count, 2), bytes(there[at : at + size])).status == 0
            wrong = bytearray(there[at : at + size])
            wrong[size // 2] ^= 1
            assert code_of(run(unit, cdb_16(0x8F, lba, count, 2), bytes(wrong))) == 0x1D00
        else:
            assert run(unit, cdb_16(0x93, lba, count, 1)).status == 0  # NDOB
            there[at : at + size] = bytes(size)
        assert run(unit, cdb_16(0x88, lba, count)).data == there[at : at + size]


def test_holes_are_told_by_whole_blocks():
    assert scsi.merged_blocks(((512, True), (1024, False), (512, False), (100, True), (412, False), (1024, False))) == [
        (1, True), (3, False), (1, True), (2, False),
    ]  # fmt: skip


def test_a_change_of_roles_is_told_to_every_nexus_and_a_standby_refuses_data():
    with volume.memory_volume(1 << 20) as disk:
        near, far = pages.PortGroup(1, pages.ACTIVE_OPTIMIZED, (1,)), pages.PortGroup(2, pages.STANDBY, (2,))
        unit = scsi.LogicalUnit(disk, pages.Identification(1, TARGET), (near, far))
        nexus = unit.attach("host")
        assert code_of(run(unit, [0], nexus=nexus)) == 0x2900
        told = run(unit, [0xA3, 0x0A] + [0] * 6 + [1, 0], nexus=nexus).data
        assert (told[4] & 0xF, told[16] & 0xF) == (0, 2) or (told[4] & 0xF, told[4 + 12] & 0xF) == (0, 2)
        unit.change_groups((near._replace(state=pages.STANDBY), far._replace(state=pages.ACTIVE_OPTIMIZED)))
        assert code_of(run(unit, [0], nexus=nexus)) == 0x2A06
        assert code_of(run(unit, cdb_10(0x28, 0, 1), nexus=nexus)) == 0x040B
        assert run(unit, [0x12, 0, 0, 0, 96], nexus=nexus).status == 0


def test_a_unit_attention_waits_for_a_command_that_may_tell_it(unit):
    nexus = unit.attach("new")
    for cdb in ([0x12, 0, 0, 0, 96], [0xA0] + [0] * 7 + [1, 0]):
        assert run(unit, cdb, nexus=nexus).status == sense.GOOD
    assert code_of(run(unit, [0], nexus=nexus)) == 0x2900
    assert run(unit, [0], nexus=nexus).status == sense.GOOD and not nexus.attentions
    unit.reset()
    assert run(unit, [0x03, 0, 0, 0, 252], nexus=nexus).data[12:14] == (0x2903).to_bytes(2, "big")
    assert run(unit, [0], nexus=nexus).status == sense.GOOD


def test_the_loop_does_nothing_for_a_nexus_that_is_to_be_told_or_refused_anything():
    """The gate of each nexus, after whatever may close or open it for one or for all."""
    with volume.memory_volume(1 << 20) as disk:
        store = Store()
        unit = scsi.LogicalUnit(disk, pages.Identification(1, TARGET), (pages.PortGroup(1, 0, (1,)),), store)
        closed, nexuses = {}, {name: unit.attach(name) for name in ("a", "b")}
        for name, nexus in nexuses.items():
            nexus.close_gate = lambda is_closed, name=name: closed.__setitem__(name, is_closed)

        def gates():
            return [closed["a"], closed["b"]]

        def does(cdb, name="a", data=b""):
            return run(unit, cdb, data, nexuses[name])

        unit.refresh()
        assert gates() == [True, True]
        assert does([0]).status and does([0], "b").status and gates() == [False, False]
        assert does([0x16]).status == sense.GOOD and gates() == [False, True]
        unit.detach(nexuses["a"])
        assert closed["b"] is False
        unit.nexuses["a"] = nexuses["a"]
        assert does([0x16], "b").status == sense.GOOD and gates() == [True, False]
        unit.reset()
        assert gates() == [True, True]
        assert does([0]).status and does([0], "b").status and gates() == [False, False]
        register = bytes(8) + (5).to_bytes(8, "big") + bytes(8)
        assert does([0x5F, 0, 0, 0, 0, 0, 0, 0, 24], data=register).status == sense.GOOD
        assert does([0x5F, 1, 1, 0, 0, 0, 0, 0, 24], data=(5).to_bytes(8, "big") + bytes(16)).status == sense.GOOD
        assert gates() == [False, True]  # "b" may read, and not write.
        store.image, kept = b"", store.image
        unit.reload()
        assert gates() == [False, False]
        store.image = kept
        unit.reload()
        unit.reload()
        assert gates() == [False, True]
        unit.reservations = Reservations()
        unit.is_swp = True
        unit.refresh()
        assert gates() == [True, True]


class Store(scsi.StateStore):
    """Keeps an image, as long as it works."""

    can_keep = True

    def __init__(self):
        self.image, self.works = b"", True

    def load(self):
        return self.image

    def save(self, image):
        self.image = image if self.works else self.image
        return self.works


def test_a_reservation_that_cannot_be_kept_has_not_happened():
    with volume.memory_volume(1 << 20) as disk:
        unit = scsi.LogicalUnit(disk, pages.Identification(1, TARGET), store=Store())
        host, other = unit.attach("host"), unit.attach("other")
        host.attentions, other.attentions = [], []

        def out(nexus, action, key, service_key, kind=0):
            data = key.to_bytes(8, "big") + service_key.to_bytes(8, "big") + bytes(8)
            return run(unit, [0x5F, action, kind, 0, 0, 0, 0, 0, 24], data, nexus)

        assert out(host, 0, 0, 5).status == out(other, 0, 0, 6).status == out(host, 1, 5, 0, 5).status == sense.GOOD
        before = unit.reservations.image()
        unit.store.works = False
        for action, key in ((3, 0), (2, 0), (4, 6), (0, 0)):
            answer = out(host, action, 5, key, 5)
            assert answer.sense.key == sense.HARDWARE_ERROR and unit.reservations.image() == before
        assert not other.attentions and unit.reservations.refuses("stranger", WRITES)


WRITING = {
    "WRITE": (cdb_10(0x2A, 0, 1), 1), "WRITE(6)": ([0x0A, 0, 0, 0, 1], 1), "WRITE(16)": (cdb_16(0x8A, 0, 1), 1),
    "WRITE AND VERIFY": (cdb_10(0x2E, 0, 1), 1), "WRITE ATOMIC": ([0x9C] + [0] * 12 + [1], 1), "ORWRITE": (cdb_16(0x8B, 0, 1), 1),
    "COMPARE AND WRITE": ([0x89] + [0] * 12 + [1], 2), "WRITE SAME": (cdb_10(0x41, 0, 4), 1),
}  # fmt: skip


def test_nothing_is_written_where_nothing_may_be(unit):
    unmapped = (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + bytes(8) + (1).to_bytes(4, "big") + bytes(4)
    assert run(unit, cdb_10(0x2A, 0, 1), b"k" * 512).status == sense.GOOD
    unit.is_swp = True
    for name, (cdb, blocks) in WRITING.items():
        assert code_of(run(unit, cdb, b"k" * 512 * blocks)) == 0x2700, name
    assert code_of(run(unit, [0x42] + [0] * 7 + [24], unmapped)) == 0x2700
    assert run(unit, cdb_10(0x28, 0, 1)).data == b"k" * 512
    unit.is_swp = False
    for lba, count, code in ((BLOCKS, 1, 0x2100), (BLOCKS - 1, 2, 0x2100), (BLOCKS - 1, 1, None)):
        data = unmapped[:8] + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(4)
        assert code_of(run(unit, [0x42] + [0] * 7 + [24], data)) == code


@pytest.mark.parametrize(("error", "code"), [
    (errno.EIO, 0x0C00), (errno.ENOSPC, 0x2707), (errno.ESHUTDOWN, 0x0400), (errno.EPERM, 0x2700),
])  # fmt: skip
def test_what_the_volume_refuses_is_told_and_never_called_done(unit, monkeypatch, error, code):
    real = unit.disk.perform
    reads = volume.READ, volume.STATUS
    monkeypatch.setattr(unit.disk, "perform", lambda one: real(one) if one.kind in reads else volume.Result(error), raising=False)
    for name, (cdb, blocks) in WRITING.items():
        assert code_of(run(unit, cdb, b"k" * 512 * blocks)) == code, name
    assert code_of(run(unit, cdb_10(0x2A, 0, 4096), bytes(2 << 20))) == code_of(run(unit, [0x35])) == code
    monkeypatch.setattr(unit.disk, "perform", lambda one: volume.Result(error), raising=False)
    assert code_of(run(unit, cdb_10(0x28, 0, 1))) == (0x1100 if error == errno.EIO else code)


# Reservations.


def out(state, nexus, action, key=0, service_key=0, kind=0, keeps=False, can_keep=True):
    data = key.to_bytes(8, "big") + service_key.to_bytes(8, "big") + bytes([0, 0, 0, 0, 1 if keeps else 0, 0, 0, 0])
    return state.perform(nexus, action, kind, data, can_keep)


def registered(*keys):
    state = Reservations()
    for number, key in enumerate(keys):
        assert out(state, f"n{number}", reservation.REGISTER, 0, key).answer == Answer()
    return state


@pytest.mark.parametrize("kind", reservation.TYPES)
def test_who_is_kept_out_follows_from_the_type(kind):
    state = registered(1, 2)
    assert out(state, "n0", reservation.RESERVE, 1, kind=kind).answer == Answer()
    shared = kind not in (reservation.WRITE_EXCLUSIVE, reservation.EXCLUSIVE_ACCESS)
    reads = kind in (reservation.WRITE_EXCLUSIVE, reservation.WRITE_EXCLUSIVE_REGISTRANTS, reservation.WRITE_EXCLUSIVE_ALL)
    assert [state.refuses("n0", does) for does in (READS, WRITES, OTHER)] == [False] * 3
    assert [state.refuses("n1", does) for does in (READS, WRITES)] == [not (shared or reads), not shared]
    assert [state.refuses("n9", does) for does in (READS, WRITES, OTHER, reservation.HARMLESS)] == [not reads, True, True, False]


def test_steps_without_the_right_key_are_conflicts():
    state = registered(1, 2)
    for action in (reservation.RESERVE, reservation.RELEASE, reservation.CLEAR, reservation.PREEMPT):
        assert out(state, "n0", action, 9, 2, kind=1).answer == sense.CONFLICT
        assert out(state, "n9", action, 0, 2, kind=1).answer == sense.CONFLICT
    assert out(state, "n0", reservation.REGISTER, 9, 3).answer == sense.CONFLICT
    assert out(state, "n0", reservation.RESERVE, 1, kind=0x11).answer == sense.INVALID_FIELD
    assert out(state, "n0", reservation.RESERVE, 1, kind=2).answer == sense.INVALID_FIELD
    assert state.perform("n0", 0, 0, bytes(23), True).answer == sense.PARAMETER_LENGTH
    assert state.perform("n0", 9, 0, bytes(24), True).answer == sense.INVALID_FIELD
    assert out(state, "n0", reservation.REGISTER, 1, 3, keeps=True, can_keep=False).answer == sense.INVALID_PARAMETER


def test_a_holder_that_goes_takes_the_reservation_along_and_others_are_told():
    state = registered(1, 2)
    out(state, "n0", reservation.RESERVE, 1, kind=reservation.WRITE_EXCLUSIVE_REGISTRANTS)
    outcome = out(state, "n0", reservation.REGISTER, 1, 0)
    assert outcome.attentions == (("n1", sense.RESERVATIONS_RELEASED),) and not state.kind
    state = registered(1, 2)
    out(state, "n0", reservation.RESERVE, 1, kind=reservation.WRITE_EXCLUSIVE_ALL)
    out(state, "n0", reservation.REGISTER, 1, 0)
    assert state.kind and state.holds("n1")
    out(state, "n1", reservation.REGISTER, 2, 0)
    assert not state.kind


def test_a_preempted_nexus_loses_its_registration_and_the_reservation_changes_hands():
    state = registered(1, 2, 2)
    out(state, "n1", reservation.RESERVE, 2, kind=reservation.EXCLUSIVE_ACCESS)
    outcome = out(state, "n0", reservation.PREEMPT_AND_ABORT, 1, 2, kind=reservation.WRITE_EXCLUSIVE)
    assert set(outcome.aborted) == {"n1", "n2"} and {name for name, _ in outcome.attentions} == {"n1", "n2"}
    assert (state.holder, state.kind, list(state.registrations)) == ("n0", reservation.WRITE_EXCLUSIVE, ["n0"])
    assert out(state, "n0", reservation.PREEMPT, 1, 77, kind=1).answer == sense.CONFLICT
    assert out(state, "n0", reservation.PREEMPT, 1, 0, kind=1).answer == sense.INVALID_PARAMETER


@pytest.mark.parametrize("kind", [reservation.WRITE_EXCLUSIVE, reservation.EXCLUSIVE_ACCESS])
def test_who_keeps_his_registration_hears_of_another_type_only(kind):
    state = registered(1, 2, 3)
    out(state, "n1", reservation.RESERVE, 2, kind=reservation.WRITE_EXCLUSIVE)
    told = out(state, "n0", reservation.PREEMPT, 1, 2, kind=kind).attentions
    changed = ("n2", sense.RESERVATIONS_RELEASED)
    assert told == (("n1", sense.REGISTRATIONS_PREEMPTED), *([changed] if kind != reservation.WRITE_EXCLUSIVE else []))
    assert out(state, "n0", reservation.CLEAR, 1).attentions == (("n2", sense.RESERVATIONS_PREEMPTED),)
    assert not state.kind and not state.registrations


def test_reserve_6_and_persistent_reservations_do_not_mix():
    state = Reservations()
    assert state.reserve_6("n0") == state.reserve_6("n0") == Answer() and state.reserve_6("n1") == sense.CONFLICT
    assert [state.refuses("n1", does) for does in (READS, WRITES, OTHER, reservation.HARMLESS)] == [True, True, True, False]
    assert not state.refuses("n0", WRITES)
    assert out(state, "n0", reservation.REGISTER, 0, 1).answer == sense.CONFLICT
    state.release_6("n1")
    assert state.reserved_6 == "n0"
    state.release_6("n0")
    assert out(state, "n0", reservation.REGISTER, 0, 1).answer == Answer() and state.reserve_6("n1") == sense.CONFLICT


def test_a_reservation_moves_to_a_nexus_by_its_transport_id():
    state = registered(1)
    out(state, "n0", reservation.RESERVE, 1, kind=1)
    other = nexus_name("iqn.2026-11.org.example:b", b"\x80\0\0\0\0\2")
    transport = transport_id_of(other)
    assert nexus_of(transport) == other
    data = (1).to_bytes(8, "big") + (5).to_bytes(8, "big") + bytes([0, 2, 0, 1]) + len(transport).to_bytes(4, "big") + transport
    assert state.perform("n0", reservation.REGISTER_AND_MOVE, 1, data, True).answer == Answer()
    assert state.registrations == {other: 5} and state.holder == other
    assert nexus_of(transport[:-1]) is None and nexus_of(b"\x05" + transport[1:]) is None


def test_reservations_are_restored_from_their_image_and_from_nothing_else():
    state = registered(1, 2)
    out(state, "n0", reservation.RESERVE, 1, kind=7)
    image = state.image()
    assert restored(image + bytes(100)) == state
    assert restored(b"") is None and restored(bytes(4096)) is None and restored(b"\xff" + image[1:]) is None


def test_reservations_are_where_the_volume_is():
    with volume.memory_volume((1 << 20) + AREA_BYTES) as whole:
        disk = volume.FileVolume(whole.descriptor, 1 << 20, is_durable=False)

        def served():
            return scsi.LogicalUnit(disk, pages.Identification(1, TARGET), store=VolumeStore(whole, 1 << 20))

        unit, nexus = served(), scsi.Nexus("host")
        for number in range(1, 4):
            data = (number - 1).to_bytes(8, "big") + number.to_bytes(8, "big") + bytes([0, 0, 0, 0, 1, 0, 0, 0])
            assert run(unit, [0x5F, 0, 0, 0, 0, 0, 0, 0, 24], data, nexus).status == sense.GOOD
            assert served().reservations == unit.reservations  # The other site, after a failover.
        assert run(unit, [0x5F, 1, 3, 0, 0, 0, 0, 0, 24], (3).to_bytes(8, "big") + bytes(16), nexus).status == sense.GOOD
        other = served()
        assert other.reservations.holder == "host" and other.reservations.kind == 3
        assert run(other, cdb_10(0x28, 0, 1), nexus=scsi.Nexus("stranger")).status == sense.RESERVATION_CONFLICT
        for _ in range(2):  # As often as the site serves again.
            other.reload()
            assert other.reservations.holder == "host" and other.reservations.registrations == {"host": 3}


@contextlib.contextmanager
def kept_images(*images):
    """(the volume, what makes a store of its area) after these were saved, one after the other."""
    with volume.memory_volume(2 * AREA_BYTES) as whole:
        first = VolumeStore(whole, AREA_BYTES)
        assert first.load() == b""
        for image in images:
            assert first.save(image)
        yield whole, lambda: VolumeStore(whole, AREA_BYTES)


def image_of(*keys):
    """Reservations after registrations with these keys, as bytes."""
    state = Reservations(generation=len(keys), registrations={f"host{key}": key for key in keys}, keeps=True)
    return state.image()


def damage(whole, slot, at=30):
    place = AREA_BYTES + slot * SLOT_BYTES + at
    data = whole.perform(volume.Operation(volume.READ, place, 1)).data
    whole.perform(volume.Operation(volume.WRITE, place, 1, bytes([data[0] ^ 0x10])))


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_forgets_no_reservation_and_is_made_whole(slot):
    with kept_images(image_of(1), image_of(1, 2)) as (whole, store):
        damage(whole, slot)
        assert restored(store().load()).registrations == {"host1": 1, "host2": 2}  # Not an older one.
        damage(whole, 1 - slot)  # It was written again meanwhile.
        assert restored(store().load()).registrations == {"host1": 1, "host2": 2}


def test_a_save_that_was_cut_between_the_slots_leaves_the_old_image_or_the_new():
    with kept_images(image_of(1)) as (whole, store):
        cut = store()
        cut.load()
        cut.count += 1
        assert cut.write(0, image_of(1, 2))  # And not into the other: nobody was told.
        assert restored(store().load()).registrations == {"host1": 1, "host2": 2}
        damage(whole, 0)
        assert restored(store().load()).registrations == {"host1": 1}


@pytest.mark.parametrize("slots", [(0, 1), (1, 0)])
def test_damage_that_may_hide_the_last_reservation_is_refused_until_all_are_forgotten(slots):
    with kept_images(image_of(1)) as (whole, store):
        for slot in slots:
            damage(whole, slot)
        with pytest.raises(UnfitError, match=r"slot 0: .*checksum; slot 1: .*--forget-reservations"):
            store().load()
        assert store().forget()
        assert store().load() == b""


def test_one_damaged_slot_of_a_volume_from_before_there_were_two_of_each_is_refused():
    """Then images were written in turns, so that the other slot has an older one."""
    with volume.memory_volume(2 * AREA_BYTES) as whole:
        for count, image in ((1, image_of(1)), (2, image_of(1, 2))):
            data = (count.to_bytes(8, "big") + image).ljust(512, b"\0")
            whole.perform(volume.Operation(volume.WRITE, AREA_BYTES + count % 2 * SLOT_BYTES, len(data), data))
            assert restored(VolumeStore(whole, AREA_BYTES).load()).generation == count
        damage(whole, 0)
        with pytest.raises(UnfitError, match="slot 0"):
            VolumeStore(whole, AREA_BYTES).load()


def test_a_volume_that_cannot_be_read_is_not_taken_for_one_without_reservations():
    with kept_images(image_of(1)) as (_, store):
        unreadable = store()
        unreadable.perform = lambda operation: volume.Result(errno.ENOTCONN)
        with pytest.raises(OSError, match="not connected"):
            unreadable.load()


def test_no_parameters_break_a_reservation():
    pick, state, names = random.Random(2), Reservations(), [f"n{number}" for number in range(5)]
    for _ in range(5000):
        data = pick.choice([0, 1, 2, 3]).to_bytes(8, "big") + pick.choice([0, 1, 2, 3]).to_bytes(8, "big") + bytes(4)
        data += bytes([pick.choice([0, 1, 4, 8]), 0, 0, 0]) + (b"" if pick.random() < 0.9 else pick.randbytes(pick.randrange(60)))
        state.perform(pick.choice(names), pick.randrange(10), pick.choice([1, 3, 5, 6, 7, 8, 0x11]), data, pick.random() < 0.5)
        if state.kind:
            assert state.registrations and (state.is_for_all or state.holder in state.registrations)
        assert all(state.report(action) is not None for action in range(4))
        assert restored(state.image()) == state or state.reserved_6
