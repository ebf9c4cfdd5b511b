"""v3 consumer groups: groups, their consumers, assignments and lags; delete a group."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.classic_group import Phase
from kraft.coordinators.groups.consumer_group import GroupState
from kraft.coordinators.groups.routing import Groups
from kraft.http.endpoint import Call, Route
from kraft.http.errors import HttpError
from kraft.http.v3 import consumer_groups_models as models
from kraft.http.v3.consumer_groups_lag import Lags
from kraft.http.v3.consumer_groups_offsets import offset_routes
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, related, resource, route
from kraft.http.v3.group_members import GroupNames, MemberHandlers
from kraft.http.v3.models import Listing
from kraft.protocol.errors import GroupIdNotFound
from metadata.acls import AclResource

GROUPS = "consumer-groups"
NAMES = GroupNames(GROUPS, "consumer_group_id", "consumer_group", "KafkaConsumer")
SHARE = "share"
"""The type of the groups that have resources of their own."""
STATES = {state.value: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", state).upper() for state in (*Phase, *GroupState)}
"""Confluent's name of each of Kafka's: PreparingRebalance is PREPARING_REBALANCE."""


class GroupHandlers:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.members = MemberHandlers(
            NAMES,
            self._describe,
            of_consumer=lambda member: {"instance_id": member.instance_id},
            of_assignment=_lag_of,
        )

    async def _describe(self, group: str) -> a.GroupDescription:
        found = await self._groups.ask(r.DescribeGroup(group=group))
        assert isinstance(found, a.GroupDescription), found
        if found.group_type == SHARE:
            raise GroupIdNotFound(f"group {group!r} is a share group: see /share-groups")
        return found

    # --- groups -------------------------------------------------------------------------------------------

    async def list_groups(self, call: Call) -> web.Response:
        """ListGroups of all coordinators, each described: 200. Raises CoordinatorNotAvailable 15 while one of them does
        not answer."""
        groups = await self._groups.list_all()
        names = call.described(AclResource.GROUP, (each.group for each in groups if each.group_type != SHARE))
        found = await asyncio.gather(*(self._describe(name) for name in names))
        rows = (_group(call, each) for each in found)
        return answer(listing(call, "KafkaConsumerGroupList", (GROUPS,), rows))

    async def get_group(self, call: Call) -> web.Response:
        """200 with state, coordinator and assignor of a group. Raises HttpError 404."""
        return answer(_group(call, await self._describe(call.path["group"])))

    async def delete_group(self, call: Call) -> web.Response:
        """DeleteGroups: 204. Raises HttpError 404, NonEmptyGroup 68."""
        await self._groups.ask(r.DeleteGroup(group=call.path["group"]))
        return no_content()

    # --- lag ----------------------------------------------------------------------------------------------

    async def list_group_lags(self, call: Call) -> web.Response:
        """200 with committed offset, log end offset and lag, in records, of each partition with an offset. Raises
        HttpError 404."""
        lags = Lags(call, await self._describe(call.path["group"]))
        path = (GROUPS, call.path["group"], "lags")
        return answer(listing(call, "KafkaConsumerLagList", path, await lags.documents()))

    async def get_group_lag(self, call: Call) -> web.Response:
        """The same of one partition. Raises HttpError 404 where the group has no offset of it."""
        lags = Lags(call, await self._describe(call.path["group"]))
        for document in await lags.documents(only=(call.topic, call.partition)):
            return answer(document)
        raise HttpError(404, f"group {call.path['group']!r} has no offset of {call.topic}-{call.partition}")

    async def get_group_lag_summary(self, call: Call) -> web.Response:
        """200 with the partition of the largest lag, and the sum of all, in records. Raises HttpError 404."""
        return answer(await Lags(call, await self._describe(call.path["group"])).summary())


def _group(call: Call, found: a.GroupDescription) -> Document:
    path = (GROUPS, found.group)
    fields: dict[str, Any] = {
        "consumer_group_id": found.group,
        "is_simple": not found.protocol_type,
        "partition_assignor": found.protocol,
        "state": STATES[found.state],
        "type": found.group_type.upper(),
        "is_mixed_consumer_group": found.is_mixed,
        "coordinator": related(call, "brokers", found.coordinator),
        "consumers": related(call, *path, "consumers"),
        "lag_summary": related(call, *path, "lag-summary"),
        "generation": found.generation,
    }
    return resource(call, "KafkaConsumerGroup", path, crn(call, consumer_group=found.group), fields)


def _lag_of(call: Call, group: str, topic: str, partition: int) -> Document:
    return {"lag": related(call, GROUPS, group, "lags", topic, "partitions", partition)}


def group_routes(groups: Groups) -> tuple[Route, ...]:
    h = GroupHandlers(groups)
    one, lags = "/consumer-groups/{group}", "/consumer-groups/{group}/lags"
    consumer, missing = one + "/consumers/{consumer}", (40405, 50302)
    return (
        route("GET", "/consumer-groups", h.list_groups, "List groups.", Listing[models.ConsumerGroup], errors=(50302,)),
        route("GET", one, h.get_group, "One group.", models.ConsumerGroup, errors=missing),
        route("DELETE", one, h.delete_group, "Delete a group without members.", errors=(*missing, 40903)),
        route("GET", one + "/consumers", h.members.list_consumers, "Its consumers.", Listing[models.Consumer],
              name="v3_list_group_consumers", errors=missing),
        route("GET", consumer, h.members.get_consumer, "One consumer.", models.Consumer,
              name="v3_get_group_consumer", errors=missing),
        route("GET", consumer + "/assignments", h.members.list_assignments, "Partitions of a consumer.",
              Listing[models.Assignment], name="v3_list_group_assignments", errors=missing),
        route("GET", consumer + "/assignments/{topic}/partitions/{partition}", h.members.get_assignment,
              "One assignment.", models.Assignment, name="v3_get_group_assignment", errors=missing),
        route("GET", one + "/lag-summary", h.get_group_lag_summary, "The largest lag, and all.", models.LagSummary,
              errors=missing),
        route("GET", lags, h.list_group_lags, "Lag of each partition.", Listing[models.Lag], errors=missing),
        route("GET", lags + "/{topic}/partitions/{partition}", h.get_group_lag, "Lag of one partition.", models.Lag,
              errors=missing),
        *offset_routes(groups),
    )  # fmt: skip
