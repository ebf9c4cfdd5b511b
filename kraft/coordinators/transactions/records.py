"""The records of `__transaction_state`, byte for byte Kafka's. Pure.

The key is an int16 version and a TransactionLogKey, the value an int16 version and a TransactionLogValue. Written in
version 1, as a cluster whose transaction.version is 1 or later does. A transactional id that is over has no value.
What Kafka has no field for, key and user with which an id was taken over, stands in tagged fields, which Kafka skips.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

from kraft.coordinators.transactions.state import NO_EPOCH, NO_PRODUCER_ID, Begun, Phase, Transaction
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.messages.transaction_log_key import TransactionLogKeyData
from kraft.protocol.messages.transaction_log_value import PartitionsSchema, TransactionLogValueData
from kraft.protocol.primitives import TopicPartition

KEY_VERSION = 0
VALUE_VERSION = 1
_VERSION = struct.Struct(">h")
_NOT_BEGUN = Begun(key=b"", producer_id=NO_PRODUCER_ID, epoch=NO_EPOCH)


class MalformedRecord(ValueError):
    """A key or value that does not have the layout of its version."""


TransactionRecord: TypeAlias = tuple[str, Transaction | None]
"""A transactional id and its transaction; None is a tombstone."""


def encode_batch(records: Sequence[TransactionRecord], *, timestamp_ms: int) -> bytes:
    return build_batch([NewRecord(*_key_and_value(*record), [], timestamp_ms) for record in records])


def _key_and_value(transactional_id: str, transaction: Transaction | None) -> tuple[bytes, bytes | None]:
    key = _encoded(TransactionLogKeyData.make(transactional_id=transactional_id), KEY_VERSION)
    return key, None if transaction is None else _encoded(_value(transaction), VALUE_VERSION)


def decode_record(key: bytes, value: bytes | None) -> TransactionRecord | None:
    """None for a version that is not ours to read. Raises MalformedRecord."""
    name = _decoded(TransactionLogKeyData, key)
    if name is None:
        return None
    if value is None:
        return name.transactional_id, None
    stored = _decoded(TransactionLogValueData, value)
    return None if stored is None else (name.transactional_id, _transaction(name.transactional_id, stored))


def _encoded(message: TopLevel, version: int) -> bytes:
    return _VERSION.pack(version) + b"".join(codec.encode_body(message, version))


def _decoded(kind: type[codec.MessageT], data: bytes) -> codec.MessageT | None:
    try:
        (version,) = _VERSION.unpack_from(data)
        if version not in kind.VERSIONS:
            return None
        return codec.decode_body(kind, version, memoryview(data), _VERSION.size)
    except (*REFUSALS, codec.Malformed) as error:
        raise MalformedRecord(f"{kind.__name__}: {error}") from error


def _value(transaction: Transaction) -> TransactionLogValueData:
    begun = transaction.begun or _NOT_BEGUN
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(transaction.partitions):
        topics.setdefault(topic, []).append(partition)
    return TransactionLogValueData.make(
        producer_id=transaction.producer_id,
        previous_producer_id=transaction.previous_producer_id,
        next_producer_id=transaction.next_producer_id,
        producer_epoch=transaction.epoch,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_status=transaction.phase.value,
        transaction_partitions=None
        if transaction.phase is Phase.EMPTY
        else [PartitionsSchema.make(topic=topic, partition_ids=ids) for topic, ids in topics.items()],
        transaction_last_update_timestamp_ms=transaction.updated_ms,
        transaction_start_timestamp_ms=transaction.started_ms,
        client_transaction_version=transaction.client_version,
        begin_key=begun.key,
        begun_producer_id=begun.producer_id,
        begun_producer_epoch=begun.epoch,
        owner=transaction.owner,
    )


def _transaction(transactional_id: str, stored: TransactionLogValueData) -> Transaction:
    try:
        phase = Phase(stored.transaction_status)
    except ValueError as error:
        raise MalformedRecord(f"transaction status {stored.transaction_status} is not known") from error
    partitions: frozenset[TopicPartition] = frozenset(
        (topic.topic, number) for topic in stored.transaction_partitions or () for number in topic.partition_ids
    )
    return Transaction(
        transactional_id=transactional_id,
        producer_id=stored.producer_id,
        previous_producer_id=stored.previous_producer_id,
        next_producer_id=stored.next_producer_id,
        epoch=stored.producer_epoch,
        last_epoch=NO_EPOCH,
        timeout_ms=stored.transaction_timeout_ms,
        phase=phase,
        partitions=partitions,
        updated_ms=stored.transaction_last_update_timestamp_ms,
        started_ms=stored.transaction_start_timestamp_ms,
        client_version=stored.client_transaction_version,
        owner=stored.owner,
        begun=_begun(stored),
    )


def _begun(stored: TransactionLogValueData) -> Begun | None:
    key = bytes(stored.begin_key)
    if not key:
        return None
    return Begun(key=key, producer_id=stored.begun_producer_id, epoch=stored.begun_producer_epoch)
