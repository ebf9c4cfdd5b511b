"""`kraft import kafka`: folders of an Apache Kafka cluster that was shut down cleanly become a data folder of ours.

Each node keeps its id, its log directories and its partitions. Its voters begin with the same image, without brokers:
those register when they start. A `cluster.toml` is written with what the metadata knows of addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from kraft.kafka_data import copying
from kraft.kafka_data.copying import Taken, VolumeOf
from kraft.kafka_data.group_contents import read_group_contents
from kraft.kafka_data.kafka_image import KafkaImage, drop, refuse_levels, refuse_tiered, to_add, without_place
from kraft.kafka_data.kafka_source import KafkaCluster, KafkaNode, check_stopped, read_kafka, read_replicas
from kraft.kafka_data.log_directory import write_log_directory, write_private
from kraft.kafka_data.replica import Replica, UnfitData, files_of
from kraft.kafka_data.source import check_replicas
from kraft.kafka_data.voter_folder import write_voter_folder
from kraft.layout import METADATA_FOLDER
from metadata.environment import Files
from metadata.image import MetadataImage

CONFIG_FILE: Final = "cluster.toml"
STREAMS: Final = "streams-groups"
"""A name for `--drop`: their records stay in the log, where they are skipped."""
REST_PORT, KAFKA_PORT, QUORUM_PORT = 8082, 9092, 9192
"""Ports of the first node, where the metadata has no address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    cluster: KafkaCluster
    image: MetadataImage
    replicas: Mapping[tuple[str, int, int], Replica]
    target: str
    is_copied: bool
    dropped: Sequence[str]
    """What was dropped by name, and nodes that have neither partitions nor a vote, in words."""
    missing: Sequence[str]
    linked_bytes: int
    copied_bytes: int

    def directories(self, node: KafkaNode) -> list[str]:
        """The log directories of a node in the target."""
        folder = os.path.join(os.path.abspath(self.target), f"node-{node.node_id}")
        if len(node.directories) == 1:
            return [os.path.join(folder, "logs")]
        return [os.path.join(folder, f"logs-{number}") for number in range(1, len(node.directories) + 1)]


def make_plan(
    files: Files,
    folders: Sequence[str],
    *,
    target: str,
    dropped: Sequence[str],
    copy: bool,
    volume_of: VolumeOf = copying.volume_of,
) -> ImportPlan:
    """Raises UnfitData; nothing is written."""
    cluster = read_kafka(files, folders)
    refuse_levels(cluster.image)
    refuse_tiered(cluster.image)
    unknown = without_place(cluster.image)
    unknown |= {name: f"{len(paths)} folders such as {paths[0]}" for name, paths in cluster.aside.items()}
    image = cluster.image.image()
    replicas = read_replicas(files, cluster.nodes, image)
    contents = read_group_contents(files, replicas.values())
    if contents.streams:
        unknown[STREAMS] = f"streams groups ({', '.join(sorted(contents.streams)[:3])})"
    _refuse(unknown, dropped)
    drop(cluster.image, dropped)
    image = cluster.image.image()
    members = _brokers(cluster.image, image) | set(cluster.voters)
    _refuse_missing_nodes(cluster, members)
    idle = [node.node_id for node in cluster.nodes if node.node_id not in members]
    cluster = replace(cluster, nodes=[node for node in cluster.nodes if node.node_id in members])
    missing = check_replicas(image, replicas)
    directories = [directory.path for node in cluster.nodes for directory in node.directories]
    copying.refuse_inside(directories, target)
    is_shared = copying.can_be_shared(directories, target, volume_of)
    plan = ImportPlan(
        cluster=cluster,
        image=image,
        replicas=replicas,
        target=target,
        is_copied=copy or not is_shared,
        dropped=[
            *(unknown[name] for name in dropped),
            *(f"node {node_id}, which is neither a broker nor a voter" for node_id in idle),
        ],
        missing=missing,
        linked_bytes=0,
        copied_bytes=0,
    )
    linked, copied = copying.sizes(_taken(files, plan))
    copying.check_target(target, copied, volume_of, is_agreed=is_shared or copy)
    return replace(plan, linked_bytes=linked, copied_bytes=copied)


def _refuse_missing_nodes(cluster: KafkaCluster, members: Set[int]) -> None:
    missing = sorted(members - {node.node_id for node in cluster.nodes})
    if missing:
        raise UnfitData(
            f"node {missing[0]} is a member of the cluster, and none of the folders is of it: name the log.dirs of all "
            "nodes, or unregister it in Kafka first"
        )


def _refuse(unknown: Mapping[str, str], dropped: Sequence[str]) -> None:
    for name in dropped:
        if name not in unknown:
            there = f"there are {', '.join(sorted(unknown))}" if unknown else "there is nothing to drop"
            raise UnfitData(f"--drop {name}: the data has nothing of that name; {there}")
    left = {name: what for name, what in unknown.items() if name not in dropped}
    if left:
        things = "; ".join(f"{what} (--drop {name})" for name, what in sorted(left.items()))
        raise UnfitData(f"this cluster has not: {things}. Drop each by its name, or remove it in Kafka first")


def _taken(files: Files, plan: ImportPlan) -> Iterator[Taken]:
    targets = {
        directory.directory_id: target
        for node in plan.cluster.nodes
        for directory, target in zip(node.directories, plan.directories(node), strict=True)
    }
    for replica in plan.replicas.values():
        folder = os.path.join(targets[replica.directory_id], replica.name)
        for name, may_be_shared in files_of(files, replica):
            path = f"{replica.folder}/{name}"
            is_linked = may_be_shared and not plan.is_copied
            yield Taken(source=path, target=os.path.join(folder, name), is_linked=is_linked, size=files.size(path))


def fill(files: Files, plan: ImportPlan, *, on_bytes: Callable[[int], object]) -> None:
    """Write the data folder of the plan, while no node may start on Kafka's; one that was left unfinished is emptied
    first. Raises UnfitData, OSError."""
    with ExitStack() as locks:
        for node in plan.cluster.nodes:
            check_stopped(files, node, locks)
        _fill(files, plan, on_bytes=on_bytes)


def _fill(files: Files, plan: ImportPlan, *, on_bytes: Callable[[int], object]) -> None:
    copying.begin(plan.target)
    copying.take(_taken(files, plan), on_bytes=on_bytes)
    cluster = plan.cluster
    for node in cluster.nodes:
        for directory, target in zip(node.directories, plan.directories(node), strict=True):
            write_log_directory(
                target,
                [each for each in plan.replicas.values() if each.directory_id == directory.directory_id],
                cluster_id=cluster.cluster_id,
                node_id=node.node_id,
                directory_id=directory.directory_id,
                is_broker=True,
            )
        if node.node_id in cluster.voters:
            write_voter_folder(
                files,
                os.path.join(os.path.abspath(plan.target), f"node-{node.node_id}", METADATA_FOLDER),
                plan.image,
                cluster_id=cluster.cluster_id,
                node_id=node.node_id,
                term=max(plan.image.controller_epoch, 1),
            )
    write_private(os.path.join(plan.target, CONFIG_FILE), cluster_toml(plan))
    copying.finish(plan.target)


def cluster_toml(plan: ImportPlan) -> str:
    """The configuration of the new cluster, with the addresses of the old one where the metadata has them."""
    image = plan.cluster.image
    brokers = _brokers(image, plan.image)
    lines = [
        "# Made of a cluster of Apache Kafka: check the addresses, and add settings of its server.properties.",
        *(f"# To add: {line}" for line in to_add(image)),
        f"cluster_id = {_quoted(plan.cluster.cluster_id)}",
        "",
    ]
    for place, node in enumerate(plan.cluster.nodes):
        roles = [
            role for role, ids in (("broker", brokers), ("controller", plan.cluster.voters)) if node.node_id in ids
        ]
        host, port = image.brokers.get(node.node_id, ("127.0.0.1", 0))
        _, quorum_port = (image.controllers | image.voters).get(node.node_id, ("127.0.0.1", 0))
        directories = ", ".join(map(_quoted, plan.directories(node)))
        lines += [
            "[[nodes]]",
            f"id = {node.node_id}",
            f"roles = [{', '.join(map(_quoted, roles))}]",
            f"host = {_quoted(host or '127.0.0.1')}",
            f"rest_port = {REST_PORT + place}",
            f"kafka_port = {port or KAFKA_PORT + place}",
            *([f"quorum_port = {quorum_port or QUORUM_PORT + place}"] if "controller" in roles else []),
            f"log_dirs = [{directories}]",
            "",
        ]
    return "\n".join(lines)


def _brokers(image: KafkaImage, made: MetadataImage) -> set[int]:
    """Ids of brokers: those that are registered, and those that have replicas."""
    return set(image.brokers) | {broker for each in made.all_partitions() for broker in each.replicas}


def _quoted(text: str) -> str:
    """A basic string of TOML, which has the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)
