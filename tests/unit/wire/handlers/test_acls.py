"""ACLs over the Kafka port: created, listed and deleted as Kafka's `AclApis` and `AclControlManager` do."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.broker.principal import UserPrincipal
from kraft.protocol.messages.create_acls_request import AclCreation, CreateAclsRequestData
from kraft.protocol.messages.create_acls_response import CreateAclsResponseData
from kraft.protocol.messages.delete_acls_request import DeleteAclsFilter, DeleteAclsRequestData
from kraft.protocol.messages.delete_acls_response import DeleteAclsResponseData
from kraft.protocol.messages.describe_acls_request import DescribeAclsRequestData
from kraft.protocol.messages.describe_acls_response import DescribeAclsResponseData
from kraft.wire.handlers import acls
from metadata.controller.decide import acls as decide
from metadata.image_codec import VERSION, VERSION_WITH_SECURITY, decode_image, encode_image, version_of
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

STANDARD = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin",
}
VERSIONS = pytest.mark.parametrize("version", range(1, 4))


def client() -> AdminClient:
    return AdminClient(acls.apis, World(**STANDARD), principal=UserPrincipal("admin"))


def creation(name: str = "orders", principal: str = "User:alice", **fields: Any) -> AclCreation:
    made = {"resource_type": 2, "resource_pattern_type": 3, "host": "*", "operation": 3, "permission_type": 3}
    return AclCreation.make(resource_name=name, principal=principal, **{**made, **fields})


def create(admin: AdminClient, *creations: AclCreation, version: int = 3) -> list[int]:
    request = CreateAclsRequestData.make(creations=creations)
    return [each.error_code for each in admin.ask(request, version, CreateAclsResponseData).results]


def wanted(**fields: Any) -> DeleteAclsFilter:
    anything = {
        "resource_type_filter": 1, "resource_name_filter": None, "pattern_type_filter": 1, "principal_filter": None,
        "host_filter": None, "operation": 1, "permission_type": 1,
    }  # fmt: skip
    return DeleteAclsFilter.make(**{**anything, **fields})


def names(admin: AdminClient, version: int = 3, **fields: Any) -> list[tuple[str, int, int]]:
    each = wanted(**fields)
    asked = DescribeAclsRequestData.make(**{name: getattr(each, name) for name in DeleteAclsFilter.__slots__})
    answer = admin.ask(asked, version, DescribeAclsResponseData)
    assert answer.error_code == 0, answer.error_message
    return sorted((found.resource_name, found.pattern_type, len(found.acls)) for found in answer.resources)


@VERSIONS
def test_without_an_authorizer_there_are_none(version: int) -> None:
    admin = AdminClient(acls.apis, World())
    described = admin.ask(DescribeAclsRequestData.make(), version, DescribeAclsResponseData)
    assert (described.error_code, list(described.resources)) == (54, [])
    assert create(admin, creation(), creation(), version=version) == [54, 54]
    deleted = admin.ask(DeleteAclsRequestData.make(filters=[wanted()]), version, DeleteAclsResponseData)
    assert [(each.error_code, list(each.matching_acls)) for each in deleted.filter_results] == [(54, [])]


@VERSIONS
def test_created_listed_and_deleted(version: int) -> None:
    admin = client()
    made = (creation(), creation(operation=4), creation("ord", resource_pattern_type=4), creation(principal="User:bob"))
    assert create(admin, *made, version=version) == [0, 0, 0, 0]
    assert create(admin, creation(), version=version) == [0]
    assert len(admin.gateway.image.acls) == 4
    assert names(admin, version) == [("ord", 4, 1), ("orders", 3, 3)]
    assert names(admin, version, resource_name_filter="orders", pattern_type_filter=2) == [
        ("ord", 4, 1),
        ("orders", 3, 3),
    ]
    assert names(admin, version, principal_filter="User:bob") == [("orders", 3, 1)]
    request = DeleteAclsRequestData.make(filters=[wanted(principal_filter="User:alice"), wanted(operation=4)])
    deleted = admin.ask(request, version, DeleteAclsResponseData)
    assert [(each.error_code, len(each.matching_acls)) for each in deleted.filter_results] == [(0, 3), (0, 1)]
    assert names(admin, version) == [("orders", 3, 1)]


def test_each_refused_for_itself() -> None:
    admin = client()
    bad = [creation(""), creation(resource_type=99), creation(principal="alice"), creation(resource_type=4)]
    assert create(admin, *bad, creation()) == [42, 42, 42, 42, 0]
    deleted = admin.ask(DeleteAclsRequestData.make(filters=[wanted(operation=77), wanted()]), 3, DeleteAclsResponseData)
    assert [each.error_code for each in deleted.filter_results] == [42, 0]


def test_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "RECORDS_MAX", 2)
    admin = client()
    assert create(admin, *map(creation, "abc")) == [44, 44, 44]
    assert names(admin) == []
    assert create(admin, *map(creation, "ab")) == [0, 0]
    assert create(admin, creation("c")) == [0]
    deleted = admin.ask(DeleteAclsRequestData.make(filters=[wanted()]), 3, DeleteAclsResponseData)
    assert [each.error_code for each in deleted.filter_results] == [44]


def test_a_snapshot_has_them() -> None:
    admin = client()
    assert version_of(encode_image(admin.gateway.image)) == VERSION
    create(admin, creation(), creation("ord", resource_pattern_type=4, permission_type=2))
    data = encode_image(admin.gateway.image)
    assert version_of(data) == VERSION_WITH_SECURITY
    assert decode_image(data) == admin.gateway.image
