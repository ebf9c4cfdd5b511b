"""Messages are found in a stream however it is cut into pieces."""

from __future__ import annotations

import random
import struct

from kraft.chaos.worlds.processes.proxy.messages import KafkaMessages, QuorumMessages, messages_of

SASL_AUTHENTICATE = 36


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def kafka_request(api: int, correlation: int, size: int) -> bytes:
    return frame(struct.pack(">hhi", api, 1, correlation) + b"r" * size)


def kafka_answer(correlation: int, size: int) -> bytes:
    return frame(struct.pack(">i", correlation) + b"a" * size)


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    cut = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(12)))
    return [data[a:b] for a, b in zip([0, *cut], [*cut, len(data)], strict=True) if a < b]


def test_every_piece_wise_feeding_finds_the_same_messages() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        asked = [(rng.choice([0, 1, SASL_AUTHENTICATE]), n, rng.randrange(50)) for n in range(6)]
        requests = [kafka_request(*each) for each in asked]
        answers = [kafka_answer(n, rng.randrange(8, 50)) for _, n, _ in asked]
        messages = KafkaMessages()
        begins, position = [], 0
        for piece in pieces(b"".join(requests), rng):
            begins += [(position + at, length) for at, length in messages.requests(piece)]
            position += len(piece)
        assert begins == _work(requests, asked), seed
        begins, position = [], 0
        for piece in pieces(b"".join(answers), rng):
            begins += [(position + at, length) for at, length in messages.answers(piece)]
            position += len(piece)
        assert begins == _work(answers, asked), seed


def _work(frames: list[bytes], asked: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    starts = [sum(map(len, frames[:n])) for n in range(len(frames))]
    return [(s, len(f)) for s, f, (api, _, _) in zip(starts, frames, asked, strict=True) if api != SASL_AUTHENTICATE]


def test_requests_that_get_no_answer_are_passed_over() -> None:
    messages = KafkaMessages()
    list(messages.requests(kafka_request(0, 1, 5) + kafka_request(0, 2, 5)))
    assert list(messages.answers(kafka_answer(2, 9))) == [(0, 17)]


def test_an_answer_to_an_unknown_request_is_left_alone() -> None:
    assert list(KafkaMessages().answers(kafka_answer(2, 9))) == []


def test_quorum_frames_are_all_alike() -> None:
    assert list(QuorumMessages().requests(frame(b"x" * 40) + frame(b"y" * 50))) == [(0, 44), (44, 54)]


def test_on_http_only_changes_count() -> None:
    messages = messages_of("http")
    assert list(messages.requests(b"GET / HTTP/1.1\r\n\r\n")) == []
    assert list(messages.answers(b"HTTP/1.1 200 OK\r\n")) == []
    assert list(messages.requests(b"POST /topics/t HTTP/1.1\r\n")) == [(0, 25)]
    assert list(messages.requests(b"body")) == []
    assert list(messages.answers(b"HTTP/1.1 200 OK\r\n")) == [(0, 17)]
    assert list(messages.answers(b"more")) == []
