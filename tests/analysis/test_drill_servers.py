"""The pauses of a drill's virtual servers, held against the plainest way to find them."""

import io
import random

import msgspec
import pytest
from rich.console import Console

from farwrite.analysis.drill_answer import answer_of
from farwrite.analysis.drill_recording import ACKED, FAILED, History
from farwrite.analysis.drill_servers import pauses_of, server_of
from farwrite.report.drill import show_drill
from farwrite.report.page import Page
from farwrite.workload.drill_scenario import Event
from make_drill import BACK, KILL, MS, recording, trial


def shared(*trials, servers=5):
    made = recording(*trials)
    return msgspec.structs.replace(made, scenario=msgspec.structs.replace(made.scenario, servers=servers))


@pytest.mark.parametrize("seed", range(40))
def test_a_pause_lasts_until_a_write_of_the_server_that_was_due_then_or_later_is_acknowledged(seed):
    draw = random.Random(seed)
    rows = []
    for number in range(60):
        intended, acked = 10 * number, draw.random() < 0.6
        rows.append((draw.randrange(7), intended, intended + draw.randrange(1, 90), ACKED if acked else FAILED))
    block, intended, done, outcome = (list(column) for column in zip(*rows, strict=True))
    history = History(block=block, intended_ns=intended, sent_ns=intended, done_ns=done, connection=[0] * 60, outcome=outcome)
    begin, end = sorted(draw.sample(range(600), 2))
    expected = []
    for server in range(3):
        waits = []
        for at in range(60):
            if block[at] < 6 and block[at] % 3 == server and begin <= intended[at] < end:
                later = [done[other] for other in range(at, 60)
                         if block[other] < 6 and block[other] % 3 == server and outcome[other] == ACKED]
                waits.append(min(later) - intended[at] if later else None)
        expected.append(None if None in waits else max(waits, default=0))
    assert pauses_of(msgspec.structs.replace(trial(0), history=history), 3, 6, begin, end) == expected


def test_each_server_sees_the_outage_and_none_more_than_it_and_its_own_next_write():
    answer = answer_of(shared(trial(0)))
    assert [one.event for one in answer.pauses] == ["kill near"]
    for pause in answer.pauses[0].longest_ns:
        assert BACK - KILL - 60 * MS < pause < BACK - KILL + 120 * MS
    assert answer.pauses[0].never == 0


def test_a_pause_begins_with_the_write_that_was_under_way_at_the_event():
    answer = answer_of(shared(trial(0, gap_ns=50 * MS)))
    assert answer.pauses[0].longest_ns == [BACK + 3 * MS - (KILL - 50 * MS)] * 5


def test_a_server_that_is_never_served_again_is_counted_as_one_and_said_to_be():
    made = shared(trial(0, back_ns=None))
    answer = answer_of(made)
    assert answer.pauses[0].never == 5
    file = io.StringIO()
    show_drill(Page(Console(file=file, width=100)), made, answer)
    assert "did not end" in file.getvalue() and "5 servers saw a pause that did not end" in file.getvalue()


def test_a_drill_without_servers_says_nothing_of_them_and_every_block_has_one_owner():
    assert answer_of(recording(trial(0))).pauses == []
    assert {server_of(block, 100) for block in range(512)} == set(range(100))


@pytest.mark.parametrize("before_ns, shares", [(500 * MS, False), (0, True)])
def test_a_write_that_the_next_event_holds_up_is_no_pause_of_the_one_before(before_ns, shares):
    made = trial(0, gap_ns=50 * MS)
    (kill,) = made.events
    first = msgspec.structs.replace(kill, text="heal near - far", begin_ns=kill.begin_ns - before_ns)
    made = shared(msgspec.structs.replace(made, events=[first, kill]))
    events = (Event(action="heal", at_ns=KILL - before_ns, link=("near", "far")), *made.scenario.event)
    made = msgspec.structs.replace(made, scenario=msgspec.structs.replace(made.scenario, event=events))
    healed, killed = answer_of(made).pauses
    assert killed.longest_ns == [BACK + 3 * MS - (KILL - 50 * MS)] * 5
    assert healed.longest_ns == (killed.longest_ns if shares else [3 * MS] * 5)
