"""Every API is checked: what its row asks for is refused before the handler, item by item where Kafka does so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import pytest

from kraft.broker.permissions import Permissions
from kraft.broker.principal import NodePrincipal, Principal, UserPrincipal
from kraft.http.access_table import ROUTE_ACCESS
from kraft.protocol import apis
from kraft.protocol.apis import request_type, response_type
from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import Message, TopLevel
from kraft.protocol.errors import ClusterAuthorizationFailed, KafkaError
from kraft.protocol.messages.produce_request import ProduceRequestData, TopicProduceData
from kraft.wire.access import Guard
from kraft.wire.access_table import ACCESS, access_of
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection, Later
from kraft.wire.handler_table import ROWS, UNADVERTISED, ApiHandlers
from kraft.wire.refusals import NO_PARTS
from metadata.acls import CLUSTER_NAME, Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.authorizer import Authorizer
from metadata.image import MetadataImage
from metadata.records import TopicRecord
from tests.architecture.access import needed, route_needs

ALICE = UserPrincipal("alice", "10.0.0.1")
SOME_ID = UUID(int=77)
IMAGE = MetadataImage().apply([TopicRecord(name="text", topic_id=SOME_ID)])
READ, WRITE, DESCRIBE, ALL = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.ALL
TOPIC, GROUP, CLUSTER, TXN = AclResource.TOPIC, AclResource.GROUP, AclResource.CLUSTER, AclResource.TRANSACTIONAL_ID
DENIED = {29, 30, 31, 53}
ASKED_BY_ANYBODY = {
    "SaslHandshake",
    "SaslAuthenticate",
    "GetTelemetrySubscriptions",
    "PushTelemetry",
    "DescribeCluster",
}
CHECKED_IN_HANDLER = {"Fetch"}
FILTERED = {"ListGroups", "ListTransactions"}


def allow(operation: AclOperation, resource: AclResource, name: str = "*") -> Acl:
    return Acl(
        resource=resource, name=name, pattern=AclPattern.LITERAL, principal="User:alice", host="*",
        operation=operation, permission=AclPermission.ALLOW,
    )  # fmt: skip


class Gateway:
    """The gateway of a node with these ACLs."""

    def __init__(self, *acls: Acl) -> None:
        self.image = IMAGE
        self.authorizer = Authorizer(acls)
        self.noted: list[tuple[AclOperation, AclResource, str]] = []

    def permissions(self, principal: Principal, *, what: str) -> Permissions | None:
        del what
        return Permissions(self.authorizer, principal, lambda *refused: self.noted.append(refused))


def filled(kind: type[Message], version: int) -> Any:
    """A message with one item in each array of this version, and text in its strings."""
    made = kind.make()  # type: ignore[attr-defined]
    for name, hint in get_type_hints(kind).items():
        if name not in kind.__slots__:
            continue
        array = next((each for each in (hint, *get_args(hint)) if get_origin(each) is Sequence), None)
        if array is not None:
            item = get_args(array)[0]
            inner = filled(item, version) if issubclass(item, Message) else "text" if item is str else 1
            setattr(made, name, [inner])
        elif name == "topic_id":
            made.topic_id = SOME_ID
        elif "str" in str(hint):
            setattr(made, name, "text")
    if isinstance(made, TopLevel):  # only the fields of this version
        return decode_body(kind, version, memoryview(b"".join(encode_body(made, version))), 0)  # type: ignore[type-var]
    return made


def handler_of(key: int) -> ApiHandler:
    handler = ApiHandlers(NO_PARTS).get(key)
    assert handler is not None
    return handler


def call_of(message: TopLevel, version: int, principal: Principal = ALICE) -> Call[Any]:
    connection = ClientConnection(peer="10.0.0.1:5", listener="PLAINTEXT", principal=principal)
    return Call(message=message, version=version, client_id="c", connection=connection)


def codes(message: Any) -> set[int]:
    """Every error code in a message."""
    found: set[int] = set()
    for name in getattr(message, "__slots__", ()):
        value = getattr(message, name)
        if name.endswith("error_code"):
            found.add(value)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            found = found.union(*map(codes, value))
        elif isinstance(value, Message):
            found |= codes(value)
    return found


def test_every_api_has_a_row() -> None:
    served = {apis.BY_KEY[key].name for key in ROWS} | {"ApiVersions"}
    assert set(ACCESS) == served


@pytest.mark.parametrize("name", sorted(set(ACCESS) - {"ApiVersions"}))
def test_a_client_without_acls_reaches_no_handler(name: str) -> None:
    api = apis.BY_NAME[name]
    gateway: Any = Gateway()
    for version in api.clients:
        message = filled(request_type(api), version)
        reached: list[Any] = []

        def handle(call: Call[Any], reached: list[Any] = reached) -> TopLevel:
            reached.append(call)
            return response_type(api).make()  # type: ignore[attr-defined]

        plain = handler_of(api.key)
        guarded = Guard(gateway, access_of).guarded(
            ApiHandler(request=plain.request, response=plain.response, handle=handle, refuse=plain.refuse)
        )
        refusals = []
        answer = None
        try:
            answer = guarded.handle(call_of(message, version))
        except KafkaError as error:
            refusals.append(error.code)
        assert set(refusals) <= DENIED, refusals
        if name in ASKED_BY_ANYBODY | CHECKED_IN_HANDLER | FILTERED:
            assert reached
        elif name == "Metadata":
            assert [list(call.message.topics) for call in reached] == [[]]
            assert 29 in codes(answer)
        else:
            assert not reached, (name, version)
            assert answer is None or codes(answer) & DENIED, (name, version, codes(answer))


def test_an_api_without_a_row_is_refused() -> None:
    gateway: Any = Gateway(allow(ALL, TOPIC), allow(ALL, CLUSTER, CLUSTER_NAME))
    handler = Guard(gateway, lambda key: None).guarded(handler_of(3))
    with pytest.raises(ClusterAuthorizationFailed):
        handler.handle(call_of(filled(request_type(apis.BY_NAME["Metadata"]), 12), 12))


def test_nodes_are_not_checked() -> None:
    gateway: Any = Gateway()
    asked: list[Any] = []
    plain = handler_of(0)
    made = ApiHandler(request=plain.request, response=plain.response, handle=asked.append, refuse=plain.refuse)
    Guard(gateway, access_of).guarded(made).handle(
        call_of(ProduceRequestData.make(), 13, NodePrincipal(2, "forward", "10.0.0.2"))
    )
    assert len(asked) == 1


@pytest.mark.parametrize("way", ["at once", "later", "in a task"])
def test_items_are_refused_one_by_one(way: str) -> None:
    """Whatever the handler answers, the refused topics come behind its own."""
    plain = handler_of(0)
    asked: list[list[str]] = []

    async def main() -> Any:
        def handle(call: Call[Any]) -> Any:
            asked.append([topic.name for topic in call.message.topic_data])
            answer = plain.refuse(call.message, call.version, _NO_ERROR)
            if way == "at once":
                return answer
            if way == "later":
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                future.set_result(None)
                return Later(future, lambda _: answer)

            async def waits() -> TopLevel:
                return answer

            return waits()

        gateway: Any = Gateway(allow(WRITE, TOPIC, "mine"))
        guarded = Guard(gateway, access_of).guarded(
            ApiHandler(request=plain.request, response=plain.response, handle=handle, refuse=plain.refuse)
        )
        topics = [filled(TopicProduceData, 9) for _ in range(3)]
        for topic, name in zip(topics, ("theirs", "mine", "others"), strict=True):
            topic.name, topic.topic_id = name, UUID(int=0)
        answer: Any = guarded.handle(call_of(ProduceRequestData.make(acks=1, topic_data=topics), 9))
        if isinstance(answer, Later):
            return answer.render(await answer.future)
        return answer if isinstance(answer, TopLevel) else await answer

    answer = asyncio.run(main())
    assert asked == [["mine"]]
    assert [(each.name, each.partition_responses[0].error_code) for each in answer.responses] == [
        ("mine", 0), ("theirs", 29), ("others", 29),
    ]  # fmt: skip


_NO_ERROR: Any = SimpleNamespace(code=0, message=None)


def test_unadvertised_apis_need_nothing() -> None:
    assert all(not access_of(key).needs for key in UNADVERTISED)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(set(ACCESS) - {"DeleteTopics"}))
def test_a_need_that_is_taken_away_is_missed(name: str) -> None:
    """By the tables of docs/security.md, which a test compares with the code. DeleteTopics has one array of topics
    before version 6 and another since; a client without ACLs asks in all versions above."""
    row = ACCESS[name]
    for field in ("needs", "each"):
        all_of_it = getattr(row, field)
        for at in range(len(all_of_it)):
            rest = [*all_of_it[:at], *all_of_it[at + 1 :]]
            assert needed(replace(row, **{field: rest})) != needed(row), (name, field, at)


def test_a_need_of_a_route_that_is_taken_away_is_missed() -> None:
    for name, row in ROUTE_ACCESS.items():
        for at in range(len(row.needs)):
            rest = row._replace(needs=(*row.needs[:at], *row.needs[at + 1 :]))
            assert route_needs(rest) != route_needs(row), (name, at)
