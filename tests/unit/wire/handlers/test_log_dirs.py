"""A broker's log directories for clients, with real logs on real disks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from kraft.protocol.messages.alter_replica_log_dirs_request import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequestData,
    AlterReplicaLogDirTopic,
)
from kraft.protocol.messages.alter_replica_log_dirs_response import AlterReplicaLogDirsResponseData
from kraft.protocol.messages.describe_log_dirs_request import DescribableLogDirTopic, DescribeLogDirsRequestData
from kraft.protocol.messages.describe_log_dirs_response import DescribeLogDirsResponseData, DescribeLogDirsResult
from kraft.wire.handlers import log_dirs
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage.log_manager import LogManager
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World
from tests.unit.storage.world import NOW_MS, RecordedEvents, batch, run

ID = UUID(int=7)
NEWEST = 5


class Disks:
    """Two directories, t-0 with three records in one of them."""

    def __init__(self, environment: Environment, manager: LogManager) -> None:
        self.manager = manager
        self.high_watermarks: dict[TopicIdPartition, int] = {TopicIdPartition(ID, 0): 2}
        log = self.create("t", 0)
        log.append_as_leader(batch(3), leader_epoch=0, now_ms=NOW_MS)
        self.size = log.size_bytes
        replicas = SimpleNamespace(high_watermarks=lambda: self.high_watermarks)
        self.world = World()
        self.admin = AdminClient(log_dirs.apis, self.world, environment=environment, logs=manager, replicas=replicas)

    def create(self, topic: str, partition: int) -> Any:
        return self.manager.get_or_create(topic=topic, topic_id=ID, partition=partition, settings=TopicSettings())

    async def describe(
        self, asked: dict[str, list[int]] | None = None, *, version: int = NEWEST
    ) -> dict[str, DescribeLogDirsResult]:
        topics = None
        if asked is not None:
            topics = [DescribableLogDirTopic.make(topic=name, partitions=indexes) for name, indexes in asked.items()]
        request = DescribeLogDirsRequestData.make(topics=topics)
        answer = await self.admin.ask_now(request, version, DescribeLogDirsResponseData)
        assert answer.error_code == 0
        return {Path(result.log_dir).name: result for result in answer.results}

    async def move(self, path: str, topic: str, partition: int, *, version: int = 2) -> int:
        wanted = AlterReplicaLogDir.make(
            path=path, topics=[AlterReplicaLogDirTopic.make(name=topic, partitions=[partition])]
        )
        request = AlterReplicaLogDirsRequestData.make(dirs=[wanted])
        answer = await self.admin.ask_now(request, version, AlterReplicaLogDirsResponseData)
        [result] = answer.results
        [outcome] = result.partitions
        assert (result.topic_name, outcome.partition_index) == (topic, partition)
        return outcome.error_code


def play(tmp_path: Path, test: Callable[[Disks], Any]) -> None:
    async def main(environment: Environment) -> None:
        manager = LogManager(
            environment,
            directories=[str(tmp_path / "a"), str(tmp_path / "b")],
            cluster_id="c",
            node_id=1,
            events=RecordedEvents(),
            settings=BrokerSettings,
        )
        await manager.start()
        try:
            await test(Disks(environment, manager))
        finally:
            await manager.stop()

    run(main)


@pytest.mark.parametrize("version", range(1, 6))
def test_directories_are_described(tmp_path: Path, version: int) -> None:
    async def test(disks: Disks) -> None:
        found = await disks.describe(version=version)
        assert sorted(found) == ["a", "b"]
        assert found["a"].log_dir == str(tmp_path / "a")
        [topic] = found["a"].topics
        [partition] = topic.partitions
        assert (topic.name, partition.partition_index, partition.partition_size) == ("t", 0, disks.size)
        assert (partition.offset_lag, partition.is_future_key) == (0, False)
        assert not found["b"].topics
        space = (found["b"].total_bytes, found["b"].usable_bytes)
        assert space == (-1, -1) if version < 4 else 0 < space[1] < space[0]

    play(tmp_path, test)


def test_lag_of_requested_partitions(tmp_path: Path) -> None:
    async def test(disks: Disks) -> None:
        disks.create("u", 1)
        key = TopicIdPartition(ID, 1)
        [topic] = (await disks.describe({"u": [1, 2], "none": [0]}))["b"].topics
        assert [item.offset_lag for item in topic.partitions] == [-1], "no replica uses it"
        disks.high_watermarks[key] = 5
        [topic] = (await disks.describe({"u": [1]}))["b"].topics
        assert [item.offset_lag for item in topic.partitions] == [5]
        assert not any(result.topics for result in (await disks.describe({})).values())

    play(tmp_path, test)


def test_a_failed_directory_is_named_with_its_error(tmp_path: Path) -> None:
    async def test(disks: Disks) -> None:
        broken = next(each for each in disks.manager.directories() if each.path == str(tmp_path / "a"))
        broken.offline_reason = "EIO"
        found = await disks.describe()
        assert (found["a"].error_code, list(found["a"].topics), found["b"].error_code) == (56, [], 0)
        assert await disks.move(str(tmp_path / "a"), "u", 1) == 56

    play(tmp_path, test)


@pytest.mark.parametrize("version", [1, 5])
def test_a_replica_that_moves_is_described_twice_until_it_has_moved(tmp_path: Path, version: int) -> None:
    async def test(disks: Disks) -> None:
        log = disks.manager.get(TopicIdPartition(ID, 0))
        assert log is not None
        assert await disks.move(str(tmp_path / "b"), "t", 0) == 0
        assert await disks.move(str(tmp_path / "b"), "t", 0) == 0, "it is on its way there"
        log.append_as_leader(batch(4), leader_epoch=0, now_ms=NOW_MS)
        found = await disks.describe(version=version)
        [topic] = found["a"].topics
        assert [(each.offset_lag, each.is_future_key) for each in topic.partitions] == [(0, False)]
        [topic] = found["b"].topics
        [copy] = topic.partitions
        assert copy.is_future_key
        assert copy.offset_lag in (0, 4, 7)
        async with asyncio.timeout(20):
            while log is disks.manager.get(TopicIdPartition(ID, 0)):  # noqa: ASYNC110 nothing else tells
                await asyncio.sleep(0.01)
        found = await disks.describe(version=version)
        assert not found["a"].topics
        [topic] = found["b"].topics
        assert [(each.offset_lag, each.is_future_key) for each in topic.partitions] == [(0, False)]

    play(tmp_path, test)


@pytest.mark.parametrize("version", [1, 2])
def test_where_replicas_are_to_be(tmp_path: Path, version: int) -> None:
    async def test(disks: Disks) -> None:
        assert await disks.move(str(tmp_path / "a"), "t", 0, version=version) == 0, "there it is"
        assert await disks.move(str(tmp_path / "none"), "t", 0, version=version) == 57
        assert disks.admin.gateway.changes == [
            ("AlterReplicaLogDirs", ["t-0"], []), ("AlterReplicaLogDirs", ["t-0"], ["LOG_DIR_NOT_FOUND"]),
        ]  # fmt: skip
        assert await disks.move(str(tmp_path / "a"), "u", 1, version=version) == 3
        disks.world.start(1)
        disks.world.create("u", (1,), (1,))
        assert await disks.move(str(tmp_path / "a"), "u", 1, version=version) == 9
        disks.create("u", 1)
        [topic] = (await disks.describe({"u": [1]}))["a"].topics
        assert topic.name == "u", "the wish was kept until the replica came"

    play(tmp_path, test)
