"""The NBD door: who comes is negotiated with in a thread of its own, and handed to the primary's loop once it has chosen.

From then on no Python runs for it, unless it is encrypted: then a tunnel in a thread carries the bytes (base/wire/tunnel.py). A
client that is silent, or says a byte now and then, is hung up on after NEGOTIATION_S; of more than STRANGERS_MAX that negotiate
at once, the one that has been there longest is (base/wire/door.py).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...base.errors import UnfitError
from ...base.wire.channel import TlsStream
from ...base.wire.door import Door, SparseLog, opened
from ...base.wire.handshake import CHUNK_BYTES, Patience, prove
from ...base.wire.terms import IN_THE_CLEAR
from ...base.wire.tunnel import tunnel_in_thread
from .nbd_negotiation import Chosen, Export, Negotiation, Next, Tls

NEGOTIATION_S = 10.0  # Six options over the longest round trip of a profile, 0.25 s, and TLS.

LOG = logging.getLogger(__name__)

Exports = Sequence[Export] | Callable[[], Sequence[Export]]  # Those of the moment in which a client comes.
Adopt = Callable[[socket.socket, Chosen], object]  # Takes the connection over, whatever becomes of it.


class Client(Patience):
    """A connection that negotiates: its bytes, encrypted or not, read exactly."""

    tls: TlsStream | None = None

    def late(self) -> UnfitError:
        return UnfitError(f"The client has not chosen an export within {self.limit_s:g} s.")

    def encrypt(self, context: ssl.SSLContext) -> None:
        """TLS from here on. Nothing behind the option that asked for it has been read."""
        tls = TlsStream(context, dials=False)
        prove(self, tls)
        self.tls = tls

    def hear(self, size: int) -> bytes:
        """The next so many bytes of what the client says."""
        tls = self.tls
        if tls is None:
            return self.receive_exactly(size)
        heard = b""
        while len(heard) < size:
            piece = tls.hear(b"", size - len(heard))  # One record's at most; the next may be there already.
            if not piece:
                piece = tls.hear(self.receive(CHUNK_BYTES), size - len(heard))
                self.send(tls.pending())
            heard += piece
        return heard

    def say(self, data: bytes) -> None:
        if data:
            self.send(data if self.tls is None else self.tls.seal(data))

    def handed_over(self) -> socket.socket:
        """What the loop reads plain requests from; the connection is not ours any more."""
        if self.tls is not None:
            # A client that is gone may have written anew elsewhere: what it had asked for must not come behind that.
            return tunnel_in_thread(self.connection, self.tls, IN_THE_CLEAR, drops=True)
        return self.connection


def negotiate(
    connection: socket.socket, exports: Exports, tls: Tls, context: ssl.SSLContext | None, limit_s: float = NEGOTIATION_S
) -> tuple[Client, Chosen]:
    """From the greeting to the export. UnfitError says why there is none, after whatever the protocol answers."""
    with contextlib.suppress(OSError):  # A unix socket has no such thing.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client, talk = Client(connection, limit_s), Negotiation(exports() if callable(exports) else exports, tls)
    client.say(talk.greeting())
    while True:
        answer, then = talk.take(client.hear(talk.wants))
        client.say(answer)
        if then is Next.TLS:
            assert context is not None
            client.encrypt(context)
        elif then is Next.SERVE:
            assert talk.chosen is not None
            return client, talk.chosen
        elif then is Next.HANG_UP:
            raise UnfitError(f"Nothing was agreed: {talk.why}.")


@contextmanager
def nbd_door(
    listening: socket.socket, exports: Exports, adopt: Adopt, tls: Tls = Tls.NONE, context: ssl.SSLContext | None = None,
    limit_s: float = NEGOTIATION_S, name: str = "the NBD door",
) -> Iterator[Door]:  # fmt: skip
    """Clients of this listening socket are negotiated with, and adopted, inside this block; afterwards it is hung up on."""

    def greet(connection: socket.socket) -> tuple[Client, Chosen]:
        return negotiate(connection, exports, tls, context, limit_s)

    def admit(greeted: tuple[Client, Chosen], caller: Any) -> bool:
        client, chosen = greeted
        adopt(client.handed_over(), chosen)
        return True

    with opened(Door(listening, greet, admit, SparseLog(LOG, name))) as made:
        yield made
