"""A request of a node, as a session gives it to a handler."""

from __future__ import annotations

from typing import Any

from kraft.broker.principal import NodePrincipal
from kraft.protocol.encoding import TopLevel
from kraft.wire.api_handler import Call, ClientConnection

FORWARD = NodePrincipal(2, "forward")


def node_call(message: TopLevel, *, version: int = 0) -> Call[Any]:
    connection = ClientConnection(peer="127.0.0.1:5", listener="PLAINTEXT", principal=FORWARD)
    return Call(message=message, version=version, client_id=FORWARD.client_id, connection=connection)
