"""Who may ask for which API: each one, asked by a client and by a node."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import pkgutil
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.client_quotas import OWNER, Owner
from kraft.broker.principal import ANONYMOUS, ASKER, NodePrincipal, Principal, UserPrincipal, asker_bytes, decode_user
from kraft.protocol import apis, codec
from kraft.protocol.apis import Api
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.transactions import Producer
from kraft.wire import handlers
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection
from kraft.wire.budget import Budget
from kraft.wire.handler_table import MODULES, ROWS, SERVED, ApiHandlers
from kraft.wire.large_requests import LargeRequests
from kraft.wire.session import Session, Shared
from tests.support.node_parts import node_parts_of
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.fakes import handlers_of
from tests.unit.wire.test_session_bounds import Line

NODE = NodePrincipal(2, "forward")
ROOT = Path(handlers.__path__[0]).parents[2]


@pytest.mark.parametrize("principal", [ANONYMOUS, NODE], ids=["client", "node"])
@pytest.mark.parametrize("api", apis.BY_KEY.values(), ids=lambda api: api.name)
def test_each_api_is_served_to_those_who_may_ask(api: Api, principal: Principal) -> None:
    """Whoever may not ask loses the connection, as do those who ask in a version that is not theirs."""
    served = api.clients if principal is ANONYMOUS else api.nodes
    if api in (apis.SASL_HANDSHAKE, apis.SASL_AUTHENTICATE) and principal is NODE:
        served = range(0)  # it has authenticated

    async def story() -> None:
        for version in sorted({*api.clients, *api.nodes}):
            around, line = environment(1), Line()
            shared = Shared(
                clock=around.clock,
                handlers=ApiHandlers(node_parts_of(gateway=SimpleNamespace(quotas=None))),
                bytes_max=1 << 20,
                produce_budget=Budget(1 << 20),
                answers=AnswerBudget(1 << 20),
                large=LargeRequests(around, items_max=1_000),
            )
            client = ClientConnection(peer=line.peer, listener="PLAINTEXT", principal=principal)
            session = Session(shared, cast(Any, line), client, takes_nodes=False)
            line.put(_frame(api, version))
            serving = asyncio.create_task(session.serve())
            for _ in range(20):
                await asyncio.sleep(0)
            is_refused = serving.done() and not serving.cancelled() and serving.exception() is None
            assert is_refused == (version not in served), version
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(story())


def _frame(api: Api, version: int, *, asker: UserPrincipal | None = None, timeout_ms: int | None = None) -> bytes:
    kind: Any = apis.request_type(api)
    head = codec.RequestHeader(
        api_key=api.key,
        api_version=version,
        correlation_id=1,
        client_id="c",
        timeout_ms=timeout_ms,
        asker=None if asker is None else asker.encode(),
    )
    return b"".join(codec.encode_request(api, head, kind.make()))


def test_each_api_has_one_handler() -> None:
    """Whoever asks: those of the connection itself are beside the table."""
    found = Counter(
        handler.request.API_KEY
        for module in pkgutil.iter_modules(handlers.__path__, f"{handlers.__name__}.")
        for handler in _handlers_in(import_module(module.name))
    )
    assert set(found.values()) == {1}, found.most_common(3)
    assert found.keys() == MODULES.keys()
    assert found.keys() | {apis.API_VERSIONS.key} == {
        api.key for api in apis.BY_KEY.values() if api.clients or api.nodes
    }


def _handlers_in(module: ModuleType) -> Sequence[ApiHandler]:
    make = getattr(module, "apis", None)
    return make(node_parts_of()) if callable(make) else ()


NO_VERSIONS = {"kraft/wire/handlers/operations.py": "codes of operations"}
"""Modules with a range of numbers that are no versions."""


def test_a_version_stands_in_one_place() -> None:
    """Who may ask for which versions is in the table that is made from the schemas; nothing beside it has a range."""
    ranges = {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "kraft" / "wire").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and len(node.args) == 2
        and all(isinstance(argument, ast.Constant) for argument in node.args)
    }
    assert ranges == NO_VERSIONS.keys()
    assert {api.key for api in SERVED} == ROWS.keys() == {api.key for api in apis.BY_KEY.values() if api.clients} - {18}


def test_a_client_cannot_send_what_only_nodes_send() -> None:
    asked: list[tuple[bytes, str]] = []

    class Coordinator:
        async def init(
            self, name: str, *, timeout_ms: int, expected: Producer | None, key: bytes, owner: str
        ) -> Producer:
            asked.append((key, owner))
            return Producer(1, 0)

    handler = handlers_of(transaction_coordinator=Coordinator()).get(apis.INIT_PRODUCER_ID.key)
    assert handler is not None
    message = InitProducerIdRequestData.make(
        transactional_id="t",
        transaction_timeout_ms=1,
        producer_id=-1,
        producer_epoch=-1,
        begin_key=b"k" * 16,
        owner="User:x",
    )
    for principal in (ANONYMOUS, NODE):
        connection = ClientConnection(peer="h:1", listener="PLAINTEXT", principal=principal)
        call = Call(message=message, version=5, client_id=None, connection=connection)
        asyncio.run(cast(Any, handler.handle(call)))
    assert asked == [(b"", ""), (b"k" * 16, "User:x")]


class _One:
    """Handlers whose only API is InitProducerId."""

    metadata_offset = 0

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def get(self, key: int) -> ApiHandler:
        response = apis.response_type(apis.INIT_PRODUCER_ID)
        return ApiHandler(
            request=InitProducerIdRequestData,
            response=response,
            handle=self._handle,
            refuse=lambda message, version, error: cast(Any, response).make(error_code=error.code),
        )


def test_a_forwarded_request_names_the_user_for_whom_the_node_asks() -> None:
    """Over a node's connection the handler sees the user and the user's host; without one it sees the node."""
    alice = UserPrincipal("alice", "10.0.0.7")
    seen: list[Principal] = []

    async def story() -> None:
        for asker in (None, alice):
            around, line = environment(1), Line()

            async def handle(call: Call[Any]) -> Any:
                seen.append(call.principal)
                assert ASKER.get() == call.asker

            shared = Shared(
                clock=around.clock,
                handlers=cast(Any, _One(handle)),
                bytes_max=1 << 20,
                produce_budget=Budget(1 << 20),
                answers=AnswerBudget(1 << 20),
                large=LargeRequests(around, items_max=1_000),
            )
            client = ClientConnection(peer=line.peer, listener="PLAINTEXT", principal=NODE)
            session = Session(shared, cast(Any, line), client, takes_nodes=False)
            line.put(_frame(apis.INIT_PRODUCER_ID, apis.INIT_PRODUCER_ID.version, asker=asker))
            serving = asyncio.create_task(session.serve())
            for _ in range(20):
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(story())
    assert seen == [NODE, alice]
    assert (str(alice), str(NODE), str(ANONYMOUS)) == ("User:alice", "Node:2", "User:ANONYMOUS")


@pytest.mark.parametrize(
    "data", [b"", b"alice", b"User:alice", b":a\0h", b"\xff:a\0h", b"User:" + b"a" * 65_536 + b"\0"]
)
def test_a_user_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a principal|utf-8"):
        decode_user(data)


@pytest.mark.parametrize("timeout_ms", [None, 5_000])
def test_a_request_carries_the_timeout_and_the_user(timeout_ms: int | None) -> None:
    asker = UserPrincipal("a:b", "::1", "Group")
    api = apis.INIT_PRODUCER_ID
    frame = memoryview(_frame(api, api.version, asker=asker, timeout_ms=timeout_ms))
    _, waits_ms, asked_for = codec.decode_request(apis.request_type(api), codec.decode_request_head(frame), frame)
    assert waits_ms == timeout_ms
    assert asked_for is not None
    assert decode_user(asked_for) == asker


def test_a_request_carries_the_client_id_while_there_are_quotas() -> None:
    """Also of a client that has not logged in: the active controller counts what it changes (KIP-599)."""

    def carried(asker: UserPrincipal | None, owner: Owner | None) -> bytes | None:
        ASKER.set(asker)
        OWNER.set(owner)
        return asker_bytes()

    def found(asker: UserPrincipal | None, owner: Owner | None) -> tuple[str, str | None]:
        data = contextvars.copy_context().run(carried, asker, owner)
        assert data is not None
        user = decode_user(data)
        return str(user), user.client_id

    alice = UserPrincipal("alice", "h")
    assert contextvars.copy_context().run(carried, None, None) is None
    assert found(alice, None) == ("User:alice", None)
    assert found(alice, Owner("alice", "app")) == ("User:alice", "app")
    assert found(None, Owner("ANONYMOUS", "")) == ("User:ANONYMOUS", "")
    assert found(None, Owner("ANONYMOUS", None)) == ("User:ANONYMOUS", None)
    for client_id in ("app", "", "\0\1"):
        for is_permissive in (True, False):
            sent = UserPrincipal("alice", "h", client_id=client_id, is_permissive=is_permissive)
            got = decode_user(sent.encode())
            assert (got, got.client_id, got.is_permissive) == (sent, client_id, is_permissive)
