"""An authority, a server's certificate and a client's, in a directory as NBD's tools name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificates(directory):
    """The directory, made."""
    directory.mkdir()
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = signed("authority", authority_key, "authority", authority_key, is_authority=True)
    keep(directory / "ca-cert.pem", authority)
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        keep(directory / f"{name}-cert.pem", signed(name, key, "authority", authority_key))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (directory / f"{name}-key.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return directory


def signed(name, key, by, by_key, is_authority=False):
    """A certificate of this name for today."""
    now = datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (by, name)]
    made = x509.CertificateBuilder(*names, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1))
    made = made.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    if not is_authority:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return made.sign(by_key, hashes.SHA256())


def keep(path, certificate):
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
