"""The file of single writes holds what the load saw, cut to what completed, and opens as an array."""

import numpy as np
import pytest

from farwrite.base.errors import UnfitError
from farwrite.targets import samples
from farwrite.workload.plan import from_arrays


def plan_of(count):
    return from_arrays(np.arange(count) * 1000, np.arange(count) * 4096, np.full(count, 512))


def test_a_file_holds_the_plan_and_the_times_and_only_what_completed(tmp_path):
    path = tmp_path / "samples" / "write-C-20-0-1.npy"
    with samples.samples_of(str(path), plan_of(10)) as room:
        for number in range(7):
            room[number, 1:4] = 100 * number, 100 * number + 5, 100 * number + 50
    kept = np.load(path, mmap_mode="r")
    assert kept.shape == (7, len(samples.COLUMNS)) and kept.dtype == np.int64
    assert kept[:, 0].tolist() == list(range(7))
    assert kept[6].tolist() == [6, 600, 605, 650, 512, 1]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_round_in_which_nothing_completed_leaves_an_empty_array(tmp_path, count):
    with samples.samples_of(str(tmp_path / "x.npy"), plan_of(count)) as room:
        assert room.shape == (count, 6)
    assert np.load(tmp_path / "x.npy").shape == (0, 6)


def test_a_file_is_cut_even_when_the_round_fails(tmp_path):
    with pytest.raises(RuntimeError), samples.samples_of(str(tmp_path / "x.npy"), plan_of(5)) as room:
        room[0, 1:4] = 1, 2, 3
        raise RuntimeError
    assert np.load(tmp_path / "x.npy").shape == (1, 6)


def test_no_name_is_no_file_and_no_room():
    with samples.samples_of("", plan_of(3)) as room:
        assert room is None


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnfitError, match=r"run\.samples"), samples.samples_of(str(tmp_path / "file" / "x.npy"), plan_of(3)):
        pass
