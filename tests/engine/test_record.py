"""Records: byte for byte the oracle's, and nothing that was touched passes for whole."""

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.engine import record_kernel as record
from oracle import record_oracle

VOLUME = 7
CODES = {
    "complete": record.COMPLETE, "incomplete": record.INCOMPLETE, "bad magic": record.BAD_MAGIC,
    "bad version": record.BAD_VERSION, "bad kind": record.BAD_KIND, "bad length": record.BAD_LENGTH,
    "bad crc": record.BAD_CRC, "wrong volume": record.WRONG_VOLUME,
}  # fmt: skip


def memory(data, room=0):
    """Bytes in front of which nothing stands, as kernels take them: data and the same as headers."""
    array = np.zeros(-(-(len(data) + room) // 64) * 64, np.uint8)
    array[: len(data)] = np.frombuffer(bytes(data), np.uint8)
    return array, array.view(record.Header.LAYOUT)


def found_by(inspect, data, volume=VOLUME):
    array, headers = memory(data, 64)
    return inspect(array, headers, 0, len(data), volume)


@pytest.mark.parametrize("record_bytes", both_ways(record.record_bytes))
def test_a_record_takes_its_header_and_whole_64s(record_bytes):
    for length in [*range(300), 4095, 4096, 4097, (1 << 20) - 1, 1 << 20]:
        assert record_bytes(length) == record_oracle.rounded(length)


@pytest.mark.parametrize("seal", both_ways(record.seal))
@pytest.mark.parametrize("seed", range(20))
def test_a_sealed_record_is_the_oracles_byte_for_byte(seal, seed):
    random = np.random.default_rng(seed)
    payload = random.bytes(int(random.choice([0, 1, 63, 64, 65, 512, 700])))
    sequence, address, epoch, volume, stamp_ns = (int(random.integers(0, 2**62)) for _ in range(5))
    size = record_oracle.rounded(len(payload))
    array = np.full(64 + size + 64, 0xEE, np.uint8)
    array[64 : 64 + size] = 0
    array[128 : 128 + len(payload)] = np.frombuffer(payload, np.uint8)
    seal(array, array.view(record.Header.LAYOUT), 64, record.WRITE, len(payload), sequence, address, epoch, volume, stamp_ns)
    assert array[64:-64].tobytes() == record_oracle.write(payload, sequence, address, epoch, volume, stamp_ns)
    assert (array[:64] == 0xEE).all() and (array[-64:] == 0xEE).all()


@pytest.mark.parametrize("seal", both_ways(record.seal))
def test_a_record_must_begin_on_64_bytes(seal):
    array, headers = memory(bytes(256))
    with pytest.raises(AssertionError):
        seal(array, headers, 32, record.WRITE, 0, 1, 0, 1, 1, 0)


def test_the_fields_that_were_sealed_are_read_again():
    array, headers = memory(bytes(256))
    record.seal(array, headers, 64, record.WRITE, 100, 2**40, 2**50, 9, 2**61, 5, 0, 2**16 + 77)
    assert record.kind_of(headers, 64) == record.WRITE
    assert record.length_of(headers, 64) == 100
    assert record.sequence_of(headers, 64) == 2**40
    assert record.address_of(headers, 64) == 2**50
    assert record.epoch_of(headers, 64) == 9
    assert record.ordinal_of(headers, 64) == 77  # Modulo 2^16.


@pytest.mark.parametrize("is_next", both_ways(record.is_next))
def test_ordinals_go_on_behind_the_last_there_is(is_next):
    for heard, ordinal, answer in ((0, 1, True), (0, 0, False), (0, 2, False), (65534, 65535, True), (65535, 0, True)):
        _, headers = memory(record_oracle.header("ping", ordinal=ordinal))
        assert bool(is_next(headers, 0, heard)) == answer


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
@pytest.mark.parametrize("kind", [kind for kind in record_oracle.KINDS if kind != "write"])
def test_every_kind_is_recognised(inspect, kind):
    assert found_by(inspect, record_oracle.header(kind)) == record.COMPLETE


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
def test_every_flipped_bit_of_a_header_is_found(inspect):
    whole = bytearray(record_oracle.write(bytes(range(100)), 5, 8192))
    assert found_by(inspect, whole) == record.COMPLETE
    for bit in range(512):
        whole[bit // 8] ^= 1 << bit % 8
        assert found_by(inspect, whole) == CODES[record_oracle.inspect(bytes(whole), VOLUME)] != record.COMPLETE
        whole[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
@pytest.mark.parametrize("kind", ["pad", "ack", "hello", "ping", "goodbye"])
def test_every_flipped_bit_of_a_lone_header_is_found(inspect, kind):
    whole = bytearray(record_oracle.header(kind, sequence=3, address=4))
    for bit in range(512):
        whole[bit // 8] ^= 1 << bit % 8
        assert found_by(inspect, whole) != record.COMPLETE
        whole[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
@pytest.mark.parametrize("size", [1, 65, 512, 4096, 65536])
def test_flipped_bits_of_a_payload_are_found(inspect, size):
    random = np.random.default_rng(size)
    array, headers = memory(bytes(64) + random.bytes(size), 64)
    record.seal(array, headers, 0, record.WRITE, size, 5, 8192, 1, VOLUME, 0)
    assert inspect(array, headers, 0, 64 + size, VOLUME) == record.COMPLETE
    for bit in {0, 8 * size - 1, *random.integers(0, 8 * size, 200).tolist()}:
        array[64 + bit // 8] ^= 1 << bit % 8
        assert inspect(array, headers, 0, 64 + size, VOLUME) == record.BAD_CRC
        array[64 + bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
def test_a_record_is_incomplete_until_its_last_guarded_byte_is_there(inspect):
    whole = record_oracle.write(b"x" * 100, 5, 8192)
    for available in range(164):
        assert found_by(inspect, whole[:available]) == record.INCOMPLETE
    for available in range(164, len(whole) + 1):
        assert found_by(inspect, whole[:available]) == record.COMPLETE


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
def test_each_way_of_being_wrong_has_its_code(inspect):
    header = record_oracle.header
    assert found_by(inspect, b"FRW3" + header("ping")[4:]) == record.BAD_MAGIC
    assert found_by(inspect, header("ping", version=0)) == record.BAD_VERSION
    assert found_by(inspect, header("ping", version=3)) == record.BAD_VERSION
    assert found_by(inspect, header(0)) == record.BAD_KIND
    assert found_by(inspect, header(16)) == record.BAD_KIND
    assert found_by(inspect, header("write", (1 << 20) + 1)) == record.BAD_LENGTH
    assert found_by(inspect, header("write", 0xFFFFFFFF)) == record.BAD_LENGTH
    assert found_by(inspect, header("pad", (1 << 20) + 1)) == record.BAD_LENGTH
    assert found_by(inspect, header("ack", 1)) == record.BAD_LENGTH
    assert found_by(inspect, header("write", 1 << 20)) == record.INCOMPLETE
    assert found_by(inspect, header("ping", volume=8)) == record.WRONG_VOLUME
    assert found_by(inspect, header("ping", volume=-7)) == record.WRONG_VOLUME


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
@pytest.mark.parametrize("seed", range(60))
def test_inspect_agrees_with_the_oracle_on_damaged_and_cut_records(inspect, seed):
    random = np.random.default_rng(seed)
    kind = str(random.choice(list(record_oracle.KINDS)))
    payload = random.bytes(int(random.integers(0, 200))) if kind == "write" else b""
    data = bytearray(
        record_oracle.header(
            kind, len(payload), int(random.integers(0, 100)), int(random.integers(-100, 10**6)),
            version=int(random.choice([2, 2, 2, 1])), volume=int(random.choice([VOLUME, VOLUME, 8])), payload=payload,
        ) + payload
    )  # fmt: skip
    for _ in range(int(random.integers(0, 3))):
        data[int(random.integers(0, min(len(data), 20)))] = int(random.choice([0, 1, 2, 6, 7, 255, random.integers(256)]))
    if random.random() < 0.3:
        del data[int(random.integers(0, len(data))) :]
    assert found_by(inspect, data) == CODES[record_oracle.inspect(bytes(data), VOLUME)]


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
def test_random_bytes_are_never_a_record(inspect):
    random = np.random.default_rng(1)
    for size in (0, 1, 63, 64, 65, 4096):
        for _ in range(30):
            assert found_by(inspect, random.bytes(size)) == (record.INCOMPLETE if size < 64 else record.BAD_MAGIC)


@pytest.mark.parametrize("written_of", both_ways(record.written_of))
@pytest.mark.parametrize("trimmed_of", both_ways(record.trimmed_of))
def test_a_record_says_how_much_of_the_volume_it_changes(written_of, trimmed_of):
    array, headers = memory(bytes(512))
    record.seal(array, headers, 64, record.WRITE, 100, 1, 0, 1, VOLUME, 5)
    record.seal(array, headers, 256, record.TRIM, 0, 2, 0, 1, VOLUME, 6, 1 << 40)
    assert (written_of(headers, 64), trimmed_of(headers, 64)) == (100, 0)
    assert (written_of(headers, 256), trimmed_of(headers, 256)) == (1 << 40, 1 << 40)


@pytest.mark.parametrize("inspect", both_ways(record.inspect))
@pytest.mark.parametrize("start", [0, 64, 448])
def test_a_record_is_looked_for_where_it_begins(inspect, start):
    array, headers = memory(bytes(1024))
    array[start + 64 : start + 64 + 99] = 7
    record.seal(array, headers, start, record.WRITE, 99, 5, 8192, 1, VOLUME, 0)
    for other in (0, 64, 448):
        assert inspect(array, headers, other, 64 + 99, VOLUME) == (record.COMPLETE if other == start else record.BAD_MAGIC)


@pytest.mark.parametrize("length_of", both_ways(record.length_of))
def test_every_length_is_read_again(length_of):
    _, headers = memory(bytes(64))
    for length in (0, 1, 99, 4095, (1 << 20) - 1, 1 << 20):
        headers[0].length = length
        assert length_of(headers, 0) == length

