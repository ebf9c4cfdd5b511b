"""The active controller's queries to brokers: is the port closed, and where does the log end (L8)?

Each query is a task with a deadline, a child of the controller term; the answer returns as an event in the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kraft.protocol.errors import KafkaError, NotController
from metadata.controller.context import ControllerContext
from metadata.controller.decide import BrokerDisconnected, BrokerUnreachable, Decision, LogEndsLearned
from metadata.controller.inbox import Item
from metadata.controller.requests import ElectLeaders, ReplicaLogEnd
from metadata.environment import ConnectionClosed
from metadata.image import BrokerImage, TopicIdPartition
from metadata.settings import BrokerSettings

PROBE_ATTEMPTS_MAX = 5
"""Tries of a broker's port, spread over broker.probe.timeout.ms: a dying process closes its sockets one by one."""


class BrokerProbes:
    """Bounded: one probe per broker, and no second automatic query about partitions that are being queried."""

    def __init__(
        self, context: ControllerContext, group: asyncio.TaskGroup, *, settings: Callable[[], BrokerSettings]
    ) -> None:
        self._context = context
        self._group = group
        self._settings = settings
        self._probed: set[int] = set()
        self._queried: set[TopicIdPartition] = set()

    def probe(self, broker: BrokerImage) -> None:
        """Find out whether a broker whose connection broke is dead; if so, it is fenced now."""
        if broker.broker_id not in self._probed:
            self._probed.add(broker.broker_id)
            self._group.create_task(self._probe(broker))

    def note_disconnection(self, broker: BrokerImage) -> None:
        event = BrokerDisconnected(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch)
        self._context.inbox.put_event(event, now_ms=self._context.environment.clock.monotonic_ms())

    async def _probe(self, broker: BrokerImage) -> None:
        clock = self._context.environment.clock
        timeout_ms = self._settings().broker_probe_timeout_ms
        try:
            async with clock.timeout(timeout_ms):
                for _ in range(PROBE_ATTEMPTS_MAX):
                    if await self._context.probe.is_refused(broker.broker_id):
                        dead = BrokerUnreachable(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch)
                        self._context.inbox.put_event(dead, now_ms=clock.monotonic_ms())
                        return
                    await clock.sleep(timeout_ms / PROBE_ATTEMPTS_MAX)
        except (OSError, ConnectionClosed):  # TimeoutError is an OSError
            return  # not refused: its session decides
        finally:
            self._probed.discard(broker.broker_id)

    def query(self, decision: Decision, *, item: Item) -> None:
        """Ask all live replicas at once; continue with the answers that arrived within unclean.recovery.timeout.ms."""
        request = item.request if decision.is_deferred and isinstance(item.request, ElectLeaders) else None
        if request is None and self._queried.issuperset(decision.candidates):
            return
        self._queried.update(decision.candidates)
        self._group.create_task(self._ask(decision, request=request, waiter=item.waiter if request else None))

    async def _ask(
        self, decision: Decision, *, request: ElectLeaders | None, waiter: asyncio.Future[object] | None
    ) -> None:
        try:
            answers = await asyncio.gather(*(self._log_ends(broker_id, keys) for broker_id, keys in decision.queries))
        except asyncio.CancelledError:
            if waiter is not None and not waiter.done():
                waiter.set_exception(NotController("this node stopped being the active controller while it asked"))
            raise
        self._queried.difference_update(decision.candidates)
        event = LogEndsLearned(
            partitions=decision.candidates,
            answers={
                broker_id: tuple(ends)
                for (broker_id, _), ends in zip(decision.queries, answers, strict=True)
                if ends is not None
            },
            request=request,
        )
        self._context.inbox.put_event(event, now_ms=self._context.environment.clock.monotonic_ms(), waiter=waiter)

    async def _log_ends(self, broker_id: int, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd] | None:
        try:
            async with self._context.environment.clock.timeout(self._settings().unclean_recovery_timeout_ms):
                return await self._context.query.log_ends(broker_id, partitions)
        except (OSError, ConnectionClosed, KafkaError) as error:
            self._context.events.emit("log_end_unknown", broker=broker_id, error=repr(error))
            return None
