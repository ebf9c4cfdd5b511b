"""The cluster as one principal may see and change it: a `Gateway` for the handlers of its requests over HTTP.

Topics that it may not describe do not exist in the image; everything else is checked when it is asked for, with the
ACLs of that moment, so that a stream ends soon after the ACL that allowed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from kraft.broker.gateway import Gateway, Records
from kraft.broker.permissions import Permissions
from kraft.broker.principal import Principal
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.primitives import Buffer
from metadata.acls import CLUSTER_NAME, AclOperation, AclResource
from metadata.controller.requests import (
    AlterClientQuotas,
    AlterConfigs,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    ConfigResource,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    ElectLeaders,
    ErrorDetail,
    NewTopic,
    ReplaceConfigs,
    Request,
)
from metadata.image import MetadataImage, TopicIdPartition
from replication.requests import ActiveProducer, OffsetAnswer, ProduceOptions, ProduceOutcome, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraft.http.context import Context

Reply = TypeVar("Reply")

TOPIC, GROUP, CLUSTER = AclResource.TOPIC, AclResource.GROUP, AclResource.CLUSTER


def restricted(context: Context, principal: Principal, *, what: str) -> Context:
    """The context of a request of this principal."""
    gateway = RestrictedGateway(context, principal, what=what)
    return replace(context, gateway=cast(Gateway, gateway))


class RestrictedGateway:
    """What is not checked here is asked of the gateway behind it."""

    def __init__(self, context: Context, principal: Principal, *, what: str) -> None:
        self._gateway, self._principal, self._what = context.gateway, principal, what
        self._revocations, self._views = context.revocations, context.views

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    @property
    def image(self) -> MetadataImage:
        may = self._may
        return self._gateway.image if may is None else self._views.view(self._gateway, self._principal, may)

    @property
    def _may(self) -> Permissions | None:
        """None: a super user by now."""
        return self._gateway.permissions(self._principal, what=self._what)

    def _check(self, operation: AclOperation, resource: AclResource, name: str = CLUSTER_NAME) -> None:
        may = self._may
        if may is not None:
            may.check(operation, resource, name)

    def _check_topic(self, operation: AclOperation, topic_id: UUID) -> None:
        topic = self._gateway.image.topics.get(topic_id)
        if topic is None:
            raise UnknownTopicOrPartition("the topic was deleted")
        self._check(operation, TOPIC, topic.name)

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        for where in batches:
            self._check_topic(AclOperation.WRITE, where.topic_id)
        return await self._gateway.produce(batches, options)

    async def read(self, partition: TopicIdPartition, offset: int, options: ReadOptions) -> Records:
        self._check_topic(AclOperation.READ, partition.topic_id)
        if not options.wait_ms_max:
            return await self._gateway.read(partition, offset, options)
        with self._revocations.watching(lambda: self._check_topic(AclOperation.READ, partition.topic_id)):
            return await self._gateway.read(partition, offset, options)

    async def tail(
        self, positions: Mapping[TopicIdPartition, int], options: ReadOptions
    ) -> Mapping[TopicIdPartition, Records | None]:
        topic_ids = {where.topic_id for where in positions}

        def check() -> None:
            for topic_id in topic_ids:
                self._check_topic(AclOperation.READ, topic_id)

        check()
        with self._revocations.watching(check):
            return await self._gateway.tail(positions, options)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        self._check_topic(AclOperation.DESCRIBE, partition.topic_id)
        return await self._gateway.list_offset(partition, timestamp, is_read_committed=is_read_committed)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        self._check_topic(AclOperation.READ, partition.topic_id)
        return await self._gateway.producers(partition)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        self._check_topic(AclOperation.DELETE, partition.topic_id)
        return await self._gateway.delete_records(partition, offset=offset, timeout_ms=timeout_ms)

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        self._check_creation(new.name)
        return await self._gateway.ensure_topic(new)

    async def topic_id_or_create(self, name: str) -> UUID:
        if name not in self._gateway.image.topic_ids:
            self._check_creation(name)
        return await self._gateway.topic_id_or_create(name)

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        self._check_control(request)
        return await self._gateway.control(request, timeout_ms=timeout_ms)

    def _check_control(self, request: Request[Any]) -> None:
        match request:
            case CreateTopics():
                for new in request.topics:
                    self._check_creation(new.name)
            case DeleteTopics():
                for topic in request.topics:
                    if isinstance(topic, UUID):
                        self._check_topic(AclOperation.DELETE, topic)
                    else:
                        self._check(AclOperation.DELETE, TOPIC, topic)
            case CreatePartitions():
                for grown in request.topics:
                    self._check(AclOperation.ALTER, TOPIC, grown.topic)
            case AlterConfigs() | ReplaceConfigs():
                for resource in request.resources:
                    self._check_configs(resource)
            case AlterRoute():
                self._check_route(request)
            case AlterClientQuotas():
                self._check(AclOperation.ALTER_CONFIGS, CLUSTER)
            case ElectLeaders() | AlterReassignments() | CreateAcls() | DeleteAcls() | AlterUsers():
                self._check(AclOperation.ALTER, CLUSTER)
            case _:
                self._check(AclOperation.CLUSTER_ACTION, CLUSTER)

    def _check_route(self, request: AlterRoute) -> None:
        """ACLs know a route as the topic of its name."""
        match request.operation:
            case "create":
                self._check_creation(request.name)
            case "alter":
                self._check(AclOperation.ALTER, TOPIC, request.name)
            case "delete":
                self._check(AclOperation.DELETE, TOPIC, request.name)
        for binding in (*request.added, *request.removed):
            self._check(AclOperation.DESCRIBE, TOPIC, binding.topic)

    def _check_creation(self, name: str) -> None:
        may = self._may
        if may is not None and not may.silently(AclOperation.CREATE, CLUSTER):
            may.check(AclOperation.CREATE, TOPIC, name)

    def _check_configs(self, resource: ConfigResource) -> None:
        kind = {"topic": TOPIC, "group": GROUP}.get(resource.resource_type, CLUSTER)
        self._check(AclOperation.ALTER_CONFIGS, kind, CLUSTER_NAME if kind is CLUSTER else resource.name)
