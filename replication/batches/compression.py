"""Compression of a batch's records, and decompression with a bound on what comes out.

The bound is there so that no small batch can fill the memory.

Codecs as Kafka's: gzip (RFC 1952), snappy (xerial blocks, or raw), lz4 frames, zstd frames.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cramjam
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from metadata.environment import Buffer
from metadata.errors import CorruptMessage, UnsupportedCompressionType
from replication.batches.header import CODEC_NAMES

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
"""Most bytes that the records of one batch may have; a batch with more is refused as corrupt."""

_FIRST_GUESS = 4
"""Buffers for lz4 and zstd start at this multiple of the input and grow fourfold until the output fits."""

_GZIP_MEMBERS_MAX = 16
"""Producers write one; each costs a copy of what follows it."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
"""Version 1, readable by version 1: the only one there is."""
_BLOCK_LENGTH = struct.Struct(">i")


class _TooLarge(Exception):
    pass


_ENCODERS: dict[int, Callable[[bytes], bytes]] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}


def compress(payload: bytes, *, codec: int) -> bytes:
    """The inverse of `decompress`; codec 0 is none."""
    return bytes(_ENCODERS[codec](payload)) if codec else payload


def decompress(payload: Buffer, *, codec: int, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """Raises CorruptMessage, or UnsupportedCompressionType for a codec that Kafka does not have."""
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise UnsupportedCompressionType(f"compression codec {codec} is unknown; use one of {', '.join(CODEC_NAMES)}")
    try:
        return decoder(payload, bytes_max)
    except _TooLarge:
        raise CorruptMessage(f"{CODEC_NAMES[codec]} records decompress to more than {bytes_max} bytes") from None
    except (zlib.error, cramjam.DecompressionError, struct.error, ValueError) as error:
        raise CorruptMessage(f"the records do not decompress as {CODEC_NAMES[codec]}: {error}") from None


def _gzip(payload: Buffer, bytes_max: int) -> bytes:
    """Members one after another, with zeros between or behind them (RFC 1952 2.2); nothing else may follow."""
    members: list[bytes] = []
    rest, total = payload, 0
    while True:
        decoder = zlib.decompressobj(wbits=31)
        members.append(decoder.decompress(rest, bytes_max - total + 1))
        total += len(members[-1])
        if total > bytes_max:
            raise _TooLarge
        if not decoder.eof:
            raise ValueError("the stream ends early")
        rest = decoder.unused_data.lstrip(b"\0")
        if not rest:
            return members[0] if len(members) == 1 else b"".join(members)
        if len(members) == _GZIP_MEMBERS_MAX:
            raise ValueError(f"more than {_GZIP_MEMBERS_MAX} members")


def _snappy(payload: Buffer, bytes_max: int) -> bytes:
    view = memoryview(payload)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _snappy_block(view, bytes_max)
    if bytes(view[: len(_XERIAL_HEADER)]) != _XERIAL_HEADER or len(view) == len(_XERIAL_HEADER):
        raise ValueError("an xerial header of another version than 1, or with nothing behind it")
    blocks: list[bytes] = []
    total, position = 0, len(_XERIAL_HEADER)
    while position < len(view):
        (size,) = _BLOCK_LENGTH.unpack_from(view, position)
        position += _BLOCK_LENGTH.size
        if size < 0 or position + size > len(view):
            raise ValueError(f"a block of {size} bytes does not fit into the {len(view) - position} left")
        blocks.append(_snappy_block(view[position : position + size], bytes_max - total))
        total += len(blocks[-1])
        position += size
    return b"".join(blocks)


def _snappy_block(block: memoryview, bytes_max: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > bytes_max:
        raise _TooLarge
    return bytes(cramjam.snappy.decompress_raw(block))


def _growing(into: Callable[..., int]) -> Callable[[Buffer, int], bytes]:
    """A decoder that tries growing output buffers; the library stops at the end of the one it is given."""

    def decode(payload: Buffer, bytes_max: int) -> bytes:
        room = min(max(len(payload) * _FIRST_GUESS, 4096), bytes_max)
        while True:
            output = bytearray(room)
            try:
                return bytes(memoryview(output)[: into(payload, output)])
            except cramjam.DecompressionError as error:
                if not _is_full(error):
                    raise
            if room == bytes_max:
                raise _TooLarge
            room = min(room * 4, bytes_max)

    return decode


def _is_full(error: Exception) -> bool:
    return "write whole buffer" in str(error)


_DECODERS: dict[int, Callable[[Buffer, int], bytes]] = {
    1: _gzip,
    2: _snappy,
    3: _growing(cramjam.lz4.decompress_into),
    4: _growing(cramjam.zstd.decompress_into),
}
