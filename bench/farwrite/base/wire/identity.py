"""Who may be at the other end: a TLS context that proves us to the peer and demands the same of it.

From a shared key each end derives the same two certificates, one of the end that dials and one of the end that answers, holds
its own and takes no other than the peer's. Python 3.11 has no TLS-PSK; TLS asks for proof of the private key either way, and
only who holds the shared key can derive that. No secret touches a disk.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from .terms import SharedKey

SALT = b"farwrite wire 1"  # Names the protocol: the same key used elsewhere gives other certificates. HKDF, RFC 5869.
SEED_BYTES = 32  # Of an Ed25519 private key; RFC 8032.
SERIAL = 1
# A certificate of a key is as good as the key: it has no dates of its own. RFC 5280 §4.1.2.5 has the last one.
BEGINS, ENDS = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def context_of(identity: SharedKey, dials: bool) -> ssl.SSLContext:
    """TLS 1.3 and nothing older; a certificate of ours, and none but the peer's taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if dials else ssl.PROTOCOL_TLS_SERVER)
    context.check_hostname = False  # A replica is who holds the key, not who has the address.
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    if not dials:
        context.num_tickets = 0  # A session taken up again would be one without proof.
    (own, secret), (peer, _) = derived(identity.key, dials), derived(identity.key, not dials)
    with in_memory(own) as certificate, in_memory(secret) as private_key:
        context.load_cert_chain(certificate, private_key)
    context.load_verify_locations(cadata=peer.decode())
    return context


def only_certificate(identity: SharedKey, dials: bool) -> bytes:
    """The one certificate, in DER, that the peer may have."""
    return ssl.PEM_cert_to_DER_cert(derived(identity.key, not dials)[0].decode())


def derived(key: bytes, dials: bool) -> tuple[bytes, bytes]:
    """(certificate, private key) in PEM of the end that dials or answers, the same at both ends.

    Two, so that what one end says of itself can never be sent back to it as the other's word.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    role = "dials" if dials else "answers"
    seed = HKDF(hashes.SHA256(), SEED_BYTES, SALT, role.encode()).derive(key)
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"farwrite replica that {role}")])
    certificate = (
        x509.CertificateBuilder(name, name, secret.public_key(), SERIAL, BEGINS, ENDS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)  # It signs for nobody else.
        .sign(secret, None)
    )
    encoding = serialization.Encoding.PEM
    unlocked = serialization.NoEncryption()
    return certificate.public_bytes(encoding), secret.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unlocked)


@contextmanager
def in_memory(data: bytes) -> Iterator[Path]:
    """A file of these bytes that is on no disk; OpenSSL takes its own certificate by name only. memfd_create(2)."""
    with ExitStack() as stack:
        descriptor = os.memfd_create("farwrite-identity", os.MFD_CLOEXEC)
        stack.callback(os.close, descriptor)
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
