"""The actions of a story on a cluster, one frozen model for each kind; `do` is the kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kraft.chaos.model import Model
from kraft.chaos.nemesis.links import ALL_PURPOSES, BETWEEN_NODES, Purpose
from kraft.chaos.worlds.processes.proxy.rules import Direction
from kraft.protocol.primitives import SettingValue

Damage: TypeAlias = Literal["flip active", "flip closed", "torn tail", "delete index", "delete log"]


Nodes: TypeAlias = tuple[int, ...]
Ends: TypeAlias = tuple[int | str, ...]
"""Nodes, and clients by their names."""


class StartClients(Model):
    do: Literal["start"]
    clients: tuple[str, ...] = Field(min_length=1, description="Clients that begin now.")


class FinishClients(Model):
    """Clients stop sending, and the step waits until each request has an answer or has timed out."""

    do: Literal["finish"]
    clients: tuple[str, ...] = Field(min_length=1, description="Clients that end now.")


class SilenceClients(Model):
    """Members of groups and transactional producers end without a request, as killed processes do."""

    do: Literal["silence"]
    clients: tuple[str, ...] = Field(min_length=1, description="Clients that end without leaving their group.")


class NodeFault(Model):
    """kill: SIGKILL; stop: controlled shutdown; power_loss: SIGKILL, and all data without fsync is lost."""

    do: Literal["kill", "stop", "pause", "resume", "restart", "power_loss", "wipe", "disk_full", "disk_free"]
    nodes: Nodes = Field(min_length=1, description="One node or several.")


class DamageFiles(Model):
    """Damage the files of a partition on a node that does not run."""

    do: Literal["damage"]
    node: int = Field(description="The node whose files are damaged.")
    topic: str
    partition: int = Field(default=0, ge=0)
    what: Damage = Field(description="flip active, flip closed, torn tail, delete index or delete log.")
    spares_isr: bool = Field(
        default=False, description="Do nothing while the node is in the ISR: its copy may be the last one."
    )


class LinkFault(Model):
    """A fault of links, from the side that connects to the side that accepts; `direction` selects the bytes."""

    do: Literal["cut", "blackhole", "delay", "bandwidth", "drop_answers", "close_mid_message"]
    purpose: tuple[Purpose, ...] = Field(
        default=BETWEEN_NODES, description="quorum, controller, fetch, forward (between nodes) or rest (from clients)."
    )
    dials: Ends | None = Field(default=None, description="Nodes (or clients, for rest) that connect; default: all.")
    answers: Nodes | None = Field(default=None, description="Nodes that accept; default: all.")
    direction: Direction = Field(default="both", description="both, requests or answers.")
    delay_ms: int = Field(default=0, ge=0, le=10_000, description="Added to every message (do = 'delay').")
    jitter_ms: int = Field(default=0, ge=0, le=10_000, description="A random additional delay of at most this.")
    bytes_per_second: int = Field(default=0, ge=0, description="The bandwidth (do = 'bandwidth').")
    count: int = Field(default=0, ge=0, description="Ends after so many messages; 0: until healed.")


class RequestFault(Model):
    """A fault of requests of Kafka clients to one API: a link answers it, or changes how the answer arrives."""

    do: Literal["answer", "delay_answer", "drop_answer", "close_after"]
    api: str = Field(min_length=1, description="Kafka's name of the API, such as Produce.")
    error: str | int = Field(default="", description="Kafka's name or number of the error (do = 'answer').")
    delay_ms: int = Field(default=0, ge=0, le=10_000, description="How much later answers are (do = 'delay_answer').")
    times: int = Field(default=1, ge=0, description="The number of requests; 0: until healed.")
    topic: str | None = Field(default=None, description="Requests that name this topic; default: all.")
    node: int | None = Field(default=None, description="Requests to this node; default: to all.")


class Heal(Model):
    """Heal the named links; without names all links, and the faults of requests."""

    do: Literal["heal"]
    purpose: tuple[Purpose, ...] = Field(default=ALL_PURPOSES, description="Purposes; default: all.")
    dials: Ends | None = Field(default=None, description="Nodes or clients that connect; default: all.")
    answers: Nodes | None = Field(default=None, description="Nodes that accept; default: all.")


class Partition(Model):
    """Nodes in different groups do not reach each other; a node in two groups is a bridge."""

    do: Literal["partition"]
    groups: tuple[Ends, ...] = Field(min_length=2, description="For example [1], [2, 3].")
    purpose: tuple[Purpose, ...] = Field(default=BETWEEN_NODES, description="Purposes; default: all.")


class Isolate(Model):
    """Nothing of these purposes goes from or to a node; its clients still reach it."""

    do: Literal["isolate"]
    node: int = Field(description="The node.")
    purpose: tuple[Purpose, ...] = Field(default=BETWEEN_NODES, description="Purposes; default: all.")


class CreateTopic(Model):
    do: Literal["create_topic"]
    topic: str
    assignment: tuple[tuple[int, ...], ...] = Field(min_length=1, description="Replicas of each partition.")
    configs: Mapping[str, SettingValue] = Field(default_factory=dict, description="Kafka settings of the topic.")


class DeleteTopic(Model):
    do: Literal["delete_topic"]
    topic: str


class GrowTopic(Model):
    do: Literal["grow_topic"]
    topic: str
    partitions: int = Field(ge=2, description="The new number of partitions.")


class SetTopic(Model):
    do: Literal["set_topic"]
    topic: str
    configs: Mapping[str, SettingValue] = Field(min_length=1, description="Kafka settings of the topic.")


class SetCluster(Model):
    do: Literal["set_cluster"]
    configs: Mapping[str, SettingValue] = Field(min_length=1, description="Kafka settings of all brokers.")


class SetGroup(Model):
    do: Literal["set_group"]
    group: str
    configs: Mapping[str, SettingValue] = Field(min_length=1, description="Kafka settings of the group.")


class Reassign(Model):
    do: Literal["reassign"]
    topic: str
    partition: int = Field(default=0, ge=0)
    replicas: Nodes = Field(min_length=1, description="The new replicas, the preferred leader first.")
    may_be_refused: bool = Field(default=False, description="Continue if the cluster cannot do it now.")


class Elect(Model):
    do: Literal["elect"]
    topic: str
    partition: int = Field(default=0, ge=0)
    kind: Literal["preferred", "unclean"] = Field(default="preferred", description="preferred or unclean.")
    may_be_refused: bool = Field(default=False, description="Continue if the cluster cannot do it now.")


Action: TypeAlias = Annotated[
    StartClients
    | FinishClients
    | SilenceClients
    | NodeFault
    | DamageFiles
    | LinkFault
    | RequestFault
    | Heal
    | Partition
    | Isolate
    | CreateTopic
    | DeleteTopic
    | GrowTopic
    | SetTopic
    | SetCluster
    | SetGroup
    | Reassign
    | Elect,
    Field(discriminator="do"),
]
