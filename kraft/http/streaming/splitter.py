"""Finds the JSON objects in a body that comes in pieces: one after another, with or without white space between. Pure.

Only braces, brackets and strings are looked at, each byte once; the parser decides whether an object is JSON.
"""

from __future__ import annotations

import re

_WHITE = re.compile(rb"[ \t\r\n]*+")
_PLAIN = re.compile(rb'[^"{}\[\]]*+')
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _BRACE = b'"{'
_OPEN = b"{["


class ObjectSplitter:
    """`feed` returns the objects that are complete now. What is left of the last one is kept, `bytes_max` at most."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._at = 0
        """Looked at up to here; an object under way begins at 0."""
        self._depth = 0
        self._is_in_string = False

    def __len__(self) -> int:
        """Bytes kept: of an object that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> tuple[list[bytes], str | None]:
        """The objects, and why nothing after them can be understood (None: all is well so far)."""
        self._buffer += data
        found: list[bytes] = []
        problem, start = None, 0
        while True:
            if not self._depth:
                start, problem = self._begin()
            if start < 0 or problem is not None or not self._find_end():
                break
            found.append(bytes(self._buffer[start : self._at]))
        rest = start if self._depth else self._at
        del self._buffer[:rest]
        self._at -= rest
        if len(self._buffer) > self._bytes_max:
            problem = f"an object is longer than {self._bytes_max} bytes"
        return found, problem

    def _begin(self) -> tuple[int, str | None]:
        """Where the next object begins; -1 when there is none yet."""
        matched = _WHITE.match(self._buffer, self._at)
        assert matched is not None
        self._at = matched.end()
        if self._at == len(self._buffer):
            return -1, None
        if self._buffer[self._at] == _BRACE:
            return self._at, None
        text = bytes(self._buffer[self._at : self._at + 20]).decode(errors="replace")
        return self._at, f"an object begins with {{, not with {text!r}"

    def _find_end(self) -> bool:
        """Move on to the end of the object, or of what there is of it."""
        buffer = self._buffer
        while self._at < len(buffer):
            matched = (_STRING if self._is_in_string else _PLAIN).match(buffer, self._at)
            assert matched is not None
            self._at = matched.end()
            if self._at == len(buffer) or (self._is_in_string and buffer[self._at] != _QUOTE):
                return False  # the latter before a lone backslash, which needs the byte after it
            byte = buffer[self._at]
            self._at += 1
            if byte == _QUOTE:
                self._is_in_string = not self._is_in_string
                continue
            self._depth += 1 if byte in _OPEN else -1
            if not self._depth:
                return True
        return False
