"""A consumer in a group: iterate over the records of the partitions that are its own, at least once each.

With enable.auto.commit what was iterated over is committed when the next batch is asked for, and at the end. A record
whose processing raised is not: leaving the `async with` by an exception commits what came before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError, KraftError, ServerError
from kraft.client.members import Member
from kraft.client.positions import TopicPartition
from kraft.client.record_iterator import AsyncIterated
from kraft.client.records import Record
from kraft.client.settings import ConsumerSettings

ILLEGAL_STATE: Final = 40903
"""Also of a commit for a partition that is not the member's any more."""
_log = logging.getLogger(__name__)


class AsyncConsumer(AsyncIterated):
    """From `AsyncClient.consumer` with a group. Leaving the `async with` leaves the group."""

    def __init__(
        self,
        topics: Sequence[str],
        *,
        group: str,
        topic_pattern: str | None,
        connection: Connection,
        settings: ConsumerSettings,
    ) -> None:
        if bool(topics) == (topic_pattern is not None):
            raise ConfigError("name topics, or a topic_pattern")
        super().__init__()
        self._settings = settings
        self._member = Member(
            group, topics=topics, topic_pattern=topic_pattern, connection=connection, settings=settings
        )
        self._is_closed = False

    @property
    def settings(self) -> ConsumerSettings:
        return self._settings

    @property
    def group(self) -> str:
        return self._member.group

    @property
    def instance(self) -> str:
        """Its name in the group; empty before the iteration began."""
        return self._member.instance

    @property
    def joins(self) -> int:
        """Number of times that it joined the group; after a second time records may be read again."""
        return self._member.joins

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """Behind the last record that was iterated over, by partition, since the last commit."""
        return self.progress.positions(with_current=True)

    async def __aenter__(self) -> AsyncConsumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end(with_current=error is None)

    async def close(self) -> None:
        """Commit, with enable.auto.commit, what was iterated over, and leave the group."""
        await self._end(with_current=True)

    async def poll(self) -> Sequence[Record] | None:
        """The next records, as in AsyncIterated. Raises ServerError, NothingDone when no node answers."""
        while not self._is_closed:
            joins = self._member.joins
            records = await self._member.poll()
            if self._settings.enable_auto_commit or self._member.joins != joins:
                self.progress.forget()  # the poll acknowledged it, or it comes again
            if records:
                return records
        return None

    async def commit(self) -> None:
        """Commit what was iterated over, with the record at hand. Raises ServerError: 22 for a lost partition."""
        self._check_open()
        positions = self.progress.positions(with_current=True)
        try:
            await self._member.commit(positions)
        except ServerError as error:
            if error.error_code == ILLEGAL_STATE:
                await self._forget_lost(positions)
            raise
        self.progress.committed(positions)

    async def rewind(self) -> None:
        """Go back to what was committed: all that was iterated over since comes again."""
        self._check_open()
        await self._member.rewind()
        self.progress.forget()

    async def assignment(self) -> tuple[TopicPartition, ...]:
        """The partitions that are its own now; none before the iteration began."""
        self._check_open()
        return await self._member.assignment()

    async def _end(self, *, with_current: bool) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            # Leaving commits all that was served: what was not iterated over has to be given back before.
            left = self.progress.left(with_current=with_current)
            if self._settings.enable_auto_commit and left:
                owned = await self._member.assignment()
                await self._member.seek({where: offset for where, offset in left.items() if where in owned})
            await self._member.leave()
        except KraftError as error:
            # A member that expires commits only what it had gone on from: nothing is lost, some comes again.
            _log.warning("the group learns of this end by consumer.instance.timeout.ms only: %s", error.message)

    async def _forget_lost(self, positions: Mapping[TopicPartition, int]) -> None:
        """Partitions that went to others are theirs to commit; the next commit leaves them out."""
        owned = await self._member.assignment()
        self.progress.committed({where: offset for where, offset in positions.items() if where not in owned})

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed("the consumer is closed; make another")
