"""The one seam through which a sweep's cells are measured: in this machine's lab, or by many machines, each with one of its own.

By default one lab is open here and cells are measured in it one after the other. Over Dask every worker opens a lab, in a
process of its own (`farwrite serve-cells`), where there are no threads and signals are its own; a lab is kept open, and
kernels are compiled once, as long as the sweep. All distances of one workload stay on one machine, so that what is fitted
through them was measured in one lab, in interleaved rounds.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ..base.dask_client import as_they_come, require_version
from ..base.errors import EXIT_UNFIT, FarwriteError, UnfitError
from ..base.framing import Lines, Reader, send
from ..base.framing import line as framed
from ..recording import Cell, LabFacts, Worker, causes_of
from ..workload.tables import Profile
from .run_journal import Entry, Run, keep

if TYPE_CHECKING:
    from ..lab.lab import Lab


@dataclass(frozen=True)
class Order:
    """One round: each of these cells once."""

    cells: list[Cell]
    index: int


# Measures every order to its end, and adds what was observed to the run and its journal.
MapCells = Callable[[Sequence[Order]], None]


def here(run: Run, lab: Lab) -> MapCells:
    """Cells measured in an open lab of this machine."""
    from .measure import measure_round

    def map_cells(orders: Sequence[Order]) -> None:
        for order in orders:
            measure_round(run, lab, order.cells, order.index, f"round {order.index + 1}")

    return map_cells


# Over Dask: our side.


@contextmanager
def over_dask(run: Run, client: Any) -> Iterator[MapCells]:
    """Cells measured by the workers of a Dask cluster; their labs are open exactly as long as this block."""
    addresses = sorted(client.scheduler_info(n_workers=-1)["workers"])
    heading = msgspec.json.encode(Heading(profile=run.profile, seed=run.seed))
    require_version(client)
    try:
        facts = ask_all(client, addresses, heading)
        machines = Counter(address.rpartition(":")[0] for address in addresses)
        crowded = sum(count for count in machines.values() if count > 1)
        if crowded:
            run.notes.append(f"{crowded} of {len(addresses)} workers share a machine with another: their labs disturb each other")
        run.lab_facts = facts[0].lab
        numbers = {address: len(run.workers) + place for place, address in enumerate(addresses)}
        assign(run, facts)

        def map_cells(orders: Sequence[Order]) -> None:
            futures = {}
            for order in orders:
                for address, number in numbers.items():
                    mine = [cell for cell in order.cells if cell.id in run.workers[number].cells]
                    if mine:
                        asked = msgspec.json.encode(Asked(cells=mine, index=order.index))
                        futures[client.submit(measure_there, asked, workers=[address], pure=False, retries=0)] = address
            gather(run, client, futures, numbers)

        yield map_cells
    finally:
        with contextlib.suppress(Exception):  # Workers that are gone have taken their labs with them.
            client.run(close_there, workers=addresses)


def ask_all(client: Any, addresses: Sequence[str], heading: bytes) -> list[Facts]:
    """Open a lab on every worker, all at once; UnfitError naming the worker where it cannot be."""
    futures = {
        client.submit(open_there, heading, workers=[address], pure=False, retries=0): address for address in addresses
    }
    found = {}
    for future in as_they_come(client, futures):
        address = futures[future]
        try:
            found[address] = answered(future.result(), Facts)
        except RefusedError as refusal:
            raise UnfitError(f"open a lab on the Dask worker {address}: {refusal}") from refusal
        except Exception as failure:
            raise UnfitError(f"open a lab on the Dask worker {address}: {failure!r}.") from failure
    return [found[address] for address in addresses]


def assign(run: Run, facts: Sequence[Facts]) -> None:
    """Give every workload that is not measured to its end a worker, with all its distances; the longest rounds first."""
    rounds = range(run.profile.run.rounds)
    done = {(item.cell, item.index) for item in run.rounds if item.status == "ok"}
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in run.cells:
        rows.setdefault((cell.name, cell.protocol), []).append(cell)
    kept = {cell for worker in run.workers for cell in worker.cells}
    shares: list[list[str]] = [[] for _ in facts]
    for row in sorted(rows.values(), key=len, reverse=True):
        if all((cell.id, index) in done and cell.id in kept for cell in row for index in rounds):
            continue  # By a worker of the run that was interrupted, which may be gone.
        min(shares, key=len).extend(cell.id for cell in row)
    for machine, cells in zip(facts, shares, strict=True):
        keep(run, Entry(worker=Worker(host=machine.host, lab=machine.lab, cells=cells)))


def gather(run: Run, client: Any, futures: dict[Any, str], numbers: dict[str, int]) -> None:
    """Note what was observed as it comes; on an interruption what has not begun is not begun."""
    from .expected import round_s
    from .measure import next_attempt

    run.progress.doing(f"{len(futures)} rounds of workloads on {len(set(futures.values()))} workers")
    try:
        for future in as_they_come(client, futures):
            address = futures[future]
            try:
                observed = answered(future.result(), Observed)
            except RefusedError as refusal:
                raise UnfitError(f"measure on the Dask worker {address}: {refusal}") from refusal
            except Exception as failure:
                raise UnfitError(
                    f"measure on the Dask worker {address}: {failure!r}. What was measured is kept; go on with --resume."
                ) from failure
            for floors in observed.floors:
                numbered = msgspec.structs.replace(floors, worker=numbers[address])
                keep(run, Entry(floors=numbered))
            for item in observed.rounds:
                made = msgspec.structs.replace(item, attempt=next_attempt(run, item.cell, item.index))
                keep(run, Entry(round=made))
                if made.status != "ok":
                    run.progress.voided(f"{made.cell}, round {made.index + 1}", made.status, causes_of(made))
            for _ in observed.rounds:
                run.progress.did(round_s(run))
    except BaseException:
        client.cancel(list(futures))
        raise


# What goes between the two, as lines of JSON.


class Heading(msgspec.Struct, tag="heading"):
    """What a lab is opened for."""

    profile: Profile
    seed: int


class Asked(msgspec.Struct, tag="asked"):
    """One round of some cells."""

    cells: list[Cell]
    index: int


class Facts(msgspec.Struct, tag="facts"):
    """What carries the cells there."""

    host: dict[str, Any]
    lab: LabFacts


class Observed(msgspec.Struct, tag="observed"):
    """What one order brought: rounds, void ones too, and bare flushes."""

    rounds: list[Any]
    floors: list[Any]


class Refusal(msgspec.Struct, tag="refusal"):
    """Why there is nothing else."""

    sentence: str


class RefusedError(FarwriteError):
    """A worker's refusal, in its own words."""

    exit_code = EXIT_UNFIT


def answered(line: bytes, kind: type) -> Any:
    """A worker's answer. RefusedError when it is a refusal."""
    from ..recording import FlushFloors, Round

    made = msgspec.json.decode(line, type=Facts | Observed | Refusal)
    if isinstance(made, Refusal):
        raise RefusedError(made.sentence)
    assert isinstance(made, kind)
    if isinstance(made, Observed):
        made.rounds = msgspec.convert(made.rounds, list[Round])
        made.floors = msgspec.convert(made.floors, list[FlushFloors])
    return made


# In a Dask worker: a process with a lab, spoken to over its two streams.

FAREWELL_S = 3.0
LINE_BYTES_MAX = 64 << 20
SERVER: Server | None = None
ONE_AT_A_TIME = threading.Lock()  # A worker with several threads still has one lab.


@dataclass(frozen=True)
class Server:
    """The process with the lab, and our ends of its streams."""

    process: subprocess.Popen
    asks: IO[bytes]
    answers: Reader


def open_there(heading: bytes) -> bytes:
    """Start the process that has the lab; answers its facts."""
    global SERVER
    from distributed import get_worker

    close_there()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "farwrite", "serve-cells"], cwd=get_worker().local_directory, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    SERVER = Server(process, process.stdin, Reader(process.stdout, Lines(LINE_BYTES_MAX)))
    return measure_there(heading)


def measure_there(line: bytes) -> bytes:
    """One line to the process with the lab, and its answer. It outlives neither its worker nor a closed stream."""
    with ONE_AT_A_TIME:
        server = SERVER
        if server is None:
            return msgspec.json.encode(Refusal("the worker was started again and has no lab: its machine may lack memory."))
        try:
            send(server.asks, framed(line))
            answer = server.answers.take()
        except OSError as gone:
            answer = None
            reason = gone.strerror
        else:
            reason = "no answer"
    return answer or msgspec.json.encode(
        Refusal(f"the process with the lab has ended ({reason}). The worker's own output says why.")
    )


def close_there() -> None:
    """End the process with the lab, if there is one; it takes its lab down. One in the middle of a round is interrupted."""
    global SERVER
    server, SERVER = SERVER, None
    if server is None:
        return
    with contextlib.suppress(OSError):
        server.asks.close()
    try:
        server.process.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        server.process.terminate()
        server.process.wait()


# In that process.


def serve(lines: IO[bytes], answers: IO[bytes]) -> None:
    """Open the lab that the first line asks for, and measure what the further ones ask for, until there are no more."""
    from ..base.host.facts import host_facts
    from .compilation import compile_all
    from .measure import facts_of, lab_of, measure_round

    def answer(what: Any) -> None:
        send(answers, framed(msgspec.json.encode(what)))

    asks = Reader(lines, Lines(LINE_BYTES_MAX))
    heading = msgspec.json.decode(asks.take() or b"", type=Heading)
    try:
        compile_all()
        # Journals lie in the worker's own directory, unless the profile names one.
        with tempfile.TemporaryDirectory(prefix="farwrite-", dir=".") as place, contextlib.chdir(place):
            run = Run(heading.profile, "sweep", heading.seed, Path.cwd())
            run.journal.touch()
            with lab_of(run.profile, run.directory) as lab:
                answer(Facts(host_facts(), facts_of(lab)))
                while (line := asks.take()) is not None:
                    asked = msgspec.json.decode(line, type=Asked)
                    run.rounds, run.floors, run.cells = [], [], asked.cells
                    measure_round(run, lab, asked.cells, asked.index, "")
                    answer(Observed(run.rounds, run.floors))
    except FarwriteError as refusal:
        answer(Refusal(str(refusal)))
