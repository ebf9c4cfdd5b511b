"""The follower's side of an incremental fetch session (KIP-227). Pure.

Invariant: `_told` is what the leader knows of this session, as long as its answers carry no session error.
A round in which three of thousands of partitions move costs as much as one of three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from metadata.image import TopicIdPartition
from replication.requests import INITIAL_EPOCH, NO_SESSION, FetchPartition, FetchResponse
from replication.sessions.cache import SESSION_EPOCH_MAX


class FollowerSession:
    def __init__(self) -> None:
        self.session_id = NO_SESSION
        self.epoch = INITIAL_EPOCH
        self._told: dict[TopicIdPartition, FetchPartition] = {}

    def changes(
        self, wanted: Mapping[TopicIdPartition, FetchPartition], moved: Iterable[TopicIdPartition]
    ) -> tuple[tuple[FetchPartition, ...], tuple[TopicIdPartition, ...]]:
        """What the next request has to name: changed and new partitions, and those to forget.

        `moved` are those whose question may be another, new or gone since this was asked last.
        """
        if self.epoch == INITIAL_EPOCH:
            self._told = dict(wanted)
            return tuple(wanted.values()), ()
        told = self._told
        changed, forgotten = [], []
        for key in moved:
            fetch, known = wanted.get(key), told.get(key)
            if fetch is None:
                if told.pop(key, None) is not None:
                    forgotten.append(key)
            elif known is not fetch and (known is None or known.fetch_offset != fetch.fetch_offset or known != fetch):
                told[key] = fetch
                changed.append(fetch)
        return tuple(changed), tuple(forgotten)

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
