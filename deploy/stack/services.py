"""The servers under AegisOps: Kafka, Redis, mosquitto, PostgreSQL, nginx, Prometheus, Alertmanager.

Each function writes the server's configuration from the templates in deploy/ and gives the child to
run. None of AegisOps' own processes here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template

from aegisops.embedded.processes import Child
from aegisops.errors import ConfigurationError
from deploy.stack.layout import LOOPBACK, Layout

TEMPLATES = Path(__file__).resolve().parent.parent
_DEBIAN = {
    "redis-server": "redis-server",
    "mosquitto": "mosquitto",
    "nginx": "nginx",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "postgres": "postgresql",
}


def missing() -> list[str]:
    """Debian packages that must be installed first."""
    return [package for program, package in _DEBIAN.items() if _find(program) is None]


def redis(layout: Layout) -> Child:
    """Redis: TLS only, one user a program (redis/users.acl)."""
    folder = layout.folder("redis")
    made = layout.authority.issue("redis")
    digests = {user: _sha256(layout.secret(f"redis-{user}")) for user in ("worker", "api")}
    _write(folder / "users.acl", "redis/users.acl", digests)
    values = {
        "port": layout.port("redis"),
        "folder": folder,
        "certificate": made.chain,
        "key": made.key,
        "authority": layout.authority.certificate,
    }
    _write(folder / "redis.conf", "redis/redis.conf", values)
    command = [_program("redis-server"), str(folder / "redis.conf")]
    return Child("redis", command, ready=tls_answers(layout, "redis"))


def mosquitto(layout: Layout) -> Child:
    """MQTT broker: client certificates, a device speaks on its own topics only."""
    folder = layout.folder("mosquitto")
    made = layout.authority.issue("mosquitto")
    shutil.copyfile(TEMPLATES / "mosquitto" / "acl", folder / "acl")
    (folder / "acl").chmod(0o700)
    values = {
        "port": layout.port("mqtt"),
        "folder": folder,
        "certificate": made.chain,
        "key": made.key,
        "authority": layout.authority.certificate,
    }
    _write(folder / "mosquitto.conf", "mosquitto/mosquitto.conf", values)
    command = [_program("mosquitto"), "-c", str(folder / "mosquitto.conf")]
    if os.geteuid() == 0:  # else it changes to a user that cannot read our folder
        with (folder / "mosquitto.conf").open("a") as file:
            file.write("user root\n")
    return Child("mosquitto", command, ready=listens(layout, "mqtt"))


def postgres(layout: Layout) -> Child:
    """PostgreSQL for Dagster and MLflow: TLS, a database and a user each."""
    folder = layout.folder("postgres")
    data = folder / "data"
    made = layout.authority.issue("postgres")
    run_as = _as_postgres()
    for path in (made.key, made.chain):
        shutil.copy(path, folder / path.name)
    _own(folder)
    if not data.exists():
        _run([*run_as, _program("initdb"), "-D", str(data), "--auth-local=peer", "--no-sync"])
    shutil.copyfile(TEMPLATES / "postgres" / "pg_hba.conf", data / "pg_hba.conf")
    _own(data / "pg_hba.conf")
    options = {
        "listen_addresses": LOOPBACK,
        "port": layout.port("postgres"),
        "unix_socket_directories": folder,
        "ssl": "on",
        "ssl_min_protocol_version": "TLSv1.3",
        "ssl_cert_file": folder / made.chain.name,
        "ssl_key_file": folder / made.key.name,
        "password_encryption": "scram-sha-256",
    }
    settings = [word for pair in options.items() for word in ("-c", f"{pair[0]}={pair[1]}")]
    command = [*run_as, _program("postgres"), "-D", str(data), *settings]
    return Child("postgres", command, ready=listens(layout, "postgres"))


def make_databases(layout: Layout) -> None:
    """A user and a database for Dagster and for MLflow; nothing when they are there."""
    psql = [*_as_postgres(), "psql", "-h", str(layout.folder("postgres"))]
    psql += ["-p", str(layout.port("postgres")), "-v", "ON_ERROR_STOP=1", "-qtA"]
    for name in ("dagster", "mlflow"):
        found = _run([*psql, "-c", f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"])  # noqa: S608 - names are ours
        if found.strip():
            continue
        password = layout.secret(f"postgres-{name}")
        _run([*psql, "-c", f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"])
        _run([*psql, "-c", f"CREATE DATABASE {name} OWNER {name}"])


def nginx(layout: Layout, replicas: Sequence[int]) -> Child:
    """TLS 1.3 before the API's replicas."""
    folder = layout.folder("nginx")
    made = layout.authority.issue("nginx")
    server = "    server 127.0.0.1:{} max_fails=1 fail_timeout=2s;"
    values = {
        "folder": folder,
        "port": layout.port("https"),
        "certificate": made.chain,
        "key": made.key,
        "replicas": "\n".join(server.format(port) for port in replicas),
    }
    written = _write(folder / "nginx.conf", "nginx/nginx.conf", values)
    command = [
        _program("nginx"),
        "-c",
        str(written),
        "-p",
        str(folder),
        "-e",
        f"{folder}/start.log",
    ]
    return Child("nginx", command, ready=listens(layout, "https"))


def prometheus(layout: Layout, targets: Mapping[str, Sequence[int]]) -> Child:
    """Prometheus with the recording rules and alerts of deploy/prometheus."""
    folder = layout.folder("prometheus")
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"{LOOPBACK}:{p}" for p in ports]}]}
        for job, ports in targets.items()
    ]
    configuration = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [
            str(path) for path in sorted((TEMPLATES / "prometheus").glob("*.rules.yml"))
        ],
        "alerting": {
            "alertmanagers": [
                {"static_configs": [{"targets": [f"{LOOPBACK}:{layout.port('alertmanager')}"]}]}
            ]
        },
        "scrape_configs": jobs,
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(configuration, indent=2))
    command = [
        _program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=7d",
        f"--web.listen-address={LOOPBACK}:{layout.port('prometheus')}",
        "--web.enable-lifecycle",
    ]
    return Child("prometheus", command, ready=listens(layout, "prometheus"))


def alertmanager(layout: Layout, pager_url: str) -> Child:
    """Alertmanager → whatever takes PagerDuty's Events v2."""
    folder = layout.folder("alertmanager")
    routing_key = folder / "routing-key"
    routing_key.write_text(layout.secret("pager-routing-key"))
    values = {"pagerduty_url": pager_url, "routing_key_file": routing_key}
    written = _write(folder / "alertmanager.yml", "alertmanager/alertmanager.yml", values)
    command = [
        _program("prometheus-alertmanager"),
        f"--config.file={written}",
        f"--storage.path={folder}/data",
        f"--web.listen-address={LOOPBACK}:{layout.port('alertmanager')}",
        "--cluster.listen-address=",
    ]
    return Child("alertmanager", command, ready=listens(layout, "alertmanager"))


def listens(layout: Layout, name: str) -> Callable[[], bool]:
    """Whether somebody listens on the port."""

    def ask() -> bool:
        try:
            socket.create_connection((LOOPBACK, layout.port(name)), 0.5).close()
        except OSError:
            return False
        return True

    return ask


def tls_answers(layout: Layout, name: str) -> Callable[[], bool]:
    """Whether a server with a certificate of our authority completes a TLS 1.3 handshake."""
    context = ssl.create_default_context(cafile=str(layout.authority.certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    def ask() -> bool:
        try:
            plain = socket.create_connection((LOOPBACK, layout.port(name)), 0.5)
            with plain, context.wrap_socket(plain, server_hostname=LOOPBACK):
                return True
        except OSError:
            return False

    return ask


def _write(target: Path, template: str, values: Mapping[str, object]) -> Path:
    text = Template((TEMPLATES / template).read_text()).substitute(values)
    target.touch(mode=0o600)
    target.write_text(text)
    return target


def _find(program: str) -> str | None:
    places = [os.environ.get("PATH", ""), "/usr/sbin", *map(str, _postgres_bins())]
    return shutil.which(program, path=os.pathsep.join(places))


def _program(program: str) -> str:
    found = _find(program)
    if found is None:
        raise ConfigurationError(f"{program} is not installed (Debian: apt install {program})")
    return found


def _postgres_bins() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        _run(["chown", "-R", "postgres:postgres", str(path)])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise ConfigurationError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
