"""What is not there: descriptions are empty, changes are refused in words."""

from __future__ import annotations

import pytest

from kraft.protocol.messages import alter_client_quotas_request as quotas
from kraft.protocol.messages.alter_client_quotas_response import AlterClientQuotasResponseData
from kraft.protocol.messages.alter_user_scram_credentials_request import (
    AlterUserScramCredentialsRequestData,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from kraft.protocol.messages.alter_user_scram_credentials_response import AlterUserScramCredentialsResponseData
from kraft.protocol.messages.create_acls_request import AclCreation, CreateAclsRequestData
from kraft.protocol.messages.create_acls_response import CreateAclsResponseData
from kraft.protocol.messages.delete_acls_request import DeleteAclsFilter, DeleteAclsRequestData
from kraft.protocol.messages.delete_acls_response import DeleteAclsResponseData
from kraft.protocol.messages.describe_acls_request import DescribeAclsRequestData
from kraft.protocol.messages.describe_acls_response import DescribeAclsResponseData
from kraft.protocol.messages.describe_client_quotas_request import ComponentData, DescribeClientQuotasRequestData
from kraft.protocol.messages.describe_client_quotas_response import DescribeClientQuotasResponseData
from kraft.protocol.messages.describe_user_scram_credentials_request import (
    DescribeUserScramCredentialsRequestData,
    UserName,
)
from kraft.protocol.messages.describe_user_scram_credentials_response import DescribeUserScramCredentialsResponseData
from kraft.wire.handlers import security
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World


def client() -> AdminClient:
    return AdminClient(security.apis, World())


@pytest.mark.parametrize("version", range(1, 4))
def test_there_is_no_authorizer(version: int) -> None:
    described = client().ask(DescribeAclsRequestData.make(), version, DescribeAclsResponseData)
    assert (described.error_code, list(described.resources)) == (54, [])
    create = CreateAclsRequestData.make(creations=[AclCreation.make(), AclCreation.make()])
    created = client().ask(create, version, CreateAclsResponseData)
    assert [result.error_code for result in created.results] == [54, 54]
    delete = DeleteAclsRequestData.make(filters=[DeleteAclsFilter.make()])
    deleted = client().ask(delete, version, DeleteAclsResponseData)
    assert [(each.error_code, list(each.matching_acls)) for each in deleted.filter_results] == [(54, [])]
    assert deleted.filter_results[0].error_message


@pytest.mark.parametrize("version", [0, 1])
def test_there_are_no_quotas(version: int) -> None:
    def described(kind: str) -> DescribeClientQuotasResponseData:
        request = DescribeClientQuotasRequestData.make(components=[ComponentData.make(entity_type=kind, match=None)])
        return client().ask(request, version, DescribeClientQuotasResponseData)

    assert (described("user").error_code, list(described("user").entries or ())) == (0, [])
    assert (described("planet").error_code, described("planet").entries) == (35, None)
    entity = [quotas.EntityData.make(entity_type="user", entity_name=None)]
    ops = [quotas.OpData.make(key="producer_byte_rate", value=1.0)]
    request = quotas.AlterClientQuotasRequestData.make(entries=[quotas.EntryData.make(entity=entity, ops=ops)])
    [entry] = client().ask(request, version, AlterClientQuotasResponseData).entries
    assert (entry.error_code, [(each.entity_type, each.entity_name) for each in entry.entity]) == (42, [("user", None)])
    assert "quotas" in (entry.error_message or "")


def test_there_are_no_users() -> None:
    def described(names: list[str] | None) -> list[tuple[str, int]]:
        users = None if names is None else [UserName.make(name=name) for name in names]
        request = DescribeUserScramCredentialsRequestData.make(users=users)
        answer = client().ask(request, 0, DescribeUserScramCredentialsResponseData)
        assert answer.error_code == 0
        return [(result.user, result.error_code) for result in answer.results]

    assert described(None) == described([]) == []
    assert described(["a", "b", "a"]) == [("a", 92), ("b", 91)]
    request = AlterUserScramCredentialsRequestData.make(
        deletions=[ScramCredentialDeletion.make(name="gone", mechanism=1)],
        upsertions=[ScramCredentialUpsertion.make(name="new", mechanism=1, iterations=4096)],
    )
    answer = client().ask(request, 0, AlterUserScramCredentialsResponseData)
    assert [(result.user, result.error_code) for result in answer.results] == [("gone", 91), ("new", 33)]
    assert all(result.error_message for result in answer.results)
