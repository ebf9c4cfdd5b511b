"""Many decisions as one append: each is made on the image that the ones before it will have made. Pure.

A refused request adds nothing. All records go into the log together or not at all, so that a later decision never
stands without the earlier ones it was made on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from metadata.controller.decide import Decision, ExpiredHeartbeat, Input, Liveness, decide
from metadata.controller.effective import EffectiveSettings
from metadata.controller.events import BrokerHeartbeat
from metadata.controller.inbox import Item
from metadata.errors import KafkaError, RequestTimedOut
from metadata.image import MetadataImage
from metadata.records import Record
from metadata.values import value

RECORDS_PER_APPEND_MAX = 10_000
"""Once an append holds this many records, further events wait for the next one. One decision is never split."""

LATE_MS = 1_000
"""A heartbeat that waited for longer in our queue only renews its session (B5)."""


@value(kw_only=True)
class Step:
    """One event's outcome, told to its waiter once the fold is committed."""

    item: Item
    outcome: Decision | KafkaError
    before: MetadataImage


@dataclass(slots=True, kw_only=True)
class Fold:
    """Decisions in the making."""

    image: MetadataImage
    liveness: Liveness
    settings: EffectiveSettings
    rng: random.Random
    cluster_id: str
    records: list[Record] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def add_all(self, items: Sequence[Item], *, now_ms: int) -> list[Item]:
        """Decide the items in order; returns those that did not fit into this append."""
        for index, item in enumerate(items):
            if len(self.records) >= RECORDS_PER_APPEND_MAX:
                return list(items[index:])
            self._add(item, now_ms=now_ms)
        return []

    def _add(self, item: Item, *, now_ms: int) -> None:
        before = self.image
        outcome: Decision | KafkaError
        request = item.request
        try:
            if isinstance(request, BrokerHeartbeat) and (item.is_abandoned or now_ms - item.enqueued_ms > LATE_MS):
                expired = ExpiredHeartbeat(broker_id=request.broker_id, broker_epoch=request.broker_epoch)
                self._accept(self._decide(expired, now_ms=now_ms))
                outcome = RequestTimedOut("the controller was late; this heartbeat only renewed the session")
            elif item.is_abandoned:
                outcome = RequestTimedOut("the deadline passed before the request was looked at: nothing was changed")
            else:
                outcome = self._accept(self._decide(request, now_ms=now_ms))
        except KafkaError as error:
            outcome = error
        self.steps.append(Step(item=item, outcome=outcome, before=before))

    def _decide(self, request: Input, *, now_ms: int) -> Decision:
        return decide(
            self.image,
            self.liveness,
            request,
            now_ms=now_ms,
            settings=self.settings.of(self.image),
            rng=self.rng,
            cluster_id=self.cluster_id,
        )

    def _accept(self, decision: Decision) -> Decision:
        self.liveness = decision.liveness
        if decision.records:
            self.image = self.image.apply(decision.records)
            self.records.extend(decision.records)
        return decision
