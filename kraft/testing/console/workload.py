"""A producer that is started from a console, the fate of its records so far, and their verdict at the end.

It is the producer of scenarios (`kraft.chaos.workload.producer`), over REST to the nodes themselves; the judge is that
of `kraft.testing`. Its records are kept until it is cleared, `RECORDS_MAX` of them at most: then it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from kraft.chaos.history import Operation, Produce
from kraft.chaos.model import Producer as Plan
from kraft.chaos.workload.client import Client
from kraft.chaos.workload.group_client import GroupClient, Membership
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.queue_client import QueueClient, QueuePlan
from kraft.chaos.workload.rest_client import RestClient
from kraft.chaos.workload.transaction_client import TransactionClient, TransactionPlan
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ScenarioError
from kraft.testing.assertions import Sent, Verdict, judged, verdict_of

RECORDS_MAX: Final = 200_000
RATE_MAX: Final = 2_000
BATCHES_A_SECOND: Final = 50
PRODUCERS_ONLY: Final = "a workload of a console is a producer"
_FATES: Final = (
    *("kept", "lost", "failed", "phantom", "unknown_kept", "unknown_gone", "unread", "duplicated", "reordered"),
)
_OUTCOMES: Final[Mapping[str, Any]] = {"ok": "acknowledged", "fail": "failed", "info": "unknown"}


class _World:
    """Implements `ClientWorld` for producers: each node is reached at its own port."""

    def __init__(
        self, rest: Callable[[], Mapping[int, str]], brokers: tuple[int, ...], latest: Snapshot | None
    ) -> None:
        self._rest = rest
        self.brokers = brokers
        self.latest = latest
        """The partitions are those of the beginning."""

    def now_us(self) -> int:
        return time.monotonic_ns() // 1_000

    def client(self, name: str, *, in_flight_max: int) -> Client:
        async def address(_: str, node: int) -> str:
            return self._rest()[node]

        return RestClient(name, address, connections_max=in_flight_max)

    def transaction_client(self, name: str, plan: TransactionPlan) -> TransactionClient:
        raise ScenarioError(PRODUCERS_ONLY)

    def group_client(self, name: str, membership: Membership) -> GroupClient:
        raise ScenarioError(PRODUCERS_ONLY)

    def queue_client(self, name: str, plan: QueuePlan) -> QueueClient:
        raise ScenarioError(PRODUCERS_ONLY)


class Workload:
    """At most one producer at a time, and all records since the last clearing."""

    def __init__(
        self,
        data: str,
        rest: Callable[[], Mapping[int, str]],
        brokers: Iterable[int],
        look: Callable[[], Awaitable[Snapshot | None]],
    ) -> None:
        """`rest` returns the URLs of the nodes, `look` the cluster as a node sees it."""
        self._data = data
        self._look = look
        self._counts = {"acknowledged": 0, "failed": 0, "unknown": 0}
        self._answered = self._names = 0
        self._rest = rest
        self._brokers = tuple(brokers)
        self._producer: Producer | None = None
        self._operations: list[Produce] = []
        self._codes: dict[str, int] = {}
        self._verdict: Verdict | None = None
        self._since_us = time.monotonic_ns() // 1_000
        self.plans: list[dict[str, Any]] = []

    @property
    def state(self) -> dict[str, Any] | None:
        """What the page shows; None before the first producer."""
        if not self.plans:
            return None
        producer = self._producer
        waiting = 0 if producer is None else producer.counts.sent - self._answered
        counts = {**self._counts, "sent": sum(self._counts.values()) + max(waiting, 0)}
        found: dict[str, Any] = {"plan": self.plans[-1], "runs": producer is not None, "counts": counts}
        found["error"] = next((each.error for each in reversed(self._operations[-20:]) if each.error), None)
        if self._verdict is not None:
            verdict = self._verdict
            found["verdict"] = {name: getattr(verdict, name) for name in _FATES} | {
                "findings": list(verdict.findings[:50]),
                "is_clean": verdict.is_clean,
            }
        return found

    async def begin(self, asked: Mapping[str, Any]) -> str:
        """Starts a producer; returns its name. Raises ValueError."""
        if self._producer is not None:
            raise ValueError("a workload runs already; stop it first")
        self._names += 1  # no name comes twice: values are made of it
        name = f"w{self._names}"
        rate = asked.get("rate", 100)
        if type(rate) is not int or not 1 <= rate <= RATE_MAX:
            raise ValueError(f"rate is a number of records a second from 1 to {RATE_MAX}")
        batch = max(1, rate // BATCHES_A_SECOND)
        fields = {
            "name": name, "topic": asked.get("topic"), "acks": asked.get("acks", "all"), "rate": rate, "batch": batch,
            "idempotent": asked.get("idempotent", False), "retries": 5 if asked.get("idempotent") else 0,
            "limit": RECORDS_MAX,
        }  # fmt: skip
        plan = Plan(**fields)  # pydantic's error is a ValueError
        options = ProducerOptions(**plan.model_dump(exclude={"starts"}))
        world = _World(self._rest, self._brokers, await self._look())
        producer = Producer(options, client_world=world, record=self._record)
        await producer.open()
        self._verdict, self._answered = None, 0
        self.plans.append(plan.model_dump(exclude_defaults=True, exclude={"limit"}))
        self._producer = producer
        await producer.start()
        return name

    def _record(self, operation: Operation) -> None:
        if isinstance(operation, Produce):
            self._operations.append(operation)
            self._counts[_OUTCOMES[operation.outcome]] += len(operation.records)
            self._answered += len(operation.records)

    async def end(self) -> str:
        """Stops the producer, after its last answer; returns its name. Raises ValueError."""
        producer = self._producer
        if producer is None:
            raise ValueError("no workload runs")
        await producer.finish()
        await producer.close()
        self._producer = None
        return producer.options.name

    async def judge(self) -> dict[str, Any] | None:
        """Reads all records back; the cluster has to be healed. Raises ValueError, ClusterFailed."""
        if not self._operations:
            raise ValueError("no record was sent, so there is nothing to judge")
        sent = list(self._sent())
        answered = await asyncio.to_thread(judged, self._data, sent, since_us=self._since_us, name="console")
        self._verdict = verdict_of(answered["verdict"])
        return self.state

    def _sent(self) -> Iterable[Sent]:
        for each in self._operations:
            for at, (key, value) in enumerate(each.records):
                yield Sent(
                    each.topic,
                    value,
                    key=key,
                    partition=each.partition,
                    offset=each.offsets[at] if each.offsets else None,
                    outcome=_OUTCOMES[each.outcome],
                    acks=each.acks,
                    at_us=each.complete_us,
                )

    @property
    def seen(self) -> dict[str, int]:
        """What the last verdict has counted."""
        verdict = self._verdict
        names = ("lost", "duplicated", "reordered", "phantom")
        return {} if verdict is None else {name: getattr(verdict, name) for name in names}

    def clear(self) -> None:
        """Forgets all records. Raises ValueError while a producer runs."""
        if self._producer is not None:
            raise ValueError("a workload runs; stop it first")
        self._operations.clear()
        self.plans.clear()
        self._counts = dict.fromkeys(self._counts, 0)
        self._verdict = None
        self._since_us = time.monotonic_ns() // 1_000
