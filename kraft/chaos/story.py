"""A story: one async function that breaks a cluster step by step, whose decorator has all values that are known before.

    @scenario(
        "leader-killed",
        question="Does acks=all survive the death of a leader?",
        topics=[Topic(name="t", configs={"min.insync.replicas": 2})],
        clients=[Producer(name="load", topic="t", retries=10)],
        expect=Expect(duplicated=ANY),
    )
    async def leader_killed(run: ScenarioRun) -> None:
        \"""The leader of a partition is killed under load.\"""
        await run.more_acked(100)
        old = (await run.now()).leader("t", 0)
        await run.kill(old)
        await run.until(lambda now: now.leader("t", 0) not in (old, -1))
        await run.more_acked(100)

When the function returns, the runner heals all faults, reads all records, and judges. A wait that takes too long ends
the story; its message contains the condition and the values.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from kraft.chaos.live import Watcher, describe_action
from kraft.chaos.model import (
    ANY,
    Client,
    ClusterPlan,
    Condition,
    Count,
    Expect,
    Producer,
    Scenario,
    Topic,
    with_counts,
)
from kraft.chaos.nemesis import actions
from kraft.chaos.nemesis.actions import Action, Damage
from kraft.chaos.nemesis.links import ALL_PURPOSES, BETWEEN_NODES, Purpose
from kraft.chaos.questions import Now, described, holds, written
from kraft.chaos.worlds.processes.proxy.rules import Direction
from kraft.chaos.worlds.spec import ScenarioError
from kraft.chaos.worlds.world import NOT_KNOWN, World
from kraft.config.problems import nearest
from kraft.protocol.primitives import SettingValue

DEADLINE_MS: Final = 20_000
"""Default deadline of a wait for a condition."""
WAIT_MS_MAX: Final = 120_000
LOOK_MS: Final = 40
"""Time between two looks at the cluster while a story waits."""
GROUP_LOOK_MS: Final = 10
"""Time between two looks at a group: a rebalance can be short."""
STEPS_MAX: Final = 1_000
"""Most steps of one story, so that an endless story ends."""

Purposes = Purpose | Sequence[Purpose]
Ends = int | str | Sequence[int | str] | None
"""Nodes, or clients by their names; None: all."""
Story: TypeAlias = "Callable[[ScenarioRun], Awaitable[None]]"


def scenario(
    name: str,
    *,
    question: str,
    topics: Sequence[Topic],
    clients: Sequence[Client],
    brokers: Sequence[int] = (1, 2, 3),
    controllers: Sequence[int] = (1, 2, 3),
    settings: Mapping[str, SettingValue] | None = None,
    expect: Expect | None = None,
    is_long: bool = False,
    rest_only: str = "",
) -> Callable[[Story], Scenario]:
    """Makes a scenario from a story. `settings` are Kafka's settings of all nodes; the docstring of the story describes
    what happens."""

    def decorate(story: Story) -> Scenario:
        return Scenario(
            name=name,
            sentence=" ".join((inspect.getdoc(story) or "").split("\n\n")[0].split()).rstrip("."),
            question=question,
            cluster=ClusterPlan(brokers=tuple(brokers), controllers=tuple(controllers), settings=settings or {}),
            topics=tuple(topics),
            clients=tuple(clients),
            expect=with_reordered(expect or Expect(), clients),
            story=story,
            source=_source_of(story),
            is_long=is_long,
            rest_only=rest_only,
        )

    return decorate


def with_reordered(expect: Expect, clients: Sequence[Client]) -> Expect:
    """The expectation with `reordered`: requests that are in flight together have no order."""
    if expect.reordered is not None:
        return expect
    several = any(isinstance(client, Producer) and client.in_flight > 1 for client in clients)
    return replace(expect, reordered=ANY if several else 0)


def _source_of(story: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(story)
    except (OSError, TypeError):
        return ""


class StepFailed(ScenarioError):
    """A condition did not hold in time, or an action failed."""

    def __init__(self, number: int, text: str, reason: str) -> None:
        super().__init__(f"step {number} ({text}): {reason}")


class ScenarioRun:
    """What a story can do and ask. Each action is a step of the story. All methods raise StepFailed."""

    def __init__(self, definition: Scenario, world: World, watcher: Watcher) -> None:
        self._world = world
        self._watcher = watcher
        self._number = 0
        self._text = ""
        self.expected = definition.expect

    # --- waiting and looking ------------------------------------------------------------------------------------

    async def now(self) -> Now:
        return await self._world.look()

    async def until(self, condition: Condition, *, deadline_ms: int = DEADLINE_MS) -> Now:
        """Wait until the condition holds; returns the cluster at that moment."""
        text = written(condition)
        self._step(f"until {text}")
        deadline = self._world.now_ms() + min(deadline_ms, WAIT_MS_MAX)
        while True:
            asked = self._world.now_ms()
            now = await self._world.look()
            if holds(condition, now):
                return now
            if asked > deadline:
                raise self._failed(f"{text} did not hold within {deadline_ms} ms: {described(condition, now.answers)}")
            await self._world.sleep(LOOK_MS)

    async def more_acked(self, records: int, *, deadline_ms: int = DEADLINE_MS) -> None:
        """Wait until so many more records are acknowledged to all producers together."""
        wanted = (await self._world.look()).acked() + records
        self._step(f"until {records} more records are acknowledged")
        deadline = self._world.now_ms() + min(deadline_ms, WAIT_MS_MAX)
        while (missing := wanted - (await self._world.look()).acked()) > 0:
            if self._world.now_ms() > deadline:
                reason = f"{missing} of {records} records were still not acknowledged after {deadline_ms} ms"
                raise self._failed(reason)
            await self._world.sleep(LOOK_MS)

    async def until_group(self, group: str, *, members: int, deadline_ms: int = DEADLINE_MS) -> None:
        """Wait until the coordinator of the group counts so many members: a member has joined, and the rebalance has
        begun."""
        self._step(f"until group {group} has {members} members")
        deadline = self._world.now_ms() + min(deadline_ms, WAIT_MS_MAX)
        while (found := await self._world.group_members(group)) != members:
            if self._world.now_ms() > deadline:
                state = "its coordinator does not answer" if found == NOT_KNOWN else f"it has {found}"
                raise self._failed(f"group {group} has not {members} members after {deadline_ms} ms: {state}")
            await self._world.sleep(GROUP_LOOK_MS)

    async def sleep(self, ms: int) -> None:
        self._step(f"wait {ms} ms")
        await self._world.sleep(min(ms, WAIT_MS_MAX))

    def expect(self, **counts: Count) -> None:
        """Set an expected count that the story has measured: `run.expect(lost=unreplicated)`."""
        self.expected = with_counts(self.expected, counts)

    def expect_at_the_end(self, *conditions: Condition) -> None:
        """Add a condition that must hold after all faults are healed."""
        self.expected = replace(self.expected, holds=(*self.expected.holds, *conditions))

    # --- clients ------------------------------------------------------------------------------------------------

    async def start(self, *clients: str) -> None:
        """Start clients that have `starts="in the story"`."""
        await self.act(actions.StartClients(do="start", clients=clients))

    async def finish(self, *clients: str) -> None:
        """Stop sending; returns when each request has an answer or has timed out."""
        await self.act(actions.FinishClients(do="finish", clients=clients))

    async def silence(self, *clients: str) -> None:
        """Members of groups and transactional producers end as killed processes do: they commit nothing more."""
        await self.act(actions.SilenceClients(do="silence", clients=clients))

    # --- nodes --------------------------------------------------------------------------------------------------

    async def kill(self, *nodes: int) -> None:
        """SIGKILL."""
        await self._to_nodes("kill", nodes)

    async def stop(self, *nodes: int) -> None:
        """Controlled shutdown."""
        await self._to_nodes("stop", nodes)

    async def restart(self, *nodes: int) -> None:
        """Start nodes that are down."""
        await self._to_nodes("restart", nodes)

    async def pause(self, *nodes: int) -> None:
        """SIGSTOP."""
        await self._to_nodes("pause", nodes)

    async def resume(self, *nodes: int) -> None:
        """SIGCONT."""
        await self._to_nodes("resume", nodes)

    async def power_loss(self, *nodes: int) -> None:
        """SIGKILL; all data without fsync is lost."""
        await self._to_nodes("power_loss", nodes)

    async def wipe(self, *nodes: int) -> None:
        """Remove the data of nodes that are down."""
        await self._to_nodes("wipe", nodes)

    async def fill_disk(self, *nodes: int) -> None:
        """The disk is full from now on (ENOSPC)."""
        await self._to_nodes("disk_full", nodes)

    async def free_disk(self, *nodes: int) -> None:
        """The disk has room again."""
        await self._to_nodes("disk_free", nodes)

    async def damage(
        self, node: int, topic: str, partition: int = 0, *, what: Damage, spares_isr: bool = False
    ) -> None:
        """Damage the files of a partition on a node that is down. `spares_isr`: not while the node is in the ISR."""
        await self.act(
            actions.DamageFiles(
                do="damage", node=node, topic=topic, partition=partition, what=what, spares_isr=spares_isr
            )
        )

    async def _to_nodes(self, do: Any, nodes: tuple[int, ...]) -> None:
        await self.act(actions.NodeFault(do=do, nodes=nodes))

    # --- links: from the side that dials to the side that answers, each for one purpose -------------------------

    async def cut(self, *, dials: Ends = None, answers: Ends = None, purpose: Purposes = BETWEEN_NODES) -> None:
        """Connections are reset and the port refuses."""
        await self._break("cut", dials, answers, purpose)

    async def blackhole(
        self,
        *,
        dials: Ends = None,
        answers: Ends = None,
        purpose: Purposes = BETWEEN_NODES,
        direction: Direction = "both",
    ) -> None:
        """Nothing arrives, and the sender gets no error. `direction` selects the bytes: requests, answers or both."""
        await self._break("blackhole", dials, answers, purpose, direction=direction)

    async def delay(
        self,
        *,
        delay_ms: int,
        jitter_ms: int = 0,
        dials: Ends = None,
        answers: Ends = None,
        purpose: Purposes = BETWEEN_NODES,
        direction: Direction = "both",
    ) -> None:
        """Each message arrives later, by a random time of at most `jitter_ms` more."""
        await self._break("delay", dials, answers, purpose, direction=direction, delay_ms=delay_ms, jitter_ms=jitter_ms)

    async def bandwidth(
        self,
        *,
        bytes_per_second: int,
        dials: Ends = None,
        answers: Ends = None,
        purpose: Purposes = BETWEEN_NODES,
        direction: Direction = "both",
    ) -> None:
        """A narrow link."""
        await self._break("bandwidth", dials, answers, purpose, direction=direction, bytes_per_second=bytes_per_second)

    async def drop_answers(
        self, *, dials: Ends = None, answers: Ends = None, purpose: Purposes = BETWEEN_NODES, count: int = 0
    ) -> None:
        """Requests are carried out, and their answers are lost. `count`: the number of answers; 0: until healed."""
        await self._break("drop_answers", dials, answers, purpose, count=count)

    async def close_mid_message(
        self,
        *,
        dials: Ends = None,
        answers: Ends = None,
        purpose: Purposes = BETWEEN_NODES,
        direction: Direction = "both",
        count: int = 0,
    ) -> None:
        """The connection ends in the middle of a message."""
        await self._break("close_mid_message", dials, answers, purpose, direction=direction, count=count)

    # --- requests of Kafka clients to one API (`--client kafka`) ------------------------------------------------

    async def answer(
        self, api: str, *, error: str | int, times: int = 1, topic: str | None = None, node: int | None = None
    ) -> None:
        """A link answers with this error, and no broker gets the request. `times`: so often; 0: until healed."""
        await self._change_answers("answer", api, times, topic, node, error=error)

    async def delay_answer(
        self, api: str, *, delay_ms: int, times: int = 1, topic: str | None = None, node: int | None = None
    ) -> None:
        """The request is carried out at once, and its answer arrives later."""
        await self._change_answers("delay_answer", api, times, topic, node, delay_ms=delay_ms)

    async def drop_answer(self, api: str, *, times: int = 1, topic: str | None = None, node: int | None = None) -> None:
        """The request is carried out; the connection ends instead of an answer."""
        await self._change_answers("drop_answer", api, times, topic, node)

    async def close_after(self, api: str, *, times: int = 1, topic: str | None = None, node: int | None = None) -> None:
        """The client gets the answer, and then the end of the connection."""
        await self._change_answers("close_after", api, times, topic, node)

    async def _change_answers(
        self, do: Any, api: str, times: int, topic: str | None, node: int | None, **rest: Any
    ) -> None:
        await self.act(actions.RequestFault(do=do, api=api, times=times, topic=topic, node=node, **rest))

    # --- several links ------------------------------------------------------------------------------------------

    async def partition(self, *groups: Sequence[int | str], purpose: Purposes = BETWEEN_NODES) -> None:
        """Nodes in different groups do not reach each other; a node in two groups is a bridge."""
        ends = tuple(tuple(group) for group in groups)
        await self.act(actions.Partition(do="partition", groups=ends, purpose=_purposes(purpose)))

    async def isolate(self, node: int, *, purpose: Purposes = BETWEEN_NODES) -> None:
        """Nothing goes from or to this node; its clients still reach it."""
        await self.act(actions.Isolate(do="isolate", node=node, purpose=_purposes(purpose)))

    async def heal(self, *, dials: Ends = None, answers: Ends = None, purpose: Purposes = ALL_PURPOSES) -> None:
        """Heal the named links, or all, with the faults of requests."""
        await self.act(actions.Heal(do="heal", dials=_ends(dials), answers=_nodes(answers), purpose=_purposes(purpose)))

    async def _break(self, do: Any, dials: Ends, answers: Ends, purpose: Purposes, **rest: Any) -> None:
        await self.act(
            actions.LinkFault(do=do, dials=_ends(dials), answers=_nodes(answers), purpose=_purposes(purpose), **rest)
        )

    # --- topics and settings ------------------------------------------------------------------------------------

    async def create_topic(
        self, topic: str, *, assignment: Sequence[Sequence[int]], configs: Mapping[str, SettingValue] | None = None
    ) -> None:
        replicas = tuple(tuple(each) for each in assignment)
        await self.act(actions.CreateTopic(do="create_topic", topic=topic, assignment=replicas, configs=configs or {}))

    async def delete_topic(self, topic: str) -> None:
        await self.act(actions.DeleteTopic(do="delete_topic", topic=topic))

    async def grow_topic(self, topic: str, *, partitions: int) -> None:
        """`partitions`: the new number of partitions."""
        await self.act(actions.GrowTopic(do="grow_topic", topic=topic, partitions=partitions))

    async def set_topic(self, topic: str, configs: Mapping[str, SettingValue]) -> None:
        await self.act(actions.SetTopic(do="set_topic", topic=topic, configs=configs))

    async def set_cluster(self, configs: Mapping[str, SettingValue]) -> None:
        await self.act(actions.SetCluster(do="set_cluster", configs=configs))

    async def set_group(self, group: str, configs: Mapping[str, SettingValue]) -> None:
        """Change settings of a group, such as errors.deadletterqueue.topic.name."""
        await self.act(actions.SetGroup(do="set_group", group=group, configs=configs))

    async def reassign(
        self, topic: str, partition: int = 0, *, replicas: Sequence[int], may_be_refused: bool = False
    ) -> None:
        await self.act(
            actions.Reassign(
                do="reassign",
                topic=topic,
                partition=partition,
                replicas=tuple(replicas),
                may_be_refused=may_be_refused,
            )
        )

    async def elect(
        self,
        topic: str,
        partition: int = 0,
        *,
        kind: Literal["preferred", "unclean"] = "preferred",
        may_be_refused: bool = False,
    ) -> None:
        await self.act(
            actions.Elect(do="elect", topic=topic, partition=partition, kind=kind, may_be_refused=may_be_refused)
        )

    # --- one step -----------------------------------------------------------------------------------------------

    async def act(self, action: Action) -> None:
        self._step(describe_action(action))
        try:
            await self._world.act(action)
        except StepFailed:
            raise
        except ScenarioError as error:
            raise self._failed(str(error)) from error

    def _step(self, text: str) -> None:
        self._number += 1
        self._text = text
        if self._number > STEPS_MAX:
            raise self._failed(f"a story has {STEPS_MAX} steps at most")
        self._watcher.step(self._number, text)

    def _failed(self, reason: str) -> StepFailed:
        return StepFailed(self._number, self._text, reason)


def _purposes(purpose: Purposes) -> tuple[Purpose, ...]:
    return (purpose,) if isinstance(purpose, str) else tuple(purpose)


def _ends(ends: Ends) -> tuple[int | str, ...] | None:
    return (ends,) if isinstance(ends, int | str) else None if ends is None else tuple(ends)


def _nodes(ends: Ends) -> Any:
    """Nodes only; pydantic refuses the name of a client."""
    return _ends(ends)


async def run_story(story: Story, run: ScenarioRun) -> None:
    """Run the story. Raises StepFailed; any other exception is a mistake in the story, and becomes a ScenarioError."""
    try:
        await story(run)
    except ScenarioError:
        raise
    except Exception as error:
        raise ScenarioError(
            f"the story is wrong: {type(error).__name__}: {error}{_hint(error)}{_where(error)}"
        ) from error


def _hint(error: Exception) -> str:
    """The nearest name of a misspelled question or action."""
    if isinstance(error, AttributeError) and isinstance(error.obj, Now | ScenarioRun):
        return f"; {nearest(error.name or '', [name for name in dir(error.obj) if not name.startswith('_')])}"
    return ""


def _where(error: BaseException) -> str:
    frames = (
        [frame for frame in inspect.getinnerframes(error.__traceback__) if frame.function != "run_story"]
        if (error.__traceback__)
        else []
    )
    own = [frame for frame in frames if not frame.filename.startswith(__file__.rpartition("/")[0] + "/")]
    return f" ({own[0].filename.rpartition('/')[2]}:{own[0].lineno})" if own else ""
