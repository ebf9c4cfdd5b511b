"""A scenario as frozen models: what its TOML file may say.

The story is a list of steps. Each waits for its condition, at most `deadline_ms`, remembers what it is told to, and
then does one thing. Nodes in a step are ids, remembered names or expressions (`leader of t-0`, `controller()`),
resolved when the step is done and never earlier. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from kraft.config.models import Toml
from kraft.scenarios.actions import Action, ExpressionText, Model, Wait
from kraft.scenarios.checker.verdict import Kind
from kraft.scenarios.expectation import parse_range

DEADLINE_MS: Final = 20_000
"""How long a step waits for its condition when the file does not say."""
STEP_MS_MAX: Final = 120_000
RECORDS_PER_SECOND_MAX: Final = 50_000
NODES_MAX: Final = 9
CLIENTS_MAX: Final = 64
STEPS_MAX: Final = 1_000
ANY: Final = ">= 0"
"""A count that may be any."""

SCENARIO_SETTINGS: Final[Mapping[str, Toml]] = {
    "broker.heartbeat.interval.ms": 200,
    "broker.session.timeout.ms": 1_500,
    "replica.lag.time.max.ms": 1_500,
    "replica.fetch.wait.max.ms": 200,
    "replica.fetch.backoff.ms": 100,
    "auto.leader.rebalance.enable": False,
}
"""Kafka's waits are made for data centers; a story of seconds needs shorter ones. A scenario's own settings win."""


def _check_range(text: str) -> str:
    parse_range(text)
    return text


RangeText: TypeAlias = Annotated[str, BeforeValidator(lambda value: str(value)), AfterValidator(_check_range)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Variable: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class About(Model):
    name: Name = Field(description="As on the command line: kraft scenario run NAME.")
    sentence: str = Field(min_length=1, max_length=200, description="What happens, in one sentence.")
    question: str = Field(min_length=1, max_length=200, description="The question that the verdict answers.")


class ClusterPlan(Model):
    brokers: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, max_length=NODES_MAX, description="Broker ids.")
    controllers: tuple[int, ...] = Field(
        default=(1, 2, 3), min_length=1, max_length=NODES_MAX, description="Ids of the voters."
    )
    settings: Mapping[str, Toml] = Field(default_factory=dict, description="Kafka settings of all nodes.")

    @property
    def node_ids(self) -> tuple[int, ...]:
        return tuple(sorted({*self.brokers, *self.controllers}))

    @property
    def all_settings(self) -> dict[str, Toml]:
        return {**SCENARIO_SETTINGS, **self.settings}


class TopicPlan(Model):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="Name of the topic.")
    assignment: tuple[tuple[int, ...], ...] = Field(
        default=((1, 2, 3),), min_length=1, description="Replicas of each partition, the preferred leader first."
    )
    configs: Mapping[str, Toml] = Field(default_factory=dict, description="Kafka settings of the topic.")


class Producer(Model):
    kind: Literal["producer"]
    name: Name = Field(description="Under which steps and the verdict speak of it.")
    topic: str = Field(description="Where it writes to.")
    partition: int | None = Field(default=None, ge=0, description="One partition; default: by key, or all in turn.")
    acks: Literal["0", "1", "all"] = Field(default="all", description="'0', '1' or 'all'.")
    rate: int = Field(default=100, ge=1, le=RECORDS_PER_SECOND_MAX, description="Records per second.")
    limit: int | None = Field(default=None, ge=1, description="Ends after so many records; default: never by itself.")
    keys: int = Field(default=0, ge=0, description="How many different keys; 0: records without key.")
    retries: int = Field(default=0, ge=0, le=1_000, description="Attempts after the first one.")
    idempotent: bool = Field(default=False, description="Retries store nothing twice (an Idempotency-Key per request).")
    in_flight: int = Field(default=1, ge=1, le=64, description="Requests that may wait for an answer at once.")
    batch: int = Field(default=1, ge=1, le=1_000, description="Records in one request.")
    value_bytes: int = Field(default=0, ge=0, le=65_536, description="Values are filled up to this length.")
    timeout_ms: int = Field(default=5_000, ge=50, le=60_000, description="Longest wait for an answer.")
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    start: Literal["at once", "by step"] = Field(default="at once", description="When it begins.")


class Reader(Model):
    kind: Literal["reader"]
    name: Name = Field(description="Under which steps and the verdict speak of it.")
    topic: str = Field(description="What it reads.")
    partition: int | None = Field(default=None, ge=0, description="One partition; default: all.")
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    start: Literal["at once", "by step"] = Field(default="at once", description="When it begins.")


Client: TypeAlias = Annotated[Producer | Reader, Field(discriminator="kind")]


class Step(Model):
    when: ExpressionText | None = Field(default=None, description="Waits until this holds: isr(t, 0) == [1].")
    after_acked: int | None = Field(default=None, ge=1, description="Waits for so many more acknowledged records.")
    after_ms: int | None = Field(default=None, ge=0, le=STEP_MS_MAX, description="Waits for so long.")
    deadline_ms: int = Field(default=DEADLINE_MS, ge=1, le=STEP_MS_MAX, description="Longest wait for the condition.")
    remember: Mapping[Variable, ExpressionText] = Field(
        default_factory=dict, description="Names bound when the condition holds, before anything is done."
    )
    action: Action = Wait()


class Expect(Model):
    """What the verdict must be. What is not said must be zero, but for `kept` and unknown outcomes."""

    kept: RangeText = Field(default="> 0", description="Acknowledged records that are there.")
    lost: RangeText = Field(default="0", description="Acknowledged records that are gone.")
    duplicated: RangeText = Field(default="0", description="Records that are there more than once.")
    reordered: RangeText = Field(
        default="0", description="Records behind one that was sent later; any, if a producer has several in flight."
    )
    phantom: RangeText = Field(default="0", description="Refused records that are there.")
    unknown_kept: RangeText = Field(default=ANY, description="Records with an unknown outcome that are there.")
    unknown_gone: RangeText = Field(default=ANY, description="Records with an unknown outcome that are not.")
    anomalies: tuple[Kind, ...] = Field(default=(), description="Kinds of anomalies that belong to the story.")
    causes: tuple[str, ...] = Field(default=(), description="Texts, each of which a cause must contain.")
    holds: tuple[ExpressionText, ...] = Field(default=(), description="What must be true when all has healed.")

    def ranges(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in COUNTS}


COUNTS: Final = ("kept", "lost", "duplicated", "reordered", "phantom", "unknown_kept", "unknown_gone")


class Scenario(Model):
    scenario: About
    cluster: ClusterPlan = ClusterPlan()
    topics: tuple[TopicPlan, ...] = Field(min_length=1, description="One [[topics]] table per topic.")
    clients: tuple[Client, ...] = Field(min_length=1, max_length=CLIENTS_MAX, description="One [[clients]] per client.")
    steps: tuple[Step, ...] = Field(default=(), max_length=STEPS_MAX, description="The story, one [[steps]] per step.")
    expect: Expect = Expect()

    @property
    def name(self) -> str:
        return self.scenario.name

    @property
    def producers(self) -> tuple[Producer, ...]:
        return tuple(client for client in self.clients if isinstance(client, Producer))

    @property
    def readers(self) -> tuple[Reader, ...]:
        return tuple(client for client in self.clients if isinstance(client, Reader))
