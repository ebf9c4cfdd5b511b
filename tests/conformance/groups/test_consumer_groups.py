"""Kafka's DumpLogSegments --offsets-decoder reads records of the consumer protocol as we mean them, and so do we."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest

from kraft.coordinators.groups.consumer_records import (
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
    encode_consumer_value,
)
from kraft.coordinators.groups.records import GroupRecord, MalformedRecord, decode_record, encode_key, encode_value
from kraft.protocol.batches.records import read_batches
from metadata.image import TopicIdPartition
from tests.conformance.groups.consumer_groups import (
    CONSUMER_DUMP,
    CONSUMER_SEGMENT,
    consumer_records,
    consumer_segment,
)

RECORDS = consumer_records()
TYPES = {
    EpochKey: 3,
    PartitionMetadataKey: 4,
    MemberKey: 5,
    TargetEpochKey: 6,
    TargetKey: 7,
    CurrentKey: 8,
    PatternKey: 16,
}


def test_kafkas_dump_tool_reads_what_was_meant() -> None:
    assert consumer_segment() == CONSUMER_SEGMENT.read_bytes(), "regenerate the golden files, and look at what changed"
    text = CONSUMER_DUMP.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| offset")]
    assert [line.partition(" key: ")[2] for line in lines] == [_line(record) for record in RECORDS]
    assert {type(record.key) for record in RECORDS} == set(TYPES)
    assert "isvalid: true" in text


def test_they_are_read_back() -> None:
    found = [decode_record(each.key or b"", each.value) for each in read_batches(consumer_segment())]
    assert found == RECORDS


def test_member_without_tag_is_classic() -> None:
    written = encode_consumer_value(StoredConsumer())
    assert written.endswith(b"\1\0\1\0"), "one tag: number 0, one byte, null"
    record = decode_record(encode_key(MemberKey("g", "m")), written[:-4] + b"\0")
    assert record is not None
    assert isinstance(record.value, StoredConsumer)
    assert record.value.classic is not None


def test_old_assignments_get_epoch_of_member() -> None:
    partition = TopicIdPartition(next(iter(RECORDS[8].value.assigned)).topic_id, 0)  # type: ignore[union-attr]
    current = StoredCurrent(member_epoch=6, previous_epoch=5, state=0, assigned={partition: 3})
    with_epochs = b"\1\0\5\2" + (3).to_bytes(4, "big")
    written = encode_consumer_value(current)
    assert written.count(with_epochs) == 1
    record = decode_record(encode_key(CurrentKey("g", "m")), written.replace(with_epochs, b"\0"))
    assert record is not None
    assert isinstance(record.value, StoredCurrent)
    assert dict(record.value.assigned) == {partition: 6}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record.key).__name__)
def test_cut_short_it_is_malformed_and_of_another_version_it_is_skipped(record: GroupRecord) -> None:
    key, value = encode_key(record.key), encode_value(record.value)
    for size in range(2, len(key)):
        with pytest.raises(MalformedRecord):
            decode_record(key[:size], value)
    if value is not None:
        assert decode_record(key, b"\0\1" + value[2:]) is None
        for size in range(len(value)):
            try:
                assert decode_record(key, value[:size]) != record
            except MalformedRecord:
                continue


def _line(record: GroupRecord) -> str:
    key = record.key
    data = dict(zip(_KEY_NAMES[type(key)], [getattr(key, name) for name in key.__slots__], strict=True))
    head = _json({"type": str(TYPES[type(key)]), "data": data})  # type: ignore[index]
    if record.value is None:
        return f"{head} payload: <DELETE>"
    return f"{head} payload: {_json({'version': '0', 'data': _data(record.value)})}"


_KEY_NAMES: dict[type, tuple[str, ...]] = {
    EpochKey: ("groupId",),
    PartitionMetadataKey: ("groupId",),
    MemberKey: ("groupId", "memberId"),
    TargetEpochKey: ("groupId",),
    TargetKey: ("groupId", "memberId"),
    CurrentKey: ("groupId", "memberId"),
    PatternKey: ("groupId", "regularExpression"),
}


def _data(value: object) -> dict[str, Any]:
    match value:
        case StoredEpoch():
            tag = {"metadataHash": value.metadata_hash} if value.metadata_hash else {}
            return {"epoch": value.epoch, **tag}
        case StoredTargetEpoch():
            return {"assignmentEpoch": value.epoch}
        case StoredTarget():
            return {"topicPartitions": _topics(value.partitions)}
        case StoredCurrent():
            return {
                "memberEpoch": value.member_epoch,
                "previousMemberEpoch": value.previous_epoch,
                "state": value.state,
                "assignedPartitions": _topics(value.assigned),
                "partitionsPendingRevocation": _topics(value.revoking),
            }
        case StoredPattern():
            return {"topics": sorted(value.topics), "version": value.version, "timestamp": value.timestamp}
        case StoredConsumer():
            return _member(value)
    raise AssertionError(value)


def _member(value: StoredConsumer) -> dict[str, Any]:
    classic = None
    if value.classic is not None:
        classic = {
            "sessionTimeoutMs": value.classic.session_timeout_ms,
            "supportedProtocols": [
                {"name": name, "metadata": base64.b64encode(data).decode()} for name, data in value.classic.protocols
            ],
        }
    return {
        "instanceId": value.instance_id,
        "rackId": value.rack_id,
        "clientId": value.client_id,
        "clientHost": value.client_host,
        "subscribedTopicNames": sorted(value.topics),
        "subscribedTopicRegex": value.pattern,
        "rebalanceTimeoutMs": value.rebalance_timeout_ms,
        "serverAssignor": value.assignor,
        "classicMemberMetadata": classic,
    }


def _topics(partitions: Iterable[TopicIdPartition]) -> list[dict[str, Any]]:
    found: dict[str, list[int]] = {}
    for each in sorted(partitions):
        name = base64.urlsafe_b64encode(each.topic_id.bytes).decode().rstrip("=")
        found.setdefault(name, []).append(each.partition)
    return [{"topicId": name, "partitions": numbers} for name, numbers in found.items()]


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
