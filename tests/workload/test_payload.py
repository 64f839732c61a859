"""Payloads: the oracle's bytes, told apart from everything that is not them."""

import zlib

import numpy as np
import pytest

from both_ways import both_ways
from farwrite.base.prng_kernel import PAYLOAD, key_of, random_of
from farwrite.workload import payload_kernel
from farwrite.workload.payload_kernel import BAD_CHECKSUM, BLANK, FOREIGN, WRONG_ADDRESS, WRONG_SIZE
from oracle import payload_oracle

SIZES = [32, 33, 39, 40, 41, 64, 512, 4096, 4099]
WORDS = {
    "blank": BLANK, "foreign": FOREIGN, "wrong address": WRONG_ADDRESS, "wrong size": WRONG_SIZE,
    "bad checksum": BAD_CHECKSUM,
}  # fmt: skip


def filled(size, seed=1, write_number=5, address=8192, start=64):
    target = np.full(start + size + 64, 0xEE, np.uint8)
    payload_kernel.fill(target, start, size, seed, write_number, address)
    return target


@pytest.mark.parametrize("fill", both_ways(payload_kernel.fill))
@pytest.mark.parametrize("size", SIZES)
def test_a_payload_is_the_oracles_and_nothing_around_it_is_touched(fill, size):
    for seed, write_number, address in ((0, 0, 0), (2**63 - 1, 7, 1 << 50), (-1, 1000, 4096)):
        target = np.full(64 + size + 64, 0xEE, np.uint8)
        fill(target, 64, size, np.int64(seed), write_number, address)
        assert target[64:-64].tobytes() == payload_oracle.payload(size, seed, write_number, address)
        assert (target[:64] == 0xEE).all() and (target[-64:] == 0xEE).all()


@pytest.mark.parametrize("check", both_ways(payload_kernel.check))
@pytest.mark.parametrize("matches", both_ways(payload_kernel.matches))
@pytest.mark.parametrize("size", SIZES)
def test_a_payload_is_known_again(check, matches, size):
    block = filled(size, seed=3, write_number=77, address=512)
    assert check(block, 64, size, 512) == 77
    assert matches(block, 64, size, 3, 77, 512)


@pytest.mark.parametrize("matches", both_ways(payload_kernel.matches))
def test_another_seed_number_or_place_does_not_match(matches):
    block = filled(4096, seed=3, write_number=77, address=512)
    assert not matches(block, 64, 4096, 4, 77, 512)
    assert not matches(block, 64, 4096, 3, 78, 512)
    assert not matches(block, 64, 4096, 3, 77, 1024)


@pytest.mark.parametrize("matches", both_ways(payload_kernel.matches))
def test_a_forged_payload_with_a_good_checksum_does_not_match(matches):
    for size in (64, 67):
        block = filled(size)
        block[64 + size - 1] ^= 1
        stamp = block[64:96].view(np.int64)
        stamp[3] = (stamp[3] & 0xFFFFFFFF) | np.int64(payload_kernel.checksum(block, 64, size)) << 32
        assert payload_kernel.check(block, 64, size, 8192) == 5
        assert not matches(block, 64, size, 1, 5, 8192)


@pytest.mark.parametrize("check", both_ways(payload_kernel.check))
@pytest.mark.parametrize("seed", range(30))
def test_check_agrees_with_the_oracle_on_damaged_blocks(check, seed):
    random = np.random.default_rng(seed)
    size = int(random.choice(SIZES))
    block = filled(size, start=0)[:size]
    for _ in range(random.integers(1, 4)):
        at = random.integers(0, size)
        block[at : at + random.integers(1, 9)] = random.integers(0, 256)
    found = payload_oracle.check(block.tobytes(), 8192)
    assert check(block, 0, size, 8192) == WORDS.get(found, found)


@pytest.mark.parametrize("check", both_ways(payload_kernel.check))
def test_every_flipped_bit_is_found(check):
    block = filled(64, start=0)
    for bit in range(512):
        block[bit // 8] ^= 1 << bit % 8
        assert check(block, 0, 64, 8192) < 0
        block[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("check", both_ways(payload_kernel.check))
def test_each_way_of_being_wrong_has_its_code(check):
    block = filled(512, start=0)
    assert check(np.zeros(512, np.uint8), 0, 512, 0) == BLANK
    assert check(np.full(512, 7, np.uint8), 0, 512, 0) == FOREIGN
    assert check(block, 0, 512, 4096) == WRONG_ADDRESS
    assert check(block, 0, 256, 8192) == WRONG_SIZE
    block[256:] = 0  # Torn: only the first half arrived.
    assert check(block, 0, 512, 8192) == BAD_CHECKSUM


@pytest.mark.parametrize("fill", both_ways(payload_kernel.fill))
@pytest.mark.parametrize(("start", "size"), [(8, 64), (0, 31), (64, 128), (-64, 64)])
def test_a_place_that_cannot_be_is_refused(fill, start, size):
    with pytest.raises(AssertionError):
        fill(np.zeros(128, np.uint8), start, size, 1, 1, 0)


def test_payloads_do_not_compress_and_share_no_words():
    blocks = [filled(4096, write_number=number)[64:-64] for number in range(20)]
    together = np.concatenate(blocks)
    assert len(zlib.compress(together.tobytes(), 9)) > together.size * 0.99
    words = np.concatenate([block[32:].view(np.uint64) for block in blocks])
    assert np.unique(words).size == words.size


def grained(size, write_number, payload_profile, seed=1, address=8192):
    target = np.full(size + 64, 0xEE, np.uint8)
    payload_kernel.fill_by_profile(target, 0, size, seed, write_number, address, payload_profile)
    assert (target[size:] == 0xEE).all()
    return target[:size]


@pytest.mark.parametrize("fill_by_profile", both_ways(payload_kernel.fill_by_profile))
def test_a_solid_grain_is_the_plain_payload(fill_by_profile):
    assert payload_kernel.payload_profile_of(1.0, 1.0) == payload_kernel.SOLID
    target = np.zeros(4096, np.uint8)
    fill_by_profile(target, 0, 4096, 1, 5, 8192, payload_kernel.SOLID)
    assert target.tobytes() == filled(4096, start=0)[:4096].tobytes()


@pytest.mark.parametrize("fill_by_profile", both_ways(payload_kernel.fill_by_profile))
@pytest.mark.parametrize("size", SIZES)
def test_a_grained_payload_is_stamped_and_nothing_around_it_is_touched(fill_by_profile, size):
    target = np.full(64 + size + 64, 0xEE, np.uint8)
    fill_by_profile(target, 64, size, 3, 1500, 8192, payload_kernel.payload_profile_of(3.0, 1.0))
    assert (target[:64] == 0xEE).all() and (target[64 + size :] == 0xEE).all()
    assert payload_kernel.check(target, 64, size, 8192) == 1500
    fill_by_profile(target, 64, size, 3, 1500, 8192, payload_kernel.payload_profile_of(1.0, 2.0))
    assert payload_kernel.check(target, 64, size, payload_kernel.SHARED) == 512 + 1500 % 1024 % 512


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("size", [4096, 65536])
def test_payloads_compress_as_far_as_asked(ratio, size):
    payload_profile = payload_kernel.payload_profile_of(ratio, 1.0)
    data = b"".join(grained(size, number, payload_profile).tobytes() for number in range(16))
    assert len(data) / len(zlib.compress(data, 6)) == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("ratio", [1.0, 1.25, 2.0, 5.0, 1000.0])
def test_payloads_repeat_as_often_as_asked(ratio):
    payload_profile = payload_kernel.payload_profile_of(1.0, ratio)
    own = max(round(1024 / ratio), 1)
    found = [int(payload_kernel.content_of(number, payload_profile)) for number in range(4096)]
    assert found == payload_oracle.contents(4096, own)
    blocks = {grained(512, number, payload_profile, address=512 * number).tobytes() for number in range(2048)}
    assert len(blocks) == 2 * own


def test_a_repeated_payload_may_compress_as_well():
    payload_profile = payload_kernel.payload_profile_of(4.0, 2.0)
    one, same = grained(4096, 3, payload_profile), grained(4096, 515, payload_profile, address=0)
    assert one.tobytes() == same.tobytes() != grained(4096, 4, payload_profile).tobytes()
    assert len(zlib.compress(one.tobytes())) < 1400


@pytest.mark.parametrize("fill_by_profile", both_ways(payload_kernel.fill_by_profile))
@pytest.mark.parametrize(("compress", "dedupe"), [(1.0, 4.0), (2.0, 1.0), (3.0, 3.0), (1.03, 1.0)])
@pytest.mark.parametrize("size", [512, 520, 1000, 4099])
def test_every_sector_begins_with_its_share_of_random_words_and_ends_with_zeros(fill_by_profile, compress, dedupe, size):
    profile, number = payload_kernel.payload_profile_of(compress, dedupe), 1500
    target = np.full(64 + size, 0xEE, np.uint8)
    fill_by_profile(target, 64, size, 7, number, 8192, profile)
    own, share = round(1024 / dedupe), round(65536 / compress)
    content = number if own == 1024 else number // 1024 * own + number % 1024 % own
    key = np.uint64(random_of(np.uint64(key_of(7, PAYLOAD)), content))
    words = []
    for sector in range(size // 8 // 64 + 1):
        lasts = (sector + 1) * 64 * share // 65536 - sector * 64 * share // 65536
        words += [int(random_of(key, sector * 64 + place)) % 2**64 if place < lasts else 0 for place in range(64)]
    whole = size // 8
    assert target[64 + 32 : 64 + whole * 8].view(np.uint64).tolist() == words[4:whole]
    assert not target[64 + whole * 8 :].any()
    stamp = target[64 : 64 + 32].view(np.int64)
    assert (stamp[1], stamp[2]) == (content, 8192 if own == 1024 else payload_kernel.SHARED)


def test_no_ratio_leaves_less_than_a_word_and_a_content():
    assert payload_kernel.payload_profile_of(1e9, 1e9) == 1 | 1 << 32
    assert payload_kernel.payload_profile_of(1.0, 1.0) == payload_kernel.SOLID == 65536 | 1024 << 32
    assert payload_kernel.payload_profile_of(2.0, 4.0) == 32768 | 256 << 32


@pytest.mark.parametrize("check", both_ways(payload_kernel.check))
@pytest.mark.parametrize(("number", "expected"), [(0, 0), (3, 3), (-1, BAD_CHECKSUM), (-5, BAD_CHECKSUM)])
def test_no_forged_number_is_taken_for_what_a_check_answers(check, number, expected):
    block = filled(512, address=8192)
    stamp = block[64 : 64 + 32].view(np.int64)
    stamp[1] = number
    stamp[3] = stamp[3] & 0xFFFFFFFF | np.int64(payload_kernel.checksum(block, 64, 512)) << 32
    assert check(block, 64, 512, 8192) == expected
