"""GET /auth/config and /auth/me: how to sign in, and as whom one is signed in."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from aegisops.machines.model import US_PER_SECOND
from serving.auth import Viewer
from serving.console_contract import SignedIn, SignIn
from serving.prediction import iso
from serving.routes.http import as_json, documented_errors, service_of

router = APIRouter(prefix="/auth", tags=["sign-in"])

CONFIG = "/auth/config"


@router.get("/config", summary="Ways to sign in", responses={200: {"model": SignIn}})
async def config(request: Request) -> Response:
    """Needs no token. `oidc` is what an authorization code flow with PKCE needs."""
    service = service_of(request)
    provider, oidc = service.sign_in, None
    if provider is not None and provider.document is not None:
        document, settings = provider.document, provider.settings
        oidc = {
            "issuer": document.issuer,
            "authorization_endpoint": document.authorization_endpoint,
            "token_endpoint": document.token_endpoint,
            "end_session_endpoint": document.end_session_endpoint,
            "client_id": settings.client_id,
            "scopes": settings.scopes.split(),
            "audience": settings.audience,
        }
    return as_json(
        {
            "token": service.settings.api.accept_local_tokens,
            "oidc": oidc,
            "notice": None if provider is None else provider.problem,
            "as_of": iso(round(service.clock() * US_PER_SECOND)),
        }
    )


@router.get(
    "/me",
    summary="Who the token says you are",
    responses={200: {"model": SignedIn}, **documented_errors()},
)
async def me(principal: Viewer) -> Response:
    """Subject, role, scope and until when."""
    return as_json(
        {
            "subject": principal.subject,
            "role": principal.role.name.lower(),
            "sites": None if principal.sites is None else sorted(principal.sites),
            "areas": None if principal.areas is None else sorted(principal.areas),
            "expires_at": datetime.fromtimestamp(principal.expires, UTC).isoformat(),
        }
    )
