"""The error list of docs/rest.md has each code that the door can answer, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from kraft.http.app import ROUTES
from kraft.http.errors import code_of, from_kafka, status_of
from kraft.http.openapi import ANYWHERE, WITH_BODY
from kraft.protocol.errors import BY_CODE, ProducerFenced
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, with_door

TEXT = (Path(__file__).parents[3] / "docs" / "rest.md").read_text(encoding="utf-8")
OUTSIDE_ROUTES = {405, 431}
"""Answered where no route is found, or no request."""
CONSUMERS = {40001, 40405, 40601, 40902, 40904, 42204, 42209}
"""Of routes that a node adds: consumers, groups, and records of routes."""


def documented() -> set[int]:
    section = TEXT.split("## Errors")[1].split("\n## ")[0]
    codes: set[int] = set()
    for entry in re.findall(r"^- \*\*[0-9].*(?:\n  .*)*", section, flags=re.MULTILINE):
        codes |= {int(code) for code in re.findall(r"\b[45]\d\d(?:\d\d)?\b", entry)}
    return codes


def test_the_table_is_that_of_the_code() -> None:
    async def story(door: Door) -> None:
        answered = {code for route in door.app[ROUTES] for code in route.errors}
        answered |= {*ANYWHERE, *WITH_BODY, *OUTSIDE_ROUTES, *CONSUMERS}
        answered |= {code_of(error("x")) for error in BY_CODE.values()} | {50003}
        assert sorted(answered - documented()) == []
        assert sorted(documented() - answered) == []
        assert all(400 <= status_of(code) < 600 for code in documented())

    with_door(story, FakeGateway())


def test_a_code_that_comes_alone_becomes_a_sentence() -> None:
    for error in BY_CODE.values():
        message = from_kafka(error()).message
        assert message != error.name, error
        assert len(message.split()) > 4, message
    assert from_kafka(ProducerFenced()).message.startswith("a newer producer has this transactional id")
