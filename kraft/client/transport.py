"""A transport for programs: aiohttp, connections kept open, any number of requests at once.

One call is one attempt: nothing here repeats a request, follows a redirect, or hides a broken connection. The names of
aiohttp come from its modules: a node has entered the package without its `__init__` (kraft.launcher.partial_imports).
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from aiohttp.client import ClientSession, ClientTimeout
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ConnectionTimeoutError,
    InvalidURL,
    ServerDisconnectedError,
)
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import TCPConnector

from kraft.client.credentials import Credentials, credentials_for
from kraft.client.response import ALWAYS, CONNECT_TIMEOUT_MS, Answer, Refused, Request, Response, Unknown

CONNECTIONS_MAX: Final = 256
"""Requests beyond this wait for a connection; the wait counts towards their timeout."""


class Transport:
    """An async context manager; requests go to any base URL."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX, credentials: Credentials | None = None) -> None:
        """`credentials` are shown to every node; without them those of the node's address or of the environment."""
        self._credentials = credentials
        connector = TCPConnector(limit=connections_max)
        self._session = ClientSession(connector=connector, auto_decompress=True, middlewares=(_once,))

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def send(self, base_url: str, request: Request) -> Response:
        """One attempt."""
        limits = ClientTimeout(total=request.timeout_ms / 1000, sock_connect=CONNECT_TIMEOUT_MS / 1000)
        try:
            return await self._exchange(base_url.rstrip("/") + request.path, request, limits)
        except (ClientConnectorError, ConnectionTimeoutError, InvalidURL) as error:
            return Refused(reason=f"{base_url}: {error or 'no connection in time'}")
        except (ClientError, TimeoutError, OSError) as error:
            return Unknown(reason=f"{base_url}: {error or type(error).__name__} after the request was sent")

    async def _exchange(self, url: str, request: Request, limits: ClientTimeout) -> Answer:
        credentials = self._credentials or credentials_for(url)
        async with self._session.request(
            request.method,
            url,
            data=request.body or None,
            headers={**ALWAYS, **credentials.headers(), **request.headers},
            ssl=credentials.context() if url.startswith("https:") else True,
            timeout=limits,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(status=response.status, headers=headers, body=body)


async def _once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """aiohttp repeats a GET, PUT or DELETE whose connection breaks, and has no switch for it; but it repeats nothing
    for the error that is raised here."""
    try:
        return await handler(request)
    except ClientConnectorError:
        raise  # nothing was sent; aiohttp does not repeat it
    except (ClientOSError, ServerDisconnectedError) as error:
        raise ClientConnectionError(str(error) or type(error).__name__) from error
