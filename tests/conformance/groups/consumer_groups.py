"""A segment of `__consumer_offsets` with every kind of record of the consumer protocol (KIP-848)."""

from __future__ import annotations

import uuid

from kraft.coordinators.groups.consumer_records import (
    ClassicSupport,
    CurrentKey,
    EpochKey,
    MemberKey,
    PartitionMetadataKey,
    PatternKey,
    StoredConsumer,
    StoredCurrent,
    StoredEpoch,
    StoredPattern,
    StoredTarget,
    StoredTargetEpoch,
    TargetEpochKey,
    TargetKey,
)
from kraft.coordinators.groups.records import GroupRecord, encode_key, encode_value
from kraft.protocol.batches.records import NewRecord, build_batch
from metadata.image import TopicIdPartition
from tests.conformance.groups.cases import GOLDEN

CONSUMER_FOLDER = GOLDEN / "__consumer_offsets-4"
CONSUMER_SEGMENT = CONSUMER_FOLDER / "00000000000000000000.log"
CONSUMER_DUMP = CONSUMER_FOLDER / "kafka-dump.txt"
WALL_MS = 1_700_000_000_000
GROUP = "ünï"
TOPICS = (uuid.UUID(int=0x1111_2222_3333_4444_5555_6666_7777_8888), uuid.UUID(int=0xFFFF << 100))


def consumer_records() -> list[GroupRecord]:
    first = [TopicIdPartition(TOPICS[0], number) for number in (0, 1, 300)]
    both = frozenset([*first, TopicIdPartition(TOPICS[1], 0)])
    return [
        GroupRecord(EpochKey(GROUP), StoredEpoch(epoch=1)),
        GroupRecord(EpochKey(GROUP), StoredEpoch(epoch=7, metadata_hash=-(2**62))),
        GroupRecord(MemberKey(GROUP, "m1"), StoredConsumer(rebalance_timeout_ms=300_000, topics=frozenset({"b", "a"}))),
        GroupRecord(
            MemberKey(GROUP, "m2"),
            StoredConsumer(
                instance_id="static-1",
                rack_id="rack-a",
                client_id="client",
                client_host="/127.0.0.1",
                topics=frozenset(f"topic-{number:03}" for number in range(150)),
                pattern="^t.*",
                rebalance_timeout_ms=1,
                assignor="uniform",
                classic=ClassicSupport(
                    session_timeout_ms=45_000, protocols=(("range", b""), ("sticky", bytes(range(200))))
                ),
            ),
        ),
        GroupRecord(TargetEpochKey(GROUP), StoredTargetEpoch(epoch=7)),
        GroupRecord(TargetKey(GROUP, "m1"), StoredTarget(partitions=frozenset())),
        GroupRecord(TargetKey(GROUP, "m2"), StoredTarget(partitions=both)),
        GroupRecord(CurrentKey(GROUP, "m1"), StoredCurrent(member_epoch=-2, previous_epoch=6, state=0)),
        GroupRecord(
            CurrentKey(GROUP, "m2"),
            StoredCurrent(
                member_epoch=6,
                previous_epoch=5,
                state=1,
                assigned={each: 3 + each.partition % 2 for each in first},
                revoking={TopicIdPartition(TOPICS[1], 0): 6},
            ),
        ),
        GroupRecord(PatternKey(GROUP, "^t.*"), StoredPattern(topics=frozenset({"t1"}), version=99, timestamp=WALL_MS)),
        GroupRecord(CurrentKey(GROUP, "m1"), None),
        GroupRecord(TargetKey(GROUP, "m1"), None),
        GroupRecord(TargetEpochKey(GROUP), None),
        GroupRecord(MemberKey(GROUP, "m1"), None),
        GroupRecord(PatternKey(GROUP, "^t.*"), None),
        GroupRecord(PartitionMetadataKey(GROUP), None),
        GroupRecord(EpochKey(GROUP), None),
    ]


def consumer_segment() -> bytes:
    records = consumer_records()
    made = [NewRecord(encode_key(each.key), encode_value(each.value), [], WALL_MS) for each in records]
    return build_batch(made, base_offset=0, leader_epoch=4)
