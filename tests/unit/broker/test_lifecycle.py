"""A broker's life with a scripted controller (B1 to B7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from kraft.broker.lifecycle import PROOF_INTERVAL_MS, BrokerIdentity, BrokerLifecycle, RegistrationFailed
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.protocol.errors import (
    DuplicateBrokerRegistration,
    InconsistentClusterId,
    NotController,
    RequestTimedOut,
    StaleBrokerEpoch,
)
from metadata.controller.requests import (
    FAILED_REPLICAS_REPORTED_MAX,
    NO_FAILED_REPLICAS,
    BrokerHeartbeat,
    BrokerRegistered,
    FailedReplicas,
    HeartbeatAnswer,
    RegisterBroker,
)
from metadata.image import MetadataImage, TopicIdPartition
from metadata.quorum.log import Leadership
from metadata.records import BrokerChangeRecord, RegisterBrokerRecord
from metadata.settings import BrokerSettings, broker_settings
from tests.unit.broker.support import run

FENCED = HeartbeatAnswer(is_caught_up=False, is_fenced=True, should_shut_down=False, metadata_offset=0)
ACTIVE = HeartbeatAnswer(is_caught_up=True, is_fenced=False, should_shut_down=False, metadata_offset=0)
GO = HeartbeatAnswer(is_caught_up=True, is_fenced=False, should_shut_down=True, metadata_offset=0)


class Controller:
    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.registrations: list[RegisterBroker] = []
        self.beats: list[tuple[int, BrokerHeartbeat]] = []
        self.refusals: list[Exception] = []
        self.beat_refusals: list[Exception] = []
        self.answer = ACTIVE
        self.falls_silent = False
        """Over the first registration."""

    async def control(self, request: Any, *, timeout_ms: int) -> Any:
        assert timeout_ms > 0
        if isinstance(request, RegisterBroker):
            self.registrations.append(request)
            if self.falls_silent and len(self.registrations) == 1:
                await self.clock.sleep(timeout_ms)
                raise RequestTimedOut("no answer")
            if self.refusals:
                raise self.refusals.pop(0)
            return BrokerRegistered(broker_epoch=10 * len(self.registrations))
        self.beats.append((self.clock.monotonic_ms(), request))
        if self.beat_refusals:
            raise self.beat_refusals.pop(0)
        return self.answer


class Silent:
    def emit(self, event: str, /, **fields: object) -> None:
        assert event
        assert fields is not None


def _brokers(*ids: int, image: MetadataImage | None = None) -> MetadataImage:
    image = image or MetadataImage()
    for broker_id in ids:
        epoch = image.next_offset
        registered = RegisterBrokerRecord(
            broker_id=broker_id, incarnation_id=UUID(int=broker_id), rest="h:1", kafka="h:2"
        )
        unfenced = BrokerChangeRecord(
            broker_id=broker_id, broker_epoch=epoch, fenced=False, in_controlled_shutdown=False, reason="test"
        )
        image = image.apply([registered, unfenced])
    return image


def _same(image: MetadataImage) -> MetadataImage:
    return image


def _life(
    clock: SimulatedClock,
    controller: Controller,
    *,
    image: MetadataImage | Callable[[], MetadataImage] | None = None,
    fatal: list[Exception] | None = None,
    failed: Callable[[], FailedReplicas] = lambda: NO_FAILED_REPLICAS,
    twin: Callable[[], str] = lambda: "",
) -> BrokerLifecycle:
    settings: BrokerSettings = broker_settings({"initial.broker.registration.timeout.ms": 5000})
    current = image if callable(image) else partial(_same, image or _brokers(1, 2))
    return BrokerLifecycle(
        identity=BrokerIdentity(
            cluster_id="c", broker_id=1, incarnation_id=UUID(int=1), rest="h:1", kafka="h:2", rack=None
        ),
        clock=clock,
        control=controller,
        image=current,
        settings=lambda: settings,
        events=Silent(),
        on_fatal=(fatal if fatal is not None else []).append,
        failed_replicas=failed,
        twin=twin,
    )


def test_registers_and_beats_quickly_until_unfenced_then_each_interval() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        controller.answer = FENCED
        life = _life(clock, controller)
        life.start()
        await clock.sleep(120)
        assert len(controller.beats) == 3  # at 0, 50 and 100 ms
        assert not life.is_unfenced
        controller.answer = ACTIVE
        await clock.sleep(4_100)
        assert life.is_unfenced
        assert life.broker_epoch == 10
        assert len(controller.beats) == 3 + 3  # at 150, 2150 and 4150 ms
        await life.stop()

    run(main)


def test_failed_logs_in_heartbeat_answers() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        failed = {2: frozenset({TopicIdPartition(UUID(int=1), 0)})}
        controller.answer = replace(ACTIVE, offline=failed)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(120)
        reported = life.offline_replicas
        assert reported == failed
        controller.answer = replace(ACTIVE, offline=dict(failed))
        await clock.sleep(4_000)
        assert life.offline_replicas is reported, "who keeps answers that were made of it keeps them"
        controller.answer = ACTIVE
        await clock.sleep(4_000)
        assert life.offline_replicas == {}
        await life.stop()

    run(main)


def test_b1_a_live_session_of_another_incarnation_is_waited_out() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        controller.refusals = [DuplicateBrokerRegistration("broker 1 is alive elsewhere")] * 3
        life = _life(clock, controller)
        life.start()
        await clock.sleep(500)
        assert life.broker_epoch == 40
        await life.stop()

    run(main)


def test_a_registration_that_never_succeeds_is_fatal_and_reports_why() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        controller.refusals = [DuplicateBrokerRegistration("broker 1 is alive elsewhere")] * 1000
        life = _life(clock, controller, fatal=fatal)
        life.start()
        await clock.sleep(6_000)
        assert isinstance(fatal[0], RegistrationFailed)
        assert "alive elsewhere" in str(fatal[0])
        assert "initial.broker.registration.timeout.ms" in str(fatal[0])

    run(main)


def test_without_a_controller_a_broker_waits_for_ever_and_reports_it() -> None:
    """It must not end itself: after an outage of all nodes it would never meet another."""

    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        alone = [NotController("no leader of the metadata quorum is known"), RequestTimedOut("no answer")]
        controller.refusals = alone * 5_000
        life = _life(clock, controller, fatal=fatal)
        life.start()
        await clock.sleep(600_000)  # initial.broker.registration.timeout.ms is 5,000
        assert (fatal, life.broker_epoch) == ([], -1)
        assert life.registration_problem in {error.message for error in alone}
        controller.refusals = []
        await clock.sleep(1_000)
        assert life.broker_epoch > 0
        assert life.registration_problem == ""
        await life.stop()

    run(main)


def test_refused_second_node_ends_without_controller() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        controller.refusals = [NotController("there is no leader")] * 1_000
        life = _life(clock, controller, fatal=fatal, twin=lambda: "voter 1 knows another of this id")
        life.start()
        await clock.sleep(4_900)
        assert fatal == []
        assert life.registration_problem == "voter 1 knows another of this id"
        await clock.sleep(200)
        assert "voter 1 knows another of this id" in str(fatal[0])

    run(main)


def test_registration_timeout_needs_controller() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        refused = DuplicateBrokerRegistration("broker 1 is alive elsewhere")
        controller.refusals = [refused] * 40 + [NotController("there is no leader")] * 1_000 + [refused] * 1_000
        life = _life(clock, controller, fatal=fatal)
        life.start()
        await clock.sleep(4_000 + 100_000 + 900)
        assert fatal == []
        await clock.sleep(200)
        assert "for 5000 ms" in str(fatal[0])

    run(main)


def test_a_controller_that_falls_silent_over_a_registration_is_not_waited_for() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        controller.falls_silent = True
        life = _life(clock, controller, fatal=fatal)
        life.start()
        await clock.sleep(4_400)
        assert life.broker_epoch == -1
        await clock.sleep(400)  # half the session timeout, and the pause before the next try
        assert (life.broker_epoch, fatal) == (20, [])

    run(main)


def test_a_refusal_that_no_retry_can_cure_is_fatal_at_once() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, fatal = Controller(clock), list[Exception]()
        controller.refusals = [InconsistentClusterId("this is cluster x")]
        life = _life(clock, controller, fatal=fatal)
        life.start()
        await clock.sleep(10)
        assert "cluster x" in str(fatal[0])

    run(main)


def test_b3_a_stale_epoch_makes_it_register_again() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        controller.beat_refusals = [NotController("moved"), StaleBrokerEpoch("old")]
        life = _life(clock, controller)
        life.start()
        await clock.sleep(4_500)
        assert len(controller.registrations) == 2
        assert life.broker_epoch == 20
        await life.stop()

    run(main)


def test_b6_controlled_shutdown_waits_for_the_controllers_word() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(10)
        clock.call_later(300, lambda: setattr(controller, "answer", GO))
        assert await life.controlled_shutdown()
        assert 300 <= clock.monotonic_ms() <= 500
        assert controller.beats[-1][1].wants_shutdown

    run(main)


def test_b6_controlled_shutdown_ends_at_its_limit() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(10)
        assert not await life.controlled_shutdown()
        assert clock.monotonic_ms() >= 10_000
        await life.stop()

    run(main)


def test_the_last_active_broker_asks_nobody() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller, image=_brokers(1))
        life.start()
        await clock.sleep(10)
        assert await life.controlled_shutdown()
        assert clock.monotonic_ms() <= 20
        await life.stop()

    run(main)


def test_news_is_answered_with_a_beat_at_once() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(100)
        beats = len(controller.beats)
        image = _brokers(1, 2)
        stopping = BrokerChangeRecord(
            broker_id=2, broker_epoch=2, fenced=False, in_controlled_shutdown=True, reason="test"
        )
        life.on_image(image.apply([stopping]))
        await clock.sleep(5)
        assert len(controller.beats) == beats + 1
        await life.stop()

    run(main)


def test_a_failed_log_is_reported_at_once_and_in_every_heartbeat_until_it_works() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller, failed = Controller(clock), NO_FAILED_REPLICAS
        life = _life(clock, controller, failed=lambda: failed)
        life.start()
        await clock.sleep(500)
        assert controller.beats[-1][1].failed == NO_FAILED_REPLICAS
        failed = FailedReplicas(offline=frozenset({TopicIdPartition(UUID(int=1), 0)}))
        life.on_failed_replicas()
        await clock.sleep(10)
        assert (controller.beats[-1][0], controller.beats[-1][1].failed) == (500, failed)
        await clock.sleep(2_000)
        assert controller.beats[-1][1].failed == failed
        failed = NO_FAILED_REPLICAS
        life.on_failed_replicas()
        await clock.sleep(10)
        assert controller.beats[-1][1].failed == NO_FAILED_REPLICAS
        await life.stop()

    run(main)


def test_broker_with_too_many_failed_logs_asks_for_fencing() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        too_many = (TopicIdPartition(UUID(int=1), index) for index in range(FAILED_REPLICAS_REPORTED_MAX + 1))
        failed = FailedReplicas(offline=frozenset(too_many))
        life = _life(clock, controller, failed=lambda: failed)
        life.start()
        await clock.sleep(10)
        beat = controller.beats[-1][1]
        assert beat.wants_fence
        assert not len(beat.failed)
        await life.stop()

    run(main)


def test_a_session_is_certain_for_half_its_time_and_while_the_quorum_is_heard() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        assert not life.has_session
        await clock.sleep(1)
        life.start()
        await clock.sleep(100)
        assert life.has_session
        controller.beat_refusals = [RequestTimedOut("no answer")] * 3  # at 2, 4 and 6 s; the one of 8 s is answered
        await clock.sleep(4_300)
        assert life.has_session
        await clock.sleep(200)
        assert not life.has_session, "silent for half of broker.session.timeout.ms"
        await clock.sleep(4_000)
        assert life.has_session
        life.on_leadership(Leadership(leader_id=-1, term=1, is_self=False))
        assert not life.has_session, "nothing that is decided reaches it"
        await clock.sleep(5)
        life.on_leadership(Leadership(leader_id=2, term=2, is_self=False))
        assert not life.has_session, "what was decided meanwhile is unknown"
        await clock.sleep(1)
        assert life.has_session
        controller.answer = FENCED
        await clock.sleep(2_000)
        assert not life.has_session
        await life.stop()

    run(main)


def test_it_is_in_office_by_a_heartbeat_that_was_sent_after_the_question() -> None:
    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(500)
        beats, asked_ms = len(controller.beats), clock.monotonic_ms()
        assert await asyncio.gather(*(life.is_in_office() for _ in range(50))) == [True] * 50
        assert 0 < len(controller.beats) - beats <= 2, "all who ask share an answer"
        assert clock.monotonic_ms() - asked_ms < 100
        controller.beat_refusals = [NotController("cut off")] * 1_000
        assert not await life.is_in_office()
        controller.beat_refusals.clear()
        controller.answer = FENCED
        assert not await life.is_in_office()
        await life.stop()

    run(main)


def test_leadership_proofs_are_rare() -> None:
    """Each such heartbeat costs the quorum an entry, and any client's wrong offset asks for one."""

    async def main(clock: SimulatedClock) -> None:
        controller = Controller(clock)
        life = _life(clock, controller)
        life.start()
        await clock.sleep(10_000)
        assert not any(beat.wants_proof for _, beat in controller.beats), "usual heartbeats cost the quorum nothing"
        until_ms = clock.monotonic_ms() + 1_000

        async def ask_again_and_again() -> None:
            while clock.monotonic_ms() < until_ms:
                assert await life.is_in_office()

        await asyncio.gather(*(ask_again_and_again() for _ in range(10)))
        proofs = [at_ms for at_ms, beat in controller.beats if beat.wants_proof]
        assert 10 < len(proofs) <= 1 + 1_000 // PROOF_INTERVAL_MS
        await clock.sleep(5_000)
        assert not controller.beats[-1][1].wants_proof
        await life.stop()

    run(main)


def test_it_is_in_office_only_when_it_has_applied_what_the_controller_had() -> None:
    """One that was paused is unfenced by its first heartbeat, before it has heard that it was deposed."""

    async def main(clock: SimulatedClock) -> None:
        controller, images = Controller(clock), [_brokers(1, 2)]
        life = _life(clock, controller, image=lambda: images[-1])
        life.start()
        await clock.sleep(500)
        later = _brokers(3, image=images[-1])
        controller.answer = replace(ACTIVE, metadata_offset=later.offset)
        asked = asyncio.ensure_future(life.is_in_office())
        await clock.sleep(200)
        assert not asked.done(), "it has not heard what the controller knows"
        images.append(later)
        life.on_image(later)
        assert await asked
        controller.answer = replace(ACTIVE, metadata_offset=later.offset + 1)
        assert not await life.is_in_office(), "what it has not heard does not come"
        await life.stop()

    run(main)
