"""What a codec's decoder takes and refuses, beside the decoders of another client of Kafka."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable

import cramjam
import pytest
from aiokafka import codec as aiokafka

from kraft.protocol.batches.compression import compress, decompress
from kraft.protocol.errors import CorruptMessage

DATA = b"some records, some records, some other records" * 40
THEIRS: dict[int, Callable[[bytes], bytes]] = {
    1: aiokafka.gzip_decode,
    2: aiokafka.snappy_decode,
    3: aiokafka.lz4_decode,
    4: aiokafka.zstd_decode,
}


def theirs(payload: bytes, codec: int) -> bytes | None:
    try:
        return bytes(THEIRS[codec](payload))
    except (OSError, EOFError, ValueError, struct.error, zlib.error, cramjam.DecompressionError):
        return None


def ours(payload: bytes, codec: int) -> bytes | None:
    try:
        return decompress(payload, codec=codec)
    except CorruptMessage:
        return None


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
@pytest.mark.parametrize("tail", [b"x", b"junk", b"\1" * 8, struct.pack(">i", 7), DATA])
def test_bytes_behind_the_records_are_refused(codec: int, tail: bytes) -> None:
    with pytest.raises(CorruptMessage):
        decompress(compress(DATA, codec=codec) + tail, codec=codec)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_what_is_taken_here_another_client_takes_and_reads_alike(codec: int) -> None:
    rng = random.Random(codec)
    good = compress(DATA, codec=codec)
    taken = 0
    for _ in range(1_500):
        payload = bytearray(good)
        match rng.randrange(4):
            case 0:
                payload[rng.randrange(len(payload))] = rng.randrange(256)
            case 1:
                del payload[rng.randrange(1, len(payload)) :]
            case 2:
                payload += rng.randbytes(rng.randrange(1, 30))
            case _:
                at = rng.randrange(len(payload))
                payload[at:at] = rng.randbytes(rng.randrange(1, 5))
        found = ours(bytes(payload), codec)
        taken += found is not None
        assert found is None or found == theirs(bytes(payload), codec), bytes(payload)
    assert ours(good, codec) == DATA
    assert taken < 1_500


def test_gzip_of_several_members_is_read_whole() -> None:
    two = gzip.compress(DATA) + b"\0\0" + gzip.compress(b"more") + b"\0"
    assert decompress(two, codec=1) == DATA + b"more"
    with pytest.raises(CorruptMessage, match="more than 16 members"):
        decompress(gzip.compress(b"") * 17, codec=1)
    with pytest.raises(CorruptMessage, match="more than 2000 bytes"):
        decompress(gzip.compress(bytes(1_500)) * 2, codec=1, bytes_max=2_000)


def test_a_snappy_header_that_is_cut_off_or_of_another_version_is_refused() -> None:
    good = compress(DATA, codec=2)
    for header in (good[:8], good[:12], good[:8] + struct.pack(">ii", 2, 1) + good[16:]):
        with pytest.raises(CorruptMessage, match="xerial"):
            decompress(header, codec=2)
