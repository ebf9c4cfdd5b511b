"""v3 consumers and assignments, of consumer groups and of share groups: the two differ in names and in few fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import NamedTuple

from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.http.endpoint import Call
from kraft.http.errors import HttpError
from kraft.http.v3.envelope import Document, answer, crn, listing, related, resource


class GroupNames(NamedTuple):
    """What the resources of one type of group are called."""

    collection: str
    """In paths: `consumer-groups`."""
    id_field: str
    crn_part: str
    consumer_kind: str


class MemberHandlers:
    """The members of groups of one type."""

    def __init__(
        self,
        names: GroupNames,
        describe: Callable[[str], Awaitable[a.GroupDescription]],
        *,
        of_consumer: Callable[[a.MemberDescription], Document],
        of_assignment: Callable[[Call, str, str, int], Document],
    ) -> None:
        """`of_consumer`, `of_assignment`: the fields that only this type has."""
        self._names = names
        self._describe = describe
        self._of_consumer = of_consumer
        self._of_assignment = of_assignment

    async def list_consumers(self, call: Call) -> web.Response:
        """200 with the members of a group. Raises HttpError 404."""
        found = await self._describe(call.path["group"])
        rows = (self._consumer(call, found.group, each) for each in found.members)
        return answer(listing(call, self._names.consumer_kind + "List", self._path(found.group), rows))

    async def get_consumer(self, call: Call) -> web.Response:
        """200 with one member. Raises HttpError 404."""
        return answer(self._consumer(call, call.path["group"], await self._member(call)))

    async def list_assignments(self, call: Call) -> web.Response:
        """200 with the partitions of one member, of the topics that the caller may describe. Raises HttpError 404."""
        member, group = await self._member(call), call.path["group"]
        path = (*self._path(group), member.member_id, "assignments")
        shown = call.of_described_topics(member.partitions, itemgetter(0))
        rows = (self._assignment(call, group, member, *each) for each in shown)
        return answer(listing(call, self._names.consumer_kind + "AssignmentList", path, rows))

    async def get_assignment(self, call: Call) -> web.Response:
        """200 with one partition of one member. Raises HttpError 404 for one that is not assigned to it."""
        member = await self._member(call)
        if (call.topic, call.partition) not in member.partitions:
            raise HttpError(404, f"partition {call.topic}-{call.partition} is not assigned to {member.member_id!r}")
        return answer(self._assignment(call, call.path["group"], member, call.topic, call.partition))

    async def _member(self, call: Call) -> a.MemberDescription:
        found, wanted = await self._describe(call.path["group"]), call.path["consumer"]
        for member in found.members:
            if member.member_id == wanted:
                return member
        raise HttpError(404, f"group {found.group!r} has no consumer {wanted!r}")

    def _path(self, group: str) -> tuple[str, ...]:
        return (self._names.collection, group, "consumers")

    def _consumer(self, call: Call, group: str, member: a.MemberDescription) -> Document:
        path = (*self._path(group), member.member_id)
        fields = {
            self._names.id_field: group,
            "consumer_id": member.member_id,
            **self._of_consumer(member),
            "client_id": member.client_id,
            "assignments": related(call, *path, "assignments"),
        }
        name = crn(call, **{self._names.crn_part: group}, consumer=member.member_id)
        return resource(call, self._names.consumer_kind, path, name, fields)

    def _assignment(self, call: Call, group: str, member: a.MemberDescription, topic: str, partition: int) -> Document:
        path = (*self._path(group), member.member_id, "assignments", topic, "partitions", partition)
        fields = {
            self._names.id_field: group,
            "consumer_id": member.member_id,
            "topic_name": topic,
            "partition_id": partition,
            "partition": related(call, "topics", topic, "partitions", partition),
            **self._of_assignment(call, group, topic, partition),
        }
        owner = {self._names.crn_part: group, "consumer": member.member_id}
        name = crn(call, **owner, assignment=topic, partition=partition)
        return resource(call, self._names.consumer_kind + "Assignment", path, name, fields)
