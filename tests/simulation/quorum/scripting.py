"""What the scripted runs share: a calm cluster, filters taken out, and waiting for a commit."""

from __future__ import annotations

from metadata.quorum import filters
from metadata.quorum.filters import Message, MessageFilter, standard_filters
from tests.simulation.quorum.plan import Plan
from tests.simulation.quorum.world import World

CALM = Plan(latency_ms=(0.5, 2), orphan=0.0, notice_ms=1, batch_bytes=2**16)


class AnyAck(filters.AckTerms):
    def incoming(self, _peer: int, message: Message) -> Message | None:
        return message


class AnyReset(filters.ResetSequence):
    def incoming(self, peer: int, message: Message) -> Message | None:
        changed = super().incoming(peer, message)
        return message if message["type"] == "next_node_idx" else changed


def without(*names: str) -> list[MessageFilter]:
    """The standard filters but for these; those that others need on the wire only stop to drop."""
    weak: dict[str, type[MessageFilter]] = {"AckTerms": AnyAck, "ResetSequence": AnyReset}
    chosen = []
    for each in standard_filters():
        name = type(each).__name__
        if name not in names:
            chosen.append(each)
        elif name in weak:
            chosen.append(weak[name]())
    return chosen


def calm(seed: int, plan: Plan = CALM) -> World:
    """A cluster that has a leader."""
    world = World(seed, plan)
    for i in world.ids:
        world.start(i)
    world.reconnect_forever()
    assert world.run_for(5000, until=lambda: world.leader is not None)
    world.run_for(200)
    return world


def isolate(world: World, i: int) -> None:
    for peer in world.ids:
        if peer != i:
            world.network.denied.add((min(i, peer), max(i, peer)))
            world.network.disconnect(i, peer)


def heal(world: World) -> None:
    world.network.denied.clear()
    world.healed = True


def commit(world: World, command: bytes, *, within_ms: float = 3000) -> None:
    deadline = world.time.us + within_ms * 1000
    while command not in world.acked and world.time.us < deadline:
        leader = world.leader
        if leader is not None:
            world.submit(leader, command)
        world.run_for(100, until=lambda: command in world.acked)
    assert command in world.acked, f"{command!r} was not committed within {within_ms} ms"
