"""Acknowledgements of records of share groups, as they stand in a request and in its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final, TypeAlias, cast
from uuid import UUID

import msgspec

from kraft.broker.permissions import refusal_of
from kraft.coordinators.shares.ack_ids import Settlement, id_of
from kraft.coordinators.shares.leaders import Handed
from kraft.coordinators.shares.queue import Queues, Receive
from kraft.http.endpoint import Call
from kraft.http.errors import BAD_REQUEST, HttpError, code_of, worded
from kraft.http.v3 import share_records_models as models
from kraft.protocol.errors import KafkaError, UnknownTopicOrPartition
from metadata.acls import AclOperation, AclResource
from metadata.image import TopicIdPartition
from replication.shares.states import AcknowledgeType

_LIMITED = attrgetter("type", "lock_ms", "delay_ms")
_DONE = str(msgspec.json.encode(models.AcknowledgeResult("ID", None, None, None, None, None)), "ascii")
_BEFORE, _BEHIND = _DONE.split("ID")
_BETWEEN: Final = f"{_BEHIND},{_BEFORE}"
"""Between the ids of two records that are done."""
_Acknowledgement: TypeAlias = models.Acknowledgement | models.PlainAcknowledgement


class Settling:
    """What one request acknowledges."""

    def __init__(self, queues: Queues, call: Call, acks: Sequence[_Acknowledgement]) -> None:
        """What is of topics that the principal may not read is refused alone. Raises HttpError 400 for what cannot be
        asked."""
        for kind, lock_ms, delay_ms in set(map(_LIMITED, acks)):
            check_lock(call, lock_ms)
            if delay_ms is not None and kind != "release":
                raise HttpError(BAD_REQUEST, f"delay_ms={delay_ms} goes with release, not with {kind}")
        self._queues = queues
        self._call = call
        self._acks = acks
        self._group = call.path["group"]
        self._asked, self.results = queues.ack_ids.settlements(self._group, acks, owner=call.owner)
        """The errors of those that are refused, by their places in the request."""
        if refused := _unreadable(call, self._asked):
            self._refuse(refused)
        self._places = [at for at in range(len(acks)) if at not in self.results] if self.results else range(len(acks))

    def _refuse(self, topics: Mapping[UUID, KafkaError]) -> None:
        places = iter([at for at in range(len(self._acks)) if at not in self.results])
        allowed = []
        for each in self._asked:
            those = list(islice(places, each.last - each.first + 1))
            if (error := topics.get(each.lock.where.topic_id)) is None:
                allowed.append(each)
            else:
                self.results.update(dict.fromkeys(those, error))
        self._asked = allowed

    async def alone(self) -> None:
        """Sends them, and receives nothing."""
        self._got(await self._queues.acknowledge(self._group, self._asked))

    async def with_records(self, asked: Receive) -> Mapping[TopicIdPartition, Handed]:
        """Sends them with a receive."""
        if not self._asked:
            return await self._queues.receive(asked)
        refused, handed = await self._queues.exchange(asked, self._asked)
        self._got(refused)
        return handed

    def _got(self, refused: Mapping[int, KafkaError]) -> None:
        for place, error in refused.items():
            self.results[self._places[place]] = error

    def answered(self) -> list[models.AcknowledgeResult]:
        """`rows`, as they are encoded. Most are done, and none has to be made then: each differs in its id alone, which
        was read before, and so has no character that JSON escapes."""
        if not self._acks or self.results or any(each.type is AcknowledgeType.RENEW for each in self._asked):
            return self.rows()
        return cast("list[models.AcknowledgeResult]", rows_of_done([each.ack_id for each in self._acks]))

    def rows(self) -> list[models.AcknowledgeResult]:
        """In the order of the request."""
        now_ms, owner = self._call.context.clock.wall_ms(), self._call.owner
        read = self._queues.ack_ids.reader(self._group, owner=owner)
        rows = []
        for at, each in enumerate(self._acks):
            row = models.AcknowledgeResult(each.ack_id, None, None, None, None, None)
            if (error := self.results.get(at)) is not None:
                row.error_code, row.message, row.kafka_code = code_of(error), worded(error), error.code
            elif each.type == "renew":
                lock, offset = read(each.ack_id)
                lock_ms = each.lock_ms or lock.lock_ms
                lock = lock._replace(first=offset, size=1, until_ms=now_ms + lock_ms, lock_ms=lock_ms)
                row.renewed_ack_id = id_of(self._queues.ack_ids.token(self._group, lock, owner=owner), lock, offset)
                row.lock_until = lock.until_ms
            rows.append(row)
        return rows


def _unreadable(call: Call, asked: Iterable[Settlement]) -> Mapping[UUID, KafkaError]:
    """Why topics are refused; one that the principal may not describe is as one that was deleted."""
    may = call.permissions
    if may is None:
        return {}
    image, refused = call.context.gateway.image, dict[UUID, KafkaError]()
    for topic_id in {each.lock.where.topic_id for each in asked}:
        if (topic := image.topics.get(topic_id)) is None:
            refused[topic_id] = UnknownTopicOrPartition("the topic of this ack_id does not exist")
        elif not may(AclOperation.READ, AclResource.TOPIC, topic.name):
            refused[topic_id] = refusal_of(AclResource.TOPIC)
    return refused


def rows_of_done(ids: Sequence[str]) -> msgspec.Raw:
    """The encoded results of records that are done, of which there is one at least. The ids are ASCII, without quotes
    and backslashes."""
    return msgspec.Raw(f"[{_BEFORE}{_BETWEEN.join(ids)}{_BEHIND}]".encode())


def check_lock(call: Call, lock_ms: int | None) -> None:
    """Raises HttpError 400 for a time of a lock that the cluster does not allow."""
    settings = call.context.gateway.settings
    low, high = settings.group_share_min_record_lock_duration_ms, settings.group_share_max_record_lock_duration_ms
    if lock_ms is not None and not low <= lock_ms <= high:
        raise HttpError(
            BAD_REQUEST,
            f"lock_ms={lock_ms} is not from {low} to {high} (group.share.min.record.lock.duration.ms and "
            "group.share.max.record.lock.duration.ms)",
        )
