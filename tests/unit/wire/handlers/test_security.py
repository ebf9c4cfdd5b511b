"""What is not there: descriptions are empty, changes are refused in words."""

from __future__ import annotations

from kraft.protocol.messages.alter_user_scram_credentials_request import (
    AlterUserScramCredentialsRequestData,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from kraft.protocol.messages.alter_user_scram_credentials_response import AlterUserScramCredentialsResponseData
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
