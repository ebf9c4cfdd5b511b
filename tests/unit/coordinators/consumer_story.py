"""A consumer group in virtual time, for tests: members that beat, and clients that do what they are told."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kraft.coordinators.groups.classic_draft import ClassicRules, Decision
from kraft.coordinators.groups.classic_group import ClassicGroup, restored
from kraft.coordinators.groups.classic_requests import GroupEvent, Heartbeat, Join, Leave, Sync, Tick
from kraft.coordinators.groups.consumer_draft import ConsumerRules
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_records import EpochKey, Partitions
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer, TargetsComputed
from kraft.coordinators.groups.group_protocols import decide_group
from kraft.coordinators.groups.records import (
    GroupKey,
    GroupRecord,
    StoredGroup,
    decode_record,
    encode_key,
    encode_value,
)
from kraft.coordinators.groups.target_assignment import changed_targets, in_parts, is_assignment_due
from metadata.image import MetadataImage, TopicIdPartition
from metadata.records import PartitionRecord, Record, TopicRecord

CLASSIC = ClassicRules(session_ms_min=6_000, session_ms_max=60_000, initial_delay_ms=0, members_max=50)


def image_of(topics: dict[str, int], *, base: MetadataImage | None = None) -> MetadataImage:
    """Topics and their numbers of partitions, beside those of `base`; a topic of it may grow."""
    image = base or MetadataImage()
    records: list[Record] = []
    for name, count in topics.items():
        topic_id = uuid.uuid5(uuid.NAMESPACE_DNS, name)
        known = image.topics.get(topic_id)
        if known is None:
            records.append(TopicRecord(name=name, topic_id=topic_id))
        for number in range(0 if known is None else len(known.partitions), count):
            records.append(
                PartitionRecord(topic_id=topic_id, partition=number, replicas=(1,), isr=(1,), leader=1, leader_epoch=0)
            )
    return image.apply(records)


def rules(**changes: Any) -> ConsumerRules:
    options: dict[str, Any] = {
        "session_timeout_ms": 45_000,
        "heartbeat_interval_ms": 5_000,
        "assignment_interval_ms": 1_000,
        "members_max": 1_000,
        "assignors": ("uniform", "range"),
        "can_upgrade": True,
        "can_downgrade": True,
        "classic": CLASSIC,
    }
    return ConsumerRules(**{**options, **changes})


class Story:
    """One group; who was answered what; and what the log has of it, as bytes."""

    def __init__(self, topics: dict[str, int] | None = None, **changes: Any) -> None:
        self.rules = rules(**changes)
        self.image = image_of(topics or {"a": 6})
        self.group = ClassicGroup(group_id="g")
        self.consumer: ConsumerGroup | None = None
        self.now_ms = 0
        self.answers: dict[int, Any] = {}
        self.log: list[tuple[bytes, bytes | None]] = []
        self.last: tuple[GroupRecord, ...] = ()
        self.beaten: ConsumerHeartbeat | None = None
        """The last heartbeat."""
        self._tickets = 0

    @property
    def here(self) -> ConsumerGroup:
        assert self.consumer is not None
        return self.consumer

    def decided(self, event: GroupEvent) -> Decision:
        return decide_group(
            self.group,
            self.consumer,
            event,
            rules=self.rules,
            image=self.image,
            now_ms=self.now_ms,
            wall_ms=1_000_000 + self.now_ms,
        )

    def do(self, event: GroupEvent) -> Any:
        decision = self.decided(event)
        self.group, self.consumer = decision.group, decision.consumer
        self.last = decision.records
        self.log += [(encode_key(each.key), encode_value(each.value)) for each in decision.records]
        for reply in decision.replies:
            assert reply.ticket not in self.answers, "answered twice"
            self.answers[reply.ticket] = reply.answer
        self._assign_if_due()
        return None if isinstance(event, Tick | TargetsComputed) else self.answers.get(event.ticket)

    def _assign_if_due(self) -> None:
        """As the shell does it for a large group."""
        group, interval_ms = self.consumer, self.rules.assignment_interval_ms
        if group is not None and is_assignment_due(group, interval_ms=interval_ms, now_ms=self.now_ms):
            records = self.last
            for part in in_parts(changed_targets(group, self.image, self.rules.assignors), group.epoch):
                self.do(part)
                records += self.last
            self.last = records

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def beat(self, member_id: str, epoch: int, **fields: Any) -> Any:
        self.beaten = ConsumerHeartbeat(
            ticket=self.ticket(), member_id=member_id, member_epoch=epoch, client_id="c", client_host="/h", **fields
        )
        return self.do(self.beaten)

    def join(self, member_id: str, *topics: str, **fields: Any) -> Any:
        options: dict[str, Any] = {
            "rebalance_timeout_ms": 30_000,
            "topics": frozenset(topics or ("a",)),
            "owned": frozenset(),
        }
        return self.beat(member_id, 0, **{**options, **fields})

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.do(Tick())

    # --- the classic protocol -----------------------------------------------------------------------------------------

    def classic_join(self, member_id: str = "", *, metadata: bytes, **changes: Any) -> Any:
        options: dict[str, Any] = {
            "client_id": "c",
            "client_host": "/h",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 20_000,
            "protocol_type": "consumer",
            "protocols": (("range", metadata),),
            "new_member_id": f"classic-{self._tickets + 1}",
            "is_known_required": False,
        }
        return self.do(Join(ticket=self.ticket(), member_id=member_id, **{**options, **changes}))

    def classic_sync(self, member_id: str, generation: int, **who: Any) -> Any:
        return self.do(Sync(ticket=self.ticket(), member_id=member_id, generation=generation, **who))

    def classic_beat(self, member_id: str, generation: int, **who: Any) -> Any:
        return self.do(Heartbeat(ticket=self.ticket(), member_id=member_id, generation=generation, **who))

    def classic_leave(self, member_id: str = "", **who: Any) -> Any:
        return self.do(Leave(ticket=self.ticket(), member_id=member_id, **who))

    # --- the log ------------------------------------------------------------------------------------------------------

    def replayed(self, *, is_compacted: bool = False) -> tuple[ClassicGroup, ConsumerGroup | None]:
        """What another coordinator makes of the log."""
        log = self.log
        if is_compacted:
            last = {key: at for at, (key, _) in enumerate(log)}
            log = [(key, value) for at, (key, value) in enumerate(log) if last[key] == at]
        group, consumer = ClassicGroup(group_id="g"), None
        for key, value in log:
            record = decode_record(key, value)
            assert record is not None
            if isinstance(record.key, GroupKey):
                stored = record.value
                assert stored is None or isinstance(stored, StoredGroup)
                group = ClassicGroup(group_id="g") if stored is None else restored("g", stored, now_ms=0)
            elif isinstance(record.key, EpochKey) and record.value is None:
                consumer = None
            elif consumer is not None or record.value is not None:
                consumer = consumer or ConsumerGroup(group_id="g")
                consumer.apply(record.key, record.value)  # type: ignore[arg-type]
        return group, consumer


@dataclass
class Client:
    """A member as librdkafka or Java's consumer is one: takes what it is given, and gives up what it is told to."""

    story: Story
    member_id: str
    topics: frozenset[str] = frozenset({"a"})
    pattern: str | None = None
    instance_id: str | None = None
    epoch: int = 0
    owned: Partitions = frozenset()
    has_news: bool = field(default=True)
    """What it owns is not what it said last."""
    may_describe: Callable[[str], bool] = lambda _: True

    def beat(self) -> Any:
        is_joining = self.epoch == 0
        answer = self.story.beat(
            self.member_id,
            self.epoch,
            instance_id=self.instance_id,
            rebalance_timeout_ms=30_000 if is_joining else -1,
            topics=self.topics if is_joining else None,
            pattern=self.pattern if is_joining else None,
            owned=self.owned if self.has_news else None,
            may_describe=self.may_describe,
        )
        if isinstance(answer, ConsumerHeartbeatAnswer):
            self.epoch = answer.member_epoch
            self.has_news = False
            if answer.assignment is not None:
                self.has_news = answer.assignment != self.owned
                self.owned = answer.assignment
        return answer

    def leave(self, epoch: int = -1) -> Any:
        self.owned, self.epoch, self.has_news = frozenset(), 0, True
        return self.story.beat(self.member_id, epoch, instance_id=self.instance_id)


def partitions(image: MetadataImage, topic: str, *numbers: int) -> Partitions:
    return frozenset(TopicIdPartition(image.topic_ids[topic], number) for number in numbers)
