"""Administration through REST at a live node: topics, settings, reassignments, elections. Settings of groups go through
its Kafka port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from kraft.chaos.worlds.processes.nodes import Nodes
from kraft.chaos.worlds.processes.observer import Observer
from kraft.chaos.worlds.processes.pace import Pace
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.spec import NOTHING, ScenarioError
from kraft.client.response import Answer
from kraft.client.retries import Done, Failure, GiveUp, RetryAfter, RetryPolicy, next_step
from kraft.protocol.primitives import SettingValue

RETRY_POLICY: Final = RetryPolicy(backoff_ms=50, backoff_max_ms=50)
JSON: Final = {"Content-Type": "application/json"}


class Administration:
    def __init__(self, cluster_id: str, nodes: Nodes, observer: Observer, timeline: Timeline, pace: Pace) -> None:
        self.cluster_id = cluster_id
        self._nodes = nodes
        self._observer = observer
        self._timeline = timeline
        self._pace = pace

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        replication_factor: int | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
        configs: Mapping[str, SettingValue] = NOTHING,
    ) -> None:
        """Create a topic; returns when every running node knows it. `assignment`: replicas of each partition."""
        document: dict[str, Any] = {"topic_name": name, "configs": _configs(configs)}
        if assignment is not None:
            document["replicas_assignments"] = {str(n): list(replicas) for n, replicas in enumerate(assignment)}
        else:
            factor = min(3, len(self._nodes.brokers)) if replication_factor is None else replication_factor
            document |= {"partitions_count": partitions, "replication_factor": factor}
        await self.change("POST", "/topics", document)
        wanted = len(assignment) if assignment is not None else partitions
        await self._observer.until(
            lambda s: (
                all((name, wanted - 1) in view.partitions for view in s.views.values())
                and all(s.leader(name, number) >= 0 for number in range(wanted))
            ),
            describe=f"topic {name} on every node, with leaders",
        )

    async def delete_topic(self, name: str) -> None:
        self._timeline.begin("delete_topic", text=f"deleted topic {name}")
        await self.change("DELETE", f"/topics/{quote(name)}")

    async def grow_topic(self, name: str, partitions: int) -> None:
        self._timeline.begin("config", text=f"grew topic {name} to {partitions} partitions")
        await self.change("PATCH", f"/topics/{quote(name)}", {"partitions_count": partitions})

    async def alter_topic(self, name: str, configs: Mapping[str, SettingValue]) -> None:
        self._timeline.begin("config", text=f"set {_shown(configs)} on topic {name}")
        await self.change("POST", f"/topics/{quote(name)}/configs:alter", {"data": _changes(configs)})

    async def alter_cluster(self, configs: Mapping[str, SettingValue]) -> None:
        """Settings of all brokers."""
        self._timeline.begin("config", text=f"set {_shown(configs)} on the whole cluster")
        await self.change("POST", "/broker-configs:alter", {"data": _changes(configs)})

    async def alter_group(self, group: str, configs: Mapping[str, SettingValue]) -> None:
        """Settings of a group, also of one that does not exist yet. Raises ScenarioError."""
        self._timeline.begin("config", text=f"set {_shown(configs)} on group {group}")
        await self.change("POST", f"/share-groups/{quote(group)}/configs:alter", {"data": _changes(configs)})

    async def reassign(self, topic: str, partition: int, replicas: Sequence[int]) -> None:
        self._timeline.begin("reassign", text=f"asked to move {topic}-{partition} to {list(replicas)}")
        path = f"/topics/{quote(topic)}/partitions/{partition}/reassignment"
        await self.change("POST", path, {"replicas": list(replicas)})

    async def elect(self, topic: str, partition: int, *, kind: Literal["preferred", "unclean"] = "preferred") -> None:
        self._timeline.begin("elect", text=f"asked for the {kind} leader of {topic}-{partition}")
        path = f"/topics/{quote(topic)}/partitions/{partition}:elect"
        await self.change("POST", path, {"election_type": kind})

    async def change(self, method: str, path: str, document: Any = None) -> None:
        """A change below the v3 path of the cluster; retried while no node can do it. Raises ScenarioError."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._pace.change_limit_ms / 1000
        full = f"/v3/clusters/{quote(self.cluster_id)}{path}"
        body = b"" if document is None else msgspec.json.encode(document)
        for attempts in count(1):
            failure = await self._try_change(method, full, body)
            left_ms = (deadline_s - loop.time()) * 1000
            match next_step(failure, attempts=attempts, left_ms=left_ms, policy=RETRY_POLICY):
                case RetryAfter(wait_ms=wait_ms):
                    await asyncio.sleep(wait_ms / 1000)
                case GiveUp():
                    assert failure is not None
                    raise ScenarioError(f"{method} {path}: {failure.reason}")
                case Done():
                    return

    async def _try_change(self, method: str, path: str, body: bytes) -> Failure | None:
        """The failure of every node; a refusal is not retried at another node."""
        problem, timeout_ms = "no node runs", self._pace.change_timeout_ms
        for node in self._nodes.running():
            outcome = await self._nodes.ask(node, method, path, body=body, headers=JSON, timeout_ms=timeout_ms)
            if not isinstance(outcome, Answer):
                problem = outcome.reason
                continue
            if outcome.is_success:
                return None
            problem = f"node {node} answered {outcome.status}: {outcome.body[:500].decode('utf-8', 'replace')}"
            if outcome.status < 500:
                return Failure(reason=problem, may_retry=False)
        return Failure(reason=problem)


def _text(value: SettingValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _configs(configs: Mapping[str, SettingValue]) -> list[dict[str, str]]:
    return [{"name": name, "value": _text(value)} for name, value in configs.items()]


def _changes(configs: Mapping[str, SettingValue]) -> list[dict[str, str]]:
    return [{**entry, "operation": "SET"} for entry in _configs(configs)]


def _shown(configs: Mapping[str, SettingValue]) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in configs.items())
