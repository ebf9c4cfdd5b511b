"""A small busy world, run by the determinism tests: `python -m tests.simulation.story SEED` prints its fingerprint."""

from __future__ import annotations

import asyncio
import sys

from kraft.chaos.worlds.simulated.environment import Machine, SimulatedWorld
from metadata.environment import ConnectionClosed, FrameConnection

PORT = 9000
NAMES = ("one", "two", "three")
ROUNDS = 40


async def _serve(machine: Machine, connection: FrameConnection) -> None:
    files, workers = machine.environment.files, machine.environment.workers
    file = files.open("/log", create=True)
    while True:
        frame = await connection.receive()
        file.append([frame])
        await workers.run(file.sync)
        connection.send([frame, b"%d" % file.size])


async def _ask(machine: Machine, target: str) -> None:
    environment = machine.environment
    try:
        connection = await environment.network.connect(target, PORT, frame_bytes_max=1000, timeout_ms=500)
        async with environment.clock.timeout(environment.rng.randint(1, 50)):
            connection.send([environment.rng.randbytes(environment.rng.randint(1, 100))])
            await connection.receive()
        connection.close()
    except (OSError, ConnectionClosed):
        await environment.clock.sleep(environment.rng.randint(1, 20))


async def _node(machine: Machine) -> None:
    async def on_connection(connection: FrameConnection) -> None:
        await _serve(machine, connection)

    await machine.environment.network.listen(machine.name, PORT, on_connection, frame_bytes_max=1000)
    for _ in range(ROUNDS):
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(_ask(machine, name))


async def _scenario(world: SimulatedWorld) -> None:
    rng = world.rng("faults")
    machines = [world.machine(name, rate=rng.uniform(0.9, 1.1)) for name in NAMES]
    for machine in machines:
        world.loop.spawn(machine.process, _node(machine))
    for _ in range(20):
        await asyncio.sleep(rng.uniform(0.01, 0.2))
        one, two = rng.sample(machines, 2)
        match rng.randrange(5):
            case 0:
                world.network.cut(one.name, two.name, direction=rng.choice(["both", "to", "from"]))
            case 1:
                world.network.heal(one.name, two.name)
            case 2:
                world.network.reset(one.name, two.name)
            case 3:
                one.kill()
                world.loop.spawn(one.process, _node(one))
            case _:
                one.lose_power()
                one.power_on()
                world.loop.spawn(one.process, _node(one))


def run_story(seed: int) -> str:
    world = SimulatedWorld(seed)
    world.run(_scenario(world))
    return f"{world.events} {world.fingerprint}"


if __name__ == "__main__":
    print(run_story(int(sys.argv[1])))
