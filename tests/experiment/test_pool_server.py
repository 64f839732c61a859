"""The loop of a served pool goes on whatever it lacks: descriptors, processes, room; and does what waits once that is there."""

from __future__ import annotations

import contextlib
import errno
import os
from types import SimpleNamespace

import pytest

from farwrite.base.errors import UnfitError, UsageError
from farwrite.experiment.pool import server as servers
from farwrite.experiment.pool.placement import Move
from farwrite.experiment.pool.server import TRIES_MAX, PoolServer
from farwrite.experiment.serve.server import RESTART_S_MAX, Failure, Server

NO_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Fails:
    """Does nothing, or what it was told to raise."""

    def __init__(self, *failures):
        self.failures, self.count = list(failures), 0

    def __call__(self, *_):
        self.count += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return []


@pytest.fixture
def made():
    """A pool server all of whose parts are pretended, and what it says."""
    look, tend, let_go, lead, routes = Fails(), Fails(), Fails(), Fails(), Fails()
    document = SimpleNamespace(volumes=[], volume=lambda name: SimpleNamespace(name=name, copy_named=lambda replica: replica))
    pool = SimpleNamespace(document=document, let_go=let_go, move=Fails())
    groups = SimpleNamespace(
        served={"db": SimpleNamespace(look=look)}, rooms=SimpleNamespace(tend=tend), note_loads=Fails(), lead_from=lead,
        moved_s={},
    )  # fmt: skip
    desk = SimpleNamespace(turn=lambda: iter(()), failure="", callers=[])
    routers = SimpleNamespace(look=routes, moves=SimpleNamespace(look=lambda groups: None, figures=[]))
    one = PoolServer(pool, groups, routers, desk, SimpleNamespace(is_quiet=True), SimpleNamespace(tend=Fails()))
    said = []
    one.say = said.append
    return SimpleNamespace(
        server=one, said=said, look=look, tend=tend, let_go=let_go, lead=lead, routes=routes, pool=pool, desk=desk
    )


def test_what_cannot_be_done_now_is_said_once_and_ends_nothing(made):
    made.look.failures = [NO_FILES] * 3
    made.tend.failures = [UnfitError("there is no room.")] * 2
    made.routes.failures = [NO_FILES] * 2
    made.let_go.failures = [UnfitError("write pool.json: No space left on device.")] * 2
    made.desk.failure = "Too many open files, so who calls here waits."
    for _ in range(4):
        made.server.turn()
    assert sorted(sentence.partition(":")[0] for sentence in made.said) == ["db", "nodes", "pool.sock", "room", "routers"]
    assert made.look.count == made.tend.count == made.let_go.count == made.routes.count == 4
    made.look.failures = [NO_FILES]
    made.server.turn()
    assert len(made.said) == 6, "it is said anew after it had gone"


def test_a_move_of_a_balance_that_cannot_be_begun_is_tried_again_and_then_left(made, monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(servers.time, "monotonic", lambda: now.s)
    made.server.queue.extend([Move("db", "a-1", "a", True), Move("x", "b-2", "c"), Move("y", "b-3", "c")])
    made.lead.failures = [UnfitError("nobody leads")] * TRIES_MAX
    made.pool.move.failures = [UsageError("it is not there.")]
    for _ in range(1000):
        now.s += 0.1
        made.server.turn()
    assert made.lead.count == TRIES_MAX and not made.server.queue and made.pool.move.count == 2
    assert made.said == ["volume db is not led at a: nobody leads", "volume x is not moved to c: it is not there."]


def test_a_voter_that_cannot_be_started_is_tried_again_later_and_holds_nothing(monkeypatch):
    said, ended = [], []
    own = contextlib.ExitStack()
    own.callback(ended.append, "closed")
    one = SimpleNamespace(stacks={"near": own}, start=Fails(NO_FILES, UnfitError("it has ended.")), kill=ended.append,
                          say=said.append)  # fmt: skip
    failure = Failure(0.0, 20.0)
    Server.start_again(one, "near", failure)
    assert ended == ["near", "closed"] and one.stacks == {} and failure.pause_s == RESTART_S_MAX and failure.until_s > 0
    Server.start_again(one, "near", failure)
    Server.start_again(one, "near", failure)
    assert "Too many open files" in said[0] and "(it has ended)" in said[1] and said[2] == "near is started again."


def test_a_copy_waits_while_its_node_takes_another_one_and_is_held_up_by_none_that_is_stuck(made, monkeypatch):
    copies = {name: SimpleNamespace(node="c", state=state) for name, state in (("db", "joining"), ("log", "making"))}
    made.pool.document.volumes = [SimpleNamespace(name=name, state="ready", copies=[copy]) for name, copy in copies.items()]
    groups, advanced, doings = made.server.groups, [], []
    groups.served = {name: SimpleNamespace(look=Fails()) for name in copies}
    groups.leads_on, groups.note_doing = (dict), (lambda volume, doing, failure="": doings.append((volume.name, doing)))
    fails = []

    def advance(pool, groups, volume):
        advanced.append(volume.name)
        if fails and volume.name == "db":
            raise fails[0]
        return "goes on"

    monkeypatch.setattr(servers, "advance", advance)
    made.server.turn()
    made.server.turn()
    assert advanced == ["db", "db"] and ("log", "waits until a node has another copy whole") in doings
    copies["db"].state = "in"
    made.server.turn()
    assert advanced[2:] == ["db", "log"]
    copies["db"].state = "joining"
    fails.append(UnfitError("its disk does not answer."))
    for _ in range(4):  # It is tried again ever more seldom.
        made.server.turn()
        made.server.patience["db"].until_s = 0.0
    advanced.clear()
    made.server.turn()
    assert "log" in advanced
