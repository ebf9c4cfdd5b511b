"""Models of the REST consumers: bodies that clients of several dialects send, hence lenient in what they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from kraft.http.body_models import Items, OneOf, RequestBody, Truth, Whole, is_strict
from kraft.http.extension_fields import ADDITION
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

ALSO_SPELLED: Mapping[str, str] = {
    "enable.auto.commit": "auto.commit.enable",
    "requestWaitMs": "consumer.request.timeout.ms",
    "responseMinBytes": "fetch.min.bytes",
}
"""Strimzi's spelling, and the names that Confluent's proxy takes beside its own."""
SETTINGS_OF_OTHERS = frozenset(
    {
        *("allow.auto.create.topics", "check.crcs", "client.id", "client.rack", "connections.max.idle.ms"),
        *("consumer.id", "default.api.timeout.ms", "exclude.internal.topics", "fetch.max.bytes", "fetch.max.wait.ms"),
        *("group.id", "group.instance.id", "group.protocol", "heartbeat.interval.ms", "key.deserializer"),
        *("max.partition.fetch.bytes", "max.poll.interval.ms", "max.poll.records", "metadata.max.age.ms"),
        *("partition.assignment.strategy", "reconnect.backoff.ms", "request.timeout.ms", "retry.backoff.ms"),
        *("schema.registry.url", "session.timeout.ms", "topic.metadata.refresh.interval.ms", "value.deserializer"),
    }
)
"""What a consumer behind another proxy can be given: Kafka's own names, and Karapace's. It means nothing here."""
_NO_REGISTRY = dict.fromkeys(
    ("avro", "jsonschema", "protobuf"),
    "avro, jsonschema and protobuf need a schema registry, which this cluster has not; use binary, json or text",
)


class NewConsumer(RequestBody):
    """Settings may be strings or what they are, as clients of both kinds send them."""

    id: str | None = Field(default=None, min_length=1, max_length=249, description="The same; it goes before `name`.")
    name: str | None = Field(default=None, min_length=1, max_length=249)
    format: Annotated[str, OneOf("binary", "json", "text", refused=_NO_REGISTRY)] = "binary"
    reset: Annotated[str, OneOf("earliest", "latest", "none")] = Field(default="latest", alias="auto.offset.reset")
    auto_commit: Truth = Field(default=True, alias="auto.commit.enable")
    fetch_bytes_min: Annotated[int, Whole(low=-1, high=INT32_MAX)] = Field(default=1, alias="fetch.min.bytes")
    request_timeout_ms: Annotated[int, Whole(low=0, high=INT32_MAX)] = Field(
        default=1_000, alias="consumer.request.timeout.ms"
    )
    timeout_ms: Annotated[int, Whole(low=1, high=INT32_MAX)] | None = Field(
        default=None,
        alias="consumer.instance.timeout.ms",
        description="Idle for longer, it goes; default: the setting of this name.",
    )
    isolation: Annotated[str, OneOf("read_uncommitted", "read_committed")] = Field(
        default="read_uncommitted",
        alias="isolation.level",
        description="read_committed: no record of an open or aborted transaction.",
    )
    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of settings that mean nothing here."""
        return self._ignored

    @model_validator(mode="wrap")
    @classmethod
    def _from_other_dialects(
        cls, data: Any, handler: ModelWrapValidatorHandler[NewConsumer], info: ValidationInfo
    ) -> Any:
        if is_strict(info) or not isinstance(data, dict):
            return handler(data)
        ignored = tuple(name for name in data if name in SETTINGS_OF_OTHERS)
        ours = {name: value for name, value in data.items() if name not in SETTINGS_OF_OTHERS}
        for theirs, name in ALSO_SPELLED.items():
            if theirs in ours:
                ours.setdefault(name, ours.pop(theirs))
        made = handler(ours)
        made._ignored = ignored
        return made


class ConsumerCreated(BaseModel):
    instance_id: str
    base_uri: str


class SubscriptionBody(RequestBody):
    """One of the two."""

    topics: Items[str] | None = None
    topic_pattern: str | None = None


class SubscriptionInfo(BaseModel):
    topics: list[str]
    topic_pattern: Annotated[str | None, ADDITION] = None


class PartitionRef(RequestBody):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)


class Partitions(RequestBody):
    partitions: Items[PartitionRef]


class PartitionList(BaseModel):
    partitions: list[PartitionRef]


class OffsetRef(RequestBody):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)
    offset: int = Field(ge=0, lt=INT64_MAX)
    metadata: str | None = None


class TimestampRef(RequestBody):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)
    timestamp: str = Field(description="ISO-8601.")


class Positions(RequestBody):
    offsets: Items[OffsetRef] = Field(default_factory=list)
    timestamps: Items[TimestampRef] = Field(default_factory=list)


class Commit(RequestBody):
    """`offsets`: the last record read, what is stored is one more; `partitions`: what is stored. Neither: all read."""

    offsets: Items[OffsetRef] | None = None
    partitions: Items[OffsetRef] | None = None


class OffsetQuestion(RequestBody):
    """Without partitions: those of the instance."""

    partitions: Items[PartitionRef] | None = None


class OffsetInfo(BaseModel):
    topic: str
    partition: int
    offset: int = Field(description="-1: nothing is committed.")
    metadata: str


class OffsetInfos(BaseModel):
    offsets: list[OffsetInfo]
