"""Where copies are put: never two on one node, one at each site, room that is there, and few of them moved."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from farwrite.base.errors import UsageError
from farwrite.experiment.pool.document import LEVELS, Copy, Document, StorageNode, Volume, wrong_with
from farwrite.experiment.pool.placement import (
    JOURNAL_BYTES,
    Move,
    apply,
    copied,
    may_begin,
    place,
    plan_balance,
    plan_drain,
    room_of,
)

GIB = 1 << 30


def pool_of(*nodes):
    """A pool without volumes; nodes as (site, GiB)."""
    made = [StorageNode(f"n{number}", site, size * GIB) for number, (site, size) in enumerate(nodes)]
    return Document(pool=7, name="p", nodes=made)


def with_volume(document, level, size_bytes=GIB, is_reserved=False, name=""):
    """One more volume, placed."""
    number = 1 + len(document.volumes)
    volume = Volume(name or f"v{number}", number, size_bytes, size_bytes, level, document.free_port(), is_reserved, "ready")
    for node in place(document, volume, volume.wanted, {}):
        volume.copies.append(Copy(volume.next_replica(node), node, document.free_port(volume)))
    document.volumes.append(volume)
    return volume


def sites_of(document, volume):
    return [document.node(copy.node).site for copy in volume.copies]


def check(document):
    """What holds of every pool, whatever was done to it."""
    assert wrong_with(document) == ""
    for volume in document.volumes:
        assert len({copy.node for copy in volume.copies}) == len(volume.copies) == volume.wanted


def drawn(story):
    """A pool with some volumes, as many as it has room for."""
    sites = story.sample(["near", "far", "third"], story.randint(1, 3))
    document = pool_of(*((story.choice(sites), story.choice([10, 20, 40])) for _ in range(story.randint(1, 8))))
    for _ in range(story.randint(0, 12)):
        try:
            with_volume(document, story.choice(list(LEVELS)), story.choice([1, 2, 5]) * GIB, story.random() < 0.3)
        except UsageError:
            continue
    return document


@pytest.mark.parametrize("seed", range(150))
def test_copies_lie_on_different_nodes_and_at_every_site_that_the_level_gives_one_for(seed):
    document = drawn(random.Random(seed))
    check(document)
    for volume in document.volumes:
        assert len(set(sites_of(document, volume))) == min(volume.wanted, len(document.sites()))
    for name, room in room_of(document, {}).items():
        there = document.copies_on(name)
        set_aside = sum(volume.size_bytes * volume.is_reserved + JOURNAL_BYTES for volume, _ in there)
        assert set_aside <= room.capacity_bytes and room.free_bytes == room.capacity_bytes - set_aside


@pytest.mark.parametrize("seed", range(100))
def test_a_balance_moves_each_copy_once_at_most_evens_out_and_then_has_nothing_to_move(seed):
    document = drawn(random.Random(seed))
    before = room_of(document, {})
    moves = plan_balance(document, {})
    after = copied(document)
    seen = set()
    for move in moves:
        apply(after, move)
        assert (move.volume, move.replica) not in seen
        seen.add((move.volume, move.replica))
        check(after)
    for volume, moved in zip(document.volumes, after.volumes, strict=True):
        assert len(set(sites_of(after, moved))) >= len(set(sites_of(document, volume)))
    ratio = [max((room.promised_bytes / room.capacity_bytes for room in found.values()), default=0.0)
             for found in (before, room_of(after, {}))]  # fmt: skip
    assert ratio[1] <= ratio[0] + 1e-9
    assert all(room.taken_bytes <= room.capacity_bytes for room in room_of(after, {}).values())


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_new_node_gets_its_share_and_hardly_more_is_moved(count):
    """The ideal is 1/(n + 1) of what there is; a copy cannot be cut, so one more of them may move."""
    document = pool_of(*([("near", 100)] * count))
    for number in range(12 * count):
        with_volume(document, "0", (1 + number % 3) * GIB)
    document.nodes.append(StorageNode("new", "near", 100 * GIB))
    total = sum(volume.size_bytes for volume in document.volumes)
    moved = plan_balance(document, {})
    size = sum(document.volume(move.volume).size_bytes for move in moved)
    got = sum(document.volume(move.volume).size_bytes for move in moved if move.to == "new")
    assert abs(got - total / (count + 1)) <= 3 * GIB
    assert total / (count + 1) - 3 * GIB <= size <= total / (count + 1) + 3 * GIB


@pytest.mark.parametrize("seed", range(100))
def test_a_node_that_leaves_moves_what_it_held_and_nothing_else(seed):
    story = random.Random(1000 + seed)
    document = drawn(story)
    name = story.choice(document.nodes).name
    held = {(volume.name, copy.replica) for volume, copy in document.copies_on(name)}
    try:
        moves = plan_drain(document, name, {})
    except UsageError as refusal:
        assert f"Node {name} cannot be removed" in str(refusal) and held
        return
    assert {(move.volume, move.replica) for move in moves} == held
    after = copied(document)
    for move in moves:
        apply(after, move)
    check(after)
    assert not after.copies_on(name)
    for volume, moved in zip(document.volumes, after.volumes, strict=True):
        assert len(set(sites_of(after, moved))) >= len(set(sites_of(document, volume)))


@pytest.mark.parametrize(("nodes", "level", "size", "reserved", "said"), [
    ([("near", 20)], "10", 1, False, "needs 2 nodes, a copy on each, and the pool p has 1"),
    ([("near", 20)] * 3, "10+2", 1, False, "needs 4 nodes"), ([], "0", 1, False, "needs 1 nodes"),
    ([("near", 20), ("far", 2)], "10", 3, True, "needs 3.06 GiB on each of 2 nodes, and the next one has 2 GiB free"),
    ([("near", 20), ("near", 20), ("far", 1)], "10", 3, True, "site far would have none"),
])  # fmt: skip
def test_a_level_that_the_nodes_cannot_give_is_refused_with_what_is_missing(nodes, level, size, reserved, said):
    document = pool_of(*nodes)
    with pytest.raises(UsageError, match=said):
        with_volume(document, level, size * GIB, reserved)
    assert document.volumes == []


def test_a_thin_volume_may_promise_more_than_there_is_and_a_reserved_one_may_not():
    document = pool_of(("near", 2), ("far", 2))
    for _ in range(4):
        with_volume(document, "10", GIB)
    with pytest.raises(UsageError, match="free"):
        with_volume(document, "10", 2 * GIB, is_reserved=True)
    assert room_of(document, {("v1", "n0"): GIB})["n0"].taken_bytes == GIB + 4 * JOURNAL_BYTES


def test_the_only_node_of_a_site_is_not_removed_from_under_its_copies():
    document = pool_of(("near", 20), ("near", 20), ("far", 20))
    with_volume(document, "10", name="db")
    with pytest.raises(UsageError, match="volume db would have no copy at site far"):
        plan_drain(document, "n2", {})
    (move,) = plan_drain(document, document.volumes[0].copies[0].node, {})
    assert isinstance(move, Move) and document.node(move.to).site == "near"


def test_a_node_gives_or_takes_one_copy_at_a_time():
    def volume(name, **states):
        copies = [SimpleNamespace(node=node, state=state) for node, state in states.items()]
        return SimpleNamespace(name=name, copies=copies)

    under_way = [volume("x", a="in", b="joining"), volume("y", c="in", d="joining")]
    leads_on = {"x": "a", "y": "c", "one": "e", "two": "a", "three": "d", "four": "e"}
    assert may_begin(volume("one", e="in", f="making"), under_way, leads_on)
    assert not may_begin(volume("two", a="in", f="making"), under_way, leads_on), "a gives x's"
    assert not may_begin(volume("three", d="in", f="making"), under_way, leads_on), "d takes y's"
    assert not may_begin(volume("four", e="in", b="making"), under_way, leads_on), "b takes x's"
    assert may_begin(volume("four", e="in", b="making"), under_way[1:], leads_on)
    assert may_begin(volume("five", a="in", b="in"), under_way, leads_on), "it waits for no copy"
    assert may_begin(under_way[0], under_way, leads_on)
    assert may_begin(volume("six", f="making"), under_way, {}), "who leads is not known"
