"""What does not fit in one append: bounded pieces, each a state the cluster may be in, or a transaction (KIP-868).

Whatever is cut off in the middle, by a controller that is lost there, the next one puts right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from kraft.protocol.errors import NotController, PolicyViolation, RequestTimedOut
from metadata.controller.decide.topics import PARTITIONS_PER_REQUEST_MAX
from metadata.controller.event_batch import APPEND_BYTES_MAX
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    NewPartitions,
    NewTopic,
    RegisterBroker,
)
from metadata.image import MetadataImage
from metadata.image_codec import decode_image, encode_image
from metadata.quorum.command import COMMAND_BYTES_MAX, encode_command
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.records import (
    AbortTransactionRecord,
    BeginTransactionRecord,
    ControllerEpochRecord,
    EndTransactionRecord,
    Record,
    TopicRecord,
)
from tests.unit.metadata.test_active_controller import CLUSTER, Node, run, until

PARTITIONS = 2_000


def topic_of(name: str, partitions: int) -> CreateTopics:
    return CreateTopics(topics=(NewTopic(name=name, partitions=partitions, replication_factor=3),))


def fail_at(node: Node, number: int, failure: AppendLost | AppendUnknown, *, committed: bool = False) -> None:
    """The append with this number from now on fails, before or after it is committed."""
    append, seen = node.log.append, 0

    async def counted(records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        nonlocal seen
        seen += 1
        if seen == number and not committed:
            raise failure
        image = await append(records, controller_epoch=controller_epoch, expected_offset=expected_offset)
        if seen == number:
            raise failure
        return image

    node.log.append = counted  # type: ignore[method-assign]


def assert_bounded(node: Node) -> None:
    for records in node.shared.appends:
        command = encode_command(records, controller_epoch=1, expected_offset=1)
        assert len(command) <= APPEND_BYTES_MAX + 8 * len(records) + 100 < COMMAND_BYTES_MAX


def replayed(node: Node) -> list[MetadataImage]:
    """The image after every single append, as a voter that restarts there has it."""
    image, images = MetadataImage(), []
    for records in node.shared.appends:
        image = image.apply(records)
        images.append(image)
    assert image == node.shared.image
    return images


@pytest.mark.long
def test_a_large_topic_is_created_as_a_whole_in_bounded_appends() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        before = len(node.shared.appends)
        await asyncio.gather(
            node.create("before", 1), node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        )
        await node.create("after", 1)
        appends = node.shared.appends[before:]
        assert len(appends) > 3
        assert_bounded(node)
        assert isinstance(appends[0][0], TopicRecord), "what fits in one append needs no transaction"
        framing = [r for records in appends for r in records if isinstance(r, BeginTransactionRecord)]
        assert [record.name for record in framing] == ["CreateTopics"]
        for image in replayed(node):
            large = image.topic("large")
            assert large is None or len(large.partitions) == PARTITIONS, "half of a topic"
            assert (image.transaction is None) or large is None
            restored = decode_image(encode_image(image))
            assert restored == image, "a snapshot in the middle of a transaction goes on from there"
        assert not node.shared.image.transaction

    run(story)


def test_what_a_snapshot_in_the_middle_holds_goes_on_to_the_same_image() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        for number, image in enumerate(replayed(node), 1):
            restored = decode_image(encode_image(image))
            for records in node.shared.appends[number:]:
                restored = restored.apply(records)
            assert restored == node.shared.image

    run(story)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_next_controller_aborts_what_it_finds_open(number: int) -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        epoch = node.controller.epoch
        fail_at(node, number, AppendLost("another leads now"))
        with pytest.raises(NotController, match="nothing was changed"):
            await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        await until(lambda: node.controller.epoch > epoch, what="the next controller term")
        assert not node.shared.image.transaction
        assert "large" not in node.shared.image.topic_ids
        kinds = [type(records[0]) for records in node.shared.appends]
        assert kinds.count(AbortTransactionRecord) == (number > 1)
        if number > 1:
            aborted = kinds.index(AbortTransactionRecord)
            assert kinds[aborted - 1] is ControllerEpochRecord, "first of all, and under its own epoch"
            (reported,) = node.events.named("metadata_transaction_aborted")
            assert reported["transaction"] == "CreateTopics"
        assert all("large" not in image.topic_ids for image in replayed(node))
        await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        topic = node.shared.image.topic("large")
        assert topic is not None
        assert len(topic.partitions) == PARTITIONS

    run(story)


def test_next_controller_aborts_open_metadata_transaction() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        other = Node(node.shared, 2)
        await other.controller.start()
        append, seen = node.log.append, 0

        async def paused(records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
            nonlocal seen
            seen += 1
            if seen == 3:
                node.shared.elect(2)
                await until(lambda: other.controller.is_active, what="the other controller")
                await other.create("small", 1)
                node.shared.commit(records, controller_epoch=controller_epoch, expected_offset=expected_offset)
            return await append(records, controller_epoch=controller_epoch, expected_offset=expected_offset)

        node.log.append = paused  # type: ignore[method-assign]
        with pytest.raises(NotController):
            await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        assert set(node.shared.image.topic_ids) == {"small"}
        assert not node.shared.image.transaction
        await other.controller.stop()

    run(story)


def test_an_end_whose_outcome_is_not_known_is_informed() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        request = topic_of("large", PARTITIONS)
        before = len(node.shared.appends)
        await node.controller.submit(topic_of("first", PARTITIONS), timeout_ms=10_000)
        appends = len(node.shared.appends) - before
        epoch = node.controller.epoch
        fail_at(node, appends, AppendUnknown("who knows"), committed=True)
        with pytest.raises(RequestTimedOut, match="not known"):
            await node.controller.submit(request, timeout_ms=10_000)
        await until(lambda: node.controller.epoch > epoch, what="the next controller term")
        topic = node.shared.image.topic("large")
        assert topic is not None, "its End was committed"
        assert isinstance(node.shared.appends[before + 2 * appends - 1][-1], EndTransactionRecord)

    run(story)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_fencing_that_is_cut_off_is_finished_by_the_next_controller(number: int) -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        before = len(node.shared.appends)
        fail_at(node, number, AppendLost("another leads now"))
        node.brokers.refusing.add(1)
        node.controller.broker_connection_lost(1)
        await until(lambda: node.shared.image.brokers[1].fenced, what="fencing")
        assert len(node.shared.appends) - before >= 3
        assert_bounded(node)
        for image in replayed(node):
            led = any(1 in (part.leader, *part.isr) for part in image.all_partitions())
            assert not (1 in image.brokers and image.brokers[1].fenced and led), "fenced, and somewhere it still leads"
        assert not any(
            isinstance(r, BeginTransactionRecord) for records in node.shared.appends[before:] for r in records
        )

    run(story, broker_session_timeout_ms=60_000)


def test_a_broker_comes_again_and_its_epoch_is_the_offset_of_its_registration() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        await node.controller.submit(topic_of("large", PARTITIONS), timeout_ms=10_000)
        before = len(node.shared.appends)
        node.controller.broker_connection_lost(1)
        await asyncio.sleep(0.1)
        epoch = await node.register(1, incarnation=2)
        assert len(node.shared.appends) - before >= 3
        assert_bounded(node)
        assert node.shared.image.brokers[1].broker_epoch == epoch == node.shared.image.offset
        assert await node.beat(1)

    run(story)


def test_growth_and_deletion_of_many_are_whole_too() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        topics = tuple(NewTopic(name=f"t{index}", partitions=1, replication_factor=3) for index in range(2_000))
        await node.controller.submit(CreateTopics(topics=topics), timeout_ms=10_000)
        wanted = tuple(NewPartitions(topic=topic.name, count=2) for topic in topics)
        await node.controller.submit(CreatePartitions(topics=wanted), timeout_ms=10_000)
        await node.controller.submit(DeleteTopics(topics=tuple(topic.name for topic in topics)), timeout_ms=10_000)
        assert_bounded(node)
        sizes = {(len(image.topics), sum(len(t.partitions) for t in image.topics.values())) for image in replayed(node)}
        assert sizes == {(0, 0), (2_000, 2_000), (2_000, 4_000)}
        names = [r.name for records in node.shared.appends for r in records if isinstance(r, BeginTransactionRecord)]
        assert names == ["CreateTopics", "CreatePartitions", "DeleteTopics"]

    run(story)


def test_too_large_decisions_are_refused() -> None:
    async def story(node: Node) -> None:
        await node.start_brokers(1, 2, 3)
        before, epoch = len(node.shared.appends), node.controller.epoch
        with pytest.raises(PolicyViolation, match="nothing was created"):
            await node.controller.submit(topic_of("large", PARTITIONS_PER_REQUEST_MAX + 1), timeout_ms=10_000)
        registration = RegisterBroker(
            cluster_id=CLUSTER, broker_id=4, incarnation_id=UUID(int=4), rest="h" * COMMAND_BYTES_MAX, kafka="h:2"
        )
        with pytest.raises(PolicyViolation, match="the metadata log takes"):
            await node.controller.submit(registration, timeout_ms=10_000)
        assert len(node.shared.appends) == before
        assert node.controller.epoch == epoch

    run(story)
