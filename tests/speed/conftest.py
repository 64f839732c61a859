"""Prints what each speed test measured in absolute numbers, below the table of times."""

import pytest

SAID: dict[str, dict[str, float]] = {}  # test name to its numbers, in the order of the tests


@pytest.fixture
def said():
    """Where a test leaves its numbers."""
    return SAID


def pytest_terminal_summary(terminalreporter):
    if not SAID:
        return
    terminalreporter.section("absolute numbers of this machine, just now")
    for name, numbers in SAID.items():
        terminalreporter.write_line(name.removeprefix("test_").replace("_", " "))
        terminalreporter.write_line("    " + " · ".join(f"{key} {value:,.2f}" for key, value in numbers.items()))
