"""A reader: reads partitions from their beginning with long polls, and records what it received.

Its position only changes back after OFFSET_OUT_OF_RANGE; it then continues at the end of the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal

from kraft.chaos.history import Read
from kraft.chaos.workload.client import FetchResult, Position
from kraft.chaos.workload.client_life import ClientLife
from kraft.chaos.workload.producer import Record
from kraft.chaos.workload.targets import ClientWorld, Target, Targets
from kraft.protocol.errors import OffsetOutOfRange

WAIT_MS: Final = 200
BYTES_MAX: Final = 1_048_576
TIMEOUT_MS: Final = 3_000
ERROR_PAUSE_S: Final = 0.05
PARTITIONS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    name: str
    topic: str
    partition: int | None = None
    """None: all partitions, also those that are added later."""
    isolation: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    target: Target = "any"


class Reader(ClientLife):
    def __init__(self, options: ReaderOptions, *, client_world: ClientWorld, record: Record) -> None:
        self.options = options
        self._record = record
        self._targets = Targets(client_world, target=options.target)
        self._client = client_world.client(options.name, in_flight_max=PARTITIONS_MAX)
        self._now_us = client_world.now_us
        super().__init__(options.name, self._client, self._targets.nodes)
        self._high_watermarks: dict[int, int] = {}

    @property
    def _is_read_committed(self) -> bool:
        return self.options.isolation == "read_committed"

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as partitions:
            if self.options.partition is not None:
                partitions.create_task(self._follow(self.options.partition))
            else:
                await self._follow_all(partitions)

    async def _follow_all(self, partitions: asyncio.TaskGroup) -> None:
        followed: set[int] = set()
        while not self._is_ending.is_set():
            for partition in self._targets.partitions(self.options.topic):
                if partition not in followed and len(followed) < PARTITIONS_MAX:
                    followed.add(partition)
                    partitions.create_task(self._follow(partition))
            await self._pause(ERROR_PAUSE_S)

    async def _follow(self, partition: int) -> None:
        position: int | str = 0
        while not self._is_ending.is_set():
            answer = await self._read(partition, position)
            if answer.outcome == "ok" and answer.next_offset is not None:
                position = answer.next_offset
            elif answer.kafka_code == OffsetOutOfRange.code:
                position = "latest"
            else:
                await self._pause(ERROR_PAUSE_S)

    async def _read(self, partition: int, position: int | str) -> FetchResult:
        topic, node = self.options.topic, self._targets.choose(self.options.topic, partition)
        asked = Position(
            topic=topic,
            partition=partition,
            offset=position,
            wait_ms=WAIT_MS,
            bytes_max=BYTES_MAX,
            timeout_ms=TIMEOUT_MS,
            is_read_committed=self._is_read_committed,
        )
        invoke_us = self._now_us()
        answer = await self._client.read(node, asked)
        if answer.cannot_now:
            self._targets.refused(node)
        if self._is_news(partition, answer):
            self._keep(partition, position, node, invoke_us, answer)
        return answer

    def _is_news(self, partition: int, answer: FetchResult) -> bool:
        """False for an empty answer with a known high watermark."""
        before = self._high_watermarks.get(partition)
        if answer.high_watermark is not None:
            self._high_watermarks[partition] = answer.high_watermark
        return bool(answer.records) or answer.outcome != "ok" or answer.high_watermark != before

    def _keep(self, partition: int, position: int | str, node: int, invoke_us: int, answer: FetchResult) -> None:
        self.counts.read += len(answer.records)
        known = position if isinstance(position, int) else answer.next_offset or 0
        self._record(
            Read(
                process=self.options.name,
                index=self._next_index(),
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                topic=self.options.topic,
                partition=partition,
                node=node,
                offset=answer.records[0][0] if answer.records and not isinstance(position, int) else known,
                next_offset=answer.next_offset,
                high_watermark=answer.high_watermark,
                records=answer.records,
                outcome=answer.outcome,
                kafka_code=answer.kafka_code,
                error=answer.error,
                is_read_committed=self._is_read_committed,
            )
        )
