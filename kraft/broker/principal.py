"""The principal of a request, over any port: a node of this cluster, a user with a name, or ANONYMOUS; with the host.

All brokers share one SCRAM user, `__cluster__`; its password is derived from the cluster secret. The client id
of the request that completed the authentication names the node and the purpose of the connection: `node-3-controller`.
So a holder of the secret can claim any node id; the secret is what the cluster trusts.

The principal of a connection is computed once. A request that a node forwards names the user for whom the node asks
(`ASKER`), as a tagged field of its header: the receiver trusts the node for that name.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast, get_args

from kraft.broker.client_quotas import OWNER

Purpose = Literal["controller", "fetch", "forward"]

USER = "User"
NODE = "Node"
ANONYMOUS_NAME = "ANONYMOUS"
PRINCIPAL_BYTES_MAX = 65_536
"""Longest principal that a node takes from another, with host and client id, which has up to 32,767 bytes."""

_CLIENT_ID = re.compile(r"node-(\d{1,9})-(" + "|".join(get_args(Purpose)) + ")")


@dataclass(frozen=True, slots=True)
class NodePrincipal:
    """A node of this cluster, and the purpose of its connection."""

    node_id: int
    purpose: Purpose
    host: str = ""

    @property
    def client_id(self) -> str:
        """The client id in which it travels, `node-3-controller`."""
        return f"node-{self.node_id}-{self.purpose}"

    @property
    def type(self) -> str:
        """The type that no ACL of Kafka names."""
        return NODE

    @property
    def name(self) -> str:
        """The node id."""
        return str(self.node_id)

    @property
    def is_anonymous(self) -> bool:
        """Never: a node has proved the cluster's secret."""
        return False

    def __str__(self) -> str:
        return f"{NODE}:{self.node_id}"


PERMISSIVE = "\1"
"""Stands before the client id of a client that does not know error 89."""


@dataclass(frozen=True, slots=True)
class UserPrincipal:
    """A client: Kafka's KafkaPrincipal, and the address from which the client asks (`10.0.0.7`)."""

    name: str
    host: str = ""
    type: str = USER
    client_id: str | None = field(default=None, compare=False)
    """The client id of the request for which a node asks, where there are quotas."""
    is_permissive: bool = field(default=False, compare=False)
    """The client does not know error 89 (KIP-599)."""

    @property
    def is_anonymous(self) -> bool:
        """Whether the client did not authenticate."""
        return self.name == ANONYMOUS_NAME and self.type == USER

    def __str__(self) -> str:
        """`User:alice`."""
        return f"{self.type}:{self.name}"

    def encode(self) -> bytes:
        """The principal as a request from node to node carries it: `User:alice`, a zero byte, and the host; then, if
        there is one, the client id behind a zero byte, or behind a byte of one if it is permissive."""
        before = PERMISSIVE if self.is_permissive else "\0"
        return f"{self}\0{self.host}{'' if self.client_id is None else before + self.client_id}".encode()


Principal: TypeAlias = NodePrincipal | UserPrincipal
ANONYMOUS = UserPrincipal(ANONYMOUS_NAME)

ASKER: ContextVar[UserPrincipal | None] = ContextVar("ASKER", default=None)
"""The authenticated user for whom the current task asks another node; None for a node itself and for ANONYMOUS."""

CLIENT: ContextVar[Principal | None] = ContextVar("CLIENT", default=None)
"""The principal of the request that the current task answers; None for what a node does for itself."""


def node_principal_of(client_id: str | None, *, host: str = "") -> NodePrincipal | None:
    """The principal that a node's client id names; None for a client id of any other form."""
    match = _CLIENT_ID.fullmatch(client_id or "")
    return None if match is None else NodePrincipal(int(match[1]), cast(Purpose, match[2]), host)


def decode_user(data: bytes) -> UserPrincipal:
    """The inverse of `UserPrincipal.encode`. Raises ValueError for bytes that no node sends."""
    if len(data) > PRINCIPAL_BYTES_MAX:
        raise ValueError(f"a principal of {len(data)} bytes; {PRINCIPAL_BYTES_MAX} are taken")
    principal, separator, more = data.decode().partition("\0")
    place = next((at for at, each in enumerate(more) if each in ("\0", PERMISSIVE)), len(more))
    host, has_client_id, client_id = more[:place], more[place : place + 1], more[place + 1 :]
    kind, colon, name = principal.partition(":")
    if not (separator and colon and kind):
        raise ValueError("a principal is TYPE:NAME, a zero byte and a host")
    return UserPrincipal(name, host, kind, client_id if has_client_id else None, has_client_id == PERMISSIVE)


def ask_for(principal: Principal) -> None:
    """What the current task asks of other nodes from now on is asked for this principal."""
    CLIENT.set(principal)
    ASKER.set(principal if isinstance(principal, UserPrincipal) and not principal.is_anonymous else None)


def asker_bytes() -> bytes | None:
    """The principal that a request of the current task carries to another node; None for no name. While there are
    quotas, it also carries ANONYMOUS and the client id, so that the active controller counts for the client."""
    asker, owner = ASKER.get(), OWNER.get()
    if owner is not None:
        found = replace(asker or ANONYMOUS, client_id=owner.client_id, is_permissive=owner.is_permissive)
        return found.encode()
    return None if asker is None else asker.encode()


def owner_of(principal: Principal | None) -> str:
    """Whose the things are that a request of this principal makes, `User:alice`; empty where anybody may be ANONYMOUS:
    such things are everybody's."""
    return str(principal) if isinstance(principal, UserPrincipal) and not principal.is_anonymous else ""


def principal_of(owner: str, host: str) -> UserPrincipal:
    """The principal of an owner, as `owner_of` names it, at this host."""
    kind, _, name = owner.partition(":")
    return UserPrincipal(name, host, kind) if owner else replace(ANONYMOUS, host=host)


def host_of(peer: str) -> str:
    """The host of `host:port`."""
    return peer.rpartition(":")[0]
