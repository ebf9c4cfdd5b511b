"""Dead letters (KIP-1191): a record that no consumer could process is described, or copied, in a topic for them.

The leader of the record's partition writes it, as any producer would. Nothing prevents that one is written twice: the
next leader writes again what it does not know to be written. One that cannot be written is given up in the end, since
it would hold up its partition otherwise. It is counted, and an event has its offset and the reason (U10).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kraft.broker.gateway import Gateway
from kraft.broker.measures import Measure
from kraft.coordinators.copies import bytes_at_most
from kraft.coordinators.shares.measures import SERIES_MAX, bounded
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import (
    CorruptMessage,
    InvalidConfig,
    KafkaError,
    MessageTooLarge,
    OffsetOutOfRange,
    UnknownTopicOrPartition,
    for_code,
)
from metadata.controller.requests import ErrorDetail, NewTopic
from metadata.environment import Clock
from metadata.events import Events
from metadata.image import TopicIdPartition, TopicImage
from metadata.settings import GroupSettings, dead_letter_name_problem
from replication.requests import ProduceOptions, ReadOptions
from replication.shares.partition import BEFORE, EXPIRED, REJECTED, RELEASED, TIMED_OUT, DeadLetters

ATTEMPTS: Final = 5
BACKOFF_MS: Final = 1_000
"""Wait before the second attempt; it doubles with each one."""
BACKOFF_MAX_MS: Final = 30_000
RECORDS_AT_ONCE: Final = 500
"""Dead letters in one batch."""
COPY_BYTES: Final = 1_048_576
"""What is read of the partition at once for copies; a first batch comes whole."""

HEADER_PREFIX: Final = "__dlq.errors."
REJECTED_TEXT: Final = "Offset rejected by client."
"""Kafka's own text; so the next one. Programs that read dead letters compare them."""
TOO_OFTEN_TEXT: Final = "Offset delivery count exceeded the threshold."
EXPIRED_TEXT: Final = "Record expired before it was handed out."
_TEXTS: Final = {EXPIRED: EXPIRED_TEXT, REJECTED: REJECTED_TEXT, RELEASED: TOO_OFTEN_TEXT, TIMED_OUT: TOO_OFTEN_TEXT}

Copies = Mapping[int, "tuple[bytes | None, bytes | None]"]


class _Letter(NamedTuple):
    offset: int
    delivery_count: int
    reason: str


@dataclass(slots=True)
class DeadLetterCounts:
    """Records of one group's topic since this node started."""

    written: int = 0
    lost: int = 0
    """Given up without a dead letter."""


class LostLetters(NamedTuple):
    """Records of one share partition that were given up without a dead letter since this node started."""

    records: int = 0
    last_error: str = ""
    """Why the last one was."""


class DeadLetterWriter:
    """Writes the dead letters of the share partitions that this broker leads."""

    def __init__(
        self, gateway: Callable[[], Gateway], clock: Clock, events: Events, settings_of: Callable[[str], GroupSettings]
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._events = events
        self._settings_of = settings_of
        self.counts: dict[tuple[str, str], DeadLetterCounts] = {}
        """Key: group and topic."""
        self._lost: dict[ShareKey, LostLetters] = {}
        """The one with the newest loss is last."""

    async def write(self, key: ShareKey, letters: Sequence[DeadLetters]) -> frozenset[int]:
        """Returns the offsets whose dead letters could not be written (U10)."""
        left = [
            _Letter(offset, each.delivery_count, each.reason)
            for each in letters
            for offset in range(each.first_offset, each.last_offset + 1)
        ]
        lost: set[int] = set()
        while left:
            count, error = await self._write_some(key, left)
            done, left = left[:count], left[count:]
            if error is not None and not isinstance(error, MessageTooLarge):
                done, left = done + left, []  # it is not because of one record
            self._count(key, done, error)
            if error is not None:
                lost.update(letter.offset for letter in done)
        return frozenset(lost)

    async def _write_some(self, key: ShareKey, letters: Sequence[_Letter]) -> tuple[int, KafkaError | None]:
        """How many letters from the first on were written, or not, and in the second case why not."""
        count = 1
        round_of = letters[:RECORDS_AT_ONCE]

        async def attempt() -> None:
            nonlocal count
            settings = self._settings_of(key.group)
            topic = await self._topic(key, settings)
            copies: Copies = {}
            if settings.errors_deadletterqueue_copy_record_enable:
                copies = await self._copies(key, round_of)
            records = self._batch(key, topic, round_of, copies)
            count = len(records)
            where = TopicIdPartition(topic.topic_id, key.partition % len(topic.partitions))
            options = ProduceOptions(ACKS_ALL, self._gateway().settings.request_timeout_ms)
            outcome = (await self._gateway().produce({where: build_batch(records)}, options))[where]
            if outcome.error_code:
                raise for_code(outcome.error_code, outcome.message)

        error = await self._attempts(attempt)
        return count, error

    async def _attempts(self, attempt: Callable[[], Awaitable[None]]) -> KafkaError | None:
        """The error of the last attempt, or the one that no further attempt would change."""
        failure: KafkaError | None = None
        for number in range(ATTEMPTS):
            if number:
                await self._clock.sleep(min(BACKOFF_MS << (number - 1), BACKOFF_MAX_MS))
            try:
                await attempt()
            except KafkaError as error:
                failure = error
                if not error.retriable:
                    return failure
            else:
                return None
        return failure

    # --- where ----------------------------------------------------------------------------------------------------

    async def _topic(self, key: ShareKey, settings: GroupSettings) -> TopicImage:
        """The topic for dead letters of the group; it comes into being if the brokers may create it. Raises
        InvalidConfig 40 for one that may have none, and what its creation raises."""
        gateway = self._gateway()
        name = settings.errors_deadletterqueue_topic_name
        if not name:
            raise InvalidConfig(f"group {key.group!r} has no errors.deadletterqueue.topic.name any more")
        problem = dead_letter_name_problem(gateway.settings, name)
        if problem:
            raise InvalidConfig(problem)
        topic = gateway.image.topic(name)
        if topic is None:
            topic = await self._new_topic(gateway, name)
        if topic.topic_id == key.topic_id:
            raise InvalidConfig(f"{name!r} cannot have the dead letters of its own records: they would never end")
        if not gateway.topic_settings(name).errors_deadletterqueue_group_enable:
            raise InvalidConfig(f"topic {name!r} needs errors.deadletterqueue.group.enable=true to have dead letters")
        return topic

    async def _new_topic(self, gateway: Gateway, name: str) -> TopicImage:
        if not gateway.settings.errors_deadletterqueue_auto_create_topics_enable:
            raise InvalidConfig(
                f"topic {name!r} does not exist; create it with errors.deadletterqueue.group.enable=true "
                "(errors.deadletterqueue.auto.create.topics.enable is false)"
            )
        configs = {"errors.deadletterqueue.group.enable": "true", "message.timestamp.type": "CreateTime"}
        created = await gateway.ensure_topic(NewTopic(name=name, configs=configs))
        if isinstance(created, ErrorDetail):
            raise created.exception()
        topic = gateway.image.topics.get(created)
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {name!r} was deleted meanwhile")
        return topic

    # --- what -----------------------------------------------------------------------------------------------------

    async def _copies(self, key: ShareKey, letters: Sequence[_Letter]) -> Copies:
        """Key and value of the first letters' records; without those that the log does not have any more."""
        where, first = TopicIdPartition(key.topic_id, key.partition), letters[0].offset
        try:
            found = await self._gateway().read(where, first, ReadOptions(bytes_max=COPY_BYTES))
            return {record.offset: (record.key, record.value) for record in read_batches(found.data, from_offset=first)}
        except (OffsetOutOfRange, CorruptMessage):
            return {}

    def _batch(self, key: ShareKey, topic: TopicImage, letters: Sequence[_Letter], copies: Copies) -> list[NewRecord]:
        """Records of the first letters: as many as one batch may have, and as were read. At least one."""
        settings = self._gateway().topic_settings(topic.name)
        room = min(settings.max_message_bytes, settings.segment_size)
        read_to = max(copies, default=None)
        records: list[NewRecord] = []
        for letter, record in self._records(key, letters, copies):
            room -= bytes_at_most(record)
            if records and (room < 0 or (read_to is not None and letter.offset > read_to)):
                break
            records.append(record)
        return records

    def _records(
        self, key: ShareKey, letters: Sequence[_Letter], copies: Copies
    ) -> Iterator[tuple[_Letter, NewRecord]]:
        now_ms = self._clock.wall_ms()
        source = self._gateway().image.topics.get(key.topic_id)
        limit = self._settings_of(key.group).share_delivery_count_limit
        for letter in letters:
            record_key, value = copies.get(letter.offset, (None, None))
            headers = {
                "topic": str(key.topic_id) if source is None else source.name,
                "partition": str(key.partition),
                "offset": str(letter.offset),
                "group": key.group,
                "delivery.count": str(letter.delivery_count),
                "message": _text(letter, limit),
            }
            named = [(HEADER_PREFIX + name, text.encode()) for name, text in headers.items()]
            yield letter, NewRecord(record_key, value, list(named), now_ms)

    # --- what became of them --------------------------------------------------------------------------------------

    def lost_of(self, key: ShareKey) -> LostLetters:
        """What is known of the share partitions that were the last ones to lose dead letters, SERIES_MAX of them."""
        return self._lost.get(key, LostLetters())

    def _count(self, key: ShareKey, letters: Sequence[_Letter], error: KafkaError | None) -> None:
        source = self._gateway().image.topics.get(key.topic_id)
        topic = str(key.topic_id) if source is None else source.name
        counts = self.counts.setdefault(bounded((key.group, topic), self.counts), DeadLetterCounts())
        if error is None:
            counts.written += len(letters)
            return
        counts.lost += len(letters)
        before = self._lost.pop(key, LostLetters())
        self._lost[key] = LostLetters(before.records + len(letters), error.message)
        if len(self._lost) > SERIES_MAX:
            del self._lost[next(iter(self._lost))]
        self._events.emit(
            "dead_letters_not_written",
            group=key.group,
            topic=topic,
            partition=key.partition,
            first_offset=letters[0].offset,
            last_offset=letters[-1].offset,
            records=len(letters),
            dead_letter_topic=self._settings_of(key.group).errors_deadletterqueue_topic_name,
            error=error.message,
        )

    def measures(self) -> Sequence[Measure]:
        """Counters by group and topic."""
        labels = ("group", "topic")
        return (
            Measure(
                "share_dead_letters_written",
                "Records of share groups that have a dead letter.",
                "counter",
                labels,
                [(names, float(counts.written)) for names, counts in self.counts.items()],
            ),
            Measure(
                "share_dead_letters_lost",
                "Records of share groups that were given up, and whose dead letter could not be written.",
                "counter",
                labels,
                [(names, float(counts.lost)) for names, counts in self.counts.items()],
            ),
        )


def _text(letter: _Letter, delivery_count_limit: int) -> str:
    """The consumer's own words, or Kafka's. After a change of leaders the reason is concluded from the count, as in
    Kafka."""
    if letter.reason == BEFORE:
        return TOO_OFTEN_TEXT if letter.delivery_count >= delivery_count_limit else REJECTED_TEXT
    return _TEXTS.get(letter.reason, letter.reason)
