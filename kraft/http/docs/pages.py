"""Pages for people: `/docs`, the OpenAPI document to read and to try, and `/` for a browser.

Nothing is loaded from elsewhere, and no script is inline (Content-Security-Policy), so that both work offline.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from html import escape

from aiohttp import web

from kraft.http.docs.assets import ASSETS, Asset, Assets, cached_answer, etag_of
from kraft.http.endpoint import Body, Call, Header, Route
from kraft.http.errors import HttpError
from kraft.http.media import require_accepts
from metadata.environment import Files

HTML = "text/html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ETAG = Header(description="Send it back as If-None-Match.", schema={"type": "string"})
_ANSWERS = {304: Body(content={}, description="Not changed.", headers={"ETag": ETAG})}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} - kraft</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/kraft.css">
</head>
<body>
<header><a class="name" href="/">kraft</a> <span>node {node_id} of cluster <code>{cluster_id}</code></span>
<nav><a href="/console">console</a>
<a href="/docs">API</a> <a href="/kraft/status">status</a> <a href="/metrics">metrics</a></nav></header>
{content}
{scripts}
</body>
</html>
"""
_DOCS = """<main id="api"><p class="note">This page needs JavaScript; the document itself is
<a href="/openapi.json">/openapi.json</a>.</p></main>"""


def page(call: Call, *, title: str, content: str, scripts: tuple[str, ...] = ()) -> web.Response:
    """`content` is HTML; the rest is escaped."""
    gateway = call.context.gateway
    text = _PAGE.format(
        title=escape(title),
        node_id=gateway.node_id,
        cluster_id=escape(gateway.cluster_id),
        content=content,
        scripts="\n".join(f'<script src="/docs/{name}" defer></script>' for name in scripts),
    )
    data = text.encode()
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return cached_answer(call.request, Asset(HTML, gzip.compress(data, mtime=0), etag_of(data)), headers)


def index_page(call: Call, links: Mapping[str, str]) -> web.Response:
    """`/` for a browser: path -> what is there."""
    rows = "".join(f'<dt><a href="{path}">{path}</a></dt><dd>{escape(text)}</dd>' for path, text in links.items())
    return page(
        call, title=f"Node {call.context.gateway.node_id}", content=f'<main class="index"><dl>{rows}</dl></main>'
    )


async def show_docs(call: Call) -> web.Response:
    """200 with a page that draws `/openapi.json`."""
    return page(call, title="API", content=_DOCS, scripts=("docs.js",))


def docs_routes(files: Files) -> tuple[Route, ...]:
    docs = Route(
        method="GET", path="/docs", handler=show_docs, summary="This document as a page.", tag="node",
        answers={200: Body(content={HTML: None}, headers={"ETag": ETAG}), **_ANSWERS}, check=_check, answers_early=True,
    )  # fmt: skip
    return (docs, _asset_route(Assets(files)))


def _check(call: Call) -> None:
    require_accepts(call.accept, HTML)


def _asset_route(assets: Assets) -> Route:
    async def show_asset(call: Call) -> web.Response:
        name = call.path["asset"]
        if name not in ASSETS:
            raise HttpError(404, f"there is no {name}; there are {', '.join(ASSETS)}")
        return cached_answer(call.request, assets[name], {})

    content = dict.fromkeys(ASSETS.values())
    return Route(
        method="GET", path="/docs/{asset}", handler=show_asset, summary="Scripts and styles of the page.", tag="node",
        answers={200: Body(content=content, headers={"ETag": ETAG}), **_ANSWERS}, errors=(404,),
        answers_early=True,
    )  # fmt: skip
