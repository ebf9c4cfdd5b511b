"""Models of v3 consumer groups: Confluent's shapes, and our changes to offsets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kraft.http.body_models import Items, RequestBody
from kraft.http.extension_fields import ADDITION
from kraft.http.v3.models import Related, Resource, Timestamp, TopicName
from kraft.protocol.primitives import INT32_MAX, INT64_MAX


class ConsumerGroup(Resource):
    consumer_group_id: str
    is_simple: bool
    partition_assignor: str
    state: Literal["EMPTY", "PREPARING_REBALANCE", "COMPLETING_REBALANCE", "ASSIGNING", "RECONCILING", "STABLE", "DEAD"]
    type: Literal["CLASSIC", "CONSUMER"]
    is_mixed_consumer_group: bool = Field(description="CONSUMER, with members of both protocols.")
    coordinator: Related
    consumers: Related
    lag_summary: Related
    generation: Annotated[int, ADDITION]


class Consumer(Resource):
    consumer_group_id: str
    consumer_id: str
    instance_id: str | None
    client_id: str
    assignments: Related


class Assignment(Resource):
    consumer_group_id: str
    consumer_id: str
    topic_name: str
    partition_id: int
    partition: Related
    lag: Related


class Lag(Resource):
    consumer_group_id: str
    topic_name: str
    partition_id: int
    current_offset: int
    log_end_offset: int
    lag: int
    consumer_id: str
    instance_id: str | None
    client_id: str


class LagSummary(Resource):
    consumer_group_id: str
    max_lag_consumer_id: str
    max_lag_instance_id: str | None
    max_lag_client_id: str
    max_lag_topic_name: str
    max_lag_partition_id: int
    max_lag: int
    total_lag: int
    max_lag_consumer: Related
    max_lag_partition: Related


class PartitionOffset(RequestBody):
    topic_name: TopicName
    partition_id: int = Field(ge=0, le=INT32_MAX)
    offset: int = Field(ge=0, le=INT64_MAX)


_TARGETS = ("to", "timestamp", "shift", "offsets")


def _only(name: str) -> dict[str, Any]:
    """The schema of a body that has this target and no other."""
    others = {other: {"type": "null"} for other in _TARGETS if other != name}
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}, **others}}


class OffsetReset(RequestBody):
    """One of `to`, `timestamp`, `shift` and `offsets`; the first three for `topics`, or all that have offsets."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_only(name) for name in _TARGETS]},
    )

    to: Literal["earliest", "latest"] | None = None
    timestamp: Timestamp | None = Field(default=None, description="The first record that is not older.")
    shift: int | None = Field(default=None, ge=-INT64_MAX, le=INT64_MAX, description="Records to go on by, or back.")
    offsets: Items[PartitionOffset] | None = None
    topics: Items[str] | None = None
    validate_only: bool = False

    @model_validator(mode="after")
    def _names_one_target(self) -> OffsetReset:
        if sum(getattr(self, name) is not None for name in _TARGETS) != 1:
            raise ValueError(f"name exactly one of {', '.join(_TARGETS)}")
        return self


class ResetOffset(BaseModel):
    topic_name: str
    partition_id: int
    old_offset: int = Field(description="-1: there was none.")
    new_offset: int


class ResetOffsets(BaseModel):
    kind: str
    data: list[ResetOffset]
