"""Loading the groups of a partition: in pieces, between which others have their turns."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from kraft.coordinators.groups.records import GroupRecord, InstanceKey, decode_record, encode_batch
from kraft.coordinators.partition_loader import replay
from kraft.system_clock import SystemClock
from metadata.image import TopicIdPartition
from replication.requests import LATEST_TIMESTAMP, FetchedPartition, FetchRequest, FetchResponse, OffsetAnswer
from tests.unit.coordinators.test_stale_answers import TOPIC_ID

PARTITION = TopicIdPartition(TOPIC_ID, 0)
PIECES = 100


class LocalLog:
    """One record at each offset, and nothing that is ever waited for: as a log is read by its own leader."""

    def __init__(self) -> None:
        self.fetch = self.offsets = self

    async def list_offset(self, partition: TopicIdPartition, timestamp: int) -> OffsetAnswer:
        offset = PIECES if timestamp == LATEST_TIMESTAMP else 0
        return OffsetAnswer(offset=offset, timestamp=-1, leader_epoch=0)

    def offset_for_leader_epoch(self, partition: TopicIdPartition, epoch: int) -> Any:
        return None

    async def response(self, request: FetchRequest) -> FetchResponse:
        (asked,) = request.partitions
        batch = bytearray(encode_batch([GroupRecord(InstanceKey("g", "i"), None)], timestamp_ms=0))
        batch[:8] = asked.fetch_offset.to_bytes(8, "big")
        found = FetchedPartition(topic_id=TOPIC_ID, partition=0, records=bytes(batch))
        return FetchResponse(partitions=(found,))


def test_a_long_load_lets_others_have_their_turns() -> None:
    async def story() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(others())
        clock = SystemClock(asyncio.get_running_loop())
        pieces = [
            piece
            async for piece in replay(cast(Any, LocalLog()), PARTITION, decode_record, leader_epoch=0, clock=clock)
        ]
        other.cancel()
        assert len(pieces) == PIECES
        assert turns >= PIECES

    asyncio.run(story())
