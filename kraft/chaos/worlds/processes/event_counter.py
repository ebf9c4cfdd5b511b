"""Counts of events of a running cluster, from the `events.jsonl` in each node's folder.

Each count continues where the last one ended, because the file only grows. A new file after a rotation is read from its
beginning: scenarios have far less than 16 MiB of events.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kraft.events import EVENTS_FILE


class EventCounter:
    def __init__(self, folders: Mapping[int, Path]) -> None:
        """`folders`: node -> its data folder."""
        self._files = {node: folder / EVENTS_FILE for node, folder in folders.items()}
        self._read_bytes: dict[int, int] = dict.fromkeys(folders, 0)
        self._counts: Counter[tuple[int, str]] = Counter()

    def count(self, event: str, node: int | None = None) -> int:
        for each in self._files:
            self._read_on(each)
        return sum(count for (by, name), count in self._counts.items() if name == event and node in (None, by))

    def _read_on(self, node: int) -> None:
        file = self._files[node]
        if not file.exists():
            return
        if file.stat().st_size < self._read_bytes[node]:
            self._read_bytes[node] = 0
        with file.open("rb") as lines:
            lines.seek(self._read_bytes[node])
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # half a line: the node is writing it
                self._read_bytes[node] += len(line)
                self._take(node, line)

    def _take(self, node: int, line: bytes) -> None:
        try:
            self._counts[node, str(json.loads(line)["event"])] += 1
        except (ValueError, KeyError):
            return  # a node that was killed wrote half a line, and another one after it
