"""Apache Kafka itself, one KRaft node as a child process: Maven's jars and Java 17, no Docker.

    with KafkaServer(Path(".aegis/kafka/node")) as kafka:
        settings.model_copy(update={"kafka": kafka.settings})

What the node keeps is in its folder, so a second start with the same folder goes on where the first
ended. Configuration and the versions of the jars are in `deploy/kafka`. Topics are made by
`bus.ensure_topics`, not here.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Self

from aegisops import project_files
from aegisops.embedded import ports
from aegisops.embedded.processes import dying_with_parent
from aegisops.errors import ConfigurationError, ServiceUnavailable
from aegisops.settings import KafkaSettings

CACHE = Path(".aegis/kafka")
JAVA_VERSION = 17
HEAP_MB = 256
MECHANISM = "SCRAM-SHA-512"

_READY_SECONDS = 40.0
_STOP_SECONDS = 20.0
_MAVEN_SECONDS = 600.0
# Without the second compiler a start takes half the processor time: 4 s instead of 8.
_QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@dataclass(frozen=True, slots=True)
class Login:
    """TLS 1.3 and SCRAM for a node's clients: who may come in, and the node's certificate."""

    keystore: Path
    """PEM: the private key (PKCS 8, unencrypted), then its certificate chain; SAN 127.0.0.1."""
    authority: Path
    """PEM: the certificate of the authority that clients and the node itself trust."""
    user: str
    password: str


@cache
def find_java() -> Path:
    """Java 17 or later: JAVA_HOME's, else the one on PATH.

    Raises `ConfigurationError` that says what to install.
    """
    advice = "(Debian/Ubuntu: apt install openjdk-17-jre-headless)"
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if not found:
        raise ConfigurationError(f"no java found; Kafka needs Java {JAVA_VERSION} {advice}")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA_VERSION:
        raise ConfigurationError(
            f"{found} is {version[1] if version else 'of an unknown version'}; Kafka needs Java "
            f"{JAVA_VERSION} {advice}, or set JAVA_HOME"
        )
    return Path(found)


def jars_folder(cache_dir: Path = CACHE) -> Path:
    """Where the jars of the present pom are, or will be."""
    pom = (project_files.KAFKA / "pom.xml").read_bytes()
    return cache_dir.absolute() / f"jars-{hashlib.sha256(pom).hexdigest()[:12]}"


def why_not(cache_dir: Path = CACHE) -> str:
    """What is missing on this computer to run Kafka; empty when nothing is. Fetches nothing."""
    try:
        find_java()
    except ConfigurationError as error:
        return str(error)
    if not project_files.KAFKA.is_dir():
        return f"{project_files.KAFKA} is missing; Kafka runs from a checkout of the repository"
    if not jars_folder(cache_dir).is_dir() and not shutil.which("mvn"):
        return "no mvn found to fetch Kafka's jars (Debian/Ubuntu: apt install maven)"
    return ""


def fetch_jars(cache_dir: Path = CACHE) -> Path:
    """Folder with Kafka's jars, fetched once by Maven (about 45 MB) from where it is set up to.

    Raises `ConfigurationError` when something must be installed, `ServiceUnavailable` with Maven's
    last lines when it fails. Safe to call from several processes at once.
    """
    if missing := why_not(cache_dir):
        raise ConfigurationError(missing)
    wanted = jars_folder(cache_dir)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with (wanted.parent / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.is_dir():
            return wanted
        half = wanted.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(project_files.KAFKA / "pom.xml")]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={half}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_MAVEN_SECONDS,
        )
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
            raise ServiceUnavailable(f"Maven could not fetch Kafka's jars; try again:\n{last}")
        half.replace(wanted)
    return wanted


class KafkaServer:
    """One Kafka node on loopback; a context manager. `port` 0 chooses a free one and keeps it."""

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        login: Login | None = None,
        cache_dir: Path = CACHE,
        heap_mb: int = HEAP_MB,
    ) -> None:
        """`folder`: data, configuration and log of this node, made when it is not there."""
        self._folder = folder.absolute()
        self._port = port or ports.free_port()
        self._login = login
        self._cache_dir = cache_dir
        self._heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{ports.LOOPBACK}:{self._port}"

    @property
    def settings(self) -> KafkaSettings:
        """How a client reaches this node."""
        login = self._login
        options = {} if login is None else {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(login.authority),
            "sasl.mechanism": MECHANISM,
            "sasl.username": login.user,
            "sasl.password": login.password,
        }  # fmt: skip
        return KafkaSettings(bootstrap=self.bootstrap, in_memory=False, options=options)

    @property
    def log_path(self) -> Path:
        """Kafka's warnings and errors of all starts."""
        return self._folder / "server.log"

    def start(self) -> Self:
        """Start, format the folder the first time, and wait until the node answers requests.

        Raises `ConfigurationError` without Java or Maven, `PortTaken`, and `ServiceUnavailable`
        with the end of the log when the node does not come up.
        """
        ports.require_free(self._port, "Kafka")
        jars = fetch_jars(self._cache_dir)
        properties = self._configure()
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(jars, properties)
        options = (f"-Xms{self._heap_mb}m", f"-Xmx{self._heap_mb}m", *_QUICK_JVM)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent(_java(jars, options, "kafka.Kafka", str(properties))),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_ready(self._process)
        return self

    def stop(self) -> None:
        """End it in order; the data stay. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def wait(self) -> int:
        """Exit code of the running node, when it ends."""
        return 0 if self._process is None else self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configure(self) -> Path:
        """Write server.properties from the templates."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = (project_files.KAFKA / "server.properties").read_text()
        values: dict[str, object] = {
            "port": self._port,
            "controller_port": ports.free_port(),
            "protocol": "PLAINTEXT",
            "data": self._folder / "data",
        }
        if login := self._login:
            text += (project_files.KAFKA / "sasl_ssl.properties").read_text()
            values |= {
                "protocol": "SASL_SSL",
                "keystore": login.keystore.absolute(),
                "authority": login.authority.absolute(),
                "user": login.user,
                "password": login.password,
            }
        written = self._folder / "server.properties"
        written.touch(mode=0o600)  # it may hold a password
        comments = re.compile(r"^#.*\n", re.MULTILINE)
        written.write_text(Template(comments.sub("", text)).substitute(values))
        return written

    def _format(self, jars: Path, properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        words = ["format", "--standalone", f"--cluster-id={cluster}", f"--config={properties}"]
        if login := self._login:
            user = f"{MECHANISM}=[name={login.user},password={login.password}]"
            words.append(f"--add-scram={user}")
        tool = _java(jars, _QUICK_JVM, "kafka.tools.StorageTool", *words)
        done = subprocess.run(tool, capture_output=True, text=True, check=False, cwd=self._folder)
        if done.returncode:
            last = (done.stdout + done.stderr).strip()[-2_000:]
            raise ConfigurationError(f"Kafka refuses to format {self._folder}:\n{last}")

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        from aegisops import bus

        deadline = time.monotonic() + _READY_SECONDS
        while True:
            # Asked only once somebody listens: a client logs each refused connection.
            if process.poll() is None and ports.is_listening(self._port):
                try:
                    bus.cluster_id(self.settings)
                except ServiceUnavailable:
                    pass
                else:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                last = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-12:])
                raise ServiceUnavailable(
                    f"Kafka on port {self._port} did not come up; {self.log_path} ends:\n{last}"
                )
            time.sleep(0.05)


def _java(jars: Path, options: tuple[str, ...], main: str, *words: str) -> list[str]:
    log4j = f"-Dlog4j2.configurationFile={project_files.KAFKA / 'log4j2.properties'}"
    return [str(find_java()), *options, log4j, "-cp", f"{jars}/*", main, *words]
