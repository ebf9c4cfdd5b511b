"""What a step waits for: `isr(t, 0) == [1] and acked(p1) >= 500`, as data that cannot do anything but compare.

An expression has Python's syntax, of which a few harmless forms are allowed: comparisons, `and`, `or`, `not`, sums,
lists, subscripts, and calls of the functions in `FUNCTIONS`. Names are those that earlier steps remembered; in a
call, a name that nobody remembered stands for itself: `t` in `hw(t, 0)` is the topic. What is not known at the moment
is None, and no comparison with it holds. Pure: what the functions tell comes from a `World`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from kraft.config.problems import nearest

EXPRESSION_CHARACTERS_MAX: Final = 1_000
EXPRESSION_LEVELS_MAX: Final = 100
"""Of its syntax tree, which is walked by recursion."""

Value: TypeAlias = Any
"""None, bool, int, str, or a list of them."""


@dataclass(frozen=True, slots=True)
class Function:
    """`kinds` of the arguments; those after `required` may be left out."""

    kinds: tuple[str, ...]
    required: int
    sentence: str


def _partition_function(sentence: str) -> Function:
    return Function(("topic", "partition"), 2, sentence)


def _client_function(sentence: str) -> Function:
    return Function(("client",), 0, sentence)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "leader": _partition_function("id of the leader, -1 when there is none"),
    "epoch": _partition_function("leader epoch"),
    "isr": _partition_function("ids of the ISR, sorted"),
    "replicas": _partition_function("ids of the replicas, in order of assignment"),
    "followers": _partition_function("ids of the replicas that do not lead, in order of assignment"),
    "offline": _partition_function("has the partition no leader?"),
    "hw": _partition_function("high watermark, as the leader tells it"),
    "log_end": Function(("node", "topic", "partition"), 3, "log end offset on one node"),
    "node_hw": Function(("node", "topic", "partition"), 3, "high watermark that one node knows"),
    "partitions": Function(("topic",), 1, "how many partitions a topic has; 0 when it does not exist"),
    "controller": Function((), 0, "id of the active controller, -1 when there is none"),
    "controller_epoch": Function((), 0, "epoch of the active controller"),
    "alive": Function(("node",), 1, "does the process run?"),
    "state": Function(("node",), 1, "'active', 'fenced', 'shutting down' or 'down', as the cluster sees it"),
    "nodes": Function((), 0, "ids of all nodes"),
    "metadata_offset": Function(("node",), 1, "offset of the metadata that one node has replayed"),
    "sent": _client_function("records sent by one producer, or by all"),
    "acked": _client_function("records acknowledged to one producer, or to all"),
    "failed": _client_function("records surely not written, of one producer or of all"),
    "unknown": _client_function("records with an unknown outcome, of one producer or of all"),
    "refused": Function(("client", "code"), 2, "records of one producer answered with this Kafka code"),
    "done": _client_function("has the producer (have all) sent everything, and does nothing wait for an answer?"),
    "read": _client_function("records read by one reader, or by all"),
    "events": Function(("event", "node"), 1, "how often an event was reported, by all nodes or by one"),
}
"""Everything a condition can ask."""

_PURE: Final[Mapping[str, Callable[..., Value]]] = {"len": len, "min": min, "max": max, "sorted": sorted, "sum": sum}
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Value, Value], Value]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_WORDS: Final = re.compile(r"\b(leader|followers?|last follower|isr) of ([A-Za-z0-9._-]+)-(\d+)\b")
_WORD_CALLS: Final = {
    "leader": "leader({0!r}, {1})",
    "follower": "followers({0!r}, {1})[0]",
    "last follower": "followers({0!r}, {1})[-1]",
    "followers": "followers({0!r}, {1})",
    "isr": "isr({0!r}, {1})",
}


class BadExpression(ValueError):
    """Not an expression of this language. `right` says what would be."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(f"{wrong}; {right}")
        self.wrong = wrong
        self.right = right


class World(Protocol):
    """What the functions tell."""

    async def ask(self, function: str, arguments: tuple[Value, ...]) -> Value:
        """None when nobody can tell at the moment."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A question in an expression. An argument that is not written out (`log_end(old, t, 0)`) is None."""

    function: str
    arguments: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    text: str
    tree: ast.expr
    free: frozenset[str]
    """Names that must have been remembered."""
    mentioned: frozenset[str]
    """Names in calls: remembered, or standing for themselves."""
    calls: tuple[Call, ...]

    async def value(self, world: World, names: Mapping[str, Value]) -> Value:
        return (await self.look(world, names))[0]

    async def look(self, world: World, names: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
        """The value, and what every question answered."""
        evaluation = _Evaluation(world, names)
        return await evaluation.value(self.tree), evaluation.answers


def parse_expression(text: str) -> Expression:
    """Raises BadExpression."""
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise BadExpression(f"{len(text)} characters", f"an expression has {EXPRESSION_CHARACTERS_MAX} at most")
    try:
        tree = ast.parse(_WORDS.sub(_as_call, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # Python tells of nesting by the last two
        raise BadExpression(
            f"{text!r} is no expression ({str(error).split(' (<')[0]})", "write it like isr(t, 0) == [1]"
        ) from error
    if _is_too_deep(tree):
        raise BadExpression(f"{text[:60]!r} goes too deep", f"an expression has {EXPRESSION_LEVELS_MAX} levels at most")
    calls = tuple(_checked(tree, text))
    free = {node.id for node in _outside_calls(tree) if isinstance(node, ast.Name)}
    mentioned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - free - set(FUNCTIONS) - set(_PURE)
    return Expression(text=text, tree=tree, free=frozenset(free), mentioned=frozenset(mentioned), calls=calls)


def _is_too_deep(tree: ast.expr) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(EXPRESSION_LEVELS_MAX):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def describe_answers(answers: Mapping[str, Value]) -> str:
    return ", ".join(f"{question} is {'not known' if value is None else value}" for question, value in answers.items())


def _as_call(match: re.Match[str]) -> str:
    return _WORD_CALLS[match[1]].format(match[2], match[3])


def _outside_calls(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but the functions' names and what stands in questions to the world."""
    if isinstance(tree, ast.Call):
        name = tree.func.id if isinstance(tree.func, ast.Name) else ""
        for argument in () if name in FUNCTIONS else tree.args:
            yield from _outside_calls(argument)
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from _outside_calls(child)


def _checked(tree: ast.AST, text: str) -> Iterator[Call]:
    """Walk the whole tree; raise for whatever is not allowed; yield the questions."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                yield from _checked_call(name, arguments)
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | str):
                pass
            case ast.UnaryOp(op=ast.Not() | ast.USub()) | ast.BoolOp() | ast.List() | ast.Name():
                pass
            case ast.Compare(ops=ops) if all(type(op) in _COMPARE for op in ops):
                pass
            case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
                pass
            case ast.Subscript(slice=ast.Constant() | ast.UnaryOp()):
                pass
            case ast.expr_context() | ast.cmpop() | ast.boolop() | ast.unaryop() | ast.operator():
                pass
            case _:
                wrong = f"{ast.unparse(node)!r} in {text!r} is not allowed"
                raise BadExpression(wrong, "conditions compare, add, subtract, and call the functions of scenarios")


def _checked_call(name: str, arguments: list[ast.expr]) -> Iterator[Call]:
    if name in _PURE:
        return
    function = FUNCTIONS.get(name)
    if function is None:
        raise BadExpression(f"there is no function {name}", nearest(name, [*FUNCTIONS, *_PURE]))
    if not function.required <= len(arguments) <= len(function.kinds):
        raise BadExpression(f"{name} with {len(arguments)} arguments", f"write {signature(name)}: {function.sentence}")
    yield Call(name, tuple(_written(argument) for argument in arguments))


def signature(name: str) -> str:
    function = FUNCTIONS[name]
    return f"{name}({', '.join(function.kinds)})"


def _written(argument: ast.expr) -> Value:
    match argument:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return name
        case _:
            return None


class _Evaluation:
    def __init__(self, world: World, names: Mapping[str, Value]) -> None:
        self._world = world
        self._names = names
        self.answers: dict[str, Value] = {}

    async def value(self, node: ast.AST) -> Value:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._names.get(name)  # None: the story broke off before it was remembered
            case ast.List(elts=elements):
                return [await self.value(element) for element in elements]
            case ast.UnaryOp(op=op, operand=operand):
                value = await self.value(operand)
                return not value if isinstance(op, ast.Not) else None if value is None else -value
            case ast.BoolOp(op=op, values=values):
                return await self._bool(isinstance(op, ast.And), values)
            case ast.Compare():
                return await self._compare(node)
            case ast.BinOp(left=left, op=op, right=right):
                both = await self.value(left), await self.value(right)
                return None if None in both else _ARITHMETIC[type(op)](*both)
            case ast.Subscript(value=items, slice=place):
                return _item(await self.value(items), await self.value(place))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return await self._call(name, arguments)
        raise AssertionError(f"{ast.dump(node)} passed the check of expressions")

    async def _bool(self, is_and: bool, values: list[ast.expr]) -> bool:
        """All parts are evaluated: a missed deadline tells what each of them said."""
        results = [bool(await self.value(value)) for value in values]
        return all(results) if is_and else any(results)

    async def _compare(self, node: ast.Compare) -> bool:
        left = await self.value(node.left)
        holds = True
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = await self.value(comparator)
            holds = holds and _compared(op, left, right)
            left = right
        return holds

    async def _call(self, name: str, arguments: list[ast.expr]) -> Value:
        if name in _PURE:
            values = [await self.value(argument) for argument in arguments]
            return None if None in values else _PURE[name](*values)
        given = tuple([await self._argument(argument) for argument in arguments])
        answer = await self._world.ask(name, given)
        self.answers[f"{name}({', '.join(map(str, given))})"] = answer
        return answer

    async def _argument(self, argument: ast.expr) -> Value:
        if isinstance(argument, ast.Name) and argument.id not in self._names:
            return argument.id
        return await self.value(argument)


def _compared(op: ast.cmpop, left: Value, right: Value) -> bool:
    if left is None or right is None:
        return False
    if isinstance(op, ast.In | ast.NotIn) and not isinstance(right, list):
        return False
    if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and type(left) is not type(right):
        return False
    return _COMPARE[type(op)](left, right)


def _item(items: Value, place: Value) -> Value:
    try:
        return items[place]
    except (IndexError, TypeError):
        return None
