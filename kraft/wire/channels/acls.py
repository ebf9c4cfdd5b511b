"""CreateAcls (30), DeleteAcls (31) and AlterClientQuotas (49), as nodes ask them of the active controller."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol import apis
from kraft.protocol.messages import alter_client_quotas_request as quotas
from kraft.protocol.messages.alter_client_quotas_request import AlterClientQuotasRequestData
from kraft.protocol.messages.alter_client_quotas_response import AlterClientQuotasResponseData
from kraft.protocol.messages.create_acls_request import AclCreation, CreateAclsRequestData
from kraft.protocol.messages.create_acls_response import CreateAclsResponseData
from kraft.protocol.messages.delete_acls_request import DeleteAclsFilter, DeleteAclsRequestData
from kraft.protocol.messages.delete_acls_response import DeleteAclsFilterResult, DeleteAclsResponseData
from kraft.wire.error_details import to_detail
from kraft.wire.rpc import Rpc
from metadata.acls import Acl, AclFilter, from_message, message_fields
from metadata.controller.requests import AlterClientQuotas, CreateAcls, DeleteAcls, ErrorDetail, QuotaAlteration


def _creation(acl: Acl) -> AclCreation:
    return AclCreation.make(resource_pattern_type=acl.pattern, **message_fields(acl))


def _filter(wanted: AclFilter) -> DeleteAclsFilter:
    return DeleteAclsFilter.make(
        resource_type_filter=wanted.resource,
        resource_name_filter=wanted.name,
        pattern_type_filter=wanted.pattern,
        principal_filter=wanted.principal,
        host_filter=wanted.host,
        operation=wanted.operation,
        permission_type=wanted.permission,
    )


def _deleted(result: DeleteAclsFilterResult) -> tuple[Acl, ...] | ErrorDetail:
    return to_detail(result.error_code, result.error_message) or tuple(
        from_message(each, pattern=each.pattern_type) for each in result.matching_acls
    )


def _alteration(alteration: QuotaAlteration) -> quotas.EntryData:
    return quotas.EntryData.make(
        entity=[quotas.EntityData.make(entity_type=kind, entity_name=name) for kind, name in alteration.entity],
        ops=[
            quotas.OpData.make(key=key, value=0.0 if value is None else value, remove=value is None)
            for key, value in alteration.quotas.items()
        ],
    )


CREATE_ACLS: Rpc[CreateAcls, Sequence[ErrorDetail | None], CreateAclsRequestData, CreateAclsResponseData] = Rpc(
    api=apis.CREATE_ACLS,
    response=CreateAclsResponseData,
    to_request=lambda request, timeout_ms: CreateAclsRequestData.make(creations=tuple(map(_creation, request.acls))),
    from_reply=lambda request, message: [to_detail(each.error_code, each.error_message) for each in message.results],
)
DELETE_ACLS: Rpc[DeleteAcls, Sequence[tuple[Acl, ...] | ErrorDetail], DeleteAclsRequestData, DeleteAclsResponseData] = (
    Rpc(
        api=apis.DELETE_ACLS,
        response=DeleteAclsResponseData,
        to_request=lambda request, timeout_ms: DeleteAclsRequestData.make(filters=tuple(map(_filter, request.filters))),
        from_reply=lambda request, message: list(map(_deleted, message.filter_results)),
    )
)
ALTER_CLIENT_QUOTAS: Rpc[
    AlterClientQuotas, Sequence[ErrorDetail | None], AlterClientQuotasRequestData, AlterClientQuotasResponseData
] = Rpc(
    api=apis.ALTER_CLIENT_QUOTAS,
    response=AlterClientQuotasResponseData,
    to_request=lambda request, timeout_ms: AlterClientQuotasRequestData.make(
        entries=tuple(map(_alteration, request.alterations)), validate_only=request.validate_only
    ),
    from_reply=lambda request, message: [to_detail(each.error_code, each.error_message) for each in message.entries],
)
