"""The text of a story that `kraft scenario describe` shows: with the constants and functions of its file that it
uses."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from textwrap import dedent

from kraft.chaos.model import Scenario


def surroundings(scenario: Scenario) -> str:
    """The constants and functions of the same file that the story uses, in the order of the file."""
    code = getattr(scenario.story, "__code__", None)
    text = "" if code is None else "".join(linecache.getlines(code.co_filename))
    known = dict(_definitions(ast.parse(text)))
    used: set[str] = set()
    unseen: list[ast.AST] = [ast.parse(dedent(scenario.source))]
    while unseen:
        names = {node.id for node in ast.walk(unseen.pop()) if isinstance(node, ast.Name)} & known.keys() - used
        used |= names
        unseen += [known[name] for name in names]
    return "\n\n".join(ast.get_source_segment(text, node) or "" for name, node in known.items() if name in used)


def _definitions(module: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Without other stories, which are decorated."""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.FunctionDef(name=name, decorator_list=[]) | ast.AsyncFunctionDef(name=name, decorator_list=[]):
                yield name, node


def steps_in(scenario: Scenario) -> int:
    """An estimate of the number of steps of the story: the calls that it awaits. A loop has more, a branch fewer."""
    text = scenario.source + surroundings(scenario)
    return text.count("await ") - text.count("await _")
