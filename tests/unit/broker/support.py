"""A publisher fed by hand, scripted leaders and a scripted controller, all under virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from kraft.broker.audit import Audit
from kraft.broker.control import ControllerDoor, RemoteController
from kraft.broker.leaders import LeaderFinder
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.routing import Router
from kraft.broker.tail_waits import Tails
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.chaos.worlds.simulated.loop import VirtualLoop
from kraft.protocol.primitives import Buffer
from metadata.controller.requests import Request
from metadata.image import MetadataImage, TopicIdPartition
from metadata.quorum.log import Committed, Leadership, MetadataSlice, SnapshotInstalled
from metadata.records import (
    BrokerChangeRecord,
    PartitionChangeRecord,
    PartitionRecord,
    Reason,
    Record,
    RegisterBrokerRecord,
    TopicRecord,
)
from replication.requests import (
    ActiveProducer,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)

TOPIC = UUID(int=7)
P0 = TopicIdPartition(TOPIC, 0)
P1 = TopicIdPartition(TOPIC, 1)
BATCH = b"batch"


def run(main: Callable[[SimulatedClock], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main(SimulatedClock(loop)))
    finally:
        loop.close()
    assert not loop.failures, loop.failures


class HandLog:
    """A metadata log whose commits are made by the test."""

    def __init__(self) -> None:
        self.image = MetadataImage()
        self.leadership = Leadership(leader_id=-1, term=0, is_self=False)
        self.on_change: Callable[[Committed | SnapshotInstalled], None] | None = None
        self.on_leadership: Callable[[Leadership], None] | None = None

    def subscribe(
        self,
        on_change: Callable[[Committed | SnapshotInstalled], None],
        on_leadership: Callable[[Leadership], None],
    ) -> None:
        self.on_change, self.on_leadership = on_change, on_leadership

    def commit(self, *records: Record) -> None:
        base_offset = self.image.next_offset
        self.image = self.image.apply(records)
        assert self.on_change is not None
        self.on_change(Committed(base_offset=base_offset, image=self.image, decode=lambda: records))

    def lead(self, leadership: Leadership) -> None:
        assert self.on_leadership is not None
        self.on_leadership(leadership)

    async def append(self, *_: object, **__: object) -> MetadataImage:
        raise AssertionError("a broker does not append")

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice:
        raise AssertionError((from_offset, bytes_max))


class ScriptedLeader:
    """Answers each call with the next scripted thing: an outcome, or an exception to raise."""

    def __init__(self, *script: Any, on_call: Callable[[], Awaitable[None]] | None = None) -> None:
        self.script = list(script)
        self.calls = 0
        self._on_call = on_call

    def _next(self) -> Any:
        self.calls += 1
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        if self._on_call is not None:
            await self._on_call()
        return dict.fromkeys(batches, self._next())

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        answer: FetchResponse = self._next()
        return answer

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        answer: OffsetAnswer = self._next()
        return answer

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        answer: Sequence[ActiveProducer] = self._next()
        return answer

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        answer: int = self._next()
        return answer


def two_partitions(log: HandLog, *, leaders: tuple[int, int] = (1, 2)) -> None:
    log.commit(
        TopicRecord(name="t", topic_id=TOPIC),
        *(
            PartitionRecord(topic_id=TOPIC, partition=p, replicas=(1, 2, 3), isr=(1, 2, 3), leader=leader)
            for p, leader in enumerate(leaders)
        ),
    )


def with_brokers(log: HandLog, *broker_ids: int) -> None:
    """Registered and unfenced."""
    for broker_id in broker_ids:
        epoch = log.image.next_offset
        registered = RegisterBrokerRecord(
            broker_id=broker_id, incarnation_id=UUID(int=broker_id), rest="h:1", kafka="h:2"
        )
        unfenced = BrokerChangeRecord(
            broker_id=broker_id, broker_epoch=epoch, fenced=False, in_controlled_shutdown=False, reason="test"
        )
        log.commit(registered, unfenced)


def move_leader(log: HandLog, *, partition: int, leader: int) -> None:
    state = log.image.topics[TOPIC].partitions[partition]
    log.commit(
        PartitionChangeRecord(
            topic_id=TOPIC,
            partition=partition,
            reason=Reason.BROKER_FENCED,
            leader=leader,
            leader_epoch=state.leader_epoch + 1,
            partition_epoch=state.partition_epoch + 1,
        )
    )


def publisher_on(clock: SimulatedClock, log: HandLog, static: Mapping[str, Any] | None = None) -> MetadataPublisher:
    publisher = MetadataPublisher(node_id=1, clock=clock, static=static or {})
    publisher.attach(log)  # type: ignore[arg-type]  # only what a publisher uses
    return publisher


def finder_on(publisher: MetadataPublisher, clients: Mapping[int, ScriptedLeader]) -> LeaderFinder:
    return LeaderFinder(node_id=1, publisher=publisher, local=clients.get(1), peer=lambda node_id: clients[node_id])


class NoController:
    """Refuses every request."""

    async def request(self, node_id: int, request: Request[Any], *, timeout_ms: int) -> Any:
        raise ConnectionRefusedError(node_id)


class Recorded:
    """Events, as lines of their name and fields."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


def router_on(
    clock: SimulatedClock,
    publisher: MetadataPublisher,
    clients: Mapping[int, ScriptedLeader],
    *,
    controller: RemoteController | None = None,
    events: Recorded | None = None,
) -> Router:
    """The router of node 1, for which node 2 is the active controller."""
    finder = finder_on(publisher, clients)
    door = ControllerDoor(
        clock=clock,
        leadership=lambda: Leadership(leader_id=2, term=1, is_self=False),
        local=None,
        remote=controller or NoController(),
    )
    return Router(
        node_id=1,
        cluster_id="c",
        nodes={},
        described_settings={},
        clock=clock,
        publisher=publisher,
        door=door,
        finder=finder,
        tails=Tails(clock=clock, finder=finder),
        audit=Audit(Recorded() if events is None else events, clock),
    )
