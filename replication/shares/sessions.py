"""Share sessions (KIP-932): which partitions of a broker a member of a share group fetches, request by request. Pure.

A session belongs to a group and a member, and to the connection that used it last: when that ends, so does the session.
An older connection of the same member ends nothing (KAFKA-19950). A request of epoch 0 opens a session in place of the
one before, the following ones count up, and -1 closes it. Nobody is pushed out: one session more than allowed is
refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kraft.protocol.errors import (
    InvalidRequest,
    InvalidShareSessionEpoch,
    ShareSessionLimitReached,
    ShareSessionNotFound,
)
from metadata.image import TopicIdPartition

FINAL_EPOCH: Final = -1
INITIAL_EPOCH: Final = 0
EPOCH_MAX: Final = 2**31 - 1
PARTITIONS_MAX: Final = 4_096
"""Partitions of one session. Each fetch looks at all of them, those that do not exist too: a client may name a topic
that its broker does not know yet."""


class SessionKey(NamedTuple):
    """A member of a share group."""

    group: str
    member: str


@dataclass(slots=True, eq=False)
class ShareSession:
    """What one member fetches from this broker."""

    key: SessionKey
    connection: object
    next_epoch: int = 1
    partitions: dict[TopicIdPartition, None] = field(default_factory=dict)

    def update(self, added: Iterable[TopicIdPartition], forgotten: Iterable[TopicIdPartition]) -> None:
        """Partitions that are named for their acknowledgements are added too, as in Kafka. Raises InvalidRequest 42 for
        more than PARTITIONS_MAX of them, and changes nothing then."""
        new = dict.fromkeys(each for each in added if each not in self.partitions)
        if len(self.partitions) + len(new) > PARTITIONS_MAX:
            raise InvalidRequest(f"a share session has at most {PARTITIONS_MAX} partitions: forget others first")
        self.partitions.update(new)
        for partition in forgotten:
            self.partitions.pop(partition, None)

    def in_turn(self) -> Sequence[TopicIdPartition]:
        """Each request begins with another partition, so that the first one does not fill every answer."""
        order = list(self.partitions)
        first = self.next_epoch % len(order) if order else 0
        return order[first:] + order[:first]


class ShareSessions:
    """All share sessions of one broker."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, ShareSession] = {}
        self._by_group: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, key: SessionKey, epoch: int, connection: object, *, sessions_max: int) -> ShareSession:
        """The session of a request that may open one: ShareFetch. Raises ShareSessionNotFound 122,
        InvalidShareSessionEpoch 123, ShareSessionLimitReached 133. One that is closed by the request stays until
        `close`, after its acknowledgements.
        """
        if epoch != INITIAL_EPOCH:
            return self.go_on(key, epoch, connection)
        if key not in self._sessions and len(self._sessions) >= sessions_max:
            raise ShareSessionLimitReached(f"this broker has {sessions_max} share sessions, and takes no more")
        if key not in self._sessions:
            self._by_group[key.group] += 1
        session = self._sessions[key] = ShareSession(key, connection)
        return session

    def has_group(self, group: str) -> bool:
        """Whether a member of the group has a session."""
        return group in self._by_group

    def go_on(self, key: SessionKey, epoch: int, connection: object) -> ShareSession:
        """The session of a request that may open none: ShareAcknowledge. Raises ShareSessionNotFound 122,
        InvalidShareSessionEpoch 123.
        """
        if epoch == INITIAL_EPOCH:
            raise InvalidShareSessionEpoch("acknowledgements open no share session: fetch first")
        session = self._sessions.get(key)
        if session is None:
            raise ShareSessionNotFound(f"member {key.member!r} of group {key.group!r} has no share session here")
        if epoch != FINAL_EPOCH:
            if epoch != session.next_epoch:
                raise InvalidShareSessionEpoch(
                    f"the share session of {key.member!r} is at epoch {session.next_epoch}, not {epoch}"
                )
            session.next_epoch = 1 if epoch == EPOCH_MAX else epoch + 1
        session.connection = connection
        return session

    def close(self, key: SessionKey) -> None:
        """The member has closed its session."""
        if self._sessions.pop(key, None) is not None:
            self._by_group[key.group] -= 1
            if not self._by_group[key.group]:
                del self._by_group[key.group]

    def disconnected(self, connection: object) -> list[SessionKey]:
        """Ends the sessions that used this connection last, and returns whose they were."""
        ended = [key for key, session in self._sessions.items() if session.connection is connection]
        for key in ended:
            self.close(key)
        return ended
