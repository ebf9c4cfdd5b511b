"""Which content types and Accept headers are taken, and what they mean."""

from __future__ import annotations

import pytest

from kraft.http.errors import HttpError
from kraft.http.media import Format, produce_format, read_answer, v2_answer

V2 = "application/vnd.kafka.v2+json"
PLAIN = "application/json"

SPELLINGS = [
    (f"application/vnd.kafka.{name}{version}+json", Format(name))
    for name in ("binary", "json", "text")
    for version in (".v2", ".v1", "")
]
PRODUCE: list[tuple[str | None, Format | int]] = [
    *SPELLINGS,
    (None, Format.BINARY),
    (PLAIN, Format.BINARY),
    ("application/octet-stream", Format.BINARY),
    (V2, Format.BINARY),
    ("application/vnd.kafka+json", Format.BINARY),
    ("Application/VND.Kafka.JSON.v2+JSON ; charset=UTF-8", Format.JSON),
    ('application/vnd.kafka.json.v2+json; charset="utf-8"', Format.JSON),
    ("application/vnd.kafka.recordbatch.v2", Format.RECORD_BATCH),
    ("application/vnd.kafka.records.v1", Format.RECORDS),
    ("application/vnd.kafka.avro.v2+json", 415),
    ("application/vnd.kafka.jsonschema.v2+json", 415),
    ("application/vnd.kafka.protobuf.v2+json", 415),
    ("application/vnd.kafka.v3+json", 415),
    ("application/vnd.kafka.json.v2+json; charset=utf-16", 400),
    ("text/plain", 415),
    ("nonsense", 415),
]
READ: list[tuple[str | None, tuple[Format, str] | int]] = [
    (None, (Format.BINARY, Format.BINARY.media_type)),
    ("*/*", (Format.BINARY, Format.BINARY.media_type)),
    ("application/*", (Format.BINARY, Format.BINARY.media_type)),
    (PLAIN, (Format.BINARY, PLAIN)),
    (V2, (Format.BINARY, Format.BINARY.media_type)),
    *((spelling, (form, form.media_type)) for spelling, form in SPELLINGS),
    ("application/vnd.kafka.recordbatch.v2", (Format.RECORD_BATCH, "application/vnd.kafka.recordbatch.v2")),
    ("application/vnd.kafka.records.v1", (Format.RECORDS, "application/vnd.kafka.records.v1")),
    ("text/html, application/vnd.kafka.json.v2+json;q=0.5", (Format.JSON, Format.JSON.media_type)),
    ("application/vnd.kafka.json.v2+json;q=0.1, */*;q=0.5", (Format.BINARY, Format.BINARY.media_type)),
    ("application/vnd.kafka.avro.v2+json, application/vnd.kafka.text.v2+json", (Format.TEXT, Format.TEXT.media_type)),
    ("application/vnd.kafka.avro.v2+json", 406),
    ("application/json;q=0", 406),
    ("application/json;q=much", 406),
    ("text/html", 406),
]
V2_ANSWER: list[tuple[str | None, str | int]] = [
    (None, V2),
    ("*/*", V2),
    (V2, V2),
    (PLAIN, PLAIN),
    (f"{PLAIN};q=0.9, {V2}", V2),
    ("application/vnd.kafka.json.v2+json", V2),
    ("application/vnd.kafka.v1+json", V2),
    ("application/vnd.kafka+json", V2),
    ("application/vnd.kafka.v3+json", 406),
    ("text/plain", 406),
]


@pytest.mark.parametrize(("content_type", "expected"), PRODUCE)
def test_produce_format(content_type: str | None, expected: Format | int) -> None:
    if isinstance(expected, int):
        with pytest.raises(HttpError) as caught:
            produce_format(content_type)
        assert caught.value.status == expected
    else:
        assert produce_format(content_type) is expected


@pytest.mark.parametrize(("accept", "expected"), READ)
def test_read_answer(accept: str | None, expected: tuple[Format, str] | int) -> None:
    if isinstance(expected, int):
        with pytest.raises(HttpError) as caught:
            read_answer(accept)
        assert caught.value.status == expected
    else:
        assert read_answer(accept) == expected


@pytest.mark.parametrize(("accept", "expected"), V2_ANSWER)
def test_v2_answer(accept: str | None, expected: str | int) -> None:
    if isinstance(expected, int):
        with pytest.raises(HttpError) as caught:
            v2_answer(accept)
        assert caught.value.status == expected
    else:
        assert v2_answer(accept) == expected
