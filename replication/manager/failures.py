"""Replicas whose log has failed: reported to the controller, and tried again until they work.

Owns `registry.offline` (the log is not usable) and `registry.read_only` (its disk is full). The controller learns of
both with each heartbeat and removes such a replica from the ISR (KIP-858). A log is opened again only after that:
opening may truncate it, and an ISR member may not lose records that it has acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from kraft.protocol.errors import KafkaError
from metadata.controller.requests import NO_FAILED_REPLICAS, FailedReplicas
from metadata.image import PartitionImage, TopicIdPartition
from replication.manager.logs import Logs
from replication.manager.registry import Registry
from replication.partition.states import OfflineState

LOG_RETRY_MS_FIRST = 1_000
"""Wait before a failed log is tried again; doubles with every failure that follows within the longest wait."""

LOG_RETRY_MS_MAX = 30_000


class FailedRoles(Protocol):
    """Changes of a replica's role when its log fails, and when it works again."""

    def stop_failed(self, key: TopicIdPartition) -> None: ...
    def resume(self, key: TopicIdPartition) -> None: ...


class Failures:
    def __init__(self, registry: Registry, *, logs: Logs) -> None:
        self._registry = registry
        self._logs = logs
        self._roles: FailedRoles | None = None
        self._listeners: list[Callable[[], None]] = []
        self._retry_ms: dict[TopicIdPartition, int] = {}
        self._retry_at_ms: dict[TopicIdPartition, int] = {}
        self._worked_at_ms: dict[TopicIdPartition, int] = {}
        self._changed = asyncio.Event()
        self._report = NO_FAILED_REPLICAS

    def attach(self, roles: FailedRoles) -> None:
        self._roles = roles
        self._logs.watch_failures(self.log_failed, self._can_do_without)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `report` has changed."""
        self._listeners.append(listener)

    def report(self) -> FailedReplicas:
        """For the heartbeat: the controller takes these replicas out of ISR and leadership (KIP-858)."""
        return self._report

    # --- failing

    def log_failed(self, key: TopicIdPartition, reason: str, is_readable: bool, /) -> None:
        """Called from within the log's own methods: the replica changes its role in the next turn of the loop."""
        registry = self._registry
        replica = registry.replicas.get(key)
        if replica is None or (is_readable and key in registry.read_only):
            return
        if is_readable:
            registry.read_only[key] = reason
            registry.events.emit("replica_read_only", topic=replica.topic, partition=key.partition, reason=reason)
            self._note(key)
        asyncio.get_running_loop().call_soon(self._stop, key, reason, is_readable)

    def _can_do_without(self, key: TopicIdPartition, /) -> bool:
        """Another replica is in sync, and has the records that this log would lose."""
        image = self._registry.image.partition(key.topic_id, key.partition)
        return image is not None and any(member != self._registry.node_id for member in image.isr)

    def _stop(self, key: TopicIdPartition, reason: str, is_readable: bool) -> None:
        replica = self._registry.replicas.get(key)
        if replica is None or self._roles is None:
            return
        self._roles.stop_failed(key)
        if not is_readable:
            self.take_offline(key, topic=replica.topic, image=replica.state.image, reason=reason)

    def take_offline(self, key: TopicIdPartition, *, topic: str, image: PartitionImage, reason: str) -> None:
        """The log is not usable: only this partition is lost, until the log works again."""
        registry = self._registry
        replica = registry.replicas.pop(key, None)
        registry.read_only.pop(key, None)
        registry.offline[key] = OfflineState(image=image, reason=reason)
        registry.events.emit("replica_offline", topic=topic, partition=key.partition, reason=reason)
        self._note(key)
        if replica is not None:
            registry.wake_all(replica)

    def _note(self, key: TopicIdPartition) -> None:
        now_ms = self._registry.clock.monotonic_ms()
        worked_at_ms = self._worked_at_ms.pop(key, None)
        if worked_at_ms is not None and now_ms - worked_at_ms > LOG_RETRY_MS_MAX:
            del self._retry_ms[key]
        retry_ms = self._retry_ms.get(key, LOG_RETRY_MS_FIRST)
        self._retry_at_ms[key] = now_ms + retry_ms
        self._retry_ms[key] = min(2 * retry_ms, LOG_RETRY_MS_MAX)
        self._tell()

    def forget(self, key: TopicIdPartition) -> None:
        """The partition is not here any more."""
        was_failed = self._drop(key)
        self._retry_ms.pop(key, None)
        self._worked_at_ms.pop(key, None)
        if was_failed:
            self._tell()

    def _drop(self, key: TopicIdPartition) -> bool:
        self._retry_at_ms.pop(key, None)
        was_offline = self._registry.offline.pop(key, None) is not None
        return self._registry.read_only.pop(key, None) is not None or was_offline

    def _tell(self) -> None:
        registry = self._registry
        self._report = FailedReplicas(offline=frozenset(registry.offline), read_only=frozenset(registry.read_only))
        self._changed.set()
        for listener in self._listeners:
            listener()

    # --- trying again

    async def watch(self) -> None:
        clock = self._registry.clock
        while True:
            now_ms = clock.monotonic_ms()
            for key in [key for key, at_ms in self._retry_at_ms.items() if at_ms <= now_ms]:
                await self._try(key)
            await self._pause()

    async def _pause(self) -> None:
        self._changed.clear()
        if not self._retry_at_ms:
            await self._changed.wait()
            return
        wait_ms = min(self._retry_at_ms.values()) - self._registry.clock.monotonic_ms()
        if wait_ms > 0:
            timer = self._registry.clock.call_later(wait_ms, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()

    async def _try(self, key: TopicIdPartition) -> None:
        registry = self._registry
        image = registry.image.partition(key.topic_id, key.partition)
        if image is None or (key in registry.offline and not self._may_reopen(image)):
            self._retry_at_ms[key] = registry.clock.monotonic_ms() + LOG_RETRY_MS_FIRST
            return
        topic = registry.image.topics[key.topic_id].name
        try:
            if key in registry.offline:
                await self._logs.reopen(key, topic=topic, is_last=image.isr == (registry.node_id,))
            else:
                await self._logs.check_room(key)
        except (KafkaError, OSError) as error:
            if key in self._retry_at_ms:
                registry.events.emit("replica_still_failed", topic=topic, partition=key.partition, reason=str(error))
                self._note(key)
            return
        self._works_again(key, topic)

    def _may_reopen(self, image: PartitionImage) -> bool:
        """The controller knows of the failure: no replica counts on this log, or it is the only one that there is."""
        own = self._registry.node_id
        return image.leader != own and (own not in image.isr or image.isr == (own,))

    def _works_again(self, key: TopicIdPartition, topic: str) -> None:
        if not self._drop(key):
            return  # removed meanwhile
        assert self._roles is not None
        self._worked_at_ms[key] = self._registry.clock.monotonic_ms()
        self._registry.events.emit("replica_works_again", topic=topic, partition=key.partition)
        self._roles.resume(key)
        self._tell()
