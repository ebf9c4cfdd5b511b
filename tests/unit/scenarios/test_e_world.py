"""What conditions are told of a snapshot, what a person sees of it, and how a story waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from kraft.scenarios.conditions import Value, World, parse_expression
from kraft.scenarios.live import NobodyWatches, describe_step, node_lines
from kraft.scenarios.model import Scenario, Step
from kraft.scenarios.observing import Observing
from kraft.scenarios.parse import parse_scenario
from kraft.scenarios.snapshot import NodeState, NodeView, PartitionView, ReplicaView, Snapshot
from kraft.scenarios.spec import ScenarioError
from kraft.scenarios.story import StepFailed, Story
from kraft.scenarios.world import RunWorld
from tests.unit.scenarios.test_e_parse import GOOD

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


def ask(text: str, snapshot: Snapshot = SNAPSHOT) -> Value:
    world = RunWorld(snapshot, CLIENTS, count_events)
    return asyncio.run(parse_expression(text).value(world, {}))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("leader(t, 0)", 2),
        ("epoch(t, 0)", 4),
        ("isr(t, 0)", [1, 2]),
        ("replicas(t, 0)", [3, 2, 1]),
        ("followers(t, 0)", [3, 1]),
        ("offline(t, 0)", False),
        ("hw(t, 0)", 7),
        ("log_end(1, t, 0)", 8),
        ("log_end(3, t, 0)", None),
        ("node_hw(1, t, 0)", 6),
        ("partitions(t)", 1),
        ("partitions(u)", 0),
        ("controller()", 1),
        ("controller_epoch()", 6),
        ("nodes()", [1, 2, 3]),
        ("alive(1)", True),
        ("alive(3)", False),
        ("state(3)", "fenced"),
        ("state(9)", "down"),
        ("metadata_offset(2)", 51),
        ("metadata_offset(3)", None),
        ("sent(p1)", 9),
        ("acked()", 5),
        ("failed(p1)", 1),
        ("unknown()", 3),
        ("refused(p1, 19)", 4),
        ("done(p1)", True),
        ("done()", False),
        ("read(r1)", 7),
        ("events(isr_shrunk)", 3),
        ("events(isr_shrunk, 2)", 1),
    ],
)
def test_answers(question: str, answer: Value) -> None:
    assert ask(question) == answer


@pytest.mark.parametrize("question", ["leader(t, 0)", "isr(t, 0)", "hw(t, 0)", "state(1)", "partitions(t)"])
def test_nobody_answers(question: str) -> None:
    assert ask(question, EMPTY) is None


class Looking(Observing):
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


class Stage:
    """The high watermark grows by ten with each look, an acknowledged record comes with each question."""

    def __init__(self) -> None:
        self.looks = self.asked = 0
        self.acts: list[tuple[str, dict[str, Value]]] = []
        self.refuses = False

    async def look(self) -> World:
        self.looks += 1
        stage = self

        class Looked:
            async def ask(self, function: str, arguments: tuple[Value, ...]) -> Value:
                return {"hw": 10 * stage.looks, "leader": 1, "isr": [1]}.get(function)

        return Looked()

    def acked(self) -> int:
        self.asked += 1
        return self.asked

    async def act(self, step: Step, names: dict[str, Value]) -> None:
        if self.refuses:
            raise ScenarioError("node 1 does not run")
        self.acts.append((describe_step(step), dict(names)))


def scenario_with(steps: str) -> Scenario:
    head, _, _ = GOOD.partition("[[steps]]")
    return parse_scenario(head + steps, file="s.toml")


def tell(steps: str, stage: Stage) -> Story:
    story = Story(scenario_with(steps), stage, NobodyWatches())
    asyncio.run(story.tell())
    return story


def test_a_story_waits_remembers_and_acts_in_order() -> None:
    stage = Stage()
    story = tell(
        """
[[steps]]
when = "hw(t, 0) >= 30"
remember = { old = "leader of t-0", base = "hw(t, 0)" }
do = "kill"
node = "old"

[[steps]]
after_acked = 2
when = "isr(t, 0) == [old]"
do = "restart"
node = 1
""",
        stage,
    )
    assert story.names == {"old": 1, "base": 40}
    assert [text.rpartition(": ")[2] for text, _ in stage.acts] == ["kill node old", "restart node 1"]
    assert stage.acts[0][1] == story.names


def test_a_missed_deadline_tells_what_was_still_missing() -> None:
    with pytest.raises(StepFailed) as caught:
        tell('[[steps]]\nwhen = "isr(t, 0) == [2]"\ndeadline_ms = 1\n', Stage())
    told = "step 1 (when isr(t, 0) == [2]): isr(t, 0) == [2] did not hold within 1 ms: isr(t, 0) is [1]"
    assert str(caught.value) == told


def test_records_that_are_not_acknowledged_in_time_are_counted() -> None:
    stage = Stage()
    stage.acked = lambda: 3  # type: ignore[method-assign]
    with pytest.raises(StepFailed, match="10 of 10 records were still not acknowledged after 1 ms"):
        tell("[[steps]]\nafter_acked = 10\ndeadline_ms = 1\n", stage)


def test_what_cannot_be_remembered_ends_the_story() -> None:
    with pytest.raises(StepFailed, match="x = epoch\\(t, 0\\) is not known"):
        tell('[[steps]]\nremember = { x = "epoch(t, 0)" }\n', Stage())


def test_an_action_that_cannot_be_done_names_its_step() -> None:
    stage = Stage()
    stage.refuses = True
    with pytest.raises(StepFailed, match=r"step 1 \(kill node 1\): node 1 does not run"):
        tell('[[steps]]\ndo = "kill"\nnode = 1\n', stage)
