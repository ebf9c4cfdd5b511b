"""v3 ACLs: listed, created and deleted, in Confluent's form.

Without an authorizer every request gets the error that a Kafka cluster gives then: SECURITY_DISABLED (54), which
Confluent's proxy answers with 400 / 40002.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import TypeVar
from urllib.parse import urlencode

from aiohttp import web

from kraft.http.endpoint import Body, Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, listing, raise_refusal, resource, route, url
from kraft.protocol.errors import SecurityDisabled
from metadata.acls import Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, check_acl
from metadata.controller.requests import CreateAcls, DeleteAcls, ErrorDetail

Code = TypeVar("Code", bound=IntEnum)

NEEDED_TO_DELETE = ("resource_type", "pattern_type", "operation", "permission")
"""Parameters of the query that a deletion has, so that a forgotten one deletes nothing."""


async def list_acls(call: Call) -> web.Response:
    """200 with the ACLs that the query matches."""
    _check_authorizer(call)
    wanted = _filter(call)
    found = [acl for _, acl in wanted.among(call.context.gateway.image.acls.items())]
    return answer(listing(call, "KafkaAclList", ("acls",), (_document(call, acl) for acl in _sorted(found))))


async def create_acl(call: Call) -> web.Response:
    """201; an ACL that exists already stays as it is."""
    _check_authorizer(call)
    acl = _acl(call.model(models.NewAcl))
    await _create(call, [acl])
    return web.Response(status=201, headers={"Location": _url(call, acl)})


async def create_acls(call: Call) -> web.Response:
    """201 when all of them exist; the first that is refused is the error, and none was created then."""
    _check_authorizer(call)
    acls = [_acl(each) for each in call.model(models.NewAcls).data]
    for acl in acls:
        check_acl(acl)
    await _create(call, acls)
    return web.Response(status=201)


async def delete_acls(call: Call) -> web.Response:
    """200 with the ACLs that the query matched and that are gone."""
    _check_authorizer(call)
    missing = [name for name in NEEDED_TO_DELETE if name not in call.request.query]
    if missing:
        raise HttpError(BAD_REQUEST, f"a deletion names {', '.join(missing)} in its query, too; ANY matches all")
    [outcome] = await call.context.control(DeleteAcls(filters=(_filter(call),)))
    if isinstance(outcome, ErrorDetail):
        raise outcome.exception()
    return answer({"data": [_document(call, acl) for acl in _sorted(outcome)]})


async def _create(call: Call, acls: list[Acl]) -> None:
    for outcome in await call.context.control(CreateAcls(acls=tuple(acls))):
        raise_refusal(outcome)


def _check_authorizer(call: Call) -> None:
    if call.context.gateway.authorizer is None:
        raise SecurityDisabled("this cluster has no authorizer and no ACLs: set authorizer.class.name")


def _acl(asked: models.NewAcl) -> Acl:
    return Acl(
        resource=_code(AclResource, asked.resource_type, "resource_type"),
        name=asked.resource_name,
        pattern=_code(AclPattern, asked.pattern_type, "pattern_type"),
        principal=asked.principal,
        host=asked.host,
        operation=_code(AclOperation, asked.operation, "operation"),
        permission=_code(AclPermission, asked.permission, "permission"),
    )


def _filter(call: Call) -> AclFilter:
    query = call.request.query
    return AclFilter(
        resource=_code(AclResource, query.get("resource_type", "ANY"), "resource_type"),
        name=query.get("resource_name"),
        pattern=_code(AclPattern, query.get("pattern_type", "ANY"), "pattern_type"),
        principal=query.get("principal"),
        host=query.get("host"),
        operation=_code(AclOperation, query.get("operation", "ANY"), "operation"),
        permission=_code(AclPermission, query.get("permission", "ANY"), "permission"),
    )


def _code(kind: type[Code], text: str, what: str) -> Code:
    """Raises HttpError 40002."""
    name = text.upper()
    if name not in kind.__members__ or name == "UNKNOWN":
        names = ", ".join(each for each in kind.__members__ if each != "UNKNOWN")
        raise HttpError(BAD_REQUEST, f"{what}={text} is not known; it is one of {names}")
    return kind[name]


def _sorted(acls: Iterable[Acl]) -> list[Acl]:
    return sorted(acls, key=lambda acl: (acl.resource, acl.name, acl.pattern, acl.principal, acl.operation, acl.host))


def _fields(acl: Acl) -> dict[str, str]:
    return {
        "resource_type": acl.resource.name,
        "resource_name": acl.name,
        "pattern_type": acl.pattern.name,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation.name,
        "permission": acl.permission.name,
    }


def _url(call: Call, acl: Acl) -> str:
    return f"{url(call, 'acls')}?{urlencode(_fields(acl))}"


def _document(call: Call, acl: Acl) -> Document:
    made = resource(call, "KafkaAcl", ("acls",), _crn(call), _fields(acl))
    made["metadata"]["self"] = _url(call, acl)
    return made


def _crn(call: Call) -> str:
    return f"crn:///kafka={call.context.gateway.cluster_id}/acl"


def _one_of(kind: type[IntEnum], name: str) -> Parameter:
    names = [each for each in kind.__members__ if each != "UNKNOWN"]
    return Parameter(name=name, description="ANY matches all.", schema={"type": "string", "enum": names})


def _text(name: str) -> Parameter:
    return Parameter(name=name, description="Exactly this.", schema={"type": "string"})


_QUERY = (
    _one_of(AclResource, "resource_type"), _text("resource_name"), _one_of(AclPattern, "pattern_type"),
    _text("principal"), _text("host"), _one_of(AclOperation, "operation"), _one_of(AclPermission, "permission"),
)  # fmt: skip
_MADE: Mapping[int, Body | None] = {201: None}
ROUTES = (
    route("GET", "/acls", list_acls, "List ACLs.", models.Listing[models.AclDocument], query=_QUERY,
          errors=(BAD_REQUEST,)),
    replace(route("POST", "/acls", create_acl, "Create an ACL.", body=models.NewAcl, errors=(BAD_REQUEST,)),
            answers=_MADE),
    route("DELETE", "/acls", delete_acls, "Delete ACLs.", models.DeletedAcls, query=_QUERY, errors=(BAD_REQUEST,)),
    replace(route("POST", "/acls:batch", create_acls, "Create several ACLs.", body=models.NewAcls,
                  errors=(BAD_REQUEST,)), answers=_MADE),
)  # fmt: skip
