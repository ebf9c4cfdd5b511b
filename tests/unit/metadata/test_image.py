"""Applying facts: what a batch does not touch stays the same object; what does not fit is a broken invariant."""

from __future__ import annotations

from uuid import UUID

import pytest

from metadata.image import MetadataImage
from metadata.records import (
    BrokerChangeRecord,
    ConfigRecord,
    ControllerEpochRecord,
    PartitionChangeRecord,
    ProducerIdsRecord,
    Reason,
    TopicRecord,
    UnregisterBrokerRecord,
    decode_record,
    encode_record,
)
from tests.support.controller_world import World


def world() -> World:
    made = World()
    made.start(1, 2)
    made.create("t", (1, 2), (2, 1), retention_ms="5")
    made.create("u", (1,))
    return made


def test_untouched_structure_is_shared() -> None:
    made = world()
    old = made.image
    made.decide_fence(2)
    new = made.image
    t, u = old.topic_ids["t"], old.topic_ids["u"]
    assert new.topic_ids is old.topic_ids
    assert new.configs is old.configs
    assert new.topics[u] is old.topics[u]
    assert new.topics[t] is not old.topics[t]
    assert new.brokers[1] is old.brokers[1]
    assert old.brokers[2].is_active
    assert not new.brokers[2].is_active
    ids = new.apply([ProducerIdsRecord(broker_id=1, broker_epoch=0, next_producer_id=1000)])
    assert (ids.topics is new.topics, ids.brokers is new.brokers) == (True, True)


def test_offsets_count_records() -> None:
    made = world()
    assert made.image.next_offset == len(made.records)
    assert made.image.brokers[2].broker_epoch == 2


def test_removing_the_last_setting_removes_the_resource() -> None:
    made = world()
    removal = ConfigRecord(resource_type="topic", resource_name="t", name="retention.ms", value=None)
    assert made.image.apply([removal]).configs == {}


def test_unregistering() -> None:
    image = world().image
    gone = image.apply([UnregisterBrokerRecord(broker_id=2, broker_epoch=image.brokers[2].broker_epoch)])
    assert set(gone.brokers) == {1}


def test_facts_that_do_not_fit() -> None:
    image = world().image
    t = image.topic_ids["t"]
    with pytest.raises(AssertionError):
        image.apply([TopicRecord(name="t", topic_id=UUID(int=9))])
    with pytest.raises(AssertionError):
        image.apply([ControllerEpochRecord(epoch=0, node_id=1)])
    stale = BrokerChangeRecord(broker_id=1, broker_epoch=55, fenced=True, in_controlled_shutdown=False, reason="")
    with pytest.raises(AssertionError):
        image.apply([stale])
    for leader_epoch, partition_epoch in [(0, 0), (0, 2), (2, 1)]:
        change = PartitionChangeRecord(
            topic_id=t,
            partition=0,
            reason=Reason.ISR_SHRUNK,
            leader_epoch=leader_epoch,
            partition_epoch=partition_epoch,
        )
        with pytest.raises(AssertionError):
            image.apply([change])
    assert isinstance(image, MetadataImage)


def test_every_record_survives_its_encoding() -> None:
    made = world()
    made.decide_fence(2)
    for record in made.records:
        assert decode_record(encode_record(record)) == record
