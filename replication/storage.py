"""The Raft log on disk: entries and hard state as records of the write-ahead log.

Layout: record kind 1 is an entry, its index is the record's, body = kind u8, term u64, stamp_ms u64 (little endian),
payload. Record kind 2 is a hard state, body = term u64, vote (UTF-8); its index is the last entry's. An entry whose
index is not after the last one replaces the tail from there.

Guarantees: ``recover`` returns the last hard state and the end of the log; entries come back in order, replaced ones do
not come back: a leader replaces only by entries of a later term, so what is at or behind the place and of an earlier
term is gone.
Leaves to the caller: what is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from persistence.errors import Damaged
from persistence.record import WalRecord
from persistence.wal import Wal
from replication.core.messages import Entry, HardState

ENTRY_RECORD = 1
HARD_STATE_RECORD = 2

_ENTRY = Struct("<BQQ")
_TERM = Struct("<Q")


class LogEntry(NamedTuple):
    """A record of the log, decoded for people: ``redan log`` prints it."""

    kind: str
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    term: int
    stamp_ms: int
    payload: bytes


class LogEnd(NamedTuple):
    """Where the log ends, the hard state it holds, and the latest stamp in ms that it has given."""

    last_index: int
    last_term: int
    hard_state: HardState
    last_stamp_ms: int = 0


def encode_entry(entry: Entry) -> WalRecord:
    """Return the record of an entry."""
    return WalRecord(ENTRY_RECORD, entry.index, _ENTRY.pack(entry.kind, entry.term, entry.stamp_ms) + entry.payload)


def decode_entry(record: WalRecord) -> Entry:
    """Return the entry of a record of kind 1."""
    kind, term, stamp_ms = _ENTRY.unpack_from(record.body)
    return Entry(term, record.index, kind, stamp_ms, record.body[_ENTRY.size :])


def encode_hard_state(hard_state: HardState, last_index: int) -> WalRecord:
    """Return the record of a hard state."""
    return WalRecord(HARD_STATE_RECORD, last_index, _TERM.pack(hard_state.term) + hard_state.vote.encode())


def decode_hard_state(record: WalRecord) -> HardState:
    """Return the hard state of a record of kind 2."""
    return HardState(_TERM.unpack_from(record.body)[0], record.body[_TERM.size :].decode())


ENTRY_KIND_NAMES = {0: "noop", 1: "commands", 2: "configuration"}


def decode_record(record: WalRecord) -> LogEntry:
    """Return any record of the log in readable form; kinds unknown here are named by their number."""
    if record.kind == ENTRY_RECORD:
        entry = decode_entry(record)
        name = ENTRY_KIND_NAMES.get(entry.kind, f"kind-{entry.kind}")
        return LogEntry(name, entry.index, entry.term, entry.stamp_ms, entry.payload)
    if record.kind == HARD_STATE_RECORD:
        hard_state = decode_hard_state(record)
        return LogEntry("hard-state", record.index, hard_state.term, 0, hard_state.vote.encode())
    return LogEntry(f"record-{record.kind}", record.index, 0, 0, record.body)


class Storage:
    """The log of one consensus group in one write-ahead log."""

    def __init__(self, wal: Wal) -> None:
        self.wal = wal
        self.last_index = 0
        self._replacements: list[tuple[int, int]] = []
        """(index, term) of entries that took the place of others. Bound: one an election that this node lost."""

    def recover(self, snapshot_index: int, snapshot_term: int) -> LogEnd:
        """Read the whole log once; return its end and the last hard state.

        Raises Damaged if the log does not reach back to the snapshot or has a gap.
        """
        if self.wal.first_index > snapshot_index + 1:
            raise self._gap(self.wal.first_index, snapshot_index)
        last_index, last_term = snapshot_index, snapshot_term
        last_stamp_ms = 0
        hard_state = HardState(snapshot_term, "")
        for record in self.wal.records(0):
            if record.kind == HARD_STATE_RECORD:
                hard_state = decode_hard_state(record)
            elif record.kind == ENTRY_RECORD and record.index > snapshot_index:
                if record.index > last_index + 1:
                    raise self._gap(record.index, last_index)
                entry = decode_entry(record)
                if record.index <= last_index:
                    self._replacements.append((record.index, entry.term))
                last_index, last_term = record.index, entry.term
                last_stamp_ms = max(last_stamp_ms, entry.stamp_ms)
        self.last_index = last_index
        if hard_state.term < last_term:
            hard_state = HardState(last_term, "")
        return LogEnd(last_index, last_term, hard_state, last_stamp_ms)

    def _gap(self, index: int, end: int) -> Damaged:
        reason = f"the log continues at index {index}, but snapshot and log end at {end}"
        return Damaged(str(self.wal.directory), 0, reason)

    def append(self, hard_state: HardState | None, entries: list[Entry], token: int) -> None:
        """Queue hard state and entries for the disk; the log's ``on_durable(token)`` reports them durable."""
        records = [encode_entry(entry) for entry in entries]
        if entries:
            if entries[0].index <= self.last_index:
                self._replacements.append((entries[0].index, entries[0].term))
            self.last_index = entries[-1].index
        if hard_state is not None:
            records.insert(0, encode_hard_state(hard_state, self.last_index))
        self.wal.append(records, token)

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        """Read entries [from_index, to_index] from disk, in order, without those that were replaced."""
        replacements = self._replacements
        for record in self.wal.records(from_index):
            if record.kind != ENTRY_RECORD or not from_index <= record.index <= to_index:
                continue
            entry = decode_entry(record)
            if not any(index <= entry.index and entry.term < term for index, term in replacements):
                yield entry

    def purge(self, before_index: int) -> None:
        """Drop whole segments whose entries are all before ``before_index``."""
        self.wal.purge(before_index)
