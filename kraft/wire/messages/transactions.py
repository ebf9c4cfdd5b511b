"""What nodes ask each other about transactions: AddPartitionsToTxn (24, from version 4 on: of a partition's leader or a
node that serves REST), EndTxn (26), WriteTxnMarkers (27), DescribeTransactions (65), ListTransactions (66)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kraft.coordinators.transactions.decide import Producer
from kraft.coordinators.transactions.listing import Listed, ListFilters
from kraft.coordinators.transactions.markers import Codes, MarkersToWrite
from kraft.coordinators.transactions.state import Phase, TopicPartition, Transaction
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import for_code
from kraft.wire import apis
from kraft.wire.codec import Malformed
from kraft.wire.generated.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kraft.wire.generated.add_partitions_to_txn_response import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnResponseData,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
)
from kraft.wire.generated.describe_transactions_request import DescribeTransactionsRequestData
from kraft.wire.generated.describe_transactions_response import (
    DescribeTransactionsResponseData,
    TopicData,
    TransactionState,
)
from kraft.wire.generated.end_txn_request import EndTxnRequestData
from kraft.wire.generated.end_txn_response import EndTxnResponseData
from kraft.wire.generated.list_transactions_request import ListTransactionsRequestData
from kraft.wire.generated.list_transactions_response import ListTransactionsResponseData
from kraft.wire.generated.list_transactions_response import TransactionState as ListedTransaction
from kraft.wire.generated.write_txn_markers_request import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequestData,
)
from kraft.wire.generated.write_txn_markers_response import (
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponseData,
)
from kraft.wire.messages.common import Rpc

NO_PRODUCER = Producer(-1, -1)


# --- AddPartitionsToTxn ---------------------------------------------------------------------------------------


class PartitionsOfTransaction(NamedTuple):
    transactional_id: str
    producer: Producer
    is_verify_only: bool
    partitions: frozenset[TopicPartition]


def by_name(partitions: Iterable[TopicPartition]) -> Mapping[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        topics.setdefault(topic, []).append(number)
    return topics


def partitions_of(topics: Iterable[AddPartitionsToTxnTopic]) -> frozenset[TopicPartition]:
    return frozenset([(topic.name, number) for topic in topics for number in topic.partitions])


def topic_results(codes: Codes) -> list[AddPartitionsToTxnTopicResult]:
    return [
        AddPartitionsToTxnTopicResult.make(
            name=topic,
            results_by_partition=[
                AddPartitionsToTxnPartitionResult.make(
                    partition_index=number, partition_error_code=codes[topic, number]
                )
                for number in numbers
            ],
        )
        for topic, numbers in by_name(codes).items()
    ]


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


def _add_requested(message: AddPartitionsToTxnRequestData) -> Sequence[PartitionsOfTransaction]:
    return [
        PartitionsOfTransaction(
            each.transactional_id,
            Producer(each.producer_id, each.producer_epoch),
            each.verify_only,
            partitions_of(each.topics),
        )
        for each in message.transactions
    ]


def _add_reply(request: Sequence[PartitionsOfTransaction], reply: Sequence[Codes]) -> AddPartitionsToTxnResponseData:
    return AddPartitionsToTxnResponseData.make(
        results_by_transaction=[
            AddPartitionsToTxnResult.make(transactional_id=asked.transactional_id, topic_results=topic_results(codes))
            for asked, codes in zip(request, reply, strict=True)
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
    from_request=_add_requested,
    to_reply=_add_reply,
    from_reply=_add_replied,
    refuse=lambda message, code: AddPartitionsToTxnResponseData.make(error_code=code),
)


# --- EndTxn ---------------------------------------------------------------------------------------------------


class End(NamedTuple):
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
    from_request=lambda message: End(
        message.transactional_id, Producer(message.producer_id, message.producer_epoch), message.committed
    ),
    to_reply=lambda request, reply: EndTxnResponseData.make(
        error_code=0, producer_id=reply.producer_id, producer_epoch=reply.epoch
    ),
    from_reply=lambda request, message: Producer(message.producer_id, message.producer_epoch),
    refuse=lambda message, code: EndTxnResponseData.make(error_code=code, producer_id=-1, producer_epoch=-1),
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


def markers_of(message: WriteTxnMarkersRequestData) -> Sequence[MarkersToWrite]:
    return [
        MarkersToWrite(
            each.producer_id,
            each.producer_epoch,
            Marker(each.transaction_result, each.coordinator_epoch),
            frozenset([(topic.name, number) for topic in each.topics for number in topic.partition_indexes]),
            each.transaction_version,
        )
        for each in message.markers
    ]


def markers_answer(request: Sequence[MarkersToWrite], reply: Sequence[Codes]) -> WriteTxnMarkersResponseData:
    return WriteTxnMarkersResponseData.make(
        markers=[
            WritableTxnMarkerResult.make(
                producer_id=asked.producer_id,
                topics=[
                    WritableTxnMarkerTopicResult.make(
                        name=topic,
                        partitions=[
                            WritableTxnMarkerPartitionResult.make(
                                partition_index=number, error_code=codes[topic, number]
                            )
                            for number in numbers
                        ],
                    )
                    for topic, numbers in by_name(codes).items()
                ],
            )
            for asked, codes in zip(request, reply, strict=True)
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


def markers_refusal(message: WriteTxnMarkersRequestData, code: int) -> WriteTxnMarkersResponseData:
    request = markers_of(message)
    return markers_answer(request, [dict.fromkeys(each.partitions, code) for each in request])


WRITE_TXN_MARKERS: Rpc[
    Sequence[MarkersToWrite], Sequence[Codes], WriteTxnMarkersRequestData, WriteTxnMarkersResponseData
] = Rpc(
    api=apis.WRITE_TXN_MARKERS,
    response=WriteTxnMarkersResponseData,
    to_request=_markers_request,
    from_request=markers_of,
    to_reply=markers_answer,
    from_reply=_markers_replied,
    refuse=markers_refusal,
)


# --- DescribeTransactions, ListTransactions -------------------------------------------------------------------


def described(transaction: Transaction) -> TransactionState:
    return TransactionState.make(
        transactional_id=transaction.transactional_id,
        transaction_state=transaction.phase.kafka_name,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_start_time_ms=transaction.started_ms,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.epoch,
        topics=[
            TopicData.make(topic=topic, partitions=numbers)
            for topic, numbers in by_name(transaction.partitions).items()
        ],
    )


def undescribed(transactional_id: str, code: int) -> TransactionState:
    return TransactionState.make(transactional_id=transactional_id, error_code=code)


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
    )


DESCRIBE_TRANSACTION: Rpc[str, Transaction, DescribeTransactionsRequestData, DescribeTransactionsResponseData] = Rpc(
    api=apis.DESCRIBE_TRANSACTIONS,
    response=DescribeTransactionsResponseData,
    to_request=lambda request, timeout_ms: DescribeTransactionsRequestData.make(transactional_ids=[request]),
    from_request=lambda message: _only(message.transactional_ids),
    to_reply=lambda request, reply: DescribeTransactionsResponseData.make(transaction_states=[described(reply)]),
    from_reply=lambda request, message: _description(message),
    refuse=lambda message, code: DescribeTransactionsResponseData.make(
        transaction_states=[undescribed(each, code) for each in message.transactional_ids]
    ),
)
"""One id: who asks more nodes than one asks each about its own."""


def _only(ids: Sequence[str]) -> str:
    (found,) = ids
    return found


LIST_TRANSACTIONS: Rpc[ListFilters, Sequence[Listed], ListTransactionsRequestData, ListTransactionsResponseData] = Rpc(
    api=apis.LIST_TRANSACTIONS,
    response=ListTransactionsResponseData,
    to_request=lambda request, timeout_ms: ListTransactionsRequestData.make(
        state_filters=list(request.states),
        producer_id_filters=list(request.producer_ids),
        duration_filter=request.open_ms_min,
        transactional_id_pattern=request.pattern,
    ),
    from_request=lambda message: list_filters(message),
    to_reply=lambda request, reply: listed_response(request, reply),
    from_reply=lambda request, message: [
        Listed(each.transactional_id, each.producer_id, Phase.named(each.transaction_state))
        for each in message.transaction_states
    ],
    refuse=lambda message, code: ListTransactionsResponseData.make(error_code=code),
)


def list_filters(message: ListTransactionsRequestData) -> ListFilters:
    return ListFilters(
        states=tuple(message.state_filters),
        producer_ids=tuple(message.producer_id_filters),
        open_ms_min=message.duration_filter,
        pattern=message.transactional_id_pattern,
    )


def listed_response(request: ListFilters, reply: Sequence[Listed]) -> ListTransactionsResponseData:
    return ListTransactionsResponseData.make(
        error_code=0,
        unknown_state_filters=list(request.unknown_states),
        transaction_states=[
            ListedTransaction.make(
                transactional_id=each.transactional_id,
                producer_id=each.producer_id,
                transaction_state=each.phase.kafka_name,
            )
            for each in reply
        ],
    )
