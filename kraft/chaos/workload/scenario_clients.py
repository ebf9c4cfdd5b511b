"""The clients of one scenario, by name: opened together, started at once or by a step, ended together.

Members of groups end when the group has committed all records, workers of a queue when each record is done or when for
longer than a lock nobody received one. Silenced members and workers do not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from kraft.chaos import model
from kraft.chaos.history import Operation
from kraft.chaos.workload.counts import Counts
from kraft.chaos.workload.member import GroupProgress, Member, MemberOptions
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.reader import Reader, ReaderOptions
from kraft.chaos.workload.targets import ClientWorld
from kraft.chaos.workload.transactor import Transactor, TransactorOptions
from kraft.chaos.workload.worker import QueueProgress, Worker, WorkerOptions
from kraft.chaos.worlds.spec import ScenarioError

Record: TypeAlias = Callable[[Operation], None]
AnyClient: TypeAlias = Producer | Reader | Member | Transactor | Worker
DRAIN_LOOK_S: Final = 0.05
IDLE_SLACK_MS: Final = 1_000
"""A queue that hands out nothing for this time longer than a lock has nothing that it could hand out."""
FINISH_LIMIT_MS: Final = 30_000
"""Longest wait for the last answers; requests that are still open are not recorded, and count as never sent."""


class ScenarioClients:
    """Implements `Clients`."""

    def __init__(self, plans: tuple[model.Client, ...], *, client_world: ClientWorld, record: Record) -> None:
        self._plans = plans
        self._client_world = client_world
        self._record = record
        self._progress: dict[tuple[str, str], GroupProgress] = {}
        """(group, topic) -> the offsets that its members have committed."""
        self._queues: dict[tuple[str, str], QueueProgress] = {}
        """(group, topic) -> what its workers know together."""
        self._clients: dict[str, AnyClient] = {plan.name: self._client(plan) for plan in plans}
        self._started: set[str] = set()

    @property
    def counts(self) -> Mapping[str, Counts]:
        return {name: client.counts for name, client in self._clients.items()}

    async def open(self) -> None:
        """Open all links, and start the clients that begin at once."""
        for client in self._clients.values():
            await client.open()
        for plan in self._plans:
            if plan.starts == "at once":
                await self.start(plan.name)

    async def start(self, name: str) -> None:
        if name in self._started:
            raise ScenarioError(f"client {name} has been started before")
        self._started.add(name)
        await self._clients[name].start()

    async def finish(self, name: str) -> None:
        if name not in self._started:
            raise ScenarioError(f"client {name} was never started")
        await self._clients[name].finish()

    async def silence(self, name: str) -> None:
        member = self._clients[name]
        if name not in self._started or not isinstance(member, Member | Transactor | Worker):
            kinds = "member of a group, worker of a queue or transactional producer"
            raise ScenarioError(f"client {name} is no {kinds} that was started")
        await member.silence()

    async def finish_producers(self) -> None:
        await self._finish(Producer, Transactor)

    async def finish_all(self) -> None:
        await self._finish(Producer, Transactor, Reader)
        await self._drain()
        await self._finish(Member, Worker)

    async def _drain(self) -> None:
        """Wait until the groups with members have committed all records, and queues are empty. Raises ScenarioError."""
        try:
            async with asyncio.timeout(FINISH_LIMIT_MS / 1000):
                while self._left() or self._queued():  # noqa: ASYNC110 - looks at the cluster come from elsewhere
                    await asyncio.sleep(DRAIN_LOOK_S)
        except TimeoutError as error:
            raise ScenarioError(f"after {FINISH_LIMIT_MS} ms {self._left() or self._queued()}") from error

    def _queued(self) -> str:
        """The queues that may still hand out records, as text; empty: none."""
        latest, now_us = self._client_world.latest, self._client_world.now_us()
        left = []
        for (group, topic), progress in sorted(self._queues.items()):
            locks_ms = [
                client.options.lock_ms
                for name, client in self._clients.items()
                if isinstance(client, Worker) and (client.options.group, client.options.topic) == (group, topic)
                if name in self._started
            ]
            ends = {number: latest.hw(topic, number) for number in latest.partitions(topic)} if latest else {}
            is_done = all(len(progress.done.get(number, ())) >= end for number, end in ends.items())
            idle_ms = (now_us - progress.busy_us) // 1000
            if locks_ms and not is_done and idle_ms < max(locks_ms) + IDLE_SLACK_MS:
                left.append(f"a worker of group {group} received records of {topic} {idle_ms} ms ago")
        return "; ".join(left)

    def _left(self) -> str:
        """The records that groups have not committed yet, as text; empty: none."""
        latest, left = self._client_world.latest, []
        living = {
            (client.options.group, client.options.topic)
            for name, client in self._clients.items()
            if isinstance(client, Member) and name in self._started and not client.counts.is_done
        }
        for group, topic in sorted(living):
            committed = self._progress[group, topic].committed
            for partition in latest.partitions(topic) if latest is not None else ():
                end = latest.hw(topic, partition) if latest is not None else 0
                if committed.get(partition, 0) < end:
                    done = committed.get(partition, "nothing")
                    left.append(f"group {group} has committed {done} of {end} of {topic}-{partition}")
        return "; ".join(left)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _finish(self, *kinds: type[AnyClient]) -> None:
        chosen = [name for name in self._started if isinstance(self._clients[name], kinds)]
        try:
            async with asyncio.timeout(FINISH_LIMIT_MS / 1000):
                await asyncio.gather(*(self.finish(name) for name in chosen))
        except TimeoutError as error:
            open_ones = ", ".join(name for name in chosen if not self._clients[name].counts.is_done)
            raise ScenarioError(f"{open_ones} still waited for answers after {FINISH_LIMIT_MS} ms") from error

    def _client(self, plan: model.Client) -> AnyClient:
        client_world, record, fields = self._client_world, self._record, plan.model_dump(exclude={"starts"})
        match plan:
            case model.Producer():
                return Producer(ProducerOptions(**fields), client_world=client_world, record=record)
            case model.Reader():
                return Reader(ReaderOptions(**fields), client_world=client_world, record=record)
            case model.Member():
                progress = self._progress.setdefault((plan.group, plan.topic), GroupProgress())
                return Member(MemberOptions(**fields), client_world=client_world, record=record, progress=progress)
            case model.Worker():
                queue = self._queues.setdefault((plan.group, plan.topic), QueueProgress())
                return Worker(WorkerOptions(**fields), client_world=client_world, record=record, progress=queue)
            case model.Transactor():
                return Transactor(TransactorOptions(**fields), client_world=client_world, record=record)
