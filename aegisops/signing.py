"""Signatures of model bundles: OpenSSF model-signing with an elliptic-curve key, offline.

The signature lies beside the bundle folder (`bundle.sig` beside `bundle/`), so that the folder
holds exactly what is signed. Third parties verify with model-signing's own command line. Verify
before registering, before promoting and before loading.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aegisops.errors import ConfigurationError, UntrustedBundle
from aegisops.scoring import bundle_digest

PRIVATE_KEY, PUBLIC_KEY = "model_signing.pem", "model_signing.pub"


@dataclass(frozen=True, slots=True)
class Keys:
    """Paths of a P-256 key pair in PEM."""

    private: Path
    public: Path


def signature_path(bundle_dir: Path) -> Path:
    """Where a bundle's signature lies."""
    return bundle_dir.with_name(bundle_dir.name + ".sig")


def sign(bundle_dir: Path, key: Path, password: str | None = None) -> Path:
    """Sign every file of the folder with the private key; returns the signature's path.

    Raises `ConfigurationError` when the key cannot be used.
    """
    from model_signing import signing

    target = signature_path(bundle_dir)
    if not key.exists():
        raise ConfigurationError(f"{key}: no such signing key; set AEGIS_SIGNING__PRIVATE_KEY")
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=key, password=password)
        config.sign(bundle_dir, draft)
        draft.replace(target)  # a reader sees the old signature or the new one, never half
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{key}: not a usable signing key: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def verify(bundle_dir: Path, public_key: Path) -> str:
    """Digest of a bundle whose signature is valid.

    Raises `UntrustedBundle` for a missing signature, a wrong key, and any file that was added,
    removed, renamed or changed since.
    """
    from model_signing import verifying

    signature = signature_path(bundle_dir)
    if not public_key.exists():
        raise UntrustedBundle(f"{public_key}: no public key to verify {bundle_dir} with")
    if not bundle_dir.is_dir() or not signature.exists():
        raise UntrustedBundle(f"{bundle_dir}: no bundle or no signature; sign it before use")
    before = bundle_digest(bundle_dir)
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=public_key).verify(bundle_dir, signature)
    except Exception as error:  # the library raises many kinds, all mean: do not load
        raise UntrustedBundle(
            f"{bundle_dir}: signature not valid: {error}; train or export the model again"
        ) from error
    if bundle_digest(bundle_dir) != before:
        raise UntrustedBundle(f"{bundle_dir}: changed while it was verified")
    return before


def ensure_keys(keys_dir: Path) -> Keys:
    """The development key pair in `keys_dir`, made at first use (private key mode 0600).

    Two processes that start together end up with one pair.
    """
    keys = Keys(keys_dir / PRIVATE_KEY, keys_dir / PUBLIC_KEY)
    if not keys.private.exists():
        keys_dir.mkdir(parents=True, exist_ok=True)
        _publish_new(keys.private, _new_private_key())
    if not keys.public.exists():
        _publish_new(keys.public, _public_of(keys.private.read_bytes()))
    return keys


def _publish_new(path: Path, content: bytes) -> None:
    """Create `path` with all of `content` unless another process was first."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()


def _new_private_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_of(private: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(private, password=None)
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
