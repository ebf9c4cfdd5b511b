"""A segment of `__consumer_offsets` with every kind of record, as a coordinator writes it."""

from __future__ import annotations

from kraft.coordinators.groups.instance import Instance
from kraft.coordinators.groups.offsets import commit_records, tombstones
from kraft.coordinators.groups.records import (
    GroupKey,
    GroupRecord,
    StoredGroup,
    StoredMember,
    encode_key,
    encode_value,
)
from kraft.coordinators.groups.requests import InstanceConfig
from kraft.coordinators.groups.subscriptions import Subscription, encode_assignment, encode_subscription
from kraft.protocol.batches.records import NewRecord, build_batch
from tests.conformance.groups.cases import GOLDEN

FOLDER = GOLDEN / "__consumer_offsets-3"
SEGMENT = FOLDER / "00000000000000000000.log"
DUMP = FOLDER / "kafka-dump.txt"
LIVE = GOLDEN / "live" / "00000000000000000000.log"
LIVE_DUMP = GOLDEN / "live" / "kafka-dump.txt"
"""Written by a node of three: two consumers of `kraft.client` in one group that read, commit and leave."""
WALL_MS = 1_700_000_000_000
GROUP = "orders"


def records() -> list[list[GroupRecord]]:
    """Batch by batch: a group is formed, commits, loses a member, and goes."""
    had = (("t", 0), ("t", 2), ("ünï", 1))
    both = [_member("a", None, had), _member("b", "static-1", (("t", 1),))]
    instance = Instance(group=GROUP, name="rest", nonce="00", config=InstanceConfig())
    commits = commit_records(
        GROUP, {("t", 0): (42, 7, ""), ("ünï", 1): (2**40, -1, "seen")}, metadata_bytes_max=4096, wall_ms=WALL_MS
    )
    return [
        [instance.record(), _group(1, both)],
        commits,
        [_group(2, both[:1])],
        [_group(3, [])],
        [*tombstones(GROUP, [("t", 0)]), instance.tombstone(), GroupRecord(GroupKey(GROUP), None)],
    ]


def segment() -> bytes:
    data, offset = b"", 0
    for batch in records():
        made = [NewRecord(encode_key(each.key), encode_value(each.value), [], WALL_MS) for each in batch]
        data += build_batch(made, base_offset=offset, leader_epoch=4)
        offset += len(batch)
    return data


def _member(name: str, instance_id: str | None, partitions: tuple[tuple[str, int], ...]) -> StoredMember:
    wanted = Subscription(topics=("t", "ünï"), owned=partitions, generation=1)
    return StoredMember(
        member_id=name,
        instance_id=instance_id,
        client_id=f"client-{name}",
        client_host="/127.0.0.1",
        rebalance_timeout_ms=300_000,
        session_timeout_ms=45_000,
        subscription=encode_subscription(wanted, "sticky"),
        assignment=encode_assignment(partitions),
    )


def _group(generation: int, members: list[StoredMember]) -> GroupRecord:
    stored = StoredGroup(
        protocol_type="consumer",
        generation=generation,
        protocol="sticky" if members else None,
        leader=members[0].member_id if members else None,
        state_timestamp=WALL_MS,
        members=tuple(members),
    )
    return GroupRecord(GroupKey(GROUP), stored)
