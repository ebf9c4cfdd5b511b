"""Values that are made anew for each request: read-only as frozen dataclasses are, at a sixth of their price.

A frozen dataclass sets each field through `object.__setattr__`, which costs more than all else that is done with a
small value. Here the type checker alone refuses an assignment (PEP 681, `frozen_default`); at run time the class is a
plain dataclass with slots, equal and hashed by its fields. For what is made now and then, a frozen one is better.

A call of a class packs its keywords into a dict and unpacks them for `__init__`, which is most of what a value of many
fields costs; a call of a function does not. `maker` gives that function to those who make a value for each request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ParamSpec, TypeVar, dataclass_transform

P = ParamSpec("P")
T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Class decorator. A `__hash__` or `__eq__` that the class has of its own stays."""

    def made(cls: type[T]) -> type[T]:
        return dataclass(slots=True, kw_only=kw_only, unsafe_hash="__hash__" not in vars(cls))(cls)

    return made


def maker(cls: Callable[P, T]) -> Callable[P, T]:
    """A function that makes the same as a call of this class with keywords, in less than half of the time:

        def make_X(*, a, b=default): made = new(X); made.a = a; made.b = b; return made

    The class is a dataclass that is not frozen; a field with a factory is always made by that.
    """
    assert isinstance(cls, type), cls
    assert not hasattr(cls, "__post_init__"), cls
    known: dict[str, Any] = {"_cls": cls, "_new": object.__new__}
    parameters, lines = [], []
    for each in fields(cls):
        if each.default_factory is not MISSING:
            known[f"_{each.name}"] = each.default_factory
            lines.append(f"    made.{each.name} = _{each.name}()\n")
        else:
            known[f"_{each.name}"] = each.default
            parameters.append(each.name if each.default is MISSING else f"{each.name}=_{each.name}")
            lines.append(f"    made.{each.name} = {each.name}\n")
    taken = f"*, {', '.join(parameters)}" if parameters else ""
    function = f"make_{cls.__name__}"
    exec(f"def {function}({taken}):\n    made = _new(_cls)\n{''.join(lines)}    return made\n", known)
    made: Callable[..., T] = known[function]
    return made
