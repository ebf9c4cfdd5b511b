"""Where a stream stands: the next offset of each of its partitions, and the text of it that a client hands back. Pure.

    0:18,1:5                one topic: partition 0 goes on at offset 18, partition 1 at 5
    flights/0:18,rides/2:7  a consumer group: partitions of several topics

The text is the `id` of an event and, sent back as Last-Event-ID, what the stream goes on from: no record twice, none
missing. A partition that the text does not name (it was added since) is read from its first record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.protocol.primitives import INT64_MAX

PARTITIONS_MAX = 512
"""Partitions of one stream: its position has to fit into a header of a request."""
POSITION_HEADER = "X-Position"

Key = tuple[str, int]
"""Topic and partition."""

_ENTRY = re.compile(r"(?:([a-zA-Z0-9._-]{1,249})/)?(\d{1,10}):(\d{1,19})")


class Positions:
    """Next offsets by partition. `topic`: of a stream of this topic alone, whose name its text leaves out."""

    def __init__(self, offsets: Mapping[Key, int], *, topic: str | None = None) -> None:
        self._topic = topic
        self._offsets: dict[Key, int] = {}
        self._texts: dict[Key, str] = {}
        for key, offset in sorted(offsets.items()):
            self[key] = offset

    def __getitem__(self, key: Key) -> int:
        return self._offsets[key]

    def __setitem__(self, key: Key, offset: int) -> None:
        name = f"{key[1]}" if key[0] == self._topic else f"{key[0]}/{key[1]}"
        self._offsets[key] = offset
        self._texts[key] = f"{name}:{offset}"

    def __contains__(self, key: Key) -> bool:
        return key in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def offsets(self) -> Mapping[Key, int]:
        return self._offsets

    @property
    def text(self) -> str:
        """The positions as a client hands them back (see above)."""
        return ",".join(self._texts.values())


def parse_positions(text: str, *, topic: str | None = None) -> dict[Key, int]:
    """Raises HttpError 40002 for what no stream of this kind ever said."""
    offsets: dict[Key, int] = {}
    for entry in text.split(",") if text else ():
        matched = _ENTRY.fullmatch(entry.strip())
        name = None if matched is None else (matched[1] or topic)
        if matched is None or name is None or (topic is not None and name != topic) or int(matched[3]) > INT64_MAX:
            shape = "topic/partition:offset" if topic is None else "partition:offset"
            raise HttpError(BAD_REQUEST, f"{text[:200]!r} is no position of this stream: it is {shape}, by commas")
        offsets[name, int(matched[2])] = int(matched[3])
    if len(offsets) > PARTITIONS_MAX:
        raise HttpError(BAD_REQUEST, f"a position of {len(offsets)} partitions; a stream has at most {PARTITIONS_MAX}")
    return offsets
