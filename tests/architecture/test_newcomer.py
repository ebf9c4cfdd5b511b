"""What somebody who knows Kafka looks for is where `newcomer` says."""

from __future__ import annotations

from tests.architecture.newcomer import ANSWERS, missing


def test_each_thing_is_where_the_table_says() -> None:
    assert len(ANSWERS) == 38
    assert not list(missing())
