"""Kafka's DumpLogSegments --offsets-decoder reads `__consumer_offsets` as we mean it, and skips what is ours alone."""

from __future__ import annotations

import base64
import json
from typing import Any

from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    OffsetKey,
    StoredGroup,
    StoredMember,
    decode_record,
)
from kraft.coordinators.groups.subscriptions import decode_assignment, decode_subscription
from kraft.protocol.batches.records import read_batches
from kraft.protocol.primitives import TopicPartition
from tests.conformance.groups.offsets import DUMP, LIVE, LIVE_DUMP, SEGMENT, records, segment

ALL = [record for batch in records() for record in batch]


def test_kafkas_dump_tool_reads_what_was_meant() -> None:
    assert segment() == SEGMENT.read_bytes(), "regenerate the golden files, and look at what changed"
    lines = [line for line in DUMP.read_text().splitlines() if line.startswith("| offset")]
    assert [line.partition(" key: ")[2] for line in lines] == [_line(*each) for each in enumerate(ALL)]
    assert DUMP.read_text().count("isvalid: true") == len(records())


def test_kafka_dump_tool_reads_offsets_segment() -> None:
    found = [(each.offset, decode_record(each.key, each.value)) for each in read_batches(LIVE.read_bytes()) if each.key]
    assert {type(record.key) for _, record in found if record} == {OffsetKey, GroupKey, InstanceKey}
    lines = [line for line in LIVE_DUMP.read_text().splitlines() if line.startswith("| offset")]
    assert [line.partition(" key: ")[2] for line in lines] == [_line(at, record) for at, record in found if record]
    assert any("<DELETE>" not in line and '"members":[{' in line for line in lines)
    assert "isvalid: false" not in LIVE_DUMP.read_text()


def _line(offset: int, record: GroupRecord) -> str:
    match record.key:
        case InstanceKey():
            return f"Unknown record type 32000 at offset {offset}, skipping."
        case OffsetKey(group, topic, partition):
            key: dict[str, Any] = {"type": "1", "data": {"group": group, "topic": topic, "partition": partition}}
        case GroupKey(group):
            key = {"type": "2", "data": {"group": group}}
    if record.value is None:
        return f"{_json(key)} payload: <DELETE>"
    return f"{_json(key)} payload: {_json({'version': '3', 'data': _data(record.value)})}"


def _data(value: object) -> dict[str, Any]:
    if isinstance(value, CommittedOffset):
        return {
            "offset": value.offset,
            "leaderEpoch": value.leader_epoch,
            "metadata": value.metadata,
            "commitTimestamp": value.commit_timestamp,
        }
    assert isinstance(value, StoredGroup), value
    return {
        "protocolType": value.protocol_type,
        "generation": value.generation,
        "protocol": value.protocol,
        "leader": value.leader,
        "currentStateTimestamp": value.state_timestamp,
        "members": [_member(member) for member in value.members],
    }


def _member(member: StoredMember) -> dict[str, Any]:
    wanted = decode_subscription(member.subscription)
    had = decode_subscription(member.subscription, "sticky")
    user_data = None
    if had.owned:
        user_data = base64.b64encode(_by_topic_bytes(had.owned) + had.generation.to_bytes(4, "big")).decode()
    return {
        "memberId": member.member_id,
        "groupInstanceId": member.instance_id,
        "clientId": member.client_id,
        "clientHost": member.client_host,
        "rebalanceTimeout": member.rebalance_timeout_ms,
        "sessionTimeout": member.session_timeout_ms,
        "subscription": {
            "topics": list(wanted.topics),
            "userData": user_data,
            "ownedPartitions": _by_topic(wanted.owned),
            "generationId": wanted.generation,
        },
        "assignment": {"assignedPartitions": _by_topic(decode_assignment(member.assignment)), "userData": None},
    }


def _by_topic(partitions: tuple[TopicPartition, ...]) -> list[dict[str, Any]]:
    topics: dict[str, list[int]] = {}
    for topic, number in partitions:
        topics.setdefault(topic, []).append(number)
    return [{"topic": topic, "partitions": numbers} for topic, numbers in topics.items()]


def _by_topic_bytes(partitions: tuple[TopicPartition, ...]) -> bytes:
    rows = _by_topic(partitions)
    data = len(rows).to_bytes(4, "big")
    for row in rows:
        name = row["topic"].encode()
        data += len(name).to_bytes(2, "big") + name + len(row["partitions"]).to_bytes(4, "big")
        data += b"".join(number.to_bytes(4, "big") for number in row["partitions"])
    return data


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
