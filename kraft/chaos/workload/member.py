"""A member of a group: polls a batch, processes it, commits it, polls the next one; and leaves, or is silent.

A commit without an answer has an unknown outcome: it is sent again before the next poll, unless the member has other
partitions by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kraft.chaos.history import Commit, Read
from kraft.chaos.workload.client_life import ClientLife
from kraft.chaos.workload.group_client import CommitResult, MemberRecords, Membership, PollResult
from kraft.chaos.workload.producer import Record
from kraft.chaos.workload.targets import ClientWorld, Target, Targets

WAIT_MS: Final = 200
ERROR_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberOptions:
    name: str
    topic: str
    group: str = "g"
    instance: str | None = None
    session_ms: int = 6_000
    batch: int = 20
    work_ms: int = 50
    target: Target = "any"


@dataclass(slots=True)
class GroupProgress:
    """The offsets of a topic that the members of a group have committed, by their answers: partition -> offset."""

    committed: dict[int, int] = field(default_factory=dict)


class Member(ClientLife):
    def __init__(
        self, options: MemberOptions, *, client_world: ClientWorld, record: Record, progress: GroupProgress
    ) -> None:
        self.options = options
        self._record = record
        self._progress = progress
        self._targets = Targets(client_world, target=options.target)
        membership = Membership(
            group=options.group,
            topic=options.topic,
            session_ms=options.session_ms,
            batch=options.batch,
            instance=options.instance,
        )
        self._client = client_world.group_client(options.name, membership)
        self._now_us = client_world.now_us
        super().__init__(options.name, self._client, self._targets.nodes)
        self._open: dict[int, int] = {}
        """Partition -> the offset to commit."""
        self._open_records = 0

    async def finish(self) -> None:
        """Commit the current batch, and leave the group."""
        await super().finish()
        if self._running is not None and not self.is_silent:
            await self._client.leave(self._node())

    # --- its life -----------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while not self._is_ending.is_set():
            if self._open:
                await self._commit()
            else:
                await self._take_batch()

    async def _take_batch(self) -> None:
        node, invoke_us = self._node(), self._now_us()
        polled = await self._client.poll(node, wait_ms=WAIT_MS)
        if polled.cannot_now:
            self._targets.refused(node)
        for given in polled.given:
            self._keep(given, polled, node, invoke_us)
        if polled.outcome != "ok":
            await self._pause(ERROR_PAUSE_S)
        if not polled.given:
            return
        self._open = {given.partition: given.next_offset for given in polled.given}
        self._open_records = sum(len(given.records) for given in polled.given)
        self.counts.read += self._open_records
        self.counts.uncommitted += self._open_records
        await self._pause(self.options.work_ms / 1000)
        await self._commit()

    async def _commit(self) -> None:
        offsets, node, invoke_us = dict(self._open), self._node(), self._now_us()
        result = await self._client.commit(node, offsets)
        if result.cannot_now:
            self._targets.refused(node)
        self._keep_commit(offsets, result, node, invoke_us)
        if result.outcome == "ok":
            for partition, offset in offsets.items():
                self._progress.committed[partition] = max(offset, self._progress.committed.get(partition, 0))
        if result.outcome == "info":
            await self._pause(ERROR_PAUSE_S)
            return
        self._open = {}
        self.counts.uncommitted -= self._open_records

    def _node(self) -> int:
        return self._targets.choose(self.options.topic, 0)

    # --- the history --------------------------------------------------------------------------------------------

    def _keep(self, given: MemberRecords, polled: PollResult, node: int, invoke_us: int) -> None:
        self._record(
            Read(
                process=self.options.name,
                index=self._next_index(),
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                topic=self.options.topic,
                partition=given.partition,
                node=node,
                offset=given.records[0][0],
                next_offset=given.records[-1][0] + 1,
                records=tuple(given.records),
                outcome="ok",
                kafka_code=0,
                group=self.options.group,
                generation=polled.generation,
                since_us=given.since_us,
            )
        )

    def _keep_commit(self, offsets: dict[int, int], result: CommitResult, node: int, invoke_us: int) -> None:
        self._record(
            Commit(
                process=self.options.name,
                index=self._next_index(),
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                node=node,
                group=self.options.group,
                topic=self.options.topic,
                offsets=tuple(sorted(offsets.items())),
                generation=result.generation,
                outcome=result.outcome,
                kafka_code=result.kafka_code,
                error=result.error,
            )
        )
        if result.kafka_code:
            self.counts.codes[result.kafka_code] += 1
