"""The kinds of events of each profile."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation import (
    decay_plan,
    delayed_plan,
    headless_plan,
    pieces_plan,
    queue_plan,
    rare_plan,
    routed_plan,
    transactional_plan,
    usual_plan,
)
from tests.simulation.stateful_plan import RESTLESS

NETWORK = ("cut", "isolate", "split", "slow_link", "cut_message", "reset", "slow_all")
DISKS = ("power_loss", "disk_full", "slow_fsync", "blackout")
NODES = ("kill", "pause", "restart", "clock_jump", "clock_drift", "rolling_restart", "kill_controller", "kill_leader")
RECONFIGURATION = (
    "create_topic",
    "delete_topic",
    "recreate_topic",
    "grow_topic",
    "set_unclean",
    "set_min_isr",
    "elect_preferred",
    "elect_unclean",
    "reassign",
    "cancel_reassignment",
    "delete_records",
)
ROT = ("rot", "wipe_logs")
STRIKES = ("ambush", "flap", "partly_isolate", "slow_start")
"""Only in the profiles of `STRANGE`: the others keep what their seeds draw."""

PROFILES: Mapping[str, tuple[str, ...]] = {
    "swarm": NETWORK + DISKS + NODES + RECONFIGURATION,
    "network": NETWORK,
    "power": ("power_loss", "blackout", "slow_fsync", "kill", "disk_full", "kill_leader"),
    "disk": ("disk_fails", "disk_full", "slow_fsync", "kill", "kill_leader", "restart"),
    "nodes": NODES,
    "reconfigure": (*RECONFIGURATION, "kill", "restart", "pause", "isolate"),
    "unclean": ("kill_leader", "kill", "power_loss", "isolate", "pause", "elect_unclean", "set_unclean"),
    "quorum": ("kill_controller", "blackout", "isolate", "pause", "split", "power_loss", "create_topic", "set_min_isr"),
    "rot": (*ROT, "kill", "power_loss", "restart"),
    "controllers": (
        *STRIKES,
        *("kill_controller",) * 2,
        *("pause_controller", "swap_controllers", "swap_controllers"),
        "quorum_disk_fails",
        *("isolate", "cut", "split", "slow_link", "pause", "power_loss", "restart", "blackout", "disk_full"),
        *("create_topic", "delete_topic", "set_min_isr", "elect_preferred"),
    ),
    "members": (
        *("restart_joining",) * 4,
        *STRIKES,
        *("kill", "kill_leader", "power_loss", "pause", "restart", "wipe_logs", "slow_link", "slow_fsync"),
        *("reassign", "elect_preferred", "clock_drift", "rolling_restart"),
    ),
    "topics": (
        *("recreate_behind",) * 4,
        *("create_topic", "delete_topic", "recreate_topic", "grow_topic", "delete_records", "reassign"),
        *("ambush", "flap", "kill", "power_loss", "restart", "isolate", "pause"),
    ),
    "stranded": (
        *("strand_leader",) * 4,
        "elect_unclean",
        "set_unclean",
        "kill_leader",
        "isolate",
        "power_loss",
        "flap",
    ),
    "torn": ("power_loss", "blackout", "kill", "kill_leader", "flap", "slow_fsync", "disk_full", "ambush"),
    "groups": (
        *("kill", "kill_leader", "kill_controller", "pause", "restart", "rolling_restart", "power_loss"),
        *("isolate", "cut", "split", "slow_link", "reset", "clock_jump", "clock_drift", "disk_full", "slow_fsync"),
        *("grow_topic", "elect_preferred", "reassign"),
    ),
    RESTLESS: (
        *("blackout",) * 2,
        *("kill", "kill_leader", "kill_controller", "pause", "restart", "power_loss", "isolate", "slow_link"),
        *("clock_jump", "grow_topic", "elect_preferred"),
    ),
    rare_plan.PROFILE: rare_plan.EVENTS,
    usual_plan.PROFILE: usual_plan.EVENTS,
    decay_plan.PROFILE: decay_plan.EVENTS,
    headless_plan.PROFILE: headless_plan.EVENTS,
    pieces_plan.PROFILE: pieces_plan.EVENTS,
    transactional_plan.PROFILE: transactional_plan.EVENTS,
    transactional_plan.PIPELINED: transactional_plan.EVENTS,
    queue_plan.PROFILE: queue_plan.EVENTS,
    delayed_plan.PROFILE: delayed_plan.EVENTS,
    routed_plan.PROFILE: routed_plan.EVENTS,
}
"""Profile -> the events that its seeds draw from."""

STRANGE = ("controllers", "members", "topics", "stranded", "torn")
"""Their seeds also draw what `Strangeness` has."""
