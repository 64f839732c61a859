"""CRC32C by instruction and by table against long division and the vectors of RFC 3720."""

from types import SimpleNamespace

import llvmlite.binding
import llvmlite.ir
import numba
import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base import crc_kernel
from oracle import crc_oracle

# The instruction is an LLVM intrinsic, which nothing can interpret: compiled only.
CRCS = [pytest.param(crc_kernel.crc32c, id="chosen"), *both_ways(crc_kernel.by_table)]

# RFC 3720, B.4; the last is an iSCSI SCSI Read (10) command.
READ_10 = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)
VECTORS = [
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (READ_10, 0xD9963A56),
    (b"", 0),
]


def array(data):
    return np.frombuffer(bytes(data), np.uint8).copy()


@pytest.mark.parametrize("crc32c", CRCS)
@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_the_published_vectors_hold(crc32c, data, crc):
    assert crc32c(0, array(data), 0, len(data)) == crc
    assert crc_oracle.crc32c(data) == crc


@pytest.mark.parametrize("crc32c", CRCS)
@pytest.mark.parametrize("seed", range(10))
def test_any_stretch_agrees_with_long_division(crc32c, seed):
    random = np.random.default_rng(seed)
    data = array(random.bytes(300))
    for start, stop in np.sort(random.integers(0, 301, (15, 2))):
        assert crc32c(0, data, start, stop) == crc_oracle.crc32c(data[start:stop])


@pytest.mark.parametrize("crc32c", CRCS)
@pytest.mark.parametrize("size", [4031, 4032, 4033, 4096, 4152, 8064, 8070, 12345])
def test_the_three_lanes_join_without_a_seam(crc32c, size):
    data = array(np.random.default_rng(size).bytes(size + 3))
    assert crc32c(0, data, 3, size + 3) == crc_oracle.crc32c(data[3:])


@pytest.mark.parametrize("crc32c", CRCS)
def test_a_crc_can_be_continued(crc32c):
    data = array(np.random.default_rng(0).bytes(10_000))
    whole = crc32c(0, data, 0, data.size)
    for cut in (0, 1, 28, 4096, 9999, 10_000):
        assert crc32c(crc32c(0, data, 0, cut), data, cut, data.size) == whole


@pytest.mark.parametrize("crc32c", CRCS)
def test_every_single_flipped_bit_is_seen(crc32c):
    data = array(np.random.default_rng(1).bytes(64))
    intact = crc32c(0, data, 0, 64)
    for bit in range(512):
        data[bit // 8] ^= 1 << bit % 8
        assert crc32c(0, data, 0, 64) != intact
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("crc32c", CRCS)
def test_bytes_outside_the_array_are_refused(crc32c):
    with pytest.raises(AssertionError):
        crc32c(0, array(bytes(8)), 0, 9)


def bit_by_bit(crc, data):
    """The CRC, not inverted, after these bytes."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def test_three_lanes_joined_are_one_crc_whatever_the_instruction(monkeypatch):
    """The loop of the instruction, interpreted, with the instruction's definition in its place."""
    def after_word(crc, word):
        return np.int64(bit_by_bit(int(crc), int(word).to_bytes(8, "little", signed=True)))

    monkeypatch.setattr(crc_kernel, "step_word", after_word)
    monkeypatch.setattr(crc_kernel, "step_byte", lambda crc, byte: np.int64(bit_by_bit(int(crc), [int(byte)])))
    data = array(np.random.default_rng(5).bytes(8100))
    for start, stop in ((0, 0), (0, 7), (0, 8), (3, 20), (0, 4031), (1, 4033), (5, 8069), (0, 8071)):
        assert crc_kernel.by_instruction(0, data, start, stop) == crc_kernel.by_table(0, data, start, stop)
    assert crc_kernel.by_instruction(0xE3069283, data, 2, 5) == crc_kernel.by_table(0xE3069283, data, 2, 5)
    lane, word = crc_kernel.LANE_BYTES, crc_kernel.WORD_BYTES
    assert lane % word == 0 and 3 * lane <= 4096 - 32 < 3 * (lane + 2 * word)


def test_tables_hold_the_crc_of_a_byte_with_zero_bytes_behind_it():
    slices, lanes = crc_kernel.slicing_table(), crc_kernel.lane_table()
    assert slices.shape == (8, 256) and lanes.shape == (4, 256)
    for byte in range(256):
        for zeros in range(8):
            assert slices[zeros, byte] == bit_by_bit(0, [byte, *bytes(zeros)])
    zeros = array(bytes(crc_kernel.LANE_BYTES))
    for row in range(4):
        for byte in range(256):  # The table's CRCs are inverted at both ends.
            after = crc_kernel.by_table((byte << 8 * row) ^ crc_kernel.ALL_ONES, zeros, 0, zeros.size) ^ crc_kernel.ALL_ONES
            assert lanes[row, byte] == after


X86, ARM = ("llvm.x86.sse42.crc32.64.64", "llvm.x86.sse42.crc32.32.8"), ("llvm.aarch64.crc32cx", "llvm.aarch64.crc32cb")


@pytest.mark.parametrize(("triple", "asked", "host", "expected"), [
    ("x86_64-unknown-linux-gnu", "+sse4.2,+crc32", "", X86), ("x86_64-unknown-linux-gnu", "", "+crc32,+sse4.2", X86),
    ("x86_64-unknown-linux-gnu", "+avx", "+crc32,+sse4.2", None), ("x86_64-unknown-linux-gnu", "+sse4.2", "", None),
    ("x86_64-unknown-linux-gnu", "+crc32", "", None), ("riscv64-unknown-linux-gnu", "+sse4.2,+crc32,+crc", "", None),
    ("aarch64-unknown-linux-gnu", "+crc", "", ARM), ("arm64-apple-darwin", "", "+crc", ARM),
    ("aarch64-unknown-linux-gnu", "+neon", "", None), ("x86_64-unknown-linux-gnu", "", None, None),
])  # fmt: skip
def test_the_instruction_is_the_processors_own_and_none_where_it_has_none(triple, asked, host, expected, monkeypatch):
    def features():
        if host is None:
            raise RuntimeError("a processor that LLVM does not know")
        return SimpleNamespace(flatten=lambda: host)

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", features)
    monkeypatch.setattr(llvmlite.binding, "get_process_triple", lambda: triple)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", asked or None)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    assert crc_kernel.instructions() == expected
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert crc_kernel.instructions() is None


@pytest.mark.parametrize("name", ["llvm.aarch64.crc32cx", "llvm.aarch64.crc32cb"])
def test_arm_gets_its_own_instruction(name):
    """We have no Arm here: LLVM accepts the call and chooses the instruction, which is all we can show."""
    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    try:
        target = llvmlite.binding.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip("this llvmlite cannot compile for Arm")
    wide = llvmlite.ir.IntType(64)
    module = llvmlite.ir.Module()
    module.triple = triple
    function = llvmlite.ir.Function(module, llvmlite.ir.FunctionType(wide, [wide, wide]), "step")
    builder = llvmlite.ir.IRBuilder(function.append_basic_block())
    builder.ret(crc_kernel.call(builder, name, *function.args))
    parsed = llvmlite.binding.parse_assembly(str(module))
    parsed.verify()
    machine = target.create_target_machine(features="+crc")
    assert name.removeprefix("llvm.aarch64.") in machine.emit_assembly(parsed)
