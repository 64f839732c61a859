"""What stories concentrate on, and what voters, successors and empty disks are held to."""

from types import SimpleNamespace

import pytest

from farwrite.engine.ballot import Ballot
from farwrite.engine.simulate import elections
from farwrite.engine.simulate.check import Anomaly
from farwrite.engine.simulate.elections import Elections
from farwrite.engine.simulate.focus import MIXES, SHARE, WATCHED, Focus
from farwrite.engine.simulate.story import Story, tell


def test_a_share_of_the_stories_has_a_focus_and_every_mix_and_moment_is_among_them():
    all_of = [Focus(seed) for seed in range(1000)]
    focused = [one for one in all_of if one.name]
    assert abs(len(focused) / len(all_of) - SHARE) < 0.1
    pairs = {(name, moment) for name, mix in MIXES.items() for moment in mix.moments}
    assert {(one.name, one.moment) for one in focused} == pairs
    assert {moment for mix in MIXES.values() for moment in mix.moments} == set(WATCHED)
    assert any(one.is_aligned for one in focused) and not all(one.is_aligned for one in focused)


def test_a_focus_only_changes_rates_that_stories_have():
    assert all(set(mix.rates) <= set(Story(0).trouble) for mix in MIXES.values())


def test_trouble_follows_moments_and_no_promise_is_broken():
    """Each mix; and one that replays a damaged log twice, for the power goes out in between."""
    seeds = [next(seed for seed in range(1000) if Focus(seed).name == name) for name in MIXES] + [553]
    stories = [tell(seed) for seed in seeds]
    assert [told.seed for told in stories if told.broken] == []
    assert sum(told.counts.get("moments that trouble followed", 0) for told in stories) > 1


def test_a_voter_that_goes_back_to_an_older_configuration_is_found():
    voter = Story(0).cluster.nodes[0].voter
    voter.keep(Ballot(of_epoch=2, version=2, members=("r0", "r1")))
    voter.keep(Ballot(epoch=3, of_epoch=2, version=2, members=("r0", "r1")))
    with pytest.raises(Anomaly, match=r"goes back from configuration \(2, 2\) to \(2, 1\)"):
        voter.keep(Ballot(epoch=3, of_epoch=2, version=1, members=("r0",)))


def test_a_primary_that_hands_over_to_who_lacks_a_write_is_found(monkeypatch):
    monkeypatch.setattr(elections, "may_succeed", lambda peer, name, members, journal: True)
    broken = [tell(seed).broken for seed in HANDING_OVER]
    assert any(one and "hands over to replica" in one and "lacks write" in one for one in broken)


HANDING_OVER = [seed for seed in range(400) if Focus(seed).name == "votes"][:20]


def leading(ballot):
    return SimpleNamespace(index=0, name="r0", voter=SimpleNamespace(ballot=ballot))


def test_who_leads_with_other_members_than_those_that_were_decided_is_found():
    decided = Ballot(of_epoch=2, version=1, members=("r0", "r1"))
    behind = Ballot(of_epoch=3, version=1, members=("r0",))
    asked = SimpleNamespace(decided=decided, attempted={behind.age: behind})
    Elections.check_leader(asked, leading(Ballot(of_epoch=4, version=1, members=("r0", "r1"))), 4)
    Elections.check_leader(asked, leading(Ballot(of_epoch=4, version=1, members=("r0",))), 4)
    with pytest.raises(Anomaly, match="leads in epoch 4 with members r0, r2, and the voters have decided"):
        Elections.check_leader(asked, leading(Ballot(of_epoch=4, version=1, members=("r0", "r2"))), 4)


def test_an_empty_disk_that_has_not_heard_of_the_newest_epoch_is_found():
    Elections.finish_hearing(None, leading(Ballot(epoch=3)), 3, True)
    Elections.finish_hearing(None, leading(Ballot(epoch=2)), 3, False)
    with pytest.raises(Anomaly, match="has heard of epoch 2, and epoch 3 had begun"):
        Elections.finish_hearing(None, leading(Ballot(epoch=2)), 3, True)


def test_a_replay_goes_on_only_once_both_superblocks_tell_of_its_table():
    """Killed between the two superblocks, it lost its power in a replay, and the newer superblock was damaged then."""
    assert tell(2789).broken is None
