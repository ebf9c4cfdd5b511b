"""LogManager: what survives a stop, a crash, a deletion; whose folder it is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from kraft.protocol.errors import InconsistentTopicId, KafkaStorageError
from metadata.durable_directories import make_durable_directories
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.producers.state import ProducerLimits
from replication.storage.log_directory import StartupError
from replication.storage.log_manager import LogManager
from replication.storage.partition_log import PartitionLog
from replication.storage.recovery import LoadPlan, load_log
from replication.storage.text_files import write_topic_id
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, run

KEY = TopicIdPartition(TOPIC_ID, 0)


def _manager(environment: Environment, *paths: Path, **changes: Any) -> tuple[LogManager, RecordedEvents]:
    events = RecordedEvents()
    options: dict[str, Any] = {"cluster_id": "c1", "node_id": 1, "settings": BrokerSettings, **changes}
    return LogManager(environment, directories=[str(path) for path in paths], events=events, **options), events


def _create(manager: LogManager, **changes: Any) -> PartitionLog:
    options: dict[str, Any] = {"topic": "t", "topic_id": TOPIC_ID, "partition": 0, "settings": TopicSettings()}
    return manager.get_or_create(**{**options, **changes})


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.parametrize("clean", [True, False])
def test_records_and_high_watermark_survive(clean: bool, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager).append_as_leader(batch(5), leader_epoch=2, now_ms=NOW_MS)
        await manager.checkpoint_high_watermarks({KEY: 3})
        await manager.stop(clean=clean, broker_epoch=7)
        marker = tmp_path / ".kafka_cleanshutdown"
        assert marker.exists() is clean
        if clean:
            assert marker.read_text() == '{"version":0,"brokerEpoch":7}'
        again, events = _manager(environment, tmp_path)
        await again.start()
        log = again.get(KEY)
        assert log is not None
        assert (log.log_end_offset, log.latest_epoch, again.high_watermark(KEY)) == (5, 2, 3)
        opened = [fields for name, fields in events.seen if name == "log_directory_opened"]
        assert opened[0]["was_clean"] is clean
        assert not marker.exists()
        await again.stop()

    run(play)


def test_nothing_vouches_for_a_log_that_was_not_loaded(tmp_path: Path) -> None:
    """A node that is stopped in order leaves its marker for what it has closed: this log is as a crash left it."""

    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager).append_as_leader(batch(5), leader_epoch=2, now_ms=NOW_MS)
        await manager.checkpoint_high_watermarks({KEY: 3})
        await manager.stop(clean=False)
        in_the_way = tmp_path / "t-0" / "00000000000000000005.snapshot.tmp"
        in_the_way.mkdir()
        second, events = _manager(environment, tmp_path)
        await second.start()
        assert second.get(KEY) is None
        assert "log_not_loaded" in events.names()
        await second.checkpoint_high_watermarks({})
        await second.stop()
        in_the_way.rmdir()
        third, events = _manager(environment, tmp_path)
        await third.start()
        opened = [fields for name, fields in events.seen if name == "log_directory_opened"]
        assert not opened[0]["was_clean"]
        log = third.get(KEY)
        assert log is not None
        assert (log.log_end_offset, third.high_watermark(KEY)) == (5, 3)
        await third.stop()

    run(play)


def test_folder_of_another_cluster_or_node_is_refused(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        await manager.stop()
        for wrong, text in (({"cluster_id": "c2"}, "cluster.id=c1"), ({"node_id": 2}, "node.id=1")):
            other, _ = _manager(environment, tmp_path, **wrong)
            with pytest.raises(StartupError, match=text) as raised:
                await other.start()
            assert "meta.properties" in str(raised.value)

    run(play)


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        other, _ = _manager(environment, tmp_path)
        with pytest.raises(StartupError, match="in use by another process"):
            await other.start()
        await manager.stop()

    run(play)


def test_topic_made_again_is_another_topic(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        old = _create(manager)
        old.append_as_leader(batch(5), leader_epoch=0, now_ms=NOW_MS)
        with pytest.raises(InconsistentTopicId):
            _create(manager, topic_id=UUID(int=5))
        manager.delete(KEY)
        with pytest.raises(KafkaStorageError):
            old.append_as_leader(batch(1), leader_epoch=0, now_ms=NOW_MS)
        new = _create(manager, topic_id=UUID(int=5), settings=TopicSettings(file_delete_delay_ms=0))
        assert new.log_end_offset == 0
        assert len(_names(tmp_path, "t-0.*-delete")) == 1
        await manager.stop()
        again, _ = _manager(environment, tmp_path)
        await again.start()
        assert not _names(tmp_path, "*-delete")
        assert list(again.all_partitions()) == [TopicIdPartition(UUID(int=5), 0)]
        await again.stop()

    run(play)


def test_deleted_folder_goes_after_its_delay(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager, settings=TopicSettings(file_delete_delay_ms=0))
        _create(manager, partition=1)
        manager.delete(KEY)
        manager.delete(TopicIdPartition(TOPIC_ID, 1))
        await manager.background_tasks.remove_due()
        left = _names(tmp_path, "*-delete")
        assert len(left) == 1
        assert left[0].startswith("t-1.")
        await manager.stop()

    run(play)


def test_new_partitions_go_to_the_emptiest_directory(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path / "a", tmp_path / "b")
        await manager.start()
        for partition in range(6):
            _create(manager, partition=partition)
        assert [len(_names(tmp_path / name, "t-*")) for name in "ab"] == [3, 3]
        await manager.stop()

    run(play)


def test_topic_settings_are_awaited_before_retention(tmp_path: Path) -> None:
    """A node that starts has no metadata yet, and may wait long for it: its topics may keep their records for ever."""

    async def play(environment: Environment) -> None:
        forever = TopicSettings(segment_bytes=150, retention_ms=-1)
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        log = _create(manager, settings=forever)
        for _ in range(6):
            log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
        await manager.checkpoint_high_watermarks({KEY: 12})
        await manager.stop()
        soon = BrokerSettings.model_validate({"log.retention.ms": 1, "producer.id.expiration.ms": 1})
        again, events = _manager(environment, tmp_path, settings=lambda: soon)
        await again.start()
        await again.background_tasks.apply_retention()
        await again.background_tasks.cleaner.clean_all()
        found = again.get(KEY)
        assert found is not None
        assert (found.log_start_offset, found.log_end_offset) == (0, 12)
        assert _create(again, settings=forever) is found
        await again.background_tasks.apply_retention()
        assert found.log_start_offset == 0
        again.update_settings(TOPIC_ID, TopicSettings(segment_bytes=150, retention_ms=1))
        await again.background_tasks.apply_retention()
        assert found.log_start_offset == 12
        assert events.names().count("segments_deleted") == 1
        await again.stop()

    run(play)


def test_a_refused_directory_is_not_written_when_the_node_stops(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager).append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
        await manager.checkpoint_high_watermarks({KEY: 2})
        await manager.stop()
        written = _files(tmp_path)
        stranger, _ = _manager(environment, tmp_path, cluster_id="c2")
        with pytest.raises(StartupError, match=r"cluster\.id=c1"):
            await stranger.start()
        await stranger.stop()
        assert _files(tmp_path) == written

    run(play)


def test_retention_works_below_the_checkpointed_high_watermark(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, events = _manager(environment, tmp_path)
        await manager.start()
        settings = TopicSettings(segment_bytes=150, retention_ms=1, file_delete_delay_ms=0)
        log = _create(manager, settings=settings)
        for _ in range(6):
            log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
        await manager.background_tasks.apply_retention()
        assert log.log_start_offset == 0
        await manager.checkpoint_high_watermarks({KEY: 7})
        await manager.background_tasks.apply_retention()
        assert log.log_start_offset == 6
        await manager.checkpoint_high_watermarks({KEY: 12})
        await manager.background_tasks.apply_retention()
        assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (12, 12, 0)
        assert events.names().count("segments_deleted") == 2
        await manager.background_tasks.remove_due()
        async with asyncio.timeout(10):
            while len(_names(tmp_path / "t-0", "*.log*")) > 1:  # the loop in the background may be at it
                await environment.clock.sleep(10)
        await manager.stop()

    run(play)


def test_unreadable_topic_id_leaves_the_folder_alone(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager)
        await manager.stop()
        (tmp_path / "t-0" / "partition.metadata").write_text("garbage")
        again, events = _manager(environment, tmp_path)
        await again.start()
        assert "log_not_loaded" in events.names()
        with pytest.raises(KafkaStorageError, match="could not be loaded"):
            _create(again)
        assert (tmp_path / "t-0" / "00000000000000000000.log").exists()
        await again.stop()

    run(play)


@pytest.mark.parametrize(
    ("left", "clean"),
    [(b"", False), (b"version: 0\ntopic_", False), (bytes(40), False), (None, False), (b"", True)],
)
def test_a_folder_whose_topic_id_never_became_durable_makes_room(
    left: bytes | None, clean: bool, tmp_path: Path
) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager)
        await manager.stop(clean=clean)
        identity = tmp_path / "t-0" / "partition.metadata"
        if left is None:
            identity.unlink()
        else:
            identity.write_bytes(left)
        again, events = _manager(environment, tmp_path)
        await again.start()
        assert "unfinished_log_set_aside" in events.names()
        assert _create(again, topic_id=UUID(int=9)).log_end_offset == 0
        assert len(_names(tmp_path, "t-0.*-delete")) == 1
        await again.stop()

    run(play)


def test_a_log_start_that_moved_on_is_no_sign_of_a_durable_topic_id(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        log = _create(manager)
        log.append_as_leader(batch(5), leader_epoch=0, now_ms=NOW_MS)
        log.maybe_increment_log_start(5)
        await manager.checkpoint_high_watermarks({KEY: 5})  # and recovery points: as deleting records does in time
        await manager.checkpoint_high_watermarks({KEY: 5})
        await manager.stop(clean=False)
        (tmp_path / "t-0" / "partition.metadata").write_bytes(b"")
        again, events = _manager(environment, tmp_path)
        await again.start()
        assert "unfinished_log_set_aside" in events.names()
        await again.stop()

    run(play)


def test_empty_folder_is_replaced_despite_old_checkpoint(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        _create(manager).append_as_leader(batch(5), leader_epoch=0, now_ms=NOW_MS)
        await manager.stop()
        (tmp_path / ".kafka_cleanshutdown").unlink()
        for path in (tmp_path / "t-0").iterdir():  # made again, and power was lost before its names were synced
            path.unlink()
        again, events = _manager(environment, tmp_path)
        await again.start()
        assert "unfinished_log_set_aside" in events.names()
        assert _create(again, topic_id=UUID(int=9)).log_end_offset == 0
        await again.stop()

    run(play)


def test_an_empty_log_that_starts_late_is_durable_once_it_is_loaded(tmp_path: Path) -> None:
    """A killed process leaves the topic id in the page cache, and what is loaded counts as flushed."""
    disk = Disk(random.Random(1))
    plan = LoadPlan(
        files=SimulatedFiles(disk),
        folder="/logs/t-0",
        settings=TopicSettings(),
        recovery_point=0,
        log_start_offset=5,
        is_clean=False,
        now_ms=NOW_MS,
        producer_limits=ProducerLimits.of(BrokerSettings()),
    )
    plan.files.make_directories(plan.folder)
    write_topic_id(plan.files, "/logs/t-0/partition.metadata", TOPIC_ID, sync=False)
    assert load_log(plan).log_end_offset == 5
    assert not disk.file("/logs/t-0/partition.metadata").unsynced
    assert "partition.metadata" in disk.directory("/logs/t-0").durable


def test_a_flushed_folder_that_lost_its_topic_id_is_left_alone(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, tmp_path)
        await manager.start()
        log = _create(manager)
        log.append_as_leader(batch(5), leader_epoch=0, now_ms=NOW_MS)
        await log.flush()
        await manager.checkpoint_high_watermarks({KEY: 0})  # and the recovery points, of a log that is new
        await manager.stop(clean=False)
        (tmp_path / "t-0" / "partition.metadata").write_bytes(b"")
        for _ in range(2):  # the checkpoints that the first start leaves do not forget it
            again, events = _manager(environment, tmp_path)
            await again.start()
            assert "log_not_loaded" in events.names()
            await again.stop()

    run(play)


def test_new_folders_survive_a_loss_of_power() -> None:
    for seed in range(20):
        disk = Disk(random.Random(seed))
        files = SimulatedFiles(disk)
        make_durable_directories(files, "/data/logs/one")
        make_durable_directories(files, "/data/logs/two")
        disk.lose_power()
        assert files.list_directory("/data/logs") == ["one", "two"]


def test_a_node_that_begins_to_lead_many_partitions_waits_for_no_disk() -> None:
    """Found by a soak: 1,000 epochs at once took longer than a session, each time that the node led again."""
    disk = Disk(random.Random(1))

    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, Path("/data"))
        await manager.start()
        before = disk.syncs
        logs = [_create(manager, partition=partition) for partition in range(20)]
        for epoch in range(3):
            for log in logs:
                log.assign_epoch_start(epoch, log.log_end_offset)
        assert disk.syncs == before
        await manager.stop(clean=False)

    run(play, files=SimulatedFiles(disk))


@pytest.mark.parametrize("seed", range(10))
def test_the_epoch_of_a_flushed_record_survives_a_loss_of_power(seed: int) -> None:
    disk = Disk(random.Random(seed))

    async def play(environment: Environment) -> None:
        manager, _ = _manager(environment, Path("/data"))
        await manager.start()
        log = _create(manager)
        log.assign_epoch_start(3, 0)
        log.append_as_leader(batch(2), leader_epoch=3, now_ms=NOW_MS)
        await log.flush()
        log.assign_epoch_start(5, 2)
        log.assign_epoch_start(7, 2)
        log.append_as_leader(batch(2), leader_epoch=7, now_ms=NOW_MS)
        await log.flush()
        await manager.checkpoint_recovery(manager.directories()[0])
        log.assign_epoch_start(8, 4)
        disk.lose_power()
        again, _ = _manager(environment, Path("/data"))
        await again.start()
        found = again.get(KEY)
        assert found is not None
        assert found.log_end_offset == 4
        for epoch, end_offset in ((3, 2), (7, 4)):
            answer = found.end_offset_for_epoch(epoch)
            assert answer is not None
            assert (answer.epoch, answer.end_offset) == (epoch, end_offset)
        assert found.end_offset_for_epoch(5) == found.end_offset_for_epoch(3)
        await again.stop()

    run(play, files=SimulatedFiles(disk))
