"""The verbs of transactions over REST: what they write, what a repetition does, and who is fenced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.decide import TimeIsOver
from kraft.coordinators.transactions.routing import Transactions
from kraft.http.endpoint import Call
from kraft.http.transactional import after, parse_sequence, sequence_text
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.transactions import transaction_admin_routes
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.markers import build_marker
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.primitives import INT32_MAX
from kraft.protocol.transactions import MarkersToWrite
from replication.producers.state import BATCHES_KEPT
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_transactions import FakeTransactions
from tests.unit.http.door import JSON, RAW_BATCH, V3, Answer, Door, raw_records, with_door

ONE = "/transactions/one"
READ = "/topics/t/partitions/{}/records?timeout=0&isolation_level=read_committed"


class FakeGroups:
    def __init__(self) -> None:
        self.asked: list[r.Request] = []
        self.answer: a.Answer = a.Taken()

    async def ask(self, request: r.Request) -> a.Answer:
        self.asked.append(request)
        return self.answer


class Node:
    """A door with a coordinator, and what a client says to it."""

    def __init__(self, door: Door, transactions: FakeTransactions, groups: FakeGroups) -> None:
        self.door, self.transactions, self.groups = door, transactions, groups
        self.gateway = door.gateway

    async def begin(self, name: str = "one", **body: Any) -> dict[str, int]:
        answer = await self.door.ask("POST", f"/transactions/{name}", body)
        assert answer.status == 200, answer.body
        assert answer.json["transactional_id"] == name
        return whose(answer)

    async def ask(
        self,
        verb: str,
        producer: dict[str, int],
        body: Any = None,
        *,
        name: str = "one",
        sequence: str = "",
        **how: Any,
    ) -> Answer:
        named = {**producer, **({"sequence": sequence} if sequence else {})}
        return await self.door.ask("POST", f"/transactions/{name}{verb}?{urlencode(named)}", body, **how)

    async def produce(self, producer: dict[str, int], *values: Any, path: str = "/topics/t", **how: Any) -> Answer:
        body = {"records": [value if isinstance(value, dict) else {"value": value} for value in values]}
        return await self.ask(path, producer, body, Content_Type=JSON, **how)

    async def committed(self, partition: int = 0) -> list[Any]:
        answer = await self.door.ask("GET", READ.format(partition), Accept=JSON)
        return [record["value"] for record in answer.json]

    def log(self, partition: int = 0) -> list[tuple[int, int, int, bool]]:
        """Producer epoch, base sequence, records, and whether it is a marker."""
        data = self.gateway.log("t", partition).data
        return [(h.producer_epoch, h.base_sequence, h.record_count, h.is_control) for _, h in whole_batches(data)]


def whose(answer: Answer) -> dict[str, int]:
    return {name: answer.json[name] for name in ("producer_id", "producer_epoch")}


def with_node(story: Callable[[Node], Awaitable[None]], *, partitions: int = 1, **configs: str) -> None:
    fake, groups = FakeGateway(), FakeGroups()
    fake.add_topic("t", partitions, configs=configs)
    transactions = FakeTransactions(fake)

    async def run(door: Door) -> None:
        await story(Node(door, transactions, groups))

    with_door(run, fake, extra_routes=transaction_routes(cast(Transactions, transactions), cast(Groups, groups)))


def test_what_is_written_shows_when_it_is_committed() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        answer = await node.produce(producer, 1, 2)
        assert (answer.status, [each["offset"] for each in answer.json["offsets"]]) == (200, [0, 1])
        assert answer.headers["X-Next-Sequence"] == "0:2"
        answer = await node.produce(producer, 3, sequence="0:2")
        assert (answer.json["offsets"][0]["offset"], answer.headers["X-Next-Sequence"]) == (2, "0:3")
        assert await node.committed() == []
        following = await node.ask("/commit", producer)
        assert following.status == 200
        assert whose(following) == {**producer, "producer_epoch": producer["producer_epoch"] + 1}
        assert await node.committed() == [1, 2, 3]

        producer = whose(following)
        assert (await node.produce(producer, 4)).status == 200
        assert (await node.ask("/abort", producer)).status == 200
        assert await node.committed() == [1, 2, 3]
        assert node.log() == [(0, 0, 2, False), (0, 2, 1, False), (1, -1, 1, True), (1, 0, 1, False), (2, -1, 1, True)]

    with_node(story)


def test_a_producer_belongs_to_the_user_who_took_the_id_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "owner", property(lambda call: call.request.headers.get("X-Owner", "")))
    alice, bob = {"X_Owner": "User:alice"}, {"X_Owner": "User:bob"}

    async def story(node: Node) -> None:
        async def begin(**who: str) -> dict[str, int]:
            return whose(await node.door.ask("POST", ONE, {}, **who))

        async def statuses(producer: dict[str, int], **who: str) -> list[tuple[int, Any]]:
            offsets = {"group": "g", "offsets": [{"topic": "t", "partition": 0, "offset": 3}]}
            asked = (
                await node.produce(producer, 7, **who),
                await node.ask("/offsets", producer, offsets, **who),
                await node.ask("/commit", producer, **who),
                await node.ask("/abort", producer, **who),
            )
            return [(each.status, each.json.get("kafka_code") if each.body else 0) for each in asked]

        producer = await begin(**alice)
        assert (await node.produce(producer, 1, **alice)).status == 200
        unknown = [(404, 49)] * 4
        assert (await statuses({**producer, "producer_id": 77}, **alice))[2:] == unknown[2:]
        node.groups.asked.clear()
        assert await statuses(producer, **bob) == unknown
        guessed = {**producer, "producer_epoch": producer["producer_epoch"] + 1}
        assert await statuses(guessed, **alice) == unknown
        assert node.groups.asked == []
        following = await node.ask("/commit", producer, **alice)
        assert (following.status, await node.committed()) == (200, [1])
        assert await statuses(whose(following), **bob) == unknown

        theirs = await begin(**bob)
        assert await statuses(theirs, **alice) == unknown
        assert (await node.produce(whose(following), 8, **bob)).status == 409, "fenced, whoever asks"
        assert (await node.produce(theirs, 2, **bob)).status == 200
        assert (await node.ask("/commit", theirs, **bob)).status == 200
        everybodys = await begin()
        assert (await node.produce(everybodys, 3, **alice)).status == 200
        assert (await node.ask("/commit", everybodys, **bob)).status == 200
        assert await node.committed() == [1, 2, 3]

    with_node(story)


def test_each_verb_may_be_repeated_and_gives_the_first_answer() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        for sequence, values in (("", (1, 2)), ("0:2", (3,))):
            first = await node.produce(producer, *values, sequence=sequence)
            again = await node.produce(producer, *values, sequence=sequence)
            assert (again.status, again.json["offsets"]) == (200, first.json["offsets"])
            assert again.headers["X-Next-Sequence"] == first.headers["X-Next-Sequence"]
        ends = [await node.ask("/commit", producer) for _ in range(3)]
        assert {(each.status, each.body) for each in ends} == {(200, ends[0].body)}
        assert await node.committed() == [1, 2, 3]
        producer = whose(ends[0])
        await node.produce(producer, 4)
        ends = [await node.ask("/abort", producer) for _ in range(3)]
        assert {(each.status, each.body) for each in ends} == {(200, ends[0].body)}
        assert [each[3] for each in node.log()] == [False, False, True, False, True]

    with_node(story)


def test_a_beginning_with_its_key_may_be_repeated_and_fences_nobody() -> None:
    async def story(node: Node) -> None:
        async def begin(key: str, **headers: str) -> Answer:
            return await node.door.ask("POST", ONE, {}, Idempotency_Key=key, **headers)

        first = await begin("a")
        assert (await begin("a")).body == first.body
        await node.produce(whose(first), 1)
        assert (await begin("a")).body == first.body, "also a late one, while its transaction is open"
        assert (await node.ask("/commit", whose(first))).status == 200
        assert await node.committed() == [1]
        for key, headers in (("b", {}), ("a", {"Client_Id": "another"}), ("a", {})):
            epoch = node.transactions.known["one"].epoch
            answer = await begin(key, **headers)
            assert whose(answer)["producer_epoch"] == epoch + 1, "another key, or that of another client"
        refused = await begin("two words")
        assert (refused.status, "no printable ASCII" in refused.json["message"]) == (400, True)

    with_node(story)


def test_a_key_that_began_with_another_body_is_refused_and_changes_nothing() -> None:
    async def story(node: Node) -> None:
        async def begin(timeout_ms: int | None, key: str = "a") -> Answer:
            body = {} if timeout_ms is None else {"transaction.timeout.ms": timeout_ms}
            return await node.door.ask("POST", ONE, body, Idempotency_Key=key)

        first = await begin(None)
        known = node.transactions.known["one"]
        refused = await begin(30_000)
        assert (refused.status, refused.json["error_code"], refused.json["kafka_code"]) == (422, 422, 42)
        assert "60000, not 30000" in refused.json["message"]
        assert node.transactions.known["one"] is known
        assert (await begin(60_000)).body == first.body, "what it said without saying it"
        other = await begin(30_000, key="b")
        assert whose(other)["producer_epoch"] == whose(first)["producer_epoch"] + 1

    with_node(story)


def test_records_without_a_key_go_to_the_same_partition_when_they_come_again() -> None:
    async def story(node: Node) -> None:
        producer, sequence, seen = await node.begin(), "", set()
        for number in range(20):
            answers = [await node.produce(producer, number, sequence=sequence) for _ in range(3)]
            assert [each.json["offsets"] for each in answers] == [answers[0].json["offsets"]] * 3
            seen.add(answers[0].json["offsets"][0]["partition"])
            sequence = answers[0].headers["X-Next-Sequence"]
        assert len(seen) > 1, "and not always to one"
        await node.ask("/commit", producer)
        assert sorted([value for number in range(8) for value in await node.committed(number)]) == list(range(20))

    with_node(story, partitions=8)


def test_the_sequence_of_each_partition_counts_for_itself() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        records = [{"value": 1, "partition": 2}, {"value": 2, "partition": 0}, {"value": 3, "partition": 2}]
        answer = await node.produce(producer, *records)
        assert answer.headers["X-Next-Sequence"] == "0:1,2:2"
        answer = await node.produce(producer, 4, path="/topics/t/partitions/1", sequence="0:1,2:2")
        assert answer.headers["X-Next-Sequence"] == "0:1,1:1,2:2"
        answer = await node.produce(producer, {"value": 5, "partition": 2}, sequence="0:1,1:1,2:2")
        assert answer.headers["X-Next-Sequence"] == "0:1,1:1,2:3"
        assert node.log(2) == [(0, 0, 2, False), (0, 2, 1, False)]

    with_node(story, partitions=3)


def test_raw_records_and_batches_belong_to_it_too() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        body = raw_records([(None, b"1"), (None, b"2")])
        kind = "application/vnd.kafka.records.v1"
        for _ in range(2):
            assert (await node.ask("/topics/t", producer, body, Content_Type=kind)).status == 200
        batches = b"".join(build_batch([NewRecord(None, value, [], 1)]) for value in (b"3", b"4"))
        for _ in range(2):
            answer = await node.ask("/topics/t/partitions/0", producer, batches, Content_Type=RAW_BATCH, sequence="0:2")
            assert [each["offset"] for each in answer.json["offsets"]] == [2, 3]
            assert answer.headers["X-Next-Sequence"] == "0:4"
        await node.ask("/commit", producer)
        assert await node.committed() == [1, 2, 3, 4]
        own = build_batch([NewRecord(None, b"5", [], 1)], producer_id=5, producer_epoch=0, base_sequence=0)
        answer = await node.ask("/topics/t/partitions/0", producer, own, Content_Type=RAW_BATCH)
        assert (answer.status, "leave it at -1" in answer.json["message"]) == (422, True)

    with_node(story)


def test_who_begins_fences_the_one_before_and_aborts_what_it_left_open() -> None:
    async def story(node: Node) -> None:
        zombie = await node.begin()
        await node.produce(zombie, 1)
        producer = await node.begin()
        assert producer["producer_id"] == zombie["producer_id"]
        answers = [await node.produce(zombie, 2, sequence="0:1"), *[await node.ask(f"/{v}", zombie) for v in
                   ("commit", "abort")]]  # fmt: skip
        for answer in answers:
            assert (answer.status, answer.json["error_code"]) == (409, 40905), answer.body
            assert answer.json["kafka_code"] in (47, 90)
            assert answer.json["retriable"] is False
        await node.produce(producer, 3)
        await node.ask("/commit", producer)
        assert await node.committed() == [3]

    with_node(story)


def test_a_transaction_whose_time_is_over_cannot_be_committed() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin(**{"transaction.timeout.ms": 10})
        await node.produce(producer, 1)
        node.transactions.now_ms += 10
        node.transactions.ask("one", TimeIsOver())
        for verb, code in (("/commit", 40903), ("/topics/t", 40905)):
            body = {"records": [{"value": 2}]} if "topics" in verb else None
            answer = await node.ask(verb, producer, body, sequence="0:1" if body else "", Content_Type=JSON)
            assert (answer.status, answer.json["error_code"]) == (409, code), answer.body
        assert await node.committed() == []

    with_node(story)


def test_a_commit_of_nothing_is_none() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        for _ in range(2):
            answer = await node.ask("/commit", producer)
            assert (answer.status, whose(answer)) == (200, producer)
        await node.produce(producer, 1)
        following = whose(await node.ask("/commit", producer))
        assert whose(await node.ask("/commit", following)) == following
        answer = await node.ask("/abort", producer)
        assert (answer.status, answer.json["error_code"], answer.json["kafka_code"]) == (409, 40903, 48)

    with_node(story)


def test_where_a_transaction_stands() -> None:
    async def story(node: Node) -> None:
        answer = await node.door.ask("GET", ONE)
        assert (answer.status, answer.json["error_code"], answer.json["kafka_code"]) == (404, 40406, 105)
        producer = await node.begin(**{"transaction.timeout.ms": 5_000})
        await node.produce(producer, 1)
        found = (await node.door.ask("GET", ONE)).json
        assert found == {
            "transactional_id": "one",
            **producer,
            "state": "Ongoing",
            "timeout_ms": 5_000,
            "started_ms": 1_000,
            "partitions": [{"topic": "t", "partition": 0}],
        }
        await node.ask("/commit", producer)
        found = (await node.door.ask("GET", ONE)).json
        assert (found["state"], found["started_ms"], found["partitions"]) == ("CompleteCommit", -1, [])

    with_node(story)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("producer_epoch=0", "producer_id is missing"),
        ("producer_id=1", "producer_epoch is missing"),
        ("producer_id=x&producer_epoch=0", "not a number"),
        ("producer_id=1&producer_epoch=32768", "from 0 to 32767"),
        ("producer_id=1&producer_epoch=0&sequence=7", "partition:sequence"),
        ("producer_id=1&producer_epoch=0&sequence=0:1,0:2", "twice"),
        ("producer_id=1&producer_epoch=0&sequence=0:99999999999", "partition:sequence"),
        (f"producer_id=1&producer_epoch=0&sequence=0:{2**31}", "partition:sequence"),
        ("producer_id=1&producer_epoch=0&acks=1", "acks=all"),
    ],
)
def test_bad_parameters_are_refused_and_nothing_is_written(query: str, problem: str) -> None:
    async def story(node: Node) -> None:
        body = {"records": [{"value": 1}]}
        answer = await node.door.ask("POST", f"{ONE}/topics/t?{query}", body, Content_Type=JSON)
        assert (answer.status, answer.json["error_code"]) == (400, 40002)
        assert problem in answer.json["message"]
        assert node.log() == []

    with_node(story)


def test_a_produce_takes_no_key_in_place_of_its_sequence() -> None:
    """Its sequence alone would count: the records of the second key would be answered as those of the first."""

    async def story(node: Node) -> None:
        producer = await node.begin()
        for path in ("/topics/t", "/topics/t/partitions/0"):
            answer = await node.produce(producer, 1, path=path, Idempotency_Key="a")
            assert (answer.status, answer.json["error_code"]) == (400, 40002)
            assert "X-Next-Sequence" in answer.json["message"]
        assert node.log() == []

    with_node(story)


def test_refusals_of_a_coordinator_have_codes_of_their_own() -> None:
    async def story(node: Node) -> None:
        answer = await node.door.ask("POST", ONE, {"transaction.timeout.ms": 900_001})
        assert (answer.status, answer.json["error_code"], answer.json["kafka_code"]) == (400, 40002, 50)
        stranger = {"producer_id": 7, "producer_epoch": 0}
        for verb in ("/commit", "/abort"):
            answer = await node.ask(verb, stranger)
            assert (answer.status, answer.json["error_code"], answer.json["kafka_code"]) == (404, 40406, 49)
        answer = await node.produce(stranger, 1)
        assert (answer.status, answer.json["error_code"]) == (404, 40406)
        producer = await node.begin()
        answer = await node.produce(producer, 1, path="/topics/t/partitions/9")
        assert (answer.status, answer.json["error_code"]) == (404, 40402)
        answer = await node.produce(producer, 1, sequence="0:5")
        assert (answer.status, answer.json["kafka_code"]) == (400, 45)
        assert "X-Next-Sequence" in answer.json["message"]
        assert node.log() == []

    with_node(story)


def test_a_request_makes_no_more_batches_than_a_leader_knows_again() -> None:
    """D2: a repetition of the sixth last batch would be taken for a gap."""

    async def story(node: Node) -> None:
        producer, text = await node.begin(), "x" * 300
        answer = await node.produce(producer, *[text] * (BATCHES_KEPT * 4))
        assert (answer.status, f"may make {BATCHES_KEPT}" in answer.json["message"]) == (413, True)
        assert node.log() == []
        first = await node.produce(producer, *[text] * 4)
        again = await node.produce(producer, *[text] * 4)
        assert (again.status, again.json["offsets"]) == (200, first.json["offsets"])
        assert 1 < len(node.log()) <= BATCHES_KEPT

    with_node(story, **{"max.message.bytes": "800"})


def test_what_follows_a_text_of_sequences() -> None:
    assert parse_sequence("") == {}
    assert sequence_text(parse_sequence("3:4,0:12")) == "0:12,3:4"
    assert after(INT32_MAX, 1) == 0
    assert after(INT32_MAX - 1, 3) == 1


# --- offsets ------------------------------------------------------------------------------------------------------


def test_offsets_of_a_group_go_to_its_coordinator() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        read = [{"topic": "t", "partition": 0, "offset": 6, "metadata": "m"}]
        stored = [{"topic": "t", "partition": 1, "offset": 9}]
        body = {"group": "g", "offsets": read, "partitions": stored}
        answer = await node.ask("/offsets", producer, body)
        assert (answer.status, answer.body) == (204, b"")
        (asked,) = node.groups.asked
        assert isinstance(asked, r.CommitInTransaction)
        assert (asked.group, asked.transactional_id, asked.adds_partition) == ("g", "one", True)
        assert {"producer_id": asked.producer_id, "producer_epoch": asked.producer_epoch} == producer
        assert asked.offsets == (r.OffsetToCommit("t", 0, 7, "m"), r.OffsetToCommit("t", 1, 9))

    with_node(story, partitions=2)


def test_offsets_of_a_rest_consumer_are_its_own_to_name() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        assert (await node.ask("/offsets", producer, {"group": "g", "instance": "i"})).status == 204
        (asked,) = node.groups.asked
        assert isinstance(asked, r.CommitInstanceInTransaction)
        assert (asked.group, asked.instance, asked.offsets) == ("g", "i", None)
        node.groups.answer = a.Refused(code=40403, message="Consumer instance not found")
        answer = await node.ask("/offsets", producer, {"group": "g", "instance": "i"})
        assert (answer.status, answer.json["error_code"]) == (404, 40403)

    with_node(story)


def test_offsets_that_name_nothing_are_refused() -> None:
    async def story(node: Node) -> None:
        producer = await node.begin()
        for body, status in (
            ({"group": "g"}, 422),
            ({}, 422),
            ({"group": "g", "offsets": [{"topic": "nowhere", "partition": 0, "offset": 1}]}, 404),
            ({"group": "g", "offsets": [{"topic": "t", "partition": 9, "offset": 1}]}, 404),
        ):
            assert (await node.ask("/offsets", producer, body)).status == status, body
        assert node.groups.asked == []

    with_node(story)


def test_a_transactional_id_may_hold_any_character() -> None:
    async def story(node: Node) -> None:
        answer = await node.door.ask("POST", "/transactions/a%2Fb%20c", {})
        assert answer.json["transactional_id"] == "a/b c"

    with_node(story)


# --- for operators ------------------------------------------------------------------------------------------------


def with_admin(story: Callable[[Node, list[MarkersToWrite]], Awaitable[None]], *, code: int = 0) -> None:
    """What the leaders were told is noted, and written as they write it."""
    fake, groups, reported = FakeGateway(), FakeGroups(), []
    fake.add_topic("t", 2)
    transactions = FakeTransactions(fake)

    async def write(node_id: int, markers: Sequence[MarkersToWrite]) -> Sequence[Mapping[tuple[str, int], int]]:
        assert node_id == 1
        reported.extend(markers)
        for each in markers:
            for topic, partition in each.partitions if not code else ():
                batch = build_marker(
                    each.marker, producer_id=each.producer_id, producer_epoch=each.producer_epoch, timestamp_ms=1
                )
                fake.log(topic, partition).append(batch)
        return [dict.fromkeys(each.partitions, code) for each in markers]

    async def run(door: Door) -> None:
        await story(Node(door, transactions, groups), reported)

    known = cast(Transactions, transactions)
    routes = (*transaction_routes(known, cast(Groups, groups)), *transaction_admin_routes(known, write))
    with_door(run, fake, extra_routes=routes)


def test_operators_see_which_transactions_there_are() -> None:
    async def story(node: Node, reported: list[MarkersToWrite]) -> None:
        producer = await node.begin()
        await node.begin("other")
        await node.produce(producer, {"value": 1, "partition": 1})

        async def listed(query: str = "") -> list[tuple[str, str]]:
            answer = await node.door.ask("GET", f"{V3}/transactions{query}")
            assert answer.status == 200, answer.body
            return [(row["transactional_id"], row["state"]) for row in answer.json["data"]]

        assert await listed() == [("one", "Ongoing"), ("other", "Empty")]
        assert await listed("?state=Empty&state=CompleteAbort") == [("other", "Empty")]
        assert await listed(f"?producer_id={producer['producer_id']}") == [("one", "Ongoing")]
        assert await listed("?pattern=o.h.*") == [("other", "Empty")]
        answer = await node.door.ask("GET", f"{V3}/transactions?state=Open")
        assert (answer.status, answer.json["error_code"], "Ongoing" in answer.json["message"]) == (400, 40002, True)
        answer = await node.door.ask("GET", f"{V3}/transactions?pattern=%2B")
        assert (answer.status, "RE2" in answer.json["message"]) == (400, True)
        found = (await node.door.ask("GET", f"{V3}/transactions/one")).json
        assert found["partitions"] == [{"topic_name": "t", "partition_id": 1}]
        assert found["coordinator"]["related"].endswith("/brokers/1")
        assert (await node.door.ask("GET", f"{V3}/transactions/nobody")).json["error_code"] == 40406

    with_admin(story)


def test_an_operator_aborts_what_is_open_in_a_partition() -> None:
    async def story(node: Node, reported: list[MarkersToWrite]) -> None:
        producer = await node.begin()
        await node.produce(producer, 1, path="/topics/t/partitions/0")
        partition = f"{V3}/topics/t/partitions/0"
        (row,) = (await node.door.ask("GET", partition + "/producers")).json["data"]
        assert (row["producer_id"], row["transaction_start_offset"], row["last_sequence"]) == (1000, 0, 0)
        for body, code in (({}, 40002), ({"producer_id": 5}, 40002), ({"start_offset": 1}, 40903)):
            answer = await node.door.ask("POST", partition + "/transactions:abort", body)
            assert answer.json["error_code"] == code, answer.body
        assert reported == []
        answer = await node.door.ask("POST", partition + "/transactions:abort", {"start_offset": 0})
        assert answer.status == 204, answer.body
        (marker,) = reported
        assert (marker.producer_id, marker.producer_epoch, marker.marker.is_commit) == (1000, 0, False)
        assert marker.partitions == {("t", 0)}
        assert node.door.gateway.changes == [("User:ANONYMOUS", "WriteTxnMarkers", ["t-0"], [])]
        (row,) = (await node.door.ask("GET", partition + "/producers")).json["data"]
        assert row["transaction_start_offset"] == -1
        assert await node.committed() == []

    with_admin(story)


def test_an_abort_that_the_leader_refuses_reports_it() -> None:
    async def story(node: Node, reported: list[MarkersToWrite]) -> None:
        body = {"producer_id": 5, "producer_epoch": 0}
        answer = await node.door.ask("POST", f"{V3}/topics/t/partitions/0/transactions:abort", body)
        assert (answer.status, answer.json["kafka_code"]) == (409, 47)
        assert node.door.gateway.changes[-1][1:] == ("WriteTxnMarkers", ["t-0"], ["INVALID_PRODUCER_EPOCH"])

    with_admin(story, code=47)
