"""What a shard of a coordinator says of an append that has failed, before any callback of it has run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.shares import decide
from kraft.coordinators.shares.shard import ShareStateShard
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.errors import CoordinatorNotAvailable, NotEnoughReplicas
from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.requests import ProduceOutcome
from tests.unit.replication.harness.virtual import environment, run

TOPIC_ID = UUID(int=1)
WHERE = TopicIdPartition(TOPIC_ID, 0)


class Replicas:
    """A log that has too few replicas in sync: it refuses at once, in the step that asks."""

    def __init__(self) -> None:
        self.produce = self.offsets = self
        self.deleted_to: list[int] = []

    def check_appendable(self, partition: TopicIdPartition) -> None:
        """There were enough when the coordinator decided."""

    async def outcomes(self, batches: Mapping[TopicIdPartition, bytes], *_: Any, **__: Any) -> Any:
        return {key: ProduceOutcome(error_code=NotEnoughReplicas.code) for key in batches}

    def offset_for_leader_epoch(self, *_: Any) -> Any:
        return SimpleNamespace(end_offset=50)

    async def delete_records(self, _: TopicIdPartition, *, offset: int, **__: Any) -> None:
        self.deleted_to.append(offset)


def test_nothing_is_deleted_for_a_snapshot_that_was_not_written():
    """The snapshot is refused in the same turn in which the coordinator prunes its log."""

    async def story() -> None:
        replicas, failed = Replicas(), list[Any]()
        context = CoordinatorContext(
            node_id=1,
            environment=environment(1),
            replicas=cast(Any, replicas),
            settings=lambda: SimpleNamespace(share_coordinator_write_timeout_ms=1_000),  # type: ignore[return-value,arg-type]
            topic_settings=lambda _: TopicSettings(),
            image=cast(Any, None),
            has_session=lambda: True,
        )
        shard = ShareStateShard(WHERE, 0, context, on_failed=failed.append)
        shard._is_loaded = True
        key = ShareKey("g", TOPIC_ID, 0)
        written = shard.append(
            [(key, decide.initialize(None, state_epoch=1, start_offset=0, leader_epoch=0, now_ms=0))]
        )
        pruned = asyncio.get_running_loop().create_task(shard.prune())
        for task in (written, pruned):
            with pytest.raises(CoordinatorNotAvailable):
                await task
        assert replicas.deleted_to == []
        assert failed == [shard]

    run(story())
