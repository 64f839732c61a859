"""Messages between ends that prove a key: nothing recorded, sent back, changed or meant for another place is taken for one, and a
door listens to everybody at once."""

import contextlib
import errno
import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from wire_ends import KEY, OTHER_KEY, PATIENCE_S, Middle, Task, tcp_pair

from farwrite.base.errors import UnfitError, UsageError
from farwrite.base.framing import TooLongError
from farwrite.base.wire import door as doors
from farwrite.base.wire.conversation import MESSAGE_BYTES_MAX, converse
from farwrite.base.wire.door import SparseLog, accepted, door
from farwrite.base.wire.greeting import greeting_of
from farwrite.base.wire.handshake import Patience, agree_within
from farwrite.base.wire.proof import NONCE_BYTES, PIECE_BYTES_MAX, TAG_BYTES, KeyProof
from farwrite.base.wire.terms import IN_THE_CLEAR, Terms

KEYED = Terms("none", "none", KEY)
SEALED = Terms("tls", "none", KEY)
BOTH = pytest.mark.parametrize("terms", [KEYED, SEALED], ids=["key", "tls"])


def asked(connection, terms, message=b"question", limit_s=PATIENCE_S):
    """The answer that the end which dials hears."""
    talk = converse(connection, terms, dials=True, limit_s=limit_s)
    talk.say(message)
    return talk.hear()


def answered(connection, terms, limit_s=PATIENCE_S):
    """What the other end hears; it answers the same, in capitals, and hangs up however it ends."""
    with connection:
        talk = converse(connection, terms, dials=False, limit_s=limit_s)
        message = talk.hear()
        talk.say(message.upper())
        return message


def exchanged(here, there, terms_here, terms_there):
    """What came of both ends: (answer or refusal, message or refusal)."""
    answering = Task(answered, there, terms_there)
    dialling = Task(asked, here, terms_here)
    heard = answering.end()
    with contextlib.suppress(OSError):
        there.close()
    return dialling.end(), heard


@BOTH
def test_two_that_hold_the_key_hear_each_others_messages_whole(terms):
    here, there = tcp_pair()
    with here, there:
        assert exchanged(here, there, terms, terms) == (b"QUESTION", b"question")


STRANGERS = {
    "another key": Terms("none", "none", OTHER_KEY),
    "another key under TLS": Terms("tls", "none", OTHER_KEY),
    "other terms": SEALED,
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_who_holds_no_key_of_ours_is_heard_by_neither_end(stranger):
    ours = SEALED if stranger.encryption == "tls" and stranger is not SEALED else KEYED
    for terms in ((ours, stranger), (stranger, ours)):
        here, there = tcp_pair()
        with here, there:
            assert all(isinstance(end, UnfitError) for end in exchanged(here, there, *terms))


@pytest.mark.parametrize("terms", [IN_THE_CLEAR, Terms("none", "zstd")])
def test_there_is_no_conversation_without_proof(terms):
    here, there = tcp_pair()
    with here, there, pytest.raises(UsageError, match="prove to each other who they are"):
        converse(here, terms, True, PATIENCE_S)
    with pytest.raises(UsageError, match="prove to each other"), door("127.0.0.1", 0, terms, None, 1, None):
        pass


@BOTH
def test_a_recorded_conversation_sent_again_is_heard_by_nobody(terms):
    recorded = bytearray()

    def record(data, at):
        recorded.extend(data)
        return data

    between = Middle(record)
    assert exchanged(between.dialled, between.answered, terms, terms) == (b"QUESTION", b"question")
    here, there = tcp_pair()
    with here, there:
        answering = Task(answered, there, terms)
        with contextlib.suppress(OSError):  # It may have hung up before the last byte.
            here.sendall(recorded)
            here.shutdown(socket.SHUT_WR)
        assert isinstance(answering.end(), UnfitError)


@BOTH
@pytest.mark.parametrize("dials", [True, False])
def test_what_an_end_says_sent_back_to_it_proves_nothing(terms, dials):
    here, mirror = tcp_pair()

    def reflect():
        with contextlib.suppress(OSError), mirror:
            while data := mirror.recv(65536):
                mirror.sendall(data)

    with here:
        reflecting = Task(reflect)
        # The end that answers TLS waits for a first word that never comes.
        ours = Task(asked, here, terms) if dials else Task(answered, here, terms, limit_s=0.5)
        assert isinstance(ours.end(), UnfitError)
        here.close()
        reflecting.end()


def test_the_proof_of_the_end_that_answers_is_none_of_one_that_dials():
    here, there = tcp_pair()
    with here, there:
        answering = Task(answered, there, KEYED)
        patience = Patience(here, PATIENCE_S)
        patience.send(greeting_of(KEYED) + bytes(NONCE_BYTES))
        said = patience.receive_exactly(len(greeting_of(KEYED)) + NONCE_BYTES + TAG_BYTES)
        patience.send(said[-TAG_BYTES:])
        assert "does not hold our key" in str(answering.end())


def test_a_proof_for_one_purpose_is_none_for_another():
    here, there = tcp_pair()
    with here, there:
        answering = Task(agree_within, Patience(there, PATIENCE_S), KEYED, False, b"control")
        dialling = Task(agree_within, Patience(here, PATIENCE_S), KEYED, True, b"wire")
        assert isinstance(answering.end(), UnfitError) and isinstance(dialling.end(), UnfitError)


def channels(purpose=b"test"):
    """The two ends' channels of a new connection."""
    here, there = KeyProof(KEY.key, True, purpose), KeyProof(KEY.key, False, purpose)
    proofs = here.meet(there.nonce), there.meet(here.nonce)
    assert here.is_proven_by(proofs[1]) and there.is_proven_by(proofs[0])
    assert not here.is_proven_by(proofs[0]) and not there.is_proven_by(proofs[1])
    return here.channel(), there.channel()


def test_a_piece_with_any_bit_changed_is_refused():
    piece = channels()[0].seal(b"configure")
    for bit in range(8 * len(piece)):
        here, there = channels()
        changed = bytearray(here.seal(b"configure"))
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(UnfitError):
            assert there.open(bytes(changed)) == b""  # It waits for more, of a piece that is said to be longer.


@pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2), (1, 0)])
def test_pieces_that_are_missing_doubled_or_out_of_order_are_refused(order):
    here, there = channels()
    pieces = [here.seal(bytes([65 + index])) for index in range(3)]
    with pytest.raises(UnfitError, match="not the next"):
        there.open(b"".join(pieces[index] for index in order))


def test_a_piece_of_one_direction_or_of_another_connection_is_refused():
    here, there = channels()
    for channel, piece in ((here, here.seal(b"yes")), (there, channels()[0].seal(b"yes"))):
        with pytest.raises(UnfitError):
            channel.open(piece)


def test_long_words_go_in_pieces_and_a_longer_piece_is_not_waited_for():
    here, there = channels()
    words = bytes(range(256)) * 200
    sealed = here.seal(words)
    assert b"".join(there.open(sealed[begin : begin + 777]) for begin in range(0, len(sealed), 777)) == words
    with pytest.raises(UnfitError, match="1 to"):
        there.open((PIECE_BYTES_MAX + 1).to_bytes(4, "little"))


@BOTH
def test_a_message_that_is_too_long_is_refused_before_it_is_read(terms):
    here, there = tcp_pair()
    with here, there:
        answering = Task(answered, there, terms)
        talk = converse(here, terms, True, PATIENCE_S)
        talk.patience.send(bytes(talk.channel.seal((MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"))))
        assert isinstance(answering.end(), TooLongError)


def test_what_is_changed_on_the_way_is_not_heard():
    for at in range(0, 64 + NONCE_BYTES + TAG_BYTES + 4 + 4 + len(b"question") + TAG_BYTES, 13):
        def change(data, begin, at=at):
            if begin <= at < begin + len(data):
                data[at - begin] ^= 1
            return data

        between = Middle(change)
        dialling = Task(asked, between.dialled, KEYED)
        answering = Task(answered, between.answered, KEYED, 2)
        heard = answering.end()
        assert isinstance(heard, UnfitError), (at, heard)
        between.hang_up()
        assert isinstance(dialling.end(), UnfitError)


# The door.


@contextmanager
def opened(terms=KEYED, admit=None, limit_s=PATIENCE_S, port=0):
    """A door on loopback whose callers hear their own words in capitals; its address."""

    def echo(talk, caller):
        talk.say(talk.hear().upper())
        return False

    with door("127.0.0.1", port, terms, admit or echo, limit_s, SparseLog(logging.getLogger("door"), "test")) as made:
        yield made.listening.getsockname()


def spoken(address, terms=KEYED):
    with socket.create_connection(address, PATIENCE_S) as connection:
        return asked(connection, terms)


@BOTH
def test_strangers_who_are_silent_or_say_a_byte_now_and_then_delay_nobody(terms):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(opened(terms, limit_s=10 * PATIENCE_S))
        strangers = [stack.enter_context(socket.create_connection(address)) for _ in range(40)]
        ended = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                for byte in greeting_of(terms):
                    for stranger in strangers[20:]:
                        stranger.sendall(bytes([byte]))
                    if ended.wait(0.05):
                        return

        dripping = Task(drip)
        assert spoken(address, terms) == b"QUESTION"  # Within less than a stranger may take.
        ended.set()
        dripping.end()


def test_of_too_many_strangers_the_one_that_has_been_there_longest_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(doors, "STRANGERS_MAX", 4)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(opened(limit_s=10 * PATIENCE_S))
        strangers = [stack.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(9)]
        for stranger in strangers[:5]:
            heard = b""
            while part := stranger.recv(64):
                heard += part
            assert greeting_of(KEYED).startswith(heard)
        assert spoken(address) == b"QUESTION"


def test_strangers_of_one_host_push_out_nobody_of_another(monkeypatch):
    monkeypatch.setattr(doors, "STRANGERS_MAX", 4)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(opened())
        slow = stack.enter_context(socket.create_connection(address, PATIENCE_S, ("127.0.0.2", 0)))
        for _ in range(9):
            stack.enter_context(socket.create_connection(address, PATIENCE_S)).recv(64)
        assert asked(slow, KEYED) == b"QUESTION"


def test_an_address_that_is_taken_is_named():
    with opened() as (host, port):
        said = f"listen on {host} port {port}: Address already in use"
        with pytest.raises(UnfitError, match=said), opened(port=port):
            pass


def test_who_has_proven_who_it_is_is_not_hung_up_on_for_strangers(monkeypatch):
    admitted = threading.Event()

    def admit(talk, caller):
        admitted.set()
        talk.say(talk.hear().upper())
        return False

    monkeypatch.setattr(doors, "STRANGERS_MAX", 2)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(opened(admit=admit))
        connection = stack.enter_context(socket.create_connection(address, PATIENCE_S))
        talk = converse(connection, KEYED, True, PATIENCE_S)
        assert admitted.wait(PATIENCE_S)  # Whoever dials has heard the proof of the other end before that heard its own.
        for _ in range(6):
            stack.enter_context(socket.create_connection(address, PATIENCE_S))
        assert spoken(address) == b"QUESTION"
        talk.say(b"still here")
        assert talk.hear() == b"STILL HERE"


def test_a_caller_has_one_limit_for_its_proof_and_its_message_together():
    refused = pytest.raises(UnfitError, match=r"closed the connection|hear the peer")  # In the proof already, where all is slow.
    with opened(limit_s=1.0) as address, socket.create_connection(address, PATIENCE_S) as connection, refused:
        talk = converse(connection, KEYED, True, PATIENCE_S)
        with contextlib.suppress(OSError):
            for byte in talk.channel.seal(b"\x10\0\0\0" + bytes(16)):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        talk.hear()


def test_a_loop_that_accepts_rests_while_no_descriptor_is_left_and_takes_whoever_waited(monkeypatch):
    rests = []
    monkeypatch.setattr(doors.time, "sleep", rests.append)

    class Crowded:
        def accept(self):
            raise OSError(errno.EMFILE, "Too many open files")

    assert accepted(Crowded()) is None and rests and min(rests) > 0
    rests.clear()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        assert accepted(listening) is None and not rests, "nobody has come: whoever asks waits for that by itself"
        with socket.create_connection(listening.getsockname()) as caller:
            listening.setblocking(True)
            connection, came_from = accepted(listening)
            with connection:
                assert came_from == caller.getsockname()


def test_a_fault_in_answering_one_caller_does_not_end_the_door(caplog):
    def admit(talk, caller):
        message = talk.hear()
        if message == b"bad":
            raise ZeroDivisionError("planted")
        talk.say(message.upper())
        return False

    with opened(admit=admit) as address:
        with socket.create_connection(address, PATIENCE_S) as connection, pytest.raises(UnfitError):
            asked(connection, KEYED, b"bad")
        assert spoken(address) == b"QUESTION"
    assert "planted" in caplog.text


def test_a_closed_door_hangs_up_on_everybody_and_waits_for_who_is_being_answered():
    begun, done = threading.Event(), []

    def admit(talk, caller):
        talk.hear()
        begun.set()
        time.sleep(0.3)
        done.append(True)
        return False

    with contextlib.ExitStack() as stack:
        with opened(admit=admit) as address:
            silent = stack.enter_context(socket.create_connection(address, PATIENCE_S))
            connection = stack.enter_context(socket.create_connection(address, PATIENCE_S))
            talk = converse(connection, KEYED, True, PATIENCE_S)
            talk.say(b"question")
            assert begun.wait(PATIENCE_S)
        assert done
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(64):
                pass
        with pytest.raises(OSError):
            socket.create_connection(address, PATIENCE_S)


def test_a_log_of_refusals_is_bounded_and_says_how_many_it_left_out(caplog, monkeypatch):
    log = SparseLog(logging.getLogger("sparse"), "test")
    for number in range(3 * doors.LOG_PER_WINDOW):
        log.warning("refused %d", number)
    assert len(caplog.records) == doors.LOG_PER_WINDOW
    monkeypatch.setattr(doors, "LOG_WINDOW_S", 0.0)
    log.warning("refused again")
    assert f"{2 * doors.LOG_PER_WINDOW} warnings before this one were left out" in caplog.text
