"""A loop around an await that may not suspend: nothing else on the event loop runs until it ends, and it may never end.

What is over already is awaited without suspending: a future or task that is done (also behind `asyncio.shield`,
`asyncio.wait`), whose callbacks may not have run yet, and an event that is set. A `while` loop that
awaits such a thing asks `done()` of it, makes it anew in each round, clears the event, or sleeps in each round.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from tests.architecture.sources import Module

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

SHARED = ("shield", "wait")
"""Functions of asyncio that return at once for what is over."""
MAKERS = ("create_future", "create_task", "ensure_future", "Event")


def loops_that_may_spin(module: Module) -> Iterator[str]:
    functions = {each.name: each for each in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef)}
    for function in functions.values():
        for loop in _own(function, ast.While):
            assert isinstance(loop, ast.While)
            for awaited in _own(loop, ast.Await):
                assert isinstance(awaited, ast.Await)
                problem = _problem(awaited, loop, function, functions, module)
                if problem:
                    yield f"{module.path}:{awaited.lineno}: {problem}"


def _problem(
    awaited: ast.Await, loop: ast.While, function: _Function, functions: Mapping[str, _Function], module: Module
) -> str:
    if _sleeps_each_round(loop):
        return ""
    event = _event(awaited)
    if event:
        return "" if _is_renewed(event, module) else f"nothing clears {event}, which this loop waits for"
    looked_at = _looked_at(awaited, function, functions)
    if not looked_at or _is_made_anew(awaited, loop):
        return ""
    if any(_name(call.func) == "done" for each in looked_at for call in ast.walk(each) if isinstance(call, ast.Call)):
        return ""
    return f"the loop awaits {ast.unparse(awaited.value)}, which does not suspend when it is over: ask done() first"


def _looked_at(awaited: ast.Await, function: _Function, functions: Mapping[str, _Function]) -> list[_Function]:
    """The functions in which somebody has to ask whether the awaited future is done; none for another await."""
    if isinstance(awaited.value, ast.Name | ast.Attribute | ast.Subscript):
        return [function]
    assert isinstance(awaited.value, ast.expr)
    if not isinstance(awaited.value, ast.Call):
        return []
    called = functions.get(_name(awaited.value.func))
    if _is_shared(awaited.value):
        givers = [functions[name] for name in map(_name, _calls(awaited.value)) if name in functions]
        return [function, *givers]
    if called is None or called is function or not isinstance(called, ast.AsyncFunctionDef):
        return []
    inner = [_looked_at(each, called, {}) for each in _own(called, ast.Await) if isinstance(each, ast.Await)]
    if not inner or not all(inner):
        return []  # it awaits nothing, or something that may suspend
    givers = [functions[name] for each in _own(called, ast.Call) if (name := _name(each)) in functions]
    return [function, called, *givers]


def _is_shared(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and _name(call.func.value) == "asyncio" and call.func.attr in SHARED


def _event(awaited: ast.Await) -> str:
    """The name of the attribute in `await self._event.wait()`."""
    call = awaited.value
    is_call = isinstance(call, ast.Call) and not call.args and not call.keywords
    if is_call and isinstance(call.func, ast.Attribute) and call.func.attr == "wait":
        name = _name(call.func.value)
        return name if name.startswith("_") else ""
    return ""


def _is_renewed(event: str, module: Module) -> bool:
    """Attributes that their owner clears or replaces outside of its constructor."""
    for function in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        for node in _own(function, ast.Call, ast.Assign):
            if isinstance(node, ast.Call):
                if (
                    isinstance(node.func, ast.Attribute)
                    and node.func.attr == "clear"
                    and _name(node.func.value) == event
                ):
                    return True
            elif function.name != "__init__" and event in {_name(each) for each in ast.walk(node) if _is_target(each)}:
                return True
    return False


def _is_made_anew(awaited: ast.Await, loop: ast.While) -> bool:
    name = _name(awaited.value)
    for node in _own(loop, ast.Assign):
        assert isinstance(node, ast.Assign)
        is_new = isinstance(node.value, ast.Call) and _name(node.value.func) in MAKERS
        if is_new and name and name in map(_name, node.targets):
            return True
    return False


def _sleeps_each_round(loop: ast.While) -> bool:
    statements = [each.value for each in loop.body if isinstance(each, ast.Expr)]
    awaited = [each.value for each in statements if isinstance(each, ast.Await)]
    return any(isinstance(each, ast.Call) and _name(each.func) == "sleep" for each in awaited)


def _is_target(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store)


def _calls(node: ast.AST) -> list[ast.expr]:
    return [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]


def _own(node: ast.AST, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Those of the kinds inside, but for what belongs to functions within."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, kinds):
            yield child
        yield from _own(child, *kinds)


def _name(node: ast.AST) -> str:
    """The last name of `a.b.c`, or of what is called."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
