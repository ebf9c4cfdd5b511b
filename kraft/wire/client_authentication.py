"""A client of a listener with SASL logs in before anything else, within a time and a number of requests."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from kraft.protocol import apis, codec
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.wire.api_handler import ClientConnection
from kraft.wire.api_versions import client_versions
from kraft.wire.client_login import ClientLogin, LoginRules
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.session import authenticates_as_node
from metadata.environment import Environment, FrameConnection
from metadata.unauthenticated import UnauthenticatedConnections

LOG = logging.getLogger(__name__)

LOGIN_FRAME_BYTES_MAX = 65_536
"""A longer frame of a client that has not logged in ends its connection: the longest is a token."""


@dataclass(frozen=True, slots=True)
class ClientAuthentication:
    """What the logins of all listeners of a server have in common."""

    environment: Environment
    handlers: ApiHandlers
    unauthenticated: UnauthenticatedConnections

    async def log_in(
        self,
        rules: LoginRules,
        connection: FrameConnection,
        first: memoryview,
        client: ClientConnection,
        *,
        takes_nodes: bool,
    ) -> memoryview | None:
        """Until `client` has its principal, or the connection has to be closed: None in both cases. Returns the frame
        with which a node begins to authenticate. Raises ConnectionClosed."""
        limits = self.unauthenticated.limits
        client.login = ClientLogin(rules, host=client.principal.host)
        try:
            with self.unauthenticated.waiting(connection):
                async with self.environment.clock.timeout(limits.wait_ms):
                    return await self._log_in(client.login, connection, first, client, takes_nodes=takes_nodes)
        except TimeoutError:
            LOG.info("closing %s: not logged in after %d ms", connection.peer, limits.wait_ms)
        except Malformed as error:
            LOG.info("closing %s: %s", connection.peer, error)
        return None

    async def _log_in(
        self,
        login: ClientLogin,
        connection: FrameConnection,
        frame: memoryview,
        client: ClientConnection,
        *,
        takes_nodes: bool,
    ) -> memoryview | None:
        frames_max = self.unauthenticated.limits.frames_max
        for _ in range(frames_max):
            header = codec.decode_request_head(frame)
            if takes_nodes and authenticates_as_node(header):
                return frame
            version, response = await self._answer(login, header, frame, client)
            if login.has_failed:
                await self.environment.clock.sleep(login.delay_ms)
            connection.send(codec.encode_response(type(response), version, header.correlation_id, response))
            if login.has_failed:
                LOG.info("closing %s: its login failed", connection.peer)
                return None
            if login.login is not None:
                client.principal = login.login.principal
                return None
            frame = await connection.receive()
            if header.api_key == apis.SASL_HANDSHAKE.key and header.api_version == 0:
                await self._log_in_without_headers(login, connection, frame, client)
                return None
        raise Malformed(f"{frames_max} requests, and not logged in")

    async def _log_in_without_headers(
        self, login: ClientLogin, connection: FrameConnection, frame: memoryview, client: ClientConnection
    ) -> None:
        """Tokens after version 0 of SaslHandshake. One that fails has no answer: the connection is closed."""
        for _ in range(self.unauthenticated.limits.frames_max):
            answer = await login.raw(bytes(frame))
            if answer is None:
                await self.environment.clock.sleep(login.delay_ms)
                LOG.info("closing %s: its login failed", connection.peer)
                return
            connection.send([answer])
            if login.login is not None:
                client.principal = login.login.principal
                return
            frame = await connection.receive()
        raise Malformed("too many tokens, and not logged in")

    async def _answer(
        self, login: ClientLogin, header: RequestHeader, frame: memoryview, client: ClientConnection
    ) -> tuple[int, TopLevel]:
        if header.api_key == apis.API_VERSIONS.key:
            version, response, software = client_versions(header, frame, metadata_offset=self.handlers.metadata_offset)
            if software is not None:
                client.software_name, client.software_version = software
            return version, response
        api = apis.BY_KEY.get(header.api_key)
        if api not in (apis.SASL_HANDSHAKE, apis.SASL_AUTHENTICATE) or header.api_version not in api.clients:
            raise Malformed(f"API key {header.api_key} version {header.api_version} before the login")
        kind = apis.request_type(api)
        offset = codec.body_offset(header, frame, is_flexible=header.api_version >= kind.FLEXIBLE_FROM)
        message = codec.decode_client_body(kind, header.api_version, frame, offset)
        if isinstance(message, SaslHandshakeRequestData):
            return header.api_version, login.handshake(message)
        assert isinstance(message, SaslAuthenticateRequestData), message
        return header.api_version, await login.authenticate(message)
