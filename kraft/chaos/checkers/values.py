"""Values as small numbers, "slots", which index the columns of the checker: no record needs a Python object.

A value `<process>:<counter>` costs 4 bytes in an array of its process, indexed by the counter, and 12 bytes for the way
back. Any other text, or a counter far beyond its neighbours, is kept as text in a dict, about 200 bytes each.
"""

from __future__ import annotations

from array import array
from typing import Final

COUNTER_GAP_MAX: Final = 65_536
"""A counter this far beyond the highest one of its process so far is kept as text: the array would be mostly empty."""
COUNTER_DIGITS_MAX: Final = 12
TEXT_PROCESS: Final = -1

_NONE: Final = -1


class Values:
    """Slots are assigned in the order in which values are first seen, from 0 without gaps."""

    def __init__(self) -> None:
        self._process_ids: dict[str, int] = {}
        self._process_names: list[str] = []
        self._slots: list[array[int]] = []
        """For each process: counter -> slot."""
        self._texts: dict[str, int] = {}
        self._text_of: dict[int, str] = {}
        self.process = array("i")
        """The process of each slot."""
        self.counter = array("q")
        """The counter of each slot: orders the values of one process."""

    def __len__(self) -> int:
        return len(self.process)

    def slot(self, value: str) -> int:
        name, _, digits = value.rpartition(":")
        process = self._process_ids.get(name)
        if process is None or not digits.isdecimal() or len(digits) > COUNTER_DIGITS_MAX:
            return self._first_or_text(value, name, digits)
        counter = int(digits)
        slots = self._slots[process]
        if counter < len(slots):
            slot = slots[counter]
            if slot != _NONE:
                return self._checked(slot, value, digits)
        elif counter > len(slots) + COUNTER_GAP_MAX:
            return self._text_slot(value)
        return self._new(process, counter, value, digits)

    def text(self, slot: int) -> str:
        process = self.process[slot]
        if process == TEXT_PROCESS:
            return self._text_of[slot]
        return f"{self._process_names[process]}:{self.counter[slot]}"

    def _checked(self, slot: int, value: str, digits: str) -> int:
        """The counter of a value. `p:07` is another value than `p:7`."""
        return slot if digits[0] != "0" or digits == "0" else self._text_slot(value)

    def _first_or_text(self, value: str, name: str, digits: str) -> int:
        if not name or not (digits.isascii() and digits.isdecimal()) or len(digits) > COUNTER_DIGITS_MAX:
            return self._text_slot(value)
        self._process_ids[name] = len(self._process_names)
        self._process_names.append(name)
        self._slots.append(array("i"))
        return self.slot(value)

    def _new(self, process: int, counter: int, value: str, digits: str) -> int:
        if not digits.isascii() or (digits[0] == "0" and digits != "0"):
            return self._text_slot(value)
        slots = self._slots[process]
        missing = counter + 1 - len(slots)
        if missing > 0:
            slots.extend(_EMPTY[:missing] if missing <= len(_EMPTY) else array("i", [_NONE]) * missing)
        slot = slots[counter] = len(self.process)
        self.process.append(process)
        self.counter.append(counter)
        return slot

    def _text_slot(self, value: str) -> int:
        slot = self._texts.get(value)
        if slot is None:
            slot = self._texts[value] = len(self.process)
            self._text_of[slot] = value
            self.process.append(TEXT_PROCESS)
            self.counter.append(slot)
        return slot


_EMPTY: Final = array("i", [_NONE]) * 64
