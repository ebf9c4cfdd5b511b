"""Models of receives and acknowledgements of share groups, an addition of ours with Kafka's words (KIP-932)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from pydantic import Field

from kraft.http.body_models import Items, RequestBody
from kraft.http.v3.models import ConfigValue, TopicName
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from replication.shares.acknowledgements import DELAY_MS_MAX

TOPICS_MAX = 32
RECORDS_MAX = 500
WAIT_MS_MAX = 20_000
ACKS_MAX = 1_000
LETTERS_MAX = 1_000
LOCK_MS_MIN, LOCK_MS_MAX = 1_000, 3_600_000
REASON_CHARACTERS_MAX = 1_000
ACK_ID_CHARACTERS_MAX = 200
Word: TypeAlias = Literal["accept", "release", "reject", "renew"]
_LOCK = "From group.share.min.record.lock.duration.ms to its maximum."


class Acknowledgement(RequestBody):
    ack_id: str = Field(max_length=ACK_ID_CHARACTERS_MAX, description="As a receive has answered it.")
    type: Word
    reason: str = Field(
        default="", max_length=REASON_CHARACTERS_MAX, description="Goes with the record to dead letters."
    )
    lock_ms: int | None = Field(
        default=None, ge=LOCK_MS_MIN, le=LOCK_MS_MAX, description=f"Of renew: as at the receive if absent. {_LOCK}"
    )
    delay_ms: int | None = Field(
        default=None,
        ge=0,
        le=DELAY_MS_MAX,
        description="Of release: nobody gets the record before. share.retry.backoff.ms of the group if absent.",
    )


class ReceiveRequest(RequestBody):
    topics: Items[TopicName] = Field(
        min_length=1, max_length=TOPICS_MAX, description="In order of priority: what the first one has comes first."
    )
    max_records: int = Field(default=100, ge=1, le=RECORDS_MAX)
    max_wait_ms: int = Field(default=0, ge=0, le=WAIT_MS_MAX, description="Longest wait for a first record.")
    lock_ms: int | None = Field(
        default=None, ge=LOCK_MS_MIN, le=LOCK_MS_MAX, description=f"share.record.lock.duration.ms if absent. {_LOCK}"
    )
    acknowledgement: Literal["explicit", "implicit"] = Field(
        default="explicit", description="implicit: the records are accepted before they are answered."
    )
    format: Literal["BINARY", "JSON", "STRING"] = Field(
        default="BINARY", description="What keys and values are answered as. One that is not so is BINARY: base64."
    )
    acknowledge: Items[Acknowledgement] = Field(
        default=[],
        max_length=ACKS_MAX,
        description="What became of records that were received before, as in records:acknowledge. These begin first, "
        "and have their results beside the records.",
    )


class CreateRequest(RequestBody):
    share_group_id: str = Field(min_length=1)
    topics: Items[TopicName] = Field(min_length=1, max_length=TOPICS_MAX)
    configs: Items[ConfigValue] | None = None


class RedrivenRecord(RequestBody):
    """A record that became a dead letter."""

    topic_name: TopicName
    partition_id: int = Field(ge=0, le=INT32_MAX)
    offset: int = Field(ge=0, le=INT64_MAX)


class RedriveRequest(RequestBody):
    records: Items[RedrivenRecord] | None = Field(
        default=None, min_length=1, max_length=RECORDS_MAX, description="null: all dead letters of the group."
    )
    max_records: int = Field(default=LETTERS_MAX, ge=1, le=LETTERS_MAX)
    dry_run: bool = Field(default=False, description="Answers what would be done, and changes nothing.")


class DeadLetter(Struct, gc=False):
    """A dead letter, and what became of it."""

    topic_name: str
    partition_id: int
    offset: int
    """The offset of the record itself."""
    message: str
    """Why it is a dead letter."""
    dead_letter_topic_name: str
    dead_letter_partition_id: int
    dead_letter_offset: int
    state: Literal["REDRIVEN", "WAITS", "GONE"]
    """WAITS: in a dry run, it would be brought back. GONE: neither its topic nor the dead letter has the record."""


class RedriveResult(Struct, gc=False):
    """What a redrive has done."""

    records: list[DeadLetter]
    problems: list[str]
    """Why dead letters were left where they are."""
    is_complete: bool
    """false: there may be more."""


class ReceivedData(Struct, gc=False):
    """A key or a value."""

    type: Literal["BINARY", "JSON", "STRING"]
    data: Any


class ReceivedHeader(Struct, gc=False):
    """A header of a record; the value is base64."""

    name: str
    value: bytes | None


class QueuedRecord(Struct, gc=False):
    """A record of a share group."""

    topic_name: str
    partition_id: int
    offset: int
    timestamp: int
    key: ReceivedData | None
    value: ReceivedData | None
    headers: list[ReceivedHeader]
    delivery_count: int
    lock_until: int | None
    """Milliseconds since 1970; null while nobody has a lock."""


class ReceivedRecord(QueuedRecord, gc=False):
    """A record that is locked for its receiver, or that was accepted at once."""

    ack_id: str | None


class PeekBegin(RequestBody):
    topic_name: TopicName
    partition_id: int = Field(ge=0, le=INT32_MAX)
    offset: int = Field(ge=0, le=INT64_MAX)


class PeekRequest(RequestBody):
    topics: Items[TopicName] | None = Field(default=None, description="null: all topics that the group knows.")
    max_records: int = Field(default=20, ge=1, le=RECORDS_MAX)
    format: Literal["BINARY", "JSON", "STRING"] = Field(default="BINARY", description="As in records:receive.")
    begin: PeekBegin | None = Field(
        default=None,
        description="From here on, in the order of the names, partitions and offsets; `next` of an answer.",
    )


class PeekedRecord(QueuedRecord, gc=False):
    """A record that a share group is not done with."""

    state: Literal["AVAILABLE", "ACQUIRED", "ARCHIVING"]
    """ACQUIRED: a consumer has it until its lock ends. ARCHIVING: its dead letter is on its way."""
    not_before: int | None
    """Milliseconds since 1970: nobody gets it before; null if it was not released for later."""


class PeekNext(Struct, gc=False):
    """Where a look has ended."""

    topic_name: str
    partition_id: int
    offset: int


class Peeked(Struct, gc=False):
    """What a look shows."""

    records: list[PeekedRecord]
    next: PeekNext | None
    """Where the next look begins; null: there is nothing more."""


class Received(Struct, gc=False):
    """What a receive answers."""

    records: list[ReceivedRecord]
    lock_ms: Annotated[int, Meta(description="How long their locks last, and begin again for.")]
    results: Annotated[list[AcknowledgeResult], Meta(description="Of `acknowledge`, in its order.")]


class AcknowledgeRequest(RequestBody):
    acks: Items[Acknowledgement] = Field(min_length=1, max_length=ACKS_MAX)


class PlainAcknowledgement(Struct, forbid_unknown_fields=True, gc=False):
    """An Acknowledgement as clients usually send it."""

    ack_id: Annotated[str, Meta(max_length=ACK_ID_CHARACTERS_MAX)]
    type: Word
    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)] = ""
    lock_ms: Annotated[int, Meta(ge=LOCK_MS_MIN, le=LOCK_MS_MAX)] | None = None
    delay_ms: Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)] | None = None


class PlainAcknowledgeRequest(Struct, forbid_unknown_fields=True):
    """Is read in a fifth of the time of the model, which reads what is not so, and names what is wrong."""

    acks: Annotated[list[PlainAcknowledgement], Meta(min_length=1, max_length=ACKS_MAX)]


class PlainReceiveRequest(Struct, forbid_unknown_fields=True):
    """A ReceiveRequest as clients usually send it."""

    topics: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=TOPICS_MAX)]
    max_records: Annotated[int, Meta(ge=1, le=RECORDS_MAX)] = 100
    max_wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = 0
    lock_ms: Annotated[int, Meta(ge=LOCK_MS_MIN, le=LOCK_MS_MAX)] | None = None
    acknowledgement: Literal["explicit", "implicit"] = "explicit"
    format: Literal["BINARY", "JSON", "STRING"] = "BINARY"
    acknowledge: Annotated[list[PlainAcknowledgement], Meta(max_length=ACKS_MAX)] = []


class AcknowledgeResult(Struct, gc=False):
    ack_id: Annotated[str, Meta(description="As it was sent.")]
    error_code: Annotated[int | None, Meta(description="null: done. 40903 with kafka_code 121: the lock has ended.")]
    message: str | None
    kafka_code: int | None
    renewed_ack_id: Annotated[str | None, Meta(description="Of renew: the id to go on with.")]
    lock_until: Annotated[int | None, Meta(description="Of renew: milliseconds since 1970.")]


class AcknowledgeResults(Struct, gc=False):
    results: list[AcknowledgeResult]
