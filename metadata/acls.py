"""Access control lists: one entry allows or denies one operation on one resource to one principal from one host.

Codes, names and rules are Kafka's (KIP-11, KIP-290): `AclBinding`, `AclBindingFilter` and the checks of
`AclControlManager`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_network
from typing import Final, Protocol, Self, TypedDict
from uuid import UUID

from kraft.protocol.errors import InvalidRequest

CLUSTER_NAME: Final = "kafka-cluster"
"""The one name of the one resource of type cluster."""
WILDCARD: Final = "*"
"""Any name of a literal pattern; any host; in `User:*` any user."""
ANYBODY: Final = "User:*"


class _Code(IntEnum):
    """An enum of Kafka's codes: one that Kafka does not have is UNKNOWN, 0."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(0) if isinstance(value, int) else None


class AclResource(_Code):
    """The kind of a resource, with Kafka's code."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class AclPattern(_Code):
    """How the name of an entry is meant, with Kafka's code."""

    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class AclOperation(_Code):
    """An operation on a resource, with Kafka's code."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class AclPermission(_Code):
    """Whether an entry allows or denies, with Kafka's code."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3


_READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE = list(AclOperation)[3:9]
OPERATIONS: Final = {
    AclResource.TOPIC: (
        _READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS,
    ),
    AclResource.GROUP: (_READ, _DELETE, _DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS),
    AclResource.CLUSTER: (
        _CREATE, _ALTER, _DESCRIBE, AclOperation.CLUSTER_ACTION, AclOperation.DESCRIBE_CONFIGS,
        AclOperation.ALTER_CONFIGS, AclOperation.IDEMPOTENT_WRITE,
    ),
    AclResource.TRANSACTIONAL_ID: (_WRITE, _DESCRIBE, AclOperation.TWO_PHASE_COMMIT),
    AclResource.USER: (AclOperation.CREATE_TOKENS, AclOperation.DESCRIBE_TOKENS),
}  # fmt: skip
"""The operations that each kind of resource has: Kafka's `AclEntry.supportedOperations`."""
_ALLOWING: Final = {each: frozenset({each, AclOperation.ALL}) for each in AclOperation} | {
    AclOperation.DESCRIBE: frozenset({_READ, _WRITE, _DELETE, _ALTER, _DESCRIBE, AclOperation.ALL}),
    AclOperation.DESCRIBE_CONFIGS: frozenset(
        {AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS, AclOperation.ALL}
    ),
}


def allowing(operation: AclOperation) -> frozenset[AclOperation]:
    """The operations of entries that allow this one. Nothing is denied by implication."""
    return _ALLOWING[operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acl:
    """One entry: Kafka's `AclBinding`."""

    resource: AclResource
    name: str
    pattern: AclPattern
    principal: str
    """`User:alice`, or `User:*` for everybody."""
    host: str
    """An address, a network in CIDR notation, or * for any."""
    operation: AclOperation
    permission: AclPermission

    @property
    def is_allow(self) -> bool:
        return self.permission is AclPermission.ALLOW

    def covers(self, name: str) -> bool:
        """Whether the resource of this name, of the entry's kind, is meant."""
        if self.pattern is AclPattern.PREFIXED:
            return name.startswith(self.name)
        return self.name in (name, WILDCARD)


class AclMessage(Protocol):
    """An entry in a message of Kafka, whose field for the pattern has more than one name."""

    @property
    def resource_type(self) -> int: ...
    @property
    def resource_name(self) -> str: ...
    @property
    def principal(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def operation(self) -> int: ...
    @property
    def permission_type(self) -> int: ...


class AclFields(TypedDict):
    """The fields that an entry has in every message of Kafka."""

    resource_type: int
    resource_name: str
    principal: str
    host: str
    operation: int
    permission_type: int


def from_message(message: AclMessage, *, pattern: int) -> Acl:
    """The entry of a message, record or answer of Kafka."""
    return Acl(
        resource=AclResource(message.resource_type),
        name=message.resource_name,
        pattern=AclPattern(pattern),
        principal=message.principal,
        host=message.host,
        operation=AclOperation(message.operation),
        permission=AclPermission(message.permission_type),
    )


def message_fields(acl: Acl) -> AclFields:
    """The fields of the entry in a message of Kafka, all but its pattern."""
    return AclFields(
        resource_type=acl.resource,
        resource_name=acl.name,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AclFilter:
    """Which entries are listed or deleted: Kafka's `AclBindingFilter`. None matches all."""

    resource: AclResource = AclResource.ANY
    name: str | None = None
    pattern: AclPattern = AclPattern.ANY
    principal: str | None = None
    host: str | None = None
    operation: AclOperation = AclOperation.ANY
    permission: AclPermission = AclPermission.ANY

    def matches(self, acl: Acl) -> bool:
        return (
            self.resource in (AclResource.ANY, acl.resource)
            and self._matches_name(acl)
            and self.principal in (None, acl.principal)
            and self.host in (None, acl.host)
            and self.operation in (AclOperation.ANY, acl.operation)
            and self.permission in (AclPermission.ANY, acl.permission)
        )

    def _matches_name(self, acl: Acl) -> bool:
        if self.pattern not in (AclPattern.ANY, AclPattern.MATCH, acl.pattern):
            return False
        if self.name is None:
            return True
        if self.pattern is AclPattern.MATCH:
            return acl.covers(self.name)
        return self.name == acl.name

    def among(self, acls: Iterable[tuple[UUID, Acl]]) -> Iterator[tuple[UUID, Acl]]:
        return ((acl_id, acl) for acl_id, acl in acls if self.matches(acl))


def check_acl(acl: Acl) -> None:
    """Raises InvalidRequest 42 for an entry that cannot be created."""
    if acl.resource in (AclResource.UNKNOWN, AclResource.ANY):
        raise InvalidRequest(f"Invalid resourceType {acl.resource.name}")
    if acl.pattern not in (AclPattern.LITERAL, AclPattern.PREFIXED):
        raise InvalidRequest(f"Invalid patternType {acl.pattern.name}")
    if acl.operation in (AclOperation.UNKNOWN, AclOperation.ANY):
        raise InvalidRequest(f"Invalid operation {acl.operation.name}")
    if acl.permission not in (AclPermission.ALLOW, AclPermission.DENY):
        raise InvalidRequest(f"Invalid permissionType {acl.permission.name}")
    if not acl.name:
        raise InvalidRequest("Resource name should not be empty")
    if acl.resource is AclResource.CLUSTER and acl.name != CLUSTER_NAME:
        raise InvalidRequest(f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}")
    kind, colon, user = acl.principal.partition(":")
    if not (kind and colon and user):
        raise InvalidRequest(f"a principal is written as principalType:principalName, not {acl.principal!r}")
    if not acl.host:
        raise InvalidRequest("a host is an address, a network such as 10.0.0.0/8, or *")
    if "/" in acl.host:
        try:
            ip_network(acl.host, strict=False)
        except ValueError as error:
            raise InvalidRequest(f"{acl.host!r} is no network: {error}") from error


def check_filter(wanted: AclFilter) -> None:
    """Raises InvalidRequest 42 for a filter with a code that Kafka does not have."""
    if AclResource.UNKNOWN is wanted.resource or AclPattern.UNKNOWN is wanted.pattern:
        raise InvalidRequest("Unknown patternFilter.")
    if AclOperation.UNKNOWN is wanted.operation or AclPermission.UNKNOWN is wanted.permission:
        raise InvalidRequest("Unknown entryFilter.")
