"""Certificates of an authority of the tests' own: for an engine that is reached over TLS, and for whoever may reach it."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def certificates(folder: Path, address: str) -> None:
    """Write ca.pem, server.pem, server-key.pem (for an address), cert.pem and key.pem (for a client, under the names that Docker's own programs use)."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _named("tests")
    _write(folder, "ca.pem", None, _signed(issuer, issuer, authority.public_key(), authority, x509.BasicConstraints(True, None)))
    use = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    for role, (certificate, key) in {"server": ("server.pem", "server-key.pem"), "client": ("cert.pem", "key.pem")}.items():
        own = ec.generate_private_key(ec.SECP256R1())
        extensions = (x509.ExtendedKeyUsage([use[role]]), x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]))
        made = _signed(_named(role), issuer, own.public_key(), authority, *extensions)
        _write(folder, certificate, None, made)
        _write(folder, key, own, None)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
    built = built.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    for extension in extensions:
        built = built.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return built.sign(authority, hashes.SHA256())


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | None, certificate: x509.Certificate | None) -> None:
    pem = serialization.Encoding.PEM
    if key is not None:
        (folder / name).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        (folder / name).chmod(0o600)
    elif certificate is not None:
        (folder / name).write_bytes(certificate.public_bytes(pem))
