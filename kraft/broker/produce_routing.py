"""Routing a produce request. It is appended at most once by what happens here.

A batch that was surely not appended (no leader known, connection refused, NOT_LEADER before the append, a leader whose
log failed while another replica can lead) is routed again within LEADER_WAIT_MS: with new metadata, or after RETRY_MS.
One whose outcome is unknown is sent again only if it carries a producer id: its leader recognises it (D2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from msgspec import Struct

from kraft.broker.leaders import LEADER_WAIT_MS, MOVED, LeaderFinder
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.protocol.acks import ACKS
from kraft.protocol.batches.header import HEADER_BYTES, NO_PRODUCER_ID, header_at
from kraft.protocol.errors import (
    InvalidRequiredAcks,
    KafkaError,
    KafkaStorageError,
    LeaderNotAvailable,
    RequestTimedOut,
)
from kraft.protocol.primitives import Buffer
from metadata.environment import Clock, ConnectionClosed, NotConnected
from metadata.image import TopicIdPartition
from replication.requests import ProduceOutcome

_MOVED = frozenset(error.code for error in MOVED)
RETRY_MS = 50
"""Wait before a replica that should lead is asked again without news here; it refuses until it knows that it leads."""


class _Way(Struct, frozen=True):
    """How the batches of a request are to be written."""

    acks: int
    timeout_ms: int
    transactional_id: str | None


class ProduceRouter:
    def __init__(self, *, clock: Clock, publisher: MetadataPublisher, finder: LeaderFinder) -> None:
        self._clock = clock
        self._publisher = publisher
        self._finder = finder

    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        transactional_id: str | None = None,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        if acks not in ACKS:
            raise InvalidRequiredAcks(f"acks was {acks}; it must be 0, 1 or -1 (all)")
        deadline_ms = self._clock.monotonic_ms() + min(LEADER_WAIT_MS, timeout_ms)
        way = _Way(acks, timeout_ms, transactional_id)
        stand_ins: dict[TopicIdPartition, int] = {}
        seen = self._publisher.version
        outcomes = await self._produce_once(batches, stand_ins, way)
        pending: Mapping[TopicIdPartition, Buffer] = batches
        while True:
            pending = {
                p: batches[p]
                for p in pending
                if outcomes[p].error_code and self._is_worth_routing_again(p, outcomes[p], batches[p])
            }
            if not pending:
                return outcomes
            stand_ins = self._stand_ins({p: outcomes[p] for p in pending}, stand_ins)
            if not await self._wait(seen, stand_ins, deadline_ms=deadline_ms):
                return outcomes
            seen = self._publisher.version
            for p, outcome in (await self._produce_once(pending, stand_ins, way)).items():
                outcomes[p] = _after(outcomes[p], outcome)

    def _stand_ins(
        self, outcomes: Mapping[TopicIdPartition, ProduceOutcome], old: Mapping[TopicIdPartition, int]
    ) -> dict[TopicIdPartition, int]:
        """A node whose disk is full may not learn who leads instead of it: its metadata log has no room either."""
        failed = [p for p, outcome in outcomes.items() if p in old or outcome.error_code == KafkaStorageError.code]
        return {p: next_leader for p in failed if (next_leader := self._finder.stand_in(p)) is not None}

    async def _wait(self, seen: int, stand_ins: dict[TopicIdPartition, int], *, deadline_ms: int) -> bool:
        """Waits for news, and not for long: the new leader may be the one that has not heard of it yet. False when the
        time is over."""
        soon_ms = self._clock.monotonic_ms() + RETRY_MS
        if await self._publisher.wait_newer(seen, deadline_ms=min(deadline_ms, soon_ms)):
            stand_ins.clear()
            return True
        return self._clock.monotonic_ms() < deadline_ms

    async def _produce_once(
        self, batches: Mapping[TopicIdPartition, Buffer], stand_ins: Mapping[TopicIdPartition, int], way: _Way
    ) -> dict[TopicIdPartition, ProduceOutcome]:
        outcomes: dict[TopicIdPartition, ProduceOutcome] = {}
        by_leader: dict[int, dict[TopicIdPartition, Buffer]] = {}
        for partition, data in batches.items():
            try:
                leader = stand_ins.get(partition, self._finder.leader_of(partition).leader)
                by_leader.setdefault(leader, {})[partition] = data
            except KafkaError as error:
                outcomes[partition] = ProduceOutcome(error_code=error.code, message=error.message)
        if len(by_leader) == 1:
            ((leader, part),) = by_leader.items()
            outcomes.update(await self._produce_at(leader, part, way))
        elif by_leader:
            parts = await asyncio.gather(*(self._produce_at(leader, p, way) for leader, p in by_leader.items()))
            for part_outcomes in parts:
                outcomes.update(part_outcomes)
        return outcomes

    async def _produce_at(
        self, leader: int, batches: Mapping[TopicIdPartition, Buffer], way: _Way
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        try:
            return await self._finder.way_to(leader).produce(
                batches, acks=way.acks, timeout_ms=way.timeout_ms, transactional_id=way.transactional_id
            )
        except (ConnectionRefusedError, NotConnected):
            refused = LeaderNotAvailable(
                f"broker {leader} leads the partition and cannot be connected to; nothing was sent"
            )
            return _all_failed(batches, refused, is_appended=False)
        except (ConnectionClosed, OSError) as lost:
            unknown = RequestTimedOut(
                f"the connection to leader {leader} failed ({type(lost).__name__}); the records may have been written"
            )
            return _all_failed(batches, unknown, is_appended=True)
        except KafkaError as error:
            return _all_failed(batches, error, is_appended=False)

    def _is_worth_routing_again(self, partition: TopicIdPartition, outcome: ProduceOutcome, data: Buffer) -> bool:
        if outcome.is_appended and not _has_producer(data):
            return False
        if outcome.error_code == KafkaStorageError.code:
            return self._finder.stand_in(partition) is not None
        return outcome.error_code in _MOVED or (outcome.is_appended and outcome.error_code == RequestTimedOut.code)


def _has_producer(data: Buffer) -> bool:
    return len(data) >= HEADER_BYTES and header_at(data).producer_id != NO_PRODUCER_ID


def _after(earlier: ProduceOutcome, outcome: ProduceOutcome) -> ProduceOutcome:
    """What an earlier attempt may have appended stays in doubt until it is found."""
    in_doubt = earlier.is_appended and outcome.error_code != 0
    return replace(outcome, is_appended=True) if in_doubt else outcome


def _all_failed(
    batches: Mapping[TopicIdPartition, Buffer], error: KafkaError, *, is_appended: bool
) -> dict[TopicIdPartition, ProduceOutcome]:
    outcome = ProduceOutcome(error_code=error.code, message=error.message, is_appended=is_appended)
    return dict.fromkeys(batches, outcome)
