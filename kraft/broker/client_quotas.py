"""Quotas of clients: which one holds for a client, how much was used, and how long to wait.

The rules are those of KIP-13, KIP-124, KIP-219, KIP-546 and KIP-599.

Each broker counts bytes for itself, as in Kafka. A rate is measured over eleven samples of a second; a client that
has used more than allowed is throttled for as long as it takes until the rate is the quota. Changes of metadata are
drawn, at the active controller, from a bucket of tokens, which fills with the quota. Pure, apart from what was counted:
time comes with each call.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from kraft.broker.mutations import UNCHECKED, Drawn, Reply, mutations, note_wait, without
from kraft.protocol.errors import ThrottlingQuotaExceeded
from metadata.controller.decide.client_quotas import (
    CLIENT_ID,
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    REQUEST_PERCENTAGE,
    USER,
)
from metadata.controller.requests import CreatePartitions, CreateTopics, DeleteTopics, ErrorDetail, Request
from metadata.image import MetadataImage, QuotaEntity

SAMPLES: Final = 11
"""quota.window.num of Kafka."""
SAMPLE_MS: Final = 1_000
"""quota.window.size.seconds of Kafka."""
THROTTLE_MS_MAX: Final = 60_000
"""Longest wait of a client at a time; a client that is still over it waits again."""
QUOTA_EXCEEDED: Final = "The throttling quota has been exceeded."
COUNTED_MAX: Final = 10_000
"""Users and client ids that are counted; when there are more, those that were idle for longest begin again."""


class Owner(NamedTuple):
    """User and client id of a request."""

    user: str
    client_id: str | None
    is_permissive: bool = False
    """It does not know error 89: what it changes beyond its quota is done, and it waits afterwards (KIP-599)."""


OnThrottled = Callable[[str, Owner, float, int], None]
"""Gets the quota, the client, what the quota allows per second, and how long the client has to wait in ms."""

OWNER: ContextVar[Owner | None] = ContextVar("OWNER", default=None)
"""The client for whom the current task works, while there are quotas; None: a node for itself."""


class Rate:
    """An amount for each second, over the latest samples."""

    __slots__ = ("_samples", "total")

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque()
        self.total = 0.0

    def add(self, amount: float, now_ms: int) -> None:
        self._forget(now_ms)
        if self._samples and now_ms - self._samples[-1][0] < SAMPLE_MS:
            begun_ms, before = self._samples.pop()
            self._samples.append((begun_ms, before + amount))
        else:
            self._samples.append((now_ms, amount))
        self.total += amount

    def over_ms(self, bound: float, now_ms: int) -> int:
        """How long nothing may be added until the rate is the bound; 0 below it."""
        self._forget(now_ms)
        if not self._samples:
            return 0
        elapsed_ms = max(now_ms - self._samples[0][0], (SAMPLES - 1) * SAMPLE_MS)
        rate = self.total * 1_000 / elapsed_ms
        return round((rate - bound) / bound * elapsed_ms) if rate > bound else 0

    def _forget(self, now_ms: int) -> None:
        while self._samples and now_ms - self._samples[0][0] >= SAMPLES * SAMPLE_MS:
            self.total -= self._samples.popleft()[1]
        if not self._samples:
            self.total = 0.0


class Tokens:
    """A bucket that fills with the quota and holds what it allows within all samples. It may be overdrawn once."""

    __slots__ = ("_at_ms", "_left")

    def __init__(self, bound: float, now_ms: int) -> None:
        self._left, self._at_ms = bound * SAMPLES * SAMPLE_MS / 1_000, now_ms

    def take(self, amount: float, bound: float, now_ms: int, *, is_permissive: bool = False) -> int:
        """How long to wait when nothing is left, else 0. Then nothing was taken, unless it is permissive."""
        filled = self._left + bound * (now_ms - self._at_ms) / 1_000
        self._left, self._at_ms = min(filled, bound * SAMPLES * SAMPLE_MS / 1_000), now_ms
        if is_permissive:
            self._left -= amount
        if self._left < 0:
            return max(1, round(-self._left / bound * 1_000))
        if not is_permissive:
            self._left -= amount
        return 0


class ClientQuotas:
    """The quotas of the current image, and what clients have used of them."""

    def __init__(
        self, quotas: Mapping[QuotaEntity, Mapping[str, float]], on_throttled: OnThrottled | None = None
    ) -> None:
        self._quotas = quotas
        self._on_throttled = on_throttled
        self._found: dict[tuple[str, Owner], tuple[tuple[str, ...], float] | None] = {}
        self._rates: OrderedDict[tuple[str, ...], Rate] = OrderedDict()
        self._tokens: OrderedDict[tuple[str, ...], Tokens] = OrderedDict()

    def update(self, quotas: Mapping[QuotaEntity, Mapping[str, float]]) -> None:
        """Other quotas hold from now on; what was used stays counted."""
        self._quotas = quotas
        self._found.clear()

    def used(self, key: str, owner: Owner, amount: float, now_ms: int) -> int:
        """Count what a client has used. Returns how long it is throttled, 0 within its quota."""
        found = self._find(key, owner)
        if found is None:
            return 0
        counted, bound = found
        rate = _latest(self._rates, counted) or self._rates.setdefault(counted, Rate())
        if amount:
            rate.add(amount, now_ms)
        wait_ms = min(rate.over_ms(bound, now_ms), THROTTLE_MS_MAX)
        if wait_ms and self._on_throttled is not None:
            self._on_throttled(key, owner, bound, wait_ms)
        return wait_ms

    def limits(self, key: str, owner: Owner) -> bool:
        """Whether the client has this quota."""
        return self._find(key, owner) is not None

    def worked(self, owner: Owner, percent: float, now_ms: int) -> int:
        """Count what a request of the client cost the loop, in percent of a second. Returns how long the client is
        throttled: a second at most, as in Kafka, for it is asked again at each request (KIP-124)."""
        return min(self.used(REQUEST_PERCENTAGE, owner, percent, now_ms), SAMPLE_MS)

    def fetched(self, owner: Owner, size: int, now_ms: int) -> tuple[int, bool]:
        """Count the records of a fetch. Returns how long the client is throttled, and whether it does not get them.
        They were not counted then. A client that has read nothing lately gets all, however large they are."""
        found = self._find(CONSUMER_BYTE_RATE, owner)
        if found is None:
            return 0, False
        counted, bound = found
        rate = _latest(self._rates, counted) or self._rates.setdefault(counted, Rate())
        has_read = rate.over_ms(bound, now_ms) > 0 or rate.total > 0
        wait_ms = self.used(CONSUMER_BYTE_RATE, owner, size, now_ms)
        is_refused = wait_ms > 0 and has_read and size > 0
        if is_refused:
            rate.add(-size, now_ms)
        return wait_ms, is_refused

    def fetch_bytes_max(self, owner: Owner) -> int | None:
        """What one fetch may read: what the quota allows in all samples; None without one."""
        found = self._find(CONSUMER_BYTE_RATE, owner)
        return None if found is None else max(1, int(found[1] * (SAMPLES - 1) * SAMPLE_MS / 1_000))

    def counts(self, request: Request[Any]) -> bool:
        """Whether a quota limits what the current client changes with such a request."""
        owner = OWNER.get()
        is_change = isinstance(request, CreateTopics | CreatePartitions | DeleteTopics)
        return is_change and owner is not None and self._find(CONTROLLER_MUTATION_RATE, owner) is not None

    def change_metadata(
        self, request: Request[Reply], image: MetadataImage, now_ms: int, checked: Mapping[Any, object] = UNCHECKED
    ) -> Drawn[Reply]:
        """Draw what the request of the current client changes, topic by topic, as Kafka does: those beyond the quota
        are refused, the others are done. `checked`: what the controller would answer, as what fails is not counted.
        Raises ThrottlingQuotaExceeded 89 when none is left."""
        owner = OWNER.get()
        found = None if owner is None else self._find(CONTROLLER_MUTATION_RATE, owner)
        changes = {} if found is None else mutations(request, image, checked)
        if owner is None or found is None or not any(changes.values()):
            return Drawn(request)
        counted, bound = found
        tokens = _latest(self._tokens, counted) or self._tokens.setdefault(counted, Tokens(bound, now_ms))
        refused: dict[Any, ErrorDetail] = {}
        wait_ms = 0
        for topic, count in changes.items():
            topic_ms = tokens.take(count, bound, now_ms, is_permissive=owner.is_permissive) if count else 0
            wait_ms = max(wait_ms, min(topic_ms, THROTTLE_MS_MAX))
            if topic_ms and not owner.is_permissive:
                refused[topic] = ErrorDetail(ThrottlingQuotaExceeded, QUOTA_EXCEEDED)
        if wait_ms and self._on_throttled is not None:
            self._on_throttled(CONTROLLER_MUTATION_RATE, owner, bound, wait_ms)
        if len(refused) == len(changes):
            error = ThrottlingQuotaExceeded(QUOTA_EXCEEDED)
            error.wait_ms = wait_ms
            raise error
        note_wait(wait_ms)
        return Drawn(without(request, refused), refused)

    def _find(self, key: str, owner: Owner) -> tuple[tuple[str, ...], float] | None:
        """What the quota is counted for, and the quota; None: nothing limits this client."""
        if (key, owner) not in self._found:
            if len(self._found) >= COUNTED_MAX:
                self._found.clear()
            self._found[key, owner] = next(
                (
                    ((key, *counted), self._quotas[entity][key])
                    for entity, counted in precedence(owner)
                    if key in self._quotas.get(entity, ())
                ),
                None,
            )
        return self._found[key, owner]


def _latest(counted: OrderedDict[tuple[str, ...], Any], key: tuple[str, ...]) -> Any:
    if key in counted:
        counted.move_to_end(key)
    elif len(counted) >= COUNTED_MAX:
        counted.popitem(last=False)
    return counted.get(key)


def precedence(owner: Owner) -> Iterator[tuple[QuotaEntity, tuple[str, ...]]]:
    """The entities whose quota holds for a client, the first that has one, each with what it is counted for: a quota of
    users counts all client ids of a user together, one of client ids all users."""
    user, client = owner.user, owner.client_id or ""
    for name in (user, None):
        yield ((CLIENT_ID, client), (USER, name)), (user, client)
        yield ((CLIENT_ID, None), (USER, name)), (user, client)
        yield ((USER, name),), (user, "")
    yield ((CLIENT_ID, client),), ("", client)
    yield ((CLIENT_ID, None),), ("", client)
