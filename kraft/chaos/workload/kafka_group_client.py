"""A member of a group made of aiokafka's consumer: it joins, sends heartbeats and finds its coordinator by itself.

A commit is sent once, in the generation in which the member received the records: a retry of the library after a
rebalance would send the new generation with old offsets. A rebalance waits for the current batch of the member, as for
a Java consumer, which rejoins within `poll`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from kraft.chaos.workload.group_client import CommitResult, MemberRecords, Membership, PollResult, of_commit
from kraft.chaos.workload.kafka_client import (
    METADATA_AGE_MS,
    NO_LOGIN,
    RETRY_BACKOFF_MS,
    Address,
    lead_through,
    started,
)
from kraft.chaos.workload.requests import value_of

REQUEST_TIMEOUT_MS: Final = 5_000
CLOSE_LIMIT_S: Final = 5.0
NO_GENERATION: Final = -1


class KafkaGroupClient:
    """Implements `GroupClient`."""

    def __init__(
        self,
        name: str,
        address: Address,
        membership: Membership,
        *,
        brokers: Sequence[int],
        now_us: Callable[[], int],
        login: Mapping[str, Any] = NO_LOGIN,
    ) -> None:
        """`address`: `host:port` of this client's link to the Kafka port of a broker. `login`: arguments of aiokafka
        with which the client logs in."""
        self._login = login
        self._name = name
        self._address = address
        self._membership = membership
        self._brokers = brokers
        self._addresses: dict[int, str] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._rebalances = Rebalances(now_us)
        self._given_in = 0
        """The number of the assignment whose records are being processed."""

    async def open(self, nodes: Sequence[int]) -> None:
        for node in sorted({*self._brokers, *nodes}):
            self._addresses[node] = await self._address(self._name, node)

    async def poll(self, node: int, *, wait_ms: int) -> PollResult:
        rebalances = self._rebalances
        rebalances.is_idle.set()
        try:
            consumer = await self._joined(node)
            found = await consumer.getmany(timeout_ms=wait_ms, max_records=self._membership.batch)
        except (KafkaError, OSError) as error:
            return PollResult(outcome="info", kafka_code=_code_of(error), error=_text_of(error))
        given = [
            MemberRecords(
                partition=partition.partition,
                records=[(each.offset, value_of((each.value or b"").decode())) for each in records],
                next_offset=records[-1].offset + 1,
                since_us=rebalances.assigned_us,
            )
            for partition, records in found.items()
            if records
        ]
        if given:
            rebalances.is_idle.clear()
        self._given_in = rebalances.number
        return PollResult(outcome="ok", given=given, generation=_generation(consumer))

    async def commit(self, node: int, offsets: Mapping[int, int]) -> CommitResult:
        try:
            return await self._commit(offsets)
        except (KafkaError, OSError) as error:
            code = _code_of(error)
            return CommitResult(outcome=of_commit(code), kafka_code=code, error=_text_of(error))

    async def _commit(self, offsets: Mapping[int, int]) -> CommitResult:
        consumer = self._consumer
        assert consumer is not None, "nothing was read yet"
        coordinator = consumer._coordinator
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await coordinator.ensure_coordinator_known()
        except TimeoutError as error:
            raise CoordinatorNotAvailableError from error
        subscription = consumer._subscription.subscription
        is_old = self._given_in != self._rebalances.number or subscription is None or subscription.assignment is None
        if is_old or coordinator.generation == NO_GENERATION:
            return CommitResult(outcome="fail", error="the partitions were reassigned meanwhile")
        topic, generation = self._membership.topic, coordinator.generation
        positions = {TopicPartition(topic, number): OffsetAndMetadata(at, "") for number, at in offsets.items()}
        await coordinator._do_commit_offsets(subscription.assignment, positions)
        return CommitResult(outcome="ok", generation=generation)

    async def leave(self, node: int) -> None:
        self._rebalances.is_idle.set()
        if self._consumer is not None:
            await _stopped(self._consumer)

    async def close(self) -> None:
        """Close the connections, without a request to the coordinator."""
        consumer = self._consumer
        self._rebalances.is_idle.set()
        if consumer is None or consumer._closed:
            return
        consumer._coordinator.generation = NO_GENERATION  # a member without a generation sends no LeaveGroup
        await consumer._client.close()
        await _stopped(consumer)

    # --- joining ------------------------------------------------------------------------------------------------

    async def _joined(self, node: int) -> AIOKafkaConsumer:
        if self._consumer is None:
            membership, first = self._membership, self._addresses[node]
            consumer = AIOKafkaConsumer(
                bootstrap_servers=[first, *(at for at in self._addresses.values() if at != first)],
                client_id=self._name,
                group_id=membership.group,
                group_instance_id=membership.instance,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                session_timeout_ms=membership.session_ms,
                heartbeat_interval_ms=max(membership.session_ms // 10, 50),
                rebalance_timeout_ms=membership.session_ms,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                metadata_max_age_ms=METADATA_AGE_MS,
                **self._login,
            )
            lead_through(consumer._client, self._addresses)
            await started(consumer)
            consumer.subscribe([membership.topic], listener=self._rebalances)
            self._consumer = consumer
        return self._consumer


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Counts the assignments of one member, and delays a rebalance until the current batch is processed."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.number = 0
        self.assigned_us = 0
        """The committed offsets of the assignment are requested after this time."""
        self.is_idle = asyncio.Event()
        self.is_idle.set()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self.is_idle.wait()
        self.number += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.number += 1
        self.assigned_us = self._now_us()


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    """Stop the library; errors of its cancelled tasks are ignored."""
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=CLOSE_LIMIT_S)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


def _generation(consumer: AIOKafkaConsumer) -> int | None:
    generation: int = consumer._coordinator.generation
    return None if generation == NO_GENERATION else generation


def _code_of(error: Exception) -> int | None:
    return getattr(error, "errno", None) if isinstance(error, KafkaError) else None


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
