"""How far a group is behind: per partition, with the member that reads it, and in sum."""

from __future__ import annotations

import asyncio
from typing import Any

from kraft.coordinators.groups.answers import GroupDescription, MemberDescription, OffsetOfGroup
from kraft.http.endpoint import Call
from kraft.http.errors import HttpError
from kraft.http.v3.envelope import Document, crn, related, resource
from metadata.image import TopicIdPartition
from replication.requests import LATEST_TIMESTAMP

TopicPartition = tuple[str, int]


class Lags:
    def __init__(self, call: Call, group: GroupDescription) -> None:
        self._call = call
        self._group = group
        self._readers = {partition: member for member in group.members for partition in member.partitions}

    async def documents(self, *, only: TopicPartition | None = None) -> list[Document]:
        """One for each committed offset whose topic still exists."""
        image = self._call.context.gateway.image
        rows = []
        for row in self._group.offsets:
            topic = image.topic(row.topic)
            if topic is None or row.partition not in topic.partitions:
                continue
            if only is None or only == (row.topic, row.partition):
                rows.append((row, TopicIdPartition(topic.topic_id, row.partition)))
        ends = await asyncio.gather(
            *(self._call.context.gateway.list_offset(where, LATEST_TIMESTAMP) for _, where in rows)
        )
        return [self._document(row, end.offset) for (row, _), end in zip(rows, ends, strict=True)]

    def _document(self, row: OffsetOfGroup, log_end_offset: int) -> Document:
        reader = self._readers.get((row.topic, row.partition))
        group = self._group.group
        path = ("consumer-groups", group, "lags", row.topic, "partitions", row.partition)
        fields = {
            "consumer_group_id": group,
            "topic_name": row.topic,
            "partition_id": row.partition,
            "current_offset": row.offset,
            "log_end_offset": log_end_offset,
            "lag": max(log_end_offset - row.offset, 0),
            **_who(reader),
        }
        name = crn(self._call, consumer_group=group, lag=row.topic, partition=row.partition)
        return resource(self._call, "KafkaConsumerLag", path, name, fields)

    async def summary(self) -> Document:
        """Raises HttpError 404 when nothing is committed. Where no member reads the partition that is behind most, its
        link leads to all consumers: typed clients take no null for a link."""
        rows = await self.documents()
        group = self._group.group
        if not rows:
            raise HttpError(404, f"group {group!r} has no committed offsets")
        worst: dict[str, Any] = max(rows, key=lambda each: int(each["lag"]))
        path = ("consumer-groups", group)
        consumer, topic, partition = worst["consumer_id"], worst["topic_name"], worst["partition_id"]
        fields = {
            "consumer_group_id": group,
            "max_lag_consumer_id": consumer,
            "max_lag_instance_id": worst["instance_id"],
            "max_lag_client_id": worst["client_id"],
            "max_lag_topic_name": topic,
            "max_lag_partition_id": partition,
            "max_lag": worst["lag"],
            "total_lag": sum(each["lag"] for each in rows),
            "max_lag_consumer": related(self._call, *path, "consumers", *((consumer,) if consumer else ())),
            "max_lag_partition": related(self._call, "topics", topic, "partitions", partition),
        }
        name = crn(self._call, consumer_group=group) + "/lag-summary"
        return resource(self._call, "KafkaConsumerGroupLagSummary", (*path, "lag-summary"), name, fields)


def _who(reader: MemberDescription | None) -> dict[str, str | None]:
    if reader is None:
        return {"consumer_id": "", "instance_id": None, "client_id": ""}
    return {"consumer_id": reader.member_id, "instance_id": reader.instance_id, "client_id": reader.client_id}
