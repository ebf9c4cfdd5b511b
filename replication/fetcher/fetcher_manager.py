"""All fetch loops of this broker, one for each leader that it follows; a slow or dead leader delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metadata.image import TopicIdPartition
from replication.fetcher.replica_fetcher import ReplicaFetcher
from replication.manager.registry import Registry
from replication.partition.replica import Replica
from replication.requests import LeaderChannel


class FetcherManager:
    """Owner of the fetch loops. Before `start` partitions are only recorded."""

    def __init__(self, registry: Registry, *, channels: Callable[[int], LeaderChannel]) -> None:
        self._registry = registry
        self._channels = channels
        self._fetchers: dict[int, ReplicaFetcher] = {}
        self._leader_of: dict[TopicIdPartition, int] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for leader, fetcher in self._fetchers.items():
            self._tasks[leader] = group.create_task(fetcher.run())

    def follow(self, replica: Replica, leader: int) -> None:
        """Follow a leader, or a new epoch of the same leader: answers to requests of the old epoch are ignored."""
        if self._leader_of.get(replica.key, leader) != leader:
            self.unfollow(replica)
        self._leader_of[replica.key] = leader
        fetcher = self._fetchers.get(leader)
        if fetcher is None:
            fetcher = self._fetchers[leader] = ReplicaFetcher(self._registry, leader, channels=self._channels)
            if self._group is not None:
                self._tasks[leader] = self._group.create_task(fetcher.run())
        fetcher.add(replica)

    def unfollow(self, replica: Replica) -> None:
        leader = self._leader_of.pop(replica.key, None)
        if leader is None:
            return
        fetcher = self._fetchers[leader]
        fetcher.remove(replica.key)
        if not fetcher.followed:
            del self._fetchers[leader]
            task = self._tasks.pop(leader, None)
            if task is not None:
                task.cancel()
