"""What v3 changes of a group's offsets, an addition of ours: reset them, delete some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.http.endpoint import Call, Route
from kraft.http.errors import BAD_REQUEST, GROUP_NOT_FOUND, ILLEGAL_STATE, PARTITION_NOT_FOUND, HttpError
from kraft.http.offset_spec import parse_iso_time
from kraft.http.v3 import consumer_groups_models as models
from kraft.http.v3.envelope import answer, no_content, route
from kraft.protocol.errors import GroupSubscribedToTopic
from metadata.acls import AclOperation
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP


class OffsetHandlers:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    async def delete_group_offset(self, call: Call) -> web.Response:
        """OffsetDelete of one partition: 204. Raises HttpError 404, GroupSubscribedToTopic 86."""
        return await self._delete(call, call.partition)

    async def delete_group_offsets(self, call: Call) -> web.Response:
        """OffsetDelete of all partitions of a topic, which need not exist any more: 204."""
        return await self._delete(call, None)

    async def _delete(self, call: Call, partition: int | None) -> web.Response:
        group = call.path["group"]
        await self._groups.ask(r.DescribeGroup(group=group))  # a group that does not exist has no offsets either
        had = {(each.topic, each.partition) for each in await self._committed(group)}
        gone = tuple(sorted(key for key in had if key[0] == call.topic and partition in (None, key[1])))
        if not gone:
            where = call.topic if partition is None else f"{call.topic}-{partition}"
            raise HttpError(404, f"group {group!r} has no offset of {where}")
        deleted = await self._groups.ask(r.DeleteOffsets(group=group, partitions=gone))
        assert isinstance(deleted, a.OffsetsDeleted), deleted
        if deleted.refused:
            raise GroupSubscribedToTopic(
                f"members of group {group!r} are subscribed to {call.topic!r}: its offsets can be deleted without them"
            )
        return no_content()

    async def _committed(self, group: str) -> tuple[a.OffsetOfGroup, ...]:
        found = await self._groups.ask(r.FetchOffsets(group=group))
        assert isinstance(found, a.GroupOffsets), found
        return tuple(each for each in found.offsets if each.offset >= 0)

    async def reset_group_offsets(self, call: Call) -> web.Response:
        """To a group without members; it comes into being by this if it does not exist."""
        asked = call.model(models.OffsetReset)
        group = call.path["group"]
        old = {(each.topic, each.partition): each.offset for each in await self._committed(group)}
        new = await _targets(call, asked, old)
        call.check_topics(AclOperation.READ, (topic for topic, _ in new))
        if not asked.validate_only and new:
            offsets = tuple(r.OffsetToCommit(*key, offset) for key, offset in new.items())
            await self._groups.ask(r.ResetOffsets(group=group, offsets=offsets))
        rows = [
            {"topic_name": topic, "partition_id": number, "old_offset": old.get((topic, number), -1), "new_offset": to}
            for (topic, number), to in sorted(new.items())
        ]
        return answer({"kind": "KraftOffsetResetList", "data": rows})


async def _targets(
    call: Call, asked: models.OffsetReset, old: Mapping[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    if asked.offsets is not None:
        wanted = {(each.topic_name, each.partition_id): each.offset for each in asked.offsets}
        bounds = await _bounds(call, wanted)
        for key, offset in wanted.items():
            low, high = bounds[key]
            if not low <= offset <= high:
                raise HttpError(BAD_REQUEST, f"offset {offset} of {key[0]}-{key[1]} is not between {low} and {high}")
        return wanted
    keys = _scope(call, asked, old)
    bounds = await _bounds(call, keys)
    if asked.shift is not None:
        return {key: min(max(old.get(key, low) + asked.shift, low), high) for key, (low, high) in bounds.items()}
    if asked.timestamp is not None:
        timestamp_ms = parse_iso_time(asked.timestamp, "timestamp ")
        found = {key: await _list_offset(call, key, timestamp_ms) for key in keys}
        return {key: offset if offset >= 0 else bounds[key][1] for key, offset in found.items()}
    return {key: low if asked.to == "earliest" else high for key, (low, high) in bounds.items()}


def _scope(call: Call, asked: models.OffsetReset, old: Mapping[tuple[str, int], int]) -> list[tuple[str, int]]:
    if asked.topics is None:
        image = call.context.gateway.image
        known = {key: image.topic(key[0]) for key in old}
        return [key for key, topic in known.items() if topic is not None and key[1] in topic.partitions]
    topics = [call.context.topic_or_raise(name) for name in asked.topics]
    return [(topic.name, number) for topic in topics for number in topic.partitions]


async def _bounds(call: Call, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    bounds = {}
    for key in keys:
        low = await _list_offset(call, key, EARLIEST_TIMESTAMP)
        bounds[key] = (low, await _list_offset(call, key, LATEST_TIMESTAMP))
    return bounds


async def _list_offset(call: Call, key: tuple[str, int], timestamp: int) -> int:
    topic = call.context.topic_or_raise(key[0])
    if key[1] not in topic.partitions:
        raise HttpError(PARTITION_NOT_FOUND, f"topic {key[0]!r} has no partition {key[1]}")
    where = TopicIdPartition(topic.topic_id, key[1])
    return (await call.context.gateway.list_offset(where, timestamp)).offset


def offset_routes(groups: Groups) -> tuple[Route, ...]:
    h = OffsetHandlers(groups)
    path, errors = "/consumer-groups/{group}/offsets", (GROUP_NOT_FOUND, ILLEGAL_STATE, 50302)
    return (
        route("POST", path + ":reset", h.reset_group_offsets, "Reset offsets of a group without members.",
              models.ResetOffsets, body=models.OffsetReset, errors=(40002, 40402, 40403, 40903, 50302)),
        route("DELETE", path + "/{topic}", h.delete_group_offsets,
              "Delete the group's offsets of a topic that no member is subscribed to.", errors=errors),
        route("DELETE", path + "/{topic}/partitions/{partition}", h.delete_group_offset,
              "Delete one offset of the group.", errors=errors),
    )  # fmt: skip
