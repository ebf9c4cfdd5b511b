"""ShareFetch (78) and ShareAcknowledge (79): members of share groups get records from the leaders of partitions, and
say what became of them (KIP-932).

A node asks for receives and acknowledgements over REST, which have no share session: the time of a lock alone ends it.

A request may do both: its acknowledgements begin first, then it fetches, and it is answered when both are done. The
leader asks nobody whether a member belongs to the group: the share session is what it knows. READ on the group is
checked before these handlers (`kraft.wire.access_table`), READ on each topic of the session here, at every request.
Source: KafkaApis.handleShareFetchRequest, handleShareAcknowledgeRequest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from kraft.broker.permissions import refusal_of
from kraft.coordinators.shares.leaders import Handed, Leases, Results, ShareFetch, ShareLeaders
from kraft.protocol.errors import (
    InvalidRequest,
    KafkaError,
    NotLeaderOrFollower,
    ShareSessionLimitReached,
)
from kraft.protocol.messages import share_acknowledge_response, share_fetch_response
from kraft.protocol.messages.share_acknowledge_request import ShareAcknowledgeRequestData
from kraft.protocol.messages.share_acknowledge_response import ShareAcknowledgeResponseData
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from kraft.protocol.messages.share_fetch_response import ShareFetchResponseData
from kraft.wire.access import readable
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.handlers.endpoints import node_endpoints
from kraft.wire.handlers.leaders import Leaders
from kraft.wire.node_parts import NodeParts
from metadata.acls import AclResource
from metadata.image import TopicIdPartition
from replication.shares.acknowledgements import AcknowledgementBatch, Part
from replication.shares.sessions import FINAL_EPOCH, INITIAL_EPOCH, SessionKey, ShareSession
from replication.shares.settled import Lease
from replication.shares.states import AcknowledgeType

MEMBER_ID_MAX: Final = 36
ACLS_LOOK_MS: Final = 500
"""How often the ACLs of a fetch that waits are looked at."""
RECORD_LIMIT: Final = 1
"""ShareAcquireMode: never more than MaxRecords; 0 is batch_optimized."""
RENEWS_FROM: Final = 2
"""Versions whose requests may renew locks (KIP-1222)."""

Batches = Mapping[TopicIdPartition, Sequence[AcknowledgementBatch]]


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    """The handlers of this module."""
    shares = _Shares(broker)
    return [
        ApiHandler(
            request=ShareFetchRequestData,
            response=ShareFetchResponseData,
            handle=shares.fetch,
            refuse=lambda message, version, error: ShareFetchResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=ShareAcknowledgeRequestData,
            response=ShareAcknowledgeResponseData,
            handle=shares.acknowledge,
            refuse=lambda message, version, error: ShareAcknowledgeResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    ]


class _Shares:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker
        self._hints = Leaders(broker.gateway)

    @property
    def _leaders(self) -> ShareLeaders:
        return self._broker.broker_or(NotLeaderOrFollower).shares.leaders

    # --- ShareFetch ---------------------------------------------------------------------------------------------

    async def fetch(self, call: Call[ShareFetchRequestData]) -> ShareFetchResponseData:
        """Raises InvalidRequest 42, ShareSessionNotFound 122, InvalidShareSessionEpoch 123, ShareSessionLimitReached
        133."""
        message, epoch = call.message, call.message.share_session_epoch
        key = _session_key(message)
        if call.is_from_node:
            return await self._fetch_for_node(call, key)
        batches = _batches(message)
        _check_fetch(message, batches)
        may_renew = self._may_renew(call)
        try:
            session = self._leaders.sessions.begin(
                key,
                epoch,
                call.connection,
                sessions_max=self._broker.gateway.settings.group_share_max_share_sessions,
            )
        except ShareSessionLimitReached:
            await self._broker.environment.clock.sleep(max(0, message.max_wait_ms))
            raise
        call.connection.on_ended[self._leaders] = lambda: self._leaders.disconnected(call.connection)
        session.update(
            _named(message.topics),
            [
                TopicIdPartition(topic.topic_id, number)
                for topic in message.forgotten_topics_data
                for number in topic.partitions
            ],
        )
        batches, refused = self._settleable(call, batches)
        settled = await self._leaders.begin_acknowledging(key.group, key.member, batches, may_renew=may_renew)
        handed: Mapping[TopicIdPartition, Handed] = {}
        if epoch != FINAL_EPOCH and not message.is_renew_ack:
            handed = await self._handed(call, key, session)
        results = {**await settled(), **refused}
        if epoch == FINAL_EPOCH:
            self._end_session(key)
        answered = list(session.partitions) if epoch == INITIAL_EPOCH else [*handed, *results]
        return self._fetched(call, key.group, answered, handed, results)

    async def _handed(
        self, call: Call[ShareFetchRequestData], key: SessionKey, session: ShareSession
    ) -> Mapping[TopicIdPartition, Handed]:
        """What the member gets, and errors of what it may not read, also of what it may read no longer."""
        clock, wait_ms = self._broker.environment.clock, max(0, call.message.max_wait_ms)
        until_ms, is_checked = clock.monotonic_ms() + wait_ms, self._broker.gateway.authorizer is not None
        while True:
            wanted, denied = self._readable(call, session.in_turn())
            look_ms = min(wait_ms, ACLS_LOOK_MS) if is_checked else wait_ms
            handed = await self._leaders.fetch(self._ask(call.message, key, wanted, wait_ms=look_ms))
            wait_ms = until_ms - clock.monotonic_ms()
            if handed or denied or wait_ms <= 0:
                return {**handed, **denied}

    async def _fetch_for_node(self, call: Call[ShareFetchRequestData], key: SessionKey) -> ShareFetchResponseData:
        """A receive over REST, which has no session: what it acquires stays locked when the connection ends. The
        acknowledgements that come with it name their locks themselves. A peek acquires nothing."""
        if call.message.is_peek:
            return await self._peek(call.message)
        ask = self._ask(call.message, key, _named(call.message.topics), wait_ms=max(0, call.message.max_wait_ms))
        if not call.message.leases:
            handed = await self._leaders.fetch(ask)
            return self._fetched(call, key.group, handed, handed, {})
        results, handed = await self._leaders.exchange(_leases(call.message.leases), ask)
        answer = self._fetched(call, key.group, handed, handed, {})
        answer.lease_results = _lease_results(results, share_fetch_response.LeaseResult)
        return answer

    async def _peek(self, message: ShareFetchRequestData) -> ShareFetchResponseData:
        partitions = _named(message.topics)
        found = await self._leaders.peek(message.group_id or "", partitions, records_max=message.max_records)
        topics: dict[UUID, list[share_fetch_response.PartitionData]] = {}
        for where, each in found.items():
            data = share_fetch_response.PartitionData.make(
                partition_index=where.partition,
                error_code=_code(each.error),
                error_message=_text(each.error),
                start_offset=each.start_offset,
                end_offset=each.end_offset,
                in_flight=[
                    share_fetch_response.InFlightRecords.make(
                        in_flight_first=first,
                        in_flight_last=last,
                        delivery_state=state,
                        deliveries=delivery_count,
                        lock_left_ms=lock_ms,
                    )
                    for first, last, state, delivery_count, lock_ms in each.in_flight
                ],
                dead_letters_lost=each.dead_letters_lost,
                last_dead_letter_error=each.last_dead_letter_error,
            )
            topics.setdefault(where.topic_id, []).append(data)
        return ShareFetchResponseData.make(
            responses=[
                share_fetch_response.ShareFetchableTopicResponse.make(topic_id=topic_id, partitions=rows)
                for topic_id, rows in topics.items()
            ]
        )

    def _ask(
        self,
        message: ShareFetchRequestData,
        key: SessionKey,
        partitions: Sequence[TopicIdPartition],
        *,
        wait_ms: int,
    ) -> ShareFetch:
        return ShareFetch(
            group=key.group,
            member=key.member,
            partitions=partitions,
            wait_ms=wait_ms,
            bytes_max=max(1, message.max_bytes),
            records_max=max(0, message.max_records),
            batch_size=message.batch_size,
            is_strict=message.share_acquire_mode == RECORD_LIMIT,
            room=lambda: self._broker.answers.room(),
            lock_ms=message.lock_ms,
        )

    def _end_session(self, key: SessionKey) -> None:
        self._leaders.sessions.close(key)
        self._leaders.release(key)

    def _fetched(
        self,
        call: Call[Any],
        group: str,
        answered: Iterable[TopicIdPartition],
        handed: Mapping[TopicIdPartition, Handed],
        results: Results,
    ) -> ShareFetchResponseData:
        topics: dict[UUID, list[share_fetch_response.PartitionData]] = {}
        leader_ids: list[int] = []
        for where in dict.fromkeys(answered):
            found, acknowledged = handed.get(where, NOTHING), results.get(where)
            data = share_fetch_response.PartitionData.make(
                partition_index=where.partition,
                error_code=_code(found.error),
                error_message=_text(found.error),
                acknowledge_error_code=_code(acknowledged),
                acknowledge_error_message=_text(acknowledged),
                records=found.records,
                acquired_records=[
                    share_fetch_response.AcquiredRecords.make(
                        first_offset=first, last_offset=last, delivery_count=delivery_count
                    )
                    for first, last, delivery_count in found.acquired
                ],
            )
            leader = self._hint(where, found.error, acknowledged)
            if found.acquired and call.is_from_node:
                leader = (self._broker.gateway.node_id, found.leader_epoch)
            if leader is not None:
                data.current_leader = share_fetch_response.LeaderIdAndEpoch.make(
                    leader_id=leader[0], leader_epoch=leader[1]
                )
                leader_ids.append(leader[0])
            topics.setdefault(where.topic_id, []).append(data)
        return ShareFetchResponseData.make(
            acquisition_lock_timeout_ms=self._lock_ms(group),
            responses=[
                share_fetch_response.ShareFetchableTopicResponse.make(topic_id=topic_id, partitions=partitions)
                for topic_id, partitions in topics.items()
            ],
            node_endpoints=self._endpoints(leader_ids, call.connection, share_fetch_response.NodeEndpoint),
        )

    # --- ShareAcknowledge ---------------------------------------------------------------------------------------

    async def acknowledge(self, call: Call[ShareAcknowledgeRequestData]) -> ShareAcknowledgeResponseData:
        """Raises InvalidRequest 42, ShareSessionNotFound 122, InvalidShareSessionEpoch 123."""
        message, epoch = call.message, call.message.share_session_epoch
        key = _session_key(message)
        if call.is_from_node:
            return await self._settle(message)
        batches = _batches(message)
        may_renew = self._may_renew(call)
        self._leaders.sessions.go_on(key, epoch, call.connection)
        call.connection.on_ended[self._leaders] = lambda: self._leaders.disconnected(call.connection)
        batches, refused = self._settleable(call, batches)
        done = await self._leaders.acknowledge(key.group, key.member, batches, may_renew=may_renew)
        if epoch == FINAL_EPOCH:
            self._end_session(key)
        results = {**done, **refused}
        topics: dict[UUID, list[share_acknowledge_response.PartitionData]] = {}
        leader_ids: list[int] = []
        for where, error in results.items():
            data = share_acknowledge_response.PartitionData.make(
                partition_index=where.partition, error_code=_code(error), error_message=_text(error)
            )
            leader = self._hint(where, error)
            if leader is not None:
                data.current_leader = share_acknowledge_response.LeaderIdAndEpoch.make(
                    leader_id=leader[0], leader_epoch=leader[1]
                )
                leader_ids.append(leader[0])
            topics.setdefault(where.topic_id, []).append(data)
        return ShareAcknowledgeResponseData.make(
            acquisition_lock_timeout_ms=self._lock_ms(key.group),
            responses=[
                share_acknowledge_response.ShareAcknowledgeTopicResponse.make(topic_id=topic_id, partitions=partitions)
                for topic_id, partitions in topics.items()
            ],
            node_endpoints=self._endpoints(leader_ids, call.connection, share_acknowledge_response.NodeEndpoint),
        )

    async def _settle(self, message: ShareAcknowledgeRequestData) -> ShareAcknowledgeResponseData:
        results = await self._leaders.settle(message.group_id or "", _leases(message.leases))
        return ShareAcknowledgeResponseData.make(
            lease_results=_lease_results(results, share_acknowledge_response.LeaseResult)
        )

    # --- both ---------------------------------------------------------------------------------------------------

    def _readable(
        self, call: Call[Any], partitions: Sequence[TopicIdPartition]
    ) -> tuple[Sequence[TopicIdPartition], Mapping[TopicIdPartition, Handed]]:
        """The partitions that the member may read, and answers for the others."""
        denied = self._denied(call, partitions)
        if not denied:
            return partitions, {}
        error = refusal_of(AclResource.TOPIC)
        return [each for each in partitions if each not in denied], {each: Handed(error=error) for each in denied}

    def _settleable(self, call: Call[Any], batches: Batches) -> tuple[Batches, Results]:
        """The acknowledgements of what the member may read, and answers for the others."""
        denied = self._denied(call, batches)
        if not denied:
            return batches, {}
        error = refusal_of(AclResource.TOPIC)
        return {each: batches[each] for each in batches if each not in denied}, dict.fromkeys(denied, error)

    def _denied(self, call: Call[Any], partitions: Iterable[TopicIdPartition]) -> set[TopicIdPartition]:
        gateway = self._broker.gateway
        may_read = readable(call, gateway)
        if may_read is None:
            return set()
        topics = gateway.image.topics
        return {
            each for each in partitions if (topic := topics.get(each.topic_id)) is not None and not may_read(topic.name)
        }

    def _may_renew(self, call: Call[Any]) -> bool:
        """Whether locks may be renewed: the request announces it, and share.renew.acknowledge.enable of the group."""
        message = call.message
        return (
            call.version >= RENEWS_FROM
            and message.is_renew_ack
            and self._leaders.settings_of(message.group_id).share_renew_acknowledge_enable
        )

    def _lock_ms(self, group: str) -> int:
        return self._leaders.settings_of(group).share_record_lock_duration_ms

    def _hint(self, where: TopicIdPartition, *errors: KafkaError | None) -> tuple[int, int] | None:
        """The leader of the partition, for a member that came to the wrong broker (KIP-951)."""
        if not any(isinstance(error, NotLeaderOrFollower) for error in errors):
            return None
        current = self._hints.current(where)
        return None if current[0] < 0 else current

    def _endpoints(self, leader_ids: Sequence[int], connection: ClientConnection, kind: Any) -> Sequence[Any]:
        return [kind.make(**each._asdict()) for each in node_endpoints(self._broker, leader_ids, connection)]


NOTHING: Final = Handed()


def _session_key(message: ShareFetchRequestData | ShareAcknowledgeRequestData) -> SessionKey:
    """Raises InvalidRequest 42 for a member id that cannot be one."""
    if not message.group_id:
        raise InvalidRequest("a share group has a group id")
    if not message.member_id or len(message.member_id) > MEMBER_ID_MAX:
        raise InvalidRequest(f"the id of a member of a share group has 1 to {MEMBER_ID_MAX} characters")
    return SessionKey(message.group_id, message.member_id)


def _check_fetch(message: ShareFetchRequestData, batches: Batches) -> None:
    if message.share_session_epoch == INITIAL_EPOCH and batches:
        raise InvalidRequest("a request that opens a share session has no acknowledgements: there is nothing to have")
    if message.is_renew_ack and any((message.max_bytes, message.min_bytes, message.max_records, message.max_wait_ms)):
        raise InvalidRequest("a request that renews locks fetches nothing: its maximums and its wait are 0")


def _named(topics: Iterable[Any]) -> list[TopicIdPartition]:
    return [TopicIdPartition(topic.topic_id, each.partition_index) for topic in topics for each in topic.partitions]


def _leases(leases: Iterable[Any]) -> Leases:
    return [
        (
            TopicIdPartition(each.topic_id, each.partition_index),
            Lease(
                member=each.lease_member_id,
                part=Part(
                    each.first_offset,
                    each.last_offset,
                    AcknowledgeType(each.acknowledge_type),
                    each.reason,
                    each.delay_ms,
                ),
                leader_epoch=each.leader_epoch,
                delivery_count=each.delivery_count,
                until_ms=each.until_ms,
                lock_ms=each.lock_ms,
            ),
        )
        for each in leases
    ]


def _lease_results(results: Iterable[KafkaError | None], kind: Any) -> list[Any]:
    return [kind.make(result_code=_code(error), result_message=_text(error)) for error in results]


def _batches(message: ShareFetchRequestData | ShareAcknowledgeRequestData) -> Batches:
    """The acknowledgements by partition; all batches of one that is named twice."""
    found: dict[TopicIdPartition, list[AcknowledgementBatch]] = {}
    for topic in message.topics:
        for each in topic.partitions:
            if each.acknowledgement_batches:
                found.setdefault(TopicIdPartition(topic.topic_id, each.partition_index), []).extend(
                    AcknowledgementBatch(batch.first_offset, batch.last_offset, batch.acknowledge_types)
                    for batch in each.acknowledgement_batches
                )
    return found


def _code(error: KafkaError | None) -> int:
    return 0 if error is None else error.code


def _text(error: KafkaError | None) -> str | None:
    return None if error is None else error.message
