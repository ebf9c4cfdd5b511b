"""The console of a launcher: the same page, of a process that is no node, with buttons that break the cluster.

On loopback a request must name a loopback host. Elsewhere, and beside a secure cluster, it needs a token: that of the
printed link, which is exchanged for a cookie. A request that changes something also has JSON, a header of ours and no
stranger's Origin, so that no other page can send it. `/node/N/...` is what node N answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from kraft.config.checks import is_loopback
from kraft.http.console.facts import Source
from kraft.http.console.live import PAGES_MAX, send_frames, settings_of
from kraft.http.console.pages import FILES, FOLDER, PAGE_HEADERS, SCREENS, console_page
from kraft.http.docs.assets import Assets, cached_answer
from kraft.http.docs.pages import HTML
from kraft.http.errors import HttpError, error_response
from kraft.http.limits import Slots
from kraft.http.streaming.streams import Streams
from metadata.environment import Environment

COOKIE: Final = "kraft-console-{port}"
"""Cookies do not belong to a port."""
TOKEN: Final = "token"
OWN_HEADER: Final = "X-Kraft-Console"
BODY_BYTES_MAX: Final = 1_048_576
UNSENT_BYTES_MAX: Final = 16 * 1_048_576
SCENARIOS: Final = ("scenarios", "Scenarios")
READS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Passed:
    """What a node has answered."""

    status: int
    content_type: str
    body: bytes


class Control(Protocol):
    """What the buttons of the page do."""

    async def act(self, asked: Mapping[str, Any]) -> Any:
        """Carries out one act. Raises ValueError for what cannot be done, with the reason."""
        ...

    def saved(self, name: str) -> tuple[str, str]:
        """File name and text of what was done: `story` or `test`. Raises KeyError for another name."""
        ...

    def catalogue(self) -> list[dict[str, Any]]:
        """The scenarios that can be run."""
        ...

    def report(self, number: int) -> tuple[str, str]:
        """HTML of the report of a run, and its Content-Security-Policy. Raises KeyError."""
        ...

    async def ask(self, node: int, method: str, path: str, body: bytes, content_type: str, accept: str) -> Passed:
        """A request of the page to a node. Raises ValueError when the node does not answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The port, and the token of those who may come; empty: everybody on this machine."""

    port: int
    token: str = ""

    @property
    def cookie(self) -> str:
        return COOKIE.format(port=self.port)

    def check(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> None:
        """Raises HttpError 401 or 403 for a request that is not allowed in."""
        if not self.token and not is_loopback(urlsplit(f"//{headers.get('Host', '')}").hostname or ""):
            name = headers.get("Host", "")
            raise HttpError(403, f"this console is not {name!r:.100}; its names are localhost and loopback addresses")
        if self.token and not compare_digest(cookies.get(self.cookie, "").encode(), self.token.encode()):
            raise HttpError(401, "this console needs a token: open the link that was printed when it started")

    def is_token(self, text: str) -> bool:
        """Whether it is the token of the printed link."""
        return bool(self.token) and compare_digest(text.encode(), self.token.encode())


class LauncherConsole:
    """The server; `start` begins to answer."""

    def __init__(
        self,
        *,
        environment: Environment,
        source: Source,
        control: Control,
        cluster_id: str,
        place: Place,
        shows_contents: bool = True,
    ) -> None:
        self._environment = environment
        self._source = source
        self._control = control
        self._cluster_id = cluster_id
        self._place = place
        self._shows_contents = shows_contents
        self._assets = Assets(environment.files, FOLDER, FILES)
        slots = Slots(lambda: PAGES_MAX, what="pages of the console")
        self._streams = Streams(slots=slots, unsent_bytes_max=UNSENT_BYTES_MAX)
        self._runner: web.AppRunner | None = None

    async def start(self, listening: Any) -> None:
        """Answers at this socket, which listens, and closes it at the end."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/", _to_the_page)
        for path, handler in (
            ("/console", self._page),
            ("/console/save/{name}", self._save),
            ("/console/scenarios", self._catalogue),
            ("/console/report/{number}", self._report),
            ("/console/{file}", self._file),
            ("/kraft/live", self._live),
        ):
            app.router.add_get(path, self._guarded(handler))
        app.router.add_post("/console/act", self._guarded(self._act))
        app.router.add_route("*", "/node/{node}/{tail:.*}", self._guarded(self._pass_on))
        app.on_shutdown.append(self._end_streams)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """Ends all streams and closes the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _end_streams(self, app: web.Application) -> None:
        self._streams.stop()

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if self._place.is_token(request.query.get(TOKEN, "")) and request.path == "/console":
                    return self._welcome()
                self._place.check(request.headers, request.cookies)
                check_request(request.method, request.headers)
                return await handler(request)
            except HttpError as error:
                return error_response(error)
            except ValueError as error:
                return error_response(HttpError(422, str(error)))

        return handle

    def _welcome(self) -> web.Response:
        """The token becomes a cookie, and leaves the address."""
        answer = web.Response(status=303, headers={"Location": "/console", "Cache-Control": "no-store", **PAGE_HEADERS})
        answer.set_cookie(self._place.cookie, self._place.token, httponly=True, samesite="Strict", path="/")
        return answer

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return console_page(
            request, title="kraft", place="all nodes", cluster_id=self._cluster_id, node_id=-1, others=(),
            screens=[each for each in (*SCREENS, SCENARIOS) if self._shows_contents or each[0] != "messages"],
        )  # fmt: skip

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        if name not in FILES:
            raise HttpError(404, f"there is no {name}")
        return cached_answer(request, self._assets[name], {"Cross-Origin-Resource-Policy": "same-origin"})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        scope, every_ms = settings_of(request.query)
        return await send_frames(
            request,
            self._streams,
            self._environment.clock,
            lambda: self._source.state(scope),
            every_ms=every_ms,
        )

    async def _act(self, request: web.Request) -> web.StreamResponse:
        done = await asyncio.shield(self._control.act(asked_in(await request.read())))
        return web.json_response(body=msgspec.json.encode({"done": done}))

    async def _save(self, request: web.Request) -> web.StreamResponse:
        try:
            name, text = self._control.saved(request.match_info["name"])
        except KeyError as error:
            raise HttpError(404, "there are /console/save/story and /console/save/test") from error
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, content_type="text/x-python", headers=headers)

    async def _catalogue(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(body=msgspec.json.encode({"scenarios": self._control.catalogue()}))

    async def _report(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["number"]
        try:
            text, policy = self._control.report(number_in(number))
        except KeyError as error:
            raise HttpError(404, f"there is no report {number:.20}") from error
        return web.Response(text=text, content_type=HTML, headers={**PAGE_HEADERS, "Content-Security-Policy": policy})

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["node"]
        path = request.raw_path.removeprefix(f"/node/{number}")
        found = await self._control.ask(
            number_in(number),
            request.method,
            path,
            await request.read(),
            request.headers.get("Content-Type", ""),
            request.headers.get("Accept", "*/*"),
        )
        headers = {"Content-Type": found.content_type, "X-Content-Type-Options": "nosniff"}
        return web.Response(status=found.status, body=found.body, headers=headers)


def number_in(text: str) -> int:
    """Raises HttpError 404 for what is no small number."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HttpError(404, f"{text!r:.20} is no number")
    return int(text)


def asked_in(body: bytes) -> dict[str, Any]:
    """The act that a body asks for. Raises HttpError 400."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"the body is no JSON object: {error}") from error


async def _to_the_page(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/console")


def check_request(method: str, headers: Mapping[str, str]) -> None:
    """Raises HttpError 403 or 415 for a change that a page of a stranger could ask for."""
    if method in READS:
        return
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
        raise HttpError(403, f"a page of {origin!r:.100} asks for a change")
    if headers.get(OWN_HEADER) != "1":
        raise HttpError(403, f"what changes something has the header {OWN_HEADER}: 1")
    if "json" not in headers.get("Content-Type", ""):
        raise HttpError(415, "what changes something is JSON")
