"""Registration, heartbeats, controlled shutdown and fencing of brokers (B1 to B7)."""

from __future__ import annotations

from dataclasses import replace

from kraft.protocol.errors import BrokerIdNotRegistered, DuplicateBrokerRegistration, InconsistentClusterId
from metadata.controller.decide.broker_heartbeats import BrokerLiveness, Liveness
from metadata.controller.decide.decision import Decision, Situation
from metadata.controller.decide.elections import elect_for_offline, leave_isrs, offline_after, questions, sweep_offline
from metadata.controller.decide.events import BrokerDisconnected, BrokerUnreachable, ExpiredHeartbeat, SessionsTick
from metadata.controller.decide.failures import elect_recovered, leave_failed
from metadata.controller.requests import (
    OFFLINE_REPLICAS_ANSWERED_MAX,
    BrokerHeartbeat,
    BrokerRegistered,
    FailedReplicas,
    HeartbeatAnswer,
    NodeProgress,
    OfflineReplicas,
    QuorumProgress,
    RegisterBroker,
    UnregisterBroker,
)
from metadata.image import BrokerImage, TopicIdPartition
from metadata.records import BrokerChangeRecord, Reason, Record, RegisterBrokerRecord, UnregisterBrokerRecord


def register_broker(situation: Situation, request: RegisterBroker) -> Decision:
    """B1, B7: a new incarnation leaves the ISRs of the old one first, and starts fenced."""
    if request.cluster_id != situation.cluster_id:
        raise InconsistentClusterId(f"this is cluster {situation.cluster_id!r}, not {request.cluster_id!r}")
    known = situation.image.brokers.get(request.broker_id)
    if known is not None and known.incarnation_id != request.incarnation_id:
        _refuse_duplicate(situation, known)
    if known is not None and _is_same(known, request):
        liveness = _touched(situation, known)
        return Decision(liveness=liveness, reply=BrokerRegistered(broker_epoch=known.broker_epoch))
    changes = [] if known is None else leave_isrs(situation, request.broker_id, Reason.BROKER_RESTARTED)
    broker_epoch = situation.image.next_offset + len(changes)
    registration = RegisterBrokerRecord(
        broker_id=request.broker_id,
        incarnation_id=request.incarnation_id,
        rest=request.rest,
        kafka=request.kafka,
        rack=request.rack,
        listeners=dict(request.listeners) or None,
    )
    state = BrokerLiveness(broker_epoch=broker_epoch, last_contact_ms=situation.now_ms)
    reply = BrokerRegistered(broker_epoch=broker_epoch)
    ask, asked = questions(situation, offline_after(situation, changes), situation.active - {request.broker_id})
    return Decision(
        records=(*changes, registration),
        reply=reply,
        liveness=situation.liveness.with_broker(request.broker_id, state),
        ask=ask,
        asked_partitions=asked,
    )


def _refuse_duplicate(situation: Situation, known: BrokerImage) -> None:
    timeout_ms = situation.settings.broker_session_timeout_ms
    if situation.liveness.has_session(known.broker_id, now_ms=situation.now_ms, timeout_ms=timeout_ms):
        raise DuplicateBrokerRegistration(
            f"broker {known.broker_id} is alive at {known.kafka} with incarnation {known.incarnation_id}; "
            f"another may take its id once it has been silent for {timeout_ms} ms"
        )


def _is_same(known: BrokerImage, request: RegisterBroker) -> bool:
    """A repeated request of one incarnation: the answer to the first was lost."""
    old = (known.incarnation_id, known.rest, known.kafka, known.rack, dict(known.listeners))
    return old == (request.incarnation_id, request.rest, request.kafka, request.rack, dict(request.listeners))


def unregister_broker(situation: Situation, request: UnregisterBroker) -> Decision:
    """The broker first leaves ISRs and leaderships. Source: ReplicationControlManager.unregisterBroker."""
    broker = situation.image.brokers.get(request.broker_id)
    if broker is None:
        raise BrokerIdNotRegistered(f"broker {request.broker_id} is not registered")
    changes = leave_isrs(situation, broker.broker_id, Reason.BROKER_FENCED)
    ask, asked = questions(situation, offline_after(situation, changes), situation.active - {broker.broker_id})
    return Decision(
        liveness=situation.liveness.without(broker.broker_id),
        records=(*changes, UnregisterBrokerRecord(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch)),
        ask=ask,
        asked_partitions=asked,
    )


def describe_quorum(situation: Situation) -> Decision:
    image = situation.image
    nodes = [_progress(situation, broker_id) for broker_id in image.brokers if broker_id != image.controller_id]
    leader = NodeProgress(
        node_id=image.controller_id, log_end_offset=image.next_offset, heard_ms_ago=0, caught_up_ms_ago=0
    )
    reply = QuorumProgress(
        leader_id=image.controller_id,
        leader_epoch=image.controller_epoch,
        high_watermark=image.next_offset,
        nodes=tuple(sorted([leader, *nodes], key=lambda node: node.node_id)),
    )
    return Decision(liveness=situation.liveness, reply=reply)


def _progress(situation: Situation, broker_id: int) -> NodeProgress:
    state = situation.liveness.brokers.get(broker_id)
    if state is None or state.metadata_offset < 0:
        return NodeProgress(node_id=broker_id)
    caught_up_ms_ago = -1 if state.caught_up_ms is None else situation.now_ms - state.caught_up_ms
    return NodeProgress(
        node_id=broker_id,
        log_end_offset=state.metadata_offset + 1,
        heard_ms_ago=situation.now_ms - state.last_contact_ms,
        caught_up_ms_ago=caught_up_ms_ago,
    )


# --- heartbeats -------------------------------------------------------------------------------------------------


def heartbeat(situation: Situation, request: BrokerHeartbeat) -> Decision:
    """B2, B3, B6. Heartbeats are soft state; only a change of the broker's state becomes a fact."""
    if request.broker_id not in situation.image.brokers:
        raise BrokerIdNotRegistered(f"broker {request.broker_id} is not registered: register it before its heartbeats")
    broker = situation.broker_at_epoch(request.broker_id, request.broker_epoch)
    known = _state(situation, broker)
    state = BrokerLiveness(
        broker_epoch=known.broker_epoch,
        last_contact_ms=situation.now_ms,
        metadata_offset=request.metadata_offset,
        caught_up_ms=situation.now_ms if request.metadata_offset >= situation.image.offset else known.caught_up_ms,
        wants_shutdown=request.wants_shutdown,
        shutdown_offset=known.shutdown_offset,
        is_disconnected=False,
        failed=request.failed,
    )
    heard = _hearing(situation, situation.liveness.with_broker(broker.broker_id, state))
    if broker.fenced:
        return _heartbeat_of_fenced(heard, broker, request)
    if request.wants_shutdown or broker.in_controlled_shutdown:
        return _shut_down(heard, broker, request)
    if request.wants_fence:
        return _fence(heard, broker, "the broker asked for it", reply=_answer(heard, broker, request, is_fenced=True))
    return _note_failures(heard, known.failed, request, reply=_answer(heard, broker, request))


def _note_failures(
    situation: Situation, before: FailedReplicas, request: BrokerHeartbeat, *, reply: HeartbeatAnswer
) -> Decision:
    """KIP-858: failed replicas leave; a replica that works again may be the one that an offline partition needs."""
    if not len(before) and not len(request.failed):
        return Decision(liveness=situation.liveness, reply=reply)
    leaving = leave_failed(situation, request.broker_id, request.failed)
    elected, stuck = elect_recovered(situation, before, request.failed)
    ask, asked = questions(situation, [*offline_after(situation, leaving), *stuck], situation.active)
    return Decision(
        liveness=situation.liveness,
        records=(*leaving, *elected),
        reply=reply,
        ask=ask,
        asked_partitions=asked,
    )


def _hearing(situation: Situation, liveness: Liveness) -> Situation:
    return Situation(
        image=situation.image,
        liveness=liveness,
        now_ms=situation.now_ms,
        settings=situation.settings,
        rng=situation.rng,
        cluster_id=situation.cluster_id,
    )


def _heartbeat_of_fenced(situation: Situation, broker: BrokerImage, request: BrokerHeartbeat) -> Decision:
    if request.wants_shutdown:
        answer = _answer(situation, broker, request, should_shut_down=True)
        return Decision(liveness=situation.liveness.without(broker.broker_id), reply=answer)
    if request.wants_fence or request.metadata_offset < broker.broker_epoch:
        return Decision(liveness=situation.liveness, reply=_answer(situation, broker, request))
    unfencing = _broker_change(broker, fenced=False, shutting_down=False, reason="caught up with its registration")
    records, stuck = elect_for_offline(situation, Reason.BROKER_UNFENCED, joining=broker.broker_id)
    ask, asked = questions(situation, stuck, situation.active | {broker.broker_id})
    return Decision(
        liveness=situation.liveness,
        records=(unfencing, *records),
        reply=_answer(situation, broker, request, is_fenced=False),
        ask=ask,
        asked_partitions=asked,
    )


def _shut_down(situation: Situation, broker: BrokerImage, request: BrokerHeartbeat) -> Decision:
    """B6: first leave ISRs and leaderships; stop when the broker leads nothing and all active brokers know it."""
    leads = any(partition.leader == broker.broker_id for partition in situation.image.all_partitions())
    if not leads and (not broker.in_controlled_shutdown or _all_know(situation, broker)):
        answer = _answer(situation, broker, request, is_fenced=True, should_shut_down=True)
        why = Reason.BROKER_SHUTDOWN
        return _fence(situation, broker, "controlled shutdown is complete", why=why, reply=answer)
    records: list[Record] = []
    if not broker.in_controlled_shutdown:
        records.append(_broker_change(broker, fenced=False, shutting_down=True, reason="controlled shutdown began"))
    changes = leave_isrs(situation, broker.broker_id, Reason.BROKER_SHUTDOWN)
    records.extend(changes)
    state = situation.liveness.brokers[broker.broker_id]
    if records or state.shutdown_offset < 0:
        state = replace(state, shutdown_offset=situation.image.offset + len(records))
    ask, asked = questions(situation, offline_after(situation, changes), situation.active - {broker.broker_id})
    return Decision(
        liveness=situation.liveness.with_broker(broker.broker_id, state),
        records=tuple(records),
        reply=_answer(situation, broker, request),
        ask=ask,
        asked_partitions=asked,
    )


def _all_know(situation: Situation, broker: BrokerImage) -> bool:
    """Every active broker has applied the records that moved this broker's leaderships."""
    shutdown_offset = situation.liveness.brokers[broker.broker_id].shutdown_offset
    if shutdown_offset < 0:
        return False
    heard = situation.liveness.brokers
    return all(other in heard and heard[other].metadata_offset >= shutdown_offset for other in situation.active)


def _answer(
    situation: Situation,
    broker: BrokerImage,
    request: BrokerHeartbeat,
    *,
    is_fenced: bool | None = None,
    should_shut_down: bool = False,
) -> HeartbeatAnswer:
    return HeartbeatAnswer(
        metadata_offset=situation.image.offset,
        is_caught_up=request.metadata_offset >= broker.broker_epoch,
        is_fenced=broker.fenced if is_fenced is None else is_fenced,
        should_shut_down=should_shut_down,
        offline=_offline(situation) if situation.is_any_failing else {},
    )


def _offline(situation: Situation) -> OfflineReplicas:
    answered: dict[int, frozenset[TopicIdPartition]] = {}
    count = 0
    for broker_id in sorted(situation.active):
        state = situation.liveness.brokers.get(broker_id)
        offline = frozenset[TopicIdPartition]() if state is None else state.failed.offline
        count += len(offline)
        if offline and count <= OFFLINE_REPLICAS_ANSWERED_MAX:
            answered[broker_id] = offline
    return answered


# --- silence ----------------------------------------------------------------------------------------------------


def activate(situation: Situation) -> Decision:
    """A new controller has received no heartbeat yet: every unfenced broker gets a whole session (no mass fencing). It
    does not know failed logs either: a failed replica that it elects gives up its leadership with the broker's next
    heartbeat."""
    liveness = Liveness()
    for broker in situation.image.brokers.values():
        if not broker.fenced:
            state = BrokerLiveness(
                broker_epoch=broker.broker_epoch, last_contact_ms=situation.now_ms, is_disconnected=True
            )
            liveness = liveness.with_broker(broker.broker_id, state)
    return sweep_offline(replace(situation, liveness=liveness))


def renew_session(situation: Situation, event: ExpiredHeartbeat) -> Decision:
    broker = situation.broker_at_epoch(event.broker_id, event.broker_epoch)
    return Decision(liveness=_touched(situation, broker))


def note_disconnection(situation: Situation, event: BrokerDisconnected) -> Decision:
    state = situation.liveness.brokers.get(event.broker_id)
    if state is None or state.broker_epoch != event.broker_epoch:
        return Decision(liveness=situation.liveness)
    gone = replace(state, is_disconnected=True)
    return Decision(liveness=situation.liveness.with_broker(event.broker_id, gone))


def fence_unreachable(situation: Situation, event: BrokerUnreachable) -> Decision:
    broker = situation.image.brokers.get(event.broker_id)
    if broker is None or broker.fenced or broker.broker_epoch != event.broker_epoch:
        return Decision(liveness=situation.liveness)
    return _fence(situation, broker, "its connection broke and its port refuses connections")


def check_sessions(situation: Situation, event: SessionsTick) -> Decision:
    """B3, B5: fence the broker that has been silent for longest, if for too long; one at a time."""
    heard = _hearing(situation, situation.liveness.postponed(event.late_ms))
    timeout_ms = situation.settings.broker_session_timeout_ms
    stale = sorted(
        (state.last_contact_ms, broker_id)
        for broker_id, state in heard.liveness.brokers.items()
        if situation.now_ms - state.last_contact_ms >= timeout_ms and not situation.image.brokers[broker_id].fenced
    )
    if not stale:
        return Decision(liveness=heard.liveness)
    last_contact_ms, broker_id = stale[0]
    reason = f"silent for {situation.now_ms - last_contact_ms} ms, session timeout is {timeout_ms} ms"
    decision = _fence(heard, situation.image.brokers[broker_id], reason)
    return replace(decision, follow_up=SessionsTick()) if len(stale) > 1 else decision


def _fence(
    situation: Situation,
    broker: BrokerImage,
    reason: str,
    *,
    why: Reason = Reason.BROKER_FENCED,
    reply: object = None,
) -> Decision:
    """B4. The broker is fenced last, as in Kafka: a new controller in the middle still has to fence it."""
    fencing = _broker_change(broker, fenced=True, shutting_down=broker.in_controlled_shutdown, reason=reason)
    changes = leave_isrs(situation, broker.broker_id, why)
    ask, asked = questions(situation, offline_after(situation, changes), situation.active - {broker.broker_id})
    return Decision(
        liveness=situation.liveness.without(broker.broker_id),
        records=(*changes, fencing),
        reply=reply,
        ask=ask,
        asked_partitions=asked,
    )


def _broker_change(broker: BrokerImage, *, fenced: bool, shutting_down: bool, reason: str) -> BrokerChangeRecord:
    return BrokerChangeRecord(
        broker_id=broker.broker_id,
        broker_epoch=broker.broker_epoch,
        fenced=fenced,
        in_controlled_shutdown=shutting_down,
        reason=reason,
    )


def _state(situation: Situation, broker: BrokerImage) -> BrokerLiveness:
    state = situation.liveness.brokers.get(broker.broker_id)
    if state is not None and state.broker_epoch == broker.broker_epoch:
        return state
    return BrokerLiveness(broker_epoch=broker.broker_epoch, last_contact_ms=situation.now_ms)


def _touched(situation: Situation, broker: BrokerImage) -> Liveness:
    state = replace(_state(situation, broker), last_contact_ms=situation.now_ms, is_disconnected=False)
    return situation.liveness.with_broker(broker.broker_id, state)
