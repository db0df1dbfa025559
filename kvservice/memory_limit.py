"""maxmemory: which keys go before a write that needs memory is proposed, and when it is refused instead.

Guarantees: decided here, on the leader, before proposing; what is evicted goes through the log as UNLINK, so that every
node evicts the same. A write is refused only if nothing may be evicted and nothing is on its way out.
Leaves to the caller: asking before each group of writes that may need memory (service).
Bounds: writes that are proposed and not yet applied are not counted yet: the limit is overrun by at most those. A limit
that memory is far above, as after CONFIG SET, is reached in slices of SLICE_VICTIMS; a write evicts a slice as well, or
twice its own size if that is more, up to VICTIMS_MAX. A node that comes to lead while it loads a received snapshot lets
in what its callers sent before: the keys that it still has say nothing of those that come.
Reference: Redis ``evict.c``, performEvictions and maxmemory-eviction-tenacity.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from itertools import chain
from time import perf_counter, time_ns
from typing import Final

from kvservice.batch import Call
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args
from kvservice.keyspace.eviction import NOT_USE, VICTIMS_MAX, Evictor, Victim
from kvservice.service import Service
from kvservice.session import Session

SLICE_VICTIMS: Final = 128
"""Keys that go at one time: about 5 ms. What is left to go follows slice by slice, between the turns of others."""
TIMES_COMING: Final = 2
COMMAND_BYTES: Final = 100
"""What a write costs besides its bytes: objects and an entry of a dict."""
POLICY_FIELDS: Final = frozenset({"maxmemory_policy", "maxmemory_samples", "lfu_log_factor", "lfu_decay_time"})


class EvictionSession(Session):
    """The caller of evictions: the node itself."""

    kind = "internal"

    def __init__(self, limit: MemoryLimit) -> None:
        super().__init__(0, "", "", 0.0)
        self._limit = limit

    def deliver(self, replies: list[Reply]) -> None:
        """Count what is gone."""
        self._limit.evicted(sum(1 for reply in replies if reply == 1))

    def close(self, after_replies: bool = True) -> None:
        """Nobody is there to be told."""


class MemoryLimit:
    """maxmemory of one node."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._evictor = Evictor(service.machine.databases, random.Random().random)
        self._session = EvictionSession(self)
        self._leaving: deque[list[Victim]] = deque()
        """Victims on their way out, one list for each proposal, in the order they will be answered."""
        self._overhead_bytes = 0
        self._over_since_s: float | None = None
        """When memory was first seen above the limit; None while it is below."""
        self.refresh()
        self.config_changed(POLICY_FIELDS)
        service.make_room = self.make_room
        service.on_config_changed.append(self.config_changed)

    def refresh(self) -> None:
        """Take over the size of the slot dicts, and whether use is tracked; call ten times a second."""
        self._overhead_bytes = self._service.machine.memory.overhead_bytes
        self._count_time_above()
        self._evictor.drop_unasked(_now_ms())
        self._service.runner.touch = self._touch if self._evictor.is_tracking else None

    def tick(self) -> None:
        """Refresh, and go on evicting where no write comes to ask for it; call ten times a second."""
        self.refresh()
        self._shrink()

    def _shrink(self) -> None:
        """Evict a slice; the next follows when this one is applied."""
        service = self._service
        is_asked = service.config.maxmemory and not self._leaving and not service.holds.is_paused
        if is_asked and service.node.is_leader and service.refusal is None:
            self.make_room()

    def _count_time_above(self) -> None:
        stats, limit = self._service.stats, self._service.config.maxmemory
        if limit and self._service.machine.memory.used_bytes > limit:
            now_s = perf_counter()
            if self._over_since_s is None:
                self._over_since_s = now_s
            stats.over_limit_now_ms = int((now_s - self._over_since_s) * 1000)
        elif self._over_since_s is not None:
            self._over_since_s = None
            stats.over_limit_ms += stats.over_limit_now_ms
            stats.over_limit_now_ms = 0

    def config_changed(self, fields: frozenset[str]) -> None:
        """Take over the policy; a lower limit evicts at once, as in Redis."""
        config = self._service.config
        if fields & POLICY_FIELDS:
            self._evictor.configure(
                config.maxmemory_policy,
                config.maxmemory_samples,
                _now_ms(),
                config.lfu_log_factor,
                config.lfu_decay_time,
            )
            self._service.runner.touch = self._touch if self._evictor.is_tracking else None
        if "maxmemory" in fields:
            self._shrink()

    def make_room(self, commands: Sequence[Args] = ()) -> bool:
        """Evict a slice of what the limit demands, for ``commands`` that are about to be written.

        False if a write that needs memory must be refused.
        """
        service = self._service
        used = sum([database.bytes_used for database in service.machine.databases]) + self._overhead_bytes
        excess = used - self._evictor.leaving_bytes - service.config.maxmemory
        if excess <= 0 or service.node.is_restoring:
            return True
        started = perf_counter()
        victims = self._victims(excess, _bytes_of(commands))
        service.stats.latency.note("eviction-cycle", (perf_counter() - started) * 1000)
        if not victims:
            return bool(self._leaving)
        by_database: dict[int, list[Victim]] = {}
        for victim in victims:
            by_database.setdefault(victim[0], []).append(victim)
        for database, leaving in by_database.items():
            self._leaving.append(leaving)
            self._session.db = database
            service.propose(self._session, [[b"UNLINK", key] for _database, key in leaving])
        return True

    def _victims(self, excess: int, coming_bytes: int) -> list[Victim]:
        """Choose a slice of victims unless one is on its way, and as many more as free twice what is coming.

        So memory shrinks while it is above the limit, however fast it is written, and whoever writes little waits for
        little.
        """
        evictor, now_ms = self._evictor, _now_ms()
        before = evictor.leaving_bytes
        victims = [] if self._leaving else evictor.victims(excess, now_ms, SLICE_VICTIMS)
        wanted = min(excess, TIMES_COMING * coming_bytes) - (evictor.leaving_bytes - before)
        if wanted > 0:
            victims += evictor.victims(wanted, now_ms, VICTIMS_MAX - len(victims))
        return victims

    def evicted(self, count: int) -> None:
        """Note that the victims of the oldest proposal were deleted."""
        self._service.stats.evicted_keys += count
        self._evictor.settled(self._leaving.popleft())
        if count and not self._leaving:
            self._service.after(0.0, self._shrink)

    def _touch(self, call: Call) -> None:
        if call.session.no_touch:
            return
        now_ms = _now_ms()
        for row, args in zip(call.rows, call.commands, strict=True):
            if row.name.partition("|")[0] in NOT_USE:
                continue
            keys = row.keys_of(args)
            if keys:
                self._evictor.touch(call.db, keys, now_ms)


def _bytes_of(commands: Sequence[Args]) -> int:
    """Return about how much memory commands will need."""
    return sum(map(len, chain.from_iterable(commands))) + COMMAND_BYTES * len(commands)


def _now_ms() -> int:
    return time_ns() // 1_000_000
