"""A transport for the command line: `http.client`, one connection per request, quick to import."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from kraft.client.credentials import Credentials, credentials_for
from kraft.client.response import ALWAYS, CONNECT_TIMEOUT_MS, Answer, Refused, Request, Response, Unknown


def send(base_url: str, request: Request) -> Response:
    """One attempt."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        return Refused(reason=f"{base_url!r} is no base URL like http://127.0.0.1:8082")
    credentials = credentials_for(base_url)
    connect_s = min(CONNECT_TIMEOUT_MS, request.timeout_ms) / 1000
    connection = _connection(url, credentials, connect_s)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        return Refused(reason=f"{base_url}: {error.strerror or error}")
    try:
        headers = {**ALWAYS, **credentials.headers(), **request.headers}
        return _exchange(connection, request, headers, path=url.path.rstrip("/") + request.path)
    except (OSError, http.client.HTTPException) as error:
        return Unknown(reason=f"{base_url}: {error or type(error).__name__} after the request was sent")
    finally:
        connection.close()


def _connection(url: SplitResult, credentials: Credentials, connect_s: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port or 80, timeout=connect_s)
    return http.client.HTTPSConnection(host, url.port or 443, timeout=connect_s, context=credentials.context())


def _exchange(
    connection: http.client.HTTPConnection, request: Request, headers: Mapping[str, str], *, path: str
) -> Answer:
    connection.sock.settimeout(request.timeout_ms / 1000)
    connection.request(request.method, path, body=request.body or None, headers=headers)
    response = connection.getresponse()
    body = response.read()
    return Answer(
        status=response.status, headers={name.lower(): value for name, value in response.getheaders()}, body=body
    )
