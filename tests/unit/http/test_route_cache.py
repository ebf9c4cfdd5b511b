"""The router remembers paths, and finds what aiohttp's finds: for each method, with parameters of its own."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from kraft.http.route_cache import PATH_CHARACTERS_MAX, PATHS_MAX, CachingRouter, new_application


async def _get(_: web.Request) -> web.Response:
    return web.Response()


async def _post(_: web.Request) -> web.Response:
    return web.Response()


def _found(router: CachingRouter, method: str, path: str) -> web.UrlMappingMatchInfo:
    return asyncio.run(router.resolve(make_mocked_request(method, path)))


@pytest.fixture
def router() -> CachingRouter:
    router = CachingRouter()
    router.add_route("GET", "/topics/{topic}", _get)
    router.add_route("POST", "/topics/{topic}", _post)
    return router


def test_a_path_has_the_same_route_again(router: CachingRouter) -> None:
    for method, handler in (("GET", _get), ("POST", _post)) * 3:
        found = _found(router, method, "/topics/a%20b?acks=1")
        assert (found.handler, dict(found)) == (handler, {"topic": "a b"})
        found["topic"] = "changed by a handler"
        found.add_app(web.Application())
        found.freeze()


def test_other_methods_and_paths_are_refused_again(router: CachingRouter) -> None:
    for _ in range(2):
        _found(router, "GET", "/topics/a")
        for method, path, status in (("PUT", "/topics/a", 405), ("GET", "/topics/a/b", 404)):
            refusal = _found(router, method, path).http_exception
            assert refusal is not None
            assert refusal.status == status


def test_paths_are_bounded_in_number_and_length(router: CachingRouter) -> None:
    async def ask_for_many() -> None:
        for number in range(2 * PATHS_MAX + 1):
            found = await router.resolve(make_mocked_request("GET", f"/topics/{number}"))
            assert found["topic"] == str(number)
            assert len(router._known) <= PATHS_MAX

    asyncio.run(ask_for_many())
    known = len(router._known)
    long = "a" * PATH_CHARACTERS_MAX
    assert _found(router, "GET", f"/topics/{long}")["topic"] == long
    assert len(router._known) == known


@pytest.mark.filterwarnings("error")
def test_an_application_takes_it_without_a_warning() -> None:
    assert isinstance(new_application().router, CachingRouter)
