"""What a truncation or a new topic of an old name does to the checkpoints of its directory, after a loss of power."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage.log_manager import LogManager
from replication.storage.names import CHECKPOINT_CEILING_FILE
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, run

OTHER_ID = UUID("1f1e1d1c-1b1a-4918-9716-151413121110")
KEY, OTHER = TopicIdPartition(TOPIC_ID, 0), TopicIdPartition(OTHER_ID, 0)
SMALL = TopicSettings(segment_bytes=300)


def _manager(environment: Environment, path: Path) -> LogManager:
    return LogManager(
        environment,
        directories=[str(path)],
        events=RecordedEvents(),
        cluster_id="c1",
        node_id=1,
        settings=BrokerSettings,
        topic_settings_of=lambda _topic: SMALL,
    )


async def _left_behind(environment: Environment, path: Path, *, topic_id: UUID = TOPIC_ID) -> LogManager:
    """A log of 60 records in many segments, flushed, with checkpoints that say so; its log begins at 30."""
    manager = _manager(environment, path)
    await manager.start()
    log = manager.get_or_create(topic="t", topic_id=topic_id, partition=0, settings=SMALL)
    for _ in range(20):
        log.append_as_leader(batch(3), leader_epoch=0, now_ms=NOW_MS)
    await log.flush()
    log.maybe_increment_log_start(30)
    await manager.checkpoint_high_watermarks({TopicIdPartition(topic_id, 0): 60})
    assert not (path / "t-0" / CHECKPOINT_CEILING_FILE).exists(), "both kinds of checkpoints have been saved"
    return manager


def _power_lost(path: Path, copy: Path) -> Path:
    shutil.copytree(path, copy)
    return copy


def test_what_was_cut_is_not_believed_after_a_loss_of_power(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager = await _left_behind(environment, tmp_path / "a")
        log = manager.get(KEY)
        assert log is not None
        log.truncate_to(36)
        await log.flush()
        for _ in range(8):
            log.append_as_leader(batch(3, value=b"other"), leader_epoch=1, now_ms=NOW_MS)
        copy = _power_lost(tmp_path / "a", tmp_path / "b")
        victim = sorted((copy / "t-0").glob("*.log"))[-3]
        victim.write_bytes(victim.read_bytes()[:-10] + bytes(10))  # what was never synced did not wholly reach the disk
        again = _manager(environment, copy)
        await again.start()
        found = again.get(KEY)
        assert found is not None
        assert found.log_start_offset == 30
        assert int(victim.name[:20]) <= found.log_end_offset < 60, "the segment was scanned, below the recovery point"
        assert again.high_watermark(KEY) == 36
        await again.checkpoint_high_watermarks({KEY: 36})
        assert not (copy / "t-0" / CHECKPOINT_CEILING_FILE).exists()
        await again.stop()
        await manager.stop()

    run(play)


def test_a_topic_made_again_inherits_no_checkpoint_of_its_name(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager = await _left_behind(environment, tmp_path / "a")
        manager.delete(KEY)
        log = manager.get_or_create(topic="t", topic_id=OTHER_ID, partition=0, settings=SMALL)
        for _ in range(5):
            log.append_as_leader(batch(3), leader_epoch=0, now_ms=NOW_MS)
        await log.flush()
        again = _manager(environment, _power_lost(tmp_path / "a", tmp_path / "b"))
        await again.start()
        found = again.get(OTHER)
        assert found is not None
        assert (found.log_start_offset, found.log_end_offset) == (0, 15)
        assert again.high_watermark(OTHER) == 0
        await again.stop()
        await manager.stop()

    run(play)
