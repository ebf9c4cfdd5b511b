"""A consumer group under random schedules: no partition with two members, convergence, and the same from the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kraft.coordinators.groups import consumer_protocol, reconciliation
from kraft.coordinators.groups.consumer_draft import ConsumerDraft
from kraft.coordinators.groups.consumer_group import ConsumerGroup, ConsumerMember, GroupState
from kraft.coordinators.groups.consumer_records import ConsumerKey, ConsumerValue, TargetKey
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from kraft.coordinators.groups.group_protocols import loaded
from kraft.protocol.errors import KafkaError
from tests.support.repetitions import few_and_many
from tests.unit.coordinators.consumer_story import Client, Story, image_of

NAMES = ["a", "b", "c"]
IDS = [f"m{number}" for number in range(5)]
ANY = st.integers(0, 10**6)
"""Of those who are there, one."""


def one_of(those: Iterable[str], number: int) -> str:
    order = sorted(those)
    return order[number % len(order)]


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
        """Whoever is not in it may have been taken for one that gave up: it learns that at its next heartbeat."""
        self.sent: dict[str, list[ConsumerHeartbeat]] = {}

    @initialize(assignor=st.sampled_from(["uniform", "range"]))
    def begin(self, assignor: str) -> None:
        self.story.rules = replace(self.story.rules, assignors=(assignor,))

    @precondition(lambda self: len(self.clients) < len(IDS))
    @rule(number=ANY, topics=st.frozensets(st.sampled_from(NAMES)), pattern=st.sampled_from([None, None, "[ab]"]))
    def join(self, number: int, topics: frozenset[str], pattern: str | None) -> None:
        member_id = one_of([each for each in IDS if each not in self.clients], number)
        self.clients[member_id] = Client(self.story, member_id, topics=topics, pattern=pattern)
        self.beat_of(member_id)

    @precondition(lambda self: self.clients)
    @rule(number=ANY, is_lost=st.booleans(), is_busy=st.booleans())
    def beat(self, number: int, is_lost: bool, is_busy: bool) -> None:
        self.beat_of(one_of(self.clients, number), is_lost=is_lost, is_busy=is_busy)

    def beat_of(self, member_id: str, *, is_lost: bool = False, is_busy: bool = False) -> None:
        """Lost is the answer. Who is busy has not yet closed what it was told to give up, and says nothing of it."""
        client = self.clients[member_id]
        before = replace(client)
        is_believed = member_id in self.reading
        reads = before.owned
        if is_busy and client.epoch:
            client.has_news = False
            reads |= self.reading.get(member_id, frozenset())
        answer = client.beat()
        assert self.story.beaten is not None
        self.sent.setdefault(member_id, []).append(self.story.beaten)
        if isinstance(answer, ConsumerHeartbeatAnswer):
            self.has_what_it_reads(member_id, reads | client.owned)
        if is_lost:  # it goes on with the epoch and the partitions that it had, and says all
            self.clients[member_id] = replace(before, has_news=True)
            if is_believed:  # what it says it owns is what it reads: it has closed the rest before it says so
                self.reading[member_id] = reads
        elif isinstance(answer, ConsumerHeartbeatAnswer):
            self.reading[member_id] = client.owned | reads
            client.has_news |= is_busy
        else:
            assert isinstance(answer, KafkaError)
            self.reading[member_id] = frozenset()
            self.clients[member_id] = replace(before, epoch=0, owned=frozenset(), has_news=True)

    def has_what_it_reads(self, member_id: str, reads: frozenset[Any]) -> None:
        """G10: a heartbeat is refused if the member thinks that it has more than the coordinator does."""
        member = self.story.here.members[member_id]
        more = reads - member.assigned.keys() - member.revoking.keys()
        assert not more, f"{member_id} was answered and goes on with {more}, which it does not have"

    @precondition(lambda self: self.sent)
    @rule(number=ANY, ago=st.integers(1, 4))
    def come_late(self, number: int, ago: int) -> None:
        """A copy of a heartbeat that the client sent once, before it sent it again on another connection; nobody reads
        the answer. Where it says that the client owns less than it does now, the coordinator believes that, as Kafka's
        does, and gives the rest away: the client's next heartbeat then has to be refused."""
        member_id = one_of(self.sent, number)
        late = self.sent[member_id][-ago:][0]
        self.story.do(replace(late, ticket=self.story.ticket()))
        self.reading.pop(member_id, None)

    @precondition(lambda self: self.clients)
    @rule(number=ANY, is_dying=st.booleans())
    def go(self, number: int, is_dying: bool) -> None:
        """Who dies says nothing."""
        member_id = one_of(self.clients, number)
        client = self.clients.pop(member_id)
        if not is_dying:
            client.leave()
        self.forget(member_id)

    def forget(self, member_id: str) -> None:
        self.reading.pop(member_id, None)
        self.sent.pop(member_id, None)

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
        self.story.group, self.story.consumer = self.story.replayed(is_compacted=True)
        if self.story.consumer is not None:
            loaded(self.story.consumer, rules=self.story.rules, now_ms=self.story.now_ms)

    @invariant()
    def nobody_reads_what_another_reads(self) -> None:
        seen: set[Any] = set()
        for member_id, partitions in self.reading.items():
            assert seen.isdisjoint(partitions), f"{member_id} reads what another reads: {self.reading}"
            seen |= partitions

    @invariant()
    def each_partition_has_one_owner(self) -> None:
        here = self.story.consumer
        if here is not None:
            held = [
                (each, key) for key, member in here.members.items() for each in (*member.assigned, *member.revoking)
            ]
            assert len(held) == len(dict(held)), f"a partition is with two members: {held}"
            assert dict(held) == here.owners, "owners are not those who have partitions"

    @invariant()
    def the_log_holds_the_same(self) -> None:
        for is_compacted in (False, True):
            _, again = self.story.replayed(is_compacted=is_compacted)
            assert facts(again) == facts(self.story.consumer), f"another coordinator reads other facts, {is_compacted=}"

    def teardown(self) -> None:
        """Without further events everybody gets there, and everything is assigned."""
        if not self.clients:
            return
        self.story.wait(46_000)
        self.wait(1_000)
        for _ in range(12):
            for member_id in list(self.clients):
                self.beat_of(member_id)
                self.nobody_reads_what_another_reads()
            self.story.wait(10_000)
        here = self.story.here
        assert here.state is GroupState.STABLE, f"after twelve heartbeats of all the group is {here.state}"
        for member_id, client in self.clients.items():
            assert client.owned == here.targets.get(member_id, frozenset()), f"{member_id} has not what it should have"
        topics = here.subscribed_topics & self.story.image.topic_ids.keys()
        existing = sum(len(self.story.image.topics_by_name[name].partitions) for name in topics)
        assert len(here.owners) == existing, f"{existing} partitions are wanted, {len(here.owners)} have an owner"


def run_groups(*, examples: int, phases: Collection[Phase]) -> None:
    """Without Hypothesis' explanations, and with one failure at a time: both take minutes here."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        phases=phases,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(Groups, settings=chosen)  # type: ignore[no-untyped-call]


@few_and_many("examples", 50, 200)
def test_random_schedules(examples: int) -> None:
    run_groups(examples=examples, phases=(Phase.generate, Phase.shrink))


# --- it can fail ----------------------------------------------------------------------------------------------------


def revocation_not_awaited(patch: pytest.MonkeyPatch) -> None:
    """What a member has to give up goes to the next one before it has said that it gave it up."""
    patch.setattr(reconciliation, "_still_owns", lambda partitions, owned: False)


def old_epoch_with_anything(patch: pytest.MonkeyPatch) -> None:
    """The epoch before the current one is taken, whatever the member says that it owns."""
    check = consumer_protocol._check_epoch

    def checked(member: ConsumerMember, event: ConsumerHeartbeat) -> None:
        if event.member_epoch != member.previous_epoch:
            check(member, event)

    patch.setattr(consumer_protocol, "_check_epoch", checked)


def target_in_memory_alone(patch: pytest.MonkeyPatch) -> None:
    """Target assignments are applied and not written."""
    write = ConsumerDraft.write

    def forgetful(draft: ConsumerDraft, key: ConsumerKey, value: ConsumerValue | None) -> None:
        write(draft, key, value)
        if isinstance(key, TargetKey):
            draft.records.pop()

    patch.setattr(ConsumerDraft, "write", forgetful)


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [
        (revocation_not_awaited, "was answered and goes on with"),
        pytest.param(old_epoch_with_anything, "was answered and goes on with", marks=pytest.mark.long),
        (target_in_memory_alone, "another coordinator reads other facts"),
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], verdict: str
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=verdict):
        run_groups(examples=1_000, phases=(Phase.generate,))
