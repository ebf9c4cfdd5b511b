"""`GET /console` and its files: a page that shows the cluster while it lives.

The page has no state of its own: every number comes from a route of this document. Nothing is loaded from elsewhere and
no script is inline; texts of users reach the page as text alone (Trusted Types).
"""

from __future__ import annotations

import gzip
import posixpath
from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import urlsplit

from aiohttp import web

from kraft.http.access_table import ROUTE_ACCESS
from kraft.http.docs.assets import CSS, SCRIPT, Asset, Assets, cached_answer, etag_of
from kraft.http.docs.pages import ETAG, HTML
from kraft.http.endpoint import Body, Call, Route
from kraft.http.errors import HttpError
from kraft.http.media import require_accepts
from metadata.environment import Files

FILES: Mapping[str, str] = {
    "api.js": SCRIPT,
    "breaking.js": SCRIPT,
    "cluster.js": SCRIPT,
    "console.css": CSS,
    "console.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "explain.js": SCRIPT,
    "history.js": SCRIPT,
    "lists.js": SCRIPT,
    "messages.js": SCRIPT,
    "partition.js": SCRIPT,
    "partitions.js": SCRIPT,
    "scenarios.js": SCRIPT,
    "stream.js": SCRIPT,
    "timeline.js": SCRIPT,
    "workload.js": SCRIPT,
}
"""Name -> content type."""
FOLDER = posixpath.join(posixpath.dirname(__file__), "assets")
SCREENS = (
    ("cluster", "Cluster"),
    ("partitions", "Partitions"),
    ("timeline", "Time line"),
    ("groups", "Groups"),
    ("queues", "Queues"),
    ("transactions", "Transactions"),
    ("messages", "Messages"),
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{nodes}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/console/console.css">
<script type="module" src="/console/console.js"></script>
</head>
<body data-cluster="{cluster_id}" data-node="{node_id}" data-explains="{explains}">
<a class="skip" href="#main">Skip to the content</a>
<header>
<p class="name"><a href="/console">kraft</a> <span>{place}</span></p>
<nav aria-label="Screens"><ul>{screens}</ul></nav>
<div id="controls"></div>
</header>
<div id="notice" role="status"></div>
<main id="main" tabindex="-1">
<noscript><p>This page needs JavaScript. The same without it: <a href="/kraft/status">/kraft/status</a>,
<a href="/kraft/changes">/kraft/changes</a>.</p></noscript>
</main>
</body>
</html>
"""


def console_routes(files: Files) -> tuple[Route, ...]:
    """The page of a node, and its files."""

    async def show_console(call: Call) -> web.Response:
        gateway = call.context.gateway
        return console_page(
            call.request,
            title=f"Node {gateway.node_id} - kraft",
            place=f"node {gateway.node_id}",
            cluster_id=gateway.cluster_id,
            node_id=gateway.node_id,
            others=[f"{call.request.scheme}://{node.rest}" for node in gateway.nodes.values()],
        )

    page = Route(
        method="GET", path="/console", handler=show_console, summary="The cluster as a page that lives.", tag="node",
        answers={200: Body(content={HTML: None}, headers={"ETag": ETAG}), 304: _not_changed()},
        check=lambda call: require_accepts(call.accept, HTML), answers_early=True,
    )  # fmt: skip
    return (page, file_route(Assets(files, FOLDER, FILES)))


def console_page(
    request: web.BaseRequest,
    *,
    title: str,
    place: str,
    cluster_id: str,
    node_id: int,
    others: Iterable[str],
    screens: Iterable[tuple[str, str]] = SCREENS,
) -> web.Response:
    """`others`: URLs of nodes that the page may ask whether they are alive, when its own is not. `screens`: names and
    titles."""
    links = "".join(f'<li><a href="#/{name}">{escape(text)}</a></li>' for name, text in screens)
    text = _PAGE.format(
        title=escape(title),
        place=escape(place),
        cluster_id=escape(cluster_id),
        node_id=node_id,
        screens=links,
        explains=str("GET /kraft/explain/partition/{topic}/{partition}" in ROUTE_ACCESS).lower(),
    )
    data = text.encode()
    origins = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, others) if parts.netloc})
    policy = _POLICY.format(nodes="".join(f" {origin}" for origin in origins))
    headers = {**PAGE_HEADERS, "Content-Security-Policy": policy}
    return cached_answer(request, Asset(HTML, gzip.compress(data, mtime=0), etag_of(data + policy.encode())), headers)


def file_route(assets: Assets) -> Route:
    """The scripts and styles of the page."""

    async def show_file(call: Call) -> web.Response:
        name = call.path["file"]
        if name not in FILES:
            raise HttpError(404, f"there is no {name}; there are {', '.join(FILES)}")
        return cached_answer(call.request, assets[name], {"Cross-Origin-Resource-Policy": "same-origin"})

    return Route(
        method="GET", path="/console/{file}", handler=show_file, summary="Scripts and styles of the console.",
        tag="node", name="node_console_file", errors=(404,), answers_early=True,
        answers={
            200: Body(content=dict.fromkeys(FILES.values()), headers={"ETag": ETAG}), 304: _not_changed(),
        },
    )  # fmt: skip


def _not_changed() -> Body:
    return Body(content={}, description="Not changed.", headers={"ETag": ETAG})
