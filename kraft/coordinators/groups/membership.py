"""REST consumers as members of their groups: the coordinator takes each step of the protocol for them, at once.

A rebalance never waits for a REST client to ask for something. What a client did not acknowledge of a partition that it
loses is read again by the next owner. REST members do range, roundrobin, sticky and cooperative-sticky; where one of
them leads the group, the assignment is computed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from kraft.broker.principal import principal_of
from kraft.coordinators.groups.assignors import ASSIGNORS, assign
from kraft.coordinators.groups.classic_group import Member, Phase
from kraft.coordinators.groups.classic_members import has_step_to_take, names_of
from kraft.coordinators.groups.classic_requests import Event, Heartbeat, Join, Leave, Sync
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.instance import Instance
from kraft.coordinators.groups.modern_group import Timer
from kraft.coordinators.groups.offsets import CONSUMER
from kraft.coordinators.groups.patterns import topics_of_pattern
from kraft.coordinators.groups.records import GroupRecord
from kraft.coordinators.groups.shard import TICK_RETRY_MS, GroupShard
from kraft.coordinators.groups.subscriptions import (
    COOPERATIVE,
    STICKY,
    Protocols,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from kraft.protocol.errors import CoordinatorNotAvailable
from kraft.protocol.primitives import TopicPartition
from metadata.acls import AclOperation, AclResource
from metadata.persistent_map import text_draft

PREFERENCE = (STICKY, "range", "roundrobin", COOPERATIVE)
"""Sticky first: a client goes on with what it was reading."""
NOBODY = 0
"""Ticket of a step that nobody waits for."""
ROUNDS_MAX = 100
"""Rounds of steps that one change may cause; more would be a loop that does not end."""
REBALANCE_TIMEOUT_MS = 60_000
"""How long a REST member lets the others of its group join."""
CLIENT_HOST = "/rest"

assert set(PREFERENCE) == set(ASSIGNORS)


class Membership:
    """Membership of the REST consumers of one shard in their groups."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard
        self._counts: dict[str, Mapping[str, int]] = {}
        self._is_stepping = False
        shard.after_change = self.step
        shard.on_expiry = self._expire

    # --- what a request of a client does ------------------------------------------------------------------

    def touch(self, entry: GroupMetadata, instance: Instance, *, reads_ms: int = 0) -> None:
        """A request is a heartbeat of its member. `reads_ms`: how long it may wait for records: that is no idleness."""
        due_ms = self._shard.now_ms + instance.config.timeout_ms + reads_ms
        entry.expires_ms[instance.name] = due_ms
        generation = _generation_of(entry, instance)
        if generation is not None:
            self._shard.submit(entry, Heartbeat(ticket=NOBODY, member_id=instance.member_id, generation=generation))

    def leave(self, entry: GroupMetadata, instance: Instance) -> None:
        if instance.member_id in entry.member_ids:
            self._shard.submit(entry, Leave(ticket=NOBODY, member_id=instance.member_id))

    def remove(self, entry: GroupMetadata, instance: Instance) -> list[GroupRecord]:
        """The records that take an instance away; leaving the group makes its own."""
        self._counts.pop(entry.group.group_id, None)
        return [instance.tombstone()]

    # --- steps of the protocol ----------------------------------------------------------------------------

    def step(self, entry: GroupMetadata) -> None:
        """Take all steps that the group waits for from its REST members."""
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            _offer_all_protocols(entry)
            for _ in range(ROUNDS_MAX):
                if not self._step_all(entry):
                    break
            else:
                raise AssertionError(f"group {entry.group.group_id!r} does not come to rest: {entry.group}")
            self._take_assignments(entry)
        finally:
            self._is_stepping = False

    def _step_all(self, entry: GroupMetadata) -> bool:
        """One step of each instance that has one to take; whether any had."""
        has_stepped = False
        for instance in entry.instances.values():
            event = self._step_of(entry, instance) if instance.is_subscribed else None
            if event is not None:
                before = entry.group, entry.consumer
                self._shard.submit(entry, event)
                is_taken = entry.group is not before[0] or entry.consumer is not before[1]
                has_stepped = has_stepped or is_taken  # a refused step is not taken again
        return has_stepped

    def _step_of(self, entry: GroupMetadata, instance: Instance) -> Event | None:
        if entry.consumer is not None:
            return self._step_in_consumer_group(entry, entry.consumer, instance)
        group = entry.group
        member = group.members.get(instance.member_id)
        if member is None:
            return self._join(entry, instance, new_member_id=instance.member_id)
        match group.phase:
            case Phase.PREPARING if member.joining is None:
                return self._join(entry, instance, member_id=member.member_id)
            case Phase.COMPLETING if member.syncing is None:
                return self._sync(entry, member)
            case Phase.STABLE if self._has_changed(entry, instance, member):
                return self._join(entry, instance, member_id=member.member_id)
        return None

    def _step_in_consumer_group(self, entry: GroupMetadata, group: ConsumerGroup, instance: Instance) -> Event | None:
        """The next step of a member of the classic protocol, which revokes at once (`classic_members`)."""
        member = group.members.get(instance.member_id)
        if member is None:
            return self._join(entry, instance, new_member_id=instance.member_id)
        if has_step_to_take(group, member) or member.topics != frozenset(self._topics(instance)):
            return self._join(entry, instance, member_id=member.member_id)
        if (Timer.SYNC, member.member_id) in group.deadlines:
            return Sync(ticket=NOBODY, member_id=member.member_id, generation=member.member_epoch)
        return None

    def _has_changed(self, entry: GroupMetadata, instance: Instance, member: Member) -> bool:
        """Another subscription, topics that came or grew, or (KIP-429) partitions that were only given up so far."""
        if frozenset(_topics_of(member)) != frozenset(self._topics(instance)):
            return True
        claimed = _subscription_of(member, None).owned
        if entry.group.protocol == COOPERATIVE and set(claimed) - set(_assignment_of(member)):
            return True
        if member.member_id != entry.group.leader:
            return False
        counts = self._partition_counts(entry)
        return (self._counts.get(entry.group.group_id) or _assigned_counts(entry)) != counts

    def _join(self, entry: GroupMetadata, instance: Instance, *, member_id: str = "", new_member_id: str = "") -> Join:
        settings = self._shard.context.settings()
        low, high = settings.group_min_session_timeout_ms, settings.group_max_session_timeout_ms
        return Join(
            ticket=NOBODY,
            member_id=member_id,
            client_id=instance.name,
            client_host=CLIENT_HOST,
            session_timeout_ms=min(max(instance.config.timeout_ms, low), high),
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            protocol_type=CONSUMER,
            protocols=self._protocols(entry, instance),
            new_member_id=new_member_id,
            is_known_required=False,
        )

    def _protocols(self, entry: GroupMetadata, instance: Instance) -> Protocols:
        owned = instance.owned
        member = entry.group.members.get(instance.member_id)
        if member is not None and member.assignment and entry.group.protocol == COOPERATIVE:
            owned = _assignment_of(member)
        if entry.consumer is not None:
            owned = self._assigned(entry, instance)
        subscription = Subscription(
            topics=self._topics(instance), owned=owned, generation=entry.group.generation if owned else -1
        )
        return tuple((name, encode_subscription(subscription, name)) for name in PREFERENCE)

    def _sync(self, entry: GroupMetadata, member: Member) -> Sync:
        group = entry.group
        assignments: tuple[tuple[str, bytes], ...] = ()
        if member.member_id == group.leader:
            assignments = self._assign(entry)
        return Sync(ticket=NOBODY, member_id=member.member_id, generation=group.generation, assignments=assignments)

    def _assign(self, entry: GroupMetadata) -> tuple[tuple[str, bytes], ...]:
        group = entry.group
        assert group.protocol is not None, group
        members = {}
        for key, member in group.members.items():
            subscription = _subscription_of(member, group.protocol)
            members[key] = Subscription(
                topics=subscription.topics,
                owned=subscription.owned,
                generation=subscription.generation,
                instance_id=member.instance_id,
            )
        counts = self._partition_counts(entry)
        self._counts[group.group_id] = counts
        assigned = assign(group.protocol, members, counts)
        return tuple((key, encode_assignment(partitions)) for key, partitions in assigned.items())

    def _take_assignments(self, entry: GroupMetadata) -> None:
        """What the group assigned becomes the instance's, once the group is stable."""
        if entry.consumer is None and entry.group.phase is not Phase.STABLE:
            return
        records = []
        for instance in entry.instances.values():
            if instance.member_id not in entry.member_ids or not instance.is_subscribed:
                continue
            assigned = self._assigned(entry, instance)
            if set(assigned) != set(instance.owned):
                records.append(instance.with_partitions(assigned).record())
        self._shard.append_apart(records)

    def _assigned(self, entry: GroupMetadata, instance: Instance) -> tuple[TopicPartition, ...]:
        if entry.consumer is None:
            return _assignment_of(entry.group.members[instance.member_id])
        member = entry.consumer.members.get(instance.member_id)
        return () if member is None else tuple(names_of(member.assigned, self._shard.context.image()))

    # --- topics -------------------------------------------------------------------------------------------

    def _topics(self, instance: Instance) -> tuple[str, ...]:
        if instance.pattern is None:
            return instance.topics
        found = topics_of_pattern(instance.pattern, self._shard.context.image().topic_ids)
        may = self._shard.context.permissions(principal_of(instance.owner, instance.host))
        if may is None:
            return found
        return tuple(topic for topic in found if may.silently(AclOperation.DESCRIBE, AclResource.TOPIC, topic))

    def _partition_counts(self, entry: GroupMetadata) -> dict[str, int]:
        image = self._shard.context.image()
        wanted = {topic for member in entry.group.members.values() for topic in _topics_of(member)}
        found = {name: image.topic(name) for name in sorted(wanted)}
        return {name: len(topic.partitions) for name, topic in found.items() if topic is not None}

    def on_metadata(self) -> None:
        """Topics may have come, grown or gone."""
        for entry in list(self._shard.entries.values()):
            if entry.instances and entry.member_ids:
                self._shard.changed(entry)

    # --- time ---------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        for entry in list(self._shard.entries.values()):
            for name, due_ms in list(entry.expires_ms.items()):
                if due_ms <= self._shard.now_ms and name in entry.instances:
                    instance = entry.instances[name]
                    try:
                        self._shard.append(self.remove(entry, instance))
                    except CoordinatorNotAvailable:
                        entry.expires_ms[name] = self._shard.now_ms + TICK_RETRY_MS
                    else:
                        self.leave(entry, instance)


def _generation_of(entry: GroupMetadata, instance: Instance) -> int | None:
    """None while it is no member."""
    if entry.consumer is None:
        return entry.group.generation if instance.member_id in entry.group.members else None
    member = entry.consumer.members.get(instance.member_id)
    return None if member is None or member.classic is None else member.member_epoch


def _offer_all_protocols(entry: GroupMetadata) -> None:
    """The log has what the group chose, and no more of what a member could do. Of a REST member that is known: without
    this, a group that was loaded with the choice of its REST members alone would refuse others for ever."""
    group = entry.group
    for instance in entry.instances.values():
        member = group.members.get(instance.member_id)
        if member is None or {name for name, _ in member.protocols} >= {*PREFERENCE}:
            continue
        stored = _subscription_of(member, group.protocol)
        offered = tuple((name, member.metadata(name) or encode_subscription(stored, name)) for name in PREFERENCE)
        members = text_draft(entry.group.members)
        members[member.member_id] = member._replace(protocols=offered)
        entry.group = replace(entry.group, members=members.frozen(), tally=None)


def _assigned_counts(entry: GroupMetadata) -> dict[str, int]:
    """How many partitions of each topic are given to somebody: what an earlier coordinator knew when it assigned."""
    given = {each for member in entry.group.members.values() for each in _assignment_of(member)}
    return dict(Counter(topic for topic, _ in given))


def _subscription_of(member: Member, protocol: str | None) -> Subscription:
    try:
        return decode_subscription(member.metadata(protocol) or member.protocols[0][1], protocol or "")
    except ValueError:
        return Subscription(topics=())


def _topics_of(member: Member) -> tuple[str, ...]:
    return _subscription_of(member, None).topics


def _assignment_of(member: Member) -> tuple[TopicPartition, ...]:
    try:
        return decode_assignment(member.assignment)
    except ValueError:
        return ()
