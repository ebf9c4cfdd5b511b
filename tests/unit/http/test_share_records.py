"""v3 `records:peek` in parts, and what becomes of the locks of a receive that comes to no answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import cast
from uuid import UUID

import pytest
from aiohttp import ClientError

from kraft.coordinators.shares.ack_ids import AckIds, Lock, Settlement
from kraft.coordinators.shares.leaders import Handed
from kraft.coordinators.shares.peek import InFlight, Peeked
from kraft.coordinators.shares.queue import Queues, Receive
from kraft.http.records import INLINE_RECORDS_MAX
from kraft.http.v3.share_records import share_record_routes
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from kraft.testing.queues import RECORDS_MAX, Queue
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, GroupSettings, group_settings
from replication.shares.partition import Acquired
from replication.shares.states import AcknowledgeType, DeliveryState
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import V3, Door, with_door

RECEIVE = f"{V3}/share-groups/g/records:receive"
PEEK = f"{V3}/share-groups/g/records:peek"
WAITS, LOCKED = DeliveryState.AVAILABLE, DeliveryState.ACQUIRED
MANY = INLINE_RECORDS_MAX + 1
"""Records that a worker makes the answer of."""


def batch(count: int) -> bytes:
    return bytes(build_batch([NewRecord(None, b"%d" % number, [], 1_000) for number in range(count)]))


class StoppedIds(AckIds):
    """Ids that are made when the test allows it, or never."""

    def __init__(self) -> None:
        super().__init__(b"key")
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.is_broken = False

    def token(self, group: str, lock: Lock, *, owner: str) -> str:
        self.begun.set()
        assert self.goes_on.wait(10)
        if self.is_broken:
            raise RuntimeError("broken")
        return super().token(group, lock, owner=owner)


class OneQueue:
    """Queues of which there is one, `g`, as the leaders of its partitions know it."""

    def __init__(self, known: Mapping[TopicIdPartition, Sequence[InFlight]]) -> None:
        self.ack_ids = StoppedIds()
        self.acknowledged: list[Settlement] = []
        self.receiver: asyncio.Task[object] | None = None
        self._known = known

    def settings_of(self, group: str) -> GroupSettings:
        return group_settings(BrokerSettings(), {})

    def new_receipt(self) -> UUID:
        return UUID(int=7)

    async def peek(
        self, group: str, *, topics: Collection[str] = (), records_max: int
    ) -> Mapping[TopicIdPartition, Peeked]:
        """Cut off where a leader cuts it off."""
        found = {}
        for where, runs in self._known.items():
            shown, left = [], records_max
            for run in runs:
                if left <= 0:
                    break
                shown.append(run)
                left -= run.last_offset - run.first_offset + 1
            end = runs[-1].last_offset + 1 if runs else 0
            found[where] = Peeked(start_offset=0, in_flight=shown, end_offset=end if len(shown) == len(runs) else -1)
        return found

    async def receive(self, asked: Receive) -> Mapping[TopicIdPartition, Handed]:
        self.receiver = asyncio.current_task()
        (where,) = self._known
        return {where: Handed(records=batch(MANY), acquired=[Acquired(0, MANY - 1, 1)], leader_epoch=0, lock_ms=30_000)}

    async def acknowledge(self, group: str, asked: Sequence[Settlement]) -> Mapping[int, KafkaError]:
        self.acknowledged += asked
        return {}


def places(gateway: FakeGateway, *, partitions: int = 1) -> list[TopicIdPartition]:
    topic_id = gateway.add_topic("t", partitions)
    return [TopicIdPartition(topic_id, number) for number in range(partitions)]


def test_all_that_a_queue_has_is_seen_in_parts() -> None:
    """The lock of the last record alone is in the way, behind more records than an answer has."""
    gateway = FakeGateway()
    first, second = places(gateway, partitions=2)
    gateway.logs[first].append(batch(RECORDS_MAX + 20))
    for _ in range(3):
        gateway.logs[second].append(batch(10))
    last = RECORDS_MAX + 9
    queue = OneQueue(
        {
            first: [InFlight(2, last - 1, WAITS, 1, 0), InFlight(last, last, LOCKED, 2, 30_000)],
            second: [InFlight(0, 3, WAITS, 1, 0), InFlight(25, 25, LOCKED, 3, 30_000)],
        }
    )

    async def story(door: Door) -> None:
        seen, begin, answers = [], None, 0
        while answers == 0 or begin is not None:
            answer = (await door.ask("POST", PEEK, {"max_records": 200, "begin": begin})).json
            seen += [(row["partition_id"], row["offset"], row["state"]) for row in answer["records"]]
            begin, answers = answer["next"], answers + 1
        of_first = [(0, offset, "AVAILABLE") for offset in range(2, RECORDS_MAX + 20)]
        of_first[last - 2] = (0, last, "ACQUIRED")
        of_second = [(1, 0), (1, 1), (1, 2), (1, 3), (1, 25), (1, 26), (1, 27), (1, 28), (1, 29)]
        assert seen[: len(of_first)] == of_first
        assert [place[:2] for place in seen[len(of_first) :]] == of_second
        assert answers == 3

        url = str(door.client.make_url("")).rstrip("/")
        looked = Queue("g", rest_urls=lambda: [url], records=lambda topic: [])
        assert len(await asyncio.to_thread(looked.unfinished)) == len(seen)
        with pytest.raises(AssertionError) as failed:
            await asyncio.to_thread(looked.assert_nothing_in_flight, 0)
        assert [line.split(":")[0].strip() for line in str(failed.value).splitlines()[1:]] == [
            f"t-0@{last} b'{last}'",
            "t-1@25 b'5'",
        ]

    with_door(story, gateway, extra_routes=share_record_routes(cast(Queues, queue)))


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_lost_connection_releases_nothing_and_a_failure_of_the_server_all(is_broken: bool) -> None:
    gateway = FakeGateway()
    (where,) = places(gateway)
    queue = OneQueue({where: []})
    queue.ack_ids.is_broken = is_broken

    async def story(door: Door) -> None:
        asking = asyncio.ensure_future(door.ask("POST", RECEIVE, {"topics": ["t"]}))
        assert await asyncio.to_thread(queue.ack_ids.begun.wait, 10)
        assert queue.receiver is not None
        if not is_broken:
            queue.receiver.cancel()  # as the server does when the connection is lost
        queue.ack_ids.goes_on.set()
        if is_broken:
            assert (await asking).status == 500
        else:
            with pytest.raises(ClientError):
                await asking

    with_door(story, gateway, extra_routes=share_record_routes(cast(Queues, queue)))
    released = [(each.lock.where, each.first, each.last, each.type) for each in queue.acknowledged]
    assert released == ([(where, 0, MANY - 1, AcknowledgeType.RELEASE)] if is_broken else [])
