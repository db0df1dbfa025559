"""What a tick does: time that has to move, keys that are due, work of others, idle connections."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from kvservice.gateway.listener import Listener
from kvservice.housekeeping import EXPIRE_KEYS, TICK_SECONDS, Housekeeping
from persistence.wal_stats import WalStats
from replication.core.messages import EntryKind
from tests.kvservice.fake_node import START_MS, Bench


class FakeLoop:
    """Timers that come due when a test says so."""

    def __init__(self, bench: Bench) -> None:
        self.call_soon = bench.soon.append
        self.timers: list[FakeTimer] = []
        self.now_s = 100.0

    def time(self) -> float:
        return self.now_s

    def call_later(self, _seconds: float, act: object) -> FakeTimer:
        self.timers.append(FakeTimer(act))
        return self.timers[-1]


class FakeTimer:
    """A timer that may be cancelled."""

    def __init__(self, act: object) -> None:
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeListener:
    """Counts how often idle connections were looked for."""

    def __init__(self) -> None:
        self.looks = 0

    def close_idle(self, _now_s: float) -> None:
        self.looks += 1


class Ticker:
    """Housekeeping of a service whose clocks a test moves together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = Bench()
        self.loop = FakeLoop(self.bench)
        self.listener = FakeListener()
        self.housekeeping = Housekeeping(
            self.bench.service, cast(Listener, self.listener), cast(asyncio.AbstractEventLoop, self.loop)
        )
        self.now_ms = START_MS
        for module in ("housekeeping", "runner", "memory_limit"):
            monkeypatch.setattr(f"kvservice.{module}.time_ns", lambda: self.now_ms * 1_000_000)
        self.housekeeping.start()

    def tick(self, pass_ms: int = 100) -> None:
        """Let time pass and one tick come."""
        self.now_ms += pass_ms
        self.bench.node.now_ms = max(self.bench.node.now_ms, self.now_ms)
        self.loop.now_s += TICK_SECONDS
        act = self.loop.timers.pop().act
        assert callable(act)
        act()

    def settle(self) -> None:
        """Let everything happen that a tick has asked for."""
        self.bench.turn()
        self.bench.commit()


@pytest.fixture
def ticker(monkeypatch: pytest.MonkeyPatch) -> Ticker:
    return Ticker(monkeypatch)


def test_a_deadline_that_passes_moves_time_through_the_log_and_the_key_goes(ticker: Ticker) -> None:
    bench = ticker.bench
    bench.run(bench.peer(), "SET k v PX 250", "SET j v")
    ticker.tick()
    ticker.tick()
    ticker.settle()
    assert len(bench.node.log) == 1, "nothing is due yet"
    for _ in range(3):
        ticker.tick()
        ticker.settle()
    assert bench.node.log[-1].kind == EntryKind.NOOP
    ticker.tick()
    assert bench.machine.databases[0].key_count == 1
    assert bench.stats.expired_keys == 1
    entries = len(bench.node.log)
    for _ in range(10):
        ticker.tick()
        ticker.settle()
    assert len(bench.node.log) == entries, "a node with nothing to expire is quiet"


def test_without_the_log_no_key_goes_whatever_the_wall_clock_says(ticker: Ticker) -> None:
    bench = ticker.bench
    bench.run(bench.peer(), "SET k v PX 250")
    for _ in range(20):
        ticker.tick()
        bench.turn()
    assert bench.machine.databases[0].key_count == 1
    assert bench.stats.expired_keys == 0


def test_many_keys_that_are_due_at_once_go_in_slices(ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ticker.bench
    count = 5 * EXPIRE_KEYS
    bench.run(bench.peer(), *(f"SET k{number} v PX 100" for number in range(count)))
    monkeypatch.setattr("kvservice.housekeeping.EXPIRE_SECONDS", 0.0)
    for _ in range(4):
        ticker.tick()
        bench.commit()
        if bench.machine.clock.stamp_ms < START_MS + 100 or bench.soon:
            for _ in range(len(bench.soon)):
                bench.soon.popleft()()
        bench.commit()
    removed = count - bench.machine.databases[0].key_count
    assert 0 < removed < count
    assert bench.stats.expire_cuts > 0
    bench.turn()
    assert bench.machine.databases[0].key_count == 0
    assert bench.stats.expire_nanoseconds > 0
    assert bench.stats.expired_keys == count


@pytest.mark.parametrize("reason", ["pause", "debug", "loading"])
def test_nothing_expires_while_something_forbids_it(ticker: Ticker, reason: str) -> None:
    bench = ticker.bench
    bench.run(bench.peer(), "SET k v PX 100")
    if reason == "pause":
        bench.service.holds.is_paused = True
    elif reason == "debug":
        bench.stats.is_expiring_actively = False
    else:
        bench.service.drain()
    for _ in range(5):
        ticker.tick()
        ticker.settle()
    assert len(bench.node.log) == 1
    assert bench.machine.databases[0].key_count == 1


def test_nothing_happens_by_itself_while_debug_has_paused_it(ticker: Ticker) -> None:
    bench = ticker.bench
    calls: list[str] = []
    ticker.housekeeping.each_tick.append(lambda: calls.append("a"))
    bench.run(bench.peer(), "SET k v PX 100")
    bench.stats.is_cron_paused = True
    for _ in range(20):
        ticker.tick()
        ticker.settle()
    assert (calls, ticker.listener.looks, bench.machine.databases[0].key_count) == ([], 0, 1)
    bench.stats.is_cron_paused = False
    for _ in range(5):
        ticker.tick()
        ticker.settle()
    assert calls == ["a"] * 5
    assert bench.machine.databases[0].key_count == 0


def test_others_are_called_each_tick_and_idle_connections_looked_for_each_tenth(ticker: Ticker) -> None:
    calls: list[str] = []
    ticker.housekeeping.each_tick += [lambda: calls.append("a"), lambda: calls.append("b")]
    for _ in range(20):
        ticker.tick()
    assert calls == ["a", "b"] * 20
    assert ticker.listener.looks == 2


def test_the_longest_sync_since_the_last_tick_is_noted_for_latency(ticker: Ticker) -> None:
    bench = ticker.bench
    wal = WalStats()
    bench.service.wal_stats = wal
    bench.run(bench.peer(), "CONFIG SET latency-monitor-threshold 100")
    for seconds in (0.150, 0.300, 0.001):
        wal.count_sync(seconds)
    ticker.tick()
    ticker.tick()
    assert [sample.milliseconds for sample in bench.stats.latency.events["aof-fsync-always"].samples] == [300]


def test_after_stop_no_tick_is_due(ticker: Ticker) -> None:
    ticker.tick()
    ticker.housekeeping.stop()
    assert [timer.is_cancelled for timer in ticker.loop.timers] == [True]


def test_stop_before_start_is_harmless() -> None:
    bench = Bench()
    loop = cast(asyncio.AbstractEventLoop, FakeLoop(bench))
    Housekeeping(bench.service, cast(Listener, FakeListener()), loop).stop()


def test_a_key_that_is_due_is_saved_for_a_running_snapshot_before_it_goes(ticker: Ticker) -> None:
    bench = ticker.bench
    bench.run(bench.peer(), "SET k v PX 100")
    saved: list[int] = []

    class Saver:
        def save_before(self, slot: int) -> None:
            saved.append(slot)

    bench.machine.snapshot = Saver()
    for _ in range(5):
        ticker.tick()
        ticker.settle()
    assert bench.machine.databases[0].key_count == 0
    assert len(saved) == 1
