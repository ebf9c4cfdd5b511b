"""A leader epoch that the metadata does not know cannot be in a log: a disk has changed it (no CRC covers it)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from metadata.environment import Environment
from metadata.image import PartitionImage
from replication.manager.impossible_epochs import cut_impossible_epochs
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, load, run

IMAGE = PartitionImage(
    topic_id=TOPIC_ID, partition=0, replicas=(1, 2), isr=(1, 2), leader=1, leader_epoch=2, partition_epoch=5
)


@pytest.mark.parametrize(("leader_epoch", "end"), [(2, 4), (8, 4), (9, 6), (12, 6), (0, 2)])
def test_a_log_is_cut_where_its_first_impossible_epoch_begins(leader_epoch: int, end: int, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"))
        for epoch in (0, 2, 9):
            log.append_as_leader(batch(2), leader_epoch=epoch, now_ms=NOW_MS)
        events = RecordedEvents()
        cut_impossible_epochs(log, replace(IMAGE, leader_epoch=leader_epoch), topic="t", events=events)
        assert log.log_end_offset == end
        assert log.latest_epoch <= leader_epoch
        assert events.names() == (["impossible_epoch_cut"] if end < 6 else [])
        await log.close()

    run(play)
