"""The login phase: every key by the rule that RFC 7143 section 13 gives it, and stages in their order."""

import dataclasses
import random
import struct

import pytest

from farwrite.engine.frontend.iscsi import login, pdu
from farwrite.engine.frontend.iscsi.chap import ChapError, Credentials, Exchange, response_of
from farwrite.engine.frontend.iscsi.login import Joined, Login, Offer, Rules, Terms, negotiate
from farwrite.engine.frontend.iscsi.text import TextError, number_of, pairs_of, text_of

TARGET, HOST = "iqn.2026-11.org.farwrite:t", "iqn.2026-11.org.example:h"
SECRET, OWN = b"a secret of the host", b"a secret of the target"


@pytest.mark.parametrize(("key", "value", "answer", "field", "held"), [
    # InitialR2T is or-ed, ImmediateData and-ed: either side can force the second trip.
    ("InitialR2T", "No", "No", "initial_r2t", False),
    ("InitialR2T", "Yes", "Yes", "initial_r2t", True),
    ("ImmediateData", "Yes", "Yes", "immediate_data", True),
    ("ImmediateData", "No", "No", "immediate_data", False),
    ("ImmediateData", "maybe", "Reject", "immediate_data", True),
    # Lengths and counts take the minimum.
    ("FirstBurstLength", "65536", "65536", "first_burst", 65536),
    ("FirstBurstLength", "16777215", "262144", "first_burst", 262144),
    ("FirstBurstLength", "0x10000", "65536", "first_burst", 65536),
    ("FirstBurstLength", "511", "Reject", "first_burst", 65536),
    ("FirstBurstLength", "16777216", "Reject", "first_burst", 65536),
    ("MaxBurstLength", "262144", "262144", "max_burst", 262144),
    ("MaxBurstLength", "16777215", "16776704", "max_burst", 16776704),
    ("MaxBurstLength", "-1", "Reject", "max_burst", 262144),
    ("MaxOutstandingR2T", "1", "1", "max_outstanding_r2t", 1),
    ("MaxOutstandingR2T", "65535", "8", "max_outstanding_r2t", 8),
    ("MaxOutstandingR2T", "0", "Reject", "max_outstanding_r2t", 1),
    # Declared: each says its own, so nothing is answered.
    ("MaxRecvDataSegmentLength", "131072", None, "initiator_segment", 131072),
    ("MaxRecvDataSegmentLength", "100", "Reject", "initiator_segment", 8192),
    # The first of a list that we know.
    ("HeaderDigest", "None,CRC32C", "None", "header_digest", False),
    ("HeaderDigest", "CRC32C,None", "CRC32C", "header_digest", True),
    ("DataDigest", "CRC32C", "CRC32C", "data_digest", True),
    ("DataDigest", "MD5", "Reject", "data_digest", False),
    # What we do not do.
    ("MaxConnections", "8", "1", None, None),
    ("ErrorRecoveryLevel", "2", "0", None, None),
    ("ErrorRecoveryLevel", "3", "Reject", None, None),
    ("DefaultTime2Wait", "0", "2", None, None),
    ("DefaultTime2Wait", "5", "5", None, None),
    ("DefaultTime2Retain", "20", "0", None, None),
    ("DataPDUInOrder", "No", "Yes", None, None),
    ("DataSequenceInOrder", "No", "Yes", None, None),
    ("IFMarker", "No", "Reject", None, None),
    ("OFMarkInt", "2048~8192", "Reject", None, None),
    ("iSCSIProtocolLevel", "2", "1", None, None),
    ("TaskReporting", "FastAbort,RFC3720", "RFC3720", None, None),
    ("X-com.example.key", "1", "NotUnderstood", None, None),
])  # fmt: skip
def test_a_key_is_answered_by_its_rule(key, value, answer, field, held):
    said, terms = negotiate(Terms(), Offer(), key, value)
    assert said == answer
    assert terms == (Terms() if field is None else dataclasses.replace(Terms(), **{field: held}))


def test_what_only_a_normal_session_has_is_irrelevant_to_discovery():
    for key in login.NORMAL_ONLY:
        assert negotiate(Terms(), Offer(), key, "Yes", discovery=True) == ("Irrelevant", Terms())
    assert negotiate(Terms(), Offer(), "HeaderDigest", "None", discovery=True).answer == "None"


@pytest.mark.parametrize(("terms", "unasked"), [
    (Terms(), 8192),  # Only what fits beside the command.
    (Terms(initial_r2t=False), 65536),
    (Terms(initial_r2t=False, first_burst=262144, max_burst=131072), 131072),
    (Terms(immediate_data=False), 0),
    (Terms(initial_r2t=False, immediate_data=False, first_burst=262144), 262144),
])
def test_what_may_come_unasked_follows_from_the_terms(terms, unasked):
    assert terms.unsolicited_max == unasked


@pytest.mark.parametrize("data", [b"no key\0", b"=x\0", b"lower=1\0", b"A=1\0A=2\0", b"\xff=1\0", b"A" * 64 + b"=1\0"])
def test_what_is_no_text_is_refused(data):
    with pytest.raises(TextError):
        pairs_of(data)


def test_text_goes_there_and_back():
    pairs = {"A": "", "TargetName": TARGET, "X-key": "a=b,c"}
    assert pairs_of(text_of(pairs)) == pairs
    assert pairs_of(b"\0\0A=1\0\0\0B=2") == {"A": "1", "B": "2"}
    assert [number_of(text) for text in ("12", "0x1F", "0b11", "", "1e3", "0x", "9" * 21)] == [12, 31] + 5 * [None]


def request(keys, current=1, following=3, transit=True, continued=False, session=0, version=0, opcode=0x43):
    data = keys if isinstance(keys, bytes) else text_of(keys)
    flags = (0x80 if transit else 0) | (0x40 if continued else 0) | current << 2 | (following if transit else 0)
    head = bytes([opcode, flags, version, version, 0]) + len(data).to_bytes(3, "big") + b"\x80abcde"
    head += session.to_bytes(2, "big")
    return pdu.Pdu(head + struct.pack(">IHHII", 9, 5, 0, 100, 0) + bytes(16), b"", data)


def said(reply):
    """Status, keys and flags of a response."""
    head, data = reply.pieces[0], b"".join(reply.pieces[1:])
    length = int.from_bytes(head[5:8], "big")
    return int.from_bytes(head[36:38], "big"), pairs_of(bytes(data[:length])), head[1]


def rules(**more):
    return Rules(frozenset({TARGET}), **({"join": lambda identity: Joined(0, 77)} | more))


NORMAL = {"InitiatorName": HOST, "TargetName": TARGET, "SessionType": "Normal"}


def test_a_login_in_one_request_ends_in_the_full_feature_phase():
    one = Login(rules())
    reply = one.reply(request(NORMAL | {"InitialR2T": "No", "MaxOutstandingR2T": "4"}))
    status, keys, flags = said(reply)
    assert (status, reply.is_full_feature, flags) == (0, True, 0x87)
    assert keys == {
        "TargetPortalGroupTag": "1", "InitialR2T": "No", "MaxOutstandingR2T": "4", "MaxRecvDataSegmentLength": "262144",
    }  # fmt: skip
    assert one.terms == Terms(initial_r2t=False, max_outstanding_r2t=4, target_segment=262144)
    assert int.from_bytes(reply.pieces[0][14:16], "big") == 77
    assert (one.status_sn, one.expected_command_sn) == (2, 100)


def test_text_that_is_continued_counts_once_it_is_whole():
    one = Login(rules())
    text = text_of(NORMAL | {"ImmediateData": "No"})
    assert said(one.reply(request(text[:30], transit=False, continued=True))) == (0, {}, 0x04)
    status, keys, _ = said(one.reply(request(text[30:])))
    assert (status, keys["ImmediateData"]) == (0, "No")


@pytest.mark.parametrize(("status", "asked"), [
    (login.MISSING_PARAMETER, request({"TargetName": TARGET})),
    (login.MISSING_PARAMETER, request({"InitiatorName": HOST})),
    (login.NOT_FOUND, request(NORMAL | {"TargetName": "iqn.2026-11.org.farwrite:other"})),
    (login.UNSUPPORTED_SESSION_TYPE, request(NORMAL | {"SessionType": "Other"})),
    (login.UNSUPPORTED_VERSION, request(NORMAL, version=1)),
    (login.INITIATOR_ERROR, request(NORMAL, transit=True, continued=True)),
    (login.INITIATOR_ERROR, request(NORMAL, current=2)),
    (login.INITIATOR_ERROR, request(NORMAL, current=1, following=1)),
    (login.INITIATOR_ERROR, request(b"nothing\0")),
    (login.INITIATOR_ERROR, request(NORMAL | {"InitiatorName": "x" * 300})),
    (login.INVALID_DURING_LOGIN, request(NORMAL, opcode=0x01)),
    (login.AUTHENTICATION_FAILED, request(NORMAL | {"AuthMethod": "KRB5"}, current=0)),
    (login.AUTHENTICATION_FAILED, request(NORMAL | {"CHAP_A": "5"}, current=0)),
])  # fmt: skip
def test_a_login_that_cannot_be_has_the_status_for_it(status, asked):
    reply = Login(rules()).reply(asked)
    assert said(reply)[0] == status and reply.is_refused and not reply.is_full_feature


def test_a_key_is_negotiated_once_and_a_stage_does_not_come_back():
    one = Login(rules())
    assert said(one.reply(request(NORMAL | {"ImmediateData": "No"}, transit=False)))[0] == 0
    assert said(one.reply(request({"ImmediateData": "Yes"})))[0] == login.INITIATOR_ERROR
    one = Login(rules())
    assert said(one.reply(request(NORMAL, current=1, transit=False)))[0] == 0
    assert said(one.reply(request({}, current=0, transit=False)))[0] == login.INITIATOR_ERROR


def test_who_may_not_come_in_or_joins_in_vain_is_told_so():
    assert said(Login(rules(initiators=frozenset({"iqn.2026-11.org.example:x"}))).reply(request(NORMAL)))[0] == login.FORBIDDEN
    full = Login(rules(join=lambda identity: Joined(login.OUT_OF_RESOURCES)))
    assert said(full.reply(request(NORMAL)))[0] == login.OUT_OF_RESOURCES


def test_a_portal_that_stands_by_sends_the_session_to_the_one_that_serves():
    one = Login(rules(redirect=lambda target: "10.0.0.2:3260,1"))
    assert said(one.reply(request(NORMAL)))[:2] == (login.MOVED_TEMPORARILY, {"TargetAddress": "10.0.0.2:3260,1"})
    discovery = {"InitiatorName": HOST, "SessionType": "Discovery"}
    assert said(Login(rules(redirect=lambda target: "x")).reply(request(discovery)))[0] == 0


CREDENTIALS = Credentials({"host": SECRET}, "target", OWN)


def prove(one, algorithm="7", secret=SECRET, name="host", challenge=None, more=None):
    """The steps of CHAP up to the answer to the response."""
    status, keys, flags = said(one.reply(request(NORMAL | {"AuthMethod": "None,CHAP"}, current=0, transit=False)))
    assert (status, keys["AuthMethod"], flags) == (0, "CHAP", 0)
    status, keys, _ = said(one.reply(request({"CHAP_A": algorithm}, current=0, transit=False)))
    if status:
        return status, keys, 0
    theirs = bytes.fromhex(keys["CHAP_C"][2:])
    response = response_of(keys["CHAP_A"], int(keys["CHAP_I"]), secret, theirs)
    own = {"CHAP_I": "9", "CHAP_C": "0x" + (theirs if challenge == "reflected" else challenge).hex()} if challenge else {}
    proof = {"CHAP_N": name, "CHAP_R": "0x" + response.hex()} | own | (more or {})
    return said(one.reply(request(proof, current=0, following=1)))


@pytest.mark.parametrize("algorithm", ["5", "7", "8", "6,7,5"])
def test_who_knows_the_secret_comes_in(algorithm):
    one = Login(rules(credentials=CREDENTIALS))
    status, _, flags = prove(one, algorithm)
    assert (status, flags) == (0, 0x81)
    assert one.reply(request({"InitialR2T": "No"})).is_full_feature
    assert one.identity.chap_name == "host"


def test_a_target_proves_itself_when_it_is_asked_to():
    challenge = bytes(range(40))
    status, keys, _ = prove(Login(rules(credentials=CREDENTIALS)), challenge=challenge)
    assert (status, keys["CHAP_N"]) == (0, "target")
    assert bytes.fromhex(keys["CHAP_R"][2:]) == response_of("7", 9, OWN, challenge)


@pytest.mark.parametrize("wrong", [
    {"secret": b"another secret"}, {"name": "nobody"}, {"algorithm": "6,99"}, {"challenge": "reflected"},
    {"more": {"CHAP_R": "0b!!"}}, {"more": {"CHAP_R": ""}}, {"more": {"CHAP_I": "256", "CHAP_C": "0x01"}},
    {"more": {"CHAP_I": "1"}}, {"name": "nobody", "secret": bytes(12)}, {"name": "", "secret": b""},
])  # fmt: skip
def test_who_does_not_know_it_reflects_a_challenge_or_breaks_the_steps_does_not(wrong):
    assert prove(Login(rules(credentials=CREDENTIALS)), **wrong)[0] == login.AUTHENTICATION_FAILED


def test_proof_is_given_once_and_by_one_algorithm():
    one = Login(rules(credentials=CREDENTIALS))
    assert prove(one)[0] == 0 and one.is_proven
    again = Login(rules(credentials=CREDENTIALS))
    said(again.reply(request(NORMAL | {"AuthMethod": "CHAP"}, current=0, transit=False)))
    assert said(again.reply(request({"CHAP_A": "7"}, current=0, transit=False)))[0] == 0
    assert said(again.reply(request({"CHAP_A": "5"}, current=0, transit=False)))[0] == login.AUTHENTICATION_FAILED
    exchange = Exchange(CREDENTIALS)
    challenge = exchange.step({"CHAP_A": "7"})
    response = response_of("7", int(challenge["CHAP_I"]), SECRET, bytes.fromhex(challenge["CHAP_C"][2:]))
    proof = {"CHAP_N": "host", "CHAP_R": "0x" + response.hex()}
    assert exchange.step(proof) == {} and exchange.name == "host"
    with pytest.raises(ChapError, match="after it has"):
        exchange.step(proof)


def test_secrets_that_prove_nothing_are_not_taken():
    """A target that proves itself with an initiator's secret could be asked by a stranger for the initiator's own answer."""
    for secrets, own in (({"host": SECRET}, SECRET), ({"host": b"too short"}, b""), ({"host": SECRET}, b"too short")):
        with pytest.raises(ValueError, match="secret"):
            Credentials(secrets, "target", own)


def test_nobody_passes_by_the_security_stage_where_proof_is_asked_for():
    assert said(Login(rules(credentials=CREDENTIALS)).reply(request(NORMAL)))[0] == login.AUTHENTICATION_FAILED
    one = Login(rules(credentials=CREDENTIALS))
    status, _, flags = said(one.reply(request(NORMAL | {"AuthMethod": "CHAP"}, current=0, following=3)))
    assert (status, flags & 0x80) == (0, 0)  # It may not go on yet.
    assert said(one.reply(request({}, current=1)))[0] == login.AUTHENTICATION_FAILED


def test_no_login_requests_crash_or_let_a_stranger_in():
    random_source = random.Random(3)
    words = [*sorted(login.NORMAL_ONLY), "AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C", "HeaderDigest",
             "InitiatorName", "TargetName"]  # fmt: skip
    values = ["", "0", "0x", "0b=", "CHAP", "None", "5", TARGET, HOST, "Yes", "A" * 300, "0x" + "f" * 2050, "\x01"]
    for _ in range(1500):
        one = Login(rules(credentials=CREDENTIALS))
        for _ in range(4):
            keys = {random_source.choice(words): random_source.choice(values) for _ in range(random_source.randrange(6))}
            keys = NORMAL | keys if random_source.random() < 0.7 else keys
            text = bytearray(text_of(keys))
            if text and random_source.random() < 0.3:
                text[random_source.randrange(len(text))] = random_source.randrange(256)
            reply = one.reply(request(
                bytes(text), random_source.randrange(4), random_source.randrange(4), random_source.random() < 0.5,
                random_source.random() < 0.2,
            ))  # fmt: skip
            assert not reply.is_full_feature
            if reply.is_refused:
                break
