"""The controller's pure core: it turns an event into records, a reply and soft state."""

from metadata.controller.decide.broker_heartbeats import BrokerLiveness, Liveness
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.decide.dispatch import decide
from metadata.controller.decide.events import (
    ActivationEvent,
    BrokerDisconnected,
    BrokerUnreachable,
    ExpiredHeartbeat,
    Input,
    InternalEvent,
    LogEndsLearned,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)

__all__ = [
    "ActivationEvent",
    "BrokerDisconnected",
    "BrokerLiveness",
    "BrokerUnreachable",
    "ControllerState",
    "Decision",
    "ExpiredHeartbeat",
    "Input",
    "InternalEvent",
    "Liveness",
    "LogEndsLearned",
    "PreferredElectionTick",
    "SessionsTick",
    "UncleanSweepTick",
    "decide",
]
