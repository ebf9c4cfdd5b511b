"""`Idempotency-Key`: which producer id stands for a key, and batches that carry it.

A batch of a keyed request has epoch 0, sequence 0 and a producer id of the reserved range: the hash of client, topic,
key and the batch's number within its partition. So the partition's leader recognises a repeated batch as it does any
producer's (D2), whichever node the retry came through, also after a failover or a restart. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from kraft.http.batch_sender import (
    KEY_HEADER,
    Batches,
    BatchSender,
    Part,
    Pieces,
    Send,
    send_in_order,
    unowned_batches,
)
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.protocol.batches.header import header_at, sequenced
from kraft.protocol.errors import OutOfOrderSequenceNumber
from kraft.protocol.partitioner import partition_of_key
from kraft.protocol.primitives import Buffer
from metadata.producer_ids import RESERVED_PRODUCER_IDS, RESERVED_PRODUCER_IDS_FROM
from metadata.settings import TopicSettings

CLIENT_HEADER = "Client-Id"
TEXT_CHARACTERS_MAX = 255
DIGEST_BYTES = 16
_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARACTERS_MAX, "pattern": "^[!-~]+$"}

HEADERS = (
    Parameter(
        name=KEY_HEADER,
        description=(
            "Makes this request safe to send again: with the same key it is answered with the first result and "
            "appends nothing, on any node, until producer.id.expiration.ms after it."
        ),
        schema=_TEXT_SCHEMA,
    ),
    Parameter(
        name=CLIENT_HEADER,
        description=(
            "Whose key it is: each client of each user has its own keys. Without it: those of the client without a "
            "name."
        ),
        schema=_TEXT_SCHEMA,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey(BatchSender):
    """The key of a request; its batches carry the producers of the key."""

    client: str
    key: str

    is_repeatable = True

    def producer_id(self, topic: str, *, number: int) -> int:
        """The producer id of batch `number` among the batches that the request sends to one partition."""
        text = "\0".join((self.client, topic, self.key, str(number)))
        digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
        return RESERVED_PRODUCER_IDS_FROM + digest % RESERVED_PRODUCER_IDS

    def digest(self) -> bytes:
        """A hash of client and key: a transactional id keeps it to know the request that took it over."""
        return blake2b("\0".join((self.client, self.key)).encode(), digest_size=DIGEST_BYTES).digest()

    def keyless_partition(self, partitions: int) -> int:
        """The same one at each repetition."""
        return partition_of_key(self.key.encode(), partitions)

    def raw_parts(self, body: Buffer) -> Sequence[Part]:
        """One part for each batch: other requests' records may stand between them. Raises HttpError 422."""
        instead = f" and the request an {KEY_HEADER}; send one"
        return [Part(header.record_count, batch) for header, batch in unowned_batches(body, instead=instead)]

    async def send(self, send: Send, batches: Batches, *, topic: str, settings: TopicSettings) -> Pieces:
        """One batch at a time, as Kafka recognises them. A repetition takes the same way: it gets the answer for what
        is in the log, and the rest is appended.

        Raises HttpError 422 when the key was used for other records, and nothing was appended for that reason.
        """
        parts = {which: self._parts(each, topic) for which, each in batches.items()}
        pieces = await send_in_order(send, parts)
        _refuse_reuse(pieces)
        return pieces

    def _parts(self, batches: Sequence[Part], topic: str) -> Sequence[Part]:
        return [
            Part(records, sequenced(data, header_at(data), producer_id=self.producer_id(topic, number=number)))
            for number, (records, data) in enumerate(batches)
        ]


def _refuse_reuse(pieces: Pieces) -> None:
    outcomes = [piece.outcome for done in pieces.values() for piece in done]
    if outcomes and all(outcome.error_code == OutOfOrderSequenceNumber.code for outcome in outcomes):
        raise HttpError(
            UNPROCESSABLE,
            f"the Idempotency-Key was used with other records: {outcomes[0].message}",
            extra={"kafka_code": OutOfOrderSequenceNumber.code, "retriable": False},
        )


def idempotency_key(call: Call) -> IdempotencyKey | None:
    """Raises HttpError 400 for a key or client that is empty, too long, not printable ASCII, or there twice."""
    headers = call.request.headers
    key = _text(call, KEY_HEADER) if KEY_HEADER in headers else None
    client = _text(call, CLIENT_HEADER) if CLIENT_HEADER in headers else None
    return None if key is None else IdempotencyKey(client=_client_of(call.owner, client or ""), key=key)


def _client_of(owner: str, client: str) -> str:
    """Each principal has its own clients. A client's name has no space."""
    return f"{owner} {client}" if owner else client


def _text(call: Call, name: str) -> str | None:
    values = call.request.headers.getall(name, ())
    if not values:
        return None
    if len(values) > 1:
        raise HttpError(400, f"{name} is there {len(values)} times; send it once")
    text = values[0].strip()
    if not text:
        raise HttpError(400, f"{name} is empty; send 1 to {TEXT_CHARACTERS_MAX} printable ASCII characters")
    if len(text) > TEXT_CHARACTERS_MAX:
        raise HttpError(400, f"{name} has {len(text)} characters; {TEXT_CHARACTERS_MAX} at most")
    if not all("!" <= character <= "~" for character in text):
        raise HttpError(400, f"{name} has a character that is no printable ASCII, or a space; send e.g. a UUID")
    return text
