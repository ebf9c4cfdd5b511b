"""DescribeAcls (29), CreateAcls (30) and DeleteAcls (31): as in Kafka, SECURITY_DISABLED 54 without an authorizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kraft.broker.gateway import Gateway
from kraft.protocol.errors import SecurityDisabled
from kraft.protocol.messages.create_acls_request import AclCreation, CreateAclsRequestData
from kraft.protocol.messages.create_acls_response import AclCreationResult, CreateAclsResponseData
from kraft.protocol.messages.delete_acls_request import DeleteAclsFilter, DeleteAclsRequestData
from kraft.protocol.messages.delete_acls_response import (
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsResponseData,
)
from kraft.protocol.messages.describe_acls_request import DescribeAclsRequestData
from kraft.protocol.messages.describe_acls_response import (
    AclDescription,
    DescribeAclsResource,
    DescribeAclsResponseData,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.error_details import detail_code, detail_message
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from metadata.acls import (
    Acl,
    AclFilter,
    AclOperation,
    AclPattern,
    AclPermission,
    AclResource,
    check_filter,
    from_message,
    message_fields,
)
from metadata.controller.requests import CreateAcls, DeleteAcls, ErrorDetail


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Acls(parts)
    return (
        ApiHandler(
            request=DescribeAclsRequestData,
            response=DescribeAclsResponseData,
            handle=handlers.describe,
            refuse=lambda message, version, error: DescribeAclsResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=CreateAclsRequestData,
            response=CreateAclsResponseData,
            handle=handlers.create,
            refuse=lambda message, version, error: CreateAclsResponseData.make(
                results=[
                    AclCreationResult.make(error_code=error.code, error_message=error.message)
                    for _ in message.creations
                ]
            ),
        ),
        ApiHandler(
            request=DeleteAclsRequestData,
            response=DeleteAclsResponseData,
            handle=handlers.delete,
            refuse=lambda message, version, error: DeleteAclsResponseData.make(
                filter_results=[
                    DeleteAclsFilterResult.make(error_code=error.code, error_message=error.message)
                    for _ in message.filters
                ]
            ),
        ),
    )


class _Acls:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)

    def describe(self, call: Call[DescribeAclsRequestData]) -> DescribeAclsResponseData:
        self._check_authorizer(call)
        wanted = _filter(call.message)
        check_filter(wanted)
        found: dict[tuple[AclResource, str, AclPattern], list[AclDescription]] = {}
        for _, acl in wanted.among(self._gateway.image.acls.items()):
            found.setdefault((acl.resource, acl.name, acl.pattern), []).append(_described(acl))
        return DescribeAclsResponseData.make(
            error_message=None,
            resources=[
                DescribeAclsResource.make(resource_type=resource, resource_name=name, pattern_type=pattern, acls=acls)
                for (resource, name, pattern), acls in found.items()
            ],
        )

    async def create(self, call: Call[CreateAclsRequestData]) -> CreateAclsResponseData:
        self._check_authorizer(call)
        request = CreateAcls(acls=tuple(map(_created, call.message.creations)))
        outcomes = await self._control.ask(call, request)
        return CreateAclsResponseData.make(
            results=[
                AclCreationResult.make(error_code=detail_code(each), error_message=detail_message(each))
                for each in outcomes
            ]
        )

    async def delete(self, call: Call[DeleteAclsRequestData]) -> DeleteAclsResponseData:
        self._check_authorizer(call)
        request = DeleteAcls(filters=tuple(map(_filter, call.message.filters)))
        outcomes = await self._control.ask(call, request)
        return DeleteAclsResponseData.make(filter_results=list(map(_deleted, outcomes)))

    def _check_authorizer(self, call: Call[Any]) -> None:
        """A node asks for a client, whose node has checked it. Raises SecurityDisabled 54."""
        if not call.is_from_node and self._gateway.authorizer is None:
            raise SecurityDisabled("No Authorizer is configured: set authorizer.class.name")


def _described(acl: Acl) -> AclDescription:
    return AclDescription.make(
        principal=acl.principal, host=acl.host, operation=acl.operation, permission_type=acl.permission
    )


def _created(creation: AclCreation) -> Acl:
    return from_message(creation, pattern=creation.resource_pattern_type)


def _filter(wanted: DescribeAclsRequestData | DeleteAclsFilter) -> AclFilter:
    return AclFilter(
        resource=AclResource(wanted.resource_type_filter),
        name=wanted.resource_name_filter,
        pattern=AclPattern(wanted.pattern_type_filter),
        principal=wanted.principal_filter,
        host=wanted.host_filter,
        operation=AclOperation(wanted.operation),
        permission=AclPermission(wanted.permission_type),
    )


def _deleted(outcome: tuple[Acl, ...] | ErrorDetail) -> DeleteAclsFilterResult:
    acls = () if isinstance(outcome, ErrorDetail) else outcome
    return DeleteAclsFilterResult.make(
        error_code=detail_code(outcome),
        error_message=detail_message(outcome),
        matching_acls=[
            DeleteAclsMatchingAcl.make(error_message=None, pattern_type=acl.pattern, **message_fields(acl))
            for acl in acls
        ],
    )
