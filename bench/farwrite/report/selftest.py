"""The gate's self-test in the terminal: its false-alarm rate, and the smallest slow-down that each budget sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..gate.self_test import POWER, SelfTest, Share, Sight
from .page import STYLE, Form, Page, add_row, table_of

if TYPE_CHECKING:
    from rich.console import Console


def show_self_test(made: SelfTest, console: Console) -> None:
    """Print the whole of it."""
    page = Page(console)
    level = made.alpha / made.looks
    kept = made.false_alarms.low <= level
    word, style = ("✔ KEPT", STYLE["pass"]) if kept else ("✘ EXCEEDED", STYLE["fail"])
    page.heading("The gate tested on itself")
    page.prose(
        Text(f"{word}  ", style=style).append(
            f"false alarms of the whole gate: {share_text(made.false_alarms)} of {made.replays} replays with nothing changed; "
            f"at most {level:.1%} is promised",
            style="bold",
        )
    )
    replayed = [item for item in made.sights if item.replayed]
    if replayed:
        page.heading("What each budget sees")
        page.table(lambda form: sight_table(replayed, form))
        page.prose(
            f"Sees: the least slow-down of writes that is failed in {POWER:.0%} of the replays, were it the only thing that "
            "changed. Room: how much slower writes may become until the limit is reached. False alarms: failed with "
            "nothing changed, and with the truth exactly at the limit. ○ is only reported, and decides nothing.",
            style="dim",
        )
    exact = sum("without noise" in item.remark for item in made.sights)
    if exact:
        page.prose(f"\n{exact} figures are counted, so without noise: a change of one is seen, and nothing else.")
    for item in made.sights:
        if not item.replayed and "without noise" not in item.remark:
            page.item("·", f"{item.figure}: {item.remark}", style="dim")


def sight_table(sights: Sequence[Sight], form: Form) -> Table:
    """A row a figure, the most short-sighted first."""
    table = table_of(form, "figure", "sees", "room", "false\nalarms", "at the\nlimit")
    for item in sorted(sights, key=lambda one: -(one.smallest_seen or float("inf"))):
        assert item.false_alarms is not None
        add_row(
            table,
            item.figure if item.gating else f"{item.figure} ○",
            "nothing" if item.smallest_seen is None else f"+{item.smallest_seen:.0%}",
            item.room,
            f"{item.false_alarms.ratio:.1%}",
            f"{item.at_limit.ratio:.1%}" if item.at_limit else "",
        )
    return table


def share_text(share: Share) -> str:
    """A share with its interval."""
    return f"{share.ratio:.1%} [{share.low:.1%}, {share.high:.1%}]"
