"""A produce within a transaction: whose it is, and which sequence the next batch of each partition has. Pure.

    sequence=0:12,3:4      partition 0 goes on at 12, partition 3 at 4; the others have nothing of this transaction yet

Each transaction has an epoch of its own, with which the sequences of each partition begin at 0 (KIP-890). So the text
is empty at first, and then what the last answer said; sent again with the same text, a request makes the same batches,
and their leaders know them (D2). Nothing is kept between requests, and any node takes the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kraft.http.batch_sender import Batches, BatchSender, Part, Pieces, Send, send_in_order, unowned_batches
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.parameters import integer
from kraft.protocol.batches.header import header_at, sequenced
from kraft.protocol.partitioner import partition_of_key
from kraft.protocol.primitives import INT32_MAX, INT64_MAX, Buffer
from metadata.settings import TopicSettings
from replication.producers.state import BATCHES_KEPT

EPOCH_MAX = 2**15 - 1
SEQUENCE_HEADER = "X-Next-Sequence"
PARTITIONS_MAX = 512
"""Named in a sequence: it has to fit into the line of a request."""
_ENTRY = re.compile(r"(\d{1,10}):(\d{1,10})")

PRODUCER_ID = Parameter(
    name="producer_id",
    description="Of the transaction, as its beginning has answered it.",
    schema={"type": "integer", "minimum": 0, "maximum": INT64_MAX},
    is_required=True,
)
PRODUCER_EPOCH = Parameter(
    name="producer_epoch",
    description="Of the transaction, as its beginning or the end of the one before has answered it.",
    schema={"type": "integer", "minimum": 0, "maximum": EPOCH_MAX},
    is_required=True,
)
SEQUENCE = Parameter(
    name="sequence",
    description=(
        f"The next sequence of each partition of the topic in this transaction: the value of {SEQUENCE_HEADER} in the "
        "last answer about this topic, and none in the first request. A request that is sent again with the same value "
        "writes nothing twice."
    ),
    schema={"type": "string", "pattern": r"^(\d{1,10}:\d{1,10}(,\d{1,10}:\d{1,10})*)?$"},
)
PRODUCER = (PRODUCER_ID, PRODUCER_EPOCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class InTransaction(BatchSender):
    """The transaction of a request; its batches are the next ones of the transaction's producer."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    sequences: Mapping[int, int]
    """The sequence of the next record of each partition that has records of this transaction."""

    is_repeatable = True

    def keyless_partition(self, partitions: int) -> int:
        """The same one at each repetition."""
        text = f"{self.transactional_id}:{self.producer_id}:{self.producer_epoch}:{sequence_text(self.sequences)}"
        return partition_of_key(text.encode(), partitions)

    def raw_parts(self, body: Buffer) -> Sequence[Part]:
        """One part for each batch. Raises HttpError 422."""
        instead = "; within a transaction it gets that of the request, so leave it at -1"
        return [Part(header.record_count, batch) for header, batch in unowned_batches(body, instead=instead)]

    async def send(self, send: Send, batches: Batches, *, topic: str, settings: TopicSettings) -> Pieces:
        """One batch at a time. Raises HttpError 413 for too many of them, and then nothing was appended."""
        return await send_in_order(send, {which: self._parts(which.partition, its) for which, its in batches.items()})

    def _parts(self, partition: int, batches: Sequence[Part]) -> Sequence[Part]:
        if len(batches) > BATCHES_KEPT:
            raise HttpError(
                413,
                f"the records for partition {partition} make {len(batches)} batches of at most max.message.bytes; a "
                f"request within a transaction may make {BATCHES_KEPT}, or a repetition of it would not be known",
            )
        sequence = self.sequences.get(partition, 0)
        made: list[Part] = []
        for records, data in batches:
            batch = sequenced(
                data,
                header_at(data),
                producer_id=self.producer_id,
                producer_epoch=self.producer_epoch,
                base_sequence=sequence,
                is_transactional=True,
            )
            made.append(Part(records, batch))
            sequence = after(sequence, records)
        return made

    def next_sequences(self, written: Mapping[int, int]) -> str:
        """`written`: how many records of each partition this request has written."""
        moved = {number: after(self.sequences.get(number, 0), count) for number, count in written.items() if count}
        return sequence_text({**self.sequences, **moved})


def after(sequence: int, records: int) -> int:
    """DefaultRecordBatch.incrementSequence: after the largest int32, sequences begin again at 0."""
    return (sequence + records) & INT32_MAX


def sequence_text(sequences: Mapping[int, int]) -> str:
    return ",".join(f"{partition}:{sequence}" for partition, sequence in sorted(sequences.items()))


def in_transaction(call: Call) -> InTransaction:
    """The producer that the request names. Raises HttpError 40002."""
    query = call.request.query
    for name in (PRODUCER_ID.name, PRODUCER_EPOCH.name):
        if name not in query:
            raise HttpError(BAD_REQUEST, f"{name} is missing: send the one in the answer that began the transaction")
    return InTransaction(
        transactional_id=call.path["transactional_id"],
        producer_id=integer(call, PRODUCER_ID.name, default=0, high=INT64_MAX),
        producer_epoch=integer(call, PRODUCER_EPOCH.name, default=0, high=EPOCH_MAX),
        sequences=parse_sequence(query.get(SEQUENCE.name, "")),
    )


def parse_sequence(text: str) -> Mapping[int, int]:
    """Raises HttpError 40002 for what no answer ever said."""
    sequences: dict[int, int] = {}
    for entry in text.split(",") if text else ():
        matched = _ENTRY.fullmatch(entry)
        if matched is None or int(matched[1]) > INT32_MAX or int(matched[2]) > INT32_MAX:
            raise HttpError(BAD_REQUEST, f"sequence={text[:200]} is none: it is partition:sequence, by commas")
        if int(matched[1]) in sequences:
            raise HttpError(BAD_REQUEST, f"sequence={text[:200]} names partition {matched[1]} twice")
        sequences[int(matched[1])] = int(matched[2])
    if len(sequences) > PARTITIONS_MAX:
        raise HttpError(BAD_REQUEST, f"a sequence of {len(sequences)} partitions; it has at most {PARTITIONS_MAX}")
    return sequences
