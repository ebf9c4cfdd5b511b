"""The logs that are compared with Apache Kafka's tool: small, and between them every kind of batch and cut."""

from __future__ import annotations

import os
from pathlib import Path

from kraft.protocol.batches.header import CODEC_NAMES, whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.runtime.environment import close_environment, system_environment
from metadata.environment import Environment
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM
from metadata.settings import TopicSettings
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, load

GOLDEN = Path(__file__).parent / "golden"
SENT = GOLDEN / "sent-batches.bin"
ROUNDS_MAX = 30

SMALL = TopicSettings(segment_bytes=2000, index_interval_bytes=300, file_delete_delay_ms=0)
APPEND_TIME = TopicSettings(message_timestamp_type="LogAppendTime")


def _records(count: int, first_ms: int) -> list[NewRecord]:
    records = []
    for i in range(count):
        key = None if i % 3 == 0 else b"key-%d" % i
        value = None if i % 4 == 1 else b"value-%d" % i * (1 + i % 5)
        headers: list[tuple[str, bytes | None]] = [(f"h{i}", b"x"), ("none", None)] if i % 2 else []
        records.append(NewRecord(key, value, headers, first_ms + i * 7 % 11))
    return records


def write_sent_batches() -> None:
    """What producers send, kept as a file: gzip puts the time into its header."""
    batches = (
        build_batch(_records(3 + turn % 4, NOW_MS + turn * 10), compression=CODEC_NAMES[turn % len(CODEC_NAMES)])
        for turn in range(ROUNDS_MAX)
    )
    SENT.write_bytes(b"".join(batches))


def _fill(log: PartitionLog, *, rounds: int, first_epoch: int = 0) -> None:
    sent = SENT.read_bytes()
    for turn, (position, header) in enumerate(list(whole_batches(sent))[:rounds]):
        data = sent[position : position + header.size]
        log.append_as_leader(data, leader_epoch=first_epoch + turn // 6, now_ms=NOW_MS + turn)


async def _codecs(environment: Environment, folder: str) -> PartitionLog:
    log, _ = load(environment, folder)
    _fill(log, rounds=5)
    return log


async def _rolled(environment: Environment, folder: str) -> PartitionLog:
    log, _ = load(environment, folder, settings=SMALL)
    _fill(log, rounds=25)
    return log


async def _truncated(environment: Environment, folder: str) -> PartitionLog:
    """Cut back twice, once into an older segment, and grown again under newer epochs."""
    log, _ = load(environment, folder, settings=SMALL)
    _fill(log, rounds=30)
    log.truncate_to(79)
    _fill(log, rounds=4, first_epoch=9)
    log.truncate_to(33)
    _fill(log, rounds=14, first_epoch=12)
    return log


async def _append_time(environment: Environment, folder: str) -> PartitionLog:
    log, _ = load(environment, folder, settings=APPEND_TIME)
    _fill(log, rounds=5)
    return log


async def _producers(environment: Environment, folder: str) -> PartitionLog:
    """Idempotent producers of both kinds, sequences that wrap, a new epoch, a duplicate, rolls between them."""
    log, _ = load(environment, folder, settings=SMALL)
    for turn in range(24):
        for producer_id, epoch, first in ((7, turn // 12, 3 * (turn % 12)), (RESERVED_PRODUCER_IDS_FROM + turn, 0, 0)):
            data = _sequenced(turn, producer_id=producer_id, producer_epoch=epoch, base_sequence=first)
            log.append_as_leader(data, leader_epoch=2, now_ms=NOW_MS + turn)
            assert log.append_as_leader(data, leader_epoch=2, now_ms=NOW_MS + turn).is_duplicate
        await log.save_producers()
    for first in (2**31 - 2, 1):
        data = _sequenced(24, producer_id=8, producer_epoch=3, base_sequence=first)
        log.append_as_leader(data, leader_epoch=2, now_ms=NOW_MS + 24)
    return log


def _sequenced(turn: int, *, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
    return build_batch(
        _records(3, NOW_MS + turn * 10),
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
    )


LOGS = {
    "codecs-0": _codecs,
    "rolled-0": _rolled,
    "truncated-0": _truncated,
    "appendtime-0": _append_time,
    "producers-0": _producers,
}


async def write_logs(root: Path) -> None:
    environment = system_environment()
    try:
        for name, write in LOGS.items():
            folder = os.path.join(root, name)
            log = await write(environment, folder)
            await log.close()
            await log.remove_deleted_files(everything=True)
    finally:
        close_environment(environment)
