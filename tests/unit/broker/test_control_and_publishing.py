"""The way to the active controller, and how a node learns of new metadata."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.broker.control import ControllerDoor
from kraft.broker.routing import CREATE_TIMEOUT_MS, Router
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.protocol.errors import (
    InvalidTopicException,
    LeaderNotAvailable,
    NotController,
    RequestTimedOut,
    TopicAlreadyExists,
)
from metadata.controller.requests import AllocateProducerIds, ErrorDetail, NewTopic, ProducerIdBlock
from metadata.environment import ConnectionClosed, NotConnected
from metadata.image import MetadataImage
from metadata.quorum.log import Leadership
from metadata.records import ConfigRecord
from tests.unit.broker.support import TOPIC, HandLog, move_leader, publisher_on, router_on, run, two_partitions

ASK = AllocateProducerIds(broker_id=1, broker_epoch=1)
BLOCK = ProducerIdBlock(first=0, count=1000)


class Scripted:
    def __init__(self, *script: Any, is_active: bool = True) -> None:
        self.script = list(script)
        self.is_active = is_active
        self.asked: list[int] = []

    def _next(self) -> Any:
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    async def submit(self, request: Any, *, timeout_ms: int) -> Any:
        self.asked.append(timeout_ms)
        return self._next()

    async def request(self, node_id: int, request: Any, *, timeout_ms: int) -> Any:
        self.asked.append(node_id)
        return self._next()


def _leads(leader_id: int, *, is_self: bool = False) -> Leadership:
    return Leadership(leader_id=leader_id, term=1, is_self=is_self)


def test_what_was_surely_not_done_is_asked_again_where_the_leader_is_now() -> None:
    async def main(clock: SimulatedClock) -> None:
        leaders = [_leads(-1), _leads(2), _leads(2), _leads(3), _leads(3)]
        remote = Scripted(NotController("not me"), ConnectionRefusedError("dead"), NotConnected("no route"), BLOCK)
        door = ControllerDoor(clock=clock, leadership=lambda: leaders.pop(0), local=None, remote=remote)
        assert await door.control(ASK, timeout_ms=1_000) == BLOCK
        assert remote.asked == [2, 2, 3, 3]

    run(main)


@pytest.mark.parametrize(
    ("lost", "said"), [(ConnectionClosed("cut"), r"\(ConnectionClosed: cut\)"), (TimeoutError(), r"\(TimeoutError\)")]
)
def test_an_unknown_outcome_is_said_and_never_asked_again(lost: Exception, said: str) -> None:
    async def main(clock: SimulatedClock) -> None:
        remote = Scripted(lost, BLOCK)
        door = ControllerDoor(clock=clock, leadership=lambda: _leads(2), local=None, remote=remote)
        with pytest.raises(RequestTimedOut, match=f"{said}; the request may or may not have been done"):
            await door.control(ASK, timeout_ms=1_000)
        assert remote.asked == [2]

    run(main)


def test_a_refusal_passes_through_and_the_local_controller_is_asked_in_process() -> None:
    async def main(clock: SimulatedClock) -> None:
        local, remote = Scripted(InvalidTopicException("bad name")), Scripted()
        door = ControllerDoor(clock=clock, leadership=lambda: _leads(1, is_self=True), local=local, remote=remote)
        with pytest.raises(InvalidTopicException, match="bad name"):
            await door.control(ASK, timeout_ms=1_000)
        assert remote.asked == []

    run(main)


def test_without_a_controller_the_wait_ends_at_its_deadline() -> None:
    async def main(clock: SimulatedClock) -> None:
        door = ControllerDoor(clock=clock, leadership=lambda: _leads(-1), local=None, remote=Scripted())
        with pytest.raises(NotController, match="within 500 ms"):
            await door.control(ASK, timeout_ms=500)
        assert 500 <= clock.monotonic_ms() <= 530

    run(main)


def test_subscribers_see_every_change_in_order_with_its_delta() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        publisher = publisher_on(clock, log)
        seen: list[tuple[int, int]] = []
        publisher.subscribe(lambda delta, image: seen.append((len(delta.changed_partitions), image.offset)))
        two_partitions(log)
        move_leader(log, partition=1, leader=3)
        assert seen == [(2, 2), (1, 3)]
        assert publisher.image is log.image

    run(main)


def test_precedence_of_settings() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        publisher = publisher_on(clock, log, {"min.insync.replicas": 2, "log.retention.ms": 5})
        two_partitions(log)
        assert publisher.topic_settings("t").min_insync_replicas == 2

        def setting(kind: str, name: str, key: str, value: str | None) -> ConfigRecord:
            return ConfigRecord(resource_type=kind, resource_name=name, name=key, value=value)  # type: ignore[arg-type]

        log.commit(setting("broker", "", "min.insync.replicas", "3"))
        assert publisher.topic_settings("t").min_insync_replicas == 3
        log.commit(setting("broker", "1", "log.retention.ms", "7"), setting("broker", "2", "log.retention.ms", "8"))
        assert publisher.topic_settings("t").retention_ms == 7
        before = publisher.settings
        log.commit(setting("topic", "t", "retention.ms", "9"))
        assert publisher.topic_settings("t").retention_ms == 9
        assert publisher.settings is before is publisher.current_settings()
        log.commit(setting("topic", "t", "retention.ms", None))
        assert publisher.topic_settings("t").retention_ms == 7

    run(main)


def test_stored_static_settings_are_not_applied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        publisher = publisher_on(clock, log, {"num.partitions": 2})
        for name, value in (("num.partitions", "9"), ("of.another.version", "x"), ("log.retention.ms", "7")):
            log.commit(ConfigRecord(resource_type="broker", resource_name="", name=name, value=value))
        assert (publisher.settings.num_partitions, publisher.settings.log_retention_ms) == (2, 7)
        assert publisher.image.config("broker", "")["num.partitions"] == "9"

    run(main)
    reported = [record.getMessage().partition(" of ")[0] for record in caplog.records]
    assert reported == ["num.partitions=9", "of.another.version=x"], "each once"


def test_waiting_for_metadata_ends_with_the_change_or_at_the_deadline() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        publisher = publisher_on(clock, log)

        def has_topic(image: MetadataImage) -> bool:
            return image.topic("t") is not None

        assert not await publisher.wait_for(has_topic, timeout_ms=100)
        clock.call_later(50, lambda: two_partitions(log))
        assert await publisher.wait_for(has_topic, timeout_ms=100)
        assert clock.monotonic_ms() == 150

    run(main)


def router(clock: SimulatedClock, log: HandLog, *script: Any) -> tuple[Router, Scripted]:
    """A node whose controller answers with `script`."""
    publisher = publisher_on(clock, log, {"auto.create.topics.enable": True})
    remote = Scripted(*script)
    return router_on(clock, publisher, {}, controller=remote), remote


def test_a_topic_that_another_node_creates_meanwhile_is_waited_for() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        node, remote = router(clock, log, {"t": ErrorDetail(TopicAlreadyExists, "it exists")})
        clock.call_later(300, lambda: two_partitions(log))
        assert await node.ensure_topic(NewTopic(name="t")) == TOPIC
        assert clock.monotonic_ms() == 300
        assert await node.ensure_topic(NewTopic(name="t")) == await node.topic_id_or_create("t") == TOPIC
        assert len(remote.asked) == 1, "a topic that is known is not asked for"

    run(main)


def test_a_topic_that_cannot_be_had_is_said_with_its_reason() -> None:
    async def main(clock: SimulatedClock) -> None:
        refused = ErrorDetail(InvalidTopicException, "bad name")
        exists = ErrorDetail(TopicAlreadyExists, "it exists")
        node, _ = router(clock, HandLog(), {"t": refused}, {"t": refused}, {"t": exists})
        assert await node.ensure_topic(NewTopic(name="t")) == refused
        with pytest.raises(InvalidTopicException, match="bad name"):
            await node.topic_id_or_create("t")
        with pytest.raises(LeaderNotAvailable, match="does not know it yet"):
            await node.ensure_topic(NewTopic(name="t"))
        assert clock.monotonic_ms() == CREATE_TIMEOUT_MS

    run(main)
