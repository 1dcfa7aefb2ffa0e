from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from aegisops.errors import ConfigurationError
from aegisops.settings import Settings
from aegisops.tokens import (
    InvalidToken,
    Role,
    Verifier,
    VerifyingKey,
    ensure_keys,
    load_verifying_key,
    mint,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def verifier(settings: Settings) -> Verifier:
    _, public = ensure_keys(settings.keys_dir)
    return Verifier({"": load_verifying_key(public)}, "aegisops", "aegisops-api")


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    whole = {
        "iss": "aegisops",
        "aud": "aegisops-api",
        "sub": "line-3",
        "role": "operator",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
    }
    return {k: v for k, v in (whole | changes).items() if v is not None}


def signed(settings: Settings, headers: dict[str, str] | None = None, **changes: object) -> str:
    private, _ = ensure_keys(settings.keys_dir)
    return jwt.encode(claims(**changes), private.read_bytes(), "EdDSA", headers=headers)


def test_a_minted_token_names_subject_role_and_scope(
    settings: Settings, verifier: Verifier
) -> None:
    token = mint(settings, "line-3", "engineer", areas=["press shop"])
    principal = verifier.verify(token)
    assert (principal.subject, principal.role) == ("line-3", Role.ENGINEER)
    assert principal.sees("any site", "press shop")
    assert not principal.sees("any site", "paint shop")


def test_the_private_key_is_readable_by_its_owner_alone(settings: Settings) -> None:
    private, _ = ensure_keys(settings.keys_dir)
    assert private.stat().st_mode & 0o077 == 0


def test_a_second_start_keeps_the_keys(settings: Settings, verifier: Verifier) -> None:
    token = mint(settings, "a", Role.VIEWER)
    _, public = ensure_keys(settings.keys_dir)
    public.unlink()
    ensure_keys(settings.keys_dir)
    again = Verifier({"": load_verifying_key(public)}, "aegisops", "aegisops-api")
    assert again.verify(token).subject == "a"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 946_684_800},  # 2000
        {"nbf": 4_102_444_800},  # 2100
        {"aud": "another-api"},
        {"aud": None},
        {"iss": "another-issuer"},
        {"iss": None},
        {"exp": None},
        {"nbf": None},
        {"sub": None},
        {"role": None},
        {"role": "root"},
        {"role": 4},
        {"sub": ""},
        {"areas": "all"},
    ],
    ids=str,
)
def test_a_wrong_claim_is_refused(
    settings: Settings, verifier: Verifier, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidToken):
        verifier.verify(signed(settings, **changes))


@pytest.mark.parametrize("subject", ["jo.doe@example.org", "x+y@plant.example.co.uk"])
def test_an_e_mail_address_is_no_subject(
    settings: Settings, verifier: Verifier, subject: str
) -> None:
    with pytest.raises(InvalidToken, match="e-mail"):
        verifier.verify(signed(settings, sub=subject))
    with pytest.raises(ConfigurationError, match="e-mail"):
        mint(settings, subject, "viewer")


@pytest.mark.parametrize("subject", ["u-17", "a1b2@clients", "provider|5f7c"])
def test_ids_of_people_and_programs_are_subjects(
    settings: Settings, verifier: Verifier, subject: str
) -> None:
    assert verifier.verify(signed(settings, sub=subject)).subject == subject


def test_an_unsigned_token_is_refused(verifier: Verifier) -> None:
    with pytest.raises(InvalidToken):
        verifier.verify(jwt.encode(claims(), None, "none"))


def test_a_token_whose_signature_was_cut_off_is_refused(
    settings: Settings, verifier: Verifier
) -> None:
    header, body, _ = signed(settings).split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for forged in (f"{header}.{body}.", f"{none}.{body}.", f"{header}.{body}"):
        with pytest.raises(InvalidToken):
            verifier.verify(forged)


def test_a_changed_claim_breaks_the_signature(settings: Settings, verifier: Verifier) -> None:
    header, _, signature = signed(settings, role="viewer").split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(role="admin")).encode()).rstrip(b"=")
    with pytest.raises(InvalidToken):
        verifier.verify(f"{header}.{body.decode()}.{signature}")


def test_the_public_key_cannot_serve_as_an_hmac_secret(
    settings: Settings, verifier: Verifier
) -> None:
    import hashlib
    import hmac

    _, public = ensure_keys(settings.keys_dir)

    def part(content: dict[str, object]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    message = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims())
    mac = hmac.new(public.read_bytes(), message, hashlib.sha256).digest()
    forged = message + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    with pytest.raises(InvalidToken):
        verifier.verify(forged.decode())


def test_a_key_id_is_only_a_look_up(settings: Settings, verifier: Verifier) -> None:
    for kid in ("../../etc/passwd", "' OR 1=1 --", "https://evil.example/jwks"):
        with pytest.raises(InvalidToken):
            verifier.verify(signed(settings, {"kid": kid}))


def test_a_key_in_the_header_is_not_used(settings: Settings, verifier: Verifier) -> None:
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = jwt.encode(
        claims(), mine, "RS256", headers={"jwk": {"kty": "RSA"}, "x5u": "http://evil.example"}
    )
    with pytest.raises(InvalidToken):
        verifier.verify(forged)


def test_nonsense_is_refused_and_not_repeated_in_the_message(verifier: Verifier) -> None:
    for text in ("", "a", "a.b.c", "." * 50, "x" * 10_000, "\x00\xff.é.ü"):
        with pytest.raises(InvalidToken) as error:
            verifier.verify(text)
        assert len(text) < 2 or text not in str(error.value)


def test_an_rsa_key_pins_rs256(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path / "rsa.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    loaded = load_verifying_key(path)
    verifier = Verifier({"": loaded}, "aegisops", "aegisops-api")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert verifier.verify(jwt.encode(claims(), pem, "RS256")).subject == "line-3"
    with pytest.raises(InvalidToken):
        verifier.verify(jwt.encode(claims(), pem, "PS256"))
    assert loaded == VerifyingKey(loaded.key, "RS256")


def test_other_kinds_of_key_are_a_configuration_error(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    for i, key in enumerate((weak, curve)):
        path = tmp_path / f"{i}.pem"
        path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(ConfigurationError):
            load_verifying_key(path)
    with pytest.raises(ConfigurationError, match="absent"):
        load_verifying_key(tmp_path / "absent.pem")


def test_an_unknown_role_cannot_be_minted(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="viewer, operator, engineer, admin"):
        mint(settings, "a", "root")
