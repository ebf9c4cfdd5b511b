"""Values that are made for each request: read-only as frozen dataclasses, at a sixth of their cost.

A frozen dataclass sets each field through `object.__setattr__`, which costs more than everything else that is done with
a small value. Here only the type checker refuses an assignment (PEP 681, `frozen_default`); at run time the class is a
plain dataclass with slots, equal and hashed by its fields. For values that are made rarely, a frozen one is better.

A call of a class packs its keywords into a dict and unpacks them for `__init__`, which is most of what a value of many
fields costs; a call of a function does not. With `new` a value is made by such a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Class decorator. The class's own `__hash__` or `__eq__` stays."""

    def made(cls: type[T]) -> type[T]:
        return dataclass(slots=True, kw_only=kw_only, unsafe_hash="__hash__" not in vars(cls))(cls)

    return made


new: Final[Callable[[type[T]], T]] = object.__new__
"""A value without its fields. `made = new(X)` and `X.__init__(made, a=1)` make the same as `X(a=1)`, in half of the
time: the keywords of a function are passed directly. For values of many fields that are made for each request."""
