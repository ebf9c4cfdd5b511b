"""Immutable mappings that share what did not change: against a dict, and what a change costs among many."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metadata.delta import delta_between
from metadata.image import MetadataImage, TopicImage
from metadata.persistent_map import BUCKETS, PersistentMap, differences, spread_text
from metadata.records import PartitionChangeRecord, PartitionRecord, Reason, Record, TopicRecord

KEYS = st.integers(min_value=0, max_value=3 * BUCKETS)
WRITES = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(min_value=0, max_value=3))), max_size=40)
BUCKET_COUNTS = st.sampled_from([1, 4, BUCKETS])


@given(st.lists(WRITES, max_size=5), BUCKET_COUNTS)
def test_every_version_is_what_a_dict_would_be_and_stays_so(
    histories: list[list[tuple[int, int | None]]], n: int
) -> None:
    version: PersistentMap[int, int] = PersistentMap({}, spread=int, buckets=n)
    versions = [(version, dict[int, int]())]
    for writes in histories:
        draft, model = versions[-1][0].draft(), dict(versions[-1][1])
        for key, value in writes:
            if value is None:
                assert draft.pop(key, None) == model.pop(key, None)
            else:
                draft[key] = model[key] = value
            assert (len(draft), draft.get(key), key in draft) == (len(model), model.get(key), key in model)
        versions.append((draft.frozen(), model))
    for made, model in versions:
        assert made == model
        assert (len(made), sorted(made), sorted(made.items()), sorted(made.values())) == (
            len(model),
            sorted(model),
            sorted(model.items()),
            sorted(model.values()),
        )
        assert [made[key] for key in made] == list(made.values())
    for before, old in versions:
        for after, new in versions:
            assert before.differences(after) == differences(old, new) == differences(before, after)


def test_what_was_not_written_to_is_the_same_object() -> None:
    made = PersistentMap({1: "a"}, spread=int)
    draft = made.draft()
    assert draft.pop(2, None) is None
    with pytest.raises(KeyError):
        del draft[3]
    assert draft.frozen() == made
    assert made.draft().frozen() is made


def test_equal_maps_of_unlike_shape_do_not_differ() -> None:
    assert PersistentMap({1: 1, 2: 2}, spread=int).differences(PersistentMap({2: 2, 1: 1}, spread=int, buckets=1)) == {}


@pytest.mark.parametrize("strange", [None, 3, b"bytes", (), "\ud800"])
def test_nothing_that_is_no_key_is_in_it(strange: object) -> None:
    assert strange not in PersistentMap({"a": 1}, spread=spread_text)


TOPICS = 20_000


def image_of(count: int) -> MetadataImage:
    return MetadataImage().apply(list(records_of(count)))


def records_of(count: int) -> Iterator[Record]:
    for number in range(count):
        yield TopicRecord(name=f"topic-{number}", topic_id=UUID(int=number + 1))
        yield PartitionRecord(topic_id=UUID(int=number + 1), partition=0, replicas=(1,), isr=(1,), leader=1)


def test_a_change_of_one_topic_copies_and_compares_few_of_many() -> None:
    before = image_of(TOPICS)
    change = PartitionChangeRecord(
        topic_id=UUID(int=77),
        partition=0,
        partition_epoch=1,
        leader_epoch=1,
        leader=1,
        reason=Reason.PREFERRED_ELECTION,
    )
    after = before.apply([change])
    shared = [old is new for old, new in zip(before.topics._buckets, after.topics._buckets, strict=True)]
    assert shared.count(False) == 1
    assert len(after.topics._buckets[shared.index(False)]) < TOPICS / BUCKETS * 2
    assert after.topic_ids is before.topic_ids
    delta = delta_between(before, after)
    assert [topic.name for topic, _ in delta.changed_topics.values()] == ["topic-76"]
    assert isinstance(after.topics[UUID(int=77)], TopicImage)


def test_a_colliding_name_is_found_among_its_neighbours() -> None:
    records = [TopicRecord(name=name, topic_id=UUID(int=at + 1)) for at, name in enumerate(["a.b_c", "plain", "a-b"])]
    image = MetadataImage().apply(
        [*records, *(TopicRecord(name=f"t{n}", topic_id=UUID(int=n + 9)) for n in range(900))]
    )
    assert image.colliding_topic("a_b.c") == image.colliding_topic("a.b.c") == "a.b_c"
    assert image.colliding_topic("a_b") is None
    assert image.colliding_topic("plain.") is None
    assert len(list(image.topic_ids.neighbours("a_b.c"))) < 30
