"""Application certificates of OPC UA (OPC 10000-6, 6.2.2): made here, read elsewhere."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=5 * 365)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an OPC UA application is."""

    uri: str
    """Application URI; the certificate's subject alternative name carries it."""
    certificate: Path
    """DER."""
    private_key: Path
    """PEM, readable by its owner alone."""


def identity(folder: Path, name: str, now: datetime | None = None) -> Identity:
    """The identity kept in `folder`; a self-signed one of 2,048-bit RSA is made the first time."""
    host = socket.gethostname()
    uri = f"urn:{host}:aegisops:{name}"
    certificate, key = folder / f"{name}.der", folder / f"{name}.pem"
    if certificate.exists() and key.exists():
        known = x509.load_der_x509_certificate(certificate.read_bytes())
        names = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        # A host that was renamed keeps its identity: servers trust this very certificate.
        uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        return Identity(uri, certificate, key)
    folder.mkdir(parents=True, exist_ok=True)
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"AegisOps {name}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "AegisOps"),
        ]
    )
    begin = (now or datetime.now(UTC)) - timedelta(minutes=5)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + VALID)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(host)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=False,
                key_cert_sign=True,  # the specification asks it of self-signed ones
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    certificate.write_bytes(signed.public_bytes(Encoding.DER))
    return Identity(uri, certificate, key)
