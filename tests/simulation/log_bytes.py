"""All bytes of a replica's log from an offset on, as a consumer that may read all of it would get them."""

from __future__ import annotations

import contextlib

from kraft.protocol.errors import CorruptMessage
from replication.partition.replica import Replica


def readable_bytes_from(replica: Replica, start: int) -> bytes:
    """Up to where it is damaged."""
    data = b""
    with contextlib.suppress(CorruptMessage):
        offset = start
        while offset < replica.log.log_end_offset:
            read = replica.log.read(offset, bytes_max=1, upper_bound=replica.log.log_end_offset)
            data, offset = data + read.data, read.next_offset
    return data


def bytes_from(replica: Replica, start: int) -> bytes:
    log, data, offset = replica.log, b"", start
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=1 << 20, upper_bound=log.log_end_offset)
        if not read.data:
            break
        data, offset = data + read.data, read.next_offset
    return data
