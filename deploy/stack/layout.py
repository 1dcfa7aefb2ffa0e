"""Where the stack keeps its files, ports and secrets. Ports are chosen once and kept."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from aegisops.embedded import ports
from deploy.stack.certificates import Authority

LOOPBACK = ports.LOOPBACK


class Layout:
    """One folder with everything; a second start finds the same ports and secrets."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(self.root / "certificates")
        self._ports_file = self.root / "ports.json"
        self._ports: dict[str, int] = (
            json.loads(self._ports_file.read_text()) if self._ports_file.exists() else {}
        )

    def folder(self, name: str) -> Path:
        """A program's own folder."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def port(self, name: str) -> int:
        """The program's port, free when it was chosen."""
        if name not in self._ports:
            taken = set(self._ports.values())
            found = ports.free_port()
            while found in taken:
                found = ports.free_port()
            self._ports[name] = found
            self._ports_file.write_text(json.dumps(self._ports, indent=2))
        return self._ports[name]

    def secret(self, name: str) -> str:
        """A password of 256 random bits, in a file that only its owner reads."""
        path = self.folder("secrets") / name
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text()
