"""The coverage study: intervals hold the truth of rounds that are independent, and two rounds give no fit."""

import coverage_study
import pytest


@pytest.mark.parametrize("world", ["iid", "bimodal"])
def test_intervals_of_five_independent_rounds_hold_the_truth_about_as_often_as_they_say(world):
    found = coverage_study.coverage_of((world, 5, 40, 3))
    for metric in coverage_study.METRICS:
        share = found[metric]
        assert share is not None and share["of"] == 40
        assert share["held"] >= 34, metric  # 95 % of 40 are 38; fewer than 34 come by chance once in 300.


def test_intervals_of_three_rounds_hold_the_truth_of_normal_rounds():
    found = coverage_study.coverage_of(("iid", 3, 40, 3))
    assert min(found[metric]["held"] for metric in coverage_study.METRICS) >= 34


def test_two_rounds_have_no_fit_and_no_miles():
    found = coverage_study.coverage_of(("iid", 2, 10, 3))
    assert [found[metric] for metric in ("k", "a", "greatest miles")] == [None] * 3
    assert found["p50"]["held"] == 10


def test_the_page_has_every_world_and_says_where_intervals_do_not_hold():
    made = coverage_study.study(3, rounds=(3,))
    text = coverage_study.page(made)
    assert all(f"## {name}: " in text for name in coverage_study.WORLDS)
    assert text.count("| greatest miles |") == len(coverage_study.WORLDS)
    assert "of the hour in which the run was made" in text


def test_with_eight_earlier_runs_drifting_runs_are_called_different_about_as_rarely_as_is_stated():
    found = coverage_study.compared_of(("nights", 8, 60, 3))
    assert found["called"]["held"] <= 8  # 5 % of 60 are 3; 9 come by chance once in 300.
    assert found["differs"]["held"] == 0


def test_without_earlier_runs_nothing_is_called_and_the_page_says_so():
    found = coverage_study.compared_of(("nights", 0, 60, 3))
    assert found["called"]["held"] == found["finds"]["held"] == 0
    assert found["differs"]["held"] > 3 and found["p50_beyond_chance"]["held"] > 20
    made = coverage_study.study_of_runs(2, histories=(0, 3))
    text = coverage_study.page_of_runs(made)
    assert all(f"| {name}: " in text for name in coverage_study.MACHINES)
    assert "Without them nothing is called a change" in text and "| none |" in text
