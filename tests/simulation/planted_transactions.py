"""The planted bugs about transactions; like `planted_bugs`, each takes the original."""

from __future__ import annotations

from typing import Any

from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.transactions.shard import TransactionShard
from replication.manager.roles import Roles
from replication.storage.producer_state_manager import ProducerStateManager


def forgets_what_was_decided(original: Any) -> Any:
    """A coordinator that has loaded its transactions leaves the markers of those that are prepared to nobody."""

    async def load(self: TransactionShard, on_unreadable: Any) -> int:
        on_prepared, self._on_prepared = self._on_prepared, lambda *_: None
        try:
            count: int = await original(self, on_unreadable)
        finally:
            self._on_prepared = on_prepared
        return count

    return load


class _Forgotten(dict[int, int]):
    """Of transactions that are open: those of before are not missed when they end."""

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
    """A replica takes for open what was open before a truncation, also where its records are cut."""

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
