"""Unsigned varints and tagged fields (KIP-482), for the headers that we read and write by hand."""

from __future__ import annotations

TAGS_MAX = 64
"""Tagged fields in one header."""


def varint(value: int) -> bytes:
    """An unsigned varint: seven bits a byte, the lowest first (KIP-482)."""
    assert value >= 0, value
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_at(frame: memoryview, offset: int) -> tuple[int, int]:
    """The varint at `offset`, of five bytes at most, and the offset after it. Raises IndexError or ValueError."""
    first = frame[offset]
    return (first, offset + 1) if first < 0x80 else long_varint(frame, offset + 1, first)


def long_varint(frame: memoryview, offset: int, first: int) -> tuple[int, int]:
    """The varint whose first byte is `first`, with the rest of it at `offset`; and the offset of what follows. Raises
    IndexError or ValueError.
    """
    value = first & 0x7F
    for shift in (7, 14, 21, 28):
        byte = frame[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("varint of more than 5 bytes")


class Reader:
    """A position in a frame that moves on with what is read. Raises ValueError where the frame ends too early or a
    number is too long.
    """

    __slots__ = ("frame", "offset")

    def __init__(self, frame: memoryview, offset: int) -> None:
        self.frame = frame
        self.offset = offset

    def varint(self) -> int:
        """The next unsigned varint."""
        value = 0
        for shift in range(0, 35, 7):
            if self.offset >= len(self.frame):
                raise ValueError("the frame ends inside a varint")
            byte = self.frame[self.offset]
            self.offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("varint of more than 5 bytes")

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, not copied."""
        end = self.offset + size
        if end > len(self.frame):
            raise ValueError(f"{size} bytes wanted, {len(self.frame) - self.offset} are left")
        piece = self.frame[self.offset : end]
        self.offset = end
        return piece

    def tagged_fields(self) -> dict[int, memoryview]:
        """The tagged fields that come next, by tag; their bytes are not copied."""
        count = self.varint()
        if count > TAGS_MAX:
            raise ValueError(f"{count} tagged fields, at most {TAGS_MAX} are taken")
        fields: dict[int, memoryview] = {}
        for _ in range(count):
            tag = self.varint()
            fields[tag] = self.take(self.varint())
        return fields
