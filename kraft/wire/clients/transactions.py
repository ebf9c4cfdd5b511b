"""InitProducerId (22), AddPartitionsToTxn, AddOffsetsToTxn, EndTxn (24 to 26), Describe- and ListTransactions (65, 66).

Each request goes to the coordinator in this process: an id of another node is NOT_COORDINATOR 16, and the client asks
FindCoordinator again. There is no authorizer; a broker that has one asks it at the beginning of each handler here:
WRITE on the transactional id (DESCRIBE for 65 and 66), and READ on the group for 25, as for TxnOffsetCommit.
Source: KafkaApis, TransactionCoordinator and `getErrorResponse` of each request.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.coordinators.groups.coordinator import partition_of
from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM, Producer
from kraft.coordinators.transactions.markers import Codes
from kraft.coordinators.transactions.state import TopicPartition
from kraft.protocol.errors import (
    ClusterAuthorizationFailed,
    InvalidProducerEpoch,
    InvalidRequest,
    KafkaError,
    OperationNotAttempted,
    ProducerFenced,
    UnknownTopicOrPartition,
)
from kraft.wire.clients.served import ClientApi, ClientBroker, ClientCall
from kraft.wire.generated.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.wire.generated.add_offsets_to_txn_response import AddOffsetsToTxnResponseData
from kraft.wire.generated.add_partitions_to_txn_request import AddPartitionsToTxnRequestData
from kraft.wire.generated.add_partitions_to_txn_response import AddPartitionsToTxnResponseData
from kraft.wire.generated.describe_transactions_request import DescribeTransactionsRequestData
from kraft.wire.generated.describe_transactions_response import DescribeTransactionsResponseData, TransactionState
from kraft.wire.generated.end_txn_request import EndTxnRequestData
from kraft.wire.generated.end_txn_response import EndTxnResponseData
from kraft.wire.generated.init_producer_id_request import InitProducerIdRequestData
from kraft.wire.generated.init_producer_id_response import InitProducerIdResponseData
from kraft.wire.generated.list_transactions_request import ListTransactionsRequestData
from kraft.wire.generated.list_transactions_response import ListTransactionsResponseData
from kraft.wire.messages.transactions import (
    described,
    list_filters,
    listed_response,
    partitions_of,
    topic_results,
    undescribed,
)
from metadata.internal_topics import OFFSETS_TOPIC

FIRST_EPOCH = 0
NO_PRODUCER_ID = -1
INIT_FENCED_FROM = 4
"""InitProducerId: PRODUCER_FENCED 90 is known to the client; before it is INVALID_PRODUCER_EPOCH 47 (KIP-588)."""
FENCED_FROM = 2
"""The same for the requests about a transaction."""
BATCHED_FROM = 4
"""AddPartitionsToTxn: several transactions, each perhaps only looked at; brokers ask so (KIP-890)."""
EPOCH_TOLD_FROM = 5
"""EndTxn: each transaction has an epoch of its own, and the answer tells the next one (KIP-890)."""
OLD_CLIENT = 0
"""Transaction version of clients that keep their epoch from one transaction to the next."""


def apis(broker: ClientBroker) -> Sequence[ClientApi]:
    served = _Transactions(broker)
    return [
        ClientApi(
            request=InitProducerIdRequestData,
            response=InitProducerIdResponseData,
            handle=served.init,
            refuse=lambda message, version, error: InitProducerIdResponseData.make(
                error_code=_code(error, knows_fenced=version >= INIT_FENCED_FROM), producer_id=-1, producer_epoch=-1
            ),
        ),
        ClientApi(
            request=AddPartitionsToTxnRequestData,
            response=AddPartitionsToTxnResponseData,
            handle=served.add_partitions,
            refuse=_refuse_partitions,
        ),
        ClientApi(
            request=AddOffsetsToTxnRequestData,
            response=AddOffsetsToTxnResponseData,
            handle=served.add_offsets,
            refuse=lambda message, version, error: AddOffsetsToTxnResponseData.make(
                error_code=_code(error, knows_fenced=version >= FENCED_FROM)
            ),
        ),
        ClientApi(
            request=EndTxnRequestData,
            response=EndTxnResponseData,
            handle=served.end,
            refuse=lambda message, version, error: EndTxnResponseData.make(
                error_code=_code(error, knows_fenced=version >= FENCED_FROM)
            ),
        ),
        ClientApi(
            request=DescribeTransactionsRequestData,
            response=DescribeTransactionsResponseData,
            handle=served.describe,
            refuse=lambda message, version, error: DescribeTransactionsResponseData.make(
                transaction_states=[undescribed(each, error.code) for each in message.transactional_ids]
            ),
        ),
        ClientApi(
            request=ListTransactionsRequestData,
            response=ListTransactionsResponseData,
            handle=served.list,
            refuse=lambda message, version, error: ListTransactionsResponseData.make(error_code=error.code),
        ),
    ]


class _Transactions:
    def __init__(self, broker: ClientBroker) -> None:
        self._broker = broker
        self._coordinator = broker.transaction_coordinator
        self._producer_ids = broker.producer_ids

    # --- producers --------------------------------------------------------------------------------------------

    async def init(self, call: ClientCall[InitProducerIdRequestData]) -> InitProducerIdResponseData:
        """Without a transactional id each request gets a new producer id, also one that names an old one (KIP-360)."""
        message = call.message
        if (message.producer_id < 0) != (message.producer_epoch < 0):
            raise InvalidRequest("a producer that has an id already names its epoch, too (KIP-360)")
        if message.transactional_id is None:
            given = Producer(await self._producer_ids.next_id(), FIRST_EPOCH)
        else:
            named = Producer(message.producer_id, message.producer_epoch)
            given = await self._coordinator.init(
                message.transactional_id,
                timeout_ms=message.transaction_timeout_ms,
                expected=None if named.producer_id == NO_PRODUCER_ID else named,
            )
        return InitProducerIdResponseData.make(error_code=0, producer_id=given.producer_id, producer_epoch=given.epoch)

    # --- partitions -------------------------------------------------------------------------------------------

    async def add_partitions(self, call: ClientCall[AddPartitionsToTxnRequestData]) -> AddPartitionsToTxnResponseData:
        """Raises ClusterAuthorizationFailed 31 for what brokers alone ask: those authenticate as nodes."""
        message = call.message
        if call.version >= BATCHED_FROM:
            raise ClusterAuthorizationFailed(
                f"version {call.version} of AddPartitionsToTxn is for brokers; clients ask up to {BATCHED_FROM - 1}"
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

    async def add_offsets(self, call: ClientCall[AddOffsetsToTxnRequestData]) -> AddOffsetsToTxnResponseData:
        """The partition of `__consumer_offsets` that the group is in becomes one of the transaction."""
        message = call.message
        await self._broker.groups.coordinator_of(message.group_id)
        number = partition_of(message.group_id, self._broker.gateway.image)
        await self._coordinator.add_partitions(
            message.transactional_id,
            Producer(message.producer_id, message.producer_epoch),
            frozenset({(OFFSETS_TOPIC, number)}),
            client_version=OLD_CLIENT,
        )
        return AddOffsetsToTxnResponseData.make(error_code=0)

    # --- the end ----------------------------------------------------------------------------------------------

    async def end(self, call: ClientCall[EndTxnRequestData]) -> EndTxnResponseData:
        message = call.message
        following = await self._coordinator.end(
            message.transactional_id,
            Producer(message.producer_id, message.producer_epoch),
            is_commit=message.committed,
            client_version=RAISES_EPOCH_FROM if call.version >= EPOCH_TOLD_FROM else OLD_CLIENT,
        )
        return EndTxnResponseData.make(error_code=0, producer_id=following.producer_id, producer_epoch=following.epoch)

    # --- looking ----------------------------------------------------------------------------------------------

    async def describe(self, call: ClientCall[DescribeTransactionsRequestData]) -> DescribeTransactionsResponseData:
        states = [await self._described(each) for each in call.message.transactional_ids]
        return DescribeTransactionsResponseData.make(transaction_states=states)

    async def _described(self, transactional_id: str) -> TransactionState:
        try:
            return described(await self._coordinator.describe(transactional_id))
        except KafkaError as error:
            return undescribed(transactional_id, error.code)

    async def list(self, call: ClientCall[ListTransactionsRequestData]) -> ListTransactionsResponseData:
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
