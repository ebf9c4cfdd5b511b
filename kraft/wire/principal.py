"""The principal of a connection: a node of this cluster, or a client of a listener, of which nothing is known.

All brokers share one SCRAM user, `__cluster__`; its password is derived from the cluster secret. The client id
of the request that completed the authentication names the node and the purpose of the connection: `node-3-controller`.
So a holder of the secret can claim any node id; the secret is what the cluster trusts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

Purpose = Literal["controller", "fetch", "forward"]

_CLIENT_ID = re.compile(r"node-(\d{1,9})-(" + "|".join(get_args(Purpose)) + ")")


@dataclass(frozen=True, slots=True)
class NodePrincipal:
    """A node of this cluster, and the purpose of its connection."""

    node_id: int
    purpose: Purpose

    @property
    def client_id(self) -> str:
        """The client id in which it travels, `node-3-controller`."""
        return f"node-{self.node_id}-{self.purpose}"


@dataclass(frozen=True, slots=True)
class ClientPrincipal:
    """A client, as Kafka names one that did not authenticate."""

    name: str


Principal: TypeAlias = NodePrincipal | ClientPrincipal
ANONYMOUS = ClientPrincipal("ANONYMOUS")


def principal_of(client_id: str | None) -> NodePrincipal | None:
    """The principal that a client id names; None for a client id of any other form."""
    match = _CLIENT_ID.fullmatch(client_id or "")
    return None if match is None else NodePrincipal(int(match[1]), cast(Purpose, match[2]))
