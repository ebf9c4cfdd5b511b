"""The rules of Kafka's StandardAuthorizer, one by one, and against a twin that looks at every entry."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraft.protocol.errors import InvalidRequest
from metadata import authorizer as authorizer_module
from metadata.acls import (
    CLUSTER_NAME,
    OPERATIONS,
    Acl,
    AclFilter,
    AclOperation,
    AclPattern,
    AclPermission,
    AclResource,
    check_acl,
    check_filter,
)
from metadata.authorizer import Asker, Authorizer

TOPIC, GROUP, CLUSTER = AclResource.TOPIC, AclResource.GROUP, AclResource.CLUSTER
READ, WRITE, DESCRIBE, ALL = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.ALL
ALICE = Asker("User:alice", "10.1.2.3")


def acl(
    operation: AclOperation = READ,
    name: str = "orders",
    *,
    resource: AclResource = TOPIC,
    pattern: AclPattern = AclPattern.LITERAL,
    principal: str = "User:alice",
    host: str = "*",
    permission: AclPermission = AclPermission.ALLOW,
) -> Acl:
    return Acl(
        resource=resource, name=name, pattern=pattern, principal=principal, host=host, operation=operation,
        permission=permission,
    )  # fmt: skip


def deny(operation: AclOperation = READ, name: str = "orders", pattern: AclPattern = AclPattern.LITERAL) -> Acl:
    return acl(operation, name, pattern=pattern, permission=AclPermission.DENY)


def may(acls: Sequence[Acl], operation: AclOperation = READ, name: str = "orders", asker: Asker = ALICE) -> bool:
    return Authorizer(acls).allows(asker, operation, TOPIC, name)


def test_nothing_is_allowed_without_an_entry() -> None:
    assert not may([])
    assert not may([acl()], WRITE)
    assert not may([acl()], name="order")
    assert not may([acl()], asker=Asker("User:bob", "10.1.2.3"))
    assert may([acl()])


def test_everyone_is_allowed_where_no_entry_is_about_the_resource() -> None:
    open_one = Authorizer([acl(principal="User:bob")], allows_everyone=True)
    assert open_one.allows(ALICE, READ, TOPIC, "payments")
    assert not open_one.allows(ALICE, READ, TOPIC, "orders")


def test_a_super_user_may_do_what_is_denied() -> None:
    authorizer = Authorizer([deny()], super_users=["User:alice"])
    assert authorizer.allows(ALICE, READ, TOPIC, "orders")
    assert authorizer.allows(ALICE, AclOperation.ALTER, CLUSTER, CLUSTER_NAME)


def test_a_denial_wins_over_every_permission() -> None:
    assert not may([acl(), deny()])
    assert not may([acl(ALL, "*"), deny(ALL, "ord", AclPattern.PREFIXED)])
    assert may([acl(ALL, "*"), deny(ALL, "ord", AclPattern.PREFIXED)], name="payments")


def test_prefixes_and_wildcards() -> None:
    assert may([acl(name="ord", pattern=AclPattern.PREFIXED)])
    assert may([acl(name="*")])
    assert not may([acl(name="*", pattern=AclPattern.PREFIXED)])
    assert may([acl(principal="User:*")])


@pytest.mark.parametrize("operation", [READ, WRITE, AclOperation.DELETE, AclOperation.ALTER, ALL])
def test_permission_implies_description_and_denial_does_not(operation: AclOperation) -> None:
    assert may([acl(operation)], DESCRIBE)
    assert may([deny(operation), acl(DESCRIBE)], DESCRIBE) is (operation is not ALL)


def test_altering_configs_implies_describing_them() -> None:
    assert may([acl(AclOperation.ALTER_CONFIGS)], AclOperation.DESCRIBE_CONFIGS)
    assert not may([acl(AclOperation.ALTER_CONFIGS)], DESCRIBE)
    assert not may([acl(AclOperation.CREATE)], DESCRIBE)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [("10.1.2.3", True), ("10.1.2.4", False), ("10.0.0.0/8", True), ("10.2.0.0/16", False), ("::/0", False)],
)
def test_hosts_and_networks(host: str, is_allowed: bool) -> None:
    assert may([acl(host=host)]) is is_allowed


def test_a_host_without_an_address_is_in_no_network() -> None:
    assert not may([acl(host="10.0.0.0/8")], asker=Asker("User:alice", "localhost"))


def test_some_resource() -> None:
    def some(*acls: Acl) -> bool:
        return Authorizer(acls).allows_some(ALICE, WRITE, TOPIC)

    assert some(acl(WRITE))
    assert some(acl(ALL))
    assert not some(acl(READ))
    assert not some(acl(WRITE), deny(WRITE))
    assert not some(acl(WRITE), deny(ALL, "ord", AclPattern.PREFIXED))
    assert some(acl(WRITE, "or", pattern=AclPattern.PREFIXED), deny(ALL, "ord", AclPattern.PREFIXED))
    assert some(acl(WRITE, "*"), deny(WRITE))
    assert not some(acl(WRITE, "*"), deny(WRITE, "*"))
    assert Authorizer([], allows_everyone=True).allows_some(ALICE, WRITE, TOPIC)
    assert Authorizer([], super_users=["User:alice"]).allows_some(ALICE, WRITE, TOPIC)


def test_operations_are_bits_of_what_is_allowed() -> None:
    authorizer = Authorizer([acl(WRITE), acl(AclOperation.CLUSTER_ACTION, CLUSTER_NAME, resource=CLUSTER)])
    assert authorizer.operations(ALICE, TOPIC, "orders") == 1 << WRITE | 1 << DESCRIBE
    assert authorizer.operations(ALICE, CLUSTER) == 1 << AclOperation.CLUSTER_ACTION


def test_decisions_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by who holds decisions of an asker from before all were forgotten, as a connection does."""
    monkeypatch.setattr(authorizer_module, "DECISIONS_KEPT_MAX", 30)
    monkeypatch.setattr(authorizer_module, "DECISIONS_OF_ONE_MAX", 10)
    authorizer = Authorizer([acl(name="*", principal="User:*")])
    askers = [Asker(f"User:{number}", "10.0.0.1") for number in range(5)]
    held = [authorizer.decisions(asker) for asker in askers * 2]
    for number in range(100):
        assert all(each(READ, TOPIC, str(number)) for each in held)
        assert authorizer.allows_some(askers[0], READ, TOPIC)
        kept = {id(each._known): len(each._known) for each in held}
        assert max(kept.values()) <= 10
        assert sum(kept.values()) <= 30


def test_one_client_does_not_push_out_what_is_known_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[str] = []
    authorizer = Authorizer([acl(name="*", principal="User:*")])
    monkeypatch.setattr(authorizer, "decide", lambda asker, operation, resource, name: not decided.append(name))
    assert authorizer.allows(ALICE, READ, TOPIC, "orders")
    for number in range(3 * authorizer_module.DECISIONS_KEPT_MAX):
        authorizer.allows(Asker("User:bob", "10.0.0.2"), READ, TOPIC, str(number))
    decided.clear()
    assert authorizer.allows(ALICE, READ, TOPIC, "orders")
    assert not decided


def test_a_long_name_is_not_remembered() -> None:
    authorizer = Authorizer([acl(name="*")])
    held = authorizer.decisions(ALICE)
    for length in (authorizer_module.NAME_KEPT_MAX + 1, 30_000):
        assert held(READ, TOPIC, "x" * length)
    assert not held._known


# --- the slow, obvious twin ---------------------------------------------------------------------------------------


def slowly(acls: Sequence[Acl], asker: Asker, operation: AclOperation, resource: AclResource, name: str) -> bool:
    """Kafka's documentation in the order of its sentences: every entry is looked at each time."""
    implied_by = {
        "DESCRIBE": {"READ", "WRITE", "DELETE", "ALTER", "DESCRIBE", "ALL"},
        "DESCRIBE_CONFIGS": {"ALTER_CONFIGS", "DESCRIBE_CONFIGS", "ALL"},
    }.get(operation.name, {operation.name, "ALL"})
    about = [
        each
        for each in acls
        if each.resource == resource
        and (
            (each.pattern == AclPattern.PREFIXED and name[: len(each.name)] == each.name)
            or (each.pattern == AclPattern.LITERAL and each.name in ["*", name])
        )
    ]
    mine = [
        each
        for each in about
        if each.principal in [asker.principal, "User:*"]
        and (each.host in ["*", asker.host] or ("/" in each.host and ip_address(asker.host) in ip_network(each.host)))
    ]
    if any(each.permission == AclPermission.DENY and each.operation in [operation, ALL] for each in mine):
        return False
    return any(each.permission == AclPermission.ALLOW and each.operation.name in implied_by for each in mine)


RESOURCES = [TOPIC, GROUP]
USED = sorted({operation for resource in RESOURCES for operation in OPERATIONS[resource]})
NAMES = st.sampled_from(["*", "a", "ab", "abc", "b", "ba"])
HOSTS = ["10.0.0.1", "10.0.0.2"]
ACLS = st.builds(
    Acl,
    resource=st.sampled_from(RESOURCES),
    name=NAMES,
    pattern=st.sampled_from([AclPattern.LITERAL, AclPattern.PREFIXED]),
    principal=st.sampled_from(["User:alice", "User:bob", "User:*"]),
    host=st.sampled_from(["*", *HOSTS, "10.0.0.0/31"]),
    operation=st.sampled_from([*USED, ALL]),
    permission=st.sampled_from([AclPermission.ALLOW, AclPermission.ALLOW, AclPermission.DENY]),
)


@given(st.lists(ACLS, max_size=12), st.sampled_from(HOSTS))
def test_as_the_twin(acls: list[Acl], host: str) -> None:
    authorizer, asker = Authorizer(acls), Asker("User:alice", host)
    for resource in RESOURCES:
        for name in ("a", "ab", "abcd", "b", "x", "*"):
            for operation in USED:
                assert authorizer.allows(asker, operation, resource, name) == slowly(
                    acls, asker, operation, resource, name
                )


# --- filters and checks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (AclFilter(), True),
        (AclFilter(name="ord"), True),
        (AclFilter(name="orders"), False),
        (AclFilter(name="orders", pattern=AclPattern.MATCH), True),
        (AclFilter(name="or", pattern=AclPattern.MATCH), False),
        (AclFilter(pattern=AclPattern.LITERAL), False),
        (AclFilter(resource=GROUP), False),
        (AclFilter(principal="User:alice", host="*", operation=READ, permission=AclPermission.ALLOW), True),
        (AclFilter(principal="User:bob"), False),
        (AclFilter(host="10.1.2.3"), False),
        (AclFilter(operation=WRITE), False),
        (AclFilter(permission=AclPermission.DENY), False),
    ],
)
def test_filters(wanted: AclFilter, matches: bool) -> None:
    assert wanted.matches(acl(name="ord", pattern=AclPattern.PREFIXED)) is matches


@pytest.mark.parametrize(
    "bad",
    [
        acl(resource=AclResource.ANY),
        acl(pattern=AclPattern.MATCH),
        acl(AclOperation.ANY),
        acl(permission=AclPermission.ANY),
        acl(name=""),
        acl(name="other", resource=CLUSTER),
        acl(principal="alice"),
        acl(principal="User:"),
        acl(host=""),
        acl(host="10.0.0.0/99"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(bad: Acl) -> None:
    with pytest.raises(InvalidRequest):
        check_acl(bad)


def test_entries_and_filters_that_are_taken() -> None:
    check_acl(acl())
    check_acl(acl(ALL, CLUSTER_NAME, resource=CLUSTER, host="10.0.0.0/8"))
    check_filter(AclFilter())
    for unknown in (
        AclFilter(resource=AclResource.UNKNOWN),
        AclFilter(pattern=AclPattern.UNKNOWN),
        AclFilter(operation=AclOperation.UNKNOWN),
        AclFilter(permission=AclPermission.UNKNOWN),
    ):
        with pytest.raises(InvalidRequest):
            check_filter(unknown)
