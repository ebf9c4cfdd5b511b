"""v3 `records:receive`, `records:peek` and `records:acknowledge` of share groups: a queue for clients of any language.

Each request stands alone, and any node serves it. A connection that is lost releases nothing, the time of a lock does;
an acknowledgement whose answer was lost may be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from kraft.broker.gateway import Records
from kraft.coordinators.shares.ack_ids import Lock, Settlement
from kraft.coordinators.shares.leaders import Handed
from kraft.coordinators.shares.peek import Peeked
from kraft.coordinators.shares.queue import Queues, Receive, by_lock, locks_of
from kraft.coordinators.shares.redrive import AskedRedrive, Source
from kraft.http.body_models import RequestBody
from kraft.http.embedded_records import as_format
from kraft.http.endpoint import Call, Route
from kraft.http.errors import HttpError, from_kafka
from kraft.http.media import Format
from kraft.http.record_counts import check_values
from kraft.http.records import InRecord, on_records, take_records
from kraft.http.v3 import share_records_models as models
from kraft.http.v3.config_changes import alteration, check_names
from kraft.http.v3.envelope import answer, no_content, route
from kraft.http.v3.models import ConfigChange
from kraft.http.v3.share_acknowledgements import Settling, check_lock
from kraft.protocol.errors import KafkaError, UnknownTopicOrPartition
from kraft.protocol.media_types import PLAIN_JSON
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from metadata.acls import AclOperation, AclResource
from metadata.controller.requests import ConfigResource
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, ReadOptions
from replication.shares.states import AcknowledgeType, DeliveryState

_FORMATS = {"BINARY": Format.BINARY, "JSON": Format.JSON, "STRING": Format.TEXT}
PROBLEM_CHARACTERS_MAX = 1_000
READS_MAX = 10
"""Reads of one partition that one look makes."""
PEEKED_MAX = 100_000
"""Records of each partition of which a look that goes on gets to know: more than can be in flight."""


class ShareRecordHandlers:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def create_share_group(self, call: Call) -> web.Response:
        """204: a new group begins with the first record of its topics, and one that exists knows them now; `configs`
        are set in both. Raises HttpError 40403 for a topic, 40405 where the name is that of another kind of group, 404
        for a setting, InvalidConfig 40."""
        asked = call.model(models.CreateRequest)
        call.check(AclOperation.READ, AclResource.GROUP, asked.share_group_id)
        topics = [call.context.topic_or_raise(name).name for name in asked.topics]
        changes = [alteration(ConfigChange(name=each.name, value=each.value)) for each in asked.configs or ()]
        check_names(ConfigResource(resource_type="group", name=asked.share_group_id), [each.name for each in changes])
        await self._queues.create(asked.share_group_id, topics, changes)
        return no_content()

    # --- receive ------------------------------------------------------------------------------------------

    async def receive_records(self, call: Call) -> web.Response:
        """200 with records that nobody else gets until their locks end; none if none came within `max_wait_ms`. What
        came with `acknowledge` has a result for each. Raises HttpError 40403 for a topic, 40405 where the name is that
        of another kind of group: nothing is acknowledged then."""
        asked: _Receive = _read(call, PLAIN_RECEIVE, models.ReceiveRequest)
        group, context = call.path["group"], call.context
        check = partial(call.check_topics, AclOperation.READ, asked.topics)
        check()
        check_lock(call, asked.lock_ms)
        settling = Settling(self._queues, call, asked.acknowledge)
        receipt = self._queues.new_receipt()
        lock_ms = asked.lock_ms or self._queues.settings_of(group).share_record_lock_duration_ms
        with context.long_polls, call.while_allowed(check):
            handed = await settling.with_records(
                Receive(
                    group=group,
                    topics=tuple(dict.fromkeys(asked.topics)),
                    receipt=receipt,
                    records_max=asked.max_records,
                    bytes_max=await context.room(context.limits.read_bytes_default),
                    wait_ms=asked.max_wait_ms,
                    lock_ms=lock_ms,
                )
            )
        locks = locks_of(handed, receipt, now_ms=call.context.clock.wall_ms())
        context.metrics.fetched_bytes.inc(sum(len(each.records) for each in handed.values()))
        try:
            records = [
                record
                for where, each in handed.items()
                for record in await self._records(call, group, each, locks[where], asked.format)
            ]
        except Exception:  # a connection that was lost cancels, and releases nothing
            every = [lock for those in locks.values() for lock in those]
            await self._acknowledge_all(group, every, AcknowledgeType.RELEASE)
            raise
        if asked.acknowledgement == "implicit":
            records = await self._accepted(call, records, locks.values())
        body = msgspec.json.encode(models.Received(records, lock_ms, settling.answered()))
        context.hold(call.request, len(body))
        return web.Response(body=body, headers={"Content-Type": PLAIN_JSON})

    async def _records(
        self,
        call: Call,
        group: str,
        handed: Handed,
        locks: Sequence[Lock],
        form: str,
    ) -> list[models.ReceivedRecord]:
        """The records that were acquired: others have those in between."""
        where = locks[0].where
        topic, owner, made = topic_name(call, where), call.owner, _maker(form)

        def read(inflated_max: int) -> list[models.ReceivedRecord]:
            taken = take_records(
                handed.records, 0, bytes_max=INT64_MAX, records_max=INT32_MAX, inflated_max=inflated_max
            )
            found: list[models.ReceivedRecord] = []
            for lock, records in by_lock(taken.records, locks):
                token = self._queues.ack_ids.token(group, lock, owner=owner)
                number, count, until_ms, first = where.partition, lock.delivery_count, lock.until_ms, lock.first
                found += [
                    models.ReceivedRecord(
                        topic,
                        number,
                        record.offset,
                        record.timestamp,
                        None if (key := record.key) is None else made(key),
                        None if (value := record.value) is None else made(value),
                        _headers(headers) if (headers := record.headers) else _NO_HEADERS,
                        count,
                        until_ms,
                        f"{token}.{record.offset - first}",
                    )
                    for record in records
                ]
            return found

        return await on_records(call.context.record_workers, handed.records, read)

    async def _accepted(
        self, call: Call, records: Sequence[models.ReceivedRecord], locks: Iterable[Sequence[Lock]]
    ) -> list[models.ReceivedRecord]:
        """Without those whose acceptance was refused: they are handed out again."""
        every = [lock for those in locks for lock in those]
        refused = await self._acknowledge_all(call.path["group"], every, AcknowledgeType.ACCEPT)
        lost = set()
        if refused:
            offsets = [(lock.where, offset) for lock in every for offset in range(lock.first, lock.first + lock.size)]
            lost = {
                (topic_name(call, where), where.partition, offset)
                for where, offset in map(offsets.__getitem__, refused)
            }
        return [
            msgspec.structs.replace(record, ack_id=None, lock_until=None)
            for record in records
            if not lost or (record.topic_name, record.partition_id, record.offset) not in lost
        ]

    async def _acknowledge_all(
        self, group: str, locks: Iterable[Lock], kind: AcknowledgeType
    ) -> Mapping[int, KafkaError]:
        """The errors by the places of the records among all that are locked."""
        every = [Settlement(lock, lock.first, lock.first + lock.size - 1, kind) for lock in locks]
        return await self._queues.acknowledge(group, every)

    # --- peek ---------------------------------------------------------------------------------------------

    async def peek_records(self, call: Call) -> web.Response:
        """200 with records that the group is not done with, by partition and offset, and what is known of each; nothing
        is acquired. `next`: where there may be more. Raises HttpError 40405, or the error of a partition."""
        asked, context = call.model(models.PeekRequest), call.context
        group, topics = call.path["group"], asked.topics or ()
        is_read_committed = self._queues.settings_of(group).share_isolation_level == "read_committed"
        bytes_left = await context.room(context.limits.read_bytes_default)
        records: list[models.PeekedRecord] = []
        begin = asked.begin
        ended: models.PeekNext | None = None
        known_max = asked.max_records if begin is None else PEEKED_MAX
        peeked = await self._queues.peek(group, topics=topics, records_max=known_max)
        places = {(topic_name(call, where), where.partition): where for where in peeked}
        for place, where in sorted(places.items()):
            each, first = peeked[where], 0
            if each.error is not None:
                raise each.error
            if begin is not None and place <= (begin.topic_name, begin.partition_id):
                if place < (begin.topic_name, begin.partition_id):
                    continue
                first = begin.offset
            if ended is None and (len(records) >= asked.max_records or bytes_left <= 0):
                ended = models.PeekNext(*place, 0)
            if ended is None:
                look = _Look(call, where, each, asked.format, is_read_committed=is_read_committed)
                records += await look.records(first, asked.max_records - len(records), bytes_left)
                bytes_left -= look.bytes_read
                ended = None if look.next_offset is None else models.PeekNext(*place, look.next_offset)
        body = msgspec.json.encode(models.Peeked(records, ended))
        context.hold(call.request, len(body))
        return web.Response(body=body, headers={"Content-Type": PLAIN_JSON})

    # --- dead letters -------------------------------------------------------------------------------------

    async def redrive_records(self, call: Call) -> web.Response:
        """200 with the dead letters that went back to their partitions, and why others did not. Raises HttpError 409
        for a group without dead letters or when nothing was done and something is in the way, ProducerFenced 90."""
        asked, group = call.model(models.RedriveRequest), call.path["group"]
        topic = self._queues.settings_of(group).errors_deadletterqueue_topic_name
        if not topic:
            raise HttpError(409, f"{group!r} has no errors.deadletterqueue.topic.name, and so no dead letters")
        records = None
        if asked.records is not None:
            records = frozenset(Source(each.topic_name, each.partition_id, each.offset) for each in asked.records)
        redrive = AskedRedrive(
            queue=group, dead_letters=topic, records=records, letters_max=asked.max_records, is_dry=asked.dry_run
        )
        done = await self._queues.redrive(redrive, call.context.gateway)
        if done.problems and not done.rows:
            raise HttpError(409, "; ".join(done.problems)[:PROBLEM_CHARACTERS_MAX])
        rows = [
            models.DeadLetter(
                *letter.source,
                letter.message,
                topic,
                letter.partition,
                letter.offset,
                state,  # type: ignore[arg-type]
            )
            for letter, state in done.rows
        ]
        return answer(models.RedriveResult(rows, done.problems, done.is_complete))

    # --- acknowledge --------------------------------------------------------------------------------------

    async def acknowledge_records(self, call: Call) -> web.Response:
        """200 when all are done, with a result for each in the order of the request; 207 when some are not. When all of
        them are refused for the same reason, the status is that of the reason: 409 when the locks have ended, 403 when
        their topic may not be read."""
        acks = _read(call, PLAIN, models.AcknowledgeRequest).acks
        settling = Settling(self._queues, call, acks)
        await settling.alone()
        return _answer(settling)


_Receive: TypeAlias = models.ReceiveRequest | models.PlainReceiveRequest
PLAIN: Final = msgspec.json.Decoder(models.PlainAcknowledgeRequest)
"""Reads a body of acknowledgements of the usual form, and refuses any other."""
PLAIN_RECEIVE: Final = msgspec.json.Decoder(models.PlainReceiveRequest)
_Plain = TypeVar("_Plain")
_Model = TypeVar("_Model", bound=RequestBody)


def _read(call: Call, plain: msgspec.json.Decoder[_Plain], model: type[_Model]) -> _Plain | _Model:
    """The body, by the fast decoder if it is of the usual form. Raises what `Call.model` raises."""
    check_values(call.body, values_max=call.context.limits.body_values_max)
    try:
        return plain.decode(call.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return call.model(model)


def _answer(settling: Settling) -> web.Response:
    refused = settling.results
    if not refused:
        return answer(models.AcknowledgeResults(settling.answered()))
    rows = settling.rows()
    if len(refused) == len(rows) and len({type(error) for error in refused.values()}) == 1:
        error = from_kafka(refused[0])
        error.extra["results"] = rows
        raise error
    return answer(models.AcknowledgeResults(rows), status=207)


class _Look:
    """Reads records of one partition that its group is not done with."""

    def __init__(
        self, call: Call, where: TopicIdPartition, peeked: Peeked, form: str, *, is_read_committed: bool
    ) -> None:
        self.bytes_read = 0
        self.next_offset: int | None = None
        """Where the next look begins; None: nothing is left."""
        self._call = call
        self._where = where
        self._peeked = peeked
        self._form = form
        self._is_read_committed = is_read_committed

    async def records(self, first_offset: int, records_max: int, bytes_max: int) -> list[models.PeekedRecord]:
        """From this one on, in READS_MAX reads at most: those in between that are done are read, too."""
        found: list[models.PeekedRecord] = []
        gateway = self._call.context.gateway
        begin = (await gateway.list_offset(self._where, EARLIEST_TIMESTAMP)).offset
        offset = self._peeked.first_from(max(begin, self._peeked.start_offset, first_offset))
        known_to = self._peeked.known_to
        self.next_offset = known_to if known_to is not None and known_to > first_offset else None
        for _ in range(READS_MAX):
            if offset is None or len(found) >= records_max or self.bytes_read >= bytes_max:
                break
            options = ReadOptions(bytes_max=bytes_max - self.bytes_read, is_read_committed=self._is_read_committed)
            read = await gateway.read(self._where, offset, options)
            if not read.data:
                self.next_offset = None
                return found
            self.bytes_read += len(read.data)
            rows, next_offset = await self._rows(read, offset, records_max - len(found))
            found += rows
            offset = None if next_offset <= offset else self._peeked.first_from(next_offset)
        if offset is not None:
            self.next_offset = offset
        return found

    async def _rows(self, read: Records, offset: int, records_max: int) -> tuple[list[models.PeekedRecord], int]:
        now_ms, topic = self._call.context.clock.wall_ms(), topic_name(self._call, self._where)

        def rows(inflated_max: int) -> tuple[list[models.PeekedRecord], int]:
            taken = take_records(
                read.data,
                offset,
                bytes_max=INT64_MAX,
                records_max=INT32_MAX,
                inflated_max=inflated_max,
                aborted=read.aborted,
            )
            found = ((record, self._peeked.at(record.offset)) for record in taken.records)
            names: dict[DeliveryState, Any] = {state: state.name for state in DeliveryState}
            shown = [
                models.PeekedRecord(
                    *_fields(record, topic, self._where.partition, self._form),
                    known.delivery_count,
                    now_ms + known.lock_ms if known.lock_ms and known.state is DeliveryState.ACQUIRED else None,
                    names[known.state],
                    now_ms + known.lock_ms if known.lock_ms and known.state is DeliveryState.AVAILABLE else None,
                )
                for record, known in found
                if known is not None
            ]
            more = shown[records_max:]
            return shown[:records_max], more[0].offset if more else taken.next_offset

        return await on_records(self._call.context.record_workers, read.data, rows)


def topic_name(call: Call, where: TopicIdPartition) -> str:
    """The name of the partition's topic."""
    topic = call.context.gateway.image.topics.get(where.topic_id)
    if topic is None:  # for this principal, or by now
        raise UnknownTopicOrPartition("a topic of the group is not there")
    return topic.name


_Data: TypeAlias = models.ReceivedData | None
_Fields: TypeAlias = tuple[str, int, int, int, _Data, _Data, list[models.ReceivedHeader]]
_NO_HEADERS: list[models.ReceivedHeader] = []


def _fields(record: InRecord, topic: str, partition: int, form: str) -> _Fields:
    """The first fields of a QueuedRecord, in their order."""
    made = _maker(form)
    key, value, headers = record.key, record.value, record.headers
    return (
        topic,
        partition,
        record.offset,
        record.timestamp,
        None if key is None else made(key),
        None if value is None else made(value),
        _headers(headers) if headers else _NO_HEADERS,
    )


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> list[models.ReceivedHeader]:
    return [models.ReceivedHeader(name, value) for name, value in headers]


def _maker(form: Any) -> Callable[[bytes], models.ReceivedData]:
    """What makes the fields of a key or a value."""
    if form == "BINARY":
        return partial(models.ReceivedData, "BINARY")
    asked = _FORMATS[form]

    def made(data: bytes) -> models.ReceivedData:
        try:
            return models.ReceivedData(form, as_format(data, asked))
        except (ValueError, msgspec.DecodeError):
            return models.ReceivedData("BINARY", data)

    return made


def share_record_routes(queues: Queues) -> tuple[Route, ...]:
    h = ShareRecordHandlers(queues)
    path = "/share-groups/{group}/records"
    return (
        route("POST", "/share-groups", h.create_share_group, "Create a share group that begins with the first record.",
              body=models.CreateRequest, errors=(40403, 40405, 50302)),
        route("POST", path + ":receive", h.receive_records, "Receive records that nobody else gets meanwhile.",
              models.Received, body=models.ReceiveRequest, errors=(40002, 40403, 40405, 42901, 50302)),
        route("POST", path + ":peek", h.peek_records, "Look at records that wait or are in flight.", models.Peeked,
              body=models.PeekRequest, errors=(40403, 40405, 42901, 50302)),
        route("POST", path + ":redrive", h.redrive_records, "Bring dead letters back to where they came from.",
              models.RedriveResult, body=models.RedriveRequest, errors=(40002, 40403, 40905, 409, 50302)),
        route("POST", path + ":acknowledge", h.acknowledge_records, "Accept, release, reject or renew records.",
              models.AcknowledgeResults, body=models.AcknowledgeRequest, also={207: models.AcknowledgeResults},
              errors=(40002, 40403, 40405, 40903, 50302)),
    )  # fmt: skip
