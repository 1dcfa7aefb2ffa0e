"""Access tokens: minting, verifying, and the development key pair. No HTTP here.

A token is a JWT signed with EdDSA (Ed25519) or RS256. The algorithm follows from the key the
operator configured, never from the token's header, so `none` and HMAC-with-the-public-key tokens
are refused before any claim is read. `kid` is only ever a lookup in the configured keys.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegisops.errors import ConfigurationError, Permanent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from aegisops.settings import Settings

PRIVATE_KEY = "api-token.key.pem"
PUBLIC_KEY = "api-token.pub.pem"
LONGEST_TOKEN = 8_192
"""Characters; longer ones are refused unread."""
_E_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
"""An address with a dotted domain; `<client>@clients` of machine tokens is none."""
LEEWAY_SECONDS = 5
"""Clock difference forgiven between issuer and API."""


class Role(IntEnum):
    """What a subject may do; each role includes the ones before it."""

    VIEWER = 1
    OPERATOR = 2
    ENGINEER = 3
    ADMIN = 4

    @classmethod
    def parse(cls, word: str) -> Role:
        """The role of that (lower-case) name; `ConfigurationError` for any other word."""
        try:
            return cls[word.upper()]
        except KeyError:
            known = ", ".join(role.name.lower() for role in cls)
            raise ConfigurationError(f"no role {word!r}; use one of: {known}") from None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: subject id, role, optional scope, and the token's validity in Unix seconds."""

    subject: str
    role: Role
    not_before: float
    expires: float
    sites: frozenset[str] | None = None
    areas: frozenset[str] | None = None

    def sees(self, site: str, area: str) -> bool:
        """Whether a machine at this place is inside the token's scope."""
        return (self.sites is None or site in self.sites) and (
            self.areas is None or area in self.areas
        )


class InvalidToken(Permanent):
    """The token proves nothing; the message says why without repeating the token."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key and the one algorithm it may be used with."""

    key: PublicKeyTypes
    algorithm: str


class Verifier:
    """Checks tokens of one issuer and audience against the configured keys."""

    def __init__(
        self,
        keys: Mapping[str, VerifyingKey],
        issuer: str,
        audience: str,
        principal: Callable[[Mapping[str, Any]], Principal] | None = None,
        required: Sequence[str] = ("exp", "nbf", "iat", "iss", "aud", "sub", "role"),
    ) -> None:
        """`keys`: key id → key; the entry `""` serves tokens without a `kid`.

        `principal` makes a principal of checked claims; by default of the product's own.
        """
        self._principal = principal or _principal
        self._required = list(required)
        self._keys = dict(keys)
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str) -> Principal:
        """The principal of a valid token; `InvalidToken` for every other."""
        import jwt

        if len(token) > LONGEST_TOKEN:
            raise InvalidToken("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.get(str(header.get("kid", "")))
            if key is None:
                raise InvalidToken("the token was signed with a key this API does not know")
            claims = jwt.decode(
                token,
                key.key,  # type: ignore[arg-type]
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": self._required},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("the token has expired; ask for a new one") from None
        except jwt.ImmatureSignatureError:
            raise InvalidToken("the token is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise InvalidToken("the token is from another issuer") from None
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            raise InvalidToken("the token is malformed or its signature is wrong") from None
        return self._principal(claims)


def unverified_issuer(token: str) -> str | None:
    """What the token claims as its issuer: only good for choosing who checks it."""
    import jwt

    if len(token) > LONGEST_TOKEN:
        return None
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def subject_of(claims: Mapping[str, Any]) -> str:
    """The subject's id. Raises `InvalidToken` for none, and for an e-mail address."""
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise InvalidToken("the token's sub must be text")
    if _E_MAIL.fullmatch(subject):
        raise InvalidToken("the token's sub is an e-mail address; subjects must be ids")
    return subject


def _principal(claims: Mapping[str, Any]) -> Principal:
    subject, role = subject_of(claims), claims["role"]
    if not isinstance(role, str):
        raise InvalidToken("the token's role must be text")
    try:
        parsed = Role.parse(role)
    except ConfigurationError:
        raise InvalidToken("the token's role is unknown") from None
    return Principal(
        subject=subject,
        role=parsed,
        not_before=float(claims["nbf"]),
        expires=float(claims["exp"]),
        sites=_scope(claims, "sites"),
        areas=_scope(claims, "areas"),
    )


def _scope(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidToken(f"the token's {name} must be a list of texts")
    return frozenset(value)


def load_verifying_key(path: Path) -> VerifyingKey:
    """A PEM public key with its algorithm (Ed25519 → EdDSA, RSA ≥ 2048 bit → RS256).

    Raises `ConfigurationError` for any other key or an unreadable file.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: no readable PEM public key: {error}") from error
    if isinstance(key, Ed25519PublicKey):
        return VerifyingKey(key, "EdDSA")
    if isinstance(key, RSAPublicKey) and key.key_size >= 2048:  # noqa: PLR2004 - NIST SP 800-131A
        return VerifyingKey(key, "RS256")
    raise ConfigurationError(f"{path}: use an Ed25519 key, or RSA of at least 2048 bits")


def ensure_keys(keys_dir: Path) -> tuple[Path, Path]:
    """Private and public development key (Ed25519 PEM), made at first use.

    Safe when two processes start at once: the key that reaches its name first wins.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    private, public = keys_dir / PRIVATE_KEY, keys_dir / PUBLIC_KEY
    keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not private.exists():
        made = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        _place(private, made, 0o600, keep_existing=True)
    if not public.exists():
        key = load_pem_private_key(private.read_bytes(), password=None)
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _place(public, pem, 0o644, keep_existing=False)
    return private, public


def _place(path: Path, content: bytes, mode: int, *, keep_existing: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    if not keep_existing:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def mint(
    settings: Settings,
    subject: str,
    role: Role | str,
    *,
    lifetime_seconds: int = 8 * 3_600,
    sites: Sequence[str] | None = None,
    areas: Sequence[str] | None = None,
    now: float | None = None,
) -> str:
    """A signed token for `subject`, with the development key of `settings.keys_dir`.

    `now` (Unix seconds) is the time of issue; the wall clock when absent. Raises
    `ConfigurationError` for a subject that is an e-mail address.
    """
    import jwt

    if _E_MAIL.fullmatch(subject):
        raise ConfigurationError(
            f"{subject!r} is an e-mail address and would stay in the audit log; give an id"
        )
    private, _ = ensure_keys(settings.keys_dir)
    issued = int(time.time() if now is None else now)
    named = role if isinstance(role, Role) else Role.parse(role)
    claims: dict[str, Any] = {
        "iss": settings.api.issuer,
        "aud": settings.api.audience,
        "sub": subject,
        "role": named.name.lower(),
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime_seconds,
    }
    if sites is not None:
        claims["sites"] = list(sites)
    if areas is not None:
        claims["areas"] = list(areas)
    return jwt.encode(claims, private.read_bytes(), algorithm="EdDSA")
