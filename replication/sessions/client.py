"""The follower's side of an incremental fetch session (KIP-227). Pure.

Invariant: `_at_leader` is the state that the leader has of this session, as long as its answers have no session error.
A round in which three of thousands of partitions move costs as much as one of three partitions.
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
        self._at_leader: dict[TopicIdPartition, FetchPartition] = {}

    def changes(
        self, wanted: Mapping[TopicIdPartition, FetchPartition], moved: Iterable[TopicIdPartition]
    ) -> tuple[tuple[FetchPartition, ...], tuple[TopicIdPartition, ...]]:
        """The content of the next request: changed and new partitions, and those to forget.

        `moved` are partitions whose question may have changed, appeared or ended since the last call.
        """
        if self.epoch == INITIAL_EPOCH:
            self._at_leader = dict(wanted)
            return tuple(wanted.values()), ()
        at_leader = self._at_leader
        changed, forgotten = [], []
        for key in moved:
            fetch, known = wanted.get(key), at_leader.get(key)
            if fetch is None:
                if at_leader.pop(key, None) is not None:
                    forgotten.append(key)
            elif known is not fetch and (known is None or known.fetch_offset != fetch.fetch_offset or known != fetch):
                at_leader[key] = fetch
                changed.append(fetch)
        return tuple(changed), tuple(forgotten)

    def on_response(self, response: FetchResponse) -> None:
        """After a session error, or an answer without a session: start again with a full request."""
        if response.error_code or response.session_id == NO_SESSION:
            self.reset()
        elif self.epoch == INITIAL_EPOCH:
            self.session_id, self.epoch = response.session_id, 1
        else:
            self.epoch = 1 if self.epoch == SESSION_EPOCH_MAX else self.epoch + 1

    def reset(self) -> None:
        """Start again: the leader's state is unknown. The old session's id lets the leader drop it."""
        self.epoch = INITIAL_EPOCH
        self._at_leader = {}
