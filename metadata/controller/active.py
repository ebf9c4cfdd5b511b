"""The active controller: one task on each voter, in office while this node leads the metadata quorum.

It owns the inbox and starts a `ControllerTerm` for every term that this node wins. Outside of such
a term every request is answered with NOT_CONTROLLER 41.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from kraft.protocol.errors import NotController, RequestTimedOut
from metadata.controller.context import ControllerContext
from metadata.controller.controller_term import ControllerTerm
from metadata.controller.inbox import Inbox, Item
from metadata.controller.requests import BrokerHeartbeat, BrokerProbe, ControllerRequest, ReplicaQuery, Request
from metadata.environment import Environment
from metadata.events import Events
from metadata.quorum.log import AppendLost, AppendUnknown, Committed, Leadership, MetadataLog, SnapshotInstalled
from metadata.retries import ELECTION_RETRY_MS

Reply = TypeVar("Reply")


class ActiveController:
    def __init__(
        self,
        *,
        node_id: int,
        cluster_id: str,
        log: MetadataLog,
        environment: Environment,
        events: Events,
        static_settings: Mapping[str, Any],
        query: ReplicaQuery,
        probe: BrokerProbe,
    ) -> None:
        self._log = log
        self._clock = environment.clock
        self._inbox = Inbox()
        self._context = ControllerContext(
            node_id=node_id,
            cluster_id=cluster_id,
            log=log,
            environment=environment,
            events=events,
            static_settings=static_settings,
            query=query,
            probe=probe,
            inbox=self._inbox,
        )
        self._elected = asyncio.Event()
        self._controller_term: ControllerTerm | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_active(self) -> bool:
        """This node leads the quorum, and a record of its own epoch is committed."""
        return self._controller_term is not None and self._controller_term.epoch >= 0

    @property
    def epoch(self) -> int:
        """The controller epoch of this node's controller term; -1 when it is not active."""
        return self._controller_term.epoch if self._controller_term is not None else -1

    def heard_ms_ago(self) -> dict[int, int]:
        """Broker -> time since its last heartbeat; empty while this node is not the active controller."""
        return {} if self._controller_term is None else self._controller_term.heard_ms_ago()

    async def start(self) -> None:
        assert self._task is None, "started twice"
        self._log.subscribe(_ignore_change, self._on_leadership)
        self._on_leadership(self._log.leadership)
        self._task = asyncio.create_task(self._run(), name="active-controller")

    async def stop(self) -> None:
        """End the term; waiting requests are answered with NOT_CONTROLLER. Raises the error that the controller failed
        with."""
        if self._task is None:
            return
        task, self._task, self._is_stopping = self._task, None, True
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    async def wait(self) -> None:
        """Return only when the controller has stopped. Raises the error that it failed with, a broken invariant."""
        assert self._task is not None, "not started"
        await asyncio.shield(self._task)

    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Decide, commit, answer. Raises the refusal; NotController 41 when this node is not the active controller;
        RequestTimedOut 7 when the deadline passed: the outcome is then unknown."""
        leadership = self._log.leadership
        if self._controller_term is None or not leadership.is_self:
            raise NotController(f"this node is not the active controller; node {leadership.leader_id} may be")
        waiter: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        decidable = cast(ControllerRequest, request)
        self._inbox.put_request(Item(request=decidable, enqueued_ms=self._clock.monotonic_ms(), waiter=waiter))
        try:
            async with self._clock.timeout(timeout_ms):
                reply = cast(Reply, await waiter)
                if isinstance(request, BrokerHeartbeat) and request.wants_proof:
                    await self._confirm(leadership.term)
                return reply
        except TimeoutError:
            raise RequestTimedOut(f"no answer within {timeout_ms} ms: whether it was done is not known") from None
        finally:
            waiter.cancel()

    async def _confirm(self, term: int) -> None:
        """Check that no other controller had been elected when the request was made in this term. Raises NotController
        41."""
        try:
            if self._log.leadership.term != term:
                raise AppendLost(f"the quorum is in term {self._log.leadership.term}")
            await self._log.confirm()
        except (AppendLost, AppendUnknown) as error:
            raise NotController(f"this node may not be the active controller any more: {error}") from error

    def broker_connection_lost(self, broker_id: int) -> None:
        """A broker's authenticated connection to this node broke: if its port refuses connections, it is fenced at
        once."""
        active = self._controller_term
        if active is None or active.probes is None:
            return
        broker = active.image.brokers.get(broker_id)
        if broker is None:
            return
        active.probes.note_disconnection(broker)
        if not broker.fenced:
            active.probes.probe(broker)

    def _on_leadership(self, leadership: Leadership) -> None:
        if leadership.is_self:
            self._elected.set()
        self._inbox.wake()

    async def _run(self) -> None:
        while True:
            await self._elected.wait()
            self._elected.clear()
            while self._log.leadership.is_self:
                self._controller_term = ControllerTerm(self._context, term=self._log.leadership.term)
                try:
                    await self._controller_term.run()
                finally:
                    self._controller_term = None
                if self._is_stopping:
                    return  # a task group that ends with an error does not raise a cancellation of the same moment
                await self._clock.sleep(ELECTION_RETRY_MS)


def _ignore_change(_: Committed | SnapshotInstalled) -> None:
    """The publisher handles images."""
