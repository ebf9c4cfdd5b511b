"""Any node takes any request about a transactional id: in process when its coordinator is here, else one hop to it.

Asking twice does no more than asking once: a producer that begins again is known by the key of that request, or fences
itself at worst, and an end that is repeated is known by its epoch (KIP-890). So a lost answer is asked for again, as is
a coordinator that moves, loads, or is still ending the transaction before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from kraft.broker.gateway import Gateway
from kraft.coordinators.coordinator_client import (
    COORDINATOR_WAIT_MS,
    NOT_CARRIED_OUT,
    OUTCOME_UNKNOWN,
    Answer,
    CoordinatorClient,
)
from kraft.coordinators.shards import partition_of
from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM
from kraft.coordinators.transactions.list_filters import Listed, ListFilters
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.errors import (
    ConcurrentTransactions,
    KafkaError,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from metadata.environment import Clock
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC

RETRIABLE = (*NOT_CARRIED_OUT, *OUTCOME_UNKNOWN, ConcurrentTransactions)

Outcomes = Mapping[TopicPartition, KafkaError | None]


class Coordinator(Protocol):
    """The transaction coordinator of one node."""

    async def init(
        self,
        transactional_id: str,
        *,
        timeout_ms: int,
        expected: Producer | None = None,
        key: bytes = b"",
        owner: str = "",
    ) -> Producer: ...

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None: ...

    async def verify_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Outcomes: ...

    async def end(
        self, transactional_id: str, producer: Producer, *, is_commit: bool, client_version: int
    ) -> Producer: ...

    async def describe(self, transactional_id: str) -> Transaction: ...

    async def list(self, filters: ListFilters) -> Sequence[Listed]: ...


class Transactions:
    """Its methods raise the KafkaError of a refusal, and the last retriable one when no coordinator was found that
    took the request within `wait_ms`."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        clock: Clock,
        local: Coordinator | None,
        remote: Callable[[int], Coordinator],
        ensure_groups: Callable[[str], Awaitable[int]],
    ) -> None:
        """`ensure_groups` makes the topic of the groups be there."""
        self._gateway = gateway
        self._client = CoordinatorClient(
            gateway=gateway,
            clock=clock,
            topic=TRANSACTIONS_TOPIC,
            local=local,
            remote=remote,
        )
        self._ensure_groups = ensure_groups

    async def coordinator_of(self, transactional_id: str) -> int:
        """Node id of the id's coordinator; its topic comes into being. Raises CoordinatorNotAvailable 15, or
        NotCoordinator 16 while its partition has no leader."""
        return await self._client.node_of(transactional_id)

    async def init(
        self,
        transactional_id: str,
        *,
        timeout_ms: int,
        expected: Producer | None = None,
        key: bytes = b"",
        owner: str = "",
        wait_ms: int = COORDINATOR_WAIT_MS,
    ) -> Producer:
        return await self._ask(
            transactional_id,
            lambda it: it.init(transactional_id, timeout_ms=timeout_ms, expected=expected, key=key, owner=owner),
            wait_ms=wait_ms,
        )

    async def add_partitions(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        *,
        is_verify_only: bool = False,
        client_version: int = RAISES_EPOCH_FROM,
        wait_ms: int = COORDINATOR_WAIT_MS,
    ) -> Outcomes:
        """What becomes of each partition: added, or only looked for with TransactionAbortable 120 for those that are
        not in the open transaction."""
        if is_verify_only:
            return await self._ask(
                transactional_id,
                lambda it: it.verify_partitions(transactional_id, producer, partitions),
                wait_ms=wait_ms,
            )
        await self._ask(
            transactional_id,
            lambda it: it.add_partitions(transactional_id, producer, partitions, client_version=client_version),
            wait_ms=wait_ms,
        )
        return dict.fromkeys(partitions)

    async def add_offsets(
        self, transactional_id: str, producer: Producer, group: str, *, wait_ms: int = COORDINATOR_WAIT_MS
    ) -> None:
        """The offsets of a group are committed with the transaction."""
        await self._ensure_groups(group)
        partition = (OFFSETS_TOPIC, partition_of(group, OFFSETS_TOPIC, self._gateway.image))
        await self.add_partitions(transactional_id, producer, frozenset({partition}), wait_ms=wait_ms)

    async def end(
        self,
        transactional_id: str,
        producer: Producer,
        *,
        is_commit: bool,
        client_version: int = RAISES_EPOCH_FROM,
        wait_ms: int = COORDINATOR_WAIT_MS,
    ) -> Producer:
        """The producer of the next transaction."""
        return await self._ask(
            transactional_id,
            lambda it: it.end(transactional_id, producer, is_commit=is_commit, client_version=client_version),
            wait_ms=wait_ms,
        )

    async def describe(self, transactional_id: str, *, wait_ms: int = COORDINATOR_WAIT_MS) -> Transaction:
        """Raises TransactionalIdNotFound 105, InvalidRequest 42 for an empty id."""
        return await self._ask(transactional_id, lambda it: it.describe(transactional_id), wait_ms=wait_ms)

    async def list_all(
        self, filters: ListFilters, *, wait_ms: int = COORDINATOR_WAIT_MS
    ) -> Mapping[int, Sequence[Listed]]:
        """Node id of each coordinator -> its transactions, by id. Asked again while one moves, loads or does not
        answer: a part is no list. Nothing while nobody has used transactions. Raises InvalidRegularExpression 128."""
        return await self._client.ask_each(
            lambda each: each.list(filters), retriable=RETRIABLE, needs_all_leaders=True, wait_ms=wait_ms
        )

    async def _ask(
        self, transactional_id: str, attempt: Callable[[Coordinator], Awaitable[Answer]], *, wait_ms: int
    ) -> Answer:
        return await self._client.ask(transactional_id, attempt, retriable=RETRIABLE, wait_ms=wait_ms)
