"""Requests of other nodes to this broker's transaction coordinator, and of other coordinators to write markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM, Producer
from kraft.coordinators.transactions.listing import Listed, ListFilters
from kraft.coordinators.transactions.markers import Codes, MarkersToWrite
from kraft.coordinators.transactions.state import TopicPartition, Transaction
from kraft.protocol.errors import KafkaError, NotCoordinator, NotLeaderOrFollower
from kraft.wire.generated.add_partitions_to_txn_request import AddPartitionsToTxnRequestData
from kraft.wire.generated.describe_transactions_request import DescribeTransactionsRequestData
from kraft.wire.generated.end_txn_request import EndTxnRequestData
from kraft.wire.generated.list_transactions_request import ListTransactionsRequestData
from kraft.wire.generated.write_txn_markers_request import WriteTxnMarkersRequestData
from kraft.wire.handlers.served import Call, Served
from kraft.wire.messages.transactions import (
    ADD_PARTITIONS_TO_TXN,
    DESCRIBE_TRANSACTION,
    END_TXN,
    LIST_TRANSACTIONS,
    WRITE_TXN_MARKERS,
    PartitionsOfTransaction,
)
from kraft.wire.primitives import TopLevel


class Coordinator(Protocol):
    async def init(
        self, transactional_id: str, *, timeout_ms: int, expected: Producer | None = None, key: bytes = b""
    ) -> Producer: ...

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None: ...

    async def verify_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]: ...

    async def end(
        self, transactional_id: str, producer: Producer, *, is_commit: bool, client_version: int
    ) -> Producer: ...

    async def describe(self, transactional_id: str) -> Transaction: ...

    async def list(self, filters: ListFilters) -> Sequence[Listed]: ...


class Markers(Protocol):
    async def write(self, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]: ...


def transaction_handlers(coordinator: Coordinator | None, markers: Markers | None) -> list[Served]:
    """Both are None on a node without the broker role."""
    handlers = _TransactionHandlers(coordinator, markers)
    return [
        Served(api=ADD_PARTITIONS_TO_TXN.api, handle=handlers.add_partitions, refuse=ADD_PARTITIONS_TO_TXN.refuse),
        Served(api=END_TXN.api, handle=handlers.end, refuse=END_TXN.refuse),
        Served(api=WRITE_TXN_MARKERS.api, handle=handlers.write_markers, refuse=WRITE_TXN_MARKERS.refuse),
        Served(api=DESCRIBE_TRANSACTION.api, handle=handlers.describe, refuse=DESCRIBE_TRANSACTION.refuse),
        Served(api=LIST_TRANSACTIONS.api, handle=handlers.list, refuse=LIST_TRANSACTIONS.refuse),
    ]


class _TransactionHandlers:
    def __init__(self, coordinator: Coordinator | None, markers: Markers | None) -> None:
        self._optional_coordinator = coordinator
        self._markers = markers

    @property
    def _coordinator(self) -> Coordinator:
        if self._optional_coordinator is None:
            raise NotCoordinator("this node has no broker role and so coordinates no transactions")
        return self._optional_coordinator

    async def add_partitions(self, call: Call[AddPartitionsToTxnRequestData]) -> TopLevel:
        request = ADD_PARTITIONS_TO_TXN.requested(call.message)
        return ADD_PARTITIONS_TO_TXN.to_reply(
            request, [await partition_codes(self._coordinator, each) for each in request]
        )

    async def end(self, call: Call[EndTxnRequestData]) -> TopLevel:
        request = END_TXN.requested(call.message)
        name, producer, is_commit = request
        next_producer = await self._coordinator.end(
            name, producer, is_commit=is_commit, client_version=RAISES_EPOCH_FROM
        )
        return END_TXN.to_reply(request, next_producer)

    async def describe(self, call: Call[DescribeTransactionsRequestData]) -> TopLevel:
        request = DESCRIBE_TRANSACTION.requested(call.message)
        return DESCRIBE_TRANSACTION.to_reply(request, await self._coordinator.describe(request))

    async def list(self, call: Call[ListTransactionsRequestData]) -> TopLevel:
        request = LIST_TRANSACTIONS.requested(call.message)
        return LIST_TRANSACTIONS.to_reply(request, await self._coordinator.list(request))

    async def write_markers(self, call: Call[WriteTxnMarkersRequestData]) -> TopLevel:
        request = WRITE_TXN_MARKERS.requested(call.message)
        if self._markers is None:
            raise NotLeaderOrFollower("this node has no broker role and so no replicas")
        return WRITE_TXN_MARKERS.to_reply(request, await self._markers.write(request))


async def partition_codes(coordinator: Coordinator, request: PartitionsOfTransaction) -> Codes:
    """One error of a transaction is that of each of its partitions."""
    name, producer, is_verify_only, partitions = request
    try:
        if is_verify_only:
            verified = await coordinator.verify_partitions(name, producer, partitions)
            return {each: 0 if error is None else error.code for each, error in verified.items()}
        await coordinator.add_partitions(name, producer, partitions, client_version=RAISES_EPOCH_FROM)
    except KafkaError as error:
        return dict.fromkeys(partitions, error.code)
    return dict.fromkeys(partitions, 0)
