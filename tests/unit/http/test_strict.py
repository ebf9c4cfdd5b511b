"""What the default dialect forgives and the strict profile (`strict = true`) refuses, case by case."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, PLAIN, TEXT, V3, open_door

ONE = b'{"records":[{"value":"YQ=="}]}'
V2 = "application/vnd.kafka.v2+json"
NEW = b'{"topic_name":"new","partitions_count":"2"}'


class Case(NamedTuple):
    name: str
    method: str
    path: str
    lenient: int
    strict: int
    body: bytes | None = None
    headers: Mapping[str, str] = MappingProxyType({})


FORGIVEN = (
    Case("no content type", "POST", "/topics/t", 200, 415, ONE),
    Case("plain JSON as binary", "POST", "/topics/t", 200, 415, ONE, {"Content_Type": PLAIN}),
    Case("bare envelope as binary", "POST", "/topics/t", 200, 415, ONE, {"Content_Type": V2}),
    Case("octets", "POST", "/topics/t", 200, 415, ONE, {"Content_Type": "application/octet-stream"}),
    Case("v1 spelling", "POST", "/topics/t", 200, 415, ONE, {"Content_Type": "application/vnd.kafka.binary.v1+json"}),
    Case("no version", "POST", "/topics/t", 200, 415, ONE, {"Content_Type": "application/vnd.kafka.binary+json"}),
    Case("v3 without type", "POST", f"{V3}/topics", 201, 415, b'{"topic_name":"new"}'),
    Case("JSON metadata", "GET", "/topics", 200, 406, None, {"Accept": PLAIN}),
    Case("JSON topic", "GET", "/topics/t", 200, 406, None, {"Accept": PLAIN}),
    Case("JSON records", "GET", "/topics/t/partitions/0/records?timeout=0", 200, 406, None, {"Accept": PLAIN}),
    Case("trailing slash", "GET", "/topics/", 200, 404),
    Case("unknown parameter", "GET", "/topics?verbose=1", 200, 400),
    Case("repeated parameter", "GET", "/topics/t/partitions/0/records?timeout=0&timeout=0", 200, 400),
    Case("body of a GET", "GET", "/topics", 200, 400, b"{}", {"Content_Type": V2}),
    Case("number as text", "POST", f"{V3}/topics", 201, 400, NEW, {"Content_Type": PLAIN}),
)
ALIKE = (
    Case("binary", "POST", "/topics/t", 200, 200, ONE, {"Content_Type": BINARY}),
    Case("UTF-8 said", "POST", "/topics/t", 200, 200, ONE, {"Content_Type": f"{BINARY}; charset=utf-8"}),
    Case("json", "POST", "/topics/t", 200, 200, b'{"records":[{"value":1}]}', {"Content_Type": JSON}),
    Case("text", "POST", "/topics/t", 200, 200, b'{"records":[{"value":"a"}]}', {"Content_Type": TEXT}),
    Case("no accept", "GET", "/topics", 200, 200),
    Case("anything", "GET", "/topics", 200, 200, None, {"Accept": f"{PLAIN}, */*;q=0.1"}),
    Case("v2 metadata", "GET", "/topics", 200, 200, None, {"Accept": V2}),
    Case("whole float", "PATCH", f"{V3}/topics/t", 200, 200, b'{"partitions_count":3.0}', {"Content_Type": PLAIN}),
    Case("broken float", "PATCH", f"{V3}/topics/t", 400, 400, b'{"partitions_count":3.5}', {"Content_Type": PLAIN}),
    Case("unknown field", "POST", f"{V3}/topics", 422, 422, b'{"topic_name":"n","x":1}', {"Content_Type": PLAIN}),
    Case("form", "POST", "/topics/t", 415, 415, b"a=b", {"Content_Type": "application/x-www-form-urlencoded"}),
    Case("pictures", "GET", "/topics", 406, 406, None, {"Accept": "image/png"}),
)


@pytest.mark.parametrize("case", [*FORGIVEN, *ALIKE], ids=lambda case: case.name)
def test_both_profiles(case: Case) -> None:
    for is_strict, status in ((False, case.lenient), (True, case.strict)):
        answer = asyncio.run(ask(case, is_strict=is_strict))
        assert answer.status == status, (is_strict, answer.body)
        if status >= 400:
            assert str(answer.json["error_code"]).startswith(str(status))


async def ask(case: Case, *, is_strict: bool) -> Any:
    fake = FakeGateway()
    fake.add_topic("t", 2)
    async with open_door(fake, is_strict=is_strict) as door:
        return await door.ask(case.method, case.path, case.body, **case.headers)


def test_a_strict_answer_has_the_described_type_whatever_else_is_accepted() -> None:
    case = Case("", "GET", "/topics", 200, 200, None, {"Accept": f"{PLAIN}, */*"})
    assert asyncio.run(ask(case, is_strict=True)).headers["Content-Type"] == V2
    assert asyncio.run(ask(case, is_strict=False)).headers["Content-Type"] == PLAIN
