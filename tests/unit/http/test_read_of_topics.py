"""Who commits, resets, deletes or acknowledges over HTTP needs Read on the topics, as in Kafka."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.ack_ids import AckIds, Lock, id_of
from kraft.coordinators.shares.queue import Queues
from kraft.coordinators.shares.rest_acknowledgements import Shares
from kraft.coordinators.transactions.routing import Transactions
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.share_groups import share_group_routes
from kraft.http.v3.share_records import share_record_routes
from kraft.system_clock import SystemClock
from metadata.acls import AclOperation, AclResource
from metadata.image import TopicIdPartition
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_transactions import FakeTransactions
from tests.unit.http.door import PLAIN, V3, Answer, Door, open_door
from tests.unit.http.test_access import allow, gateway

READ, DESCRIBE = AclOperation.READ, AclOperation.DESCRIBE
IDS = AckIds(b"key")
ABSENT = UUID(int=77)
Ask = tuple[str, str, Any]


class Coordinators:
    """A group that has an offset of each topic, with an instance that reads `mine`; it takes what it is asked."""

    def __init__(self) -> None:
        self.changed: list[object] = []

    async def ask(self, request: r.Request) -> a.Answer:
        match request:
            case r.FetchOffsets():
                names = ("mine", "theirs", "absent")
                return a.GroupOffsets(offsets=tuple(a.OffsetOfGroup(name, 0, 0, "", -1) for name in names))
            case r.DescribeInstance():
                partitions = (("mine", 0),)
                return a.InstanceDescription(config=r.InstanceConfig(), topics=(), pattern=None, partitions=partitions)
            case r.DescribeGroup() | r.DescribeShareOffsets():
                return a.ShareOffsets(offsets=(a.ShareOffset("mine", 0),))
        self.changed.append(request)
        match request:
            case r.ResetShareOffsets():
                return a.ShareOffsets(offsets=())
            case r.DeleteOffsets():
                return a.OffsetsDeleted()
        return a.Taken()

    async def settle(self, group: str, leases: Any) -> list[None]:
        self.changed += leases
        return [None for _ in leases]


def ack(topic_id: UUID, offset: int = 0) -> dict[str, str]:
    lock = Lock(TopicIdPartition(topic_id, 0), 0, 5, 0, 1, 10_000, 10_000, UUID(int=1))
    return {"ack_id": id_of(IDS.token("g", lock, owner=""), lock, offset), "type": "accept"}


class Client:
    """May do all that these routes need of the group and the transactional id, and describe `mine`."""

    def __init__(self, door: Door, fake: FakeGateway, coordinators: Coordinators) -> None:
        self.door, self.fake, self.changed = door, fake, coordinators.changed
        self.producer = ""

    async def begin(self) -> None:
        for operation, name, resource in (
            (READ, "g", AclResource.GROUP),
            (AclOperation.DELETE, "g", AclResource.GROUP),
            (AclOperation.WRITE, "one", AclResource.TRANSACTIONAL_ID),
            (DESCRIBE, "mine", AclResource.TOPIC),
        ):
            allow(self.fake, operation, name, resource)
        begun = (await self.door.ask("POST", "/transactions/one", {})).json
        self.producer = urlencode({name: begun[name] for name in ("producer_id", "producer_epoch")})

    def of_topic(self, topic: str) -> list[Ask]:
        named = {"topic": topic, "partition": 0, "offset": 0}
        consumer, transaction = "/consumers/g/instances/i/offsets", f"/transactions/one/offsets?{self.producer}"
        group, share = f"{V3}/consumer-groups/g/offsets", f"{V3}/share-groups/g"
        topic_id = self.fake.image.topic_ids.get(topic, ABSENT)
        return [
            ("POST", f"{group}:reset", {"to": "latest", "topics": [topic]}),
            ("POST", f"{group}:reset", {"offsets": [{"topic_name": topic, "partition_id": 0, "offset": 0}]}),
            ("POST", f"{share}/offsets:reset", {"to": "latest", "topics": [topic]}),
            ("POST", consumer, {"partitions": [named]}),
            ("POST", consumer, {"offsets": [named]}),
            ("POST", transaction, {"group": "g", "partitions": [named]}),
            ("POST", transaction, {"group": "g", "instance": "i", "offsets": [named]}),
            ("DELETE", f"{group}/{topic}", None),
            ("DELETE", f"{group}/{topic}/partitions/0", None),
            ("POST", f"{share}/records:acknowledge", {"acks": [ack(topic_id)]}),
        ]

    def of_all(self) -> list[Ask]:
        """The topics do not stand in the request."""
        return [
            ("POST", f"{V3}/consumer-groups/g/offsets:reset", {"shift": 0}),
            ("POST", f"{V3}/share-groups/g/offsets:reset", {"to": "latest"}),
            ("POST", "/consumers/g/instances/i/offsets", {}),
            ("POST", f"/transactions/one/offsets?{self.producer}", {"group": "g", "instance": "i"}),
        ]

    async def ask(self, asked: Ask) -> Answer:
        method, path, body = asked
        kind = {} if body is None else {"Content_Type": PLAIN}
        return await self.door.ask(method, path, body, **kind)


def with_client(story: Any) -> None:
    async def run() -> None:
        fake, coordinators = gateway(), Coordinators()
        groups, transactions = cast(Groups, coordinators), cast(Transactions, FakeTransactions(fake))
        queues = Queues(
            gateway=cast(Any, fake),
            groups=groups,
            transactions=transactions,
            clock=SystemClock(asyncio.get_running_loop()),
            rng=random.Random(1),
            ack_ids=IDS,
            local=None,
            remote=lambda _: cast(Shares, coordinators),
        )
        routes = (
            *consumer_routes(groups, random.Random(1)),
            *transaction_routes(transactions, groups),
            *group_routes(groups),
            *share_group_routes(groups, queues),
            *share_record_routes(queues),
        )
        async with open_door(fake, extra_routes=routes) as door:
            client = Client(door, fake, coordinators)
            await client.begin()
            await story(client)

    asyncio.run(run())


def test_describe_alone_changes_no_offset() -> None:
    async def story(client: Client) -> None:
        every = [*client.of_topic("mine"), *client.of_all()]
        for each in every:
            answer = await client.ask(each)
            assert (answer.status, answer.json["error_code"]) == (403, 40301), each
        assert client.changed == []
        allow(client.fake, READ)
        for done, each in enumerate(every, 1):
            answer = await client.ask(each)
            assert answer.status in (200, 204), (each, answer.body)
            assert len(client.changed) == done, each

    with_client(story)


def test_a_topic_that_may_not_be_described_is_as_one_that_does_not_exist() -> None:
    """In status, code and words."""

    async def story(client: Client) -> None:
        hidden, absent = client.of_topic("theirs"), client.of_topic("absent")
        for one, other in zip(hidden, absent, strict=True):
            first, second = await client.ask(one), await client.ask(other)
            assert first.status == second.status in (403, 404), one
            for answer in (first, second):
                for result in answer.json.get("results", ()):
                    assert result["error_code"] == answer.json["error_code"]
            assert [first.json[key] for key in ("error_code", "message")] == [
                second.json["error_code"],
                second.json["message"].replace("absent", "theirs"),
            ], one
        assert client.changed == []

    with_client(story)


def test_an_acknowledgement_is_refused_alone() -> None:
    """Also beside ids that are not the cluster's."""

    async def story(client: Client) -> None:
        allow(client.fake, READ)
        mine, theirs = (client.fake.image.topic_ids[name] for name in ("mine", "theirs"))
        acks = [
            ack(theirs, 0), ack(theirs, 1), {"ack_id": "x.0", "type": "accept"}, ack(mine, 0), ack(mine, 1),
            ack(theirs, 2), ack(mine, 3),
        ]  # fmt: skip
        answer = await client.ask(("POST", f"{V3}/share-groups/g/records:acknowledge", {"acks": acks}))
        codes = [each["error_code"] for each in answer.json["results"]]
        assert (answer.status, codes) == (207, [40401, 40401, 40002, None, None, 40401, None])
        assert [(lease.part.first, lease.part.last) for _, lease in client.changed] == [(0, 1), (3, 3)]

    with_client(story)
