"""Models of the v2 dialect's answers about metadata, and of its errors. Those of records are with their parsers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from kraft.http.extension_fields import ADDITION


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
    end_offset: int = Field(description="The high watermark, or for read_committed the last stable offset.")


class ErrorBody(BaseModel):
    error_code: int
    message: str
    kafka_code: Annotated[int | None, ADDITION] = Field(default=None, description="Kafka's own error code.")
    retriable: Annotated[bool | None, ADDITION] = None
