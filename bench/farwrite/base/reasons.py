"""Why a number has no value, is in doubt or carries no verdict: a code with its numbers, and the sentence made of them.

This file lists all codes: a function each, which answers the sentence. Calling it makes the `Reason`. What decides looks at codes
and numbers only (`unsound.among(reasons)`); the sentence is for readers, stands beside the code wherever a reason is stored, and
may be worded anew at any time. Sentences that older versions stored without a code are given theirs in `of_sentence`, and nowhere
else. Loads nothing heavy: the recording holds reasons too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, ParamSpec

import msgspec

from .units import digits, format_time

P = ParamSpec("P")
Value = str | int | float | bool | None


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why. A code that this version does not know is kept, with the sentence it came with."""

    code: str
    sentence: str
    numbers: dict[str, Value] = {}  # what the code says, by name; texts where that is no number

    def __str__(self) -> str:
        return self.sentence

    def __hash__(self) -> int:
        return hash((self.code, self.sentence))


class Code(Generic[P]):
    """One code; called with its numbers it makes the reason."""

    def __init__(self, sentence_of: Callable[P, str]) -> None:
        self.sentence_of = sentence_of
        self.name = sentence_of.__name__
        self.words = sentence_of.__code__.co_varnames[: sentence_of.__code__.co_argcount]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Reason:
        numbers = dict(zip(self.words, args, strict=False)) | kwargs
        plain = {word: plain_value(value) for word, value in numbers.items()}
        return Reason(code=self.name, sentence=self.sentence_of(*args, **kwargs), numbers=plain)

    def among(self, reasons: Iterable[Reason]) -> Reason | None:
        """The first of these reasons that has this code."""
        return next((reason for reason in reasons if reason.code == self.name), None)


def plain_value(value: Any) -> Value:
    """A value as JSON has it: numpy's numbers are none there."""
    if value is None or isinstance(value, str | bool):
        return value
    return int(value) if hasattr(value, "__index__") else float(value)


CODES: dict[str, Code] = {}


def code(sentence_of: Callable[P, str]) -> Code[P]:
    """Lists a code."""
    made = Code(sentence_of)
    assert made.name not in CODES
    CODES[made.name] = made
    return made


def fixed(name: str, sentence: str) -> Code[[]]:
    """Lists a code without numbers."""

    def sentence_of() -> str:
        return sentence

    sentence_of.__name__ = name
    return code(sentence_of)


def joined(reasons: Iterable[Reason]) -> str:
    """The sentences of several reasons in one."""
    return "; ".join(map(str, reasons))


def sentences(reasons: Iterable[Reason]) -> list[str]:
    """The sentence of each."""
    return [str(reason) for reason in reasons]


def about(what: str, reason: Reason) -> Reason:
    """The same reason, and what it is a reason about: a machine, a file, a distance."""
    return msgspec.structs.replace(reason, sentence=f"{what}: {reason.sentence}")


@code
def remark(text: str) -> str:
    """Something to know that decides nothing."""
    return text


# --- What withholds verdicts -----------------------------------------------------------------------------------

LATE_ADVICE = "give the generator a processor of its own or ask for less"
QUIET = "measure again on a quiet machine"
HOST_NOISE = "host-noise"  # What the sentences of host noise begin with.


# Of the run: what was seen may break a promise and cannot keep one.
interrupted = fixed("interrupted", "the run was interrupted: cells have fewer rounds than asked, or none")


@code
def no_good_round(reasons: str, causes: str) -> str:
    """`causes` are the reasons in a few words, without their numbers."""
    return f"not one good round: {reasons}"


@code
def few_rounds(rounds: int) -> str:
    """Fewer than the least number a verdict may rest on."""
    return "one round only: no interval over rounds" if rounds == 1 else f"{rounds} rounds only: no verdict rests on so few"


@code
def link_not_as_asked(delivered_ns: float, asked_ns: float) -> str:
    """Of a cell's link, over all its rounds."""
    return (
        f"the link was not what it claimed: {format_time(delivered_ns)} of round trip at the median, "
        f"{format_time(asked_ns)} were asked"
    )


@code
def link_error(error_ns: float, limit_ns: float, share_max: float) -> str:
    """The link's own error is too large a part of a limit."""
    return (
        f"the link's error of {format_time(error_ns)} is more than {share_max:.0%} of the "
        f"{format_time(limit_ns)} it is judged against"
    )


unsound = fixed("unsound", "fitted through cells that no verdict may rest on")  # Of a fit, and of what follows from it.


@code
def lateness(late_ns: float) -> str:
    """Without the generator's lateness the verdict might be another."""
    return f"up to {format_time(late_ns)} of it is the generator's own lateness; without it the verdict may turn: {LATE_ADVICE}"


@code
def lateness_share(late_ns: float, value_ns: float, share_max: float) -> str:
    """The same where no limit is given that a verdict could turn at."""
    return (
        f"up to {format_time(late_ns)} of it is the generator's own lateness, more than {share_max:.0%} of "
        f"{format_time(value_ns)}: {LATE_ADVICE}"
    )


@code
def other_programs(share: float, share_max: float) -> str:
    """Host noise."""
    return f"{HOST_NOISE}: other programs used {share:.0%} of the processors, more than {share_max:.0%}: {QUIET}"


@code
def waited_for_processors(share: float, share_max: float) -> str:
    """Host noise."""
    return (
        f"{HOST_NOISE}: writes waited {share:.0%} of their time for processors that other programs had, "
        f"more than {share_max:.0%}: {QUIET}"
    )


@code
def stolen(share: float, share_max: float) -> str:
    """Host noise."""
    return f"{HOST_NOISE}: the host took {share:.1%} of the processors, more than {share_max:.0%} (run.steal_max)"


not_audited = fixed("not_audited", "what stands at the far site was not audited")  # Of what was lost: nobody looked.


@code
def job_failed(words: str) -> str:
    """Of another tool's figures."""
    return words


# --- What keeps the rule from deciding -------------------------------------------------------------------------


no_value = fixed("no_value", "it has no value")  # Nothing else is known of why.
no_interval = fixed("no_interval", "the value has no interval")  # Neither an interval nor rounds to make one of.
# A figure of a report with one round, or whose rounds are not known.
one_round = fixed("one_round", "one round only: how much it varies is not known")
# The interval holds the limit.
limit_inside = fixed("limit_inside", "the limit lies inside the interval, which more samples narrow")
not_in_baseline = fixed("not_in_baseline", "the baseline lacks it")
both_hold_anywhere = fixed("both_hold_anywhere", "it holds at any distance, as the baseline's does")


# --- Why an estimate has no value, or what its reader must know ------------------------------------------------


nothing_counted = fixed("nothing_counted", "nothing was counted")


@code
def needs(quantile: str, least: int, count: int) -> str:
    """Too small a sample for an interval of a quantile."""
    return f"{quantile} needs n >= {least} (n = {count})"


@code
def needs_effective(quantile: str, least: int, worth: int, count: int) -> str:
    """The same, because what was measured has a smaller effective sample size."""
    return f"{quantile} needs n >= {least} (n_eff = {worth} of n = {count})"


@code
def needs_samples(quantile: str, confidence: float, least: int, count: int) -> str:
    """The same of samples that a test hands over."""
    return f"a {100 * confidence:.0f} % interval of {quantile} needs n >= {least:,}, and there are {count:,}"


NEEDS = (needs, needs_effective, needs_samples)


def least_needed(reasons: Iterable[Reason]) -> int | None:
    """How many values a quantile would have needed; None where that is not the reason."""
    found = next((made for reason in reasons for one in NEEDS if (made := one.among([reason]))), None)
    return None if found is None else int(found.numbers["least"] or 0)


@code
def effective(count: int, worth: int) -> str:
    return f"its {count} writes have an effective sample size of {worth} (n_eff), which the interval is from"


@code
def saturated(count: int) -> str:
    """Values beyond what a histogram can hold."""
    return f"{count} values were 18 minutes or longer: only their number is known"


@code
def few_values(rounds: int) -> str:
    """Of a mean: its interval is wide."""
    return f"{rounds} rounds only"


@code
def few_runs(runs: int) -> str:
    """Of several runs of another tool."""
    return f"{runs} runs only"


one_run = fixed("one_run", "one run: its repeatability is not known")  # Of another tool's results.


@code
def runs_missing(known: int, runs: int) -> str:
    return f"{known} of {runs} runs have a value"


no_round = fixed("no_round", "no good round")
no_write = fixed("no_write", "no write completed")
no_bare_flush = fixed("no_bare_flush", "no bare flush was measured")
no_bare_echo = fixed("no_bare_echo", "no echo of the write's sizes was measured")
no_part_of_floor = fixed("no_part_of_floor", "a part of the floor was not measured")
no_processor_time = fixed("no_processor_time", "processor time was not recorded")


@code
def behind_the_load(offered_per_s: float) -> str:
    return f"stays behind the offered {digits(offered_per_s)} writes a second: response times grow without limit"


# --- Distance --------------------------------------------------------------------------------------------------

NOT_A_LINE = "not a line over these distances"
Holds = Literal["any", "none", "unclear"]


@code
def slope_reaches_below_0(slope: str) -> str:
    return f"{NOT_A_LINE}: their slope, {slope} round trips a write, reaches below 0"


@code
def slope_below_light(slope: str, trips: int) -> str:
    return f"{NOT_A_LINE}: their slope, {slope} round trips a write, is less than the {trips} that light alone takes"


@code
def latency_below_light(latency_ns: float, light_ns: float) -> str:
    return (
        f"a latency of {format_time(latency_ns)} is less than the {format_time(light_ns)} that light alone takes there: "
        "neither can be trusted"
    )


@code
def no_distance(holds: Holds) -> str:
    """The latency does not depend on distance: where the budget holds then."""
    texts = {"any": "holds at any", "none": "holds at none", "unclear": "too close to the budget to tell whether it holds"}
    return f"does not depend on distance: {texts[holds]}"


@code
def beyond_measured(miles: float) -> str:
    return f"beyond {miles:.0f} miles, not measured"


@code
def exceeded_at_nearest(miles: float) -> str:
    """At every distance that was measured."""
    where = f"{miles:.0f} miles, the nearest measured" if miles else "the first mile"
    return f"below {where}: the budget is exceeded there already"


@code
def below_measured(miles: float) -> str:
    """At the nearest distance, though not at all of them."""
    return f"below {miles:.0f} miles, the nearest measured" if miles else "below the first mile"


@code
def not_on_one_side(slope: str, why: str) -> str:
    """The budget holds at a distance beyond one at which it does not."""
    unclear = f"whether the latency depends on distance is unknown: k {slope} round trips a write"
    return f"{why or unclear}; the budget holds at some of the distances and not at others"


@code
def interval_beyond(miles: float) -> str:
    return f"its interval reaches beyond {miles:.0f} miles, not measured"


@code
def interval_below(miles: float) -> str:
    return f"its interval reaches below {f'{miles:.0f} miles' if miles else 'the first mile'}"


@code
def interval_begins(miles: float) -> str:
    return f"its interval begins at {miles:.0f} miles"


spent_at_nothing = fixed("spent_at_nothing", "the budget is exhausted before the first mile")


@code
def few_distances(quantile: str, known: int, cells: int) -> str:
    return f"{quantile} is known at {known} of {cells} distances, and three are needed"


@code
def trials_uncounted(counted: int, trials: int) -> str:
    """Of a drill none of whose trials counts."""
    return f"{counted} of {trials} trials count: with nothing at stake nothing can be lost, and no recovery is measured"


@code
def not_served_again(trials: int, of: int) -> str:
    """Of a recovery time."""
    return f"{trials} of {of} trials ended before writes were served again"


@code
def few_trials(trials: int, least: int) -> str:
    return f"{trials} trials: this quantile needs {least}"


# --- What a reader must know of a cell -------------------------------------------------------------------------


@code
def exposed(writes: int, caught_up_ns: float | None) -> str:
    after = "did not catch up in time" if caught_up_ns is None else f"caught up {format_time(caught_up_ns)} after the load"
    return f"{writes} writes completed while the peer was left behind; it {after}"


steadiness_unknown = fixed("steadiness_unknown", "too few writes a slice to tell whether it was steady: measure longer rounds")


@code
def unsteady(growth_ratio: float, margin: float) -> str:
    direction = "grows" if growth_ratio > 0 else "falls"
    return (
        f"no steady state: the median {direction} by {abs(growth_ratio):.0%} within a round "
        f"(more than {margin:.0%}); measure longer rounds"
    )


@code
def waited_for_room(times: int) -> str:
    return f"{times} times a write waited for room: a larger journal would show less latency"


@code
def unacknowledged(writes: int) -> str:
    return f"{writes} writes were never acknowledged and are in no latency"


@code
def unissued(writes: int) -> str:
    return f"{writes} writes could not even be issued: more was offered than the target completes"


# --- What a reader must know of a run --------------------------------------------------------------------------


@code
def stream_level() -> str:
    return "the link was stream-level: delay and rate are the distance's, loss, retransmission and TCP's windows over it are not"


in_memory = fixed("in_memory", "every figure is of journals in memory: nothing here would survive a power loss")


@code
def not_durable(journals: str) -> str:
    """Journals on what a loss of power takes: which, and on what they are."""
    return f"{journals}: a flush there costs no disk anything, and what was acknowledged would not survive a power loss"


@code
def drills_uncounted(kind: str, protocol: str, why: str) -> str:
    """Drills in which no write was being acknowledged at the fault: they are in no bound."""
    return f"{kind} drills under {protocol}: {why}"


@code
def floor_beaten() -> str:
    """Of an efficiency whose whole interval lies above 1."""
    return "the engine beat what was measured as its floor, so that floor is not a floor and this is no efficiency"


@code
def beaten_cells(cells: str, least: float, most: float, floors: str) -> str:
    """The same of the whole run; shares of 1."""
    shares = f"{100 * least:.1f} %" if least == most else f"{100 * least:.1f} to {100 * most:.1f} %"
    return (
        f"efficiency above 100 % ({shares}) in {cells}: the floor was measured as {floors}, and the engine beat it, so it is not "
        "a floor there and no verdict rests on the efficiency"
    )


@code
def faster_than_light(median_ns: float, light_ns: float) -> str:
    """Of a protocol that waits for its peer."""
    return (
        f"a write took {format_time(median_ns)} at the median, less than the {format_time(light_ns)} that light alone takes: it "
        "was not that far away, or was complete before its peer had answered"
    )


@code
def hours_apart(runs_min: int) -> str:
    """Of a change between two runs that were not measured side by side."""
    return (
        f"baseline and candidate are two runs of different hours, and fewer than {runs_min} earlier runs like them show what "
        "differs from run to run: a change may be of the hour"
    )


@code
def shared_disk() -> str:
    return "both sites flush to one disk and wait for each other there: give them a disk each (lab.near, lab.far)"


@code
def rounds_left_out(status: str, rounds: int, of: int, most_often: str, advice: str) -> str:
    """`status`: void or failed."""
    meaning = "void, measured again and left out" if status == "void" else "failed and left out"
    often = f"; most often: {most_often}" if most_often else ""
    return f"{rounds} of {of} rounds were {meaning}{often}{advice}"


@code
def cells_without_rounds(cells: str) -> str:
    return f"not one good round for {cells}"


@code
def busy_cells(cells: int, of: int) -> str:
    return (
        f"{HOST_NOISE}: no verdict on latency may rest on {cells} of {of} cells, because this machine "
        "had too much else to do; what was lost or damaged is judged"
    )


@code
def saturated_cells(cells: str) -> str:
    return f"writes of 18 minutes or longer, of which only the number is known: {cells}"


@code
def damaged_writes(writes: int) -> str:
    return f"{writes} writes at the far site are not what was written"


@code
def drifted(autocorrelation: float, rounds: int) -> str:
    return (
        f"the machine drifted: a round is like the one before (autocorrelation {autocorrelation:.2f} over {rounds} rounds), so "
        "intervals are too narrow, and speak of this hour only"
    )


@code
def shared_host(least: float, most: float, disk: bool) -> str:
    """Of asynchronous writes, as a multiple of a bare flush."""
    shared = "processors and a disk" if disk else "processors"
    return (
        f"under A a write took {least:.1f} to {most:.1f} times a bare local flush: the sites share {shared} with "
        "the link, so the far copy's flushes and the packets are this lab's own part of it; two machines share neither"
    )


@code
def stolen_at_most(share: float, share_max: float) -> str:
    return (
        f"the host took up to {share:.1%} of the processors in one of the good rounds; no latency of a cell is judged where it "
        f"took more than {share_max:.0%} over all of its rounds"
    )


steal_unknown = fixed("steal_unknown", "what the host took of the processors is not known here")


# --- Why a round is void or has failed -------------------------------------------------------------------------


@code
def link_missed(when: str, whose: str, missed_ns: float) -> str:
    """`when`: before, during or after; `whose`: of which of several links."""
    return f"the link{whose} {when} the round was {missed_ns / 1000:+.0f} us off"


@code
def packets_late(share: float, way: str, whose: str, allowed_ns: float) -> str:
    return f"{share:.0%} of the packets {way}{whose} left more than {allowed_ns / 1000:.0f} us late"


@code
def engine_stopped(words: str) -> str:
    return f"the engine stopped: {words}"


@code
def round_refused(words: str) -> str:
    """What the system said."""
    return words


neighbour_void = fixed("neighbour_void", "another arm's round beside it was void")  # Of an A/B experiment.


# What older recordings say of a round; the beginnings are all that is known of the numbers.
ROUND_SENTENCES: tuple[tuple[str, Code], ...] = (
    ("the link", link_missed), ("the host took", stolen), ("the engine stopped", engine_stopped),
    ("another arm's round", neighbour_void),
)  # fmt: skip
STORED = (unsound(), one_run(), not_audited(), no_distance("any"), no_distance("none"), no_distance("unclear"))
SENTENCES: dict[str, Reason] = {made.sentence: made for made in STORED}


def of_sentence(text: str) -> Reason:
    """The reason of a sentence that was stored without its code."""
    if text in SENTENCES:
        return SENTENCES[text]
    if " of the packets " in text and text.endswith(" us late"):
        return Reason(code=packets_late.name, sentence=text)
    found = next((made.name for beginning, made in ROUND_SENTENCES if text.startswith(beginning)), remark.name)
    return Reason(code=found, sentence=text)


# The fields of results and figures that hold reasons.
STORED_IN = ("withheld", "host_noise", "warnings", "void_reasons", "unknown")


def with_codes(plain: Any) -> Any:
    """Plain values of results or figures in which every sentence that an older version stored has its code."""
    if isinstance(plain, list):
        return [with_codes(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {key: coded(value) if key in STORED_IN else with_codes(value) for key, value in plain.items()}


def coded(items: Any) -> Any:
    """A list of reasons as it is stored."""
    if not isinstance(items, list):
        return items
    return [msgspec.to_builtins(of_sentence(item)) if isinstance(item, str) else item for item in items]


# What several reasons have in common: how void rounds are counted.
CAUSES = {
    link_missed.name: "the link was off",
    packets_late.name: "packets left late",
    stolen.name: "the host took the processors",
    engine_stopped.name: "the engine stopped",
}
CAUSE_MAX = 48  # Characters of a cause that is not among these.


def cause_of(reason: Reason) -> str:
    """The cause that a reason is counted under."""
    if reason.code in CAUSES:
        return CAUSES[reason.code]
    first = re.split(r"[:;(]", reason.sentence, maxsplit=1)[0].strip()
    return first if len(first) <= CAUSE_MAX else first[: first.rfind(" ", 0, CAUSE_MAX)] + " ..."
