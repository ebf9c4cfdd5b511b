"""A keyed request's way to the leaders: one batch per partition and round, each with its own result.

Kafka recognises one batch at a time, so a partition's second batch is sent when its first is in the log. A batch that
fails ends its partition's way: what comes after it is not sent, so that the order stays. A retry walks the same way;
what is there already is answered, the rest appended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.idempotency import IdempotencyKey, keyed_batches
from kraft.protocol.errors import OutOfOrderSequenceNumber
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from replication.requests import ProduceOutcome

Send: TypeAlias = Callable[[Mapping[TopicIdPartition, Buffer]], Awaitable[Mapping[TopicIdPartition, ProduceOutcome]]]


class Piece(NamedTuple):
    """What became of one batch of so many records."""

    records: int
    outcome: ProduceOutcome


Pieces: TypeAlias = Mapping[TopicIdPartition, Sequence[Piece]]


async def produce_keyed(
    send: Send, batches: Mapping[TopicIdPartition, Buffer], *, key: IdempotencyKey, topic: str
) -> Pieces:
    """Raises HttpError 422 when the key was used for other records, and nothing was appended for that reason."""
    waiting = {which: list(keyed_batches(data, key, topic=topic)) for which, data in batches.items()}
    pieces: dict[TopicIdPartition, list[Piece]] = {which: [] for which in batches}
    for number in range(max(map(len, waiting.values()), default=0)):
        going = {which: parts[number][1] for which, parts in waiting.items() if _goes_on(parts, pieces[which])}
        if not going:
            break
        outcomes = await send(going)
        for which in going:
            pieces[which].append(Piece(waiting[which][number][0], outcomes[which]))
    _refuse_reuse(pieces)
    for which, parts in waiting.items():
        pieces[which] += [Piece(records, not_sent(pieces[which][-1])) for records, _ in parts[len(pieces[which]) :]]
    return pieces


def _goes_on(parts: Sequence[tuple[int, Buffer]], done: Sequence[Piece]) -> bool:
    return len(done) < len(parts) and not (done and done[-1].outcome.error_code)


def not_sent(failed: Piece) -> ProduceOutcome:
    """What is said of the records after one that failed."""
    return ProduceOutcome(
        error_code=failed.outcome.error_code,
        message=f"not sent, for the batch before it failed: {failed.outcome.message}",
        leader_id=failed.outcome.leader_id,
        leader_epoch=failed.outcome.leader_epoch,
        isr=failed.outcome.isr,
        min_isr=failed.outcome.min_isr,
    )


def _refuse_reuse(pieces: Pieces) -> None:
    outcomes = [piece.outcome for done in pieces.values() for piece in done]
    if outcomes and all(outcome.error_code == OutOfOrderSequenceNumber.code for outcome in outcomes):
        raise HttpError(
            UNPROCESSABLE,
            f"the Idempotency-Key was used with other records: {outcomes[0].message}",
            extra={"kafka_code": OutOfOrderSequenceNumber.code, "retriable": False},
        )


def per_record(pieces: Sequence[Piece]) -> Iterator[tuple[int, ProduceOutcome]]:
    """The offset (-1: none) and the outcome of each record of a partition, in order."""
    for records, outcome in pieces:
        for index in range(records):
            has_offset = outcome.base_offset >= 0 and not outcome.error_code
            yield outcome.base_offset + index if has_offset else -1, outcome
