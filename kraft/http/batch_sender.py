"""How the batches of a produce request are sent: as they are, or with the producer of a key or of a transaction.

A sender is chosen once, by the check of a route and before the body is read. `BatchSender` sends batches as they are;
`kraft.http.idempotency` and `kraft.http.transactional` have the two others, whose batches a leader knows again when
they are sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias

from msgspec import Struct

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.partitioner import UNPLACED
from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader, computed_crc, whole_batches
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM, is_reserved
from metadata.settings import TopicSettings
from replication.requests import ProduceOutcome

KEY_HEADER: Final = "Idempotency-Key"
SET_BYTES_MAX: Final = 33_554_432
"""Limit of the batches that are sent to one partition at once; a smaller segment.bytes is the limit then."""


class Part(NamedTuple):
    """What a leader gets at once for one partition: one batch or several, of so many records together."""

    records: int
    data: Buffer


class Piece(Struct, frozen=True):
    """What became of a Part."""

    records: int
    outcome: ProduceOutcome


Batches: TypeAlias = Mapping[TopicIdPartition, Sequence[Part]]
Pieces: TypeAlias = Mapping[TopicIdPartition, Sequence[Piece]]
Send: TypeAlias = Callable[[Mapping[TopicIdPartition, Buffer]], Awaitable[Mapping[TopicIdPartition, ProduceOutcome]]]


class BatchSender:
    """Sends the batches of a request as they are: each partition gets as many at once as fit into a segment."""

    __slots__ = ()

    is_repeatable: ClassVar[bool] = False
    """A repetition of the request makes the same batches, and their leaders know them."""

    def keyless_partition(self, partitions: int) -> int:
        """The partition of records without key and partition, of so many; UNPLACED: the one whose turn it is."""
        return UNPLACED

    def raw_parts(self, body: Buffer) -> Sequence[Part]:
        """The parts of a body of RecordBatch v2. Raises HttpError 422 for batches that no client may send."""
        _refuse_reserved_ids(body)
        return [Part(0, body)]

    async def send(self, send: Send, batches: Batches, *, topic: str, settings: TopicSettings) -> Pieces:
        """Sends the batches of a topic; one piece for each part that was sent."""
        if len(batches) == 1:
            ((which, parts),) = batches.items()
            if len(parts) == 1:
                outcome = (await send({which: parts[0].data}))[which]
                return {which: (Piece(parts[0].records, outcome),)}
        return await send_in_order(send, {which: record_sets(each, settings) for which, each in batches.items()})


AS_THEY_ARE: Final = BatchSender()


async def send_in_order(send: Send, parts: Mapping[TopicIdPartition, Sequence[Part]]) -> Pieces:
    """One piece for each part. A partition's next part is sent when its last one is in the log.

    A part that fails ends its partition's way: what comes after it is not sent, so that the order stays.
    """
    longest = max(map(len, parts.values()), default=0)
    if longest == 1:
        outcomes = await send({which: each[0].data for which, each in parts.items()})
        return {which: (Piece(each[0].records, outcomes[which]),) for which, each in parts.items()}
    pieces: dict[TopicIdPartition, list[Piece]] = {which: [] for which in parts}
    for number in range(longest):
        going = {which: each[number].data for which, each in parts.items() if _goes_on(each, pieces[which])}
        if not going:
            break
        outcomes = await send(going)
        for which in going:
            pieces[which].append(Piece(parts[which][number].records, outcomes[which]))
    for which, each in parts.items():
        done = pieces[which]
        if len(done) < len(each):
            done += [Piece(part.records, _not_sent(done[-1].outcome)) for part in each[len(done) :]]
    return pieces


def _goes_on(parts: Sequence[Part], done: Sequence[Piece]) -> bool:
    return len(done) < len(parts) and not (done and done[-1].outcome.error_code)


def _not_sent(failed: ProduceOutcome) -> ProduceOutcome:
    """What is said of the records after a part that failed."""
    return ProduceOutcome(
        error_code=failed.error_code,
        message=f"not sent, for the batch before it failed: {failed.message}",
        leader_id=failed.leader_id,
        leader_epoch=failed.leader_epoch,
        isr=failed.isr,
        min_isr=failed.min_isr,
    )


def record_sets(batches: Sequence[Part], settings: TopicSettings) -> Sequence[Part]:
    """Batches put together that a leader appends at once: what does not fit a segment goes after the others."""
    if len(batches) == 1:
        return batches
    limit = min(settings.segment_size, SET_BYTES_MAX)
    sets: list[list[Part]] = []
    size = limit + 1
    for batch in batches:
        if size + len(batch.data) > limit:
            sets.append([])
            size = 0
        sets[-1].append(batch)
        size += len(batch.data)
    return [each[0] if len(each) == 1 else _joined(each) for each in sets]


def _joined(batches: Sequence[Part]) -> Part:
    return Part(sum(each.records for each in batches), b"".join(each.data for each in batches))


def unowned_batches(data: Buffer, *, instead: str) -> Iterator[tuple[BatchHeader, Buffer]]:
    """Header and bytes of each batch. Raises HttpError 422; `instead` ends the sentence about a batch that carries a
    producer id of its own."""
    end = 0
    for number, (position, header) in enumerate(whole_batches(data)):
        end = position + header.size
        if header.producer_id != NO_PRODUCER_ID:
            raise HttpError(UNPROCESSABLE, f"batch {number} carries producer id {header.producer_id}{instead}")
        if computed_crc(data, position, header.size) != header.crc:
            raise HttpError(UNPROCESSABLE, f"batch {number} does not have the CRC of its header")
        yield header, memoryview(data)[position:end]
    if end != len(data):
        raise HttpError(UNPROCESSABLE, f"the {len(data) - end} bytes at {end} are no whole RecordBatch v2")


def _refuse_reserved_ids(data: Buffer) -> None:
    """Only this node may make the producer ids of keys. Raises HttpError 422."""
    for number, (_, header) in enumerate(whole_batches(data)):
        if is_reserved(header.producer_id):
            raise HttpError(
                UNPROCESSABLE,
                f"batch {number}: producer ids from {RESERVED_PRODUCER_IDS_FROM} are reserved for {KEY_HEADER}; "
                "get one by InitProducerId",
            )
