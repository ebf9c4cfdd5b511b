"""S10: striped over racks, leaders spread, fenced brokers last and never leaders."""

from __future__ import annotations

import random
from collections import Counter
from uuid import UUID

import pytest

from kraft.protocol.errors import InvalidReplicationFactor
from metadata.controller.decide.placement import place_replicas
from metadata.image import BrokerImage


def broker(broker_id: int, rack: str | None = None, *, fenced: bool = False) -> BrokerImage:
    return BrokerImage(
        broker_id=broker_id,
        broker_epoch=broker_id,
        incarnation_id=UUID(int=broker_id),
        rest="",
        kafka="",
        rack=rack,
        fenced=fenced,
        in_controlled_shutdown=False,
    )


@pytest.mark.parametrize("seed", range(20))
def test_striped_over_racks_and_balanced(seed: int) -> None:
    brokers = [broker(rack * 10 + index, f"r{rack}") for rack in range(3) for index in range(2)]
    placed = place_replicas(brokers, partitions=60, replication_factor=3, rng=random.Random(seed))
    assert all({replica // 10 for replica in replicas} == {0, 1, 2} for replicas in placed)
    assert set(Counter(replicas[0] for replicas in placed).values()) == {10}
    assert set(Counter(replica for replicas in placed for replica in replicas).values()) == {30}


@pytest.mark.parametrize("seed", range(20))
def test_more_replicas_than_racks(seed: int) -> None:
    brokers = [broker(1, "a"), broker(2, "a"), broker(3, "b")]
    placed = place_replicas(brokers, partitions=9, replication_factor=3, rng=random.Random(seed))
    assert all(sorted(replicas) == [1, 2, 3] for replicas in placed)


@pytest.mark.parametrize("seed", range(20))
def test_fenced_last_and_never_leader(seed: int) -> None:
    brokers = [broker(1), broker(2, fenced=True), broker(3), broker(4)]
    placed = place_replicas(brokers, partitions=12, replication_factor=4, rng=random.Random(seed))
    assert all(replicas[-1] == 2 for replicas in placed)
    assert set(Counter(replicas[0] for replicas in placed).values()) == {4}
    narrow = place_replicas(brokers, partitions=12, replication_factor=3, rng=random.Random(seed))
    assert all(2 not in replicas for replicas in narrow)


def test_refused() -> None:
    with pytest.raises(InvalidReplicationFactor, match="only 1"):
        place_replicas([broker(1)], partitions=1, replication_factor=2, rng=random.Random(1))
    with pytest.raises(InvalidReplicationFactor, match="fenced"):
        place_replicas([broker(1, fenced=True)], partitions=1, replication_factor=1, rng=random.Random(1))
