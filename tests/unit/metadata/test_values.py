"""`value`: equal and hashed by fields, with slots; what a class says itself about equality stays."""

from __future__ import annotations

import pickle
from dataclasses import field, replace
from uuid import UUID

import pytest

from kraft.values import new, value
from metadata.image import TopicIdPartition


@value(kw_only=True)
class _Box:
    name: str
    held: list[int] = field(default_factory=list)


@value(kw_only=True)
class _Point:
    x: int
    y: int = 0


def test_values_are_equal_and_hashed_by_their_fields():
    assert _Point(x=1) == _Point(x=1, y=0) != _Point(x=1, y=1)
    assert len({_Point(x=1), _Point(x=1), _Point(x=2)}) == 2
    assert replace(_Point(x=1), y=5) == _Point(x=1, y=5)


def test_values_take_fields_by_keyword_and_no_others():
    with pytest.raises(TypeError):
        _Point(1)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        _Point(x=1).z = 3  # type: ignore[attr-defined]


def test_an_assignment_is_refused_by_the_type_checker():
    """`warn_unused_ignores` turns this line into an error of mypy on the day when it no longer refuses."""
    point = _Point(x=1)
    point.x = 2  # type: ignore[misc]


def test_a_value_made_in_two_steps_is_the_one_that_the_class_makes():
    made, boxed = new(_Point), new(_Box)
    _Point.__init__(made, x=1)
    _Box.__init__(boxed, name="a")
    assert (made, boxed) == (_Point(x=1), _Box(name="a"))
    with pytest.raises(TypeError):
        _Point.__init__(made, y=1)  # type: ignore[call-arg]


def test_a_partition_is_looked_up_by_topic_id_and_number():
    one, same = (TopicIdPartition(UUID(int=7), 1) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != TopicIdPartition(UUID(int=7), 2)
    assert one != TopicIdPartition(UUID(int=8), 1)
    assert one != (UUID(int=7), 1)
    assert (one.topic_id, one.partition) == (UUID(int=7), 1)
    assert eval(repr(one)) == pickle.loads(pickle.dumps(one)) == one
