"""Checks of Host and Origin: the names that this node answers to, and the pages that may change something.

A browser sends requests that its user never meant: a page of a stranger posts a form to `localhost`, or has its own
name resolve to this node's address (DNS rebinding) and is then of the same origin as the node. `Origin` (or
`Sec-Fetch-Site`) shows the first, `Host` the second. Programs that are no browsers send a name of the node or its
address as `Host`, and no `Origin`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web

from kraft.http.errors import HttpError
from metadata.settings import BrokerSettings

FORBIDDEN = 403
ANY = "*"
HARMLESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CHANGING_READS = "/consumers/"
"""A poll of a consumer moves its position."""
PREFLIGHT_SECONDS = 600
"""How long a browser need not ask again."""
REMEMBERED = 256
_ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"


class Origins:
    """Judges requests by the headers that browsers add. `own_hosts`: the names and addresses of the cluster's nodes."""

    def __init__(self, own_hosts: Iterable[str], settings: Callable[[], BrokerSettings]) -> None:
        self._own_hosts = frozenset(host.lower() for host in own_hosts)
        self._settings = settings

    def check(self, request: web.BaseRequest) -> None:
        """Raises HttpError 403 for a name that is not this node's, and for a change that another's page asks for."""
        headers = request.headers
        hosts = headers.getall("Host", ())
        host = hosts[0] if hosts else None
        if host is not None and not _is_ours(host, self._own_hosts, self._settings().rest_allowed_hosts):
            raise HttpError(
                FORBIDDEN,
                f"this node is not {host!r:.100}; its names are its host and bind address, localhost, IP addresses and "
                "those in rest.allowed.hosts",
                closes=True,
            )
        if len(hosts) > 1:
            raise HttpError(400, "a request has one Host (RFC 9112 3.2)", closes=True)
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if (origin is None and site is None) or not _is_change(request):
            return
        if not self._may_change(host, origin, site):
            page = f"a page of {origin!r:.100}" if origin is not None else f"a page of another origin ({site!r:.20})"
            raise HttpError(
                FORBIDDEN,
                f"{page} asks for a change of what {host!r:.100} serves; origins that may are in "
                "access.control.allow.origin",
                closes=True,
            )

    def answer_headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """What lets the pages of an allowed origin read an answer (CORS); nothing for others."""
        origin = request.headers.get("Origin")
        if origin is None or not _is_listed(origin, self._settings().access_control_allow_origin):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": ANY}

    def preflight(self, request: web.BaseRequest) -> Mapping[str, str] | None:
        """The headers that answer a browser which asks whether it may ask; None when the answer is no."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        allowed = self.answer_headers(request)
        if not allowed:
            return None
        return {
            **allowed,
            "Access-Control-Allow-Methods": _ALLOWED_METHODS,
            "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", ""),
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }

    def _may_change(self, host: str | None, origin: str | None, site: str | None) -> bool:
        listed = self._settings().access_control_allow_origin
        if origin is None:
            return site in ("same-origin", "none") or ANY in _listed(listed)
        return _is_same(origin, host) or _is_listed(origin, listed)


def _is_change(request: web.BaseRequest) -> bool:
    return request.method not in HARMLESS_METHODS or request.path.startswith(CHANGING_READS)


@lru_cache(REMEMBERED)
def _is_ours(host: str, own: frozenset[str], allowed: str) -> bool:
    name = _name(host)
    listed = _listed(allowed)
    is_local = name == "localhost" or name.endswith(".localhost")
    return is_local or name in own or name in listed or ANY in listed or _is_address(name)


def _name(host: str) -> str:
    """Without port and brackets, as names are compared."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(REMEMBERED)
def _is_same(origin: str, host: str | None) -> bool:
    """A proxy may have taken off TLS, so that schemes say nothing; `null` is the same as nobody."""
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(netloc) and host is not None and netloc.lower() == host.strip().lower()


def _is_listed(origin: str, listed: str) -> bool:
    found = _listed(listed)
    return bool(found) and (ANY in found or origin.strip().lower() in found)


@lru_cache(REMEMBERED)
def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip().lower().removesuffix("/") for part in text.split(",") if part.strip())
