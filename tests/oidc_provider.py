"""A small OpenID Connect provider: discovery, keys, authorization code with PKCE. For tests only.

Conforms where the product relies on it: OpenID Connect Core 1.0 (code flow), Discovery 1.0, RFC
7636 (S256 only), single-use codes bound to client, redirect and challenge. Who signs in chooses a
name on a page; each name has fixed claims.
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from aegisops.embedded import ports

CLIENT, AUDIENCE = "aegisops-console", "aegisops-api"
PEOPLE: dict[str, dict[str, Any]] = {
    "vera": {"roles": ["plant-viewers"]},
    "otto": {"roles": ["plant-operators", "canteen"]},
    "erna": {"roles": ["plant-engineers"]},
    "nora": {"roles": ["plant-operators"], "sites": ["plant-north"]},
    "nobody": {"roles": ["canteen"]},
}
ROLES = {
    "plant-viewers": "viewer",
    "plant-operators": "operator",
    "plant-engineers": "engineer",
}


@dataclass
class Grant:
    """What a code stands for."""

    subject: str
    client_id: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    expires: float


@dataclass
class OidcProvider:
    """Its state; `app` serves it at `issuer`."""

    issuer: str
    redirects: frozenset[str] | None = None
    """Allowed redirect addresses; None = any on this computer."""
    lifetime: float = 3_600
    keys: dict[str, RSAPrivateKey] = field(default_factory=dict)
    codes: dict[str, Grant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key; the old one stays published."""
        self.kid = f"key-{len(self.keys) + 1}"
        self.keys[self.kid] = generate_private_key(public_exponent=65_537, key_size=2_048)

    def access_token(self, subject: str, **changed: object) -> str:
        """A token for the API."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": subject, "iat": now,
            "exp": now + int(self.lifetime), "client_id": CLIENT, **PEOPLE.get(subject, {}),
        }  # fmt: skip
        claims.update(changed)
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[self.kid], "RS256", headers={"kid": self.kid})

    @property
    def app(self) -> FastAPI:
        """The provider over HTTP."""
        app = FastAPI(openapi_url=None)
        app.add_middleware(
            CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]
        )
        app.add_api_route("/.well-known/openid-configuration", self._discovery)
        app.add_api_route("/jwks", self._jwks)
        app.add_api_route("/authorize", self._authorize)
        app.add_api_route("/token", self._token, methods=["POST"])
        app.add_api_route("/end-session", self._end_session)
        return app

    async def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/end-session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }

    async def _jwks(self) -> dict[str, Any]:
        algorithm = jwt.algorithms.RSAAlgorithm
        return {
            "keys": [
                algorithm.to_jwk(key.public_key(), as_dict=True)
                | {"kid": kid, "use": "sig", "alg": "RS256"}
                for kid, key in self.keys.items()
            ]
        }

    async def _authorize(
        self,
        client_id: str,
        redirect_uri: str,
        response_type: str = "",
        code_challenge: str = "",
        code_challenge_method: str = "",
        state: str = "",
        scope: str = "",
        nonce: str | None = None,
        subject: str | None = None,
    ) -> Response:
        local = redirect_uri.startswith(("http://127.0.0.1:", "http://localhost:"))
        allowed = local if self.redirects is None else redirect_uri in self.redirects
        if client_id != CLIENT or not allowed:
            return HTMLResponse("unknown client or redirect address", status_code=400)
        problem = None
        if response_type != "code":
            problem = "unsupported_response_type"
        elif code_challenge_method != "S256" or len(code_challenge) != 43:
            problem = "invalid_request"
        elif "openid" not in scope.split():
            problem = "invalid_scope"
        if problem:
            return _back(redirect_uri, {"error": problem, "state": state})
        if subject is None:
            given = {
                "client_id": client_id, "redirect_uri": redirect_uri, "scope": scope,
                "response_type": response_type, "code_challenge": code_challenge,
                "code_challenge_method": code_challenge_method, "state": state,
            }  # fmt: skip
            if nonce is not None:
                given["nonce"] = nonce
            return HTMLResponse(_people_page(given))
        code = secrets.token_urlsafe(24)
        self.codes[code] = Grant(
            subject, client_id, redirect_uri, code_challenge, nonce, time.time() + 60
        )
        return _back(redirect_uri, {"code": code, "state": state})

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        if form.get("grant_type") != "authorization_code":
            return _refused("unsupported_grant_type")
        grant = self.codes.pop(form.get("code", ""), None)
        code_verifier, client_id = form.get("code_verifier", ""), form.get("client_id", "")
        redirect_uri = form.get("redirect_uri", "")
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            grant is None
            or grant.expires < time.time()
            or (grant.client_id, grant.redirect_uri) != (client_id, redirect_uri)
            or not secrets.compare_digest(grant.challenge, challenge)
        ):
            return _refused("invalid_grant")
        token = self.access_token(grant.subject)
        identity = self.access_token(grant.subject, aud=client_id, nonce=grant.nonce)
        return JSONResponse(
            {
                "access_token": token,
                "id_token": identity,
                "token_type": "Bearer",
                "expires_in": int(self.lifetime),
                "scope": "openid profile",
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _end_session(self, post_logout_redirect_uri: str = "") -> Response:
        if post_logout_redirect_uri.startswith(("http://127.0.0.1:", "http://localhost:")):
            return RedirectResponse(post_logout_redirect_uri, status_code=302)
        return HTMLResponse("signed out")


def _back(address: str, members: Mapping[str, str]) -> Response:
    return RedirectResponse(f"{address}?{urlencode(members)}", status_code=302)


def _refused(error: str) -> Response:
    return JSONResponse({"error": error}, status_code=400, headers={"Cache-Control": "no-store"})


def _people_page(given: Mapping[str, str]) -> str:
    links = "".join(
        f'<li><a href="/authorize?{html.escape(urlencode({**given, "subject": name}))}">{name}</a>'
        for name in PEOPLE
    )
    return f"<!doctype html><title>Sign in</title><h1>Sign in as</h1><ul>{links}</ul>"


@contextmanager
def serve() -> Iterator[OidcProvider]:
    """A provider on a free port, in a thread."""
    port = ports.free_port()
    provider = OidcProvider(f"http://{ports.LOOPBACK}:{port}")
    config = uvicorn.Config(
        provider.app, host=ports.LOOPBACK, port=port, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the provider did not start"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(10)
