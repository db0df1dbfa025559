"""maxmemory: who gives way, what is refused, and that it all goes through the log."""

from __future__ import annotations

from itertools import count

import pytest

from kvservice.commands.reply import OK, ErrorReply
from kvservice.errors import Loading
from kvservice.gateway.resp import decode_commands
from kvservice.memory_limit import SLICE_VICTIMS
from tests.kvservice.fake_node import Bench, Peer

VALUE = "v" * 400


def full_bench(policy: str, keys: int = 200, room_keys: int = 20) -> tuple[Bench, Peer]:
    """A node with keys k0…, each second one with a deadline, and a limit that lets about ``room_keys`` more in."""
    bench = Bench(maxmemory_policy=policy)
    peer = bench.peer()
    for number in range(keys):
        assert bench.run(peer, f"SET k{number} {VALUE}" + (" EX 1000" if number % 2 else "")) == [OK]
    bench.limit.refresh()
    used = used_bytes(bench)
    assert bench.run(peer, f"CONFIG SET maxmemory {used + room_keys * used // keys}") == [OK]
    return bench, peer


def used_bytes(bench: Bench) -> int:
    return sum(database.bytes_used for database in bench.machine.databases) + bench.machine.memory.overhead_bytes


def unlinked(bench: Bench) -> list[bytes]:
    """Return every key that an entry of the log unlinks."""
    commands = [command for payload in bench.payloads() for command in decode_commands(payload)]
    return [command[1] for command in commands if command[0] == b"UNLINK"]


def test_with_noeviction_a_write_that_needs_memory_is_refused_in_redis_words() -> None:
    bench, peer = full_bench("noeviction")
    replies = [bench.run(peer, f"SET n{number} {VALUE}")[0] for number in range(40)]
    refused = [reply for reply in replies if isinstance(reply, ErrorReply)]
    assert replies[0] == OK
    assert 10 < len(refused) < 40
    assert refused[0].text == b"OOM command not allowed when used memory > 'maxmemory'."
    assert bench.stats.evicted_keys == 0
    entries = len(bench.node.log)
    assert isinstance(bench.run(peer, "INCR n")[0], ErrorReply)
    assert len(bench.node.log) == entries


def test_a_full_node_still_reads_and_deletes() -> None:
    bench, peer = full_bench("noeviction", room_keys=0)
    bench.run(peer, f"SET over {VALUE}")
    assert isinstance(bench.run(peer, f"SET more {VALUE}")[0], ErrorReply)
    assert bench.run(peer, "GET k0", "EXISTS k1", "DEL k0 k1 k2", "EXPIRE k3 5") == [VALUE.encode(), 1, 3, 1]
    assert bench.run(peer, f"SET more {VALUE}") == [OK]


def test_refused_writes_in_one_chunk_keep_their_place() -> None:
    bench, peer = full_bench("noeviction", room_keys=0)
    bench.run(peer, f"SET over {VALUE}")
    [read, refused, deleted] = bench.run(peer, "GET k0", f"SET x {VALUE}", "DEL k0")
    assert (read, deleted) == (VALUE.encode(), 1)
    assert isinstance(refused, ErrorReply)


@pytest.mark.parametrize(
    "policy",
    ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"],
)
def test_every_policy_makes_room_through_the_log(policy: str) -> None:
    bench, peer = full_bench(policy)
    for number in range(80):
        assert bench.run(peer, f"SET n{number} {VALUE}") == [OK], number
    gone = unlinked(bench)
    assert len(gone) == len(set(gone)) == bench.stats.evicted_keys > 30
    assert used_bytes(bench) <= bench.config.maxmemory + 2 * len(VALUE) + 1000
    if policy.startswith("volatile"):
        assert all(int(key[1:]) % 2 and key.startswith(b"k") for key in gone)
    assert bench.machine.databases[0].key_count == 280 - len(gone)


def test_volatile_policies_refuse_when_only_keys_without_a_deadline_are_left() -> None:
    bench, peer = full_bench("volatile-lru", room_keys=0)
    replies = [bench.run(peer, f"SET n{number} {VALUE}")[0] for number in range(130)]
    assert replies[0] == OK
    assert isinstance(replies[-1], ErrorReply)
    assert bench.machine.databases[0].expiry_count == 0
    assert bench.run(peer, "EXISTS k0 k2 k4") == [3]


def test_evictions_stand_in_the_log_before_the_write_that_needs_the_room() -> None:
    bench, peer = full_bench("allkeys-random", room_keys=0)
    bench.run(peer, f"SET a {VALUE}")
    bench.send(peer, f"SET b {VALUE}")
    bench.turn()
    names = [command[0] for command in decode_commands(bench.payloads()[-1])]
    assert names[0] == b"UNLINK"
    assert names[-1] == b"SET"


def test_a_write_may_pass_while_victims_are_on_their_way_out() -> None:
    bench, peer = full_bench("allkeys-random", room_keys=0)
    bench.run(peer, f"SET a {VALUE}")
    bench.send(peer, f"SET b {VALUE}")
    bench.turn()
    bench.send(peer, f"SET c {VALUE}")
    bench.turn()
    bench.commit()
    bench.turn()
    bench.commit()
    assert peer.taken() == [OK, OK]


def test_keys_of_all_databases_give_way() -> None:
    bench, peer = full_bench("allkeys-random", keys=60, room_keys=0)
    bench.run(peer, "SELECT 2", *(f"SET j{number} {VALUE}" for number in range(60)), "SELECT 0")
    for number in range(60):
        bench.run(peer, f"SET n{number} {VALUE}")
    gone = unlinked(bench)
    assert {key[:1] for key in gone} >= {b"k", b"j"}
    assert bench.stats.evicted_keys == len(gone)


def test_lru_keeps_what_is_read() -> None:
    bench, peer = full_bench("allkeys-lru")
    for number in range(80):
        bench.run(peer, *(f"GET k{hot}" for hot in range(20)))
        bench.run(peer, f"SET n{number} {VALUE}")
    gone = set(unlinked(bench))
    kept = sum(f"k{hot}".encode() not in gone for hot in range(20))
    assert kept >= 15, "at 5 samples an lru of one resolution step still spares most hot keys"


def test_without_a_limit_nothing_is_counted_or_evicted() -> None:
    bench = Bench()
    peer = bench.peer()
    for number in range(50):
        assert bench.run(peer, f"SET n{number} {VALUE}") == [OK]
    assert (bench.stats.evicted_keys, unlinked(bench)) == (0, [])


def test_a_limit_that_is_lifted_lets_writes_through_at_once() -> None:
    bench, peer = full_bench("noeviction", room_keys=0)
    bench.run(peer, f"SET over {VALUE}")
    assert isinstance(bench.run(peer, f"SET more {VALUE}")[0], ErrorReply)
    assert bench.run(peer, "CONFIG SET maxmemory 0", f"SET more {VALUE}") == [OK, OK]


def test_evictions_that_were_not_proposed_count_for_nothing() -> None:
    bench, peer = full_bench("allkeys-random", room_keys=0)
    bench.run(peer, f"SET a {VALUE}")
    evicted = bench.stats.evicted_keys
    bench.node.is_stopped = True
    [refused] = bench.run(peer, f"SET b {VALUE}")
    assert isinstance(refused, ErrorReply)
    assert bench.stats.evicted_keys == evicted
    bench.node.is_stopped = False
    assert bench.run(peer, f"SET b {VALUE}") == [OK]
    assert bench.stats.evicted_keys > evicted


def test_the_choice_of_victims_is_an_event_of_the_latency_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, peer = full_bench("allkeys-random", room_keys=0)
    bench.run(peer, "CONFIG SET latency-monitor-threshold 20")
    moments = count(0.0, 0.025)
    monkeypatch.setattr("kvservice.memory_limit.perf_counter", lambda: next(moments))
    for name in ("n", "m", "o"):
        assert bench.run(peer, f"SET {name} {VALUE}") == [OK]
    assert bench.stats.evicted_keys > 0
    assert bench.stats.latency.events["eviction-cycle"].max_ms == 25


def test_the_time_above_the_limit_is_counted_until_memory_is_below(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, peer = full_bench("noeviction", room_keys=0)
    stats, now_s = bench.stats, 100.0
    monkeypatch.setattr("kvservice.memory_limit.perf_counter", lambda: now_s)
    bench.limit.refresh()
    assert (stats.over_limit_ms, stats.over_limit_now_ms) == (0, 0)
    bench.run(peer, f"SET over {VALUE}")
    bench.limit.refresh()
    now_s += 0.75
    bench.limit.refresh()
    assert (stats.over_limit_ms, stats.over_limit_now_ms) == (0, 750)
    bench.run(peer, "DEL over k0 k1")
    bench.limit.refresh()
    now_s += 5
    bench.limit.refresh()
    assert (stats.over_limit_ms, stats.over_limit_now_ms) == (750, 0)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
def test_memory_falls_below_a_lowered_limit_without_a_write_that_asks(policy: str) -> None:
    bench, peer = full_bench("noeviction", keys=6 * SLICE_VICTIMS)
    limit = used_bytes(bench) - 2 * SLICE_VICTIMS * (len(VALUE) + 100)
    assert bench.run(peer, f"CONFIG SET maxmemory {limit}", f"CONFIG SET maxmemory-policy {policy}") == [OK, OK]
    for _ in range(10):
        bench.limit.tick()
        bench.turn()
        bench.commit()
    assert used_bytes(bench) > limit * 0.9
    assert used_bytes(bench) <= limit
    entries = [command for payload in bench.payloads() for command in decode_commands(payload)]
    assert sum(command[0] == b"UNLINK" for command in entries) == bench.stats.evicted_keys > SLICE_VICTIMS


def test_a_slice_follows_when_the_one_before_is_applied() -> None:
    bench, peer = full_bench("noeviction", keys=6 * SLICE_VICTIMS)
    bench.run(peer, f"CONFIG SET maxmemory {used_bytes(bench) // 2}", "CONFIG SET maxmemory-policy allkeys-random")
    bench.limit.tick()
    bench.turn()
    bench.limit.tick()
    bench.turn()
    assert len(unlinked(bench)) == SLICE_VICTIMS, "one slice at a time is on its way"
    bench.commit()
    _seconds, again = bench.timers.pop()
    again()
    bench.turn()
    assert len(unlinked(bench)) == 2 * SLICE_VICTIMS


def far_above(keys: int = 12) -> tuple[Bench, Peer]:
    """A node with ``keys`` slices of keys more than its limit lets in, none of which is on its way out yet."""
    bench, peer = full_bench("noeviction", keys=keys * SLICE_VICTIMS)
    bench.run(peer, f"CONFIG SET maxmemory {used_bytes(bench) // 4}", "CONFIG SET maxmemory-policy allkeys-lru")
    return bench, peer


def test_writes_far_above_the_limit_wait_for_one_slice_and_for_twice_what_they_bring() -> None:
    bench, _peer = far_above()
    for at in range(30):
        bench.send(bench.peer(), f"SET new{at} {VALUE}")
    bench.turn()
    gone = len(unlinked(bench))
    assert SLICE_VICTIMS + 30 < gone <= SLICE_VICTIMS + 30 * 4


def test_memory_shrinks_however_much_is_written_above_the_limit() -> None:
    bench, peer = far_above(24)
    used = [used_bytes(bench)]
    for turn in range(4):
        # No tick between: the writes alone make room.
        bench.run(peer, *(f"SET new{turn}:{at} {VALUE}" for at in range(3 * SLICE_VICTIMS)))
        used.append(used_bytes(bench))
    assert used == sorted(used, reverse=True)


def test_a_long_value_evicts_what_it_needs_at_once() -> None:
    bench, peer = far_above()
    bench.run(peer, f"SET long {'v' * 100_000}")
    assert len(unlinked(bench)) > 2 * 100_000 // 600


def test_a_follower_leaves_eviction_to_its_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, peer = full_bench("allkeys-random")
    asked: list[object] = []
    monkeypatch.setattr(bench.limit, "make_room", lambda *commands: asked.append(commands))
    bench.lead("n2", 5)
    bench.limit.tick()
    bench.run(peer, "CONFIG SET maxmemory 1000000")
    assert asked == []
    bench.lead("n1", 6, is_leader=True)
    bench.limit.tick()
    assert asked == [()]


@pytest.mark.parametrize("policy", ["allkeys-random", "noeviction"])
def test_nothing_is_evicted_or_refused_by_the_keys_that_a_snapshot_is_about_to_replace(policy: str) -> None:
    bench, peer = full_bench(policy, room_keys=0)
    bench.run(peer, f"SET over {VALUE}")
    bench.lead(None, 5)
    bench.send(peer, f"SET waits {VALUE}")
    # It loads the snapshot of a leader that is gone, and comes to lead before that is done.
    bench.node.is_restoring, bench.service.refusal = True, Loading()
    bench.lead("n1", 6, is_leader=True)
    bench.limit.tick()
    bench.turn()
    assert (unlinked(bench), len(bench.node.queued)) == ([], 1)
    bench.node.is_restoring, bench.service.refusal = False, None
    bench.commit()
    assert peer.taken() == [OK]
    bench.run(peer, f"SET next {VALUE}")
    assert bool(unlinked(bench)) is (policy == "allkeys-random")


def test_a_limit_that_comes_with_its_policy_evicts_by_that_policy_at_once() -> None:
    bench, peer = full_bench("noeviction")
    half = used_bytes(bench) // 2
    assert bench.run(peer, f"CONFIG SET maxmemory {half} maxmemory-policy volatile-ttl") == [OK]
    gone = unlinked(bench)
    assert gone
    assert {int(key[1:]) % 2 for key in gone} == {1}, "every second key has a deadline"
