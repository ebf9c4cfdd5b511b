"""Administration: topics, configs, partitions, elections, reassignments, groups, routes. Any node takes any of it.

A change whose answer was lost is repeated where that is safe: where the same change again has the same effect, or
where the answer to the repetition shows that the first attempt had done it ("exists already"). The others raise
OutcomeUnknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from kraft.client import models as m
from kraft.client.connection import Connection
from kraft.client.errors import ConfigError, ServerError
from kraft.client.positions import Start, TopicPartition, check_start
from kraft.client.response import checked, segment
from kraft.protocol.errors import (
    DuplicateResource,
    ElectionNotNeeded,
    GroupIdNotFound,
    InvalidPartitions,
    NoReassignmentInProgress,
    ResourceNotFound,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)

Election = Literal["preferred", "unclean"]
NO_ROUTE: Final = 40407
"""The REST API's code for an unknown route."""


class AsyncAdmin:
    """`AsyncClient.admin`. All raise ServerError, NothingDone and OutcomeUnknown."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- cluster ----------------------------------------------------------------------------------------------------

    async def describe_cluster(self) -> m.ClusterDescription:
        document = await self._get("")
        brokers = await self._get("/brokers")
        return m.ClusterDescription(
            cluster_id=document["cluster_id"],
            controller_id=m.last_number(document["controller"]),
            brokers=tuple(map(m.parse_broker, brokers["data"])),
        )

    # --- topics -----------------------------------------------------------------------------------------------------

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int | None = None,
        replication_factor: int | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
        configs: Mapping[str, object] | None = None,
        validate_only: bool = False,
    ) -> None:
        """Without numbers: num.partitions and default.replication.factor. `assignment`: the replicas of each partition.

        Raises ServerError with code 36 when it exists.
        """
        document: dict[str, Any] = {"topic_name": name, "validate_only": validate_only}
        document["configs"] = [{"name": key, "value": _text(value)} for key, value in (configs or {}).items()]
        if partitions is not None:
            document["partitions_count"] = partitions
        if replication_factor is not None:
            document["replication_factor"] = replication_factor
        if assignment is not None:
            document["replicas_assignments"] = {str(n): list(replicas) for n, replicas in enumerate(assignment)}
        await self._change("POST", "/topics", document, done=(TopicAlreadyExists.code,))

    async def delete_topic(self, name: str) -> None:
        """With its records. Raises ServerError with code 3 when there is none."""
        await self._change("DELETE", _topic(name), done=(UnknownTopicOrPartition.code,))
        self._connection.doubt(topic=name)

    async def list_topics(self, *, with_internal: bool = False) -> tuple[str, ...]:
        found = (await self._get("/topics"))["data"]
        return tuple(each["topic_name"] for each in found if with_internal or not each["is_internal"])

    async def describe_topic(self, name: str) -> m.TopicDescription:
        document = await self._get(_topic(name))
        return m.parse_topic_description(document, await self._get(_topic(name) + "/partitions"))

    async def create_partitions(self, name: str, total: int) -> None:
        """Let the topic have `total` partitions. Keys go to other partitions then."""
        await self._change("PATCH", _topic(name), {"partitions_count": total}, done=(InvalidPartitions.code,))
        self._connection.doubt(topic=name)

    # --- configs ----------------------------------------------------------------------------------------------------

    async def describe_configs(self, topic: str) -> Mapping[str, m.ConfigEntry]:
        """The settings of a topic by name, each with the source of its value."""
        found = (await self._get(_topic(topic) + "/configs"))["data"]
        return {each["name"]: m.parse_config(each) for each in found}

    async def alter_configs(self, topic: str, changes: Mapping[str, object | None]) -> None:
        """All or none. None: back to the default."""
        await self._change("POST", _topic(topic) + "/configs:alter", {"data": _changes(changes)})

    async def alter_cluster_configs(self, changes: Mapping[str, object | None]) -> None:
        """The dynamic settings of all brokers."""
        await self._change("POST", "/broker-configs:alter", {"data": _changes(changes)})

    # --- leaders and replicas ---------------------------------------------------------------------------------------

    async def elect_leaders(
        self, partitions: Iterable[TopicPartition] | None = None, *, election: Election = "preferred"
    ) -> tuple[m.PartitionResult, ...]:
        """Elects leaders of these partitions, or of all. `unclean` may lose records (L6)."""
        document: dict[str, Any] = {"election_type": election}
        if partitions is not None:
            document["partitions"] = [{"topic_name": p.topic, "partition_id": p.partition} for p in partitions]
        found = await self._change("POST", "/elections", document)
        results = map(m.parse_result, found["data"])
        return tuple(each for each in results if each.code != ElectionNotNeeded.code)

    async def reassign(self, where: TopicPartition, replicas: Sequence[int]) -> None:
        """Start to move a partition to these brokers, the preferred leader first."""
        await self._change("POST", _partition(where) + "/reassignment", {"replicas": list(replicas)})

    async def cancel_reassignment(self, where: TopicPartition) -> None:
        await self._change("DELETE", _partition(where) + "/reassignment", done=(NoReassignmentInProgress.code,))

    async def list_reassignments(self) -> tuple[m.Reassignment, ...]:
        found = await self._get("/topics/-/partitions/-/reassignment")
        return tuple(map(m.parse_reassignment, found["data"]))

    # --- groups -----------------------------------------------------------------------------------------------------

    async def list_groups(self) -> tuple[m.GroupListing, ...]:
        return tuple(map(m.parse_group, (await self._get("/consumer-groups"))["data"]))

    async def describe_group(self, group: str) -> m.GroupDescription:
        """With members, offsets and lag. Raises ServerError with code 69 when there is none."""
        path = _group(group)
        document = await self._get(path)
        consumers = await self._get(path + "/consumers")
        return m.parse_group_description(document, consumers, await self._get(path + "/lags"))

    async def reset_offsets(
        self, group: str, to: Start | None = None, *, shift: int | None = None, topics: Sequence[str] | None = None,
        validate_only: bool = False,
    ) -> tuple[m.OffsetChange, ...]:  # fmt: skip
        """Moves the offsets of a group without members `to` earliest, latest or a time, or by `shift` records; the
        offsets of `topics`, or of all.

        Raises OutcomeUnknown for a shift whose answer was lost: twice would be too far.
        """
        if (to is None) == (shift is None):
            raise ConfigError("name `to` or `shift`")
        document: dict[str, Any] = {"validate_only": validate_only, **_target(to, shift)}
        if topics is not None:
            document["topics"] = list(topics)
        path = _group(group) + "/offsets:reset"
        found = await self._change("POST", path, document, repeatable=shift is None or validate_only)
        return tuple(map(m.parse_offset_change, found["data"]))

    async def set_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> tuple[m.OffsetChange, ...]:
        """To these numbers, of a group without members; it comes into being by this."""
        rows = [{"topic_name": w.topic, "partition_id": w.partition, "offset": o} for w, o in offsets.items()]
        found = await self._change("POST", _group(group) + "/offsets:reset", {"offsets": rows})
        return tuple(map(m.parse_offset_change, found["data"]))

    async def delete_group(self, group: str) -> None:
        """With its offsets. Raises ServerError with code 68 while it has members."""
        await self._change("DELETE", _group(group), done=(GroupIdNotFound.code,))

    # --- routes -----------------------------------------------------------------------------------------------------

    async def list_routes(self) -> tuple[m.RouteDescription, ...]:
        return tuple(map(m.parse_route, (await self._get("/routes"))["data"]))

    async def describe_route(self, name: str) -> m.RouteDescription:
        """Raises ServerError with error_code 40407 when there is none."""
        return m.parse_route(await self._get(_route(name)))

    async def create_route(
        self, name: str, *, kind: m.RouteKind = "direct", bindings: Iterable[tuple[str, str]] = ()
    ) -> None:
        """`bindings`: keys and topics, as `("eu.#", "mails")`. Raises ServerError with code 92 when it exists."""
        document = {"route_name": name, "kind": kind, "bindings": _bindings(bindings)}
        await self._change("POST", "/routes", document, done=(DuplicateResource.code,))

    async def alter_route(
        self, name: str, *, add: Iterable[tuple[str, str]] = (), remove: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Adds and removes bindings, all or none. Raises ServerError with code 92 for one that is there already, 91 for
        one that is not."""
        document = {"add": _bindings(add), "remove": _bindings(remove)}
        done = (DuplicateResource.code, ResourceNotFound.code)
        await self._change("POST", _route(name) + "/bindings:alter", document, done=done)

    async def delete_route(self, name: str) -> None:
        """Its topics stay. Raises ServerError with error_code 40407 when there is none."""
        await self._change("DELETE", _route(name), done=(ResourceNotFound.code, NO_ROUTE))

    async def try_route(self, name: str, routing_key: str = "") -> tuple[str, ...]:
        """The topics to which a record with this routing key would go; none: it would be refused."""
        found = await self._get(f"{_route(name)}/topics?routing_key={quote(routing_key, safe='')}")
        return tuple(found["topics"])

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _get(self, path: str) -> Any:
        return await self._connection.get(await self._connection.v3(path))

    async def _change(
        self, method: str, path: str, document: Any = None, *, done: tuple[int, ...] = (), repeatable: bool = True
    ) -> Any:
        """`done`: codes of a repetition, Kafka's or the REST API's, that mean that the attempt before, whose answer was
        lost, had done it."""

        def is_done(error: ServerError) -> bool:
            return error.code in done or error.error_code in done

        request = self._connection.request(method, await self._connection.v3(path), document)
        answer = await self._connection.ask(request, repeatable=repeatable, is_done=is_done)
        return checked(answer).json()


def _topic(name: str) -> str:
    return f"/topics/{segment(name)}"


def _partition(where: TopicPartition) -> str:
    return f"{_topic(where.topic)}/partitions/{where.partition}"


def _group(group: str) -> str:
    return f"/consumer-groups/{segment(group)}"


def _route(name: str) -> str:
    return f"/routes/{segment(name)}"


def _bindings(bindings: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"binding_key": key, "topic_name": topic} for key, topic in bindings]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changes(changes: Mapping[str, object | None]) -> list[dict[str, Any]]:
    return [
        {"name": name, "operation": "DELETE"}
        if value is None
        else {"name": name, "operation": "SET", "value": _text(value)}
        for name, value in changes.items()
    ]


def _target(to: Start | None, shift: int | None) -> dict[str, Any]:
    if to is None:
        return {"shift": shift}
    check_start(to)
    if isinstance(to, int):
        raise ConfigError("`to` is earliest, latest or a time; set_offsets sets numbers")
    return {"timestamp": to.isoformat()} if isinstance(to, datetime) else {"to": to}
