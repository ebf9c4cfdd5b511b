"""The pages for people: complete without any other host, cached, and plain to programs."""

from __future__ import annotations

import gzip
import re

import pytest

from kraft.http.docs.assets import ASSETS
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, with_door

IDENTITY = {"Accept_Encoding": "identity"}


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_need_no_other_host_and_no_inline_script(path: str) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", path, Accept="text/html,*/*;q=0.1", **IDENTITY)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        text = answer.body.decode()
        assert not re.findall(r"https?://", text)
        assert not re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=", text)
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "node 1 of cluster" in text
        for reference in re.findall(r'(?:src|href)="(/[^"]*)"', text):
            found = await door.ask("GET", reference, Accept="*/*", **IDENTITY)
            assert found.status in (200, 503), reference

    with_door(story, FakeGateway())


def test_assets_are_typed_and_asked_for_again_with_their_etag() -> None:
    async def story(door: Door) -> None:
        for name, media in ASSETS.items():
            plain = await door.ask("GET", f"/docs/{name}", **IDENTITY)
            assert (plain.status, plain.headers["Content-Type"]) == (200, f"{media}; charset=utf-8")
            assert plain.headers["X-Content-Type-Options"] == "nosniff"
            assert len(plain.body) > 1_000
            again = await door.ask("GET", f"/docs/{name}", If_None_Match=f'"other", {plain.headers["ETag"]}')
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", plain.headers["ETag"])
            changed = await door.ask("GET", f"/docs/{name}", If_None_Match='"other"')
            assert changed.status == 200
        missing = await door.ask("GET", "/docs/other.js")
        assert (missing.status, missing.json["error_code"]) == (404, 404)

    with_door(story, FakeGateway())


def test_an_asset_is_sent_compressed_to_who_takes_it() -> None:
    async def story(door: Door) -> None:
        plain = await door.ask("GET", "/docs/docs.js", **IDENTITY)
        async with door.client.get("/docs/docs.js", headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert int(response.headers["Content-Length"]) == len(gzip.compress(plain.body, mtime=0))
            assert await response.read() == plain.body
        assert b"/openapi.json" in plain.body

    with_door(story, FakeGateway())


def test_programs_get_json_at_the_root() -> None:
    async def story(door: Door) -> None:
        for accept in ("application/json", "*/*", "application/vnd.kafka.v2+json"):
            answer = await door.ask("GET", "/", Accept=accept)
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.json["links"]["docs"] == "/docs"

    with_door(story, FakeGateway())
