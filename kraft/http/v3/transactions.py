"""v3 transactions, for operators: which there are, what is open in a partition, the end of one that hangs (KIP-664).

Additions of ours; how a program writes in transactions is in `kraft.http.v2.transactions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from kraft.broker.txn_markers import WriteMarkers
from kraft.coordinators.transactions.list_filters import ANY_DURATION, ListFilters
from kraft.coordinators.transactions.routing import Transactions
from kraft.coordinators.transactions.state import Phase
from kraft.http.body_models import RequestBody
from kraft.http.endpoint import Call, Parameter, Route
from kraft.http.errors import BAD_REQUEST, FENCED, TRANSACTION_NOT_FOUND, HttpError
from kraft.http.parameters import integer
from kraft.http.transactional import EPOCH_MAX
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, related, resource, route
from kraft.http.v3.models import Listing, Resource
from kraft.http.v3.models import Related as RelatedModel
from kraft.http.v3.partitions import find_partition
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import InvalidTxnState, KafkaError, LeaderNotAvailable, for_code
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from kraft.protocol.transactions import MarkersToWrite
from metadata.acls import AclResource
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from replication.requests import ActiveProducer

KIND = "KafkaTransaction"
STATES = tuple(phase.kafka_name for phase in Phase)


class TransactionPartition(BaseModel):
    topic_name: str
    partition_id: int


class TransactionRow(Resource):
    transactional_id: str
    producer_id: int
    state: str
    coordinator: RelatedModel


class TransactionDetail(TransactionRow):
    producer_epoch: int
    timeout_ms: int
    started_ms: int = Field(description="When the open transaction began, in ms since 1970; -1 where none is.")
    partitions: list[TransactionPartition]


class PartitionProducer(Resource):
    topic_name: str
    partition_id: int
    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start_offset: int = Field(description="Of the transaction that is open here; -1 for none.")


class AbortedTransaction(RequestBody):
    """Either the offset at which the transaction begins, or its producer."""

    start_offset: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    producer_id: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    producer_epoch: Annotated[int, Field(ge=0, le=EPOCH_MAX)] | None = None
    coordinator_epoch: int = Field(default=0, ge=0, le=INT32_MAX)


class TransactionAdmin:
    """`write` takes markers to a leader."""

    def __init__(self, transactions: Transactions, write: WriteMarkers) -> None:
        self._transactions = transactions
        self._write = write

    async def list_transactions(self, call: Call) -> web.Response:
        """ListTransactions of all coordinators: 200 with those that pass the filters of the query, by id. Raises
        CoordinatorNotAvailable 15 while one of them does not answer, InvalidRegularExpression 128."""
        found = await self._transactions.list_all(_filters(call))
        every = (each.transactional_id for its in found.values() for each in its)
        shown = set(call.described(AclResource.TRANSACTIONAL_ID, every))
        rows = sorted(
            (each, node_id) for node_id, its in found.items() for each in its if each.transactional_id in shown
        )
        return answer(
            listing(
                call,
                "KafkaTransactionList",
                ("transactions",),
                (
                    _row(call, each.transactional_id, each.producer_id, each.phase, coordinator=node_id)
                    for each, node_id in rows
                ),
            )
        )

    async def describe_transaction(self, call: Call) -> web.Response:
        """DescribeTransactions of one id: 200 with its producer, timeout and begin in ms (-1: nothing is open), and
        partitions of the topics that the caller may describe. Raises TransactionalIdNotFound 105."""
        name = call.path["transactional_id"]
        found = await self._transactions.describe(name)
        shown = call.of_described_topics(sorted(found.partitions), itemgetter(0))
        coordinator = await self._transactions.coordinator_of(name)
        return answer(
            _row(call, name, found.producer_id, found.phase, coordinator=coordinator)
            | {
                "producer_epoch": found.epoch,
                "timeout_ms": found.timeout_ms,
                "started_ms": found.started_ms if found.partitions else -1,
                "partitions": [{"topic_name": topic, "partition_id": number} for topic, number in shown],
            }
        )

    async def list_producers(self, call: Call) -> web.Response:
        """DescribeProducers of one partition: 200 with each producer that its leader knows, and where its open
        transaction begins. Raises HttpError 404, NotLeaderOrFollower 6."""
        topic, partition = find_partition(call)
        producers = await call.context.gateway.producers(TopicIdPartition(topic.topic_id, partition.partition))
        path = ("topics", topic.name, "partitions", partition.partition, "producers")
        rows = (_producer(call, topic.name, partition.partition, each) for each in producers)
        return answer(listing(call, "KafkaProducerList", path, rows))

    async def abort_transaction(self, call: Call) -> web.Response:
        """Does the same as `kafka-transactions.sh abort`: the marker has the epoch of the records, and the coordinator
        epoch that the partition has seen last, or the one in the body."""
        asked = call.model(AbortedTransaction)
        topic, partition = find_partition(call)
        which = TopicIdPartition(topic.topic_id, partition.partition)
        producers = await call.context.gateway.producers(which)
        producer_id, epoch, coordinator_epoch = _open_producer(asked, producers)
        marker = MarkersToWrite(
            producer_id=producer_id,
            producer_epoch=epoch,
            marker=Marker(is_commit=False, coordinator_epoch=coordinator_epoch),
            partitions=frozenset({(topic.name, partition.partition)}),
        )
        state = call.context.gateway.image.partition(which.topic_id, which.partition)
        if state is None or not state.has_leader:
            raise LeaderNotAvailable(f"partition {topic.name}-{partition.partition} has no leader")
        try:
            (codes,) = await self._write(state.leader, [marker])
        except (ConnectionClosed, OSError) as lost:
            raise LeaderNotAvailable(f"broker {state.leader} did not answer: {type(lost).__name__}") from lost
        errors = [for_code(code).name for code in codes.values() if code]
        where = f"{topic.name}-{partition.partition}"
        call.context.gateway.note_change(call.principal, "WriteTxnMarkers", [where], errors)
        for code in codes.values():
            if code:
                raise _as_reported(for_code(code), topic.name, partition.partition)
        return no_content()


def _as_reported(error: KafkaError, topic: str, partition: int) -> KafkaError:
    if error.message != error.name:
        return error
    return type(error)(f"the leader of {topic}-{partition} refuses the marker")


def _open_producer(asked: AbortedTransaction, producers: Sequence[ActiveProducer]) -> tuple[int, int, int]:
    """Id and epoch of the producer to be ended, and the coordinator epoch of its marker. Raises HttpError 40002,
    InvalidTxnState 48."""
    if (asked.start_offset is None) == (asked.producer_id is None):
        raise HttpError(BAD_REQUEST, "name the transaction by start_offset, or by producer_id and producer_epoch")
    if asked.producer_id is not None:
        if asked.producer_epoch is None:
            raise HttpError(BAD_REQUEST, "producer_id needs a producer_epoch")
        return asked.producer_id, asked.producer_epoch, asked.coordinator_epoch
    for each in producers:
        if each.transaction_start_offset == asked.start_offset:
            return each.producer_id, each.producer_epoch, max(each.coordinator_epoch, 0)
    begun = sorted(each.transaction_start_offset for each in producers if each.transaction_start_offset >= 0)
    raise InvalidTxnState(f"no open transaction begins at offset {asked.start_offset}; those here begin at {begun}")


def _filters(call: Call) -> ListFilters:
    """Raises HttpError 40002."""
    query = call.request.query
    filters = ListFilters(
        states=tuple(query.getall(_STATE.name, ())),
        producer_ids=(integer(call, _PRODUCER.name, default=0, high=INT64_MAX),) if _PRODUCER.name in query else (),
        open_ms_min=integer(call, _DURATION.name, default=ANY_DURATION, low=-1, high=INT64_MAX),
        pattern=query.get(_PATTERN.name) or None,
    )
    if filters.unknown_states:
        raise HttpError(
            BAD_REQUEST, f"state={filters.unknown_states[0]} is not known; it is one of {', '.join(STATES)}"
        )
    return filters


def _row(call: Call, name: str, producer_id: int, phase: Phase, *, coordinator: int) -> Document:
    return resource(
        call,
        KIND,
        ("transactions", name),
        crn(call, transaction=name),
        {
            "transactional_id": name,
            "producer_id": producer_id,
            "state": phase.kafka_name,
            "coordinator": related(call, "brokers", coordinator),
        },
    )


def _producer(call: Call, topic: str, partition: int, each: ActiveProducer) -> Document:
    return resource(
        call,
        "KafkaProducer",
        ("topics", topic, "partitions", partition, "producers"),
        crn(call, topic=topic, partition=partition, producer=each.producer_id),
        {
            "topic_name": topic,
            "partition_id": partition,
            "producer_id": each.producer_id,
            "producer_epoch": each.producer_epoch,
            "last_sequence": each.last_sequence,
            "last_timestamp_ms": each.last_timestamp_ms,
            "coordinator_epoch": each.coordinator_epoch,
            "transaction_start_offset": each.transaction_start_offset,
        },
    )


_STATE = Parameter(
    name="state",
    description="Only those in this state; may be repeated.",
    schema={"type": "string", "enum": list(STATES)},
)
_PRODUCER = Parameter(
    name="producer_id",
    description="Only that of this producer.",
    schema={"type": "integer", "minimum": 0, "maximum": INT64_MAX},
)
_DURATION = Parameter(
    name="duration_ms",
    description="Only those that have run for longer than this.",
    schema={"type": "integer", "minimum": -1, "maximum": INT64_MAX},
)
_PATTERN = Parameter(
    name="pattern",
    description="Only ids that this regular expression (RE2) matches as a whole.",
    schema={"type": "string"},
)


def transaction_admin_routes(transactions: Transactions, write: WriteMarkers) -> tuple[Route, ...]:
    admin = TransactionAdmin(transactions, write)
    partition = "/topics/{topic}/partitions/{partition}"
    return (
        route("GET", "/transactions", admin.list_transactions, "Transactional ids, with their transactions.",
              Listing[TransactionRow], query=(_STATE, _PRODUCER, _DURATION, _PATTERN), errors=(40002, 50302)),
        route("GET", "/transactions/{transactional_id}", admin.describe_transaction, "One transactional id.",
              TransactionDetail, errors=(TRANSACTION_NOT_FOUND, 50302)),
        route("GET", partition + "/producers", admin.list_producers,
              "Producers that the leader knows, and their open transactions.", Listing[PartitionProducer],
              errors=(40403, 50302)),
        route("POST", partition + "/transactions:abort", admin.abort_transaction,
              "Abort an open transaction in one partition, without its coordinator.", body=AbortedTransaction,
              errors=(40002, 40403, 40903, FENCED, 50002, 50302)),
    )  # fmt: skip
