"""Fetch (1): record batches as they are in the log, to clients up to the high watermark.

Sessions (KIP-227) are those of the replica manager, in the same cache as the followers'. Until version 12 a request
names topics by name, from 13 on by id; an answer names a topic as it was asked for. From version 11 on a client may
read from followers, and the answer names one in its own rack (KIP-392). A client that reads committed records only gets
records up to the last stable offset, and a list of aborted transactions whose records it skips itself (KIP-98).

Only a node may fetch as a replica, which moves the high watermark and reads beyond it, and fetch the metadata log
(`kraft.wire.handlers.metadata_log`). A node also reads for its own clients, and gets errors, leaders and divergences as
they are. The controller's question before an unclean election (L8) is a Fetch, too. It has to reach a replica that does
not lead, and one answer has to hold last epoch, log end and high watermark, for which only Fetch has room: a request
with Kafka's debugging replica id -2 and an epoch above all epochs is answered with `diverging_epoch` = (last epoch, log
end offset), as KIP-595 has it, beside the high watermark. OffsetForLeaderEpoch knows no high watermark, DescribeLogDirs
no epochs, and ListOffsets answers for leaders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

from kraft.broker.client_quotas import Owner
from kraft.protocol.encoding import ZERO_UUID, TopLevel
from kraft.protocol.errors import (
    ClusterAuthorizationFailed,
    FencedLeaderEpoch,
    FetchSessionIdNotFound,
    InconsistentTopicId,
    KafkaError,
    KafkaStorageError,
    NotLeaderOrFollower,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.protocol.messages import fetch_request, fetch_response
from kraft.protocol.messages.fetch_request import FetchRequestData, FetchTopic
from kraft.protocol.messages.fetch_response import (
    NO_EPOCH_END_OFFSET,
    NO_LEADER_ID_AND_EPOCH,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchResponseData,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from kraft.values import new
from kraft.wire.access import changed, readable
from kraft.wire.api_handler import Answer, ApiHandler, Call, Later
from kraft.wire.connection_watch import LOOK_MS, STANDSTILL_MS
from kraft.wire.grouping import by_topic
from kraft.wire.handlers.absent_partitions import (
    UNKNOWN_OFFSET,
    AbsentPartitions,
    has_many,
    without_session,
)
from kraft.wire.handlers.endpoints import node_endpoints
from kraft.wire.handlers.fetch_in_parts import AGAIN_MS, AT_ONCE_MAX, CUTS, Reading, offsets_of
from kraft.wire.handlers.leaders import UNKNOWN, Leaders
from kraft.wire.handlers.metadata_log import fetch_metadata, is_metadata_fetch
from kraft.wire.large_requests import written
from kraft.wire.lazy import Lazy
from kraft.wire.node_parts import NodeParts
from kraft.wire.request_pieces import in_pieces
from kraft.wire.terms import DEBUGGING_REPLICA, READ_COMMITTED
from metadata.image import MetadataImage, TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.partition.log import AbortedTransaction
from replication.record_workers import RecordWorkers
from replication.requests import (
    CONSUMER,
    FINAL_EPOCH,
    INITIAL_EPOCH,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    PartitionKey,
)

FIRST_WITH_RACK = 11
FIRST_WITH_TOPIC_IDS = 13
ROOM_WAIT_MS = STANDSTILL_MS + 2 * LOOK_MS
"""Beyond its own wait, how long a fetch waits for room: clients that read nothing lose theirs meanwhile."""
MOVED = (NotLeaderOrFollower.code, FencedLeaderEpoch.code)
"""Errors that come with the leader (KIP-951)."""
NO_SUCH_PARTITION = (UnknownTopicOrPartition.code, UnknownTopicId.code, InconsistentTopicId.code)
ASKED_AT_ONCE = 1_000
"""Topics whose ACLs are looked at before others have their turn."""
KNOWN_TO_CLIENTS = frozenset({0, 1, 2, 3, 6, 9, 29, 56, 74, 75, 78, 100, 103})
"""Errors of a partition that Java's consumer survives: any other one ends its poll with an IllegalStateException."""


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    return [_Fetch(parts).api]


class _Fetch:
    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._leaders = Leaders(parts.gateway)
        self._answers = parts.answers
        self.api = ApiHandler(request=FetchRequestData, response=FetchResponseData, handle=self.handle, refuse=_refuse)

    @cached_property
    def _work(self) -> RecordWorkers:
        return RecordWorkers(self._parts.environment.workers)

    @property
    def _replicas(self) -> ReplicaManager:
        return self._parts.broker_or(NotLeaderOrFollower).replicas

    def handle(self, call: Call[FetchRequestData]) -> Answer:
        if call.is_from_node:
            return self._handle_for_node(call.message)
        if has_many(call.message):
            return self._of_many(call)
        if self._answers.has_room():
            return self._begin(call)
        return self._when_there_is_room(call)

    def _handle_for_node(self, message: FetchRequestData) -> Answer:
        if is_metadata_fetch(message):
            return fetch_metadata(self._parts.metadata_fetches, message)
        if message.replica_state.replica_id == DEBUGGING_REPLICA:
            return self._log_ends(message)
        begun = self._replicas.fetch.begin(_node_request(message))
        if isinstance(begun, FetchResponse):
            return _response_for_node(begun)
        come = begun.answer
        return Later(begun.future, lambda _: _response_for_node(come()))

    async def _of_many(self, call: Call[FetchRequestData]) -> TopLevel:
        image, names_topics = self._parts.gateway.image, call.version < FIRST_WITH_TOPIC_IDS
        denied = await self._denied(call, image)
        absent = await self._work.run(AbsentPartitions, call.message, image, names_topics=names_topics, denied=denied)
        is_in_parts = absent.rest_count > AT_ONCE_MAX
        if (absent or is_in_parts) and call.message.session_epoch not in (INITIAL_EPOCH, FINAL_EPOCH):
            raise FetchSessionIdNotFound(
                f"a fetch of more than {AT_ONCE_MAX} partitions, or of many that do not exist, has no session"
            )
        if is_in_parts:
            return await self._in_parts(call, image)
        rest = replace(call, message=absent.rest)
        begun = self._begin(rest) if self._answers.has_room() else await self._when_there_is_room(rest)
        found = await _come(begun)
        return await self._work.run(written, absent.answered_with(found), call.version) if absent else found

    async def _denied(self, call: Call[FetchRequestData], image: MetadataImage) -> Collection[str]:
        """Names that the client may not read: topics that it may not know of look as if they were absent."""
        may_read, denied = readable(call, self._parts.gateway), set()
        if may_read is None:
            return ()
        for number, topic in enumerate(call.message.topics):
            found = image.topics.get(topic.topic_id)
            name = topic.topic if found is None else found.name
            if not may_read(name):
                denied.add(name)
            if number % ASKED_AT_ONCE == 0:
                await self._parts.environment.clock.sleep(0)
        return denied

    async def _in_parts(self, call: Call[FetchRequestData], image: MetadataImage) -> TopLevel:
        """The answer to a fetch of thousands of partitions that exist. Raises ClusterAuthorizationFailed 31."""
        message, clock, fetch = call.message, self._parts.environment.clock, self._replicas.fetch
        names_topics = call.version < FIRST_WITH_TOPIC_IDS
        offsets = await self._work.run(offsets_of, message, image, names_topics=names_topics)
        nothing = replace(call, message=without_session(message, ()))
        request = _client_request(nothing, room=self._answers.room, may_read=readable(call, self._parts.gateway))
        until_ms = clock.monotonic_ms() + max(message.max_wait_ms, 0)
        while True:
            if not self._answers.has_room():
                await self._answers.wait(clock, ms_max=max(message.max_wait_ms, 0) + ROOM_WAIT_MS)
                self._answers.admit()
            wait_ms = until_ms - clock.monotonic_ms()
            event = fetch.watch_many(request, offsets, wait_ms=wait_ms) if wait_ms > 0 else None
            reading = Reading(self.api, self._read_part, self._answers, message)
            try:
                answer = await in_pieces(reading.api, call, clock, cuts=CUTS)
                if event is None or reading.is_over:
                    return answer
                await event
            finally:
                reading.close()
                if event is not None:
                    event.cancel()
            await clock.sleep(AGAIN_MS)

    async def _read_part(self, call: Call[FetchRequestData], room: Callable[[], int]) -> FetchResponseData:
        return await _come(self._begin(call, room))

    async def _when_there_is_room(self, call: Call[FetchRequestData]) -> FetchResponseData:
        """Without room in time, the answer has no records, and its reader asks again."""
        wait_ms = max(call.message.max_wait_ms, 0) + ROOM_WAIT_MS
        await self._answers.wait(self._parts.environment.clock, ms_max=wait_ms)
        try:
            begun = self._begin(call)
        finally:
            self._answers.admit()
        return await _come(begun)

    def _begin(self, call: Call[FetchRequestData], room: Callable[[], int] | None = None) -> FetchResponseData | Later:
        may_read = readable(call, self._parts.gateway)
        if (quotas := self._parts.gateway.quotas) is not None:
            most = quotas.fetch_bytes_max(Owner(call.principal.name, call.client_id))
            if most is not None and most < call.message.max_bytes:
                call = replace(call, message=changed(call.message, max_bytes=most))
        request = _client_request(call, room=room or self._answers.room, may_read=may_read)
        begun = self._replicas.fetch.begin(request)
        if isinstance(begun, FetchResponse):
            return self._response(call, begun)
        come = begun.answer
        return Later(begun.future, lambda _: self._response(call, come()))

    def _response(self, call: Call[FetchRequestData], reply: FetchResponse) -> FetchResponseData:
        is_committed = call.message.isolation_level == READ_COMMITTED
        leader_ids: list[int] = []
        topics: dict[str | int, tuple[FetchedPartition, list[PartitionData]]] = {}
        for item in reply.partitions:
            found = self._failed(item, leader_ids) if item.error_code else _read(item, is_committed=is_committed)
            topic = item.topic or item.topic_id.int
            known = topics.get(topic)
            if known is None:
                topics[topic] = item, [found]
            else:
                known[1].append(found)
        return FetchResponseData.make(
            error_code=reply.error_code,
            session_id=reply.session_id,
            responses=[
                FetchableTopicResponse.make(topic=first.topic, topic_id=first.topic_id, partitions=partitions)
                for first, partitions in topics.values()
            ],
            node_endpoints=[
                NodeEndpoint.make(**each._asdict()) for each in node_endpoints(self._parts, leader_ids, call.connection)
            ]
            if leader_ids
            else (),
        )

    def _log_ends(self, message: FetchRequestData) -> FetchResponseData:
        asked = [TopicIdPartition(topic.topic_id, at.partition) for topic in message.topics for at in topic.partitions]
        return FetchResponseData.make(
            responses=[
                FetchableTopicResponse.make(
                    topic_id=topic_id,
                    partitions=[
                        PartitionData.make(
                            partition_index=end.partition,
                            error_code=end.error_code,
                            high_watermark=end.high_watermark,
                            diverging_epoch=EpochEndOffset.make(epoch=end.last_epoch, end_offset=end.log_end_offset),
                            aborted_transactions=None,
                        )
                        for end in ends
                    ],
                )
                for topic_id, ends in by_topic(self._replicas.offsets.log_ends(asked))
            ]
        )

    def _failed(self, item: FetchedPartition, leader_ids: list[int]) -> PartitionData:
        leader = NO_LEADER_ID_AND_EPOCH
        if item.error_code in MOVED and item.topic_id != ZERO_UUID:
            current = self._leaders.current(TopicIdPartition(item.topic_id, item.partition))
            if current != UNKNOWN:
                leader = LeaderIdAndEpoch.make(leader_id=current[0], leader_epoch=current[1])
                leader_ids.append(current[0])
        return PartitionData.make(
            partition_index=item.partition,
            error_code=item.error_code if item.error_code in KNOWN_TO_CLIENTS else KafkaStorageError.code,
            high_watermark=UNKNOWN_OFFSET,
            last_stable_offset=UNKNOWN_OFFSET,
            log_start_offset=UNKNOWN_OFFSET,
            current_leader=leader,
            aborted_transactions=() if item.error_code in NO_SUCH_PARTITION else None,
        )


async def _come(begun: FetchResponseData | Later) -> FetchResponseData:
    if isinstance(begun, Later):
        await begun.future
        return cast(FetchResponseData, begun.render(None))
    return begun


def _node_request(message: FetchRequestData) -> FetchRequest:
    """The fetch of a follower, or of a node that reads for its clients."""
    topics, forgotten, replica = message.topics, message.forgotten_topics_data, message.replica_state
    made = new(FetchRequest)
    FetchRequest.__init__(
        made,
        replica_id=replica.replica_id,
        replica_epoch=replica.replica_epoch,
        wait_ms_max=message.max_wait_ms,
        bytes_min=message.min_bytes,
        bytes_max=message.max_bytes,
        session_id=message.session_id,
        session_epoch=message.session_epoch,
        partitions=tuple([_asked(topic, item) for topic in topics for item in topic.partitions]),
        forgotten=tuple([TopicIdPartition(each.topic_id, number) for each in forgotten for number in each.partitions]),
        is_read_committed=message.isolation_level == READ_COMMITTED,
    )
    return made


def _client_request(
    call: Call[FetchRequestData], *, room: Callable[[], int], may_read: Callable[[str], bool] | None
) -> FetchRequest:
    """Raises ClusterAuthorizationFailed 31 for a client that fetches as a replica: nobody but a node moves a high
    watermark or reads beyond it."""
    message = call.message
    if message.replica_id >= 0 or message.replica_state.replica_id >= 0:
        raise ClusterAuthorizationFailed("only nodes of the cluster fetch as replicas; leave the replica id at -1")
    names_topics = call.version < FIRST_WITH_TOPIC_IDS
    forgotten: list[PartitionKey] = [
        (topic.topic, number) if names_topics else TopicIdPartition(topic.topic_id, number)
        for topic in message.forgotten_topics_data
        for number in topic.partitions
    ]
    made = new(FetchRequest)
    FetchRequest.__init__(
        made,
        replica_id=CONSUMER,
        replica_epoch=-1,
        wait_ms_max=message.max_wait_ms,
        bytes_min=message.min_bytes,
        bytes_max=message.max_bytes,
        session_id=message.session_id,
        session_epoch=message.session_epoch,
        partitions=tuple([_asked(topic, item) for topic in message.topics for item in topic.partitions]),
        forgotten=forgotten,
        names_topics=names_topics,
        reads_followers=call.version >= FIRST_WITH_RACK,
        rack=message.rack_id,
        room=room,
        is_read_committed=message.isolation_level == READ_COMMITTED,
        may_read=may_read,
    )
    return made


def _asked(topic: FetchTopic, item: fetch_request.FetchPartition) -> FetchPartition:
    made = new(FetchPartition)
    FetchPartition.__init__(
        made,
        topic_id=topic.topic_id,
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=item.last_fetched_epoch,
        log_start_offset=item.log_start_offset,
        bytes_max=item.partition_max_bytes,
        topic=topic.topic,
    )
    return made


def _read(item: FetchedPartition, *, is_committed: bool) -> PartitionData:
    aborted = [_aborted(each) for each in item.aborted] if is_committed else None
    if item.diverging_epoch is not None:
        return PartitionData.make(
            partition_index=item.partition,
            high_watermark=UNKNOWN_OFFSET,
            last_stable_offset=UNKNOWN_OFFSET,
            log_start_offset=UNKNOWN_OFFSET,
            diverging_epoch=EpochEndOffset.make(
                epoch=item.diverging_epoch.epoch, end_offset=item.diverging_epoch.end_offset
            ),
            aborted_transactions=aborted,
        )
    return PartitionData.make(
        partition_index=item.partition,
        error_code=0,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        aborted_transactions=aborted,
        preferred_read_replica=item.preferred_read_replica,
        records=item.records,
    )


def _response_for_node(reply: FetchResponse) -> FetchResponseData:
    return FetchResponseData.make(
        error_code=reply.error_code,
        session_id=reply.session_id,
        responses=[
            FetchableTopicResponse.make(topic_id=topic_id, partitions=[_as_it_is(item) for item in items])
            for topic_id, items in by_topic(reply.partitions)
        ],
    )


def _as_it_is(item: FetchedPartition) -> PartitionData:
    """For a node, which knows what each of it means."""
    diverging_epoch, current_leader = NO_EPOCH_END_OFFSET, NO_LEADER_ID_AND_EPOCH
    if item.diverging_epoch is not None:
        end = item.diverging_epoch
        diverging_epoch = EpochEndOffset.make(epoch=end.epoch, end_offset=end.end_offset)
    if item.current_leader is not None:
        leader_id, leader_epoch = item.current_leader
        current_leader = LeaderIdAndEpoch.make(leader_id=leader_id, leader_epoch=leader_epoch)
    return PartitionData.make(
        partition_index=item.partition,
        error_code=item.error_code,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        diverging_epoch=diverging_epoch,
        current_leader=current_leader,
        aborted_transactions=[_aborted(each) for each in item.aborted] if item.aborted else None,
        records=item.records,
    )


def _aborted(transaction: AbortedTransaction) -> fetch_response.AbortedTransaction:
    return fetch_response.AbortedTransaction.make(
        producer_id=transaction.producer_id, first_offset=transaction.first_offset
    )


def _refuse(message: FetchRequestData, version: int, error: KafkaError) -> FetchResponseData:
    """The answer of Kafka's `FetchRequest.getErrorResponse`: before version 13 each partition has the error, too."""
    topics = message.topics if version < FIRST_WITH_TOPIC_IDS else ()
    return FetchResponseData.make(
        error_code=error.code,
        session_id=message.session_id,
        responses=Lazy(len(topics), lambda: (_refused(topic, error.code) for topic in topics)),
    )


def _refused(topic: FetchTopic, code: int) -> FetchableTopicResponse:
    def each() -> Iterator[PartitionData]:
        for item in topic.partitions:
            yield PartitionData.make(partition_index=item.partition, error_code=code, high_watermark=-1)

    return FetchableTopicResponse.make(topic=topic.topic, partitions=Lazy(len(topic.partitions), each))
