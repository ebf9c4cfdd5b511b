"""A cluster of ours that was stopped in order, as files: three nodes, written without any of them running."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from pydantic import SecretStr

from kraft.config.models import ClusterConfig, NodeConfig
from kraft.kafka_data.voter_folder import LAST_INDEX, write_voter_folder
from kraft.layout import METADATA_FOLDER
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.runtime.files import DiskFiles
from metadata.image import MetadataImage, PartitionImage, TopicImage, topic_ids_map, topics_map
from metadata.quorum.command import encode_command
from metadata.quorum.durable import encode_document
from metadata.quorum.journal import COMMIT_FILE_NAME, COMMIT_MAGIC
from metadata.quorum.journal import FILE_NAME as JOURNAL_FILE_NAME
from metadata.quorum.journal_format import encode_frame
from metadata.quorum.library import OUR_COMMAND
from metadata.records import NO_LEADER, Record
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    EPOCHS_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINTS_FILE,
    uuid_text,
)

CLUSTER_ID = "yknzMVKhRluzlToeT43XYg"
NODES = (1, 2, 3)
FILES = DiskFiles()
EPOCH = 4
"""Leader epoch of all records."""
TERM = 3
"""Of the metadata quorum."""


def directory_id(node: int) -> UUID:
    return UUID(int=(node << 64) + 1_000)


def topic(name: str, partitions: int = 1, *, isr: Sequence[int] = NODES) -> TopicImage:
    topic_id = UUID(int=abs(hash(name)) + 1_000)
    return TopicImage(
        name=name,
        topic_id=topic_id,
        partitions=MappingProxyType(
            {
                number: PartitionImage(
                    topic_id=topic_id,
                    partition=number,
                    replicas=NODES,
                    isr=tuple(isr),
                    leader=NO_LEADER,
                    leader_epoch=EPOCH,
                    partition_epoch=7,
                )
                for number in range(partitions)
            }
        ),
    )


def with_topics(image: MetadataImage, *topics: TopicImage) -> MetadataImage:
    return replace(
        image,
        topics=topics_map({each.topic_id: each for each in topics}),
        topic_ids=topic_ids_map({each.name: each.topic_id for each in topics}),
    )


def configuration(data: Path) -> ClusterConfig:
    nodes = tuple(
        NodeConfig(
            id=node,
            rest_port=8081 + node,
            kafka_port=9091 + node,
            quorum_port=9191 + node,
            data=str(data / f"node-{node}"),
            log_dirs=(str(data / f"node-{node}" / "logs"),),
        )
        for node in NODES
    )
    return ClusterConfig(
        cluster_id=CLUSTER_ID,
        secret=SecretStr("not needed here"),
        data=str(data),
        settings={"default.replication.factor": 3},
        nodes=nodes,
    )


def records(*values: bytes, base_offset: int = 0) -> bytes:
    return build_batch(
        [NewRecord(b"k", value, [], 1_000) for value in values], base_offset=base_offset, leader_epoch=EPOCH
    )


def write_cluster(data: Path, image: MetadataImage, logs: Mapping[str, Sequence[bytes]]) -> ClusterConfig:
    """`logs`: topic and number of a partition, as its folder is called -> its batches, each a segment of its own. All
    nodes have all of them, and a partition without any has an empty log."""
    config = configuration(data)
    for node in config.nodes:
        write_voter_folder(
            FILES, f"{node.data}/{METADATA_FOLDER}", image, cluster_id=CLUSTER_ID, node_id=node.id, term=TERM
        )
        folder = Path(node.log_dirs[0])
        folder.mkdir()
        properties = {
            "version": "1",
            "cluster.id": CLUSTER_ID,
            "node.id": str(node.id),
            "directory.id": uuid_text(directory_id(node.id)),
        }
        (folder / META_PROPERTIES_FILE).write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (folder / CLEAN_SHUTDOWN_FILE).write_text('{"version":0,"brokerEpoch":-1}')
        ends: dict[str, int] = {}
        for each in image.all_partitions():
            name = f"{image.topics[each.topic_id].name}-{each.partition}"
            ends[name] = write_log(folder / name, each.topic_id, logs.get(name, ()))
        for name in (RECOVERY_POINTS_FILE, HIGH_WATERMARKS_FILE):
            write_checkpoint(folder / name, ends)
        write_checkpoint(folder / LOG_STARTS_FILE, {})
    return config


def write_log(folder: Path, topic_id: UUID, batches: Sequence[bytes]) -> int:
    """The offset at which the log ends."""
    folder.mkdir()
    (folder / PARTITION_METADATA_FILE).write_text(f"version: 0\ntopic_id: {uuid_text(topic_id)}")
    offset = 0
    if batches:
        (folder / EPOCHS_FILE).write_text(f"0\n1\n{EPOCH} 0\n")
    for batch in batches or (b"",):
        stem = folder / f"{offset:020d}"
        offset += int.from_bytes(batch[23:27], "big") + 1 if batch else 0
        for suffix, content in ((".log", batch), (".index", b""), (".timeindex", b"")):
            stem.with_name(stem.name + suffix).write_bytes(content)
    return offset


def write_checkpoint(path: Path, offsets: Mapping[str, int]) -> None:
    lines = [f"{name.rpartition('-')[0]} {name.rpartition('-')[2]} {offset}" for name, offset in offsets.items()]
    path.write_text("\n".join(["0", str(len(lines)), *lines]) + "\n")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Pieces:
    """Counts the pieces that are copied; the disk is full with number `full_at`."""

    def __init__(self, full_at: int = 0) -> None:
        self.count = 0
        self._full_at = full_at

    def __call__(self, _: int) -> None:
        self.count += 1
        if self.count == self._full_at:
            raise OSError(errno.ENOSPC, "No space left on device")


def append_metadata(data: Path, image: MetadataImage, node: int, *records: Record, version: bytes = b"") -> None:
    """One more entry in a voter's journal, which no voter knows to be committed. `version`: another one of the entry's
    format."""
    command = encode_command(records, controller_epoch=image.controller_epoch, expected_offset=image.offset)
    entry = OUR_COMMAND + version + command[len(version) :]
    with (data / f"node-{node}" / METADATA_FOLDER / JOURNAL_FILE_NAME).open("ab") as journal:
        journal.write(encode_frame([(entry, LAST_INDEX + 1, TERM)]))


def write_commit(data: Path, node: int, index: int) -> None:
    """The index up to which a voter knows entries to be committed."""
    document = encode_document(COMMIT_MAGIC, index.to_bytes(8, "big"))
    (data / f"node-{node}" / METADATA_FOLDER / COMMIT_FILE_NAME).write_bytes(document)
