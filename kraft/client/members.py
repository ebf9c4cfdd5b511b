"""A member of a group: a REST consumer instance, which no node owns, so that any node serves its next request.

A batch is asked for by its token. The same token brings the same batch again, from any node, so an answer that is
lost loses nothing; going on to the next acknowledges it. A member that was away for too long joins again, and what it
did not acknowledge comes again: at least once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from kraft.client.connection import Connection
from kraft.client.errors import ServerError
from kraft.client.positions import TopicPartition
from kraft.client.records import Record
from kraft.client.response import Request, checked, segment, server_error
from kraft.client.settings import ConsumerSettings
from kraft.protocol.media_types import BINARY_JSON, V2_JSON

POLL_SLACK_MS: Final = 15_000
"""Beyond fetch.max.wait.ms: joining may wait for a rebalance before it reads."""
FIRST_TOKEN: Final = 1
INSTANCE_GONE: Final = 40403
NAME_TAKEN: Final = 40902
WRONG_TOKEN: Final = 40904
_log = logging.getLogger(__name__)


class _Header(msgspec.Struct):
    key: str
    value: bytes | None


class _Consumed(msgspec.Struct):
    """One record in the JSON of the node; bytes are base64."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int
    headers: list[_Header]


_decode = msgspec.json.Decoder(list[_Consumed]).decode


class Member:
    def __init__(
        self,
        group: str,
        *,
        topics: Sequence[str],
        topic_pattern: str | None,
        connection: Connection,
        settings: ConsumerSettings,
    ) -> None:
        self.group = group
        self._subscription: Mapping[str, Any] = (
            {"topics": list(topics)} if topic_pattern is None else {"topic_pattern": topic_pattern}
        )
        self._connection = connection
        self._settings = settings
        self._path = ""
        self._name = ""
        self._token = FIRST_TOKEN
        self.joins = 0
        """Number of times that it joined the group; after a second time records may be read again."""

    async def poll(self) -> list[Record]:
        """The next batch, which acknowledges the one before; empty when nothing is new. Raises KraftError."""
        if not self._path:
            await self._join()
        wait_ms = self._settings.fetch_max_wait_ms
        query = f"?timeout={wait_ms}&max_bytes={self._settings.fetch_max_bytes}&token={self._token}"
        request = Request(
            method="GET",
            path=f"{self._path}/records{query}",
            headers={"Accept": BINARY_JSON},
            timeout_ms=wait_ms + POLL_SLACK_MS,
        )
        answer = await self._connection.ask(request)
        if not answer.is_success:
            return self._lost_or_raise(server_error(answer))
        self._token = int(answer.headers["x-next-token"])
        return [
            Record(
                each.topic, each.partition, each.offset, each.timestamp, each.key, each.value,
                tuple((header.key, header.value) for header in each.headers),
            )
            for each in _decode(answer.body)
        ]  # fmt: skip

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Offsets to go on from. Raises ServerError, with code 22 for a partition that is not the member's any more."""
        if not positions or not self._path:
            return
        rows = [{"topic": w.topic, "partition": w.partition, "offset": offset} for w, offset in positions.items()]
        await self._post(self._path + "/offsets", {"partitions": rows})

    @property
    def instance(self) -> str:
        """Its name in the group; empty before it has joined."""
        return self._name if self._path else ""

    async def rewind(self) -> None:
        """Read on from the committed offsets, and where there is none from auto.offset.reset."""
        if not self._path:
            return
        document = await self._connection.get(self._path + "/offsets")
        rows = [{name: each[name] for name in ("topic", "partition", "offset")} for each in document["offsets"]]
        known = [row for row in rows if row["offset"] >= 0]
        if known:
            await self._post(self._path + "/positions", {"offsets": known})
        new = [{"topic": row["topic"], "partition": row["partition"]} for row in rows if row["offset"] < 0]
        if new:
            place = "beginning" if self._settings.auto_offset_reset == "earliest" else "end"
            await self._post(f"{self._path}/positions/{place}", {"partitions": new})

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read on from there. Raises ServerError, with code 22 for a partition that is not the member's any more."""
        rows = [{"topic": w.topic, "partition": w.partition, "offset": offset} for w, offset in positions.items()]
        await self._post(self._path + "/positions", {"offsets": rows})

    async def assignment(self) -> tuple[TopicPartition, ...]:
        """The partitions that are its own now."""
        if not self._path:
            return ()
        document = await self._connection.get(self._path + "/assignments")
        return tuple(TopicPartition(each["topic"], each["partition"]) for each in document["partitions"])

    async def leave(self) -> None:
        """Give its partitions to the others at once. Raises KraftError when no node answers; it expires then."""
        if not self._path:
            return
        path, self._path = self._path, ""
        answer = await self._connection.ask(self._connection.request("DELETE", path))
        if not answer.is_success and server_error(answer).error_code != INSTANCE_GONE:
            raise server_error(answer)

    async def _join(self) -> None:
        settings = self._settings
        name = f"kraft-client-{self._connection.world.rng.randbytes(8).hex()}"
        document = {
            "name": name,
            "format": "binary",
            "auto.offset.reset": settings.auto_offset_reset,
            "auto.commit.enable": settings.enable_auto_commit,
            "fetch.min.bytes": settings.fetch_min_bytes,
            "isolation.level": settings.isolation_level,
            "consumer.request.timeout.ms": settings.fetch_max_wait_ms,
            "consumer.instance.timeout.ms": settings.consumer_instance_timeout_ms,
        }
        # The name is new, so one that is taken was taken by an earlier attempt of ours.
        await self._post(f"/consumers/{segment(self.group)}", document, done_code=NAME_TAKEN)
        path = f"/consumers/{segment(self.group)}/instances/{segment(name)}"
        await self._post(path + "/subscription", self._subscription)
        self._path, self._token, self._name = path, FIRST_TOKEN, name
        self.joins += 1

    def _lost_or_raise(self, error: ServerError) -> list[Record]:
        if error.error_code not in (INSTANCE_GONE, WRONG_TOKEN):
            raise error
        _log.warning("this member of group %s has to join again: %s", self.group, error.message)
        self._path = ""
        return []

    async def _post(self, path: str, document: Any, *, done_code: int | None = None) -> None:
        request = self._connection.request("POST", path, document)
        request = Request(
            method="POST",
            path=path,
            body=request.body,
            headers={"Content-Type": V2_JSON},
            timeout_ms=request.timeout_ms,
        )
        checked(await self._connection.ask(request, is_done=lambda error: error.error_code == done_code))
