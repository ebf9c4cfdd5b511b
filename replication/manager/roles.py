"""Roles from metadata: the replicas of this broker, those that lead, and the leaders that the others follow.

Applying is ordered, idempotent, and costs nothing without a change. Removals precede creations, so that a topic created
again under its old name finds the folder free. Many changes take several turns of the loop. Until its own turn a
partition has its previous role, but answers no request in it after the end of its leader epoch (`Registry.behind`): a
check with the controller that this broker still leads is about the image, not about roles.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from kraft.protocol.errors import KafkaError, OutOfDescriptors
from metadata.delta import MetadataDelta
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import NO_LEADER
from replication.fetcher.fetcher_manager import FetcherManager
from replication.manager.failures import Failures
from replication.manager.impossible_epochs import cut_impossible_epochs
from replication.manager.isr_keeper import IsrKeeper
from replication.manager.leader_flushes import LeaderFlushes
from replication.manager.logs import Logs
from replication.manager.registry import Registry
from replication.partition.high_watermark import follower_high_watermark
from replication.partition.leader import become_leader, continue_leadership, effective_min_isr
from replication.partition.log import ReplicaLog
from replication.partition.replica import Replica
from replication.partition.states import FollowerState, LeaderState, is_recovering
from replication.storage.availability import DESCRIPTOR_RETRY_MS

INTERNAL = "__"
"""Prefix of the names of internal topics."""

ROLES_PER_TURN = 32
"""Partitions that take a role in one turn of the loop: each makes or syncs files. The others follow in the next turns,
so that a topic of thousands of partitions, or a failover, does not block other work. Partitions of internal topics are
first and all at once: coordinators act on them."""


class Roles:
    def __init__(
        self,
        registry: Registry,
        *,
        logs: Logs,
        isr: IsrKeeper,
        fetchers: FetcherManager,
        failures: Failures,
        flushes: LeaderFlushes,
    ) -> None:
        self._registry = registry
        self._logs = logs
        self._isr = isr
        self._fetchers = fetchers
        self._failures = failures
        self._flushes = flushes
        self._due: dict[TopicIdPartition, None] = {}
        """Partitions whose role is still the one of an older image."""
        self._is_stopped = False

    def stop(self) -> None:
        """Take no role any more, not even one that waits."""
        self._is_stopped = True

    def apply(self, delta: MetadataDelta) -> set[int]:
        """Apply a delta; return the brokers that follow partitions which this broker now leads."""
        registry = self._registry
        registry.image = delta.new
        self._apply_settings(delta)
        at_once: dict[TopicIdPartition, PartitionImage] = {}
        for key, (_old, new) in delta.changed_partitions.items():
            if new is None or registry.node_id not in new.replicas:
                self._due.pop(key, None)
                registry.behind.discard(key)
                self._remove(key)
            elif delta.new.topics[key.topic_id].name.startswith(INTERNAL):
                at_once[key] = new
            else:
                self._due[key] = None
                registry.behind.add(key)
        followers: set[int] = set()
        for key, image in at_once.items():
            followers.update(self._apply_partition(key, image))
        followers |= self.apply_due()
        if delta.changed_brokers:
            self._recount()
        return followers

    @property
    def has_due(self) -> bool:
        return bool(self._due)

    def apply_due(self) -> set[int]:
        """Apply the next due roles, from the current image. Returns the followers of new leaders, as `apply` does."""
        registry = self._registry
        followers: set[int] = set()
        for key in [*islice(self._due, ROLES_PER_TURN)]:
            del self._due[key]
            image = registry.image.partition(key.topic_id, key.partition)
            assert image is not None, f"{key} was removed, and is due"
            followers.update(self._apply_partition(key, image))
        return followers

    def remove_strays(self) -> None:
        """Delete logs on disk that the metadata does not assign to this broker any more."""
        for key, topic in self._logs.all_partitions().items():
            image = self._registry.image.partition(key.topic_id, key.partition)
            if image is None or self._registry.node_id not in image.replicas:
                self._registry.events.emit("stray_log_deleted", topic=topic, partition=key.partition)
                self._logs.delete(key)

    # --- settings

    def _apply_settings(self, delta: MetadataDelta) -> None:
        changed = delta.changed_configs
        if any(resource == "broker" for resource, _name in changed):
            names = {replica.topic for replica in self._registry.replicas.values()}
        else:
            names = {name for resource, name in changed if resource == "topic"}
        if names:
            self._give_settings(names)

    def _give_settings(self, names: set[str]) -> None:
        notified = set()
        for replica in self._registry.replicas.values():
            if replica.topic not in names:
                continue
            replica.settings = self._registry.topic_settings(replica.topic)
            if replica.key.topic_id not in notified:
                notified.add(replica.key.topic_id)
                self._logs.update_settings(replica.key.topic_id, replica.settings)
            state = replica.state
            if isinstance(state, LeaderState):
                min_isr = effective_min_isr(state.image, replica.settings.min_insync_replicas)
                self._registry.set_leader_state(replica, replace(state, min_isr=min_isr))
                self._flushes.ask(replica)

    # --- partitions

    def _remove(self, key: TopicIdPartition) -> None:
        self._failures.forget(key)
        replica = self._registry.replicas.pop(key, None)
        if replica is None:
            self._logs.delete(key)  # one that was offline
            return
        self._leave_leadership(replica)
        self._fetchers.unfollow(replica)
        replica.enter(FollowerState(image=replica.state.image, high_watermark=replica.state.high_watermark))
        self._registry.wake_all(replica)
        self._logs.delete(key)
        self._registry.events.emit("replica_removed", topic=replica.topic, partition=key.partition)

    def _apply_partition(self, key: TopicIdPartition, image: PartitionImage) -> tuple[int, ...]:
        self._registry.behind.discard(key)
        if (offline := self._registry.offline.get(key)) is not None:
            self._registry.offline[key] = replace(offline, image=image)  # its own timer tries it again
            return ()
        replica = self._registry.replicas.get(key) or self._create(key, image)
        if replica is None:
            return ()
        try:
            if image.leader == self._registry.node_id:
                return self._lead(replica, image)
            self._follow(replica, image)
        except OutOfDescriptors as error:
            self._try_soon(key, replica.topic, error)
        except (KafkaError, OSError) as error:
            self._take_offline(replica, image, reason=str(error))
        return ()

    def _try_soon(self, key: TopicIdPartition, topic: str, error: OutOfDescriptors) -> None:
        """A lack of descriptors makes no replica fail: it takes its current role a moment later."""
        self._registry.events.emit(
            "replica_waits_for_descriptors", topic=topic, partition=key.partition, reason=error.message
        )
        self._registry.behind.add(key)
        self._registry.clock.call_later(DESCRIPTOR_RETRY_MS, self._try_again, key)

    def _try_again(self, key: TopicIdPartition) -> None:
        image = self._registry.image.partition(key.topic_id, key.partition)
        if image is not None and self._registry.node_id in image.replicas and not self._is_stopped:
            self._apply_partition(key, image)

    def _take_offline(self, replica: Replica, image: PartitionImage, *, reason: str) -> None:
        """A log that cannot take its role affects this partition only."""
        self._stop(replica, image)
        self._failures.take_offline(replica.key, topic=replica.topic, image=image, reason=reason)

    def _stop(self, replica: Replica, image: PartitionImage) -> None:
        self._isr.forget(replica)
        self._fetchers.unfollow(replica)
        replica.enter(FollowerState(image=image, high_watermark=replica.state.high_watermark))

    def stop_failed(self, key: TopicIdPartition) -> None:
        """A leader whose disk is full continues to lead, for readers, until the controller finds another one."""
        replica = self._registry.replicas[key]
        if key not in self._registry.read_only:
            self._stop(replica, replica.state.image)
        elif isinstance(replica.state, FollowerState):
            self._fetchers.unfollow(replica)

    def resume(self, key: TopicIdPartition) -> None:
        """The log works again: the replica takes the role that metadata has for it."""
        image = self._registry.image.partition(key.topic_id, key.partition)
        if image is None or self._registry.node_id not in image.replicas:
            return
        replica = self._registry.replicas.get(key)
        if replica is None:
            self._apply_partition(key, image)
        elif isinstance(replica.state, FollowerState) and image.leader != NO_LEADER:
            self._fetchers.follow(replica, image.leader)

    def _create(self, key: TopicIdPartition, image: PartitionImage) -> Replica | None:
        topic = self._registry.image.topics[key.topic_id].name
        settings = self._registry.topic_settings(topic)
        try:
            self._free_folder(topic, key)
            log = self._logs.get_or_create(
                topic=topic, topic_id=key.topic_id, partition=key.partition, settings=settings
            )
            cut_impossible_epochs(log, image, topic=topic, events=self._registry.events)
        except OutOfDescriptors as error:
            self._try_soon(key, topic, error)
            return None
        except (KafkaError, OSError) as error:
            self._failures.take_offline(key, topic=topic, image=image, reason=str(error))
            return None
        high_watermark = _within(log, self._logs.high_watermark(key))  # R7
        never_led = replace(image, leader=NO_LEADER, leader_epoch=-1, partition_epoch=-1)
        state = FollowerState(image=never_led, high_watermark=high_watermark)
        replica = Replica(key=key, topic=topic, log=log, settings=settings, state=state)
        self._registry.replicas[key] = replica
        return replica

    def _free_folder(self, topic: str, key: TopicIdPartition) -> None:
        """KIP-516: a log of the same name under another id belongs to a deleted topic."""
        other = self._logs.holder(topic, key.partition)
        if other is not None and other.topic_id != key.topic_id:
            self._registry.events.emit("stray_log_deleted", topic=topic, partition=key.partition)
            self._logs.delete(other)

    def _lead(self, replica: Replica, image: PartitionImage) -> tuple[int, ...]:
        old = replica.state
        is_new_epoch = not isinstance(old, LeaderState) or image.leader_epoch > old.leader_epoch
        end_offset = replica.log.log_end_offset
        if is_new_epoch:
            replica.log.assign_epoch_start(image.leader_epoch, end_offset)  # L9
        now_ms = self._registry.clock.monotonic_ms()
        min_isr = replica.settings.min_insync_replicas
        if isinstance(old, LeaderState):
            state = continue_leadership(old, image, epoch_start_offset=end_offset, min_isr=min_isr, now_ms=now_ms)
            self._isr.emit_change(replica, old=old, new=state)
        else:
            self._fetchers.unfollow(replica)
            state = become_leader(
                image,
                end_offset=replica.counted_end_offset,
                epoch_start_offset=end_offset,
                high_watermark=_within(replica.log, old.high_watermark),
                min_isr=min_isr,
                now_ms=now_ms,
            )
        self._registry.set_leader_state(replica, state)
        self._flushes.ask(replica)
        if is_new_epoch:
            self._emit_leader(replica, state)
            self._registry.wake_all(replica)
        if is_new_epoch and is_recovering(image):
            self._isr.recovered(replica)  # L3
        return tuple(state.followers) if is_new_epoch else ()

    def _emit_leader(self, replica: Replica, state: LeaderState) -> None:
        self._registry.events.emit(
            "became_leader",
            topic=replica.topic,
            topic_id=str(replica.key.topic_id),
            partition=replica.key.partition,
            leader_epoch=state.leader_epoch,
            epoch_start_offset=state.epoch_start_offset,
            high_watermark=state.high_watermark,
        )

    def _follow(self, replica: Replica, image: PartitionImage) -> None:
        old = replica.state
        if isinstance(old, LeaderState):
            self._leave_leadership(replica)
        state = FollowerState(image=image, high_watermark=_within(replica.log, old.high_watermark))
        replica.enter(state)
        if isinstance(old, LeaderState):
            self._registry.wake_all(replica)
        is_same = isinstance(old, FollowerState) and (old.image.leader, old.leader_epoch) == (
            image.leader,
            image.leader_epoch,
        )
        if is_same:
            return
        self._emit_follower(replica, state)
        if image.leader == NO_LEADER or replica.key in self._registry.read_only:
            self._fetchers.unfollow(replica)
        else:
            self._fetchers.follow(replica, image.leader)

    def _emit_follower(self, replica: Replica, state: FollowerState) -> None:
        self._registry.events.emit(
            "became_follower",
            topic=replica.topic,
            topic_id=str(replica.key.topic_id),
            partition=replica.key.partition,
            leader=state.image.leader,
            leader_epoch=state.leader_epoch,
            log_end_offset=replica.log.log_end_offset,
            high_watermark=state.high_watermark,
        )

    def _leave_leadership(self, replica: Replica) -> None:
        self._isr.forget(replica)

    def _recount(self) -> None:
        """P4: whether a replica outside the ISR counts for the high watermark depends on its broker."""
        for replica, state in list(self._registry.led()):
            self._registry.set_leader_state(replica, state)


def _within(log: ReplicaLog, high_watermark: int) -> int:
    return follower_high_watermark(
        leader_high_watermark=high_watermark,
        log_start_offset=log.log_start_offset,
        log_end_offset=log.log_end_offset,
    )
