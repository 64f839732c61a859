"""`farwrite drill`: a fault in the middle of a load, again and again: what was lost, and how long the writer stood still."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..base.documents import SUFFIX
from ..base.errors import EXIT_DONE, EXIT_INCONCLUSIVE, EXIT_LOST_WRITE, UsageError, nearest
from ..base.interruption import exit_code
from ..progress import bar
from .flags import Flag, Quiet, Verbose
from .measuring import SEEDS_MAX, check_texts
from .options import bytes_of
from .output import console, print_document, printing, refuse_both

if TYPE_CHECKING:
    from ..analysis.drill_answer import Answer
    from ..analysis.drill_recording import DrillRecording
    from ..workload.drill_scenario import Scenario, Setup

MILES, MILES_MAX, TRIALS_MAX = 150, 15_000, 10_000
RATE_MAX, DEPTH_MAX = 5_000, 512
DOORS = ("none", "nbd", "iscsi")
BLOCKS = 512  # Few enough that each is written several times in a trial, so that an older write that comes back is seen.


# Longer than a function should be by its options and their help, which cyclopts reads from one signature; the body is not.
def drill(
    scenario: str = "",
    /,
    *,
    miles: str = "",
    protocol: str = "C",
    policy: str = "consent",
    trials: int = 10,
    replicas: Literal[2, 3] | None = None,
    no_witness: Flag = False,
    rate: float = 500.0,
    depth: int = 64,
    size: str = "4k",
    bound: str = "250 ms",
    peer_timeout: str = "auto",
    seed: int = 1,
    door: str = "none",
    link: Literal["auto", "netem", "ferry", "relay"] = "auto",
    files: Path | None = None,
    memory: Flag = False,
    out: Path | None = None,
    trace: Path | None = None,
    page: Path | None = None,
    table: Flag = False,
    json: Flag = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Play a fault scenario against replicas that fail over by themselves, under a client's load, and read back what survived.

    Three sites: near and far hold a replica each, the third, half-way between them, the witness and the client. Every trial
    begins with new files. Several miles, protocols, policies and doors give a table. Exit code 5 when a write was lost that
    protocol and policy promise to keep, 4 when no trial counts.

    Parameters
    ----------
    scenario
        A shipped scenario, a TOML file, or the drill.json of a drill that is over, to print it again. Without one, the shipped
        ones are listed.
    miles
        Distances between near and far, such as 20,150; by default the scenario's, or 150.
    protocol
        When a write is acknowledged: A, B, C, C2 or quorum; several with commas.
    policy
        What a lost replica means: block, consent (go on without it by a majority's leave) or suspend-replication.
    trials
        How many.
    replicas
        2, or 3 with the third at the third site instead of the witness; protocol quorum has 3.
    no_witness
        Two replicas alone.
    rate
        Writes a second that are offered; 0 is a closed loop, in which the next write follows an answer.
    depth
        Writes under way at once.
    size
        Bytes of a write.
    bound
        A write that is acknowledged later than this after its intended instant is late, and a time without one is an outage.
    peer_timeout
        How long the engine lets a peer be silent; auto is 20 round trips, and at least 500 ms.
    seed
        What blocks and instants are drawn from.
    door
        What the client writes through: nbd or iscsi, the door of whoever leads, as clients of farwrite serve do; or none; several
        with commas.
    link
        How the distance is emulated. Without privileges (relay) there is none: the sites are processes on loopback, and scenarios
        with links are refused.
    files
        Directory of the replicas' files; by default where the results go.
    memory
        Keep them in memory instead.
    out
        Directory of the results; by default a new one below results/runs.
    trace
        Write the trials' timelines to this file as Chrome trace events, for Perfetto.
    page
        Write the drill to this file as one HTML page, with the timeline of each trial.
    table
        Print the summary table alone, a row each, instead of the whole report of one drill.
    json
        Print what the trials say as a document.
    verbose
        Say what the nodes warn of, and of every trial that does not count why.
    quiet
        Say nothing on stderr but refusals.
    """
    from ..analysis.drill_answer import answer_of
    from ..analysis.drill_recording import read
    from ..workload import drill_scenario as scenarios

    refuse_both(verbose, quiet)
    check_texts(out, files, trace, page)
    if page is not None:
        from .html import check_place

        check_place(page, "--page")
    doors = words_of(door, DOORS, "door")
    if doors != ["none"] and (not scenario or scenario.endswith((".json", f".json{SUFFIX}"))):
        raise UsageError("--door is of a drill that is to be played: name a scenario, such as primary-killed.")
    if not scenario:
        with printing():
            for name in scenarios.shipped():
                print(f"{name:22}{scenarios.load(name).title}")
        return EXIT_DONE
    if scenario.endswith((".json", f".json{SUFFIX}")):
        drills = [read(Path(scenario))]
        return present([(one, answer_of(one)) for one in drills], json, trace, page, scenario, table)
    asked = scenarios.load(scenario)
    if table and json:
        raise UsageError("--table and --json contradict each other: choose one.")
    if files is not None and memory:
        raise UsageError("--files and --memory contradict each other: choose one.")
    usual_miles = MILES if asked.miles is None else asked.miles
    setups = setups_of(
        miles or f"{usual_miles:g}", protocol, policy, replicas, no_witness, rate, depth, size, bound, peer_timeout, trials, seed,
        door,
    )  # fmt: skip
    for setup in setups:
        scenarios.check_setup(asked, setup)
    if (trace is not None or page is not None) and len(setups) > 1:
        raise UsageError("--trace and --page are of one drill: choose one distance, protocol, policy and door.")
    if link == "relay":
        scenarios.check_without_links(asked)
    place, drills = played(Path(scenario).stem, asked, setups, link, out, files, memory, verbose, quiet, bool(miles))
    kept = [one for one in drills if one.trials]
    if not kept and drills[-1].interrupted:
        print("farwrite: interrupted before a trial was over.", file=sys.stderr)
    if kept and not quiet:
        print(f"saved: {place}", file=sys.stderr)
    code = present([(one, answer_of(one)) for one in kept], json, trace, page, str(place), table) if kept else EXIT_DONE
    return exit_code() if drills[-1].interrupted else code


def played(
    name: str, scenario: Scenario, setups: Sequence[Setup], link: str, out: Path | None, files: Path | None, memory: bool,
    verbose: bool, quiet: bool, is_distance_asked: bool = False,
) -> tuple[Path, list[DrillRecording]]:  # fmt: skip
    """(directory, what was observed there under each setup); an interruption ends it behind the one that was being played."""
    with bar(verbose, quiet) as progress:
        from ..experiment.compilation import compile_all, compile_doors

        compile_all(progress)
        if any(setup.door for setup in setups):
            compile_doors(progress)
        from ..experiment.drill import campaign
        from ..experiment.run_journal import directory_for

        place = directory_for(out, f"drill-{name}")
        drills: list[DrillRecording] = []
        for setup in setups:
            through = f"-{setup.door}" if setup.door else ""
            cell = place if len(setups) == 1 else place / f"{setup.protocol}-{setup.policy}-{setup.miles:g}{through}"
            at = None if memory else files or cell
            drills.append(campaign.run(name, scenario, setup, link, at, cell, progress, verbose, is_distance_asked))
            if drills[-1].interrupted:
                break
    return place, drills


def setups_of(
    miles: str, protocol: str, policy: str, replicas: int | None, no_witness: bool, rate: float, depth: int, size: str,
    bound: str, peer_timeout: str, trials: int, seed: int, door: str = "none",
) -> list[Setup]:  # fmt: skip
    """Every combination of what may be several. UsageError for words that cannot be."""
    import typing

    import msgspec

    from ..base.physics import rtt_ns_of
    from ..base.protocol import NAMES
    from ..base.units import NS_PER_MS, NS_PER_S, time_ns
    from ..engine.peer_timeout import peer_timeout_of
    from ..workload.drill_scenario import DoorName, PolicyName, Setup

    protocols = words_of(protocol, [name for name in NAMES if name != "local"], "protocol")
    policies = words_of(policy, typing.get_args(PolicyName), "policy")
    doors = ["" if word == "none" else word for word in words_of(door, DOORS, "door")]
    size_bytes = bytes_of(size, "--size")
    bound_ns = time_ns(bound, "--bound")
    timeout_ns = None if peer_timeout == "auto" else time_ns(peer_timeout, "--peer-timeout")
    within("trials", trials, 1, TRIALS_MAX)
    within("depth", depth, 1, DEPTH_MAX)
    within("seed", seed, 0, SEEDS_MAX - 1)
    if rate:
        within("rate", rate, 1, RATE_MAX)
    if not 512 <= size_bytes <= 65536 or size_bytes % 512:
        raise UsageError(f'--size: "{size}" must lie between 512 and 65536 bytes, and be a multiple of 512.')
    if not NS_PER_MS <= bound_ns <= 60 * NS_PER_S:
        raise UsageError(f'--bound: "{bound}" must lie between 1 ms and 60 s.')
    if timeout_ns is not None and not 50 * NS_PER_MS <= timeout_ns <= 60 * NS_PER_S:
        raise UsageError(f'--peer-timeout: "{peer_timeout}" must lie between 50 ms and 60 s.')
    lengths = [length_of(word) for word in (miles or f"{MILES:g}").split(",")]
    found = []
    for length, of_protocol, of_policy, of_door in product(lengths, protocols, policies, doors):
        count = replicas or (3 if of_protocol == "quorum" else 2)
        found.append(Setup(
            miles=length, protocol=of_protocol, policy=msgspec.convert(of_policy, PolicyName), replicas=count,
            has_witness=count == 2 and not no_witness, quorum=2 if of_protocol == "quorum" else 0, offered_per_s=float(rate),
            queue_depth=depth, size_bytes=size_bytes, block_count=BLOCKS, bound_ns=bound_ns,
            peer_timeout_ns=timeout_ns or peer_timeout_of(rtt_ns_of(length)),
            trials=trials, seed=seed, door=msgspec.convert(of_door, DoorName),
        ))  # fmt: skip
    return found


def words_of(text: str, known: Sequence[str], name: str) -> list[str]:
    """Words with commas between them, each of them known."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise UsageError(f'--{name}: there is no "{word}"{nearest(word, known)}.')
    return list(dict.fromkeys(words))


def length_of(word: str) -> float:
    """ "150" or "80km"."""
    from ..base.units import KM_PER_MILE, distance_km

    try:
        found = float(word)
    except ValueError:
        found = distance_km(word, "--miles") / KM_PER_MILE
    if not 0 <= found <= MILES_MAX:
        raise UsageError(f'--miles: "{word}" must lie between 0 and {MILES_MAX:,}.')
    return found


def within(name: str, value: float, low: float, high: float) -> None:
    """UsageError for a number outside of its bounds."""
    if not low <= value <= high:
        raise UsageError(f"--{name} {value:g}: give {low:g} to {high:g}.")


def present(
    drills: list[tuple[DrillRecording, Answer]], json: bool, trace: Path | None, page: Path | None, source: str,
    table: bool = False,
) -> int:  # fmt: skip
    """The answers on stdout, timeline and page in their files, and the exit code that they come to."""
    if page is not None:
        from ..report.drill_page import page_of_drill
        from .html import save

        save(page_of_drill(*drills[0], source), page)
    if trace is not None:
        import msgspec

        from ..base.files import write_atomically
        from ..report.drill_trace import trace_of

        write_atomically(trace, msgspec.json.encode(trace_of(drills[0][0])))
    answers = [answer for _, answer in drills]
    with printing():
        if json:
            rows = [
                {"name": one.name, "setup": one.setup, "interrupted": one.interrupted, "answer": answer} for one, answer in drills
            ]
            print_document(rows[0] if len(rows) == 1 else rows)
        else:
            from ..report.drill import show_drill, show_table
            from ..report.page import Page

            shown = Page(console())
            if table or len(drills) > 1:
                show_table(shown, drills)
            else:
                show_drill(shown, *drills[0])
    if any(answer.outcome == "corrupt" or (answer.outcome == "lost" and answer.promised) for answer in answers):
        return EXIT_LOST_WRITE
    return EXIT_INCONCLUSIVE if any(answer.outcome == "unknown" for answer in answers) else EXIT_DONE
