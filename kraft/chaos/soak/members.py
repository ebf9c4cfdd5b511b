"""Members of a group that join, read, commit, and leave or become silent, one after the other in each of a few slots.

They are REST consumers without auto-commit: they commit only records that they received. Each uses all nodes in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgspec

from kraft.chaos.soak.group_reads import GroupReads
from kraft.chaos.workload.targets import Targets
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.client.response import Answer, Request
from kraft.client.transport import Transport

V2: Final = "application/vnd.kafka.v2+json"
BINARY: Final = "application/vnd.kafka.binary.v2+json"
LIFE_S: Final = (5.0, 60.0)
SILENT_SHARE: Final = 0.3
"""The share of members that end without leaving the group, and are evicted."""
INSTANCE_TIMEOUT_MS: Final = 15_000
READ_WAIT_MS: Final = 500
READ_BYTES: Final = 1_048_576
REQUEST_TIMEOUT_MS: Final = 15_000
PAUSE_S: Final = 0.2
LEAVE_ATTEMPTS: Final = 3
UNKNOWN_TOKEN: Final = 40904
"""The token of a batch that was given up: this member does not know its position."""


@dataclass(slots=True)
class GroupCounts:
    joined: int = 0
    left: int = 0
    silent: int = 0
    evicted: int = 0
    """Members that the group has evicted."""
    read: int = 0
    """Records that members read; a redelivered record counts again."""
    commits: int = 0
    """Acknowledged commits."""


class Members:
    def __init__(self, group: str, topic: str, *, places: int, seed: int, client_world: Cluster) -> None:
        self.group, self.topic = group, topic
        self.counts = GroupCounts()
        self.reached = GroupReads()
        self._places = [
            _MemberSlot(self, number, Random(f"members/{seed}/{number}"), client_world) for number in range(places)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ending = asyncio.Event()

    async def start(self) -> None:
        for place in self._places:
            await place.open()
        self._tasks = [asyncio.create_task(place.fill(self._is_ending)) for place in self._places]

    async def finish(self) -> None:
        """All members leave the group. Raises the exceptions of the slots."""
        self._is_ending.set()
        await asyncio.gather(*self._tasks)

    async def read_to(self, ends: Mapping[int, int], *, limit_s: float) -> dict[int, int]:
        """One more member reads the rest; returns the committed offsets. Raises TimeoutError at the limit."""
        async with asyncio.timeout(limit_s):
            return await self._places[0].read_to(ends)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for place in self._places:
            await place.close()


class _MemberSlot:
    """A slot that has one member at a time."""

    def __init__(self, members: Members, number: int, rng: Random, client_world: Cluster) -> None:
        self._members = members
        self._number = number
        self._rng = rng
        self._client_world = client_world
        self._targets = Targets(client_world, target="any")
        self._addresses: dict[int, str] = {}
        self._transport = Transport(connections_max=2)
        self._born = 0

    async def open(self) -> None:
        for node in self._targets.nodes:
            self._addresses[node] = await self._client_world.links.client_address(f"member-{self._number}", node)

    async def close(self) -> None:
        await self._transport.close()

    async def fill(self, is_ending: asyncio.Event) -> None:
        while not is_ending.is_set():
            life_s = self._rng.uniform(*LIFE_S)
            is_silent = self._rng.random() < SILENT_SHARE
            name = await self._join(is_ending)
            if name is None:
                return
            until = asyncio.get_running_loop().time() + life_s
            is_member = await self._live(name, until, is_ending)
            if is_member and is_silent and not is_ending.is_set():
                self._members.counts.silent += 1
            elif is_member:
                await self._leave(name)

    async def read_to(self, ends: Mapping[int, int]) -> dict[int, int]:
        name = None
        while name is None or not await self._reads_all(name, ends):
            name = await self._join(asyncio.Event())
        final = await self._committed(name, ends)
        await self._leave(name)
        return final

    async def _committed(self, name: str, partitions: Iterable[int]) -> dict[int, int]:
        """The committed offsets of the group; retries until there is an answer."""
        body = {"partitions": [{"topic": self._members.topic, "partition": partition} for partition in partitions]}
        while True:
            answer = await self._send("POST", f"{self._path(name)}/offsets:query", body)
            if answer.status == 200:
                return {row["partition"]: row["offset"] for row in msgspec.json.decode(answer.body)["offsets"]}
            await asyncio.sleep(PAUSE_S)

    async def _reads_all(self, name: str, ends: Mapping[int, int]) -> bool:
        """Read until members have received and committed all records; False: the member was evicted."""
        token, reached = 1, self._members.reached
        while any(reached.committed.get(partition, 0) < end for partition, end in ends.items()):
            read = await self._read(name, token)
            if read is None:
                return False
            token = read
        return True

    # --- a member's life ----------------------------------------------------------------------------------------------

    async def _join(self, is_ending: asyncio.Event) -> str | None:
        """The name of a new, subscribed member; None if the time ends before."""
        while not is_ending.is_set():
            self._born += 1
            name = f"m{self._number}-{self._born}"
            body = {
                "name": name,
                "format": "binary",
                "auto.offset.reset": "earliest",
                "auto.commit.enable": "false",
                "consumer.instance.timeout.ms": INSTANCE_TIMEOUT_MS,
            }
            created = await self._send("POST", f"/consumers/{self._members.group}", body)
            if created.status == 200:
                path = f"{self._path(name)}/subscription"
                subscribed = await self._send("POST", path, {"topics": [self._members.topic]})
                if 200 <= subscribed.status < 300:
                    self._members.counts.joined += 1
                    return name
            await asyncio.sleep(PAUSE_S)
        return None

    async def _live(self, name: str, until: float, is_ending: asyncio.Event) -> bool:
        """True if it is still a member when its time is over."""
        loop, token = asyncio.get_running_loop(), 1
        while loop.time() < until and not is_ending.is_set():
            read = await self._read(name, token)
            if read is None:
                self._members.counts.evicted += 1
                return False
            token = read
        return True

    async def _read(self, name: str, token: int) -> int | None:
        """The next token; None if the instance is gone. Reads the same token again until there is an answer."""
        path = f"{self._path(name)}/records?token={token}&timeout={READ_WAIT_MS}&max_bytes={READ_BYTES}"
        answer = await self._send("GET", path, accept=BINARY)
        if answer.status == 404 or (answer.status == 409 and _code(answer) == UNKNOWN_TOKEN):
            return None
        if answer.status != 200:
            await asyncio.sleep(PAUSE_S)
            return token
        positions = self._take(msgspec.json.decode(answer.body))
        if positions:
            await self._commit(name, positions)
        return int(answer.headers["x-next-token"])

    def _take(self, records: list[dict[str, Any]]) -> dict[int, int]:
        """Partition -> the offset after the received records."""
        given: dict[int, list[int]] = {}
        for record in records:
            given.setdefault(record["partition"], []).append(record["offset"])
        for partition, offsets in given.items():
            self._members.reached.was_read(partition, offsets)
        self._members.counts.read += len(records)
        return {partition: offsets[-1] + 1 for partition, offsets in given.items()}

    async def _commit(self, name: str, positions: Mapping[int, int]) -> None:
        """Commit the offsets. After a rebalance this may be refused: the next member reads the records again."""
        topic = self._members.topic
        rows = [{"topic": topic, "partition": partition, "offset": offset} for partition, offset in positions.items()]
        answer = await self._send("POST", f"{self._path(name)}/offsets", {"partitions": rows})
        if 200 <= answer.status < 300:
            self._members.reached.was_committed(positions)
            self._members.counts.commits += 1

    async def _leave(self, name: str) -> None:
        for _ in range(LEAVE_ATTEMPTS):
            answer = await self._send("DELETE", self._path(name))
            if 200 <= answer.status < 300 or answer.status == 404:
                self._members.counts.left += 1
                return
            await asyncio.sleep(PAUSE_S)
        self._members.counts.silent += 1

    def _path(self, name: str) -> str:
        return f"/consumers/{self._members.group}/instances/{name}"

    async def _send(self, method: str, path: str, body: Any = None, *, accept: str = V2) -> Answer:
        """Send a request; status 0 means no answer."""
        data = b"" if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept} | ({"Content-Type": V2} if data else {})
        request = Request(method=method, path=path, body=data, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        node = self._targets.choose(self._members.topic, 0)
        outcome = await self._transport.send(self._addresses[node], request)
        return outcome if isinstance(outcome, Answer) else NO_ANSWER


NO_ANSWER: Final = Answer(status=0, headers={}, body=b"")


def _code(answer: Answer) -> int:
    try:
        return int(msgspec.json.decode(answer.body)["error_code"])
    except (ValueError, KeyError, TypeError):
        return 0
