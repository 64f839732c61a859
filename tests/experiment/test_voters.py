"""Who leads and who runs, as the boards of voters tell it; nothing is started here."""

import contextlib
from types import SimpleNamespace

import pytest

from farwrite.experiment.voters import SEAT_AT, UndecidedError, Voters, names_of, seat_of

WORDS = SEAT_AT + 16


class Idle(Voters):
    """Voters whose processes are made up."""

    def begin(self, made, name, first):
        made.begun.append((name, first))

    def process_at(self, name, site):
        return fake()


def fake():
    made = SimpleNamespace(begun=[], busy=True, ended=False, killed=False)
    made.kill = lambda: setattr(made, "killed", True)
    made.poll = lambda wait_s: made.ended

    def answer(wait_s):
        raise RuntimeError("it was too much")

    made.answer = answer
    return made


@pytest.fixture
def made():
    site = {name: SimpleNamespace(name=name, address=f"10.0.0.{number}") for number, name in enumerate(("near", "far", "third"))}
    spans = [SimpleNamespace(near=site["near"], far=site[name]) for name in ("far", "third")]
    lab = SimpleNamespace(near=site["near"], spans=spans, between=[])
    with contextlib.ExitStack() as stack:
        yield Idle(stack, lab, 2, True, WORDS, {}, {})


def leads(made, name, epoch):
    made.boards[name].counters[0].led_epoch = epoch


def test_a_replica_that_was_killed_or_stopped_leads_no_more_whatever_its_board_says(made):
    assert made.leader() is None
    for name in made.voters:
        made.start(name)
    leads(made, "near", 3)
    assert made.leader() == "near"
    leads(made, "far", 4)
    assert made.leader() == "far"
    process = made.processes["far"]
    made.kill("far")
    assert process.killed and made.leader() == "near"
    made.stopped.add("near")
    assert made.leader() is None and not made.is_up("near")


def test_a_voter_that_is_started_again_begins_with_an_empty_board_and_is_not_stopped(made):
    made.start("near", first=True)
    leads(made, "near", 3)
    seat = seat_of(made.boards["near"])
    seat.ready = seat.joined = seat.in_flight = 5
    made.boards["near"].counters[0].stop = 1
    assert made.have_joined()
    made.stopped.add("near")
    made.kill("near")
    made.start("near")
    assert made.is_up("near") and made.leader() is None and not made.have_joined()
    assert made.boards["near"].counters[0].stop == 0 and (seat.ready, seat.joined, seat.in_flight) == (0, 0, 0)


def test_a_process_that_ends_by_itself_is_noticed_while_anything_is_waited_for(made):
    made.start("far")
    made.processes["far"].ended = True
    with pytest.raises(UndecidedError, match=r"the process of far ended: it was too much"):
        made.until(lambda: False, "what never comes", 5.0)


def test_what_does_not_come_in_time_is_said_by_its_name(made):
    with pytest.raises(UndecidedError, match=r"the end of days did not come within 0\.01 s"):
        made.until(lambda: False, "the end of days", 0.01)
    made.until(lambda: True, "what is there")


def test_the_witness_of_two_replicas_votes_at_the_third_site():
    assert names_of(2, True) == (("near", "far"), ("near", "far", "third"))
    assert names_of(2, False) == (("near", "far"), ("near", "far"))
    assert names_of(3, False) == (("near", "far", "third"),) * 2
