"""Gathers the state of the cluster for those who watch it: what this node knows, and what the other nodes answer.

Nobody is asked without a viewer. Viewers of the same scope share what was gathered. A node that does not answer in
`PATIENCE_MS` is not waited for: its last answer counts until it is `STALE_MS` old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from kraft.broker.gateway import NodeInfo
from kraft.broker.node_facts import NodeFacts, Scope
from kraft.http.console.changes import Heard, State, cluster_state
from kraft.protocol.codec import Malformed
from kraft.protocol.errors import KafkaError
from metadata.environment import Clock, ConnectionClosed, NotConnected

PATIENCE_MS: Final = 80
STALE_MS: Final = 1_500
"""Longer than a request to a node may take, so that one slow answer hides nobody."""
SHARED_MS: Final = 90
"""Viewers that ask within this time get the same state."""
SCOPES_MAX: Final = 16

Ask = Callable[[int, Scope], Awaitable[NodeFacts]]


class Source(Protocol):
    """The source of the state that pages show."""

    async def state(self, scope: Scope) -> State: ...


class _Asked:
    """One other node, as it answers one scope."""

    def __init__(self) -> None:
        self.facts: NodeFacts | None = None
        self.heard_ms = 0
        self.why = "not asked yet"
        self.task: asyncio.Task[None] | None = None

    def heard(self, now_ms: int) -> Heard:
        if self.facts is not None and now_ms - self.heard_ms <= STALE_MS:
            return self.facts
        return self.why


class _Watched:
    """One scope: the other nodes, and the state gathered last."""

    def __init__(self, others: Mapping[int, NodeInfo]) -> None:
        self.asked = {number: _Asked() for number in others}
        self.gathered_ms: int | None = None
        self.state: State = {}
        self.gathering: asyncio.Task[State] | None = None


class ClusterFacts:
    """Implements `Source`. `own` returns the facts of this node; None where this process is none."""

    def __init__(
        self,
        *,
        own: Callable[[Scope], NodeFacts] | None,
        ask: Ask,
        nodes: Callable[[], Mapping[int, NodeInfo]],
        cluster_id: str,
        node_id: int,
        clock: Clock,
    ) -> None:
        self._own = own
        self._ask = ask
        self._nodes = nodes
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._clock = clock
        self._watched: dict[Scope, _Watched] = {}

    async def state(self, scope: Scope) -> State:
        """The state now, or as it was `SHARED_MS` ago at most."""
        watched = self._watched.get(scope)
        if watched is None:
            while len(self._watched) >= SCOPES_MAX:
                del self._watched[next(iter(self._watched))]
            others = {number: node for number, node in self._nodes().items() if number != self._node_id}
            watched = self._watched[scope] = _Watched(others)
        now_ms = self._clock.monotonic_ms()
        if watched.gathered_ms is not None and now_ms - watched.gathered_ms < SHARED_MS:
            return watched.state
        if watched.gathering is None or watched.gathering.done():
            watched.gathering = asyncio.get_running_loop().create_task(self._gather(watched, scope))
        return await asyncio.shield(watched.gathering)

    async def _gather(self, watched: _Watched, scope: Scope) -> State:
        loop = asyncio.get_running_loop()
        for number, asked in watched.asked.items():
            if asked.task is None or asked.task.done():
                asked.task = loop.create_task(self._hear(number, asked, scope))
        tasks = [asked.task for asked in watched.asked.values() if asked.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_MS / 1_000)
        now_ms = self._clock.monotonic_ms()
        heard: dict[int, Heard] = {number: asked.heard(now_ms) for number, asked in watched.asked.items()}
        if self._own is not None:
            heard[self._node_id] = self._own(scope)
        watched.state = cluster_state(heard, self._nodes(), cluster_id=self._cluster_id, node_id=self._node_id)
        watched.gathered_ms = now_ms
        return watched.state

    async def _hear(self, number: int, asked: _Asked, scope: Scope) -> None:
        try:
            asked.facts = await self._ask(number, scope)
        except TimeoutError:
            asked.facts, asked.why = None, "no answer in time"
        except (OSError, NotConnected, ConnectionClosed, KafkaError, Malformed) as error:
            asked.facts, asked.why = None, str(error) or type(error).__name__
        asked.heard_ms = self._clock.monotonic_ms()
