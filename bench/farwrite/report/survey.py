"""The proof of a link for a person: what was asked beside what is delivered, and what the error is made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rich.console import Console
from rich.table import Table

from ..base.units import format_rate, format_time
from ..lab.proof import OneWay, Proof
from .page import STYLE, WORD, Form, Page, add_row, table_of


def show_proof(proof: Proof, console: Console) -> None:
    """All of it."""
    page = Page(console)
    besides = f", {proof.asked_besides}" if proof.asked_besides else ""
    route = f", glass {proof.route_factor:g} times as long" if proof.route_factor != 1 else ""
    page.heading(f"farwrite survey: {proof.miles:g} miles{route}{besides}")
    facts = "".join(f" · {name}: {words}" for name, words in proof.facts.items())
    page.prose(f"link {proof.link}: {proof.reason}{facts}", style="dim")
    page.heading("Asked and delivered")
    page.table(partial(proof_table, proof))
    if proof.outward is None:
        page.prose("Stream-level: a relay knows no packets, so delay each way, loss, order and rate are unknown.", style="dim")
    page.heading("What the error is made of")
    page.table(partial(error_table, proof))
    own = format_time(proof.errors.kernel_stack_ns)
    page.prose(f"Scheduler: {proof.errors.scheduler_by}. Packets are held {own} less, the emulation's fastest own.", style="dim")
    page.heading("Verdict")
    for refusal in proof.refusals:
        page.item(WORD["fail"], refusal, style=STYLE["fail"])
    if not proof.refusals:
        page.item(WORD["pass"], "the link delivers what was asked of it", style=STYLE["pass"])


def proof_table(proof: Proof, form: Form) -> Table:
    table = table_of(form, "", "asked", "delivered")
    for row in proof_rows(proof):
        add_row(table, *row)
    return table


def proof_rows(proof: Proof) -> Iterator[tuple[str, str, str]]:
    """(what, asked, delivered)."""
    rtt = proof.rtt
    yield "round trip, median", format_time(proof.asked_rtt_ns), format_time(rtt.p50_ns)
    yield "round trip, fastest and p99", "", f"{format_time(rtt.min_ns)} to {format_time(rtt.p99_ns)}"
    yield "echo between processes, median", "", format_time(proof.echo.p50_ns)
    yield "the same at 0 miles", "", format_time(proof.base_rtt.p50_ns)
    for name, made in (("outward", proof.outward), ("homeward", proof.homeward)):
        if made is not None:
            yield from direction_rows(name, made)
    if proof.tcp_bits_per_s is not None:
        yield "TCP, one connection outward", "", format_rate(proof.tcp_bits_per_s)


def direction_rows(name: str, made: OneWay) -> Iterator[tuple[str, str, str]]:
    """The rows of one direction."""
    direction, delay = made.asked, made.delay
    if delay is not None:
        yield f"{name}, delay at the median", format_time(made.asked_delay_ns), format_time(delay.p50_ns)
        yield f"{name}, fastest and p99", "", f"{format_time(delay.min_ns)} to {format_time(delay.p99_ns)}"
        asked = format_time(direction.jitter_ns) if direction.has_jitter else "none"
        yield f"{name}, deviation", asked, format_time(delay.deviation_ns)
    wanted = direction.bursts.loss_ratio if direction.bursts else direction.loss_ratio
    interval = f"[{made.loss_low:.3%}, {made.loss_high:.3%}]"
    yield f"{name}, lost of {made.sent:,}", f"{wanted:.3%}", f"{made.loss_ratio:.3%} {interval}"
    if direction.bursts:
        mean = made.burst_packets_mean
        yield (
            f"{name}, packets a burst", f"{1 / direction.bursts.leave_ratio:.3g}",
            f"{mean:.3g}, at most {made.burst_packets_max}" if mean else "no burst",
        )  # fmt: skip
    yield f"{name}, reordered", f"{direction.reorder_ratio:.3%} ahead" if direction.reorder_ratio else "none", f"{made.reordered}"
    yield f"{name}, came twice", f"{direction.duplicate_ratio:.3%}" if direction.duplicate_ratio else "none", f"{made.duplicates}"
    if direction.rate_bits_per_s and made.rate_bits_per_s is not None:
        yield f"{name}, rate by {made.rate_by}", format_rate(direction.rate_bits_per_s), format_rate(made.rate_bits_per_s)


def error_table(proof: Proof, form: Form) -> Table:
    table = table_of(form, "part", "us", "of 2 ms")
    errors = proof.errors
    parts = (
        ("emulation: median less asked", errors.emulation_ns), ("scheduler", errors.scheduler_ns), ("sum", errors.sum_ns),
    )  # fmt: skip
    for name, part_ns in parts:
        add_row(table, name, f"{part_ns / 1000:.1f}", f"{part_ns / errors.claim_ns:.1%}")
    return table
