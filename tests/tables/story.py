"""Stories about the controller as text: `> event` lines, each followed by what the controller decided."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace

from kraft.protocol.errors import KafkaError
from metadata.controller.decide import (
    ActivationEvent,
    BrokerUnreachable,
    Decision,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)
from metadata.controller.requests import (
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    ElectLeaders,
    ErrorDetail,
    FailedReplicas,
    HeartbeatAnswer,
    IsrMember,
    OfflineReplicas,
    PartitionAlteration,
    PartitionReassignment,
)
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.records import BrokerChangeRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord
from tests.support.controller_world import World


def tell(text: str) -> str:
    """The story again, with what happens now."""
    teller = _Teller()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines.append(line)
            lines.extend("    " + output for output in teller.run(line[2:]))
        elif not line.startswith("    "):
            lines.append(line)
    return "\n".join(lines) + "\n"


class _Teller:
    def __init__(self) -> None:
        self.world = World()

    def run(self, line: str) -> list[str]:
        verb, *words = shlex.split(line)
        command: Callable[..., Decision | None] = getattr(self, "do_" + verb.replace("-", "_"))
        before, asked = self.world.image, len(self.world.asked)
        self.world.last = ()
        try:
            decision = command(*words)
        except KafkaError as error:
            return [f"refused {error.code} {error.name}: {error.message}"]
        output = list(_records(before, self.world))
        if decision is not None:
            output.extend(_reply(self.world, decision))
        for question, _ in self.world.asked[asked:]:
            for broker_id, keys in question.queries:
                output.append(f"ask {broker_id} about {', '.join(_name(self.world.image, key) for key in keys)}")
        return output or ["nothing"]

    def do_start(self, *ids: str) -> None:
        self.world.start(*map(int, ids))

    def do_register(self, broker_id: str, incarnation: str) -> None:
        self.world.register(int(broker_id), incarnation=int(incarnation.removeprefix("incarnation=")))

    def do_create(self, name: str, *words: str) -> None:
        assignment = [_ids(word) for word in words if "=" not in word]
        configs = dict(word.split("=", 1) for word in words if "=" in word)
        self.world.create(name, *assignment, **configs)

    def do_beat(self, broker_id: str, *words: str) -> Decision:
        options = dict(word.split("=", 1) for word in words if "=" in word)
        offset = int(options["offset"]) if "offset" in options else None
        failed = FailedReplicas(
            offline=self._keys(options.get("offline", "")), read_only=self._keys(options.get("read_only", ""))
        )
        stops = {"fence": "fence" in words, "shutdown": "shutdown" in words}
        return self.world.beat(int(broker_id), offset=offset, failed=failed, **stops)

    def _keys(self, names: str) -> frozenset[TopicIdPartition]:
        """`t-0,t-1`"""
        named = [_topic_partition(name) for name in names.split(",") if name]
        return frozenset(TopicIdPartition(self.world.image.topic_ids[topic], index) for topic, index in named)

    def do_wait(self, ms: str, *heard: str) -> None:
        """Time passes; the brokers named go on beating."""
        self.world.now_ms += int(ms)
        for broker_id in heard:
            self.world.beat(int(broker_id))

    def do_sessions(self, late_ms: str = "0") -> Decision:
        return self.world.decide(SessionsTick(late_ms=int(late_ms)))

    def do_activate(self) -> Decision:
        return self.world.decide(ActivationEvent())

    def do_sweep(self) -> Decision:
        return self.world.decide(UncleanSweepTick())

    def do_preferred_tick(self) -> Decision:
        return self.world.decide(PreferredElectionTick())

    def do_unreachable(self, broker_id: str) -> Decision:
        epoch = self.world.epoch(int(broker_id))
        return self.world.decide(BrokerUnreachable(broker_id=int(broker_id), broker_epoch=epoch))

    def do_alter(self, name: str, *words: str) -> Decision:
        options = dict(word.split("=", 1) for word in words if "=" in word)
        topic, index = name.rsplit("-", 1)
        partition = self.world.partition(topic, int(index))
        sender = int(options.get("by", partition.leader))
        stale = _ids(options.get("stale", ""))
        members = [
            IsrMember(broker_id=id_, broker_epoch=0 if id_ in stale else self.world.epoch(id_))
            for id_ in _ids(options["isr"])
        ]
        alteration = PartitionAlteration(
            topic_id=partition.topic_id,
            partition=partition.partition,
            leader_epoch=partition.leader_epoch + int(options.get("leader_epoch", 0)),
            partition_epoch=partition.partition_epoch + int(options.get("partition_epoch", 0)),
            new_isr=tuple(members),
            recovered="recovered" in words,
        )
        epoch = self.world.epoch(sender)
        return self.world.decide(AlterPartition(broker_id=sender, broker_epoch=epoch, alterations=(alteration,)))

    def do_elect(self, election: str, *names: str) -> Decision:
        partitions = tuple(_topic_partition(name) for name in names) or None
        return self.world.decide(ElectLeaders(election=election, partitions=partitions))  # type: ignore[arg-type]

    def do_answer(self, *words: str) -> Decision:
        """`2=1:50:40`: broker 2 says last epoch 1, log end offset 50, high watermark 40."""
        pairs = [word.split("=") for word in words]
        ends = {int(broker): tuple(map(int, text.split(":"))) for broker, text in pairs}
        return self.world.answer(ends)  # type: ignore[arg-type]

    def do_reassign(self, name: str, target: str) -> Decision:
        topic, index = _topic_partition(name)
        replicas = None if target == "cancel" else _ids(target)
        wanted = PartitionReassignment(topic=topic, partition=index, replicas=replicas)
        return self.world.decide(AlterReassignments(reassignments=(wanted,)))

    def do_set(self, kind: str, name: str, *words: str) -> Decision:
        changes = tuple(
            ConfigAlteration(name=key, operation="set", value=value) for key, value in (w.split("=", 1) for w in words)
        )
        resource = ConfigResource(resource_type=kind, name="" if name == "all" else name)  # type: ignore[arg-type]
        return self.world.decide(AlterConfigs(resources={resource: changes}))


def _records(image: MetadataImage, world: World) -> Iterator[str]:
    for record in world.last:
        match record:
            case RegisterBrokerRecord():
                yield f"broker {record.broker_id} registered with epoch {image.next_offset}, fenced"
            case BrokerChangeRecord():
                state = "fenced" if record.fenced else "unfenced"
                shutting = ", shutting down" if record.in_controlled_shutdown else ""
                yield f"broker {record.broker_id} {state}{shutting}: {record.reason}"
            case PartitionRecord():
                yield f"partition {record.partition}: leader {record.leader}, isr {list(record.isr)}"
            case PartitionChangeRecord():
                old = image.partition(record.topic_id, record.partition)
                assert old is not None
                name = _name(image, TopicIdPartition(record.topic_id, record.partition))
                yield f"{name}: {_change(old, old.changed_by(record))} ({record.reason})"
                if record.unclean is not None:
                    report = record.unclean
                    reported = f"answers {report.answers}, log end {report.log_end_offset}"
                    yield f"{name} was unclean: {reported}, known high watermark {report.high_watermark_known}"
            case _:
                yield record.model_dump_json(exclude={"topic_id"}, exclude_none=True)
        image = image.apply([record])


def _change(old: PartitionImage, new: PartitionImage) -> str:
    fields = ("leader", "leader_epoch", "isr", "replicas", "adding_replicas", "removing_replicas", "leader_recovery")
    parts = []
    for field in fields:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            parts.append(f"{field} {_show(before)} -> {_show(after)}")
    return ", ".join(parts)


def _show(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _reply(world: World, decision: Decision) -> Iterator[str]:
    reply = decision.reply
    if decision.is_deferred:
        yield "the reply waits for the answers"
    elif isinstance(reply, dict):
        for key, value in reply.items():
            name = _name(world.image, key) if isinstance(key, TopicIdPartition) else key
            if isinstance(value, ErrorDetail):
                yield f"{name}: error {value.error.code} {value.error.name}: {value.message}"
            elif value is None:
                yield f"{name}: ok"
            else:
                yield f"{name}: ok, partition epoch {value.partition_epoch}, isr {list(value.isr)}"
    elif isinstance(reply, HeartbeatAnswer):
        offline = f", offline={_offline(world.image, reply.offline)}" if reply.offline else ""
        yield str(replace(reply, offline={})).replace(", offline={}", offline)
    elif reply is not None:
        yield str(reply)


def _offline(image: MetadataImage, offline: OfflineReplicas) -> dict[int, list[str]]:
    return {broker: sorted(_name(image, key) for key in keys) for broker, keys in offline.items()}


def _name(image: MetadataImage, key: TopicIdPartition) -> str:
    return f"{image.topics[key.topic_id].name}-{key.partition}"


def _topic_partition(name: str) -> tuple[str, int]:
    topic, index = name.rsplit("-", 1)
    return topic, int(index)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)
