"""P7: a produce that waits across a loss and return of leadership is not acknowledged with another leader's records."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from metadata.image import PartitionImage, TopicIdPartition
from replication.manager.delayed_produce import DelayedProduce
from replication.partition.leader import become_leader
from replication.partition.log import EpochEnd
from replication.requests import ProduceOutcome

KEY = TopicIdPartition(UUID(int=1), 0)
APPENDED = ProduceOutcome(base_offset=10, last_offset=12, leader_epoch=3, is_appended=True)


class LeaderAgain:
    """A replica that leads epoch 5 with everything up to 20 committed; epoch 3 of its log ends at `end_of_3`."""

    key = KEY
    name = "t-0"

    def __init__(self, end_of_3: EpochEnd | None) -> None:
        self.log = self
        self._end = end_of_3
        image = PartitionImage(
            topic_id=KEY.topic_id, partition=0, replicas=(1,), isr=(1,), leader=1, leader_epoch=5, partition_epoch=9
        )
        self.state = become_leader(image, end_offset=20, epoch_start_offset=15, high_watermark=20, min_isr=1, now_ms=0)

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd | None:
        assert epoch == 3
        return self._end


@pytest.mark.parametrize(
    ("end_of_3", "code"),
    [(EpochEnd(3, 15), 0), (EpochEnd(3, 13), 0), (EpochEnd(3, 12), 6), (EpochEnd(2, 15), 6), (None, 6)],
)
def test_p7_only_what_this_leader_appended_is_acknowledged(end_of_3: EpochEnd | None, code: int) -> None:
    async def story() -> None:
        outcomes = {KEY: APPENDED}
        operation = DelayedProduce([LeaderAgain(end_of_3)], outcomes)  # type: ignore[list-item]  # all it looks at
        assert operation.is_done
        assert outcomes[KEY].error_code == code
        assert outcomes[KEY].is_appended
        assert outcomes[KEY].isr == (() if code else (1,)), "who is acknowledged is told who has the records"

    asyncio.run(story())
