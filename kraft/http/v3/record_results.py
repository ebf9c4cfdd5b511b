"""The v3 result of each record that was sent: models of the answers, and the fields of a receipt and of a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, Field

from kraft.http.endpoint import Call
from kraft.http.extension_fields import ADDITION
from kraft.http.produce import Result, error_of
from kraft.http.records import OutRecord
from kraft.http.v3.envelope import Document
from kraft.http.v3.record_bodies import BINARY, AnyEntry, StreamRecord
from replication.requests import ProduceOutcome


class BatchSize(BaseModel):
    type: str
    size: int


class WrittenRecord(BaseModel):
    """Where a record is."""

    cluster_id: str
    topic_name: str
    partition_id: int
    offset: int | None
    timestamp: str
    leader_id: Annotated[int | None, ADDITION] = Field(description="null with acks=0, as the offset.")
    leader_epoch: Annotated[int | None, ADDITION]
    key: BatchSize | None = None
    value: BatchSize | None = None


class BatchSuccess(WrittenRecord):
    id: str


class BatchFailure(BaseModel):
    id: str
    error_code: int
    message: str
    kafka_code: Annotated[int | None, ADDITION] = None
    retriable: Annotated[bool | None, ADDITION] = None
    is_appended: Annotated[bool | None, ADDITION] = None


class BatchAnswer(BaseModel):
    successes: list[BatchSuccess]
    failures: list[BatchFailure]


class StreamResult(BaseModel):
    """One of the results that follow one another, CRLF after each. The last five are of what was not written."""

    error_code: int = Field(description="200: written.")
    cluster_id: str | None = None
    topic_name: str | None = None
    partition_id: int | None = None
    offset: int | None = None
    timestamp: str | None = None
    leader_id: Annotated[int | None, ADDITION] = None
    leader_epoch: Annotated[int | None, ADDITION] = None
    key: BatchSize | None = None
    value: BatchSize | None = None
    message: str | None = None
    kafka_code: Annotated[int | None, ADDITION] = None
    retriable: Annotated[bool | None, ADDITION] = None
    is_appended: Annotated[bool | None, ADDITION] = None
    index: Annotated[int | None, ADDITION] = Field(default=None, description="Of the record in the request, from 0.")


def refusal(outcome: ProduceOutcome) -> Document:
    """What is said of a record that was not written: the fields of BatchFailure without `id`."""
    why = error_of(outcome)
    return {
        "error_code": why.code,
        "message": why.message,
        "kafka_code": outcome.error_code,
        "retriable": why.retriable,
        "is_appended": outcome.is_appended,
    }


class Receipts:
    """Makes what is said of the records that were written: the fields of BatchSuccess without `id`."""

    def __init__(self, call: Call, topic: str) -> None:
        gateway = call.context.gateway
        self._cluster_id, self._topic = gateway.cluster_id, topic
        self._keeps_own_time = gateway.topic_settings(topic).message_timestamp_type == "CreateTime"

    def receipt(self, sent: StreamRecord | AnyEntry, record: OutRecord, result: Result) -> Document:
        """`sent`: as the client wrote it, `record`: as it was stored. Sizes are in bytes, as stored."""
        outcome = result.outcome
        document: Document = {
            "cluster_id": self._cluster_id,
            "topic_name": self._topic,
            "partition_id": result.partition,
            "offset": result.offset if result.offset >= 0 else None,
            "timestamp": _iso(self._stored_timestamp(sent, record, outcome)),
            "leader_id": outcome.leader_id if outcome.leader_id >= 0 else None,
            "leader_epoch": outcome.leader_epoch if outcome.leader_id >= 0 else None,
        }
        for field, data, stored in (("key", sent.key, record.key), ("value", sent.value, record.value)):
            if data is not None:
                document[field] = {"type": data.type or BINARY, "size": len(stored or b"")}
        return document

    def _stored_timestamp(self, sent: StreamRecord | AnyEntry, record: OutRecord, outcome: ProduceOutcome) -> int:
        """The timestamp in the log: the leader's with LogAppendTime, that of the first attempt when this is a retry."""
        is_own = sent.timestamp is not None and self._keeps_own_time
        return record.timestamp_ms if is_own or outcome.log_append_time_ms < 0 else outcome.log_append_time_ms


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
