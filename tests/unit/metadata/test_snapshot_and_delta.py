"""Snapshots refuse what is not theirs; deltas name exactly what changed."""

from __future__ import annotations

import pytest

from metadata.delta import delta_between
from metadata.image import MetadataImage, TopicIdPartition
from metadata.image_codec import CorruptSnapshot, decode_image, encode_image
from metadata.records import ConfigRecord, ControllerEpochRecord, RemoveTopicRecord
from tests.support.controller_world import World


def world() -> World:
    made = World()
    made.start(1, 2, 3)
    made.create("t", (1, 2), (2, 3))
    made.create("u", (3,), retention_ms="5")
    return made


def test_equal_images_give_equal_bytes() -> None:
    image = world().image
    assert decode_image(encode_image(image)) == image
    assert encode_image(image) == encode_image(decode_image(encode_image(image)))
    assert decode_image(encode_image(MetadataImage())) == MetadataImage()


def test_an_unclean_report_survives() -> None:
    made = World(unclean_leader_election_enable="true")
    made.start(1, 2)
    made.create("t", (1, 2))
    made.beat(2, fence=True)
    made.beat(1, fence=True)
    made.beat(2)
    made.answer({2: (3, 40, 39)})
    partition = made.partition("t")
    assert partition.unclean is not None
    assert partition.unclean.answers == {2: (3, 40)}
    assert decode_image(encode_image(made.image)) == made.image


@pytest.mark.parametrize("damage", ["empty", "magic", "version", "cut", "flip", "body"])
def test_garbage_is_refused(damage: str) -> None:
    data = bytearray(encode_image(world().image))
    if damage == "empty":
        data = data[:5]
    elif damage == "magic":
        data[0] ^= 1
    elif damage == "version":
        data[8] = 9
    elif damage == "cut":
        data = data[:-1]
    elif damage == "flip":
        data[-3] ^= 1
    else:
        data = bytearray(_resealed(b'{"offset": 1}'))
    with pytest.raises(CorruptSnapshot):
        decode_image(data)


def _resealed(body: bytes) -> bytes:
    import struct
    import zlib

    return struct.pack(">8sBI", b"KRAFTIMG", 1, zlib.crc32(body)) + body


def test_delta_names_what_changed() -> None:
    made = world()
    old = made.image
    t, u = old.topic_ids["t"], old.topic_ids["u"]
    made.beat(2, fence=True)
    created = made.create("v", (1,))
    new = made.image.apply(
        [
            RemoveTopicRecord(topic_id=u),
            ConfigRecord(resource_type="topic", resource_name="t", name="retention.ms", value="7"),
        ]
    )
    delta = delta_between(old, new)
    assert set(delta.created_topics) == {created}
    assert set(delta.removed_topics) == {u}
    assert set(delta.changed_topics) == {t}
    assert {(key.topic_id, key.partition) for key in delta.changed_partitions} == {
        (t, 0),
        (t, 1),
        (u, 0),
        (created, 0),
    }
    assert delta.changed_partitions[TopicIdPartition(u, 0)][1] is None
    assert delta.changed_partitions[TopicIdPartition(created, 0)][0] is None
    assert set(delta.changed_brokers) == {2}
    assert delta.changed_configs == {
        ("topic", "u"): ({"retention.ms": "5"}, None),
        ("topic", "t"): (None, {"retention.ms": "7"}),
    }


def test_an_empty_delta_even_when_nothing_is_shared() -> None:
    image = world().image
    later = decode_image(encode_image(image)).apply([ControllerEpochRecord(epoch=3, node_id=1)])
    delta = delta_between(image, later)
    assert delta.is_empty
    assert delta.is_controller_changed
    assert not delta_between(image, image).changed_partitions
