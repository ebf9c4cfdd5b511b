"""Placement of the replicas of new partitions (S10): striped over racks, leaders spread, fenced brokers last.

Partition p begins at rack `(start + p) mod racks` and takes one broker per rack in turn, so that replicas lie on as
many racks as there are. Within a rack unfenced brokers precede fenced ones, rotated from partition to
partition. The first replica is always unfenced. Pure but for the random start, from `rng`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from kraft.protocol.errors import InvalidReplicationFactor
from metadata.image import BrokerImage


def place_replicas(
    brokers: Iterable[BrokerImage], *, partitions: int, replication_factor: int, rng: random.Random
) -> list[tuple[int, ...]]:
    """Replicas of new partitions. Raises InvalidReplicationFactor 38 for too few brokers, or if all are fenced."""
    known = sorted(brokers, key=lambda broker: broker.broker_id)
    if replication_factor > len(known):
        raise InvalidReplicationFactor(
            f"replication factor {replication_factor} cannot be reached: only {len(known)} broker(s) are registered"
        )
    if not any(broker.is_active for broker in known):
        raise InvalidReplicationFactor("no replica can be placed: all brokers are fenced or shutting down")
    by_rack: dict[str, list[BrokerImage]] = {}
    for broker in known:
        by_rack.setdefault(broker.rack or "", []).append(broker)
    racks = [_Rack(by_rack[name], rng) for name in sorted(by_rack)]
    start = rng.randrange(len(racks))
    return [_place(racks, start=start, index=index, count=replication_factor) for index in range(partitions)]


class _Rack:
    """The brokers of one rack, in the order in which a partition takes them."""

    def __init__(self, brokers: list[BrokerImage], rng: random.Random) -> None:
        self._unfenced = [broker.broker_id for broker in brokers if broker.is_active]
        self._fenced = [broker.broker_id for broker in brokers if not broker.is_active]
        self._shift = rng.randrange(len(brokers))

    def ordered(self, round_: int) -> list[int]:
        return _rotated(self._unfenced, self._shift + round_) + _rotated(self._fenced, self._shift + round_)

    @property
    def can_lead(self) -> bool:
        return bool(self._unfenced)


def _place(racks: list[_Rack], *, start: int, index: int, count: int) -> tuple[int, ...]:
    first = (start + index) % len(racks)
    turn = racks[first:] + racks[:first]
    leader_at = next(position for position, rack in enumerate(turn) if rack.can_lead)
    turn = turn[leader_at:] + turn[:leader_at]
    waiting = [rack.ordered(index // len(racks)) for rack in turn]
    chosen: list[int] = []
    while len(chosen) < count:
        for queue in waiting:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return tuple(chosen)


def _rotated(ids: list[int], by: int) -> list[int]:
    by = by % len(ids) if ids else 0
    return ids[by:] + ids[:by]
