"""ACLs: created, and deleted by filters (CreateAcls, DeleteAcls; Kafka's `AclControlManager`)."""

from __future__ import annotations

from uuid import UUID

from kraft.protocol.errors import KafkaError, PolicyViolation
from metadata.acls import Acl, check_acl, check_filter
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import CreateAcls, DeleteAcls, ErrorDetail
from metadata.records import AccessControlEntryRecord, RemoveAccessControlEntryRecord

RECORDS_MAX = 10_000
"""ACLs that one request may create or delete: Kafka's MAX_RECORDS_PER_USER_OP."""


def create_acls(controller: ControllerState, request: CreateAcls) -> Decision:
    """Each ACL for itself. Raises PolicyViolation 44 for a request that is too large."""
    existing = set(controller.image.acls.values())
    records: list[AccessControlEntryRecord] = []
    reply: list[ErrorDetail | None] = []
    for acl in request.acls:
        try:
            check_acl(acl)
        except KafkaError as error:
            reply.append(ErrorDetail(type(error), error.message))
            continue
        reply.append(None)
        if acl not in existing:
            existing.add(acl)
            records.append(_record(UUID(int=controller.rng.getrandbits(128), version=4), acl))
    _check_size(len(records))
    return Decision(liveness=controller.liveness, records=tuple(records), is_atomic=True, reply=reply)


def delete_acls(controller: ControllerState, request: DeleteAcls) -> Decision:
    """All filters see the ACLs before the request. Raises PolicyViolation 44 when too many match."""
    found: dict[UUID, Acl] = {}
    reply: list[tuple[Acl, ...] | ErrorDetail] = []
    for wanted in request.filters:
        try:
            check_filter(wanted)
        except KafkaError as error:
            reply.append(ErrorDetail(type(error), error.message))
            continue
        matching = dict(wanted.among(controller.image.acls.items()))
        found |= matching
        reply.append(tuple(matching.values()))
    _check_size(len(found))
    records = tuple(RemoveAccessControlEntryRecord(id=each) for each in found)
    return Decision(liveness=controller.liveness, records=records, is_atomic=True, reply=reply)


def _check_size(count: int) -> None:
    if count > RECORDS_MAX:
        raise PolicyViolation(
            f"Unable to perform excessively large batch operation: {count} ACLs, at most {RECORDS_MAX}"
        )


def _record(acl_id: UUID, acl: Acl) -> AccessControlEntryRecord:
    return AccessControlEntryRecord(
        id=acl_id,
        resource_type=acl.resource,
        resource_name=acl.name,
        pattern_type=acl.pattern,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )
