"""One simulated cluster and its run: cycles of a time in which anything fails, and a time in which it must recover.

Order of a cycle:
1. *safety*: clients ask, faults happen. Nothing may be wrong (`kvservice.simulation.rules`, `.ledger`).
2. *core*: a majority heals, the others stay as they are, cut off. A write must be acknowledged within CORE_SECONDS.
3. *liveness*: everything heals. Within HEAL_SECONDS there must be one leader, every member must have applied
   everything, states must be equal, and every history must be settled.

Guarantees: a run is a function of its seed, of nothing else. A defect raises, with the trace of what led to it.
Leaves to the caller: printing (`kvservice.simulation.report`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from kvservice.simulation.clients import Client, Door
from kvservice.simulation.clock import VirtualClock
from kvservice.simulation.faults import FAULTS
from kvservice.simulation.garbage import Garbage
from kvservice.simulation.host import Host
from kvservice.simulation.ledger import Ledger
from kvservice.simulation.network import Network, Weather
from kvservice.simulation.rules import RuleBroken, Rules, digest_of
from replication.core.membership import Change, ChangeKind, Configuration
from replication.core.quorum import is_granted
from replication.core.raft import Role, Settings
from replication.errors import ReplicationError

SECOND_US: Final = 1_000_000
CORE_SECONDS: Final = 30
HEAL_SECONDS: Final = 60
TRACED: Final = 300
WATCH_SECONDS: Final = 5
MESSAGES_MAX: Final = 5_000
"""A second between all nodes: some hundreds are the rule, and clients in a burst bring some thousand."""
BURST_US: Final = 1_000_000
BURST_PAUSE_US: Final = 20_000
HEALED_PAUSE_US: Final = 300_000
"""Mean time between a client's questions in a burst, and while liveness is asked for."""
NEVER_STARTED_US: Final = 50_000
TICKS: Final = (
    (10_000, Settings()),
    *[(50_000, Settings(heartbeat_ticks=2, election_ticks_min=8, election_ticks_max=12))] * 4,
)
"""Length of a tick in us, and how many make a heartbeat and an election: the times are the same, ticks cost most."""
LARGE_BYTES: Final = (16 << 10, 16 << 10, 200, 0)
"""From when on a follower acknowledges before it applies: never, as entries are small here; at several; always."""
DRIFT: Final = 0.01
LEASE_DRIFT: Final = 0.05
"""How much faster or slower than time a machine's ticks may be: with leases, so that two differ by nearly 1/9, and a
lease stands 1/7."""


class Conditions(NamedTuple):
    """What a run is like where chance is not to decide it. Times in us."""

    nodes: int | None = None
    faults: tuple[str, ...] = ()
    fault_mean_us: int | None = None
    pause_us: int | None = None
    check_quorum: bool | None = None
    lease: bool | None = None
    readers: int = 0
    """Clients more than there would be, who only read."""
    patient: tuple[str, ...] = ()
    """Nodes whose election timeout is twice that of the others."""


ANY: Final = Conditions()


class World:
    """Everything of one run."""

    def __init__(self, seed: int, conditions: Conditions = ANY) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.clock = VirtualClock()
        self.rules = Rules()
        self.ledger = Ledger(Random(random.random()))
        self.counts: Counter[str] = Counter()
        self.hosts: dict[str, Host] = {}
        self.configuration = Configuration(())
        """The newest that any node has applied."""
        self._configuration_index = -1
        self._events: deque[tuple[int, str, tuple[object, ...]]] = deque(maxlen=TRACED)
        self._is_changing = False
        self._has_faults = False
        self._healed: list[Host] = []
        """Where clients go while liveness is asked for: they have found out who is well, and hurry."""
        self._sent_before = 0
        self.tick_us, ticks = TICKS[0] if conditions.lease else random.choice(TICKS)
        self.outcome_timeout_ms = 50 * ticks.election_ticks_max
        """In ticks of 10 ms, which the driver counts: five seconds."""
        self.settings = self._settings(ticks, conditions)
        self.patient = conditions.patient
        self.drift = LEASE_DRIFT if self.settings.read_lease else DRIFT
        self.snapshot_every_entries = random.choice((60, 200, 200, 1_000))
        self.large_bytes = LARGE_BYTES[seed % len(LARGE_BYTES)]
        self.weather = random.choice(
            (Weather(), Weather(), Weather(500, 20_000), Weather(300, 3_000, 0.01, 0.01, 0.05))
        )
        self.network = Network(self.clock, Random(random.random()), self.weather)
        some_kinds = random.sample(list(FAULTS), random.randrange(3, len(FAULTS)))
        self.fault_kinds = list(conditions.faults) or some_kinds
        self.fault_mean_us = conditions.fault_mean_us or random.choice((1_000_000, 3_000_000, 10_000_000, 20_000_000))
        count = conditions.nodes or random.choice((1, 2, 3, 3, 3, 3, 4, 5, 5))
        self._founding = Configuration(tuple(self.add_host().name for _ in range(count)))
        self.configuration = self._founding
        self._burst_share = random.choice((0.0, 0.0, 0.02, 0.1))
        """Of the faults, those around which clients ask as often as they can: it is then that answers may be wrong."""
        self.clients: list[Client] = []
        self._usual_pause_us = conditions.pause_us or random.choice((500_000, 2_000_000, 5_000_000, 10_000_000))
        for number in range(1, random.randrange(3, 6)):
            self._add_client(only_reads=number > 1 and random.random() < 0.4)
        for _ in range(conditions.readers):
            self._add_client(only_reads=True)
        self._watch()
        for host in self.hosts.values():
            host.was_member = True
            host.start()

    def _settings(self, ticks: Settings, conditions: Conditions) -> Settings:
        random = self.random
        # With the shipped ticks only, so that a lease is as long as theirs.
        may_lease = self.tick_us == TICKS[0][0] and conditions.check_quorum is not False
        leases = may_lease and (random.random() < 0.4 if conditions.lease is None else conditions.lease)
        return ticks._replace(
            pre_vote=random.random() < 0.9,
            check_quorum=leases
            or (random.random() < 0.9 if conditions.check_quorum is None else conditions.check_quorum),
            append_bytes_max=random.choice((1 << 20, 300, 1)),
            inflight_messages_max=random.choice((256, 4)),
            coalesce_bytes=random.choice((64 << 10, 64 << 10, 300, 0)),
            memory_bytes_max=random.choice((32 << 20, 2_000)),
            read_lease=leases,
        )

    # ---- what it is made of

    def trace(self, text: str, *details: object) -> None:
        """Note an event."""
        self._events.append((self.clock.now_us, text, details))

    def events(self) -> list[str]:
        """Return the newest events as text."""
        return [f"{now_us / SECOND_US:12.6f}  {text % details}" for now_us, text, details in self._events]

    def count(self, what: str) -> None:
        """Count an event."""
        self.counts[what] += 1

    def add_host(self) -> Host:
        """Add a machine that was never used."""
        name = f"n{len(self.hosts) + 1}"
        host = self.hosts[name] = Host(name, self, Random(self.random.random()))
        self.rules.disks[name] = host.durable
        return host

    def _add_client(self, *, only_reads: bool) -> None:
        name, chance = f"c{len(self.clients) + 1}", Random(self.random.random())
        client = Client(name, self.clock, chance, self.ledger, self._doors, self._usual_pause_us, only_reads=only_reads)
        self.clients.append(client)

    def founding_for(self, name: str) -> Configuration:
        """Return the members that a node begins with when its disk does not say."""
        return self._founding if name in self._founding.voters else self.configuration

    @property
    def founders(self) -> tuple[str, ...]:
        """Names of the first members."""
        return self._founding.voters

    def members(self) -> list[Host]:
        """Return the machines that belong to the cluster, by the newest configuration."""
        return [self.hosts[name] for name in self.configuration.members]

    def leader(self) -> Host | None:
        """Return a running node that considers itself the leader, of the highest term."""
        leaders = [
            (host.process.node.term, host.name)
            for host in self.hosts.values()
            if host.process is not None and host.process.is_up and host.process.node.raft.role is Role.LEADER
        ]
        return self.hosts[max(leaders)[1]] if leaders else None

    def configuration_applied(self, name: str, index: int, configuration: Configuration) -> None:
        """Learn the members that a node has applied at an index."""
        if index > self._configuration_index:
            self._configuration_index = index
            self.configuration = configuration
            self.trace("%s applies the members %s", name, configuration)
            for known in self.hosts.values():
                if known.name in configuration.members:
                    known.was_member = True
                elif known.was_member:
                    self.clock.after(self.random.randrange(5 * SECOND_US), self._retire, known.name)

    def _retire(self, name: str) -> None:
        """Take a removed member away once a majority of the others knows that it is removed, as an operator has to."""
        if name in self.configuration.members or self.hosts[name].is_retired:
            return
        voters = self.configuration.voters
        if sum(map(self._has_members, voters)) * 2 > len(voters):
            self.trace("%s is taken away", name)
            self.hosts[name].retire()
        else:
            self.clock.after(SECOND_US, self._retire, name)

    def _has_members(self, name: str, if_down: bool = False) -> bool:
        """Tell whether a node has applied the newest configuration."""
        process = self.hosts[name].process
        if process is None or not process.is_up:
            return if_down
        return process.node.applied_index >= self._configuration_index

    def _doors(self) -> list[Door]:
        return [host for host in self._healed or self.hosts.values() if not host.is_retired]

    # ---- what faults need

    def clear_up(self) -> None:
        """End a storm."""
        self.network.weather = self.weather

    def _doubtful(self) -> int:
        """Return how many members have lost bytes that they had, and are not whole again."""
        return sum(
            host.is_damaged or host.durable.is_doubtful or (host.process is not None and host.process.is_quarantined)
            for host in self.members()
        )

    def may_lose_bytes(self) -> Host | None:
        """Return a voter that may lose durable bytes: fewer than half are in doubt then, and nobody comes or goes.

        The others have to know who the members are: those that do not would ask it for its vote for ever.
        """
        configuration = self.configuration
        if configuration.is_joint or self._is_changing:
            return None
        if len(configuration.voters) - self._doubtful() - 1 <= len(configuration.voters) // 2:
            return None
        host = self.hosts[self.random.choice(configuration.voters)]
        if not all(self._has_members(name, if_down=True) for name in configuration.voters if name != host.name):
            return None
        return host if host.must_have_log and not host.is_damaged else None

    def may_change_members(self) -> bool:
        """Tell whether members may change: not while another change runs, or one of them is in doubt."""
        return not self._is_changing and not self.configuration.is_joint and not self._doubtful()

    def new_member(self) -> str:
        """Return the name of a machine that was never a member, or may become one again."""
        for host in self.hosts.values():
            if not host.was_member and not host.is_retired:
                return host.name
        return self.add_host().name

    def change(self, leader: Host, changes: Sequence[Change]) -> None:
        """Ask the leader to change the members."""
        process = leader.process
        assert process is not None
        self._is_changing = True
        self.trace("%s is asked for %s", leader.name, changes)
        for change in changes:
            if change.kind is ChangeKind.ADD_LEARNER:
                self.hosts[change.name].start()
        leader.enter(process, process.node.change, changes, self._changed)
        # The leader may fall before it tells how it went.
        self.clock.after(20 * SECOND_US, self._changed, None)

    def _changed(self, error: Exception | None) -> None:
        self._is_changing = False
        if error is not None:
            self.trace("the change of members failed: %s", error)

    def transfer(self, leader: Host, to: str) -> None:
        """Ask the leader to hand over."""
        process = leader.process
        assert process is not None

        def ask() -> None:
            try:
                process.node.transfer(to)
            except (ValueError, ReplicationError) as error:
                self.trace("%s does not hand over: %s", leader.name, error)

        leader.enter(process, ask)

    # ---- running

    def run(self, virtual_seconds: float) -> None:
        """Run cycles until so much virtual time has gone by. Raises what broke."""
        end_us = self.clock.now_us + int(virtual_seconds * SECOND_US)
        garbage = Garbage()
        while self.clock.now_us < end_us:
            self._safety(self.random.randrange(20, 90))
            if self.random.random() < 0.5:
                self._core()
            self._liveness()
            garbage.after(sum(host.incarnation for host in self.hosts.values()))

    def _safety(self, seconds: int) -> None:
        self.trace("-- anything may fail: %s", ", ".join(self.fault_kinds))
        self._healed = []
        self._hurry(0)
        self._has_faults = True
        self._next_fault()
        self.clock.run_until(self.clock.now_us + seconds * SECOND_US)
        self._has_faults = False

    def _next_fault(self) -> None:
        self.clock.after(1 + int(self.random.expovariate(1 / self.fault_mean_us)), self._fault)

    def _fault(self) -> None:
        if not self._has_faults:
            return
        kind = self.random.choice(self.fault_kinds)
        if FAULTS[kind](self):
            self.counts[kind] += 1
            self.trace("fault: %s", kind)
            if self.random.random() < self._burst_share:
                self._hurry(BURST_PAUSE_US)
                self.clock.after(BURST_US, self._calm)
        self._next_fault()

    def _hurry(self, pause_us: int) -> None:
        for client in self.clients:
            client.hurry(pause_us)

    def _calm(self) -> None:
        """End a burst, unless liveness is asked for meanwhile."""
        if self._has_faults:
            self._hurry(0)

    def _watch(self) -> None:
        """See that nodes do not talk without end."""
        sent, self._sent_before = self.network.sent - self._sent_before, self.network.sent
        if sent > MESSAGES_MAX * WATCH_SECONDS:
            raise RuleBroken("livelock", f"{sent} messages in {WATCH_SECONDS} s; {self._standing()}")
        self.clock.after(WATCH_SECONDS * SECOND_US, self._watch)

    def _heal(self, hosts: list[Host]) -> None:
        self._healed = hosts
        self._hurry(HEALED_PAUSE_US)
        self.network.heal()
        self.clear_up()
        for host in hosts:
            host.disk.mend()
            host.disk_factor = 1
            host.crash_point = None
            host.resume()
            if not host.is_running:
                host.start_later(self.random.randrange(NEVER_STARTED_US))

    def _core(self) -> None:
        """Let a majority heal that nobody in it is in doubt of, and the others be cut off."""
        configuration = self.configuration
        if configuration.is_joint:
            return
        sound = [name for name in configuration.voters if self.hosts[name].is_sound]
        majority = len(configuration.voters) // 2 + 1
        if len(sound) < majority:
            return
        core = self.random.sample(sound, majority)
        self.trace("-- a core heals: %s", ", ".join(core))
        self._heal([self.hosts[name] for name in core])
        for host in self.hosts.values():
            if host.name not in core:
                for name in core:
                    self.network.cut(host.name, name)
                    self.network.cut(name, host.name)
        written = self.ledger.answered_writes

        def has_written() -> bool:
            return self.ledger.answered_writes > written or not self._is_enough(core)

        self._until(CORE_SECONDS, has_written, "a core of a majority takes no write")

    def _is_enough(self, core: Sequence[str]) -> bool:
        """Tell whether a core is a majority of every configuration it has to do with.

        A change of members that was under way may be done meanwhile, and ask for more than this majority. So may one
        whose end only a member knows that the core is cut off from: the core has the joint configuration until then.
        """
        processes = [self.hosts[name].process for name in core]
        known = [process.node.raft.configuration for process in processes if process is not None and process.is_up]
        return all(is_granted(some.voters, core, some.outgoing) for some in (self.configuration, *known))

    def _liveness(self) -> None:
        self.trace("-- everything heals")
        self._heal(self.members())
        written = self.ledger.answered_writes
        self._until(CORE_SECONDS, lambda: self.ledger.answered_writes > written, "the healed cluster takes no write")
        for client in self.clients:
            client.is_closing = True
        self.ledger.close_all()
        self._until(HEAL_SECONDS, self._has_converged, "the healed cluster does not converge")
        self._compare()
        for client in self.clients:
            client.is_closing = False

    def _until(self, seconds: int, holds: Callable[[], bool], complaint: str) -> None:
        deadline_us = self.clock.now_us + seconds * SECOND_US
        while not holds():
            if self.clock.now_us >= deadline_us:
                raise RuleBroken("liveness", f"{complaint} within {seconds} s; {self._standing()}")
            self.clock.run_until(self.clock.now_us + 100_000)

    def _standing(self) -> str:
        lines = []
        for host in self.hosts.values():
            process = host.process
            if process is None or not process.is_up:
                lines.append(f"{host.name} off" + (" retired" if host.is_retired else ""))
                continue
            node, raft = process.node, process.node.raft
            lines.append(
                f"{host.name} {raft.role.value} of term {raft.term}, leader {raft.leader}, applied {node.applied_index}"
                f" committed {node.commit_index} last {node.last_index}"
                + (" quarantined" if raft.is_quarantined else "")
                + (" restoring" if node.is_restoring else "")
            )
        settled = "settled" if self.ledger.is_settled else "not settled"
        return f"members {self.configuration}; histories {settled};\n  " + "\n  ".join(lines)

    def _has_converged(self) -> bool:
        leader = self.leader()
        if leader is None or leader.process is None or not self.ledger.is_settled or self.configuration.is_joint:
            return False
        node = leader.process.node
        for host in self.members():
            process = host.process
            if process is None or not process.is_up or process.is_quarantined or process.node.leader_id != leader.name:
                return False
            if process.node.applied_index != node.last_index or process.node.is_restoring:
                return False
        return True

    def _compare(self) -> None:
        """Compare the whole states of all members, which are at one index."""
        for host in self.members():
            assert host.process is not None
            machine = host.process.state.machine
            self.rules.state(host.name, -machine.index, digest_of(machine.databases, machine.clock.stamp_ms))
        self.count("convergences")
