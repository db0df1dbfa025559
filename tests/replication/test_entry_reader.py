"""Old entries for a peer that is behind: in parts, in order, and damage only where nothing sound comes before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from persistence.errors import Damaged, StorageError
from replication.core.messages import Entry, EntryKind, HardState
from replication.entry_reader import InlineReader, read_entries
from replication.threaded_reader import ThreadedReader


class TenEntries:
    """A log of ten entries of 100 bytes, of which those from ``damaged_from`` on cannot be read."""

    def __init__(self, damaged_from: int = 99) -> None:
        self.damaged_from = damaged_from

    def append(self, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int) -> None:
        raise NotImplementedError

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        raise NotImplementedError

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        for index in range(from_index, min(to_index, 10) + 1):
            if index >= self.damaged_from:
                raise Damaged("wal", 0, "flipped")
            yield Entry(1, index, EntryKind.COMMANDS, 0, bytes(100))

    def bytes_from(self, index: int) -> int:
        raise NotImplementedError

    def purge(self, before_index: int) -> None:
        raise NotImplementedError


def indexes(found: list[Entry] | StorageError) -> list[int]:
    assert isinstance(found, list)
    return [entry.index for entry in found]


def test_a_part_ends_where_its_bytes_are_enough() -> None:
    assert indexes(read_entries(TenEntries(), 3, 9, 250)) == [3, 4, 5]
    assert indexes(read_entries(TenEntries(), 3, 4, 250)) == [3, 4]


def test_one_entry_comes_however_small_the_part_may_be() -> None:
    assert indexes(read_entries(TenEntries(), 3, 9, 1)) == [3]


def test_what_is_before_the_damage_comes_first_and_then_the_damage() -> None:
    log = TenEntries(damaged_from=5)
    assert indexes(read_entries(log, 3, 9, 10_000)) == [3, 4]
    assert isinstance(read_entries(log, 5, 9, 10_000), Damaged)


def test_a_long_read_pauses_every_few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replication.entry_reader.PAUSE_ENTRIES", 3)
    pauses: list[int] = []
    assert len(indexes(read_entries(TenEntries(), 1, 10, 10_000, lambda: pauses.append(1)))) == 10
    assert len(pauses) == 3


def test_nothing_is_an_error() -> None:
    assert isinstance(read_entries(TenEntries(), 11, 12, 100), Damaged)


def test_parts_come_in_the_order_of_the_calls_and_through_the_given_door() -> None:
    door: SimpleQueue[Callable[[], None]] = SimpleQueue()
    reader = ThreadedReader(TenEntries(), door.put)
    got: list[list[int]] = []
    for start in range(1, 9):
        reader.read(start, start + 2, 1000, lambda found: got.append(indexes(found)))
    for _ in range(8):
        door.get(timeout=30)()
    reader.close()
    assert got == [[start, start + 1, start + 2] for start in range(1, 9)]


def test_the_thread_pauses_in_a_long_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("replication.entry_reader.PAUSE_ENTRIES", 4)
    monkeypatch.setattr("replication.threaded_reader.sleep", pauses.append)
    door: SimpleQueue[Callable[[], None]] = SimpleQueue()
    reader = ThreadedReader(TenEntries(), door.put)
    reader.read(1, 10, 10_000, lambda _found: None)
    door.get(timeout=30)
    reader.close()
    assert len(pauses) == 2


def test_a_reader_without_a_thread_answers_within_the_call() -> None:
    got: list[list[int]] = []
    InlineReader(TenEntries()).read(2, 4, 1000, lambda found: got.append(indexes(found)))
    assert got == [[2, 3, 4]]
