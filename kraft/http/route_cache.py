"""The router of the HTTP server: aiohttp's, which remembers the routes of paths that were asked for before.

A produce asks for the same path again and again, and finding its route costs a request of one record 5 % of its
processor time.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

from aiohttp import web

PATHS_MAX: Final = 1_024
"""All are forgotten when there is one more."""
PATH_CHARACTERS_MAX: Final = 512
"""A longer path is not remembered."""


class CachingRouter(web.UrlDispatcher):
    """Finds the same routes and path parameters as `UrlDispatcher`."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[str, str], tuple[dict[str, str], web.AbstractRoute]] = {}
        """Path parameters and route, by method and path."""

    async def resolve(self, request: web.Request) -> web.UrlMappingMatchInfo:
        key = (request.method, request.rel_url.raw_path)
        known = self._known.get(key)
        if known is not None:
            return web.UrlMappingMatchInfo(*known)
        found = await super().resolve(request)
        if found.http_exception is None and len(key[1]) <= PATH_CHARACTERS_MAX:
            if len(self._known) >= PATHS_MAX:
                self._known.clear()
            self._known[key] = dict(found), found.route
        return found


def new_application(**options: Any) -> web.Application:
    """An application with a `CachingRouter`. aiohttp 3 warns that its successor may not take a router."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return web.Application(router=CachingRouter(), **options)
