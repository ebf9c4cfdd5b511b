"""Models of v3 share groups: Confluent's shapes, and our lags and reset."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from kraft.http.body_models import Items, RequestBody
from kraft.http.v3.models import Config, Related, Resource, TopicName


class ShareGroup(Resource):
    share_group_id: str
    state: Literal["EMPTY", "STABLE", "DEAD"]
    consumer_count: int
    partition_count: int
    coordinator: Related
    consumers: Related


class ShareConsumer(Resource):
    share_group_id: str
    consumer_id: str
    client_id: str
    assignments: Related


class ShareAssignment(Resource):
    share_group_id: str
    consumer_id: str
    topic_name: str
    partition_id: int
    partition: Related


class ShareGroupConfig(Config):
    share_group_id: str


class ShareLag(Resource):
    share_group_id: str
    topic_name: str
    partition_id: int
    start_offset: int = Field(description="-1: nothing was acknowledged yet.")
    lag: int = Field(description="Records that the group is not done with; -1: not known.")
    dead_letters_lost: int | None = Field(
        description="Records that were given up without a dead letter since the leader's node has started; null: it "
        "does not answer."
    )
    last_dead_letter_error: str | None = Field(description="Why the last one of them was; null: none, or not known.")


class ShareReset(RequestBody):
    to: Literal["earliest", "latest"]
    topics: Items[TopicName] | None = Field(
        default=None, min_length=1, description="null: all topics that the group knows."
    )


class ShareResetOffset(BaseModel):
    topic_name: str
    partition_id: int
    start_offset: int
    error_code: int | None
    message: str | None


class ShareResetList(BaseModel):
    kind: str
    data: list[ShareResetOffset]
