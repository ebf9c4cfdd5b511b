"""One reign of the active controller: from winning the quorum's leadership to losing it.

Invariant: `image` is the committed image with offset equal to the log's when an append is made; only this reign has
appended under `epoch`. The order is visible in `_handle`: decide, append, wait for the commit, answer, announce.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from metadata.controller.announce import announce
from metadata.controller.decide import (
    ActivationEvent,
    Decision,
    Liveness,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)
from metadata.controller.effective import EffectiveSettings
from metadata.controller.fold import LATE_MS, Fold, Step
from metadata.controller.inbox import Item
from metadata.controller.questions import Questions
from metadata.controller.tools import Tools
from metadata.errors import KafkaError, NotController, RequestTimedOut
from metadata.image import MetadataImage
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.records import ControllerEpochRecord
from metadata.settings import BrokerSettings

CLAIM_RETRY_MS = 20
"""Wait between two attempts to commit our epoch; they end when the quorum's leadership does."""

SESSION_TICK_MS_MAX = 500
"""Sessions are checked every quarter of the session timeout, but at least this often."""

INTERVAL_LOOK_MS = 1_000
"""An interval that was altered while it passes counts from here on, and not after five minutes."""


class Resigned(Exception):
    """This reign is over."""


class Reign:
    def __init__(self, tools: Tools, *, term: int) -> None:
        self.term = term
        self.epoch = -1
        """-1 until the record of this reign's own epoch is committed (Q5)."""
        self.image: MetadataImage = tools.log.image
        self.questions: Questions | None = None
        self._tools = tools
        self._effective = EffectiveSettings(tools.static_settings)
        self._liveness = Liveness()
        self._rng: random.Random = tools.environment.rng
        self._taken: list[Item] = []

    @property
    def settings(self) -> BrokerSettings:
        return self._effective.of(self.image)

    async def run(self) -> None:
        """Returns when the quorum's leadership is lost or an append failed; who waited has then been answered."""
        try:
            await self._claim()
            async with asyncio.TaskGroup() as group:
                self.questions = Questions(self._tools, group, settings=lambda: self.settings)
                for every_ms, tick in self._ticks():
                    group.create_task(self._tick(every_ms, tick))
                try:
                    await self._govern(self.questions)
                finally:
                    self.questions = None  # before the group ends: it takes no more tasks then
        except* Resigned:
            pass
        finally:
            self.questions = None
            self._dismiss()

    async def _claim(self) -> None:
        """Q5: commit one record of our own epoch before deciding anything; it fences every older controller."""
        log = self._tools.log
        while True:
            self._resign_unless_leader()
            epoch = max(self.term, log.image.controller_epoch + 1)
            record = ControllerEpochRecord(epoch=epoch, node_id=self._tools.node_id)
            try:
                self.image = await log.append([record], controller_epoch=epoch, expected_offset=log.image.offset)
            except (AppendLost, AppendUnknown):
                await self._tools.environment.clock.sleep(CLAIM_RETRY_MS)
                continue
            self.epoch = epoch
            self._tools.events.emit("controller_changed", controller=self._tools.node_id, epoch=epoch, term=self.term)
            return

    async def _govern(self, questions: Questions) -> None:
        inbox, now_ms = self._tools.inbox, self._tools.environment.clock.monotonic_ms
        inbox.put_event(ActivationEvent(), now_ms=now_ms())
        for broker in self.image.brokers.values():
            if not broker.fenced:
                questions.probe(broker)
        while True:
            await inbox.wait()
            self._resign_unless_leader()
            await self._handle(questions)

    async def _handle(self, questions: Questions) -> None:
        fold = Fold(
            image=self.image,
            liveness=self._liveness,
            settings=self._effective,
            rng=self._rng,
            cluster_id=self._tools.cluster_id,
        )
        items = self._tools.inbox.take_all()
        self._taken = items
        rest = fold.add_all(items, now_ms=self._tools.environment.clock.monotonic_ms())
        if rest:
            self._tools.inbox.put_back(rest)
        self._taken = [step.item for step in fold.steps]
        if fold.records:
            self.image = await self._commit(fold)
        self._liveness = fold.liveness
        for step in fold.steps:
            self._conclude(step, questions)

    async def _commit(self, fold: Fold) -> MetadataImage:
        try:
            image = await self._tools.log.append(
                fold.records, controller_epoch=self.epoch, expected_offset=self.image.offset
            )
        except AppendLost as error:
            self._refuse(fold, NotController(f"this node is no longer the active controller: {error}"))
            raise Resigned from error
        except AppendUnknown as error:
            self._refuse(fold, RequestTimedOut(f"the outcome is not known: {error}"))
            raise Resigned from error
        assert image.offset == fold.image.offset, (image.offset, fold.image.offset)
        return image

    @staticmethod
    def _refuse(fold: Fold, error: KafkaError) -> None:
        """Also refusals are not told: they were decided on an image that may never be."""
        for step in fold.steps:
            step.item.refuse(type(error)(error.message))

    def _conclude(self, step: Step, questions: Questions) -> None:
        outcome = step.outcome
        if isinstance(outcome, KafkaError):
            step.item.refuse(outcome)
            return
        announce(self._tools.events, step.before, outcome.records)
        if not outcome.is_deferred:
            step.item.resolve(outcome.reply)
        self._pursue(step, outcome, questions)

    def _pursue(self, step: Step, decision: Decision, questions: Questions) -> None:
        if decision.follow_up is not None:
            now_ms = self._tools.environment.clock.monotonic_ms()
            self._tools.inbox.put_event(decision.follow_up, now_ms=now_ms)
        if decision.ask or decision.is_deferred:
            questions.ask(decision, item=step.item)

    # --- time ---------------------------------------------------------------------------------------------------

    def _ticks(self) -> list[tuple[Callable[[], int], type[SessionsTick | PreferredElectionTick | UncleanSweepTick]]]:
        return [
            (lambda: min(SESSION_TICK_MS_MAX, max(1, self.settings.broker_session_timeout_ms // 4)), SessionsTick),
            (lambda: self.settings.leader_imbalance_check_interval_seconds * 1000, PreferredElectionTick),
            (lambda: self.settings.unclean_leader_election_interval_ms, UncleanSweepTick),
        ]

    async def _tick(
        self, every_ms: Callable[[], int], kind: type[SessionsTick | PreferredElectionTick | UncleanSweepTick]
    ) -> None:
        clock = self._tools.environment.clock
        while True:
            begin_ms = planned_ms = now_ms = clock.monotonic_ms()
            while (left_ms := begin_ms + every_ms() - now_ms) > 0:
                planned_ms = now_ms + min(left_ms, INTERVAL_LOOK_MS)
                await clock.sleep(planned_ms - now_ms)
                now_ms = clock.monotonic_ms()
            late_ms = now_ms - planned_ms
            event = SessionsTick(late_ms=late_ms if late_ms > LATE_MS else 0) if kind is SessionsTick else kind()
            self._tools.inbox.put_event(event, now_ms=now_ms)

    # --- the end ------------------------------------------------------------------------------------------------

    def _resign_unless_leader(self) -> None:
        leadership = self._tools.log.leadership
        if not leadership.is_self or leadership.term != self.term:
            raise Resigned(f"node {leadership.leader_id} leads the quorum in term {leadership.term}")

    def _dismiss(self) -> None:
        leader_id = self._tools.log.leadership.leader_id
        for item in self._taken:
            item.refuse(RequestTimedOut("the controller stopped in the middle of this; the outcome is not known"))
        for item in self._tools.inbox.take_all():
            item.refuse(NotController(f"this node is no longer the active controller; node {leader_id} may be"))
        if self.epoch >= 0:
            self._tools.events.emit("controller_resigned", controller=self._tools.node_id, epoch=self.epoch)
