"""An administrator's client without sockets: requests are encoded, decoded and handled as on the Kafka port, before
the real controller's decisions. Nothing is awaited but the handler: `World` decides at once."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from kraft.broker.client_quotas import ClientQuotas
from kraft.broker.gateway import NodeInfo
from kraft.broker.permissions import Permissions, permissions_of
from kraft.broker.principal import ANONYMOUS, Principal
from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError
from kraft.wire.access import Guard
from kraft.wire.access_table import access_of
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.node_parts import NodeParts
from metadata.authorizer import Authorizer, authorizer_of
from metadata.controller.requests import CreateTopics, ErrorDetail, NewTopic, OfflineReplicas, Request
from metadata.image import DEFAULT_LISTENER, MetadataImage
from metadata.settings import BrokerSettings, TopicSettings, applied, broker_settings, setting_text, topic_settings
from tests.support.controller_world import CLUSTER_ID, World
from tests.support.node_parts import node_parts_of

Response = TypeVar("Response", bound=TopLevel)


class WorldGateway:
    """What of `Gateway` administration asks for: node 1's, whose controller is a `World`."""

    def __init__(self, world: World, *, node_id: int = 1) -> None:
        self.world = world
        self.node_id = node_id
        self.cluster_id = CLUSTER_ID
        self.asked: list[tuple[Request[Any], int]] = []
        self.changes: list[tuple[str, list[str], list[str]]] = []
        self.unreachable: KafkaError | None = None
        """Raised in place of an answer of the controller."""
        self.active = -1
        """Id of the active controller, as far as this node knows."""
        self.nodes: dict[int, NodeInfo] = {
            each: NodeInfo(node_id=each, roles=("broker",), rest="", kafka="", quorum=None, rack=None)
            for each in world.image.brokers
        }

    @property
    def image(self) -> MetadataImage:
        return self.world.image

    @property
    def settings(self) -> BrokerSettings:
        image = self.image
        return broker_settings(
            self.world.static, applied(image.config("broker", "")), applied(image.config("broker", str(self.node_id)))
        )

    @property
    def authorizer(self) -> Authorizer | None:
        return authorizer_of(self.settings, self.image)

    @property
    def quotas(self) -> ClientQuotas | None:
        return ClientQuotas(self.image.quotas) if self.image.quotas else None

    def note_change(self, _principal: Principal | None, what: str, names: Any, errors: Any = ()) -> None:
        self.changes.append((what, list(names), list(errors)))

    def permissions(self, principal: Principal, *, what: str) -> Permissions | None:
        return permissions_of(self.authorizer, principal)

    @property
    def described_settings(self) -> Mapping[str, str]:
        return {name: setting_text(value) for name, value in self.world.static.items()}

    @property
    def controller_id(self) -> int:
        return self.active

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        result = (await self.control(CreateTopics(topics=(new,)), timeout_ms=30_000))[new.name]
        return result if isinstance(result, ErrorDetail) else cast(UUID, result.topic_id)

    def topic_settings(self, topic: str) -> TopicSettings:
        return topic_settings(self.settings, self.image.config("topic", topic))

    async def control(self, request: Request[Any], *, timeout_ms: int) -> Any:
        self.asked.append((request, timeout_ms))
        if self.unreachable is not None:
            raise self.unreachable
        return self.world.decide(cast(Any, request)).reply


class NothingLost:
    """`LostBrokers` of a broker that has no connections to others."""

    def are_awaited(self) -> bool:
        return False

    async def seen(self, node_ids: Collection[int]) -> None:
        del node_ids

    def lately_fenced(self) -> tuple[int, ...]:
        return ()


class AdminClient:
    def __init__(
        self,
        apis: Callable[[NodeParts], Sequence[ApiHandler]],
        world: World,
        *,
        node_id: int = 1,
        listener: str = DEFAULT_LISTENER,
        principal: Principal = ANONYMOUS,
        **parts: Any,
    ) -> None:
        self.gateway = WorldGateway(world, node_id=node_id)
        self.offline_replicas: OfflineReplicas = {}
        self.parts = node_parts_of(gateway=self.gateway, lost=NothingLost(), lifecycle=self, **parts)
        handlers = apis(self.parts)
        if self.gateway.authorizer is not None:
            guard = Guard(self.parts.gateway, access_of)
            handlers = [guard.guarded(each) for each in handlers]
        self._apis = {api.request: api for api in handlers}
        self._connection = ClientConnection(peer="127.0.0.1:5", listener=listener, principal=principal)

    def ask(self, request: TopLevel, version: int, kind: type[Response]) -> Response:
        """Encode and decode as the session does, in this version, both ways."""
        return asyncio.run(self._ask_alone(request, version, kind))

    async def _ask_alone(self, request: TopLevel, version: int, kind: type[Response]) -> Response:
        """And all that is done behind the answer."""
        answer = await self.ask_now(request, version, kind)
        await asyncio.gather(*asyncio.all_tasks() - {cast(Any, asyncio.current_task())})
        return answer

    async def ask_now(self, request: TopLevel, version: int, kind: type[Response]) -> Response:
        """Beside whatever else runs on the loop of the test."""
        api = self._apis[type(request)]
        message = _over_the_wire(request, version, type(request))
        call = Call(message=message, version=version, client_id="admin", connection=self._connection)
        answer = await _answered(api, call)
        assert api.response is kind, (api.response, kind)
        return _over_the_wire(answer, version, kind)


async def _answered(api: ApiHandler, call: Call[Any]) -> TopLevel:
    try:
        answer: Any = api.handle(call)
        if inspect.isawaitable(answer):
            answer = await answer
    except KafkaError as error:
        answer = api.refuse(call.message, call.version, error)
    return cast(TopLevel, answer)


def _over_the_wire(message: TopLevel, version: int, kind: type[Response]) -> Response:
    data = b"".join(bytes(part) for part in encode_body(message, version))
    return decode_body(kind, version, memoryview(data), 0)
