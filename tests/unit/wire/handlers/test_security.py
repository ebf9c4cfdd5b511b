"""Users with a password over the Kafka port: set, changed, described and removed as Kafka's `ScramControlManager`."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from kraft.broker.users import Users
from kraft.protocol import scram
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
from kraft.protocol.operator_tokens import OPERATOR
from kraft.wire.handlers import security
from metadata.controller.decide import users as users_decision
from metadata.image_codec import decode_image, encode_image
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

SALT = b"a salt"
SALTED = scram.salted_password("pencil", SALT, 4_096)


def upsertion(name: str = "alice", mechanism: int = 1, iterations: int = 4_096) -> ScramCredentialUpsertion:
    return ScramCredentialUpsertion.make(
        name=name, mechanism=mechanism, iterations=iterations, salt=SALT, salted_password=SALTED
    )


def deletion(name: str = "alice", mechanism: int = 1) -> ScramCredentialDeletion:
    return ScramCredentialDeletion.make(name=name, mechanism=mechanism)


def alter(admin: AdminClient, *changes: ScramCredentialUpsertion | ScramCredentialDeletion) -> dict[str, int]:
    request = AlterUserScramCredentialsRequestData.make(
        deletions=[each for each in changes if isinstance(each, ScramCredentialDeletion)],
        upsertions=[each for each in changes if isinstance(each, ScramCredentialUpsertion)],
    )
    answer = admin.ask(request, 0, AlterUserScramCredentialsResponseData)
    assert all(bool(result.error_message) is bool(result.error_code) for result in answer.results)
    return {result.user: result.error_code for result in answer.results}


def describe(admin: AdminClient, *names: str) -> dict[str, int | list[tuple[int, int]]]:
    request = DescribeUserScramCredentialsRequestData.make(users=[UserName.make(name=name) for name in names] or None)
    answer = admin.ask(request, 0, DescribeUserScramCredentialsResponseData)
    assert answer.error_code == 0
    return {
        each.user: each.error_code or [(one.mechanism, one.iterations) for one in each.credential_infos]
        for each in answer.results
    }


def test_a_user_is_added_described_changed_and_removed() -> None:
    world = World()
    admin = AdminClient(security.apis, world)
    assert describe(admin) == {}
    assert describe(admin, "a", "b", "a") == {"a": 92, "b": 91}
    assert alter(admin, upsertion(), upsertion(mechanism=2), upsertion("bob", iterations=8_192)) == {
        "alice": 0,
        "bob": 0,
    }
    assert describe(admin) == {"alice": [(1, 4_096), (2, 4_096)], "bob": [(1, 8_192)]}
    assert world.image == decode_image(encode_image(world.image))
    known = world.image.users["alice"]["SCRAM-SHA-256"]
    assert scram.has_password(known, "pencil")
    assert not scram.has_password(known, "pen")
    assert alter(admin, upsertion("bob", iterations=4_096), deletion(mechanism=2)) == {"alice": 0, "bob": 0}
    assert alter(admin, deletion()) == {"alice": 0}
    assert describe(admin, "alice", "bob") == {"alice": 91, "bob": [(1, 4_096)]}
    assert describe(admin) == {"bob": [(1, 4_096)]}


def test_a_user_that_was_deleted_does_not_come_back_by_the_file() -> None:
    world = World()
    admin = AdminClient(security.apis, world)
    environment: Any = SimpleNamespace(workers=None, rng=random.Random(1))
    users = Users(environment, image=lambda: world.image, passwords={"alice": "of the file"}, key=b"k")
    assert users.credential("alice", "SCRAM-SHA-256") is not None
    assert alter(admin, upsertion()) == {"alice": 0}
    assert alter(admin, deletion()) == {"alice": 0}
    restored = decode_image(encode_image(world.image))
    assert restored == world.image
    users = Users(environment, image=lambda: restored, passwords={"alice": "of the file"}, key=b"k")
    assert users.credential("alice", "SCRAM-SHA-256") is None
    assert alter(admin, deletion()) == {"alice": 91}
    assert alter(admin, upsertion()) == {"alice": 0}
    assert describe(admin) == {"alice": [(1, 4_096)]}


def test_deleted_users_take_no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_decision, "USERS_MAX", 2)
    admin = AdminClient(security.apis, World())
    for name in ("a", "b", "c"):
        assert alter(admin, upsertion(name)) == {name: 0}
        assert alter(admin, deletion(name)) == {name: 0}
    assert alter(admin, upsertion("a"), upsertion("b"), upsertion("c")) == {"a": 0, "b": 0, "c": 93}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([deletion()], 91),
        ([upsertion(iterations=4_095)], 93),
        ([upsertion(iterations=16_385)], 93),
        ([upsertion(mechanism=3)], 33),
        ([deletion(mechanism=0)], 33),
        ([upsertion(), upsertion()], 92),
        ([upsertion(), deletion(mechanism=2)], 91),
        ([upsertion(OPERATOR)], 93),
        ([upsertion("")], 93),
        ([upsertion("a" * 256)], 93),
    ],
)
def test_what_is_refused_changes_nothing(
    changes: list[ScramCredentialUpsertion | ScramCredentialDeletion], code: int
) -> None:
    admin = AdminClient(security.apis, World())
    assert set(alter(admin, *changes).values()) == {code}
    assert describe(admin) == {}
