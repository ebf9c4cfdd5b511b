"""The clock of a run, and its faults: kept in order, sent to a watcher, written to `faults.jsonl`.

A line is written when a fault begins; at the end of the run a file with the end of each fault replaces it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from kraft.chaos.evidence import Fault, write_faults

FAULTS_FILE: Final = "faults.jsonl"


def now_us() -> int:
    """The one clock of a run."""
    return time.monotonic_ns() // 1_000


OnFault = Callable[[Fault], None]


class Timeline:
    def __init__(self, directory: Path) -> None:
        self._path = directory / FAULTS_FILE
        self._faults: list[Fault] = []
        self._watchers: list[OnFault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults)

    def watch(self, watcher: OnFault) -> None:
        """Called with every fault when it begins."""
        self._watchers.append(watcher)

    def begin(self, fault: str, *, text: str, nodes: Iterable[int] = (), links: Iterable[str] = ()) -> int:
        """A fault begins; returns its number for `end`."""
        done = Fault(at_us=now_us(), fault=fault, nodes=tuple(nodes), links=tuple(links), text=text)
        self._faults.append(done)
        with self._path.open("ab") as out:
            out.write(msgspec.json.encode(done) + b"\n")
        for watcher in self._watchers:
            watcher(done)
        return len(self._faults) - 1

    def end(self, number: int) -> None:
        if self._faults[number].until_us is None:
            self._faults[number] = msgspec.structs.replace(self._faults[number], until_us=now_us())

    def save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        write_faults(temporary, self._faults)
        os.replace(temporary, self._path)
