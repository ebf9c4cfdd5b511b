"""Compression of a batch's records, and decompression with a bound on what comes out.

The bound holds while it happens, so that no small batch can fill the memory: nothing is decompressed to find out that
it is too large.

Codecs as Kafka's: gzip (RFC 1952), snappy (xerial blocks, or raw), lz4 frames, zstd frames.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cramjam
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from kraft.protocol.batches.header import CODEC_NAMES
from kraft.protocol.errors import CorruptMessage, UnsupportedCompressionType
from kraft.protocol.primitives import Buffer

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
"""Most bytes that the records of one batch may have."""

_FIRST_GUESS = 4
"""Buffers for lz4 and zstd start at this multiple of the input and grow fourfold until the output fits."""

_GZIP_STEP = 1024 * 1024
"""Decompressed at once, without Python's lock."""
_GZIP_MEMBERS_MAX = 16
"""Producers write one; each costs a copy of what follows it."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
"""Version 1, readable by version 1: the only one there is."""
_BLOCK_LENGTH = struct.Struct(">i")


class TooManyBytes(CorruptMessage):  # type: ignore[valid-type,misc]
    """The records decompress to more than was allowed; how much more nobody has looked."""


class _TooLarge(Exception):
    pass


_ENCODERS: dict[int, Callable[[bytes], bytes]] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}


def compress(payload: bytes, *, codec: int) -> bytes:
    """The inverse of `decompress`; codec 0 is none."""
    return bytes(_ENCODERS[codec](payload)) if codec else payload


def decompress(
    payload: Buffer, *, codec: int, bytes_max: int = DECOMPRESSED_BYTES_MAX, before: bytes = b""
) -> bytearray:
    """What the payload was, behind the bytes `before`, so that nobody has to copy it to put them there.

    Raises CorruptMessage (TooManyBytes beyond `bytes_max`), or UnsupportedCompressionType for a codec that Kafka does
    not have.
    """
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise UnsupportedCompressionType(f"compression codec {codec} is unknown; use one of {', '.join(CODEC_NAMES)}")
    output = bytearray(before)
    try:
        decoder(payload, output, bytes_max)
    except _TooLarge:
        raise TooManyBytes(f"{CODEC_NAMES[codec]} records decompress to more than {bytes_max} bytes") from None
    except (zlib.error, cramjam.DecompressionError, struct.error, ValueError) as error:
        # A library's own text speaks of its types and offsets, which a client has never seen.
        why = str(error) if type(error) is ValueError else "they are damaged or cut short"
        raise CorruptMessage(f"the records do not decompress as {CODEC_NAMES[codec]}: {why}") from error
    return output


def _gzip(payload: Buffer, output: bytearray, bytes_max: int) -> None:
    """Members one after another, with zeros between or behind them (RFC 1952 2.2); nothing else may follow."""
    end = len(output) + bytes_max
    rest: Buffer = payload
    for _ in range(_GZIP_MEMBERS_MAX):
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            size = len(output)
            output += decoder.decompress(rest, min(end - size + 1, _GZIP_STEP))
            if len(output) > end:
                raise _TooLarge
            rest = decoder.unconsumed_tail
            if len(output) == size and not rest and not decoder.eof:
                raise ValueError("the stream ends early")
        rest = decoder.unused_data.lstrip(b"\0")
        if not rest:
            return
    raise ValueError(f"more than {_GZIP_MEMBERS_MAX} members")


def _snappy(payload: Buffer, output: bytearray, bytes_max: int) -> None:
    view = memoryview(payload)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        _snappy_block(view, output, bytes_max)
        return
    if bytes(view[: len(_XERIAL_HEADER)]) != _XERIAL_HEADER or len(view) == len(_XERIAL_HEADER):
        raise ValueError("an xerial header of another version than 1, or with nothing behind it")
    end, position = len(output) + bytes_max, len(_XERIAL_HEADER)
    while position < len(view):
        (size,) = _BLOCK_LENGTH.unpack_from(view, position)
        position += _BLOCK_LENGTH.size
        if size < 0 or position + size > len(view):
            raise ValueError(f"a block of {size} bytes does not fit into the {len(view) - position} left")
        _snappy_block(view[position : position + size], output, end - len(output))
        position += size


def _snappy_block(block: memoryview, output: bytearray, bytes_max: int) -> None:
    size = cramjam.snappy.decompress_raw_len(block)
    if size > bytes_max:
        raise _TooLarge
    start = len(output)
    output += bytes(size)
    with memoryview(output) as view:
        written = cramjam.snappy.decompress_raw_into(block, view[start:]) if size else 0
    if written != size or not (size or bytes(block) == b"\0"):
        raise ValueError(f"a block of {size} bytes has {written}")


def _growing(into: Callable[..., int]) -> Callable[[Buffer, bytearray, int], None]:
    """A decoder that tries growing output buffers; the library stops at the end of the one it is given."""

    def decode(payload: Buffer, output: bytearray, bytes_max: int) -> None:
        start = len(output)
        room = min(max(len(payload) * _FIRST_GUESS, 4096), bytes_max)
        while True:
            output += bytes(start + room - len(output))
            try:
                with memoryview(output) as view, view[start:] as behind:
                    written = into(payload, behind)
                del output[start + written :]
                return
            except cramjam.DecompressionError as error:
                if not _is_full(error):
                    raise
            if room == bytes_max:
                raise _TooLarge
            room = min(room * 4, bytes_max)

    return decode


def _is_full(error: Exception) -> bool:
    return "write whole buffer" in str(error)


_DECODERS: dict[int, Callable[[Buffer, bytearray, int], None]] = {
    1: _gzip,
    2: _snappy,
    3: _growing(cramjam.lz4.decompress_into),
    4: _growing(cramjam.zstd.decompress_into),
}
