"""What this node asks the leader of a partition for receivers over REST: ShareFetch (78) and ShareAcknowledge (79),
without share sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kraft.coordinators.shares.leaders import Handed, Leases, ShareFetch
from kraft.coordinators.shares.peek import InFlight, Peeked
from kraft.protocol import apis
from kraft.protocol.codec import Malformed
from kraft.protocol.errors import KafkaError, for_code
from kraft.protocol.messages import share_acknowledge_request as acknowledging
from kraft.protocol.messages import share_fetch_request as fetching
from kraft.protocol.messages.share_acknowledge_response import ShareAcknowledgeResponseData
from kraft.protocol.messages.share_fetch_response import ShareFetchResponseData
from kraft.wire.grouping import by_topic
from kraft.wire.peers import Lane, Peers
from kraft.wire.rpc import ANSWER_SLACK_MS, REPLICA_TIMEOUT_MS, Rpc
from metadata.image import TopicIdPartition
from replication.shares.partition import Acquired
from replication.shares.states import DeliveryState

FETCH_SLACK_MS = 5_000
"""Beyond a receive's wait: a share partition may have to be loaded first."""


Exchanged: TypeAlias = tuple[Sequence[KafkaError | None], Mapping[TopicIdPartition, Handed]]

PEEKING_MEMBER = "peek"
"""The member id of requests that acquire nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Acknowledgements of one group for one leader."""

    group: str
    leases: Leases


def _fetch_request(request: ShareFetch, timeout_ms: int) -> fetching.ShareFetchRequestData:
    return fetching.ShareFetchRequestData.make(
        group_id=request.group,
        member_id=request.member,
        max_wait_ms=request.wait_ms,
        min_bytes=1,
        max_bytes=request.bytes_max,
        max_records=request.records_max,
        batch_size=request.batch_size,
        share_acquire_mode=int(request.is_strict),
        lock_ms=request.lock_ms,
        topics=_fetch_topics(request.partitions),
    )


def _fetch_topics(partitions: Sequence[TopicIdPartition]) -> list[fetching.FetchTopic]:
    return [
        fetching.FetchTopic.make(
            topic_id=topic_id,
            partitions=[fetching.FetchPartition.make(partition_index=key.partition) for key in keys],
        )
        for topic_id, keys in by_topic(tuple(partitions))
    ]


def _handed(request: ShareFetch, message: ShareFetchResponseData) -> Mapping[TopicIdPartition, Handed]:
    if message.error_code:
        raise for_code(message.error_code, message.error_message or "")
    return {
        TopicIdPartition(topic.topic_id, item.partition_index): Handed(
            error=for_code(item.error_code, item.error_message or "") if item.error_code else None,
            records=item.records or b"",
            acquired=[
                Acquired(each.first_offset, each.last_offset, each.delivery_count) for each in item.acquired_records
            ],
            leader_epoch=item.current_leader.leader_epoch,
            lock_ms=request.lock_ms,
        )
        for topic in message.responses
        for item in topic.partitions
    }


SHARE_FETCH: Rpc[
    ShareFetch, Mapping[TopicIdPartition, Handed], fetching.ShareFetchRequestData, ShareFetchResponseData
] = Rpc(api=apis.SHARE_FETCH, response=ShareFetchResponseData, to_request=_fetch_request, from_reply=_handed)


def _settle_request(request: Settling, timeout_ms: int) -> acknowledging.ShareAcknowledgeRequestData:
    return acknowledging.ShareAcknowledgeRequestData.make(
        group_id=request.group,
        member_id=request.leases[0][1].member,
        leases=_leases(request.leases, acknowledging.Lease),
    )


def _leases(leases: Leases, kind: Any) -> list[Any]:
    return [
        kind.make(
            topic_id=where.topic_id,
            partition_index=where.partition,
            first_offset=lease.part.first,
            last_offset=lease.part.last,
            acknowledge_type=lease.part.type,
            lease_member_id=lease.member,
            leader_epoch=lease.leader_epoch,
            delivery_count=lease.delivery_count,
            until_ms=lease.until_ms,
            lock_ms=lease.lock_ms,
            reason=lease.part.reason,
            delay_ms=lease.part.delay_ms,
        )
        for where, lease in leases
    ]


def _results(request: Settling, message: ShareAcknowledgeResponseData) -> Sequence[KafkaError | None]:
    if message.error_code:
        raise for_code(message.error_code, message.error_message or "")
    return _lease_results(request.leases, message.lease_results)


def _lease_results(leases: Leases, results: Sequence[Any]) -> Sequence[KafkaError | None]:
    if len(results) != len(leases):
        raise Malformed(f"{len(results)} results for {len(leases)} acknowledgements")
    return [for_code(each.result_code, each.result_message or "") if each.result_code else None for each in results]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Acknowledgements and a receive of one group for one leader."""

    leases: Leases
    ask: ShareFetch


def _exchange_request(request: Exchange, timeout_ms: int) -> fetching.ShareFetchRequestData:
    message = _fetch_request(request.ask, timeout_ms)
    message.leases = _leases(request.leases, fetching.Lease)
    return message


def _exchanged(request: Exchange, message: ShareFetchResponseData) -> Exchanged:
    handed = _handed(request.ask, message)
    return _lease_results(request.leases, message.lease_results), handed


SHARE_EXCHANGE: Rpc[Exchange, Exchanged, fetching.ShareFetchRequestData, ShareFetchResponseData] = Rpc(
    api=apis.SHARE_FETCH, response=ShareFetchResponseData, to_request=_exchange_request, from_reply=_exchanged
)


SHARE_SETTLE: Rpc[
    Settling,
    Sequence[KafkaError | None],
    acknowledging.ShareAcknowledgeRequestData,
    ShareAcknowledgeResponseData,
] = Rpc(
    api=apis.SHARE_ACKNOWLEDGE, response=ShareAcknowledgeResponseData, to_request=_settle_request, from_reply=_results
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """A look at share partitions of one leader."""

    group: str
    partitions: Sequence[TopicIdPartition]
    records_max: int


def _peek_request(request: Peeking, timeout_ms: int) -> fetching.ShareFetchRequestData:
    return fetching.ShareFetchRequestData.make(
        group_id=request.group,
        member_id=PEEKING_MEMBER,
        max_records=request.records_max,
        topics=_fetch_topics(request.partitions),
        is_peek=True,
    )


def _peeked(request: Peeking, message: ShareFetchResponseData) -> Mapping[TopicIdPartition, Peeked]:
    if message.error_code:
        raise for_code(message.error_code, message.error_message or "")
    return {
        TopicIdPartition(topic.topic_id, item.partition_index): Peeked(
            error=for_code(item.error_code, item.error_message or "") if item.error_code else None,
            start_offset=item.start_offset,
            end_offset=item.end_offset,
            in_flight=[
                InFlight(
                    each.in_flight_first,
                    each.in_flight_last,
                    DeliveryState(each.delivery_state),
                    each.deliveries,
                    each.lock_left_ms,
                )
                for each in item.in_flight
            ],
            dead_letters_lost=item.dead_letters_lost,
            last_dead_letter_error=item.last_dead_letter_error,
        )
        for topic in message.responses
        for item in topic.partitions
    }


SHARE_PEEK: Rpc[Peeking, Mapping[TopicIdPartition, Peeked], fetching.ShareFetchRequestData, ShareFetchResponseData] = (
    Rpc(api=apis.SHARE_FETCH, response=ShareFetchResponseData, to_request=_peek_request, from_reply=_peeked)
)


class ShareRecordsChannel:
    """Receives and acknowledgements for share partitions that one other broker leads.

    Each raises ConnectionRefusedError, NotConnected, ConnectionClosed or TimeoutError, or what the peer refused.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def fetch(self, ask: ShareFetch) -> Mapping[TopicIdPartition, Handed]:
        """The same as `ShareLeaders.fetch`."""
        lane: Lane = "waits" if ask.wait_ms > 0 else "shares"
        timeout_ms = ask.wait_ms + FETCH_SLACK_MS
        return await self._peers.call(self._node_id, "forward", SHARE_FETCH, ask, timeout_ms=timeout_ms, lane=lane)

    async def exchange(self, leases: Leases, ask: ShareFetch) -> Exchanged:
        """The same as `ShareLeaders.exchange`, in one request."""
        request = Exchange(leases=leases, ask=ask)
        timeout_ms = REPLICA_TIMEOUT_MS + ANSWER_SLACK_MS
        return await self._peers.call(
            self._node_id, "forward", SHARE_EXCHANGE, request, timeout_ms=timeout_ms, lane="shares"
        )

    async def settle(self, group: str, leases: Leases) -> Sequence[KafkaError | None]:
        """The same as `ShareLeaders.settle`."""
        request = Settling(group=group, leases=leases)
        timeout_ms = REPLICA_TIMEOUT_MS + ANSWER_SLACK_MS
        return await self._peers.call(
            self._node_id, "forward", SHARE_SETTLE, request, timeout_ms=timeout_ms, lane="shares"
        )

    async def peek(
        self, group: str, partitions: Sequence[TopicIdPartition], *, records_max: int
    ) -> Mapping[TopicIdPartition, Peeked]:
        """The same as `ShareLeaders.peek`."""
        request = Peeking(group=group, partitions=partitions, records_max=records_max)
        return await self._peers.call(
            self._node_id, "forward", SHARE_PEEK, request, timeout_ms=FETCH_SLACK_MS, lane="shares"
        )
