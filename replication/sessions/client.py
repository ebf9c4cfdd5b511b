"""The follower's side of an incremental fetch session (KIP-227). Pure.

Invariant: `_told` is what the leader knows of this session, as long as its answers carry no session error.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

from metadata.image import TopicIdPartition
from replication.requests import INITIAL_EPOCH, NO_SESSION, FetchPartition, FetchResponse
from replication.sessions.cache import SESSION_EPOCH_MAX


class FollowerSession:
    def __init__(self) -> None:
        self.session_id = NO_SESSION
        self.epoch = INITIAL_EPOCH
        self._told: dict[TopicIdPartition, FetchPartition] = {}

    def told(self, key: TopicIdPartition) -> FetchPartition | None:
        """The question about a partition as the leader knows it."""
        return self._told.get(key)

    def changes(
        self, wanted: Mapping[TopicIdPartition, FetchPartition]
    ) -> tuple[tuple[FetchPartition, ...], tuple[TopicIdPartition, ...]]:
        """What the next request has to name: changed and new partitions, and those to forget."""
        if self.epoch == INITIAL_EPOCH:
            self._told = dict(wanted)
            return tuple(wanted.values()), ()
        told = self._told
        if len(told) == len(wanted) and all(map(operator.is_, told.values(), wanted.values())):
            return (), ()  # an idle round: the very same questions
        changed = []
        for key, fetch in wanted.items():
            known = told.get(key)
            if known is not fetch and known != fetch:
                changed.append(fetch)
        forgotten = () if len(told) == len(wanted) and not changed else tuple(k for k in told if k not in wanted)
        self._told = dict(wanted)
        return tuple(changed), forgotten

    def on_response(self, response: FetchResponse) -> None:
        """A session error, or no session given: start again with a full request."""
        if response.error_code or response.session_id == NO_SESSION:
            self.reset()
        elif self.epoch == INITIAL_EPOCH:
            self.session_id, self.epoch = response.session_id, 1
        else:
            self.epoch = 1 if self.epoch == SESSION_EPOCH_MAX else self.epoch + 1

    def reset(self) -> None:
        """What the leader knows is unknown now. The old session's id lets the leader drop it."""
        self.epoch = INITIAL_EPOCH
        self._told = {}
