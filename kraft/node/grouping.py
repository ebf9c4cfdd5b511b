"""The group coordinator of a broker and every node's way to the coordinators, put together."""

from __future__ import annotations

from kraft.broker.gateway import Gateway
from kraft.broker.lifecycle import BrokerLifecycle
from kraft.broker.publishing import MetadataPublisher
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.groups.shard import Replicas, Surroundings
from kraft.wire.channels import GroupChannel
from kraft.wire.peers import Peers
from metadata.environment import Environment
from metadata.events import Events


def group_coordinator(
    lifecycle: BrokerLifecycle,
    environment: Environment,
    *,
    replicas: Replicas,
    publisher: MetadataPublisher,
    events: Events,
) -> GroupCoordinator:
    around = Surroundings(
        node_id=lifecycle.broker_id,
        environment=environment,
        replicas=replicas,
        settings=publisher.current_settings,
        image=lambda: publisher.image,
        has_session=lambda: lifecycle.has_session,
    )
    return GroupCoordinator(around, events)


def groups_of(
    gateway: Gateway, *, environment: Environment, coordinator: GroupCoordinator | None, peers: Peers
) -> Groups:
    clock = environment.clock
    return Groups(
        gateway=gateway, clock=clock, local=coordinator, peer=lambda node_id: GroupChannel(peers, node_id).ask
    )
