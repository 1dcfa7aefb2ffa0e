"""Debian's mosquitto as a child process, on a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from aegisops.embedded.ports import free_port, is_listening


class Mosquitto:
    """One broker; `lines` are further lines of its configuration."""

    def __init__(self, folder: Path, *lines: str):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._process = None
        common = (
            "per_listener_settings false",
            "persistence true",
            f"persistence_location {folder}/",
            "max_inflight_messages 1000",
            "max_queued_messages 0",
            f"listener {self.port} 127.0.0.1",
        )
        # Started by root it would become a user who may not read the test's folder.
        user = ("user root",) if os.geteuid() == 0 else ()
        (folder / "mosquitto.conf").write_text("\n".join([*user, *common, *lines]) + "\n")

    def start(self):
        path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            pytest.skip("mosquitto is not installed (apt install mosquitto)")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [path, "-c", self.folder / "mosquitto.conf"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while not is_listening(self.port):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    __enter__ = start

    def __exit__(self, *_):
        self.stop()
