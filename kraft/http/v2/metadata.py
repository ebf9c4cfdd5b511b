"""v2 metadata: brokers, topics, partitions, offsets. Everything but offsets is answered from the image."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from kraft.http.dialects import UNKNOWN_TOPIC
from kraft.http.endpoint import Body, Call, Parameter, Route
from kraft.http.media import v2_answer
from kraft.http.offset_spec import refuse_timestamp
from kraft.http.parameters import ISOLATION_LEVEL, is_read_committed
from kraft.http.v2 import models
from kraft.protocol.media_types import V2_JSON
from metadata.image import PartitionImage
from metadata.settings import setting_text
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP


def answer(call: Call, document: Any, *, status: int = 200) -> web.Response:
    """The document in the v2 media type that the client accepts. Raises HttpError 406."""
    content_type = v2_answer(call.accept)
    return web.Response(status=status, body=msgspec.json.encode(document), headers={"Content-Type": content_type})


def partition_info(partition: PartitionImage) -> dict[str, Any]:
    replicas = [
        {"broker": broker, "leader": broker == partition.leader, "in_sync": broker in partition.isr}
        for broker in partition.replicas
    ]
    return {"partition": partition.partition, "leader": partition.leader, "replicas": replicas}


async def list_brokers(call: Call) -> web.Response:
    """200 with `brokers`: the ids of all that are registered, fenced ones too."""
    return answer(call, {"brokers": sorted(call.context.gateway.image.brokers)})


async def list_topics(call: Call) -> web.Response:
    """200 with the names of all topics, sorted."""
    return answer(call, list(call.context.gateway.image.topics_by_name))


async def get_topic(call: Call) -> web.Response:
    """200 with `name`, `configs` (every setting as text, defaults too) and `partitions`. Raises HttpError 40401."""
    topic = call.context.topic_or_raise(call.topic)
    settings = call.context.gateway.topic_settings(topic.name).model_dump(by_alias=True)
    configs = {name: setting_text(value) for name, value in sorted(settings.items())}
    partitions = [partition_info(partition) for partition in topic.partitions.values()]
    return answer(call, {"name": topic.name, "configs": configs, "partitions": partitions})


async def list_partitions(call: Call) -> web.Response:
    """200 with the leader (null: none) and replicas of each partition. Raises HttpError 40401."""
    topic = call.context.topic_or_raise(call.topic)
    return answer(call, [partition_info(partition) for partition in topic.partitions.values()])


async def get_partition(call: Call) -> web.Response:
    """200 with leader and replicas of one partition. Raises HttpError 40401, 40402."""
    _, partition = call.context.find_partition(call.topic, call.partition)
    return answer(call, partition_info(partition))


async def get_offsets(call: Call) -> web.Response:
    """ListOffsets: 200 with `beginning_offset`, the log start offset, and `end_offset`, the high watermark; of
    read_committed the last stable offset. Raises HttpError 40401, 40402, and NotLeaderOrFollower 6 while nobody leads.
    """
    refuse_timestamp(call.request.query)
    is_committed = is_read_committed(call)
    which, _ = call.context.find_partition(call.topic, call.partition)
    earliest = await call.context.gateway.list_offset(which, EARLIEST_TIMESTAMP)
    latest = await call.context.gateway.list_offset(which, LATEST_TIMESTAMP, is_read_committed=is_committed)
    return answer(call, {"beginning_offset": earliest.offset, "end_offset": latest.offset})


def _check(call: Call) -> None:
    v2_answer(call.accept)


def _get(path: str, handler: Any, summary: str, model: Any, *errors: int, query: tuple[Parameter, ...] = ()) -> Route:
    return Route(
        method="GET", path=path, handler=handler, summary=summary, tag="v2", check=_check, query=query,
        answers={200: Body(content={V2_JSON: model})}, errors=(406, *errors),
    )  # fmt: skip


ROUTES: tuple[Route, ...] = (
    _get("/brokers", list_brokers, "Ids of the registered brokers.", models.Brokers),
    _get("/topics", list_topics, "Names of the topics.", list[str]),
    _get("/topics/{topic}", get_topic, "Settings and partitions of a topic.", models.TopicInfo, *UNKNOWN_TOPIC),
    _get(
        "/topics/{topic}/partitions", list_partitions, "Partitions of a topic.", list[models.PartitionInfo],
        *UNKNOWN_TOPIC,
    ),
    _get(
        "/topics/{topic}/partitions/{partition}", get_partition, "One partition.", models.PartitionInfo, *UNKNOWN_TOPIC
    ),
    _get(
        "/topics/{topic}/partitions/{partition}/offsets", get_offsets, "First offset, and the high watermark.",
        models.PartitionOffsets, 40002, *UNKNOWN_TOPIC, 50302, query=(ISOLATION_LEVEL,),
    ),
)  # fmt: skip
