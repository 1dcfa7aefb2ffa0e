"""Tokens of an OpenID Connect provider: discovery, keys, and roles out of a claim.

The provider's document and keys are fetched in the background (OpenID Connect Discovery 1.0, JWK
Set RFC 7517); a token is checked against what is known, so no request waits for the provider. Only
signatures are trusted: the algorithm follows from the published key, never from the token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aegisops.errors import ConfigurationError, ServiceUnavailable
from aegisops.settings import OidcSettings
from aegisops.tokens import InvalidToken, Principal, Role, Verifier, VerifyingKey, subject_of

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

REFRESH_SECONDS = 300.0
"""How long keys are used without asking again."""
SOONEST_SECONDS = 10.0
"""Between two refreshes that unknown keys ask for."""
TIMEOUT_SECONDS = 5.0
_ALGORITHMS = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
_LOCAL = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Discovered:
    """What of the provider's document is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None


@dataclass
class Provider:
    """One provider: its document, and a verifier of its tokens once both were fetched."""

    settings: OidcSettings
    clock: Callable[[], float]
    """Unix seconds."""
    document: Discovered | None = None
    problem: str | None = "the provider has not been asked yet"
    _verifier: Verifier | None = None
    _fetched_at: float = float("-inf")
    _wanted: bool = field(default=False)

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for an issuer or role that cannot be."""
        parts = urlsplit(self.settings.issuer)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
        if not is_safe:
            raise ConfigurationError(
                f"AEGIS_OIDC__ISSUER {self.settings.issuer!r}: use https (http on this computer)"
            )
        for word in self.settings.roles.values():
            Role.parse(word)

    @property
    def is_due(self) -> bool:
        """Whether keys should be fetched now."""
        age = self.clock() - self._fetched_at
        hurry = self._wanted or self._verifier is None
        return age >= (SOONEST_SECONDS if hurry else REFRESH_SECONDS)

    def refresh(self) -> None:
        """Fetch document and keys (blocking). Those known stay when the provider is away."""
        import httpx

        self._fetched_at, self._wanted = self.clock(), False
        try:
            with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
                self.document = _discovered(client, self.settings.issuer)
                keys = keys_of(_json(client, self.document.jwks_uri))
        except ServiceUnavailable as error:
            if self.problem is None:
                log.warning("sign-in: %s", error)
            self.problem = str(error)
            return
        self.problem = None
        self._verifier = Verifier(
            keys, self.settings.issuer, self.settings.audience, self._principal, _REQUIRED
        )

    def verify(self, token: str) -> Principal:
        """The principal of a valid token of this provider; `InvalidToken` for every other."""
        if self._verifier is None:
            raise InvalidToken("the sign-in provider's keys are not known yet; try again")
        try:
            return self._verifier.verify(token)
        except InvalidToken as error:
            # A new key may have been published since; the next round fetches it.
            self._wanted = self._wanted or "does not know" in str(error)
            raise

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        issued = claims.get("nbf", claims["iat"])
        return Principal(
            subject=subject_of(claims),
            role=role_of(claims, self.settings),
            not_before=float(issued),
            expires=float(claims["exp"]),
            sites=_scope(claims, self.settings.sites_claim),
            areas=_scope(claims, self.settings.areas_claim),
        )


_REQUIRED = ("exp", "iat", "iss", "aud", "sub")


def role_of(claims: Mapping[str, Any], settings: OidcSettings) -> Role:
    """The highest role that the role claim gives; `InvalidToken` when it gives none."""
    found = _claim(claims, settings.role_claim)
    words = found if isinstance(found, list) else [found]
    known = settings.roles or {role.name.lower(): role.name.lower() for role in Role}
    roles = [Role.parse(known[word]) for word in words if isinstance(word, str) and word in known]
    if not roles:
        raise InvalidToken(f"the token's claim {settings.role_claim!r} gives no role here")
    return max(roles)


def keys_of(jwks: Mapping[str, Any]) -> dict[str, VerifyingKey]:
    """Signing keys of a JWK Set by `kid`; those this product does not use are left out."""
    import jwt

    found: dict[str, VerifyingKey] = {}
    entries = jwks.get("keys")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
            continue
        allowed = _ALGORITHMS.get(str(entry.get("kty")), ())
        algorithm = entry.get("alg", allowed[0] if allowed else None)
        if algorithm not in allowed:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if getattr(key, "key_size", 4096) < 2048 and entry["kty"] == "RSA":  # noqa: PLR2004
            continue
        found[str(entry.get("kid", ""))] = VerifyingKey(key, algorithm)
    return found


def _discovered(client: httpx.Client, issuer: str) -> Discovered:
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    document = _json(client, address)
    wanted = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
    missing = [name for name in wanted if not isinstance(document.get(name), str)]
    if missing:
        raise ServiceUnavailable(f"{address} lacks {', '.join(missing)}; check AEGIS_OIDC__ISSUER")
    if document["issuer"] != issuer:
        raise ServiceUnavailable(
            f"{address} is of issuer {document['issuer']!r}, not {issuer!r}; they must be equal"
        )
    end = document.get("end_session_endpoint")
    return Discovered(
        issuer=document["issuer"],
        authorization_endpoint=document["authorization_endpoint"],
        token_endpoint=document["token_endpoint"],
        jwks_uri=document["jwks_uri"],
        end_session_endpoint=end if isinstance(end, str) else None,
    )


def _json(client: httpx.Client, address: str) -> dict[str, Any]:
    import httpx

    try:
        answer = client.get(address)
        answer.raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServiceUnavailable(f"the sign-in provider does not answer: {error}") from error
    if not isinstance(found, dict):
        raise ServiceUnavailable(f"{address} is no JSON object")
    return found


def _claim(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - JSON
    """A claim by its name, or by a dotted way into objects."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _scope(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    value = _claim(claims, name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidToken(f"the token's {name} must be a list of texts")
    return frozenset(value)
