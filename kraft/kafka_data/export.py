"""`kraft export kafka`: a stopped cluster of ours becomes folders on which Apache Kafka starts.

First a plan is made, from the cluster alone: the release of Kafka, what comes along, what stays behind. Then the
folders are filled: `node-ID/logs` with the partitions, the checkpoints and `__cluster_metadata-0`, which has one
snapshot, the same on every node, and no log; and `node-ID/server.properties`. Source: KIP-630 for the snapshot, KIP-858
for directories.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from kraft.config.models import ClusterConfig
from kraft.kafka_data import copying
from kraft.kafka_data.broker_rules import refusals, since
from kraft.kafka_data.copying import Taken, VolumeOf
from kraft.kafka_data.group_contents import GroupContents, read_group_contents
from kraft.kafka_data.image_records import UNASSIGNED, SettingLeftOut, image_records, settings_left_out, topics_of
from kraft.kafka_data.log_directory import write_log_directory, write_private
from kraft.kafka_data.logins import Logins, left_to_people, logins_of, needs_anonymous, with_users
from kraft.kafka_data.metadata_log import FOLDER, QUORUM_STATE_FILE, SnapshotId, snapshot_batches
from kraft.kafka_data.older_groups import rewrite_segment
from kraft.kafka_data.properties import (
    METADATA_TOPIC_ID,
    NodePlace,
    quorum_state,
    server_properties,
    settings_without_kafka,
)
from kraft.kafka_data.releases import (
    ACL_RANGES,
    CONSUMER_GROUPS,
    EXPIRY,
    OFFSET_TOPIC_IDS,
    OLDEST,
    SHARE_GROUPS,
    TARGET,
    TRANSACTIONS_2,
    Below,
    Kind,
    Release,
    first_release,
    lowest_for,
    value_for,
)
from kraft.kafka_data.replica import Replica, UnfitData, files_of
from kraft.kafka_data.source import Source, check_stopped, read_source
from metadata.environment import Files
from metadata.image import MetadataImage
from metadata.internal_topics import OFFSETS_TOPIC, SHARE_STATE_TOPIC, TRANSACTIONS_TOPIC
from metadata.kafka_settings import is_kafka_name
from replication.storage.names import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    TIME_INDEX_SUFFIX,
    uuid_text,
)

SERVER_PROPERTIES: Final = "server.properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    source: Source
    """Its image has the users of cluster.toml, too."""
    logins: Logins
    target: str
    release: Release
    is_copied: bool
    """No hard links."""
    are_groups_rewritten: bool
    """`__consumer_offsets` has records that the release cannot read."""
    places: Sequence[NodePlace]
    left_out: Sequence[str]
    """What does not come along, in words."""
    linked_bytes: int
    copied_bytes: int

    @property
    def replicas(self) -> list[Replica]:
        """Those that come along."""
        topics = {topic.name for topic in topics_of(self.source.image, self.release)}
        return [each for each in self.source.replicas.values() if each.topic in topics]

    @property
    def snapshot(self) -> SnapshotId:
        image = self.source.image
        return SnapshotId(image.next_offset, max(image.controller_epoch, 1))


def make_plan(
    files: Files,
    config: ClusterConfig,
    *,
    target: str,
    release: Release | None,
    copy: bool,
    rng: random.Random,
    volume_of: VolumeOf = copying.volume_of,
) -> ExportPlan:
    """Raises UnfitData; nothing is written. `release`: None for the lowest that needs nothing left out."""
    source = read_source(files, config)
    logins = logins_of(config, source.image)
    source = replace(source, image=with_users(source.image, logins, rng))
    contents = read_group_contents(files, source.replicas.values())
    needed, settings = _needed(source, contents)
    release = release or lowest_for(list(needed), settings)
    _refuse_unknown(needed, contents, release)
    _refuse_unstartable(config)
    directories = [directory.path for node in source.nodes for directory in node.directories]
    copying.refuse_inside(directories, target)
    if "," in os.path.abspath(target):
        raise UnfitData(f"{os.path.abspath(target)} has a comma, and log.dirs of Kafka is a list with commas")
    is_shared = copying.can_be_shared(directories, target, volume_of)
    plan = ExportPlan(
        source=source,
        logins=logins,
        target=target,
        release=release,
        is_copied=copy or not is_shared,
        are_groups_rewritten=_are_groups_rewritten(contents, release),
        places=_places(source, target, rng),
        left_out=[*_left_out(source, contents, needed, release), *_left_to_people(source, logins)],
        linked_bytes=0,
        copied_bytes=0,
    )
    linked, copied = copying.sizes(_taken(files, plan))
    copying.check_target(target, copied, volume_of, is_agreed=is_shared or copy)
    return replace(plan, linked_bytes=linked, copied_bytes=copied)


def _places(source: Source, target: str, rng: random.Random) -> list[NodePlace]:
    places: list[NodePlace] = []
    for node in source.nodes:
        ids = [each.directory_id for each in node.directories] or [UUID(bytes=rng.randbytes(16), version=4)]
        names = ["logs"] if len(ids) == 1 else [f"logs-{number}" for number in range(1, len(ids) + 1)]
        folder = os.path.join(os.path.abspath(target), f"node-{node.config.id}")
        places.append(
            NodePlace(config=node.config, directories=[os.path.join(folder, name) for name in names], directory_ids=ids)
        )
    return places


# --- what comes along -----------------------------------------------------------------------------------------------


def _needed(source: Source, contents: GroupContents) -> tuple[dict[Kind, str], list[str]]:
    """The kinds of data that not every release knows, each with an example, and the settings of topics and groups."""
    image = source.image
    needed: dict[Kind, str] = {}
    if contents.consumer:
        needed[CONSUMER_GROUPS] = _some(contents.consumer)
    if image.topic(TRANSACTIONS_TOPIC) is not None:
        needed[TRANSACTIONS_2] = TRANSACTIONS_TOPIC
    if contents.share or image.topic(SHARE_STATE_TOPIC) is not None:
        needed[SHARE_GROUPS] = _some(contents.share) or SHARE_STATE_TOPIC
    if contents.offsets_with_topic_ids:
        needed[OFFSET_TOPIC_IDS] = _some(contents.offsets_with_topic_ids)
    ranges = {acl.host for acl in image.acls.values() if "/" in acl.host}
    if ranges:
        needed[ACL_RANGES] = _some(ranges)
    settings = [name for (kind, _), values in image.configs.items() if kind in ("topic", "group") for name in values]
    return needed, settings


def _refuse_unknown(needed: Mapping[Kind, str], contents: GroupContents, release: Release) -> None:
    for kind, example in needed.items():
        if kind.below is Below.REFUSED and not kind.is_known_to(release):
            raise UnfitData(
                f"Kafka {release.name} does not know: {kind.name} ({example}); {kind.consequence}. "
                f"Export for {kind.since} or newer"
            )
    if contents.streams:
        raise UnfitData(
            f"streams groups are not known here, and their records are in the log: {_some(contents.streams)}"
        )


def _refuse_unstartable(config: ClusterConfig) -> None:
    for node in config.nodes:
        for problem in refusals(config.broker_settings(node.id)):
            raise UnfitData(f"Kafka does not start with the settings of node {node.id}: {problem}; change cluster.toml")


def _left_out(source: Source, contents: GroupContents, needed: Mapping[Kind, str], release: Release) -> Iterator[str]:
    for kind, example in needed.items():
        if not kind.is_known_to(release):
            yield f"{kind.name} ({example}): {kind.below.value}; {kind.consequence}; Kafka {kind.since} knows them"
    for setting in settings_left_out(source.image, release):
        owner = f"{setting.resource_type} {setting.resource_name or '(all)'}"
        yield f"setting {setting.name} of {owner}: left out; {_without(source.image, setting)}"
    for (resource_type, resource), values in sorted(source.image.configs.items()):
        for name, value in values.items():
            if (least := value_for(release, name, value)) != value:
                owner = f"{resource_type} {resource or '(all)'}"
                yield f"setting {name} of {owner}: {value} becomes {least}; Kafka {release.name} takes no less"
    for name in settings_without_kafka(source.config, release):
        yield f"setting {name} of cluster.toml: left out; {_of_cluster_toml(name)}"
    if source.image.routes:
        yield f"routes ({_some(set(source.image.routes))}): Kafka has none; their topics come along"
    if contents.rest_consumers:
        yield (
            f"REST consumers ({_some(contents.rest_consumers)}): Kafka has no REST; their committed offsets come "
            "along, and Kafka skips their records"
        )
    for name in source.missing:
        yield f"replica {name}: it has no folder; its leader copies it again"
    for path in source.strays:
        yield f"folder {path}: no partition of the cluster; it stays where it is"


def _left_to_people(source: Source, logins: Logins) -> Iterator[str]:
    if needs_anonymous(source.config, logins):
        yield (
            "the right of nodes to speak to each other: Kafka's nodes are users, and need it by super.users "
            "(User:ANONYMOUS where their listeners have no login), or they elect no controller"
        )
    yield from left_to_people(source.config, logins)


def _without(image: MetadataImage, setting: SettingLeftOut) -> str:
    """What is different without a setting."""
    if setting.name == TARGET:
        target = image.configs[setting.resource_type, setting.resource_name][TARGET]
        return (
            f"its records come along, and Kafka forwards none of them to {target}: forward what is due, or cancel it, "
            "before you stop the cluster"
        )
    if setting.name == EXPIRY:
        return "Kafka hands out records that have expired"
    since = first_release(setting.name)
    return f"Kafka {since} has it" if since != OLDEST.name else "Kafka has it not, or not as a dynamic setting"


def _of_cluster_toml(name: str) -> str:
    first = since(name) if is_kafka_name(name) else None
    return "Kafka has it not" if first is None else f"Kafka {first} has it in this form"


def _some(names: set[str]) -> str:
    """Up to three names."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


# --- files ----------------------------------------------------------------------------------------------------------


def _taken(files: Files, plan: ExportPlan) -> Iterator[Taken]:
    """Every file of every partition that comes along."""
    folders = _folders(plan)
    for replica in plan.replicas:
        folder = os.path.join(folders[replica.directory_id], replica.name)
        is_rewritten = plan.are_groups_rewritten and replica.topic == OFFSETS_TOPIC
        for name, may_be_shared in files_of(files, replica):
            if is_rewritten and name.endswith((INDEX_SUFFIX, TIME_INDEX_SUFFIX)):
                continue
            path = f"{replica.folder}/{name}"
            yield Taken(
                source=path,
                target=os.path.join(folder, name),
                is_linked=may_be_shared and not plan.is_copied and not is_rewritten,
                size=files.size(path),
                is_rewritten=is_rewritten and name.endswith(LOG_SUFFIX),
            )


def _folders(plan: ExportPlan) -> dict[UUID, str]:
    """Id of a log directory -> where it is in the target."""
    return {
        directory_id: directory
        for place in plan.places
        for directory_id, directory in zip(place.directory_ids, place.directories, strict=True)
    }


def _are_groups_rewritten(contents: GroupContents, release: Release) -> bool:
    has_new_offsets = bool(contents.offsets_with_topic_ids) and not OFFSET_TOPIC_IDS.is_known_to(release)
    return has_new_offsets or (contents.has_share_records and not SHARE_GROUPS.is_known_to(release))


def _rewrite_groups(files: Files, plan: ExportPlan, *, now_ms: int) -> None:
    folders = _folders(plan)
    for replica in plan.replicas if plan.are_groups_rewritten else ():
        if replica.topic == OFFSETS_TOPIC:
            target = os.path.join(folders[replica.directory_id], replica.name)
            for base_offset in replica.segments:
                rewrite_segment(files, replica.folder, target, base_offset, release=plan.release, created_ms=now_ms)


def fill(files: Files, plan: ExportPlan, *, now_ms: int, on_bytes: Callable[[int], object]) -> None:
    """Write the folders of the plan, while no node may start; a target that was left unfinished is emptied first.
    Raises UnfitData, OSError."""
    with ExitStack() as locks:
        for node in plan.source.nodes:
            check_stopped(files, node.config, locks)
        _fill(files, plan, now_ms=now_ms, on_bytes=on_bytes)


def _fill(files: Files, plan: ExportPlan, *, now_ms: int, on_bytes: Callable[[int], object]) -> None:
    copying.begin(plan.target)
    records = image_records(plan.source.image, plan.release, directory_of=_directory_of(plan.source))
    snapshot = b"".join(snapshot_batches(records, epoch=plan.snapshot.epoch, timestamp_ms=now_ms))
    copying.take(_taken(files, plan), on_bytes=on_bytes)
    _rewrite_groups(files, plan, now_ms=now_ms)
    voters = [node.id for node in plan.source.config.voters]
    for place in plan.places:
        for directory, directory_id in zip(place.directories, place.directory_ids, strict=True):
            write_log_directory(
                directory,
                [each for each in plan.replicas if each.directory_id == directory_id],
                cluster_id=plan.source.config.cluster_id,
                node_id=place.config.id,
                directory_id=directory_id,
                is_broker=place.config.is_broker,
            )
        metadata = os.path.join(place.directories[0], FOLDER)
        os.makedirs(metadata, mode=0o700)
        write_private(os.path.join(metadata, plan.snapshot.file_name), snapshot)
        write_private(os.path.join(metadata, PARTITION_METADATA_FILE), _topic_id_text(METADATA_TOPIC_ID))
        write_private(os.path.join(metadata, QUORUM_STATE_FILE), quorum_state(voters, plan.snapshot.epoch))
        properties = server_properties(plan.source.config, place, plan.release, plan.logins)
        write_private(os.path.join(os.path.dirname(place.directories[0]), SERVER_PROPERTIES), properties)
    copying.finish(plan.target)


def _directory_of(source: Source) -> Callable[[str, int, int], UUID]:
    def directory_of(topic: str, partition: int, broker: int) -> UUID:
        replica = source.replicas.get((topic, partition, broker))
        return UNASSIGNED if replica is None else replica.directory_id

    return directory_of


def _topic_id_text(topic_id: UUID) -> str:
    return f"version: 0\ntopic_id: {uuid_text(topic_id)}"
