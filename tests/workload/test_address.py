"""Addresses: inside, aligned, and distributed as their names say."""

import numpy as np
import pytest
from scipy import stats

from both_ways import both_ways
from farwrite.base import prng_kernel
from farwrite.workload import address_kernel
from farwrite.workload.address_kernel import Addresses
from oracle import address_oracle

SKEWS = [0.0, 0.5, 0.99, 1.0, 1.2, 3.0]


@pytest.mark.parametrize("sequential", both_ways(address_kernel.sequential))
@pytest.mark.parametrize("seed", range(5))
def test_sequential_writes_follow_each_other_and_wrap(sequential, seed):
    size = np.random.default_rng(seed).choice(np.array([512, 4096, 5000, 65536], np.int32), 300)
    volume_bytes = 200_000
    drawn = np.empty(300, np.int64)
    sequential(drawn, size, Addresses.over(volume_bytes, 512, 65536), 0)
    assert drawn.tolist() == address_oracle.sequential(size.tolist(), volume_bytes, 512)
    assert (drawn + size <= volume_bytes).all()


@pytest.mark.parametrize("uniform", both_ways(address_kernel.uniform))
@pytest.mark.parametrize("volume_bytes", [4096, 8191, 1 << 20, (1 << 20) + 4095, 1 << 60])
def test_uniform_agrees_with_whole_numbers(uniform, volume_bytes):
    addresses = Addresses.over(volume_bytes, 4096, 4096)
    drawn = np.empty(200, np.int64)
    uniform(drawn, addresses, 7, 0)
    assert drawn.tolist() == address_oracle.uniform(7, addresses.places, 4096, 200)
    assert drawn.min() >= 0 and drawn.max() + 4096 <= volume_bytes


@pytest.mark.parametrize("seed", range(3))
def test_uniform_hits_every_place_alike(seed):
    drawn = np.empty(300_000, np.int64)
    address_kernel.uniform(drawn, Addresses.over(1000 * 512, 512, 512), seed, 0)
    assert stats.chisquare(np.bincount(drawn // 512, minlength=1000)).pvalue > 0.01


@pytest.mark.parametrize("zipf", both_ways(address_kernel.zipf))
def test_zipf_addresses_are_inside_and_aligned(zipf):
    for volume_bytes in (65536, 70_000, 1 << 20, 1 << 50):
        drawn = np.empty(300, np.int64)
        zipf(drawn, Addresses.over(volume_bytes, 512, 65536, 1.0, 3), 3, 0)
        assert not (drawn % 512).any()
        assert drawn.min() >= 0 and drawn.max() + 65536 <= volume_bytes


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("places", [1, 2, 3, 300])
def test_ranks_follow_zipfs_law(skew, places):
    count = 300_000
    addresses = Addresses.over(places * 512, 512, 512, skew)
    key = np.uint64(prng_kernel.key_of(11, prng_kernel.ADDRESS))
    ranks = np.array([address_kernel.zipf_rank(addresses, key, index) for index in range(20_000)])
    assert ranks.min() >= 0 and ranks.max() < places

    drawn = np.empty(count, np.int64)
    address_kernel.zipf(drawn, addresses, 11, 0)
    by_place = np.bincount(drawn // 512, minlength=places)
    landed = address_oracle.scattered(places, addresses.bits, int(addresses.scatter_key))
    observed = by_place[landed]  # By rank again.
    expected = np.array(address_oracle.zipf_probabilities(places, skew)) * count
    # Ranks too rare for the test of fit are taken together.
    rare = expected < 10
    if rare.any():
        observed, expected = [np.append(column[~rare], column[rare].sum()) for column in (observed, expected)]
    if observed.size > 1:
        assert stats.chisquare(observed, expected).pvalue > 0.005


@pytest.mark.parametrize("zipf_rank", both_ways(address_kernel.zipf_rank))
def test_ranks_are_the_same_compiled_and_interpreted(zipf_rank):
    key = np.uint64(prng_kernel.key_of(5, prng_kernel.ADDRESS))
    for skew in SKEWS:
        addresses = Addresses.over(1 << 40, 4096, 4096, skew)
        for index in range(100):
            rank = int(zipf_rank(addresses, key, index))
            assert rank == int(address_kernel.zipf_rank(addresses, key, index))
            assert 0 <= rank < addresses.places


@pytest.mark.parametrize("name", ["expm1_over", "log1p_over"])
def test_the_helpers_pass_smoothly_through_their_limit(name):
    kernel = getattr(address_kernel, name)
    assert kernel(0.0) == 1.0
    for x in (1e-7, 1.0001e-8, 0.9999e-8, -1e-9):
        assert abs(kernel(x) - 1.0) <= abs(x) and kernel(x) != pytest.approx(0)


@pytest.mark.parametrize("skew", SKEWS)
def test_the_inverse_undoes_the_integral(skew):
    for x in (0.5, 1.0, 1.5, 17.25, 1e6):
        assert address_kernel.integral_inverse(address_kernel.integral(x, skew), skew) == pytest.approx(x, rel=1e-3)


@pytest.mark.parametrize("scatter", both_ways(address_kernel.scatter))
@pytest.mark.parametrize("places", [1, 2, 3, 4, 5, 7, 64, 100, 257, 1000])
def test_scattering_is_a_permutation(scatter, places):
    for key in (0, 12345, 2**64 - 1):
        bits = (places - 1).bit_length()
        landed = [int(scatter(rank, places, bits, np.uint64(key))) for rank in range(places)]
        assert sorted(landed) == list(range(places))
        assert landed == address_oracle.scattered(places, bits, key)


def test_hot_places_are_not_neighbours():
    places, bits = 1_000_003, 20
    apart = []
    for seed in range(20):
        key = np.uint64(prng_kernel.key_of(seed, prng_kernel.SCATTER))
        hot = np.sort([address_kernel.scatter(rank, places, bits, key) for rank in range(100)])
        apart.append(np.diff(hot).min())
        assert stats.kstest(hot / places, "uniform").pvalue > 1e-4
    assert np.median(apart) > 10  # A hundred random places of a million are 100 apart at the closest, on average.


def test_another_seed_scatters_otherwise():
    first = Addresses.over(1 << 30, 4096, 4096, 1.0, 1)
    second = Addresses.over(1 << 30, 4096, 4096, 1.0, 2)
    landed = [[address_kernel.scatter(r, a.places, a.bits, a.scatter_key) for r in range(50)] for a in (first, second)]
    assert not set(landed[0]) & set(landed[1])


@pytest.mark.parametrize("sequential", both_ways(address_kernel.sequential))
@pytest.mark.parametrize(("streams", "stride"), [(1, 131072), (3, 0), (7, 65536), (16, 12800)])
def test_streams_take_turns_each_in_a_part_of_its_own(sequential, streams, stride):
    size = np.random.default_rng(streams).choice(np.array([0, 512, 4096, 12800], np.int32), 500)
    volume_bytes = 1_000_000
    drawn = np.empty(500, np.int64)
    sequential(drawn, size, Addresses.over(volume_bytes, 512, 12800, streams=streams, stride_bytes=stride), 0)
    assert drawn.tolist() == address_oracle.sequential(size.tolist(), volume_bytes, 512, streams, stride)
    part = volume_bytes // streams // 512 * 512 if streams > 1 else volume_bytes
    assert (drawn // part == np.arange(500) % streams).all() and ((drawn + size - 1) // part <= np.arange(500) % streams).all()


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("places", [1, 2, 3, 300, 70_000])
def test_the_table_holds_exactly_zipfs_closed_form(skew, places):
    addresses = Addresses.over(places * 512, 512, 512, skew, 9, tabled=True)
    keep, other = addresses.table
    probability = np.bincount(other, weights=np.where(keep < 1, 1 - keep, 0), minlength=places) + np.minimum(keep, 1)
    landed = np.array(address_oracle.scattered(places, addresses.bits, int(addresses.scatter_key)))
    expected = np.array(address_oracle.zipf_probabilities(places, skew))
    assert np.allclose(probability[landed] / places, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("seed", [1, 2])
def test_addresses_from_the_table_follow_zipfs_law(skew, seed):
    count, places = 300_000, 500
    addresses = Addresses.over(places * 512, 512, 512, skew, seed, tabled=True)
    drawn = np.empty(count, np.int64)
    address_kernel.zipf(drawn, addresses, seed, 0)
    observed = np.bincount(drawn // 512, minlength=places)[
        address_oracle.scattered(places, addresses.bits, int(addresses.scatter_key))
    ]
    expected = np.array(address_oracle.zipf_probabilities(places, skew)) * count
    rare = expected < 10
    if rare.any():
        observed, expected = [np.append(column[~rare], column[rare].sum()) for column in (observed, expected)]
    assert stats.chisquare(observed, expected).pvalue > 0.005


@pytest.mark.parametrize("pareto", both_ways(address_kernel.pareto))
def test_pareto_addresses_are_inside_and_aligned(pareto):
    drawn = np.empty(300, np.int64)
    pareto(drawn, Addresses.over(1 << 20, 4096, 65536, seed=3), 3, 0)
    assert not (drawn % 4096).any() and drawn.min() >= 0 and drawn.max() + 65536 <= 1 << 20


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("seed", [1, 2])
def test_pareto_is_self_similar(share, seed):
    count, places = 100_000, 5000
    addresses = Addresses.over(places * 512, 512, 512, seed=seed, pareto_share=share)
    drawn = np.empty(count, np.int64)
    address_kernel.pareto(drawn, addresses, seed, 0)
    by_rank = np.bincount(drawn // 512, minlength=places)[
        address_oracle.scattered(places, addresses.bits, int(addresses.scatter_key))
    ]
    assert by_rank[: int(places * share)].sum() / count == pytest.approx(1 - share, abs=0.01)
    edges = np.array([0, 1, 2, 5, 20, 100, 500, 1000, 2500, 5000])
    below = np.array([address_oracle.pareto_below(share, edge / places) for edge in edges])
    observed = np.add.reduceat(by_rank, edges[:-1])
    assert stats.chisquare(observed, np.diff(below) * count).pvalue > 0.005


@pytest.mark.parametrize("normal", both_ways(address_kernel.normal))
def test_normal_addresses_are_inside_and_aligned(normal):
    drawn = np.empty(300, np.int64)
    normal(drawn, Addresses.over(1 << 20, 4096, 65536, mean=0.0, deviation=2.0), 3, 0)
    assert not (drawn % 4096).any() and drawn.min() >= 0 and drawn.max() + 65536 <= 1 << 20


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.1), (0.0, 0.2), (0.8, 1.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_normal_addresses_are_normal_and_cut_off_at_the_ends(mean, deviation, seed):
    places = 1 << 20
    drawn = np.empty(50_000, np.int64)
    address_kernel.normal(drawn, Addresses.over(places * 512, 512, 512, mean=mean, deviation=deviation), seed, 0)
    centre, scale = mean * (places - 1), deviation * places
    law = stats.truncnorm((-0.5 - centre) / scale, (places - 0.5 - centre) / scale, centre, scale)
    assert stats.kstest(drawn / 512, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("banded", both_ways(address_kernel.banded))
@pytest.mark.parametrize("seed", [1, 2])
def test_every_band_has_its_share_and_is_even_inside(banded, seed):
    bands, places, count = ((60, 10), (30, 20), (0, 5), (8, 30), (2, 35)), 1000, 40_000
    drawn = np.empty(count, np.int64)
    banded(drawn, Addresses.over(places * 4096, 4096, 4096, bands=bands), seed, 0)
    expected = np.zeros(places)
    for share, begin, end in address_oracle.banded(bands, places):
        expected[begin:end] = share * count / (end - begin)
    observed = np.bincount(drawn // 4096, minlength=places)
    assert not observed[expected == 0].any()
    assert stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 0.005


@pytest.mark.parametrize("shuffled", both_ways(address_kernel.shuffled))
@pytest.mark.parametrize("places", [1, 2, 5, 16, 17, 100])
def test_a_shuffle_repeats_nothing_before_all_had_their_turn(shuffled, places):
    drawn = np.empty(3 * places, np.int64)
    shuffled(drawn, Addresses.over(places * 12288 + 4096, 4096, 9000), 5, 0)
    laps = drawn.reshape(3, places) // 12288
    assert not (drawn % 12288).any()
    assert all(sorted(lap) == list(range(places)) for lap in laps.tolist())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shuffle_looks_like_chance(seed):
    places = 3000
    drawn = np.empty(places, np.int64)
    address_kernel.shuffled(drawn, Addresses.over(places * 4096, 4096, 4096), seed, 0)
    order = drawn // 4096
    assert stats.kstest(order[:300] / places, "uniform").pvalue > 0.01
    assert stats.chisquare(np.bincount(np.diff(order) % places * 10 // places, minlength=10)).pvalue > 0.005
    assert abs(stats.spearmanr(order[:-1], order[1:]).statistic) < 0.06
    other = np.empty(places, np.int64)
    address_kernel.shuffled(other, Addresses.over(places * 4096, 4096, 4096), seed, places)
    assert (order == other // 4096).sum() < 10
