"""What `kraft produce` does with answers that are lost, late or unsure: the same key again, elsewhere, for so long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kraft.cli import rest
from kraft.cli.output import CommandFailed
from kraft.cli.produce_command import REPEAT_FOR_MS, Sender
from kraft.cli.rest import BUSY_LIMIT_MS, Rest
from kraft.client.response import Answer, Refused, Request, Response, Unknown

NODES = "http://one,http://two,http://three"
GONE = Refused(reason="connection refused")
LOST = Unknown(reason="the connection broke")


def answer(status: int, document: Any, **headers: str) -> Answer:
    return Answer(
        status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=json.dumps(document).encode()
    )


def stored(*codes: int | None) -> Answer:
    places = [
        {"partition": 0, "offset": at, "error_code": code and 2, "kafka_code": code} for at, code in enumerate(codes)
    ]
    return answer(200, {"offsets": places})


BUSY = answer(503, {"error_code": 50301, "kafka_code": 5, "message": "no leader"}, retry_after="2")


class World:
    """Nodes that answer in turn as scripted, the last for ever, and a clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *script: Response) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, Request]] = []
        self.now_s = 1_000.0
        self.slept_s: list[float] = []
        monkeypatch.setattr(rest, "send", self.send)
        monkeypatch.setattr(rest.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(rest.time, "sleep", self.sleep)
        self.client = Rest(NODES)

    def send(self, url: str, request: Request) -> Response:
        self.asked.append((url, request))
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def sender(self, *, is_idempotent: bool = True) -> Sender:
        return Sender(self.client, "/topics/t?acks=all", form="text", timeout_ms=60_000, is_idempotent=is_idempotent)

    @property
    def keys(self) -> list[str | None]:
        return [request.headers.get("Idempotency-Key") for _, request in self.asked]


def test_a_lost_answer_is_asked_for_elsewhere_with_the_same_key_and_bytes(monkeypatch, capsys):
    world = World(monkeypatch, LOST, GONE, stored(None))
    assert [place["offset"] for place in world.sender().send([{"value": "x"}])] == [0]
    assert [url for url, _ in world.asked] == ["http://one", "http://two", "http://three"]
    assert len(set(world.keys)) == 1
    assert None not in world.keys
    assert len({request.body for _, request in world.asked}) == 1
    assert "sent again, which stores nothing twice: the connection broke" in capsys.readouterr().err


def test_each_request_has_a_key_of_its_own_and_each_run_another_name(monkeypatch):
    world = World(monkeypatch, stored(None))
    for sender in (world.sender(), world.sender()):
        for _ in range(2):
            sender.send([{"value": "x"}])
    assert len(set(world.keys)) == 4
    World(monkeypatch, stored(None)).sender(is_idempotent=False).send([{"value": "x"}])


def test_without_idempotence_there_is_no_key_and_one_attempt(monkeypatch):
    world = World(monkeypatch, LOST, stored(None))
    with pytest.raises(CommandFailed, match="was not sent again"):
        world.sender(is_idempotent=False).send([{"value": "x"}])
    assert world.keys == [None]


@pytest.mark.parametrize("unsure", [BUSY, stored(None, 6), stored(7), stored(19), answer(504, {"kafka_code": 7})])
def test_what_may_pass_is_asked_again(monkeypatch, unsure):
    world = World(monkeypatch, unsure, stored(None, None))
    assert len(world.sender().send([{"value": "x"}])) == 2
    assert len(world.asked) == 2


@pytest.mark.parametrize("final", [stored(10), stored(None, 87), answer(404, {"kafka_code": 3}), answer(422, {})])
def test_what_is_refused_for_good_is_not(monkeypatch, final):
    world = World(monkeypatch, final)
    try:
        world.sender().send([{"value": "x"}])
    except CommandFailed:
        assert not final.is_success
    assert len(world.asked) == 1


def test_retry_after_is_followed(monkeypatch):
    world = World(monkeypatch, BUSY, BUSY, BUSY, stored(None))
    world.sender().send([{"value": "x"}])
    assert world.slept_s == [2.0]


def test_a_node_that_cannot_now_is_passed_over(monkeypatch):
    world = World(monkeypatch, BUSY, stored(None))
    world.sender(is_idempotent=False).send([{"value": "x"}])
    assert [url for url, _ in world.asked] == ["http://one", "http://two"]
    assert world.slept_s == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_while_no_node_can_all_are_asked_again_for_a_while(monkeypatch, capsys, method):
    ask = {"GET": lambda rest: rest.get("/topics"), "POST": lambda rest: rest.send_json("POST", "/topics")}[method]
    world = World(monkeypatch, *[BUSY] * 5, answer(200, ["t"]))
    assert ask(world.client) == ["t"]
    assert [url for url, _ in world.asked] == [*NODES.split(","), *NODES.split(",")]
    assert world.slept_s == [2.0]
    assert "trying again: no leader" in capsys.readouterr().err
    world = World(monkeypatch, BUSY)
    with pytest.raises(CommandFailed, match="no leader"):
        ask(world.client)
    assert 10 < sum(world.slept_s) <= BUSY_LIMIT_MS / 1_000


def test_a_change_that_may_have_been_done_is_not_sent_again(monkeypatch):
    unsure = answer(503, {"error_code": 50302, "kafka_code": 6, "message": "the leader was deposed"})
    world = World(monkeypatch, unsure)
    with pytest.raises(CommandFailed, match="deposed"):
        world.client.send_json("POST", "/topics")
    assert len(world.asked) == 1


def test_no_node_at_all_is_said_at_once(monkeypatch):
    world = World(monkeypatch, GONE)
    with pytest.raises(CommandFailed, match="nothing was done"):
        world.sender().send([{"value": "x"}])
    assert len(world.asked) == 3
    assert world.slept_s == []


def test_records_that_are_refused_each_time_are_given_up_after_the_timeout(monkeypatch):
    world = World(monkeypatch, stored(19))
    assert world.sender().send([{"value": "x"}])[0]["kafka_code"] == 19
    assert 55 < sum(world.slept_s) <= 60
    world = World(monkeypatch, BUSY)
    with pytest.raises(CommandFailed, match="no leader"):
        world.sender().send([{"value": "x"}])
    assert 55 < sum(world.slept_s) <= 60


@pytest.mark.parametrize(
    ("last", "words"), [(LOST, "not known whether"), (GONE, "not known whether"), (BUSY, "no leader")]
)
def test_it_ends_after_the_delivery_timeout(monkeypatch, last, words):
    world = World(monkeypatch, LOST, last)
    with pytest.raises(CommandFailed, match=words):
        world.sender().send([{"value": "x"}])
    assert REPEAT_FOR_MS / 1_000 - 5 < sum(world.slept_s) <= REPEAT_FOR_MS / 1_000
