"""The page of first runs says what its rows say."""

import first_run as study

from farwrite.analysis.analyse import analyse
from make_recording import SMALL, made_report

HOST = {"cpu": "a processor", "cpu_count": 2, "kernel": "6.1"}


def row(**changed):
    report = made_report(text=SMALL)
    usual = {"what": "bench", "busy": False, "seconds": 170.0, "exit": 0}
    return usual | study.told(report.recording, analyse(report.recording)) | changed


def test_the_page_counts_what_was_decided_and_names_what_was_not():
    undecided = row(claims={"C1": "unknown", "C2": "fail", "C3": "pass"}, undecided={"C1": "C1 is undecided: too few"}, void=3)
    page = study.page_of({"host": HOST, "rows": [row(), undecided, {**row(busy=True), "seconds": 300.0}]})
    assert "- Idle: C1 decided in 1 of 2 runs, all three claims in 1; 3 of " in page
    assert "- Beside a busy neighbour: C1 decided in 1 of 1 runs" in page
    assert "- C1 is undecided: too few" in page
    assert page.count("\n| 1 | no | pass | fail | pass |") == 1


def test_a_run_without_a_report_is_a_row_with_its_error():
    lost = {"what": "bench", "busy": False, "seconds": 9.0, "exit": 6, "error": "no way"}
    assert "| 1 | no | - | - | - | no way |" in study.page_of({"host": HOST, "rows": [lost]})


def test_tests_have_a_table_of_their_own():
    made = {"what": "test", "busy": True, "seconds": 500.0, "exit": 1, "last": "1 failed", "red": ["tests/x.py::test_y"]}
    assert "| 1 | yes | 1 | 500 | 1 failed | tests/x.py::test_y |" in study.page_of({"host": HOST, "rows": [made]})
