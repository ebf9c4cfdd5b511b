"""Models of the REST consumers: bodies that clients of several dialects send, hence lenient in what they take."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from kraft.http.limits import INT32_MAX

INT64_MAX = 2**63 - 1


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewConsumer(_Body):
    """Values may be strings, as clients of Java origin send them."""

    name: str | None = Field(default=None, min_length=1, max_length=249)
    format: Literal["binary", "json", "text", "avro", "jsonschema", "protobuf"] = "binary"
    reset: Literal["earliest", "latest", "none"] = Field(default="latest", alias="auto.offset.reset")
    auto_commit: bool = Field(default=True, alias="auto.commit.enable")
    fetch_bytes_min: int = Field(default=1, ge=-1, le=INT32_MAX, alias="fetch.min.bytes")
    request_timeout_ms: int = Field(default=1_000, ge=0, le=INT32_MAX, alias="consumer.request.timeout.ms")
    timeout_ms: int | None = Field(
        default=None,
        ge=1,
        le=INT32_MAX,
        alias="consumer.instance.timeout.ms",
        description="Idle for longer, it goes; default: the setting of this name.",
    )
    isolation: Literal["read_uncommitted", "read_committed"] = Field(
        default="read_uncommitted", alias="isolation.level", description="All data is committed data."
    )

    @model_validator(mode="before")
    @classmethod
    def _other_spelling(cls, data: Any, info: ValidationInfo) -> Any:
        is_strict = bool(info.context and info.context.get("is_strict"))
        if not is_strict and isinstance(data, dict) and "enable.auto.commit" in data:
            data = dict(data)
            data.setdefault("auto.commit.enable", data.pop("enable.auto.commit"))
        return data


class ConsumerCreated(BaseModel):
    instance_id: str
    base_uri: str


class SubscriptionBody(_Body):
    """One of the two."""

    topics: list[str] | None = None
    topic_pattern: str | None = None


class SubscriptionInfo(BaseModel):
    topics: list[str]
    topic_pattern: str | None = None


class PartitionRef(_Body):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)


class Partitions(_Body):
    partitions: list[PartitionRef]


class PartitionList(BaseModel):
    partitions: list[PartitionRef]


class OffsetRef(_Body):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)
    offset: int = Field(ge=0, lt=INT64_MAX)
    metadata: str | None = None


class TimestampRef(_Body):
    topic: str
    partition: int = Field(ge=0, le=INT32_MAX)
    timestamp: str = Field(description="ISO-8601.")


class Positions(_Body):
    offsets: list[OffsetRef] = Field(default_factory=list)
    timestamps: list[TimestampRef] = Field(default_factory=list)


class Commit(_Body):
    """`offsets`: the last record read, what is stored is one more; `partitions`: what is stored. Neither: all read."""

    offsets: list[OffsetRef] | None = None
    partitions: list[OffsetRef] | None = None


class OffsetQuestion(_Body):
    """Without partitions: those of the instance."""

    partitions: list[PartitionRef] | None = None


class OffsetInfo(BaseModel):
    topic: str
    partition: int
    offset: int = Field(description="-1: nothing is committed.")
    metadata: str


class OffsetInfos(BaseModel):
    offsets: list[OffsetInfo]
