"""A development authority and the certificates it issues. A plant uses its own authority."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of one subject, all PEM."""

    key: Path
    chain: Path
    both: Path
    """Key and chain in one file, as Kafka's PEM key store wants it."""


class Authority:
    """Issues certificates into one folder; made there at first use.

    authority = Authority(folder)
    authority.issue("redis")                 # folder/redis.key, folder/redis.crt, folder/redis.pem
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key_file = folder / "authority.key"
        self.certificate = folder / "authority.crt"
        """What every client and server trusts."""
        if not self.certificate.exists():
            self._make()

    def issue(self, name: str, life: timedelta = LIFE) -> Certificate:
        """A new key and certificate for `name` on this computer, over earlier ones.

        Each file is replaced whole, so that a server that reloads meanwhile reads old or new.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        authority_key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        now = datetime.now(UTC)
        chain = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("localhost"),
                        x509.DNSName(name),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())  # type: ignore[arg-type]  # an EC key, made here
        )
        private, public = _private(key), chain.public_bytes(serialization.Encoding.PEM)
        made = Certificate(*(self._folder / f"{name}.{suffix}" for suffix in ("key", "crt", "pem")))
        _write(made.key, private)
        _write(made.chain, public)
        _write(made.both, private + public)
        return made

    def _make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named("AegisOps development authority"))
            .issuer_name(_named("AegisOps development authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self._key_file, _private(key))
        _write(self.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    half = path.with_suffix(path.suffix + ".half")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if path.suffix == ".crt":
        half.chmod(0o644)
    half.replace(path)
