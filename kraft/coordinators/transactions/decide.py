"""Deciding about a transactional id: (transaction, event, now) -> (transaction, reply). Pure (T2 to T5, T10).

The shell writes the transaction if it has changed, gives the reply once that is replicated, and has markers written
while it prepares. A refusal is raised and changes nothing.
Source: TransactionCoordinator, TransactionMetadata; KIP-98, KIP-360, KIP-588, KIP-890.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from kraft.coordinators.transactions.state import (
    LAST_CLIENT_EPOCH,
    NO_EPOCH,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    Begun,
    Phase,
    Transaction,
)
from kraft.protocol.errors import (
    ConcurrentTransactions,
    InvalidProducerIdMapping,
    InvalidRequest,
    InvalidTransactionTimeout,
    InvalidTxnState,
    KafkaError,
    ProducerFenced,
    TransactionAbortable,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from kraft.values import value

RAISES_EPOCH_FROM = 2
"""Transaction version from which each transaction has an epoch of its own (KIP-890)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducer:
    timeout_ms: int
    timeout_ms_max: int
    expected: Producer | None = None
    """The producer id and epoch that the producer has (KIP-360); None for a new one."""
    key: bytes = b""
    """The key of a request that may be repeated; each request without one takes the id over again."""
    owner: str = ""
    """The user who takes the id over, where it belongs to one from then on."""
    new_producer_id: int | None = None
    """Given when the decision before has asked for it."""

    def with_producer_id(self, producer_id: int) -> InitProducer:
        return replace(self, new_producer_id=producer_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPartitions:
    producer: Producer
    partitions: frozenset[TopicPartition]
    client_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyPartitions:
    producer: Producer
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTransaction:
    producer: Producer
    is_commit: bool
    client_version: int
    new_producer_id: int | None = None

    def with_producer_id(self, producer_id: int) -> EndTransaction:
        return replace(self, new_producer_id=producer_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeIsOver:
    """The transaction has been open for longer than its timeout."""

    new_producer_id: int | None = None

    def with_producer_id(self, producer_id: int) -> TimeIsOver:
        return replace(self, new_producer_id=producer_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkersWritten:
    """Every partition of it has its marker, or is gone."""


Event: TypeAlias = InitProducer | AddPartitions | VerifyPartitions | EndTransaction | TimeIsOver | MarkersWritten
Reply: TypeAlias = Producer | Mapping[TopicPartition, KafkaError | None] | KafkaError | None


@value()
class Decision:
    transaction: Transaction | None
    """To be written if it is not the one of before."""
    reply: Reply = None
    needs_producer_id: bool = False
    """Nothing is decided: ask again with a new producer id."""


def decide(transactional_id: str, known: Transaction | None, event: Event, *, now_ms: int) -> Decision:
    """`now_ms` is wall time. Raises the KafkaError of a refusal."""
    match event:
        case InitProducer():
            return _init(transactional_id, known, event, now_ms=now_ms)
        case AddPartitions():
            return _add(transactional_id, known, event, now_ms=now_ms)
        case VerifyPartitions():
            return _verify(_mapped(transactional_id, known, event.producer), event)
        case EndTransaction():
            return _end(transactional_id, known, event, now_ms=now_ms)
        case TimeIsOver():
            assert known is not None, transactional_id
            return _time_over(known, event, now_ms=now_ms)
        case MarkersWritten():
            assert known is not None, transactional_id
            return Decision(_completed(known, now_ms=now_ms))


# --- InitProducerId -------------------------------------------------------------------------------------------


def _init(transactional_id: str, known: Transaction | None, event: InitProducer, *, now_ms: int) -> Decision:
    if not 0 < event.timeout_ms <= event.timeout_ms_max:
        raise InvalidTransactionTimeout(
            f"transaction.timeout.ms is {event.timeout_ms}; between 1 and the transaction.max.timeout.ms of "
            f"{event.timeout_ms_max} is allowed"
        )
    if known is None:
        if event.new_producer_id is None:
            return Decision(None, needs_producer_id=True)
        known = Transaction(
            transactional_id=transactional_id,
            producer_id=event.new_producer_id,
            epoch=NO_EPOCH,
            timeout_ms=event.timeout_ms,
            updated_ms=now_ms,
        )
    if event.key and known.begun is not None and known.begun.key == event.key:
        if event.timeout_ms != known.timeout_ms:
            raise InvalidRequest(
                f"the request with this key took {transactional_id!r} over with a transaction.timeout.ms of "
                f"{known.timeout_ms}, not {event.timeout_ms}; another request has another key"
            )
        return Decision(known, Producer(known.begun.producer_id, known.begun.epoch))
    _check_not_ending(known)
    if event.expected is not None and not _may_go_on(known, event.expected):
        raise _fenced(known, event.expected)
    if known.phase is Phase.ONGOING:
        return replace(_fenced_off(known, event, now_ms=now_ms), reply=_concurrent(known))
    return _next_epoch(known, event, now_ms=now_ms)


def _may_go_on(known: Transaction, expected: Producer) -> bool:
    """Its epoch is looked at when it is raised. The id of before may be that of a producer that has not heard yet that
    its epochs were used up."""
    return (
        known.epoch == NO_EPOCH
        or expected.producer_id == known.producer_id
        or (expected.producer_id == known.previous_producer_id and expected.epoch >= LAST_CLIENT_EPOCH)
    )


def _next_epoch(known: Transaction, event: InitProducer, *, now_ms: int) -> Decision:
    expected = event.expected
    is_current = expected is None or expected.epoch == known.epoch
    producer_id, epoch, last_epoch = known.producer_id, known.epoch + 1, known.epoch if expected else NO_EPOCH
    if known.is_exhausted and is_current:
        if event.new_producer_id is None:
            return Decision(known, needs_producer_id=True)
        producer_id, epoch = event.new_producer_id, 0
    elif not is_current and known.epoch != NO_EPOCH:
        assert expected is not None
        if expected.epoch != known.last_epoch:
            raise _fenced(known, expected)
        epoch, last_epoch = known.epoch, known.last_epoch  # the answer to the same request was lost
    changed = replace(
        known,
        producer_id=producer_id,
        previous_producer_id=known.producer_id,
        epoch=epoch,
        last_epoch=last_epoch,
        timeout_ms=event.timeout_ms,
        phase=Phase.EMPTY,
        partitions=frozenset(),
        started_ms=NO_TIMESTAMP,
        updated_ms=now_ms,
        owner=event.owner,
        begun=Begun(key=event.key, producer_id=producer_id, epoch=epoch) if event.key else None,
    )
    return Decision(changed, Producer(producer_id, epoch))


def _fenced_off(known: Transaction, event: InitProducer | TimeIsOver, *, now_ms: int) -> Decision:
    """An abort that its client did not ask for, as if EndTxn of transaction version 2 had: the epoch is raised once, so
    that a producer with the old epoch is fenced (KAFKA-19367), and a producer id without further epochs is rotated."""
    return _prepared(
        known,
        phase=Phase.PREPARE_ABORT,
        client_version=RAISES_EPOCH_FROM,
        new_producer_id=event.new_producer_id,
        now_ms=now_ms,
    )


# --- who may ask ----------------------------------------------------------------------------------------------


def _check_not_ending(known: Transaction | None) -> None:
    """Raises ConcurrentTransactions 51 while markers are written. InitProducerId, AddPartitionsToTxn and EndTxn of
    transaction version 2 are checked so before their producer is: it has been answered an epoch, and perhaps a producer
    id, that are its own when the transaction is complete (KIP-890). EndTxn of version 1 and a verification are checked
    so after their producer."""
    if known is not None and known.phase.is_preparing:
        raise _concurrent(known)


def _mapped(transactional_id: str, known: Transaction | None, producer: Producer) -> Transaction:
    """Raises InvalidProducerIdMapping 49, ProducerFenced 90."""
    if known is None or known.producer_id != producer.producer_id:
        raise InvalidProducerIdMapping(f"{transactional_id!r} does not belong to producer id {producer.producer_id}")
    if known.epoch != producer.epoch:
        raise _fenced(known, producer)
    return known


# --- partitions -----------------------------------------------------------------------------------------------


def _add(transactional_id: str, known: Transaction | None, event: AddPartitions, *, now_ms: int) -> Decision:
    _check_not_ending(known)
    known = _mapped(transactional_id, known, event.producer)
    reply = dict.fromkeys(event.partitions)
    if known.phase is Phase.ONGOING and event.partitions <= known.partitions:
        return Decision(known, reply)
    changed = replace(
        known,
        previous_producer_id=known.producer_id,
        phase=Phase.ONGOING,
        partitions=known.partitions | event.partitions,
        started_ms=known.started_ms if known.phase is Phase.ONGOING else now_ms,
        updated_ms=now_ms,
        client_version=event.client_version,
    )
    return Decision(changed, reply)


def _verify(known: Transaction, event: VerifyPartitions) -> Decision:
    _check_not_ending(known)
    absent = _absent(known, event.partitions)
    return Decision(known, {each: absent.get(each) for each in event.partitions})


def _absent(known: Transaction, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, KafkaError]:
    has = known.partitions if known.phase is Phase.ONGOING else frozenset()
    return {
        each: TransactionAbortable(f"{each[0]}-{each[1]} is not in the transaction of {known.transactional_id!r}")
        for each in partitions
        if each not in has
    }


# --- EndTxn ---------------------------------------------------------------------------------------------------


def _end(transactional_id: str, known: Transaction | None, event: EndTransaction, *, now_ms: int) -> Decision:
    if event.client_version < RAISES_EPOCH_FROM:
        return _end_of_old_client(_mapped(transactional_id, known, event.producer), event, now_ms=now_ms)
    if known is None:
        raise InvalidProducerIdMapping(f"{transactional_id!r} is not known, or was not used for long")
    _check_not_ending(known)
    producer = event.producer
    is_retry_of_rotation = (
        known.previous_producer_id == producer.producer_id and producer.epoch == LAST_CLIENT_EPOCH and known.epoch == 0
    )
    is_retry = is_retry_of_rotation or known.epoch == producer.epoch + 1
    if known.producer_id != producer.producer_id and not is_retry_of_rotation:
        raise InvalidProducerIdMapping(f"{transactional_id!r} does not belong to producer id {producer.producer_id}")
    _check_epoch(known, producer, is_retry=is_retry)
    if known.phase is Phase.ONGOING:
        return _end_as_asked(known, event, now_ms=now_ms)
    if is_retry and _is_repeated(known.phase, event):
        return Decision(known, Producer(known.producer_id, known.epoch))
    if event.is_commit or is_retry:
        raise _wrong_state(known, event)
    return _end_as_asked(replace(known, started_ms=now_ms), event, now_ms=now_ms)


def _check_epoch(known: Transaction, producer: Producer, *, is_retry: bool) -> None:
    """With an epoch for each transaction, the same epoch is the next transaction, and the one before a repetition.
    Raises ProducerFenced 90."""
    if producer.epoch != known.epoch and not (is_retry and known.phase.is_complete):
        raise _fenced(known, producer)


def _end_of_old_client(known: Transaction, event: EndTransaction, *, now_ms: int) -> Decision:
    _check_not_ending(known)
    if known.phase is Phase.ONGOING:
        phase = Phase.PREPARE_COMMIT if event.is_commit else Phase.PREPARE_ABORT
        changed = replace(
            known, previous_producer_id=known.producer_id, phase=phase, updated_ms=now_ms, client_version=0
        )
        return Decision(changed, event.producer)
    if not _is_repeated(known.phase, event):
        raise _wrong_state(known, event)
    return Decision(known, event.producer)


def _end_as_asked(known: Transaction, event: EndTransaction, *, now_ms: int) -> Decision:
    return _prepared(
        known,
        phase=Phase.PREPARE_COMMIT if event.is_commit else Phase.PREPARE_ABORT,
        client_version=event.client_version,
        new_producer_id=event.new_producer_id,
        now_ms=now_ms,
    )


def _prepared(
    known: Transaction, *, phase: Phase, client_version: int, new_producer_id: int | None, now_ms: int
) -> Decision:
    """The reply is the producer of the next transaction."""
    next_producer_id = NO_PRODUCER_ID
    if known.is_exhausted:
        if new_producer_id is None:
            return Decision(known, needs_producer_id=True)
        next_producer_id = new_producer_id
    changed = replace(
        known,
        previous_producer_id=known.producer_id,
        next_producer_id=next_producer_id,
        epoch=known.epoch + 1,
        last_epoch=known.epoch,
        phase=phase,
        updated_ms=now_ms,
        client_version=client_version,
    )
    after = _completed(changed, now_ms=now_ms)
    return Decision(changed, Producer(after.producer_id, after.epoch))


def _is_repeated(phase: Phase, event: EndTransaction) -> bool:
    return phase is (Phase.COMPLETE_COMMIT if event.is_commit else Phase.COMPLETE_ABORT)


# --- what no client asks for ----------------------------------------------------------------------------------


def _time_over(known: Transaction, event: TimeIsOver, *, now_ms: int) -> Decision:
    """Its own producer may go on with the next epoch (KIP-588)."""
    if known.phase is not Phase.ONGOING or now_ms < known.started_ms + known.timeout_ms:
        return Decision(known)
    return _fenced_off(known, event, now_ms=now_ms)


def _completed(known: Transaction, *, now_ms: int) -> Transaction:
    assert known.phase.is_preparing, known
    is_rotated = known.next_producer_id != NO_PRODUCER_ID
    return replace(
        known,
        producer_id=known.next_producer_id if is_rotated else known.producer_id,
        previous_producer_id=known.producer_id,
        next_producer_id=NO_PRODUCER_ID,
        epoch=0 if is_rotated else known.epoch,
        phase=Phase.COMPLETE_COMMIT if known.phase is Phase.PREPARE_COMMIT else Phase.COMPLETE_ABORT,
        partitions=frozenset(),
        updated_ms=now_ms,
    )


# --- refusals -------------------------------------------------------------------------------------------------


def _fenced(known: Transaction, producer: Producer) -> KafkaError:
    return ProducerFenced(
        f"{known.transactional_id!r} is at epoch {known.epoch} of producer id {known.producer_id}; epoch "
        f"{producer.epoch} of {producer.producer_id} is fenced"
    )


def _concurrent(known: Transaction) -> KafkaError:
    return ConcurrentTransactions(f"the transaction of {known.transactional_id!r} is being ended; try again")


def _wrong_state(known: Transaction, event: EndTransaction) -> KafkaError:
    wanted = "commit" if event.is_commit else "abort"
    return InvalidTxnState(f"{known.transactional_id!r} is in {known.phase.kafka_name}; there is nothing to {wanted}")
