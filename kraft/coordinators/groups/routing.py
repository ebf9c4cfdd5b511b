"""Any node takes any group request: in process when the group's coordinator is here, else one hop to its node.

A request that was surely not carried out (moved, loading, refused connection) is asked again until its deadline; one
whose outcome is unknown only if asking twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kraft.broker.gateway import Gateway
from kraft.broker.principal import CLIENT
from kraft.coordinators.coordinator_client import MOVED, NOT_CARRIED_OUT, OUTCOME_UNKNOWN, CoordinatorClient
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.audited import audited
from kraft.protocol.errors import CoordinatorNotAvailable
from metadata.environment import Clock
from metadata.internal_topics import OFFSETS_TOPIC


class Coordinator(Protocol):
    """The group coordinator of one node."""

    async def ask(self, request: r.Request) -> a.Answer: ...


class Groups:
    def __init__(
        self, *, gateway: Gateway, clock: Clock, local: Coordinator | None, remote: Callable[[int], Coordinator]
    ) -> None:
        self._gateway = gateway
        self._client = CoordinatorClient(
            gateway=gateway,
            clock=clock,
            topic=OFFSETS_TOPIC,
            local=local,
            remote=remote,
        )

    async def ask(self, request: r.Request) -> a.Answer:
        """Raises the KafkaError of a refusal; CoordinatorNotAvailable or NotCoordinator when none was found."""
        return await audited(self._gateway, CLIENT.get(), request, self._ask)

    async def _ask(self, request: r.Request) -> a.Answer:
        retriable = (*NOT_CARRIED_OUT, *OUTCOME_UNKNOWN) if request.is_repeatable else NOT_CARRIED_OUT
        return await self._client.ask(request.group, lambda each: each.ask(request), retriable=retriable)

    async def coordinator_of(self, group: str) -> int:
        """Node id of the group's coordinator."""
        return await self._client.node_of(group)

    async def list_all(self) -> tuple[a.GroupListing, ...]:
        """Groups of all coordinators. Asked again while one moves, loads or does not answer; then raises its error."""
        found: list[a.GroupListing] = []
        answers = await self._client.ask_each(
            lambda each: each.ask(r.ListGroups(group="")),
            retriable=(*MOVED, CoordinatorNotAvailable),
            needs_all_leaders=False,
        )
        for answer in answers.values():
            assert isinstance(answer, a.GroupList), answer
            found += answer.groups
        return tuple(sorted(found, key=lambda each: each.group))
