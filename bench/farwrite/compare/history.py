"""History: every figure of every report below a results directory, and the series that one metric makes over time.

The figures are kept in an index (`results/index.sqlite`), because a report takes up to a second to read. The files are the
truth: at each use new, changed and removed ones are noticed, and an index that is damaged, older or not ours is made anew.
Unlike runs are never joined: a series has one set of labels and one identity (host, link, profile …). Of an A/B experiment the
base is a run like any other, a candidate is unlike it, and the base measured again is left out: it is no further run.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .. import __version__
from ..analysis.between_runs import EarlierRuns, RunHistory
from ..analysis.change import Spread, key_of, level_of
from ..analysis.figure import METRICS, RESULT_SET_VERSION, Figure, Label, ResultSet, label_text
from ..analysis.result import ANALYSIS_VERSION, Estimate, lateness_share_of
from ..base.documents import SUFFIX, named_below
from ..base.errors import FarwriteError, UsageError, nearest
from ..base.reasons import Reason
from ..progress import Progress, bar
from .change_points import Change, change_points
from .figures import REPORT_NAMES, read_result_set

INDEX_NAME = "index.sqlite"
INDEX_VERSION = 2
STAMP = (  # What an index holds depends on all of these; one with another stamp is made anew.
    f"farwrite {__version__} index {INDEX_VERSION} analysis {ANALYSIS_VERSION} sheet {RESULT_SET_VERSION} "
    f"metrics {zlib.crc32(repr(METRICS).encode()):08x}"
)
TABLES = {
    "about": "stamp TEXT",
    "source": "id INTEGER PRIMARY KEY, path BLOB UNIQUE, size INTEGER, mtime_ns INTEGER, inode TEXT, kind TEXT, "
    "run TEXT, started_utc TEXT, identity TEXT, interrupted INTEGER",
    "figure": "source INTEGER, metric TEXT, labels TEXT, unit TEXT, better TEXT, value REAL, low REAL, high REAL, "
    "confidence REAL, count INTEGER, withheld TEXT, warnings TEXT, level REAL, level_error REAL, level_df REAL",
}
BUSY_S = 10.0  # Another process writes for some 10 ms at a time.
BATCH_S = 1.0  # Reading that an interruption may cost.
PATIENCE_S = 2.0  # From then on a person is told how long it still takes.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
AGAIN = "again"  # The arm of an A/B experiment that is its base a second time.
LABEL_ORDER = ("name", "job", "op", "drill", "protocol", "miles", "queue_depth")


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """What a history is made of."""


class Point(Struct, frozen=True):
    """One run in a series."""

    run: str
    started_utc: str
    source: str  # the file, below the results directory
    estimate: Estimate
    withheld: list[Reason] = []  # why it takes no part in finding changes
    interrupted: bool = False
    baselines: list[str] = []  # names of the baselines that are this run


class Series(Struct, frozen=True):
    """One figure of like runs, in order of time."""

    labels: dict[str, Label]
    kind: str
    identity: dict[str, str]
    unit: str
    better: str
    points: list[Point]
    changes: list[Change]  # their index is that of a point

    @property
    def name(self) -> str:
        """The labels in words."""
        return ", ".join(label_text(key, value) for key, value in self.labels.items())


class History(Struct, frozen=True):
    """All series of one metric."""

    metric: str
    meaning: str
    unlike: list[str]  # fields of the identity in which these series differ
    series: list[Series]
    notices: list[str] = []  # files that were passed over, an index that was made anew


class FileFacts(NamedTuple):
    """By what a file is known to be the one that was read. A report that is replaced gets another inode."""

    size: int
    mtime_ns: int
    inode: str  # Text: SQLite's integers are signed, and inodes need not fit.


def history(results: Path, metric: str, where: Sequence[str] = ()) -> History:
    """The series of a metric, only those with all `key=value` of `where`; UsageError when there is none."""
    wanted = [parse_where(word) for word in where]
    notices: list[str] = []
    with closing(index_of(results, notices)) as index:
        known = {name for (name,) in index.execute("SELECT DISTINCT metric FROM figure")}
        rows = index.execute(
            "SELECT labels, kind, identity, unit, better, run, started_utc, path, value, low, high, confidence, count, "
            "withheld, warnings, interrupted, mtime_ns FROM figure JOIN source ON source.id = figure.source "
            "WHERE metric = ?", [metric],
        ).fetchall()  # fmt: skip
    if not rows:
        raise UsageError(nothing_of(metric, known, results, notices))
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        groups.setdefault(row[:5], []).append(row[5:])
    chosen = only(groups, wanted, metric)
    series = sorted((series_of(key, groups[key]) for key in chosen), key=order)
    return History(
        metric=metric,
        meaning=METRICS[metric].meaning if metric in METRICS else "",
        unlike=unlike([one.identity for one in series]),
        series=series,
        notices=notices,
    )


def nothing_of(metric: str, known: set[str], results: Path, notices: list[str]) -> str:
    """Why there is no series at all."""
    passed = f" Passed over: {' '.join(notices)}" if notices else ""
    if not known:
        return (
            f"there is no readable report below {results / 'runs'} or in {results / 'baselines'}. "
            f'"farwrite run" makes one; --results names another directory.{passed}'
        )
    if metric in METRICS:
        return f"no report below {results} has {metric}: {METRICS[metric].meaning}.{passed}"
    return f'there is no metric "{metric}"{nearest(metric, known | set(METRICS))}.'


# What runs differ by


def earlier_runs(results: Path, like: ResultSet, compared: Sequence[ResultSet]) -> RunHistory:
    """Every figure in each run below `results` that is like this one, without those that are compared, and interrupted ones.

    Runs are alike when their whole identity is the same: host, kernel, link, profile, protocols, disk. An empty history where
    there is no such directory. Files that are passed over are named by `history`, which is about them.
    """
    if not results.is_dir():
        return RunHistory(EarlierRuns(results=str(results), runs=0), {})
    left_out = {(result_set.id, result_set.started_utc) for result_set in compared}
    runs: dict[tuple[str, str], int] = {}
    levels: dict[tuple, list[Spread]] = {}
    with closing(index_of(results, [])) as index:
        sources = index.execute(
            "SELECT id, run, started_utc FROM source WHERE kind = ? AND identity = ? AND NOT interrupted ORDER BY path",
            [like.kind, canonical(series_identity(like))],
        ).fetchall()
        for source, run, started_utc in sources:
            if (run, started_utc) not in left_out:
                runs.setdefault((run, started_utc), source)  # A baseline is a copy of a run.
        for source in runs.values():
            rows = index.execute(
                "SELECT metric, labels, level, level_error, level_df FROM figure "
                "WHERE source = ? AND level IS NOT NULL AND withheld = '[]'", [source],
            )  # fmt: skip
            for metric, labels, *level in rows:
                levels.setdefault((metric, labels), []).append(Spread(*level))
    started = sorted(started_utc for _, started_utc in runs)
    about = EarlierRuns(
        results=str(results), runs=len(runs), first_utc=started[0] if started else "", last_utc=started[-1] if started else "",
    )  # fmt: skip
    known = {(figure.metric, canonical(figure.labels)): key_of(figure) for figure in like.figures}
    return RunHistory(about, {known[key]: many for key, many in levels.items() if key in known})


# Choosing


def parse_where(word: str) -> tuple[str, str]:
    """ "miles=20" -> ("miles", "20")."""
    key, equals, value = word.partition("=")
    if not equals or not key.strip():
        raise UsageError(f'--where "{word}": write it as key=value, such as --where protocol=C.')
    return key.strip(), value.strip()


def only(groups: dict[tuple[str, ...], Any], wanted: list[tuple[str, str]], metric: str) -> list[tuple[str, ...]]:
    """The groups that have all that is wanted; UsageError says which labels and values there are."""
    facts = {key: (json.loads(key[0]), {"kind": key[1], **json.loads(key[2])}) for key in groups}
    labels = {name for of, _ in facts.values() for name in of}
    fields = {name for _, of in facts.values() for name in of}
    for key, value in wanted:
        if key not in labels | fields:
            raise UsageError(
                f'--where {key}={value}: {metric} has no label "{key}"{nearest(key, labels | fields)}. Its labels: '
                f"{', '.join(sorted(labels, key=rank)) or 'none'}; of runs: {', '.join(sorted(fields))}."
            )
        if not any(has(of, key, value) for of in facts.values()):
            there = sorted({text_of(of[0].get(key, of[1].get(key, ""))) for of in facts.values()}, key=natural)
            raise UsageError(f"--where {key}={value}: no series of {metric} has it. There is {key} {', '.join(there)}.")
    chosen = [group for group, of in facts.items() if all(has(of, key, value) for key, value in wanted)]
    if not chosen:
        together = " and ".join(f"{key}={value}" for key, value in wanted)
        raise UsageError(f"no series of {metric} has {together} together. Leave one of them out.")
    return chosen


def has(facts: tuple[dict[str, Label], dict[str, str]], key: str, wanted: str) -> bool:
    """Whether a label is what is wanted, or a field of the identity contains it: nobody types a whole host."""
    labels, identity = facts
    if key not in labels:
        return wanted.casefold() in identity.get(key, "").casefold() if key in identity else False
    value = labels[key]
    if isinstance(value, str):
        return wanted == value
    with suppress(ValueError):
        return float(wanted) == value
    return False


def text_of(value: Label) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def natural(text: str) -> tuple[float, str]:
    """Numbers by size, before words."""
    with suppress(ValueError):
        return float(text), ""
    return math.inf, text


def rank(key: str) -> tuple[int, str]:
    """Where a label stands among others."""
    return (LABEL_ORDER.index(key) if key in LABEL_ORDER else len(LABEL_ORDER), key)


def order(series: Series) -> tuple[Any, ...]:
    """Like runs together, then by label."""
    return (sorted(series.identity.items()), [natural(text_of(value)) for value in series.labels.values()])


def unlike(identities: list[dict[str, str]]) -> list[str]:
    """The fields in which these differ."""
    fields = dict.fromkeys(field for identity in identities for field in identity)
    return [field for field in fields if len({identity.get(field) for identity in identities}) > 1]


def series_of(key: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Series:
    """One series: each run once, in order of time, with its changes."""
    labels, kind, identity, unit, better = key
    points: dict[tuple[str, str], Point] = {}
    moments: dict[tuple[str, str], datetime] = {}
    # A baseline is a copy of a run: the run itself comes first, and the copy only lends its name.
    for row in sorted(rows, key=lambda row: (is_baseline(row[2]), row[2])):
        run, started_utc, path, value, low, high, confidence, count, withheld, warnings, interrupted, mtime_ns = row
        same = (run, started_utc)
        if same not in points:
            points[same] = Point(
                run=run, started_utc=started_utc, source=readable(path), withheld=reasons_of(withheld),
                interrupted=bool(interrupted), estimate=Estimate(value=value, low=low, high=high,
                confidence=confidence, count=count, warnings=reasons_of(warnings)),
            )  # fmt: skip
            moments[same] = moment(started_utc, mtime_ns)
        if is_baseline(path):
            names = [*points[same].baselines, Path(readable(path)).stem]
            points[same] = msgspec.structs.replace(points[same], baselines=names)
    ordered = [points[same] for same in sorted(points, key=lambda same: (moments[same], same))]
    named = json.loads(labels)
    return Series(
        labels={key: named[key] for key in sorted(named, key=rank)},
        kind=kind, identity=json.loads(identity), unit=unit, better=better, points=ordered,
        changes=changes_of(ordered),
    )  # fmt: skip


def changes_of(points: list[Point]) -> list[Change]:
    """Where the level changed, by the runs on which a verdict may rest."""
    sound = [i for i, point in enumerate(points) if is_sound(point)]
    found = change_points([points[i].estimate.value or 0.0 for i in sound])
    return [msgspec.structs.replace(change, index=sound[change.index]) for change in found]


def is_sound(point: Point) -> bool:
    """Whether a point takes part in finding changes."""
    return point.estimate.value is not None and math.isfinite(point.estimate.value) and not point.withheld


def is_baseline(path: bytes) -> bool:
    return path.startswith(b"baselines/")


def readable(path: bytes) -> str:
    """A path as text: its bytes may be anything, and a document holds text only."""
    return path.decode("utf-8", "backslashreplace")


def moment(started_utc: str, mtime_ns: int) -> datetime:
    """When a run started; when its file was written, where it does not say."""
    with suppress(ValueError):
        started = datetime.fromisoformat(started_utc)
        return started if started.tzinfo else started.replace(tzinfo=UTC)
    return datetime.fromtimestamp(mtime_ns / 1e9, UTC)


# The index


def index_of(results: Path, notices: list[str]) -> sqlite3.Connection:
    """The index, up to date; in memory where it cannot be kept."""
    if not results.is_dir():
        raise UsageError(f'{results} is no directory. Runs are stored in "results"; name another with --results.')
    path = results / INDEX_NAME
    for made_anew in (False, True):
        index = None
        try:
            index = opened(path)
            prepare(index, path, notices)
            update(index, results, notices)
            return index
        except sqlite3.Error as refusal:
            if index:
                index.close()
            if is_damage(refusal) and not made_anew:
                notices.append(f"{path} is damaged ({refusal}): made anew from the reports.")
                remove(path)
                continue
            notices.append(f"{path}: {refusal}. The index is kept in memory this time, and made again the next.")
            break
        except BaseException:
            if index:
                index.close()
            raise
    index = in_memory(path)
    prepare(index, path, [])
    update(index, results, notices)
    return index


def opened(place: Path | str) -> sqlite3.Connection:
    """A connection that begins and ends its transactions only where we say so."""
    return sqlite3.connect(place, timeout=BUSY_S, isolation_level=None)


def in_memory(path: Path) -> sqlite3.Connection:
    """An index that nobody else sees: a copy of the one on disk where that can be read."""
    with suppress(sqlite3.Error), closing(opened(path)) as kept:
        kept.execute("SELECT stamp FROM about").fetchone()
        copy = opened(":memory:")
        kept.backup(copy)
        return copy
    return opened(":memory:")


def is_damage(refusal: sqlite3.Error) -> bool:
    """Whether the file is to blame, and not the place or another process. The low byte is the primary error."""
    return getattr(refusal, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in DAMAGED


def remove(path: Path) -> None:
    """The index and its rollback journal, which must not be applied to the next one."""
    for file in (path.with_name(f"{path.name}-journal"), path):
        with suppress(OSError):
            file.unlink()


@contextmanager
def writing(index: sqlite3.Connection) -> Iterator[None]:
    """One transaction; whoever else wants to write waits until it is over."""
    index.execute("BEGIN IMMEDIATE")
    try:
        yield
        index.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            index.execute("ROLLBACK")
        raise


def prepare(index: sqlite3.Connection, path: Path, notices: list[str]) -> None:
    """The tables as this farwrite would make them; older ones are emptied."""
    if stamp_of(index) == STAMP:
        return
    with writing(index):
        stamp = stamp_of(index)  # Another process may have been quicker.
        if stamp == STAMP:
            return
        if stamp is not None:
            notices.append(f"{path} was made by another farwrite: made anew from the reports.")
        for name, columns in TABLES.items():
            index.execute(f"DROP TABLE IF EXISTS {name}")
            index.execute(f"CREATE TABLE {name} ({columns})")
        index.execute("CREATE INDEX figure_of ON figure (metric)")
        index.execute("CREATE INDEX figure_from ON figure (source)")
        index.execute("INSERT INTO about VALUES (?)", [STAMP])


def stamp_of(index: sqlite3.Connection) -> str | None:
    """By what the tables were made; None when there are none, "" when they are not ours."""
    names = {name for (name,) in index.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "about" not in names:
        return "" if names else None
    try:
        row = index.execute("SELECT stamp FROM about").fetchone()
    except sqlite3.OperationalError:  # A table of that name, and no such column.
        return ""
    return row[0] if row else ""


def update(index: sqlite3.Connection, results: Path, notices: list[str]) -> None:
    """Forget what is gone or changed, read what is new or changed."""
    there = dict(files_below(results, notices))
    known = {path: FileFacts(*seen) for path, *seen in index.execute("SELECT path, size, mtime_ns, inode FROM source")}
    gone = [path for path, seen in known.items() if there.get(path) != seen]
    if gone:
        with writing(index):
            for path in gone:
                forget(index, path)
    changed = [path for path, seen in there.items() if known.get(path) != seen]
    batch: list[tuple[bytes, FileFacts, ResultSet]] = []
    with ExitStack() as stack:
        begin_s = stored_s = time.monotonic()
        progress: Progress | None = None
        for done, path in enumerate(changed):
            elapsed_s = time.monotonic() - begin_s
            if progress is None and done and elapsed_s > PATIENCE_S:
                progress = stack.enter_context(bar())
                progress.expect(elapsed_s / done * (len(changed) - done))
            result_set = read_one(results / os.fsdecode(path), notices, progress)
            batch += [(path, there[path], result_set)] if result_set else []
            if time.monotonic() - stored_s > BATCH_S:
                store(index, batch, notices)
                batch, stored_s = [], time.monotonic()
    store(index, batch, notices)


def read_one(file: Path, notices: list[str], progress: Progress | None) -> ResultSet | None:
    """One file's result set; None, and a notice, when it cannot be read."""
    begin_s = time.monotonic()
    if progress:
        progress.doing(f"reading {readable(os.fsencode(file))}")
    try:
        return read_result_set(file)
    except FarwriteError as refusal:
        if file.exists() or file.is_symlink():  # Otherwise it was removed just now.
            notices.append(f"passed over: {refusal}")
    except Exception as fault:  # One file that we cannot cope with must not cost the history of all others.
        notices.append(f"passed over: {file}: {type(fault).__name__}: {fault}")
    finally:
        if progress:
            progress.did(time.monotonic() - begin_s)
    return None


def files_below(results: Path, notices: list[str]) -> Iterator[tuple[bytes, FileFacts]]:
    """Every file that may be a report or a result set, its path below the results directory as bytes."""
    tree = os.walk(results / "runs")  # Unlike rglob it also finds links that lead nowhere, so they can be named.
    files = [
        Path(place, name if name in names else name + SUFFIX)
        for place, _, names in tree for name in REPORT_NAMES if name in names or name + SUFFIX in names
    ]  # fmt: skip
    for file in [*sorted(files), *named_below(results / "baselines").values()]:
        try:
            facts = file.stat()
        except OSError as refusal:
            notices.append(f"passed over: {file}: {refusal.strerror}.")
            continue
        yield os.fsencode(file.relative_to(results)), FileFacts(facts.st_size, facts.st_mtime_ns, str(facts.st_ino))


def forget(index: sqlite3.Connection, path: bytes) -> None:
    index.execute("DELETE FROM figure WHERE source IN (SELECT id FROM source WHERE path = ?)", [path])
    index.execute("DELETE FROM source WHERE path = ?", [path])


def store(index: sqlite3.Connection, batch: Sequence[tuple[bytes, FileFacts, ResultSet]], notices: list[str]) -> None:
    """What was read, in place of what was known of it: one transaction, because each waits for the disk."""
    if not batch:
        return
    with writing(index):
        for path, seen, result_set in batch:
            index.execute("SAVEPOINT file")
            try:
                forget(index, path)
                store_one(index, path, seen, result_set)
            except (OverflowError, UnicodeError) as refusal:  # Numbers and characters that no database holds.
                index.execute("ROLLBACK TO file")
                notices.append(f"passed over: {readable(path)}: {refusal}.")
            index.execute("RELEASE file")


def store_one(index: sqlite3.Connection, path: bytes, seen: FileFacts, result_set: ResultSet) -> None:
    """One file and its figures."""
    arm = arm_of(result_set)
    identity = series_identity(result_set)
    source = index.execute(
        "INSERT INTO source (path, size, mtime_ns, inode, kind, run, started_utc, identity, interrupted) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [path, *seen, result_set.kind, result_set.id, result_set.started_utc, canonical(identity), result_set.interrupted],
    ).lastrowid
    index.executemany(
        "INSERT INTO figure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (source, f.metric, canonical(f.labels), f.unit, f.better, f.estimate.value, f.estimate.low, f.estimate.high,
             f.estimate.confidence, f.estimate.count, stored(doubts_of(f)), stored(f.estimate.warnings),
             *(level_of(f) or (None, None, None)))
            for f in (result_set.figures if arm != AGAIN else [])
        ],
    )  # fmt: skip


def arm_of(result_set: ResultSet) -> str:
    """Which arm of an A/B experiment a run is; one by itself is as good as a base."""
    return result_set.pairing.arm if result_set.pairing else "base"


def series_identity(result_set: ResultSet) -> dict[str, str]:
    """What the runs of one series share. A candidate is unlike its base in what was tried with it."""
    arm = arm_of(result_set)
    return result_set.identity if arm == "base" else {**result_set.identity, "arm": arm}


def doubts_of(figure: Figure) -> list[Reason]:
    """Why a figure takes no part in finding changes."""
    late = lateness_share_of(figure.estimate)
    return [*figure.doubts, late] if late else figure.doubts


def stored(reasons: list[Reason]) -> str:
    """Reasons as the index has them."""
    return msgspec.json.encode(reasons).decode()


def reasons_of(text: str) -> list[Reason]:
    """The same, read back."""
    return msgspec.json.decode(text, type=list[Reason])


def canonical(values: dict[str, Any]) -> str:
    """The same text for the same labels: keys in order, 20 and 20.0 alike."""
    alike = {key: float(value) if isinstance(value, (int, float)) else value for key, value in values.items()}
    return json.dumps(alike, sort_keys=True, ensure_ascii=False)
