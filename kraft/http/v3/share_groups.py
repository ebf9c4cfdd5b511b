"""v3 share groups: groups, their consumers, assignments and lags; reset and delete a group.

Receivers over REST are no consumers: each request of theirs stands alone.
"""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import Any

from aiohttp import web

from kraft.broker.configs import ConfigEntry, group_configs
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.queue import Queues
from kraft.http.endpoint import Call, Route
from kraft.http.errors import code_of
from kraft.http.v3 import share_groups_models as models
from kraft.http.v3.config_changes import CHANGE_ERRORS, alter_many, config_fields, is_of_share_groups
from kraft.http.v3.consumer_groups import SHARE
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, related, resource, route
from kraft.http.v3.group_members import GroupNames, MemberHandlers
from kraft.http.v3.models import ConfigChanges, Listing
from kraft.protocol.errors import GroupIdNotFound, for_code
from metadata.acls import AclOperation, AclResource
from metadata.controller.requests import ConfigResource
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

GROUPS = "share-groups"
NAMES = GroupNames(GROUPS, "share_group_id", "share_group", "KafkaShareConsumer")


class ShareGroupHandlers:
    def __init__(self, groups: Groups, queues: Queues) -> None:
        self._groups = groups
        self._queues = queues
        self.members = MemberHandlers(NAMES, self._describe, of_consumer=lambda _: {}, of_assignment=lambda *_: {})

    async def _describe(self, group: str) -> a.GroupDescription:
        found = await self._groups.ask(r.DescribeGroup(group=group))
        assert isinstance(found, a.GroupDescription), found
        if found.group_type != SHARE:
            raise GroupIdNotFound(f"group {group!r} is not a share group")
        return found

    async def _offsets(self, call: Call, group: str) -> list[a.ShareOffset]:
        """Those of the topics that the caller may describe."""
        found = await self._groups.ask(r.DescribeShareOffsets(group=group))
        assert isinstance(found, a.ShareOffsets), found
        return call.of_described_topics(found.offsets, attrgetter("topic"))

    async def list_share_groups(self, call: Call) -> web.Response:
        """200 with the share groups of all coordinators. Raises CoordinatorNotAvailable 15 while one is silent."""
        groups = await self._groups.list_all()
        names = call.described(AclResource.GROUP, (each.group for each in groups if each.group_type == SHARE))
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
            "partition_count": len(await self._offsets(call, group)),
            "coordinator": related(call, "brokers", found.coordinator),
            "consumers": related(call, GROUPS, group, "consumers"),
        }
        return resource(call, "KafkaShareGroup", (GROUPS, group), crn(call, share_group=group), fields)

    async def delete_share_group(self, call: Call) -> web.Response:
        """DeleteGroups: 204. Raises HttpError 404, NonEmptyGroup 68."""
        await self._describe(call.path["group"])
        await self._groups.ask(r.DeleteGroup(group=call.path["group"]))
        return no_content()

    # --- settings -----------------------------------------------------------------------------------------

    async def list_share_configs(self, call: Call) -> web.Response:
        """DescribeConfigs of a share group, whether there is one of this name or not: 200 with all its settings."""
        group = call.path["group"]
        entries = group_configs(call.context.gateway, group)
        rows = (_config(call, group, each) for each in entries if is_of_share_groups(each.name))
        return answer(listing(call, "KraftShareGroupConfigList", (GROUPS, group, "configs"), rows))

    async def alter_share_configs(self, call: Call) -> web.Response:
        """IncrementalAlterConfigs of a share group, all or none: 204; the group may come into being later. Raises
        HttpError 404, InvalidConfig 40."""
        return await alter_many(call, ConfigResource(resource_type="group", name=call.path["group"]))

    # --- offsets ------------------------------------------------------------------------------------------

    async def list_share_lags(self, call: Call) -> web.Response:
        """200 with start offset, lag and lost dead letters of each partition that the group knows, of the topics that
        the caller may describe. Raises HttpError 404."""
        group, topics = call.path["group"], call.context.gateway.image.topic_ids
        offsets = await self._offsets(call, group)
        places = [
            None if row.topic not in topics else TopicIdPartition(topics[row.topic], row.partition) for row in offsets
        ]
        known = await self._queues.glance(group, [where for where in places if where is not None])
        rows = (
            _lag(call, group, row, None if where is None else known.get(where))
            for row, where in zip(offsets, places, strict=True)
        )
        return answer(listing(call, "KraftShareGroupLagList", (GROUPS, group, "lags"), rows))

    async def reset_share_offsets(self, call: Call) -> web.Response:
        """AlterShareGroupOffsets: a group without members begins at the first or behind the last record of all
        partitions of the topics; it comes into being if there is none. Receivers over REST lose what they have. Raises
        NonEmptyGroup 68; GroupIdNotFound 69 without topics."""
        asked, group = call.model(models.ShareReset), call.path["group"]
        topics = asked.topics or sorted({row.topic for row in await self._offsets(call, group)})
        timestamp = EARLIEST_TIMESTAMP if asked.to == "earliest" else LATEST_TIMESTAMP
        offsets = []
        for topic in map(call.context.topic_or_raise, dict.fromkeys(topics)):
            for number in topic.partitions:
                found = await call.context.gateway.list_offset(TopicIdPartition(topic.topic_id, number), timestamp)
                offsets.append((topic.name, number, found.offset))
        call.check_topics(AclOperation.READ, (topic for topic, _, _ in offsets))
        reset = await self._groups.ask(r.ResetShareOffsets(group=group, offsets=tuple(offsets)))
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


def _config(call: Call, group: str, entry: ConfigEntry) -> Document:
    path = (GROUPS, group, "configs", entry.name)
    name = crn(call, share_group=group, config=entry.name)
    return resource(call, "KraftShareGroupConfig", path, name, {"share_group_id": group, **config_fields(entry)})


def _lag(call: Call, group: str, row: a.ShareOffset, known: Peeked | None) -> Document:
    fields = {
        "share_group_id": group,
        "topic_name": row.topic,
        "partition_id": row.partition,
        "start_offset": row.start_offset,
        "lag": row.lag,
        "dead_letters_lost": None if known is None else known.dead_letters_lost,
        "last_dead_letter_error": None if known is None else known.last_dead_letter_error or None,
    }
    path = (GROUPS, group, "lags", row.topic, "partitions", row.partition)
    name = crn(call, share_group=group, lag=row.topic, partition=row.partition)
    return resource(call, "KraftShareGroupLag", path, name, fields)


def share_group_routes(groups: Groups, queues: Queues) -> tuple[Route, ...]:
    h = ShareGroupHandlers(groups, queues)
    one, missing = "/share-groups/{group}", (40405, 50302)
    consumer = one + "/consumers/{consumer}"
    return (
        route("GET", "/share-groups", h.list_share_groups, "List share groups.", Listing[models.ShareGroup],
              errors=(50302,)),
        route("GET", one, h.get_share_group, "One share group.", models.ShareGroup, errors=missing),
        route("DELETE", one, h.delete_share_group, "Delete a share group without members.", errors=(*missing, 40903)),
        route("GET", one + "/consumers", h.members.list_consumers, "Its consumers.", Listing[models.ShareConsumer],
              name="v3_list_share_consumers", errors=missing),
        route("GET", consumer, h.members.get_consumer, "One consumer.", models.ShareConsumer,
              name="v3_get_share_consumer", errors=missing),
        route("GET", consumer + "/assignments", h.members.list_assignments, "Partitions of a consumer.",
              Listing[models.ShareAssignment], name="v3_list_share_assignments", errors=missing),
        route("GET", one + "/configs", h.list_share_configs, "Settings of a share group.",
              Listing[models.ShareGroupConfig]),
        route("POST", one + "/configs:alter", h.alter_share_configs, "Change settings of a share group, all or none.",
              body=ConfigChanges, errors=CHANGE_ERRORS),
        route("GET", one + "/lags", h.list_share_lags, "Lag of each partition.", Listing[models.ShareLag],
              errors=missing),
        route("POST", one + "/offsets:reset", h.reset_share_offsets, "Reset a share group without members.",
              models.ShareResetList, body=models.ShareReset, errors=(40403, 40405, 40903, 50302)),
    )  # fmt: skip
