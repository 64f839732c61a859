"""`farwrite export` as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import farwrite, fresh_farwrite

BASELINE = Path(__file__).parents[2] / "results" / "baselines" / "limits.json"


def test_a_log_and_a_distribution_of_one_cell_are_written(tmp_path):
    words = ["--hlog", tmp_path / "x.hlog", "--hgrm", tmp_path / "x.hgrm", "--cell", "write-C-20"]
    done = fresh_farwrite("export", BASELINE, *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"saved: {tmp_path / 'x.hgrm'}\nsaved: {tmp_path / 'x.hlog'}\n"
    assert "Tag=write-C-20" in (tmp_path / "x.hlog").read_text() and "write-A" not in (tmp_path / "x.hlog").read_text()
    assert "Percentile TotalCount 1/(1-Percentile)" in (tmp_path / "x.hgrm").read_text()
    assert farwrite("import", tmp_path / "x.hlog").returncode == 0


def test_several_cells_are_a_file_each(tmp_path):
    done = farwrite("export", BASELINE, "--hgrm", tmp_path / "all", "--cell", "write-C-20", "--cell", "write-A-20")
    assert done.returncode == 0
    assert sorted(item.name for item in (tmp_path / "all").iterdir()) == ["write-A-20.hgrm", "write-C-20.hgrm"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--hlog OUT"),
        (["--hlog", "x.hlog", "--cell", "write-C-21"], 'did you mean "write-C-20"'),
        (["--hgrm", "x.hgrm"], "Name a directory, or one --cell"),
        (["--hlog", "absent/x.hlog"], "Name another place"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, words, said):
    done = farwrite("export", BASELINE, *words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
