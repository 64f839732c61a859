"""What the lab tests share: a small lab, and a skip that gives the system's own reason where a lab is forbidden."""

import functools
import os
import time
from contextlib import ExitStack, contextmanager

import pytest

from farwrite.base.errors import UnfitError
from farwrite.experiment.compilation import compile_all
from farwrite.lab.lab import LabSpec, open_lab

PATIENCE_S = 60
LINK = os.environ.get("FARWRITE_LINK", "auto")
IN_UML = bool(os.environ.get("FARWRITE_UML"))  # There everything a lab needs is loaded: nothing may be skipped.
# What no link has a part in need not be proven again on the slow processor in there.
any_link = pytest.mark.skipif(IN_UML, reason="the same on any link; proven outside")
FORBIDDEN = ("unshare(", "No way to emulate a distance", "/dev/net/tun", "no netem")


def small(link=LINK, directory=None):
    """The smallest lab, in memory unless a directory is named."""
    return LabSpec(
        link=link, near=directory, far=directory, journal_bytes=16 << 20, volume_bytes=16 << 20, congestion="cubic"
    )


@functools.cache
def link_here():
    """The emulation that a lab here must have: the one asked for, or of what the doctor finds possible by itself the first."""
    from farwrite.lab.doctor.emulation import links_of, places

    possible = links_of(places())
    assert possible[0] == "netem" or not IN_UML
    return LINK if LINK != "auto" else possible[0]


@functools.cache
def compiled():
    """Every kernel is machine code, as before a real run: what is forked from here has it already."""
    return compile_all()


@contextmanager
def lab_or_skip(spec):
    """open_lab(spec); where this system forbids it the test is skipped with the sentence."""
    compiled()
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(open_lab(spec))
        except UnfitError as refusal:
            skip_if_forbidden(refusal)
            raise
        yield lab


def skip_if_forbidden(refusal):
    """Skip for what the system forbids; anything else is a failure."""
    if not IN_UML and any(words in str(refusal) for words in FORBIDDEN):
        pytest.skip(str(refusal))


def load_begun(near, board):
    """Once the first write has completed; a failure when the near process answers before, or never writes."""
    limit_s = time.monotonic() + PATIENCE_S
    while not board.counters[0].completed:
        assert not near.poll(0.0005), f"the load ended before its first write: {near.answer()}"
        assert time.monotonic() < limit_s, "no write has completed"
