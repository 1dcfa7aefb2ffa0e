"""Attacks on the real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from aegisops.embedded.ports import free_port
from aegisops.settings import Settings
from aegisops.tokens import mint
from serving import server as http_server
from serving.app import create_app
from serving.server import Server, make_server
from serving.service import build
from tests.serving.conftest import SOUND, Fleet, Recorder

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@dataclass
class Live:
    """A server on a port of this computer."""

    port: int
    token: str
    server: Server

    async def send(self, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """What comes back until the server is silent or closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        writer.write(data)
        got = b""
        try:
            async with asyncio.timeout(5):
                while chunk := await reader.read(65_536):
                    got += chunk
                    head, found, rest = got.partition(b"\r\n\r\n")
                    if found and len(rest) >= _length(head):
                        break
        except ConnectionError:
            pass
        finally:
            writer.close()
        return got

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        lines = {"Host": "a", "Authorization": f"Bearer {self.token}", **headers}
        lines["Content-Length"] = str(len(body))
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        got = await self.send(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        head_of, _, rest = got.partition(b"\r\n\r\n")
        return int(head_of[9:12]), rest


def _length(head: bytes) -> int:
    found = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return int(found or b"0")


@asynccontextmanager
async def live(settings: Settings) -> AsyncIterator[Live]:
    port = free_port()
    settings = settings.model_copy(
        update={"api": settings.api.model_copy(update={"port": port, "host": "127.0.0.1"})}
    )
    service = build(settings, publisher=Recorder())
    server = make_server(create_app(service), service)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done(), serving.exception()
        await asyncio.sleep(0.01)
    try:
        yield Live(port, mint(settings, "tester", "operator"), server)
    finally:
        server.should_exit = True
        await serving


async def test_deeply_nested_and_broken_json_is_a_422(settings: Settings, promoted: Path) -> None:
    async with live(settings) as api:
        for body in (b"[" * 100_000, b'{"a":' * 50_000, b"{", b"\xff\xfe", b"null", b""):
            status, answer = await api.post("/api/v1/predict", body)
            assert status == 422, body[:10]
            assert json.loads(answer)["type"] == "/api/problems/invalid"


async def test_an_oversized_body_is_a_413(settings: Settings, promoted: Path) -> None:
    async with live(settings) as api:
        status, _ = await api.post("/api/v1/predict", b" " * (5 * 1024 * 1024))
        assert status == 413


async def test_a_head_that_does_not_end_closes_the_connection_and_keeps_nobody_out(
    settings: Settings, promoted: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server.ImpatientProtocol, "head_seconds", 0.5)
    fleet.add("m", SOUND)
    async with live(settings) as api:
        slow = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST /api/v1/predict HTTP/1.1\r\nX-a: ")
        status, _ = await api.post("/api/v1/predict", b'{"machine_id":"m"}')
        assert status == 200
        async with asyncio.timeout(5):
            for reader, writer in slow:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()


async def test_a_head_without_end_is_cut_off(settings: Settings, promoted: Path) -> None:
    async with live(settings) as api:
        assert await api.send(b"GET / HTTP/1.1\r\nX-a: " + b"x" * 1_000_000) == b""


async def test_slow_bodies_take_no_place_from_others(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    async with live(settings) as api:
        head = f"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.token}\r\n"
        slow = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(300)]
        for _, writer in slow:
            writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        status, _ = await api.post("/api/v1/predict", b'{"machine_id":"m"}')
        assert status == 200
        for _, writer in slow:
            writer.close()


async def test_headers_cannot_be_injected(settings: Settings, promoted: Path) -> None:
    async with live(settings) as api:
        machine = json.dumps({"machine_id": "m\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK"})
        for path, body in (
            ("/api/v1/predict", machine.encode()),
            ("/api/v1/m%0d%0aSet-Cookie:%20a=b", b""),
        ):
            token = f"Authorization: Bearer {api.token}\r\nContent-Length: {len(body)}\r\n"
            sent = f"POST {path} HTTP/1.1\r\nHost: evil\r\n{token}\r\n".encode() + body
            head = (await api.send(sent)).partition(b"\r\n\r\n")[0].lower()
            assert head.startswith(b"http/1.1 404")
            assert b"set-cookie" not in head
            assert b"evil" not in head
        both = (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (await api.send(both + b"0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")).startswith(
            b"HTTP/1.1 4"
        )


async def test_a_principal_has_a_rate_and_others_are_not_affected(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    few = settings.model_copy(
        update={
            "api": settings.api.model_copy(update={"rate_per_second": 1.0, "rate_burst": 3}),
        }
    )
    async with live(few) as api:
        body = b'{"machine_id":"m"}'
        statuses = [(await api.post("/api/v1/predict", body))[0] for _ in range(6)]
        assert statuses[:3] == [200] * 3
        assert 429 in statuses[3:]
        other = f"Bearer {mint(few, 'another', 'operator')}"
        assert (await api.post("/api/v1/predict", body, Authorization=other))[0] == 200


async def test_no_secret_reaches_the_log(
    settings: Settings, promoted: Path, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fleet.add("m", SOUND)
    async with live(settings) as api:
        await api.post("/api/v1/predict", b'{"machine_id":"m"}')
        broken = api.token[:-4] + "AAAA"
        await api.post("/api/v1/predict", b"{", Authorization=f"Bearer {broken}")
        await api.send(b"GET /api/v1/telemetry?token=" + api.token.encode() + b" HTTP/1.1\r\n\r\n")
        text = caplog.text
        assert api.token not in text
        assert broken not in text
        assert "PRIVATE KEY" not in text


async def test_tls_1_3_and_nothing_older(
    settings: Settings, promoted: Path, tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path)
    tls = {"tls_certificate": certificate, "tls_key": key}
    secured = settings.model_copy(update={"api": settings.api.model_copy(update=tls)})
    async with live(secured) as api:
        context = ssl.create_default_context(cafile=certificate)
        asked = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
        assert (await api.send(asked, context)).startswith(b"HTTP/1.1 200")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await api.send(asked, context)


def _certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api")])
    now = datetime.fromtimestamp(time.time(), UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "api.crt", folder / "api.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private
