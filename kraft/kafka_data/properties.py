"""The files of text that Kafka reads before its logs: `quorum-state` and `server.properties`. Pure.

A quorum of fixed voters (kraft.version 0) needs no record of its voters: they are in `server.properties`, and may get
other addresses. Source: MetaProperties, QuorumStateData, KafkaConfig.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from kraft.config.models import ClusterConfig, NodeConfig, SecurityProtocol
from kraft.kafka_data.broker_rules import is_taken
from kraft.kafka_data.logins import Logins, controller_protocol, security_lines
from kraft.kafka_data.releases import Release, value_for
from metadata.image import DEFAULT_LISTENER
from metadata.kafka_settings import is_kafka_name
from metadata.settings import BrokerSettings, setting_text

CONTROLLER_LISTENER: Final = "CONTROLLER"
METADATA_TOPIC_ID: Final = UUID(int=1)
DIFFERENT: Final = (
    "auto.create.topics.enable",
    "default.replication.factor",
    "num.partitions",
    "min.insync.replicas",
    "offsets.topic.replication.factor",
    "offsets.topic.num.partitions",
    "transaction.state.log.replication.factor",
    "transaction.state.log.num.partitions",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.num.partitions",
    "share.coordinator.state.topic.min.isr",
    "group.initial.rebalance.delay.ms",
)
"""Settings that are written with their values here, because Kafka's defaults may be others."""
OF_THE_AUTHORIZER: Final = frozenset({"super.users", "allow.everyone.if.no.acl.found"})
"""Settings of Kafka's StandardAuthorizer, which are no settings of its broker."""
_FROM_NODES: Final = frozenset(
    {
        "node.id", "broker.id", "process.roles", "listeners", "advertised.listeners", "controller.quorum.voters",
        "listener.security.protocol.map", "inter.broker.listener.name", "controller.listener.names", "log.dirs",
        "log.dir", "metadata.log.dir", "broker.rack", "sasl.enabled.mechanisms",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Where the folders of one exported node are."""

    config: NodeConfig
    directories: Sequence[str]
    directory_ids: Sequence[UUID]


def quorum_state(voters: Sequence[int], epoch: int) -> str:
    """The state of a voter that has voted for nobody in this epoch."""
    state = {
        "clusterId": "",
        "leaderId": -1,
        "leaderEpoch": epoch,
        "votedId": -1,
        "appliedOffset": 0,
        "currentVoters": [{"voterId": voter} for voter in voters],
        "data_version": 0,
    }
    return json.dumps(state, separators=(",", ":"))


def server_properties(cluster: ClusterConfig, place: NodePlace, release: Release, logins: Logins) -> str:
    """The `server.properties` of a node: its settings and addresses here, under Kafka's names."""
    node, settings = place.config, cluster.broker_settings(place.config.id)
    lines = {
        "process.roles": ",".join(node.roles),
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{voter.id}@{voter.quorum}" for voter in cluster.voters),
        "controller.listener.names": CONTROLLER_LISTENER,
        **_listeners(node, controller_protocol(cluster, logins)),
        "log.dirs": ",".join(place.directories),
        **({"broker.rack": node.rack} if node.rack else {}),
        **{name: value_for(release, name, value) for name, value in _settings(settings, release).items()},
        **security_lines(cluster, node, logins, controller=CONTROLLER_LISTENER),
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in lines.items())


def _listeners(node: NodeConfig, between_controllers: SecurityProtocol) -> dict[str, str]:
    addresses: list[str] = []
    protocols = {CONTROLLER_LISTENER: between_controllers}
    if node.is_broker:
        hosts = {each.name: each.host for each in node.listeners if each.host}
        ports = {DEFAULT_LISTENER: node.kafka_port, **{each.name: each.port for each in node.listeners}}
        addresses += [f"{name}://{hosts.get(name, node.bind_host)}:{port}" for name, port in ports.items()]
        protocols |= node.protocols
    if node.is_voter:
        addresses.append(f"{CONTROLLER_LISTENER}://{node.bind_host}:{node.quorum_port}")
    lines = {
        "listeners": ",".join(addresses),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
    }
    if node.is_broker:
        advertised = {DEFAULT_LISTENER: str(node.kafka), **node.client_addresses}
        lines["advertised.listeners"] = ",".join(f"{name}://{address}" for name, address in advertised.items())
        lines["inter.broker.listener.name"] = DEFAULT_LISTENER
    return lines


def _settings(settings: BrokerSettings, release: Release) -> dict[str, str]:
    own = settings.model_dump(by_alias=True, exclude_unset=True)
    every = settings.model_dump(by_alias=True)
    names = [name for name in own if _is_known(name) and is_taken(name, release) and name not in _FROM_NODES]
    return {name: setting_text(every[name]) for name in dict.fromkeys((*DIFFERENT, *names)) if name in every}


def settings_without_kafka(cluster: ClusterConfig, release: Release) -> Iterator[str]:
    """Names in cluster.toml that the release does not have, or not as they are here."""
    names = {*cluster.settings, *(name for node in cluster.nodes for name in node.settings)}
    return (name for name in sorted(names) if not (_is_known(name) and is_taken(name, release)))


def _is_known(name: str) -> bool:
    return is_kafka_name(name) or name in OF_THE_AUTHORIZER


def _escaped(value: str) -> str:
    """A value as Java's Properties reads it from a file in Latin-1."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
    text = "".join(each if each.isascii() else json.dumps(each)[1:-1] for each in escaped)
    return f"\\{text}" if text.startswith(" ") else text
