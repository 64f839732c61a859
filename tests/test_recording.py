"""Recordings: what is saved is read again, whatever else is in a file is refused, and a save is whole or not at all."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from farwrite import recording as recordings
from farwrite.analysis import analysis_of
from farwrite.analysis.analyse import analyse
from farwrite.analysis.sample import decode_all
from farwrite.base import documents
from farwrite.base.errors import UsageError
from farwrite.compare import baseline as baselines
from farwrite.compare.figures import holds_report, read_result_set, result_set_of
from farwrite.recording import SCHEMA_VERSION, Report, decode, of_today, read, save, schema, upgraded
from farwrite.workload import profile as profiles
from make_recording import made_report, make_recording

TINY = """
title = "Tiny"
[distance]
miles = [0, 20]
[run]
rounds = 2
round = "100 ms"
[[cell]]
name = "write"
protocols = ["C", "A"]
[drill]
kills = 1
protocols = ["C"]
"""


@cache
def tiny() -> Report:
    made = make_recording(TINY, slices=2, writes=40)
    return Report(schema_version=SCHEMA_VERSION, recording=made, analysis=analyse(made))


@cache
def tiny_bytes() -> bytes:
    return msgspec.json.encode(tiny())


def changed(**fields) -> bytes:
    """The tiny report with other values; a key `a__b` is b inside a."""
    document = json.loads(tiny_bytes())
    for key, value in fields.items():
        *tables, last = key.split("__")
        place = document
        for table in tables:
            place = place[int(table)] if table.isdigit() else place[table]
        place[int(last) if last.isdigit() else last] = value
    return json.dumps(document).encode()


def refusal_of(data: bytes) -> str:
    with pytest.raises(UsageError) as refusal:
        decode(data, "some/report.json")
    assert str(refusal.value).startswith("some/report.json ")
    return str(refusal.value)


# There and back


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_saved_is_read_again(tmp_path, seed):
    report = made_report(seed=seed)
    made = report.recording
    save(report, tmp_path / "report.json")
    again = read(tmp_path / "report.json")
    assert again.recording == made
    assert analysis_of(again) == report.analysis


def test_saving_what_was_read_gives_the_same_bytes(tmp_path):
    save(tiny(), tmp_path / "one.json")
    save(read(tmp_path / "one.json"), tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_the_directory_of_a_run_stands_for_its_report(tmp_path):
    save(tiny(), tmp_path / "report.json")
    assert read(tmp_path) == read(tmp_path / "report.json")


def test_a_saved_report_is_text_that_others_may_read_and_ends_in_a_line_break(tmp_path):
    save(tiny(), tmp_path / "report.json")
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "report.json").read_bytes().endswith(b"}\n")


def test_the_stored_analysis_is_the_one_that_is_made_anew():
    stored = decode(tiny_bytes(), "x")
    assert isinstance(stored.analysis, dict)
    assert analysis_of(stored) == analyse(stored.recording) == tiny().analysis


@pytest.mark.parametrize("damage", [None, {}, [], 3, {"version": 999}, {"version": 1, "cells": 3}])
def test_an_analysis_that_is_not_ours_is_made_anew(damage):
    assert analysis_of(decode(changed(analysis=damage), "x")) == tiny().analysis


@pytest.mark.parametrize(("was", "meant"), [(True, "spinner"), (False, "none")])
def test_the_booleans_of_older_recordings_say_what_they_meant(was, meant):
    """In what was done and in what was asked; a recording from before it was known was kept awake by nothing."""
    made = decode(changed(recording__lab__keep_awake=was, recording__profile__lab__keep_awake=was), "x").recording
    assert (made.lab.keep_awake, made.profile.lab.keep_awake) == (meant, meant)
    document = json.loads(tiny_bytes())
    del document["recording"]["lab"]["keep_awake"], document["recording"]["lab"]["keep_awake_reason"]
    lab = decode(json.dumps(document).encode(), "x").recording.lab
    assert (lab.keep_awake, lab.keep_awake_reason) == ("none", "")


def test_unknown_fields_of_a_later_farwrite_are_passed_over():
    assert decode(changed(recording__weather="fine", later=3), "x").recording == tiny().recording


# Compressed, and of schema 1


@pytest.mark.parametrize("packs", [True, False])
def test_a_report_is_read_by_its_plain_name_in_either_form(tmp_path, monkeypatch, packs):
    monkeypatch.setattr(documents, "PLAIN_BYTES_MAX", 0 if packs else 1 << 30)
    place = save(tiny(), tmp_path / "report.json")
    assert place.name == ("report.json.gz" if packs else "report.json") and holds_report(tmp_path)
    for named in (tmp_path, tmp_path / "report.json", place):
        assert read(named).recording == tiny().recording
        assert read_result_set(named).figures == result_set_of(tiny(), tiny().analysis, "x").figures


RESULTS = Path(__file__).parents[1] / "results"


def histograms_of(made):
    """Every histogram's text in a recording."""
    if isinstance(made, list):
        return [text for item in made for text in histograms_of(item)]
    if not isinstance(made, msgspec.Struct):
        return []
    values = [(str(type(made).__annotations__[name]), getattr(made, name)) for name in made.__struct_fields__]
    texts = [value for kind, value in values if "HistogramText" in kind and value]
    return texts + [text for _, value in values for text in histograms_of(value)]


def committed():
    """Every recording below results/, those of the rivals among them."""
    for path in sorted((RESULTS / "baselines").rglob("*.json*")):
        yield read(path).recording
    parts = json.loads(documents.read_document(RESULTS / "rivals.json", "read"))["parts"]
    yield from (msgspec.convert(part["recording"], recordings.Recording) for part in parts.values())


def test_what_is_large_is_committed_compressed():
    own = RESULTS / "runs"  # Of whoever has measured in this checkout.
    large = [path for path in RESULTS.rglob("*.json") if path.stat().st_size > documents.PLAIN_BYTES_MAX]
    assert not [path for path in large if own not in path.parents]


def test_every_committed_recording_of_schema_1_is_read_and_says_the_same_in_the_encoding_of_today():
    seen = 0
    for recording in committed():
        texts = histograms_of(recording)
        if all(text.startswith("HIST") for text in texts):
            continue  # Of schema 2: measured since.
        assert not any(text.startswith("HIST") for text in texts)
        some = slice(seen % 40, None, 40)
        for one, other in zip(decode_all(texts)[some], decode_all([of_today(text) for text in texts[some]]), strict=True):
            assert one.slot.tolist() == other.slot.tolist() and one.counts.tolist() == other.counts.tolist()
        slices = [item for round_ in recording.rounds for item in round_.slices]
        for item, sample in zip(slices, decode_all(item.response for item in slices), strict=True):
            assert sample.count in (item.completed, 0)  # None are known one by one of another tool's stream.
        seen += len(texts)
    assert seen > 2000


def test_an_older_run_becomes_a_baseline_of_the_schema_of_today_with_the_same_figures(tmp_path):
    older = RESULTS / "baselines" / "flush" / "cand"
    kept = read(baselines.promote(str(older), "old", tmp_path, force=True).kept.path)
    assert kept.schema_version == SCHEMA_VERSION and all(text.startswith("HIST") for text in histograms_of(kept.recording))
    assert kept.recording == upgraded(read(older).recording) == upgraded(kept.recording)
    assert analysis_of(kept) == analyse(kept.recording)  # The one was made of the recording as it was.


# What is not a report


@pytest.mark.parametrize("place", [
    "profile", "profile__run", "profile__lab", "profile__distance", "profile__drill", "profile__reach", "profile__sweep",
    "profile__cell__0", "profile__cell__0__burst", "profile__link", "profile__link__outward", "lab", "host", "cells__0",
    "rounds__0", "rounds__0__slices__0", "drills__0", "floors__0",
])  # fmt: skip
def test_a_field_of_a_newer_minor_version_is_passed_over_wherever_it_is(place):
    data = changed(**{f"recording__{place}__of_tomorrow": {"any": ["thing"]}})
    read = decode(data, "x")
    host = {**tiny().recording.host, "of_tomorrow": {"any": ["thing"]}} if place == "host" else tiny().recording.host
    assert read.recording == msgspec.structs.replace(tiny().recording, host=host)
    assert analyse(read.recording) == tiny().analysis


def test_a_key_that_a_person_wrote_and_nobody_knows_is_refused_with_its_line():
    for written, said in (("rounds", "rouns"), ("miles", "mils")):
        with pytest.raises(UsageError, match=rf'tiny.toml:\d+: .*unknown key "{said}" \(did you mean "{written}"\?\)'):
            profiles.parse(TINY.replace(f"{written} =", f"{said} ="), "tiny.toml")


HEAVY = ("numba", "numpy", "scipy", "rich", "farwrite.workload.plan", "farwrite.experiment", "farwrite.base.wire", "farwrite.lab",
         "farwrite.engine", "farwrite.analysis", "farwrite.workload.load_checks", "farwrite.report")  # fmt: skip


def test_the_recording_loads_nothing_of_what_made_it_or_of_what_reads_it():
    """In a fresh interpreter: whoever reads recordings needs neither the engine nor Numba."""
    code = f"""
import sys
import farwrite.recording
heavy = [name for name in sys.modules if any(name == one or name.startswith(one + ".") for one in {HEAVY})]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_newer_schema_asks_for_a_newer_farwrite():
    said = refusal_of(changed(schema_version=SCHEMA_VERSION + 1))
    assert f"schema {SCHEMA_VERSION + 1}" in said and f"up to {SCHEMA_VERSION}" in said and "Upgrade" in said


def test_a_newer_schema_is_recognised_whatever_else_it_holds():
    assert "Upgrade" in refusal_of(b'{"schema_version": 7, "recording": "in another form"}')


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b"3", b'"x"', b"{}", b"\x00", b"\xff\xfe{", b'{"schema_version": "1"}', b"not json",
     b'{"schema_version": 1}', b'{"schema_version": 1, "recording": {}}', b'{"schema_version": 1.5}',
     b"[" * 100_000, b'{"schema_version": 1, "recording": ' + b"[" * 100_000, b'{"x": "\xff"}',
     b'{"schema_version": 1, "recording": {"farwrite": "\xff"}}', b'{"schema_version": ' + b"9" * 5000 + b"}",
     b'{"analysis": ' + b'{"a":' * 100_000],
)  # fmt: skip
def test_what_is_no_report_is_refused(data):
    refusal_of(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"recording": None},
        {"recording__seed": "1"},
        {"recording__seed": 1.5},
        {"recording__duration_s": "long"},
        {"recording__interrupted": 0},
        {"recording__cells": {}},
        {"recording__cells__0": None},
        {"recording__cells__0__protocol": "D"},
        {"recording__cells__0__miles": "20"},
        {"recording__rounds__0__status": "good"},
        {"recording__rounds__0__service": None},
        {"recording__rounds__0__slices__0__completed": "1"},
        {"recording__rounds__0__link": {"dropped": None}},
        {"recording__drills__0__kind": "drown"},
        {"recording__lab__durability": "tape"},
        {"recording__notes": [1]},
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(fields):
    assert "`$.recording" in refusal_of(changed(**fields))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(number):
    data = tiny_bytes().replace(b'"duration_s":', b'"duration_s":%s,"was":' % number.encode(), 1)
    refusal_of(data)


@settings(max_examples=60, deadline=None)
@given(some.integers(0, 10**9))
def test_a_report_cut_short_is_refused(at):
    data = tiny_bytes()
    refusal_of(data[: at % len(data)])


@settings(max_examples=150, deadline=None)
@given(some.data())
def test_any_damage_is_seen_or_leaves_a_report(data):
    damaged = bytearray(tiny_bytes())
    for _ in range(data.draw(some.integers(1, 5))):
        at = data.draw(some.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(some.integers(0, 3))] = data.draw(
            some.binary(max_size=3) | some.sampled_from([b"0", b"-1", b"null", b"1e400", b'"', b"[", b"}", b"NaN"])
        )
    with suppress(UsageError):
        assert isinstance(decode(bytes(damaged), "x"), Report)


def numbers_and_texts(document, path=()):
    """The path of every value in a document that is neither object nor list."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from numbers_and_texts(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from numbers_and_texts(value, (*path, index))
    else:
        yield path


@cache
def places():
    return list(numbers_and_texts(json.loads(tiny_bytes())["recording"]))


@settings(max_examples=12, deadline=None)
@given(some.data())
def test_a_report_edited_by_hand_is_refused_or_analysed(data):
    document = json.loads(tiny_bytes())
    document["analysis"] = None
    for _ in range(data.draw(some.integers(1, 3))):
        *tables, last = data.draw(some.sampled_from(places()))
        place = document["recording"]
        for table in tables:
            place = place[table]
        old = place[last]
        place[last] = data.draw(
            some.sampled_from([None, 0, -1, 1, 10**18, 0.5, -0.5, "", "x", True])
            if not isinstance(old, int | float) or isinstance(old, bool)
            else some.integers(-10, 10**6) | some.floats(-1e6, 1e6)
        )
    with suppress(UsageError):
        assert analysis_of(decode(json.dumps(document).encode(), "x"))


# Files


@pytest.mark.parametrize("name", ["nothing.json", "nothing/at/all", "."])
def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path, name):
    with pytest.raises(UsageError, match=r"read the report .*No such file"):
        read(tmp_path / name)


def test_a_folder_in_place_of_the_report_is_refused(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UsageError, match="this is a directory"):
        read(tmp_path)


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("happening", [fail, interrupt])
@pytest.mark.parametrize(("owner", "verb"), [(os, "fsync"), (Path, "chmod"), (Path, "replace")])
def test_a_save_that_fails_leaves_the_old_report_and_nothing_else(tmp_path, monkeypatch, owner, verb, happening):
    save(tiny(), tmp_path / "report.json")
    before = (tmp_path / "report.json").read_bytes()
    monkeypatch.setattr(owner, verb, happening)
    with pytest.raises((OSError, KeyboardInterrupt)):
        save(msgspec.structs.replace(tiny(), analysis=None), tmp_path / "report.json")
    assert (tmp_path / "report.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["report.json"]  # noqa: PTH208  (Path may be broken here)


def test_an_interruption_just_after_the_save_is_not_hidden_by_another_error(tmp_path, monkeypatch):
    replace = Path.replace

    def replace_and_interrupt(self, target):
        replace(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tiny(), tmp_path / "report.json")
    assert read(tmp_path).recording == tiny().recording


# The published schema


def test_the_schema_names_every_part_of_a_recording():
    parts = schema()["$defs"]
    assert parts["Report"]["required"] == ["schema_version", "recording"]
    came_later = {"pairing", "workers"}
    assert set(parts["Recording"]["required"]) == set(recordings.Recording.__struct_fields__) - came_later
    assert set(json.loads(tiny_bytes())["recording"]) <= set(parts["Recording"]["properties"])
