"""The rules that apply to a request of a client, and the topics of the request. Pure.

Rules apply to all links together, so that `times` counts requests to all brokers. Of the rules that match a request,
the oldest of each kind is applied: at most one delays it, and at most one answers, drops or closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from kraft.chaos.worlds.processes.proxy.rules import ANY_NODE, Fired, RequestRule
from kraft.protocol.encoding import ZERO_UUID, Message, TopLevel

FIRED_MAX: Final = 10_000
"""The most applications of rules that are kept until the next query; the oldest are dropped."""
TOPIC_IDS_MAX: Final = 100_000
"""The most topic ids whose names are kept."""

EVERY_TOPIC: Final = None
Topics = Collection[str] | None
"""The topics of a request; None: all topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """One request that arrived at a link."""

    api_key: int
    version: int
    client_id: str
    node: int
    has_answer: bool = True
    """False: a produce with acks=0."""
    topics: Callable[[], Topics]
    """The topics; computed only if a rule needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    answer_with: int | None = None
    """The error code of the answer: the broker does not get the request."""
    drops_answer: bool = False
    closes_after: bool = False
    delay_ms: float = 0


NOTHING: Final = Decision()


class RequestRules:
    def __init__(self) -> None:
        self._rules: dict[int, RequestRule] = {}
        self._used: dict[int, int] = {}
        self._fired: deque[Fired] = deque(maxlen=FIRED_MAX)

    def begin(self, rule: RequestRule) -> None:
        self._rules[rule.number] = rule
        self._used[rule.number] = 0

    def end(self, number: int) -> None:
        self._rules.pop(number, None)
        self._used.pop(number, None)

    def take_fired(self) -> tuple[Fired, ...]:
        fired = tuple(self._fired)
        self._fired.clear()
        return fired

    def decide(self, asked: ClientRequest, *, at_us: int) -> Decision:
        if not self._rules:
            return NOTHING
        fitting = [rule for rule in self._rules.values() if self._is_left(rule) and _fits(rule, asked)]
        delay = next((rule for rule in fitting if rule.do == "delay"), None)
        ending = next((rule for rule in fitting if rule.do != "delay"), None)
        for rule in (delay, ending):
            if rule is not None:
                self._apply(rule, asked, at_us)
        return Decision(
            answer_with=ending.error_code if ending is not None and ending.do == "answer" else None,
            drops_answer=ending is not None and ending.do == "drop_answer",
            closes_after=ending is not None and ending.do == "close_after",
            delay_ms=delay.delay_ms if delay is not None else 0,
        )

    def _is_left(self, rule: RequestRule) -> bool:
        return rule.times < 0 or self._used[rule.number] < rule.times

    def _apply(self, rule: RequestRule, asked: ClientRequest, at_us: int) -> None:
        self._used[rule.number] += 1
        self._fired.append(
            Fired(number=rule.number, at_us=at_us, node=asked.node, version=asked.version, client_id=asked.client_id)
        )


_OF_ANSWERS: Final = ("delay", "drop_answer")
"""False for acks=0 and a rule about answers."""


def _fits(rule: RequestRule, asked: ClientRequest) -> bool:
    if rule.api_key != asked.api_key or rule.node not in (ANY_NODE, asked.node):
        return False
    if not asked.has_answer and rule.do in _OF_ANSWERS:
        return False
    if rule.client_id and rule.client_id != asked.client_id:
        return False
    if not rule.topic:
        return True
    topics = asked.topics()
    return topics is EVERY_TOPIC or rule.topic in topics


# --- the topics of a request ----------------------------------------------------------------------------------------

_LISTS: Final = frozenset(
    ("topics", "topic_data", "topic_names", "topic_partitions", "v3_and_below_topics", "subscribed_topic_names")
)
"""Fields of requests with lists of topics, in Kafka's schemas."""
_AROUND: Final = frozenset(("groups", "transactions"))
"""Fields whose items contain such lists."""
_RESOURCES: Final = "resources"
_TOPIC_RESOURCE: Final = 2


def names_topics(request: type[TopLevel]) -> bool:
    """True if requests of this API can contain topics."""
    return bool(set(request.__slots__) & {*_LISTS, "transactions", _RESOURCES}) or request.API_KEY == OFFSET_FETCH


FETCH: Final = 1
OFFSET_FETCH: Final = 9
SHARE_FETCH: Final = 78
ELECT_LEADERS: Final = 43
FIRST_OF_SESSION: Final = (0, -1)
"""Session epochs of a fetch with all its topics (KIP-227)."""


def topics_of(message: Message, names: Mapping[UUID, str]) -> Topics:
    """The names of the topics of a request; `names` maps topic ids to names. An unknown id is ignored."""
    found: set[str] = set()
    for slot in message.__slots__:
        if slot not in _LISTS and slot not in _AROUND and slot != _RESOURCES:
            continue
        items = getattr(message, slot)
        if items is None:
            if slot == "topics" or getattr(message, "API_KEY", -1) == ELECT_LEADERS:
                return EVERY_TOPIC
            continue
        for name in _names(slot, items, names):
            if name is EVERY_TOPIC:
                return EVERY_TOPIC
            found.add(name)
    return found


def _names(slot: str, items: Iterable[Any], names: Mapping[UUID, str]) -> Iterator[str | None]:
    for item in items:
        if isinstance(item, str):
            if slot in _LISTS:
                yield item
        elif slot in _AROUND:
            inside = topics_of(item, names)
            yield from (EVERY_TOPIC,) if inside is EVERY_TOPIC else inside
        elif slot == _RESOURCES:
            if item.resource_type == _TOPIC_RESOURCE:
                yield item.resource_name
        elif name := _name(item, names):
            yield name


def _name(item: Message, names: Mapping[UUID, str]) -> str:
    for slot in ("name", "topic", "topic_name"):
        found: str | None = getattr(item, slot, None)
        if found:
            return found
    topic_id: UUID = getattr(item, "topic_id", ZERO_UUID)
    return names.get(topic_id, "")


class FetchSession:
    """The topics of the fetch session (KIP-227) or the share session (KIP-932) of one connection: later fetches contain
    only changes."""

    def __init__(self) -> None:
        self._partitions: set[tuple[UUID | str, int]] = set()

    def take(self, message: Any) -> None:
        """Apply a FetchRequest, or a ShareFetchRequest, of the connection, in order."""
        is_share = message.API_KEY == SHARE_FETCH
        number = "partition_index" if is_share else "partition"
        if (message.share_session_epoch if is_share else message.session_epoch) in FIRST_OF_SESSION:
            self._partitions.clear()
        for topic in message.topics:
            self._partitions.update((_id(topic), getattr(each, number)) for each in topic.partitions)
        for topic in message.forgotten_topics_data:
            self._partitions.difference_update((_id(topic), each) for each in topic.partitions)

    def topics(self, names: Mapping[UUID, str]) -> Topics:
        return {names.get(each, "") if isinstance(each, UUID) else each for each, _ in self._partitions}


def _id(topic: Any) -> UUID | str:
    return getattr(topic, "topic", "") or topic.topic_id


class TopicIds:
    """Names of topics by id, from MetadataResponses to clients."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}

    def learn(self, metadata: Any) -> None:
        """Learn from a MetadataResponse of a version with ids."""
        for topic in metadata.topics:
            if topic.name and topic.topic_id != ZERO_UUID:
                if len(self.names) >= TOPIC_IDS_MAX:
                    self.names.clear()  # clients ask again every few minutes
                self.names[topic.topic_id] = topic.name
