"""The replica manager: it applies metadata to the partitions of a broker, and serves their requests.

It owns every replica's role and state; the log manager owns the logs, the controller decides the roles. All of it runs
on one event loop; `start` begins the background work, `stop` ends it, answers waiting requests, and saves the high
watermarks.
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
        """`settings` and `topic_settings` return the settings at the moment when metadata is applied. `is_trusted` is
        called before a consumer is answered that its offset is beyond the end of a log: see `Fetch`."""
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
        """A turn of the loop is scheduled in which further partitions take their roles."""

    # --- metadata

    @property
    def image(self) -> MetadataImage:
        """The image applied last."""
        return self._registry.image

    def apply_metadata(self, delta: MetadataDelta) -> None:
        """Apply changes, in order. The first image has to be current (B2: it has this broker's own registration): a
        topic id that it does not have frees the folder of its name.

        A delta that does not begin at the image applied last is computed again from there; an older one is ignored, and
        so is any after `stop` has begun: no role is taken any more.
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
        """Delete logs on disk that the current image does not assign to this broker. Not after `stop` has begun: no
        image is applied any more, and with the empty image of an interrupted start every log would be a stray."""
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
        """Append batches. `is_from_coordinator`: coordinators may write internal topics, transactional batches and
        markers. Raises InvalidRequiredAcks 21, ThrottlingQuotaExceeded 89; all other errors are outcomes of a
        partition."""
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
        """The same as `produce`, without a task where nothing has to be waited for. Requests take effect in the order
        of these calls."""
        return self._produce.begin(batches, options, origin=origin, origins=origins)

    # --- transactions

    def begin_verification(
        self, partition: TopicIdPartition, producer_id: int, *, epoch: int, sequence: int, raises_epoch: bool
    ) -> Verification | None:
        """The guard of a client's first transactional append, for use after the coordinator has confirmed that the
        partition is in the transaction (KIP-890); None where it is open here already.

        Raises InvalidProducerEpoch 47, and the refusals of a partition without a leader here."""
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
        """Whether the verification is still valid; where this broker does not lead any more, the append is refused
        anyway."""
        replica = self._registry.replicas.get(partition)
        return replica is None or replica.log.producer_states.verification(producer_id) is verification

    def producer(self, partition: TopicIdPartition, producer_id: int) -> Producer | None:
        """A local leader's state of a producer. Raises KafkaError, as `begin_verification`."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.get(producer_id)

    def check_appendable(self, partition: TopicIdPartition) -> None:
        """Check before a coordinator decides that it could append with acks=all. Raises NotEnoughReplicas 19 (P1), and
        the refusals of a partition without a leader here."""
        replica, state = self._registry.leader_or_raise(partition)
        if state.is_under_min_isr:
            raise NotEnoughReplicas(
                f"ISR of {replica.name} is {list(state.isr.maximal)}; min.insync.replicas asks for {state.min_isr}"
            )

    def producers(self, partition: TopicIdPartition) -> Sequence[tuple[int, Producer]]:
        """A local replica's state of all producers, whether it leads or not, as in Kafka's DescribeProducers. Raises
        KafkaError."""
        return self._registry.replica_or_raise(partition).log.producer_states.items()

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        begun = self._fetch.begin(request)
        return await begun.come() if isinstance(begun, LaterFetch) else begun

    def begin_fetch(self, request: FetchRequest) -> FetchResponse | LaterFetch:
        """Answer a fetch, without a task where nothing has to be waited for."""
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
        """Open transactions of every replica that has undecided ones, the oldest first."""
        return open_transactions(self._registry)

    def high_watermarks(self) -> Mapping[TopicIdPartition, int]:
        """High watermark of every replica here; retention and compaction stay below them (S1)."""
        return {key: replica.state.high_watermark for key, replica in self._registry.replicas.items()}

    # --- failed logs

    def failed_replicas(self) -> FailedReplicas:
        """The failed replicas for the heartbeat: the controller removes them from ISR and leadership (KIP-858)."""
        return self._failures.report

    def on_failed_replicas(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `failed_replicas` has changed."""
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
        """Before a controlled shutdown (B6): accept no more records as a leader, and wait until the appended ones are
        acknowledged. Later requests are answered with 6 and nothing appended, and their clients find the next
        leader."""
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
