"""The files of a log directory beside its partitions, as both Kafka and this cluster write them when they stop."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Final
from uuid import UUID

from kraft.kafka_data.replica import Replica
from metadata.environment import Files
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    CLEANER_OFFSETS_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    META_PROPERTIES_FILE,
    RECOVERY_POINTS_FILE,
    uuid_text,
)

LOCK_FILE: Final = ".lock"
SHUTDOWN_TEXT: Final = '{"version":0,"brokerEpoch":-1}'
"""The marker of a stop in order; the epoch of a broker that is not registered."""


def hold(files: Files, directory: str, locks: ExitStack) -> None:
    """Keep nodes of both kinds away from a directory until the locks are closed, if a node was ever there. Java locks
    its file by fcntl, which the locks of this cluster (flock) do not see. Raises BlockingIOError when a node has it,
    OSError."""
    path = os.path.join(directory, LOCK_FILE)
    if not os.path.exists(path):
        return
    locks.callback(files.lock_directory(directory).release)
    descriptor = os.open(path, os.O_RDONLY)
    locks.callback(os.close, descriptor)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except PermissionError as error:
        raise BlockingIOError(str(error)) from error


def write_log_directory(
    directory: str, replicas: Iterable[Replica], *, cluster_id: str, node_id: int, directory_id: UUID, is_broker: bool
) -> None:
    """The checkpoints have each log flushed to its end. Raises OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    properties = {
        "version": "1",
        "cluster.id": cluster_id,
        "node.id": str(node_id),
        "directory.id": uuid_text(directory_id),
    }
    write_private(
        os.path.join(directory, META_PROPERTIES_FILE), "".join(f"{key}={value}\n" for key, value in properties.items())
    )
    if not is_broker:
        return
    here = [(each.topic, each.partition, each) for each in replicas]
    for name, offsets in (
        (RECOVERY_POINTS_FILE, {(topic, partition): each.log_end for topic, partition, each in here}),
        (LOG_STARTS_FILE, {(topic, partition): each.log_start for topic, partition, each in here}),
        (HIGH_WATERMARKS_FILE, {(topic, partition): each.high_watermark for topic, partition, each in here}),
    ):
        write_private(os.path.join(directory, name), _checkpoint(offsets))
    cleaned = {(topic, partition): each.cleaned_to for topic, partition, each in here if each.cleaned_to is not None}
    if cleaned:
        write_private(os.path.join(directory, CLEANER_OFFSETS_FILE), _checkpoint(cleaned))
    write_private(os.path.join(directory, CLEAN_SHUTDOWN_FILE), SHUTDOWN_TEXT)


def _checkpoint(offsets: Mapping[tuple[str, int], int]) -> str:
    lines = [f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())]
    return "\n".join(["0", str(len(lines)), *lines]) + "\n"


def write_private(path: str, content: str | bytes) -> None:
    """A new file that only its owner may read. Raises OSError."""
    with open(path, "xb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(content.encode() if isinstance(content, str) else content)
