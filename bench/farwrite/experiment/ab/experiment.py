"""The experiment: one lab, three workers in it, and who measures when.

The arms are base, cand and again, the base a second time: what no difference looks like. In every lap each cell is played as
a palindrome, such as base cand again, again cand base: a drift that is linear in time then adds the same to each arm. Laps
turn the order, so that after three of them each arm has stood at each place as often. The distance is set
before a palindrome and never within it. A palindrome counts whole or not at all.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from ...base.documents import SUFFIX
from ...base.errors import EXIT_LOST_WRITE, FarwriteError, UsageError
from ...base.histogram import Histogram
from ...base.host.noise import Reading, noise_between, read_noise
from ...base.interruption import go_on
from ...base.reasons import neighbour_void, sentences
from ...base.units import NS_PER_S
from ...lab.keep_awake import Decision
from ...lab.lab import Lab, LabSpec, open_lab
from ...lab.namespace import NOTHING, Loopback
from ...lab.survey import Survey
from ...progress import Progress, Silence
from ...recording import REPORT_NAME, Cell, HostNoise, Pairing, Report, Round, causes_of, save
from ..cells import cells_of, others_of_all
from ..expected import round_s
from ..measure import lab_spec as spec_of
from ..outcome import outcome
from ..round import asked_of, link_reasons, spans_of, text_of
from ..run_journal import Run, recording_of
from .arm import Arm, ArmName, Launch, is_ours, launched
from .message import VERSION, Joined, Network, Task, task_profile
from .worker import Worker, worker

RESULTS = ("base", "cand", "again", REPORT_NAME, REPORT_NAME + SUFFIX, "cells.jsonl")  # Of an experiment or of a run.
SITE_BYTES = 16 << 20  # Of the files of our own two sites, which only survey.
MEASURE_PATIENCE_S = 180.0  # A round whose peers wait for each other in vain takes a minute or two.

FLOORS_S = 0.1  # Of one arm, for the estimate of the time left only.


@dataclass
class Experiment:
    """What is asked, and what has been measured so far."""

    arms: list[Arm]
    pairs: int
    seed: int
    directory: Path
    progress: Progress = field(default_factory=Silence)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    runs: dict[ArmName, Run] = field(default_factory=dict)
    joined: dict[ArmName, Joined] = field(default_factory=dict)
    cells: list[str] = field(default_factory=list)  # those that all arms have
    base_rtt: str = ""  # histogram, ns: what the lab's own sites found with no delay asked
    delay_ns: dict[str, int] = field(default_factory=dict)  # held per round trip, by asked RTT, as of the last palindrome
    awake: Decision = field(default_factory=Decision)  # what keeps the processors from sleeping, for all arms

    @property
    def names(self) -> list[ArmName]:
        """The arms, in the order of report and start."""
        return [arm.name for arm in self.arms]


def execute(experiment: Experiment) -> dict[ArmName, Report]:
    """Measure all arms side by side and save a report of each; what stops it half-way leaves the palindromes that were whole."""
    base, cand, _ = (cells_of(arm.profile) for arm in experiment.arms)
    common_cells(base, cand)  # Refused before anything is opened.
    with results_directory(experiment.directory):
        failure: BaseException | None = None
        try:
            measure(experiment)
        except (FarwriteError, KeyboardInterrupt) as stopped:
            failure = stopped
        if failure and not any(run.rounds for run in experiment.runs.values()):
            raise failure
        reports = {arm.name: report_of(experiment, arm, failure) for arm in experiment.arms}
        for name, report in reports.items():
            place = experiment.directory / name
            place.mkdir()
            save(report, place / REPORT_NAME)
    if isinstance(failure, FarwriteError):
        raise failure
    return reports


@contextmanager
def results_directory(directory: Path) -> Iterator[None]:
    """A directory for new reports, gone again if it was made for this block and nothing came of it."""
    try:
        taken = [name for name in RESULTS if (directory / name).exists()]
        if taken:
            raise UsageError(f"{directory} holds a {taken[0]} already. Name another --out.")
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise UsageError(f"write to {directory}: {refusal.strerror}. Name another --out.") from refusal
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # Not empty: there are reports in it.
                directory.rmdir()


def measure(experiment: Experiment) -> None:
    """Everything, from the launches of the arms to the last round."""
    arms, progress = experiment.arms, experiment.progress
    with contextlib.ExitStack() as stack:
        # Before the lab: what removes a worktree waits until no process of ours is left.
        launches = {word: stack.enter_context(launched(word)) for word in dict.fromkeys(arm.word for arm in arms)}
        lab = stack.enter_context(open_lab(lab_spec(arms, experiment.directory)))
        experiment.awake = lab.awake
        experiment.base_rtt = Histogram.of(lab.base.rtt_ns).encode()
        workers: dict[ArmName, Worker] = {}
        for side_by_side in start_order(arms):
            workers |= {arm.name: stack.enter_context(started(experiment, arm, launches[arm.word], lab)) for arm in side_by_side}
            for arm in side_by_side:
                doing = f"starting {arm.word} as {arm.name} (a revision is compiled first)"
                progress.doing(doing)
                waiting = partial(tell_wait, progress, doing)
                experiment.joined[arm.name] = workers[arm.name].join(launches[arm.word], waiting)
        begin(experiment)
        progress.expect(expected_s(experiment))
        for repetition in range(experiment.pairs):
            play_repetition(experiment, lab, workers, repetition)


def start_order(arms: list[Arm]) -> list[list[Arm]]:
    """The arms that start side by side, one list after the other. A second arm of a farwrite that is not ours starts only when
    the first has compiled what both need."""
    words = [arm.word for arm in arms]
    firsts = [arm for index, arm in enumerate(arms) if is_ours(arm.word) or arm.word not in words[:index]]
    return [firsts, [arm for arm in arms if arm not in firsts]]


@contextmanager
def started(experiment: Experiment, arm: Arm, launch: Launch, lab: Lab) -> Iterator[Worker]:
    """The worker of an arm, which has its task and is about to join the lab."""
    network = network_of(lab)
    with worker(arm, launch, descriptors_of(network), lab.placed[0].processors) as made:
        made.hand_over(
            Task(
                version=VERSION, profile=task_profile(arm.profile), profile_name=arm.profile_name, seed=experiment.seed,
                directory=str(experiment.directory.absolute()), network=network,
            )
        )  # fmt: skip
        yield made


def tell_wait(progress: Progress, doing: str, seconds: float) -> None:
    """What is waited for, and for how long by now."""
    progress.doing(f"{doing}, {seconds:.0f} s so far")


def lab_spec(arms: list[Arm], directory: Path) -> LabSpec:
    """The lab of all arms: the base's link, and as many sites as any of them needs. Our own carry nothing but surveys."""
    base = spec_of(arms[0].profile, directory)
    others = max(others_of_all(arm.profile) for arm in arms)
    return LabSpec(
        base.link, None, None, SITE_BYTES, SITE_BYTES, base.congestion, others, link_spec=base.link_spec,
        keep_awake=base.keep_awake, flushed=base.near,
    )  # fmt: skip


def network_of(lab: Lab) -> Network:
    """The places of the lab as the workers are told of them."""
    near, far, *others = [site.namespace for site in lab.placed]
    return Network(
        near_fd=near.net_fd, far_fd=far.net_fd, user_fd=near.user_fd, link=lab.choice.kind, link_reason=lab.choice.reason,
        other_fds=[place.net_fd for place in others],
        addresses=[site.address for site in lab.placed] if isinstance(near, Loopback) else [],
        door_fds=[site.doors[lab.near.index].asking.fileno() for site in lab.placed if site.doors],
    )  # fmt: skip


def descriptors_of(network: Network) -> list[int]:
    """What a worker must inherit."""
    known = [network.near_fd, network.far_fd, *network.other_fds, network.user_fd, *network.door_fds]
    return [descriptor for descriptor in known if descriptor not in (None, NOTHING)]


def common_cells(base: list[Cell], cand: list[Cell]) -> list[str]:
    """The cells that both arms have, in the base's order. UsageError when there is nothing to compare."""
    asked_rtt_ns = {cell.id: asked_of(cell) for cell in cand}
    common = [cell for cell in base if cell.id in asked_rtt_ns]
    if not common:
        ours, theirs = (", ".join(cell.id for cell in cells) for cells in (base, cand))
        raise UsageError(f"The arms have no cell in common: {ours} against {theirs}.")
    for cell in common:
        if asked_of(cell) != asked_rtt_ns[cell.id]:
            raise UsageError(
                f"{cell.id} is another distance in each arm, and there is one link: set it for both (--set)."
            )
    return [cell.id for cell in common]


def begin(experiment: Experiment) -> None:
    """Begin a run for each arm, with the cells that all make of their profiles."""
    found = {name: {cell.id: cell for cell in joined.cells} for name, joined in experiment.joined.items()}
    experiment.cells = common_cells(list(found["base"].values()), list(found["cand"].values()))
    started, begin_s = datetime.now(UTC), time.monotonic()
    for arm in experiment.arms:
        run = Run(
            arm.profile, arm.profile_name, experiment.seed, experiment.directory, started=started, begin_s=begin_s
        )  # fmt: skip
        run.cells = [found[arm.name][cell] for cell in experiment.cells]
        left_out = [cell for cell in found[arm.name] if cell not in experiment.cells]
        if left_out:
            run.notes.append(f"not measured, because the other arm has no such cell: {', '.join(left_out)}")
        experiment.runs[arm.name] = run


def expected_s(experiment: Experiment) -> float:
    """How long it will take if nothing has to be played again."""
    return experiment.pairs * sum(2 * (FLOORS_S + len(run.cells) * round_s(run)) for run in experiment.runs.values())


def order_of(experiment: Experiment, repetition: int, cell: str) -> list[ArmName]:
    """The palindrome of a cell in a lap: each arm twice. Three laps share a drawn order, turned by one place each time."""
    turns, turn = divmod(repetition, len(experiment.names))
    drawn = random.Random(f"{experiment.seed}/{cell}/{turns}").sample(experiment.names, len(experiment.names))
    half = drawn[turn:] + drawn[:turn]
    return half + half[::-1]


def play_repetition(experiment: Experiment, lab: Lab, workers: dict[ArmName, Worker], repetition: int) -> None:
    """Floors of every arm, then every cell once, in an order drawn for this lap."""
    repetition_text = f"pair {repetition + 1}/{experiment.pairs}"
    experiment.progress.doing(f"{repetition_text} · disks")
    for place, name in enumerate(experiment.names + experiment.names[::-1]):
        index = 2 * repetition + place // len(experiment.names)
        experiment.runs[name].floors += workers[name].floors(index)
        experiment.progress.did(FLOORS_S)
    for cell in random.Random(f"{experiment.seed}/{repetition}").sample(experiment.cells, len(experiment.cells)):
        for attempt in range(experiment.arms[0].profile.run.retries + 1):
            experiment.progress.doing(f"{repetition_text} · {cell}" + (" · again" if attempt else ""))
            if play_palindrome(experiment, lab, workers, cell, repetition, attempt):
                break


def play_palindrome(
    experiment: Experiment, lab: Lab, workers: dict[ArmName, Worker], cell: str, repetition: int, attempt: int
) -> bool:
    """Every arm twice at one distance; answers whether all six rounds are good. They are kept all together or, when this is
    stopped half-way, not at all."""
    base = experiment.runs["base"]
    for span, asked_rtt_ns in spans_of(lab, next(item for item in base.cells if item.id == cell)):
        span.set_rtt(asked_rtt_ns)
    made: list[tuple[ArmName, Round]] = []
    for place, name in enumerate(order_of(experiment, repetition, cell)):
        index = 2 * repetition + place // len(experiment.names)
        made.append((name, measure_round(experiment, lab, workers[name], cell, index, attempt)))
        if attempt == 0:
            experiment.progress.did(round_s(experiment.runs[name]))
    broken = [(name, item) for name, item in made if item.status != "ok"]
    for name, item in made:
        experiment.runs[name].rounds.append(set_aside(item) if broken else item)
    experiment.delay_ns = {str(asked): delay_ns for asked, delay_ns in sorted(lab.delay_ns.items())}
    if broken:
        name, worst = max(broken, key=lambda one: one[1].status == "failed")
        description = f"{cell}, pair {repetition + 1}: {len(broken)} of {len(made)} rounds void or failed; {name}"
        experiment.progress.voided(description, worst.status, causes_of(worst))
    return not broken


def measure_round(experiment: Experiment, lab: Lab, arm: Worker, cell: str, index: int, attempt: int) -> Round:
    """One round of one arm, with what only we know: when it was, and what the link counted."""
    go_on()
    run = experiment.runs[arm.arm.name]
    begin_s, counters = run.elapsed_s(), lab.link.counters()
    echoes = run.profile.run.survey_echoes
    before = None if lab.spec.is_plain and lab.prober else lab.survey(echoes)
    quiet = read_noise()
    item = arm.measure(cell, index, attempt, run.profile.run.round_ns / NS_PER_S + MEASURE_PATIENCE_S)
    counted = {name: value - counters[name] for name, value in lab.link.counters().items()}
    item = msgspec.structs.replace(item, begin_s=round(begin_s, 3), link=counted, noise=noise_seen(item.noise, lab, quiet))
    return proven(item, run, lab, before, lab.survey(echoes)) if before else item


def noise_seen(noise: HostNoise | None, lab: Lab, quiet: Reading) -> HostNoise | None:
    """The arm's own observation, and what it cannot know: the link is carried by our process, and the other arms, which wait
    meanwhile, are no strangers. Ours is from the whole round with its surveys. None from arms older than this."""
    if noise is None:
        return None
    carriers = [pid for span in lab.spans for pid in span.link.carriers or ()]
    seen = noise_between(quiet, read_noise(), [], [], carriers)
    # The link's share of the round counts as the same share of the load.
    link_ns = seen.link_run_delay_ns
    scaled = None if link_ns is None else round(link_ns * noise.duration_ns / max(seen.duration_ns, noise.duration_ns))
    return msgspec.structs.replace(
        noise, link_run_delay_ns=scaled, own_share=seen.own_share, foreign_share=seen.foreign_share
    )  # fmt: skip


def proven(item: Round, run: Run, lab: Lab, before: Survey, after: Survey) -> Round:
    """A round over a link that an arm cannot prove, because more is asked of it than a distance or it has no packets: we do."""
    asked_rtt_ns = next(cell.asked_rtt_ns for cell in run.cells if cell.id == item.cell)
    reasons = [*causes_of(item), *link_reasons(before, after, asked_rtt_ns)]
    status = "void" if reasons and item.status == "ok" else item.status
    surveys = {"survey_before": text_of(before), "survey_after": text_of(after)}
    return msgspec.structs.replace(item, **surveys, status=status, reasons=sentences(reasons), causes=reasons)


def set_aside(item: Round) -> Round:
    """A round of a palindrome that does not count: it is void as well, unless it lost writes, which no void may hide."""
    if item.status != "ok" or (item.audit and item.audit.lost):
        return item
    return msgspec.structs.replace(item, status="void", reasons=[str(neighbour_void())], causes=[neighbour_void()])


def report_of(experiment: Experiment, arm: Arm, failure: BaseException | None) -> Report:
    """What was observed of one arm, with its analysis."""
    from ...analysis import document_of

    run, joined = experiment.runs[arm.name], experiment.joined[arm.name]
    # Disks and transport are the arm's own; the link and what it holds packets for are one for all.
    run.lab_facts = msgspec.structs.replace(
        joined.lab, base_rtt=experiment.base_rtt, delay_ns=experiment.delay_ns,
        keep_awake=experiment.awake.chosen, keep_awake_reason=experiment.awake.reason,
        keep_awake_mend=experiment.awake.mend,
    )  # fmt: skip
    run.interrupted = failure is not None
    run.notes += [f"ended early: {failure}"] if isinstance(failure, FarwriteError) else []
    recording = msgspec.structs.replace(
        recording_of(run),
        id=f"{experiment.directory.name}-{arm.name}",
        farwrite=joined.farwrite,
        host=joined.host,
        pairing=Pairing(id=experiment.id, arm=arm.name, what=arm.what),
    )
    return document_of(recording)


def outcome_of(reports: dict[ArmName, Report]) -> FarwriteError | None:
    """What the experiment's end means for the exit code; a lost write of any arm comes before everything else."""
    found = {name: outcome(report) for name, report in reports.items()}
    refusals = [(name, refusal) for name, refusal in found.items() if refusal]
    for name, refusal in sorted(refusals, key=lambda item: item[1].exit_code != EXIT_LOST_WRITE):
        what = reports[name].recording.pairing
        return type(refusal)(f"Arm {name} ({what.what if what else ''}): {refusal}")
    return None
