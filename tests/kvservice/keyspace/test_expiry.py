"""The expiry wheel names what is due, all of it, in slices, and keeps nothing that is gone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.keyspace.expiry import CHUNK_KEYS_MAX, FAR_BITS, NEAR_BITS, ExpiryIndex, Rim, expire_slice
from kvservice.keyspace.slots import slot_of
from tests.harness.inprocess import START_MS, InProcess
from tests.harness.work import steps_of

NEAR_MS = 1 << NEAR_BITS
FAR_MS = 1 << FAR_BITS
DAY_MS = 86_400_000
ROUNDS_MAX = 100_000


def drain(index: ExpiryIndex, now_ms: int, limit: int = 1000) -> list[tuple[int, bytes]]:
    """Take everything that is due."""
    taken: list[tuple[int, bytes]] = []
    for _ in range(ROUNDS_MAX):
        due = index.due(now_ms, limit)
        assert len(due) <= limit
        taken += due
        next_ms = index.next_deadline_ms()
        if next_ms is None or next_ms > now_ms:
            return taken
    raise AssertionError("something stays due for ever")


def stored(index: ExpiryIndex) -> int:
    """Return how many keys the index holds."""
    return sum(map(len, chunks_of(index.near) + chunks_of(index.far)))


def chunks_of(rim: Rim) -> list[dict[bytes, int]]:
    """Return the dicts in which a rim holds its keys."""
    return [*rim.buckets.values(), *(chunk for chunks in rim.full.values() for chunk in chunks)]


def test_a_key_is_due_within_a_bucket_of_its_deadline_and_never_before() -> None:
    for deadline_ms in (START_MS, START_MS + 1, START_MS + FAR_MS * 3 + 5, START_MS + DAY_MS):
        index = ExpiryIndex()
        index.add(b"key", deadline_ms)
        assert drain(index, deadline_ms - 1) == []
        assert drain(index, deadline_ms + NEAR_MS) == [(deadline_ms, b"key")]
        assert index.next_deadline_ms() is None


def test_what_is_due_is_counted_until_it_is_taken() -> None:
    index = ExpiryIndex()
    now_ms = START_MS + 3 * FAR_MS
    assert index.count_due(now_ms) == 0
    for number in range(CHUNK_KEYS_MAX + 10):
        index.add(b"far%d" % number, START_MS)
    assert index.count_due(START_MS - 1) == 0
    assert index.count_due(now_ms) == CHUNK_KEYS_MAX + 10
    index.due(START_MS - 2 * FAR_MS, 10)
    for _ in range(CHUNK_KEYS_MAX):
        index.due(START_MS, 10)
    assert index.count_due(now_ms) == stored(index) == CHUNK_KEYS_MAX + 10
    taken = len(index.due(now_ms, 1000))
    assert index.count_due(now_ms) == stored(index) == CHUNK_KEYS_MAX + 10 - taken
    drain(index, now_ms)
    assert index.count_due(now_ms) == 0


def test_next_deadline_is_when_due_has_something_to_name() -> None:
    index = ExpiryIndex()
    assert index.next_deadline_ms() is None
    index.add(b"key", START_MS)
    drain(index, START_MS - NEAR_MS)
    next_ms = index.next_deadline_ms()
    assert next_ms is not None
    assert START_MS <= next_ms < START_MS + NEAR_MS
    assert index.due(next_ms - 1, 10) == []
    assert index.due(next_ms, 10) == [(START_MS, b"key")]


def test_an_earlier_key_that_comes_later_is_due_first() -> None:
    index = ExpiryIndex()
    index.add(b"late", START_MS + 5 * FAR_MS)
    drain(index, START_MS)
    index.add(b"early", START_MS + NEAR_MS)
    index.add(b"middle", START_MS + 2 * FAR_MS)
    assert [key for _, key in drain(index, START_MS + 9 * FAR_MS)] == [b"early", b"middle", b"late"]


def test_renewing_one_key_a_million_times_keeps_one_entry() -> None:
    index = ExpiryIndex()
    deadline_ms = START_MS
    index.add(b"session", deadline_ms)
    for _ in range(1_000_000):
        index.discard(b"session", deadline_ms)
        deadline_ms += 7
        index.add(b"session", deadline_ms)
    assert stored(index) == len(index.near.buckets) + len(index.far.buckets) == 1


def test_a_bucket_of_very_many_keys_is_kept_in_pieces() -> None:
    index = ExpiryIndex()
    count = 3 * CHUNK_KEYS_MAX + 5
    names = [b"key:%d" % number for number in range(count)]
    for name in names:
        index.add(name, START_MS)
    assert max(map(len, index.far.buckets.values())) <= CHUNK_KEYS_MAX
    for name in names[::2]:
        index.discard(name, START_MS)
    assert sorted(key for _, key in drain(index, START_MS + NEAR_MS, 77)) == sorted(names[1::2])
    assert stored(index) == 0
    assert not index.near.full
    assert not index.far.full


@pytest.mark.parametrize("order", [1, -1])
def test_discarding_every_key_of_a_large_bucket_leaves_nothing(order: int) -> None:
    index = ExpiryIndex()
    names = [b"key:%d" % number for number in range(2 * CHUNK_KEYS_MAX + 5)]
    for name in names:
        index.add(name, START_MS)
    for name in names[::order]:
        index.discard(name, START_MS)
    assert stored(index) == 0
    assert not index.far.buckets
    assert not index.far.full
    assert index.next_deadline_ms() is None


@pytest.mark.parametrize("count", [10_000, 50_000])
def test_the_work_of_a_call_does_not_depend_on_how_many_keys_there_are(count: int) -> None:
    index, limit = ExpiryIndex(), 200
    for number in range(count):
        key, deadline_ms = b"key:%d" % number, START_MS + number % 1000
        assert steps_of(lambda key=key, deadline_ms=deadline_ms: index.add(key, deadline_ms)) < 40  # type: ignore[misc]
    taken = 0
    for _ in range(ROUNDS_MAX):
        far, left, due = sum(map(len, chunks_of(index.far))), stored(index), list[tuple[int, bytes]]()
        # Some fifteen steps for each of the keys that move, of which there are twice as many as may be taken.
        assert steps_of(lambda due=due: due.extend(index.due(START_MS + 2000, limit))) < 50 * limit  # type: ignore[misc]
        assert far - sum(map(len, chunks_of(index.far))) <= 2 * limit, "what moves from rim to rim at one call"
        assert left - stored(index) == len(due) <= limit
        # A dict that grows moves all its entries.
        assert max(map(len, chunks_of(index.near) + chunks_of(index.far)), default=0) <= CHUNK_KEYS_MAX
        taken += len(due)
        if taken == count:
            return
    raise AssertionError("something stays due for ever")


Change = tuple[str, int, int]


@settings(max_examples=300)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["add", "discard", "pass", "pass far"]),
            st.integers(0, 12),
            st.integers(0, 3 * FAR_MS) | st.integers(0, 1000),
        ),
        max_size=60,
    ),
    limit=st.integers(1, 5),
)
def test_the_index_agrees_with_a_plain_dict(changes: list[Change], limit: int) -> None:
    index, plain, now_ms = ExpiryIndex(), dict[bytes, int](), START_MS
    for what, number, amount in changes:
        key = b"%d" % number
        if what.startswith("pass"):
            now_ms += amount if what == "pass far" else amount % 300
            for deadline_ms, name in drain(index, now_ms, limit):
                assert deadline_ms <= now_ms
                assert plain.pop(name) == deadline_ms
            assert all(deadline_ms > now_ms - NEAR_MS for deadline_ms in plain.values())
            continue
        if key in plain:
            index.discard(key, plain.pop(key))
        if what == "add":
            plain[key] = now_ms + amount
            index.add(key, plain[key])
        assert stored(index) == len(plain)
    assert sorted(drain(index, now_ms + 9 * FAR_MS, limit)) == sorted((due, key) for key, due in plain.items())


def test_a_slice_removes_expired_keys_only_and_says_whether_more_are_due(ours: InProcess) -> None:
    for number in range(10):
        ours.run(b"SET", b"short:%d" % number, b"1", b"PX", b"50")
        ours.run(b"SET", b"long:%d" % number, b"1", b"PX", b"900000")
        ours.run(b"SET", b"ever:%d" % number, b"1")
    ours.pass_ms(500)
    touched: list[int] = []
    assert expire_slice(ours.databases, ours.clock.stamp_ms, 7, touched.append) == (7, True)
    assert expire_slice(ours.databases, ours.clock.stamp_ms, 7, touched.append) == (3, False)
    assert ours.say("DBSIZE") == 20
    assert sorted(touched) == sorted(slot_of(b"short:%d" % number) for number in range(10))


def test_a_renewed_key_is_not_removed_at_its_first_deadline(ours: InProcess) -> None:
    ours.say("SET a 1 PX 50")
    ours.say("PEXPIRE a 5000")
    ours.say("SET b 1 PX 50")
    ours.say("PERSIST b")
    ours.say("SET c 1 PX 50")
    ours.say("SET c 1")
    ours.pass_ms(1000)
    assert expire_slice(ours.databases, ours.clock.stamp_ms, 10) == (0, False)
    assert ours.say("EXISTS a b c") == 3


def test_removal_cannot_be_observed(ours: InProcess) -> None:
    twin = InProcess()
    lines = ["SET a 1 PX 50", "SET b 2 PX 50", "SET c 3", "INCR a", "RENAME b d", "GET a", "KEYS *", "EXISTS a b c d"]
    for node in (ours, twin):
        for line in lines[:3]:
            node.say(line)
        node.pass_ms(1000)
    assert expire_slice(ours.databases, ours.clock.stamp_ms, 10) == (2, False)
    assert [ours.say(line) for line in lines[3:]] == [twin.say(line) for line in lines[3:]]
