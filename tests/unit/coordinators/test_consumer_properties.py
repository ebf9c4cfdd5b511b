"""A consumer group under random schedules: no partition with two members, convergence, and the same from the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from kraft.coordinators.groups.consumer_group import ConsumerGroup, GroupState
from kraft.coordinators.groups.consumer_requests import Beaten
from kraft.coordinators.groups.reconciliation import MemberState
from kraft.protocol.errors import KafkaError
from tests.unit.coordinators.consumer_story import Client, Story, image_of

NAMES = ["a", "b", "c"]
MEMBERS = st.sampled_from([f"m{number}" for number in range(5)])


def facts(group: ConsumerGroup | None) -> Any:
    """What a replay brings back: all but what is soft."""
    return None if group is None else replace(group, deadlines={}, is_metadata_checked=False)


class Groups(RuleBasedStateMachine):
    """Clients join, beat, lose answers, leave and die; topics grow. A client owns what it was told last, and gives up
    at its next heartbeat; until then it reads what it had."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story({"a": 4, "b": 3}, assignors=("uniform", "range"))
        self.clients: dict[str, Client] = {}
        self.reading: dict[str, frozenset[Any]] = {}

    @initialize(assignor=st.sampled_from(["uniform", "range"]))
    def begin(self, assignor: str) -> None:
        self.story.rules = replace(self.story.rules, assignors=(assignor,))

    @rule(
        member_id=MEMBERS, topics=st.frozensets(st.sampled_from(NAMES)), pattern=st.sampled_from([None, None, "[ab]"])
    )
    def join(self, member_id: str, topics: frozenset[str], pattern: str | None) -> None:
        if member_id not in self.clients:
            self.clients[member_id] = Client(self.story, member_id, topics=topics, pattern=pattern)
            self.beat(member_id, lost=False)

    @rule(member_id=MEMBERS, lost=st.booleans())
    def beat(self, member_id: str, lost: bool) -> None:
        client = self.clients.get(member_id)
        if client is None:
            return
        before = replace(client)
        # What it says it owns is what it reads: it has closed the rest before it says so.
        self.reading[member_id] = client.owned
        answer = client.beat()
        if lost:  # it goes on with the epoch and the partitions that it had, and says all
            self.clients[member_id] = replace(before, has_news=True)
        elif isinstance(answer, Beaten):
            self.reading[member_id] = client.owned | before.owned
        else:
            assert isinstance(answer, KafkaError)
            self.reading[member_id] = frozenset()
            self.clients[member_id] = replace(before, epoch=0, owned=frozenset(), has_news=True)

    @rule(member_id=MEMBERS)
    def leave(self, member_id: str) -> None:
        if member_id in self.clients:
            del self.reading[member_id]
            self.clients.pop(member_id).leave()

    @rule(member_id=MEMBERS)
    def die(self, member_id: str) -> None:
        if member_id in self.clients:
            del self.clients[member_id], self.reading[member_id]

    @rule(ms=st.sampled_from([1_000, 11_000, 46_000]))
    def wait(self, ms: int) -> None:
        self.story.wait(ms)
        here = self.story.consumer
        for member_id in list(self.clients):
            if here is None or member_id not in here.members:  # its session is over, and the client knows that, too
                self.reading[member_id] = frozenset()
                self.clients[member_id] = replace(self.clients[member_id], epoch=0, owned=frozenset(), has_news=True)

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 7))
    def grow(self, name: str, count: int) -> None:
        known = self.story.image.topic(name)
        if known is None or len(known.partitions) < count:
            self.story.image = image_of({name: count}, base=self.story.image)
            if self.story.consumer is not None:
                self.story.consumer.is_metadata_checked = False

    @rule()
    def fail_over(self) -> None:
        self.story.group, again = self.story.replayed(is_compacted=True)
        if again is not None:
            for member_id, member in again.members.items():
                key = next(iter(self.story.here.deadlines), None)
                if key is not None:
                    again.deadlines[type(key[0]).SESSION, member_id] = self.story.now_ms + 45_000
                    if member.state is MemberState.UNREVOKED_PARTITIONS:
                        again.deadlines[type(key[0]).REBALANCE, member_id] = self.story.now_ms + 30_000
        self.story.consumer = again

    @invariant()
    def nobody_reads_what_another_reads(self) -> None:
        seen: set[Any] = set()
        for member_id, partitions in self.reading.items():
            assert seen.isdisjoint(partitions), (member_id, self.reading)
            seen |= partitions

    @invariant()
    def each_partition_has_one_owner(self) -> None:
        here = self.story.consumer
        if here is not None:
            held = [
                (each, key) for key, member in here.members.items() for each in (*member.assigned, *member.revoking)
            ]
            assert dict(held) == here.owners
            assert len(held) == len(here.owners)

    @invariant()
    def the_log_tells_the_same(self) -> None:
        for is_compacted in (False, True):
            _, again = self.story.replayed(is_compacted=is_compacted)
            assert facts(again) == facts(self.story.consumer)

    def teardown(self) -> None:
        """Without further events everybody gets there, and everything is assigned."""
        if not self.clients:
            return
        self.story.wait(46_000)
        self.wait(1_000)
        for _ in range(12):
            for member_id in list(self.clients):
                self.beat(member_id, lost=False)
                self.nobody_reads_what_another_reads()
            self.story.wait(10_000)
        here = self.story.here
        assert here.state is GroupState.STABLE
        for member_id, client in self.clients.items():
            assert client.owned == here.targets.get(member_id, frozenset()), member_id
        topics = here.subscribed_topics & self.story.image.topic_ids.keys()
        assert len(here.owners) == sum(len(self.story.image.topics_by_name[name].partitions) for name in topics)


def test_random_schedules():
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Groups, settings=settings(max_examples=200, stateful_step_count=30, deadline=None, derandomize=True)
    )
