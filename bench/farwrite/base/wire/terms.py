"""What both ends of a connection must agree on before a byte of a replica goes over it: encryption, compression, identity.

Nothing is negotiated: each end demands its own terms, so nobody in the middle can talk two ends into less.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UsageError
from ..wire_names import CompressionName, EncryptionName

__all__ = ["IN_THE_CLEAR", "KEY_BYTES_MIN", "CompressionName", "EncryptionName", "SharedKey", "Terms"]

# Whoever dials an end is shown its certificate, and may then try keys against it for as long as it likes: only a key that
# cannot be guessed will do. A password is none.
KEY_BYTES_MIN = 32


@dataclass(frozen=True)
class SharedKey:
    """A secret that both ends hold. Whoever holds it is a replica."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) < KEY_BYTES_MIN:
            raise UsageError(
                f"A shared key of {len(self.key)} bytes can be guessed; at least {KEY_BYTES_MIN} random bytes are needed: "
                f"head -c {KEY_BYTES_MIN} /dev/urandom > key."
            )


@dataclass(frozen=True)
class Terms:
    """What one end demands."""

    encryption: EncryptionName = "none"
    compression: CompressionName = "none"
    identity: SharedKey | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.encryption == "tls" and self.identity is None:
            raise UsageError("TLS needs a shared key: both ends prove who they are.")

    @property
    def need_a_tunnel(self) -> bool:
        """Whether the bytes of the replica are not those of the network."""
        return (self.encryption, self.compression) != ("none", "none")

    @property
    def are_proven(self) -> bool:
        """Whether both ends prove who they are."""
        return self.identity is not None

    def in_private(self) -> Terms:
        """The same where nobody else can connect: only TLS asks for proof there."""
        return self if self.encryption == "tls" else Terms(self.encryption, self.compression)

    @property
    def text(self) -> str:
        """The terms in words, without secrets."""
        proof = " proof=key" if self.encryption == "none" and self.are_proven else ""
        return f"encryption={self.encryption} compression={self.compression}{proof}"


IN_THE_CLEAR = Terms()
