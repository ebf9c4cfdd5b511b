"""`Idempotency-Key`: which producer id stands for a key, and batches that carry it.

A batch of a keyed request has epoch 0, sequence 0 and a producer id of the reserved range: the hash of client, topic,
key and the batch's number within its partition. So the partition's leader recognises a repeated batch as it does any
producer's (D2), whichever node the retry came through, also after a failover or a restart. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.http.raw_batches import unowned_batches
from kraft.protocol.batches.header import header_at, sequenced, whole_batches
from kraft.protocol.partitioner import partition_of_key
from kraft.protocol.primitives import Buffer
from metadata.producer_ids import RESERVED_PRODUCER_IDS, RESERVED_PRODUCER_IDS_FROM, is_reserved

KEY_HEADER = "Idempotency-Key"
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
        description="Whose key it is: each client has its own keys. Without it: those of the client without a name.",
        schema=_TEXT_SCHEMA,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    client: str
    key: str

    def producer_id(self, topic: str, *, number: int) -> int:
        """Of the batch with this number among those that the request sends to one partition."""
        text = "\0".join((self.client, topic, self.key, str(number)))
        digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
        return RESERVED_PRODUCER_IDS_FROM + digest % RESERVED_PRODUCER_IDS

    def digest(self) -> bytes:
        """By which a transactional id knows the request that has taken it over."""
        return blake2b("\0".join((self.client, self.key)).encode(), digest_size=DIGEST_BYTES).digest()

    def partition(self, partitions: int) -> int:
        """Of the request's records that name no partition and have no key: the same one each time."""
        return partition_of_key(self.key.encode(), partitions)


def idempotency_key(call: Call) -> IdempotencyKey | None:
    """Raises HttpError 400 for a key or client that is empty, too long, not printable ASCII, or there twice."""
    headers = call.request.headers
    key = _text(call, KEY_HEADER) if KEY_HEADER in headers else None
    client = _text(call, CLIENT_HEADER) if CLIENT_HEADER in headers else None
    return None if key is None else IdempotencyKey(client=client or "", key=key)


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


def keyed_batches(data: Buffer, key: IdempotencyKey, *, topic: str) -> Iterator[tuple[int, Buffer]]:
    """Record count and bytes of each batch, with the key's producer id. Raises HttpError 422."""
    instead = f" and the request an {KEY_HEADER}; send one"
    for number, (header, batch) in enumerate(unowned_batches(data, instead=instead)):
        yield header.record_count, sequenced(batch, header, producer_id=key.producer_id(topic, number=number))


def with_producer(batch: Buffer, producer_id: int) -> bytearray:
    """A copy of a batch of our own making that carries this id, epoch 0 and sequence 0."""
    return sequenced(batch, header_at(batch), producer_id=producer_id)


def refuse_reserved_ids(data: Buffer) -> None:
    """Nobody but this door may speak for a key. Raises HttpError 422."""
    for number, (_, header) in enumerate(whole_batches(data)):
        if is_reserved(header.producer_id):
            raise HttpError(
                UNPROCESSABLE,
                f"batch {number}: producer ids from {RESERVED_PRODUCER_IDS_FROM} are reserved for {KEY_HEADER}; "
                "get one by InitProducerId",
            )
