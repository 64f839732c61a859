"""Two ends that do not demand the same, or cannot prove themselves, part with a sentence before a byte of a replica is sent."""

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_ends import KEY, OTHER_KEY, Task, agreed, tcp_pair, terms_of

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.wire import greeting, identity
from farwrite.base.wire.channel import Clear, Tls
from farwrite.base.wire.handshake import agree
from farwrite.base.wire.terms import SharedKey, Terms
from farwrite.engine import record_kernel
from farwrite.engine.handshake import Hello, frame_of, receive_hello

TLS = Terms("tls", "none", KEY)
ZSTD = Terms("none", "zstd")
MODES = [(encryption, compression) for encryption in ("none", "tls") for compression in ("zstd", "lz4", "none")]


@pytest.mark.parametrize("mode", MODES)
def test_two_ends_with_the_same_terms_agree(mode):
    here, there = agreed(terms_of(mode), terms_of(mode))
    assert {type(here), type(there)} == ({Tls} if mode[0] == "tls" else {Clear})


def test_encrypted_is_tls_1_3_with_proof_on_both_sides():
    for end in agreed(TLS, TLS):
        assert end.tls.version() == "TLSv1.3"
        assert end.tls.getpeercert(binary_form=True)
        assert not end.tls.session_reused


UNLIKE = [
    (TLS, ZSTD, "demands 'encryption=none compression=zstd', we 'encryption=tls"),
    (TLS, Terms("tls", "lz4", KEY), "compression=lz4"),
    (ZSTD, Terms("none", "lz4"), "Give both ends the same"),
]


@pytest.mark.parametrize(("here", "there", "said"), UNLIKE)
def test_ends_with_other_terms_part_with_a_sentence(here, there, said):
    for one, other in ((here, there), (there, here)):
        refusals = agreed(one, other)
        assert all(isinstance(refusal, UnfitError) for refusal in refusals)
        assert any(said in str(refusal) for refusal in refusals)


def test_ends_with_other_keys_part_with_a_sentence_on_both_sides():
    for one, other in ((KEY, OTHER_KEY), (OTHER_KEY, KEY)):
        here, there = agreed(Terms("tls", "none", one), Terms("tls", "none", other))
        assert isinstance(here, UnfitError) and "another key" in str(here)
        assert isinstance(there, UnfitError) and "another key" in str(there)


def test_a_peer_that_shows_our_own_certificate_is_refused(monkeypatch):
    there = Tls(TLS, dials=False)
    monkeypatch.setattr(identity, "derived", lambda key, dials, real=identity.derived: real(key, not dials))
    here = Tls(TLS, dials=True)  # Holds the certificate of the end that answers.
    with pytest.raises(UnfitError):
        hand_over(here, there)


def test_of_a_shared_key_exactly_one_certificate_is_taken():
    here, there = Tls(TLS, dials=True), Tls(TLS, dials=False)
    here.only = identity.only_certificate(KEY, dials=False)
    with pytest.raises(UnfitError, match="not the one that our key gives"):
        hand_over(here, there)


def test_a_peer_without_a_certificate_is_refused():
    there = Tls(TLS, dials=False)
    here = Tls(TLS, dials=True)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    here.tls = bare.wrap_bio(here.incoming, here.outgoing)
    with pytest.raises(UnfitError, match="did not return a certificate"):
        hand_over(here, there)


def test_a_peer_with_an_older_tls_is_refused():
    there = Tls(TLS, dials=False)
    here = Tls(TLS, dials=True)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    here.tls = old.wrap_bio(here.incoming, here.outgoing)
    with pytest.raises(UnfitError, match=r"No TLS 1\.3"):
        hand_over(here, there)


def hand_over(here, there):
    """Both ends' words to the other, until both are content."""
    done = [False, False]
    while not all(done):
        done[0] = here.shake_hands(there.pending())
        done[1] = there.shake_hands(here.pending())
        if done[0]:
            there.hear(here.pending(), 64)


def test_what_was_tampered_with_in_the_handshake_is_refused():
    for at in range(5, 90, 7):
        here, there = Tls(TLS, dials=True), Tls(TLS, dials=False)
        here.shake_hands(b"")
        hello = bytearray(here.pending())
        hello[at] ^= 1
        try:
            there.shake_hands(bytes(hello))
            hand_over(here, there)
        except UnfitError:
            continue
        pytest.fail(f"a changed byte {at} of the first message was not noticed")


def test_the_certificates_follow_from_the_key_and_the_end_alone():
    made = {(key, dials): identity.derived(key.key, dials) for key in (KEY, OTHER_KEY) for dials in (True, False)}
    assert made == {(key, dials): identity.derived(key.key, dials) for key, dials in made}
    assert len({certificate for certificate, _ in made.values()}) == len({secret for _, secret in made.values()}) == 4
    assert KEY.key not in b"".join(certificate for certificate, _ in made.values())


def test_a_key_that_can_be_guessed_is_refused_and_none_is_printed():
    with pytest.raises(UsageError, match="at least 32 random bytes"):
        SharedKey(b"correct horse")
    with pytest.raises(UsageError, match="TLS needs a shared key"):
        Terms("tls")
    assert repr(KEY.key) not in repr(Terms("tls", "none", KEY)) and repr(KEY.key) not in repr(KEY)


# Strangers.


def met(terms, *said, then_closes=False, limit_s=5.0):
    """How an end with these terms refuses a peer that says that."""
    dialled, answered = tcp_pair()
    with dialled, answered:
        task = Task(agree, answered, terms, False, limit_s)
        for words in said:
            dialled.sendall(words)
        if then_closes:
            dialled.shutdown(socket.SHUT_WR)
        refusal = task.end()
    assert isinstance(refusal, UnfitError), refusal
    return str(refusal)


def test_a_replica_without_a_tunnel_is_recognised():
    assert "neither encrypts nor compresses" in met(TLS, frame_of(Hello(7, 1, 0, 1)))
    assert int(record_kernel.MAGIC).to_bytes(4, "little").startswith(greeting.REPLICA)


def test_a_peer_with_tls_of_its_own_is_recognised():
    bare = Tls(TLS, dials=True)
    bare.shake_hands(b"")
    assert "TLS of its own" in met(TLS, bare.pending())


def test_a_replica_without_a_tunnel_recognises_one_at_once():
    for said in (greeting.greeting_of(TLS), greeting.greeting_of(ZSTD)):
        dialled, answered = tcp_pair()
        with dialled, answered:
            dialled.sendall(said)
            with pytest.raises(UnfitError, match="encrypts or compresses its connection"):
                receive_hello(answered, 7)


def test_a_tunnel_of_another_version_is_refused():
    assert "version '2', ours 1" in met(ZSTD, greeting.greeting_of(ZSTD).replace(b"/1", b"/2"))


def test_other_peoples_clients_are_refused_without_waiting_for_more():
    begun_s = time.monotonic()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\0", b"SSH-2.0-x\r\n"):
        assert "not a replica of ours" in met(ZSTD, words, limit_s=60)
    assert time.monotonic() - begun_s < 60


@pytest.mark.parametrize("said", [[], [b"farwrite-wire/1 enc"], [greeting.greeting_of(TLS)]])
def test_a_silent_peer_meets_the_time_limit_wherever_it_falls_silent(said):
    assert "within 0.3 s" in met(TLS, *said, limit_s=0.3)


def test_a_peer_that_says_a_byte_now_and_then_meets_the_same_limit():
    dialled, answered = tcp_pair()
    stop = threading.Event()

    def drip():
        for byte in greeting.greeting_of(TLS):
            if stop.wait(0.05):
                return
            dialled.sendall(bytes([byte]))

    with dialled, answered:
        task, dripping = Task(agree, answered, TLS, False, 0.4), Task(drip)
        assert "within 0.4 s" in str(task.end())
        stop.set()
        dripping.end()


@pytest.mark.parametrize("said", [b"", b"farwrite-wire/1 enc", greeting.greeting_of(TLS)])
def test_a_peer_that_hangs_up_half_way_is_told_from_a_silent_one(said):
    assert "closed the connection instead of agreeing" in met(TLS, said, then_closes=True)


@settings(max_examples=60, deadline=None)
@given(words=st.binary(max_size=300), greeted=st.booleans())
def test_no_bytes_crash_a_handshake(words, greeted):
    said = (greeting.greeting_of(TLS) if greeted else b"") + words
    assert met(TLS, said, then_closes=True).endswith((".", "ends the same.", "say why."))


def test_no_secret_of_an_identity_is_a_file_that_outlives_it():
    before = set(Path("/proc/self/fd").iterdir())
    identity.context_of(KEY, dials=True)
    assert {path for path in Path("/proc/self/fd").iterdir() if path.exists()} <= before
