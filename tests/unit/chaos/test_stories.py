"""What conditions are told of a snapshot, what a person sees of it, and how a story waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from kraft.chaos.live import NobodyWatches, describe_action, node_lines
from kraft.chaos.model import Producer, StoryFunction, Topic
from kraft.chaos.nemesis.actions import Action
from kraft.chaos.questions import NotKnown, Now, Value, holds, written
from kraft.chaos.story import ScenarioRun, StepFailed, run_story, scenario
from kraft.chaos.worlds.answers import SnapshotAnswers
from kraft.chaos.worlds.processes.observer import Observer
from kraft.chaos.worlds.snapshot import NodeState, NodeView, PartitionView, ReplicaView, Snapshot
from kraft.chaos.worlds.spec import ScenarioError

PARTITION = PartitionView(
    topic_id="id", leader=2, leader_epoch=4, partition_epoch=9, replicas=(3, 2, 1), isr=(2, 1), is_reassigning=False
)


def replica(role: Any, *, high_watermark: int, log_end: int) -> ReplicaView:
    return ReplicaView(
        role=role,
        topic_id="id",
        leader_epoch=4,
        log_start_offset=0,
        log_end_offset=log_end,
        high_watermark=high_watermark,
        isr=(1, 2),
        maximal_isr=(1, 2),
    )


def view(node: int, own: ReplicaView | None = None, *, metadata_offset: int = 50) -> NodeView:
    return NodeView(
        node=node,
        metadata_offset=metadata_offset,
        controller_id=1,
        controller_epoch=6,
        brokers={1: "active", 2: "active", 3: "fenced"},
        partitions={("t", 0): PARTITION},
        replicas={("t", 0): own} if own else {},
    )


STATES: dict[int, NodeState] = {1: "running", 2: "running", 3: "down"}
SNAPSHOT = Snapshot(
    at_us=1,
    states=STATES,
    views={
        1: view(1, replica("follower", high_watermark=6, log_end=8)),
        2: view(2, replica("leader", high_watermark=7, log_end=9), metadata_offset=51),
    },
)
EMPTY = Snapshot(at_us=1, states=STATES, views={})


@dataclass
class Counts:
    sent: int = 0
    acked: int = 0
    failed: int = 0
    unknown: int = 0
    read: int = 0
    is_done: bool = False
    codes: dict[int, int] = field(default_factory=dict)

    def with_code(self, kafka_code: int) -> int:
        return self.codes.get(kafka_code, 0)


CLIENTS = {"p1": Counts(sent=9, acked=5, failed=1, unknown=3, is_done=True, codes={19: 4}), "r1": Counts(read=7)}


def count_events(event: str, node: int | None) -> int:
    return {("isr_shrunk", None): 3, ("isr_shrunk", 2): 1}.get((event, node), 0)


def now(snapshot: Snapshot = SNAPSHOT) -> Now:
    return Now(SnapshotAnswers(snapshot, CLIENTS, count_events).ask)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda now: now.leader("t", 0), 2),
        (lambda now: now.epoch("t", 0), 4),
        (lambda now: now.isr("t", 0), [1, 2]),
        (lambda now: now.replicas("t", 0), [3, 2, 1]),
        (lambda now: now.followers("t", 0), [3, 1]),
        (lambda now: now.offline("t", 0), False),
        (lambda now: now.hw("t", 0), 7),
        (lambda now: now.log_end(1, "t", 0), 8),
        (lambda now: now.node_hw(1, "t", 0), 6),
        (lambda now: now.partitions("t"), 1),
        (lambda now: now.partitions("u"), 0),
        (lambda now: now.controller(), 1),
        (lambda now: now.controller_epoch(), 6),
        (lambda now: now.nodes(), [1, 2, 3]),
        (lambda now: now.alive(1), True),
        (lambda now: now.alive(3), False),
        (lambda now: now.state(3), "fenced"),
        (lambda now: now.state(9), "down"),
        (lambda now: now.metadata_offset(2), 51),
        (lambda now: now.sent("p1"), 9),
        (lambda now: now.acked(), 5),
        (lambda now: now.failed("p1"), 1),
        (lambda now: now.unknown(), 3),
        (lambda now: now.refused("p1", 19), 4),
        (lambda now: now.done("p1"), True),
        (lambda now: now.done(), False),
        (lambda now: now.read("r1"), 7),
        (lambda now: now.events("isr_shrunk"), 3),
        (lambda now: now.events("isr_shrunk", 2), 1),
    ],
)
def test_answers(question: Callable[[Now], Value], answer: Value) -> None:
    assert question(now()) == answer


@pytest.mark.parametrize(
    "question",
    [
        lambda now: now.leader("t", 0),
        lambda now: now.isr("t", 0),
        lambda now: now.hw("t", 0),
        lambda now: now.state(1),
        lambda now: now.partitions("t"),
    ],
)
def test_nobody_answers(question: Callable[[Now], Value]) -> None:
    with pytest.raises(NotKnown):
        question(now(EMPTY))
    assert not holds(question, now(EMPTY))


def test_what_one_node_cannot_tell_is_not_known() -> None:
    with pytest.raises(NotKnown):
        now().log_end(3, "t", 0)


def test_condition_is_shown_as_written() -> None:
    first, second = lambda now: now.hw("t", 0) == 3, lambda now: now.isr("t", 0) == [1]
    assert (written(first), written(second)) == ("now.hw('t', 0) == 3", "now.isr('t', 0) == [1]")
    assert written(_led_by_one) == "_led_by_one"


def _led_by_one(now: Now) -> bool:
    return now.leader("t", 0) == 1


class Looking(Observer):
    """Nobody runs; whoever looks finds what was given."""

    def __init__(self, snapshot: Snapshot, *, seen: int) -> None:
        self._found = snapshot
        self.metadata_seen = seen

    async def status(self) -> Snapshot:
        return self._found


@pytest.mark.parametrize(
    ("node", "snapshot", "seen", "is_outside"),
    [
        (3, SNAPSHOT, 51, True),
        (1, SNAPSHOT, 51, False),
        (3, SNAPSHOT, 52, False),  # somebody knew more: it may have come back into the ISR
        (3, EMPTY, -1, False),
    ],
)
def test_a_copy_is_spared_unless_it_surely_does_not_count(
    node: int, snapshot: Snapshot, seen: int, is_outside: bool
) -> None:
    assert asyncio.run(Looking(snapshot, seen=seen).is_outside_isr(node, "t", 0)) is is_outside


def test_one_line_per_node() -> None:
    assert [(line.node, line.standing, line.roles) for line in node_lines(SNAPSHOT)] == [
        (1, "active", "active controller; follows t-0"),
        (2, "active", "leads t-0 (epoch 4, ISR 1,2)"),
        (3, "down", ""),
    ]


class World:
    """The high watermark grows by ten with each look, an acknowledged record comes with each; waiting takes no time."""

    def __init__(self, *, acked_per_look: int = 1) -> None:
        self.looks = self.time_ms = 0
        self.acked_per_look = acked_per_look
        self.acts: list[str] = []
        self.refuses = False

    async def look(self) -> Now:
        self.looks += 1
        looks, acked = self.looks, self.looks * self.acked_per_look
        answers = {"hw": 10 * looks, "leader": 1, "isr": [1], "acked": acked}
        return Now(lambda question, arguments: answers.get(question))

    async def sleep(self, ms: int) -> None:
        self.time_ms += ms

    def now_ms(self) -> int:
        return self.time_ms

    async def act(self, action: Action) -> None:
        if self.refuses:
            raise ScenarioError("node 1 does not run")
        self.acts.append(describe_action(action))


def tell(story: StoryFunction, world: World) -> ScenarioRun:
    made = scenario("s", question="?", topics=[Topic(name="t")], clients=[Producer(name="p", topic="t")])(story)
    run = ScenarioRun(made, world, NobodyWatches())
    asyncio.run(run_story(made.story, run))
    return run


def test_a_story_waits_and_acts_in_order() -> None:
    world = World()

    async def story(run: ScenarioRun) -> None:
        now = await run.until(lambda now: now.hw("t", 0) >= 30)
        old = now.leader("t", 0)
        assert now.hw("t", 0) == 30
        await run.kill(old)
        await run.more_acked(2)
        await run.until(lambda now: now.isr("t", 0) == [old])
        await run.restart(1)

    tell(story, world)
    assert world.acts == ["kill nodes 1", "restart nodes 1"]


def test_missed_deadline_message() -> None:
    async def story(run: ScenarioRun) -> None:
        await run.until(
            lambda now: now.isr("t", 0) == [2] or now.epoch("t", 0) == 7, deadline_ms=100
        )  # short: it is missed

    with pytest.raises(StepFailed) as caught:
        tell(story, World())
    text = "now.isr('t', 0) == [2] or now.epoch('t', 0) == 7"
    answered = "isr(t, 0) is [1], epoch(t, 0) is not known"
    assert str(caught.value) == f"step 1 (until {text}): {text} did not hold within 100 ms: {answered}"


def test_records_that_are_not_acknowledged_in_time_are_counted() -> None:
    async def story(run: ScenarioRun) -> None:
        await run.more_acked(10, deadline_ms=100)  # short: it is missed

    with pytest.raises(StepFailed, match="10 of 10 records were still not acknowledged after 100 ms"):
        tell(story, World(acked_per_look=0))


def test_what_cannot_be_done_names_its_step() -> None:
    async def story(run: ScenarioRun) -> None:
        await run.kill(1)

    world = World()
    world.refuses = True
    with pytest.raises(StepFailed, match=r"step 1 \(kill nodes 1\): node 1 does not run"):
        tell(story, world)


def test_mistake_in_story_has_its_line() -> None:
    async def story(run: ScenarioRun) -> None:
        await run.kill(1 // 0)

    with pytest.raises(ScenarioError, match=r"the story is wrong: ZeroDivisionError: .* \(test_stories.py:\d+\)"):
        tell(story, World())


def test_story_sets_measured_counts() -> None:
    async def story(run: ScenarioRun) -> None:
        run.expect(lost=7)
        run.expect_at_the_end(lambda now: now.leader("t", 0) == 1)

    expected = tell(story, World()).expected
    assert expected.lost == 7
    assert len(expected.holds) == 1

    async def wrong(run: ScenarioRun) -> None:
        run.expect(los=7)

    with pytest.raises(ScenarioError, match="los is no count of a verdict"):
        tell(wrong, World())
