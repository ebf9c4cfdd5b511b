# No `from __future__ import annotations` here: kio reads the types of fields, not their text.
"""Kafka's messages with tagged fields of our own, for facts that our data has and Kafka's schema lacks.

Tagged fields are Kafka's own way of adding to a message (KIP-482): whoever does not know them skips them. Their
numbers begin at 10000, far above any that Kafka has given out.
"""

from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID

from kio.schema.alter_partition.v3 import response as alter_partition
from kio.schema.broker_heartbeat.v1 import request as broker_heartbeat
from kio.schema.errors import ErrorCode
from kio.schema.produce.v13 import response as produce
from kio.schema.request_header.v2.header import RequestHeader
from kio.schema.response_header.v1.header import ResponseHeader
from kio.static.constants import EntityType
from kio.static.primitive import i16, i32


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequestRequest:
    """A request to a group coordinator: MessagePack of `kraft.coordinators.groups.requests`."""

    __type__: ClassVar = EntityType.request
    __version__: ClassVar[i16] = i16(0)
    __flexible__: ClassVar[bool] = True
    __api_key__: ClassVar[i16] = i16(10_000)
    __header_schema__: ClassVar[type[RequestHeader]] = RequestHeader
    body: bytes = field(metadata={"kafka_type": "bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequestResponse:
    """Its answer; a refusal is in the header."""

    __type__: ClassVar = EntityType.response
    __version__: ClassVar[i16] = i16(0)
    __flexible__: ClassVar[bool] = True
    __api_key__: ClassVar[i16] = i16(10_000)
    __header_schema__: ClassVar[type[ResponseHeader]] = ResponseHeader
    error_code: ErrorCode = field(metadata={"kafka_type": "error_code"})
    body: bytes = field(metadata={"kafka_type": "bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlteredPartition(alter_partition.PartitionData):
    replicas: tuple[int, ...] = field(metadata={"kafka_type": "int32", "tag": 10_000}, default=())
    adding_replicas: tuple[int, ...] = field(metadata={"kafka_type": "int32", "tag": 10_001}, default=())
    removing_replicas: tuple[int, ...] = field(metadata={"kafka_type": "int32", "tag": 10_002}, default=())
    unclean: str = field(metadata={"kafka_type": "string", "tag": 10_003}, default="")
    """Report of the latest unclean election as JSON; empty when there is none."""
    error_message: str = field(metadata={"kafka_type": "string", "tag": 10_004}, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlteredTopic(alter_partition.TopicData):
    partitions: tuple[AlteredPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterPartitionResponse(alter_partition.AlterPartitionResponse):
    topics: tuple[AlteredTopic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducedPartition(produce.PartitionProduceResponse):
    last_offset: int = field(metadata={"kafka_type": "int64", "tag": 10_000}, default=-1)
    is_appended: bool = field(metadata={"kafka_type": "bool", "tag": 10_001}, default=False)
    isr: tuple[int, ...] = field(metadata={"kafka_type": "int32", "tag": 10_002}, default=())
    min_isr: int = field(metadata={"kafka_type": "int32", "tag": 10_003}, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducedTopic(produce.TopicProduceResponse):
    partition_responses: tuple[ProducedPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceResponse(produce.ProduceResponse):
    responses: tuple[ProducedTopic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTopic:
    """Replicas of one topic whose logs have failed on the broker that beats."""

    __type__: ClassVar = EntityType.nested
    __version__: ClassVar[i16] = i16(1)
    __flexible__: ClassVar[bool] = True
    __api_key__: ClassVar[i16] = i16(63)
    __header_schema__: ClassVar[type[RequestHeader]] = RequestHeader
    topic_id: UUID | None = field(metadata={"kafka_type": "uuid"})
    offline: tuple[i32, ...] = field(metadata={"kafka_type": "int32"})
    read_only: tuple[i32, ...] = field(metadata={"kafka_type": "int32"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHeartbeatRequest(broker_heartbeat.BrokerHeartbeatRequest):
    failed_topics: tuple[FailedTopic, ...] = field(metadata={"tag": 10_000}, default=())
