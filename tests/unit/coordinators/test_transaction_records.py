"""The records of `__transaction_state`: Kafka's bytes, and what is not ours to read."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kraft.coordinators.transactions.records import MalformedRecord, decode_record, encode_batch
from kraft.coordinators.transactions.state import Begun, Phase, Transaction
from kraft.protocol.batches.records import read_batches

NOW_MS = 1_700_000_000_000
SAMPLE = Transaction(
    transactional_id="transfers",
    producer_id=7,
    previous_producer_id=6,
    next_producer_id=8,
    epoch=3,
    timeout_ms=60_000,
    phase=Phase.PREPARE_COMMIT,
    partitions=frozenset({("t", 1), ("t", 0), ("u", 4)}),
    updated_ms=NOW_MS,
    started_ms=NOW_MS - 5,
    client_version=2,
)


def written(transaction: Transaction | None, name: str = "transfers") -> tuple[bytes, bytes | None]:
    (record,) = read_batches(encode_batch([(name, transaction)], timestamp_ms=NOW_MS))
    assert record.key is not None
    return record.key, record.value


def test_a_record_has_kafkas_bytes() -> None:
    key, value = written(SAMPLE)
    assert key == b"\0\0" + b"\0\x09transfers"
    assert value is not None
    assert value == bytes.fromhex(
        "0001"  # version
        " 0000 0000 0000 0007 0003 0000 ea60"  # producer id, epoch, timeout
        " 0203 0274 0300 0000 0000 0000 0100"  # PrepareCommit, two topics: t with 0 and 1
        " 0275 0200 0000 0400"  # u with 4
        " 0000 018b cfe5 6800 0000 018b cfe5 67fb"  # updated, started
        " 03 00 08 0000 0000 0000 0006 01 08 0000 0000 0000 0008 02 02 0002"  # tags: previous, next, version
    )


def test_the_key_of_a_beginning_stands_in_tagged_fields_after_kafkas() -> None:
    _, plain = written(SAMPLE)
    _, value = written(replace(SAMPLE, begun=Begun(key=b"k" * 16, producer_id=7, epoch=2)))
    assert plain is not None
    assert value is not None
    kafkas = plain.index(bytes.fromhex("03 00 08"))
    assert value[:kafkas] == plain[:kafkas]
    assert value[kafkas] == 6, "tagged fields, of which Kafka skips three"
    assert value[kafkas + 1 :] == plain[kafkas + 1 :] + bytes.fromhex(
        "90 4e 11 11" + "6b" * 16 + "91 4e 08 0000 0000 0000 0007 92 4e 02 0002"
    )


def test_records_come_back_as_they_were() -> None:
    rng = random.Random(4)
    for _ in range(300):
        transaction = Transaction(
            transactional_id="x" * rng.randrange(1, 300),
            producer_id=rng.randrange(1 << 62),
            previous_producer_id=rng.choice([-1, rng.randrange(1 << 62)]),
            next_producer_id=rng.choice([-1, 12]),
            epoch=rng.randrange(1 << 15),
            timeout_ms=rng.randrange(1 << 31),
            phase=rng.choice(list(Phase)),
            partitions=frozenset((f"t{rng.randrange(4)}", rng.randrange(9)) for _ in range(rng.randrange(9))),
            updated_ms=rng.randrange(1 << 50),
            started_ms=rng.choice([-1, rng.randrange(1 << 50)]),
            client_version=rng.randrange(3),
            begun=rng.choice([None, Begun(key=rng.randbytes(16), producer_id=rng.randrange(1 << 62), epoch=4)]),
            owner=rng.choice(["", "User:é"]),
        )
        name = transaction.transactional_id
        expected = transaction
        if transaction.phase is Phase.EMPTY:
            continue
        assert decode_record(*written(transaction, name)) == (name, expected)
    assert decode_record(*written(None)) == ("transfers", None)


def test_the_older_version_is_read() -> None:
    value = bytes.fromhex("0000000000000000000700030000ea6001")
    value += bytes.fromhex("000000010001740000000100000002") + bytes(16)
    found = decode_record(written(None)[0], value)
    assert found is not None
    assert found[1] is not None
    assert (found[1].phase, found[1].partitions, found[1].client_version) == (Phase.ONGOING, {("t", 2)}, 0)


def test_what_is_newer_is_left_and_what_is_broken_is_reported() -> None:
    key, value = written(SAMPLE)
    assert value is not None
    assert decode_record(b"\0\x07" + key[2:], value) is None
    assert decode_record(key, b"\0\x02" + value[2:]) is None
    for broken in (value[:-1], value[:20], b"", value + b"x"):
        with pytest.raises(MalformedRecord):
            decode_record(key, broken)
    with pytest.raises(MalformedRecord, match="status 9"):
        decode_record(key, value[:16] + b"\x09" + value[17:])
