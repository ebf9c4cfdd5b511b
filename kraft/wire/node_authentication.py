"""A node proves that it has the cluster's secret: SaslHandshake, then two SaslAuthenticate requests, within a time and
a number of requests that a stranger may have."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from kraft.broker.principal import NodePrincipal, host_of
from kraft.protocol import apis, codec
from kraft.protocol.apis import Api
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import ClusterAuthorizationFailed, KafkaError
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.scram import Credential
from kraft.wire.api_handler import CloseConnection
from kraft.wire.api_versions import node_versions
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.sasl import Authentication
from metadata.environment import Environment, FrameConnection
from metadata.unauthenticated import KAFKA_LISTENER, UnauthenticatedConnections

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeAuthentication:
    """What the authentications of all connections of a server have in common."""

    environment: Environment
    credential: Credential
    handlers: ApiHandlers
    """They refuse requests before the proof."""
    frame_bytes_max: int
    """Limit of a frame after authentication."""
    unauthenticated: UnauthenticatedConnections = field(
        default_factory=lambda: UnauthenticatedConnections(KAFKA_LISTENER)
    )

    async def first_frame(self, connection: FrameConnection) -> memoryview | None:
        """The first request of a connection; None when it did not come in time. Raises ConnectionClosed."""
        limits = self.unauthenticated.limits
        try:
            with self.unauthenticated.waiting(connection):
                async with self.environment.clock.timeout(limits.wait_ms):
                    return await connection.receive()
        except TimeoutError:
            LOG.info("closing %s: it sent no request in %d ms", connection.peer, limits.wait_ms)
            return None

    async def principal(self, connection: FrameConnection, first: memoryview) -> NodePrincipal | None:
        """The node that proves the secret, with `first` as its first request; None when the connection has to be
        closed. Raises ConnectionClosed."""
        limits = self.unauthenticated.limits
        authentication = Authentication(self.credential, self.environment.rng, host=host_of(connection.peer))
        try:
            with self.unauthenticated.waiting(connection):
                async with self.environment.clock.timeout(limits.wait_ms):
                    await self._authenticate(authentication, connection, first)
        except TimeoutError:
            LOG.info("closing %s: not authenticated in %d ms", connection.peer, limits.wait_ms)
            return None
        except Malformed as error:
            LOG.warning("closing %s: %s", connection.peer, error)
            return None
        return authentication.principal

    async def _authenticate(
        self, authentication: Authentication, connection: FrameConnection, first: memoryview
    ) -> None:
        """Until it has a principal, or the connection is to be closed."""
        frame, frames_max = first, self.unauthenticated.limits.frames_max
        for _ in range(frames_max):
            if not self._step(authentication, connection, frame) or authentication.principal is not None:
                return
            frame = await connection.receive()
        raise Malformed(f"{frames_max} requests, and not authenticated")

    def _step(self, authentication: Authentication, connection: FrameConnection, frame: memoryview) -> bool:
        """False: the connection is to be closed."""
        header = codec.decode_request_head(frame)
        if header.api_key == apis.API_VERSIONS.key:
            version, response = node_versions(header.api_version)
            connection.send(codec.encode_response(type(response), version, header.correlation_id, response))
            return True
        api = _api_of(header)
        message, *_ = codec.decode_request(apis.request_type(api), header, frame)
        if isinstance(message, SaslHandshakeRequestData):
            step = authentication.handshake(message)
        elif isinstance(message, SaslAuthenticateRequestData):
            step = authentication.authenticate(message, header.client_id)
            if authentication.principal is not None:
                connection.take_frames(bytes_max=self.frame_bytes_max)
        else:
            return self._refused(connection, header, message)
        _send(connection, header, step.response)
        if step.is_last:
            LOG.warning("closing %s: %s", connection.peer, authentication.reason)
        return not step.is_last

    def _refused(self, connection: FrameConnection, header: RequestHeader, message: TopLevel) -> bool:
        handler = self.handlers.get(header.api_key)
        if handler is None:
            return False
        error = ClusterAuthorizationFailed("authenticate first: SaslHandshake, then SaslAuthenticate (SCRAM-SHA-256)")
        try:
            response = handler.refuse(message, header.api_version, error)
        except CloseConnection:
            return False
        _send(connection, header, response, refused=error)
        return True


def _send(
    connection: FrameConnection, header: RequestHeader, response: TopLevel, *, refused: KafkaError | None = None
) -> None:
    version, correlation_id = header.api_version, header.correlation_id
    connection.send(codec.encode_response(type(response), version, correlation_id, response, refused=refused))


def _api_of(header: RequestHeader) -> Api:
    """Raises Malformed for an API or a version that no node sends: Kafka closes such a connection, too."""
    api = apis.BY_KEY.get(header.api_key)
    if api is None or not api.nodes:
        raise Malformed(f"unknown API key {header.api_key}")
    if header.api_version not in api.nodes:
        raise Malformed(f"{api.name} version {header.api_version}; {api.nodes[0]} to {api.nodes[-1]} are taken")
    return api
