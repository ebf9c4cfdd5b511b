"""The planted bugs about transactions; like `planted_bugs`, each takes the original."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from kraft.broker.gateway import Gateway
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.routed import Batches, Outcomes, RoutedWrites
from kraft.coordinators.transactions.decide import RAISES_EPOCH_FROM, AddPartitions, EndTransaction
from kraft.coordinators.transactions.shard import TransactionShard
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.apis import ADD_PARTITIONS_TO_TXN
from kraft.protocol.errors import InvalidProducerIdMapping, KafkaError, ProducerFenced, for_code
from kraft.wire.session import FETCH
from replication.manager.roles import Roles
from replication.requests import ProduceOptions
from replication.storage.producer_state_manager import ProducerStateManager

LATER_S = 0.002


def forgets_what_was_decided(original: Any) -> Any:
    """A coordinator that has loaded its transactions leaves the markers of those that are prepared to nobody."""

    def after_load(self: TransactionShard) -> None:
        on_prepared, self._on_prepared = self._on_prepared, lambda *_: None
        try:
            original(self)
        finally:
            self._on_prepared = on_prepared

    return after_load


class _Forgotten(dict[int, int]):
    """Open transactions: earlier ones are not missed when they end."""

    def __delitem__(self, first_offset: int) -> None:
        self.pop(first_offset, None)


def forgets_open_transactions(original: Any) -> Any:
    """A new leader begins without the transactions that are open in its log."""

    def _lead(self: Roles, replica: Any, image: Any) -> Any:
        if replica.state.leader_epoch != image.leader_epoch:
            replica.log.producers.states._open = _Forgotten()
        return original(self, replica, image)

    return _lead


def keeps_what_was_open(original: Any) -> Any:
    """A replica keeps open transactions over a truncation, also those whose records are truncated."""

    def truncated(self: ProducerStateManager, end_offset: int) -> None:
        before = dict(self.states._open)
        original(self, end_offset)
        self.states._open = _Forgotten(sorted({**before, **self.states._open}.items()))

    return truncated


def any_epoch_is_mapped(_original: Any) -> Any:
    def _mapped(_transactional_id: str, known: Any, _producer: Any) -> Any:
        assert known is not None
        return known

    return _mapped


def offsets_always_count(original: Any) -> Any:
    def end_transaction(self: GroupMetadata, producer_id: int, *, is_commit: bool) -> None:
        original(self, producer_id, is_commit=True)

    return end_transaction


def nobody_is_verified(_original: Any) -> Any:
    def begin_verification(*_arguments: Any, **_options: Any) -> None:
        return None

    return begin_verification


# --- the order within a connection ------------------------------------------------------------------------------------


def produces_overtake(_original: Any) -> Any:
    """A produce is appended although one before it, of the same producer and partition, waits for its verification."""

    def begin(self: Any, *arguments: Any, **options: Any) -> Any:
        before, self._queues = self._queues, type(self._queues)()
        try:
            return _original(self, *arguments, **options)
        finally:
            self._queues = before

    return begin


def guards_hold_for_ever(_original: Any) -> Any:
    """What was verified while the transaction before was being ended is appended with the guard of then."""

    def guarded_anew(*_arguments: Any) -> tuple[()]:
        return ()

    return guarded_anew


def waiters_append_later(original: Any) -> Any:
    """After one answer, the produces that waited behind the first are appended a while after the first is answered, and
    new ones do not wait for them."""

    async def places_reached(self: Any, asked: Any, places: Any) -> bool:
        has_waited = any(place._before is not None for place in places)
        has_come: bool = await original(self, asked, places)
        for place in places:
            place.end()
        await asyncio.sleep(LATER_S if has_waited else 0)
        return has_come

    return places_reached


def requests_do_not_wait(original: Any) -> Any:
    """A request of a client begins while one before it waits at the coordinator."""

    def has_to_wait(self: Any, header: Any) -> bool:
        if self._is_node:
            return bool(original(self, header))
        return header.api_key == FETCH and self._fetches > 0

    return has_to_wait


def additions_begin_late(original: Any) -> Any:
    """AddPartitionsToTxn of a client reaches its handler after a while. Alone, this changes no order."""

    def handle(self: Any, slot: Any, api: Any, call: Any, **options: Any) -> None:
        if slot.header.api_key == ADD_PARTITIONS_TO_TXN.key and not self._is_node:
            asyncio.get_running_loop().call_later(LATER_S, partial(original, self, slot, api, call, **options))
        else:
            original(self, slot, api, call, **options)

    return handle


def _is_asked_by_its_own(known: Any, event: Any) -> bool:
    """While markers are written, about version 2."""
    return (
        known is not None
        and known.phase.is_preparing
        and isinstance(event, AddPartitions | EndTransaction)
        and event.client_version >= RAISES_EPOCH_FROM
    )


def _reported_too_early(original: Callable[..., Any], refuses: Callable[[Any, Any], None]) -> Any:
    def decided(transactional_id: str, known: Any, event: Any, *, now_ms: int) -> Any:
        if _is_asked_by_its_own(known, event):
            refuses(known, event.producer)
        return original(transactional_id, known, event, now_ms=now_ms)

    return decided


def epoch_checked_first(original: Any) -> Any:
    """A producer with its new epoch is fenced while markers are written."""

    def refuses(known: Any, producer: Any) -> None:
        if known.producer_id == producer.producer_id and known.epoch == producer.epoch:
            raise ProducerFenced(f"{producer} has the epoch of the next transaction")

    return _reported_too_early(original, refuses)


def producer_id_checked_first(original: Any) -> Any:
    """A producer with its new producer id is unknown while markers are written."""

    def refuses(known: Any, producer: Any) -> None:
        if known.next_producer_id == producer.producer_id:
            raise InvalidProducerIdMapping(f"{producer} has the id of the next transaction")

    return _reported_too_early(original, refuses)


def routes_in_halves(_original: Any) -> Any:
    """The topics of a route get their records one after the other, by plain appends."""

    async def write(_self: RoutedWrites, batches: Batches, *, gateway: Gateway, timeout_ms: int) -> Outcomes:
        done = {}
        for where, each in batches.items():
            outcome = (await gateway.produce({where: each[0][1]}, ProduceOptions(ACKS_ALL, timeout_ms)))[where]
            if outcome.error_code:
                raise for_code(outcome.error_code, outcome.message)
            done[where] = [outcome]
        return done

    return write


def commits_what_was_taken(original: Any) -> Any:
    """What one topic of a route refuses does not end the transaction of the others."""

    async def _append(self: RoutedWrites, *args: Any) -> Any:
        with contextlib.suppress(KafkaError):
            return await original(self, *args)
        return {}

    return _append
