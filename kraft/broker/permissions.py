"""What one principal may do now: the decisions of the authorizer, asked by handlers of all ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kraft.broker.principal import NodePrincipal, Principal
from kraft.protocol.errors import (
    ClusterAuthorizationFailed,
    GroupAuthorizationFailed,
    KafkaError,
    TopicAuthorizationFailed,
    TransactionalIdAuthorizationFailed,
)
from metadata.acls import CLUSTER_NAME, AclOperation, AclResource
from metadata.authorizer import Asker, Authorizer

Note = Callable[[AclOperation, AclResource, str], None]

_REFUSALS: Final[dict[AclResource, type[KafkaError]]] = {
    AclResource.TOPIC: TopicAuthorizationFailed,
    AclResource.GROUP: GroupAuthorizationFailed,
    AclResource.CLUSTER: ClusterAuthorizationFailed,
    AclResource.TRANSACTIONAL_ID: TransactionalIdAuthorizationFailed,
}
_WORDS: Final = {
    AclResource.TOPIC: "Topic authorization failed.",
    AclResource.GROUP: "Group authorization failed.",
    AclResource.CLUSTER: "Cluster authorization failed.",
    AclResource.TRANSACTIONAL_ID: "Transactional Id authorization failed.",
}


def refusal_of(resource: AclResource) -> KafkaError:
    """The error of Kafka for an operation that is not allowed on such a resource. It does not name the resource."""
    return _REFUSALS[resource](_WORDS[resource])


def permissions_of(authorizer: Authorizer | None, principal: Principal, note: Note | None = None) -> Permissions | None:
    """What the principal may do; None: everything, for a node, a super user, or without an authorizer."""
    if authorizer is None or isinstance(principal, NodePrincipal) or authorizer.is_super(str(principal)):
        return None
    return Permissions(authorizer, principal, note)


class Permissions:
    """The decisions about one principal; a call decides, and notes a refusal."""

    __slots__ = ("_asker", "_authorizer", "_decisions", "_note")

    def __init__(self, authorizer: Authorizer, principal: Principal, note: Note | None = None) -> None:
        """`note` is called with each operation that is refused."""
        self._authorizer = authorizer
        self._asker = Asker(str(principal), principal.host)
        self._decisions = authorizer.decisions(self._asker)
        self._note = note

    def __call__(self, operation: AclOperation, resource: AclResource, name: str = CLUSTER_NAME) -> bool:
        is_allowed = self._decisions(operation, resource, name)
        if not is_allowed and self._note is not None:
            self._note(operation, resource, name)
        return is_allowed

    def silently(self, operation: AclOperation, resource: AclResource, name: str = CLUSTER_NAME) -> bool:
        """The decision without a note: for a list that leaves out what may not be seen."""
        return self._decisions(operation, resource, name)

    def some(self, operation: AclOperation, resource: AclResource) -> bool:
        """Whether there may be a resource of this kind on which the principal may do this (KIP-679)."""
        return self._authorizer.allows_some(self._asker, operation, resource)

    def operations(self, resource: AclResource, name: str = CLUSTER_NAME) -> int:
        """The allowed operations as bits (KIP-430)."""
        return self._authorizer.operations(self._asker, resource, name)

    def check(self, operation: AclOperation, resource: AclResource, name: str = CLUSTER_NAME) -> None:
        """Raises the error of Kafka for what is not allowed."""
        if not self(operation, resource, name):
            raise refusal_of(resource)
