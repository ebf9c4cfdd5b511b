"""Records that are cut out of a batch are those that it decodes to, with a CRC that is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraft.protocol.batches.cut import cut_batch, record_positions
from kraft.protocol.batches.header import header_at
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches

VALUES = st.lists(
    st.one_of(st.none(), st.binary(max_size=80), st.sampled_from([b"x" * 200, b"x" * 20_000])), min_size=1, max_size=12
)


def batch_of(values: list[bytes | None], compression: str = "none") -> bytes:
    records = [NewRecord(b"k", value, [("h", b"1")], 1_000 + at) for at, value in enumerate(values)]
    return build_batch(records, base_offset=70, leader_epoch=3, compression=compression)


@given(VALUES, st.data())
def test_what_is_cut_is_what_the_batch_has_there(values: list[bytes | None], data: st.DataObject):
    batch = memoryview(batch_of(values))
    positions = record_positions(batch, header_at(batch))
    assert positions is not None
    first = data.draw(st.integers(60, 69 + len(values)))
    last = data.draw(st.integers(max(first, 70), 90))
    cut = cut_batch(batch, header_at(batch), positions, first_offset=first, last_offset=last)
    expected = [each for each in read_batches(batch) if first <= each.offset <= last]
    assert [(each.offset, each.timestamp, each.value, each.headers) for each in read_batches(cut, checks_crc=True)] == [
        (each.offset, each.timestamp, each.value, each.headers) for each in expected
    ]
    assert header_at(cut).size == len(cut)
    assert header_at(cut).last_offset == expected[-1].offset


def test_compressed_batches_and_those_with_holes_are_not_cut():
    packed = memoryview(batch_of([b"a" * 500, b"b" * 500], "gzip"))
    assert record_positions(packed, header_at(packed)) is None
    plain = memoryview(batch_of([b"a", b"b"]))
    assert record_positions(plain, header_at(plain)._replace(last_offset_delta=2)) is None


@pytest.mark.parametrize("at", range(61, 90))
def test_damage_is_no_exception(at: int):
    for value in (0, 0x7F, 0xFF):
        batch = bytearray(batch_of([b"a", b"b" * 3]))
        if at < len(batch):
            batch[at] = value
        record_positions(memoryview(batch), header_at(batch))
    whole = batch_of([b"a", b"b" * 3])
    assert record_positions(memoryview(whole)[:at], header_at(whole)) is None or at >= len(whole)
