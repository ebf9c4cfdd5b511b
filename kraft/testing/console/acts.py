"""What the buttons of a launcher's console do to its cluster, and the list of what was done.

Nodes can be killed, paused and restarted in every cluster of a launcher; links and disks where it has `--faults`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kraft.testing.cluster import Cluster, ClusterFailed
from kraft.testing.faults import SOCKET_FILE, FaultCluster

NODE_ACTS: Final = ("kill", "stop", "pause", "resume", "restart")
DISK_ACTS: Final = ("fill_disk", "free_disk", "power_loss")
LINK_ACTS: Final = ("cut", "slow")
ANSWER_ACTS: Final = ("answer", "delay", "drop_answer", "close_after")
"""Faults of requests of Kafka clients: the links answer, or change when the answer arrives."""
TIMES_MAX: Final = 1_000_000
OF_FAULTS: Final = (*DISK_ACTS, *LINK_ACTS, *ANSWER_ACTS)
DONE_MAX: Final = 500
"""Acts that are remembered, and so steps of a saved story; later ones are refused until the list is cleared."""
SLOW_MS_DEFAULT: Final = 200
SLOW_MS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One act. `after_ms` is the time since the first one."""

    do: str
    nodes: tuple[int, ...] = ()
    one_way: bool = False
    ms: int = 0
    client: str = ""
    """The workload that began or ended."""
    api: str = ""
    error: str = ""
    """Kafka's name of the error of a wrong answer."""
    topic: str = ""
    times: int = 0
    """0: until healed."""
    after_ms: int = 0

    @property
    def text(self) -> str:
        """The act in words."""
        match self.do:
            case "cut" if len(self.nodes) == 1:
                return f"node {self.nodes[0]} was cut off from all others"
            case "cut":
                return f"the link {_link(self)} was cut"
            case "slow":
                return f"the link {_link(self)} is {self.ms} ms slower"
            case "heal":
                return "everything was healed"
            case "answer" | "delay" | "drop_answer" | "close_after":
                return _of_answers(self)
            case "begin" | "end":
                return f"workload {self.client} {'began' if self.do == 'begin' else 'ended'}"
            case _:
                return f"{self.do.replace('_', ' ')}: node {', '.join(map(str, self.nodes))}"


def _link(done: Done) -> str:
    return f"{done.nodes[0]} {'->' if done.one_way else '-'} {done.nodes[1]}"


def _of_answers(done: Done) -> str:
    what = {
        "answer": f"{done.api} is answered with {done.error}",
        "delay": f"answers to {done.api} are {done.ms} ms later",
        "drop_answer": f"answers to {done.api} are lost",
        "close_after": f"connections end after an answer to {done.api}",
    }[done.do]
    of = f" for {done.topic}" if done.topic else ""
    at = f" at node {done.nodes[0]}" if done.nodes else ""
    return f"{what}{of}{at}, {f'{done.times} times' if done.times else 'until healed'}"


@dataclass(slots=True)
class Journal:
    """What was done, in order."""

    now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000
    began_ms: int | None = None
    done: list[Done] = field(default_factory=list)

    def add(self, **what: Any) -> Done:
        """Raises ValueError when the list is full."""
        if len(self.done) >= DONE_MAX:
            raise ValueError(f"{DONE_MAX} acts are remembered, which is the most; save them and clear the list")
        now_ms = self.now_ms()
        if self.began_ms is None:
            self.began_ms = now_ms
        made = Done(after_ms=now_ms - self.began_ms, **what)
        self.done.append(made)
        return made

    def clear(self) -> None:
        """Forgets everything."""
        self.done.clear()
        self.began_ms = None


class Acts:
    """Breaks and heals the cluster of one data folder. Its methods block; one act runs at a time."""

    def __init__(self, data: str, journal: Journal) -> None:
        """Raises ClusterFailed when no cluster runs there."""
        self._journal = journal
        self._seen = Cluster.attach(data)
        self._faulty = FaultCluster.attach(data) if os.path.exists(os.path.join(data, SOCKET_FILE)) else None
        self._broken: list[Done] = []

    @property
    def can(self) -> tuple[str, ...]:
        """The acts that are possible here."""
        return (*NODE_ACTS, "heal") if self._faulty is None else (*NODE_ACTS, *OF_FAULTS, "heal")

    @property
    def faulty(self) -> FaultCluster | None:
        """The cluster, where its links can be broken."""
        return self._faulty

    @property
    def broken(self) -> list[Done]:
        """The faults of links, disks and answers that are not healed."""
        return list(self._broken)

    def states(self) -> dict[int, str]:
        """Each node's process: running, paused or down."""
        return {node: self._seen.state(node) for node in self._seen.ids}

    def act(self, asked: Mapping[str, Any]) -> Done:
        """Raises ValueError for what cannot be done."""
        do, nodes = asked.get("do"), _nodes(asked, self._seen.ids)
        if do not in self.can:
            hint = "; start the cluster with --faults" if do in OF_FAULTS else ""
            raise ValueError(f"{do!r:.40} is not possible here; there are {', '.join(self.can)}{hint}")
        try:
            match do:
                case "heal":
                    return self._heal()
                case "cut" | "slow":
                    return self._break_link(do, nodes, asked)
                case "answer" | "delay" | "drop_answer" | "close_after":
                    return self._change_answers(do, nodes, asked)
                case _:
                    return self._to_nodes(do, nodes)
        except ClusterFailed as error:
            raise ValueError(str(error)) from error

    def _to_nodes(self, do: str, nodes: tuple[int, ...]) -> Done:
        if not nodes:
            raise ValueError(f"{do} which nodes? There are {', '.join(map(str, self._seen.ids))}")
        cluster: Any = self._faulty or self._seen
        getattr(cluster, do)(*nodes)
        done = self._journal.add(do=do, nodes=nodes)
        if do == "fill_disk":
            self._broken.append(done)
        elif do == "free_disk":
            self._broken = [each for each in self._broken if each.do != "fill_disk" or not {*each.nodes} & {*nodes}]
        return done

    def _break_link(self, do: str, nodes: tuple[int, ...], asked: Mapping[str, Any]) -> Done:
        assert self._faulty is not None
        one_way, ms = asked.get("one_way", False) is True, asked.get("ms", SLOW_MS_DEFAULT)
        if len(nodes) not in (1, 2) or len({*nodes}) != len(nodes):
            raise ValueError("a link is between two nodes; one node alone is cut off from all")
        if do == "cut":
            self._faulty.cut(*nodes, one_way=one_way)
            done = self._journal.add(do=do, nodes=nodes, one_way=one_way)
        else:
            if len(nodes) != 2 or type(ms) is not int or not 0 < ms <= SLOW_MS_MAX:
                raise ValueError(f"slow is between two nodes, by 1 to {SLOW_MS_MAX} ms")
            self._faulty.slow(*nodes, ms=ms)
            done = self._journal.add(do=do, nodes=nodes, ms=ms)
        self._broken.append(done)
        return done

    def _change_answers(self, do: str, nodes: tuple[int, ...], asked: Mapping[str, Any]) -> Done:
        assert self._faulty is not None
        api, error, topic = (asked.get(name, "") for name in ("api", "error", "topic"))
        times, ms = asked.get("times", 1), asked.get("ms", SLOW_MS_DEFAULT)
        if not all(isinstance(text, str) for text in (api, error, topic)) or not api:
            raise ValueError("api, error and topic are texts: api is Kafka's name, such as Produce")
        if type(times) is not int or not 0 <= times <= TIMES_MAX or len(nodes) > 1:
            raise ValueError(f"times is a number from 0 (until healed) to {TIMES_MAX}; at one node, or at all")
        if do == "delay" and (type(ms) is not int or not 0 < ms <= SLOW_MS_MAX):
            raise ValueError(f"ms is a number from 1 to {SLOW_MS_MAX}")
        if do == "answer" and not error:
            raise ValueError("error is Kafka's name or number of an error, such as NOT_LEADER_OR_FOLLOWER")
        options: dict[str, Any] = {"times": times or None, "topic": topic, "node": nodes[0] if nodes else None}
        if do == "answer":
            options["error"] = int(error) if error.isdecimal() else error
        if do == "delay":
            options["ms"] = ms
        getattr(self._faulty, do)(api, **options)
        done = self._journal.add(do=do, nodes=nodes, api=api, error=error, topic=topic, times=times, ms=ms)
        self._broken.append(done)
        return done

    def _heal(self) -> Done:
        states = self.states()
        if self._faulty is not None:
            self._faulty.heal()
        else:
            self._seen.resume(*[node for node, state in states.items() if state == "paused"])
            self._seen.restart(*[node for node, state in states.items() if state == "down"])
            self._seen.wait_until_ready()
        self._broken.clear()
        return self._journal.add(do="heal")


def _nodes(asked: Mapping[str, Any], known: list[int]) -> tuple[int, ...]:
    found = asked.get("nodes", [])
    if not isinstance(found, list) or any(type(node) is not int or node not in known for node in found):
        raise ValueError(f"nodes is a list of {', '.join(map(str, known))}")
    return tuple(found)
