"""Round trips of a write: the formula against an initiator played PDU by PDU, medians and k against plain arithmetic."""

import random

import pytest

from farwrite.analysis.trips import (
    DEFAULTS,
    LOOSENED,
    WriteTerms,
    agreed,
    costly_keys,
    k_of,
    median_of,
    terms_of,
    trips_of,
)

KIB = 1024
TGT = WriteTerms(True, True, 64 * KIB, 256 * KIB, 8 * KIB)
LIBISCSI = WriteTerms(False, True, 256 * KIB, 256 * KIB, 256 * KIB)


def played_trips(size, terms):
    """The command goes out with what may go with it; then, as long as something is left, an R2T comes and a burst goes."""
    sent = 0
    if terms.immediate_data:
        sent = min(size, terms.segment_bytes, terms.first_burst_bytes)
    while not terms.initial_r2t and sent < min(size, terms.first_burst_bytes):
        sent += 1 if size < 64 else min(terms.segment_bytes, terms.first_burst_bytes - sent, size - sent)
    trips = 1
    while sent < size:
        sent += min(terms.max_burst_bytes, size - sent)
        trips += 1
    return trips


@pytest.mark.parametrize("seed", range(300))
def test_the_formula_counts_what_an_initiator_plays(seed):
    draw = random.Random(seed)
    lengths = [draw.choice([512, 4096, 8192, 65536, 262144, 1 << 20]) for _ in range(3)]
    terms = WriteTerms(draw.random() < 0.5, draw.random() < 0.5, *lengths)
    size = 512 * draw.randint(1, 4096)
    assert trips_of(size, terms) == played_trips(size, terms)
    sets = costly_keys(size, terms)
    assert (trips_of(size, terms) == 1) == (not sets)
    for names in sets:
        changed = terms
        for name in names:
            changed = LOOSENED[name](changed, size)
        assert played_trips(size, changed) == 1


@pytest.mark.parametrize(
    ("terms", "kib", "trips", "costly"),
    [(TGT, 8, 1, []), (TGT, 12, 2, [["InitialR2T"], ["MaxRecvDataSegmentLength"]]), (TGT, 1024, 5, None),
     (LIBISCSI, 256, 1, []), (LIBISCSI, 512, 2, [["FirstBurstLength"]]), (LIBISCSI, 1024, 4, [["FirstBurstLength"]]),
     (LIBISCSI._replace(initial_r2t=True, immediate_data=False), 4, 2, [["InitialR2T"], ["ImmediateData"]])],
)  # fmt: skip
def test_known_targets(terms, kib, trips, costly):
    assert trips_of(kib * KIB, terms) == trips
    assert costly is None or costly_keys(kib * KIB, terms) == costly


def test_keys_that_are_no_numbers_or_out_of_bounds_are_unknown():
    good = agreed({})
    assert terms_of(good) == WriteTerms(True, True, 65536, 262144, 8192)
    assert good == DEFAULTS
    for key, value in [("FirstBurstLength", "x"), ("MaxBurstLength", "0"), ("MaxRecvDataSegmentLength", "9" * 5000),
                       ("FirstBurstLength", "-1"), ("InitialR2T", "no"), ("ImmediateData", "Reject")]:  # fmt: skip
        assert terms_of(good | {key: value}) is None, (key, value)
    assert terms_of({}) is None


def test_k_is_the_difference_in_round_trips_and_its_interval_holds_the_ends_of_both():
    at_0, far = median_of([1e5 + i for i in range(15)]), median_of([4.1e7 + 10 * i for i in range(15)])
    assert (at_0.value, at_0.low, at_0.high) == (1e5 + 7, 1e5 + 3, 1e5 + 11)
    k = k_of(at_0, far, 2e7, 20_000_000)
    assert k.value == pytest.approx((4.1e7 + 70 - 1e5 - 7) / 2e7)
    assert k.low == pytest.approx((4.1e7 + 30 - 1e5 - 11) / 2e7)
    assert k.high == pytest.approx((4.1e7 + 110 - 1e5 - 3) / 2e7)
    assert 0.9 < k.confidence < 0.95
    assert k_of(at_0, far, 100.0, 20_000_000).value is None  # The link added nothing.
    assert k_of(median_of([]), far, 2e7, 20_000_000).value is None
    assert median_of([3.0]).low is None
