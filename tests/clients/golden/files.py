"""The recorded exchanges: one xz file of JSON lines, bytes in base64."""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

from tests.clients.golden.peer import Exchange

RECORDED = Path(__file__).parent / "kafka-4.4.0.jsonl.xz"
KAFKA_VERSION = "4.4.0"


def save(exchanges: Sequence[Exchange], path: Path = RECORDED) -> None:
    lines = [
        json.dumps([e.name, e.api, e.version, *(base64.b64encode(each).decode() for each in (e.request, e.response))])
        for e in exchanges
    ]
    path.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))


def load(path: Path = RECORDED) -> list[Exchange]:
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    return [
        Exchange(name, api, version, base64.b64decode(request), base64.b64decode(response))
        for name, api, version, request, response in map(json.loads, lines)
    ]
