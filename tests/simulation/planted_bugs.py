"""The planted bugs themselves: each function takes the original and returns what is put in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metadata.image_codec import decode_image, encode_image
from metadata.quorum import votes as votes_
from metadata.quorum.durable import encode_document, replace_file
from metadata.quorum.journal import Journal
from metadata.quorum.journal_format import encode_frame
from metadata.quorum.state_machine import MetadataStateMachine
from metadata.records import NO_LEADER, EndTransactionRecord, PartitionRecord, Reason, TopicRecord
from replication.fetcher.follower import Follower
from replication.manager.delayed_produce import DelayedProduce
from replication.manager.roles import Roles
from replication.partition.states import LeaderState, PendingIsr
from replication.requests import ProduceOutcome
from replication.storage.flusher import Flusher


def ack_at_once(_original: Any) -> Any:
    def _try(self: DelayedProduce, replica: Any) -> None:
        del self._waiting[replica]

    return _try


def shrunk_counts_at_once(original: Any) -> Any:
    def propose_shrink(state: LeaderState, leaving: tuple[int, ...]) -> LeaderState:
        proposed = original(state, leaving)
        assert isinstance(proposed.isr, PendingIsr)
        return replace(proposed, isr=replace(proposed.isr, maximal=proposed.isr.proposed))

    return propose_shrink


def truncate_to_high_watermark(original: Any) -> Any:
    def _follow(self: Roles, replica: Any, image: Any) -> None:
        is_new = replica.state.leader_epoch != image.leader_epoch
        original(self, replica, image)
        if is_new:
            replica.log.truncate_to(replica.state.high_watermark)

    return _follow


def nothing(_original: Any) -> Any:
    def nothing(*_arguments: Any, **_options: Any) -> None:
        return None

    return nothing


def false(_original: Any) -> Any:
    def false(*_arguments: Any, **_options: Any) -> bool:
        return False

    return false


def true(_original: Any) -> Any:
    def true(*_arguments: Any, **_options: Any) -> bool:
        return True

    return true


def high_watermark_stays(_original: Any) -> Any:
    def _truncate(self: Follower, replica: Any, state: Any, target: int) -> None:
        replica.log.truncate_to(target)

    return _truncate


def joins_early(_original: Any) -> Any:
    def may_join(state: LeaderState, follower: int, brokers_: Any) -> bool:
        return follower not in state.isr.maximal and not isinstance(state.isr, PendingIsr) and not state.is_recovering

    return may_join


def high_watermark_at_the_end(original: Any) -> Any:
    def become_leader(image: Any, *, end_offset: int, high_watermark: int, **options: Any) -> LeaderState:
        state: LeaderState = original(image, end_offset=end_offset, high_watermark=end_offset, **options)
        return state

    return become_leader


def adopts_by_name(_original: Any) -> Any:
    def _free_folder(self: Roles, topic: str, key: Any) -> None:
        other = self._logs.holder(topic, key.partition) or key
        if other != key:
            logs: Any = self._logs
            logs._holders[topic, key.partition] = key
            for table in (logs._logs, logs._directory_of, logs._high_watermarks):
                table[key] = table.pop(other)

    return _free_folder


def flush_lies(_original: Any) -> Any:
    async def _flush_once(self: Flusher, end_offset: Any, segments: Any, epochs: Any) -> None:
        self._flushed_offset = end_offset
        self._cuts_flushed = self._cuts

    return _flush_once


def everything_is_clean(original: Any) -> Any:
    def _load_segment(plan: Any, *arguments: Any, **options: Any) -> Any:
        return original(replace(plan, is_clean=True), *arguments, **options)

    return _load_segment


def any_partition_epoch(original: Any) -> Any:
    def _epoch_refusal(sender: int, alteration: Any, old: Any) -> Any:
        return original(sender, replace(alteration, partition_epoch=old.partition_epoch), old)

    return _epoch_refusal


def restarted_stay(original: Any) -> Any:
    def leave_isrs(controller: Any, broker_id: int, reason: Reason) -> Any:
        return [] if reason is Reason.BROKER_RESTARTED else original(controller, broker_id, reason)

    return leave_isrs


def any_broker_epoch(original: Any) -> Any:
    def _member_refusal(controller: Any, members: Any, partition: Any) -> Any:
        return original(controller, tuple(replace(member, broker_epoch=-1) for member in members), partition)

    return _member_refusal


def shortest(_original: Any) -> Any:
    def choose_longest(answers: Any, live: list[int]) -> int:
        known = [replica for replica in live if replica in answers]
        return min(known or live, key=lambda r: (answers[r].last_epoch, answers[r].log_end_offset) if known else (0, 0))

    return choose_longest


def unsynced_file(original: Any) -> Any:
    def replace_file(files: Any, path: str, parts: Any) -> None:
        original(files, path, parts, sync=False)

    return replace_file


def journal_not_synced(_original: Any) -> Any:
    def sync(self: Journal) -> None:
        self._finish_clear()
        if self._unsynced:
            self._file.append([encode_frame(self._unsynced)])
            self._unsynced = []

    return sync


def snapshot_of_before(original: Any) -> Any:
    """The header covers one more record than the image has applied."""

    def snapshot(self: MetadataStateMachine) -> Any:
        end_offset, controller_epoch, body = original(self)
        without = decode_image(body)
        return end_offset, controller_epoch, encode_image(replace(without, offset=without.offset - 1))

    return snapshot


def worth_again(_original: Any) -> Any:
    def _is_worth_routing_again(_router: Any, _partition: Any, outcome: Any, _data: Any) -> bool:
        return outcome.error_code in (3, 5, 6, 7, 100)

    return _is_worth_routing_again


def leader_outside_isr(_original: Any) -> Any:
    """For a leader outside the ISR: the check of the product is out of order, too."""

    def choose_leader(target: Any, *, current: int, active: Any, prefer: int | None = None) -> int:
        valid = [replica for replica in target.replicas if replica in active]
        return current if current in valid else next((each for each in reversed(valid)), NO_LEADER)

    return choose_leader


def votes_for_anybody(_original: Any) -> Any:
    """Whom this voter has voted for is forgotten at once."""
    return property(lambda self: None, lambda self, value: None)


def saves_any_vote(_original: Any) -> Any:
    def save(self: Any, *, term: int, voted_for: int | None) -> None:
        payload = votes_._PAYLOAD.pack(term, votes_._NOBODY if voted_for is None else voted_for)
        replace_file(self._files, self._path, [encode_document(votes_._MAGIC, payload)])
        self.term, self.voted_for = term, voted_for

    return save


def folder_not_synced(_original: Any) -> Any:
    """The new bytes are durable, the new name is not: a loss of power undoes the rename."""

    def replace_file(files: Any, path: str, parts: Any) -> None:
        file = files.open(f"{path}.tmp", create=True)
        file.truncate(0)
        file.append(parts)
        file.sync()
        file.close()
        files.rename(f"{path}.tmp", path)

    return replace_file


def falls_with_the_isr(_original: Any) -> Any:
    def advance_high_watermark(
        *, current: int, leader_end_offset: int, counted_end_offsets: Any, isr_size: int, min_isr: int
    ) -> int:
        return min((leader_end_offset, *(max(0, offset) for offset in counted_end_offsets)))

    return advance_high_watermark


def acks_one_from_memory(original: Any) -> Any:
    """One in so many requests is acknowledged and not appended."""

    def _append(self: Any, key: Any, data: Any, budget: Any, run: Any) -> bool:
        if run.options.acks != 1 or len(data) % 3:
            return bool(original(self, key, data, budget, run))
        replica, state = self._registry.leader_or_raise(key)
        offset = replica.log.log_end_offset
        run.outcomes[key] = ProduceOutcome(
            base_offset=offset,
            last_offset=offset,
            log_append_time_ms=-1,
            log_start_offset=0,
            leader_id=self._registry.node_id,
            leader_epoch=state.leader_epoch,
            is_appended=True,
        )
        return True

    return _append


def unclean_leader_cuts(original: Any) -> Any:
    def _lead(self: Roles, replica: Any, image: Any) -> Any:
        if image.leader_recovery.value == "recovering" and not isinstance(replica.state, LeaderState):
            replica.log.truncate_to(min(replica.state.high_watermark, replica.log.log_end_offset))
        return original(self, replica, image)

    return _lead


def loses_the_last_entry(original: Any) -> Any:
    """A journal that was opened lacks its last entry."""

    def _join(self: Journal, snapshot: Any) -> None:
        original(self, snapshot)
        if len(self) > 2:
            self.deleteEntriesFrom(len(self) - 1)

    return _join


def caught_up_by_its_files(original: Any) -> Any:
    return lambda awaiting: "" if awaiting._publisher.image.offset >= 0 else original(awaiting)


def shows_open_transactions(original: Any) -> Any:
    def apply(self: Any, record: Any) -> None:
        if self.transaction is not None and isinstance(record, (TopicRecord, PartitionRecord)):
            self.offset += 1
            self._happen(record, self.offset)
        else:
            self._pending = [] if self.transaction is None else [None] * (self.offset - self.transaction.base_offset)
            if isinstance(record, EndTransactionRecord):
                self.offset, self.transaction = self.offset + 1, None
            else:
                original(self, record)

    return apply


def leaves_open(_original: Any) -> Any:
    async def _abort_what_is_open(self: Any, epoch: int) -> None:
        return None

    return _abort_what_is_open
