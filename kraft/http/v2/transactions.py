"""Transactions over REST: begin, produce within it, add a group's offsets, commit, abort (KIP-98, KIP-890).

A producer is known by its transactional id, producer id and epoch, which each request names; so any node takes it. A
repeated request changes nothing more: a beginning is known by its Idempotency-Key, the records of a produce carry
sequences (`kraft.http.transactional`), an offset is added once, and an end is known by its epoch. What a client that
vanished left open is aborted by its timeout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from aiohttp import web
from pydantic import BaseModel, Field

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.coordinators.transactions.state import Transaction
from kraft.http.batch_sender import KEY_HEADER
from kraft.http.body_models import Items, RequestBody, Whole
from kraft.http.endpoint import Body, Call, Handler, Header, Method, Parameter, Route
from kraft.http.errors import (
    BAD_REQUEST,
    FENCED,
    ILLEGAL_STATE,
    TRANSACTION_NOT_FOUND,
    UNPROCESSABLE,
    HttpError,
    from_kafka,
    worded,
)
from kraft.http.idempotency import HEADERS, idempotency_key
from kraft.http.media import v2_answer
from kraft.http.produce_params import PARAMETERS, ProduceParams
from kraft.http.transactional import PRODUCER, SEQUENCE, SEQUENCE_HEADER, InTransaction, in_transaction
from kraft.http.v2 import produce
from kraft.http.v2.consumers import check as check_json
from kraft.http.v2.consumers import check_instance, offsets_to_commit
from kraft.http.v2.consumers_bodies import body_of
from kraft.http.v2.consumers_models import OffsetRef, PartitionRef
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidRequest,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TransactionAbortable,
    TransactionalIdAuthorizationFailed,
    TransactionalIdNotFound,
    UnknownProducerId,
    for_code,
)
from kraft.protocol.media_types import RECORD_BATCH, V2_JSON
from kraft.protocol.primitives import INT32_MAX
from kraft.protocol.transactions import Producer
from metadata.acls import AclOperation, AclResource
from replication.requests import ProduceOutcome

OWNED_MAX = 10_000
"""Producers whose owner a node remembers; of others it asks the coordinator."""
TIMEOUT_MS_DEFAULT = 60_000
"""transaction.timeout.ms of Kafka's producer."""
ENDS_REQUEST = frozenset(
    error.code
    for error in (
        OutOfOrderSequenceNumber,
        InvalidProducerEpoch,
        InvalidTxnState,
        InvalidProducerIdMapping,
        TransactionalIdAuthorizationFailed,
        UnknownProducerId,
        ProducerFenced,
        TransactionAbortable,
    )
)
"""Errors of one partition that are the answer to the whole request: none of its records will be committed so."""


class NewTransaction(RequestBody):
    timeout_ms: Annotated[int, Whole(low=1, high=INT32_MAX)] = Field(
        default=TIMEOUT_MS_DEFAULT,
        alias="transaction.timeout.ms",
        description="Open for longer, a transaction is aborted; at most transaction.max.timeout.ms.",
    )


class TransactionProducer(BaseModel):
    """The producer of a transaction; each request about the transaction names it."""

    transactional_id: str
    producer_id: int
    producer_epoch: int


class TransactionInfo(TransactionProducer):
    state: str = Field(description="Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit or CompleteAbort.")
    timeout_ms: int
    started_ms: int = Field(description="When the transaction began, in ms since 1970; -1 where none is open.")
    partitions: list[PartitionRef]


class GroupOffsets(RequestBody):
    """The offsets to commit, of a group or of a REST consumer. As in a commit, `offsets` name the last records read, so
    that one more is stored, and `partitions` name what is stored. An instance without both commits all that it read."""

    group: str = Field(min_length=1)
    instance: str | None = Field(default=None, min_length=1, description="A REST consumer of the group.")
    offsets: Items[OffsetRef] | None = None
    partitions: Items[OffsetRef] | None = None


class TransactionHandlers:
    def __init__(self, transactions: Transactions, groups: Groups) -> None:
        self._transactions = transactions
        self._groups = groups
        self._owned: OrderedDict[tuple[str, str, Producer], None] = OrderedDict()
        """Owner, id and producer of transactions that were found to be the owner's."""

    async def begin_transaction(self, call: Call) -> web.Response:
        """InitProducerId: 200 with the `producer_id` and `producer_epoch` of the next transaction. Fences the producer
        that had the id before, and aborts its open transaction. The same request with the same
        Idempotency-Key gets the first answer. Raises HttpError 422 for a key that was used with another body."""
        key = idempotency_key(call)
        asked = body_of(call, NewTransaction)
        digest = b"" if key is None else key.digest()
        try:
            given = await self._transactions.init(_id(call), timeout_ms=asked.timeout_ms, key=digest, owner=call.owner)
        except InvalidRequest as error:
            if key is None:
                raise
            raise HttpError(
                UNPROCESSABLE,
                f"the {KEY_HEADER} was used with another body: {error.message}",
                extra={"kafka_code": error.code, "retriable": False},
            ) from error
        return _answer(call, given)

    async def get_transaction(self, call: Call) -> web.Response:
        """DescribeTransactions: 200 with state, producer, timeout in ms, and the partitions of topics that the caller
        may describe. Raises TransactionalIdNotFound 105."""
        found = await self._transactions.describe(_id(call))
        shown = call.of_described_topics(sorted(found.partitions), itemgetter(0))
        return _json(call, _described(found, shown))

    async def produce_in_transaction(self, call: Call, params: ProduceParams) -> web.Response:
        """200 as outside of transactions, and X-Next-Sequence for the next request. Raises InvalidProducerEpoch 47,
        ProducerFenced 90, TransactionAbortable 120 besides."""
        return await self._produce(call, params, None)

    async def produce_to_partition_in_transaction(self, call: Call, params: ProduceParams) -> web.Response:
        """The same for one partition. Raises HttpError 40402 besides."""
        return await self._produce(call, params, call.partition)

    async def _produce(self, call: Call, params: ProduceParams, partition: int | None) -> web.Response:
        transaction = params.sender
        assert isinstance(transaction, InTransaction), "the check of the route chooses it"
        await self._check_owner(call, Producer(transaction.producer_id, transaction.producer_epoch))
        done = await produce.write(call, params, partition)
        for _, outcome in done.outcomes():
            if outcome.error_code in ENDS_REQUEST:
                raise from_kafka(for_code(outcome.error_code, _outcome_of(outcome)))
        written = {
            number: sum(piece.records for piece in pieces if not piece.outcome.error_code)
            for number, pieces in done.pieces.items()
        }
        response = produce.answer(params, done)
        response.headers[SEQUENCE_HEADER] = transaction.next_sequences(written)
        return response

    async def add_transaction_offsets(self, call: Call) -> web.Response:
        """TxnOffsetCommit: 204; these offsets of a group, or all that its instance has read, count when the transaction
        is committed. Raises HttpError 422 for a body that names neither."""
        producer, asked = _producer(call), body_of(call, GroupOffsets)
        call.check(AclOperation.READ, AclResource.GROUP, asked.group)
        await self._check_owner(call, producer)
        offsets = offsets_to_commit(call, asked.offsets, asked.partitions)
        if offsets is None:
            if asked.instance is None:
                raise HttpError(UNPROCESSABLE, "without an `instance` the body has `offsets` or `partitions`")
            names = {"group": asked.group, "instance": asked.instance, "owner": call.owner}
            await check_instance(call, self._groups, r.DescribeInstance(**names))
        await self._ask(_commit(call, producer, asked, offsets))
        return web.Response(status=204)

    async def _ask(self, request: r.Request) -> None:
        answer = await self._groups.ask(request)
        if isinstance(answer, a.Refused):
            extra = {} if answer.kafka_code is None else {"kafka_code": answer.kafka_code}
            raise HttpError(answer.code, answer.message, extra=extra)

    async def end_transaction(self, call: Call, *, is_commit: bool) -> web.Response:
        """EndTxn: 200 with the producer of the next transaction (KIP-890). To commit one that has written nothing is no
        error. Raises InvalidTxnState 48, ProducerFenced 90."""
        asked = _producer(call)
        await self._check_owner(call, asked)
        try:
            following = await self._transactions.end(_id(call), asked, is_commit=is_commit)
        except InvalidTxnState:
            if not (is_commit and await self._has_nothing(_id(call), asked)):
                raise
            following = asked
        return _answer(call, following)

    async def _check_owner(self, call: Call, named: Producer) -> None:
        """A producer of an id belongs to the user who took the id over, until it is taken over again. Raises
        InvalidProducerIdMapping 49, as for one that nobody has, where that was another user."""
        owner, transactional_id = call.owner, _id(call)
        key = owner, transactional_id, named
        if not owner or key in self._owned:
            return
        try:
            found = await self._transactions.describe(transactional_id)
        except TransactionalIdNotFound:
            return  # the coordinator refuses what is asked next
        is_current = Producer(found.producer_id, found.epoch) == named
        is_later = named.producer_id == found.producer_id and named.epoch > found.epoch
        if found.owner not in ("", owner) or is_later:
            raise InvalidProducerIdMapping("no user has been given this producer for this transactional id")
        if is_current:
            self._owned[key] = None
            if len(self._owned) > OWNED_MAX:
                self._owned.popitem(last=False)

    async def _has_nothing(self, transactional_id: str, asked: Producer) -> bool:
        """Nothing was written in this transaction, so that there is nothing to commit: Kafka's own producers do not ask
        then, but a client of HTTP does not keep a count."""
        found = await self._transactions.describe(transactional_id)
        is_current = (found.producer_id, found.epoch) == (asked.producer_id, asked.epoch)
        return is_current and not found.partitions and not found.phase.is_preparing


def _outcome_of(outcome: ProduceOutcome) -> str:
    said = worded(for_code(outcome.error_code, outcome.message))
    if outcome.error_code != OutOfOrderSequenceNumber.code:
        return said
    return f"{said}; send the {SEQUENCE_HEADER} of the last answer about this topic as `{SEQUENCE.name}`"


def _id(call: Call) -> str:
    return call.path["transactional_id"]


def _producer(call: Call) -> Producer:
    named = in_transaction(call)
    return Producer(named.producer_id, named.producer_epoch)


def _commit(
    call: Call, producer: Producer, asked: GroupOffsets, offsets: tuple[r.OffsetToCommit, ...] | None
) -> r.CommitInTransaction | r.CommitInstanceInTransaction:
    if asked.instance is None:
        return r.CommitInTransaction(
            group=asked.group,
            transactional_id=_id(call),
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            adds_partition=True,
            offsets=offsets or (),
        )
    return r.CommitInstanceInTransaction(
        group=asked.group,
        instance=asked.instance,
        owner=call.owner,
        transactional_id=_id(call),
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        offsets=offsets,
    )


def _described(found: Transaction, shown: Iterable[tuple[str, int]]) -> Mapping[str, Any]:
    return {
        "transactional_id": found.transactional_id,
        "producer_id": found.producer_id,
        "producer_epoch": found.epoch,
        "state": found.phase.kafka_name,
        "timeout_ms": found.timeout_ms,
        "started_ms": found.started_ms if found.partitions else -1,
        "partitions": [{"topic": topic, "partition": number} for topic, number in shown],
    }


def _answer(call: Call, producer: Producer) -> web.Response:
    named = {"transactional_id": _id(call), "producer_id": producer.producer_id, "producer_epoch": producer.epoch}
    return _json(call, named)


def _json(call: Call, document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), headers={"Content-Type": v2_answer(call.accept)})


# --- routes -----------------------------------------------------------------------------------------------------------


_ONE = "/transactions/{transactional_id}"
_STATE = (40002, FENCED, ILLEGAL_STATE, TRANSACTION_NOT_FOUND, 406, 50302)
_BODY = (400, 413, 415, 422)
_BEGIN_HEADERS = tuple(
    replace(
        each,
        description=(
            "Makes this request safe to send again: with the same key it is answered with the first producer and "
            "fences nobody, on any node, until the id is taken over with another key or without one."
        ),
    )
    if each.name == KEY_HEADER
    else each
    for each in HEADERS
)
_NEXT = Header(
    description="Where the partitions go on: `sequence` of the next request about this topic.",
    schema={"type": "string"},
)


def transaction_routes(transactions: Transactions, groups: Groups) -> tuple[Route, ...]:
    handlers = TransactionHandlers(transactions, groups)
    made = {200: Body(content={V2_JSON: TransactionProducer})}
    return (
        _route("POST", _ONE, handlers.begin_transaction,
               "Take a transactional id over: earlier producers of it are fenced, what they left open is aborted.",
               body=NewTransaction, answers=made, errors=(*_STATE, *_BODY), headers=_BEGIN_HEADERS),
        _route("GET", _ONE, handlers.get_transaction, "Where the transaction of an id stands.",
               answers={200: Body(content={V2_JSON: TransactionInfo})}, errors=(TRANSACTION_NOT_FOUND, 406, 50302)),
        _produce_route("", handlers.produce_in_transaction,
                       "Write records to the partitions of a topic, within the transaction.", produce.EMBEDDED),
        _produce_route("/partitions/{partition}", handlers.produce_to_partition_in_transaction,
                       "Write records, or RecordBatches v2, to one partition, within the transaction.",
                       {**produce.EMBEDDED, RECORD_BATCH: None}),
        _route("POST", _ONE + "/offsets", handlers.add_transaction_offsets,
               "Commit offsets of a group with the transaction.", body=GroupOffsets, needs_body=True,
               answers={204: None}, query=PRODUCER, errors=(*_STATE, *_BODY, 40401, 40402, 40403)),
        _route("POST", _ONE + "/commit", partial(handlers.end_transaction, is_commit=True),
               "Commit; the answer is the producer of the next transaction.", answers=made, query=PRODUCER,
               errors=_STATE, name="v2_commit_transaction"),
        _route("POST", _ONE + "/abort", partial(handlers.end_transaction, is_commit=False),
               "Abort; the answer is the producer of the next transaction.", answers=made, query=PRODUCER,
               errors=_STATE, name="v2_abort_transaction"),
    )  # fmt: skip


def _produce_route(path: str, handler: Handler, summary: str, content: Mapping[str, Any]) -> Route:
    answers = {
        200: Body(
            content={V2_JSON: produce.ProduceAnswer},
            description="One entry per record, failed ones included.",
            headers={SEQUENCE_HEADER: _NEXT},
        )
    }
    return Route(
        method="POST", path=f"{_ONE}/topics/{{topic}}{path}", handler=handler, summary=summary, tag="v2",
        check=_check_produce, query=(*PRODUCER, SEQUENCE, *PARAMETERS), body=Body(content=content),
        answers=answers, errors=(*produce.ERRORS, FENCED, ILLEGAL_STATE, TRANSACTION_NOT_FOUND, 40402),
    )  # fmt: skip


def _check_produce(call: Call) -> ProduceParams:
    """Raises HttpError 40002 for a key: a client that trusts in it would take other records for written."""
    if KEY_HEADER in call.request.headers:
        raise HttpError(
            BAD_REQUEST,
            f"within a transaction a request is known by its `{SEQUENCE.name}`: send the {SEQUENCE_HEADER} of the last "
            f"answer about this topic in it, and no {KEY_HEADER}",
        )
    return produce.check(call, sender=in_transaction(call))


def _route(
    method: Method,
    path: str,
    handler: Handler,
    summary: str,
    *,
    body: Any = None,
    needs_body: bool = False,
    answers: Mapping[int, Body | None],
    errors: tuple[int, ...],
    query: tuple[Parameter, ...] = (),
    headers: tuple[Parameter, ...] = (),
    name: str = "",
) -> Route:
    return Route(
        method=method, path=path, handler=handler, summary=summary, tag="v2", check=check_json, query=query,
        headers=headers, body=None if body is None else Body(content={V2_JSON: body}, is_optional=not needs_body),
        answers=answers, errors=tuple(dict.fromkeys(errors)), name=name,
    )  # fmt: skip
