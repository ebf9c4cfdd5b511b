"""What a leader checks of a client's batches, once, before they become opaque bytes (P12).

Every error a client can make has its Kafka code; nothing is appended when one batch is refused.
Source: org.apache.kafka.storage.internals.log.LogValidator and UnifiedLog.analyzeAndValidateRecords.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from metadata.environment import Buffer
from metadata.errors import (
    CorruptMessage,
    InvalidRecord,
    InvalidTimestamp,
    KafkaError,
    MessageTooLarge,
    RecordListTooLarge,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)
from metadata.settings import TopicSettings
from replication.batches.compression import DECOMPRESSED_BYTES_MAX
from replication.batches.header import (
    CODEC_NAMES,
    CONTROL,
    HEADER_BYTES,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_OFFSET,
    NO_PRODUCER_ID,
    TRANSACTIONAL,
    BatchHeader,
    computed_crc,
    extent_at,
    header_at,
)
from replication.batches.records import FramingCheck, check_records


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """The settings of a topic that decide about a batch, ready for use."""

    message_bytes_max: int
    segment_bytes: int
    is_log_append_time: bool
    timestamp_before_ms_max: int
    timestamp_after_ms_max: int
    framing: FramingCheck

    @classmethod
    def of(cls, settings: TopicSettings) -> BatchRules:
        is_log_append_time = settings.message_timestamp_type == "LogAppendTime"
        return cls(
            message_bytes_max=settings.max_message_bytes,
            segment_bytes=settings.segment_bytes,
            is_log_append_time=is_log_append_time,
            timestamp_before_ms_max=settings.message_timestamp_before_max_ms,
            timestamp_after_ms_max=settings.message_timestamp_after_max_ms,
            framing=FramingCheck(
                needs_keys="compact" in settings.cleanup_policy,
                checks_timestamps=not is_log_append_time,
                decompressed_bytes_max=DECOMPRESSED_BYTES_MAX,
            ),
        )


class ValidBatch(NamedTuple):
    position: int
    header: BatchHeader


def validate_batches(data: Buffer, *, rules: BatchRules, now_ms: int) -> list[ValidBatch]:
    """Check every batch of a client's record set.

    Raises CorruptMessage 2, MessageTooLarge 10, RecordListTooLarge 18, InvalidTimestamp 32,
    UnsupportedForMessageFormat 43, UnsupportedCompressionType 76, InvalidRecord 87.
    """
    if not len(data):
        raise InvalidRecord("the record set is empty; send at least one batch")
    if len(data) > rules.segment_bytes:
        raise RecordListTooLarge(f"{len(data)} bytes of records do not fit a segment of {rules.segment_bytes} bytes")
    view = memoryview(data)
    batches: list[ValidBatch] = []
    position = 0
    while position < len(view):
        header = _whole_header(view, position)
        after = position + header.size
        _validate_batch(view[position:after], header, rules=rules, now_ms=now_ms)
        batches.append(ValidBatch(position, header))
        position = after
    return batches


def _whole_header(view: memoryview, position: int) -> BatchHeader:
    rest = len(view) - position
    if rest <= MAGIC_OFFSET:
        raise CorruptMessage(f"{rest} bytes at the end of the record set are no batch")
    if view[position + MAGIC_OFFSET] != MAGIC:
        raise UnsupportedForMessageFormat(f"message format {view[position + MAGIC_OFFSET]}; only format 2 is supported")
    _, size = extent_at(view, position)
    if not HEADER_BYTES <= size <= rest:
        raise CorruptMessage(f"a batch says it has {size - LOG_OVERHEAD} bytes, {rest - LOG_OVERHEAD} are there")
    return header_at(view, position)


def _validate_batch(batch: memoryview, header: BatchHeader, *, rules: BatchRules, now_ms: int) -> None:
    if len(batch) > rules.message_bytes_max:
        raise MessageTooLarge(
            f"a batch of {len(batch)} bytes is larger than max.message.bytes = {rules.message_bytes_max}"
        )
    if computed_crc(batch, 0, len(batch)) != header.crc:
        raise CorruptMessage(f"the batch's CRC is not {header.crc:#010x} as its header says")
    refusal = _refusal(header)
    if refusal is not None:
        raise refusal
    earliest = check_records(batch, header, rules.framing)
    if not rules.is_log_append_time:
        _check_window(earliest, header.max_timestamp, rules=rules, now_ms=now_ms)


def _refusal(header: BatchHeader) -> KafkaError | None:
    """What is wrong with the header of a client's batch, if anything."""
    if header.codec >= len(CODEC_NAMES):
        return UnsupportedCompressionType(f"compression codec {header.codec}; use one of {', '.join(CODEC_NAMES)}")
    if header.record_count <= 0 or header.last_offset_delta != header.record_count - 1:
        return InvalidRecord(f"{header.record_count} records with last offset delta {header.last_offset_delta}")
    if header.attributes & CONTROL:
        return InvalidRecord("control batches are written by coordinators only")
    if header.attributes & TRANSACTIONAL:
        return InvalidRecord("transactional batches need a transaction coordinator, which this cluster does not have")
    if header.producer_id < NO_PRODUCER_ID:
        return InvalidRecord(f"producer id {header.producer_id} is negative")
    has_producer = header.producer_id != NO_PRODUCER_ID
    if has_producer and (header.producer_epoch < 0 or header.base_sequence < 0):
        return InvalidRecord(
            f"producer {header.producer_id} with epoch {header.producer_epoch}, sequence {header.base_sequence}"
        )
    return None


def _check_window(earliest: int, latest: int, *, rules: BatchRules, now_ms: int) -> None:
    """A record without a timestamp (-1) is taken as it is, as Kafka does."""
    if latest > 0 and latest - now_ms > rules.timestamp_after_ms_max:
        raise InvalidTimestamp(
            f"timestamp {latest} is {latest - now_ms} ms ahead; message.timestamp.after.max.ms "
            f"is {rules.timestamp_after_ms_max}"
        )
    if earliest >= 0 and now_ms - earliest > rules.timestamp_before_ms_max:
        raise InvalidTimestamp(
            f"timestamp {earliest} is {now_ms - earliest} ms old; message.timestamp.before.max.ms "
            f"is {rules.timestamp_before_ms_max}"
        )
