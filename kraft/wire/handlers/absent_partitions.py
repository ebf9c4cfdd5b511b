"""Partitions that do not exist, in a fetch of many: answered without a session, and without an object for each.

What a broker keeps for a session's partition is ten times its part of a request. Partitions that exist are few
beside what the broker keeps for them anyway; of those that do not, a frame may name tens of thousands. A fetch of more
than `MANY` partitions, some of which do not exist, gets no session, as if the cache was full: its client asks for all
of them again, and so meets a topic that comes to exist.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from kraft.protocol.errors import TopicAuthorizationFailed, UnknownTopicId, UnknownTopicOrPartition
from kraft.protocol.messages.fetch_request import FetchRequestData, FetchTopic
from kraft.protocol.messages.fetch_response import FetchableTopicResponse, FetchResponseData, PartitionData
from kraft.wire.lazy import Lazy
from metadata.image import MetadataImage, TopicImage
from replication.requests import FINAL_EPOCH

MANY = 256
UNKNOWN_OFFSET = -1
"""In place of what is known of a partition, where an answer reports that it was not read."""


def has_many(message: FetchRequestData) -> bool:
    topics = message.topics
    return len(topics) > MANY or partition_count(message) > MANY


def partition_count(message: FetchRequestData) -> int:
    return sum([len(topic.partitions) for topic in message.topics])


def without_session(
    message: FetchRequestData, topics: Sequence[FetchTopic], *, wait_ms: int | None = None
) -> FetchRequestData:
    """A request of these topics in place of its own, and with another wait if one is given."""
    return FetchRequestData.make(
        cluster_id=message.cluster_id,
        replica_id=message.replica_id,
        replica_state=message.replica_state,
        max_wait_ms=message.max_wait_ms if wait_ms is None else wait_ms,
        min_bytes=message.min_bytes,
        max_bytes=message.max_bytes,
        isolation_level=message.isolation_level,
        session_id=message.session_id,
        session_epoch=FINAL_EPOCH,
        topics=topics,
        rack_id=message.rack_id,
    )


def failed_partition(number: int, code: int) -> PartitionData:
    return PartitionData.make(
        partition_index=number,
        error_code=code,
        high_watermark=UNKNOWN_OFFSET,
        last_stable_offset=UNKNOWN_OFFSET,
        log_start_offset=UNKNOWN_OFFSET,
        aborted_transactions=(),
    )


class AbsentPartitions:
    """Those of a request that do not exist in this image of the metadata."""

    def __init__(
        self, message: FetchRequestData, image: MetadataImage, *, names_topics: bool, denied: Collection[str] = ()
    ) -> None:
        """`denied`: names of topics, whether they exist or not, of which the client may not know."""
        self._message, self._image, self._names_topics, self._denied = message, image, names_topics, denied
        self._topics = sum(1 for _ in self._each())
        self.rest = self._rest() if self._topics else message
        """The request without them, and without a session; of a partition that comes twice the last counts."""
        self.rest_count = partition_count(self.rest)
        """Partitions of `rest`, each of which may be made to be counted."""

    def __bool__(self) -> bool:
        return self._topics > 0

    def _each(self) -> Iterator[tuple[FetchTopic, int, array[int]]]:
        """Topic, error code and numbers; topics of which all partitions exist are left out."""
        for topic in self._message.topics:
            found = self._found(topic)
            known = () if found is None else found.partitions
            numbers = array("i", [item.partition for item in topic.partitions if item.partition not in known])
            if numbers:
                yield topic, self._code(topic, found), numbers

    def _code(self, topic: FetchTopic, found: TopicImage | None) -> int:
        if (topic.topic if found is None else found.name) in self._denied:
            return TopicAuthorizationFailed.code
        is_by_id = found is None and not self._names_topics
        return UnknownTopicId.code if is_by_id else UnknownTopicOrPartition.code

    def _found(self, topic: FetchTopic) -> TopicImage | None:
        image = self._image
        return image.topics_by_name.get(topic.topic) if self._names_topics else image.topics.get(topic.topic_id)

    def _rest(self) -> FetchRequestData:
        topics = []
        for topic in self._message.topics:
            found = self._found(topic)
            if found is not None:
                kept = {item.partition: item for item in topic.partitions if item.partition in found.partitions}
                topics.append(
                    FetchTopic.make(topic=topic.topic, topic_id=topic.topic_id, partitions=tuple(kept.values()))
                )
        return without_session(self._message, topics)

    def answered_with(self, found: FetchResponseData) -> FetchResponseData:
        """The answer to the rest, and behind it an error for each of these."""
        responses = found.responses
        return FetchResponseData.make(
            error_code=found.error_code,
            session_id=found.session_id,
            responses=Lazy(len(responses) + self._topics, lambda: chain(responses, map(_failed_topic, self._each()))),
            node_endpoints=found.node_endpoints,
        )


def _failed_topic(absent: tuple[FetchTopic, int, array[int]]) -> FetchableTopicResponse:
    topic, code, numbers = absent
    failed = Lazy(len(numbers), lambda: (failed_partition(number, code) for number in numbers))
    return FetchableTopicResponse.make(topic=topic.topic, topic_id=topic.topic_id, partitions=failed)
