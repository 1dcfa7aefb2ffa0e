from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from aegisops import oidc
from aegisops.errors import ConfigurationError
from aegisops.settings import OidcSettings, Settings
from aegisops.tokens import InvalidToken, Role, mint
from serving.console_contract import SignedIn, SignIn
from tests.oidc_provider import ROLES, OidcProvider, serve
from tests.serving.conftest import Fleet, Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
BACK = "http://127.0.0.1:9/signed-in"


@pytest.fixture(scope="module")
def running_provider() -> Iterator[OidcProvider]:
    with serve() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: OidcProvider) -> OidcProvider:
    return running_provider


@pytest.fixture
def with_oidc(settings: Settings, provider: OidcProvider) -> Settings:
    return settings.model_copy(update={"oidc": OidcSettings(issuer=provider.issuer, roles=ROLES)})


async def me(api: Running, token: str) -> httpx.Response:
    return await api.client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})


async def known(api: Running) -> None:
    sign_in = api.service.sign_in
    assert sign_in is not None
    await api.until(lambda: sign_in.problem is None)


async def test_without_a_provider_tokens_are_the_way_in(api: Running) -> None:
    answer = await api.client.get("/api/v1/auth/config", headers={"Authorization": ""})
    found = SignIn.model_validate_json(answer.content)
    assert found.token
    assert found.oidc is None
    mine = SignedIn.model_validate_json((await api.client.get("/api/v1/auth/me")).content)
    assert (mine.subject, mine.role, mine.sites) == ("tester", "operator", None)


async def test_the_code_flow_with_pkce_ends_in_a_token_the_api_accepts(
    with_oidc: Settings, fleet: Fleet
) -> None:
    fleet.add("m", 2.0)
    async with running(with_oidc) as api:
        await known(api)
        answer = await api.client.get("/api/v1/auth/config", headers={"Authorization": ""})
        config = SignIn.model_validate_json(answer.content).oidc
        assert config is not None
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        question = {
            "client_id": config.client_id, "redirect_uri": BACK, "response_type": "code",
            "scope": " ".join(config.scopes), "state": "s", "subject": "otto",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }  # fmt: skip
        async with httpx.AsyncClient() as browser:
            sent = await browser.get(config.authorization_endpoint, params=question)
            back = parse_qs(urlsplit(sent.headers["location"]).query)
            assert back["state"] == ["s"]
            form = {
                "grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": BACK,
                "client_id": config.client_id, "code_verifier": verifier,
            }  # fmt: skip
            wrong = await browser.post(config.token_endpoint, data=form | {"code": "x"})
            assert wrong.json()["error"] == "invalid_grant"
            given = (await browser.post(config.token_endpoint, data=form)).json()
            again = await browser.post(config.token_endpoint, data=form)
            assert again.status_code == 400, "a code is good once"
        mine = SignedIn.model_validate_json((await me(api, given["access_token"])).content)
        assert (mine.subject, mine.role) == ("otto", "operator")
        asked = await api.client.post(
            "/api/v1/predict",
            json={"machine_id": "m"},
            headers={"Authorization": f"Bearer {given['access_token']}"},
        )
        assert asked.status_code == 200
        assert (await api.records(1))[0]["subject"] == "otto"
        assert (await me(api, given["id_token"])).status_code == 401, "an id token is no access"


async def test_roles_and_scopes_come_from_the_claims(
    with_oidc: Settings, provider: OidcProvider
) -> None:
    async with running(with_oidc) as api:
        await known(api)
        roles = {
            name: (await me(api, provider.access_token(name))).json().get("role")
            for name in ("vera", "otto", "erna", "nobody")
        }
        assert roles == {"vera": "viewer", "otto": "operator", "erna": "engineer", "nobody": None}
        assert (await me(api, provider.access_token("nora"))).json()["sites"] == ["plant-north"]
        assert (await me(api, mint(with_oidc, "dev", "viewer"))).status_code == 200


def _signed_with_the_public_key(claims: dict[str, object], key: str, kid: str) -> str:
    """HS256 over the published key; PyJWT itself refuses to make such a token."""
    parts = [{"alg": "HS256", "typ": "JWT", "kid": kid}, claims]
    texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    mark = hmac.new(key.encode(), b".".join(texts), hashlib.sha256).digest()
    return b".".join([*texts, base64.urlsafe_b64encode(mark).rstrip(b"=")]).decode()


async def test_forged_and_foreign_tokens_are_refused(
    with_oidc: Settings, provider: OidcProvider, settings: Settings
) -> None:
    now = int(time.time())
    good = {"iss": provider.issuer, "aud": "aegisops-api", "sub": "x", "iat": now, "exp": now + 60,
            "roles": ["plant-engineers"]}  # fmt: skip
    public = provider.keys[provider.kid].public_key()
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(public)
    other = OidcProvider(provider.issuer)
    async with running(with_oidc) as api:
        await known(api)
        assert (await me(api, provider.access_token("erna"))).status_code == 200
        forged = [
            jwt.encode(good, None, "none"),
            _signed_with_the_public_key(good, jwk, provider.kid),
            jwt.encode(good, other.keys["key-1"], "RS256", headers={"kid": provider.kid}),
            provider.access_token("erna", aud="another-api"),
            provider.access_token("erna", exp=now - 60),
            provider.access_token("erna", nbf=now + 600),
            provider.access_token("erna", iss="https://elsewhere.example"),
            provider.access_token("erna", sub=None),
            provider.access_token("erna", roles={"plant-engineers": 1}),
            provider.access_token("erna", sites="plant-north"),
        ]
        for token in forged:
            assert (await me(api, token)).status_code == 401


async def test_a_new_key_of_the_provider_is_found(
    with_oidc: Settings, provider: OidcProvider
) -> None:
    clock = [time.time()]
    client = oidc.Provider(with_oidc.oidc, lambda: clock[0])
    with pytest.raises(InvalidToken, match="not known yet"):
        client.verify(provider.access_token("erna"))
    client.refresh()
    provider.rotate()
    token = provider.access_token("erna")
    with pytest.raises(InvalidToken, match="does not know"):
        client.verify(token)
    assert not client.is_due, "unknown keys cannot make the API ask at every request"
    clock[0] += 11
    assert client.is_due
    client.refresh()
    assert client.verify(token).role is Role.ENGINEER


async def test_a_provider_that_is_away_is_said_and_its_keys_stay(
    with_oidc: Settings, provider: OidcProvider
) -> None:
    client = oidc.Provider(with_oidc.oidc, time.time)
    client.refresh()
    client.settings = client.settings.model_copy(update={"issuer": "http://127.0.0.1:1"})
    client.refresh()
    assert client.problem is not None
    assert "does not answer" in client.problem
    client.settings = with_oidc.oidc
    assert client.verify(provider.access_token("vera")).role is Role.VIEWER


async def test_without_local_tokens_only_the_provider_lets_in(
    with_oidc: Settings, provider: OidcProvider
) -> None:
    strict = with_oidc.model_copy(
        update={"api": with_oidc.api.model_copy(update={"accept_local_tokens": False})}
    )
    async with running(strict) as api:
        await known(api)
        assert (await me(api, mint(strict, "dev", "admin"))).status_code == 401
        assert (await me(api, provider.access_token("vera"))).status_code == 200
        config = await api.client.get("/api/v1/auth/config")
        assert config.json()["token"] is False


def test_an_issuer_without_tls_or_an_unknown_role_is_a_configuration_error() -> None:
    for wrong in (
        OidcSettings(issuer="http://login.example"),
        OidcSettings(issuer="login.example"),
        OidcSettings(issuer="https://login.example", roles={"x": "emperor"}),
    ):
        with pytest.raises(ConfigurationError):
            oidc.Provider(wrong, time.time)


def test_a_role_may_lie_inside_objects() -> None:
    settings = OidcSettings(issuer="https://x", role_claim="realm_access.roles")
    claims = {"realm_access": {"roles": ["viewer", "operator", "other"]}}
    assert oidc.role_of(claims, settings) is Role.OPERATOR


def test_keys_that_cannot_be_trusted_are_left_out() -> None:
    assert oidc.keys_of({"keys": "none"}) == {}
    odd = [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, {"kty": "RSA", "alg": "none"}, 7]
    assert oidc.keys_of({"keys": odd}) == {}
