"""Seeded groups to assign partitions to, in the words of `Assign.java`, and our assignment in the same words."""

from __future__ import annotations

import random
from pathlib import Path

from kraft.coordinators.groups.assignors import assign
from kraft.coordinators.groups.subscriptions import Subscription
from kraft.protocol.primitives import TopicPartition

GOLDEN = Path(__file__).parent / "golden"
PROTOCOLS = ("range", "roundrobin", "sticky", "sticky", "cooperative-sticky")
CASES = 300


def make_cases() -> list[str]:
    return [_case(random.Random(seed)) for seed in range(CASES)]


def assigned(case: str) -> str:
    protocol, *words = case.split(" ")
    counts = {word.split("=")[0]: int(word.split("=")[1]) for word in words if "=" in word}
    members = dict(_member(word) for word in words if "=" not in word)
    found = assign(protocol, members, counts)
    return " ".join(f"{member}/{_partitions(found[member])}" for member in sorted(found))


def _member(word: str) -> tuple[str, Subscription]:
    name, instance_id, generation, topics, owned = word.split("/")
    return name, Subscription(
        topics=tuple(topics.split(",")),
        owned=tuple((each.split(":")[0], int(each.split(":")[1])) for each in owned.split(",") if each),
        generation=int(generation),
        instance_id=instance_id or None,
    )


def _partitions(partitions: list[TopicPartition]) -> str:
    return ",".join(f"{topic}:{number}" for topic, number in partitions)


def _case(rng: random.Random) -> str:
    """One to twelve members, of which each wants all topics or some, and owns nothing, some or too much of them."""
    protocol = rng.choice(PROTOCOLS)
    topics = [f"topic-{rng.randrange(1000)}" for _ in range(rng.randrange(1, 6))]
    names = sorted({f"consumer-{rng.randrange(1 << 32):x}" for _ in range(rng.randrange(1, 13))})
    is_equal, kept, skew = rng.random() < 0.4, rng.choice((0.0, 0.5, 1.0)), rng.choice((1, len(names)))
    wanted = {name: topics if is_equal else rng.sample(topics, rng.randrange(1, len(topics) + 1)) for name in names}
    counts = {topic: rng.randrange(1, 9) for topic in sorted({topic for each in wanted.values() for topic in each})}
    words = [protocol, *(f"{topic}={count}" for topic, count in counts.items())]
    owned: dict[str, list[TopicPartition]] = {name: [] for name in names}
    for topic, count in counts.items():
        takers = [name for name in names if topic in wanted[name]]
        for number in range(count):
            if rng.random() < kept:
                owned[rng.choice(takers[:skew])].append((topic, number))
    for index, name in enumerate(names):
        generation = rng.choice((5, 5, 5, 4)) if owned[name] else -1
        is_static = protocol in ("range", "roundrobin") and rng.random() < 0.3
        instance_id = f"i{rng.randrange(100)}-{index}" if is_static else ""
        words.append(f"{name}/{instance_id}/{generation}/{','.join(wanted[name])}/{_partitions(owned[name])}")
    return " ".join(words)
