"""Room of a served pool: limits on the boards follow from what is counted, and together never come to more than a node has."""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace

import pytest

from farwrite.engine.frontend.iscsi.store import AREA_BYTES
from farwrite.experiment.pool import placement, rooms, steps
from farwrite.experiment.pool.document import StorageNode
from farwrite.experiment.pool.rooms import Rooms
from farwrite.experiment.pool.steps import AtRest, create
from farwrite.experiment.serve.replica import BOARD_WORDS, figures_of
from farwrite.lab.shared_memory import board

MIB = 1 << 20
CAPACITY = 400 * MIB


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(placement, "JOURNAL_BYTES", MIB)
    monkeypatch.setattr(rooms, "JOURNAL_BYTES", MIB)
    monkeypatch.setattr(rooms, "TEND_S", 0.0)
    monkeypatch.setattr(steps, "LOCK_S", 0.0)


class Fake:
    """The replicas of a volume, of which every one has counted what the volume takes."""

    def __init__(self, stack, volume):
        self.volume, self.stack, self.boards = volume, stack, {}
        self.follow()

    def follow(self):
        for copy in self.volume.copies:
            if copy.replica not in self.boards:
                self.boards[copy.replica] = self.stack.enter_context(board(BOARD_WORDS))
        self.replicas = tuple(copy.replica for copy in self.volume.copies)

    def leader(self):
        return self.replicas[0]

    def is_up(self, name):
        return True

    @property
    def limit(self):
        (limit,) = {int(figures_of(self.boards[name]).room[0]["limit"]) for name in self.replicas}
        return limit

    def take(self, size):
        """As much as its limit allows."""
        took = min(self.took + size, self.limit, self.volume.size_bytes)
        for name in self.replicas:
            figures_of(self.boards[name]).room[0]["allocated"] = max(took, 0)

    @property
    def took(self):
        return int(figures_of(self.boards[self.replicas[0]]).room[0]["allocated"])


@pytest.fixture
def made(tmp_path):
    with contextlib.ExitStack() as stack:
        pool = create(tmp_path / "san", "san", [StorageNode(name, site, CAPACITY) for name, site in
                                                (("a", "near"), ("b", "far"), ("c", "near"))])  # fmt: skip
        for name in ("x", "y"):
            pool.create_volume(name, 1024 * MIB, "10", False, 1024 * MIB, AtRest())
        said = []
        served = {volume.name: Fake(stack, volume) for volume in pool.document.volumes}
        yield SimpleNamespace(pool=pool, served=served, rooms=Rooms(pool, said.append), said=said, stack=stack)


def test_limits_are_there_before_a_replica_runs_and_never_come_to_more_than_a_node_has(made):
    made.rooms.open(made.served)
    story = random.Random(3)
    for _ in range(200):
        for group in made.served.values():
            group.take(story.randint(-64, 96) * MIB)
        made.rooms.tend(made.served)
        for node in made.pool.document.nodes:
            here = [made.served[volume.name] for volume, _ in made.pool.document.copies_on(node.name)]
            assert sum(max(group.limit, group.took) for group in here) <= CAPACITY
    assert all(group.limit > 0 for group in made.served.values())


def test_a_volume_that_is_made_grown_moved_and_deleted_is_followed(made):
    made.rooms.open(made.served)
    volume = made.pool.create_volume("z", 64 * MIB, "10", True, 128 * MIB, AtRest())
    made.served["z"] = Fake(made.stack, volume)
    made.rooms.tend(made.served)
    assert made.served["z"].limit == 64 * MIB + AREA_BYTES  # All of it at once.
    made.pool.resize_volume("z", 96 * MIB, AtRest())
    made.rooms.tend(made.served)
    assert made.served["z"].limit == 96 * MIB + AREA_BYTES
    copy = made.pool.move("z", next(name for name in ("a", "c") if volume.copy_on(name) is None))
    copy.state = "joining"
    made.served["z"].follow()
    made.rooms.tend(made.served)
    assert len(made.rooms.ledger.shares["z"].nodes) == 3 and made.served["z"].limit == 96 * MIB + AREA_BYTES
    made.served.pop("z")
    made.pool.delete_volume("z", AtRest())
    made.pool.add_nodes([StorageNode("d", "far", CAPACITY)])
    made.rooms.tend(made.served)
    assert "z" not in made.rooms.ledger.shares and "d" in made.rooms.ledger.sizes and made.said == []


def test_a_disk_that_others_fill_grants_no_more_than_it_has(made, monkeypatch):
    """Otherwise replicas would find it full when they apply what was answered, and end."""
    free = 4096 * MIB
    monkeypatch.setattr(rooms.os, "statvfs", lambda _: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    made.rooms.open(made.served)
    assert made.rooms.ledger.room_of("a").size == CAPACITY - MIB * len(made.pool.document.copies_on("a"))
    for group in made.served.values():
        group.take(50 * MIB)
    free = 200 * MIB + rooms.KEPT_FREE_BYTES
    for _ in range(4):
        made.rooms.tend(made.served)
    for node in made.pool.document.nodes:
        here = [made.served[volume.name] for volume, _ in made.pool.document.copies_on(node.name)]
        assert sum(group.limit - group.took for group in here) <= 200 * MIB // 3  # Three nodes share one file system.
    free = 4096 * MIB
    made.rooms.tend(made.served)
    assert made.rooms.ledger.room_of("a").size == CAPACITY - MIB * len(made.pool.document.copies_on("a"))


def test_what_there_is_no_room_for_is_said_once(made):
    made.rooms.open(made.served)
    for group in made.served.values():
        group.take(CAPACITY)
    for _ in range(6):
        made.rooms.tend(made.served)
        for group in made.served.values():
            group.take(CAPACITY)
    volume = made.pool.create_volume("z", 256 * MIB, "10", True, 256 * MIB, AtRest())
    made.served["z"] = Fake(made.stack, volume)
    for _ in range(3):
        made.rooms.tend(made.served)
    assert "z" not in made.rooms.ledger.shares and len(made.said) == 1 and "reserved" in made.said[0]
