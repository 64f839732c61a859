"""CRC32C by instruction and by table against long division and the vectors of RFC 3720."""

import llvmlite.binding
import llvmlite.ir
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
