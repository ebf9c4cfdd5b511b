"""Which partition a key goes to: Kafka's murmur2 of the key (BuiltInPartitioner.partitionForKey).

`murmur2` equals org.apache.kafka.common.utils.Utils.murmur2, so that a key lands where any Kafka producer puts it.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

KEYS_CACHED_MAX = 16_384
CACHED_KEY_BYTES_MAX = 64

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Unsigned 32-bit murmur2 with Kafka's seed."""
    length = len(data)
    h = 0x9747B28C ^ length
    words = length >> 2
    for k in unpack_from(f"<{words}I", data):
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ (((k ^ (k >> 24)) * _M) & _MASK)
    tail = data[words * 4 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


_cached_murmur2 = lru_cache(maxsize=KEYS_CACHED_MAX)(murmur2)


def partition_of_key(key: bytes, partitions: int) -> int:
    digest = _cached_murmur2(key) if len(key) <= CACHED_KEY_BYTES_MAX else murmur2(key)
    return (digest & 0x7FFFFFFF) % partitions
