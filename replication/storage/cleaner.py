"""The cleaner: it compacts the logs with cleanup.policy compact, the dirtiest first (S2).

One pass at a time, so at most one offset map (`log.cleaner.dedupe.buffer.size`) is held. The end of each log's clean
part is saved per directory in `cleaner-offset-checkpoint` whenever it has moved. A log whose pass fails is left alone
until the node starts again, as in Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kraft.protocol.errors import KafkaError
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings
from replication.storage.cleaner_copy import ActiveProducers
from replication.storage.cleaner_log import CleanLimits
from replication.storage.cleaner_plan import CleaningPlan
from replication.storage.header_scan import DamagedLog
from replication.storage.log_directory import LogDirectory
from replication.storage.partition_log import PartitionLog


class CleanableLogs(Protocol):
    def governed_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]: ...
    def directories(self) -> Sequence[LogDirectory]: ...
    def high_watermark(self, partition: TopicIdPartition) -> int: ...
    async def checkpoint_cleaned(self, directory: LogDirectory) -> None: ...


class Cleaner:
    def __init__(
        self,
        environment: Environment,
        *,
        events: Events,
        settings: Callable[[], BrokerSettings],
        manager: CleanableLogs,
    ) -> None:
        self._environment = environment
        self._events = events
        self._settings = settings
        self._manager = manager
        self._uncleanable: set[PartitionLog] = set()

    async def clean_all(self) -> None:
        """One pass over every log that is worth it."""
        if not self._settings().log_cleaner_enable:
            return
        worth = sorted(self._plans(), key=lambda found: found[1].dirty_ratio, reverse=True)
        for log, _ in worth:
            if not (log.is_offline or log.cleaning.is_paused):
                await self._clean(log)
        for directory in self._manager.directories():
            await self._manager.checkpoint_cleaned(directory)

    def _plans(self) -> list[tuple[PartitionLog, CleaningPlan]]:
        plans = []
        for key, log in self._manager.governed_logs():
            if "compact" not in log.settings.cleanup_policy or log in self._uncleanable or log.cleaning.is_paused:
                continue
            plan = self._plan(log, self._manager.high_watermark(key))
            if plan.is_worth_it(log.settings):
                plans.append((log, plan))
        return plans

    def _plan(self, log: PartitionLog, high_watermark: int) -> CleaningPlan:
        unstable = log.producers.states.first_unstable_offset(high_watermark)
        stable = high_watermark if unstable is None else min(high_watermark, unstable)
        return log.cleaning.plan(
            log_start_offset=log.log_start_offset,
            last_stable_offset=min(stable, log.log_end_offset),
            now_ms=self._environment.clock.wall_ms(),
            settings=log.settings,
        )

    async def _clean(self, log: PartitionLog) -> None:
        settings = self._settings()
        limits = CleanLimits(map_bytes_max=settings.log_cleaner_dedupe_buffer_size)
        states = log.producers.states
        active = ActiveProducers(last_offsets=states.last_offsets(), marked_epochs=states.last_epochs())
        plan = self._plan(log, self._manager.high_watermark(TopicIdPartition(log.topic_id, log.partition)))
        try:
            done = await log.cleaning.run(plan, settings=log.settings, limits=limits, active=active)
        except (OSError, KafkaError, DamagedLog) as error:
            self._uncleanable.add(log)
            self._events.emit("log_not_cleaned", topic=log.topic, partition=log.partition, reason=str(error))
            return
        if done is not None:
            self._events.emit(
                "log_cleaned",
                topic=log.topic,
                partition=log.partition,
                from_offset=done.from_offset,
                to_offset=done.to_offset,
                bytes_before=done.bytes_before,
                bytes_after=done.bytes_after,
            )
