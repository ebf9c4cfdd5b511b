"""Bytes that a stranger, a broken peer or a broken disk may hand to a decoder: damaged samples, and anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

NASTY = (
    b"\xff\xfe\xfd",
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x91" * 2_000,
    b"\x81\xa1x" * 1_000,
    b"[" * 2_000,
    b'{"a":' * 2_000,
    b"[" * 2_000 + b"]" * 2_000,
    b'"\xc3("',
    b"\\ud800",
    b"9" * 5_000,
    b"1e999",
    b"-1",
    b"null",
    b"{}",
    b"[]",
    b'""',
    b"NaN",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"9999-12-31T23:59:59-23:59",
    b"0001-01-01T00:00:00+23:59",
    "²٣".encode(),
)
"""What has broken decoders: text that is no UTF-8, depth, lengths and numbers at their limits, other kinds."""
Change = Callable[[bytes], bytes]


def _place(data: bytes, at: int) -> int:
    return at % (len(data) + 1)


def _flipped(at: int, bit: int) -> Change:
    def change(data: bytes) -> bytes:
        if not data:
            return data
        changed = bytearray(data)
        changed[at % len(data)] ^= 1 << bit
        return bytes(changed)

    return change


def _inserted(at: int, what: bytes) -> Change:
    return lambda data: data[: _place(data, at)] + what + data[_place(data, at) :]


def _overwritten(at: int, what: bytes) -> Change:
    return lambda data: data[: _place(data, at)] + what + data[_place(data, at) + len(what) :]


def _token(at: int, what: bytes) -> Change:
    """The value of a JSON field becomes another: what stands between two of its signs."""

    def change(data: bytes) -> bytes:
        start = data.find(b":", _place(data, at))
        end = min((found for sign in b",}" if (found := data.find(sign, start)) >= 0), default=-1)
        return data if start < 0 or end < 0 else data[: start + 1] + what + data[end:]

    return change


def _cut(at: int) -> Change:
    return lambda data: data[: _place(data, at)]


def _removed(at: int, size: int) -> Change:
    return lambda data: data[: _place(data, at)] + data[_place(data, at) + size :]


def hostile(samples: Sequence[bytes], reseal: Callable[[bytes], bytes] | None = None) -> st.SearchStrategy[bytes]:
    """Samples with a few changes each, and anything. `reseal` makes a checksum right, to reach what is behind it."""
    at, piece = st.integers(0, 4_096), st.one_of(st.sampled_from(NASTY), st.binary(max_size=9))
    change = st.one_of(
        st.builds(_flipped, at, st.integers(0, 7)),
        st.builds(_overwritten, at, piece),
        st.builds(_inserted, at, piece),
        st.builds(_token, at, piece),
        st.builds(_cut, at),
        st.builds(_removed, at, st.integers(1, 64)),
    )

    def changed(sample: bytes, changes: list[Change]) -> bytes:
        for each in changes:
            sample = each(sample)
        return sample

    damaged = st.builds(changed, st.sampled_from(list(samples)), st.lists(change, min_size=1, max_size=4))
    anything = st.one_of(st.binary(max_size=300), st.sampled_from(NASTY))
    found = st.one_of(damaged, damaged, damaged, anything)
    return found if reseal is None else st.one_of(found.map(reseal), found)
