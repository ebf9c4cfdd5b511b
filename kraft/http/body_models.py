"""What all models of JSON request bodies have in common: fields that nobody knows are refused, null is absent.

Clients of Java origin write the fields that they do not set as null; for them a field that is null is a field that is
not there, also where the model's own default is something else. The OpenAPI document marks each such field.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Annotated, Any, TypeAlias, TypeVar, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

UNKNOWN_MAX = 100
"""Fields of one object that nobody knows: an error for each of a million would take more memory than the body."""
ENTRIES_AT_ONCE = 100
IS_STRICT = "is_strict"
"""Key of the validation context: the strict profile."""


def is_strict(info: ValidationInfo) -> bool:
    """Whether the body is validated in the strict profile: no number or truth value in a string."""
    return bool(info.context and info.context.get(IS_STRICT))


Item = TypeVar("Item")


class _Slim:
    """Pydantic's FailFast, which cannot stand in a union with None; and of an item that is a model its fields alone: a
    model has a dict and a set beside them, ten times as much memory."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
        schema = handler(source)
        assert schema["type"] == "list", schema
        (item,) = get_args(source)
        slim = {**schema, "fail_fast": True}
        if isinstance(item, type) and issubclass(item, RequestBody):
            slim["items_schema"] = core_schema.no_info_wrap_validator_function(_fields_of(item), schema["items_schema"])
        return cast(core_schema.CoreSchema, slim)


def _fields_of(model: type[RequestBody]) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    names = tuple(model.model_fields)
    fields = namedtuple(model.__name__, names)  # type: ignore[misc]

    def validated(read: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        item = validate(read)
        if isinstance(read, dict):
            read.clear()  # those of all items are there until the last is validated
        return fields._make([getattr(item, name) for name in names])

    return validated


Items: TypeAlias = Annotated[list[Item], _Slim()]
"""A list whose error names the first bad item only: a message for each of a million would be the larger attack. Its
items have the fields of their model, and are no models."""


def _first_errors(entries: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """A part of the entries at a time: those behind a part with an error are not looked at."""
    if not isinstance(entries, dict) or len(entries) <= ENTRIES_AT_ONCE:
        return validate(entries)
    left = iter(entries.items())
    checked: dict[Any, Any] = {}
    while part := dict(islice(left, ENTRIES_AT_ONCE)):
        checked |= validate(part)
    return checked


Key = TypeVar("Key")
Entries: TypeAlias = Annotated[dict[Key, Item], WrapValidator(_first_errors)]
"""A map of which the first bad entries are reported, as of a list."""


class RequestBody(BaseModel):
    """The base of all models of JSON request bodies: unknown fields are refused, a field that is null is absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any, info: ValidationInfo) -> Any:
        """The strict profile refuses a field that it does not know whatever it holds. Of many fields that nobody knows
        only the first are looked at."""
        if not isinstance(data, dict) or (len(data) <= UNKNOWN_MAX and None not in data.values()):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        keeps_unknown = is_strict(info)
        if len(data) > UNKNOWN_MAX:
            named = known.union(islice((name for name in data if name not in known), UNKNOWN_MAX))
            data = {name: value for name, value in data.items() if name in named}
        return {
            name: value for name, value in data.items() if value is not None or (keeps_unknown and name not in known)
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        made = handler(schema)
        described = handler.resolve_ref_schema(made)
        if handler.mode == "validation":
            required = described.get("required", ())
            fields = described.get("properties", {})
            described["properties"] = {n: s if n in required else _or_null(s) for n, s in fields.items()}
        return made


_BESIDE = ("title", "description", "default")


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    if any(each.get("type") == "null" for each in schema.get("anyOf", ())) or _takes_anything(schema):
        return dict(schema)
    beside = {name: schema[name] for name in _BESIDE if name in schema}
    inner = {name: value for name, value in schema.items() if name not in beside}
    choices = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    return {"anyOf": [*choices, {"type": "null"}], **beside}


def _takes_anything(schema: Mapping[str, Any]) -> bool:
    return not any(name in schema for name in ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"))


# --- settings: as themselves or as text, as clients of both kinds send them, in the strict profile too -------------


class _Written:
    """Marks, in `Annotated`, a value that may be written in several ways; the document shows these and no others."""

    shown: Mapping[str, Any]

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        return handler(schema) if handler.mode == "serialization" else dict(self.shown)


class _Truth(_Written):
    shown: Mapping[str, Any] = {
        "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$"}]
    }

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_truth_of, handler(source))


Truth: TypeAlias = Annotated[bool, _Truth()]
"""A truth value, or its name in any case."""


class _Text(_Written):
    shown: Mapping[str, Any] = {"type": ["string", "number", "boolean"]}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_text_of, handler(source))


SettingText: TypeAlias = Annotated[str, _Text()]
"""The value of a setting as text; a number or a truth value becomes what Kafka writes."""


class Whole(_Written):
    """A whole number of these bounds, or its digits."""

    def __init__(self, *, low: int, high: int) -> None:
        self._low, self._high = low, high
        digits = {-1: "^(-1|[0-9]{1,9})$", 0: "^[0-9]{1,9}$", 1: "^[1-9][0-9]{0,8}$"}[low]
        number = {"type": "integer", "minimum": low, "maximum": high}
        self.shown = {"anyOf": [number, {"type": "string", "pattern": digits}]}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
        number = core_schema.int_schema(ge=self._low, le=self._high)
        return core_schema.no_info_before_validator_function(whole_of, number)


class OneOf(_Written):
    """One of these names, in any case; kept in lower case. `refused`: names with a refusal of their own."""

    def __init__(self, *names: str, refused: Mapping[str, str] | None = None) -> None:
        self._names, self._refused = names, refused or {}
        self.shown = {"type": "string", "pattern": f"^({'|'.join(map(_any_case, names))})$"}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler, /) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._chosen, handler(source))

    def _chosen(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        name = value.lower()
        if name not in self._names:
            raise ValueError(self._refused.get(name) or f"{value!r} is not one of {', '.join(self._names)}")
        return name


def _any_case(name: str) -> str:
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in name)


def _truth_of(value: object) -> object:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def whole_of(value: object) -> object:
    """The number that digits mean; anything else as it is."""
    if not isinstance(value, str):
        return value
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) <= 19 else value


def _text_of(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value
