"""Load decides who leads and where copies lie: evened out within the tolerance, each volume touched once, room left as it is."""

from __future__ import annotations

import contextlib
import random

import pytest

from farwrite.experiment.pool import balance, loads
from farwrite.experiment.pool.balance import TOLERANCE, Measured, Spread, carry_out, plan_load
from farwrite.experiment.pool.document import Copy, Document, StorageNode, Volume, wrong_with
from farwrite.experiment.pool.loads import Load, Meter
from farwrite.experiment.pool.placement import copied, place, plan_balance
from farwrite.experiment.serve.replica import BOARD_WORDS, figures_of
from farwrite.lab.shared_memory import board

GIB = 1 << 30
BYTES = 4096


def pool_of(sites, rates, level="10", size=GIB):
    """(document, what is measured): a volume for each rate, led at its first copy."""
    document = Document(pool=7, name="p", nodes=[StorageNode(f"n{at}", site, 100 * GIB) for at, site in enumerate(sites)])
    leaders, measured = {}, {}
    for number, rate in enumerate(rates, 1):
        volume = Volume(f"v{number}", number, size, size, level, document.free_port(), False, "ready")
        for node in place(document, volume, volume.wanted, {}):
            volume.copies.append(Copy(volume.next_replica(node), node, document.free_port(volume)))
        document.volumes.append(volume)
        leaders[volume.name] = volume.copies[0].replica
        measured[volume.name] = Load(rate, 0.0, rate * BYTES, 0.0)
    return document, Measured(leaders, measured, measured_s=30.0)


def uneven():
    """Eight volumes of unequal load on four nodes, each led at the first of its two."""
    document, measured = pool_of(["near"] * 4, [100, 80, 60, 40, 20, 10, 5, 5])
    first = {name: min(document.volume(name).copies, key=lambda copy: copy.node).replica for name in measured.leaders}
    return document, measured._replace(leaders=first)


def after(document, measured, moves):
    """The spread, and who leads, once these moves are done."""
    there = copied(document)
    leads = {name: there.volume(name).copy_named(replica).node for name, replica in measured.leaders.items()}
    spread = Spread(there, leads, measured.loads)
    for move in moves:
        carry_out(spread, move)
    leaders = {name: there.volume(name).copy_on(node).replica for name, node in spread.leads.items()}
    return spread, measured._replace(leaders=leaders)


def test_eight_volumes_of_unequal_load_on_four_nodes_are_evened_out_by_hand_overs_and_then_stay():
    document, measured = uneven()
    planned = plan_load(document, measured, {})
    spread, now = after(document, measured, planned.moves)
    assert max(after(document, measured, [])[0].ratios().values()) > 1.4
    assert max(spread.ratios().values()) <= 1 + TOLERANCE and all(move.leads for move in planned.moves)
    assert all("requests/s" in move.why and " -> " in move.why for move in planned.moves)
    assert plan_load(spread.document, now, {}).moves == []


@pytest.mark.parametrize("seed", range(60))
def test_a_balance_of_load_touches_each_volume_once_worsens_nothing_and_then_has_nothing_to_do(seed):
    story = random.Random(seed)
    sites = [story.choice(["near", "far"][: story.randint(1, 2)]) for _ in range(story.randint(2, 8))]
    rates = [10 * story.paretovariate(1.1) for _ in range(story.randint(1, 24))]
    document, measured = pool_of(sites, rates, story.choice(["0", "10"]))
    planned = plan_load(document, measured, {}, across_sites=story.random() < 0.3)
    names = [move.volume for move in planned.moves]
    assert len(names) == len(set(names))
    before, (spread, now) = after(document, measured, [])[0].ratios(), after(document, measured, planned.moves)
    ratios = spread.ratios()
    assert max(ratios.values()) <= max(before.values()) + 1e-9 and wrong_with(spread.document) == ""
    assert plan_balance(document, {}) or not plan_balance(spread.document, {}), "room has to be evened out again"
    if max(before.values()) <= 1 + TOLERANCE:
        assert planned.moves == []
    for volume, moved in zip(document.volumes, spread.document.volumes, strict=True):
        sites_of = [{document.node(copy.node).site for copy in one.copies} for one in (volume, moved)]
        assert len(sites_of[1]) >= len(sites_of[0])
    for _ in range(4):  # It comes to rest, though each volume may be touched once at most in a plan.
        again = plan_load(spread.document, now, {})
        spread, now = after(spread.document, now, again.moves)
    assert plan_load(spread.document, now, {}).moves == []


def test_a_volume_is_led_at_its_site_unless_it_may_be_led_elsewhere():
    document, measured = pool_of(["near", "far", "far", "far"], [100, 90, 80, 70])
    at_near = {volume.name: volume.copy_on("n0").replica for volume in document.volumes}
    measured = measured._replace(leaders=at_near)
    stays = plan_load(document, measured, {})
    assert stays.moves == [] and "--across-sites" in stays.said[-1]
    across = plan_load(document, measured, {}, across_sites=True).moves
    assert across and all(move.leads and move.to != "n0" for move in across)


def test_two_copies_are_exchanged_where_one_alone_would_make_room_uneven():
    document, measured = pool_of(["near", "near"], [100, 90, 2, 1], level="0", size=10 * GIB)
    for volume, node in zip(document.volumes, ("n0", "n0", "n1", "n1"), strict=True):
        volume.copies[0].node, volume.copies[0].replica = node, f"{node}-1"
    measured = measured._replace(leaders={volume.name: volume.copies[0].replica for volume in document.volumes})
    planned = plan_load(document, measured, {})
    assert sorted(move.to for move in planned.moves) == ["n0", "n1"] and len(planned.moves) == 2
    spread, _ = after(document, measured, planned.moves)
    assert max(spread.ratios().values()) <= 1 + TOLERANCE and plan_balance(spread.document, {}) == []


def test_what_was_moved_lately_what_room_moves_and_what_is_hardly_any_load_stays():
    document, measured = uneven()
    first = plan_load(document, measured, {}).moves
    assert first
    moved = frozenset(one.volume for one in first)
    assert not moved & {move.volume for move in plan_load(document, measured._replace(resting=moved), {}).moves}
    document.nodes.append(StorageNode("n4", "near", 100 * GIB))
    room = plan_balance(document, {})
    assert room and not {move.volume for move in room} & {move.volume for move in plan_load(document, measured, {}, room).moves}
    idle = measured._replace(loads={name: Load(0.5, 0.0, 100.0, 0.0) for name in measured.loads})
    assert plan_load(document, idle, {}).moves == [] and "hardly any" in plan_load(document, idle, {}).said[0]
    assert "too short" in plan_load(document, Measured({}, {}), {}).said[0]


def test_a_plan_of_the_largest_pool_ends_in_time(monkeypatch):
    monkeypatch.setattr(balance, "PLAN_S", 0.0)
    document, measured = uneven()
    planned = plan_load(document, measured, {})
    assert planned.moves == [] and any("balance again" in sentence for sentence in planned.said)


def test_a_load_is_what_replicas_have_counted_over_the_window_whoever_led():
    meter = Meter()
    with contextlib.ExitStack() as stack:
        boards = {name: stack.enter_context(board(BOARD_WORDS)) for name in ("a-1", "b-2")}
        figures_of(boards["a-1"]).counters[0].writes = 5000  # Before anybody looked.
        for second in range(41):
            meter.note(boards, float(second))
            leader = "a-1" if second < 20 else "b-2"
            figures_of(boards[leader]).counters[0].writes += 10
            figures_of(boards[leader]).counters[0].bytes_written += 10 * BYTES
            figures_of(boards[leader]).counters[0].reads += 4
            if second < loads.MEASURED_S_MIN:
                assert meter.load() is None
        assert meter.load() == Load(10.0, 4.0, 10.0 * BYTES, 0.0) and meter.measured_s() == loads.WINDOW_S
        meter.note({"b-2": boards["b-2"]}, 41.0)  # A copy that is gone takes nothing back.
        assert meter.load().writes == pytest.approx(10.0)
        assert len(meter.samples) <= loads.WINDOW_S / loads.SAMPLE_S + 1
