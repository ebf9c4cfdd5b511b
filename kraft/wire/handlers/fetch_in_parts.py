"""A client's fetch of more partitions than are read at once: read piece by piece, without a session.

Session, questions, answers and waits take a kilobyte and a half for each partition, which is forty times its part of a
request. Here only the bytes of the answers are kept, and two numbers for each partition while nothing is there to read.
As if the cache of sessions was full, the client asks for all partitions each time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kraft.broker.answer_budget import AnswerBudget
from kraft.protocol.errors import UnknownTopicId, UnknownTopicOrPartition
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.fetch_response import NO_EPOCH_END_OFFSET, FetchResponseData, PartitionData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers.absent_partitions import without_session
from kraft.wire.request_pieces import Cut
from metadata.image import MetadataImage
from replication.manager.fetch import OffsetsOfMany

AT_ONCE_MAX = 512
"""Partitions of a fetch that is read at once."""
BYTES_MAX = 1024 * 1024
"""Records of one answer, beside a first batch that is larger: they are copied here, where others are sent as read."""
AGAIN_MS = 10
"""From the end of a wait to the next look at thousands of partitions."""
CUTS = (Cut(("topics", "partitions"), ("responses", "partitions")),)
ENDS_NO_WAIT = (0, UnknownTopicOrPartition.code, UnknownTopicId.code)


def offsets_of(message: FetchRequestData, image: MetadataImage, *, names_topics: bool) -> OffsetsOfMany:
    """What is waited for; topics that do not exist are left out."""
    found: dict[Any, tuple[Sequence[int], Sequence[int]]] = {}
    for topic in message.topics:
        known = image.topics_by_name.get(topic.topic) if names_topics else image.topics.get(topic.topic_id)
        if known is not None:
            asked = sorted([(item.partition, item.fetch_offset) for item in topic.partitions])
            found[known.topic_id] = (
                array("i", [partition for partition, _ in asked]),
                array("q", [offset for _, offset in asked]),
            )
    return found


class Reading:
    """One look at all partitions, in pieces."""

    def __init__(
        self,
        api: ApiHandler,
        read: Callable[[Call[FetchRequestData], Callable[[], int]], Any],
        answers: AnswerBudget,
        message: FetchRequestData,
    ) -> None:
        """`read` reads one piece, in which there is room for as many bytes as its second argument returns."""
        self.api = replace(api, handle=self._handle)
        self._read = read
        self._answers = answers
        self._left = min(message.max_bytes, BYTES_MAX, answers.room())
        self._held = 0
        self._bytes_min = min(message.min_bytes, self._left)
        self.is_over = False
        """There is something to answer: enough records, or an error."""

    def _room(self) -> int:
        return max(self._left - self._held, 0)

    async def _handle(self, call: Call[FetchRequestData]) -> FetchResponseData:
        piece = without_session(call.message, call.message.topics, wait_ms=0)
        found: FetchResponseData = await self._read(replace(call, message=piece), self._room)
        partitions = [each for topic in found.responses for each in topic.partitions]
        size = sum([len(each.records or b"") for each in partitions])
        self._answers.hold(size)
        self._held += size
        self.is_over = self.is_over or self._held >= self._bytes_min or any(map(_is_news, partitions))
        return found

    def close(self) -> None:
        """The whole answer counts from now on."""
        self._answers.give_back(self._held)
        self._held = 0


def _is_news(partition: PartitionData) -> bool:
    return (
        partition.error_code not in ENDS_NO_WAIT
        or partition.preferred_read_replica != -1
        or partition.diverging_epoch is not NO_EPOCH_END_OFFSET
    )
