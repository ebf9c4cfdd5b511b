"""Security of exported nodes: the lines of `server.properties` for listeners with TLS or SASL, and the users of
cluster.toml as SCRAM users of the metadata. Pure.

Kafka's nodes are users among themselves, and here they are not. The first super user of cluster.toml lends them its
name: brokers log in with SCRAM, controllers with PLAIN, because a controller has to know its user before it has the
metadata. Source: SaslConfigs, JaasContext, BrokerSecurityConfigs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from kraft.config.models import ClusterConfig, NodeConfig, SecurityProtocol, has_sasl, has_tls
from kraft.protocol.scram import DIGESTS, SALT_BYTES, credential
from metadata.image import DEFAULT_LISTENER, MetadataImage, users_map
from metadata.settings import BrokerSettings

PLAIN: Final = "PLAIN"
SCRAMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256")
"""The best one first."""
TOKENS: Final = "OAUTHBEARER"
_SCRAM_MODULE: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
_PLAIN_MODULE: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """The users of cluster.toml in an exported cluster."""

    passwords: Mapping[str, str]
    """User of cluster.toml -> its password; without those that the metadata has, too: there they have another."""
    of_nodes: str | None
    """Name of the user as whom Kafka's nodes log in to each other: a super user, if there is one."""


def logins_of(config: ClusterConfig, image: MetadataImage) -> Logins:
    passwords = {name: password for name, password in config.passwords.items() if name not in image.users}
    supers = [
        principal.strip().removeprefix("User:")
        for principal in config.broker_settings(config.nodes[0].id).super_users.split(";")
    ]
    return Logins(passwords=passwords, of_nodes=next((name for name in supers if name in passwords), None))


def with_users(image: MetadataImage, logins: Logins, rng: random.Random) -> MetadataImage:
    """The image with the users of cluster.toml, under both mechanisms of SCRAM."""
    made = {
        name: MappingProxyType(
            {
                mechanism: credential(password, salt=rng.randbytes(SALT_BYTES), mechanism=mechanism)
                for mechanism in sorted(DIGESTS)
            }
        )
        for name, password in logins.passwords.items()
    }
    return replace(image, users=users_map({**image.users, **made})) if made else image


def controller_protocol(config: ClusterConfig, logins: Logins) -> SecurityProtocol:
    """Security of the controllers' listener on all nodes: what the voters have among clients, where it can be."""
    protocols = [voter.kafka_protocol for voter in config.voters]
    is_encrypted = all(map(has_tls, protocols))
    if logins.of_nodes is not None and all(map(has_sasl, protocols)):
        return "SASL_SSL" if is_encrypted else "SASL_PLAINTEXT"
    return "SSL" if is_encrypted else "PLAINTEXT"


def needs_anonymous(config: ClusterConfig, logins: Logins) -> bool:
    """Whether nodes have to be super users without a name, because the controllers' listener has no login."""
    has_authorizer = any(config.broker_settings(node.id).authorizer_class_name for node in config.nodes)
    return has_authorizer and not has_sasl(controller_protocol(config, logins))


def left_to_people(config: ClusterConfig, logins: Logins) -> Iterator[str]:
    """What an administrator has to add, in words."""
    settings = config.broker_settings(config.nodes[0].id)
    listeners = {
        name: _mechanisms(node, name, settings)
        for node in config.nodes
        for name, protocol in node.protocols.items()
        if has_sasl(protocol)
    }
    if DEFAULT_LISTENER in listeners and logins.of_nodes is None:
        yield (
            "the login of nodes among themselves: cluster.toml has no super user with a password; add "
            "sasl.mechanism.inter.broker.protocol and its JAAS entry to server.properties"
        )
    offered = {mechanism for mechanisms in listeners.values() for mechanism in mechanisms}
    if PLAIN in offered:
        names = ", ".join(sorted(logins.passwords)) or "none"
        yield f"logins with PLAIN: Kafka takes those of users in cluster.toml ({names}); all others log in with SCRAM"
    if TOKENS in offered:
        yield "logins with OAUTHBEARER: left out; add the mechanism, its JAAS entry and its callback handler"


def security_lines(config: ClusterConfig, node: NodeConfig, logins: Logins, *, controller: str) -> dict[str, str]:
    """What `server.properties` needs besides the settings of the cluster. `controller`: name of that listener."""
    settings = config.broker_settings(node.id)
    between_controllers = controller_protocol(config, logins)
    lines: dict[str, str] = {}
    if node.has_tls or has_tls(between_controllers):
        lines |= {"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM"}
    for name, protocol in node.protocols.items() if node.is_broker else ():
        if has_sasl(protocol):
            lines |= _listener_lines(name, _mechanisms(node, name, settings), logins)
    mechanism = _between_brokers(_mechanisms(node, DEFAULT_LISTENER, settings))
    if node.is_broker and has_sasl(node.kafka_protocol) and logins.of_nodes is not None and mechanism is not None:
        lines["sasl.mechanism.inter.broker.protocol"] = mechanism
    if has_sasl(between_controllers):
        lines |= {"sasl.mechanism.controller.protocol": PLAIN, **_listener_lines(controller, [PLAIN], logins)}
    return lines


def _mechanisms(node: NodeConfig, listener: str, settings: BrokerSettings) -> Sequence[str]:
    own = next((each.mechanisms for each in node.listeners if each.name == listener), ())
    return own or settings.sasl_enabled_mechanisms.split(",")


def _between_brokers(mechanisms: Sequence[str]) -> str | None:
    return next((each for each in (*SCRAMS, PLAIN) if each in mechanisms), None)


def _listener_lines(listener: str, mechanisms: Sequence[str], logins: Logins) -> dict[str, str]:
    prefix = f"listener.name.{listener.lower()}"
    known = [each for each in mechanisms if each != TOKENS]
    return {
        f"{prefix}.sasl.enabled.mechanisms": ",".join(known),
        **{f"{prefix}.{each.lower()}.sasl.jaas.config": _jaas(each, logins) for each in known},
    }


def _jaas(mechanism: str, logins: Logins) -> str:
    """The entry of a mechanism: with whom a node logs in and, for PLAIN, who may."""
    options: dict[str, str] = {}
    if logins.of_nodes is not None:
        options = {"username": logins.of_nodes, "password": logins.passwords[logins.of_nodes]}
    if mechanism == PLAIN:
        options |= {f"user_{name}": password for name, password in logins.passwords.items()}
    module = _PLAIN_MODULE if mechanism == PLAIN else _SCRAM_MODULE
    words = [f"{name}={_quoted(value)}" for name, value in options.items()]
    return " ".join([module, "required", *words]) + ";"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
