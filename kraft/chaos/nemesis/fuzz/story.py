"""A seed and a profile -> a scenario: random faults at random times, each possible when its turn comes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from kraft.chaos.model import Model, Producer, Reader, Scenario, Topic
from kraft.chaos.nemesis.actions import Action, DamageFiles, NodeFault
from kraft.chaos.nemesis.fuzz.profiles import FaultKind, Profile
from kraft.chaos.story import ScenarioRun

NODES: Final = (1, 2, 3)
FAULTS_MIN: Final = 4
FAULTS_MAX: Final = 14
PAUSE_MS_MAX: Final = 1_200
"""Longest time between two steps; the shortest is zero, so that faults overlap."""
RATE_MAX: Final = 150
PARTITIONS: Final = (("t", 0), ("u", 0), ("u", 1))
PURPOSES: Final = ("quorum", "controller", "fetch", "forward")
_ACTION: Final[TypeAdapter[Action]] = TypeAdapter(Action)


class Step(Model):
    """A step of a random story."""

    after_ms: int
    action: Action


@dataclass(frozen=True, slots=True)
class Script:
    """A story as a list of steps, so that steps can be removed."""

    steps: tuple[Step, ...]

    async def __call__(self, run: ScenarioRun) -> None:
        for step in self.steps:
            if step.after_ms:
                await run.sleep(step.after_ms)
            await run.act(step.action)


def make_story(profile: Profile, *, seed: int) -> Scenario:
    rng = Random(f"{profile.name}/{seed}")
    writer = _StoryWriter(profile, rng)
    steps = [step for _ in range(rng.randint(FAULTS_MIN, FAULTS_MAX)) for step in writer.next_steps()]
    return Scenario(
        name=f"fuzz-{profile.name}-{seed}",
        sentence=f"A random story of the profile {profile.name}, seed {seed}",
        question=f"Does this hold: {profile.sentence}?",
        topics=_topics(profile, rng),
        clients=_clients(profile, rng),
        expect=profile.expect,
        story=Script(tuple(steps)),
    )


def steps_of(scenario: Scenario) -> tuple[Step, ...]:
    assert isinstance(scenario.story, Script), scenario.name
    return scenario.story.steps


def with_steps(scenario: Scenario, steps: Sequence[Step]) -> Scenario:
    return replace(scenario, story=Script(tuple(steps)))


def _topics(profile: Profile, rng: Random) -> tuple[Topic, ...]:
    orders = [tuple(rng.sample(NODES, len(NODES))) for _ in range(3)]
    return (
        Topic(name="t", assignment=tuple(orders[:1]), configs=profile.configs),
        Topic(name="u", assignment=tuple(orders[1:]), configs=profile.configs),
    )


def _clients(profile: Profile, rng: Random) -> tuple[Producer | Reader, ...]:
    targets: tuple[Literal["any", "leader"], ...] = ("any", "leader")
    producers = [
        Producer(
            name=f"p{number}",
            topic=topic,
            acks=rng.choice(profile.acks),
            rate=rng.randint(20, RATE_MAX),
            keys=rng.choice((0, 10)),
            retries=profile.retries,
            in_flight=rng.choice((1, 4)),
            timeout_ms=rng.choice((1_000, 3_000)),
            target=rng.choice(targets),
        )
        for number, topic in enumerate(("t", "u", "u"), 1)
    ]
    return (*producers, Reader(name="r1", topic="t"), Reader(name="r2", topic="u"))


class _StoryWriter:
    """Chooses random steps. Keeps the state of nodes and links, so that each step is possible."""

    def __init__(self, profile: Profile, rng: Random) -> None:
        self._rng = rng
        self._kinds = list(profile.faults)
        self._weights = list(profile.faults.values())
        self._down: set[int] = set()
        self._paused: set[int] = set()
        self._cut = False
        self._step_makers: dict[FaultKind, Callable[[], list[dict[str, Any]]]] = {
            "crash": lambda: self._end("kill"),
            "stop": lambda: self._end("stop"),
            "power": lambda: self._end("power_loss"),
            "pause": self._pause,
            "cut": self._cut_links,
            "slow": self._slow_links,
            "isolate": self._isolate,
            "partition": self._partition,
            "admin": self._administrate,
            "damage": self._damage,
        }

    def next_steps(self) -> list[Step]:
        if self._rng.random() < self._pressure_to_mend():
            steps = self._mend()
        else:
            steps = self._step_makers[self._rng.choices(self._kinds, self._weights)[0]]()
        return [self._paced(action) for action in steps]

    def _pressure_to_mend(self) -> float:
        """The probability that the next step heals: a cluster that is completely broken shows little."""
        return 0.25 * len(self._down) + 0.2 * len(self._paused) + 0.2 * self._cut

    def _paced(self, action: dict[str, Any]) -> Step:
        after_ms = self._rng.choice((0, self._rng.randint(0, 200), self._rng.randint(0, PAUSE_MS_MAX)))
        return Step(after_ms=after_ms, action=_ACTION.validate_python(action))

    def _mend(self) -> list[dict[str, Any]]:
        choices: list[dict[str, Any]] = []
        choices += [{"do": "restart", "nodes": (node,)} for node in sorted(self._down)]
        choices += [{"do": "resume", "nodes": (node,)} for node in sorted(self._paused)]
        choices += [{"do": "heal"}] if self._cut else []
        chosen = self._rng.choice(choices)
        self._down -= set(chosen.get("nodes", ()))
        self._paused -= set(chosen.get("nodes", ()))
        self._cut = self._cut and chosen["do"] != "heal"
        return [chosen]

    def _end(self, how: str) -> list[dict[str, Any]]:
        running = [node for node in NODES if node not in self._down]
        count = min(len(running), self._rng.choice((1, 1, 1, 1, 2, 3)))
        nodes = sorted(self._rng.sample(running, count))
        if how == "stop":
            nodes = [node for node in nodes if node not in self._paused][:1]  # a paused one does not hear it
        if not nodes:
            return self._mend()
        self._down |= set(nodes)
        self._paused -= set(nodes)
        return [{"do": how, "nodes": tuple(nodes)}]

    def _pause(self) -> list[dict[str, Any]]:
        running = [node for node in NODES if node not in self._down | self._paused]
        if not running:
            return self._mend()
        node = self._rng.choice(running)
        self._paused.add(node)
        return [{"do": "pause", "nodes": (node,)}]

    def _cut_links(self) -> list[dict[str, Any]]:
        dials, answers = self._rng.sample(NODES, 2)
        self._cut = True
        how = self._rng.choice(("cut", "blackhole", "close_mid_message", "drop_answers"))
        fault: dict[str, Any] = {"do": how, "purpose": self._purposes(), "dials": (dials,), "answers": (answers,)}
        if how == "drop_answers":
            fault["purpose"] = (self._rng.choice(("controller", "fetch", "forward")),)  # the quorum has no answers
        if how == "blackhole":
            fault["direction"] = self._rng.choice(("both", "requests", "answers"))
        if how in ("close_mid_message", "drop_answers"):
            fault["count"] = self._rng.randint(1, 3)
        return [fault]

    def _slow_links(self) -> list[dict[str, Any]]:
        dials, answers = self._rng.sample(NODES, 2)
        self._cut = True
        delay_ms = self._rng.choice((5, 50, 400))
        fault = {"do": "delay", "purpose": self._purposes(), "dials": (dials,), "answers": (answers,)}
        return [{**fault, "delay_ms": delay_ms, "jitter_ms": delay_ms}]

    def _isolate(self) -> list[dict[str, Any]]:
        self._cut = True
        return [{"do": "isolate", "node": self._rng.choice(NODES), "purpose": self._purposes()}]

    def _partition(self) -> list[dict[str, Any]]:
        self._cut = True
        one, two, three = self._rng.sample(NODES, 3)
        groups = self._rng.choice(([[one], [two, three]], [[one, two], [two, three]], [[one], [two], [three]]))
        return [{"do": "partition", "groups": groups}]

    def _administrate(self) -> list[dict[str, Any]]:
        topic, partition = self._rng.choice(PARTITIONS)
        elect: dict[str, Any] = {"do": "elect", "topic": topic, "partition": partition}
        order = self._rng.sample(NODES, len(NODES))
        reassign: dict[str, Any] = {"do": "reassign", "topic": topic, "partition": partition, "replicas": tuple(order)}
        return [{**self._rng.choice((elect, reassign)), "may_be_refused": True}]

    def _damage(self) -> list[dict[str, Any]]:
        """Damage that recovery finds; a flipped byte below the recovery point stays unseen."""
        if not self._down:
            return self._end("kill")
        topic, partition = self._rng.choice(PARTITIONS)
        node = self._rng.choice(sorted(self._down))
        what = self._rng.choice(("torn tail", "delete index", "delete log"))
        damage: dict[str, Any] = {"do": "damage", "node": node, "topic": topic, "partition": partition, "what": what}
        return [{**damage, "spares_isr": True}]

    def _purposes(self) -> tuple[str, ...]:
        one = (self._rng.choice(PURPOSES),)
        return self._rng.choice((PURPOSES, PURPOSES, one, ("quorum", "controller")))


# --- which steps can be done ------------------------------------------------------------------------------------------


def possible(steps: Iterable[Step]) -> list[Step]:
    """The steps that are still possible after others were removed: a dead node cannot be killed, for example."""
    cluster_state = _ClusterState()
    return [step for step in steps if cluster_state.takes(step)]


class _ClusterState:
    def __init__(self) -> None:
        self._down: set[int] = set()
        self._paused: set[int] = set()

    def takes(self, step: Step) -> bool:
        match step.action:
            case NodeFault(do=kind, nodes=nodes):
                return self._takes(kind, set(nodes))
            case DamageFiles(node=node):
                return node in self._down
        return True

    def _takes(self, kind: str, nodes: set[int]) -> bool:
        match kind:
            case "restart" if nodes <= self._down:
                self._down -= nodes
            case "resume" if nodes <= self._paused:
                self._paused -= nodes
            case "pause" if not nodes & (self._down | self._paused):
                self._paused |= nodes
            case "stop" if not nodes & (self._down | self._paused):
                self._down |= nodes
            case "kill" | "power_loss" if not nodes & self._down:
                self._down |= nodes
                self._paused -= nodes
            case "disk_full" | "disk_free":
                return True
            case _:
                return False
        return True
