"""Kafka's bytes of the offsets topic and of the consumer protocol; who gets which partition."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kraft.coordinators.groups.assignors import ASSIGNORS, assign
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    MalformedRecord,
    OffsetKey,
    StoredGroup,
    StoredMember,
    decode_record,
    encode_key,
    encode_value,
)
from kraft.coordinators.groups.subscriptions import (
    ITEMS_MAX,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)

MEMBER = StoredMember(
    member_id="m-1",
    instance_id=None,
    client_id="c",
    client_host="/h",
    rebalance_timeout_ms=300_000,
    session_timeout_ms=45_000,
    subscription=b"\x01\x02",
    assignment=b"\x03",
)
GROUP = StoredGroup(
    protocol_type="consumer", generation=3, protocol="range", leader="m-1", state_timestamp=1, members=(MEMBER,)
)
OFFSET = CommittedOffset(offset=42, leader_epoch=7, metadata="x", commit_timestamp=1_700_000_000_000)
EXPIRING = CommittedOffset(
    offset=42, metadata="x", commit_timestamp=1_700_000_000_000, expire_timestamp=1_700_000_000_100
)

GOLDEN = [
    (OffsetKey("g", "t", 5), OFFSET, "0001 0001 67 0001 74 00000005",
     "0003 000000000000002a 00000007 0001 78 0000018bcfe56800"),
    (OffsetKey("g", "t", 5), EXPIRING, "0001 0001 67 0001 74 00000005",
     "0001 000000000000002a 0001 78 0000018bcfe56800 0000018bcfe56864"),
    (GroupKey("g"), GROUP, "0002 0001 67",
     "0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0003 6d2d31 0000000000000001 00000001"
     "0003 6d2d31 ffff 0001 63 0002 2f68 000493e0 0000afc8 00000002 0102 00000001 03"),
    (InstanceKey("g", "i"), b"{}", "7d00 0001 67 0001 69", "0000 7b7d"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "key_hex", "value_hex"), GOLDEN)
def test_records_are_kafkas_bytes(key: object, value: object, key_hex: str, value_hex: str) -> None:
    assert encode_key(key) == bytes.fromhex(key_hex)  # type: ignore[arg-type]
    assert encode_value(value) == bytes.fromhex(value_hex)  # type: ignore[arg-type]
    assert decode_record(bytes.fromhex(key_hex), bytes.fromhex(value_hex)) == GroupRecord(key, value)  # type: ignore[arg-type]
    assert decode_record(bytes.fromhex(key_hex), None) == GroupRecord(key, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["0000", "0002"])
def test_offsets_of_before_leader_epochs_are_read(version: str) -> None:
    value = bytes.fromhex(version + "000000000000002a 0001 78 0000018bcfe56800")
    found = decode_record(bytes.fromhex("0001 0001 67 0001 74 00000005"), value)
    assert found == GroupRecord(OffsetKey("g", "t", 5), replace(OFFSET, leader_epoch=-1))


def test_an_offset_with_the_id_of_its_topic_is_read() -> None:
    """Kafka 4.4 writes version 4."""
    key = bytes.fromhex("0001 0002 6731 0006 6f7264657273 00000001")
    value = bytes.fromhex(
        "0004 0000000000000028 ffffffff 01 000001a211b54d3c 01 00 10 9ebe93c6c77f4ffca14766f277a1f23e"
    )
    expected = CommittedOffset(offset=40, leader_epoch=-1, metadata="", commit_timestamp=0x1A211B54D3C)
    assert decode_record(key, value) == GroupRecord(OffsetKey("g1", "orders", 1), expected)
    assert decode_record(key, b"\0\5" + value[2:]) is None
    with pytest.raises(MalformedRecord):
        decode_record(key, value[:15])


def test_unknown_versions_are_skipped_and_cut_records_refused() -> None:
    assert decode_record(bytes.fromhex("0009 0001 67"), b"") is None
    for size in range(2, 12):
        with pytest.raises(MalformedRecord):
            decode_record(bytes.fromhex("0001 0001 67 0001 74 00000005")[:size], None)


def test_the_consumer_protocol_is_kafkas_bytes() -> None:
    """As written by ConsumerProtocol, StickyAssignor and CooperativeStickyAssignor of kafka-clients 4.1."""
    subscription = Subscription(topics=("t",), owned=(("t", 1), ("t", 0)), generation=4)
    data = bytes.fromhex("0002 00000001 0001 74 ffffffff 00000001 0001 74 00000002 00000000 00000001 00000004")
    assert encode_subscription(subscription) == data
    assert decode_subscription(data) == Subscription(topics=("t",), owned=(("t", 0), ("t", 1)), generation=4)
    assert decode_subscription(bytes.fromhex("0000 00000001 0001 74 00000001 aa")).topics == ("t",)
    sticky = bytes.fromhex(
        "0002 00000002 0001 74 0001 75 00000022 00000002 0001 74 00000002 00000000 00000002 0001 75 00000001 00000001"
        "00000007 00000002 0001 74 00000002 00000000 00000002 0001 75 00000001 00000001 00000007"
    )
    had = Subscription(topics=("t", "u"), owned=(("t", 0), ("t", 2), ("u", 1)), generation=7)
    assert encode_subscription(had, "sticky") == sticky
    assert decode_subscription(sticky, "sticky") == had
    assert decode_subscription(encode_subscription(had), "sticky") == Subscription(topics=("t", "u"))
    old = bytes.fromhex("0001 00000001 0001 74 00000004 00000007 00000001 0001 74 00000001 00000001")
    cooperative = Subscription(topics=("t",), owned=(("t", 1),), generation=7)
    assert decode_subscription(old, "cooperative-sticky") == cooperative
    assigned = bytes.fromhex("0000 00000001 0001 74 00000001 00000002 ffffffff")
    assert encode_assignment([("t", 2)]) == assigned
    assert decode_assignment(assigned) == (("t", 2),)
    assert decode_assignment(b"") == ()
    for broken in (b"\x00", data[:9]):
        with pytest.raises(ValueError, match="no consumer subscription"):
            decode_subscription(broken)


def members(**topics: str) -> dict[str, Subscription]:
    return {name: Subscription(topics=tuple(wanted.split())) for name, wanted in topics.items()}


def numbers(assigned: dict[str, list[tuple[str, int]]]) -> dict[str, str]:
    return {member: " ".join(f"{topic}{number}" for topic, number in parts) for member, parts in assigned.items()}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("range", {"a": "t0 t1 u0 u1", "b": "t2 u2"}),
        ("roundrobin", {"a": "t0 t2 u1", "b": "t1 u0 u2"}),
        ("sticky", {"a": "t0 t2 u1", "b": "t1 u0 u2"}),
        ("cooperative-sticky", {"a": "t0 t2 u1", "b": "t1 u0 u2"}),
    ],
)
def test_two_members_two_topics_of_three(protocol: str, expected: dict[str, str]) -> None:
    """The examples in the javadoc of Kafka's RangeAssignor and RoundRobinAssignor."""
    assert numbers(assign(protocol, members(a="t u", b="t u"), {"t": 3, "u": 3})) == expected


def test_round_robin_passes_over_who_does_not_want_the_topic() -> None:
    """The second example of RoundRobinAssignor's javadoc."""
    wanted = members(a="t", b="t u", c="t u v")
    assert numbers(assign("roundrobin", wanted, {"t": 1, "u": 2, "v": 3})) == {"a": "t0", "b": "u0", "c": "u1 v0 v1 v2"}


def test_sticky_keeps_what_it_can_and_static_members_come_first() -> None:
    """The example of StickyAssignor's javadoc: b leaves, a and c keep what they have."""
    owned = {
        "a": Subscription(topics=("t", "u", "v", "w"), owned=(("t", 0), ("u", 1), ("w", 0)), generation=1),
        "c": Subscription(topics=("t", "u", "v", "w"), owned=(("u", 0), ("v", 1)), generation=1),
    }
    assigned = assign("sticky", owned, {"t": 2, "u": 2, "v": 2, "w": 2})
    assert {len(parts) for parts in assigned.values()} == {4}
    for name, subscription in owned.items():
        assert set(subscription.owned) <= set(assigned[name])
    static = {"z": Subscription(topics=("t",), instance_id="0"), "a": Subscription(topics=("t",))}
    assert numbers(assign("range", static, {"t": 1})) == {"z": "t0", "a": ""}


def test_cooperative_takes_first_and_gives_in_the_next_rebalance() -> None:
    two = {
        "a": Subscription(topics=("t",), owned=(("t", 0), ("t", 1)), generation=1),
        "b": Subscription(topics=("t",)),
    }
    first = assign("cooperative-sticky", two, {"t": 2})
    assert numbers(first) == {"a": "t0", "b": ""}
    two["a"] = Subscription(topics=("t",), owned=(("t", 0),), generation=2)
    assert numbers(assign("cooperative-sticky", two, {"t": 2})) == {"a": "t0", "b": "t1"}


def test_of_two_claims_the_later_generation_counts() -> None:
    claims = {
        "a": Subscription(topics=("t",), owned=(("t", 0),), generation=1),
        "b": Subscription(topics=("t",), owned=(("t", 0), ("t", 1)), generation=2),
        "c": Subscription(topics=("t",)),
    }
    assert ("t", 0) in assign("sticky", claims, {"t": 4})["b"]


@pytest.mark.parametrize("protocol", sorted(ASSIGNORS))
@pytest.mark.parametrize("seed", range(15))
def test_every_partition_has_one_owner_who_wants_it(protocol: str, seed: int) -> None:
    rng = random.Random(seed)
    counts = {topic: rng.randrange(1, 9) for topic in "tuvw"}
    wanted = {
        f"m{i}": Subscription(topics=tuple(rng.sample("tuvw", rng.randrange(1, 5)))) for i in range(rng.randrange(1, 7))
    }
    before = assign(protocol, wanted, counts)
    for _ in range(2):
        everyone = [partition for parts in before.values() for partition in parts]
        assert len(everyone) == len(set(everyone))
        assert {t for t, _ in everyone} == {t for each in wanted.values() for t in each.topics}
        for member, parts in before.items():
            assert {topic for topic, _ in parts} <= set(wanted[member].topics)
        owned = {m: Subscription(topics=s.topics, owned=tuple(before[m]), generation=1) for m, s in wanted.items()}
        after = assign(protocol, owned, counts)
        assert after == before, "nothing has changed, nothing moves"


def test_a_subscription_and_an_assignment_of_too_many_items_are_none() -> None:
    """Of two bytes each, which would be read for each member again."""
    topics = [""] * (ITEMS_MAX + 1)
    with pytest.raises(ValueError, match="topics and partitions"):
        decode_subscription(encode_subscription(Subscription(topics=tuple(topics))))
    with pytest.raises(ValueError, match="topics and partitions"):
        decode_assignment(encode_assignment([("t", number) for number in range(ITEMS_MAX)]))
    assert len(decode_subscription(encode_subscription(Subscription(topics=tuple(topics[1:])))).topics) == ITEMS_MAX
