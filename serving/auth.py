"""Who asks and what they may do: bearer tokens on HTTP. The token itself: aegisops.tokens."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from aegisops.oidc import Provider
from aegisops.settings import Settings
from aegisops.tokens import (
    LEEWAY_SECONDS,
    InvalidToken,
    Principal,
    Role,
    Verifier,
    ensure_keys,
    load_verifying_key,
    mint,
    unverified_issuer,
)
from serving.problem import Problem
from serving.rates import Rates

__all__ = ["Admin", "Authenticator", "Engineer", "Operator", "Viewer", "make_verifier", "mint"]

_REMEMBERED = 4_096
REMEMBER_SECONDS = 60.0


class Tokens(Protocol):
    """Tells a valid token from every other."""

    def verify(self, token: str) -> Principal:
        """The principal; `InvalidToken` otherwise."""


class SeveralIssuers:
    """Sends a token to the verifier of its issuer; what it says is believed only after that."""

    def __init__(self, local: Tokens | None, provider: Provider | None) -> None:
        """`local`: of the product's own tokens; `provider`: of the sign-in provider's."""
        self._local = local
        self._provider = provider

    def verify(self, token: str) -> Principal:
        """The principal; `InvalidToken` otherwise."""
        provider = self._provider
        if provider is not None and (
            self._local is None or unverified_issuer(token) == provider.settings.issuer
        ):
            return provider.verify(token)
        if self._local is None:
            raise InvalidToken("this API accepts no tokens; configure AEGIS_OIDC__ISSUER")
        return self._local.verify(token)


class Authenticator:
    """Checks the Authorization header; remembers tokens that proved valid until they expire.

    An Ed25519 check costs about 0.15 ms, a look-up in the memory next to nothing. Only the exact
    text of a token whose signature was verified is remembered; validity times are looked at anew,
    the signature after REMEMBER_SECONDS, so that a key that was withdrawn opens nothing any more.
    """

    def __init__(self, verifier: Tokens, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._verifier = verifier
        self._clock = clock
        self._known: dict[str, tuple[Principal, float]] = {}

    def principal(self, header: str | None) -> Principal:
        """The principal of an Authorization header; `Problem` 401 otherwise."""
        if not header:
            raise _unauthenticated("There is no Authorization header.")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthenticated("The Authorization header is not of the form `Bearer <token>`.")
        known, until = self._known.get(token, (None, 0.0))
        now = self._clock()
        if known is not None and known.expires + LEEWAY_SECONDS <= now:
            del self._known[token]
            raise _unauthenticated("the token has expired; ask for a new one")
        if known is not None and now < until:
            return known
        self._known.pop(token, None)
        try:
            principal = self._verifier.verify(token)
        except InvalidToken as error:
            raise _unauthenticated(str(error)) from None
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[token] = principal, now + REMEMBER_SECONDS
        return principal


def _unauthenticated(detail: str) -> Problem:
    return Problem("unauthenticated", detail, {"WWW-Authenticate": 'Bearer realm="aegisops"'})


async def authorise(request: Request, role: Role) -> Principal:
    """The request's principal if it has at least `role`; `Problem` 401, 403 or 429 otherwise."""
    authenticator: Authenticator = request.app.state.authenticator
    principal = authenticator.principal(request.headers.get("authorization"))
    if principal.role < role:
        raise Problem(
            "forbidden",
            f"This needs the role {role.name.lower()}; yours is {principal.role.name.lower()}.",
            required_role=role.name.lower(),
        )
    rates: Rates = request.app.state.rates
    if not await rates.admits(principal.subject):
        raise Problem(
            "rate-limited", "This token's subject sends too many requests.", {"Retry-After": "1"}
        )
    return principal


def _needs(role: Role) -> Callable[[Request], Coroutine[Any, Any, Principal]]:
    async def check(request: Request) -> Principal:
        return await authorise(request, role)

    return check


Viewer = Annotated[Principal, Depends(_needs(Role.VIEWER))]
Operator = Annotated[Principal, Depends(_needs(Role.OPERATOR))]
Engineer = Annotated[Principal, Depends(_needs(Role.ENGINEER))]
Admin = Annotated[Principal, Depends(_needs(Role.ADMIN))]


def make_tokens(settings: Settings, provider: Provider | None) -> Tokens:
    """Verifies the tokens that the settings accept."""
    local = make_verifier(settings) if settings.api.accept_local_tokens else None
    return SeveralIssuers(local, provider)


def make_verifier(settings: Settings) -> Verifier:
    """The verifier of the configured issuer, audience and key; by default the development key."""
    public = settings.api.token_public_key or ensure_keys(settings.keys_dir)[1]
    return Verifier({"": load_verifying_key(public)}, settings.api.issuer, settings.api.audience)
