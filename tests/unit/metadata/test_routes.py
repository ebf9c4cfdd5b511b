"""Routes: how bindings match, what the controller refuses, and that image, log and snapshot have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraft.protocol.errors import InvalidRequest, KafkaError
from metadata.controller.requests import AlterRoute, CreateTopics, DeleteTopics, NewTopic
from metadata.image import MetadataImage
from metadata.image_codec import VERSION_WITH_ROUTES, decode_image, encode_image, version_of
from metadata.records import decode_record, encode_record
from metadata.routes import Binding, Pattern, RouteImage, RouteKind, check_binding, check_routing_key, words_of
from tests.support.controller_world import World

WORDS = st.sampled_from(["a", "b", "*", "#", ""])


def matches_slowly(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """All ways to spend the words, one after another."""
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(matches_slowly(rest, words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and (first == "*" or first == words[0]) and matches_slowly(rest, words[1:])


@given(st.lists(WORDS, max_size=7), st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=7))
def test_a_pattern_matches_as_its_slow_twin_does(pattern: list[str], words: list[str]) -> None:
    text, key = ".".join(pattern), ".".join(words)
    expected = matches_slowly(tuple(words_of(text)), tuple(words_of(key)))
    assert Pattern(text).matches(words_of(key)) is expected


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("orders.*.paid", "orders.eu.paid", True),
        ("orders.*.paid", "orders.paid", False),
        ("orders.*.paid", "orders.eu.de.paid", False),
        ("orders.#", "orders", True),
        ("orders.#", "orders.eu.paid", True),
        ("orders.#", "order.eu", False),
        ("#", "", True),
        ("*", "", False),
        ("*", "a", True),
        ("#.paid.#", "a.paid.b.paid.c", True),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
    ],
)
def test_words(pattern: str, key: str, expected: bool) -> None:
    assert Pattern(pattern).matches(words_of(key)) is expected


def route(kind: RouteKind, *bindings: tuple[str, str]) -> RouteImage:
    return RouteImage(name="r", kind=kind, bindings=frozenset(Binding(*each) for each in bindings))


def test_each_topic_once() -> None:
    assert route(RouteKind.PATTERN, ("a.#", "t"), ("#", "t"), ("*.b", "s"), ("c", "u")).topics_of("a.b") == ["s", "t"]
    direct = route(RouteKind.DIRECT, ("a", "t"), ("a", "s"), ("b", "u"), ("*", "v"))
    assert (direct.topics_of("a"), direct.topics_of("c"), direct.topics_of("*")) == (["s", "t"], (), ["v"])
    assert route(RouteKind.FANOUT, ("", "t"), ("", "s")).topics_of("whatever") == ["s", "t"]
    assert list(route(RouteKind.FANOUT).topics_of("")) == []


def test_keys_that_are_none() -> None:
    check_routing_key("x" * 255)
    for key in ("x" * 256, "\ud800"):
        with pytest.raises(InvalidRequest):
            check_routing_key(key)
        with pytest.raises(InvalidRequest):
            check_binding(RouteKind.DIRECT, Binding(key, "t"))


# --- the controller ---------------------------------------------------------------------------------------------------


def world(**settings: str) -> World:
    made = World(**settings)
    made.start(1, 2, 3)
    for topic in ("mails", "audit", "__share_group_state"):
        made.create(topic, (1, 2))
    return made


def asked(
    operation: str, *added: tuple[str, str], name: str = "r", kind: str | None = None, **more: object
) -> AlterRoute:
    return AlterRoute(
        name=name,
        operation=operation,  # type: ignore[arg-type]
        kind=None if kind is None else RouteKind(kind),
        added=tuple(Binding(*each) for each in added),
        **more,  # type: ignore[arg-type]
    )


def test_created_bound_and_deleted() -> None:
    made = world()
    made.decide(asked("create", ("a.*", "mails"), kind="pattern"))
    made.decide(asked("alter", ("#", "audit"), removed=(Binding("a.*", "mails"),)))
    assert made.image.routes["r"] == route(RouteKind.PATTERN, ("#", "audit"))
    made.decide(asked("delete"))
    assert not made.image.routes
    replayed = MetadataImage().apply([decode_record(encode_record(record)) for record in made.records])
    assert replayed == made.image


def test_a_snapshot_has_them() -> None:
    made = world()
    made.decide(asked("create", ("a.*", "mails"), ("#", "audit"), kind="pattern"))
    data = encode_image(made.image)
    assert version_of(data) == VERSION_WITH_ROUTES
    assert decode_image(data) == made.image


def test_a_deleted_topic_leaves_its_routes() -> None:
    made = world()
    made.decide(asked("create", ("", "mails"), ("", "audit"), kind="fanout"))
    made.decide(DeleteTopics(topics=("mails",)))
    assert made.image.routes["r"].topics == ["audit"]


@pytest.mark.parametrize(
    ("request_", "code", "reported"),
    [
        (asked("create", name="r"), 92, "'r' already exists"),
        (asked("create", name="a b", kind="direct"), 42, "a name that a topic may have"),
        (asked("create", name="", kind="direct"), 42, "may not be empty"),
        (asked("create", name="__r", kind="direct"), 42, "internal topics"),
        (asked("create", name="mails", kind="direct"), 36, "is a topic"),
        (asked("create", name="s", kind=None), 42, "direct, pattern, fanout"),
        (asked("create", ("k", "s"), name="s", kind="direct"), 42, "bound to itself"),
        (asked("alter", ("", "r"), name="other"), 42, "no record goes in circles"),
        (asked("alter", ("k", "__share_group_state")), 17, "internal"),
        (asked("alter", ("k", "nowhere")), 3, "no topic 'nowhere'"),
        (asked("alter", ("a*", "audit")), 42, "would match nothing"),
        (asked("alter", ("a.b#.c", "audit")), 42, "would match nothing"),
        (asked("alter", ("x" * 256, "audit")), 42, "would match nothing"),
        (asked("alter", ("k", "mails")), 92, "already has"),
        (asked("alter", ("z", "audit"), ("z", "audit")), 42, "twice"),
        (asked("alter", ("z", "audit"), removed=(Binding("z", "audit"),)), 42, "twice"),
        (asked("alter", removed=(Binding("z", "audit"),)), 91, "has no binding"),
        (asked("alter", ("1", "audit"), ("2", "audit")), 44, "max.bindings.per.route is 2"),
        (asked("create", name="third", kind="direct"), 44, "max.routes is 2"),
        (asked("alter", name="nobody"), 91, "no route 'nobody'"),
        (asked("delete", name="nobody"), 91, "no route 'nobody'"),
    ],
)
def test_refused_with_what_would_be_right(request_: AlterRoute, code: int, reported: str) -> None:
    made = world(max_routes="2" if request_.name == "third" else "9", max_bindings_per_route="2")
    made.decide(asked("create", ("k", "mails"), kind="pattern"))
    made.decide(asked("create", ("", "audit"), name="other", kind="fanout"))
    if request_.name == "r" and request_.operation == "create":
        request_ = asked("create", kind="direct")
    before = made.image
    with pytest.raises(KafkaError, match=reported) as refusal:
        made.decide(request_)
    assert refusal.value.code == code
    assert made.image is before


def test_a_topic_may_not_have_the_name_of_a_route() -> None:
    made = world()
    made.decide(asked("create", kind="direct"))
    reply = made.decide(CreateTopics(topics=(NewTopic(name="r"),))).reply
    assert reply["r"].error.code == 36  # type: ignore[index]
    assert "is a route" in reply["r"].message  # type: ignore[index]


def test_a_fanout_has_no_keys() -> None:
    made = world()
    with pytest.raises(InvalidRequest, match="without the key 'k'"):
        made.decide(asked("create", ("k", "mails"), kind="fanout"))
