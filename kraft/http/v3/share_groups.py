"""v3 share groups: groups, their consumers, assignments and lags; reset and delete a group.

Receivers over REST are no consumers: each request of theirs stands alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.http.endpoint import Call, Route
from kraft.http.errors import HttpError, code_of
from kraft.http.v3 import share_groups_models as models
from kraft.http.v3.consumer_groups import SHARE
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, related, resource, route
from kraft.http.v3.models import Listing
from kraft.protocol.errors import GroupIdNotFound, for_code
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

GROUPS = "share-groups"


class ShareGroupHandlers:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    async def _describe(self, group: str) -> a.GroupDescription:
        found = await self._groups.ask(r.DescribeGroup(group=group))
        assert isinstance(found, a.GroupDescription), found
        if found.group_type != SHARE:
            raise GroupIdNotFound(f"group {group!r} is not a share group")
        return found

    async def _offsets(self, group: str) -> tuple[a.ShareOffset, ...]:
        found = await self._groups.ask(r.DescribeShareOffsets(group=group))
        assert isinstance(found, a.ShareOffsets), found
        return found.offsets

    async def list_share_groups(self, call: Call) -> web.Response:
        """200 with the share groups of all coordinators. Raises CoordinatorNotAvailable 15 while one is silent."""
        names = [each.group for each in await self._groups.list_all() if each.group_type == SHARE]
        rows = await asyncio.gather(*(self._group(call, name) for name in names))
        return answer(listing(call, "KafkaShareGroupList", (GROUPS,), rows))

    async def get_share_group(self, call: Call) -> web.Response:
        """200 with state and coordinator of a share group. Raises HttpError 404."""
        return answer(await self._group(call, call.path["group"]))

    async def _group(self, call: Call, group: str) -> Document:
        found = await self._describe(group)
        fields: dict[str, Any] = {
            "share_group_id": group,
            "state": found.state.upper(),
            "consumer_count": len(found.members),
            "partition_count": len(await self._offsets(group)),
            "coordinator": related(call, "brokers", found.coordinator),
            "consumers": related(call, GROUPS, group, "consumers"),
        }
        return resource(call, "KafkaShareGroup", (GROUPS, group), crn(call, share_group=group), fields)

    async def delete_share_group(self, call: Call) -> web.Response:
        """DeleteGroups: 204. Raises HttpError 404, NonEmptyGroup 68."""
        await self._describe(call.path["group"])
        await self._groups.ask(r.DeleteGroup(group=call.path["group"]))
        return no_content()

    # --- consumers ----------------------------------------------------------------------------------------

    async def list_share_consumers(self, call: Call) -> web.Response:
        """200 with the members of a share group. Raises HttpError 404."""
        found = await self._describe(call.path["group"])
        rows = (_consumer(call, found, each) for each in found.members)
        return answer(listing(call, "KafkaShareConsumerList", (GROUPS, found.group, "consumers"), rows))

    async def get_share_consumer(self, call: Call) -> web.Response:
        """200 with one member. Raises HttpError 404."""
        found = await self._describe(call.path["group"])
        return answer(_consumer(call, found, _member(call, found)))

    async def list_share_assignments(self, call: Call) -> web.Response:
        """200 with the partitions of one member. Raises HttpError 404."""
        found = await self._describe(call.path["group"])
        member = _member(call, found)
        path = (GROUPS, found.group, "consumers", member.member_id, "assignments")
        rows = (_assignment(call, found, member, *each) for each in member.partitions)
        return answer(listing(call, "KafkaShareConsumerAssignmentList", path, rows))

    # --- offsets ------------------------------------------------------------------------------------------

    async def list_share_lags(self, call: Call) -> web.Response:
        """200 with start offset and lag of each partition that the group knows. Raises HttpError 404."""
        group = call.path["group"]
        rows = (_lag(call, group, each) for each in await self._offsets(group))
        return answer(listing(call, "KraftShareGroupLagList", (GROUPS, group, "lags"), rows))

    async def reset_share_offsets(self, call: Call) -> web.Response:
        """AlterShareGroupOffsets: a group without members begins at the first or behind the last record of all
        partitions of the topics; it comes into being if there is none. Raises NonEmptyGroup 68."""
        asked = call.model(models.ShareReset)
        timestamp = EARLIEST_TIMESTAMP if asked.to == "earliest" else LATEST_TIMESTAMP
        offsets = []
        for topic in map(call.context.topic_or_raise, dict.fromkeys(asked.topics)):
            for number in topic.partitions:
                found = await call.context.gateway.list_offset(TopicIdPartition(topic.topic_id, number), timestamp)
                offsets.append((topic.name, number, found.offset))
        reset = await self._groups.ask(r.ResetShareOffsets(group=call.path["group"], offsets=tuple(offsets)))
        assert isinstance(reset, a.ShareOffsets), reset
        return answer({"kind": "KraftShareGroupResetList", "data": [_reset(each) for each in reset.offsets]})


def _reset(row: a.ShareOffset) -> Document:
    error = for_code(row.error_code, row.error_message or "") if row.error_code else None
    return {
        "topic_name": row.topic,
        "partition_id": row.partition,
        "start_offset": row.start_offset,
        "error_code": None if error is None else code_of(error),
        "message": None if error is None else error.message,
    }


def _member(call: Call, found: a.GroupDescription) -> a.MemberDescription:
    wanted = call.path["consumer"]
    for member in found.members:
        if member.member_id == wanted:
            return member
    raise HttpError(404, f"share group {found.group!r} has no consumer {wanted!r}")


def _consumer(call: Call, found: a.GroupDescription, member: a.MemberDescription) -> Document:
    path = (GROUPS, found.group, "consumers", member.member_id)
    fields = {
        "share_group_id": found.group,
        "consumer_id": member.member_id,
        "client_id": member.client_id,
        "assignments": related(call, *path, "assignments"),
    }
    name = crn(call, share_group=found.group, consumer=member.member_id)
    return resource(call, "KafkaShareConsumer", path, name, fields)


def _assignment(
    call: Call, found: a.GroupDescription, member: a.MemberDescription, topic: str, partition: int
) -> Document:
    path = (GROUPS, found.group, "consumers", member.member_id, "assignments", topic, "partitions", partition)
    fields = {
        "share_group_id": found.group,
        "consumer_id": member.member_id,
        "topic_name": topic,
        "partition_id": partition,
        "partition": related(call, "topics", topic, "partitions", partition),
    }
    name = crn(call, share_group=found.group, consumer=member.member_id, assignment=topic, partition=partition)
    return resource(call, "KafkaShareConsumerAssignment", path, name, fields)


def _lag(call: Call, group: str, row: a.ShareOffset) -> Document:
    fields = {
        "share_group_id": group,
        "topic_name": row.topic,
        "partition_id": row.partition,
        "start_offset": row.start_offset,
        "lag": row.lag,
    }
    path = (GROUPS, group, "lags", row.topic, "partitions", row.partition)
    name = crn(call, share_group=group, lag=row.topic, partition=row.partition)
    return resource(call, "KraftShareGroupLag", path, name, fields)


def share_group_routes(groups: Groups) -> tuple[Route, ...]:
    h = ShareGroupHandlers(groups)
    one, missing = "/share-groups/{group}", (40405, 50302)
    consumer = one + "/consumers/{consumer}"
    return (
        route("GET", "/share-groups", h.list_share_groups, "List share groups.", Listing[models.ShareGroup],
              errors=(50302,)),
        route("GET", one, h.get_share_group, "One share group.", models.ShareGroup, errors=missing),
        route("DELETE", one, h.delete_share_group, "Delete a share group without members.", errors=(*missing, 40903)),
        route("GET", one + "/consumers", h.list_share_consumers, "Its consumers.", Listing[models.ShareConsumer],
              errors=missing),
        route("GET", consumer, h.get_share_consumer, "One consumer.", models.ShareConsumer, errors=missing),
        route("GET", consumer + "/assignments", h.list_share_assignments, "Partitions of a consumer.",
              Listing[models.ShareAssignment], errors=missing),
        route("GET", one + "/lags", h.list_share_lags, "Lag of each partition.", Listing[models.ShareLag],
              errors=missing),
        route("POST", one + "/offsets:reset", h.reset_share_offsets, "Reset a share group without members.",
              models.ShareResetList, body=models.ShareReset, errors=(40403, 40405, 40903, 50302)),
    )  # fmt: skip
