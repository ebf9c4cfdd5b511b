"""cluster.toml of a test: who is what, and with which settings."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.ports import own_host

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
    host: str | None = None,
    log_dirs: int = 1,
    keys: Mapping[str, str] | None = None,
) -> str:
    """Ports are left out: start with free ones. The host is a loopback address of the cluster's own. With more than one
    of `log_dirs` they are `logs-NODE-a` and so on, beside the file. `keys` are more keys of each node."""
    host = host or own_host()
    lines = [f'cluster_id = "{uuid.uuid4()}"', f'secret = "{uuid.uuid4()}"', "[settings]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for node_id, its_roles in roles.items():
        lines += ["[[nodes]]", f"id = {node_id}", f"roles = {json.dumps(list(its_roles))}", f'host = "{host}"']
        if log_dirs > 1:
            folders = [str(path.parent / f"logs-{node_id}-{name}") for name in "abcdefgh"[:log_dirs]]
            lines.append(f"log_dirs = {json.dumps(folders)}")
        if rack := (racks or {}).get(node_id):
            lines.append(f"rack = {json.dumps(rack)}")
        lines += [f"{name} = {json.dumps(value)}" for name, value in (keys or {}).items()]
        own = (node_settings or {}).get(node_id, {})
        lines += [f"settings.{name} = {json.dumps(value)}" for name, value in own.items()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)
