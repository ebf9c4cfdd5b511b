"""The compiled parser of v2 bodies says what slow and obvious models say, on good bodies and on bad ones."""

from __future__ import annotations

import base64
import binascii
import json
import random
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from kraft.http.errors import HttpError
from kraft.http.media import Format
from kraft.http.records import OutRecord
from kraft.http.v2.record_bodies import parse_produce
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

NOW_MS = 1_700_000_000_000


# --- the models -------------------------------------------------------------------------------------------------------


def _check_base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("Invalid base64 encoded string") from error
    return text


Base64 = Annotated[str, AfterValidator(_check_base64)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HeaderModel(_Strict):
    key: str | None = None
    name: str | None = None
    value: Base64 | None = None

    @model_validator(mode="after")
    def _named_once(self) -> HeaderModel:
        if (self.key is None) == (self.name is None):
            raise ValueError("a header has `key` or `name`")
        return self


class _Record(_Strict):
    partition: int | None = Field(default=None, ge=0, le=INT32_MAX)
    timestamp: int | None = Field(default=None, ge=0, le=INT64_MAX)
    headers: list[HeaderModel] | None = None


class BinaryRecordModel(_Record):
    key: Base64 | None = None
    value: Base64 | None = None


class JsonRecordModel(_Record):
    key: JsonValue = None
    value: JsonValue = None


class TextRecordModel(_Record):
    key: str | None = None
    value: str | None = None


class _Envelope(_Strict):
    key_schema: str | None = None
    key_schema_id: int | None = Field(default=None, ge=-INT32_MAX - 1, le=INT32_MAX)
    value_schema: str | None = None
    value_schema_id: int | None = Field(default=None, ge=-INT32_MAX - 1, le=INT32_MAX)


class BinaryProduce(_Envelope):
    records: list[BinaryRecordModel] = Field(min_length=1)


class JsonProduce(_Envelope):
    records: list[JsonRecordModel] = Field(min_length=1)


class TextProduce(_Envelope):
    records: list[TextRecordModel] = Field(min_length=1)


# --- the comparison ---------------------------------------------------------------------------------------------------

MODELS: dict[Format, type[BaseModel]] = {
    Format.BINARY: BinaryProduce,
    Format.JSON: JsonProduce,
    Format.TEXT: TextProduce,
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30, 1.5, 0.0, "", "a", "YQ==", "YQ", "YR==",
    "é😀", "\n", [], {}, [None], {"a": [1, "x y"]}, [{"key": "a"}], [{"name": "a", "value": "YQ=="}],
    [{"key": "a", "name": "b"}], [{"key": None, "name": "b", "value": None}], [{"value": "YQ=="}],
    [{"key": "a", "value": "!"}], [{"key": 1}], [1],
)  # fmt: skip
FIELDS = ("key", "value", "partition", "timestamp", "headers", "extra")


def random_record(rng: random.Random) -> Any:
    if rng.random() < 0.02:
        return rng.choice(ODD)
    record: dict[str, Any] = {}
    if rng.random() < 0.6:
        record["key"] = rng.choice(("", "YQ==", "YWJj"))
    if rng.random() < 0.8:
        record["value"] = rng.choice(("", "YQ==", "YWJj", None))
    if rng.random() < 0.3:
        record["partition"] = rng.choice((0, 5, None))
    if rng.random() < 0.3:
        record["timestamp"] = rng.choice((0, 1_600_000_000_000, None))
    if rng.random() < 0.3:
        record["headers"] = rng.choice((None, [], [{"key": "h", "value": "YQ=="}, {"name": "n"}]))
    if rng.random() < 0.4:
        record[rng.choice(FIELDS)] = rng.choice(ODD)
    return record


def random_body(rng: random.Random) -> Any:
    if rng.random() < 0.02:
        return rng.choice(ODD)
    body: dict[str, Any] = {"records": [random_record(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]}
    if rng.random() < 0.1:
        body[rng.choice(("key_schema_id", "value_schema_id", "key_schema", "records", "x"))] = rng.choice(ODD)
    return body


def by_model(document: Any, form: Format) -> list[OutRecord] | None:
    try:
        model: Any = MODELS[form].model_validate(document)
    except ValidationError:
        return None
    return [
        OutRecord(
            stored(record.key, form),
            stored(record.value, form),
            [(h.name if h.key is None else h.key, unbase64(h.value)) for h in record.headers or []],
            NOW_MS if record.timestamp is None else record.timestamp,
            record.partition,
        )
        for record in model.records
    ]


def unbase64(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def stored(value: Any, form: Format) -> bytes | None:
    if value is None:
        return None
    if form is Format.JSON:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return value.encode() if form is Format.TEXT else unbase64(value)


@pytest.mark.parametrize("form", MODELS, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_model(form: Format, seed: int) -> None:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(250):
        document = random_body(rng)
        expected = by_model(document, form)
        body = json.dumps(document, ensure_ascii=False, indent=rng.choice((None, 1))).encode()
        try:
            actual = parse_produce(body, form, now_ms=NOW_MS)
        except HttpError as error:
            if expected is not None or error.status not in (400, 422):
                raise AssertionError(document) from error
        else:
            assert actual == expected, document
            accepted += 1
    assert 40 < accepted < 210, "the mix has become one-sided"


def test_embedded_json_keeps_every_digit_and_loses_only_white_space() -> None:
    body = b'{"records": [ {"value": { "n" : 123456789012345678901234567890, "f": 1.10, "t": "a b\\u00e9" } } ]}'
    (record,) = parse_produce(body, Format.JSON, now_ms=NOW_MS)
    assert record.value == b'{"n":123456789012345678901234567890,"f":1.10,"t":"a b\\u00e9"}'


def test_null_and_absent_are_null_in_every_format() -> None:
    for form in MODELS:
        records = parse_produce(b'{"records":[{"value": null},{}]}', form, now_ms=NOW_MS)
        assert records == [OutRecord(None, None, [], NOW_MS, None)] * 2


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_good_body_escapes_the_errors(seed: int) -> None:
    """Whatever is done to the bytes: parsed, or 400, or 422; and what is stored as JSON is JSON."""
    rng = random.Random(seed)
    good = b'{"records":[{"key":"YQ==","value":"YWJj","headers":[{"name":"n","value":"YQ=="}],"timestamp":5}]}'
    for _ in range(1500):
        body = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            body[rng.randrange(len(body))] = rng.choice((rng.randrange(256), *b'"{}[]:,\\0e-. \n'))
        for form in MODELS:
            try:
                records = parse_produce(bytes(body), form, now_ms=NOW_MS)
            except HttpError as error:
                if error.status not in (400, 422):
                    raise AssertionError(body) from error
                continue
            if form is Format.JSON:
                for record in records:
                    json.loads(record.value or b"null")
