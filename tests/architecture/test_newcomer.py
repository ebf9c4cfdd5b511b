"""A reader who knows Kafka finds each thing of `newcomer` at its path."""

from __future__ import annotations

from tests.architecture.newcomer import ANSWERS, missing


def test_newcomer_finds_each_thing() -> None:
    assert len(ANSWERS) == 38
    assert not list(missing())
