"""Eviction takes what its policy says, approximately, and nothing twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kvservice.keyspace.access import LFU_START, MINUTE_MS, AccessTable
from kvservice.keyspace.eviction import VICTIMS_MAX, Evictor
from kvservice.keyspace.slots import SLOTS
from tests.harness.inprocess import START_MS, InProcess
from tests.harness.work import steps_of

LOTS = 1 << 40
POLICIES = (
    "allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu", "allkeys-random", "volatile-random", "volatile-ttl",
)  # fmt: skip


def evictor_of(ours: InProcess, policy: str, samples: int = 5) -> Evictor:
    evictor = Evictor(ours.databases, random.Random(7).random)
    evictor.configure(policy, samples, START_MS)
    return evictor


def evict(ours: InProcess, evictor: Evictor, count: int) -> list[bytes]:
    """Evict ``count`` keys, as the service does, and return them."""
    gone: list[bytes] = []
    while len(gone) < count:
        victims = evictor.victims(1, ours.clock.now_ms)
        assert len(victims) == 1
        (db, key) = victims[0]
        assert ours.databases[db].delete(key)
        evictor.settled(victims)
        gone.append(key)
    return gone


def fill(ours: InProcess, evictor: Evictor, count: int, *options: bytes) -> list[bytes]:
    """Store keys, each used 100 ms after the one before."""
    keys = [b"key:%d" % number for number in range(count)]
    for key in keys:
        ours.run(b"SET", key, b"value", *options)
        evictor.touch(0, [key], ours.clock.now_ms)
        ours.pass_ms(100)
    return keys


def test_noeviction_takes_nothing(ours: InProcess) -> None:
    ours.say("SET a 1")
    assert evictor_of(ours, "noeviction").victims(LOTS, START_MS) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_keyspace_has_no_victims(policy: str, ours: InProcess) -> None:
    assert evictor_of(ours, policy).victims(LOTS, START_MS) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_volatile_policies_take_only_keys_with_a_deadline(policy: str, ours: InProcess) -> None:
    evictor = evictor_of(ours, policy)
    for number in range(50):
        ours.run(b"SET", b"persistent:%d" % number, b"1")
        ours.run(b"SET", b"volatile:%d" % number, b"1", b"EX", b"1000")
    victims = evictor.victims(LOTS, START_MS)
    names = [key for _db, key in victims]
    assert len(names) == len(set(names)), "a key was chosen twice"
    if policy.startswith("volatile"):
        assert len(names) > 40
        assert all(name.startswith(b"volatile") for name in names)
    else:
        assert {name[:4] for name in names} == {b"pers", b"vola"}


@pytest.mark.parametrize("policy", POLICIES)
def test_as_much_is_taken_as_is_needed_and_no_more(policy: str, ours: InProcess) -> None:
    for number in range(100):
        ours.run(b"SET", b"key:%d" % number, bytes(10_000), b"EX", b"1000")
    before = ours.databases[0].bytes_used
    evictor = evictor_of(ours, policy)
    for db, key in evictor.victims(95_000, START_MS):
        ours.databases[db].delete(key)
    assert 95_000 <= before - ours.databases[0].bytes_used + 2_000 < 110_000


@pytest.mark.parametrize("policy", ["allkeys-random", "allkeys-lru"])
def test_one_call_is_bounded(policy: str, ours: InProcess) -> None:
    for number in range(5 * VICTIMS_MAX):
        ours.run(b"SET", b"key:%d" % number, b"1")
    evictor = evictor_of(ours, policy)
    first = evictor.victims(LOTS, START_MS)
    assert len(first) == VICTIMS_MAX
    assert evictor.leaving_bytes > VICTIMS_MAX * 80
    assert not set(first) & set(evictor.victims(LOTS, START_MS)), "chosen again before they were deleted"
    evictor.settled(first)
    evictor.settled(first)
    assert set(evictor.victims(LOTS, START_MS)) & set(first)


def test_keys_of_every_database_may_go(ours: InProcess) -> None:
    for number in range(16):
        ours.databases[number].set(b"key", b"1")
    for policy in ("allkeys-random", "allkeys-lru"):
        evictor = evictor_of(ours, policy)
        assert sorted(db for db, _key in evictor.victims(LOTS, START_MS)) == list(range(16))


def test_lru_takes_mostly_the_keys_that_were_not_used_for_longest(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lru")
    keys = fill(ours, evictor, 2_000)
    oldest = set(keys[:1_000])
    gone = evict(ours, evictor, 500)
    # Random choice would take half of them from the older half.
    assert sum(key in oldest for key in gone) > 480


@pytest.mark.parametrize("tagged", [False, True])
def test_many_victims_at_once_are_old_too(tagged: bool, ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lru")
    keys = [b"{tag}%d" % number if tagged else b"key:%d" % number for number in range(6_000)]
    for key in keys:
        ours.run(b"SET", key, b"value")
        evictor.touch(0, [key], ours.clock.now_ms)
        ours.pass_ms(100)
    gone = {key for _db, key in evictor.victims(600 * 150, ours.clock.now_ms)}
    assert 500 < len(gone) < 800
    assert len(gone & set(keys[:2_000])) > 0.95 * len(gone)


def test_using_a_key_saves_it(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lru")
    keys = fill(ours, evictor, 1_000)
    for key in keys[:100]:
        evictor.touch(0, [key], ours.clock.now_ms)
    gone = set(evict(ours, evictor, 300))
    assert len(gone & set(keys[:100])) <= 3


def test_a_pooled_key_that_is_used_meanwhile_is_spared(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lru", samples=64)
    keys = fill(ours, evictor, 10)
    assert evict(ours, evictor, 1) == keys[:1]
    evictor.touch(0, keys[1:2], ours.clock.now_ms)
    assert evict(ours, evictor, 1) != keys[1:2]


def test_more_samples_come_closer_to_exact_lru() -> None:
    shares = []
    for samples in (1, 5, 20):
        ours = InProcess()
        evictor = evictor_of(ours, "allkeys-lru", samples)
        keys = fill(ours, evictor, 1_000)
        gone = evict(ours, evictor, 200)
        shares.append(len(set(gone) & set(keys[:200])))
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]


def test_lfu_spares_what_is_used_often_even_if_not_lately(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lfu")
    hot = [b"hot:%d" % number for number in range(20)]
    for key in hot:
        ours.run(b"SET", key, b"1")
        for _ in range(200):
            evictor.touch(0, [key], ours.clock.now_ms)
    cold = fill(ours, evictor, 300)
    gone = evict(ours, evictor, 250)
    assert not set(gone) & set(hot)
    assert set(gone) <= set(cold)


def test_volatile_ttl_takes_what_would_go_soonest(ours: InProcess) -> None:
    for number in range(1_000):
        ours.run(b"SET", b"key:%d" % number, b"1", b"EX", b"%d" % (number + 10))
    gone = evict(ours, evictor_of(ours, "volatile-ttl"), 300)
    assert sum(int(key[4:]) < 500 for key in gone) > 285


def test_random_choice_takes_every_key_in_the_end(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-random")
    keys = fill(ours, evictor, 100)
    assert sorted(evict(ours, evictor, 100)) == sorted(keys)
    assert evictor.victims(1, START_MS) == []


def test_tracking_follows_the_policy(ours: InProcess) -> None:
    evictor = evictor_of(ours, "noeviction")
    ours.say("SET a 1")
    for policy, tracks, lfu in (
        ("noeviction", False, False), ("allkeys-lru", True, False), ("volatile-lru", True, False),
        ("allkeys-lfu", True, True), ("volatile-ttl", False, False),
    ):  # fmt: skip
        evictor.configure(policy, 5, START_MS)
        assert evictor.is_tracking is tracks
        access = ours.databases[0].access
        assert (access is not None) is tracks
        assert access is None or access.lfu is lfu


def test_what_is_known_of_use_outlives_a_change_from_allkeys_to_volatile(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lru")
    ours.say("SET a 1")
    evictor.touch(0, [b"a"], ours.clock.now_ms)
    ours.pass_ms(5_000)
    evictor.configure("volatile-lru", 5, ours.clock.now_ms)
    assert ours.say("OBJECT IDLETIME a") == 5


def test_asking_for_idle_time_begins_tracking_and_an_hour_without_asking_ends_it(ours: InProcess) -> None:
    evictor = evictor_of(ours, "noeviction")
    ours.say("SET a 1")
    tracking = [evictor.is_tracking]
    ours.say("OBJECT IDLETIME a")
    tracking.append(evictor.is_tracking)
    ours.pass_ms(50_000)
    evictor.touch(0, [b"a"], ours.clock.now_ms)
    ours.pass_ms(2_000)
    assert ours.say("OBJECT IDLETIME a") == 2
    evictor.drop_unasked(ours.clock.now_ms + 3_600_000)
    tracking.append(evictor.is_tracking)
    evictor.drop_unasked(ours.clock.now_ms + 3_600_001)
    tracking.append(evictor.is_tracking)
    assert tracking == [False, True, True, False]


def test_object_freq_and_idletime_answer_by_policy(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lfu")
    ours.say("SET a 1")
    evictor.touch(0, [b"a"], ours.clock.now_ms)
    assert ours.say("OBJECT FREQ a") == LFU_START
    assert b"An LFU maxmemory policy is selected" in repr(ours.say("OBJECT IDLETIME a")).encode()
    evictor.configure("allkeys-lru", 5, ours.clock.now_ms)
    assert b"An LFU maxmemory policy is not selected" in repr(ours.say("OBJECT FREQ a")).encode()
    assert ours.say("OBJECT IDLETIME a") == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_choosing_among_few_keys_gives_up_soon(policy: str, ours: InProcess) -> None:
    for number in range(3):
        ours.run(b"SET", b"key:%d" % number, bytes(100_000), b"EX", b"1000")
    evictor = evictor_of(ours, policy)
    chosen: list[tuple[int, bytes]] = []
    # Counting what the slots hold is one step for each slot; drawing in vain takes what is left.
    assert steps_of(lambda: chosen.extend(evictor.victims(LOTS, START_MS))) < 2 * SLOTS
    assert len(chosen) == 3


# -- the table of use ------------------------------------------------------------------------------------------------


def table(**options: object) -> AccessTable:
    return AccessTable(START_MS, **options)  # type: ignore[arg-type]


def test_idle_time_is_at_least_the_time_since_tracking_began() -> None:
    access = table()
    assert access.idle_ms(b"a", START_MS) == 0
    assert access.idle_ms(b"a", START_MS + 5_000) == 5_000
    access.touch(b"a", START_MS + 5_000)
    assert 0 <= access.idle_ms(b"a", START_MS + 5_000) < 64
    assert 1_000 <= access.idle_ms(b"a", START_MS + 6_000) < 1_064


def test_growing_keeps_what_is_known() -> None:
    access = table()
    keys = [b"key:%d" % number for number in range(100)]
    for number, key in enumerate(keys):
        access.touch(key, START_MS + 1_000 * number)
    before = [access.idle_ms(key, START_MS + 200_000) for key in keys]
    access.reserve(100_000)
    assert not access.is_short_of(100_000)
    assert [access.idle_ms(key, START_MS + 200_000) for key in keys] == before


def lfu_counts(uses: int, log_factor: int, fraction: Callable[[], float]) -> int:
    access = table(lfu=True, fraction=fraction, lfu_log_factor=log_factor)
    for _ in range(uses):
        access.touch(b"key", START_MS)
    return access.frequency(b"key", START_MS)


@pytest.mark.parametrize(
    ("log_factor", "uses", "low", "high"),
    # The table of Redis's documentation, "The new LFU mode": counter by hits and factor.
    [
        (0, 100, 100, 110), (0, 1_000, 255, 255), (1, 1_000, 40, 60), (10, 100, 7, 13), (10, 1_000, 14, 22),
        (100, 1_000, 6, 14),
    ],
)  # fmt: skip
def test_the_counter_grows_as_redis_documents(log_factor: int, uses: int, low: int, high: int) -> None:
    assert low <= lfu_counts(uses, log_factor, random.Random(5).random) <= high


def test_the_counter_decays_by_the_minute() -> None:
    access = table(lfu=True, lfu_log_factor=0)
    for _ in range(20):
        access.touch(b"key", START_MS)
    first = access.frequency(b"key", START_MS)
    assert access.frequency(b"key", START_MS + 5 * MINUTE_MS) == first - 5
    assert access.frequency(b"key", START_MS + 5_000 * MINUTE_MS) == 0
    access.lfu_decay_minutes = 0
    assert access.frequency(b"key", START_MS + 5_000 * MINUTE_MS) == first


def test_flushing_forgets_use(ours: InProcess) -> None:
    evictor = evictor_of(ours, "allkeys-lfu")
    ours.say("SET a 1")
    for _ in range(50):
        evictor.touch(0, [b"a"], ours.clock.now_ms)
    ours.say("FLUSHDB")
    ours.say("SET a 1")
    assert ours.say("OBJECT FREQ a") == LFU_START
