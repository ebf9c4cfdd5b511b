"""The replica manager: it applies metadata to the partitions of a broker, and serves their requests.

It owns every replica's role and state; the log manager owns the logs, the controller decides the roles. All of it runs
on one event loop; `start` begins the background work, `stop` ends it, answers waiting requests, and saves the high
watermarks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from metadata.delta import MetadataDelta, delta_between
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.fetcher.fetcher_manager import FetcherManager
from replication.manager.failures import Failures
from replication.manager.fetch import Fetch, Proof, nobody_doubts
from replication.manager.isr_keeper import AlterPartitions, IsrKeeper
from replication.manager.leader_flushes import LeaderFlushes
from replication.manager.logs import Logs
from replication.manager.offsets import Offsets
from replication.manager.partition_reader import PartitionReader
from replication.manager.produce import Produce
from replication.manager.producers import Producers
from replication.manager.registry import Registry
from replication.manager.roles import Roles
from replication.manager.status import (
    FollowerMarks,
    OpenTransactions,
    ReplicaDetail,
    ReplicaMarks,
    ReplicaStatus,
    ReplicationStatus,
    all_replica_status,
    follower_marks,
    open_transactions,
    replica_detail,
    replica_marks,
    replication_status,
)
from replication.partition.log import ReplicaLog
from replication.requests import (
    LeaderChannel,
)


class ReplicaManager:
    """Requests go to its parts: `produce`, `fetch`, `offsets` and `producers`; `failures` has the logs that failed."""

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
        self.failures = Failures(self._registry, logs=logs)
        self._flushes = LeaderFlushes(self._registry)
        self._roles = Roles(
            self._registry,
            logs=logs,
            isr=self._isr,
            fetchers=self._fetchers,
            failures=self.failures,
            flushes=self._flushes,
        )
        self.failures.attach(self._roles)
        logs.watch_moves(self._log_moved)
        self.produce = Produce(self._registry, self._flushes)
        reader = PartitionReader(self._registry, on_join=self._isr.join)
        self.fetch = Fetch(self._registry, reader, is_trusted=is_trusted)
        self.offsets = Offsets(self._registry)
        self.producers = Producers(self._registry)
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
        self.fetch.wake_followers(self._roles.apply(delta))
        self.fetch.on_acls(delta.new.acls)
        self._go_on()

    def _go_on(self) -> None:
        if self._roles.has_due and not self._is_going_on:
            self._is_going_on = True
            self._registry.clock.call_later(0, self._apply_due)

    def _apply_due(self) -> None:
        self._is_going_on = False
        if not self._is_stopping:
            self.fetch.wake_followers(self._roles.apply_due())
            self._go_on()

    def remove_strays(self) -> None:
        """Delete logs on disk that the current image does not assign to this broker. Not after `stop` has begun: no
        image is applied any more, and with the empty image of an interrupted start every log would be a stray."""
        if not self._is_stopping:
            self._roles.remove_strays()

    # --- status

    def status(self) -> ReplicationStatus:
        return replication_status(self._registry, fetch_sessions=self.fetch.session_count)

    def describe(self) -> Mapping[TopicIdPartition, ReplicaStatus]:
        return all_replica_status(self._registry)

    def marks(self, keys: Iterable[TopicIdPartition]) -> Mapping[TopicIdPartition, ReplicaMarks]:
        """Where the logs of these partitions begin and end here."""
        return replica_marks(self._registry, keys)

    def follower_marks(self, key: TopicIdPartition) -> Mapping[int, FollowerMarks]:
        """What this broker knows of the followers of a partition that it leads; empty when it does not."""
        return follower_marks(self._registry, key)

    def detail(self, key: TopicIdPartition) -> ReplicaDetail | None:
        """One replica with its followers and its failure; None where this broker has none."""
        return replica_detail(self._registry, key)

    def open_transactions(self) -> Sequence[OpenTransactions]:
        """Open transactions of every replica that has undecided ones, the oldest first."""
        return open_transactions(self._registry)

    def high_watermarks(self) -> Mapping[TopicIdPartition, int]:
        """High watermark of every replica here; retention and compaction stay below them (S1)."""
        return {key: replica.state.high_watermark for key, replica in self._registry.replicas.items()}

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
            group.create_task(self.failures.watch())
            group.create_task(self._checkpoint_high_watermarks())
            self._fetchers.start(group)
            started.set()

    async def _checkpoint_high_watermarks(self) -> None:
        """R7: saves the high watermarks now and then."""
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
