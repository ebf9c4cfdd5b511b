"""Load a scenario by its name or from a file of the user, and check it before anything starts.

A file is a Python module with one decorated story. Loading runs the module, as `python mine.py` does. Then the story is
rehearsed: it runs once without a cluster. This finds an unknown name, an impossible setting or a mistake in the code at
once, with its line.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import itertools
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from kraft.chaos import catalogue
from kraft.chaos.live import NobodyWatches
from kraft.chaos.model import RECORDS_PER_SECOND_MAX, Scenario
from kraft.chaos.nemesis import actions
from kraft.chaos.nemesis.actions import Action
from kraft.chaos.nemesis.kafka_apis import request_type
from kraft.chaos.nemesis.kafka_errors import code_of
from kraft.chaos.questions import QUESTIONS, Now, Value
from kraft.chaos.story import ScenarioRun, run_story
from kraft.chaos.worlds.spec import ScenarioError
from kraft.config.problems import ConfigError, Problem, expected, found, is_unknown, nearest, setting_problems
from metadata.internal_topics import INTERNAL_TOPICS
from metadata.settings import BrokerSettings, GroupSettings, TopicSettings

REHEARSAL_S: Final = 5.0
"""A rehearsal that takes longer has no end: nothing takes time in it."""
NEW_STORY: Final = '''"""What this is about, in one line."""

from kraft.chaos.model import ANY, Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "leader-killed",
    question="Does acks=all survive the death of a leader?",
    # Three nodes with both roles are the default; controllers=[4] keeps the metadata out of the story.
    # settings={"replica.lag.time.max.ms": 1_500},
    topics=[Topic(name="t", assignment=[[1, 2, 3]], configs={"min.insync.replicas": 2})],
    # A producer without a limit goes on until everything has healed; one with starts="in the story" waits for
    # run.start("load").
    clients=[Producer(name="load", topic="t", acks="all", rate=100, retries=10)],
    # What is left out must be zero, except `kept` (some) and records with an unknown outcome.
    expect=Expect(duplicated=ANY),
)
async def leader_killed(run: ScenarioRun) -> None:
    """The leader of a partition is killed under load, and comes back."""
    await run.more_acked(100)
    old = (await run.now()).leader("t", 0)
    await run.kill(old)
    # A wait that takes too long (20 s; deadline_ms=...) ends the story with a message that has the values.
    await run.until(lambda now: now.leader("t", 0) not in (old, -1))
    await run.more_acked(100)
    await run.restart(old)
    await run.until(lambda now: now.isr("t", 0) == [1, 2, 3])
    # When the story ends everything is healed, every record is read back, and judged.
'''


def load(name_or_file: str) -> Scenario:
    """Raises ConfigError, or OSError for an unreadable file."""
    if name_or_file.endswith(".toml"):
        right = "`kraft scenario new mine.py` writes one to start from, `kraft scenario describe NAME` shows one"
        raise ConfigError(name_or_file, [Problem(key="", wrong="scenarios are Python files now", right=right)])
    if name_or_file.endswith(".py"):
        scenario = _from_file(Path(name_or_file))
        check(scenario, file=name_or_file)
        return scenario
    if name_or_file not in catalogue.SCENARIOS:
        raise ConfigError(
            "catalogue",
            [Problem(key=name_or_file, wrong="there is no scenario of this name", right=_hint(name_or_file))],
        )
    return catalogue.SCENARIOS[name_or_file]


def _hint(name: str) -> str:
    hint = nearest(name, catalogue.NAMES)
    return hint if hint.startswith("did you mean") else "`kraft scenario list` shows them; a file ends in .py"


def _from_file(path: Path) -> Scenario:
    path.read_bytes()  # raises OSError, which is no mistake in the file
    module = _module(path)
    found = list(catalogue.scenarios_of(module))
    if len(found) != 1:
        wrong = f"{len(found)} scenarios in the file: {', '.join(each.name for each in found) or 'no decorated story'}"
        raise ConfigError(str(path), [Problem(key="", wrong=wrong, right="a file has one function under @scenario")])
    return found[0]


def _module(path: Path) -> ModuleType:
    name = f"kraft_story_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(str(path), list(_loading_problems(error, str(path)))) from error
    finally:
        del sys.modules[name]
    return module


def _loading_problems(error: Exception, file: str) -> Iterator[Problem]:
    line = _line_in(error, file)
    if isinstance(error, ValidationError):
        for details in error.errors():
            name = str(details["loc"][-1]) if details["loc"] else ""
            right = f" has no {name}" if is_unknown(details) else f".{name} {expected(details)}"
            wrong = found(details, kind="argument")
            yield Problem(key=name, wrong=wrong, right=f"{error.title}{right}", line=line)
    else:
        yield Problem(key="", wrong=f"{type(error).__name__}: {error}", right="the file has to load", line=line)


def _line_in(error: BaseException, file: str) -> int:
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    place = Path(file).resolve()
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == place
    ]
    return (lines[-1] or 0) if lines else 0


# --- checked --------------------------------------------------------------------------------------------------------


def check(scenario: Scenario, *, file: str) -> None:
    """Raises ConfigError with all mistakes that can be found before the start."""
    problems = [
        *(_plain(wrong, right) for wrong, right in _topics(scenario)),
        *(_plain(wrong, right) for wrong, right in _clients(scenario)),
        *_names_in_questions(scenario),
    ]
    problems = problems or list(_rehearsed(scenario, file))
    if problems:
        raise ConfigError(file, problems)


def _plain(wrong: str, right: str) -> Problem:
    return Problem(key="", wrong=wrong, right=right)


def _topics(scenario: Scenario) -> Iterator[tuple[str, str]]:
    names = [topic.name for topic in scenario.topics]
    if not names:
        yield "there is no topic", "give one: topics=[Topic(name='t')]"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"there are two topics {name}", "each topic needs its own name"
    for topic in scenario.topics:
        for broker in sorted({broker for replicas in topic.assignment for broker in replicas}):
            if broker not in scenario.cluster.brokers:
                yield f"topic {topic.name}: there is no broker {broker}", _are(scenario.cluster.brokers)
        yield from _settings(f"topic {topic.name}", TopicSettings, topic.configs)
    yield from _settings("settings", BrokerSettings, scenario.cluster.settings)


def _clients(scenario: Scenario) -> Iterator[tuple[str, str]]:
    names = [client.name for client in scenario.clients]
    if not names:
        yield "there is no client", "give one: clients=[Producer(name='load', topic='t')]"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"there are two clients {name}", "each client needs its own name"
    topics = _topic_names(scenario)
    for client in scenario.clients:
        if client.topic not in topics:
            yield f"client {client.name}: there is no topic {client.topic}", nearest(client.topic, topics)
        if isinstance(client.target, int) and client.target not in scenario.cluster.node_ids:
            yield f"client {client.name}: there is no node {client.target}", _are(scenario.cluster.node_ids)


def _settings(where: str, model: type[BaseModel], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for problem in setting_problems(model, settings):
        yield f"{where}: {problem.key}: {problem.wrong}", problem.right


def _topic_names(scenario: Scenario) -> set[str]:
    """The topics of the scenario, and those that the story creates."""
    created = {
        str(call.args[0].value)
        for call in _calls(scenario, {"create_topic"})
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    return {topic.name for topic in scenario.topics} | created


def _calls(scenario: Scenario, names: set[str]) -> Iterator[ast.Call]:
    try:
        tree = ast.parse(textwrap.dedent(scenario.source))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            yield node


def _names_in_questions(scenario: Scenario) -> Iterator[Problem]:
    """The names of topics and clients in questions. A rehearsal alone does not reach the second half of `a and b`."""
    known = {"topic": _topic_names(scenario) | INTERNAL_TOPICS, "client": {client.name for client in scenario.clients}}
    first = inspect.unwrap(scenario.story).__code__.co_firstlineno if inspect.isfunction(scenario.story) else 1
    for call in _calls(scenario, set(QUESTIONS)):
        assert isinstance(call.func, ast.Attribute)
        for kind, argument in zip(QUESTIONS[call.func.attr], call.args, strict=False):
            names = known.get(kind)
            if names is not None and isinstance(argument, ast.Constant) and argument.value not in names:
                hint = nearest(repr(argument.value).strip("'"), names)
                line = first + argument.lineno - 1
                yield Problem(key="", wrong=f"there is no {kind} {argument.value!r}", right=hint, line=line)


def _are(ids: tuple[int, ...]) -> str:
    return f"the ids are {', '.join(map(str, ids))}"


# --- rehearsed ------------------------------------------------------------------------------------------------------


def _rehearsed(scenario: Scenario, file: str) -> Iterator[Problem]:
    story_run = ScenarioRun(scenario, Rehearsal(scenario), NobodyWatches())
    try:
        asyncio.run(asyncio.wait_for(run_story(scenario.story, story_run), REHEARSAL_S))
    except TimeoutError:
        yield _plain(f"the story goes on after {REHEARSAL_S:.0f} s in which nothing had to be waited for", "end it")
    except ScenarioError as error:
        line = _line_in(error.__cause__ or error, file) or _line_in(error, file)
        wrong, _, right = str(error).partition("; ")
        yield Problem(key="", wrong=wrong, right=right or "see `kraft scenario describe NAME` for one", line=line)


class Rehearsal:
    """A world in which every wait ends at once, and in which only the names of the scenario exist."""

    def __init__(self, scenario: Scenario) -> None:
        self._nodes = scenario.cluster.node_ids
        self._voter = scenario.cluster.controllers[0]
        self._topics = {topic.name: topic.assignment for topic in scenario.topics}
        self._clients = {client.name for client in scenario.clients}
        self._known_topics = _topic_names(scenario) | INTERNAL_TOPICS
        self._now_ms = 0
        self._group_members = itertools.cycle(range(len(self._clients) + 1))

    async def look(self) -> Now:
        now = Now(self._ask)
        now.is_rehearsal = True
        return now

    async def sleep(self, ms: int) -> None:
        self._now_ms += ms

    def now_ms(self) -> int:
        return self._now_ms

    async def group_members(self, group: str) -> int:
        return next(self._group_members)

    async def act(self, action: Action) -> None:
        match action:
            case (
                actions.StartClients(clients=clients)
                | actions.FinishClients(clients=clients)
                | actions.SilenceClients(clients=clients)
            ):
                for name in clients:
                    self._known("client", name, self._clients)
            case (
                actions.LinkFault(do="delay", delay_ms=0, jitter_ms=0)
                | actions.LinkFault(do="bandwidth", bytes_per_second=0)
            ):
                raise ScenarioError(f"{action.do} of nothing; give delay_ms or bytes_per_second")
            case actions.RequestFault(do=kind, api=api):
                request_type(api)
                if kind == "answer":
                    code_of(action.error)
                if kind == "delay_answer" and not action.delay_ms:
                    raise ScenarioError("delay_answer of nothing; give delay_ms")
            case actions.CreateTopic(topic=topic, assignment=assignment, configs=configs):
                self._topics[topic] = assignment
                _check_settings(TopicSettings, configs)
            case actions.SetTopic(configs=configs):
                _check_settings(TopicSettings, configs)
            case actions.SetCluster(configs=configs):
                _check_settings(BrokerSettings, configs)
            case actions.SetGroup(configs=configs):
                _check_settings(GroupSettings, configs)
        named = getattr(action, "topic", None)
        if named is not None:
            self._known("topic", named, self._known_topics)
        for end in _ends_of(action):
            if isinstance(end, int):
                self._known("node", end, self._nodes)
            else:
                self._known("client", end, self._clients)

    def _known(self, kind: str, name: int | str, names: Any) -> None:
        if name not in names:
            hint = nearest(str(name), map(str, names)) if isinstance(name, str) else _are(self._nodes)
            raise ScenarioError(f"there is no {kind} {name}; {hint}")

    def _ask(self, question: str, arguments: tuple[Value, ...]) -> Value:
        """An answer of the right type."""
        for kind, argument in zip(QUESTIONS[question], arguments, strict=False):
            names: Mapping[str, Any] = {"topic": self._known_topics, "client": self._clients, "node": self._nodes}
            if kind in names and argument is not None:
                self._known(kind, argument, names[kind])
        replicas = list(self._topics.get(str(arguments[0]), ((self._nodes[0],),))[0]) if arguments else []
        match question:
            case "leader":
                return replicas[0]
            case "isr" | "replicas":
                return sorted(replicas) if question == "isr" else replicas
            case "followers":
                return replicas[1:] or replicas
            case "nodes":
                return list(self._nodes)
            case "controller":
                return self._voter
            case "coordinator" | "transaction_coordinator":
                return self._nodes[0]
            case "state":
                return "active"
            case "offline" | "alive" | "done":
                return True
            case "acked" | "sent" | "read" | "uncommitted" | "accepted" | "committed" | "aborted":
                return self._now_ms * RECORDS_PER_SECOND_MAX
        return 0


def _check_settings(model: type[BaseModel], settings: Mapping[str, Any]) -> None:
    for wrong, right in _settings("settings", model, settings):
        raise ScenarioError(f"{wrong}; {right}")


def _ends_of(action: Action) -> Iterator[int | str]:
    for key in ("node", "nodes", "dials", "answers", "replicas", "groups", "assignment"):
        value = getattr(action, key, None)
        yield from _flattened(value)


def _flattened(value: Any) -> Iterator[int | str]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flattened(item)
    elif value is not None:
        yield value
