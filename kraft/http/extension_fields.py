"""Fields of answers that no other proxy has. Generated clients refuse what they do not know: strict answers lack them.

A model marks them with `ADDITION`; the strict profile answers exactly what its document describes. A client that knows
the additions asks for them by `Prefer: kraft-fields` (RFC 7240), as every client of this project does.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeAlias, get_args, get_type_hints

from msgspec import Meta, Struct
from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

PREFER: Final = "Prefer"
KRAFT_FIELDS: Final = "kraft-fields"
MARK: Final = "x-addition"
"""In the OpenAPI document."""

Shape: TypeAlias = dict[str, Any]
"""Field -> the shape of what it holds; None: anything."""


class _Addition:
    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        return {**handler(schema), MARK: True}


ADDITION: Final = _Addition()
"""Marks a field of a pydantic model."""
STRUCT_ADDITION: Final = Meta(extra_json_schema={MARK: True})
"""Marks a field of a msgspec struct."""


def prefers_additions(prefer: str | None) -> bool:
    """Whether a `Prefer` header asks for the fields that no other proxy has (`kraft-fields`, RFC 7240)."""
    return prefer is not None and KRAFT_FIELDS in (part.strip().lower() for part in prefer.split(","))


@cache
def plain_shape(model: Any) -> Shape | None:
    """What is left of answers of this model without the additions; None: it has none."""
    shape, has_additions = _shape(model)
    return shape if has_additions else None


def _shape(annotation: Any) -> tuple[Shape | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _shape_of_struct(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kept: Shape = {}
        has_additions = False
        for name, field in annotation.model_fields.items():
            if ADDITION in field.metadata:
                has_additions = True
                continue
            kept[field.alias or name], within = _shape(field.annotation)
            has_additions |= within
        return kept, has_additions
    found = [_shape(each) for each in get_args(annotation)]
    return next((each for each in found if each[0] is not None), (None, False))


def _shape_of_struct(struct: type[Struct]) -> tuple[Shape | None, bool]:
    kept: Shape = {}
    has_additions = False
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if STRUCT_ADDITION in getattr(hint, "__metadata__", ()):
            has_additions = True
            continue
        kept[name], within = _shape(hint)
        has_additions |= within
    return kept, has_additions


def without_additions(document: Any, shape: Shape | None) -> Any:
    """A copy of the document with nothing but what the shape has; the document itself where the shape is None."""
    if shape is None:
        return document
    if isinstance(document, list):
        return [without_additions(each, shape) for each in document]
    if not isinstance(document, dict):
        return document
    return {name: without_additions(value, shape[name]) for name, value in document.items() if name in shape}


def without_marked(definitions: dict[str, Any]) -> None:
    """Takes the additions out of the schemas of an OpenAPI document."""
    for schema in definitions.values():
        fields = schema.get("properties", {})
        marked = {name for name, field in fields.items() if MARK in field}
        if marked:
            schema["properties"] = {name: field for name, field in fields.items() if name not in marked}
            schema["required"] = [name for name in schema.get("required", ()) if name not in marked]
