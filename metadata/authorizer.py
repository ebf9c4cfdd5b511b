"""May a principal do an operation on a resource? Kafka's `StandardAuthorizer`, on the entries of one image.

A super user may do everything. Otherwise an entry that denies wins over all that allow; without any of them the
operation is denied, unless no entry at all is about the resource and `allow.everyone.if.no.acl.found` is set. Pure: an
authorizer belongs to one set of entries, so a change of them makes another one, whose memory of decisions is empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeAlias

from kraft.protocol.operator_tokens import OPERATOR
from metadata.acls import (
    ANYBODY,
    CLUSTER_NAME,
    OPERATIONS,
    WILDCARD,
    Acl,
    AclOperation,
    AclPattern,
    AclPermission,
    AclResource,
    allowing,
)
from metadata.image import MetadataImage
from metadata.settings import BrokerSettings

DECISIONS_KEPT_MAX = 20_000
"""Decisions that an authorizer remembers; when there are more, all are forgotten and made again."""
DECISIONS_OF_ONE_MAX = 1_000
"""Decisions on one client that are remembered, so that a request with many names takes no more memory than others pay
for, and does not push out what is known of other clients. When there are more, all on this client are forgotten."""
NAME_KEPT_MAX = 255
"""Characters of a name about which a decision is remembered: topics have fewer, and a client that asks chooses how long
its names are."""
_SOME_NAME = "hardcode"
"""The name that Kafka asks about to find out whether a principal may do an operation on whatever there is."""

Decision: TypeAlias = tuple[str, int]
"""The name of a resource, and its kind with the operation."""


class Asker(NamedTuple):
    """Principal and host of a client."""

    principal: str
    """`User:alice`."""
    host: str


class Decisions:
    """The decisions on one client, which are made once."""

    __slots__ = ("_asker", "_authorizer", "_known")

    def __init__(self, authorizer: Authorizer, asker: Asker, known: dict[Decision, bool]) -> None:
        """`known` is what the authorizer remembers of the client, which it may empty."""
        self._authorizer, self._asker, self._known = authorizer, asker, known

    def __call__(self, operation: AclOperation, resource: AclResource, name: str) -> bool:
        """Whether the client may do the operation."""
        key = name, operation * 16 + resource
        known = self._known.get(key)
        if known is None:
            known = self._authorizer.decide(self._asker, operation, resource, name)
            if len(name) <= NAME_KEPT_MAX:
                self._known = self._authorizer.remember(self._asker, key, known)
        return known


class _Names:
    """The entries about one kind of resource, by the name in their pattern."""

    def __init__(self, acls: Iterable[Acl]) -> None:
        self._literal: dict[str, list[Acl]] = {}
        self._prefixed: dict[str, list[Acl]] = {}
        for acl in acls:
            names = self._prefixed if acl.pattern is AclPattern.PREFIXED else self._literal
            names.setdefault(acl.name, []).append(acl)
        self._lengths = sorted({len(name) for name in self._prefixed})

    def about(self, name: str) -> Iterator[Acl]:
        """The entries about a resource."""
        yield from self._literal.get(name, ())
        if name != WILDCARD:
            yield from self._literal.get(WILDCARD, ())
        for length in self._lengths:
            if length > len(name):
                return
            yield from self._prefixed.get(name[:length], ())

    def all(self) -> Iterator[Acl]:
        for names in (self._literal, self._prefixed):
            for acls in names.values():
                yield from acls


class Authorizer:
    """The decisions on one set of entries."""

    def __init__(
        self, acls: Collection[Acl], *, super_users: Collection[str] = (), allows_everyone: bool = False
    ) -> None:
        """`super_users` are principals, `User:admin`. `allows_everyone` is `allow.everyone.if.no.acl.found`."""
        self._acls = acls
        self._super_users = frozenset(super_users)
        self._allows_everyone = allows_everyone
        self._of: dict[Asker, dict[Decision, bool]] = {}
        self._some: dict[tuple[Asker, AclOperation, AclResource], bool] = {}
        self._kept = 0

    @cached_property
    def _by_resource(self) -> dict[AclResource, _Names]:
        return {kind: _Names([acl for acl in self._acls if acl.resource is kind]) for kind in AclResource}

    def is_super(self, principal: str) -> bool:
        return principal in self._super_users

    def allows(self, asker: Asker, operation: AclOperation, resource: AclResource, name: str) -> bool:
        """Whether the client may do the operation."""
        return self.decisions(asker)(operation, resource, name)

    def decisions(self, asker: Asker) -> Decisions:
        """Those on one client, for a caller that asks more than once."""
        known = self._of.get(asker)
        return Decisions(self, asker, {} if known is None else known)

    def remember(self, asker: Asker, decision: Decision, is_allowed: bool) -> dict[Decision, bool]:
        """Returns all that is remembered of the client. A caller that still has an older memory of it finds that
        empty, so that nothing is kept which is not counted."""
        known = self._of.get(asker)
        if known is not None and len(known) >= DECISIONS_OF_ONE_MAX:
            self._kept -= len(known)
            known.clear()
        self._make_room()
        known = self._of.setdefault(asker, {})
        known[decision] = is_allowed
        return known

    def _make_room(self) -> None:
        """One more is going to be remembered."""
        self._kept += 1
        if self._kept > DECISIONS_KEPT_MAX:
            for each in self._of.values():
                each.clear()
            self._of.clear()
            self._some.clear()
            self._kept = 1

    def decide(self, asker: Asker, operation: AclOperation, resource: AclResource, name: str) -> bool:
        """What `allows` returns, without its memory."""
        if self.is_super(asker.principal):
            return True
        is_allowed, has_any = False, False
        for acl in self._by_resource[resource].about(name):
            has_any = True
            if not is_about(acl, asker, operation):
                continue
            if acl.permission is AclPermission.DENY:
                return False
            is_allowed = True
        return is_allowed or (not has_any and self._allows_everyone)

    def allows_some(self, asker: Asker, operation: AclOperation, resource: AclResource) -> bool:
        """Whether there may be a resource of this kind on which the client may do the operation (KIP-679). Only entries
        of exactly this operation or ALL count."""
        key = asker, operation, resource
        known = self._some.get(key)
        if known is None:
            self._make_room()
            known = self._some[key] = self._decide_some(asker, operation, resource)
        return known

    def _decide_some(self, asker: Asker, operation: AclOperation, resource: AclResource) -> bool:
        if self.decide(asker, operation, resource, _SOME_NAME):
            return True
        about = [
            acl
            for acl in self._by_resource[resource].all()
            if acl.operation in (operation, AclOperation.ALL) and _is_from(acl, asker)
        ]
        denied = [acl for acl in about if acl.permission is AclPermission.DENY]
        if any(acl.pattern is AclPattern.LITERAL and acl.name == WILDCARD for acl in denied):
            return False
        return any(acl.is_allow and not any(_dominates(each, acl) for each in denied) for acl in about)

    def operations(self, asker: Asker, resource: AclResource, name: str = CLUSTER_NAME) -> int:
        """The operations that the client may do, as bits by their codes (KIP-430)."""
        return sum(1 << each for each in OPERATIONS[resource] if self.allows(asker, each, resource, name))


def authorizer_of(settings: BrokerSettings, image: MetadataImage) -> Authorizer | None:
    """The decisions on the ACLs of an image; None without `authorizer.class.name`, when nothing is checked."""
    if not settings.authorizer_class_name:
        return None
    return Authorizer(
        image.acls.values(),
        super_users=[f"User:{OPERATOR}", *(each.strip() for each in settings.super_users.split(";") if each.strip())],
        allows_everyone=settings.allow_everyone_if_no_acl_found,
    )


def is_about(acl: Acl, asker: Asker, operation: AclOperation) -> bool:
    """Whether an entry about the resource decides on this operation of this client."""
    decided = allowing(operation) if acl.is_allow else (operation, AclOperation.ALL)
    return acl.operation in decided and _is_from(acl, asker)


def _is_from(acl: Acl, asker: Asker) -> bool:
    if acl.principal not in (asker.principal, ANYBODY):
        return False
    return acl.host in (WILDCARD, asker.host) or ("/" in acl.host and _is_within(asker.host, acl.host))


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in _network(network)
    except ValueError:
        return False  # a host that is no address, or a network of another form


def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


def _dominates(denied: Acl, allowed: Acl) -> bool:
    """Whether all that an entry allows is denied by another one."""
    if allowed.pattern is AclPattern.LITERAL and allowed.name == WILDCARD:
        return False
    if denied.pattern is AclPattern.PREFIXED:
        return allowed.name.startswith(denied.name)
    return denied.name == allowed.name and allowed.pattern is AclPattern.LITERAL
