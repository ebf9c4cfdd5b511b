"""Requests to any node, and readers: another node when one dies, a change never made twice unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.client.admin import AsyncAdmin
from kraft.client.connection import Connection
from kraft.client.errors import ConfigError, NoOffset, NothingDone, OutcomeUnknown, ServerError
from kraft.client.partition_consumer import AsyncReader
from kraft.client.positions import Start
from kraft.client.records import Record
from kraft.client.response import Answer, Request, Response, Unknown
from kraft.client.settings import ConsumerSettings, parse
from tests.unit.client.fake_cluster import URLS, FakeCluster, answer, refusal, run

GET = Request(method="GET", path="/topics/t/partitions")


def serve(cluster: FakeCluster, path: str, *outcomes: Response) -> list[Request]:
    """These, one after another, for requests to a path below the cluster; the requests are listed."""
    left, seen, plain = list(outcomes), [], cluster._serve

    def instead(request: Request) -> Response:
        if not request.path.startswith(path):
            return plain(request)
        seen.append(request)
        return left.pop(0)

    cluster._serve = instead  # type: ignore[method-assign]
    return seen


def test_all_nodes_are_found_from_one_and_another_is_asked_when_it_dies() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.ask(GET)
        assert set(connection.nodes.urls) == set(URLS.values())
        cluster.dead.add(1)
        begun = cluster.clock.monotonic_ms()
        assert (await connection.ask(GET)).is_success
        assert cluster.clock.monotonic_ms() - begun < 20
        before = len(cluster.requests)
        await connection.ask(GET)
        assert [node for node, _ in cluster.requests[before:]] != [1], "the one that answered is asked again"

    run(story)


def test_a_node_that_is_down_at_the_start_costs_nothing_if_another_is_named() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.dead |= {1, 2}
        other = Connection(["one:1", "two:2", "three:3"], settings=connection.settings, world=connection.world)
        assert (await other.ask(GET)).is_success
        await other.close()

    run(story)


def test_when_no_node_answers_nothing_was_done_and_it_is_said_in_time() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.dead |= {1, 2, 3}
        begun = cluster.clock.monotonic_ms()
        with pytest.raises(NothingDone, match=r"default\.api\.timeout\.ms=3000.*one:1"):
            await connection.ask(GET)
        assert cluster.clock.monotonic_ms() - begun <= 9_000
        assert len(cluster.requests) < 40, "it asks at intervals"

    run(story, default_api_timeout_ms=3_000)


def test_a_busy_node_is_left_for_another_and_its_words_are_the_last_ones() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.discover()
        busy = refusal(503, 50302, 5)
        seen = serve(cluster, "/x", busy, busy, answer({"done": True}))
        assert (await connection.get("/x"))["done"]
        assert len(seen) == 3
        serve(cluster, "/x", *[busy] * 100)
        with pytest.raises(ServerError, match="LEADER_NOT_AVAILABLE"):
            await connection.get("/x")

    run(story, default_api_timeout_ms=3_000)


def test_views_are_kept_for_metadata_max_age_and_doubted_after_a_failure() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        assert (await connection.topic("t")).leaders == (1, 2, 3)
        cluster.topics["t"] = [3, 3, 3]
        await cluster.clock.sleep(900)
        assert (await connection.topic("t")).leaders == (1, 2, 3)
        connection.doubt(topic="t")
        assert (await connection.topic("t")).leaders == (3, 3, 3)
        cluster.topics["t"] = [2, 2, 2]
        await cluster.clock.sleep(1_001)
        assert await connection.leader("t", 0) == 2
        cluster.topics["t"] = [-1, 2]
        connection.doubt(topic="t")
        await cluster.clock.sleep(100)
        assert (await connection.leader("t", 0), await connection.leader("t", 2)) == (None, None)

    run(story, metadata_max_age_ms=1_000)


def test_a_failure_makes_one_lookup_not_one_for_each_that_saw_it() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.topic("t")
        before = len(cluster.requests)
        for _ in range(20):
            connection.doubt(topic="t")
            await connection.leader("t", 0)
        assert len(cluster.requests) - before <= 3

    run(story)


# --- changes ----------------------------------------------------------------------------------------------------------

LOST = Unknown(reason="the connection broke")
EXISTS = refusal(400, 40002, 36)
GONE = refusal(404, 40403, 3)


def test_a_topic_whose_first_creation_was_not_answered_is_created() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        admin = AsyncAdmin(connection)
        assert len(serve(cluster, "/v3/clusters/c/topics", LOST, EXISTS)) == 0
        await admin.create_topic("new", partitions=1)
        serve(cluster, "/v3/clusters/c/topics", LOST, GONE)
        await admin.delete_topic("new")

    run(story)


def test_a_route_whose_change_was_not_answered_is_changed() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        admin = AsyncAdmin(connection)
        serve(cluster, "/v3/clusters/c/routes", LOST, refusal(409, 409, 92))
        await admin.create_route("new", kind="fanout", bindings=[("", "t")])
        serve(cluster, "/v3/clusters/c/routes", LOST, refusal(404, 404, 91))
        await admin.alter_route("new", remove=[("", "t")])
        serve(cluster, "/v3/clusters/c/routes", LOST, refusal(404, 40407, 91))
        await admin.delete_route("new")

    run(story)


def test_a_topic_that_exists_already_is_an_error_without_a_lost_answer() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        serve(cluster, "/v3/clusters/c/topics", EXISTS)
        with pytest.raises(ServerError) as caught:
            await AsyncAdmin(connection).create_topic("new")
        assert caught.value.name == "TOPIC_ALREADY_EXISTS"

    run(story)


def test_a_shift_whose_answer_was_lost_is_not_repeated() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        seen = serve(cluster, "/v3/clusters/c/consumer-groups", LOST, answer({"data": []}))
        admin = AsyncAdmin(connection)
        with pytest.raises(OutcomeUnknown):
            await admin.reset_offsets("g", shift=-5)
        assert len(seen) == 1
        with pytest.raises(ConfigError):
            await admin.reset_offsets("g", "earliest", shift=1)
        with pytest.raises(ConfigError):
            await admin.reset_offsets("g", 17)

    run(story)


def test_a_reset_to_a_place_is_repeated() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        row = {"topic_name": "t", "partition_id": 0, "old_offset": 5, "new_offset": 0}
        seen = serve(cluster, "/v3/clusters/c/consumer-groups", LOST, answer({"data": [row]}))
        (change,) = await AsyncAdmin(connection).reset_offsets("g", "earliest")
        assert (change.old_offset, change.new_offset, len(seen)) == (5, 0, 2)

    run(story)


# --- readers ----------------------------------------------------------------------------------------------------------


def reader(connection: Connection, *, offset: Any = None, follows: bool = False, **options: Any) -> AsyncReader:
    settings = parse(ConsumerSettings, options)
    return AsyncReader(["t"], partitions=None, offset=offset, follows=follows, connection=connection, settings=settings)


def fill(cluster: FakeCluster, count: int) -> None:
    for partition in range(3):
        cluster.log("t", partition).extend(f"{partition}:{n}".encode() for n in range(count))


async def read(source: AsyncReader) -> list[Record]:
    async with source:
        return [record async for record in source]


def test_a_reader_that_does_not_follow_ends_where_the_log_ended() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        fill(cluster, 50)
        source = reader(connection, offset="earliest")
        found = []
        async with source:
            async for record in source:
                if not found:
                    fill(cluster, 5)
                found.append(record)
        assert len(found) == 150
        for partition in range(3):
            values = [record.value for record in found if record.partition == partition]
            assert values == [f"{partition}:{n}".encode() for n in range(50)]
        assert {str(where): offset for where, offset in source.positions.items()} == {f"t-{n}": 50 for n in range(3)}

    run(story)


@pytest.mark.parametrize(
    ("offset", "expected"), [("latest", 0), (45, 15), ({0: 48, 2: "earliest"}, 52), (50, 0), (None, 150)]
)
def test_where_a_reader_begins(offset: Start | None, expected: int) -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        fill(cluster, 50)
        reset = "earliest" if offset is None else "latest"
        assert len(await read(reader(connection, offset=offset, auto_offset_reset=reset))) == expected

    run(story)


def test_a_reader_goes_on_at_another_node_when_the_leader_dies() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        fill(cluster, 10)
        source = reader(connection, offset="earliest", follows=True)
        found: list[Record] = []
        async with source:
            async for record in source:
                found.append(record)
                if len(found) == 30:
                    cluster.dead.add(1)
                    cluster.topics["t"] = [2, 2, 3]
                    fill(cluster, 10)
                if len(found) == 60:
                    break
        assert len({(record.partition, record.offset) for record in found}) == 60

    run(story)


def test_an_offset_outside_the_log_is_reset_or_an_error() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        fill(cluster, 10)
        source = reader(connection, offset=70, follows=True, auto_offset_reset="earliest")
        async with source:
            async for record in source:
                assert record.offset == 0
                break
        with pytest.raises(NoOffset, match=r"auto\.offset\.reset is none"):
            await read(reader(connection, offset=70, follows=True, auto_offset_reset="none"))
        with pytest.raises(ConfigError, match="needs an offset"):
            reader(connection, auto_offset_reset="none")

    run(story)


def test_a_reader_holds_no_more_than_one_answer_ahead() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.topics["t"] = [1]
        fill(cluster, 5)
        source = reader(connection, offset="earliest", follows=True)
        async with source:
            async for record in source:
                if record.offset == 0:
                    for _ in range(10):
                        fill(cluster, 1)
                        await cluster.clock.sleep(50)
                    reads = [r for _, r in cluster.requests if "/records" in r.path]
                    assert len(reads) == 2
                if record.offset == 14:
                    break

    run(story)


def test_a_deleted_topic_ends_the_iteration_with_the_nodes_words() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        fill(cluster, 1)
        source = reader(connection, offset="earliest", follows=True)
        found: list[Record] = []

        async def run_on() -> None:
            async for record in source:
                found.append(record)
                if len(found) == 3:
                    del cluster.topics["t"]

        with pytest.raises(ServerError) as caught:
            await run_on()
        assert caught.value.code == 3
        assert len(found) == 3
        await source.close()

    run(story)


def test_an_answer_without_a_document_is_no_crash() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        serve(cluster, "/x", Answer(status=500, headers={}, body=b"\xff"))
        with pytest.raises(ServerError, match="HTTP status 500"):
            await connection.get("/x")

    run(story)
