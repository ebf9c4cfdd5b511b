"""What a seed of the profile "pieces" draws: decisions larger than an append, and controllers that go meanwhile.

An append takes so little here that most decisions of more than one partition are written in several, and nodes take on
few roles in one turn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from metadata.controller import event_batch
from replication.manager import roles

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

PROFILE = "pieces"
EVENTS = (
    *("cut_off_append",) * 5,
    *(
        "kill_controller",
        "pause_controller",
        "swap_controllers",
        "kill",
        "power_loss",
        "isolate",
        "restart",
        "blackout",
    ),
    *("create_topic", "delete_topic", "grow_topic", "reassign", "elect_preferred"),
)

APPEND_BYTES_MAX = 640
"""The largest record of these runs has less than 500."""

ROLES_PER_TURN = 2


def made_in_pieces(plan: Plan) -> Plan:
    topics = tuple(replace(topic, partitions=3 + topic.partitions) for topic in plan.topics)
    return replace(plan, topics=topics)


@contextlib.contextmanager
def small_steps(profile: str) -> Iterator[None]:
    usual = event_batch.APPEND_BYTES_MAX, roles.ROLES_PER_TURN
    if profile == PROFILE:
        event_batch.APPEND_BYTES_MAX, roles.ROLES_PER_TURN = APPEND_BYTES_MAX, ROLES_PER_TURN
    try:
        yield
    finally:
        event_batch.APPEND_BYTES_MAX, roles.ROLES_PER_TURN = usual
