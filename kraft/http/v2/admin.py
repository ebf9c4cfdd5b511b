"""`POST /admin/topics`, as the Strimzi bridge has it; v3 does the same and more."""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from kraft.http.body_models import RequestBody
from kraft.http.endpoint import Body, Call, Route
from kraft.http.media import require_json_body
from kraft.http.v3.envelope import raise_refusal
from kraft.http.v3.models import TopicName
from kraft.protocol.media_types import PLAIN_JSON, V2_JSON
from kraft.protocol.primitives import INT32_MAX
from metadata.controller.requests import CreateTopics, NewTopic


class AdminTopic(RequestBody):
    topic_name: TopicName
    partitions_count: int | None = Field(default=None, ge=1, le=INT32_MAX)
    replication_factor: int | None = Field(default=None, ge=1, le=32767)


async def create_admin_topic(call: Call) -> web.Response:
    """CreateTopics of one topic: 201 without a body. Raises the KafkaError that the controller refuses it with, such as
    TopicAlreadyExists 36."""
    asked = call.model(AdminTopic)
    new = NewTopic(
        name=asked.topic_name,
        partitions=asked.partitions_count or -1,
        replication_factor=asked.replication_factor or -1,
    )
    outcomes = await call.context.control(CreateTopics(topics=(new,)))
    raise_refusal(outcomes[asked.topic_name])
    return web.Response(status=201)


def _check(call: Call) -> None:
    if call.request.body_exists:
        require_json_body(call.request.headers.get("Content-Type"))


ROUTES = (
    Route(
        method="POST", path="/admin/topics", handler=create_admin_topic, summary="Create a topic, as Strimzi's bridge.",
        tag="v2", answers={201: None}, body=Body(content={PLAIN_JSON: AdminTopic, V2_JSON: AdminTopic}), check=_check,
        errors=(400, 40002, 413, 415, 422, 42206, 50302, 50401),
    ),
)  # fmt: skip
