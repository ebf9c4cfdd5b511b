"""What nodes ask of coordinators of transactions, and these of leaders of partitions: InitProducerId (22),
AddPartitionsToTxn (24, from version 4 on), EndTxn (26), WriteTxnMarkers (27), DescribeTransactions (65) and
ListTransactions (66)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM
from kraft.coordinators.transactions.list_filters import Listed, ListFilters
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol import apis
from kraft.protocol.codec import Malformed
from kraft.protocol.errors import KafkaError, TransactionAbortable, for_code
from kraft.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kraft.protocol.messages.add_partitions_to_txn_response import AddPartitionsToTxnResponseData
from kraft.protocol.messages.describe_transactions_request import DescribeTransactionsRequestData
from kraft.protocol.messages.describe_transactions_response import DescribeTransactionsResponseData
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.end_txn_response import EndTxnResponseData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.init_producer_id_response import InitProducerIdResponseData
from kraft.protocol.messages.list_transactions_request import ListTransactionsRequestData
from kraft.protocol.messages.list_transactions_response import ListTransactionsResponseData
from kraft.protocol.messages.write_txn_markers_request import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequestData,
)
from kraft.protocol.messages.write_txn_markers_response import WriteTxnMarkersResponseData
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Codes, MarkersToWrite, Producer
from kraft.values import value
from kraft.wire.grouping import by_name
from kraft.wire.peers import Peers
from kraft.wire.rpc import REPLICA_TIMEOUT_MS, ReplyT, RequestData, RequestT, ResponseData, Rpc

NO_PRODUCER = Producer(-1, -1)


# --- InitProducerId -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerId:
    """A producer that asks for an id; with a transactional id it asks for the next epoch of that."""

    transactional_id: str | None = None
    transaction_timeout_ms: int = 0
    """Timeout of its transactions, if it has a transactional id."""
    producer_id: int = NO_PRODUCER.producer_id
    epoch: int = NO_PRODUCER.epoch
    key: bytes = b""
    """Identifies a repetition of this request; only our nodes send one."""
    owner: str = ""
    """The user for whom a node asks; empty without one."""


def _init_request(request: InitProducerId, timeout_ms: int) -> InitProducerIdRequestData:
    return InitProducerIdRequestData.make(
        transactional_id=request.transactional_id,
        transaction_timeout_ms=timeout_ms if request.transactional_id is None else request.transaction_timeout_ms,
        producer_id=request.producer_id,
        producer_epoch=request.epoch,
        begin_key=request.key,
        owner=request.owner,
    )


INIT_PRODUCER_ID: Rpc[InitProducerId, Producer, InitProducerIdRequestData, InitProducerIdResponseData] = Rpc(
    api=apis.INIT_PRODUCER_ID,
    response=InitProducerIdResponseData,
    to_request=_init_request,
    from_reply=lambda request, message: Producer(message.producer_id, message.producer_epoch),
)


# --- AddPartitionsToTxn ---------------------------------------------------------------------------------------


@value()
class PartitionsOfTransaction:
    transactional_id: str
    producer: Producer
    is_verify_only: bool
    partitions: frozenset[TopicPartition]


def _add_request(request: Sequence[PartitionsOfTransaction], timeout_ms: int) -> AddPartitionsToTxnRequestData:
    return AddPartitionsToTxnRequestData.make(
        transactions=[
            AddPartitionsToTxnTransaction.make(
                transactional_id=each.transactional_id,
                producer_id=each.producer.producer_id,
                producer_epoch=each.producer.epoch,
                verify_only=each.is_verify_only,
                topics=[
                    AddPartitionsToTxnTopic.make(name=topic, partitions=numbers)
                    for topic, numbers in by_name(each.partitions).items()
                ],
            )
            for each in request
        ]
    )


def _add_replied(
    request: Sequence[PartitionsOfTransaction], message: AddPartitionsToTxnResponseData
) -> Sequence[Codes]:
    found = {
        each.transactional_id: {
            (topic.name, result.partition_index): result.partition_error_code
            for topic in each.topic_results
            for result in topic.results_by_partition
        }
        for each in message.results_by_transaction
    }
    for asked in request:
        if found.get(asked.transactional_id, {}).keys() != asked.partitions:
            raise Malformed(f"AddPartitionsToTxn answer: not the partitions of {asked.transactional_id!r}")
    return [found[asked.transactional_id] for asked in request]


ADD_PARTITIONS_TO_TXN: Rpc[
    Sequence[PartitionsOfTransaction],
    Sequence[Codes],
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnResponseData,
] = Rpc(
    api=apis.ADD_PARTITIONS_TO_TXN,
    response=AddPartitionsToTxnResponseData,
    to_request=_add_request,
    from_reply=_add_replied,
)


# --- EndTxn ---------------------------------------------------------------------------------------------------


@value()
class End:
    transactional_id: str
    producer: Producer
    is_commit: bool


END_TXN: Rpc[End, Producer, EndTxnRequestData, EndTxnResponseData] = Rpc(
    api=apis.END_TXN,
    response=EndTxnResponseData,
    to_request=lambda request, timeout_ms: EndTxnRequestData.make(
        transactional_id=request.transactional_id,
        producer_id=request.producer.producer_id,
        producer_epoch=request.producer.epoch,
        committed=request.is_commit,
    ),
    from_reply=lambda request, message: Producer(message.producer_id, message.producer_epoch),
)


# --- WriteTxnMarkers ------------------------------------------------------------------------------------------


def _markers_request(request: Sequence[MarkersToWrite], timeout_ms: int) -> WriteTxnMarkersRequestData:
    return WriteTxnMarkersRequestData.make(
        markers=[
            WritableTxnMarker.make(
                producer_id=each.producer_id,
                producer_epoch=each.producer_epoch,
                transaction_result=each.marker.is_commit,
                topics=[
                    WritableTxnMarkerTopic.make(name=topic, partition_indexes=numbers)
                    for topic, numbers in by_name(each.partitions).items()
                ],
                coordinator_epoch=each.marker.coordinator_epoch,
                transaction_version=each.transaction_version,
            )
            for each in request
        ]
    )


def _markers_replied(request: Sequence[MarkersToWrite], message: WriteTxnMarkersResponseData) -> Sequence[Codes]:
    """In the order of the request: one producer may have several."""
    if [each.producer_id for each in message.markers] != [each.producer_id for each in request]:
        raise Malformed("WriteTxnMarkers answer: not the producers of the request")
    return [
        {
            (topic.name, result.partition_index): result.error_code
            for topic in each.topics
            for result in topic.partitions
        }
        for each in message.markers
    ]


WRITE_TXN_MARKERS: Rpc[
    Sequence[MarkersToWrite], Sequence[Codes], WriteTxnMarkersRequestData, WriteTxnMarkersResponseData
] = Rpc(
    api=apis.WRITE_TXN_MARKERS,
    response=WriteTxnMarkersResponseData,
    to_request=_markers_request,
    from_reply=_markers_replied,
)


# --- DescribeTransactions, ListTransactions -------------------------------------------------------------------


def _description(message: DescribeTransactionsResponseData) -> Transaction:
    """Raises KafkaError."""
    (state,) = message.transaction_states
    if state.error_code:
        raise for_code(state.error_code)
    return Transaction(
        transactional_id=state.transactional_id,
        producer_id=state.producer_id,
        epoch=state.producer_epoch,
        timeout_ms=state.transaction_timeout_ms,
        phase=Phase.named(state.transaction_state),
        partitions=frozenset([(topic.topic, number) for topic in state.topics for number in topic.partitions]),
        updated_ms=-1,
        started_ms=state.transaction_start_time_ms,
        owner=state.owner,
    )


DESCRIBE_TRANSACTION: Rpc[str, Transaction, DescribeTransactionsRequestData, DescribeTransactionsResponseData] = Rpc(
    api=apis.DESCRIBE_TRANSACTIONS,
    response=DescribeTransactionsResponseData,
    to_request=lambda request, timeout_ms: DescribeTransactionsRequestData.make(transactional_ids=[request]),
    from_reply=lambda request, message: _description(message),
)
"""One id: a caller with ids of several nodes asks each about its own."""


LIST_TRANSACTIONS: Rpc[ListFilters, Sequence[Listed], ListTransactionsRequestData, ListTransactionsResponseData] = Rpc(
    api=apis.LIST_TRANSACTIONS,
    response=ListTransactionsResponseData,
    to_request=lambda request, timeout_ms: ListTransactionsRequestData.make(
        state_filters=list(request.states),
        producer_id_filters=list(request.producer_ids),
        duration_filter=request.open_ms_min,
        transactional_id_pattern=request.pattern,
    ),
    from_reply=lambda request, message: [
        Listed(each.transactional_id, each.producer_id, Phase.named(each.transaction_state))
        for each in message.transaction_states
    ],
)


class TransactionChannel:
    """Requests about transactional ids to their coordinator, and its markers to the leaders of partitions: one node.

    Each raises ConnectionRefusedError, NotConnected, ConnectionClosed or TimeoutError, or what the peer refused.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def init(
        self,
        transactional_id: str,
        *,
        timeout_ms: int,
        expected: Producer | None = None,
        key: bytes = b"",
        owner: str = "",
    ) -> Producer:
        named = expected or NO_PRODUCER
        request = InitProducerId(
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            producer_id=named.producer_id,
            epoch=named.epoch,
            key=key,
            owner=owner,
        )
        return await self._call(INIT_PRODUCER_ID, request)

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None:
        """Nodes ask as clients of transaction version 2 do."""
        assert client_version == RAISES_EPOCH_FROM, client_version
        await self._partitions(PartitionsOfTransaction(transactional_id, producer, False, partitions))

    async def verify_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]:
        return await self._partitions(PartitionsOfTransaction(transactional_id, producer, True, partitions))

    async def _partitions(self, request: PartitionsOfTransaction) -> Mapping[TopicPartition, KafkaError | None]:
        (codes,) = await self._call(ADD_PARTITIONS_TO_TXN, (request,))
        for code in codes.values():
            if code not in (0, TransactionAbortable.code):
                raise for_code(code)
        return {each: for_code(code) if code else None for each, code in codes.items()}

    async def end(self, transactional_id: str, producer: Producer, *, is_commit: bool, client_version: int) -> Producer:
        assert client_version == RAISES_EPOCH_FROM, client_version
        return await self._call(END_TXN, End(transactional_id, producer, is_commit))

    async def describe(self, transactional_id: str) -> Transaction:
        return await self._call(DESCRIBE_TRANSACTION, transactional_id)

    async def list(self, filters: ListFilters) -> Sequence[Listed]:
        return await self._call(LIST_TRANSACTIONS, filters)

    async def write_markers(self, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        return await self._peers.call(
            self._node_id, "forward", WRITE_TXN_MARKERS, markers, timeout_ms=REPLICA_TIMEOUT_MS, lane="markers"
        )

    async def _call(self, rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData], request: RequestT) -> ReplyT:
        return await self._peers.call(
            self._node_id, "forward", rpc, request, timeout_ms=REPLICA_TIMEOUT_MS, lane="transactions"
        )
