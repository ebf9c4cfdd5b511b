"""One log directory: its owner, its content, and the checkpoints that cover all its partitions.

Files of its own: `meta.properties` (version, cluster.id, node.id, directory.id), `recovery-point-offset-checkpoint`,
`log-start-offset-checkpoint`, `replication-offset-checkpoint`, `cleaner-offset-checkpoint`, and `.kafka_cleanshutdown`
after a clean shutdown, while no node runs. Locked for one process. All calls block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from uuid import UUID

from metadata.durable_directories import make_durable_directories
from metadata.environment import DirectoryLock, Environment
from metadata.events import Events
from replication.storage.checkpoint_ceiling import read_ceiling
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    CLEANER_OFFSETS_FILE,
    DELETE_FOLDER_SUFFIX,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINTS_FILE,
    delete_folder,
    future_folder,
    future_partition_of,
    partition_folder,
    topic_partition_of,
    uuid_text,
)
from replication.storage.text_files import (
    MalformedFile,
    is_torn_topic_id,
    read_offsets,
    read_properties,
    replace_text,
    write_offsets,
    write_properties,
)

_META_VERSION = "1"

ROOM_FILE = ".room"
"""Written and removed to find out whether a full or failed disk accepts bytes again."""
ROOM_BYTES = 1 << 20
"""About the largest record batch that is accepted by default (P12)."""

TopicPartition = tuple[str, int]


class StartupError(Exception):
    """A node cannot start on this folder; the message has the file, its content and the expected content."""


class LogDirectory:
    def __init__(self, environment: Environment, path: str, *, cluster_id: str, node_id: int, events: Events) -> None:
        self.path = path
        self._files = environment.files
        self._rng = environment.rng
        self._cluster_id, self._node_id = cluster_id, node_id
        self._events = events
        self._lock: DirectoryLock | None = None
        self.offline_reason: str | None = None
        self.was_clean = False
        """The last node on this folder was stopped cleanly."""
        self.recovery_points: dict[TopicPartition, int] = {}
        self.log_starts: dict[TopicPartition, int] = {}
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.cleaned: dict[TopicPartition, int] = {}
        self._written_high_watermarks: Mapping[TopicPartition, int] | None = None
        self.not_loaded: set[TopicPartition] = set()
        """Partitions whose files are as the last node left them, cleanly or not: this node writes no marker for them at
        its end, and their checkpoints stay."""

    @property
    def is_open(self) -> bool:
        return self._lock is not None

    @property
    def is_offline(self) -> bool:
        return self.offline_reason is not None

    def open(self) -> None:
        """Lock the folder, check its owner, read its checkpoints, and remove the marker.

        Raises StartupError.
        """
        try:
            make_durable_directories(self._files, self.path)
            self._lock = self._files.lock_directory(self.path)
        except BlockingIOError:
            raise StartupError(f"{self.path} is in use by another process; stop it, or choose another folder") from None
        except OSError as error:
            raise StartupError(f"{self.path} cannot be used as a log directory: {error}") from error
        try:
            self._check_owner()
        except StartupError:
            self.close()
            raise
        self._read_state()

    def _check_owner(self) -> None:
        path = f"{self.path}/{META_PROPERTIES_FILE}"
        found = read_properties(self._files, path)
        if found is None:
            self._claim(path)
            return
        version = found.get("version", "")
        if version.isdecimal() and int(version) > int(_META_VERSION):
            raise StartupError(
                f"{path} has version={version}, and this version knows {_META_VERSION}: a newer version wrote it. "
                "Start that version or a later one on this folder; nothing was changed, and an older one must not "
                "run on it"
            )
        expected = {"version": _META_VERSION, "cluster.id": self._cluster_id, "node.id": str(self._node_id)}
        for key, value in expected.items():
            if found.get(key) != value:
                raise StartupError(
                    f"{path} has {key}={found.get(key, '(nothing)')}, this node has {key}={value}; "
                    "give this node its own data folder, or remove the old one"
                )

    def _claim(self, path: str) -> None:
        directory_id = UUID(bytes=self._rng.randbytes(16), version=4)
        properties = {
            "version": _META_VERSION,
            "cluster.id": self._cluster_id,
            "node.id": str(self._node_id),
            "directory.id": uuid_text(directory_id),
        }
        write_properties(self._files, path, properties)

    def _read_state(self) -> None:
        marker = f"{self.path}/{CLEAN_SHUTDOWN_FILE}"
        self.was_clean = self._files.exists(marker)
        if self.was_clean:
            self._files.remove(marker)
            self._files.sync_directory(self.path)
        self.recovery_points = self._read_checkpoint(RECOVERY_POINTS_FILE)
        self.log_starts = self._read_checkpoint(LOG_STARTS_FILE)
        self.high_watermarks = self._read_checkpoint(HIGH_WATERMARKS_FILE)
        self.cleaned = self._read_checkpoint(CLEANER_OFFSETS_FILE)

    def _read_checkpoint(self, name: str) -> dict[TopicPartition, int]:
        """An unreadable checkpoint only makes the recovery longer."""
        try:
            return read_offsets(self._files, f"{self.path}/{name}")
        except MalformedFile as error:
            self._events.emit("checkpoint_ignored", path=f"{self.path}/{name}", reason=str(error))
            return {}

    def kept_of(self, checkpoint: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The entries of the logs that were not loaded, as they were at the start."""
        return {each: checkpoint[each] for each in sorted(self.not_loaded) if each in checkpoint}

    def partitions(self) -> list[TopicPartition]:
        """Partitions that can probably be loaded."""
        found = (topic_partition_of(name) for name in self._folders())
        return [each for each in found if each is not None and each not in self.not_loaded]

    def set_aside_unfinished(self, topic: str, partition: int) -> bool:
        """Set a folder aside whose topic id never became durable; return whether it was one. It holds no acknowledged
        record, because the first flush of a log syncs its topic id, too: it makes room for a new one, and is removed at
        the next start."""
        folder = f"{self.path}/{partition_folder(topic, partition)}"
        recovery_point = self.recovery_points.get((topic, partition), 0)
        if not self.was_clean:
            recovery_point = min(recovery_point, read_ceiling(self._files, folder))
        if not any(name.endswith(".log") for name in self._files.list_directory(folder)):
            recovery_point = 0  # of an older topic of this name: not even the ceiling became durable
        if recovery_point > 0 or not is_torn_topic_id(self._files, f"{folder}/{PARTITION_METADATA_FILE}"):
            return False
        self._files.rename(folder, self.doomed_path(topic, partition))
        return True

    def doomed_path(self, topic: str, partition: int) -> str:
        """A unique name for a folder that waits for its removal."""
        unique = UUID(bytes=self._rng.randbytes(16), version=4)
        return f"{self.path}/{delete_folder(topic, partition, unique)}"

    def future_path(self, topic: str, partition: int) -> str:
        """A unique name for the copy of a log that moves here."""
        unique = UUID(bytes=self._rng.randbytes(16), version=4)
        return f"{self.path}/{future_folder(topic, partition, unique)}"

    def futures(self) -> list[str]:
        """Names of the folders of copies that an earlier process began."""
        return [name for name in self._folders() if future_partition_of(name) is not None]

    def remove_deleted_folders(self) -> int:
        doomed = [name for name in self._folders() if name.endswith(DELETE_FOLDER_SUFFIX)]
        for name in doomed:
            self._files.remove_tree(f"{self.path}/{name}")
        return len(doomed)

    def _folders(self) -> list[str]:
        names = self._files.list_directory(self.path)
        return [name for name in names if self._files.is_directory(f"{self.path}/{name}")]

    def check_room(self) -> None:
        """Raises OSError while a file cannot grow here."""
        path = f"{self.path}/{ROOM_FILE}"
        file = self._files.open(path, create=True)
        try:
            file.append((bytes(ROOM_BYTES),))
            file.sync()
        finally:
            file.close()
            self._files.remove(path)

    def write_recovery(
        self, recovery_points: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int]
    ) -> None:
        write_offsets(self._files, f"{self.path}/{RECOVERY_POINTS_FILE}", recovery_points)
        write_offsets(self._files, f"{self.path}/{LOG_STARTS_FILE}", starts)

    def write_high_watermarks(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write them every few seconds, whether any of them has moved or not."""
        if offsets != self._written_high_watermarks:
            write_offsets(self._files, f"{self.path}/{HIGH_WATERMARKS_FILE}", offsets)
            self._written_high_watermarks = dict(offsets)

    def write_cleaned(self, offsets: Mapping[TopicPartition, int]) -> None:
        if offsets != self.cleaned:
            write_offsets(self._files, f"{self.path}/{CLEANER_OFFSETS_FILE}", offsets)
            self.cleaned = dict(offsets)

    def write_marker(self, broker_epoch: int) -> None:
        text = json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":"))
        replace_text(self._files, f"{self.path}/{CLEAN_SHUTDOWN_FILE}", text)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
