"""A transport for the command line: `http.client`, one connection per request, quick to import."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from kraft.client.response import ALWAYS, CONNECT_TIMEOUT_MS, Answer, Refused, Request, Response, Unknown


def send(base_url: str, request: Request) -> Response:
    """One attempt."""
    url = urlsplit(base_url)
    if url.scheme != "http" or not url.hostname:
        return Refused(reason=f"{base_url!r} is no base URL like http://127.0.0.1:8082")
    connect_s = min(CONNECT_TIMEOUT_MS, request.timeout_ms) / 1000
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=connect_s)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        return Refused(reason=f"{base_url}: {error.strerror or error}")
    try:
        return _exchange(connection, request, path=url.path.rstrip("/") + request.path)
    except (OSError, http.client.HTTPException) as error:
        return Unknown(reason=f"{base_url}: {error or type(error).__name__} after the request was sent")
    finally:
        connection.close()


def _exchange(connection: http.client.HTTPConnection, request: Request, *, path: str) -> Answer:
    connection.sock.settimeout(request.timeout_ms / 1000)
    connection.request(request.method, path, body=request.body or None, headers={**ALWAYS, **request.headers})
    response = connection.getresponse()
    body = response.read()
    return Answer(
        status=response.status, headers={name.lower(): value for name, value in response.getheaders()}, body=body
    )
