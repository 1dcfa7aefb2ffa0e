"""Memory of a process and all its descendants, from /proc (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path


def descendants(root: int) -> set[int]:
    """Process ids of `root` and everything below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = set(), [root]
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo.extend(children.get(pid, []))
    return found


def megabytes(root: int) -> tuple[float, float]:
    """(sum of RSS, sum of PSS) of the tree in MB; shared pages count once in PSS."""
    totals = {"Rss:": 0, "Pss:": 0}
    for pid in descendants(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key = line.split(maxsplit=1)[0]
            if key in totals:
                totals[key] += int(line.split()[1])
    return totals["Rss:"] / 1e3, totals["Pss:"] / 1e3


class Peak(threading.Thread):
    """Samples a tree's memory until stopped; `rss` and `pss` are the highest sums seen, in MB."""

    def __init__(self, root: int, every_seconds: float = 0.5) -> None:
        super().__init__(daemon=True)
        self._root, self._every, self._stopped = root, every_seconds, threading.Event()
        self.rss = self.pss = 0.0

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._stopped.wait(self._every):
            rss, pss = megabytes(self._root)
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)

    def stop(self) -> None:
        """End sampling."""
        self._stopped.set()
        self.join()
