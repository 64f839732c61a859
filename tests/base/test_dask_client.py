"""Waiting for a cluster's answers: those that come are given at once, and a worker that is gone is not waited for."""

import pytest

from farwrite.base import dask_client
from farwrite.base.dask_client import as_they_come
from farwrite.base.errors import UnfitError


class Pinned:
    """A future that is done after so many looks, or never."""

    def __init__(self, looks):
        self.looks = looks

    def done(self):
        self.looks -= 1
        return self.looks < 0


class Cluster:
    def __init__(self, *alive):
        self.alive = alive

    def scheduler_info(self, n_workers):
        return {"workers": dict.fromkeys(self.alive)}


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(dask_client, "LOOK_S", 0.0)


def test_answers_are_given_as_they_come():
    slow, quick = Pinned(300), Pinned(2)
    assert list(as_they_come(Cluster("a", "b"), {slow: "a", quick: "b"})) == [quick, slow]


def test_a_worker_that_is_gone_is_not_waited_for():
    never, quick = Pinned(10**9), Pinned(2)
    waiting = as_they_come(Cluster("b"), {never: "tcp://a", quick: "b"})
    assert next(waiting) is quick
    with pytest.raises(UnfitError, match=r"tcp://a is gone.*--resume"):
        next(waiting)
