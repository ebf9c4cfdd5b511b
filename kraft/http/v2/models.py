"""Models of the v2 dialect: what the OpenAPI document shows, and the oracle of the fast parser in `v2.parse`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from kraft.http.additions import ADDITION
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

BASE64_PATTERN = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def _check_base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("Invalid base64 encoded string") from error
    return text


Base64 = Annotated[
    str,
    AfterValidator(_check_base64),
    Field(json_schema_extra={"contentEncoding": "base64", "pattern": BASE64_PATTERN}, description="Base64."),
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _one_of(name: str, other: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}


class HeaderModel(_Strict):
    """A record header; `name` is v3's spelling of `key`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_one_of("key", "name"), _one_of("name", "key")]})

    key: str | None = None
    name: str | None = None
    value: Base64 | None = None

    @model_validator(mode="after")
    def _named_once(self) -> HeaderModel:
        if (self.key is None) == (self.name is None):
            raise ValueError("a header has `key` or `name`")
        return self


class _Record(_Strict):
    partition: int | None = Field(default=None, ge=0, le=INT32_MAX)
    timestamp: int | None = Field(default=None, ge=0, le=INT64_MAX, description="Milliseconds since the epoch.")
    headers: list[HeaderModel] | None = None


class BinaryRecordModel(_Record):
    key: Base64 | None = None
    value: Base64 | None = None


class JsonRecordModel(_Record):
    """Key and value are any JSON; stored as compact UTF-8. null and absent are Kafka's null."""

    key: JsonValue = None
    value: JsonValue = None


class TextRecordModel(_Record):
    key: str | None = None
    value: str | None = None


class _Envelope(_Strict):
    """Schema fields are accepted and ignored: there is no schema registry."""

    key_schema: str | None = None
    key_schema_id: int | None = Field(default=None, ge=-INT32_MAX - 1, le=INT32_MAX)
    value_schema: str | None = None
    value_schema_id: int | None = Field(default=None, ge=-INT32_MAX - 1, le=INT32_MAX)


class BinaryProduce(_Envelope):
    records: list[BinaryRecordModel] = Field(min_length=1)


class JsonProduce(_Envelope):
    records: list[JsonRecordModel] = Field(min_length=1)


class TextProduce(_Envelope):
    records: list[TextRecordModel] = Field(min_length=1)


class ProducedOffset(BaseModel):
    """What became of one record. The fields after `error` are there only when it failed."""

    partition: int | None
    offset: int | None
    error_code: int | None = Field(description="50002: fatal, 50003: retriable; null when it was written.")
    error: str | None
    kafka_code: Annotated[int | None, ADDITION] = None
    retriable: Annotated[bool | None, ADDITION] = None
    is_appended: Annotated[bool | None, ADDITION] = Field(
        default=None, description="The record is in the leader's log and may survive."
    )
    isr: Annotated[list[int] | None, ADDITION] = None
    min_isr: Annotated[int | None, ADDITION] = None
    leader: Annotated[int | None, ADDITION] = None
    leader_epoch: Annotated[int | None, ADDITION] = None


class WrittenPartition(BaseModel):
    """Who took the records; an addition of ours."""

    partition: int
    leader: int
    leader_epoch: int
    isr: list[int] = Field(description="The replicas that had the records, or had to, when they were acknowledged.")


class ProduceAnswer(BaseModel):
    offsets: list[ProducedOffset]
    key_schema_id: int | None = None
    value_schema_id: int | None = None
    partitions: Annotated[list[WrittenPartition], ADDITION]


class AcceptedAnswer(BaseModel):
    """acks=0: taken, and nobody will ever know."""

    offsets: list[Any] = Field(max_length=0)
    key_schema_id: int | None = None
    value_schema_id: int | None = None
    partitions: Annotated[list[Any], ADDITION] = Field(max_length=0)


class ConsumedHeader(BaseModel):
    key: str
    value: str | None


class ConsumedRecord(BaseModel):
    topic: str
    key: JsonValue
    value: JsonValue
    partition: int
    offset: int
    timestamp: int
    headers: list[ConsumedHeader]


class Brokers(BaseModel):
    brokers: list[int]


class ReplicaInfo(BaseModel):
    broker: int
    leader: bool
    in_sync: bool


class PartitionInfo(BaseModel):
    partition: int
    leader: int
    replicas: list[ReplicaInfo]


class TopicInfo(BaseModel):
    name: str
    configs: dict[str, str]
    partitions: list[PartitionInfo]


class PartitionOffsets(BaseModel):
    beginning_offset: int
    end_offset: int


class ErrorBody(BaseModel):
    error_code: int
    message: str
    kafka_code: Annotated[int | None, ADDITION] = Field(default=None, description="Kafka's own error code.")
    retriable: Annotated[bool | None, ADDITION] = None
