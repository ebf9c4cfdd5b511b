"""A cluster of ours that is stopped, as an export reads it: its configuration, its committed metadata and its replicas.

Nothing is changed. What speaks against an export is `UnfitData`, with what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from kraft.config.models import ClusterConfig, NodeConfig
from kraft.kafka_data.log_directory import hold
from kraft.kafka_data.replica import Replica, UnfitData, read_checkpoints, read_replica
from kraft.layout import METADATA_FOLDER
from metadata.environment import Files
from metadata.image import MetadataImage
from metadata.quorum.command import UnreadableCommand
from metadata.quorum.durable import QuorumStorageError
from metadata.quorum.files import read_metadata_files
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    DELETE_FOLDER_SUFFIX,
    FUTURE_FOLDER_SUFFIX,
    META_PROPERTIES_FILE,
    topic_partition_of,
    uuid_of,
)
from replication.storage.text_files import read_properties

RESERVED_IDS_MAX: Final = 99
"""Kafka reserves the directory ids up to this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDirectory:
    path: str
    directory_id: UUID
    left: Sequence[str]
    """Folders in it that are no partition: what is being deleted or moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNode:
    config: NodeConfig
    directories: Sequence[LogDirectory]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    config: ClusterConfig
    nodes: Sequence[SourceNode]
    image: MetadataImage
    replicas: Mapping[tuple[str, int, int], Replica]
    """(topic, partition, broker) -> its folder."""
    strays: Sequence[str]
    """Folders of partitions that the metadata does not know, and of deletions and moves: they stay behind."""
    missing: Sequence[str]
    """Replicas without a folder that are in no ISR: they are copied from their leaders again."""


def read_source(files: Files, config: ClusterConfig) -> Source:
    """Raises UnfitData, OSError."""
    with ExitStack() as locks:
        for node in config.nodes:
            check_stopped(files, node, locks)
        nodes = [_node(files, node, config.cluster_id) for node in config.nodes]
        _refuse_repeated_ids(nodes)
        image = committed_image(files, [(node.id, f"{node.data}/{METADATA_FOLDER}") for node in config.voters])
        replicas, strays = _replicas(files, nodes, image)
        missing = check_replicas(image, replicas)
        return Source(config=config, nodes=nodes, image=image, replicas=replicas, strays=strays, missing=missing)


def check_stopped(files: Files, node: NodeConfig, locks: ExitStack) -> None:
    """Nobody starts on its folders until the locks are closed. Raises UnfitData, OSError."""
    metadata = f"{node.data}/{METADATA_FOLDER}"
    for folder in (metadata, *(node.log_dirs if node.is_broker else ())):
        is_needed = node.is_voter or folder != metadata  # a broker gets its metadata from the voters
        if is_needed and not files.is_directory(folder):
            raise UnfitData(f"node {node.id}: there is no folder {folder}: an export needs the folders of all nodes")
        try:
            hold(files, folder, locks)
        except BlockingIOError as error:
            raise UnfitData(f"node {node.id} runs: {folder} is in use; stop the cluster with kraft down") from error
    for folder in node.log_dirs if node.is_broker else ():
        if not files.exists(f"{folder}/{CLEAN_SHUTDOWN_FILE}"):
            raise UnfitData(
                f"node {node.id} was not stopped in order: {folder} has no {CLEAN_SHUTDOWN_FILE}; start the cluster, "
                "wait until kraft status shows no partition under-replicated, and stop it with kraft down"
            )


def _node(files: Files, node: NodeConfig, cluster_id: str) -> SourceNode:
    if not node.is_broker:
        return SourceNode(config=node, directories=())
    return SourceNode(config=node, directories=[_directory(files, path, node.id, cluster_id) for path in node.log_dirs])


def _directory(files: Files, path: str, node_id: int, cluster_id: str) -> LogDirectory:
    found = read_properties(files, f"{path}/{META_PROPERTIES_FILE}") or {}
    for key, expected in {"cluster.id": cluster_id, "node.id": str(node_id)}.items():
        if found.get(key) != expected:
            raise UnfitData(
                f"{path}/{META_PROPERTIES_FILE} has {key}={found.get(key, '(nothing)')}, and node {node_id} of this "
                f"cluster has {key}={expected}: it is the folder of another node"
            )
    try:
        directory_id = uuid_of(found["directory.id"])
    except (KeyError, ValueError) as error:
        raise UnfitData(f"{path}/{META_PROPERTIES_FILE} has no directory.id that Kafka could read: {error}") from error
    if directory_id.int <= RESERVED_IDS_MAX:
        raise UnfitData(f"{path}/{META_PROPERTIES_FILE} has a directory.id that Kafka keeps for itself")
    left = [name for name in files.list_directory(path) if name.endswith((DELETE_FOLDER_SUFFIX, FUTURE_FOLDER_SUFFIX))]
    return LogDirectory(path=path, directory_id=directory_id, left=left)


def _refuse_repeated_ids(nodes: Iterable[SourceNode]) -> None:
    seen: dict[UUID, str] = {}
    for node in nodes:
        for directory in node.directories:
            if directory.directory_id in seen:
                raise UnfitData(
                    f"{directory.path} has the directory.id of {seen[directory.directory_id]}: a folder was copied; "
                    "Kafka refuses the second of two brokers with one directory"
                )
            seen[directory.directory_id] = directory.path


# --- metadata -------------------------------------------------------------------------------------------------------


def committed_image(files: Files, voters: Sequence[tuple[int, str]]) -> MetadataImage:
    """The image at the last offset that a majority of the voters, each with its folder, has. Raises UnfitData when one
    of them knows that more was committed, when two have different records at an offset up to there, or when a change is
    half written.
    """
    try:
        read = {voter: read_metadata_files(files, folder, with_uncommitted=True) for voter, folder in voters}
        committed = {voter: read_metadata_files(files, folder).image.offset for voter, folder in voters}
    except (QuorumStorageError, UnreadableCommand) as error:
        raise UnfitData(str(error)) from error
    ends = sorted((each.image.offset for each in read.values()), reverse=True)
    end = ends[len(ends) // 2]
    if end < 0:
        raise UnfitData("the metadata log is empty: the cluster was never started")
    for voter, offset in committed.items():
        if offset > end:
            raise UnfitData(
                f"voter {voter} has metadata that was committed up to offset {offset}, and a majority of the voters "
                f"ends at {end}: one of their folders is older than the others. Start the cluster, so that the quorum "
                "agrees, and stop it with kraft down"
            )
    chosen = next(each for each in read.values() if each.image.offset >= end)
    start = chosen.snapshot or MetadataImage()
    image = start.apply([each.record for each in chosen.records if each.offset <= end])
    first_of: dict[int, tuple[int, object]] = {}
    for voter, each in read.items():
        for record in each.records:
            if record.offset > end:
                break
            other, expected = first_of.setdefault(record.offset, (voter, record.record))
            if expected != record.record:
                raise UnfitData(
                    f"voters {other} and {voter} have different metadata at offset {record.offset}: start the cluster, "
                    "so that the quorum agrees, and stop it with kraft down"
                )
    if image.transaction is not None:
        raise UnfitData(
            f"a change of the metadata, {image.transaction.name!r}, is half written: start the cluster, so that its "
            "controller ends it, and stop it with kraft down"
        )
    return image


# --- replicas -------------------------------------------------------------------------------------------------------


def _replicas(
    files: Files, nodes: Iterable[SourceNode], image: MetadataImage
) -> tuple[dict[tuple[str, int, int], Replica], list[str]]:
    found: dict[tuple[str, int, int], Replica] = {}
    strays: list[str] = []
    for node in nodes:
        for directory in node.directories:
            strays += [f"{directory.path}/{name}" for name in directory.left]
            checkpoints = read_checkpoints(files, directory.path)
            for name in files.list_directory(directory.path):
                named = topic_partition_of(name)
                if named is None or not files.is_directory(f"{directory.path}/{name}"):
                    continue
                topic, partition = named
                if not _is_assigned(image, topic, partition, node.config.id):
                    strays.append(f"{directory.path}/{name}")
                    continue
                replica = read_replica(
                    files,
                    directory.path,
                    topic,
                    partition,
                    broker=node.config.id,
                    directory_id=directory.directory_id,
                    checkpoints=checkpoints,
                )
                other = found.setdefault((topic, partition, node.config.id), replica)
                if other is not replica:
                    raise UnfitData(
                        f"{name} is in two folders of node {node.config.id}: {other.folder} and {replica.folder}"
                    )
    return found, strays


def _is_assigned(image: MetadataImage, topic: str, partition: int, broker: int) -> bool:
    known = image.topic(topic)
    return known is not None and partition in known.partitions and broker in known.partitions[partition].replicas


def check_replicas(image: MetadataImage, replicas: Mapping[tuple[str, int, int], Replica]) -> list[str]:
    """The replicas that are missing and need not be there. Raises UnfitData for what a Kafka would lose or drop."""
    missing: list[str] = []
    for topic in image.topics_by_name.values():
        for number, partition in topic.partitions.items():
            found = {broker: replicas.get((topic.name, number, broker)) for broker in partition.replicas}
            present = {broker: each for broker, each in found.items() if each is not None}
            high_watermark = max(
                (
                    each.acknowledged if broker in partition.isr else each.high_watermark
                    for broker, each in present.items()
                ),
                default=0,
            )
            for broker, replica in found.items():
                name = f"{topic.name}-{number} on node {broker}"
                if replica is None:
                    if broker in partition.isr and (high_watermark or not present):
                        raise UnfitData(f"{name} has no folder, and is in sync by the metadata")
                    missing.append(name)
                    continue
                if replica.topic_id != topic.topic_id:
                    raise UnfitData(
                        f"{replica.folder} belongs to another topic of this name: its topic id is not current"
                    )
                if replica.last_epoch > partition.leader_epoch:
                    raise UnfitData(
                        f"{replica.folder} has records of leader epoch {replica.last_epoch}, and the metadata knows "
                        f"{partition.leader_epoch}: the metadata is older than the log"
                    )
                if broker in partition.isr and replica.log_end < high_watermark:
                    raise UnfitData(
                        f"{name} is in sync by the metadata, ends at {replica.log_end}, and records up to "
                        f"{high_watermark} were acknowledged: start the cluster and stop it with kraft down"
                    )
    return missing
