"""A group of a striped volume moves behind its router: what the pool makes, adopts and deletes, and what a kill at any step
leaves. Groups and the router are models; what the router really does is in test_passes.py."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_pool_steps import (  # noqa: F401  (small: for every test here)
    FakeGroup,
    Instants,
    Killed,
    check,
    nodes,
    settle,
    small,
)

from farwrite.base.errors import UnfitError, UsageError
from farwrite.experiment.pool.control import (
    Cancel,
    CreateVolume,
    DeleteVolume,
    MigrateGroup,
    ResizeVolume,
    SetLevel,
    carry_out,
)
from farwrite.experiment.pool.moves import GroupMoves
from farwrite.experiment.pool.router_record import Record, record_of, save_record
from farwrite.experiment.pool.steps import AtRest, NotNowError, Pool, create, opened
from farwrite.experiment.serve.control import CancelMove, GroupMove, MoveGroup, ShowMove

MIB = 1 << 20
MS = 1_000_000
SECOND = ("c", "d")


class FakeRouter:
    """A router as the pool sees it: a move takes three looks, and the new home is written down at the second."""

    def __init__(self, pool):
        self.pool, self.state, self.looks, self.is_alive, self.is_cancelled = pool, None, 0, True, False

    def ask(self, stripe, request):
        if not self.is_alive:
            raise NotNowError("nobody answers")
        if isinstance(request, MoveGroup):
            homes = [volume.name for volume in self.pool.document.volumes]
            assert request.to in homes, "it is to move to what is not there"
            self.state, self.looks = GroupMove(request.group, request.to), 0
        elif isinstance(request, CancelMove):
            self.is_cancelled = True
        elif isinstance(request, ShowMove) and self.state is not None and not self.state.is_over:
            self.look(self.pool.document.stripe(stripe))
        return self.state

    def look(self, stripe):
        self.looks += 1
        self.state.doing, self.state.passes = f"pass {self.looks}", self.looks
        if self.looks == 2 and not self.is_cancelled:
            path = self.pool.record_of(stripe)
            save_record(path, Record(homes=record_of(path).homes | {self.state.group: self.state.to}))
            self.state.hold_begin_ns, self.state.hold_end_ns = 10 * MS, 14 * MS
        if self.looks == 3:
            self.state.is_over, self.state.refusal = True, "The move is given up." if self.is_cancelled else ""

    def restarted(self):
        self.state, self.is_alive = None, True


def served(pool, group):
    """A pool with a router: the moves of its groups."""
    found = GroupMoves(pool, Path("/nowhere"))
    router = FakeRouter(pool)
    found.ask = router.ask
    group.routers = SimpleNamespace(
        moves=found, end_router=lambda stripe: None, resize_router=lambda stripe: None, router=router
    )  # fmt: skip
    return group


def new_pool(place, groups=2):
    """A pool of four nodes, and a striped volume whose first group lies on a and b."""
    made = create(place, "san", nodes("a@near", "b@far", "c@near", "d@far"))
    carry_out(made, CreateVolume("st", 4 * MIB, "10", False, 8 * MIB, groups=groups, chunk_bytes=MIB), AtRest())
    carry_out(made, CreateVolume("db", MIB, "10"), AtRest())
    group = FakeGroup(made)
    for volume in made.document.volumes:
        group.begin(volume)
    assert {copy.node for copy in made.document.volume("st.0").copies} == {"a", "b"}
    return made, served(made, group)


@pytest.fixture
def pool(tmp_path):
    return new_pool(tmp_path / "san")


def migrate(pool, group, volume="st.0", to=SECOND, by="passes", pause_ns=300 * MS):
    return carry_out(pool, MigrateGroup(volume, list(to), by, pause_ns), group, deque()).replica


def until_over(group):
    moves = group.routers.moves
    for _ in range(10):
        if not moves.under_way:
            return moves.figures[-1]
        moves.look(group)
    raise AssertionError("it does not come to an end")


def names(pool):
    return {volume.name for volume in pool.document.volumes}


def test_the_new_home_is_made_adopted_and_the_old_one_is_gone(pool):
    pool, group = pool
    assert migrate(pool, group) == "st.2" and names(pool) == {"db", "st.0", "st.1", "st.2"}
    made = pool.document.volume("st.2")
    assert {copy.node for copy in made.copies} == set(SECOND) and made.size_bytes == 2 * MIB and made.room_bytes == 4 * MIB
    moved = until_over(group)
    assert pool.document.stripe("st").members() == ["st.2", "st.1"] and names(pool) == {"db", "st.1", "st.2"}
    assert (moved.volume, moved.replaces, moved.replica, moved.node, moved.failure) == ("st", "st.0", "st.2", "c, d", "")
    assert moved.whole_ns and moved.switch_end_ns - moved.switch_begin_ns == 4 * MS and moved.passes == 3
    # What is done to the volume is done to its members of now, and the next home is not the one that was.
    carry_out(pool, ResizeVolume("st", 6 * MIB), group)
    carry_out(pool, SetLevel("st", "10+1"), group)
    settle(pool, group)
    assert migrate(pool, group, "st.1", ("a", "b", "c")) == "st.0"
    until_over(group)
    assert pool.document.stripe("st").members() == ["st.2", "st.0"]
    check(pool)
    carry_out(pool, DeleteVolume("st"), group)
    assert names(pool) == {"db"} and not pool.record_of(SimpleNamespace(name="st")).exists()


def test_a_volume_of_one_group_is_named_itself(tmp_path):
    pool, group = new_pool(tmp_path / "one", groups=1)
    assert migrate(pool, group, "st") == "st.1"
    until_over(group)
    assert pool.document.stripe("st").members() == ["st.1"]


@pytest.mark.parametrize(("words", "said"), [
    (("st", SECOND), r"striped over 2: migrate one of its members, as st\.0"),
    (("db", SECOND), "has no router .* --groups 1"),
    (("st.7", SECOND), 'has no volume "st.7"'),
    (("nothing", SECOND), 'has no volume "nothing"'),
    (("st.0", ("c",)), "level 10, so all of it takes 2 nodes"),
    (("st.0", ("c", "d", "a")), "level 10, so all of it takes 2 nodes"),
    (("st.0", ("c", "c")), "two copies on one node"),
    (("st.0", ("c", "x")), 'has no node "x"'),
    (("st.0", ("a", "c")), "site far would have none"),
])  # fmt: skip
def test_what_cannot_move_is_refused_with_a_sentence_before_anything_is_made(pool, words, said):
    pool, group = pool
    before = (pool.directory / "pool.json").read_bytes()
    with pytest.raises(UsageError, match=said):
        migrate(pool, group, *words)
    assert (pool.directory / "pool.json").read_bytes() == before


def test_a_node_without_room_or_that_leaves_takes_nothing(pool):
    pool, group = pool
    pool.document.node("d").is_leaving = True
    with pytest.raises(UsageError, match="Node d is being removed"):
        migrate(pool, group)
    pool.document.node("d").is_leaving = False
    pool.document.node("c").capacity_bytes = 400 << 10
    with pytest.raises(UsageError, match=r"Node c has .* free"):
        migrate(pool, group)


def test_a_pool_at_rest_moves_nothing(pool):
    with pytest.raises(UsageError, match="start farwrite pool serve"):
        carry_out(pool[0], MigrateGroup("st.0", list(SECOND), "passes", MS), AtRest())


def test_while_a_group_moves_its_volume_keeps_its_size_and_level_and_no_other_group_moves(pool):
    pool, group = pool
    migrate(pool, group)
    for request in (ResizeVolume("st", 6 * MIB), SetLevel("st", "10+1")):
        with pytest.raises(UsageError, match="A group of volume st moves"):
            carry_out(pool, request, group)
    with pytest.raises(UsageError, match="moves already"):
        migrate(pool, group, "st.1", ("a", "b"))
    until_over(group)
    carry_out(pool, ResizeVolume("st", 6 * MIB), group)


def test_what_the_router_refuses_leaves_no_new_home(pool):
    pool, group = pool

    def refuse(stripe, request):
        raise UsageError("Snapshots do not move with a group.")

    group.routers.moves.ask = refuse
    with pytest.raises(UsageError, match="Snapshots do not move"):
        migrate(pool, group)
    assert names(pool) == {"db", "st.0", "st.1"} and not group.routers.moves.under_way


@pytest.mark.parametrize("looks", range(4))
def test_one_that_is_given_up_leaves_the_home_that_the_router_has_written_down(pool, looks):
    pool, group = pool
    migrate(pool, group)
    for _ in range(looks):
        group.routers.moves.look(group)
    if group.routers.moves.under_way:
        assert carry_out(pool, Cancel("st.0"), group, deque()).replica == "st.2"
        moved = until_over(group)
        assert bool(moved.failure) == (looks < 2)
    check(pool)
    assert names(pool) == {"db", "st.1", "st.0" if looks < 2 else "st.2"} == {"db", *pool.document.stripe("st").members()}
    with pytest.raises(UsageError, match=r"No copy of volume st\.1 is on its way"):
        carry_out(pool, Cancel("st.1"), group, deque())


@pytest.mark.parametrize("looks", [1, 2])
def test_a_router_that_dies_is_waited_for_and_its_record_decides(pool, looks):
    pool, group = pool
    moves, router = group.routers.moves, group.routers.router
    migrate(pool, group)
    for _ in range(looks):
        moves.look(group)
    router.is_alive = False
    for _ in range(3):
        moves.look(group)
    assert moves.under_way and names(pool) == {"db", "st.0", "st.1", "st.2"}, "nothing is known of it yet"
    router.restarted()
    moved = until_over(group)
    assert pool.document.stripe("st").members()[0] == ("st.0" if looks == 1 else "st.2") and bool(moved.failure) == (looks == 1)
    assert names(pool) == {"db", *pool.document.stripe("st").members()}


def test_a_volume_that_is_deleted_takes_both_homes_along(pool):
    pool, group = pool
    migrate(pool, group)
    carry_out(pool, DeleteVolume("st"), group)
    assert names(pool) == {"db"} and until_over(group).failure == "The volume was deleted."


def test_a_move_that_is_killed_between_any_two_steps_leaves_one_home(tmp_path, monkeypatch):
    at, ended, homes = 1, False, []
    while not ended:
        place = tmp_path / str(at)
        pool, group = new_pool(place)
        with monkeypatch.context() as patch:
            instants = Instants(patch, at)
            for owner, name in ((FakeRouter, "ask"), (Pool, "settle_homes")):
                patch.setattr(owner, name, instants.counted(getattr(owner, name)))
            group = served(pool, group)
            try:
                migrate(pool, group)
                until_over(group)
                ended = True
            except Killed:
                pass
        with opened(place) as again:
            settle(again, group.reopened(again))
            check(again)
            members = again.document.stripe("st").members()
            assert names(again) == {"db", *members}, "a home of nobody"
            homes.append(members[0])
            written = record_of(again.record_of(again.document.stripe("st"))).homes
            assert written.get(0, "st.0") == members[0], "the router would go elsewhere"
            wanted = {"st.0": {"a", "b"}, "st.2": set(SECOND)}[members[0]]
            assert {copy.node for copy in again.document.volume(members[0]).copies} == wanted
        at += 1
    assert homes == sorted(homes) and {"st.0", "st.2"} == set(homes) and at > 12


def test_a_record_that_names_no_volume_refuses_the_pool_by_a_sentence(pool):
    pool, _ = pool
    save_record(pool.record_of(pool.document.stripe("st")), Record(homes={1: "st.9"}))
    with pytest.raises(UnfitError, match=r"is in st\.9, and there is none"), opened(pool.directory):
        pass
