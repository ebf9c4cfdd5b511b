"""The replica manager: what a broker does with the partitions that metadata gives it.

It owns every replica's role and state; logs belong to the log manager, roles to the controller. All of it runs on one
event loop; `start` begins the background work, `stop` ends it, answers who still waits, and saves the high watermarks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from kraft.protocol.batches.batch_lookup import Looking, NeedsWorker
from kraft.protocol.errors import NotEnoughReplicas
from kraft.protocol.primitives import Buffer
from metadata.controller.requests import FailedReplicas, ReplicaLogEnd
from metadata.delta import MetadataDelta, delta_between
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.fetcher.fetcher_manager import FetcherManager
from replication.large_work import LargeWork
from replication.manager.failures import Failures
from replication.manager.fetch import Fetch, LaterFetch, Proof, nobody_doubts
from replication.manager.isr_keeper import AlterPartitions, IsrKeeper
from replication.manager.leader_flushes import LeaderFlushes
from replication.manager.logs import Logs
from replication.manager.offsets import Offsets
from replication.manager.partition_reader import PartitionReader
from replication.manager.produce import NO_ORIGINS, Origins, Produce
from replication.manager.registry import ANY_EPOCH, Registry
from replication.manager.roles import Roles
from replication.manager.status import (
    OpenTransactions,
    ReplicaStatus,
    ReplicationStatus,
    all_replica_status,
    open_transactions,
    replication_status,
)
from replication.partition.log import EpochEnd, ReplicaLog
from replication.producers.origin import CLIENT, COORDINATOR, Origin, Verification
from replication.producers.state import Producer, ProducerLimits
from replication.requests import (
    FetchRequest,
    FetchResponse,
    LeaderChannel,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)


class ReplicaManager:
    def __init__(
        self,
        node_id: int,
        *,
        environment: Environment,
        logs: Logs,
        channels: Callable[[int], LeaderChannel],
        alter_partition: AlterPartitions,
        events: Events,
        settings: Callable[[], BrokerSettings],
        topic_settings: Callable[[str], TopicSettings],
        is_trusted: Proof = nobody_doubts,
    ) -> None:
        """`settings` and `topic_settings` are those that hold when a change of the metadata is applied. `is_trusted` is
        asked before a consumer is told that its offset is beyond the end of a log: see `Fetch`."""
        self._registry = Registry(
            node_id=node_id, environment=environment, events=events, settings=settings, topic_settings=topic_settings
        )
        self._logs = logs
        self._isr = IsrKeeper(self._registry, alter_partition)
        self._fetchers = FetcherManager(self._registry, channels=channels)
        self._failures = Failures(self._registry, logs=logs)
        self._flushes = LeaderFlushes(self._registry)
        self._roles = Roles(
            self._registry,
            logs=logs,
            isr=self._isr,
            fetchers=self._fetchers,
            failures=self._failures,
            flushes=self._flushes,
        )
        self._failures.attach(self._roles)
        logs.watch_moves(self._log_moved)
        self._produce = Produce(self._registry, self._flushes)
        reader = PartitionReader(self._registry, on_join=self._isr.join)
        self._fetch = Fetch(self._registry, reader, is_trusted=is_trusted)
        self._offsets = Offsets(self._registry)
        self._large_work = LargeWork(environment.workers)
        self._background: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_going_on = False
        """A turn is arranged in which further partitions take on their roles."""

    # --- metadata

    @property
    def image(self) -> MetadataImage:
        """The image applied last."""
        return self._registry.image

    def apply_metadata(self, delta: MetadataDelta) -> None:
        """Take on what changed, in order. The first image has to be current (B2: this broker's own registration is
        in it): a topic id that it does not have frees the folder of its name.

        A delta that does not begin at the image applied last is computed again from there; an older one is ignored,
        and so is any once `stop` has begun: roles are not taken on any more.
        """
        if self._is_stopping or delta.new.offset < self._registry.image.offset:
            return
        if delta.old is not self._registry.image:
            delta = delta_between(self._registry.image, delta.new)
        self._fetch.wake_followers(self._roles.apply(delta))
        self._go_on()

    def _go_on(self) -> None:
        if self._roles.has_due and not self._is_going_on:
            self._is_going_on = True
            self._registry.clock.call_later(0, self._apply_due)

    def _apply_due(self) -> None:
        self._is_going_on = False
        if not self._is_stopping:
            self._fetch.wake_followers(self._roles.apply_due())
            self._go_on()

    def remove_strays(self) -> None:
        """Delete logs on disk that the current image does not give to this broker. Not once `stop` has begun: an image
        is taken on no more, and by the empty one of a start that is cut short every log would be a stray."""
        if not self._is_stopping:
            self._roles.remove_strays()

    # --- requests

    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        options: ProduceOptions,
        *,
        is_from_coordinator: bool = False,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """`is_from_coordinator`: internal topics, transactional batches and markers are theirs to write. Raises
        InvalidRequiredAcks 21, ThrottlingQuotaExceeded 89; all else is an outcome of its partition."""
        origin = COORDINATOR if is_from_coordinator else CLIENT
        outcomes = self._produce.begin(batches, options, origin=origin)
        return await outcomes if isinstance(outcomes, asyncio.Future) else outcomes

    def begin_produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        options: ProduceOptions,
        *,
        origin: Origin = CLIENT,
        origins: Origins = NO_ORIGINS,
    ) -> Mapping[TopicIdPartition, ProduceOutcome] | asyncio.Future[dict[TopicIdPartition, ProduceOutcome]]:
        """The same without a task where nothing has to be waited for. Requests take effect in the order in which this
        is called."""
        return self._produce.begin(batches, options, origin=origin, origins=origins)

    # --- transactions

    def begin_verification(
        self, partition: TopicIdPartition, producer_id: int, *, epoch: int, sequence: int, raises_epoch: bool
    ) -> Verification | None:
        """Before a client's transactional batch: the guard of its append, to be used once the coordinator has said that
        the partition is in the transaction (KIP-890); None where it is open here already.

        Raises InvalidProducerEpoch 47, and what a partition without a leader here is refused with."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.begin_verification(
            producer_id,
            epoch=epoch,
            sequence=sequence,
            raises_epoch=raises_epoch,
            limits=ProducerLimits.of(self._registry.settings()),
            now_ms=self._registry.clock.wall_ms(),
        )

    def is_verified(self, partition: TopicIdPartition, producer_id: int, verification: Verification) -> bool:
        """Whether nothing has ended the verification; where this broker leads no more, the append is refused anyway."""
        replica = self._registry.replicas.get(partition)
        return replica is None or replica.log.producer_states.verification(producer_id) is verification

    def producer(self, partition: TopicIdPartition, producer_id: int) -> Producer | None:
        """What a leader here knows of a producer. Raises KafkaError, as `begin_verification`."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.get(producer_id)

    def check_appendable(self, partition: TopicIdPartition) -> None:
        """Before a coordinator decides on what it could not append with acks=all. Raises NotEnoughReplicas 19 (P1), and
        what a partition without a leader here is refused with."""
        replica, state = self._registry.leader_or_raise(partition)
        if state.is_under_min_isr:
            raise NotEnoughReplicas(
                f"ISR of {replica.name} is {list(state.isr.maximal)}; min.insync.replicas asks for {state.min_isr}"
            )

    def producers(self, partition: TopicIdPartition) -> Sequence[tuple[int, Producer]]:
        """All that a replica here knows of producers, whether it leads or not, as Kafka's DescribeProducers tells it.
        Raises KafkaError."""
        return self._registry.replica_or_raise(partition).log.producer_states.items()

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        begun = self._fetch.begin(request)
        return await begun.come() if isinstance(begun, LaterFetch) else begun

    def begin_fetch(self, request: FetchRequest) -> FetchResponse | LaterFetch:
        """The same without a task where nothing has to be waited for."""
        return self._fetch.begin(request)

    async def list_offset(
        self,
        partition: TopicIdPartition,
        timestamp: int,
        *,
        is_consumer: bool = True,
        is_read_committed: bool = False,
        leader_epoch: int = ANY_EPOCH,
    ) -> OffsetAnswer:
        looking = Looking()
        while True:
            try:
                return self._offsets.list_offset(
                    partition,
                    timestamp,
                    is_consumer=is_consumer,
                    is_read_committed=is_read_committed,
                    leader_epoch=leader_epoch,
                    looking=looking,
                )
            except NeedsWorker as large:
                looking.known[large.base_offset] = await self._large_work.run(large.work)

    def offset_for_leader_epoch(
        self, partition: TopicIdPartition, epoch: int, *, current_leader_epoch: int = ANY_EPOCH
    ) -> EpochEnd | None:
        return self._offsets.offset_for_leader_epoch(partition, epoch, current_leader_epoch=current_leader_epoch)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        return await self._offsets.delete_records(partition, offset=offset, timeout_ms=timeout_ms)

    def log_ends(self, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        return self._offsets.log_ends(partitions)

    # --- status

    def status(self) -> ReplicationStatus:
        return replication_status(self._registry, fetch_sessions=self._fetch.session_count)

    def describe(self) -> Mapping[TopicIdPartition, ReplicaStatus]:
        return all_replica_status(self._registry)

    def open_transactions(self) -> Sequence[OpenTransactions]:
        """Of every replica that has undecided ones, the oldest first."""
        return open_transactions(self._registry)

    def high_watermarks(self) -> Mapping[TopicIdPartition, int]:
        """Of every replica here; retention and compaction stay below them (S1)."""
        return {key: replica.state.high_watermark for key, replica in self._registry.replicas.items()}

    # --- failed logs

    def failed_replicas(self) -> FailedReplicas:
        """For the heartbeat: the controller takes them out of ISR and leadership (KIP-858)."""
        return self._failures.report

    def on_failed_replicas(self, listener: Callable[[], None]) -> None:
        """`listener` is called whenever `failed_replicas` has changed."""
        self._failures.listen(listener)

    def _log_moved(self, key: TopicIdPartition, log: ReplicaLog) -> None:
        replica = self._registry.replicas.get(key)
        if replica is not None:
            replica.moved(log)

    # --- life

    async def start(self) -> None:
        started = asyncio.Event()
        self._background = asyncio.get_running_loop().create_task(self._run(started))
        self._background.add_done_callback(_report_failure)
        await started.wait()

    async def hand_over(self) -> None:
        """Before a controlled shutdown (B6): take no more records as a leader, and let what was taken be acknowledged.
        Others are answered 6 with nothing appended, and find the next leader."""
        await self._produce.hand_over()

    async def stop(self) -> None:
        self._is_stopping = True
        self._roles.stop()
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
        for purgatory in (self._registry.produces, self._registry.fetches, self._registry.deletes):
            purgatory.expire_all()
        await self._logs.checkpoint_high_watermarks(self.high_watermarks())

    async def _run(self, started: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._isr.watch_lag())
            group.create_task(self._isr.carry())
            group.create_task(self._flushes.run())
            group.create_task(self._failures.watch())
            group.create_task(self._checkpoint_high_watermarks())
            self._fetchers.start(group)
            started.set()

    async def _checkpoint_high_watermarks(self) -> None:
        """R7."""
        registry = self._registry
        while True:
            await registry.clock.sleep(registry.settings().replica_high_watermark_checkpoint_interval_ms)
            try:
                await self._logs.checkpoint_high_watermarks(self.high_watermarks())
            except OSError as error:
                registry.events.emit("high_watermark_checkpoint_failed", error=str(error))


def _report_failure(task: asyncio.Task[None]) -> None:
    """A broken invariant in the background: the loop's handler decides; the node stops rather than serves."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "replication has stopped", "exception": error, "task": task})
