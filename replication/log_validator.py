"""A leader's checks of a client's batches, once, before they become opaque bytes (P12).

Every error of a client has its Kafka code; nothing is appended when one batch is refused. `prepare_records` is the
expensive part, which may run on a worker thread: the log then only stamps and writes.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import cast

from kraft.protocol.batches.budget import Budget, OverBudget
from kraft.protocol.batches.compression import compress
from kraft.protocol.batches.header import (
    CODEC_MASK,
    CODEC_NAMES,
    CONTROL,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME,
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
from kraft.protocol.batches.records import (
    RECORD_ERRORS_MAX,
    FramingCheck,
    check_records,
    headers_of,
    plain_within,
    timestamps_outside,
)
from kraft.protocol.errors import (
    CorruptMessage,
    InvalidRecord,
    InvalidTimestamp,
    KafkaError,
    MessageTooLarge,
    RecordError,
    RecordListTooLarge,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.settings import TopicSettings
from replication.producers.origin import CLIENT, Origin
from replication.record_times import TimeRules

_CODECS = {"producer": None, "uncompressed": 0, **{name: CODEC_NAMES.index(name) for name in CODEC_NAMES[1:]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """The settings of a topic for batches, ready for use."""

    message_bytes_max: int
    segment_bytes: int
    is_log_append_time: bool
    timestamp_before_ms_max: int
    timestamp_after_ms_max: int
    codec: int | None
    """Codec in which batches are stored (compression.type); None: the codec of the producer."""
    framing: FramingCheck
    times: TimeRules | None = None
    """Headers of records that are looked at; None: none are."""

    @classmethod
    def of(cls, settings: TopicSettings) -> BatchRules:
        is_log_append_time = settings.message_timestamp_type == "LogAppendTime"
        return cls(
            message_bytes_max=settings.max_message_bytes,
            segment_bytes=settings.segment_size,
            is_log_append_time=is_log_append_time,
            timestamp_before_ms_max=settings.message_timestamp_before_max_ms,
            timestamp_after_ms_max=settings.message_timestamp_after_max_ms,
            codec=_CODECS[settings.compression_type],
            framing=FramingCheck(
                needs_keys="compact" in settings.cleanup_policy,
                checks_timestamps=not is_log_append_time,
            ),
            times=TimeRules.of(settings),
        )


@value()
class PreparedRecords:
    """A record set that a log may append: validated, and stored as compression.type requires. Its holder owns it."""

    data: memoryview
    """Writable, for the leader's stamps."""
    headers: Sequence[BatchHeader]
    rules: BatchRules
    """The rules by which it was validated."""
    origin: Origin = CLIENT


def prepare_records(
    data: Buffer, *, rules: BatchRules, now_ms: int, budget: Budget, origin: Origin = CLIENT
) -> PreparedRecords:
    """Check every batch of a record set, and compress those that are not stored as compression.type requires.

    Raises CorruptMessage 2, MessageTooLarge 10, RecordListTooLarge 18, InvalidTimestamp 32,
    UnsupportedForMessageFormat 43, UnsupportedCompressionType 76, InvalidRecord 87; OverBudget when the records cost
    more than the budget has.
    """
    if not len(data):
        raise InvalidRecord("the record set is empty; send at least one batch")
    if len(data) > rules.segment_bytes:
        raise RecordListTooLarge(f"{len(data)} bytes of records do not fit a segment of {rules.segment_bytes} bytes")
    view = memoryview(data)
    headers: list[BatchHeader] = []
    stored: list[bytes | memoryview] = []
    is_changed = False
    position = 0
    while position < len(view):
        header = _whole_header(view, position)
        after = position + LOG_OVERHEAD + header.length
        batch = view[position:after]
        refusal = _refusal(header) or (None if origin.is_coordinator else _refusal_of_client(header, origin))
        plain, latest = _validated(batch, header, refusal, rules=rules, now_ms=now_ms, budget=budget)
        position = after
        if latest != header.max_timestamp:
            header, mended = _with_max_timestamp(batch, header, latest)
            batch = memoryview(mended)
            is_changed = True
        if rules.codec is None or rules.codec == header.codec or header.is_control:
            stored.append(batch)
        else:
            is_changed = True
            budget.take_compression(len(plain))
            header, recompressed = _recompressed(plain, header, rules=rules)
            stored.append(recompressed)
        headers.append(header)
    if not is_changed:
        return PreparedRecords(_writable(view), headers, rules, origin)
    whole = bytearray().join(stored)
    if len(whole) > rules.segment_bytes:
        raise RecordListTooLarge(f"{len(whole)} bytes of records do not fit a segment of {rules.segment_bytes} bytes")
    return PreparedRecords(memoryview(whole), headers, rules, origin)


def prepare_or_refuse(
    data: Buffer, *, rules: BatchRules, now_ms: int, budget: Budget, origin: Origin = CLIENT
) -> PreparedRecords:
    """The same for a caller that has no larger budget: a client that sends too much must send less at once."""
    try:
        return prepare_records(data, rules=rules, now_ms=now_ms, budget=budget, origin=origin)
    except OverBudget as error:
        raise MessageTooLarge(f"the request holds {error}, decompressed; send it in several") from None


def _writable(view: memoryview) -> memoryview:
    """The same bytes where a leader may stamp them: a writable buffer becomes the log's own, any other is copied. A
    small part of a large buffer is copied too, because it would keep the whole buffer in memory."""
    if view.readonly or 2 * len(view) < len(cast(Sized, view.obj)):
        return memoryview(bytearray(view))
    return view


def _recompressed(plain: Buffer, header: BatchHeader, *, rules: BatchRules) -> tuple[BatchHeader, bytes]:
    """The batch in the codec that the topic requires: its records, their framing and its other fields stay.

    Raises MessageTooLarge when that makes it too large, as Kafka does.
    """
    assert rules.codec is not None
    payload = compress(bytes(memoryview(plain)[HEADER_BYTES:]), codec=rules.codec)
    size = HEADER_BYTES + len(payload)
    if size > rules.message_bytes_max:
        raise MessageTooLarge(
            f"compressed as the topic's compression.type = {CODEC_NAMES[rules.codec]} asks, a batch has {size} bytes; "
            f"max.message.bytes is {rules.message_bytes_max}"
        )
    attributes = header.attributes & ~CODEC_MASK | rules.codec
    header = header._replace(length=size - LOG_OVERHEAD, attributes=attributes)
    front = HEADER.pack(*header)
    header = header._replace(crc=computed_crc(front + payload, 0, size))
    return header, HEADER.pack(*header) + payload


def _whole_header(view: memoryview, position: int) -> BatchHeader:
    rest = len(view) - position
    if rest <= MAGIC_OFFSET:
        raise CorruptMessage(f"{rest} bytes at the end of the record set are no batch")
    if view[position + MAGIC_OFFSET] != MAGIC:
        raise UnsupportedForMessageFormat(f"message format {view[position + MAGIC_OFFSET]}; only format 2 is supported")
    if rest >= HEADER_BYTES:
        header = header_at(view, position)
        if HEADER_BYTES - LOG_OVERHEAD <= header.length <= rest - LOG_OVERHEAD:
            return header
    _, size = extent_at(view, position)
    raise CorruptMessage(f"a batch has {size - LOG_OVERHEAD} bytes by its header, {rest - LOG_OVERHEAD} are there")


def _with_max_timestamp(batch: memoryview, header: BatchHeader, latest: int) -> tuple[BatchHeader, bytearray]:
    """The batch with the largest timestamp of its records in its header: some producers write that of the last record.
    Kafka corrects it, too (DefaultRecordBatch.setMaxTimestamp)."""
    mended = bytearray(batch)
    HEADER.pack_into(mended, 0, *header._replace(max_timestamp=latest))
    header = header._replace(max_timestamp=latest, crc=computed_crc(mended, 0, len(mended)))
    HEADER.pack_into(mended, 0, *header)
    return header, mended


def _validated(
    batch: memoryview,
    header: BatchHeader,
    refusal: KafkaError | None,
    *,
    rules: BatchRules,
    now_ms: int,
    budget: Budget,
) -> tuple[Buffer, int]:
    """The batch with its records decompressed, and their largest timestamp. `refusal`: the error of its header, raised
    after the batch is found whole."""
    if len(batch) > rules.message_bytes_max and not header.is_control:  # readers wait for ever for a missing marker
        raise MessageTooLarge(
            f"a batch of {len(batch)} bytes is larger than max.message.bytes = {rules.message_bytes_max}"
        )
    if computed_crc(batch, 0, len(batch)) != header.crc:
        raise CorruptMessage(f"the batch's CRC is not {header.crc:#010x}, which its header has")
    if refusal is not None:
        raise refusal
    plain = plain_within(batch, header, budget)
    earliest, latest = check_records(plain, header, rules.framing)
    if not rules.is_log_append_time:
        _check_window(plain, earliest, latest, rules=rules, now_ms=now_ms)
    if rules.times is not None and not header.is_control:
        _check_times(plain, rules.times, now_ms)
    return plain, latest


def _refusal(header: BatchHeader) -> KafkaError | None:
    """The error in the header of a batch, if there is one, for every origin."""
    if header.attributes & CODEC_MASK >= len(CODEC_NAMES):
        return UnsupportedCompressionType(f"compression codec {header.codec}; use one of {', '.join(CODEC_NAMES)}")
    if header.record_count <= 0 or header.last_offset_delta != header.record_count - 1:
        return InvalidRecord(f"{header.record_count} records with last offset delta {header.last_offset_delta}")
    if header.attributes & LOG_APPEND_TIME:
        return InvalidTimestamp("producers send the time of creation; LogAppendTime is a leader's to set")
    if header.producer_id < NO_PRODUCER_ID:
        return InvalidRecord(f"producer id {header.producer_id} is negative")
    if header.attributes & (TRANSACTIONAL | CONTROL) and (header.producer_id < 0 or header.producer_epoch < 0):
        return InvalidRecord(
            f"a transactional batch of producer {header.producer_id} with epoch {header.producer_epoch}; "
            "both are 0 or more"
        )
    return None


def _refusal_of_client(header: BatchHeader, origin: Origin) -> KafkaError | None:
    if header.attributes & CONTROL:
        return InvalidRecord("control batches are written by coordinators only")
    if header.attributes & TRANSACTIONAL and not origin.is_transactional:
        return InvalidRecord("a transactional batch belongs to a transactional.id, which this request does not name")
    has_producer = header.producer_id != NO_PRODUCER_ID
    if has_producer and (header.producer_epoch < 0 or header.base_sequence < 0):
        return InvalidRecord(
            f"producer {header.producer_id} with epoch {header.producer_epoch}, sequence {header.base_sequence}"
        )
    return None


def _check_window(plain: Buffer, earliest: int, latest: int, *, rules: BatchRules, now_ms: int) -> None:
    """Check timestamps. A record without one (-1) is accepted, as in Kafka."""
    is_ahead = latest > 0 and latest - now_ms > rules.timestamp_after_ms_max
    if not is_ahead and not (earliest >= 0 and now_ms - earliest > rules.timestamp_before_ms_max):
        return
    outside = timestamps_outside(
        plain, earliest=now_ms - rules.timestamp_before_ms_max, latest=now_ms + rules.timestamp_after_ms_max
    )
    if is_ahead:
        message = (
            f"timestamp {latest} is {latest - now_ms} ms ahead; message.timestamp.after.max.ms "
            f"is {rules.timestamp_after_ms_max}"
        )
    else:
        message = (
            f"timestamp {earliest} is {now_ms - earliest} ms old; message.timestamp.before.max.ms "
            f"is {rules.timestamp_before_ms_max}"
        )
    errors = [RecordError(index, f"timestamp {timestamp} is out of range") for index, timestamp in outside]
    raise InvalidTimestamp(message, record_errors=errors)


def _check_times(plain: Buffer, times: TimeRules, now_ms: int) -> None:
    """Raises InvalidRecord 87 for times in headers that are none."""
    found = ((place, times.problem_of(headers, now_ms)) for place, headers in headers_of(plain))
    errors = list(islice((RecordError(place, problem) for place, problem in found if problem), RECORD_ERRORS_MAX))
    if errors:
        raise InvalidRecord(errors[0].message, record_errors=errors)
