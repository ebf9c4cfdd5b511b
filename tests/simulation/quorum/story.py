"""A whole story under one seed: clients, faults, healing, an idle ending.

Faults: lost and one-way slow links, partitions, connections that end with messages under way in both directions,
pauses, kills, power loss of one or all. Then all is healed and nobody asks for anything: every voter must reach the
same end of the log, by the heartbeats alone. After that commits go on, and everybody gets them too.
"""

from __future__ import annotations

from tests.simulation.quorum.plan import Plan, Violation
from tests.simulation.quorum.world import World

RESTART_MS = 1_500
CONVERGE_MS = 2_000
COMMIT_MS = 3_000


class Story:
    def __init__(self, seed: int, plan: Plan) -> None:
        self.world = World(seed, plan)
        self._plan = plan
        self._rng = self.world.rng
        self._commands = 0
        self._has_clients = True

    def play(self) -> None:
        world = self.world
        for i in world.ids:
            world.start(i)
        world.reconnect_forever()
        self._client_forever()
        world.after(1000, self._fault_forever)
        world.run_for(self._plan.faults_ms)
        self._has_clients = False
        self._heal()
        self._await_convergence()
        before = len(world.acked)
        self._has_clients = True
        self._client_forever()
        world.run_for(COMMIT_MS, until=lambda: len(world.acked) > before + 5)
        if len(world.acked) <= before:
            raise Violation(f"no commit in {COMMIT_MS} ms after all was healed\n{world}")
        self._has_clients = False
        self._await_convergence()
        world.check_acked()

    def _heal(self) -> None:
        world = self.world
        world.healed = True
        world.network.blocked.clear()
        world.network.slow_ms.clear()
        if self._plan.last_outage:
            for i in world.ids:
                world.crash(i, power=self._rng.random() < self._plan.power, restart_ms=self._rng.random() * 200)
        world.run_for(2 * RESTART_MS, until=lambda: self._all_run)
        assert self._all_run

    @property
    def _all_run(self) -> bool:
        nodes = self.world.nodes
        return len(nodes) == len(self.world.ids) and not any(node.is_paused for node in nodes.values())

    def _await_convergence(self) -> None:
        if not self.world.run_for(CONVERGE_MS, until=lambda: self.world.is_converged):
            raise Violation(f"the voters do not agree {CONVERGE_MS} ms after all was healed\n{self.world}")

    def _client_forever(self) -> None:
        if not self._has_clients:
            return
        nodes = self.world.nodes
        live = [i for i, node in nodes.items() if not node.is_paused]
        if live:
            leaders = [i for i in live if nodes[i].raft.is_leader]
            i = self._rng.choice(leaders) if leaders and self._rng.random() < 0.8 else self._rng.choice(live)
            self._commands += 1
            large = self._plan.large_bytes if self._rng.random() < self._plan.large_share else 0
            self.world.submit(i, b"c%d." % self._commands + bytes(large))
        self.world.after(self._rng.expovariate(self._plan.commands_per_s) * 1000, self._client_forever)

    def _fault_forever(self) -> None:
        world, plan, dice = self.world, self._plan, self._rng.random()
        if world.healed:
            return
        a, b = self._rng.sample(world.ids, 2)
        if self._rng.random() < plan.outage:
            for i in world.ids:
                self._crash(i)
        elif dice < plan.drop:
            world.network.disconnect(a, b)
        elif dice < plan.drop + plan.crash:
            self._crash(a)
        elif dice < plan.drop + plan.crash + plan.pause:
            world.pause(a, self._rng.random() * 1000)
        elif dice < plan.drop + plan.crash + plan.pause + plan.partition:
            self._partition(a, b)
        else:
            world.network.slow_ms[a, b] = self._rng.random() * plan.slow_ms
            world.after(self._rng.random() * 2000, lambda: world.network.slow_ms.pop((a, b), None))
        world.after(self._rng.expovariate(1 / plan.fault_every_ms), self._fault_forever)

    def _crash(self, i: int) -> None:
        power = self._rng.random() < self._plan.power
        self.world.crash(i, power=power, restart_ms=50 + self._rng.random() * RESTART_MS)
        if self._plan.wipe and self._rng.random() < self._plan.wipe:
            self.world.wipe(i)

    def _partition(self, a: int, b: int) -> None:
        network, both = self.world.network, {(a, b), (b, a)}
        network.blocked |= both
        self.world.after(100 + self._rng.random() * 2000, lambda: network.blocked.difference_update(both))
        if self._rng.random() < 0.7:
            network.disconnect(a, b)
