"""Sites and links from words and from a file: what is asked becomes legs with round trips, and what cannot be is refused."""

from pathlib import Path

import pytest

from farwrite.base.errors import UsageError
from farwrite.base.physics import distance, rtt_ns_of
from farwrite.lab.topology import bits_per_s, rate_text, read, share, two_sites

THREE = """
route_factor = 2.0
[[link]]
sites = ["witness", "near"]
rtt = "1 ms"
[[link]]
sites = ["near", "far"]
miles = 150
route_factor = 1.0
rate = "1 Gbit/s"
loss = "0.01 %"
[site.far]
command = "true"
[site.near]
command = ["psql", "-c", "select 1"]
"""


@pytest.fixture
def laid_out(tmp_path):
    """A function that reads a text as a file of sites."""

    def make(text):
        (tmp_path / "sites.toml").write_text(text)
        return read(tmp_path / "sites.toml")

    return make


def test_two_sites_have_one_leg_with_all_that_was_asked():
    made = two_sites(distance(150, route_factor=1.3), "1gbit", "0.01%", "50 us", "iperf3 -s")
    (leg,) = made.legs
    assert made.names == ("near", "far")
    assert leg.asked.rtt_ns == rtt_ns_of(150, 1.3)
    assert leg.spec.outward == leg.spec.homeward
    direction = leg.spec.outward
    assert (direction.rate_bits_per_s, direction.loss_ratio, direction.jitter_ns) == (10**9, pytest.approx(0.0001), 50_000)
    assert leg.text == "150 miles, 1 Gbit/s, 0.01 % lost, jitter 50.0 us"
    assert made.commands == {"far": ["/bin/sh", "-c", "iperf3 -s"]}


def test_a_file_joins_every_two_sites_and_two_far_ones_by_way_of_near(laid_out):
    made = laid_out(THREE)
    assert made.names == ("near", "witness", "far")
    assert [(leg.near, leg.far) for leg in made.legs] == [("near", "witness"), ("near", "far"), ("witness", "far")]
    assert [leg.asked.rtt_ns for leg in made.legs] == [1_000_000, rtt_ns_of(150), 1_000_000 + rtt_ns_of(150)]
    assert [leg.spec.is_plain for leg in made.legs] == [True, False, True]
    assert made.commands["near"] == ["psql", "-c", "select 1"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("miles = 150", "mils = 150"), 'unknown key "mils"'),
        (("miles = 150", "miles = 150\nkm = 3"), "say one of miles, km and rtt"),
        (('["near", "far"]', '["far", "witness"]'), "how far is far from near?"),
        (('["near", "far"]', '["near", "near"]'), "a link joins two sites"),
        (('["near", "far"]', '["near", "witness"]'), "is there twice"),
        (('["near", "far"]', '["near", "Far"]'), "is no name for a site"),
        (("[site.far]", "[site.fra]"), 'no link leads to the site "fra" (did you mean "far"?)'),
        (('loss = "0.01 %"', 'loss = "much"'), "is not a share"),
        (('loss = "0.01 %"', 'loss = "101 %"'), "is not a share from 0 to 1"),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_a_sentence(laid_out, change, sentence):
    with pytest.raises(UsageError) as refusal:
        laid_out(THREE.replace(*change))
    assert sentence in str(refusal.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no-such"):
        read(Path("no-such.toml"))


@pytest.mark.parametrize(("text", "bits"), [("1gbit", 10**9), ("1 Gbit/s", 10**9), ("10mbit", 10**7), ("64 kbit/s", 64_000)])
def test_a_rate_is_read_as_tc_and_as_profiles_spell_it(text, bits):
    assert bits_per_s(text) == bits
    assert bits_per_s(rate_text(bits)) == bits


@pytest.mark.parametrize(("text", "ratio"), [("0.01%", 1e-4), ("0.01 %", 1e-4), ("0.5", 0.5), ("1e-3", 1e-3)])
def test_a_share_is_read_with_and_without_its_sign(text, ratio):
    assert share(text, "loss") == pytest.approx(ratio)
