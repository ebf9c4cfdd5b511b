"""fsync of records that a leader has to count and no produce waits for, under flush.messages=1.

A replica that becomes leader may hold records that it fetched and has not synced, and a produce may be cancelled while
its records are being synced. A leader counts of its own log only synced records, so without an fsync the high watermark
would not move until the next produce.
"""

from __future__ import annotations

import asyncio

from kraft.protocol.errors import KafkaError
from metadata.image import TopicIdPartition
from replication.manager.registry import Registry
from replication.partition.replica import Replica
from replication.partition.states import LeaderState


class LeaderFlushes:
    """`ask` requests an fsync; `run` does it, and moves the high watermark. At most one request waits per partition."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._asked: dict[TopicIdPartition, Replica] = {}
        self._wake = asyncio.Event()

    def ask(self, replica: Replica) -> None:
        if replica.counted_end_offset < replica.log.log_end_offset:
            self._asked[replica.key] = replica
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._asked = list(self._asked.values()), {}
            await asyncio.gather(*(self._flush(replica) for replica in due))

    async def _flush(self, replica: Replica) -> None:
        if not isinstance(replica.state, LeaderState):
            return
        try:
            await replica.log.flush()
        except (OSError, KafkaError) as error:
            self._registry.events.emit("replica_flush_failed", partition=replica.name, error=str(error))
        else:
            self._registry.advance(replica)
