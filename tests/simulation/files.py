"""The files of partitions of a node, and their partitions."""

from __future__ import annotations

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from metadata.image import TopicIdPartition
from replication.storage.names import PARTITION_METADATA_FILE, topic_partition_of
from replication.storage.text_files import MalformedFile, read_topic_id


def files_of(node: SimulatedNode, suffixes: tuple[str, ...]) -> list[str]:
    files = node.machine.environment.files
    found = []
    for folder in files.list_directory("/data/logs") if files.exists("/data/logs") else []:
        if files.is_directory(f"/data/logs/{folder}"):
            found += [
                f"/data/logs/{folder}/{name}"
                for name in files.list_directory(f"/data/logs/{folder}")
                if name.endswith(suffixes) and files.size(f"/data/logs/{folder}/{name}")
            ]
    return found


def partition_of(node: SimulatedNode, path: str) -> TopicIdPartition | None:
    """The partition of a file; None for a file that waits for its removal."""
    folder = path.rpartition("/")[0]
    found = topic_partition_of(folder.rpartition("/")[2])
    if found is None:
        return None
    try:
        topic_id = read_topic_id(node.machine.environment.files, f"{folder}/{PARTITION_METADATA_FILE}")
    except MalformedFile:  # power was lost before the folder was ever synced: nothing loads it
        return None
    return None if topic_id is None else TopicIdPartition(topic_id, found[1])
