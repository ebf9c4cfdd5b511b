"""What the answer to a bad body says: sentences of ours, which say what would be right."""

from __future__ import annotations

import json

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from kraft.http.errors import HttpError
from kraft.http.media import Format
from kraft.http.problems import malformed_json, misshapen, problems_of
from kraft.http.v2.record_bodies import parse_produce
from kraft.suggestions import what_is_right

OF_LIBRARIES = ("Value error", "Extra inputs", "Input should", "recursion", "bytearray", "Can not decode", "msgspec")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(default=1, ge=1)
    name: str = Field(default="", max_length=3)
    nested: list[int] = []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"count": "many"}, "count should be a whole number"),
        ({"count": 0}, "count should be greater than or equal to 1"),
        ({"name": "four"}, "name should have at most 3 characters"),
        ({"name": 1}, "name should be a string"),
        ({"nested": 1}, "nested should be an array"),
        ({"cuont": 1}, "cuont is not known here; leave it out"),
        ({"a\nb": 1}, "a\\u000ab is not known here; leave it out"),
        ([], "the body should be an object"),
    ],
    ids=str,
)
def test_each_problem_is_a_sentence_of_ours(body: object, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Body.model_validate(body)
    assert problems_of(raised.value) == said


def test_no_kind_of_problem_lacks_what_its_sentence_shows() -> None:
    for each in list_all_errors():
        context = {"error": ValueError("should be another")} | (each.get("example_context") or {})
        assert what_is_right(each["type"], context), each


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b'{"a": \xff}', b"[" * 100_000, b'{"a": 1,}', b'{"a": "\\ud800"}', b"1 2", b'"\n"'],
    ids=repr,
)
def test_json_that_is_malformed_is_explained(body: bytes) -> None:
    for parse in (json.loads, msgspec.json.decode):
        try:
            parse(body)
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            said = malformed_json(error)
            assert said.startswith("malformed JSON"), said
            assert not [text for text in OF_LIBRARIES if text in said], said


@pytest.mark.parametrize(
    ("body", "form", "code", "said"),
    [
        ({"records": "foo"}, Format.BINARY, 400, "should be an array"),
        ({"records": [{"value": {}}]}, Format.BINARY, 400, "should be"),
        ({"records": [{"value": "!"}]}, Format.BINARY, 422, "should be base64"),
        ({"records": []}, Format.BINARY, 422, "records"),
        ({"records": [{"valeu": ""}]}, Format.BINARY, 422, "'valeu', which is not known here"),
        ({"records": [{"partition": 2**70, "value": 1}]}, Format.JSON, 422, "should be"),
    ],
    ids=str,
)
def test_records_of_another_shape_are_explained(body: object, form: Format, code: int, said: str) -> None:
    with pytest.raises(HttpError) as raised:
        parse_produce(json.dumps(body).encode(), form, now_ms=0)
    assert raised.value.code == code
    assert said in raised.value.message, raised.value.message
    assert not [text for text in OF_LIBRARIES if text in raised.value.message]


def test_what_is_misshapen_is_named_where_it_is() -> None:
    class Record(msgspec.Struct):
        value: int

    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(b'[{"value": "a"}]', type=list[Record])
    assert misshapen(raised.value) == "`[0].value` should be an integer, not a string"
