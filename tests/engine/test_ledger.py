"""A pool's ledger of room: whatever comes, no byte of a node may be written by two volumes, and a reserved one never waits."""

import random

import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.row import rows_of
from farwrite.engine import room_kernel
from farwrite.engine.room import EXTENT_BYTES, NOT_ONE, Ledger, RoomLevel, whole_extents
from oracle import room_oracle

GIB, STEP = 1 << 30, 4 << 20


def opened(nodes, step=STEP):
    ledger = Ledger(step)
    for name, size in nodes.items():
        ledger.add_node(name, size)
    ledger.open()
    return ledger


class Writer:
    """A volume's replicas as a pool sees them: they take no more than the limit that stands on their boards."""

    def __init__(self, size, limit):
        self.size, self.limit, self.used = size, limit, 0
        self.next = self.late = limit  # the limit that a check under way may still go by

    def write(self, draw):
        may = min(max(self.limit, self.late), self.size) // EXTENT_BYTES * EXTENT_BYTES
        self.used = max(self.used, min(self.used + EXTENT_BYTES * draw.choice((0, 1, 10, 100)), may))

    def trim(self, draw):
        self.used = draw.randrange(self.used // EXTENT_BYTES + 1) * EXTENT_BYTES


@pytest.mark.parametrize("seed", range(60))
def test_no_byte_of_a_node_is_ever_anybody_elses(seed):
    draw = random.Random(seed)
    sizes = {f"n{number}": draw.choice((8, 32, 100)) * STEP for number in range(draw.choice((1, 2, 4)))}
    ledger, pool, writers, nodes = opened(sizes), room_oracle.Pool(sizes), {}, {}

    def obey(limits):
        for name, limit in limits.items():
            if name in writers:
                writers[name].late, writers[name].limit = writers[name].limit, limit

    for turn in range(300):
        event = draw.choice(("write", "write", "write", "note", "note", "note", "trim", "add", "remove", "reclaim", "stop"))
        name = draw.choice(list(writers)) if writers else ""
        if event == "add" and len(writers) < 6:
            name, size = f"v{turn}", draw.choice((3, 20, 500)) * STEP
            on, reserved = tuple(draw.sample(sorted(sizes), draw.randrange(1, len(sizes) + 1))), draw.random() < 0.3
            before = ledger.rooms()
            try:
                limits = ledger.add_volume(name, on, size, reserved)
            except UnfitError:
                assert reserved and ledger.rooms() == before and min(ledger.room_of(node).free for node in on) < size
                continue
            writers[name], nodes[name] = Writer(size, limits[name]), on
            assert not reserved or limits[name] >= size
            obey(limits)
        elif not name:
            continue
        elif event == "stop":  # Its replicas end, or run again.
            obey(ledger.set_served(name, not ledger.shares[name].is_served, dict.fromkeys(nodes[name], writers[name].used)))
            if not ledger.shares[name].is_served:
                writers[name].late = writers[name].limit
        elif not ledger.shares[name].is_served and event != "remove":
            continue
        elif event == "write":
            writers[name].write(draw)
        elif event == "trim":
            writers[name].trim(draw)
        elif event == "note":
            obey(ledger.note(name, dict.fromkeys(nodes[name], writers[name].used), writers[name].limit))
            if draw.random() < 0.5:
                writers[name].late = writers[name].limit
            # A check that was under way is over by the second note: the replica was looked at in between.
            if ledger.shares[name].confirmed > 1:
                writers[name].late = writers[name].limit
        elif event == "remove" and draw.random() < 0.3:
            writers.pop(name)
            obey(ledger.remove_volume(name))
        elif event == "reclaim":
            obey(ledger.reclaim())
        shares = [(nodes[one], max(ledger.limit_of(one), writer.used)) for one, writer in writers.items()]
        shares = [(on, 0 if may == NOT_ONE else may) for on, may in shares]
        assert pool.is_sound(shares), turn
        for node, size in sizes.items():
            room = ledger.room_of(node)
            assert room.set_aside <= size and room.free >= 0 and room.used <= room.set_aside
            assert room.promised == sum(writers[one].size for one in writers if node in nodes[one])
        for one, writer in writers.items():
            assert ledger.limit_of(one) == writer.limit and ledger.limit_of(one) <= whole_extents(writer.size)
            if ledger.shares[one].is_granted and ledger.shares[one].used == dict.fromkeys(nodes[one], writer.used):
                left = ledger.limit_of(one) - writer.used
                is_full = any(ledger.room_of(node).free < EXTENT_BYTES for node in nodes[one])
                assert left >= min(STEP, whole_extents(writer.size) - writer.used) or is_full, "it is granted before it needs it"


def test_a_volume_is_granted_ahead_of_what_it_uses_until_its_smallest_node_is_full():
    ledger = opened({"large": GIB, "small": 10 * STEP})
    assert ledger.add_volume("v", ("large", "small"), 100 * GIB) == {"v": STEP}
    for used in range(0, 10 * STEP + 1, STEP // 4):
        ledger.note("v", {"large": used, "small": used}, ledger.limit_of("v"))
        assert min(used + STEP, 10 * STEP) <= ledger.limit_of("v") <= 10 * STEP
    assert ledger.room_of("small").free == 0 and ledger.room_of("small").is_short and not ledger.room_of("large").is_short
    assert ledger.warn_of("v") == 1 and ledger.room_of("small").promised == 100 * GIB
    assert ledger.resize_node("small", 12 * STEP) == {"v": 11 * STEP}


def test_a_reserved_volume_has_all_of_its_size_at_once_or_is_refused_and_changes_nothing():
    ledger = opened({"a": 10 * STEP, "b": 10 * STEP})
    assert ledger.add_volume("thick", ("a", "b"), 8 * STEP + 1, reserved=True)["thick"] == 8 * STEP + EXTENT_BYTES
    with pytest.raises(UnfitError, match=r"node a has .* not set aside"):
        ledger.add_volume("second", ("a",), 3 * STEP, reserved=True)
    thin = ledger.add_volume("thin", ("a",), GIB)["thin"]
    ledger.note("thin", {"a": thin}, thin)
    assert ledger.room_of("a").free == 0 and ledger.limit_of("thin") == 2 * STEP - EXTENT_BYTES
    assert ledger.warn_of("thick") == 0, "it cannot run out"


def test_what_is_lowered_is_free_once_two_notes_have_told_of_it():
    ledger = opened({"a": 8 * STEP})
    ledger.add_volume("v", ("a",), GIB)
    for used in (STEP, 2 * STEP, 4 * STEP, 6 * STEP):
        ledger.note("v", {"a": used}, ledger.limit_of("v"))
    assert ledger.limit_of("v") == 7 * STEP
    ledger.note("v", {"a": STEP}, 7 * STEP)
    assert ledger.reclaim() == {"v": 3 * STEP}
    for limit, free in ((7 * STEP, STEP), (3 * STEP, STEP), (3 * STEP, 5 * STEP)):
        ledger.note("v", {"a": STEP}, limit)
        assert ledger.room_of("a").free == free


def test_a_volume_that_nobody_serves_holds_no_more_than_it_takes():
    ledger = opened({"a": 4 * STEP})
    for name in "stuvwxyz":
        ledger.add_volume(name, ("a",), 2 * STEP, is_served=False)
    assert ledger.room_of("a").set_aside == 0
    for name in "stuvwxyz":  # One after the other, as far as there is room for all.
        assert ledger.set_served(name, True)[name] == min(STEP, 4 * STEP - ledger.room_of("a").used)
        assert ledger.set_served(name, False, {"a": STEP // 2}) == {name: STEP // 2}
    assert ledger.room_of("a").set_aside == ledger.room_of("a").used == 4 * STEP


def test_what_idle_volumes_were_granted_goes_to_the_one_that_is_written():
    volumes, size = [f"v{number}" for number in range(12)], 12 * STEP
    ledger = opened({"a": size})
    limits = {}
    for name in volumes:
        limits |= ledger.add_volume(name, ("a",), size)
    assert ledger.room_of("a").free == 0 and set(limits.values()) == {STEP}
    used = 0
    for _ in range(400):
        used = min(used + STEP // 8, limits["v0"] if limits["v0"] > NOT_ONE else 0)
        for name in volumes:
            limits |= ledger.note(name, {"a": used if name == "v0" else 0}, limits[name])
        assert sum(limits.values()) <= size
    assert used > 0.9 * size, "all but some extents of each"


def test_a_pool_is_opened_from_what_its_volumes_take_before_anything_is_granted():
    ledger = Ledger(STEP)
    ledger.add_node("a", 10 * STEP)
    ledger.add_volume("one", ("a",), GIB, used={"a": 5 * STEP})
    ledger.add_volume("two", ("a",), GIB, used={"a": 4 * STEP + 1})
    assert ledger.room_of("a").free == STEP - EXTENT_BYTES
    limits = ledger.open()
    assert sum(limits.values()) == 10 * STEP and limits["one"] >= 5 * STEP and limits["two"] > 4 * STEP


def test_room_for_a_replica_that_moves_is_set_aside_or_refused():
    ledger = opened({"a": 10 * STEP, "b": 3 * STEP})
    ledger.add_volume("v", ("a",), GIB)
    ledger.note("v", {"a": 4 * STEP}, STEP)
    with pytest.raises(UnfitError, match="node b has not free"):
        ledger.set_nodes("v", ("a", "b"))
    ledger.resize_node("b", 20 * STEP)
    ledger.set_nodes("v", ("b",))
    assert ledger.room_of("a").set_aside == 0 and ledger.room_of("b").set_aside == 5 * STEP
    with pytest.raises(UsageError, match="move them first"):
        ledger.remove_node("b")
    ledger.remove_node("a")


def test_what_snapshots_keep_takes_room_of_the_node_and_none_of_the_volume():
    ledger = opened({"a": 20 * STEP})
    ledger.add_volume("thin", ("a",), 3 * STEP)
    ledger.add_volume("thick", ("a",), 3 * STEP, reserved=True)
    for name in ("thin", "thick"):
        ledger.note(name, {"a": 2 * STEP}, ledger.limit_of(name), 0, {"a": 4 * STEP})
        assert ledger.limit_of(name) == 3 * STEP, "it may be written to its end"
    room = ledger.room_of("a")
    assert (room.used, room.set_aside, room.free) == (12 * STEP, 14 * STEP, 6 * STEP)
    ledger.add_volume("other", ("a",), GIB)
    for used in range(0, 10 * STEP, STEP // 2):
        ledger.note("other", {"a": min(used, ledger.limit_of("other"))}, ledger.limit_of("other"))
    assert ledger.limit_of("other") == 6 * STEP
    ledger.note("thin", {"a": 2 * STEP}, 3 * STEP, 0, {"a": 0})
    assert ledger.limit_of("other") == 7 * STEP, "deleting a snapshot gives it to whoever writes"
    # Of a pool that is opened, and of a volume that moves.
    again = Ledger(STEP)
    again.add_node("a", 4 * STEP)
    again.add_node("b", 4 * STEP)
    again.add_volume("thin", ("a",), GIB, used={"a": STEP}, kept={"a": 2 * STEP})
    assert again.open() == {"thin": 2 * STEP} and again.room_of("a").free == 0
    again.set_nodes("thin", ("b",))
    assert again.room_of("b").set_aside == 2 * STEP and again.room_of("b").used == 0


def test_the_time_until_a_node_is_full_follows_from_the_notes_of_late():
    ledger = opened({"a": 100 * STEP})
    ledger.add_volume("v", ("a",), GIB)
    assert ledger.full_in_ns() is None
    for second in range(21):
        ledger.note("v", {"a": second * STEP}, None, 1 + second * 10**9)
        ledger.note("v", {"a": second * STEP}, None, 2 + second * 10**9)  # However often it is told.
    assert ledger.full_in_ns() == 80 * 10**9 and len(ledger.samples) == 21


@pytest.mark.parametrize("does, says", [
    (lambda ledger: ledger.add_node("a", 1), "a node a already"),
    (lambda ledger: ledger.add_volume("v", ("a",), 1), "a volume v already"),
    (lambda ledger: ledger.add_volume("w", ("a", "x"), 1), "no node x"),
    (lambda ledger: ledger.add_volume("w", (), 1), "needs a size and nodes"),
    (lambda ledger: ledger.note("w", {}), "no volume w"),
    (lambda ledger: ledger.resize_volume("v", 1), "smaller"),
    (lambda ledger: Ledger(1000), "multiple"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(does, says):
    ledger = opened({"a": 10 * STEP})
    ledger.add_volume("v", ("a",), STEP)
    before = ledger.rooms()
    with pytest.raises(UsageError, match=says):
        does(ledger)
    assert ledger.rooms() == before


def test_levels_are_told_once_and_again_after_room_was_given_back():
    count, level = rows_of(room_kernel.Count)[0], RoomLevel()
    count.limit, count.warn = 10 * EXTENT_BYTES, 8 * EXTENT_BYTES
    count.allocated, count.kept = 8 * EXTENT_BYTES, 99 * EXTENT_BYTES
    assert level.news(count) == "", "what snapshots keep comes on top"
    count.allocated += EXTENT_BYTES
    assert "above its warning level" in level.news(count) and level.news(count) == ""
    count.allocated, count.refused = 10 * EXTENT_BYTES, 1
    assert "are refused" in level.news(count) and level.news(count) == ""
    count.refused = 2
    assert level.news(count) == ""
    count.allocated = 5 * EXTENT_BYTES
    assert level.news(count) == ""
    count.allocated, count.refused = 10 * EXTENT_BYTES, 3
    assert "are refused" in level.news(count)
