"""Drills through doors, judged: the route's parts, what the client's sessions saw, answers to nothing, and how it is told."""

import io

import msgspec
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from farwrite.analysis.change import compare
from farwrite.analysis.drill_answer import answer_of
from farwrite.analysis.drill_outage import ROUTE
from farwrite.analysis.drill_recording import AGAIN, FILE, NEVER, read, save
from farwrite.base.errors import EXIT_LOST_WRITE, UnfitError, UsageError
from farwrite.commands.drill import drill
from farwrite.compare.drills import result_set_of_drill
from farwrite.compare.figures import read_result_set
from farwrite.gate.budget import parse
from farwrite.gate.gate import gate
from farwrite.report.drill import show_drill, show_table
from farwrite.report.drill_page import page_of_drill
from farwrite.report.page import Page
from make_drill import KILL, MS, recording, through_door, trial

NBD = recording(through_door(0), through_door(1), door="nbd")


def printed(show, *arguments):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    show(Page(console), *arguments)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_the_route_through_a_door_divides_into_parts_that_add_up():
    found = answer_of(NBD).judged[0].recoveries[0]
    assert found.route == dict(zip(ROUTE, (4 * MS, 2 * MS, 2 * MS, 4 * MS), strict=True))
    assert sum(found.route.values()) == found.phases["route"] == 12 * MS


def test_an_attempt_that_began_before_the_door_was_open_counts_from_its_opening_on():
    near, far = through_door().connections
    early = msgspec.structs.replace(far, dialled_ns=2_143 * MS)
    found = answer_of(recording(through_door(connections=[near, early]), door="nbd")).judged[0].recoveries[0]
    assert found.route == dict(zip(ROUTE, (4 * MS, 0, 4 * MS, 4 * MS), strict=True))


def test_a_drill_without_doors_has_no_route_and_no_sessions():
    made = answer_of(recording(trial()))
    assert made.judged[0].recoveries[0].route is None and not made.sessions and not made.events[0].route_p50
    assert "door" not in printed(show_drill, recording(trial()), made)


def test_a_session_that_an_event_ends_is_told_with_the_writes_that_had_no_answer():
    (found,) = answer_of(NBD).sessions
    assert (found.trials, found.ended, found.moved, found.never) == (2, 2, 2, 0)
    assert found.away_p50.value == found.away_max_ns == 2_152 * MS - (KILL - MS // 2)
    assert found.unanswered_p50.value == found.unanswered_max == 3


def test_a_session_that_nobody_took_up_again_did_not_come_back():
    near, _ = through_door().connections
    made = recording(through_door(connections=[near], history=trial(back_ns=None).history), door="iscsi")
    (found,) = answer_of(made).sessions
    assert (found.ended, found.moved, found.never, found.away_p50.value) == (1, 0, 1, None)
    assert "not back" in printed(show_drill, made, answer_of(made))


def test_a_connection_that_is_left_for_one_that_is_there_already_has_no_time_without_any():
    near, far = through_door().connections
    made = recording(through_door(connections=[msgspec.structs.replace(near, closed_ns=far.opened_ns), far]), door="nbd")
    assert answer_of(made).sessions[0].away_max_ns == 0 and "1 of 1 none none" in printed(show_drill, made, answer_of(made))


def test_an_event_that_ends_no_session_says_so():
    (near, _), made = through_door().connections, through_door(connections=[])
    quiet = msgspec.structs.replace(made, connections=[msgspec.structs.replace(near, closed_ns=NEVER)] * 2)
    answer = answer_of(recording(quiet, door="nbd"))
    assert answer.sessions[0].ended == 0 and "No session ended." in printed(show_drill, recording(quiet, door="nbd"), answer)


def test_what_was_begun_anew_is_no_failed_write_and_may_not_be_in_the_volume():
    made = through_door()
    number = next(at for at, of in enumerate(made.history.outcome) if of == 1)
    again = list(made.history.outcome)
    again[number] = AGAIN
    kept = msgspec.structs.replace(made, history=msgspec.structs.replace(made.history, outcome=again))
    before, after = (answer_of(recording(one, door="iscsi")) for one in (made, kept))
    assert after.availability.failed == before.availability.failed and after.availability.good == before.availability.good - 1
    assert after.damaged == 1, "the door said that it was not done"


def test_answers_to_what_was_not_asked_are_a_fault_of_their_own(tmp_path, capsys):
    made = recording(through_door(strays=2), through_door(1), door="nbd")
    answer = answer_of(made)
    assert answer.outcome == "corrupt" and answer.strays == 2 and not answer.damaged
    text = printed(show_drill, made, answer)
    assert "a door answered what had not been asked" in text and "2 answers of a door to nothing" in text
    save(made, tmp_path / FILE)
    assert drill(str(tmp_path / FILE)) == EXIT_LOST_WRITE
    capsys.readouterr()


@pytest.mark.parametrize(("door", "words"), [("nbd", "the NBD door"), ("iscsi", "the iSCSI door")])
def test_terminal_and_page_name_the_door_and_show_route_and_sessions(door, words):
    made = recording(through_door(0), through_door(1), door=door)
    text = printed(show_drill, made, answer_of(made))
    assert f"through {words}" in text and f"What the route through {words} is made of" in text
    assert "open find connect admit" in text and "4.00 ms 2.00 ms 2.00 ms 4.00 ms" in text
    assert f"What the client's session through {words} saw" in text and "2 of 2 1.15 s 1.15 s 3 3" in text
    page = page_of_drill(made, answer_of(made), "drill.json").decode()
    assert words in page and "What the route through" in page and "session through" in page


def test_a_table_of_drills_says_which_is_through_which_door():
    drills = [(made, answer_of(made)) for made in (NBD, recording(through_door(), door="iscsi"), recording(trial()))]
    text = printed(show_table, drills)
    assert "C, NBD consent" in text and "C, iSCSI consent" in text and " C consent" in text


def test_a_recording_keeps_its_door_and_one_without_says_nothing_of_doors(tmp_path):
    for made in (NBD, recording(trial())):
        assert read(save(made, tmp_path / f"{made.setup.door}{FILE}")) == made
    assert b'"door"' not in (tmp_path / FILE).read_bytes() and b'"door":"nbd"' in (tmp_path / f"nbd{FILE}").read_bytes()


def test_json_has_the_door_the_route_and_the_sessions(tmp_path, capsys):
    save(NBD, tmp_path / FILE)
    assert drill(str(tmp_path / FILE), json=True) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    Draft202012Validator({"type": "object", "required": ["setup", "answer"]}).validate(found)
    assert found["setup"]["door"] == "nbd" and set(found["answer"]["events"][0]["route_p50"]) == set(ROUTE)
    assert found["answer"]["sessions"][0]["unanswered_max"] == 3 and found["answer"]["judged"][0]["recoveries"][0]["route"]


def test_drills_through_another_door_or_none_are_unlike_and_their_figures_name_the_door():
    plain, nbd, iscsi = (
        result_set_of_drill(made, "x") for made in (recording(trial()), NBD, recording(through_door(), door="iscsi"))
    )
    assert nbd.figures[0].labels["door"] == "nbd" and "door" not in plain.figures[0].labels
    compare([nbd], [nbd])
    for other in (plain, iscsi):
        with pytest.raises(UnfitError, match="door"):
            compare([nbd], [other])


def test_budgets_take_drills_through_a_door_by_its_name(tmp_path):
    save(NBD, tmp_path / FILE)
    text = '[[budget]]\nmetric = "lost_writes"\nequals = 0\nwhere = { door = "nbd" }\n'
    (decided,) = gate(read_result_set(tmp_path / FILE), parse(text)).verdicts
    assert decided.verdict == "pass"
    with pytest.raises(UsageError, match='no lost_writes with door "iscsi"; it has "nbd"'):
        gate(read_result_set(tmp_path / FILE), parse(text.replace("nbd", "iscsi")))


@pytest.mark.parametrize(("words", "said"), [
    ({"door": "nbs"}, 'no "nbs" .did you mean "nbd"'), ({"door": "iscsi", "depth": 65}, "64 commands under way at most"),
    ({"door": "nbd", "scenario": ""}, "name a scenario"), ({"door": "nbd", "scenario": "x.json"}, "name a scenario"),
    ({"door": "nbd,iscsi", "page": "x.html"}, "of one drill"), ({"door": ""}, 'no ""'),
])  # fmt: skip
def test_doors_that_cannot_be_are_refused_before_anything_starts(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr("farwrite.commands.drill.played", lambda *_: pytest.fail("it has begun"))
    page = tmp_path / words.pop("page") if "page" in words else None
    with pytest.raises(UsageError, match=said):
        drill(words.pop("scenario", "primary-killed"), page=page, **words)
