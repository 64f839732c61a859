"""A pool's changes: what is refused before anything moves, and what a kill between any two steps leaves."""

from __future__ import annotations

import contextlib
import errno
import json
import random
from pathlib import Path

import pytest

from farwrite.base.errors import FarwriteError, UnfitError, UsageError
from farwrite.experiment.pool import document as documents
from farwrite.experiment.pool import placement, steps
from farwrite.experiment.pool.document import NODES, VOTERS, StorageNode, load, wrong_with
from farwrite.experiment.pool.steps import AtRest, NotNowError, Pool, advance, create, opened
from farwrite.experiment.serve.volume_files import BALLOT
from farwrite.workload.drill_scenario import SITES

MIB = 1 << 20


class Killed(BaseException):
    """Everything was killed at this instant."""


class FakeGroup:
    """Groups as the voters remember them: which replicas there are, which are whole, who leads. A kill ends processes alone."""

    def __init__(self, pool):
        self.pool, self.known, self.members, self.leads, self.running = pool, {}, {}, {}, set()
        self.numbers = {}

    def begin(self, volume):
        if self.numbers.get(volume.name) != volume.number:  # Another one of this name: its voters are new.
            self.numbers[volume.name] = volume.number
            self.known.pop(volume.name, None)
            self.members.pop(volume.name, None)
        names = [copy.replica for copy in volume.copies if copy.state in ("joining", "in", "leaving")]
        self.running |= {(volume.name, name) for name in names}
        self.known.setdefault(volume.name, set(volume.founders))
        members = self.members.setdefault(volume.name, set(volume.founders))
        assert members & set(names), f"{volume.name} has no whole copy left"
        self.elect(volume)

    def end(self, volume):
        self.running = {one for one in self.running if one[0] != volume.name}

    def resize(self, volume):
        pass

    def elect(self, volume):
        may = sorted(name for name in self.members[volume.name] if (volume.name, name) in self.running)
        if self.leads.get(volume.name) not in may:
            self.leads[volume.name] = may[0]

    def start(self, volume, copy):
        directory = self.pool.copy_directory(volume, copy)
        assert all((directory / name).exists() for name in ("journal", "volume", "snapshots", "ballot")), "half-made files"
        self.running.add((volume.name, copy.replica))

    def stop(self, volume, copy):
        assert copy.replica not in self.known[volume.name], "its group still waits for it"
        self.running.discard((volume.name, copy.replica))

    def leader(self, volume):
        return self.leads[volume.name]

    def has(self, volume, copy):
        return copy.replica in self.known[volume.name]

    def add(self, volume, copy):
        assert (volume.name, copy.replica) in self.running
        self.known[volume.name].add(copy.replica)
        self.whole_after = 2

    def is_whole(self, volume, copy):
        assert copy.replica in self.known[volume.name]
        self.whole_after -= 1
        if self.whole_after <= 0:
            self.members[volume.name].add(copy.replica)
        return copy.replica in self.members[volume.name]

    def hand_over(self, volume, to):
        assert to in self.members[volume.name]
        self.leads[volume.name] = to

    def remove(self, volume, copy):
        assert self.leads[volume.name] != copy.replica and self.members[volume.name] != {copy.replica}
        self.known[volume.name].discard(copy.replica)
        self.members[volume.name].discard(copy.replica)

    def reopened(self, pool):
        """After a kill: the voters remember, and every copy of the document that may run does."""
        self.pool, self.running, self.whole_after = pool, set(), 2
        for volume in pool.document.volumes:
            self.begin(volume)
        return self


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(placement, "JOURNAL_BYTES", 256 << 10)
    monkeypatch.setattr(steps, "LOCK_S", 0.0)


def nodes(*words):
    """Nodes from "a@near" and the like, 1 GiB each."""
    return [StorageNode(word.partition("@")[0], word.partition("@")[2], 1 << 30) for word in words]


@pytest.fixture
def pool(tmp_path):
    made = create(tmp_path / "san", "san", nodes("a@near", "b@far", "c@near"))
    made.create_volume("db", 4 * MIB, "10", False, 8 * MIB, AtRest())
    return made


def settle(pool, group, limit=200):
    """Everything that is to be done."""
    for _ in range(limit):
        done = [advance(pool, group, volume) for volume in tuple(pool.document.volumes)]
        if not any(done) and not pool.let_go():
            return
    raise AssertionError("it does not come to rest")


def check(pool):
    """What holds after every opening: the document is one, and lies on the disks as it says."""
    assert wrong_with(pool.document) == ""
    assert load(pool.directory) == pool.document
    for volume in pool.document.volumes:
        assert volume.state == "ready" and volume.counting()
        for copy in volume.copies:
            if copy.state != "making":
                directory = pool.copy_directory(volume, copy)
                assert {path.name for path in directory.iterdir()} == {"journal", "volume", "snapshots", "ballot"}
        assert all((pool.voter_directory(volume, site) / BALLOT).exists() for site in SITES)
    listed = {pool.copy_directory(volume, copy) for volume in pool.document.volumes for copy in volume.copies}
    kept = {path for node in pool.document.nodes for path in pool.node_directory(node).iterdir() if path.is_dir()}
    assert kept <= listed, "files of nobody"
    votes = {path.name for site in SITES for path in (pool.directory / VOTERS / site).glob("*")}
    assert votes <= {volume.name for volume in pool.document.volumes}


def where(volume):
    return sorted(copy.node for copy in volume.copies)


def test_a_pool_is_made_opened_again_and_holds_what_was_put_into_it(tmp_path, pool):
    with opened(tmp_path / "san") as found:
        check(found)
        assert [node.name for node in found.document.nodes] == ["a", "b", "c"]
        volume = found.document.volume("db")
        assert {found.document.node(copy.node).site for copy in volume.copies} == {"near", "far"}
        with pytest.raises(UnfitError, match="is open already"), opened(tmp_path / "san"):
            pass
        found.delete_volume("db", AtRest())
        check(found)
    assert not any((tmp_path / "san" / NODES / name / "db").exists() for name in "abc")


@pytest.mark.parametrize(("change", "said"), [
    (lambda pool: create(pool.directory, "san", []), "holds a pool already"),
    (lambda pool: pool.add_nodes(nodes("a@near")), "has a node a already"),
    (lambda pool: pool.add_nodes(nodes("d@near", "d@far")), "has a node d already"),
    (lambda pool: pool.add_nodes(nodes("D-1@near")), "is no name for a node"),
    (lambda pool: pool.create_volume("db", MIB, "0", False, MIB, AtRest()), "has a volume db already"),
    (lambda pool: pool.create_volume("../x", MIB, "0", False, MIB, AtRest()), "is no name for a volume"),
    (lambda pool: pool.create_volume("x", MIB, "10+2", False, MIB, AtRest()), "needs 4 nodes"),
    (lambda pool: pool.create_volume("x", 2 << 30, "10", True, 2 << 30, AtRest()), "free"),
    (lambda pool: pool.delete_volume("x", AtRest()), 'no volume "x"'),
    (lambda pool: pool.resize_volume("db", 16 * MIB, AtRest()), "can grow to 8 MiB"),
    (lambda pool: pool.resize_volume("db", MIB, AtRest()), "is known while it is served"),
    (lambda pool: pool.set_level("db", "10+2"), "needs 4 nodes"),
    (lambda pool: pool.remove_node("x"), 'no node "x"'),
    (lambda pool: pool.remove_node("b"), "would have no copy at site far|would lose its level"),
    (lambda pool: pool.keep_node("a"), "is not being removed"),
    (lambda pool: pool.move("db", "b"), "has a copy of volume db already"),
    (lambda pool: pool.move("db", "x"), 'no node "x"'),
    (lambda pool: pool.move("x", "a"), 'no volume "x"'),
    (lambda pool: pool.move("db", "c", pool.document.volume("db").copy_on("b").replica), "would have none at site far"),
    (lambda pool: pool.cancel("db"), "is on its way any more"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence_before_anything_has_changed(pool, change, said):
    before = (pool.directory / documents.POOL).read_bytes()
    with pytest.raises(UsageError, match=said):
        change(pool)
    assert (pool.directory / documents.POOL).read_bytes() == before
    check(pool)


def test_a_directory_that_somebody_has_is_no_nodes(tmp_path, pool):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("here")
    with pytest.raises(UsageError, match="is not empty"):
        pool.add_nodes([StorageNode("d", "near", 1 << 30, str(other))])
    with pytest.raises(UsageError, match="belongs to a pool already"):
        create(tmp_path / "second", "second", [StorageNode("a", "near", 1 << 30, str(tmp_path / "san" / NODES / "c"))])
    assert not (tmp_path / "second").exists() and (other / "mine").exists()
    assert len(load(pool.directory).nodes) == 3


def test_a_copy_moves_to_another_node_and_a_move_that_is_given_up_leaves_the_volume_as_it_was(pool):
    group = FakeGroup(pool)
    volume = pool.document.volume("db")
    group.begin(volume)
    before = [(copy.replica, copy.node) for copy in volume.copies]
    free = next(name for name in ("a", "c") if volume.copy_on(name) is None)
    pool.move("db", free)
    with pytest.raises(UsageError, match="is changing already"):
        pool.move("db", free)
    for _ in range(3):
        advance(pool, group, volume)
    pool.cancel("db")
    settle(pool, group)
    assert [(copy.replica, copy.node) for copy in volume.copies] == before
    check(pool)
    pool.move("db", free)
    settle(pool, group)
    assert where(volume) == sorted(["b", free]) and group.members["db"] == {copy.replica for copy in volume.copies}
    check(pool)


def test_a_level_is_raised_and_lowered_and_a_node_drained_one_copy_after_the_other(pool):
    group = FakeGroup(pool)
    for name in ("x", "y"):
        pool.create_volume(name, MIB, "10", False, MIB, group)
    group.begin(pool.document.volume("db"))
    pool.set_level("db", "10+1")
    settle(pool, group)
    assert where(pool.document.volume("db")) == ["a", "b", "c"]
    pool.set_level("db", "10")
    settle(pool, group)
    assert len(where(pool.document.volume("db"))) == 2 and "b" in where(pool.document.volume("db"))
    pool.remove_node("a")
    settle(pool, group)
    assert [node.name for node in pool.document.nodes] == ["b", "c"] and not (pool.directory / NODES / "a").exists()
    assert all(where(volume) == ["b", "c"] for volume in pool.document.volumes)
    check(pool)


def test_a_new_level_waits_for_a_leader(pool):
    group = FakeGroup(pool)
    volume = pool.document.volume("db")
    group.begin(volume)
    pool.set_level("db", "10+1")
    advance(pool, group, volume)
    advance(pool, group, volume)
    group.has = lambda *_: (_ for _ in ()).throw(NotNowError("nobody leads"))
    with pytest.raises(NotNowError):
        advance(pool, group, volume)
    del group.has
    settle(pool, group)
    assert len(volume.copies) == 3


# Killed between any two steps


class Instants:
    """Counts what is done to disks and groups; the whole world ends before the one of this number is done."""

    def __init__(self, monkeypatch, at):
        self.count, self.at = 0, at
        for place, name in (
            (steps, "save"), (steps, "remove_tree"), (steps, "disk"), (steps, "ballot_in"), (steps, "format_ballot"),
            (steps, "make_durable"), (documents, "write_atomically"),
            *((FakeGroup, verb) for verb in ("begin", "start", "stop", "add", "hand_over", "remove")),
        ):  # fmt: skip
            monkeypatch.setattr(place, name, self.counted(getattr(place, name)))

    def counted(self, work):
        def done(*arguments, **options):
            self.count += 1
            if self.count == self.at:
                raise Killed
            return work(*arguments, **options)

        return done


def free_node(pool):
    """The near node without a copy of db."""
    return next(name for name in ("a", "c") if pool.document.volume("db").copy_on(name) is None)


def story_of(number):
    """What is asked of a pool with a volume db on two of its nodes."""
    return [
        lambda pool, group: pool.create_volume("new", MIB, "10", False, MIB, group),
        lambda pool, group: pool.delete_volume("db", group),
        lambda pool, group: pool.move("db", free_node(pool)),
        lambda pool, group: pool.set_level("db", "10+1"),
        lambda pool, group: pool.set_level("db", "0"),
        lambda pool, group: pool.remove_node(next(one for one in ("a", "c") if pool.document.volume("db").copy_on(one))),
        lambda pool, group: pool.add_nodes(nodes("d@far")),
    ][number]


@pytest.mark.parametrize("number", range(7))
def test_whatever_is_killed_between_two_steps_is_finished_or_undone_at_the_next_opening(tmp_path, monkeypatch, number):
    """Every instant of every change: the next opening has whole files, files of nobody are gone, and it comes to rest."""
    at, ended = 1, False
    while not ended:
        place = tmp_path / f"{number}-{at}"
        made = create(place, "san", nodes("a@near", "b@far", "c@near"))
        made.create_volume("db", MIB, "10", False, MIB, AtRest())
        group = FakeGroup(made)
        group.begin(made.document.volume("db"))
        # Whichever copy is to leave leads: it hands over first.
        with monkeypatch.context() as patch:
            Instants(patch, at)
            try:
                with opened(place) as pool:
                    group.pool = pool
                    story_of(number)(pool, group)
                    settle(pool, group)
                ended = True
            except Killed:
                pass
        with opened(place) as again:
            settle(again, group.reopened(again))
            check(again)
            for volume in again.document.volumes:
                assert group.members[volume.name] == {copy.replica for copy in volume.copies}
                assert len(volume.copies) == volume.wanted
        at += 1
    assert at > 3


@pytest.mark.parametrize("seed", range(20))
def test_random_stories_with_kills_keep_every_volume_and_come_to_rest(tmp_path, monkeypatch, seed):
    story = random.Random(seed)
    place = tmp_path / "san"
    made = create(place, "san", nodes("a@near", "b@far", "c@near", "d@far", "e@third"))
    made.create_volume("db", MIB, "10", False, 2 * MIB, AtRest())
    group = FakeGroup(made)
    group.begin(made.document.volume("db"))
    for _ in range(6):
        with monkeypatch.context() as patch:
            Instants(patch, story.randint(1, 60))
            with contextlib.suppress(Killed), opened(place) as pool:
                group.reopened(pool)
                for _ in range(4):
                    with contextlib.suppress(UsageError):
                        change = story.randrange(7)
                        if change == 0:
                            level = story.choice(["0", "10", "10+1"])
                            pool.create_volume(f"v{story.randrange(3)}", MIB, level, False, MIB, group)
                        elif change == 1:
                            pool.delete_volume(f"v{story.randrange(3)}", group)
                        elif change == 2:
                            pool.move("db", story.choice("abcde"))
                        elif change == 3:
                            pool.set_level("db", story.choice(["0", "10", "10+1", "10+2"]))
                        elif change == 4:
                            pool.remove_node(story.choice("abcde"))
                        elif change == 5:
                            pool.cancel("db")
                        else:
                            pool.resize_volume("db", story.choice([1, 2]) * MIB, group)
                    for _ in range(story.randint(0, 12)):
                        for volume in tuple(pool.document.volumes):
                            with contextlib.suppress(NotNowError, UsageError):
                                advance(pool, group, volume)
                        pool.let_go()
        with opened(place) as again:
            group.reopened(again)
            assert any(volume.name == "db" for volume in again.document.volumes)
            with contextlib.suppress(UsageError):  # A level that the nodes left cannot give.
                settle(again, group)
            check(again)
            assert all(group.members[volume.name] for volume in again.document.volumes)


# The document


@pytest.mark.parametrize("change", [
    lambda text: text.replace(b'"format": 1', b'"format": 2'), lambda text: text[:-20], lambda text: b"{}",
    lambda text: text.replace(b'"site": "near"', b'"site": "moon"'), lambda text: text.replace(b'"node": "b"', b'"node": "z"'),
    lambda text: text.replace(b'"state": "in"', b'"state": "gone"'),
    lambda text: text.replace(b'"level": "10"', b'"level": "11"'),
    lambda text: text.replace(b'"name": "c"', b'"name": "a"'),
    lambda text: text.replace(b'"size_bytes": 4194304', b'"size_bytes": 5'),
    lambda text: b"[" * 100_000, lambda text: text.replace(b'"port": 7000', b'"port": 7002'), lambda text: b"\xff",
])  # fmt: skip
def test_a_document_that_no_pool_has_is_refused_and_not_written_over(pool, change):
    path = pool.directory / documents.POOL
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(UsageError, match=r"pool\.json"), opened(pool.directory):
        pass
    assert path.read_bytes() == changed


def test_where_no_pool_is_a_sentence_says_so_and_nothing_is_made(tmp_path):
    with pytest.raises(UsageError, match="holds no pool"), opened(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_ports_are_used_again_once_their_replica_is_gone_and_never_twice(pool):
    group = FakeGroup(pool)
    volume = pool.document.volume("db")
    group.begin(volume)
    ports = {volume.port, *(copy.port for copy in volume.copies)}
    for _ in range(5):
        pool.move("db", next(name for name in ("a", "c") if volume.copy_on(name) is None))
        settle(pool, group)
        ports |= {copy.port for copy in volume.copies}
    assert len(ports) <= 4
    assert Path(pool.directory / documents.POOL).stat().st_mode & 0o777 in (0o600, 0o644)


def test_what_was_not_made_for_want_of_room_is_not_there(pool, monkeypatch):
    def refused(*arguments, **options):
        raise UnfitError("write 64 MiB of journal: No space left on device.")

    monkeypatch.setattr(steps, "disk", refused)
    with pytest.raises(UnfitError, match="No space left"):
        pool.create_volume("x", MIB, "10", False, MIB, AtRest())
    check(pool)
    assert [volume.name for volume in load(pool.directory).volumes] == ["db"]
    assert isinstance(Pool(pool.directory, load(pool.directory)), Pool)


# What a disk, an operator or a document does that nobody wanted


class FullDisk:
    """The document cannot be written at this time, and the next."""

    def __init__(self, at):
        self.at, self.count, self.write_really = at, 0, documents.write_atomically

    def write(self, *arguments):
        self.count += 1
        if self.at <= self.count < self.at + 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write_really(*arguments)


@pytest.mark.parametrize("number", range(7))
def test_what_cannot_be_written_down_is_not_done_and_memory_says_what_the_disk_does(tmp_path, monkeypatch, number):
    """At every writing of every change: nothing goes on from what only memory knows of, and it is done once the disk has room."""
    at = 0
    while True:
        at += 1
        place = tmp_path / f"{number}-{at}"
        made = create(place, "san", nodes("a@near", "b@far", "c@near"))
        made.create_volume("db", MIB, "10", False, MIB, AtRest())
        group = FakeGroup(made)
        group.begin(made.document.volume("db"))
        disk = FullDisk(at)
        with monkeypatch.context() as patch:
            patch.setattr(documents, "write_atomically", disk.write)
            for work in (story_of(number), settle, settle):
                try:
                    work(made, group)
                except FarwriteError as refusal:
                    assert "No space left" in str(refusal)
                    assert load(place) == made.document
        if disk.count < at:
            break
        with opened(place) as again:
            settle(again, group.reopened(again))
            check(again)
            for volume in again.document.volumes:
                assert group.members[volume.name] == {copy.replica for copy in volume.copies}
    assert at > 1


def test_two_nodes_never_share_a_directory_and_none_is_the_pools_own(tmp_path):
    disk = tmp_path / "disk"

    def node(name, directory):
        return StorageNode(name, "near", 1 << 30, str(directory))

    san = tmp_path / "san"
    for pair in (
        (node("a", disk), node("b", disk)), (node("a", disk), node("b", disk / "in")), (node("a", tmp_path),),
        (node("a", san), node("b", disk)), (node("a", san / "voters"),), (node("a", disk), node("b", disk / ".." / "disk")),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"lies in|is where the pool itself is kept"):
            create(san, "san", pair)
        assert not san.exists() and not disk.exists()
    pool = create(san, "san", [node("a", disk)])
    (tmp_path / "link").symlink_to(disk)
    with pytest.raises(UsageError, match="lies in"):
        pool.add_nodes([node("b", tmp_path / "link")])


def test_nodes_that_could_not_all_be_added_leave_no_marks(tmp_path, pool):
    (tmp_path / "file").write_text("here")
    with pytest.raises(UnfitError):
        pool.add_nodes([StorageNode("d", "near", 1 << 30, str(tmp_path / "disk")),
                        StorageNode("e", "near", 1 << 30, str(tmp_path / "file" / "disk"))])  # fmt: skip
    assert not (tmp_path / "disk").exists() and len(load(pool.directory).nodes) == 3


def test_of_two_that_make_a_pool_in_one_directory_the_second_is_refused(tmp_path, monkeypatch):
    san, real = tmp_path / "san", steps.locked

    def slower(directory):
        monkeypatch.setattr(steps, "locked", real)
        create(san, "san", nodes("z@near"))  # Somebody is faster.
        return real(directory)

    monkeypatch.setattr(steps, "locked", slower)
    with pytest.raises(UsageError, match="holds a pool already"):
        create(san, "san", nodes("a@near"))
    assert [node.name for node in load(san).nodes] == ["z"] and not (san / NODES / "a").exists()


def test_a_node_whose_disk_is_not_mounted_gets_no_copy(pool):
    free = next(name for name in ("a", "c") if pool.document.volume("db").copy_on(name) is None)
    mark = pool.node_directory(pool.document.node(free)) / steps.MARK
    mark.unlink()
    group = FakeGroup(pool)
    group.begin(pool.document.volume("db"))
    with pytest.raises(UnfitError, match=f"Node {free}: .* does not hold the mark of pool san: mount its disk"):
        pool.create_volume("x", MIB, "10+1", False, MIB, AtRest())
    pool.move("db", free)
    with pytest.raises(UnfitError, match="mount its disk"):
        settle(pool, group)
    assert not (mark.parent / "db").exists() and [one.name for one in pool.document.volumes] == ["db"]
    mark.write_text(f"{pool.document.pool:x}\n")
    settle(pool, group)
    check(pool)


LIES = [None, True, -1, 0, 1 << 63, 1 << 70, 1e300, "", "\u00b2", "a-\u00b2", "a-" + "9" * 5000, "x" * 5000, "\0", "../x", [], {},
        "/tmp/\0", "a\nb", [1], ["a"] * 9]  # fmt: skip


def places_in(part):
    """Every place of a document: what holds it, and its key."""
    for key, value in list(part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()):
        yield part, key
        yield from places_in(value)


@pytest.mark.parametrize("seed", range(4))
def test_a_document_that_lies_or_is_cut_is_opened_or_refused_with_a_sentence(tmp_path, pool, seed):
    story, text = random.Random(seed), (pool.directory / documents.POOL).read_bytes()
    path = tmp_path / documents.POOL
    for _ in range(150):
        lied = json.loads(text)
        part, key = story.choice(list(places_in(lied)))
        part[key] = story.choice(LIES)
        flipped = bytearray(text)
        flipped[story.randrange(len(text))] = story.randrange(256)
        for data in (json.dumps(lied).encode(), bytes(flipped), text[: story.randrange(len(text))]):
            path.write_bytes(data)
            with contextlib.suppress(FarwriteError):
                assert wrong_with(load(tmp_path)) == ""


def test_a_pool_from_before_volumes_had_places_for_reservations_opens_and_is_not_offered_over_iscsi(pool):
    old = json.loads((pool.directory / documents.POOL).read_bytes())
    for volume in old["volumes"]:
        for name in ("area_bytes", "door", "lead"):
            del volume[name]
    (pool.directory / documents.POOL).write_bytes(json.dumps(old).encode())
    with opened(pool.directory) as found:
        volume = found.document.volume("db")
        assert volume.file_bytes == volume.room_bytes and volume.door == 0 and volume.lead == ""
        assert found.create_volume("new", MIB, "0", False, MIB, AtRest()).door == 1


def test_ports_stay_a_volumes_and_are_given_away_again_once_it_is_gone(pool):
    for name in ("x", "y"):
        pool.create_volume(name, MIB, "0", False, MIB, AtRest())
    pool.delete_volume("x", AtRest())
    pool.create_volume("z", MIB, "0", False, MIB, AtRest())
    assert {volume.name: volume.door for volume in load(pool.directory).volumes} == {"db": 0, "y": 2, "z": 1}


def test_who_was_to_lead_is_followed_by_the_copy_that_takes_its_place(pool):
    group, volume = FakeGroup(pool), pool.document.volume("db")
    group.begin(volume)
    leading = next(copy for copy in volume.copies if copy.node != "b")
    pool.set_lead(volume, leading.replica)
    pool.move("db", free_node(pool), leading.replica)
    settle(pool, group)
    assert volume.lead == load(pool.directory).volume("db").lead == volume.copy_on("a" if leading.node == "c" else "c").replica
