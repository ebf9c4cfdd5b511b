"""v2 consumers: instances whose state lives with their group's coordinator, so that any node serves any request."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.http.endpoint import Call
from kraft.http.errors import ILLEGAL_STATE, PARTITION_NOT_FOUND, UNPROCESSABLE, HttpError
from kraft.http.media import EMBEDDED, Format, consumer_format, require_json_body, stream_answer, v2_answer
from kraft.http.offset_spec import offset_at, parse_iso_time
from kraft.http.parameters import READ_COMMITTED, integer, parse_integer
from kraft.http.responses import with_body
from kraft.http.streaming.consumers import ConsumerSource
from kraft.http.streaming.frames import FRAMES, Frames
from kraft.http.streaming.positions import parse_positions
from kraft.http.streaming.read import stream_position
from kraft.http.streaming.serve import heartbeat_ms, serve
from kraft.http.v2 import consumers_models as models
from kraft.http.v2.consumers_bodies import body_of, check_pattern, new_consumer
from kraft.http.v2.consumers_poll import Poll
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.primitives import INT32_MAX
from metadata.acls import AclOperation
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

FORMAT_MISMATCH = 40601
NEXT_TOKEN = "X-Next-Token"
WARNING = "Warning"
POSITIONS_MAX = 100_000


class ConsumerHandlers:
    """Names and nonces of new instances come from `rng`."""

    def __init__(self, groups: Groups, rng: random.Random) -> None:
        self._groups = groups
        self._rng = rng

    async def _ask(self, request: r.Request) -> Any:
        answer = await self._groups.ask(request)
        if isinstance(answer, a.Refused):
            extra = {} if answer.kafka_code is None else {"kafka_code": answer.kafka_code}
            raise HttpError(answer.code, answer.message, extra=extra)
        return answer

    # --- life ---------------------------------------------------------------------------------------------

    async def create_consumer(self, call: Call) -> web.Response:
        """200 with `instance_id` and `base_uri`; what it is configured with and has no meaning here is named in a
        Warning header. Raises HttpError 40902 for a name that the group has already, 40001 and 42204 for a bad
        configuration."""
        asked = new_consumer(call)
        nonce = self._rng.randbytes(8).hex()
        name = asked.id or asked.name or f"rest-consumer-{nonce}"
        config = r.InstanceConfig(
            format=asked.format,
            reset=asked.reset,
            auto_commit=asked.auto_commit,
            fetch_bytes_min=max(asked.fetch_bytes_min, 1),
            request_timeout_ms=asked.request_timeout_ms,
            timeout_ms=asked.timeout_ms or call.context.gateway.settings.consumer_instance_timeout_ms,
            is_read_committed=asked.isolation == READ_COMMITTED,
        )
        group = call.path["group"]
        made = r.CreateInstance(
            group=group, instance=name, nonce=nonce, config=config, owner=call.owner, host=call.principal.host
        )
        await self._ask(made)
        base = f"{call.request.scheme}://{call.request.host}"
        uri = f"{base}/consumers/{quote(group, safe='')}/instances/{quote(name, safe='')}"
        response = _answer(call, {"instance_id": name, "base_uri": uri})
        if asked.ignored:
            response.headers[WARNING] = f'299 kraft "ignored: {", ".join(asked.ignored)}"'
        return response

    async def delete_consumer(self, call: Call) -> web.Response:
        """204; it leaves its group at once, and its partitions go to others. Raises HttpError 40403."""
        await self._ask(r.DeleteInstance(**_names(call)))
        return _done()

    # --- subscription and assignment ----------------------------------------------------------------------

    async def subscribe_consumer(self, call: Call) -> web.Response:
        """204, when the group knows of it; partitions are assigned with the next rebalance. Raises HttpError 40403, and
        40903 for both or neither of topics and pattern, or a consumer whose partitions were assigned by hand."""
        asked = body_of(call, models.SubscriptionBody)
        if (asked.topics is None) == (asked.topic_pattern is None):
            raise HttpError(ILLEGAL_STATE, "a subscription names either `topics` or a `topic_pattern`")
        if asked.topic_pattern is not None:
            check_pattern(asked.topic_pattern)
            request = r.Subscribe(**_names(call), pattern=asked.topic_pattern)
        else:
            if not asked.topics:
                raise HttpError(ILLEGAL_STATE, "`topics` is empty; DELETE the subscription to end it")
            request = r.Subscribe(**_names(call), topics=tuple(sorted(set(asked.topics))))
        await self._ask(request)
        return _done()

    async def get_consumer_subscription(self, call: Call) -> web.Response:
        """200 with `topics` and `topic_pattern`; of a pattern, the topics that it has partitions of. Raises HttpError
        40403."""
        found = await self._ask(r.DescribeInstance(**_names(call)))
        topics = list(found.topics) or sorted({topic for topic, _ in found.partitions if found.pattern is not None})
        return _answer(call, {"topics": topics, "topic_pattern": found.pattern})

    async def unsubscribe_consumer(self, call: Call) -> web.Response:
        """204; ends subscription and assignment, also where there were none. Raises HttpError 40403."""
        await self._ask(r.Subscribe(**_names(call)))
        return _done()

    async def assign_consumer(self, call: Call) -> web.Response:
        """204; reads these partitions, without a rebalance. Raises HttpError 40401, 40402, 40403, and 40903 for a
        consumer that has subscribed."""
        asked = body_of(call, models.Partitions)
        await self._ask(r.AssignInstance(**_names(call), partitions=known_partitions(call, asked.partitions)))
        return _done()

    async def get_consumer_assignments(self, call: Call) -> web.Response:
        """200 with `partitions`: what it reads now, by its subscription or by hand. Raises HttpError 40403."""
        found = await self._ask(r.DescribeInstance(**_names(call)))
        rows = [{"topic": topic, "partition": partition} for topic, partition in found.partitions]
        return _answer(call, {"partitions": rows})

    # --- positions ----------------------------------------------------------------------------------------

    async def seek_consumer(self, call: Call) -> web.Response:
        """204; the next read begins at these offsets, or at the first record at or after each of these times (ISO
        8601). Raises HttpError 40403, and by `rest.dialect` others for partitions that do not exist or that it does not
        read."""
        asked = body_of(call, models.Positions)
        await self._check_seek(call, [*asked.offsets, *asked.timestamps])
        timed = [(each, parse_iso_time(each.timestamp, "timestamp ")) for each in asked.timestamps]
        found = await self._offsets_at(call, timed) if timed else []
        return await self._seek(call, [(each.topic, each.partition, each.offset) for each in asked.offsets] + found)

    async def seek_consumer_to_beginning(self, call: Call) -> web.Response:
        """204; the next read of these partitions begins at their log start offset. Raises as `seek_consumer`."""
        return await self._seek_all(call, EARLIEST_TIMESTAMP)

    async def seek_consumer_to_end(self, call: Call) -> web.Response:
        """204; the next read of these partitions begins at their high watermark. Raises as `seek_consumer`."""
        return await self._seek_all(call, LATEST_TIMESTAMP)

    async def _seek_all(self, call: Call, timestamp: int) -> web.Response:
        asked = body_of(call, models.Partitions)
        await self._check_seek(call, asked.partitions)
        return await self._seek(call, await self._offsets_at(call, [(each, timestamp) for each in asked.partitions]))

    async def _offsets_at(self, call: Call, timed: Sequence[tuple[Any, int]]) -> list[tuple[str, int, int]]:
        """Where the log ends depends on the isolation level of the consumer."""
        config = (await self._ask(r.DescribeInstance(**_names(call)))).config
        gateway, found = call.context.gateway, []
        for each, timestamp in timed:
            where = TopicIdPartition(call.context.topic_or_raise(each.topic).topic_id, each.partition)
            offset = await offset_at(gateway, where, timestamp, is_read_committed=config.is_read_committed)
            found.append((each.topic, each.partition, offset))
        return found

    async def _check_seek(self, call: Call, partitions: Sequence[Any]) -> None:
        try:
            known_partitions(call, partitions)
        except (HttpError, UnknownTopicOrPartition) as error:
            if isinstance(error, HttpError) and error.code != PARTITION_NOT_FOUND:
                raise
            await self._ask(r.DescribeInstance(**_names(call)))  # the consumer itself may be what is not there
            raise HttpError(call.context.dialect.unknown_seek, f"cannot seek: {error}") from error

    async def _seek(self, call: Call, positions: Sequence[tuple[str, int, int]]) -> web.Response:
        try:
            await self._ask(r.Seek(**_names(call), positions=tuple(positions)))
        except HttpError as error:
            if error.code != ILLEGAL_STATE:
                raise
            raise HttpError(call.context.dialect.unassigned_seek, error.message, extra=error.extra) from error
        return _done()

    # --- records ------------------------------------------------------------------------------------------

    async def read_consumer_records(self, call: Call) -> web.StreamResponse:
        """200 with the next records of its partitions, after `timeout` ms at most, of `max_bytes` at most; a stream for
        a client that accepts one. The same `token` gives the same records. Raises HttpError 40403, 40601 for another
        format than its own, 40903, 40904."""
        kind = stream_answer(call.accept)
        if kind is not None:
            return await self._stream(call, FRAMES[kind])
        limits = call.context.limits
        bytes_max = min(integer(call, "max_bytes", default=limits.read_bytes_max, low=-1), limits.read_bytes_max)
        text = call.request.query.get("token")
        number = None if text is None else parse_integer(text, "token", low=1)
        wait_ms = min(integer(call, "timeout", default=INT32_MAX, low=-1), limits.read_wait_ms_max)
        with call.context.long_polls, call.while_allowed():
            started_ms = call.context.clock.monotonic_ms()
            begin = r.BeginPoll(
                **_names(call), number=number, wait_ms=max(min(wait_ms, 5_000), 0), reads_ms=max(wait_ms, -1)
            )
            plan = await self._ask(begin)
            form = _form(call, plan.config.format)
            wait_ms = min(wait_ms, plan.config.request_timeout_ms) if wait_ms >= 0 else plan.config.request_timeout_ms
            left_ms = max(wait_ms - (call.context.clock.monotonic_ms() - started_ms), 0)
            bytes_max = bytes_max if bytes_max > 0 else limits.read_bytes_max
            hold = partial(call.context.hold, call.request)
            poll = Poll(call.context, plan, form, bytes_max=bytes_max, hold=hold)
            await poll.run(wait_ms=left_ms)
            token, body = await self._finish(call, plan, poll, form)
        headers = {"Content-Type": form.media_type, NEXT_TOKEN: str(token)}
        return with_body(body, headers)

    async def _stream(self, call: Call, frames: Frames) -> web.StreamResponse:
        wait_ms, text = heartbeat_ms(call), stream_position(call)
        had = {} if text is None else parse_positions(text)
        plan = await self._ask(r.BeginPoll(**_names(call), number=None, wait_ms=0))
        form = Format(plan.config.format) if plan.config.format in EMBEDDED else None
        if form is None or call.request.query.get("format", form) != form:
            raise HttpError(FORMAT_MISMATCH, f"the consumer was created with format {plan.config.format}")
        source = ConsumerSource(call.context, self._ask, _names(call), plan=plan, had=had, form=form)
        return await serve(call, source, frames, wait_ms=wait_ms)

    async def _finish(self, call: Call, plan: a.PollPlan, poll: Poll, form: Format) -> tuple[int, bytes]:
        """The token to go on with, and the answer's body."""
        if plan.is_repeat:
            return plan.number + 1, poll.encoded()
        if not (poll.has_moved or poll.has_resolved):
            return plan.number, b"[]"
        body = poll.encoded()
        ended = await self._ask(
            r.EndPoll(
                **_names(call),
                number=plan.number,
                generation=plan.generation,
                ranges=poll.ranges,
                epochs=poll.epochs,
            )
        )
        if ended.ranges == poll.ranges:
            return plan.number + 1, body
        kept = {each[:2]: each for each in ended.ranges}
        mine = {each[:2]: each for each in poll.ranges}
        if all(mine.get(key) == each for key, each in kept.items()):
            poll.keep(ended.ranges)
            return plan.number + (1 if kept else 0), poll.encoded()
        other = a.PollPlan(
            config=plan.config, number=plan.number, generation=plan.generation, is_repeat=True, ranges=ended.ranges
        )
        again = Poll(
            call.context,
            other,
            form,
            bytes_max=call.context.limits.read_bytes_max,
            hold=partial(call.context.hold, call.request),
        )
        await again.run(wait_ms=0)
        return plan.number + 1, again.encoded()

    # --- offsets ------------------------------------------------------------------------------------------

    async def commit_consumer_offsets(self, call: Call) -> web.Response:
        """Commits all that was read, or these: `offsets` names records that were read, `partitions` the next ones to
        read. 200 or 204, by `rest.dialect`. Raises HttpError 40401, 40402, 40403, and what OffsetCommit is refused
        with."""
        asked = body_of(call, models.Commit)
        offsets = offsets_to_commit(call, asked.offsets, asked.partitions)
        if offsets is None:
            await check_instance(call, self._groups, r.DescribeInstance(**_names(call)))
        await self._ask(r.CommitInstance(**_names(call), offsets=offsets))
        return _answer(call, []) if call.context.dialect.commits_with_list else _done()

    async def get_consumer_offsets(self, call: Call) -> web.Response:
        """200 with the group's committed `offsets`, of the partitions in the body or of all that it reads; -1: none.
        Raises HttpError 40401, 40402, 40403."""
        asked = body_of(call, models.OffsetQuestion)
        found = await self._ask(r.DescribeInstance(**_names(call)))
        partitions = found.partitions if asked.partitions is None else known_partitions(call, asked.partitions)
        answer = await self._ask(r.FetchOffsets(group=call.path["group"], partitions=partitions))
        rows = [
            {"topic": each.topic, "partition": each.partition, "offset": each.offset, "metadata": each.metadata}
            for each in answer.offsets
        ]
        return _answer(call, {"offsets": rows})


def check(call: Call) -> None:
    """Media types, before the body is read. Raises HttpError 406, 415."""
    v2_answer(call.accept)
    if call.request.body_exists:
        content_type = call.request.headers.get("Content-Type")
        if content_type != "application/octet-stream":
            require_json_body(content_type)


def _names(call: Call) -> dict[str, Any]:
    return {"group": call.path["group"], "instance": call.path["instance"], "owner": call.owner}


def known_partitions(call: Call, partitions: Iterable[Any]) -> tuple[tuple[str, int], ...]:
    """Raises 40401 and 40402 for what does not exist."""
    found = []
    for each in partitions:
        topic = call.context.gateway.image.topic(each.topic)
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {each.topic!r} does not exist")
        if each.partition not in topic.partitions:
            raise HttpError(PARTITION_NOT_FOUND, f"Partition not found. Topic {each.topic!r} has no {each.partition}")
        found.append((each.topic, each.partition))
    if len(found) > POSITIONS_MAX:
        raise HttpError(UNPROCESSABLE, f"{len(found)} partitions in one request; it has at most {POSITIONS_MAX}")
    return tuple(found)


def offsets_to_commit(
    call: Call, offsets: Sequence[models.OffsetRef] | None, partitions: Sequence[models.OffsetRef] | None
) -> tuple[r.OffsetToCommit, ...] | None:
    """Those that a body names, of topics that the principal may read; None: it names none. Raises HttpError 40401,
    40402, TopicAuthorizationFailed 29."""
    if offsets is None and partitions is None:
        return None
    known = known_partitions(call, [*(offsets or ()), *(partitions or ())])
    call.check_topics(AclOperation.READ, (topic for topic, _ in known))
    read = [_offset_to_commit(each, each.offset + 1) for each in offsets or ()]
    return (*read, *(_offset_to_commit(each, each.offset) for each in partitions or ()))


async def check_instance(call: Call, groups: Groups, question: r.DescribeInstance) -> None:
    """Before all is committed that an instance has read: it may have been moved in topics that cannot be read, or ACLs
    have gone. An instance that is not there is refused by the commit. Raises TopicAuthorizationFailed 29."""
    if call.permissions is None:
        return
    found = await groups.ask(question)
    if isinstance(found, a.InstanceDescription):
        call.check_topics(AclOperation.READ, (topic for topic, _ in found.partitions))


def _offset_to_commit(each: models.OffsetRef, offset: int) -> r.OffsetToCommit:
    return r.OffsetToCommit(each.topic, each.partition, offset, each.metadata or "")


def _form(call: Call, created: str) -> Format:
    asked = consumer_format(call.accept)
    if call.context.dialect.reads_as_accepted and asked in EMBEDDED:
        return Format(asked)
    if created not in EMBEDDED or (asked is not None and asked != created):
        raise HttpError(FORMAT_MISMATCH, f"the consumer was created with format {created}, which {call.accept} is not")
    return Format(created)


def _answer(call: Call, document: Any) -> web.Response:
    content_type = v2_answer(call.accept)
    return web.Response(body=msgspec.json.encode(document), headers={"Content-Type": content_type})


def _done() -> web.Response:
    return web.Response(status=204)
