"""Where a consumer begins: a name, a number or a time becomes an offset, at the partition's leader if it is known."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from kraft.client.connection import LOOKUP_TIMEOUT_MS, Connection
from kraft.client.errors import ConfigError
from kraft.client.response import Request, checked, segment
from kraft.protocol.media_types import RECORDS

Start: TypeAlias = int | str | datetime
"""An offset, `earliest`, `latest`, or a time: the first record that is not older."""


@dataclass(frozen=True, slots=True)
class TopicPartition:
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


def check_start(start: Start) -> None:
    """Raises ConfigError for what is no place to begin."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError(f"the time {start} has no zone; use datetime.now(UTC) or .astimezone()")
    elif isinstance(start, str):
        if start not in ("earliest", "latest"):
            raise ConfigError(f"offset={start!r} is not earliest, latest, a number or a datetime")
    elif isinstance(start, bool) or start < 0:
        raise ConfigError(f"offset={start!r} is no offset; it is 0 or more")


def timestamp_ms(when: datetime) -> int:
    return max(0, int(when.timestamp() * 1000))


async def resolve(connection: Connection, where: TopicPartition, start: Start, *, isolation_level: str) -> int:
    """The offset to begin at; after the last record when none is as young. Raises ServerError, NothingDone."""
    if isinstance(start, int):
        return start
    if isinstance(start, datetime):
        return await _offset_at(connection, where, timestamp_ms(start), isolation_level=isolation_level)
    first, end = await offsets_of(connection, where, isolation_level=isolation_level)
    return first if start == "earliest" else end


async def offsets_of(connection: Connection, where: TopicPartition, *, isolation_level: str) -> tuple[int, int]:
    """First offset, and the high watermark or for read_committed the last stable offset. Raises ServerError,
    NothingDone."""
    path = f"/topics/{segment(where.topic)}/partitions/{where.partition}/offsets?isolation_level={isolation_level}"
    leader = await connection.leader(where.topic, where.partition)
    document = await connection.get(path, prefer=leader)
    return int(document["beginning_offset"]), int(document["end_offset"])


async def _offset_at(connection: Connection, where: TopicPartition, time_ms: int, *, isolation_level: str) -> int:
    """The offset of the first record from `time_ms` on, by a read of one record; without one, the end of the log."""
    path = f"/topics/{segment(where.topic)}/partitions/{where.partition}/records"
    query = f"?offset=ts:{time_ms}&max_bytes=1&timeout=0&isolation_level={isolation_level}"
    request = Request(method="GET", path=path + query, headers={"Accept": RECORDS}, timeout_ms=LOOKUP_TIMEOUT_MS)
    answer = checked(await connection.ask(request, prefer=await connection.leader(where.topic, where.partition)))
    if answer.body:
        (offset,) = struct.unpack_from(">q", answer.body)
        return int(offset)
    return int(answer.headers["x-next-offset"])
