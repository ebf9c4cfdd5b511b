"""One append as the bytes of one Raft entry: our own codec, with a version of its own (SO-S17).

Version 2 has records of transactions (KIP-868); everything else is written as version 1. So an older node can read a
log without transactions, and stops at the first one with an error that names the version.

Format: `version (u8) | controller epoch (i32) | expected offset (i64) | records (u32)`, then per record
`length (u32) | record`, big-endian. A record is the JSON of `metadata.records.encode_record`; observers get the
same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from metadata.records import (
    AbortTransactionRecord,
    BeginTransactionRecord,
    EndTransactionRecord,
    Record,
    decode_record,
    encode_record,
)

VERSION = 1
VERSION_WITH_TRANSACTIONS = 2
COMMAND_BYTES_MAX = 512 * 1024
"""Largest append. Below the library's batch size, because the library sends a larger one in pieces (SO-L8)."""

_HEADER = struct.Struct(">BiqI")
_LENGTH = struct.Struct(">I")
_OF_TRANSACTIONS = (BeginTransactionRecord, EndTransactionRecord, AbortTransactionRecord)


class UnreadableCommand(Exception):
    """A committed entry that this version cannot read: the node must stop rather than skip it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    controller_epoch: int
    expected_offset: int
    records: tuple[Record, ...]


def encode_command(records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> bytes:
    has_transactions = any(isinstance(record, _OF_TRANSACTIONS) for record in records)
    version = VERSION_WITH_TRANSACTIONS if has_transactions else VERSION
    parts = [_HEADER.pack(version, controller_epoch, expected_offset, len(records))]
    for record in records:
        encoded = encode_record(record)
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def decode_command(data: bytes | memoryview) -> Command:
    """The command of an entry's bytes. Raises UnreadableCommand."""
    try:
        version, controller_epoch, expected_offset, count = _HEADER.unpack_from(data)
        if version not in (VERSION, VERSION_WITH_TRANSACTIONS):
            raise UnreadableCommand(
                f"a command of the metadata log has version {version}, and this node reads versions up to "
                f"{VERSION_WITH_TRANSACTIONS}: a newer version wrote it; start that version or a later one"
            )
        records = tuple(decode_record(one) for one in _split(data, count))
    except (struct.error, ValueError) as error:
        raise UnreadableCommand(
            f"a committed command cannot be read; if a newer version has written it, start that one: {error}"
        ) from error
    return Command(controller_epoch=controller_epoch, expected_offset=expected_offset, records=records)


def records_of(data: bytes | memoryview) -> tuple[Record, ...]:
    """The decoded records of a command. Raises UnreadableCommand."""
    return decode_command(data).records


def encoded_records(data: bytes | memoryview) -> tuple[bytes, ...]:
    """The encoded records of a command that is known to be readable."""
    _, _, _, count = _HEADER.unpack_from(data)
    return _split(data, count)


def _split(data: bytes | memoryview, count: int) -> tuple[bytes, ...]:
    position, encoded = _HEADER.size, []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        encoded.append(bytes(data[position : position + length]))
        position += length
    if position != len(data):
        raise UnreadableCommand(f"a command of {len(data)} bytes holds records up to byte {position}")
    return tuple(encoded)
