"""A client's request with many items, handled and answered piece by piece, so that others have their turns in between.

`PIECES` names, for each API whose items are independent of each other, the arrays of the request and where the answer
has its items. A piece is a request like the whole one with some of its items; its answer is written at once, and of
the answers only bytes are kept, which become one answer as if nothing had been cut. What an API does at once, or one
item that cannot be cut, has at most `UNCUT_MAX` items. Invariant: what one piece costs the loop does not depend on
how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kraft.protocol import codec
from kraft.protocol.encoding import Many, Message, TopLevel, Written, WrittenOnce, length, new, old_length
from kraft.protocol.errors import InvalidRequest, KafkaError, PolicyViolation
from kraft.protocol.primitives import Buffer
from kraft.values import value
from kraft.wire.api_handler import ApiHandler, Call, Later
from kraft.wire.throttle_time import wait_of, with_wait
from metadata.environment import Clock

PIECE_ITEMS = 128
"""Items of one piece, with the arrays inside of them. The dearest cost 200 us each: a member that leaves a group."""
UNCUT_MAX = 2_048
"""Items of one item that cannot be cut."""

DESCRIBED_MAX = 1_024
"""Weight of all resources whose settings one DescribeConfigs asks for, those of topics aside: 128 groups, or 8 brokers.
Groups and subscriptions have settings whether there is one of that name or not, and a broker has hundreds of them."""
GROUP_WEIGHT, BROKER_WEIGHT = 8, 128
TOPIC_RESOURCE, BROKER_RESOURCES = 2, (4, 8)

Path = tuple[str, ...]


def _light(item: Any) -> int:
    return 0


def _described(resource: Any) -> int:
    """Weight of a resource of DescribeConfigs."""
    if resource.resource_type == TOPIC_RESOURCE:
        return 0
    return BROKER_WEIGHT if resource.resource_type in BROKER_RESOURCES else GROUP_WEIGHT


@dataclass(frozen=True, slots=True)
class Cut:
    """Which array of a request is cut, from the outside in, and which array of the answer has an item for each."""

    asked: Path
    answered: Path
    is_key_unique: bool = False
    """Whether an item of the outermost array that comes twice refuses the request."""
    weight: Callable[[Any], int] = _light
    """Number of items as which an item of the outermost array counts beside itself: its answer is as long as theirs."""
    weight_max: int = 0
    """The most that all items may weigh; a request with more is refused."""


PIECES: Mapping[int, Sequence[Cut]] = {
    2: [Cut(("topics", "partitions"), ("topics", "partitions"), is_key_unique=True)],
    3: [Cut(("topics",), ("topics",))],
    8: [Cut(("topics", "partitions"), ("topics", "partitions"))],
    9: [
        Cut(("topics", "partition_indexes"), ("topics", "partitions")),
        Cut(("groups", "topics", "partition_indexes"), ("groups", "topics", "partitions")),
    ],
    10: [Cut(("coordinator_keys",), ("coordinators",))],
    13: [Cut(("members",), ("members",))],
    15: [Cut(("groups",), ("groups",))],
    19: [Cut(("topics",), ("topics",), is_key_unique=True)],
    20: [Cut(("topic_names",), ("responses",)), Cut(("topics",), ("responses",))],
    21: [Cut(("topics", "partitions"), ("topics", "partitions"), is_key_unique=True)],
    23: [Cut(("topics", "partitions"), ("topics", "partitions"))],
    27: [Cut(("markers", "topics", "partition_indexes"), ("markers", "topics", "partitions"))],
    28: [Cut(("topics", "partitions"), ("topics", "partitions"))],
    30: [Cut(("creations",), ("results",))],
    31: [Cut(("filters",), ("filter_results",))],
    32: [Cut(("resources",), ("results",), weight=_described, weight_max=DESCRIBED_MAX)],
    33: [Cut(("resources",), ("responses",), is_key_unique=True)],
    37: [Cut(("topics",), ("results",), is_key_unique=True)],
    42: [Cut(("groups_names",), ("results",))],
    43: [Cut(("topic_partitions", "partitions"), ("replica_election_results", "partition_result"))],
    44: [Cut(("resources",), ("responses",), is_key_unique=True)],
    45: [Cut(("topics", "partitions"), ("responses", "partitions"), is_key_unique=True)],
    46: [Cut(("topics", "partition_indexes"), ("topics", "partitions"))],
    47: [Cut(("topics", "partitions"), ("topics", "partitions"))],
    49: [Cut(("entries",), ("entries",))],
    50: [Cut(("users",), ("results",))],
    51: [Cut(("deletions",), ("results",)), Cut(("upsertions",), ("results",))],
    **{key: [Cut(("topics", "partitions"), ("results", "partitions"))] for key in (83, 84, 85, 86, 87)},
    61: [Cut(("topics", "partition_indexes"), ("topics", "partitions"))],
    65: [Cut(("transactional_ids",), ("transaction_states",))],
    69: [Cut(("group_ids",), ("groups",))],
    77: [Cut(("group_ids",), ("groups",))],
    90: [Cut(("groups", "topics", "partitions"), ("groups", "topics", "partitions"))],
    91: [Cut(("topics", "partitions"), ("responses", "partitions"))],
    92: [Cut(("topics",), ("responses",))],
}
"""API key -> arrays that may be handled in pieces. Left out: requests that are one change (Produce, AddPartitionsToTxn,
a group's members) or one view (Fetch, DescribeLogDirs, a page of DescribeTopicPartitions)."""

AT_ONCE_MAX_OF: Mapping[int, int] = {32: PIECE_ITEMS // GROUP_WEIGHT}
"""API key -> items of a request that is not cut, where they are fewer than `PIECE_ITEMS`."""
WHOLE_MAX = 2_048
"""Items of a request of another API, unless `WHOLE_MAX_OF` has it."""
WHOLE_MAX_OF: Mapping[int, int] = {14: 10_000, 24: 10_000, 35: 20_000, 68: 4_000, 75: 10_000}
"""API key -> items: members of a group, partitions of a transaction, of a node, of a member, and topics that an
administrator asks for. A large cluster needs requests of this size."""


def too_many(items: int, items_max: int, why: str) -> KafkaError:
    return PolicyViolation(f"{items} items, {items_max} at most are taken ({why}): send several requests")


async def in_pieces(
    api: ApiHandler,
    call: Call[Any],
    clock: Clock,
    problem: KafkaError | None = None,
    *,
    cuts: Sequence[Cut] = (),
) -> TopLevel:
    """The answer to a request of an API that has pieces, or of another one that is cut here; with a problem the whole
    of it is refused. Raises what the handler raises that is no KafkaError.
    """
    answer = _Answer(api.response, call.version)
    wait_ms = 0
    cuts = cuts or PIECES[api.request.API_KEY]
    problem = problem or await _repeated(call.message, cuts, clock) or await _too_heavy(call.message, cuts, clock)
    for cut in cuts:
        if not getattr(call.message, cut.asked[0]):
            continue
        others = {each.asked[0] for each in cuts} - {cut.asked[0]}
        rest = _changed(call.message, **{name: _empty(call.message, name) for name in others})
        for piece in _cut(rest, cut.asked, cut.weight):
            if isinstance(piece, int):
                answer.end(piece)
                continue
            await clock.sleep(0)
            response = await _answered(api, call, piece, problem)
            wait_ms = max(wait_ms, wait_of(api.response, call.version, response))
            problem = None if problem is None else type(problem)("")  # its text comes once
            if getattr(response, "error_code", 0):
                return response  # of the request as a whole
            answer.add(response, cut.answered[: piece.depth + 1])
    whole = WrittenOnce.make(answer.parts())
    return with_wait(api.response, call.version, whole, wait_ms) if wait_ms else whole


def _empty(message: Any, name: str) -> Any:
    return None if getattr(message, name) is None else ()


async def _answered(api: ApiHandler, call: Call[Any], piece: _Piece, problem: KafkaError | None) -> TopLevel:
    if problem is not None:
        return api.refuse(piece.message, call.version, problem)
    try:
        if piece.items > UNCUT_MAX:
            raise too_many(piece.items, UNCUT_MAX, "in one item of the request")
        answer = await answered(
            api,
            Call(message=piece.message, version=call.version, client_id=call.client_id, connection=call.connection),
        )
    except KafkaError as error:
        error.__traceback__ = None  # its frames have the piece, and the future that has the error
        response = api.refuse(piece.message, call.version, error)
        return with_wait(api.response, call.version, response, error.wait_ms) if error.wait_ms else response
    assert answer is not None, "only acks=0 is not answered"
    if isinstance(answer, Written):  # one that was kept: a piece may ask for as little as many do
        return codec.decode_body(api.response, call.version, memoryview(b"".join(answer.parts)), 0)
    return answer


async def answered(api: ApiHandler, call: Call[Any]) -> TopLevel | None:
    """What the handler answers, whichever way it does."""
    answer = api.handle(call)
    if isinstance(answer, Later):
        rendered: TopLevel | None = answer.render(await answer.future)
        return rendered
    if answer is None or isinstance(answer, TopLevel):
        return answer
    waited: TopLevel | None = await answer
    return waited


# --- the request --------------------------------------------------------------------------------------------------


@value()
class _Piece:
    message: Any
    items: int
    depth: int
    """Depth of the array that was cut, in its path."""


def _cut(message: Any, path: Path, weigh: Callable[[Any], int], depth: int = 0) -> Iterator[_Piece | int]:
    """A number: here ends the item around the array at this depth, whose pieces have come."""
    name, inner = path[0], path[1:]
    run: list[Any] = []
    weight = 0
    for item in getattr(message, name) or ():
        items = 1 + _items_in(item) + weigh(item)
        if run and weight + items > PIECE_ITEMS:
            yield _Piece(_changed(message, **{name: run}), weight, depth)
            run, weight = [], 0
        if inner and items > PIECE_ITEMS and getattr(item, inner[0]):
            for piece in _cut(item, inner, _light, depth + 1):
                if isinstance(piece, int):
                    yield piece
                else:
                    yield replace(piece, message=_changed(message, **{name: [piece.message]}))
            yield depth + 1
        else:
            run.append(item)
            weight += items
    if run:
        yield _Piece(_changed(message, **{name: run}), weight, depth)


def _changed(message: Any, **fields: Any) -> Any:
    """A copy with other values of these fields."""
    copy = new(type(message))
    for name in message.__slots__:
        setattr(copy, name, fields[name] if name in fields else getattr(message, name))
    return copy


def _items_in(item: Any) -> int:
    """Number of items of all arrays inside `item`."""
    if not isinstance(item, Message):
        return 0
    found = 0
    for name in item.__slots__:
        value = getattr(item, name)
        if isinstance(value, Message):
            found += _items_in(value)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes | memoryview):
            found += len(value)
            if value and not isinstance(value, Many) and isinstance(value[0], Message):
                found += sum(map(_items_in, value))
    return found


async def _repeated(message: Any, cuts: Sequence[Cut], clock: Clock) -> KafkaError | None:
    """Where the API refuses an item that comes twice, one that came in another piece is not seen by its handler: the
    request as a whole is refused then."""
    for cut in cuts:
        seen: set[int] = set()
        for number, item in enumerate((getattr(message, cut.asked[0]) or ()) if cut.is_key_unique else ()):
            key = hash(tuple([getattr(item, name) for name in item.__slots__ if _is_key(getattr(item, name))]))
            if key in seen:
                return InvalidRequest(f"an item of {cut.asked[0]} is there twice: each may be named once in a request")
            seen.add(key)
            if not number % PIECE_ITEMS:
                await clock.sleep(0)
    return None


async def _too_heavy(message: Any, cuts: Sequence[Cut], clock: Clock) -> KafkaError | None:
    """The refusal of a request whose answer would be long however short its items are."""
    for cut in cuts:
        weight = 0
        for number, item in enumerate((getattr(message, cut.asked[0]) or ()) if cut.weight_max else ()):
            weight += cut.weight(item)
            if weight > cut.weight_max:
                return PolicyViolation("the answer would be too long: ask for fewer in one request")
            if not number % PIECE_ITEMS:
                await clock.sleep(0)
    return None


def _is_key(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


# --- the answer ---------------------------------------------------------------------------------------------------


class _Long(Sequence[Any]):
    """A sequence with a length and no items: it shows which bytes an encoder writes around an array."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, index: Any) -> Any:
        raise IndexError(index)


_ONE, _OTHER = _Long(0x01010101), _Long(0x02020202 + 0x10)
"""Their lengths are of the same size and begin with another byte, in either form."""


class _Open:
    """An array that is being written, and what is around it in a whole message."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self.before, self.after = before, after
        self.data: list[Buffer] = []
        self.count = 0


class _Answer:
    """The bytes of one answer, from the answers to its pieces."""

    def __init__(self, kind: type[TopLevel], version: int) -> None:
        self._version = version
        self._length = length if version >= kind.FLEXIBLE_FROM else old_length
        self._open: list[_Open] = []

    def add(self, response: TopLevel, path: Path) -> None:
        """The next items of the array at the end of this path. An answer may leave out what there is nothing about."""
        there = next(depth for depth in range(len(path), 0, -1) if _holder(response, path[:depth]) is not None)
        for depth in range(len(self._open), there):
            self._open.append(_Open(*self._around(response, path[: depth + 1])))
        before, after = self._around(response, path[:there])
        if there < len(path):  # what is around the array has an error of its own
            self._open[there - 1].before, self._open[there - 1].after = before, after
            return
        items = getattr(_holder(response, path), path[-1])
        data = b"".join(codec.encode_body(response, self._version))
        begin = len(before) + len(self._length(items))
        into = self._open[-1]
        into.data.append(data[begin : len(data) - len(after)])
        into.count += len(items)

    def parts(self) -> list[Buffer]:
        (whole,) = self._open
        return [whole.before, self._length(_Long(whole.count)), *whole.data, whole.after]

    def end(self, depth: int) -> None:
        """Ends the item around the array at this depth."""
        if len(self._open) <= depth:
            return
        ended = self._open.pop()
        around = self._open[-1]
        before = ended.before[len(around.before) + len(self._length(_Long(1))) :]
        after = ended.after[: len(ended.after) - len(around.after)]
        around.data += [before + self._length(_Long(ended.count)), *ended.data, after]
        around.count += 1

    def _around(self, response: TopLevel, path: Path) -> tuple[bytes, bytes]:
        """What is written before the length of the array at the end of this path, and behind its items."""
        one, other = (
            b"".join(codec.encode_body(_with(response, path, each), self._version)) for each in (_ONE, _OTHER)
        )
        size = len(self._length(_ONE))
        begin = next(at for at in range(len(one)) if one[at] != other[at])
        return one[:begin], one[begin + size :]


def _holder(message: Any, path: Path) -> Any:
    """What has the array at the end of the path, on which there is one item in each array; None when there is none."""
    for name in path[:-1]:
        found = getattr(message, name)
        assert len(found) < 2, (name, len(found))
        if not found:
            return None
        message = found[0]
    return message


def _with(message: Any, path: Path, items: Any) -> Any:
    if len(path) == 1:
        return _changed(message, **{path[0]: items})
    (inner,) = getattr(message, path[0])
    return _changed(message, **{path[0]: [_with(inner, path[1:], items)]})
