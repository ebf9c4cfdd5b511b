"""What every node has, whatever its roles: its configuration, the world outside, and its view of the metadata log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from kraft.broker.audit import AUDIT_FILE
from kraft.broker.client_events import ClientEvents
from kraft.broker.logins import Logins
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.tokens import Tokens
from kraft.broker.users import Users
from kraft.config.models import ClusterConfig, NodeConfig
from kraft.events import EventLog, EventRing
from kraft.node.addresses import AddressBook
from kraft.node.node_watchdog import MainLoopWatch
from kraft.node.quorum import HostedQuorum
from kraft.node.tls_policy import Certificates, dial_tls
from kraft.wire.peers import Peers
from metadata.environment import Environment

OnFatal = Callable[[BaseException], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    config: ClusterConfig
    node: NodeConfig
    environment: Environment
    quorum: HostedQuorum
    events: EventLog
    audit: EventLog
    client_events: ClientEvents
    publisher: MetadataPublisher
    main_loop: MainLoopWatch
    incarnation_id: UUID
    """Identifies this process: each start has another one."""
    peers: Peers
    """Connections to the other nodes."""
    on_fatal: OnFatal
    """Must stop the node."""
    logins: Logins
    """The logins of all ports."""
    certificates: Certificates | None = None
    """None on a node whose listeners and peers have no TLS."""


def node_context(
    config: ClusterConfig,
    node_id: int,
    *,
    environment: Environment,
    quorum: HostedQuorum,
    on_fatal: OnFatal,
    certificates: Certificates | None = None,
) -> NodeContext:
    node = config.node(node_id)
    ring = EventRing(lambda: publisher.settings.event_ring_bytes, lock=quorum.process.lock())
    events = EventLog(environment, data=node.data, node_id=node_id, ring=ring)
    client_events = ClientEvents(events, environment.clock)
    publisher = MetadataPublisher(
        node_id=node_id,
        clock=environment.clock,
        static=config.static_settings(node_id),
        on_throttled=client_events.throttled,
    )
    dialed = {each.id: dial_tls(config, each, certificates) for each in config.nodes}
    addresses = AddressBook(config, node_id=node_id, image=lambda: publisher.image)
    return NodeContext(
        config=config,
        node=node,
        environment=environment,
        quorum=quorum,
        events=events,
        audit=EventLog(environment, data=node.data, node_id=node_id, ring=ring, name=AUDIT_FILE),
        client_events=client_events,
        publisher=publisher,
        main_loop=MainLoopWatch(
            environment,
            host=quorum,
            is_voter=node.is_voter,
            events=events,
            end_ms=lambda: publisher.settings.node_hang_timeout_ms,
        ),
        incarnation_id=UUID(bytes=environment.rng.randbytes(16), version=4),
        peers=Peers(
            environment,
            node_id=node_id,
            password=config.keys.password,
            address=addresses.address,
            tls=dialed.get,
        ),
        on_fatal=on_fatal,
        logins=_logins(config, environment, publisher, client_events, events),
        certificates=certificates,
    )


def _logins(
    config: ClusterConfig,
    environment: Environment,
    publisher: MetadataPublisher,
    client_events: ClientEvents,
    events: EventLog,
) -> Logins:
    keys = config.keys
    users = Users(environment, image=lambda: publisher.image, passwords=config.passwords, key=keys.operator)
    return Logins(
        users=users,
        tokens=Tokens(environment, lambda: publisher.settings, events=events),
        clock=environment.clock,
        settings=lambda: publisher.settings,
        operator_key=keys.operator,
        events=client_events,
    )
