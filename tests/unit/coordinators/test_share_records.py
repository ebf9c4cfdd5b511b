"""Kafka's bytes of the records of share groups."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.coordinators.groups.records import GroupRecord, MalformedRecord, decode_record, encode_key, encode_value
from kraft.coordinators.groups.share_records import (
    ShareCurrentKey,
    ShareEpochKey,
    ShareMemberKey,
    ShareStatesKey,
    ShareTargetEpochKey,
    ShareTargetKey,
    StoredShareCurrent,
    StoredShareEpoch,
    StoredShareMember,
    StoredShareStates,
    StoredShareTarget,
    StoredShareTargetEpoch,
    TopicStates,
)
from metadata.image import TopicIdPartition

A, B = UUID(int=10), UUID(int=11)
A0, A2 = TopicIdPartition(A, 0), TopicIdPartition(A, 2)

GOLDEN = [
    (ShareMemberKey("g", "m"), StoredShareMember(rack_id=None, client_id="c", client_host="/h", topics=frozenset("ba")),
     "000a 0001 67 0001 6d", "0000 00 02 63 03 2f68 03 02 61 02 62 00"),
    (ShareMemberKey("g", "m"), StoredShareMember(rack_id="r", client_id="c", client_host="/h", topics=frozenset()),
     "000a 0001 67 0001 6d", "0000 02 72 02 63 03 2f68 01 00"),
    (ShareEpochKey("g"), StoredShareEpoch(epoch=3, metadata_hash=-2),
     "000b 0001 67", "0000 00000003 fffffffffffffffe 00"),
    (ShareTargetEpochKey("g"), StoredShareTargetEpoch(epoch=3),
     "000c 0001 67", "0000 00000003 00"),
    (ShareTargetEpochKey("g"), StoredShareTargetEpoch(epoch=3, timestamp=258),
     "000c 0001 67", "0000 00000003 01 00 08 0000000000000102"),
    (ShareTargetKey("g", "m"), StoredShareTarget(partitions=frozenset({A2, A0})),
     "000d 0001 67 0001 6d",
     "0000 02 0000000000000000000000000000000a 03 00000000 00000002 00 00"),
    (ShareCurrentKey("g", "m"), StoredShareCurrent(member_epoch=4, previous_epoch=3, assigned=frozenset({A0})),
     "000e 0001 67 0001 6d",
     "0000 00000004 00000003 00 02 0000000000000000000000000000000a 02 00000000 00 00"),
    (ShareStatesKey("g"),
     StoredShareStates(
         initializing={A: TopicStates("a", frozenset({1}))},
         initialized={A: TopicStates("a", frozenset({2, 0}))},
         deleting={B: "b"},
     ),
     "000f 0001 67",
     "0000 02 0000000000000000000000000000000a 02 61 02 00000001 00"
     "02 0000000000000000000000000000000a 02 61 03 00000000 00000002 00"
     "02 0000000000000000000000000000000b 02 62 00 00"),
]  # fmt: skip


def share_records() -> list[GroupRecord]:
    return [GroupRecord(key, value) for key, value, *_ in GOLDEN]


@pytest.mark.parametrize(("key", "value", "key_bytes", "value_bytes"), GOLDEN)
def test_records_are_kafkas(key, value, key_bytes, value_bytes) -> None:
    assert encode_key(key) == bytes.fromhex(key_bytes)
    assert encode_value(value) == bytes.fromhex(value_bytes)
    assert decode_record(encode_key(key), encode_value(value)) == GroupRecord(key, value)
    assert decode_record(encode_key(key), None) == GroupRecord(key, None)


def test_a_later_version_of_a_value_is_not_read() -> None:
    assert decode_record(encode_key(ShareEpochKey("g")), b"\0\x01" + b"anything") is None


@pytest.mark.parametrize("cut", range(2, 13))
def test_a_value_that_ends_too_early_is_malformed(cut: int) -> None:
    data = encode_value(StoredShareCurrent(member_epoch=4, previous_epoch=3))
    assert data is not None
    assert len(data) == 13
    with pytest.raises(MalformedRecord):
        decode_record(encode_key(ShareCurrentKey("g", "m")), data[:cut])


def test_a_key_with_a_field_too_many_is_malformed() -> None:
    with pytest.raises(MalformedRecord, match="2 fields"):
        decode_record(encode_key(ShareEpochKey("g")) + b"\0\x01m", None)
