"""GET /kraft/explain/group|queue|transaction: why a group, a queue or a transaction does not go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shards import partition_of
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.queue import Queues
from kraft.coordinators.transactions.routing import Transactions
from kraft.explain.explanation import Explanation
from kraft.explain.groups import (
    Coordinated,
    GroupFacts,
    Lag,
    QueueFacts,
    SharePartitionFacts,
    TransactionFacts,
    explain_group,
    explain_queue,
    explain_transaction,
)
from kraft.http.endpoint import Body, Call, Handler, Route
from kraft.http.limits import Slots
from kraft.http.responses import plain_json
from kraft.protocol.errors import GroupIdNotFound, KafkaError
from kraft.protocol.media_types import PLAIN_JSON
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from metadata.records import NO_LEADER
from metadata.settings import group_settings
from replication.requests import LATEST_TIMESTAMP
from replication.shares.states import DeliveryState

AGAIN_MS: Final = 1_000
"""Between two looks at a group that is behind: does it catch up?"""
PARTITIONS_MAX: Final = 200
"""Partitions of a group that are looked at, the first ones."""
RECORDS_MAX: Final = 100_000
SHARE: Final = "share"
EXPLANATIONS_MAX: Final = 16


class CoordinatedHandlers:
    def __init__(self, groups: Groups, queues: Queues, transactions: Transactions) -> None:
        self._groups = groups
        self._queues = queues
        self._transactions = transactions
        self._slots = Slots(lambda: EXPLANATIONS_MAX, what="explanations")

    async def group(self, call: Call) -> web.Response:
        """Raises GroupIdNotFound 69."""
        name = call.path["group"]
        with self._slots:
            try:
                found = await self._described(name)
                lags = await self._lags(call, found)
                if any(lag.end > lag.committed for lag in lags):
                    await call.context.clock.sleep(AGAIN_MS)
                    lags = _with_later(lags, await self._lags(call, await self._described(name)))
            except KafkaError as error:
                where = _unavailable(call, error, OFFSETS_TOPIC, name)
                return plain_json(explain_group(GroupFacts(where=where, group=name)))
        if found.group_type == SHARE:
            raise GroupIdNotFound(f"group {name!r} is a share group: kraft explain queue {name}")
        facts = GroupFacts(
            where=_where(call, OFFSETS_TOPIC, name, coordinator=found.coordinator),
            group=name,
            state=found.state,
            kind=found.group_type,
            generation=found.generation,
            members=[each.client_id for each in found.members],
            awaited=[(each.client_id, each.member_id, each.awaited) for each in found.awaited],
            idle=[each.client_id for each in found.members if not each.partitions],
            lags=lags,
        )
        return plain_json(explain_group(facts))

    async def queue(self, call: Call) -> web.Response:
        """Raises GroupIdNotFound 69."""
        name, gateway = call.path["group"], call.context.gateway
        with self._slots:
            try:
                found = await self._described(name)
                if found.group_type != SHARE:
                    raise GroupIdNotFound(f"group {name!r} is not a share group: kraft explain group {name}")
                offsets = await self._groups.ask(r.DescribeShareOffsets(group=name))
                peeked = await self._queues.peek(name, records_max=RECORDS_MAX)
            except KafkaError as error:
                where = _unavailable(call, error, OFFSETS_TOPIC, name)
                return plain_json(explain_queue(QueueFacts(where=where, group=name)))
        assert isinstance(offsets, a.ShareOffsets), offsets
        lags = {(each.topic, each.partition): each.lag for each in offsets.offsets}
        names = {key: gateway.image.topics[key.topic_id].name for key in peeked if key.topic_id in gateway.image.topics}
        settings = group_settings(gateway.settings, gateway.image.config("group", name))
        facts = QueueFacts(
            where=_where(call, OFFSETS_TOPIC, name, coordinator=found.coordinator),
            group=name,
            state=found.state,
            members=len(found.members),
            locks_max=settings.share_partition_max_record_locks,
            partitions=[
                _share(topic, key.partition, peeked[key], lags.get((topic, key.partition), -1))
                for key, topic in sorted(names.items(), key=lambda item: (item[1], item[0].partition))
            ][:PARTITIONS_MAX],
        )
        return plain_json(explain_queue(facts))

    async def transaction(self, call: Call) -> web.Response:
        """Raises TransactionalIdNotFound 105."""
        name, image = call.path["transactional_id"], call.context.gateway.image
        with self._slots:
            try:
                found = await self._transactions.describe(name)
                coordinator = await self._transactions.coordinator_of(name)
            except KafkaError as error:
                where = _unavailable(call, error, TRANSACTIONS_TOPIC, name)
                return plain_json(explain_transaction(TransactionFacts(where=where, transactional_id=name)))
        partitions = call.of_described_topics(sorted(found.partitions), itemgetter(0))
        where = _where(call, TRANSACTIONS_TOPIC, name, coordinator=coordinator)
        log = image.topic(TRANSACTIONS_TOPIC)
        facts = TransactionFacts(
            where=where,
            transactional_id=name,
            state=found.phase.kafka_name,
            producer_id=found.producer_id,
            producer_epoch=found.epoch,
            timeout_ms=found.timeout_ms,
            started_ms=found.started_ms if found.partitions else -1,
            partitions=partitions,
            coordinator_epoch=0 if log is None or where.partition < 0 else log.partitions[where.partition].leader_epoch,
            leaderless=[
                (topic, number)
                for topic, number in partitions
                if (known := image.topic(topic)) is not None and not known.partitions[number].has_leader
            ],
        )
        return plain_json(explain_transaction(facts))

    async def _described(self, group: str) -> a.GroupDescription:
        found = await self._groups.ask(r.DescribeGroup(group=group))
        assert isinstance(found, a.GroupDescription), found
        return found

    async def _lags(self, call: Call, group: a.GroupDescription) -> list[Lag]:
        gateway = call.context.gateway
        image = gateway.image
        readers = {each: member.client_id for member in group.members for each in member.partitions}

        async def one(row: a.OffsetOfGroup) -> Lag | None:
            topic = image.topic(row.topic)
            if topic is None or row.partition not in topic.partitions:
                return None
            leader, end = topic.partitions[row.partition].leader, row.offset + 1
            if leader != NO_LEADER:
                try:
                    where = TopicIdPartition(topic.topic_id, row.partition)
                    end = (await gateway.list_offset(where, LATEST_TIMESTAMP)).offset
                except KafkaError:
                    leader = NO_LEADER
            reader = readers.get((row.topic, row.partition), "")
            return Lag(
                topic=row.topic, partition=row.partition, committed=row.offset, end=end, member=reader, leader=leader
            )

        found = await asyncio.gather(*map(one, group.offsets[:PARTITIONS_MAX]))
        return sorted((each for each in found if each is not None), key=lambda each: each.committed - each.end)


def _with_later(first: Sequence[Lag], later: Sequence[Lag]) -> list[Lag]:
    by_place = {(each.topic, each.partition): each for each in later}
    found = []
    for each in first:
        again = by_place.get((each.topic, each.partition), each)
        found.append(
            Lag(
                topic=each.topic,
                partition=each.partition,
                committed=each.committed,
                end=each.end,
                member=again.member,
                leader=again.leader,
                committed_later=again.committed,
                end_later=again.end,
            )
        )
    return found


def _share(topic: str, partition: int, peeked: Peeked, lag: int) -> SharePartitionFacts:
    acquired = [each for each in peeked.in_flight if each.state is DeliveryState.ACQUIRED]
    delayed = [each for each in peeked.in_flight if each.state is DeliveryState.AVAILABLE and each.lock_ms > 0]
    return SharePartitionFacts(
        topic=topic,
        partition=partition,
        error="" if peeked.error is None else peeked.error.message,
        start_offset=peeked.start_offset,
        acquired=sum(each.last_offset - each.first_offset + 1 for each in acquired),
        waiting=sum(each.last_offset - each.first_offset + 1 for each in delayed),
        lock_ms=min((each.lock_ms for each in (*acquired, *delayed)), default=0),
        lag=lag,
        dead_letters_lost=peeked.dead_letters_lost,
        last_dead_letter_error=peeked.last_dead_letter_error,
    )


def _where(call: Call, topic: str, key: str, *, coordinator: int = -1, error: str = "") -> Coordinated:
    gateway, clock = call.context.gateway, call.context.clock
    try:
        partition = partition_of(key, topic, gateway.image)
    except KafkaError:
        partition = -1
    return Coordinated(
        asked=gateway.node_id,
        at_ms=clock.wall_ms(),
        topic=topic,
        partition=partition,
        coordinator=coordinator,
        error=error,
    )


def _unavailable(call: Call, error: KafkaError, topic: str, key: str) -> Coordinated:
    """Raises the error again, if it is an answer of the coordinator."""
    if not error.retriable:
        raise error
    return _where(call, topic, key, error=error.message)


def coordinated_routes(groups: Groups, queues: Queues, transactions: Transactions) -> tuple[Route, ...]:
    h = CoordinatedHandlers(groups, queues, transactions)

    def get(subject: str, parameter: str, handler: Handler, errors: tuple[int, ...]) -> Route:
        return Route(
            method="GET",
            path=f"/kraft/explain/{subject}/{{{parameter}}}",
            handler=handler,
            summary=f"Why a {subject} does not go on.",
            tag="node",
            errors=(*errors, 503),
            answers={200: Body(content={PLAIN_JSON: Explanation})},
            name=f"node_explain_{subject}",
        )

    return (
        get("group", "group", h.group, (40405,)),
        get("queue", "group", h.queue, (40405,)),
        get("transaction", "transactional_id", h.transaction, (40406,)),
    )
