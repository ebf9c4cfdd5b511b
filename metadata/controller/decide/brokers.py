"""Registration, heartbeats, controlled shutdown and fencing of brokers (B1 to B7)."""

from __future__ import annotations

from dataclasses import replace

from kraft.protocol.errors import BrokerIdNotRegistered, DuplicateBrokerRegistration, InconsistentClusterId
from metadata.controller.decide.broker_heartbeats import BrokerLiveness, Liveness
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.decide.elections import (
    elect_for_offline,
    leave_isrs,
    log_end_queries,
    offline_after,
    sweep_offline,
)
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


def register_broker(controller: ControllerState, request: RegisterBroker) -> Decision:
    """B1, B7: a new incarnation leaves the ISRs of the old one first, and starts fenced."""
    if request.cluster_id != controller.cluster_id:
        raise InconsistentClusterId(f"this is cluster {controller.cluster_id!r}, not {request.cluster_id!r}")
    known = controller.image.brokers.get(request.broker_id)
    if known is not None and known.incarnation_id != request.incarnation_id:
        _refuse_duplicate(controller, known)
    if known is not None and _is_same(known, request):
        liveness = _touched(controller, known)
        return Decision(liveness=liveness, reply=BrokerRegistered(broker_epoch=known.broker_epoch))
    changes = [] if known is None else leave_isrs(controller, request.broker_id, Reason.BROKER_RESTARTED)
    broker_epoch = controller.image.next_offset + len(changes)
    registration = RegisterBrokerRecord(
        broker_id=request.broker_id,
        incarnation_id=request.incarnation_id,
        rest=request.rest,
        kafka=request.kafka,
        rack=request.rack,
        listeners=dict(request.listeners) or None,
    )
    state = BrokerLiveness(broker_epoch=broker_epoch, last_contact_ms=controller.now_ms)
    reply = BrokerRegistered(broker_epoch=broker_epoch)
    queries, candidates = log_end_queries(
        controller, offline_after(controller, changes), controller.active - {request.broker_id}
    )
    return Decision(
        records=(*changes, registration),
        reply=reply,
        liveness=controller.liveness.with_broker(request.broker_id, state),
        queries=queries,
        candidates=candidates,
    )


def _refuse_duplicate(controller: ControllerState, known: BrokerImage) -> None:
    timeout_ms = controller.settings.broker_session_timeout_ms
    if controller.liveness.has_session(known.broker_id, now_ms=controller.now_ms, timeout_ms=timeout_ms):
        raise DuplicateBrokerRegistration(
            f"broker {known.broker_id} is alive at {known.kafka} with incarnation {known.incarnation_id}; "
            f"another may take its id once it has been silent for {timeout_ms} ms"
        )


def _is_same(known: BrokerImage, request: RegisterBroker) -> bool:
    """A repeated request of one incarnation: the answer to the first was lost."""
    old = (known.incarnation_id, known.rest, known.kafka, known.rack, dict(known.listeners))
    return old == (request.incarnation_id, request.rest, request.kafka, request.rack, dict(request.listeners))


def unregister_broker(controller: ControllerState, request: UnregisterBroker) -> Decision:
    """The broker first leaves ISRs and leaderships. Source: ReplicationControlManager.unregisterBroker."""
    broker = controller.image.brokers.get(request.broker_id)
    if broker is None:
        raise BrokerIdNotRegistered(f"broker {request.broker_id} is not registered")
    changes = leave_isrs(controller, broker.broker_id, Reason.BROKER_FENCED)
    queries, candidates = log_end_queries(
        controller, offline_after(controller, changes), controller.active - {broker.broker_id}
    )
    return Decision(
        liveness=controller.liveness.without(broker.broker_id),
        records=(*changes, UnregisterBrokerRecord(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch)),
        queries=queries,
        candidates=candidates,
    )


def describe_quorum(controller: ControllerState) -> Decision:
    image = controller.image
    nodes = [_progress(controller, broker_id) for broker_id in image.brokers if broker_id != image.controller_id]
    leader = NodeProgress(
        node_id=image.controller_id, log_end_offset=image.next_offset, heard_ms_ago=0, caught_up_ms_ago=0
    )
    reply = QuorumProgress(
        leader_id=image.controller_id,
        leader_epoch=image.controller_epoch,
        high_watermark=image.next_offset,
        nodes=tuple(sorted([leader, *nodes], key=lambda node: node.node_id)),
    )
    return Decision(liveness=controller.liveness, reply=reply)


def _progress(controller: ControllerState, broker_id: int) -> NodeProgress:
    state = controller.liveness.brokers.get(broker_id)
    if state is None or state.metadata_offset < 0:
        return NodeProgress(node_id=broker_id)
    caught_up_ms_ago = -1 if state.caught_up_ms is None else controller.now_ms - state.caught_up_ms
    return NodeProgress(
        node_id=broker_id,
        log_end_offset=state.metadata_offset + 1,
        heard_ms_ago=controller.now_ms - state.last_contact_ms,
        caught_up_ms_ago=caught_up_ms_ago,
    )


# --- heartbeats -------------------------------------------------------------------------------------------------


def heartbeat(controller: ControllerState, request: BrokerHeartbeat) -> Decision:
    """B2, B3, B6. Heartbeats are soft state; only a change of the broker's state becomes a fact."""
    if request.broker_id not in controller.image.brokers:
        raise BrokerIdNotRegistered(f"broker {request.broker_id} is not registered: register it before its heartbeats")
    broker = controller.broker_at_epoch(request.broker_id, request.broker_epoch)
    known = _state(controller, broker)
    state = BrokerLiveness(
        broker_epoch=known.broker_epoch,
        last_contact_ms=controller.now_ms,
        metadata_offset=request.metadata_offset,
        caught_up_ms=controller.now_ms if request.metadata_offset >= controller.image.offset else known.caught_up_ms,
        wants_shutdown=request.wants_shutdown,
        shutdown_offset=known.shutdown_offset,
        is_disconnected=False,
        failed=request.failed,
    )
    heard = _hearing(controller, controller.liveness.with_broker(broker.broker_id, state))
    if broker.fenced:
        return _heartbeat_of_fenced(heard, broker, request)
    if request.wants_shutdown or broker.in_controlled_shutdown:
        return _shut_down(heard, broker, request)
    if request.wants_fence:
        return _fence(heard, broker, "the broker asked for it", reply=_answer(heard, broker, request, is_fenced=True))
    return _note_failures(heard, known.failed, request, reply=_answer(heard, broker, request))


def _note_failures(
    controller: ControllerState, before: FailedReplicas, request: BrokerHeartbeat, *, reply: HeartbeatAnswer
) -> Decision:
    """KIP-858: failed replicas leave; a replica that works again may be the one that an offline partition needs."""
    if not len(before) and not len(request.failed):
        return Decision(liveness=controller.liveness, reply=reply)
    leaving = leave_failed(controller, request.broker_id, request.failed)
    elected, stuck = elect_recovered(controller, before, request.failed)
    queries, candidates = log_end_queries(controller, [*offline_after(controller, leaving), *stuck], controller.active)
    return Decision(
        liveness=controller.liveness,
        records=(*leaving, *elected),
        reply=reply,
        queries=queries,
        candidates=candidates,
    )


def _hearing(controller: ControllerState, liveness: Liveness) -> ControllerState:
    return ControllerState(
        image=controller.image,
        liveness=liveness,
        now_ms=controller.now_ms,
        settings=controller.settings,
        rng=controller.rng,
        cluster_id=controller.cluster_id,
    )


def _heartbeat_of_fenced(controller: ControllerState, broker: BrokerImage, request: BrokerHeartbeat) -> Decision:
    if request.wants_shutdown:
        answer = _answer(controller, broker, request, should_shut_down=True)
        return Decision(liveness=controller.liveness.without(broker.broker_id), reply=answer)
    if request.wants_fence or request.metadata_offset < broker.broker_epoch:
        return Decision(liveness=controller.liveness, reply=_answer(controller, broker, request))
    unfencing = _broker_change(broker, fenced=False, shutting_down=False, reason="caught up with its registration")
    records, stuck = elect_for_offline(controller, Reason.BROKER_UNFENCED, joining=broker.broker_id)
    queries, candidates = log_end_queries(controller, stuck, controller.active | {broker.broker_id})
    return Decision(
        liveness=controller.liveness,
        records=(unfencing, *records),
        reply=_answer(controller, broker, request, is_fenced=False),
        queries=queries,
        candidates=candidates,
    )


def _shut_down(controller: ControllerState, broker: BrokerImage, request: BrokerHeartbeat) -> Decision:
    """B6: first leave ISRs and leaderships; stop when the broker leads nothing and all active brokers know it."""
    leads = any(partition.leader == broker.broker_id for partition in controller.image.all_partitions())
    if not leads and (not broker.in_controlled_shutdown or _all_know(controller, broker)):
        answer = _answer(controller, broker, request, is_fenced=True, should_shut_down=True)
        why = Reason.BROKER_SHUTDOWN
        return _fence(controller, broker, "controlled shutdown is complete", why=why, reply=answer)
    records: list[Record] = []
    if not broker.in_controlled_shutdown:
        records.append(_broker_change(broker, fenced=False, shutting_down=True, reason="controlled shutdown began"))
    changes = leave_isrs(controller, broker.broker_id, Reason.BROKER_SHUTDOWN)
    records.extend(changes)
    state = controller.liveness.brokers[broker.broker_id]
    if records or state.shutdown_offset < 0:
        state = replace(state, shutdown_offset=controller.image.offset + len(records))
    queries, candidates = log_end_queries(
        controller, offline_after(controller, changes), controller.active - {broker.broker_id}
    )
    return Decision(
        liveness=controller.liveness.with_broker(broker.broker_id, state),
        records=tuple(records),
        reply=_answer(controller, broker, request),
        queries=queries,
        candidates=candidates,
    )


def _all_know(controller: ControllerState, broker: BrokerImage) -> bool:
    """Every active broker has applied the records that moved this broker's leaderships."""
    shutdown_offset = controller.liveness.brokers[broker.broker_id].shutdown_offset
    if shutdown_offset < 0:
        return False
    heard = controller.liveness.brokers
    return all(other in heard and heard[other].metadata_offset >= shutdown_offset for other in controller.active)


def _answer(
    controller: ControllerState,
    broker: BrokerImage,
    request: BrokerHeartbeat,
    *,
    is_fenced: bool | None = None,
    should_shut_down: bool = False,
) -> HeartbeatAnswer:
    return HeartbeatAnswer(
        metadata_offset=controller.image.offset,
        is_caught_up=request.metadata_offset >= broker.broker_epoch,
        is_fenced=broker.fenced if is_fenced is None else is_fenced,
        should_shut_down=should_shut_down,
        offline=_offline(controller) if controller.is_any_failing else {},
    )


def _offline(controller: ControllerState) -> OfflineReplicas:
    answered: dict[int, frozenset[TopicIdPartition]] = {}
    count = 0
    for broker_id in sorted(controller.active):
        state = controller.liveness.brokers.get(broker_id)
        offline = frozenset[TopicIdPartition]() if state is None else state.failed.offline
        count += len(offline)
        if offline and count <= OFFLINE_REPLICAS_ANSWERED_MAX:
            answered[broker_id] = offline
    return answered


# --- silence ----------------------------------------------------------------------------------------------------


def activate(controller: ControllerState) -> Decision:
    """A new controller has received no heartbeat yet: every unfenced broker gets a whole session (no mass fencing). It
    does not know failed logs either: a failed replica that it elects gives up its leadership with the broker's next
    heartbeat."""
    liveness = Liveness()
    for broker in controller.image.brokers.values():
        if not broker.fenced:
            state = BrokerLiveness(
                broker_epoch=broker.broker_epoch, last_contact_ms=controller.now_ms, is_disconnected=True
            )
            liveness = liveness.with_broker(broker.broker_id, state)
    return sweep_offline(replace(controller, liveness=liveness))


def renew_session(controller: ControllerState, event: ExpiredHeartbeat) -> Decision:
    broker = controller.broker_at_epoch(event.broker_id, event.broker_epoch)
    return Decision(liveness=_touched(controller, broker))


def note_disconnection(controller: ControllerState, event: BrokerDisconnected) -> Decision:
    state = controller.liveness.brokers.get(event.broker_id)
    if state is None or state.broker_epoch != event.broker_epoch:
        return Decision(liveness=controller.liveness)
    gone = replace(state, is_disconnected=True)
    return Decision(liveness=controller.liveness.with_broker(event.broker_id, gone))


def fence_unreachable(controller: ControllerState, event: BrokerUnreachable) -> Decision:
    broker = controller.image.brokers.get(event.broker_id)
    if broker is None or broker.fenced or broker.broker_epoch != event.broker_epoch:
        return Decision(liveness=controller.liveness)
    return _fence(controller, broker, "its connection broke and its port refuses connections")


def check_sessions(controller: ControllerState, event: SessionsTick) -> Decision:
    """B3, B5: fence the broker that has been silent for longest, if for too long; one at a time."""
    heard = _hearing(controller, controller.liveness.postponed(event.late_ms))
    timeout_ms = controller.settings.broker_session_timeout_ms
    stale = sorted(
        (state.last_contact_ms, broker_id)
        for broker_id, state in heard.liveness.brokers.items()
        if controller.now_ms - state.last_contact_ms >= timeout_ms and not controller.image.brokers[broker_id].fenced
    )
    if not stale:
        return Decision(liveness=heard.liveness)
    last_contact_ms, broker_id = stale[0]
    reason = f"silent for {controller.now_ms - last_contact_ms} ms, session timeout is {timeout_ms} ms"
    decision = _fence(heard, controller.image.brokers[broker_id], reason)
    return replace(decision, follow_up=SessionsTick()) if len(stale) > 1 else decision


def _fence(
    controller: ControllerState,
    broker: BrokerImage,
    reason: str,
    *,
    why: Reason = Reason.BROKER_FENCED,
    reply: object = None,
) -> Decision:
    """B4. The broker is fenced last, as in Kafka: a new controller in the middle still has to fence it."""
    fencing = _broker_change(broker, fenced=True, shutting_down=broker.in_controlled_shutdown, reason=reason)
    changes = leave_isrs(controller, broker.broker_id, why)
    queries, candidates = log_end_queries(
        controller, offline_after(controller, changes), controller.active - {broker.broker_id}
    )
    return Decision(
        liveness=controller.liveness.without(broker.broker_id),
        records=(*changes, fencing),
        reply=reply,
        queries=queries,
        candidates=candidates,
    )


def _broker_change(broker: BrokerImage, *, fenced: bool, shutting_down: bool, reason: str) -> BrokerChangeRecord:
    return BrokerChangeRecord(
        broker_id=broker.broker_id,
        broker_epoch=broker.broker_epoch,
        fenced=fenced,
        in_controlled_shutdown=shutting_down,
        reason=reason,
    )


def _state(controller: ControllerState, broker: BrokerImage) -> BrokerLiveness:
    state = controller.liveness.brokers.get(broker.broker_id)
    if state is not None and state.broker_epoch == broker.broker_epoch:
        return state
    return BrokerLiveness(broker_epoch=broker.broker_epoch, last_contact_ms=controller.now_ms)


def _touched(controller: ControllerState, broker: BrokerImage) -> Liveness:
    state = replace(_state(controller, broker), last_contact_ms=controller.now_ms, is_disconnected=False)
    return controller.liveness.with_broker(broker.broker_id, state)
