"""What a recording has of encryption and compression: it is shown, and it makes runs unlike."""

import msgspec
import pytest

from farwrite.analysis.analyse import analyse
from farwrite.analysis.change import compare
from farwrite.base.errors import UnfitError
from farwrite.compare.figures import identity_of, result_set_of
from farwrite.recording import SCHEMA_VERSION, Report
from farwrite.report.html import facts_of
from farwrite.report.terminal import host_line
from make_recording import make_recording


def recorded(**wire):
    """A run over such a wire."""
    made = make_recording()
    return msgspec.structs.replace(made, lab=msgspec.structs.replace(made.lab, **wire))


def result_set(recording):
    analysis = analyse(recording)
    return result_set_of(Report(schema_version=SCHEMA_VERSION, recording=recording, analysis=analysis), analysis, "made up")


SHOWN = [
    ({"encryption": "tls"}, "encrypted by TLS 1.3"),
    ({"compression": "lz4"}, "compressed by lz4"),
    ({"encryption": "tls", "compression": "zstd"}, "encrypted by TLS 1.3 and compressed by zstd"),
]


@pytest.mark.parametrize(("wire", "words"), SHOWN)
def test_encryption_and_compression_are_shown_where_the_link_is(wire, words):
    assert words in host_line(recorded(**wire)).split(" · ")
    assert ("wire", words) in facts_of(recorded(**wire))


def test_a_plain_wire_is_not_mentioned_and_is_what_it_was_before_there_was_any_other():
    assert "encrypt" not in host_line(recorded()) and "wire" not in dict(facts_of(recorded()))
    assert identity_of(recorded())["transport"] == "congestion cubic, offload off"
    older = msgspec.json.decode(msgspec.json.encode(recorded()))
    del older["lab"]["encryption"], older["lab"]["compression"]
    assert msgspec.convert(older, type(recorded())) == recorded()


@pytest.mark.parametrize(("wire", "words"), SHOWN)
def test_runs_over_another_wire_are_unlike(wire, words):
    with pytest.raises(UnfitError, match="transport"):
        compare([result_set(recorded())], [result_set(recorded(**wire))])
    assert compare([result_set(recorded(**wire))], [result_set(recorded(**wire))]).rows
