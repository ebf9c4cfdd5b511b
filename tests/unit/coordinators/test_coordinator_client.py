"""Requests to a coordinator from any node: local or remote, asked again while it moves, with an answer at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.coordinators.coordinator_client import (
    MOVED,
    NOT_CARRIED_OUT,
    OUTCOME_UNKNOWN,
    CoordinatorClient,
)
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    KafkaError,
    NotCoordinator,
    RequestTimedOut,
)
from metadata.controller.requests import NewTopic
from metadata.environment import ConnectionClosed, NotConnected
from metadata.internal_topics import OFFSETS_TOPIC
from metadata.retries import ELECTION_RETRY_MS
from metadata.settings import BrokerSettings

WAIT_MS = 1_000
REPEATABLE = (*NOT_CARRIED_OUT, *OUTCOME_UNKNOWN)


class Coordinator:
    def __init__(self, node_id: int, errors: list[Exception]) -> None:
        self.node_id = node_id
        self.errors = errors
        self.asked = 0

    async def ask(self) -> int:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        return self.node_id


class Cluster:
    """Node 1 asks. `leaders` are those of the partitions of the topic."""

    def __init__(self, leaders: list[int], *errors: Exception) -> None:
        self.leaders = leaders
        self.coordinators = {node_id: Coordinator(node_id, list(errors)) for node_id in (1, 2, 3)}
        self.created = 0
        self.gateway = SimpleNamespace(
            node_id=1,
            image=SimpleNamespace(topic=self.topic),
            settings=BrokerSettings(),
            nodes={1: SimpleNamespace(roles=("broker",)), 2: SimpleNamespace(roles=("controller",))},
            ensure_topic=self.create,
        )

    def topic(self, name: str) -> Any:
        assert name == OFFSETS_TOPIC
        if not self.leaders:
            return None
        partitions = {
            number: SimpleNamespace(leader=leader, has_leader=leader >= 0) for number, leader in enumerate(self.leaders)
        }
        return SimpleNamespace(partitions=partitions)

    async def create(self, new: NewTopic) -> None:
        assert new == NewTopic(name=OFFSETS_TOPIC, partitions=50, replication_factor=1)
        self.created += 1
        self.leaders = [2]

    def remote(self, node_id: int) -> Coordinator:
        assert node_id != 1, "the own one is asked in process"
        return self.coordinators[node_id]

    def play(self, story: Callable[[CoordinatorClient[Coordinator]], Awaitable[Any]]) -> tuple[Any, int]:
        """What it returned, and after how many ms."""
        world = SimulatedWorld(1)
        clock = world.machine("node-1").environment.clock
        client = CoordinatorClient(
            gateway=cast(Any, self.gateway),
            clock=clock,
            topic=OFFSETS_TOPIC,
            local=self.coordinators[1],
            remote=self.remote,
        )

        async def timed() -> tuple[Any, int]:
            begun_ms = clock.monotonic_ms()
            try:
                answer = await story(client)
            except (KafkaError, ConnectionClosed, OSError) as error:
                answer = error
            return answer, clock.monotonic_ms() - begun_ms

        return world.run(timed())

    def ask(self, retriable: tuple[type[Exception], ...] = REPEATABLE) -> tuple[Any, int]:
        return self.play(
            lambda client: client.ask("key", lambda each: each.ask(), retriable=retriable, wait_ms=WAIT_MS)
        )


@pytest.mark.parametrize("leader", [1, 2])
def test_the_coordinator_is_the_leader_of_the_partition(leader: int) -> None:
    cluster = Cluster([leader])
    assert cluster.ask() == (leader, 0)
    assert [each.asked for each in cluster.coordinators.values()] == [leader == 1, leader == 2, 0]


def test_the_topic_comes_into_being_when_it_is_needed() -> None:
    cluster = Cluster([])
    assert cluster.ask() == (2, 0)
    assert cluster.created == 1


@pytest.mark.parametrize("error", [NotCoordinator("moved"), CoordinatorLoadInProgress("loads"), NotConnected("down")])
def test_a_coordinator_that_moves_is_asked_again_until_the_deadline(error: Exception) -> None:
    answer, after_ms = Cluster([2], error).ask(NOT_CARRIED_OUT)
    assert type(answer) is (CoordinatorNotAvailable if isinstance(error, NotConnected) else type(error))
    assert WAIT_MS <= after_ms <= WAIT_MS + ELECTION_RETRY_MS


def test_a_refusal_is_no_reason_to_ask_again() -> None:
    answer, after_ms = Cluster([2], GroupIdNotFound("none")).ask()
    assert isinstance(answer, GroupIdNotFound)
    assert after_ms == 0


def test_an_unknown_outcome_is_asked_for_again_only_where_that_does_no_harm() -> None:
    answer, after_ms = Cluster([2], ConnectionClosed("lost")).ask(NOT_CARRIED_OUT)
    assert isinstance(answer, RequestTimedOut)
    assert after_ms == 0
    answer, after_ms = Cluster([2], ConnectionClosed("lost")).ask(REPEATABLE)
    assert isinstance(answer, CoordinatorNotAvailable)
    assert after_ms >= WAIT_MS


def test_each_coordinator_is_asked_and_a_part_is_no_list() -> None:
    async def story(client: CoordinatorClient[Coordinator], *, needs_all_leaders: bool = False) -> Any:
        retriable = (*MOVED, CoordinatorNotAvailable)
        return await client.ask_each(
            lambda each: each.ask(), retriable=retriable, needs_all_leaders=needs_all_leaders, wait_ms=WAIT_MS
        )

    assert Cluster([3, 1, 3, -1]).play(story) == ({1: 1, 3: 3}, 0)
    answer, after_ms = Cluster([3, 1, 3, -1]).play(lambda client: story(client, needs_all_leaders=True))
    assert isinstance(answer, NotCoordinator)
    assert after_ms >= WAIT_MS
    cluster = Cluster([1, 2])
    cluster.coordinators[2].errors = [ConnectionClosed("lost")]
    answer, after_ms = cluster.play(story)
    assert isinstance(answer, CoordinatorNotAvailable)
    assert "node 2" in answer.message
    assert after_ms >= WAIT_MS
