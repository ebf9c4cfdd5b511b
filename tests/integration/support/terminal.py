"""A program in a terminal of its own, and what its screen shows: as much of a terminal as full-screen programs use."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Final

ROWS: Final = 24
COLUMNS: Final = 80
DEADLINE_S: Final = 60
_SEQUENCE: Final = re.compile(r"\x1b(?:\[([0-9;?]*)([A-Za-z])|[()][A-Z0-9]|[=>78])")
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-9;?]*|[()])?\Z")
"""A sequence whose end has not arrived."""


class Display:
    """The screen, from what a program writes. A line that is too long is cut; then `overflowed` is set."""

    def __init__(self, rows: int = ROWS, columns: int = COLUMNS) -> None:
        self._size = rows, columns
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        self._rest = ""
        self.overflowed = False

    @property
    def lines(self) -> list[str]:
        """All rows, without blanks at their ends."""
        return ["".join(row).rstrip() for row in self._cells]

    def feed(self, text: str) -> None:
        """What the program has written next."""
        text, at = self._rest + text, 0
        begun = _BEGUN.search(text)
        self._rest = "" if begun is None else text[begun.start() :]
        text = text[: len(text) - len(self._rest)]
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is None:
                self._write(text[at])
                at += 1
            else:
                self._obey(found[1] or "", found[2] or "")
                at = found.end()

    def _write(self, character: str) -> None:
        rows, columns = self._size
        if character == "\r":
            self._column = 0
        elif character == "\n":
            if self._row == rows - 1:
                self._cells = [*self._cells[1:], [" "] * columns]
            self._row = min(self._row + 1, rows - 1)
        elif character >= " ":
            if self._column >= columns:
                self.overflowed = True
                return
            self._cells[self._row][self._column] = character
            self._column += 1

    def _obey(self, options: str, command: str) -> None:
        rows, columns = self._size
        numbers = [int(each) if each.isdecimal() else 0 for each in options.split(";")]
        match command:
            case "H":
                self._row = min(max(numbers[0], 1), rows) - 1
                self._column = min(max(numbers[1] if len(numbers) > 1 else 1, 1), columns) - 1
            case "A":
                self._row = max(self._row - max(numbers[0], 1), 0)
            case "J" if numbers[0] == 2:
                self._cells = [[" "] * columns for _ in range(rows)]
            case "K":
                begin = 0 if numbers[0] == 2 else self._column
                self._cells[self._row][begin:] = [" "] * (columns - begin)
            case "h" if options == "?1049":
                self._cells, self._row, self._column = [[" "] * columns for _ in range(rows)], 0, 0


class Terminal:
    """A program in a terminal of 80 columns and 24 rows."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.display = Display()

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.display.lines)

    def press(self, keys: str) -> None:
        """Keys, all at once."""
        os.write(self._master, keys.encode())

    def until(self, wanted: str | Callable[[str], bool]) -> str:
        """Waits until the screen shows this; returns the screen."""
        deadline = time.monotonic() + DEADLINE_S
        while not (wanted in self.text if isinstance(wanted, str) else wanted(self.text)):
            assert time.monotonic() < deadline, f"{wanted!r} is not on the screen:\n{self.text}"
            self._read(0.2)
        return self.text

    def end(self) -> int:
        """Waits for the end of the program."""
        code = self.process.wait(DEADLINE_S)
        os.close(self._master)
        return code

    def _read(self, wait_s: float) -> None:
        ready, _, _ = select.select([self._master], [], [], wait_s)
        if ready:
            self.display.feed(os.read(self._master, 65_536).decode(errors="replace"))
