"""An in-memory `Gateway` with real record batches: one node, three brokers on paper, no replication.

Faults are set by hand: `fail_produce` ends every produce with an outcome, `fail_read` every read with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

from kraft.broker.client_quotas import ClientQuotas
from kraft.broker.gateway import NodeInfo, Records
from kraft.broker.permissions import Permissions, permissions_of
from kraft.broker.principal import Principal
from kraft.protocol import errors
from kraft.protocol.batches.header import stamp, whole_batches
from kraft.protocol.batches.markers import marker_of
from kraft.protocol.batches.records import read_batches
from kraft.protocol.primitives import Buffer
from metadata.authorizer import Authorizer, authorizer_of
from metadata.controller.decide.decision import ControllerState
from metadata.controller.decide.routes import alter_route
from metadata.controller.requests import (
    AlterClientQuotas,
    AlterConfigs,
    AlterReassignments,
    AlterRoute,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ElectLeaders,
    ErrorDetail,
    NewTopic,
    Request,
    TopicCreated,
)
from metadata.image import MetadataImage, TopicIdPartition
from metadata.records import (
    BrokerChangeRecord,
    ConfigRecord,
    ControllerEpochRecord,
    PartitionChangeRecord,
    PartitionRecord,
    Reason,
    Record,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
)
from metadata.settings import BrokerSettings, TopicSettings, applied, broker_settings, setting_text, topic_settings
from replication.partition.log import AbortedTransaction
from replication.producers.origin import CLIENT, Origin
from replication.producers.state import ProducerBatch, ProducerLimits, ProducerStates
from replication.requests import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    MAX_TIMESTAMP,
    ActiveProducer,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
    ReadOptions,
)

Reply = TypeVar("Reply")

BROKERS = (1, 2, 3)


PRODUCER_LIMITS = ProducerLimits(expiration_ms=86_400_000, allocated_max=100, reserved_max=100, aborted_max=100)


def _rest_address(broker: int) -> str:
    """A port without a listener: a real cluster may listen at 8082, the default."""
    return f"127.0.0.1:{broker}"


@dataclass
class FakeLog:
    data: bytearray = field(default_factory=bytearray)
    start: int = 0
    end: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    waited_for: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a read waits."""

    producers: ProducerStates = field(default_factory=ProducerStates)
    """State of idempotent producers; transactions are found in the batches."""

    def find(self, batches: Buffer) -> ProducerBatch | None:
        """D2 for an idempotent producer's batch, which comes alone."""
        headers = [header for _, header in whole_batches(batches) if header.producer_id >= 0]
        assert len(headers) < 2, "a leader refuses several batches of producers at once"
        if not headers:
            return None
        header, origin = headers[0], CLIENT
        if header.is_transactional:
            guard = self.producers.begin_verification(
                header.producer_id,
                epoch=header.producer_epoch,
                sequence=header.base_sequence,
                raises_epoch=True,
                limits=PRODUCER_LIMITS,
                now_ms=0,
            )
            origin = Origin(is_transactional=True, verification=guard)
        return self.producers.check(header.producer_id, header, origin)

    def append(self, batches: Buffer) -> tuple[int, int]:
        base = self.end
        copy = bytearray(batches)
        for position, header in list(whole_batches(copy)):
            count = header.record_count
            stamp(copy, position, base_offset=self.end, leader_epoch=0)
            if header.is_control:
                marker = marker_of(copy[position : position + header.size], header)
                assert marker is not None
                self.producers.end_transaction(header._replace(base_offset=self.end), marker, PRODUCER_LIMITS)
            elif header.producer_id >= 0:
                self.producers.update(header._replace(base_offset=self.end), PRODUCER_LIMITS)
            self.end += count
        self.data += copy
        self.grown.set()
        self.grown = asyncio.Event()
        return base, self.end - 1

    def read(self, offset: int, bytes_max: int, *, end: int | None = None) -> bytes:
        found: int | None = None
        until = 0
        for position, header in whole_batches(self.data):
            if header.next_offset <= offset:
                continue
            if found is None:
                found = position
            elif position + header.size - found > bytes_max:
                break
            if end is not None and header.next_offset > end:
                break
            until = position + header.size
        return b"" if found is None else bytes(self.data[found:until])

    def transactions(self) -> tuple[int, list[AbortedTransaction]]:
        """The last stable offset, and what was aborted."""
        begun: dict[int, int] = {}
        aborted: list[AbortedTransaction] = []
        for position, header in whole_batches(self.data):
            if header.is_control:
                marker = marker_of(self.data[position : position + header.size], header)
                first = begun.pop(header.producer_id)
                if marker is not None and not marker.is_commit:
                    aborted.append(AbortedTransaction(header.producer_id, first, header.base_offset))
            elif header.is_transactional:
                begun.setdefault(header.producer_id, header.base_offset)
        return min(begun.values(), default=self.end), aborted

    def end_for(self, is_read_committed: bool) -> int:
        return self.transactions()[0] if is_read_committed else self.end


async def _nobody_verifies(transactional_id: str, which: TopicIdPartition, data: Buffer) -> None:
    raise errors.TransactionalIdAuthorizationFailed("there is no transaction coordinator")


class FakeGateway:
    def __init__(self, *, static: Mapping[str, Any] | None = None) -> None:
        self.static = dict(static or {})
        self._image = MetadataImage()
        self._quotas = ClientQuotas({})
        self.quotas: ClientQuotas | None = None
        self.authorizer: Authorizer | None = None
        self.logs: dict[TopicIdPartition, FakeLog] = {}
        self.fail_produce: ProduceOutcome | None = None
        self.fail_read: errors.KafkaError | None = None
        self.acked_by: tuple[int, ...] = (1, 2, 3)
        """The ISR when a produce is answered."""
        self.requests: list[Request[Any]] = []
        self.changes: list[tuple[str, str, list[str], list[str]]] = []
        """What `note_change` got: principal, request, resources, errors."""
        self.refuse: ErrorDetail | None = None
        self.produced: list[tuple[int, int]] = []
        """(acks, timeout_ms) of each produce."""
        self.verify: Callable[[str, TopicIdPartition, Buffer], Awaitable[None]] = _nobody_verifies
        """Asks a transaction coordinator about a batch, as a leader does."""
        self._next_id = 0
        self._settings_cache: dict[str, TopicSettings] = {}
        self.apply(ControllerEpochRecord(epoch=1, node_id=1))
        for broker in BROKERS:
            self._register(broker)

    def apply(self, *records: Record) -> None:
        self._image = self._image.apply(records)
        self._settings_cache.clear()
        self._quotas.update(self._image.quotas)
        self.quotas = self._quotas if self._image.quotas else None
        self.settings_now = broker_settings(self.static, applied(self._image.config("broker", "")))
        self.authorizer = authorizer_of(self.settings_now, self._image)

    def _register(self, broker: int) -> None:
        epoch = self._image.next_offset
        self.apply(
            RegisterBrokerRecord(
                broker_id=broker,
                incarnation_id=UUID(int=broker),
                rest=_rest_address(broker),
                kafka=f"127.0.0.1:{9091 + broker}",
                rack=f"rack-{broker}",
            ),
            BrokerChangeRecord(
                broker_id=broker, broker_epoch=epoch, fenced=False, in_controlled_shutdown=False, reason="test"
            ),
        )

    @property
    def node_id(self) -> int:
        return 1

    @property
    def cluster_id(self) -> str:
        return "test-cluster"

    @property
    def image(self) -> MetadataImage:
        return self._image

    @property
    def controller_id(self) -> int:
        return self._image.controller_id

    @property
    def nodes(self) -> Mapping[int, NodeInfo]:
        brokers = {
            number: NodeInfo(
                node_id=number,
                roles=("controller", "broker") if number < 3 else ("broker",),
                rest=_rest_address(number),
                kafka=f"127.0.0.1:{9091 + number}",
                quorum=f"127.0.0.1:{9191 + number}" if number < 3 else None,
                rack=None,
            )
            for number in (*BROKERS, 4)
        }
        alone = NodeInfo(node_id=9, roles=("controller",), rest="", kafka="", quorum="127.0.0.1:9199", rack=None)
        return {**brokers, 9: alone}

    @property
    def settings(self) -> BrokerSettings:
        return self.settings_now

    def permissions(self, principal: Principal, *, what: str) -> Permissions | None:
        return permissions_of(self.authorizer, principal)

    @property
    def described_settings(self) -> Mapping[str, str]:
        return {name: setting_text(value) for name, value in self.static.items()}

    def topic_settings(self, topic: str) -> TopicSettings:
        if topic not in self._settings_cache:
            self._settings_cache[topic] = topic_settings(self.settings, self._image.config("topic", topic))
        return self._settings_cache[topic]

    # --- topics by hand ---

    def add_topic(self, name: str, partitions: int = 1, *, configs: Mapping[str, str] | None = None) -> UUID:
        self._next_id += 1
        topic_id = UUID(int=self._next_id << 64)
        self.apply(TopicRecord(name=name, topic_id=topic_id))
        for number in range(partitions):
            self._add_partition(topic_id, number)
        for key, value in (configs or {}).items():
            self.apply(ConfigRecord(resource_type="topic", resource_name=name, name=key, value=value))
        return topic_id

    def _add_partition(self, topic_id: UUID, number: int) -> None:
        replicas = tuple(BROKERS[(number + i) % 3] for i in range(3))
        self.apply(
            PartitionRecord(topic_id=topic_id, partition=number, replicas=replicas, isr=replicas, leader=replicas[0])
        )
        self.logs[TopicIdPartition(topic_id, number)] = FakeLog()

    def change(self, topic: str, partition: int, **fields: Any) -> None:
        image = self._image.topics[self._image.topic_ids[topic]].partitions[partition]
        self.apply(
            PartitionChangeRecord(
                topic_id=image.topic_id,
                partition=partition,
                reason=Reason.ISR_SHRUNK,
                leader_epoch=image.leader_epoch + ("leader" in fields),
                partition_epoch=image.partition_epoch + 1,
                **fields,
            )
        )

    def log(self, topic: str, partition: int = 0) -> FakeLog:
        return self.logs[TopicIdPartition(self._image.topic_ids[topic], partition)]

    # --- data ---

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        self.produced.append((options.acks, options.timeout_ms))
        return {which: await self._produce_one(which, data, options) for which, data in batches.items()}

    async def _produce_one(self, which: TopicIdPartition, data: Buffer, options: ProduceOptions) -> ProduceOutcome:
        if options.transactional_id is not None:
            try:
                await self.verify(options.transactional_id, which, data)
            except errors.KafkaError as error:
                return ProduceOutcome(error_code=error.code, message=error.message)
        if options.acks == 0:
            if self.logs[which].find(data) is None:
                self.logs[which].append(data)
            return ProduceOutcome()
        if self.fail_produce is not None:
            return self.fail_produce
        name = self._image.topics[which.topic_id].name
        limit = self.topic_settings(name).max_message_bytes
        if any(header.size > limit for _, header in whole_batches(data)):
            return ProduceOutcome(error_code=10, message=f"a batch is larger than max.message.bytes={limit}")
        try:
            known = self.logs[which].find(data)
        except errors.KafkaError as error:
            return ProduceOutcome(error_code=error.code, message=error.message)
        if known is not None:
            return ProduceOutcome(
                base_offset=known.first_offset,
                last_offset=known.last_offset,
                log_append_time_ms=known.timestamp,
                leader_id=1,
                log_start_offset=0,
                is_appended=True,
            )
        base, last = self.logs[which].append(data)
        return ProduceOutcome(
            base_offset=base, last_offset=last, leader_id=1, log_start_offset=0, is_appended=True, isr=self.acked_by
        )

    async def read(self, partition: TopicIdPartition, offset: int, options: ReadOptions) -> Records:
        is_read_committed = options.is_read_committed
        if self.fail_read is not None:
            raise self.fail_read
        log = self.logs[partition]
        if not log.start <= offset <= log.end:
            raise errors.OffsetOutOfRange(f"offset {offset} is not within {log.start} to {log.end}")
        if offset >= log.end_for(is_read_committed) and options.wait_ms_max:
            log.waited_for.set()
            try:
                async with asyncio.timeout(options.wait_ms_max / 1000):
                    grown = None
                    while offset >= log.end_for(is_read_committed) and grown is not log.grown:
                        grown = log.grown
                        await grown.wait()
            except TimeoutError:
                pass
        stable, aborted = log.transactions()
        data = log.read(offset, options.bytes_max, end=stable if is_read_committed else None)
        return Records(
            data=data,
            high_watermark=log.end,
            last_stable_offset=stable,
            log_start_offset=log.start,
            leader_id=1,
            leader_epoch=0,
            is_read_committed=is_read_committed,
            aborted=[each for each in aborted if offset <= each.last_offset] if is_read_committed else (),
        )

    async def tail(
        self, positions: Mapping[TopicIdPartition, int], options: ReadOptions
    ) -> Mapping[TopicIdPartition, Records | None]:
        is_read_committed = options.is_read_committed
        found: dict[TopicIdPartition, Records | None] = {}
        waits = [asyncio.ensure_future(self.logs[which].grown.wait()) for which in positions]
        for which, offset in positions.items():
            log = self.logs[which]
            if not log.end_for(is_read_committed) <= offset <= log.end or self.fail_read is not None:
                found[which] = None
            log.waited_for.set()
        if not found:
            await asyncio.wait(waits, timeout=options.wait_ms_max / 1000, return_when=asyncio.FIRST_COMPLETED)
            for which, offset in positions.items():
                if self.fail_read is not None:
                    found[which] = None
                elif self.logs[which].end_for(is_read_committed) > offset:
                    found[which] = await self.read(which, offset, replace(options, wait_ms_max=0))
        for wait in waits:
            wait.cancel()
        return found

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        log = self.logs[partition]
        end = log.end_for(is_read_committed)
        if timestamp == EARLIEST_TIMESTAMP:
            return OffsetAnswer(offset=log.start)
        if timestamp == LATEST_TIMESTAMP:
            return OffsetAnswer(offset=end)
        assert timestamp != MAX_TIMESTAMP
        for record in read_batches(log.data, from_offset=log.start):
            if record.timestamp >= timestamp and record.offset < end:
                return OffsetAnswer(offset=record.offset, timestamp=record.timestamp)
        return OffsetAnswer(offset=-1)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        return [
            ActiveProducer(
                producer_id=producer_id,
                producer_epoch=each.epoch,
                last_sequence=each.last_sequence,
                last_timestamp_ms=each.timestamp,
                coordinator_epoch=each.coordinator_epoch,
                transaction_start_offset=each.current_txn_first_offset,
            )
            for producer_id, each in self.logs[partition].producers.items()
        ]

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        log = self.logs[partition]
        log.start = log.end if offset == -1 else offset
        return log.start

    # --- administration ---

    def note_change(
        self, principal: Principal | None, what: str, names: Sequence[str], errors: Iterable[str] = ()
    ) -> None:
        self.changes.append((str(principal), what, list(names), list(errors)))

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        self.requests.append(request)
        return cast(Reply, self._control(request))

    def _control(self, request: Request[Any]) -> object:
        match request:
            case CreateTopics():
                return {new.name: self._create(new, request.validate_only) for new in request.topics}
            case DeleteTopics():
                return {name: self.refuse or self._delete(cast(str, name)) for name in request.topics}
            case CreatePartitions():
                return {
                    new.topic: self.refuse or self._grow(new.topic, new.count, request.validate_only)
                    for new in request.topics
                }
            case AlterConfigs():
                return {resource: self.refuse or self._alter(request, resource) for resource in request.resources}
            case ElectLeaders():
                every = [(t.name, p) for t in self._image.topics.values() for p in t.partitions]
                return dict.fromkeys(request.partitions or every, self.refuse)
            case AlterRoute():
                if self.refuse is not None:
                    raise self.refuse.exception()
                controller = SimpleNamespace(image=self._image, settings=self.settings, liveness=None)
                self.apply(*alter_route(cast(ControllerState, controller), request).records)
                return None
            case AlterClientQuotas():
                return [self.refuse for _ in request.alterations]
            case CreateAcls():
                return [self.refuse for _ in request.acls]
            case DeleteAcls():
                return [tuple(acl for _, acl in each.among(self._image.acls.items())) for each in request.filters]
            case AlterReassignments():
                return {(r.topic, r.partition): self.refuse for r in request.reassignments}
        raise AssertionError(request)

    def _create(self, new: NewTopic, validate_only: bool) -> TopicCreated | ErrorDetail:
        if self.refuse:
            return self.refuse
        if new.name in self._image.topic_ids:
            return ErrorDetail(errors.TopicAlreadyExists, f"topic {new.name!r} already exists")
        if "/" in new.name or " " in new.name:
            return ErrorDetail(errors.InvalidTopicException, f"topic name {new.name!r} is not allowed")
        partitions = len(new.assignment) if new.assignment else max(new.partitions, 1)
        topic_id = UUID(int=0) if validate_only else self.add_topic(new.name, partitions, configs=new.configs)
        return TopicCreated(topic_id=topic_id, partitions=partitions, replication_factor=3, configs=new.configs)

    def _delete(self, name: str) -> ErrorDetail | None:
        self.apply(RemoveTopicRecord(topic_id=self._image.topic_ids[name]))
        return None

    def _grow(self, name: str, count: int, validate_only: bool) -> ErrorDetail | None:
        topic = self._image.topic(name)
        assert topic is not None
        if count <= len(topic.partitions):
            return ErrorDetail(
                errors.InvalidPartitions, f"topic {name!r} already has {len(topic.partitions)} partitions"
            )
        if not validate_only:
            for number in range(len(topic.partitions), count):
                self._add_partition(topic.topic_id, number)
        return None

    def _alter(self, request: AlterConfigs, resource: Any) -> ErrorDetail | None:
        known = TopicSettings if resource.resource_type == "topic" else BrokerSettings
        if known is TopicSettings and resource.name not in self._image.topic_ids:
            return ErrorDetail(errors.UnknownTopicOrPartition, f"there is no topic {resource.name!r}")
        names = known().model_dump(by_alias=True)
        for change in request.resources[resource]:
            if change.name not in names:
                return ErrorDetail(errors.InvalidConfig, f"{change.name} is no setting of a {resource.resource_type}")
        for change in request.resources[resource]:
            if request.validate_only:
                continue
            value = change.value if change.operation == "set" else None
            self.apply(
                ConfigRecord(
                    resource_type=resource.resource_type, resource_name=resource.name, name=change.name, value=value
                )
            )
        return None

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        known = self._image.topic_ids.get(new.name)
        return self.add_topic(new.name, max(new.partitions, 1), configs=new.configs) if known is None else known

    async def topic_id_or_create(self, name: str) -> UUID:
        known = self._image.topic_ids.get(name)
        if known is not None:
            return known
        if not self.settings.auto_create_topics_enable:
            raise errors.UnknownTopicOrPartition(f"topic {name!r} does not exist")
        return self.add_topic(name)
