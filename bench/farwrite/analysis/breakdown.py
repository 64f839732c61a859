"""The parts of a cell: each operation of each job in each phase, with its own response times and rate."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..base.units import NS_PER_S
from ..recording import Cell, Part, Round
from .estimate import Draws, mean_over_rounds
from .latency import Pool
from .result import Estimate, PartResult
from .sample import decode_known


def part_results(cell: Cell, rounds: Sequence[Round], draws: Draws, late: Pool) -> list[PartResult]:
    """All parts that any round has, in the order of the profile. `late`: of all I/Os of the cell."""
    keys = dict.fromkeys(key_of(part) for item in rounds for part in item.parts)
    return [part_result(cell, rounds, key, draws, late) for key in keys]


def latency(cell: Cell, times: Pool, late: Pool, q: float) -> Estimate:
    """A quantile of times that count from the intended instant. In a closed loop that is when the caller was free: there is no
    instant to miss, and what it takes to issue is part of the loop."""
    late_ns = 0.0 if cell.arrival == "closed" else times.lateness_in(late, q)
    return msgspec.structs.replace(times.estimate(q), late_ns=late_ns)


def key_of(part: Part) -> tuple[str, str, str]:
    """What tells a part from the others of its round."""
    return part.job, part.phase, part.operation


def part_result(cell: Cell, rounds: Sequence[Round], key: tuple[str, str, str], draws: Draws, late: Pool) -> PartResult:
    """One part over the rounds; a round without it has none of its I/Os."""
    found = [next((part for part in item.parts if key_of(part) == key), None) for item in rounds]
    indices = [item.index for item in rounds]
    job, phase, operation = key
    samples = decode_known(part.response if part else None for part in found)
    response = Pool(f"{cell.id}/part/{job}/{phase}/{operation}", indices, samples, draws)

    def per_second(field: str):
        seconds = [item.duration_ns / NS_PER_S for item in rounds]
        rates = [done(part, field) / lasts if part else 0.0 for part, lasts in zip(found, seconds, strict=True)]
        return mean_over_rounds(rates, indices)

    return PartResult(
        operation=operation, job=job, phase=phase, completed=sum(part.completed for part in found if part),
        response_ns_p50=latency(cell, response, late, 0.5), response_ns_p99=latency(cell, response, late, 0.99),
        response_ns_p999=latency(cell, response, late, 0.999), completed_per_s=per_second("within"),
        goodput_bytes_per_s=per_second("within_bytes"),
    )  # fmt: skip


def done(part: Part, field: str) -> int:
    """What completed before the round's end; of an older recording, which did not count that, with what completed after it."""
    counted: int | None = getattr(part, field)
    return getattr(part, field.replace("within", "completed")) if counted is None else counted
