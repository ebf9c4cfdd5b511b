"""The way of a request to the active controller, from any node: in process when it is here, else one RPC.

A request that was surely not carried out (nobody leads, refused connection, NOT_CONTROLLER) is tried again until
its deadline; one whose outcome is unknown never is: it ends in REQUEST_TIMED_OUT and the caller decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from kraft.broker.client_quotas import ClientQuotas
from kraft.broker.mutations import as_check
from kraft.protocol.errors import NotController, RequestTimedOut
from metadata.controller.requests import AlterPartition, ErrorDetail, Request
from metadata.environment import Clock, ConnectionClosed, NotConnected
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.quorum.log import Leadership
from metadata.retries import ELECTION_RETRY_MS, retry_until
from metadata.settings import BrokerSettings

Reply = TypeVar("Reply")

Submit: TypeAlias = "Callable[[Request[Any]], Awaitable[Any]]"
Counted: TypeAlias = "Callable[[Request[Any], Submit], Awaitable[Any]]"

NOT_DONE = (NotController, ConnectionRefusedError, NotConnected)
"""Errors after which a request was surely not carried out."""


class LocalController(Protocol):
    @property
    def is_active(self) -> bool: ...
    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply: ...


class RemoteController(Protocol):
    async def request(self, node_id: int, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """One attempt. Raises ConnectionRefusedError or NotConnected (surely not done), ConnectionClosed or another
        OSError (unknown), or the KafkaError of the refusal."""
        ...


class Control(Protocol):
    """Requests to the active controller, wherever it is."""

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply: ...


class ControllerDoor:
    def __init__(
        self,
        *,
        clock: Clock,
        leadership: Callable[[], Leadership],
        local: LocalController | None,
        remote: RemoteController,
        counted: Counted = lambda request, submit: submit(request),
    ) -> None:
        """`counted` submits what the quota of a client leaves of its request, see `submit_counted`."""
        self._clock = clock
        self._leadership = leadership
        self._local = local
        self._remote = remote
        self._counted = counted

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Raises the KafkaError of a refusal, NotController when none was found, RequestTimedOut when unknown."""
        clock = self._clock
        deadline_ms = clock.monotonic_ms() + timeout_ms

        def left_ms() -> int:
            return max(deadline_ms - clock.monotonic_ms(), 1)

        try:
            return await retry_until(
                deadline_ms,
                lambda: self._attempt(request, timeout_ms=left_ms()),
                clock=clock,
                retriable=lambda error: isinstance(error, NOT_DONE),
                wake=lambda: clock.sleep(min(ELECTION_RETRY_MS, left_ms())),
            )
        except NOT_DONE as error:
            raise NotController(f"no active controller was found within {timeout_ms} ms; try again later") from error
        except (ConnectionClosed, OSError) as lost:
            what = f"{type(lost).__name__}: {lost}".removesuffix(": ")
            raise RequestTimedOut(
                f"the controller did not answer ({what}); the request may or may not have been done"
            ) from lost

    async def _attempt(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        leadership = self._leadership()
        if leadership.is_self:
            local = self._local
            if local is None:
                raise NotController("this node has no controller role")
            if not local.is_active:
                return await local.submit(request, timeout_ms=timeout_ms)
            return cast(Reply, await self._counted(request, lambda left: local.submit(left, timeout_ms=timeout_ms)))
        if leadership.leader_id < 0:
            raise NotController("no leader of the metadata quorum is known")
        return await self._remote.request(leadership.leader_id, request, timeout_ms=timeout_ms)


async def submit_counted(
    request: Request[Reply], submit: Submit, *, quotas: ClientQuotas | None, image: MetadataImage, clock: Clock
) -> Reply:
    """Submit what the quota of the current client leaves of its request (KIP-599). Only what the active controller
    would do is counted, so it is asked that first. Raises ThrottlingQuotaExceeded 89 when nothing is left."""
    if quotas is None or not quotas.counts(request):
        return cast(Reply, await submit(request))
    check = as_check(request)
    checked = {} if check is None else await submit(check)
    drawn = quotas.change_metadata(request, image, clock.monotonic_ms(), checked)
    return drawn.complete(await submit(drawn.request))


class AlterPartitionSender:
    """Changes of an ISR, as `replication` sends them: one attempt within the replica socket timeout. It repeats them
    itself (I8)."""

    def __init__(self, door: ControllerDoor, settings: Callable[[], BrokerSettings]) -> None:
        self._door = door
        self._settings = settings

    async def alter(self, request: AlterPartition) -> Mapping[TopicIdPartition, PartitionImage | ErrorDetail]:
        return await self._door.control(request, timeout_ms=self._settings().replica_socket_timeout_ms)
