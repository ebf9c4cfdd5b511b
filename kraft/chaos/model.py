"""A scenario as values: its cluster, topics, clients, expected verdict and story.

The story is an async function (`kraft.chaos.story`). All other values are known before the cluster starts. Pure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from kraft.chaos.checkers.verdict import Kind
from kraft.protocol.primitives import SettingValue

if TYPE_CHECKING:
    from kraft.chaos.questions import Now

RECORDS_PER_SECOND_MAX: Final = 50_000
NODES_MAX: Final = 9

SCENARIO_SETTINGS: Final[Mapping[str, SettingValue]] = {
    "broker.heartbeat.interval.ms": 200,
    "broker.session.timeout.ms": 1_500,
    "replica.lag.time.max.ms": 1_500,
    "replica.fetch.wait.max.ms": 200,
    "replica.fetch.backoff.ms": 100,
    "auto.leader.rebalance.enable": False,
}
"""Short timeouts: Kafka's defaults are for data centers, and a story takes seconds. The settings of a scenario win."""


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class ClusterPlan(Model):
    brokers: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, max_length=NODES_MAX, description="Broker ids.")
    controllers: tuple[int, ...] = Field(
        default=(1, 2, 3), min_length=1, max_length=NODES_MAX, description="Ids of the voters."
    )
    settings: Mapping[str, SettingValue] = Field(default_factory=dict, description="Kafka settings of all nodes.")

    @property
    def node_ids(self) -> tuple[int, ...]:
        return tuple(sorted({*self.brokers, *self.controllers}))

    @property
    def all_settings(self) -> dict[str, SettingValue]:
        return {**SCENARIO_SETTINGS, **self.settings}


class Topic(Model):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="Name of the topic.")
    assignment: tuple[tuple[int, ...], ...] = Field(
        default=((1, 2, 3),), min_length=1, description="Replicas of each partition, the preferred leader first."
    )
    configs: Mapping[str, SettingValue] = Field(default_factory=dict, description="Kafka settings of the topic.")


class Producer(Model):
    name: Name = Field(description="Its name in the story and the verdict.")
    topic: str = Field(description="The topic that it writes to.")
    partition: int | None = Field(default=None, ge=0, description="One partition; default: by key, or round robin.")
    acks: Literal["0", "1", "all"] = Field(default="all", description="'0', '1' or 'all'.")
    rate: int = Field(default=100, ge=1, le=RECORDS_PER_SECOND_MAX, description="Records per second.")
    limit: int | None = Field(default=None, ge=1, description="The number of records; default: no limit.")
    keys: int = Field(default=0, ge=0, description="How many different keys; 0: records without key.")
    retries: int = Field(default=0, ge=0, le=1_000, description="Attempts after the first one.")
    idempotent: bool = Field(
        default=False, description="Retries never write a record twice (an Idempotency-Key for each request)."
    )
    in_flight: int = Field(default=1, ge=1, le=64, description="Requests that may wait for an answer at once.")
    batch: int = Field(default=1, ge=1, le=1_000, description="Records in one request.")
    value_bytes: int = Field(default=0, ge=0, le=65_536, description="Values are padded to this length.")
    timeout_ms: int = Field(default=5_000, ge=50, le=60_000, description="Longest wait for an answer.")
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    starts: Literal["at once", "in the story"] = Field(default="at once", description="When it begins.")


class Reader(Model):
    name: Name = Field(description="Its name in the story and the verdict.")
    topic: str = Field(description="What it reads.")
    partition: int | None = Field(default=None, ge=0, description="One partition; default: all.")
    isolation: Literal["read_uncommitted", "read_committed"] = Field(
        default="read_uncommitted", description="Whether records of open and aborted transactions are read."
    )
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    starts: Literal["at once", "in the story"] = Field(default="at once", description="When it begins.")


class Member(Model):
    """A member of a group: reads a batch, processes it, and commits it. Without a committed offset it begins at the
    start of the log."""

    name: Name = Field(description="Its name in the story and the verdict.")
    topic: str = Field(description="The topic that its group reads.")
    group: Name = Field(default="g", description="Its group.")
    instance: Name | None = Field(default=None, description="Its static name (KIP-345), for Kafka clients only.")
    session_ms: int = Field(
        default=6_000, ge=500, le=60_000, description="A member that is silent for longer is evicted."
    )
    batch: int = Field(default=20, ge=1, le=1_000, description="The most records of a batch.")
    work_ms: int = Field(default=50, ge=0, le=10_000, description="How long it works on a batch before it commits.")
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    starts: Literal["at once", "in the story"] = Field(default="at once", description="When it joins.")


class Transactor(Model):
    """A transactional producer: writes batches, commits a group's offset with them, and ends the transaction."""

    name: Name = Field(description="Its name in the story and the verdict.")
    topic: str = Field(description="The topic that it writes to, round robin over its partitions.")
    transactional_id: str = Field(
        default="", max_length=64, description="Default: its name. Producers with the same id fence each other."
    )
    flow: Literal["old", "new"] = Field(default="new", description="Of KIP-890; over REST new, aiokafka speaks old.")
    rate: int = Field(default=10, ge=1, le=1_000, description="Transactions per second, at most.")
    limit: int | None = Field(default=None, ge=1, description="The number of transactions; default: no limit.")
    batches: int = Field(default=3, ge=1, le=100, description="Requests of one transaction.")
    batch: int = Field(default=2, ge=1, le=1_000, description="Records in one request.")
    aborts_every: int = Field(default=0, ge=0, description="After so many transactions one is aborted; 0: none.")
    group: Name | None = Field(default=None, description="The group whose offset is committed with each transaction.")
    work_ms: int = Field(default=0, ge=0, le=10_000, description="The pause between the last record and the end.")
    transaction_timeout_ms: int = Field(
        default=10_000, ge=500, le=60_000, description="The time after which the coordinator aborts."
    )
    timeout_ms: int = Field(default=5_000, ge=50, le=60_000, description="Longest wait for an answer.")
    target: int | Literal["any", "leader"] = Field(default="leader", description="any node, the leader, or an id.")
    starts: Literal["at once", "in the story"] = Field(default="at once", description="When it begins.")


class Worker(Model):
    """A worker of a queue (a share group): receives records, works, and accepts them. The group begins with the first
    record."""

    name: Name = Field(description="Its name in the story and the verdict.")
    topic: str = Field(description="The topic whose records it receives.")
    group: Name = Field(default="q", description="Its share group.")
    batch: int = Field(default=10, ge=1, le=500, description="The most records of one receive.")
    work_ms: int = Field(default=20, ge=0, le=10_000, description="How long it works on them before it accepts them.")
    lock_ms: int = Field(default=3_000, ge=1_000, le=60_000, description="How long the records are locked for it.")
    cannot_handle: str = Field(default="", description="The value of the record that it releases each time.")
    renews: bool = Field(default=False, description="It renews the locks while it works, after half of their time.")
    target: int | Literal["any", "leader"] = Field(default="any", description="any node in turn, the leader, or an id.")
    starts: Literal["at once", "in the story"] = Field(default="at once", description="When it begins.")


Client: TypeAlias = Producer | Reader | Member | Transactor | Worker


# --- what is expected ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A count of records from `low` to `high`; None: no upper limit."""

    low: int
    high: int | None = None

    def holds(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return "any" if self.low == 0 else f"at least {self.low}"
        return f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Measured:
    """A count that the story measures and sets with `run.expect`."""

    what: str

    def __str__(self) -> str:
        return self.what


ANY: Final = Between(low=0)
SOME: Final = Between(low=1)
Count: TypeAlias = int | Between | Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """The expected verdict. A count without a value must be zero, except `kept` and the unknown outcomes."""

    kept: Count = SOME
    """Acknowledged records that are in the log."""
    lost: Count = 0
    """Acknowledged records that are not in the log."""
    duplicated: Count = 0
    """Records that are in the log more than once."""
    reordered: Count | None = None
    """Records after one that was sent later. None: zero, or any number if a producer has several requests in flight."""
    phantom: Count = 0
    """Refused records that are in the log."""
    unknown_kept: Count = ANY
    """Records with an unknown outcome that are in the log."""
    unknown_gone: Count = ANY
    """Records with an unknown outcome that are not in the log."""
    redelivered: Count = 0
    """Records that a group received again, because the first member did not commit them, or the first worker did not
    accept them."""
    skipped: Count = 0
    """Records that a group has committed, and that no member received."""
    handed_out: Count = ANY
    """Records that a worker of a queue received."""
    accepted: Count = ANY
    """Records of a queue whose acceptance was answered with success."""
    archived: Count = 0
    """Records of a queue that were rejected, or handed out as often as the limit allows."""
    dead_lettered: Count = 0
    """Records, archived or too old, that are in a topic of dead letters."""
    expired: Count = 0
    """Records of a queue that retention removed before a worker accepted them."""
    too_old: Count = 0
    """Records of a queue that expired before a worker accepted them: share.record.expiry.ms, or kraft.expires.at."""
    perhaps_accepted: Count = 0
    """Records of a queue whose acceptance has an unknown outcome, and that were not handed out again."""
    anomalies: tuple[Kind, ...] = ()
    """Kinds of anomalies that the story causes."""
    causes: tuple[str, ...] = ()
    """Texts: for each of them a cause must contain it."""
    holds: tuple[Condition, ...] = ()
    """Conditions that must hold after all faults are healed."""

    def counts(self) -> dict[str, Count]:
        """The expected counts; Scenario has set `reordered` before."""
        return {name: getattr(self, name) for name in COUNTS}


def with_counts(expect: Expect, counts: Mapping[str, Count]) -> Expect:
    """The expectation with these counts. Raises TypeError for a name that is not a count."""
    for name in counts:
        if name not in COUNTS:
            raise TypeError(f"{name} is no count of a verdict; there are {', '.join(COUNTS)}")
    return replace(expect, **counts)  # type: ignore[arg-type]


QUEUE_COUNTS: Final = ("handed_out", "accepted", "archived", "dead_lettered", "expired", "too_old", "perhaps_accepted")
"""The counts of queues: shown if there was one."""
COUNTS: Final = (
    *("kept", "lost", "duplicated", "reordered", "phantom", "unknown_kept", "unknown_gone"),
    *("redelivered", "skipped"),
    *QUEUE_COUNTS,
)
Condition: TypeAlias = "Callable[[Now], object]"
StoryFunction: TypeAlias = Callable[[Any], Awaitable[None]]
"""The story: a function of a `ScenarioRun` (`kraft.chaos.story`, which imports this module)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    sentence: str
    """What happens."""
    question: str
    """The question that the verdict answers."""
    cluster: ClusterPlan = field(default_factory=ClusterPlan)
    topics: tuple[Topic, ...]
    clients: tuple[Client, ...]
    expect: Expect = Expect()
    story: StoryFunction
    source: str = field(default="", compare=False)
    """The text of the story."""
    is_long: bool = False
    """A long story starts first when several run, so that it does not run alone at the end."""
    rest_only: str = ""
    """The reason why a Kafka client cannot play the story (it finds leaders and retries by itself). Empty: it can."""

    @property
    def producers(self) -> tuple[Producer, ...]:
        return tuple(client for client in self.clients if isinstance(client, Producer))
