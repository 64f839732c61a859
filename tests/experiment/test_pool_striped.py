"""Striped volumes of a pool: what is refused, and what a kill between any two steps of a change leaves."""

from __future__ import annotations

import pytest
from test_pool_steps import (  # noqa: F401  (small: for every test here)
    FakeGroup,
    FullDisk,
    Instants,
    Killed,
    check,
    nodes,
    settle,
    small,
)

from farwrite.base.errors import FarwriteError, UsageError
from farwrite.experiment.pool import document as documents
from farwrite.experiment.pool import striped
from farwrite.experiment.pool.control import (
    CreateVolume,
    DeleteVolume,
    Migrate,
    ResizeVolume,
    SetLevel,
    carry_out,
    figures_of,
)
from farwrite.experiment.pool.steps import AtRest, create, opened

MIB = 1 << 20
MADE = CreateVolume("st", 4 * MIB, "10", False, 8 * MIB, groups=2, chunk_bytes=MIB)


def new_pool(place):
    return create(place, "san", nodes("a@near", "b@far", "c@near", "d@far"))


@pytest.fixture
def pool(tmp_path):
    made = new_pool(tmp_path / "san")
    carry_out(made, CreateVolume("db", MIB, "10"), AtRest())
    carry_out(made, MADE, AtRest())
    return made


def test_its_members_are_ordinary_volumes_on_different_nodes_and_are_listed_as_its_parts(pool):
    check(pool)
    stripe = pool.document.stripe("st")
    members = pool.members_of(stripe)
    assert [one.name for one in members] == ["st.0", "st.1"] and {one.size_bytes for one in members} == {2 * MIB}
    assert {copy.node for one in members for copy in one.copies} == {"a", "b", "c", "d"}
    figures = {one.name: one for one in figures_of(pool).volumes}
    assert figures["st"].groups == 2 and len(figures["st"].copies) == 4 and figures["st"].size_bytes == 4 * MIB
    assert figures["st.1"].part_of == "st" and figures["db"].part_of == ""


@pytest.mark.parametrize(("request_", "said"), [
    (MADE, "has a volume st already"),
    (CreateVolume("st", MIB, "10"), "has a volume st already"),
    (CreateVolume("db", 4 * MIB, "10", groups=2), "has a volume db already"),
    (CreateVolume("x", 4 * MIB, "10", groups=17), "1 to 16 groups"),
    (CreateVolume("x.0", MIB, "10"), "is no name for a volume"),
    (CreateVolume("x", 4 * MIB, "10+9", groups=2), "0, 10, 10.1 or 10.2"),
    (DeleteVolume("st.0"), "is a part of the striped volume st: delete that one"),
    (ResizeVolume("st.0", 3 * MIB), "is a part of the striped volume st: resize that one"),
    (SetLevel("st.1", "0"), "is a part of the striped volume st: change that one"),
    (ResizeVolume("st", 2 * MIB), "these do not shrink"),
    (ResizeVolume("st", 100 * MIB), "can grow up to 8 MiB"),
    (SetLevel("st", "9"), "0, 10, 10.1 or 10.2"),
    (Migrate("st", "a"), "Copies move while the pool is served|is striped"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence_before_anything_has_changed(pool, request_, said):
    before = (pool.directory / "pool.json").read_bytes()
    with pytest.raises(UsageError, match=said):
        carry_out(pool, request_, AtRest())
    assert (pool.directory / "pool.json").read_bytes() == before


def test_a_level_that_one_member_cannot_have_is_given_to_none(pool, monkeypatch):
    real, asked = striped.Pool.set_level, []

    def set_level(self, name, level):
        asked.append(name)
        if name == "st.1":
            raise UsageError("no room for it")
        return real(self, name, level)

    monkeypatch.setattr(striped.Pool, "set_level", set_level)
    with pytest.raises(UsageError, match="no room for it"):
        carry_out(pool, SetLevel("st", "10+1"), AtRest())
    assert asked == ["st.0", "st.1"] and {one.level for one in pool.document.volumes} == {"10"}
    assert pool.document.stripe("st").level == "10"


REQUESTS = [
    CreateVolume("new", 2 * MIB, "10", False, 2 * MIB, groups=2, chunk_bytes=MIB), DeleteVolume("st"),
    ResizeVolume("st", 6 * MIB), SetLevel("st", "10+1"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_whatever_is_killed_between_two_steps_is_finished_or_undone_at_the_next_opening(tmp_path, monkeypatch, number):
    at, ended = 1, False
    while not ended:
        place = tmp_path / f"{number}-{at}"
        made = new_pool(place)
        carry_out(made, MADE, AtRest())
        group = FakeGroup(made)
        for volume in made.document.volumes:
            group.begin(volume)
        with monkeypatch.context() as patch:
            Instants(patch, at)
            try:
                with opened(place) as pool:
                    group.pool = pool
                    carry_out(pool, REQUESTS[number], group)
                    settle(pool, group)
                ended = True
            except Killed:
                pass
        with opened(place) as again:
            settle(again, group.reopened(again))
            check(again)
            names = {volume.name for volume in again.document.volumes}
            assert names == {name for stripe in again.document.stripes for name in stripe.members()}, "members of nobody"
            for stripe in again.document.stripes:
                members = again.members_of(stripe)
                assert stripe.state == "ready" and {one.level for one in members} == {stripe.level}
                assert all(one.size_bytes * 2 >= stripe.size_bytes for one in members)
                assert all(len(one.copies) == one.wanted for one in members)
        at += 1
    assert at > 3


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_what_cannot_be_written_down_is_finished_or_undone_and_memory_says_what_the_disk_does(tmp_path, monkeypatch, number):
    at, is_over = 0, False
    while not is_over:
        at += 1
        place = tmp_path / f"{number}-{at}"
        made = new_pool(place)
        carry_out(made, MADE, AtRest())
        group, disk = FakeGroup(made), FullDisk(at)
        for volume in made.document.volumes:
            group.begin(volume)
        with monkeypatch.context() as patch:
            patch.setattr(documents, "write_atomically", disk.write)
            try:
                carry_out(made, REQUESTS[number], group)
            except FarwriteError as refusal:
                assert "No space left" in str(refusal)
                assert documents.load(place) == made.document
        is_over = disk.count < at
        with opened(place) as again:
            settle(again, group.reopened(again))
            check(again)
            names = {volume.name for volume in again.document.volumes}
            assert names == {name for stripe in again.document.stripes for name in stripe.members()}, "members of nobody"
            assert all({one.level for one in again.members_of(stripe)} == {stripe.level} for stripe in again.document.stripes)
    assert at > 2
