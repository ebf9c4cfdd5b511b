"""A cluster's configuration as frozen models: the content of cluster.toml, and the complete form that starts a node.

`ClusterFile` is the file, where identity may be left out; `ClusterConfig` is complete. Values are checked when the
models are made and never afterwards. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from kraft.protocol.operator_tokens import RESERVED, is_reserved
from kraft.protocol.primitives import INT32_MAX, SettingValue
from kraft.values import value
from metadata.cluster_keys import ClusterKeys, cluster_keys
from metadata.image import DEFAULT_LISTENER
from metadata.settings import BrokerSettings, broker_settings, setting_text

Role: TypeAlias = Literal["broker", "controller"]
Purpose: TypeAlias = Literal["quorum", "controller", "fetch", "forward"]
SecurityProtocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


TlsMode: TypeAlias = Literal["allow", "prefer", "require"]
Mechanism: TypeAlias = Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"]


def has_tls(protocol: SecurityProtocol) -> bool:
    """Whether connections of the protocol are encrypted."""
    return protocol in ("SSL", "SASL_SSL")


def has_sasl(protocol: SecurityProtocol) -> bool:
    """Whether clients of the protocol log in."""
    return protocol in ("SASL_PLAINTEXT", "SASL_SSL")


@value()
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of a text. Raises ValueError unless the text is `host:port`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError("should be host:port with a port from 1 to 65535")
    return Address(host, int(port))


def _check_address(text: str) -> str:
    parse_address(text)
    return text


AddressText: TypeAlias = Annotated[str, AfterValidator(_check_address)]


def _check_user_name(name: str) -> str:
    if is_reserved(name):
        raise ValueError(f"should be another name: {RESERVED}")
    return name


UserName: TypeAlias = Annotated[str, AfterValidator(_check_user_name)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PeerAddresses(_Model):
    """Other addresses under which this node reaches one peer, one per purpose: through a proxy, for example."""

    quorum: AddressText | None = Field(default=None, description="Raft messages between voters, host:port.")
    controller: AddressText | None = Field(
        default=None, description="Registration, heartbeats and other requests to the active controller, host:port."
    )
    fetch: AddressText | None = Field(
        default=None, description="Replica fetches and fetches of the metadata log, host:port."
    )
    forward: AddressText | None = Field(
        default=None, description="Requests of clients that are forwarded to a leader, host:port."
    )


class ListenerConfig(_Model):
    """A listener only for Kafka clients, beside the Kafka port that they share with nodes."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$",
        max_length=64,
        description="Name of the listener; clients of a listener get the brokers' addresses of the same listener.",
    )
    host: str | None = Field(
        default=None, min_length=1, description="Address that it listens on; default: that of the node."
    )
    port: int = Field(ge=1, le=65535, description="Port that it listens on.")
    advertised: AddressText | None = Field(
        default=None, description="host:port that brokers send to clients; default: the node's host and this port."
    )
    protocol: SecurityProtocol = Field(default="PLAINTEXT", description="Security of the listener, as Kafka names it.")
    mechanisms: tuple[Mechanism, ...] = Field(
        default=(), description="SASL mechanisms of the listener; default: sasl.enabled.mechanisms."
    )


class UserConfig(_Model):
    """A user that the cluster has from its start: one with whom all others can be added."""

    name: UserName = Field(
        pattern=r"^[^\x00-\x1f]+$", min_length=1, max_length=255, description="Name of the user, as ACLs have it."
    )
    password: SecretStr | None = Field(default=None, min_length=1, max_length=1024, description="The password.")
    password_file: str | None = Field(
        default=None, min_length=1, description="File with the password, which nobody else may read, instead of it."
    )


class NodeConfig(_Model):
    """One node. Ports and folders that the file leaves out have their defaults here."""

    id: int = Field(ge=0, le=INT32_MAX, description="The node's id; unique, and never used for another data folder.")
    roles: tuple[Role, ...] = Field(
        default=("broker", "controller"),
        min_length=1,
        description="broker, controller (a voter of the quorum) or both.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Address under which others reach this node.")
    bind: str | None = Field(default=None, min_length=1, description="Address that the node listens on; default: host.")
    rest_port: int = Field(ge=1, le=65535, description="HTTP port; default: 8082, 8083 and so on by place.")
    kafka_port: int = Field(ge=1, le=65535, description="Kafka protocol port; default: 9092, 9093 and so on by place.")
    quorum_port: int = Field(
        ge=1, le=65535, description="Raft port, controllers only; default: 9192, 9193 and so on by place."
    )
    kafka_protocol: SecurityProtocol = Field(
        default="PLAINTEXT",
        description="Security of the Kafka port. With SSL or SASL_SSL, nodes use TLS among themselves, too.",
    )
    rest_protocol: SecurityProtocol = Field(default="PLAINTEXT", description="Security of the HTTP port.")
    advertised: AddressText | None = Field(
        default=None,
        description="host:port that brokers send to Kafka clients for the Kafka port; default: host and kafka_port.",
    )
    listeners: tuple[ListenerConfig, ...] = Field(
        default=(), description="More listeners for Kafka clients: one [[nodes.listeners]] table each."
    )
    data: str = Field(
        min_length=1, description="The node's folder: metadata, logs, run files; default: <data>/node-ID."
    )
    log_dirs: tuple[str, ...] = Field(
        min_length=1, description="Folders for partition data; default: `logs` in the node's folder."
    )
    rack: str | None = Field(default=None, min_length=1, description="Rack that replicas are spread over (KIP-36).")
    settings: Mapping[str, SettingValue] = Field(default_factory=dict, description="Kafka settings of this node only.")
    peers: Mapping[int, PeerAddresses] = Field(
        default_factory=dict, description="Other addresses of single peers: peers.2.fetch = 'host:port'."
    )

    @property
    def is_broker(self) -> bool:
        return "broker" in self.roles

    @property
    def is_voter(self) -> bool:
        return "controller" in self.roles

    @property
    def bind_host(self) -> str:
        return self.bind or self.host

    @property
    def rest(self) -> Address:
        return Address(self.host, self.rest_port)

    @property
    def rest_url(self) -> str:
        return f"{'https' if has_tls(self.rest_protocol) else 'http'}://{self.rest}"

    @property
    def has_tls(self) -> bool:
        """Whether a listener of the node has TLS."""
        return any(map(has_tls, self.protocols.values())) or has_tls(self.rest_protocol)

    @property
    def protocols(self) -> Mapping[str, SecurityProtocol]:
        """Listener of Kafka clients -> its security."""
        return {DEFAULT_LISTENER: self.kafka_protocol, **{each.name: each.protocol for each in self.listeners}}

    @property
    def kafka(self) -> Address:
        return Address(self.host, self.kafka_port)

    @property
    def client_addresses(self) -> Mapping[str, str]:
        """Listener name -> the address that Kafka clients get, where that is not `kafka`."""
        own = {DEFAULT_LISTENER: self.advertised} if self.advertised else {}
        return own | {each.name: each.advertised or f"{self.host}:{each.port}" for each in self.listeners}

    @property
    def quorum(self) -> Address | None:
        """None on a node that is no voter."""
        return Address(self.host, self.quorum_port) if self.is_voter else None


class ClusterFile(_Model):
    """cluster.toml as written. A value that is None here is generated once and kept in the data folder."""

    cluster_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the cluster; a data folder belongs to one. Default: random, kept in the data folder.",
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=8,
        max_length=1024,
        description="Secret with which nodes authenticate to each other. Default: random, kept in the data folder.",
    )
    secret_file: str | None = Field(
        default=None, min_length=1, description="File that holds the secret, instead of the secret itself."
    )
    data: str | None = Field(default=None, min_length=1, description="Folder of everything; default ./data (--data).")
    strict: bool = Field(
        default=False,
        strict=True,
        description="Refuse over HTTP errors of clients that Confluent's proxy ignores; docs/rest.md lists them.",
    )
    tls_mode: TlsMode | None = Field(
        default=None,
        description="TLS between nodes while a cluster moves to it: allow (take both, send plain), prefer (take both, "
        "send TLS), require. Default: by kafka_protocol.",
    )
    settings: Mapping[str, SettingValue] = Field(
        default_factory=dict, description="Kafka settings of all nodes, under Kafka's names."
    )
    nodes: tuple[NodeConfig, ...] = Field(min_length=1, description="One [[nodes]] table per node.")
    users: tuple[UserConfig, ...] = Field(
        default=(), description="One [[users]] table for each user that the cluster has from its start."
    )


class ClusterConfig(_Model):
    """The configuration of a cluster that every node has before it starts."""

    cluster_id: str
    secret: SecretStr
    data: str
    strict: bool = False
    tls_mode: TlsMode | None = None
    settings: Mapping[str, SettingValue]
    nodes: tuple[NodeConfig, ...]
    users: tuple[UserConfig, ...] = ()
    readable_secrets: tuple[str, ...] = ()
    """Files with a secret that everybody on this machine may read."""

    @property
    def keys(self) -> ClusterKeys:
        """The derived keys. Slow the first time in a process."""
        return cluster_keys(self.secret.get_secret_value(), cluster_id=self.cluster_id)

    @property
    def passwords(self) -> Mapping[str, str]:
        """User of the file -> its password."""
        return {each.name: each.password.get_secret_value() for each in self.users if each.password is not None}

    @property
    def voters(self) -> tuple[NodeConfig, ...]:
        return tuple(node for node in self.nodes if node.is_voter)

    @property
    def brokers(self) -> tuple[NodeConfig, ...]:
        return tuple(node for node in self.nodes if node.is_broker)

    def node(self, node_id: int) -> NodeConfig:
        """The node of an id. Raises LookupError with all ids."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        ids = ", ".join(str(node.id) for node in self.nodes)
        raise LookupError(f"there is no node {node_id}; the nodes are {ids}")

    def address(self, from_node: int, to_node: int, purpose: Purpose) -> Address:
        """Address at which `from_node` connects to `to_node` for this purpose: its own override, else the peer's
        address."""
        peer = self.node(to_node)
        overrides = self.node(from_node).peers.get(to_node)
        override: str | None = getattr(overrides, purpose) if overrides else None
        if override:
            return parse_address(override)
        return Address(peer.host, peer.quorum_port if purpose == "quorum" else peer.kafka_port)

    def static_settings(self, node_id: int) -> Mapping[str, SettingValue]:
        """Kafka-named settings of the file for one node, without defaults: the layer under the dynamic ones."""
        return {**self.settings, **self.node(node_id).settings}

    def described_settings(self, node_id: int) -> Mapping[str, str]:
        """A node's configuration in this file, as in Kafka's DescribeConfigs: its settings, and under Kafka's names the
        values from its [[nodes]] table: id, roles, listeners, folders, rack and voters."""
        node = self.node(node_id)
        bound = {DEFAULT_LISTENER: node.kafka_port, **{each.name: each.port for each in node.listeners}}
        hosts = {each.name: each.host for each in node.listeners if each.host}
        advertised = {DEFAULT_LISTENER: str(node.kafka), **node.client_addresses}
        facts = {
            "node.id": str(node.id),
            "broker.id": str(node.id),
            "process.roles": ",".join(node.roles),
            "listeners": ",".join(f"{name}://{hosts.get(name, node.bind_host)}:{port}" for name, port in bound.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in node.protocols.items()),
            "inter.broker.listener.name": DEFAULT_LISTENER,
            "controller.quorum.voters": ",".join(f"{voter.id}@{voter.quorum}" for voter in self.voters),
            "log.dirs": ",".join(node.log_dirs),
        }
        rack = {} if node.rack is None else {"broker.rack": node.rack}
        own = self.broker_settings(node_id).model_dump(by_alias=True, exclude_unset=True)
        return {**facts, **rack, **{name: setting_text(setting) for name, setting in own.items()}}

    def broker_settings(self, node_id: int) -> BrokerSettings:
        """A node's settings without dynamic ones."""
        return broker_settings(self.static_settings(node_id))
