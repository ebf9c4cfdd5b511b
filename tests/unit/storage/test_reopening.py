"""Logs and directories that failed are loaded again: what is told, and what is found then."""

from __future__ import annotations

import random

import pytest

from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from kraft.protocol.errors import KafkaStorageError
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage.log_manager import LogManager
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, run

KEY = TopicIdPartition(TOPIC_ID, 0)
Told = list[tuple[TopicIdPartition, bool]]


async def _started(environment: Environment) -> tuple[LogManager, RecordedEvents, Told]:
    events, reported = RecordedEvents(), Told()
    manager = LogManager(
        environment, directories=["/d"], cluster_id="c1", node_id=1, settings=BrokerSettings, events=events
    )
    manager.watch_failures(lambda key, reason, is_readable: reported.append((key, is_readable)), lambda key: False)
    await manager.start()
    return manager, events, reported


def _create(manager: LogManager, partition: int = 0) -> PartitionLog:
    return manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=partition, settings=TopicSettings())


def _append(log: PartitionLog, count: int = 1) -> None:
    log.append_as_leader(batch(count), leader_epoch=0, now_ms=NOW_MS)


def test_a_full_disk_is_reported_and_asked_for_room() -> None:
    disk = Disk(random.Random(1))

    async def play(environment: Environment) -> None:
        manager, _, reported = await _started(environment)
        log = _create(manager)
        _append(log)
        await manager.check_room(KEY)
        disk.is_full = True
        with pytest.raises(KafkaStorageError):
            _append(log)
        assert reported == [(KEY, True)]
        assert not log.is_offline
        with pytest.raises(OSError, match="No space left"):
            await manager.check_room(KEY)
        disk.is_full = False
        await manager.check_room(KEY)
        _append(log)
        assert log.log_end_offset == 2
        assert not [name for name in environment.files.list_directory("/d") if name.startswith(".room")]
        await manager.stop()

    run(play, files=SimulatedFiles(disk))


def test_a_log_whose_disk_failed_is_loaded_again_with_what_is_in_it() -> None:
    disk = Disk(random.Random(1))

    async def play(environment: Environment) -> None:
        manager, events, reported = await _started(environment)
        logs = [_create(manager, index) for index in (0, 1)]
        for log in logs:
            _append(log, 3)
        await logs[0].flush()
        disk.fails = lambda path: "t-0" in path
        with pytest.raises(KafkaStorageError):
            _append(logs[0])
        assert reported[0] == (KEY, False)
        assert all(log.is_offline for log in logs), "the device has failed: the whole directory goes"
        with pytest.raises(OSError, match="Input/output"):
            await manager.reopen(KEY, topic="t", is_last=False)
        disk.fails = lambda path: False
        for index in (0, 1):
            await manager.reopen(TopicIdPartition(TOPIC_ID, index), topic="t", is_last=False)
        again = [_create(manager, index) for index in (0, 1)]
        assert [log.log_end_offset for log in again] == [3, 3]
        assert again[0] is not logs[0]
        _append(again[0])
        assert [name for name, _ in events.seen if name.startswith("log_directory_o")] == [
            "log_directory_opened",
            "log_directory_offline",
            "log_directory_online",
        ]
        await manager.stop()

    run(play, files=SimulatedFiles(disk))


def test_failed_log_is_loaded_later() -> None:
    disk = Disk(random.Random(1))
    path = "/d/t-0/partition.metadata"

    async def play(environment: Environment) -> None:
        manager, _, _ = await _started(environment)
        _append(_create(manager), 3)
        await manager.stop()
        environment.files.rename(path, "/d/away")
        manager, events, _ = await _started(environment)
        assert [name for name, _ in events.seen if name == "log_not_loaded"]
        with pytest.raises(KafkaStorageError, match="could not be loaded"):
            _create(manager)
        with pytest.raises(KafkaStorageError, match="is missing"):
            await manager.reopen(KEY, topic="t", is_last=False)
        environment.files.rename("/d/away", path)
        await manager.reopen(KEY, topic="t", is_last=False)
        assert _create(manager).log_end_offset == 3
        await manager.stop()

    run(play, files=SimulatedFiles(disk))


def test_reopening_what_works_or_is_not_there_changes_nothing() -> None:
    async def play(environment: Environment) -> None:
        manager, _, reported = await _started(environment)
        log = _create(manager)
        _append(log)
        await manager.reopen(KEY, topic="t", is_last=False)
        assert _create(manager) is log
        await manager.reopen(TopicIdPartition(TOPIC_ID, 5), topic="t", is_last=False)
        assert _create(manager, 5).log_end_offset == 0
        assert reported == []
        await manager.stop()

    run(play, files=SimulatedFiles(Disk(random.Random(1))))


def test_unreadable_partition_does_not_stop_the_start() -> None:
    disk = Disk(random.Random(1))

    async def play(environment: Environment) -> None:
        manager, _, _ = await _started(environment)
        logs = [_create(manager, index) for index in (0, 1)]
        for log in logs:
            _append(log, 3)
        await manager.stop(clean=False)
        disk.fails = lambda path: "t-0" in path
        manager, events, _ = await _started(environment)
        assert [fields["partition"] for name, fields in events.seen if name == "log_not_loaded"] == [0]
        assert _create(manager, 1).log_end_offset == 3
        disk.fails = lambda path: False
        await manager.reopen(KEY, topic="t", is_last=False)
        assert _create(manager).log_end_offset == 3
        await manager.stop()

    run(play, files=SimulatedFiles(disk))


def test_unfinished_folder_is_replaced() -> None:
    disk = Disk(random.Random(1))

    async def play(environment: Environment) -> None:
        manager, _, _ = await _started(environment)
        _create(manager)
        await manager.stop(clean=False)
        environment.files.open("/d/t-0/partition.metadata").truncate(0)
        disk.fails = lambda path: "t-0" in path
        manager, events, _ = await _started(environment)
        assert "log_not_loaded" in events.names()
        disk.fails = lambda path: False
        await manager.reopen(KEY, topic="t", is_last=False)
        assert "unfinished_log_set_aside" in events.names()
        assert _create(manager).log_end_offset == 0
        await manager.stop()

    run(play, files=SimulatedFiles(disk))
