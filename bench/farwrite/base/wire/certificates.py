"""A server's certificates for clients that are not ours: files in a directory, named as QEMU, nbdkit and libnbd name theirs.

Python 3.11's ssl has no pre-shared keys, so certificates are the one way. Where the authority's certificate lies beside the
server's, a client must show one that it has signed.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ..errors import UsageError

AUTHORITY, CERTIFICATE, PRIVATE_KEY = "ca-cert.pem", "server-cert.pem", "server-key.pem"


def server_context(directory: Path) -> ssl.SSLContext:
    """TLS 1.3 as the server of this directory. UsageError naming the file that is missing or is not what it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # A session taken up again would be one without proof.
    for name in (CERTIFICATE, PRIVATE_KEY):
        if not (directory / name).is_file():
            raise UsageError(
                f"--tls {directory}: there is no {name}. The directory holds {CERTIFICATE} and {PRIVATE_KEY}, and {AUTHORITY} "
                "where clients must show a certificate of that authority."
            )
    try:
        context.load_cert_chain(directory / CERTIFICATE, directory / PRIVATE_KEY, password=lambda: b"")
        if (directory / AUTHORITY).is_file():  # Clients must show a certificate.
            context.load_verify_locations(directory / AUTHORITY)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as refusal:
        reason = getattr(refusal, "reason", None) or refusal.strerror or str(refusal)
        sentence = f"--tls {directory}: load the certificates: {reason}. They are PEM files without a password."
        raise UsageError(sentence) from refusal
    return context
