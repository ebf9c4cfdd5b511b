"""InitProducerId (22), AddPartitionsToTxn, AddOffsetsToTxn, EndTxn (24 to 26), Describe- and ListTransactions (65, 66).

Each request goes to the coordinator in this process: an id of another node is NOT_COORDINATOR 16, and the client asks
FindCoordinator again. What a client has to be allowed is checked before these handlers (`kraft.wire.access_table`).
Source: KafkaApis, TransactionCoordinator and `getErrorResponse` of each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kraft.coordinators.shards import partition_of
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM
from kraft.coordinators.transactions.list_filters import Listed, ListFilters
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.errors import (
    ClusterAuthorizationFailed,
    InvalidProducerEpoch,
    InvalidRequest,
    KafkaError,
    NotCoordinator,
    OperationNotAttempted,
    ProducerFenced,
    UnknownTopicOrPartition,
)
from kraft.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.protocol.messages.add_offsets_to_txn_response import AddOffsetsToTxnResponseData
from kraft.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kraft.protocol.messages.add_partitions_to_txn_response import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnResponseData,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
)
from kraft.protocol.messages.describe_transactions_request import DescribeTransactionsRequestData
from kraft.protocol.messages.describe_transactions_response import (
    DescribeTransactionsResponseData,
    TopicData,
    TransactionState,
)
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.end_txn_response import EndTxnResponseData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.init_producer_id_response import InitProducerIdResponseData
from kraft.protocol.messages.list_transactions_request import ListTransactionsRequestData
from kraft.protocol.messages.list_transactions_response import ListTransactionsResponseData
from kraft.protocol.messages.list_transactions_response import TransactionState as ListedTransaction
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Codes, Producer
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.grouping import by_name
from kraft.wire.node_parts import NodeParts
from metadata.internal_topics import OFFSETS_TOPIC

FIRST_EPOCH = 0
NO_PRODUCER_ID = -1
INIT_FENCED_FROM = 4
"""InitProducerId: PRODUCER_FENCED 90 is known to the client; before it is INVALID_PRODUCER_EPOCH 47 (KIP-588)."""
FENCED_FROM = 2
"""The same for the requests about a transaction."""
BATCHED_FROM = 4
"""AddPartitionsToTxn: several transactions, each perhaps only looked at; brokers ask so (KIP-890)."""
RETURNS_EPOCH_FROM = 5
"""EndTxn: each transaction has an epoch of its own, and the answer has the next one (KIP-890)."""
OLD_CLIENT = 0
"""Transaction version of clients that keep their epoch from one transaction to the next."""


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    served = _Transactions(broker)
    return [
        ApiHandler(
            request=InitProducerIdRequestData,
            response=InitProducerIdResponseData,
            handle=served.init,
            refuse=lambda message, version, error: InitProducerIdResponseData.make(
                error_code=_code(error, knows_fenced=version >= INIT_FENCED_FROM), producer_id=-1, producer_epoch=-1
            ),
        ),
        ApiHandler(
            request=AddPartitionsToTxnRequestData,
            response=AddPartitionsToTxnResponseData,
            handle=served.add_partitions,
            refuse=_refuse_partitions,
        ),
        ApiHandler(
            request=AddOffsetsToTxnRequestData,
            response=AddOffsetsToTxnResponseData,
            handle=served.add_offsets,
            refuse=lambda message, version, error: AddOffsetsToTxnResponseData.make(
                error_code=_code(error, knows_fenced=version >= FENCED_FROM)
            ),
        ),
        ApiHandler(
            request=EndTxnRequestData,
            response=EndTxnResponseData,
            handle=served.end,
            refuse=lambda message, version, error: EndTxnResponseData.make(
                error_code=_code(error, knows_fenced=version >= FENCED_FROM)
            ),
        ),
        ApiHandler(
            request=DescribeTransactionsRequestData,
            response=DescribeTransactionsResponseData,
            handle=served.describe,
            refuse=lambda message, version, error: DescribeTransactionsResponseData.make(
                transaction_states=[undescribed(each, error.code) for each in message.transactional_ids]
            ),
        ),
        ApiHandler(
            request=ListTransactionsRequestData,
            response=ListTransactionsResponseData,
            handle=served.list,
            refuse=lambda message, version, error: ListTransactionsResponseData.make(error_code=error.code),
        ),
    ]


class _Transactions:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    @property
    def _coordinator(self) -> TransactionCoordinator:
        return self._broker.broker_or(NotCoordinator).transaction_coordinator

    # --- producers --------------------------------------------------------------------------------------------

    async def init(self, call: Call[InitProducerIdRequestData]) -> InitProducerIdResponseData:
        """Without a transactional id each request gets a new producer id, also one that names an old one (KIP-360)."""
        message = call.message
        if (message.producer_id < 0) != (message.producer_epoch < 0):
            raise InvalidRequest("a producer that has an id already names its epoch, too (KIP-360)")
        if message.transactional_id is None:
            given = Producer(await self._broker.broker_or(NotCoordinator).producer_ids.next_id(), FIRST_EPOCH)
        else:
            named = Producer(message.producer_id, message.producer_epoch)
            given = await self._coordinator.init(
                message.transactional_id,
                timeout_ms=message.transaction_timeout_ms,
                expected=None if named.producer_id == NO_PRODUCER_ID else named,
                key=bytes(message.begin_key) if call.is_from_node else b"",
                owner=message.owner if call.is_from_node else "",
            )
        return InitProducerIdResponseData.make(error_code=0, producer_id=given.producer_id, producer_epoch=given.epoch)

    # --- partitions -------------------------------------------------------------------------------------------

    async def add_partitions(self, call: Call[AddPartitionsToTxnRequestData]) -> AddPartitionsToTxnResponseData:
        """Raises ClusterAuthorizationFailed 31 for a client that asks in a version for brokers."""
        message = call.message
        if call.version >= BATCHED_FROM:
            if not call.is_from_node:
                raise ClusterAuthorizationFailed(
                    f"version {call.version} of AddPartitionsToTxn is for brokers; clients ask up to {BATCHED_FROM - 1}"
                )
            return AddPartitionsToTxnResponseData.make(
                results_by_transaction=[await self._added(each) for each in message.transactions]
            )
        partitions = partitions_of(message.v3_and_below_topics)
        unknown = self._unknown(partitions)
        if unknown:
            return AddPartitionsToTxnResponseData.make(results_by_topic_v3_and_below=topic_results(unknown))
        await self._coordinator.add_partitions(
            message.v3_and_below_transactional_id,
            Producer(message.v3_and_below_producer_id, message.v3_and_below_producer_epoch),
            partitions,
            client_version=OLD_CLIENT,
        )
        added = dict.fromkeys(partitions, 0)
        return AddPartitionsToTxnResponseData.make(results_by_topic_v3_and_below=topic_results(added))

    async def _added(self, asked: AddPartitionsToTxnTransaction) -> AddPartitionsToTxnResult:
        """One error of a transaction is that of each of its partitions."""
        name, producer = asked.transactional_id, Producer(asked.producer_id, asked.producer_epoch)
        partitions = partitions_of(asked.topics)
        codes = dict.fromkeys(partitions, 0)
        try:
            if asked.verify_only:
                verified = await self._coordinator.verify_partitions(name, producer, partitions)
                codes = {each: 0 if error is None else error.code for each, error in verified.items()}
            else:
                await self._coordinator.add_partitions(name, producer, partitions, client_version=RAISES_EPOCH_FROM)
        except KafkaError as error:
            codes = dict.fromkeys(partitions, error.code)
        return AddPartitionsToTxnResult.make(transactional_id=name, topic_results=topic_results(codes))

    def _unknown(self, partitions: frozenset[TopicPartition]) -> Codes:
        """Empty when all of them exist. One that does not keeps all of them out."""
        image = self._broker.gateway.image

        def exists(name: str, number: int) -> bool:
            topic = image.topic(name)
            return topic is not None and number in topic.partitions

        codes = {
            each: OperationNotAttempted.code if exists(*each) else UnknownTopicOrPartition.code for each in partitions
        }
        return codes if UnknownTopicOrPartition.code in codes.values() else {}

    async def add_offsets(self, call: Call[AddOffsetsToTxnRequestData]) -> AddOffsetsToTxnResponseData:
        """The partition of `__consumer_offsets` that the group is in becomes one of the transaction."""
        message = call.message
        await self._broker.groups.coordinator_of(message.group_id)
        number = partition_of(message.group_id, OFFSETS_TOPIC, self._broker.gateway.image)
        await self._coordinator.add_partitions(
            message.transactional_id,
            Producer(message.producer_id, message.producer_epoch),
            frozenset({(OFFSETS_TOPIC, number)}),
            client_version=OLD_CLIENT,
        )
        return AddOffsetsToTxnResponseData.make(error_code=0)

    # --- the end ----------------------------------------------------------------------------------------------

    async def end(self, call: Call[EndTxnRequestData]) -> EndTxnResponseData:
        message = call.message
        following = await self._coordinator.end(
            message.transactional_id,
            Producer(message.producer_id, message.producer_epoch),
            is_commit=message.committed,
            client_version=RAISES_EPOCH_FROM if call.version >= RETURNS_EPOCH_FROM else OLD_CLIENT,
        )
        return EndTxnResponseData.make(error_code=0, producer_id=following.producer_id, producer_epoch=following.epoch)

    # --- looking ----------------------------------------------------------------------------------------------

    async def describe(self, call: Call[DescribeTransactionsRequestData]) -> DescribeTransactionsResponseData:
        states = [await self._described(each, call) for each in call.message.transactional_ids]
        return DescribeTransactionsResponseData.make(transaction_states=states)

    async def _described(self, transactional_id: str, call: Call[DescribeTransactionsRequestData]) -> TransactionState:
        try:
            found = await self._coordinator.describe(transactional_id)
            return described(found, owner=found.owner if call.is_from_node else "")
        except KafkaError as error:
            return undescribed(transactional_id, error.code)

    async def list(self, call: Call[ListTransactionsRequestData]) -> ListTransactionsResponseData:
        filters = list_filters(call.message)
        return listed_response(filters, await self._coordinator.list(filters))


def _code(error: KafkaError, *, knows_fenced: bool) -> int:
    return InvalidProducerEpoch.code if error.code == ProducerFenced.code and not knows_fenced else error.code


def _refuse_partitions(
    message: AddPartitionsToTxnRequestData, version: int, error: KafkaError
) -> AddPartitionsToTxnResponseData:
    if version >= BATCHED_FROM:
        return AddPartitionsToTxnResponseData.make(error_code=error.code)
    code = _code(error, knows_fenced=version >= FENCED_FROM)
    codes = dict.fromkeys(partitions_of(message.v3_and_below_topics), code)
    return AddPartitionsToTxnResponseData.make(results_by_topic_v3_and_below=topic_results(codes))


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


def described(transaction: Transaction, *, owner: str = "") -> TransactionState:
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
        owner=owner,
    )


def undescribed(transactional_id: str, code: int) -> TransactionState:
    return TransactionState.make(transactional_id=transactional_id, error_code=code)


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
