"""The router of a striped volume: its loop among clients and groups from seeds, planted faults, and whoever lies to it."""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest
from router_story import BLOCK, BLOCKS, CHUNK, GROUPS, SIZE, Client, World

from farwrite.engine.frontend import nbd, router_kernel
from farwrite.engine.frontend import router_state as rows
from farwrite.engine.frontend.router_map import map_of, member_bytes

SEEDS = int(os.environ.get("FARWRITE_ROUTER_SEEDS", "12"))
STEPS = 6000
MIB = 1 << 20


def test_no_promise_is_broken_whatever_dies_moves_hangs_up_and_is_taken_apart():
    done = np.zeros(1, rows.Counters.LAYOUT)[0]
    snapshots = 0
    for seed in range(SEEDS):
        world = World(seed)
        try:
            world.run(STEPS)
            snapshots += world.snapshots
            for name in rows.Counters.MEANINGS:
                done[name] += world.state.counters[0][name]
        except BaseException as failure:
            failure.add_note(f"seed {seed}")
            raise
        finally:
            world.close()
    assert done["resent"] and done["lost"] and done["reads"] and done["writes"] and done["errors"] and snapshots


@pytest.mark.parametrize(
    "fault",
    ["chunk served from its old home", "snapshot not at one instant", "an answer before all parts", "a resend that overtakes"],
)
def test_a_planted_fault_is_found(fault):
    for seed in range(100, 100 + 10 * SEEDS):
        world = World(seed, fault)
        try:
            world.run(STEPS)
        except (AssertionError, KeyError):
            return
        finally:
            world.close()
    raise AssertionError(f"not found in {10 * SEEDS} seeds")


# Whoever lies


@pytest.fixture
def world():
    made = World(1)
    yield made
    made.close()


def turns(world, count=5):
    for _ in range(count):
        world.turn()


class Whole:
    """Sends as much at once as it may."""

    choice = staticmethod(max)


def send_all(world, client):
    while client.outbox:
        client.move(Whole)
        world.turn()


def all_is_free(world):
    session = world.state.session
    return (session["free_parts"] == rows.PARTS).all() and (session["free_requests"] == rows.REQUESTS).all()


def test_mutated_answers_of_a_group_end_its_connection_and_answer_nobody_wrongly(world):
    """Every kind of answer with any of its bytes changed, cut short or made up: the connection is closed and made anew, or what
    was said is an answer all the same; the client is never answered but by whole answers, and no row is lost."""
    rng = random.Random(7)
    client, group = world.clients[0], world.groups[0]
    lied = 0
    for _ in range(600):
        kind = rng.randrange(4)
        if kind == 0:
            client.ask(nbd.READ, 0, rng.choice([1, 5000, CHUNK]), about=0)
        elif kind == 1:
            client.ask(nbd.BLOCK_STATUS, 0, BLOCK)
        else:
            client.ask(nbd.TRIM, 0, BLOCK, about=0)
        client.waiting[client.cookie][3] = "mutated"
        send_all(world, client)
        turns(world, 2)
        for connection in group.connections:
            group.take(connection)
        while group.log:
            group.apply()
        for connection, answer in group.done:
            said = bytearray(answer if rng.random() < 0.9 else rng.randbytes(rng.randint(1, 200)))
            for _ in range(rng.choice([0, 1, 1, 2])):
                said[rng.randrange(min(len(said), 40))] = rng.choice([0, 1, 255, rng.randrange(256)])
            connection.socket.send(said[: rng.choice([len(said), rng.randint(1, len(said))])])
        group.done = []
        turns(world, 2)
        if int(world.state.upstream[0].lie):
            lied += 1
        group.die()
        turns(world, 2)
        group.log = []
        world.link(0)
        turns(world, 1)
        for _ in range(40):  # What is asked again is answered now.
            for connection in list(group.connections):
                group.take(connection)
            while group.log:
                group.apply()
            for connection, answer in group.done:
                connection.socket.send(answer)
            group.done = []
            turns(world, 1)
            client.move(Whole)
            if not client.waiting:
                break
        assert not client.waiting and not client.is_over
    assert lied > 100 and int(world.state.counters[0].lied) == lied
    assert all_is_free(world) and int(world.at.parts_open) == 0


def test_mutated_requests_of_clients_end_nothing_and_leave_nothing(world):
    """Headers with any byte changed, payloads that never come, connections that end anywhere; another client is served on."""
    rng = random.Random(9)
    for _ in range(600):
        bad = Client(world, rng.choice([0, 1, 3, 7, 2]))
        said = bytearray()
        for _ in range(rng.randint(1, 6)):
            header = bytearray(
                nbd.REQUEST.pack(
                    nbd.REQUEST_MAGIC, rng.choice([0, 1, 2, 4, 8, 16, 31]), rng.randrange(9), rng.randrange(1 << 62),
                    rng.choice([0, SIZE - 1, rng.randrange(SIZE)]), rng.choice([0, 1, BLOCK, CHUNK, SIZE, 40 * MIB, 0xFFFFFFFF]),
                )
            )  # fmt: skip
            if rng.random() < 0.4:
                header[rng.randrange(28)] = rng.randrange(256)
            said += header + bytes(rng.choice([0, 0, 10, BLOCK, CHUNK]))
        bad.socket.send(said[: rng.randint(1, len(said))])
        turns(world, 1)
        if rng.random() < 0.7:
            bad.socket.close()
        turns(world, 1)
        for group in world.groups:
            for _ in range(8):
                for connection in list(group.connections):
                    group.take(connection)
            while group.log:
                group.apply()
            for connection, answer in group.done:
                connection.answers += answer
            group.done = []
            group.answer()
        if bad.socket.fileno() >= 0:
            bad.socket.close()
    good = world.clients[0]
    for number in range(GROUPS):
        world.groups[number].done = []
        world.fail_over(number)
    world.history = [[] for _ in range(BLOCKS)]  # They have written what they wanted.
    made = world.write(good, 3, 20)
    world.settle(lambda: made.answered is not None)
    world.settle(lambda: int(world.at.parts_open) == 0)
    turns(world)
    assert all_is_free(world) and int(world.state.counters[0].sessions) == len(world.clients)


def test_a_group_that_takes_nothing_more_stops_the_reading_of_who_writes_to_it_alone(world):
    """Memory is bounded by rows: the client is not read from, another one's requests to another group are answered."""
    writer, other = world.clients[0], world.clients[1]
    asked = [world.write(writer, 0, 16) for _ in range(180)]  # 12 MB to the first group.
    for _ in range(600):
        writer.move(Whole)
        turns(world, 1)
    assert writer.outbox and int(world.state.session[0].blocked) and int(world.state.session[0].free_parts) == 0
    made = world.write(other, CHUNK // BLOCK, 4)
    for _ in range(20):
        other.move(Whole)
        turns(world, 1)
        for connection in world.groups[1].connections:
            world.groups[1].take(connection)
        while world.groups[1].log:
            world.groups[1].apply()
        world.groups[1].answer()
    assert made.answered is not None and asked[0].answered is None
    for _ in range(20000):
        writer.move(Whole)
        world.groups[0].step()
        turns(world, 1)
        if not writer.waiting:
            return
    raise AssertionError("not all was answered")


def test_a_client_that_takes_no_answers_holds_its_own_rows_and_nobody_elses(world):
    greedy, other = world.clients[2], world.clients[1]
    for _ in range(50):
        greedy.ask(nbd.READ, 0, SIZE, about=0)
    greedy.socket.send(greedy.outbox)
    for _ in range(1500):
        world.turn()
        for group in world.groups:
            group.step()
    made = world.write(other, 0, 16)
    for _ in range(2000):
        other.move(Whole)
        world.turn()
        for group in world.groups:
            group.step()
    assert made.answered is not None and int(world.state.session[0].free_parts) == rows.PARTS


def test_a_client_whose_group_does_not_answer_in_time_is_hung_up_on_and_told_nothing(world):
    client = world.clients[0]
    world.write(client, 0, 1)
    client.move(Whole)
    send_all(world, client)
    turns(world, 3)
    world.at.limit_ns = 1
    world.at.swept_ns = 0
    turns(world, 2)
    client.move(Whole)
    assert client.is_over and client.waiting
    assert int(world.state.counters[0].late) == 1 and int(world.state.counters[0].late_group) == 0
    world.at.limit_ns = 1 << 60


# Where a byte lies


def test_every_byte_has_one_place_and_groups_are_as_large_as_it_needs():
    for size, chunk, groups in [(1, CHUNK, 3), (SIZE, CHUNK, 3), (SIZE + 1, CHUNK, 5), (CHUNK * 7 - 5, CHUNK, 1)]:
        made = map_of(size, chunk, groups)
        places = set(zip(made.home.tolist(), made.seat.tolist(), strict=True))
        assert len(places) == len(made.home) == -(-size // chunk)
        assert max(seat for _, seat in places) + 1 == member_bytes(size, chunk, groups) // chunk
        shift = chunk.bit_length() - 1
        for address in {0, size // 2, size - 1, min(chunk, size - 1)}:
            group, there = router_kernel.locate(made.home, made.seat, shift, address)
            assert group == address // chunk % groups and there == address // chunk // groups * chunk + address % chunk


def test_a_part_ends_with_its_chunk_and_has_a_piece_of_payload_at_most():
    shift = 17
    rng = random.Random(3)
    for _ in range(300):
        begin = rng.randrange(1 << 20)
        end = begin + rng.randint(1, 1 << 18)
        command = rng.choice([nbd.READ, nbd.WRITE, nbd.TRIM])
        chunk_end = (begin // (1 << shift) + 1) * (1 << shift)
        most = rows.PIECE_BYTES if command != nbd.TRIM else 1 << 40
        assert router_kernel.part_size(command, begin, end, shift) == min(end - begin, chunk_end - begin, most)


def test_the_cookie_of_an_earlier_use_of_a_row_is_nobodys(world):
    client = world.clients[0]
    world.write(client, 0, 1)
    send_all(world, client)
    turns(world, 3)
    (connection,) = world.groups[0].connections
    world.groups[0].take(connection)
    cookie = world.groups[0].log[0][2]
    connection.socket.send(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, cookie - (1 << 32)))
    turns(world)
    client.move(Whole)
    assert client.waiting and int(world.state.upstream[0].lie) == rows.LIE_COOKIE
    assert struct.unpack(">q", struct.pack(">Q", cookie))[0] == cookie > 0
