"""cluster.toml of a test: who is what, and with which settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BOTH = ("broker", "controller")
THREE = {1: BOTH, 2: BOTH, 3: BOTH}
REPLICATED = {"default.replication.factor": 3, "min.insync.replicas": 2}
QUICK_CHORES = {**REPLICATED, "log.retention.check.interval.ms": 200, "log.segment.delete.delay.ms": 0}
"""What is deleted or too old goes soon."""
QUICK_FAILURES = {
    **REPLICATED,
    "group.initial.rebalance.delay.ms": 0,
    "broker.heartbeat.interval.ms": 400,
    "broker.session.timeout.ms": 3_000,
    "replica.lag.time.max.ms": 1_200,
    "replica.fetch.backoff.ms": 100,
    "unclean.leader.election.interval.ms": 1_000,
}
"""Short enough to see a paused node leave, long enough for a machine that does other things too."""


def write_config(
    path: Path,
    *,
    roles: Mapping[int, Sequence[str]] = THREE,
    settings: Mapping[str, Any] = REPLICATED,
    node_settings: Mapping[int, Mapping[str, Any]] | None = None,
    racks: Mapping[int, str] | None = None,
    extra: str = "",
) -> str:
    """Ports are left out: start with free ones. Returns the path as text."""
    lines = [extra, "[settings]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    for node_id, its_roles in roles.items():
        lines += ["[[nodes]]", f"id = {node_id}", f"roles = {json.dumps(list(its_roles))}"]
        if rack := (racks or {}).get(node_id):
            lines.append(f"rack = {json.dumps(rack)}")
        own = (node_settings or {}).get(node_id, {})
        lines += [f"settings.{name} = {json.dumps(value)}" for name, value in own.items()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)
