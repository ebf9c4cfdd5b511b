"""What would be right instead: the name that may have been meant, and the value that should stand there. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def nearest_key_hint(name: str, known: Iterable[str], *, otherwise: str = "see the list of settings") -> str:
    """The part of a sentence that names what would be right; `otherwise` when nothing known is close."""
    near = difflib.get_close_matches(name, tuple(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise


_TRUTH, _WHOLE, _NUMBER = "should be true or false", "should be a whole number", "should be a number"
_TEXT, _ARRAY, _OBJECT = "should be a string", "should be an array", "should be an object"
_SHOULD: Mapping[str, str] = {
    "missing": "must be there",
    "none_required": "should be null",
    **dict.fromkeys(("bool_type", "bool_parsing"), _TRUTH),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    "int_parsing_size": "should be a whole number with fewer digits",
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    "finite_number": "should be a finite number",
    **dict.fromkeys(("string_type", "string_unicode"), _TEXT),
    "string_too_short": "should have at least {min_length} characters",
    "string_too_long": "should have at most {max_length} characters",
    "string_pattern_mismatch": "should match {pattern}",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), _ARRAY),
    "too_short": "should have at least {min_length} entries",
    "too_long": "should have at most {max_length} entries",
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"), _OBJECT),
    "greater_than": "should be greater than {gt}",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be less than or equal to {le}",
    **dict.fromkeys(("literal_error", "enum"), "should be {expected}"),
}
"""Sentences by the type of pydantic's error, whose own texts are for programmers and change with its versions."""


def what_is_right(kind: str, context: Mapping[str, Any]) -> str:
    """What a value should be that pydantic refused, without its subject. `kind` and `context` are `type` and `ctx` of
    the error."""
    if kind in ("value_error", "assertion_error"):
        said = str(context["error"])
        return said if said.startswith("should") else f"should satisfy: {said}"
    return _SHOULD.get(kind, "should be another value").format_map(context)
