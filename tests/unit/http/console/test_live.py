"""The routes of the console: one answer, a bounded number of streams, frames that hold what changed, and the files."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

import kraft.http.console
from kraft.broker.node_facts import FactsOfNode, NodeFacts, Scope
from kraft.http.app import CONTEXT
from kraft.http.console.facts import ClusterFacts
from kraft.http.console.live import PAGES_MAX, live_routes
from kraft.http.console.pages import FILES, SCREENS
from kraft.runtime.environment import close_environment, system_environment
from metadata.acls import CLUSTER_NAME, AclOperation, AclPattern, AclPermission, AclResource
from metadata.environment import NotConnected
from metadata.records import AccessControlEntryRecord
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, open_door

COMPRESSED_BYTES_MAX = 60 * 1024
ASSETS = Path(kraft.http.console.__file__).parent / "assets"


@asynccontextmanager
async def watched(gateway: FakeGateway, asked: list[int]) -> AsyncIterator[Door]:
    """A node whose peers are the same as it is, but for node 3, which does not answer."""
    environment = system_environment()
    own = FactsOfNode(
        gateway=gateway,
        clock=environment.clock,
        replicas=None,
        epochs=lambda key: (),
        links=lambda: {2: {"fetch": True}},
        awaits=lambda: "",
    )

    async def ask(node: int, scope: Scope) -> NodeFacts:
        asked.append(node)
        if node == 3:
            raise NotConnected("node 3: refused")
        return msgspec.structs.replace(own.facts(scope), node_id=node)

    source = ClusterFacts(
        own=own.facts,
        ask=ask,
        nodes=lambda: gateway.nodes,
        cluster_id="test-cluster",
        node_id=1,
        clock=environment.clock,
    )
    routes = live_routes(source, own.facts)
    try:
        async with open_door(gateway, extra_routes=routes) as door:
            yield door
    finally:
        close_environment(environment)


def with_page(story: Callable[[Door, FakeGateway, list[int]], Any], gateway: FakeGateway | None = None) -> None:
    async def run() -> None:
        made, asked = gateway or FakeGateway(), list[int]()
        async with watched(made, asked) as door:
            await story(door, made, asked)

    asyncio.run(run())


async def next_frame(stream: Any) -> dict[str, Any]:
    """The next frame with something in it."""
    async with asyncio.timeout(10):
        while True:
            line = await stream.content.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: "):
                frame: dict[str, Any] = msgspec.json.decode(line[6:])
                if frame["set"] or frame["gone"]:
                    return frame


def test_one_answer_has_what_every_node_reports() -> None:
    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        gateway.add_topic("orders", partitions=2)
        found = (await door.ask("GET", "/kraft/changes?filter=orders-1&exact=true")).json
        assert found["full"] is True
        assert [key for key in found["set"] if key.startswith("p/")] == ["p/orders-1"]
        assert found["set"]["node/2"]["answers"] is True
        assert (found["set"]["node/3"]["answers"], found["set"]["node/3"]["why"]) == (False, "node 3: refused")
        own = (await door.ask("GET", "/kraft/facts?limit=1")).json
        assert own["links"] == {"2": {"fetch": True}}
        assert own["totals"]["matched"] == 2
        assert own["totals"]["shown"] == 1

    with_page(story)


def test_a_stream_begins_with_everything_and_goes_on_with_what_changes() -> None:
    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        gateway.add_topic("orders", partitions=2)
        async with door.client.get("/kraft/live?rate=10") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            first = await next_frame(stream)
            assert first["full"] is True
            assert {"p/orders-0", "p/orders-1", "node/1", "totals"} <= first["set"].keys()
            gateway.change("orders", 1, leader=-1)
            second = await next_frame(stream)
            assert second["full"] is False
            assert {key for key in second["set"] if key.startswith("p/")} == {"p/orders-1"}
            assert second["set"]["p/orders-1"][0] == -1
            assert second["set"]["totals"]["offline"] == 1

    with_page(story)


def test_streams_are_bounded_and_nobody_is_asked_without_one() -> None:
    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        assert asked == []
        async with asyncio.timeout(20):
            open_ = [await door.client.get("/kraft/live") for _ in range(PAGES_MAX)]
            refused = await door.ask("GET", "/kraft/live")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            for each in open_:
                each.close()
            context = door.app[CONTEXT]
            while context.streams.count:
                await context.clock.sleep(5)
            before = len(asked)
            await context.clock.sleep(400)
            assert len(asked) == before

    with_page(story)


def test_what_is_no_scope_is_refused() -> None:
    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        for query in ("limit=0", "limit=501", "rate=11", "exact=maybe", "filter=" + "x" * 261):
            answer = await door.ask("GET", f"/kraft/live?{query}")
            assert (answer.status, answer.json["error_code"]) == (400, 40002), query
        assert asked == []

    with_page(story)


def test_the_page_runs_no_inline_script_and_asks_no_stranger() -> None:
    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        answer = await door.ask("GET", "/console", Accept="text/html", Accept_Encoding="identity")
        text, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
        assert not re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", text)
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert set(re.findall(r"https?://([^ ;]+)", policy)) == {node.rest for node in gateway.nodes.values()} - {""}
        for reference in re.findall(r'(?:src|href)="(/[^"]*)"', text):
            if reference.startswith("/console"):
                assert (await door.ask("GET", reference)).status == 200, reference
        again = await door.ask("GET", "/console", Accept="text/html", If_None_Match=answer.headers["ETag"])
        assert again.status == 304
        assert (await door.ask("GET", "/console/other.js")).status == 404
        for name, _ in SCREENS:
            assert f'href="#/{name}"' in text

    with_page(story)


def test_the_files_are_small_complete_and_make_no_markup_of_texts() -> None:
    found = {path.name: path.read_bytes() for path in ASSETS.iterdir()}
    assert found.keys() == FILES.keys()
    assert sum(len(gzip.compress(data, mtime=0)) for data in found.values()) < COMPRESSED_BYTES_MAX
    for name, data in found.items():
        text = data.decode()
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text), name
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in FILES, (name, imported)


def test_a_topic_that_one_may_not_describe_is_as_one_that_does_not_exist() -> None:
    fake = FakeGateway(static={"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"})
    fake.add_topic("mine", partitions=1)
    fake.add_topic("theirs", partitions=3)
    for number in range(3):
        fake.change("theirs", number, leader=-1)
    described = ((AclResource.CLUSTER, CLUSTER_NAME), (AclResource.TOPIC, "mine"))
    for number, (resource, name) in enumerate(described, 1):
        fake.apply(
            AccessControlEntryRecord(
                id=UUID(int=number),
                resource_type=resource,
                resource_name=name,
                pattern_type=AclPattern.LITERAL,
                principal="User:ANONYMOUS",
                host="*",
                operation=AclOperation.DESCRIBE,
                permission_type=AclPermission.ALLOW,
            )
        )

    async def story(door: Door, gateway: FakeGateway, asked: list[int]) -> None:
        for path in ("/kraft/changes", "/kraft/facts"):
            for query in ("filter={}-0&exact=true", "filter={}", "filter={}&only_bad=true"):
                theirs, absent = [
                    (await door.ask("GET", f"{path}?{query.format(topic)}")).json for topic in ("theirs", "absent")
                ]
                assert theirs.pop("at_ms") <= absent.pop("at_ms")
                assert theirs == absent, (path, query)
        found = (await door.ask("GET", "/kraft/changes?limit=1")).json["set"]
        assert [key for key in found if key.startswith("p/")] == ["p/mine-0"], "theirs are worse, and take no place"
        totals = found["totals"]
        assert (totals["topics"], totals["partitions"], totals["offline"], totals["matched"]) == (1, 1, 0, 1)

    with_page(story, fake)
