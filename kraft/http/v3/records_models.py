"""Models of what v3 writes: a batch of entries, and the stream of records, which `records_parse` is what checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from kraft.http.additions import ADDITION
from kraft.http.bodies import Items, RequestBody
from kraft.http.v3.models import Timestamp
from kraft.protocol.primitives import INT32_MAX

DataType: TypeAlias = Literal["BINARY", "JSON", "STRING", "AVRO", "JSONSCHEMA", "PROTOBUF"]
NEEDS_REGISTRY = ("AVRO", "JSONSCHEMA", "PROTOBUF")
NO_REGISTRY = "schemas and the types AVRO, JSONSCHEMA and PROTOBUF need a schema registry, which this cluster has not"


class BatchHeader(RequestBody):
    name: str
    value: str | None = Field(default=None, json_schema_extra={"contentEncoding": "base64"})


class BatchData(RequestBody):
    """BINARY data is base64, STRING a string, JSON any JSON. What needs a schema registry fails alone."""

    type: DataType = "BINARY"
    data: Any = None
    subject: str | None = None
    subject_name_strategy: str | None = None
    schema_id: int | None = Field(default=None, ge=0, le=INT32_MAX)
    schema_version: int | None = Field(default=None, ge=0, le=INT32_MAX)
    raw_schema: str | None = Field(default=None, alias="schema")

    @property
    def needs_registry(self) -> bool:
        named = (self.subject, self.subject_name_strategy, self.schema_id, self.schema_version, self.raw_schema)
        return self.type in NEEDS_REGISTRY or any(each is not None for each in named)


ID_LENGTH_MAX = 80


class BatchEntry(RequestBody):
    id: str = Field(json_schema_extra={"minLength": 1, "maxLength": ID_LENGTH_MAX})
    partition_id: int | None = Field(default=None, ge=0, le=INT32_MAX)
    headers: Items[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: Timestamp | None = None


class BatchRequest(RequestBody):
    entries: Items[BatchEntry] = Field(json_schema_extra={"minItems": 1})


class BatchSize(BaseModel):
    type: str
    size: int


class BatchSuccess(BaseModel):
    id: str
    cluster_id: str
    topic_name: str
    partition_id: int
    offset: int | None
    timestamp: str
    leader_id: Annotated[int | None, ADDITION] = Field(description="null with acks=0, as the offset.")
    leader_epoch: Annotated[int | None, ADDITION]
    key: BatchSize | None = None
    value: BatchSize | None = None


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


class StreamRecord(RequestBody):
    """One of the records that follow one another in the body, with or without white space between."""

    partition_id: int | None = Field(default=None, ge=0, le=INT32_MAX)
    headers: Items[BatchHeader] | None = None
    key: BatchData | None = None
    value: BatchData | None = None
    timestamp: str | None = Field(default=None, description="ISO-8601.")


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
