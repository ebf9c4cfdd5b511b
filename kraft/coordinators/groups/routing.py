"""Any node takes any group request: in process when the group's coordinator is here, else one hop to its node.

A request that was surely not carried out (moved, loading, refused connection) is asked again until its deadline; one
whose outcome is unknown only if asking twice does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from kraft.broker.gateway import Gateway
from kraft.coordinators.coordinator_topic import COORDINATOR_WAIT_MS, CoordinatorTopic, until_taken
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    NotCoordinator,
    RequestTimedOut,
)
from metadata.controller.requests import NewTopic
from metadata.environment import Clock, ConnectionClosed, NotConnected
from metadata.internal_topics import OFFSETS_TOPIC, offsets_topic_configs

ANSWER_SLACK_MS = 15_000
"""How long an answer may take, beyond what the request itself waits."""
REBALANCE_WAIT_MS = 300_000
"""A join is answered when all have joined."""

MOVED = (NotCoordinator, CoordinatorLoadInProgress)
NOT_CARRIED_OUT = (*MOVED, NotConnected, ConnectionRefusedError)
OUTCOME_UNKNOWN = (CoordinatorNotAvailable, ConnectionClosed, OSError)

Way = Callable[[r.Request, int], Awaitable[a.Answer]]
"""Asks a coordinator, within a time in ms."""


class LocalCoordinator(Protocol):
    async def ask(self, request: r.Request) -> a.Answer: ...


class Groups:
    def __init__(
        self, *, gateway: Gateway, clock: Clock, local: LocalCoordinator | None, peer: Callable[[int], Way]
    ) -> None:
        self._gateway = gateway
        self._topic = CoordinatorTopic(gateway, OFFSETS_TOPIC, new_offsets_topic)
        self._clock = clock
        self._local = local
        self._peer = peer

    async def ask(self, request: r.Request) -> a.Answer:
        """Raises the KafkaError of a refusal; CoordinatorNotAvailable or NotCoordinator when none was found."""
        deadline_ms = self._clock.monotonic_ms() + COORDINATOR_WAIT_MS
        await self._topic.ensure()

        async def once() -> a.Answer:
            return await self._attempt(request, self._topic.coordinator_of(request.group))

        again = (*NOT_CARRIED_OUT, *OUTCOME_UNKNOWN) if request.is_repeatable else NOT_CARRIED_OUT
        of = f"group {request.group!r}"
        try:
            return await until_taken(once, of=of, clock=self._clock, again=again, deadline_ms=deadline_ms)
        except (ConnectionClosed, OSError) as lost:
            raise RequestTimedOut(
                f"the coordinator did not answer ({type(lost).__name__}); the outcome is unknown"
            ) from lost

    async def coordinator_of(self, group: str) -> int:
        """Node id of the group's coordinator."""
        await self._topic.ensure()
        return self._topic.coordinator_of(group)

    async def list_all(self) -> tuple[a.GroupListing, ...]:
        """Groups of all coordinators. Asked again while one moves, loads or does not answer; then raises its error."""
        deadline_ms = self._clock.monotonic_ms() + COORDINATOR_WAIT_MS
        again = (*MOVED, CoordinatorNotAvailable)
        return await until_taken(
            self._list_once, of="each group", clock=self._clock, again=again, deadline_ms=deadline_ms
        )

    async def _list_once(self) -> tuple[a.GroupListing, ...]:
        topic = self._gateway.image.topic(OFFSETS_TOPIC)
        leaders = {} if topic is None else {partition.leader for partition in topic.partitions.values()}
        found: list[a.GroupListing] = []
        for leader in sorted(leader for leader in leaders if leader >= 0):
            try:
                answer = await self._attempt(r.ListGroups(group=""), leader)
            except (ConnectionClosed, OSError) as lost:
                raise CoordinatorNotAvailable(f"node {leader} did not answer: {type(lost).__name__}") from lost
            assert isinstance(answer, a.GroupList), answer
            found += answer.groups
        return tuple(sorted(found, key=lambda each: each.group))

    async def _attempt(self, request: r.Request, node_id: int) -> a.Answer:
        if node_id == self._gateway.node_id and self._local is not None:
            return await self._local.ask(request)
        return await self._peer(node_id)(request, _answer_ms(request))


def new_offsets_topic(gateway: Gateway) -> NewTopic:
    """As it comes into being, whoever needs it first: a group, or a client that asks for its metadata."""
    settings = gateway.settings
    brokers = sum("broker" in node.roles for node in gateway.nodes.values())
    return NewTopic(
        name=OFFSETS_TOPIC,
        partitions=settings.offsets_topic_num_partitions,
        replication_factor=min(settings.offsets_topic_replication_factor, max(brokers, 1)),
        configs=offsets_topic_configs(settings),
    )


def _answer_ms(request: r.Request) -> int:
    if isinstance(request, r.JoinGroup | r.SyncGroup):
        return REBALANCE_WAIT_MS + ANSWER_SLACK_MS
    if isinstance(request, r.BeginPoll):
        return request.wait_ms + ANSWER_SLACK_MS
    return ANSWER_SLACK_MS
