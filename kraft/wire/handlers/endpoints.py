"""Where a client reaches the brokers: each has an address for every listener, and a client gets that of its own.

A client that came through a listener can reach the others through the listener of the same name; their other addresses
may not exist where it is. So Metadata, FindCoordinator, DescribeCluster and the leader hints of KIP-951 all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kraft.config.models import parse_address
from kraft.wire.api_handler import ClientConnection
from kraft.wire.node_parts import NodeParts
from metadata.image import BrokerImage


class Endpoint(NamedTuple):
    """Where a client reaches a broker: its id, host, port and rack."""

    node_id: int
    host: str
    port: int
    rack: str | None


def address_of(broker: NodeParts, broker_id: int, connection: ClientConnection) -> Endpoint | None:
    """The address of a registered broker, fenced or not, for the listener that the client used. None when there is
    no such broker, or no such listener: the client gets LEADER_NOT_AVAILABLE 5 or COORDINATOR_NOT_AVAILABLE 15."""
    registered = broker.gateway.image.brokers.get(broker_id)
    return None if registered is None else _endpoint(registered, connection.listener)


def live_endpoints(broker: NodeParts, connection: ClientConnection) -> Sequence[Endpoint]:
    """The addresses of the brokers that are not fenced, in the order of ids, as Metadata lists them."""
    brokers = broker.gateway.image.brokers
    found = (_endpoint(each, connection.listener) for _, each in sorted(brokers.items()) if not each.fenced)
    return [endpoint for endpoint in found if endpoint is not None]


def node_endpoints(broker: NodeParts, broker_ids: Iterable[int], connection: ClientConnection) -> Sequence[Endpoint]:
    """Each of them once, by id: the `node_endpoints` of an answer whose partitions name these leaders (KIP-951).
    A broker without an address is left out, as is -1, the id of an unknown leader."""
    found = (address_of(broker, broker_id, connection) for broker_id in sorted(set(broker_ids)))
    return [endpoint for endpoint in found if endpoint is not None]


def controller_of(broker: NodeParts, connection: ClientConnection) -> int:
    """The broker to which a client should send what the controller does: every broker passes that on, and to the
    active controller's own process it is the shortest way. Clients wait for ever for a controller -1, so when nobody
    lives as far as is known here, it is this broker."""
    live = [endpoint.node_id for endpoint in live_endpoints(broker, connection)]
    for wanted in (broker.gateway.controller_id, broker.gateway.node_id):
        if wanted in live:
            return wanted
    return live[0] if live else broker.gateway.node_id


def _endpoint(registered: BrokerImage, listener: str) -> Endpoint | None:
    address = registered.address(listener)
    if address is None:
        return None
    parsed = parse_address(address)
    return Endpoint(registered.broker_id, parsed.host, parsed.port, registered.rack)
