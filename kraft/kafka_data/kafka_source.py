"""Folders of an Apache Kafka cluster of KRaft that was shut down cleanly, as an import reads them.

Nothing is changed. What speaks against an import is `UnfitData`, with what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from kraft.kafka_data.kafka_image import KafkaImage
from kraft.kafka_data.log_directory import hold
from kraft.kafka_data.metadata_log import (
    FOLDER,
    QUORUM_STATE_FILE,
    Entry,
    UnreadableMetadata,
    newest_snapshot,
    read_file,
    read_folder,
)
from kraft.kafka_data.replica import Replica, UnfitData, read_checkpoints, read_replica
from metadata.environment import Files
from metadata.image import MetadataImage
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    DELETE_FOLDER_SUFFIX,
    FUTURE_FOLDER_SUFFIX,
    META_PROPERTIES_FILE,
    topic_partition_of,
    uuid_of,
    uuid_text,
)
from replication.storage.text_files import read_properties, read_text

STRAY_FOLDER_SUFFIX: Final = "-stray"
STRAYS, FUTURES = "stray-folders", "future-folders"
"""Names for `--drop`."""
_WITHOUT_MEANING: Final = frozenset({"NoOpRecord", "LeaderChangeMessage", "BrokerRegistrationChangeRecord"})
"""Records that may be missing at the end: they change nothing that is taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaDirectory:
    path: str
    directory_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaNode:
    node_id: int
    directories: Sequence[KafkaDirectory]

    def metadata_folder(self, files: Files) -> str | None:
        """Where its metadata log is; None on a broker that has none."""
        folders = [f"{each.path}/{FOLDER}" for each in self.directories]
        return next((folder for folder in folders if files.is_directory(folder)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCluster:
    cluster_id: str
    nodes: Sequence[KafkaNode]
    voters: Sequence[int]
    image: KafkaImage
    aside: Mapping[str, Sequence[str]]
    """Name for `--drop` -> folders in the log directories that are no partitions in use."""


def read_kafka(files: Files, folders: Sequence[str]) -> KafkaCluster:
    """`folders`: log directories, or folders that have them. Raises UnfitData, OSError."""
    cluster_id, nodes = _nodes(files, folders)
    with ExitStack() as locks:
        for node in nodes:
            check_stopped(files, node, locks)
        voters, image = _committed(files, nodes)
        _refuse_other_directories(nodes, image)
        return KafkaCluster(cluster_id=cluster_id, nodes=nodes, voters=voters, image=image, aside=_aside(files, nodes))


# --- nodes ----------------------------------------------------------------------------------------------------------


def _nodes(files: Files, folders: Sequence[str]) -> tuple[str, list[KafkaNode]]:
    found: dict[int, list[KafkaDirectory]] = {}
    clusters: dict[str, str] = {}
    seen: dict[UUID, str] = {}
    for path in dict.fromkeys(_log_directories(files, folders)):
        properties = read_properties(files, f"{path}/{META_PROPERTIES_FILE}") or {}
        if properties.get("version") != "1":
            raise UnfitData(
                f"{path}/{META_PROPERTIES_FILE} has version={properties.get('version', '(nothing)')}: it is not of a "
                "cluster of KRaft. Move a cluster with ZooKeeper to KRaft with Kafka 3.9 first"
            )
        try:
            node_id, cluster_id = int(properties["node.id"]), properties["cluster.id"]
            directory_id = uuid_of(properties["directory.id"])
        except (KeyError, ValueError) as error:
            raise UnfitData(
                f"{path}/{META_PROPERTIES_FILE} needs node.id, cluster.id and directory.id ({error}): start a Kafka of "
                "3.7 or newer on it once"
            ) from error
        if directory_id in seen:
            raise UnfitData(f"{path} has the directory.id of {seen[directory_id]}: one of them is a copy")
        seen[directory_id] = path
        clusters.setdefault(cluster_id, path)
        found.setdefault(node_id, []).append(KafkaDirectory(path=path, directory_id=directory_id))
    if len(clusters) > 1:
        (one, path), (other, elsewhere) = list(clusters.items())[:2]
        raise UnfitData(f"{path} is of cluster {one}, and {elsewhere} of cluster {other}: import one cluster at a time")
    return next(iter(clusters)), [
        KafkaNode(node_id=node_id, directories=directories) for node_id, directories in sorted(found.items())
    ]


def _log_directories(files: Files, folders: Sequence[str]) -> Iterator[str]:
    for given in folders:
        folder = given.rstrip("/")
        if not files.is_directory(folder):
            raise UnfitData(f"there is no folder {folder}")
        inside = [f"{folder}/{name}" for name in files.list_directory(folder)]
        found = [path for path in (folder, *inside) if files.exists(f"{path}/{META_PROPERTIES_FILE}")]
        if not found:
            raise UnfitData(
                f"{folder} has no {META_PROPERTIES_FILE}, nor has a folder in it: name the log.dirs of each node"
            )
        yield from found


def check_stopped(files: Files, node: KafkaNode, locks: ExitStack) -> None:
    """Nobody starts on its directories until the locks are closed. Raises UnfitData, OSError."""
    for directory in node.directories:
        _check_stopped(files, node.node_id, directory.path, locks)


def _check_stopped(files: Files, node_id: int, path: str, locks: ExitStack) -> None:
    try:
        hold(files, path, locks)
    except BlockingIOError as error:
        raise UnfitData(f"node {node_id} runs: {path} is in use; stop Kafka first") from error
    has_partitions = any(topic_partition_of(name) not in (None, _METADATA) for name in files.list_directory(path))
    if has_partitions and not files.exists(f"{path}/{CLEAN_SHUTDOWN_FILE}"):
        raise UnfitData(
            f"node {node_id} was not shut down cleanly: {path} has no {CLEAN_SHUTDOWN_FILE}; start Kafka on it, wait "
            "until no partition is under-replicated, and stop it with kafka-server-stop.sh"
        )


_METADATA: Final = topic_partition_of(FOLDER)


def _refuse_other_directories(nodes: Sequence[KafkaNode], image: KafkaImage) -> None:
    """Raises UnfitData for a directory that another broker has registered, and for one that is not here."""
    owners = {directory: broker for broker, known in image.directories.items() for directory in known}
    for node in nodes:
        for each in node.directories:
            owner = owners.get(each.directory_id, node.node_id)
            if owner != node.node_id:
                raise UnfitData(
                    f"{each.path}/{META_PROPERTIES_FILE} has node.id={node.node_id}, and by the metadata its "
                    f"directory.id is of node {owner}: put back the file that belongs there"
                )
        here = {each.directory_id for each in node.directories}
        missing = sorted(image.directories.get(node.node_id, frozenset()) - here)
        if missing:
            raise UnfitData(
                f"node {node.node_id} has a log directory (directory.id={uuid_text(missing[0])}) that is none of the "
                "folders: name all of its log.dirs"
            )


def _aside(files: Files, nodes: Sequence[KafkaNode]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in nodes:
        for directory in node.directories:
            for name in files.list_directory(directory.path):
                for suffix, drop in ((STRAY_FOLDER_SUFFIX, STRAYS), (FUTURE_FOLDER_SUFFIX, FUTURES)):
                    if name.endswith(suffix):
                        found.setdefault(drop, []).append(f"{directory.path}/{name}")
    return found


# --- metadata -------------------------------------------------------------------------------------------------------


def _committed(files: Files, nodes: Sequence[KafkaNode]) -> tuple[list[int], KafkaImage]:
    """The voters, and the image at the last offset that a majority of them has."""
    folders = {node.node_id: folder for node in nodes if (folder := node.metadata_folder(files)) is not None}
    if not folders:
        raise UnfitData(f"no folder has {FOLDER}: name the log.dirs of the controllers, too")
    try:
        logs = {node_id: _VoterLog(files, folder) for node_id, folder in folders.items()}
        voters = _voters(files, folders, logs)
        there = [voter for voter in voters if voter in logs]
        if 2 * len(there) <= len(voters):
            raise UnfitData(
                f"the voters of the metadata are {_listed(voters)}, and only {_listed(there)} of them are here: a "
                "majority is needed to know what was committed"
            )
        ends = sorted((logs[voter].end for voter in there), reverse=True)
        end = ends[len(voters) // 2]
        _refuse_differences({voter: logs[voter] for voter in there}, end)
        chosen = next(voter for voter in there if logs[voter].end >= end)
        ahead = [voter for voter in there if (snapshot := logs[voter].snapshot) and snapshot.end_offset > end]
        if ahead:
            raise UnfitData(
                f"node {ahead[0]} has a snapshot of the metadata up to offset {logs[ahead[0]].end}, and a majority of "
                f"the voters has less (up to {end}): start Kafka, so that the quorum agrees, and stop it cleanly"
            )
        image = logs[chosen].image(end)
    except UnreadableMetadata as error:
        raise UnfitData(str(error)) from error
    if image.is_half_written:
        raise UnfitData("a change of the metadata is half written: start Kafka, and stop it cleanly")
    return voters, image


class _VoterLog:
    """The metadata log of one voter, read when it is asked for."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files, self._folder = files, folder
        self.snapshot = newest_snapshot(files, folder)
        self.end = 0 if self.snapshot is None else self.snapshot.end_offset
        self.ends_with: list[tuple[int, str]] = []
        """The last entries: offset and name."""
        self.sums: dict[int, int] = {}
        """Offset -> a hash of the entry, of those after the snapshot."""
        for entry in self.entries():
            if entry.offset != self.end:
                raise UnreadableMetadata(
                    f"{folder}: the log goes on at offset {entry.offset}, and what is before it ends at {self.end}: a "
                    "snapshot or a segment is missing; bring it back, or start Kafka, so that this node gets the "
                    "metadata of the others, and stop it cleanly"
                )
            self.end = entry.offset + 1
            self.sums[entry.offset] = hash((entry.epoch, repr(entry.message)))
            if not _may_be_cut(entry):
                self.ends_with = [*self.ends_with, (entry.offset, entry.name)][-3:]

    def entries(self) -> Iterator[Entry]:
        return read_folder(self._files, self._folder, after=self.snapshot)

    def image(self, end: int) -> KafkaImage:
        """The image of everything before offset `end`."""
        image = KafkaImage()
        if self.snapshot is not None:
            image.end_offset, image.epoch = self.snapshot
            image.apply(read_file(self._files, f"{self._folder}/{self.snapshot.file_name}"), in_snapshot=True)
        image.apply((entry for entry in self.entries() if entry.offset < end), in_snapshot=False)
        return image


def _may_be_cut(entry: Entry) -> bool:
    """Whether nobody has asked for a record, so that it may go if it was not committed: the last controller of nodes
    that are stopped one by one fences the others, and takes them out of their ISRs, where nobody is left to agree."""
    if entry.name in _WITHOUT_MEANING:
        return True
    if entry.name != "PartitionChangeRecord":
        return False
    change: Any = entry.message
    return change.replicas is None and change.adding_replicas is None and change.removing_replicas is None


def _voters(files: Files, folders: Mapping[int, str], logs: Mapping[int, _VoterLog]) -> list[int]:
    """The ids in a voters record or, of a cluster without one, in the state of the quorum."""
    for node_id, folder in folders.items():
        text = read_text(files, f"{folder}/{QUORUM_STATE_FILE}")
        try:
            state = json.loads(text) if text else {}
            found = [int(each["voterId"]) for each in state.get("currentVoters") or ()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnfitData(f"{folder}/{QUORUM_STATE_FILE} cannot be read: {error}") from error
        if found:
            return sorted(found)
        image = logs[node_id].image(logs[node_id].end)
        voters = sorted(image.voters or image.controllers)
        if voters:
            return voters
    raise UnfitData("the metadata names no voters: start Kafka on these folders, and stop it cleanly")


def _refuse_differences(logs: Mapping[int, _VoterLog], end: int) -> None:
    first: dict[int, tuple[int, int]] = {}
    for voter, log in logs.items():
        for offset, found in log.sums.items():
            other, expected = first.setdefault(offset, (voter, found))
            if offset < end and found != expected:
                raise UnfitData(
                    f"nodes {other} and {voter} have different metadata at offset {offset}: start Kafka, so that the "
                    "quorum agrees, and stop it cleanly"
                )
        tail = [f"{name} at offset {offset}" for offset, name in log.ends_with if offset >= end]
        if tail:
            raise UnfitData(
                f"node {voter} has metadata that was not committed ({tail[0]}): start Kafka, so that the quorum "
                "agrees, and stop all nodes at once"
            )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


# --- partitions -----------------------------------------------------------------------------------------------------


def read_replicas(
    files: Files, nodes: Sequence[KafkaNode], image: MetadataImage
) -> dict[tuple[str, int, int], Replica]:
    """(topic, partition, broker) -> its folder, of those that the metadata knows. Raises UnfitData."""
    found: dict[tuple[str, int, int], Replica] = {}
    for node in nodes:
        for directory in node.directories:
            checkpoints = read_checkpoints(files, directory.path)
            for name in files.list_directory(directory.path):
                named = topic_partition_of(name)
                if named in (None, _METADATA) or name.endswith((STRAY_FOLDER_SUFFIX, DELETE_FOLDER_SUFFIX)):
                    continue
                assert named is not None
                topic = image.topic(named[0])
                known = None if topic is None else topic.partitions.get(named[1])
                if known is None or node.node_id not in known.replicas:
                    raise UnfitData(
                        f"{directory.path}/{name} is a partition that the metadata does not know: start Kafka, which "
                        "sets it aside, and stop it cleanly"
                    )
                replica = read_replica(
                    files,
                    directory.path,
                    *named,
                    broker=node.node_id,
                    directory_id=directory.directory_id,
                    checkpoints=checkpoints,
                )
                other = found.setdefault((*named, node.node_id), replica)
                if other is not replica:
                    raise UnfitData(
                        f"{name} is in two folders of node {node.node_id}: {other.folder}, {replica.folder}"
                    )
    return found
