"""One broker's life with the controller: register, beat, be unfenced, shut down in order (B1 to B7).

Owns the broker epoch of this process. A heartbeat is sent each interval and, besides, at once when there is news: our
registration was applied, the active controller changed, a log failed or works again (KIP-858), or another broker waits
in its controlled shutdown for us to have seen it (B6).
States: registering -> active (fenced or not) -> shutting down -> stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from kraft.broker.control import Control
from kraft.protocol.errors import (
    BrokerIdNotRegistered,
    DuplicateBrokerRegistration,
    KafkaError,
    NotController,
    RequestTimedOut,
    StaleBrokerEpoch,
)
from metadata.controller.requests import (
    FAILED_REPLICAS_REPORTED_MAX,
    NO_FAILED_REPLICAS,
    BrokerHeartbeat,
    FailedReplicas,
    HeartbeatAnswer,
    OfflineReplicas,
    RegisterBroker,
)
from metadata.environment import Clock
from metadata.events import Events
from metadata.image import MetadataImage
from metadata.quorum.log import Leadership
from metadata.retries import RETRY_BACKOFF_MS
from metadata.settings import BrokerSettings

Reply = TypeVar("Reply")

SHUTDOWN_BEAT_MS = 50
"""Interval of heartbeats while waiting for permission to stop."""
IN_OFFICE_MS = 1_000
"""Longest wait for the controller's word that this broker is not fenced."""
PROOF_INTERVAL_MS = 50
"""Between two heartbeats that the quorum confirms: each costs it an entry, and a client's wrong offset asks for one."""
CATCHING_UP_BEAT_MS = 50
"""Interval of heartbeats while registered and not yet unfenced."""


class RegistrationFailed(Exception):
    """This broker could not join the cluster; the message names the reason and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerIdentity:
    cluster_id: str
    broker_id: int
    incarnation_id: UUID
    rest: str
    kafka: str
    rack: str | None
    listeners: Mapping[str, str] = field(default_factory=dict)


class BrokerLifecycle:
    def __init__(
        self,
        *,
        identity: BrokerIdentity,
        clock: Clock,
        control: Control,
        image: Callable[[], MetadataImage],
        settings: Callable[[], BrokerSettings],
        events: Events,
        on_fatal: Callable[[Exception], None],
        failed_replicas: Callable[[], FailedReplicas] = lambda: NO_FAILED_REPLICAS,
        twin: Callable[[], str] = lambda: "",
    ) -> None:
        """`twin` returns which nodes refuse this one because another process has its id; empty when none does."""
        self._identity = identity
        self._clock = clock
        self._control = control
        self._image = image
        self._settings = settings
        self._events = events
        self._on_fatal = on_fatal
        self._failed_replicas = failed_replicas
        self._twin = twin
        self._broker_epoch = -1
        self.registration_problem = ""
        """Why the last attempt to register failed; empty when registered."""
        self._news = asyncio.Event()
        self._wants_shutdown = False
        self._may_stop = asyncio.Event()
        self._is_unfenced = False
        self._answered_ms = self._deaf_ms = clock.monotonic_ms()
        """When the last heartbeat that was answered was sent; when no leader of the quorum was known last."""
        self._sent = self._answered = 0
        """Heartbeats; of those that were answered with a proof, the latest one's number."""
        self._proof_waiters = 0
        self._proof_sent_ms = clock.monotonic_ms() - PROOF_INTERVAL_MS
        self._answered_offset = -1
        """Offset of the metadata from which the latest answer was made."""
        self._next_answer, self._next_image = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.offline_replicas: OfflineReplicas = {}
        """Offline replicas of live brokers, as the controller reported last; another mapping after each change."""

    @property
    def broker_id(self) -> int:
        return self._identity.broker_id

    @property
    def broker_epoch(self) -> int:
        """-1 until registered."""
        return self._broker_epoch

    @property
    def is_unfenced(self) -> bool:
        return self._is_unfenced

    @property
    def has_session(self) -> bool:
        """The controller surely has not fenced us for silence, and what else it decides about us reaches us.

        One answered less than half a session ago (half: clocks run at different rates), and the quorum has been heard
        since: a node whose metadata log stands still would not learn that it was relieved.
        """
        if not self._is_unfenced or self._answered_ms <= self._deaf_ms:
            return False
        return self._clock.monotonic_ms() - self._answered_ms < self._settings().broker_session_timeout_ms // 2

    async def is_in_office(self) -> bool:
        """Whether the controller has answered, to a heartbeat sent after this call, that this broker is not fenced, the
        quorum has confirmed the controller, and this broker has applied what the controller had applied then.

        For what `has_session` is too sure of: a controller fences at once a broker whose port refuses, and one that is
        cut off lives on. The offset is for one that was paused: it is unfenced by its first heartbeat, before it has
        heard that it was fenced and who leads since. The quorum is asked because a controller that was deposed and has
        not heard of it answers, too, above all its own node.
        """
        early_ms = self._proof_sent_ms + PROOF_INTERVAL_MS - self._clock.monotonic_ms()
        if early_ms > 0:
            await self._clock.sleep(early_ms)
        wanted = self._sent + 1
        self._proof_waiters += 1
        self._news.set()
        try:
            async with self._clock.timeout(IN_OFFICE_MS):
                while self._answered < wanted:
                    await self._next_answer.wait()  # a new one after each answer: it is not set yet
                needed = self._answered_offset
                while self._image().offset < needed:
                    await self._next_image.wait()
        except TimeoutError:
            return False
        finally:
            self._proof_waiters -= 1
        return self._is_unfenced

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="broker-lifecycle")

    def on_image(self, image: MetadataImage) -> None:
        """Beat at once when the new image has something the controller waits to hear back about."""
        self._next_image.set()
        self._next_image = asyncio.Event()
        own = image.brokers.get(self._identity.broker_id)
        is_waiting = own is not None and own.broker_epoch == self._broker_epoch and own.fenced
        others_stop = any(b.in_controlled_shutdown and not b.fenced for b in image.brokers.values())
        if is_waiting or others_stop:
            self._news.set()

    def on_leadership(self, leadership: Leadership) -> None:
        if leadership.leader_id >= 0:
            self._news.set()
        else:
            self._deaf_ms = self._clock.monotonic_ms()

    def on_failed_replicas(self) -> None:
        self._news.set()

    async def controlled_shutdown(self) -> bool:
        """Ask the controller to move leaders away; True when it allowed us to stop within the limit (B6)."""
        if not self.can_hand_over:
            return True
        self._wants_shutdown = True
        self._news.set()
        try:
            async with self._clock.timeout(self._settings().controlled_shutdown_timeout_ms):
                await self._may_stop.wait()
        except TimeoutError:
            return False
        return True

    @property
    def can_hand_over(self) -> bool:
        """Whether anybody could take our partitions over."""
        own = self._identity.broker_id
        others = (broker for broker in self._image().brokers.values() if broker.broker_id != own)
        return self._task is not None and self._broker_epoch >= 0 and any(broker.is_active for broker in others)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._register()
            while not self._may_stop.is_set():
                await self._beat()
                await self._pause()
        except RegistrationFailed as failure:
            self._on_fatal(failure)

    async def _register(self) -> None:
        """For ever while no active controller answers; for `initial.broker.registration.timeout.ms` while one refuses,
        or the voters do because another process has this node's id.

        Kafka counts all of the time. A broker that ends itself then costs more than one that waits: after an outage of
        all nodes none would find the others.
        """
        refused_ms = 0
        while True:
            begun_ms = self._clock.monotonic_ms()
            try:
                reply = await self._control.control(self._registration(), timeout_ms=self._answer_ms)
                self._broker_epoch, self.registration_problem = reply.broker_epoch, ""
                return
            except (NotController, RequestTimedOut) as error:
                twin = self._twin()
                self.registration_problem, has_answered = twin or error.message, bool(twin)
            except KafkaError as error:
                if not error.retriable and not isinstance(error, DuplicateBrokerRegistration):
                    raise RegistrationFailed(f"the controller refused this broker: {error.message}") from error
                self.registration_problem, has_answered = error.message, True
            await self._clock.sleep(RETRY_BACKOFF_MS)
            if has_answered:
                refused_ms += self._clock.monotonic_ms() - begun_ms
                self._end_if_refused_for_long(refused_ms)

    def _end_if_refused_for_long(self, refused_ms: int) -> None:
        """Raises RegistrationFailed."""
        limit_ms = self._settings().initial_broker_registration_timeout_ms
        if refused_ms >= limit_ms:
            raise RegistrationFailed(
                f"broker {self._identity.broker_id} was refused for {limit_ms} ms "
                f"(initial.broker.registration.timeout.ms): {self.registration_problem}. "
                "Can it reach the controllers, and does no other process run under its id?"
            )

    @property
    def _answer_ms(self) -> int:
        """A controller that is silent for longer is asked again, wherever it is then (KAFKA-14392); an incarnation that
        was registered already gets its epoch."""
        return max(1, self._settings().broker_session_timeout_ms // 2)

    def _registration(self) -> RegisterBroker:
        i = self._identity
        return RegisterBroker(
            cluster_id=i.cluster_id,
            broker_id=i.broker_id,
            incarnation_id=i.incarnation_id,
            rest=i.rest,
            kafka=i.kafka,
            rack=i.rack,
            listeners=i.listeners,
        )

    def _heartbeat(self, *, wants_proof: bool) -> BrokerHeartbeat:
        """Kafka's broker ends when its log directories have failed; ours asks to be fenced when too much has."""
        failed = self._failed_replicas()
        is_hopeless = len(failed) > FAILED_REPLICAS_REPORTED_MAX
        return BrokerHeartbeat(
            broker_id=self._identity.broker_id,
            broker_epoch=self._broker_epoch,
            metadata_offset=self._image().offset,
            wants_fence=is_hopeless,
            wants_shutdown=self._wants_shutdown,
            failed=NO_FAILED_REPLICAS if is_hopeless else failed,
            wants_proof=wants_proof,
        )

    async def _beat(self) -> None:
        self._sent += 1
        number, sent_ms, wants_proof = self._sent, self._clock.monotonic_ms(), self._proof_waiters > 0
        if wants_proof:
            self._proof_sent_ms = sent_ms
        try:
            answer = await self._control.control(self._heartbeat(wants_proof=wants_proof), timeout_ms=self._answer_ms)
        except (StaleBrokerEpoch, BrokerIdNotRegistered):
            self._is_unfenced = False
            await self._register()
        except KafkaError:
            return  # no controller, or no answer: the next beat tries again; fencing is the controller's decision
        else:
            self._answered_ms = sent_ms
            if wants_proof:
                self._answered, self._answered_offset = number, answer.metadata_offset
            self._learn(answer)
            self._next_answer.set()
            self._next_answer = asyncio.Event()

    def _learn(self, answer: HeartbeatAnswer) -> None:
        self._is_unfenced = not answer.is_fenced
        if answer.offline != self.offline_replicas:
            self.offline_replicas = answer.offline
        if self._wants_shutdown and answer.should_shut_down:
            self._may_stop.set()

    async def _pause(self) -> None:
        interval_ms = self._settings().broker_heartbeat_interval_ms
        if self._wants_shutdown:
            interval_ms = min(interval_ms, SHUTDOWN_BEAT_MS)
        elif not self._is_unfenced:
            interval_ms = min(interval_ms, CATCHING_UP_BEAT_MS)
        try:
            async with self._clock.timeout(interval_ms):
                await self._news.wait()
        except TimeoutError:
            return
        finally:
            self._news.clear()
