"""What is agreed with an NBD client before its first request, and what is answered to whoever says something else."""

from __future__ import annotations

import os
import random
import struct

import pytest

from farwrite.engine.frontend import nbd
from farwrite.engine.frontend import nbd_negotiation as negotiating
from farwrite.engine.frontend.nbd_negotiation import Export, Negotiation, Next, Tls

SIZE = 1 << 30
EXPORTS = (Export("volume", SIZE, False, "writable"), Export("volume-ro", SIZE, True))
FUZZED = int(os.environ.get("FARWRITE_NBD_FUZZ", "100000"))


def client(flags=3, tls=Tls.NONE):
    """A negotiation whose client has sent its flags."""
    made = Negotiation(EXPORTS, tls)
    assert made.greeting() == b"NBDMAGICIHAVEOPT\x00\x03"
    assert made.take(struct.pack(">I", flags)) == (b"", Next.READ)
    return made


def option(number, data=b""):
    return struct.pack(">QII", nbd.OPTION_MAGIC, number, len(data)) + data


def string(text):
    return struct.pack(">I", len(text)) + text


def say(made, data):
    """Feed bytes as they are asked for: (all that was answered, what came next last)."""
    answered, then = b"", Next.READ
    while data or (then is Next.READ and made.wants == 0):
        if then is not Next.READ or made.wants > len(data):
            break
        piece, data = data[: made.wants], data[made.wants :]
        answer, then = made.take(piece)
        answered += answer
    assert not data or then is not Next.READ or made.wants > len(data)
    return answered, then


def replies(data):
    """[(option, kind, data)]."""
    found = []
    while data:
        magic, number, kind, size = struct.unpack_from(">QIII", data)
        assert magic == 0x0003E889045565A9
        found.append((number, kind, data[20 : 20 + size]))
        assert len(found[-1][2]) == size
        data = data[20 + size :]
    return found


def ask(made, number, data=b""):
    """One option: (its replies, what comes next)."""
    answered, then = say(made, option(number, data))
    found = replies(answered)
    assert all(of == number for of, _, _ in found)
    return [(kind, data) for _, kind, data in found], then


def refused(found, kind):
    """One error of this kind, with a sentence."""
    assert [one for one, _ in found] == [kind] and found[0][1].decode().isprintable() and found[0][1]


def go(name=b"volume", infos=()):
    return string(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def test_go_answers_size_flags_and_block_sizes_and_the_export_is_chosen():
    made = client()
    found, then = ask(made, nbd.OPT_GO, go(infos=[nbd.INFO_NAME, nbd.INFO_DESCRIPTION, 77]))
    assert then is Next.SERVE and made.chosen.export is EXPORTS[0] and not made.chosen.is_structured
    infos = {struct.unpack_from(">H", data)[0]: data[2:] for kind, data in found[:-1]}
    assert [kind for kind, _ in found] == [nbd.REP_INFO] * 4 + [nbd.REP_ACK]
    size, flags = struct.unpack(">QH", infos[nbd.INFO_EXPORT])
    assert size == SIZE and flags == nbd.TRANSMISSION_FLAGS and flags & nbd.CAN_MULTI_CONN
    assert struct.unpack(">III", infos[nbd.INFO_BLOCK_SIZE]) == (1, 4096, 32 << 20)
    assert infos[nbd.INFO_NAME] == b"volume" and infos[nbd.INFO_DESCRIPTION] == b"writable"


def test_info_answers_what_go_then_answers_and_chooses_nothing():
    made = client()
    first, then = ask(made, nbd.OPT_INFO, go(b"volume-ro", [nbd.INFO_BLOCK_SIZE]))
    assert then is Next.READ and made.chosen is None
    again, then = ask(made, nbd.OPT_GO, go(b"volume-ro", [nbd.INFO_BLOCK_SIZE]))
    assert again == first and then is Next.SERVE and made.chosen.export.is_read_only
    assert struct.unpack(">QH", first[0][1][2:])[1] & nbd.IS_READ_ONLY


def test_the_empty_name_is_the_first_export_and_another_is_unknown():
    assert say(client(), option(nbd.OPT_GO, go(b"")))[1] is Next.SERVE
    made = client()
    found, then = ask(made, nbd.OPT_GO, go(b"Volume"))
    refused(found, nbd.REP_ERR_UNKNOWN)
    assert then is Next.READ and ask(made, nbd.OPT_GO, go())[1] is Next.SERVE  # It may try again.


@pytest.mark.parametrize(("flags", "zeroes"), [(3, 0), (1, 124), (0, 124), (2, 0)])
def test_the_old_way_answers_with_zeroes_unless_both_agreed_on_none_and_says_nothing_of_errors(flags, zeroes):
    made = client(flags)
    answered, then = say(made, option(nbd.OPT_EXPORT_NAME, b"volume"))
    assert then is Next.SERVE and answered == struct.pack(">QH", SIZE, nbd.TRANSMISSION_FLAGS) + bytes(zeroes)
    made = client(flags)
    assert say(made, option(nbd.OPT_EXPORT_NAME, b"another")) == (b"", Next.HANG_UP) and "no export" in made.why


@pytest.mark.parametrize("flags", [4, 7, 1 << 31])
def test_client_flags_that_were_not_offered_end_the_connection(flags):
    made = Negotiation(EXPORTS)
    assert made.take(struct.pack(">I", flags)) == (b"", Next.HANG_UP) and made.why


def test_who_does_not_speak_fixed_newstyle_may_only_name_an_export():
    made = client(0)
    assert say(made, option(nbd.OPT_LIST)) == (b"", Next.HANG_UP)


def test_the_exports_are_listed():
    found, then = ask(client(), nbd.OPT_LIST)
    assert then is Next.READ and found == [
        (nbd.REP_SERVER, string(b"volume") + b"writable"), (nbd.REP_SERVER, string(b"volume-ro")), (nbd.REP_ACK, b""),
    ]  # fmt: skip


def test_abort_is_acknowledged_and_ends_the_connection():
    found, then = ask(client(), nbd.OPT_ABORT, b"whatever")
    assert found == [(nbd.REP_ACK, b"")] and then is Next.HANG_UP


@pytest.mark.parametrize("number", [0, nbd.OPT_PEEK_EXPORT, nbd.OPT_EXTENDED_HEADERS, 99, 2**32 - 1])
def test_an_option_that_is_not_known_is_answered_and_the_next_one_is_read(number):
    made = client()
    found, then = ask(made, number, b"data of any kind")
    refused(found, nbd.REP_ERR_UNSUP)
    assert then is Next.READ and ask(made, nbd.OPT_GO, go())[1] is Next.SERVE


@pytest.mark.parametrize("number", [nbd.OPT_LIST, nbd.OPT_STRUCTURED_REPLY])
def test_what_has_no_data_is_refused_with_some(number):
    refused(ask(client(), number, b"x")[0], nbd.REP_ERR_INVALID)


@pytest.mark.parametrize("data", [
    b"", b"\0\0\0", string(b"volume"), string(b"volume") + b"\0", go()[:-1] + b"\1", go(infos=[1])[:-1], go() + b"x",
    struct.pack(">I", 2**32 - 1) + b"volume\0\0",
])  # fmt: skip
def test_an_information_request_that_does_not_fill_its_option_is_invalid(data):
    made = client()
    refused(ask(made, nbd.OPT_INFO, data)[0], nbd.REP_ERR_INVALID)
    refused(ask(made, nbd.OPT_GO, data)[0], nbd.REP_ERR_INVALID)


def test_a_name_longer_than_a_string_may_be_is_too_big():
    refused(ask(client(), nbd.OPT_GO, go(b"n" * 4097))[0], nbd.REP_ERR_TOO_BIG)


def test_a_long_option_is_skipped_and_answered_and_an_endless_one_ends_the_connection():
    made = client()
    found, then = ask(made, 77, bytes(negotiating.OPTION_BYTES_MAX * 3 + 7))
    refused(found, nbd.REP_ERR_TOO_BIG)
    assert then is Next.READ and ask(made, nbd.OPT_GO, go())[1] is Next.SERVE
    made = client()
    assert made.take(struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_GO, 2**32 - 1)) == (b"", Next.HANG_UP)


def test_no_more_than_a_bounded_number_of_options_is_answered():
    made = client()
    answers = [say(made, option(nbd.OPT_LIST))[1] for _ in range(negotiating.OPTIONS_MAX + 1)]
    assert answers == [Next.READ] * negotiating.OPTIONS_MAX + [Next.HANG_UP]


def test_what_is_no_option_ends_the_connection():
    assert client().take(b"\0" * 16) == (b"", Next.HANG_UP)


# Structured replies and what hangs on them.


def test_structured_replies_are_agreed_and_with_them_reads_that_may_not_be_in_pieces():
    made = client()
    assert ask(made, nbd.OPT_STRUCTURED_REPLY) == ([(nbd.REP_ACK, b"")], Next.READ)
    found, _ = ask(made, nbd.OPT_GO, go())
    assert made.chosen.is_structured and not made.chosen.has_allocation
    assert struct.unpack(">QH", found[0][1][2:])[1] & nbd.SEND_DF


def queries(name, *texts):
    return string(name) + struct.pack(">I", len(texts)) + b"".join(map(string, texts))


SET, LISTED = nbd.OPT_SET_META_CONTEXT, nbd.OPT_LIST_META_CONTEXT
ALLOCATION = b"base:allocation"


def test_meta_contexts_need_structured_replies_first():
    for number in (SET, LISTED):
        refused(ask(client(), number, queries(b"volume", ALLOCATION))[0], nbd.REP_ERR_INVALID)


def structured():
    made = client()
    ask(made, nbd.OPT_STRUCTURED_REPLY)
    return made


@pytest.mark.parametrize(("asked", "is_there"), [([], True), ([b"base:"], True), ([ALLOCATION], True), ([b"qemu:dirty"], False)])
def test_meta_contexts_are_listed_by_name_and_by_namespace(asked, is_there):
    found, _ = ask(structured(), LISTED, queries(b"volume", *asked))
    assert found == [(nbd.REP_META_CONTEXT, bytes(4) + ALLOCATION)] * is_there + [(nbd.REP_ACK, b"")]


@pytest.mark.parametrize(("asked", "is_set"), [
    ([], False), ([b"base:"], False), ([ALLOCATION], True), ([b"x:y", ALLOCATION, ALLOCATION], True), ([b"x:y"], False),
])  # fmt: skip
def test_a_meta_context_is_set_by_its_whole_name(asked, is_set):
    made = structured()
    found, _ = ask(made, SET, queries(b"volume", *asked))
    answer = struct.pack(">I", nbd.BASE_ALLOCATION_ID) + ALLOCATION
    assert found == [(nbd.REP_META_CONTEXT, answer)] * is_set + [(nbd.REP_ACK, b"")]
    ask(made, nbd.OPT_GO, go())
    assert made.chosen.has_allocation is is_set


def test_a_meta_context_is_of_one_export_and_the_last_word_counts():
    made = structured()
    ask(made, SET, queries(b"volume-ro", ALLOCATION))
    ask(made, nbd.OPT_GO, go(b"volume"))
    assert not made.chosen.has_allocation
    for last in (queries(b"volume"), queries(b"another", ALLOCATION), queries(b"volume", ALLOCATION)[:-1]):
        made = structured()
        ask(made, SET, queries(b"volume", ALLOCATION))
        ask(made, SET, last)
        ask(made, nbd.OPT_GO, go())
        assert not made.chosen.has_allocation


@pytest.mark.parametrize(("data", "error"), [
    (b"", nbd.REP_ERR_INVALID), (string(b"volume"), nbd.REP_ERR_INVALID),
    (queries(b"volume", b"a:b") + b"x", nbd.REP_ERR_INVALID),
    (string(b"volume") + struct.pack(">I", 2), nbd.REP_ERR_INVALID), (queries(b"another"), nbd.REP_ERR_UNKNOWN),
    (string(b"volume") + struct.pack(">I", 2**32 - 1), nbd.REP_ERR_TOO_BIG),
])  # fmt: skip
def test_queries_that_are_none_are_refused_with_the_protocols_error(data, error):
    for number in (SET, LISTED):
        refused(ask(structured(), number, data)[0], error)


# TLS.


def test_a_server_without_certificates_refuses_tls_by_policy():
    refused(ask(client(), nbd.OPT_STARTTLS)[0], nbd.REP_ERR_POLICY)


def test_starttls_takes_no_data_comes_once_and_forgets_what_was_agreed_before():
    made = client(tls=Tls.ALLOWED)
    ask(made, nbd.OPT_STRUCTURED_REPLY)
    ask(made, SET, queries(b"volume", ALLOCATION))
    refused(ask(made, nbd.OPT_STARTTLS, b"x")[0], nbd.REP_ERR_INVALID)
    assert ask(made, nbd.OPT_STARTTLS) == ([(nbd.REP_ACK, b"")], Next.TLS)
    refused(ask(made, nbd.OPT_STARTTLS)[0], nbd.REP_ERR_INVALID)
    ask(made, nbd.OPT_GO, go())
    assert not made.chosen.is_structured and not made.chosen.has_allocation


def test_no_byte_behind_starttls_is_asked_for_before_the_handshake():
    made = client(tls=Tls.ALLOWED)
    injected = option(nbd.OPT_STARTTLS) + option(nbd.OPT_GO, go())
    _, then = made.take(injected[: made.wants])
    assert then is Next.TLS and made.wants == 16  # What follows is for TLS to read.


def test_where_tls_is_demanded_nothing_else_is_answered_before_it():
    made = client(tls=Tls.REQUIRED)
    for number in (nbd.OPT_LIST, nbd.OPT_INFO, nbd.OPT_GO, nbd.OPT_STRUCTURED_REPLY, SET, 99):
        refused(ask(made, number, go())[0], nbd.REP_ERR_TLS_REQD)
    assert ask(made, nbd.OPT_STARTTLS)[1] is Next.TLS and ask(made, nbd.OPT_GO, go())[1] is Next.SERVE
    made = client(tls=Tls.REQUIRED)
    assert say(made, option(nbd.OPT_EXPORT_NAME, b"volume")) == (b"", Next.HANG_UP)
    assert ask(client(tls=Tls.REQUIRED), nbd.OPT_ABORT)[1] is Next.HANG_UP


# Whatever is sent.

ERRORS = {
    nbd.REP_ERR_UNSUP, nbd.REP_ERR_POLICY, nbd.REP_ERR_INVALID, nbd.REP_ERR_TLS_REQD, nbd.REP_ERR_UNKNOWN, nbd.REP_ERR_TOO_BIG,
}  # fmt: skip


def sensible(dice):
    """An option such as clients send."""
    name = dice.choice([b"", b"volume", b"volume-ro", b"nowhere"])
    return dice.choice([
        lambda: option(nbd.OPT_STRUCTURED_REPLY), lambda: option(nbd.OPT_LIST), lambda: option(nbd.OPT_STARTTLS),
        lambda: option(nbd.OPT_INFO, go(name, [dice.randrange(5)])), lambda: option(nbd.OPT_GO, go(name, [3])),
        lambda: option(SET, queries(name, ALLOCATION)), lambda: option(LISTED, queries(name, b"base:")),
        lambda: option(nbd.OPT_EXPORT_NAME, name), lambda: option(dice.getrandbits(32), dice.randbytes(dice.randrange(64))),
        lambda: option(nbd.OPT_ABORT),
    ])()  # fmt: skip


def mutated(dice, data):
    """The same with a byte changed, a piece cut out or put in, or a number that cannot be."""
    data = bytearray(data)
    for _ in range(dice.choice([0, 0, 0, 1, 2])):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(4)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at : at + dice.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = dice.randbytes(dice.randrange(1, 9))
        elif at + 4 <= len(data):
            data[at : at + 4] = struct.pack(">I", dice.choice([0, 1, 4096, 4097, 1 << 20, 1 << 31, 2**32 - 1]))
    return bytes(data)


def test_whatever_is_sent_is_answered_with_the_protocols_words_or_hung_up_on():
    dice, sent, served, hung_up = random.Random(1), 0, 0, 0
    while sent < FUZZED:
        tls = dice.choice(list(Tls))
        made, then = Negotiation(EXPORTS, tls), Next.READ
        stream = struct.pack(">I", dice.choice([3, 3, 3, 1, 0, dice.getrandbits(32)]))
        while then in (Next.READ, Next.TLS):
            while len(stream) < made.wants:
                stream += mutated(dice, sensible(dice)) if made.wants <= 4096 else bytes(made.wants)
                sent += 1
            piece, stream = stream[: made.wants], stream[made.wants :]
            assert len(piece) <= negotiating.OPTION_BYTES_MAX
            is_old_way = made.chosen is None
            answer, then = made.take(piece)
            if then is Next.SERVE:
                served += 1
                assert made.chosen.export in EXPORTS and (tls is not Tls.REQUIRED or made.is_encrypted)
                assert made.is_structured or not made.chosen.has_allocation
                if not answer.startswith(struct.pack(">Q", nbd.OPTION_REPLY_MAGIC)):
                    assert is_old_way and answer[:8] == struct.pack(">Q", SIZE) and len(answer) in (10, 134)
                    continue
            hung_up += then is Next.HANG_UP
            for _, kind, data in replies(answer):
                assert kind in ERRORS or kind in (nbd.REP_ACK, nbd.REP_SERVER, nbd.REP_INFO, nbd.REP_META_CONTEXT)
                assert len(data) < 8192
    assert served > FUZZED / 50 and hung_up > FUZZED / 100
