"""Markers are written until every partition has its own: through lost answers, moved leaders and deleted topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from kraft.coordinators.transactions.markers import MarkerWriter
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import NotLeaderOrFollower
from kraft.protocol.transactions import MarkersToWrite
from metadata.environment import ConnectionClosed
from metadata.image import MetadataImage
from metadata.records import PartitionRecord, RemoveTopicRecord, TopicRecord
from metadata.retries import RETRY_BACKOFF_MS
from tests.unit.replication.harness.virtual import environment, run

T = UUID(int=7)
DECIDED = Transaction(
    transactional_id="a",
    producer_id=7,
    epoch=3,
    timeout_ms=60_000,
    phase=Phase.PREPARE_ABORT,
    partitions=frozenset({("t", 0), ("t", 1)}),
    updated_ms=0,
)


class Nodes:
    """Two nodes that lead a partition of `t` each, and the codes that they answer, request by request."""

    def __init__(self, *answers: dict[tuple[str, int], int] | Exception) -> None:
        self.image = MetadataImage().apply(
            [
                TopicRecord(name="t", topic_id=T),
                *(
                    PartitionRecord(topic_id=T, partition=n, replicas=(n + 1,), isr=(n + 1,), leader=n + 1)
                    for n in (0, 1)
                ),
            ]
        )
        self.answers = list(answers)
        self.asked: list[tuple[int, list[MarkersToWrite]]] = []
        self.delay_ms = 5
        self.is_over = False
        self.writer = MarkerWriter(environment(1).clock, image=lambda: self.image, write=self.write)

    async def write(self, node_id: int, markers: Sequence[MarkersToWrite]) -> list[dict[tuple[str, int], int]]:
        self.asked.append((node_id, list(markers)))
        await asyncio.sleep(self.delay_ms / 1_000)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return [{each: answer.get(each, 0) for each in marker.partitions} for marker in markers]

    async def all(self, transaction: Transaction = DECIDED) -> None:
        await self.writer.write(transaction, coordinator_epoch=4, is_over=lambda: self.is_over)


def play(story: Callable[[], Awaitable[None]]) -> None:
    run(story())


def test_each_leader_gets_its_partitions_with_the_epoch_of_the_coordinator() -> None:
    async def story() -> None:
        nodes = Nodes()
        await nodes.all()
        marker = Marker(is_commit=False, coordinator_epoch=4)
        assert nodes.asked == [
            (1, [MarkersToWrite(7, 3, marker, frozenset({("t", 0)}))]),
            (2, [MarkersToWrite(7, 3, marker, frozenset({("t", 1)}))]),
        ]

    play(story)


def test_what_is_not_written_is_tried_again_and_nothing_else() -> None:
    async def story() -> None:
        nodes = Nodes({("t", 0): NotLeaderOrFollower.code}, {}, ConnectionClosed("gone"), OSError(), TimeoutError(), {})
        await nodes.all()
        assert [node for node, _ in nodes.asked] == [1, 2, 1, 1, 1, 1]

    play(story)


def test_a_marker_of_the_past_and_a_topic_that_is_gone_are_done() -> None:
    async def story() -> None:
        nodes = Nodes({("t", 0): 52}, {("t", 1): 47})
        await nodes.all()
        assert len(nodes.asked) == 2
        nodes = Nodes({("t", 0): 3}, {("t", 1): 100})
        writing = asyncio.ensure_future(nodes.all())
        await asyncio.sleep(RETRY_BACKOFF_MS / 2_000)
        assert not writing.done(), "the nodes may not have heard of the topic yet"
        nodes.image = nodes.image.apply([RemoveTopicRecord(topic_id=T)])
        await writing
        assert len(nodes.asked) == 2

    play(story)


def test_who_is_coordinator_no_more_stops() -> None:
    async def story() -> None:
        nodes = Nodes(*[OSError()] * 100)
        writing = asyncio.ensure_future(nodes.all())
        await asyncio.sleep(1)
        assert not writing.done()
        nodes.is_over = True
        await asyncio.wait_for(writing, 10)

    play(story)


def test_what_comes_while_a_request_is_under_way_goes_with_the_next_one() -> None:
    async def story() -> None:
        nodes = Nodes()
        nodes.delay_ms = 100
        first = asyncio.ensure_future(nodes.all())
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(nodes.all() for _ in range(50)))
        assert [(node, len(markers)) for node, markers in nodes.asked] == [(1, 1), (2, 1), (1, 50), (2, 50)]

    play(story)
