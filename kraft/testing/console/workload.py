"""A producer that is started from a console, the fate of its records so far, and their verdict at the end.

It is a producer of scenarios (`kraft.chaos.workload`): over REST to the nodes themselves, or a Kafka client, whose
links `kraft up --faults` can break; transactional or not. Its operations are written into a history, as in a scenario,
and the judge is that of `kraft.testing`. It ends after `RECORDS_MAX` records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from kraft.chaos.history import Header, HistoryWriter, Operation, Produce
from kraft.chaos.model import Producer as Plan
from kraft.chaos.model import Transactor as TransactorPlan
from kraft.chaos.workload.client import Client, ClientProtocol
from kraft.chaos.workload.group_client import GroupClient, Membership
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.queue_client import QueueClient, QueuePlan
from kraft.chaos.workload.rest_client import RestClient
from kraft.chaos.workload.rest_transaction_client import RestTransactionClient
from kraft.chaos.workload.transaction_client import TransactionClient, TransactionPlan
from kraft.chaos.workload.transactor import Transactor, TransactorOptions
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ScenarioError
from kraft.testing.assertions import Verdict, verdict_of

RECORDS_MAX: Final = 200_000
RATE_MAX: Final = 2_000
BATCHES_A_SECOND: Final = 50
RECORDS_OF_TRANSACTION: Final = 6
PRODUCERS_ONLY: Final = "a workload of a console is a producer"
_FATES: Final = (
    *("kept", "lost", "failed", "phantom", "unknown_kept", "unknown_gone", "unread", "duplicated", "reordered"),
)
_OUTCOMES: Final[Mapping[str, Any]] = {"ok": "acknowledged", "fail": "failed", "info": "unknown"}


class Places:
    """The addresses of the nodes, and how Kafka clients log in."""

    def __init__(
        self,
        *,
        rest: Callable[[], Mapping[int, str]],
        kafka: Callable[[], Mapping[int, str]],
        login: Callable[[], Mapping[str, Any]],
        brokers: Iterable[int],
    ) -> None:
        """`rest`: URLs by node; `kafka`: `host:port` by node, of links where there are some; `login`: arguments of
        aiokafka."""
        self.rest = rest
        self.kafka = kafka
        self.login = login
        self.brokers = tuple(brokers)


class _World:
    """Implements `ClientWorld` for producers."""

    def __init__(self, places: Places, protocol: ClientProtocol, latest: Snapshot | None) -> None:
        self._places = places
        self._protocol = protocol
        self.brokers = places.brokers
        self.latest = latest
        """The partitions are those of the beginning."""

    def now_us(self) -> int:
        return time.monotonic_ns() // 1_000

    async def _rest(self, _: str, node: int) -> str:
        return self._places.rest()[node]

    async def _kafka(self, _: str, node: int) -> str:
        return self._places.kafka()[node]

    def client(self, name: str, *, in_flight_max: int) -> Client:
        if self._protocol == "rest":
            return RestClient(name, self._rest, connections_max=in_flight_max)
        from kraft.chaos.workload.kafka_client import KafkaClient

        return KafkaClient(name, self._kafka, brokers=self.brokers, login=self._places.login())

    def transaction_client(self, name: str, plan: TransactionPlan) -> TransactionClient:
        if self._protocol == "rest":
            return RestTransactionClient(name, self._rest, plan)
        from kraft.chaos.workload.kafka_transaction_client import KafkaTransactionClient

        return KafkaTransactionClient(name, self._kafka, plan, brokers=self.brokers, login=self._places.login())

    def group_client(self, name: str, membership: Membership) -> GroupClient:
        raise ScenarioError(PRODUCERS_ONLY)

    def queue_client(self, name: str, plan: QueuePlan) -> QueueClient:
        raise ScenarioError(PRODUCERS_ONLY)


def plan_of(asked: Mapping[str, Any], name: str) -> Plan | TransactorPlan:
    """The plan of what the page asks for. Raises ValueError."""
    rate, topic = asked.get("rate", 100), asked.get("topic")
    if type(rate) is not int or not 1 <= rate <= RATE_MAX:
        raise ValueError(f"rate is a number of records a second from 1 to {RATE_MAX}")
    if asked.get("client", "rest") not in ("rest", "kafka"):
        raise ValueError("client is rest or kafka")
    if asked.get("transactional", False) is True:
        batch = max(2, rate // BATCHES_A_SECOND)
        transactions = max(1, rate // (3 * batch))
        return TransactorPlan(name=name, topic=topic, rate=transactions, batch=batch, limit=RECORDS_MAX // (3 * batch))
    is_idempotent = asked.get("idempotent", False)
    return Plan(
        name=name, topic=topic, acks=asked.get("acks", "all"), rate=rate, batch=max(1, rate // BATCHES_A_SECOND),
        idempotent=is_idempotent, retries=5 if is_idempotent else 0, limit=RECORDS_MAX,
    )  # fmt: skip


class Workload:
    """At most one producer at a time, and all records since the last clearing."""

    def __init__(
        self,
        folder: Path,
        places: Places,
        look: Callable[[], Awaitable[Snapshot | None]],
        judge: Callable[[str, int, str], Mapping[str, Any]],
    ) -> None:
        """`folder` is its own; `look` returns the cluster as a node sees it. `judge` blocks, and returns the judge's
        answer: path of the history, the time of its beginning, folder of the report."""
        self._folder = folder
        self._places = places
        self._look = look
        self._judge = judge
        self._names = 0
        self._producer: Producer | Transactor | None = None
        self._clear()

    def _clear(self) -> None:
        self._counts = {"acknowledged": 0, "failed": 0, "unknown": 0}
        self._answered = 0
        self._transactions = [0, 0]
        self._history: HistoryWriter | None = None
        self._error: str | None = None
        self._verdict: Verdict | None = None
        self._of_transactions: Mapping[str, int] = {}
        self._since_us = time.monotonic_ns() // 1_000
        self.plans: list[Plan | TransactorPlan] = []
        self._protocol: ClientProtocol = "rest"
        self.protocol: ClientProtocol = "rest"
        """In which a story has to run: `kafka` after a workload of a Kafka client, which alone gets wrong answers."""

    @property
    def state(self) -> dict[str, Any] | None:
        """What the page shows; None before the first producer."""
        if not self.plans:
            return None
        producer, plan = self._producer, self.plans[-1]
        waiting = 0 if producer is None else producer.counts.sent - self._answered
        counts = {**self._counts, "sent": sum(self._counts.values()) + max(waiting, 0)}
        found: dict[str, Any] = {
            "plan": plan.model_dump(exclude_defaults=True, exclude={"limit"}), "client": self._protocol,
            "runs": producer is not None, "counts": counts, "error": self._error,
        }  # fmt: skip
        if any(isinstance(each, TransactorPlan) for each in self.plans):
            now = (0, 0) if producer is None else (producer.counts.committed, producer.counts.aborted)
            committed, aborted = (before + new for before, new in zip(self._transactions, now, strict=True))
            found["transactions"] = {"committed": committed, "aborted": aborted}
        if self._verdict is not None:
            verdict = self._verdict
            found["verdict"] = {name: getattr(verdict, name) for name in _FATES} | {
                "findings": list(verdict.findings[:50]),
                "is_clean": verdict.is_clean,
                "transactions": self._of_transactions,
            }
        return found

    async def begin(self, asked: Mapping[str, Any]) -> str:
        """Starts a producer; returns its name. Raises ValueError."""
        if self._producer is not None:
            raise ValueError("a workload runs already; stop it first")
        self._names += 1  # no name comes twice: values are made of it
        name = f"w{self._names}"
        plan = plan_of(asked, name)  # pydantic's error is a ValueError
        protocol: ClientProtocol = "kafka" if asked.get("client") == "kafka" else "rest"
        fields, world = plan.model_dump(exclude={"starts"}), _World(self._places, protocol, await self._look())
        producer: Producer | Transactor
        if isinstance(plan, TransactorPlan):
            producer = Transactor(TransactorOptions(**fields), client_world=world, record=self._record)
        else:
            producer = Producer(ProducerOptions(**fields), client_world=world, record=self._record)
        await producer.open()
        if self._history is None:
            header = Header(scenario="console", start_us=world.now_us(), wall_ms=time.time_ns() // 1_000_000)
            self._history = HistoryWriter(self._path, header)
        self._verdict, self._answered, self._error, self._protocol = None, 0, None, protocol
        self.plans.append(plan)
        if protocol == "kafka":
            self.protocol = protocol
        self._producer = producer
        await producer.start()
        return name

    @property
    def _path(self) -> Path:
        return self._folder / "history.jsonl"

    def _record(self, operation: Operation) -> None:
        assert self._history is not None
        self._history.record(operation)
        self._error = getattr(operation, "error", None) or self._error
        if isinstance(operation, Produce):
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
        for at, count in enumerate((producer.counts.committed, producer.counts.aborted)):
            self._transactions[at] += count
        return producer.options.name

    async def judge(self) -> dict[str, Any] | None:
        """Reads all records back; the cluster has to be healed. Raises ValueError, ClusterFailed."""
        if self._producer is not None:
            raise ValueError("a workload runs; stop it first")
        if self._history is None or not self._history.operations:
            raise ValueError("no record was sent, so there is nothing to judge")
        self._history.flush()
        report = str(self._folder / "report")
        answered = await asyncio.to_thread(self._judge, str(self._path), self._since_us, report)
        self._verdict = verdict_of(answered["verdict"])
        self._of_transactions = answered["verdict"]["transactions"]
        return self.state

    @property
    def report(self) -> Path:
        """The report of the last verdict; it may not be there."""
        return self._folder / "report" / "report.html"

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
        if self._history is not None:
            self._history.close()
        self._clear()
